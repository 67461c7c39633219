//! Sensor settings of V4L2 cameras: the controls that match the keys of the configuration.
//!
//! Linux Media Infrastructure userspace API, "User Control Reference" and "Camera Control
//! Reference". The controls for gain and lens position have no unit, so no key can be mapped to
//! them. Settings without a control become notes.

use crate::camera::v4l2::controls::{query, set_control};
use crate::camera::v4l2::node::Node;
use crate::config;
use crate::config::sensor::{Autofocus, AwbMode, HdrMode};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use v4l2r::bindings::*;
use v4l2r::ioctl;

/// Keys that no V4L2 control matches.
const UNMATCHED: [&str; 10] = [
    "lens_position",
    "exposure_mode",
    "analogue_gain",
    "noise_reduction",
    "roi",
    "sensor_mode",
    "noir",
    "overlay",
    "camera_number",
    "buffer_count",
];

/// Units of the color gains of bcm2835-v4l2 (`drivers/staging/vc04_services/bcm2835-camera`).
const GAIN_UNIT: i32 = 1000;

/// Number of entries of the exposure bias menu of bcm2835-v4l2: -4 to 4 stops, in thirds.
const BIAS_THIRDS: i32 = 25;

/// What a control accepts.
#[derive(Debug, Clone, Copy)]
struct Range {
    kind: v4l2_ctrl_type,
    minimum: i32,
    maximum: i32,
    default: i32,
}

/// A device with controls.
trait Controls {
    /// Returns what a control accepts, or `None` if the device does not have it.
    fn range(&self, id: u32) -> Option<Range>;
    /// Sets a control. Returns the value that the driver uses, or `None` if it refuses.
    fn set(&self, id: u32, value: i32) -> Option<i32>;
}

/// The values that this process has replaced, by camera (bus address) and control. A setting that
/// is removed from the configuration must not stay in effect.
static REPLACED: Mutex<BTreeMap<(String, u32), i32>> = Mutex::new(BTreeMap::new());

impl Controls for Node {
    fn range(&self, id: u32) -> Option<Range> {
        let found = query(self, id)?;
        let (kind, minimum, maximum) = (found.type_, found.minimum, found.maximum);
        Some(Range { kind, minimum, maximum, default: found.default_value })
    }

    fn set(&self, id: u32, value: i32) -> Option<i32> {
        let before = ioctl::g_ctrl(&self.file, id).ok();
        let got = set_control(self, id, value)?;
        if let Some(before) = before {
            let mut replaced = REPLACED.lock().unwrap_or_else(PoisonError::into_inner);
            replaced.entry((self.capability.bus_info.clone(), id)).or_insert(before);
        }
        Some(got)
    }
}

/// Sets the controls of a camera. Returns notes about settings that it does not support.
pub(crate) fn set(node: &Node, config: &config::Camera) -> Vec<String> {
    restore(node);
    Setter { device: node, notes: vec![] }.set(config)
}

/// Restores the values that earlier configurations have replaced.
fn restore(node: &Node) {
    let bus = &node.capability.bus_info;
    let mut replaced = REPLACED.lock().unwrap_or_else(PoisonError::into_inner);
    // In the order of the identifiers, and twice: a control may be writable only after another one
    // has left its automatic mode, or the other way around.
    for _ in 0..2 {
        replaced.retain(|(of, id), before| of != bus || set_control(node, *id, *before).is_none());
    }
    replaced.retain(|(of, _), _| of != bus);
}

struct Setter<'a, D> {
    device: &'a D,
    notes: Vec<String>,
}

impl<D: Controls> Setter<'_, D> {
    fn set(mut self, config: &config::Camera) -> Vec<String> {
        self.scaled("brightness", V4L2_CID_BRIGHTNESS, config.brightness, 0.0);
        self.scaled("contrast", V4L2_CID_CONTRAST, config.contrast, 1.0);
        self.scaled("saturation", V4L2_CID_SATURATION, config.saturation, 1.0);
        self.scaled("sharpness", V4L2_CID_SHARPNESS, config.sharpness, 1.0);
        if let Some(mode) = config.autofocus {
            let done = self.autofocus(mode);
            self.check("autofocus", done);
        }
        if let Some(mode) = config.hdr_mode {
            let done = self.hdr(mode);
            self.check("hdr_mode", done);
        }
        if let Some(gains) = config.colour_gains {
            let done = self.colour_gains(gains);
            self.check("colour_gains", done);
        } else if let Some(mode) = config.awb_mode {
            let done = self.white_balance(mode);
            self.check("awb_mode", done);
        }
        if let Some(time) = config.exposure_time {
            let done = self.exposure_time(time);
            self.check("exposure_time", done);
        }
        if let Some(stops) = config.exposure_value {
            let done = self.exposure_value(stops);
            self.check("exposure_value", done);
        }
        for key in config.sensor_settings() {
            if UNMATCHED.contains(&key) {
                self.notes.push(format!("{key}: V4L2 has no control for it"));
            }
        }
        self.notes
    }

    /// Sets an integer control whose default corresponds to `normal`. One less is its minimum, one
    /// more its maximum.
    fn scaled(&mut self, key: &str, id: u32, value: Option<f64>, normal: f64) {
        let Some(value) = value else { return };
        let range = self.device.range(id);
        let is_integer = |range: &Range| range.kind == v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER;
        let done = range.filter(is_integer).is_some_and(|range| {
            let offset = (value - normal).clamp(-1.0, 1.0);
            let end = if offset < 0.0 { range.minimum } else { range.maximum };
            let distance = (f64::from(end) - f64::from(range.default)).abs();
            let target = f64::from(range.default) + offset * distance;
            self.device.set(id, target.round() as i32).is_some()
        });
        self.check(key, done);
        if done && value > normal + 1.0 {
            self.notes.push(format!("{key} = {value}: the driver's maximum is used"));
        }
    }

    fn autofocus(&self, mode: Autofocus) -> bool {
        match mode {
            Autofocus::Manual => self.exact(V4L2_CID_FOCUS_AUTO, 0),
            Autofocus::Continuous => self.exact(V4L2_CID_FOCUS_AUTO, 1),
            Autofocus::Auto => {
                // Continuous focusing would prevent it.
                self.exact(V4L2_CID_FOCUS_AUTO, 0);
                self.device.set(V4L2_CID_AUTO_FOCUS_START, 1).is_some()
            }
        }
    }

    fn hdr(&self, mode: HdrMode) -> bool {
        match mode {
            HdrMode::Off => self.exact(V4L2_CID_WIDE_DYNAMIC_RANGE, 0),
            HdrMode::Auto | HdrMode::Sensor => self.exact(V4L2_CID_WIDE_DYNAMIC_RANGE, 1),
            HdrMode::SingleExposure => false,
        }
    }

    fn white_balance(&self, mode: AwbMode) -> bool {
        let preset = match mode {
            AwbMode::Auto => v4l2_auto_n_preset_white_balance_V4L2_WHITE_BALANCE_AUTO,
            // Both are lamps with a filament.
            AwbMode::Incandescent | AwbMode::Tungsten => {
                v4l2_auto_n_preset_white_balance_V4L2_WHITE_BALANCE_INCANDESCENT
            }
            AwbMode::Fluorescent => v4l2_auto_n_preset_white_balance_V4L2_WHITE_BALANCE_FLUORESCENT,
            AwbMode::Daylight => v4l2_auto_n_preset_white_balance_V4L2_WHITE_BALANCE_DAYLIGHT,
            AwbMode::Cloudy => v4l2_auto_n_preset_white_balance_V4L2_WHITE_BALANCE_CLOUDY,
            AwbMode::Indoor => return false,
        };
        self.exact(V4L2_CID_AUTO_N_PRESET_WHITE_BALANCE, preset as i32)
            || mode == AwbMode::Auto && self.exact(V4L2_CID_AUTO_WHITE_BALANCE, 1)
    }

    /// Other drivers have these controls, too, but their values are not gains.
    fn colour_gains(&self, gains: [f64; 2]) -> bool {
        let ids = [V4L2_CID_RED_BALANCE, V4L2_CID_BLUE_BALANCE];
        let are_gains = |id: &u32| self.device.range(*id).is_some_and(|r| r.default == GAIN_UNIT);
        let manual = v4l2_auto_n_preset_white_balance_V4L2_WHITE_BALANCE_MANUAL as i32;
        ids.iter().all(are_gains)
            && self.exact(V4L2_CID_AUTO_N_PRESET_WHITE_BALANCE, manual)
            && std::iter::zip(ids, gains).all(|(id, gain)| {
                let value = (gain * f64::from(GAIN_UNIT)).round() as i32;
                self.device.set(id, value).is_some()
            })
    }

    fn exposure_time(&self, microseconds: u32) -> bool {
        let manual = v4l2_exposure_auto_type_V4L2_EXPOSURE_MANUAL as i32;
        // Some cameras keep controlling the gain; they have only this mode.
        let shutter = v4l2_exposure_auto_type_V4L2_EXPOSURE_SHUTTER_PRIORITY as i32;
        if !self.exact(V4L2_CID_EXPOSURE_AUTO, manual) {
            self.exact(V4L2_CID_EXPOSURE_AUTO, shutter);
        }
        // In units of 100 microseconds.
        let value = ((microseconds + 50) / 100).max(1) as i32;
        self.device.set(V4L2_CID_EXPOSURE_ABSOLUTE, value).is_some()
    }

    fn exposure_value(&self, stops: f64) -> bool {
        let id = V4L2_CID_AUTO_EXPOSURE_BIAS;
        let Some(range) = self.device.range(id) else { return false };
        let is_in_thirds = range.kind == v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU
            && range.maximum - range.minimum + 1 == BIAS_THIRDS;
        let value = if is_in_thirds {
            range.default + (stops * 3.0).round() as i32
        } else if range.kind == v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER {
            (stops * 1000.0).round() as i32
        } else {
            return false;
        };
        self.device.set(id, value.clamp(range.minimum, range.maximum)).is_some()
    }

    /// Sets a control. Returns whether the driver uses this value.
    fn exact(&self, id: u32, value: i32) -> bool {
        self.device.set(id, value) == Some(value)
    }

    fn check(&mut self, key: &str, done: bool) {
        if !done {
            self.notes.push(format!("{key}: not supported by the driver"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Controls that accept every value in their range.
    struct Fake {
        ranges: BTreeMap<u32, Range>,
        values: RefCell<BTreeMap<u32, i32>>,
    }

    impl Controls for Fake {
        fn range(&self, id: u32) -> Option<Range> {
            self.ranges.get(&id).copied()
        }

        fn set(&self, id: u32, value: i32) -> Option<i32> {
            let range = self.range(id)?;
            (range.minimum..=range.maximum).contains(&value).then(|| {
                self.values.borrow_mut().insert(id, value);
                value
            })
        }
    }

    impl Fake {
        fn new(controls: &[(u32, v4l2_ctrl_type, i32, i32, i32)]) -> Fake {
            let range = |&(id, kind, minimum, maximum, default)| {
                (id, Range { kind, minimum, maximum, default })
            };
            Fake { ranges: controls.iter().map(range).collect(), values: RefCell::default() }
        }

        /// The controls of bcm2835-v4l2, from its source code (Linux 6.12).
        fn bcm2835() -> Fake {
            let integer = v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER;
            let menu = v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU;
            Fake::new(&[
                (V4L2_CID_SATURATION, integer, -100, 100, 0),
                (V4L2_CID_SHARPNESS, integer, -100, 100, 0),
                (V4L2_CID_CONTRAST, integer, -100, 100, 0),
                (V4L2_CID_BRIGHTNESS, integer, 0, 100, 50),
                (V4L2_CID_EXPOSURE_AUTO, menu, 0, 1, 0),
                (V4L2_CID_EXPOSURE_ABSOLUTE, integer, 1, 10_000, 1000),
                (
                    V4L2_CID_AUTO_EXPOSURE_BIAS,
                    v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU,
                    0,
                    24,
                    12,
                ),
                (V4L2_CID_AUTO_N_PRESET_WHITE_BALANCE, menu, 0, 9, 1),
                (V4L2_CID_RED_BALANCE, integer, 1, 7999, 1000),
                (V4L2_CID_BLUE_BALANCE, integer, 1, 7999, 1000),
            ])
        }

        fn apply(&self, config: config::Camera) -> Vec<String> {
            Setter { device: self, notes: vec![] }.set(&config)
        }

        fn value(&self, id: u32) -> Option<i32> {
            self.values.borrow().get(&id).copied()
        }
    }

    #[test]
    fn sets_the_controls_of_a_pi_camera() {
        let camera = Fake::bcm2835();
        let notes = camera.apply(config::Camera {
            brightness: Some(0.5),
            contrast: Some(0.5),
            saturation: Some(0.0),
            sharpness: Some(1.25),
            exposure_time: Some(10_000),
            exposure_value: Some(-1.33),
            awb_mode: Some(AwbMode::Tungsten),
            ..Default::default()
        });
        assert_eq!(notes, [""; 0]);
        for (id, value) in [
            (V4L2_CID_BRIGHTNESS, 75),
            (V4L2_CID_CONTRAST, -50),
            (V4L2_CID_SATURATION, -100),
            (V4L2_CID_SHARPNESS, 25),
            (V4L2_CID_EXPOSURE_AUTO, 1),
            (V4L2_CID_EXPOSURE_ABSOLUTE, 100),
            (V4L2_CID_AUTO_EXPOSURE_BIAS, 8),
            (V4L2_CID_AUTO_N_PRESET_WHITE_BALANCE, 2),
        ] {
            assert_eq!(camera.value(id), Some(value), "{id:#x}");
        }
        assert_eq!(camera.value(V4L2_CID_RED_BALANCE), None);
        let gains = Some([1.5, 2.0]);
        let notes = camera.apply(config::Camera { colour_gains: gains, ..Default::default() });
        assert_eq!(notes, [""; 0]);
        assert_eq!(camera.value(V4L2_CID_AUTO_N_PRESET_WHITE_BALANCE), Some(0));
        assert_eq!(camera.value(V4L2_CID_RED_BALANCE), Some(1500));
        assert_eq!(camera.value(V4L2_CID_BLUE_BALANCE), Some(2000));
    }

    #[test]
    fn scales_to_the_range_of_the_driver() {
        let integer = v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER;
        let camera = Fake::new(&[(V4L2_CID_CONTRAST, integer, 0, 255, 95)]);
        for (contrast, value) in [(0.0, 0), (0.2, 19), (1.0, 95), (1.5, 175), (2.0, 255)] {
            let contrast = Some(contrast);
            let notes = camera.apply(config::Camera { contrast, ..Default::default() });
            assert_eq!(notes, [""; 0]);
            assert_eq!(camera.value(V4L2_CID_CONTRAST), Some(value));
        }
    }

    #[test]
    fn touches_nothing_without_settings() {
        let camera = Fake::bcm2835();
        assert_eq!(camera.apply(config::Camera::default()), [""; 0]);
        assert!(camera.values.borrow().is_empty());
    }

    #[test]
    fn notes_what_the_camera_lacks() {
        let boolean = v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN;
        let integer = v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER;
        let camera = Fake::new(&[
            (V4L2_CID_FOCUS_AUTO, boolean, 0, 1, 1),
            (V4L2_CID_AUTO_WHITE_BALANCE, boolean, 0, 1, 1),
            (V4L2_CID_SATURATION, integer, 0, 128, 64),
            (V4L2_CID_RED_BALANCE, integer, 0, 255, 128),
            (V4L2_CID_BLUE_BALANCE, integer, 0, 255, 128),
        ]);
        let notes = camera.apply(config::Camera {
            autofocus: Some(Autofocus::Continuous),
            awb_mode: Some(AwbMode::Auto),
            saturation: Some(8.0),
            ..Default::default()
        });
        assert_eq!(notes, ["saturation = 8: the driver's maximum is used"]);
        assert_eq!(camera.value(V4L2_CID_FOCUS_AUTO), Some(1));
        assert_eq!(camera.value(V4L2_CID_SATURATION), Some(128));
        let notes = camera.apply(config::Camera {
            brightness: Some(0.0),
            autofocus: Some(Autofocus::Auto),
            hdr_mode: Some(HdrMode::Sensor),
            colour_gains: Some([1.0, 1.0]),
            exposure_time: Some(100),
            exposure_value: Some(1.0),
            analogue_gain: Some(2.0),
            noir: true,
            ..Default::default()
        });
        let keys: Vec<&str> = notes.iter().filter_map(|note| note.split(':').next()).collect();
        assert_eq!(
            keys,
            [
                "brightness",
                "autofocus",
                "hdr_mode",
                "colour_gains",
                "exposure_time",
                "exposure_value",
                "analogue_gain",
                "noir"
            ]
        );
        assert_eq!(camera.value(V4L2_CID_RED_BALANCE), None);
    }
}
