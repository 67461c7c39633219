//! V4L2 controls of cameras and encoders, set according to the configuration.
//!
//! Linux Media Infrastructure userspace API, "Codec Control Reference" and "User Control
//! Reference". Cameras support few controls, and many USB cameras ignore those they list. A control
//! that cannot be set is therefore reported as a note, not as an error.

use crate::camera::v4l2::node::Node;
use crate::config;
use serde::Serialize;
use std::time::{Duration, Instant};
use v4l2r::bindings::*;
use v4l2r::ioctl::{CtrlId, IntoErrno, QueryCtrlFlags};
use v4l2r::{Format, ioctl};

/// The relevant controls and their names.
const CONTROLS: [(u32, &str); 27] = [
    (V4L2_CID_MPEG_VIDEO_BITRATE, "bit rate"),
    (V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, "key frame interval"),
    (V4L2_CID_MPEG_VIDEO_GOP_SIZE, "group of pictures"),
    (V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, "key frame on demand"),
    (V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, "parameter sets with every key frame"),
    (V4L2_CID_MPEG_VIDEO_H264_PROFILE, "profile"),
    (V4L2_CID_MPEG_VIDEO_H264_LEVEL, "level"),
    (V4L2_CID_MPEG_VIDEO_B_FRAMES, "B-frames"),
    (V4L2_CID_ROTATE, "rotation"),
    (V4L2_CID_HFLIP, "horizontal flip"),
    (V4L2_CID_VFLIP, "vertical flip"),
    (V4L2_CID_EXPOSURE_AUTO_PRIORITY, "slower in the dark"),
    (V4L2_CID_BRIGHTNESS, "brightness"),
    (V4L2_CID_CONTRAST, "contrast"),
    (V4L2_CID_SATURATION, "saturation"),
    (V4L2_CID_SHARPNESS, "sharpness"),
    (V4L2_CID_FOCUS_AUTO, "continuous autofocus"),
    (V4L2_CID_AUTO_FOCUS_START, "autofocus on demand"),
    (V4L2_CID_WIDE_DYNAMIC_RANGE, "high dynamic range"),
    (V4L2_CID_AUTO_WHITE_BALANCE, "automatic white balance"),
    (V4L2_CID_AUTO_N_PRESET_WHITE_BALANCE, "white balance preset"),
    (V4L2_CID_RED_BALANCE, "red balance"),
    (V4L2_CID_BLUE_BALANCE, "blue balance"),
    (V4L2_CID_EXPOSURE_AUTO, "exposure mode"),
    (V4L2_CID_EXPOSURE_ABSOLUTE, "exposure time"),
    (V4L2_CID_AUTO_EXPOSURE_BIAS, "exposure compensation"),
    (V4L2_CID_GAIN, "gain"),
];

/// Minimum interval between two requests for a key frame. A key frame is as large as several other
/// frames.
const KEY_FRAME_REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// A control that a device supports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Control {
    /// Name of the control.
    pub name: &'static str,
    /// Identifier of the control (V4L2_CID_…).
    pub id: u32,
    /// Minimum value.
    pub minimum: i32,
    /// Maximum value.
    pub maximum: i32,
    /// Default value.
    pub default: i32,
    /// Current value; `None` for a button.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i32>,
}

/// Queries a control. Returns `None` if the device does not support it.
pub(super) fn query(node: &Node, id: u32) -> Option<v4l2_queryctrl> {
    let ctrl = CtrlId::new(id).ok()?;
    let found: v4l2_queryctrl = ioctl::queryctrl(&node.file, ctrl, QueryCtrlFlags::empty()).ok()?;
    (found.flags & V4L2_CTRL_FLAG_DISABLED == 0).then_some(found)
}

/// Returns the relevant controls of a device.
pub fn list(node: &Node) -> Vec<Control> {
    let control = |(id, name): (u32, &'static str)| {
        let found = query(node, id)?;
        let value = ioctl::g_ctrl(&node.file, id).ok();
        Some(Control {
            name,
            id,
            minimum: found.minimum,
            maximum: found.maximum,
            default: found.default_value,
            value,
        })
    };
    CONTROLS.into_iter().filter_map(control).collect()
}

/// Sets the controls according to the configuration. Must be called before the stream starts:
/// bcm2835-codec accepts REPEAT_SEQ_HEADER only then.
///
/// `codec` states whether the device encodes H.264, `rotation` whether it is responsible for
/// rotating and flipping the picture. Returns notes about settings that the device does not
/// support.
pub fn set(node: &Node, config: &config::Camera, codec: bool, rotation: bool) -> Vec<String> {
    let mut notes = vec![];
    if codec {
        let interval = config.keyframe_interval as i32;
        // The two controls are equivalent. Most drivers have only one of them.
        let period = set_control(node, V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, interval);
        let group = set_control(node, V4L2_CID_MPEG_VIDEO_GOP_SIZE, interval);
        note(&mut notes, "keyframe_interval", interval, period.or(group));
        let bitrate = i32::try_from(config.bitrate).unwrap_or(i32::MAX);
        let got = set_control(node, V4L2_CID_MPEG_VIDEO_BITRATE, bitrate);
        note(&mut notes, "bitrate", bitrate, got);
        // Not configurable: viewers start faster with repeated parameter sets, and streams with
        // B-frames are refused.
        set_control(node, V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, 1);
        set_control(node, V4L2_CID_MPEG_VIDEO_B_FRAMES, 0);
        let high = v4l2_mpeg_video_h264_profile_V4L2_MPEG_VIDEO_H264_PROFILE_HIGH;
        set_control(node, V4L2_CID_MPEG_VIDEO_H264_PROFILE, high as i32);
        // Level 4.0 allows up to 1920x1080 at 30 frames per second (Rec. ITU-T H.264, table A-1).
        let macroblocks = config.width.div_ceil(16) * config.height.div_ceil(16) * config.framerate;
        let level = match macroblocks {
            0..=245_760 => v4l2_mpeg_video_h264_level_V4L2_MPEG_VIDEO_H264_LEVEL_4_0,
            _ => v4l2_mpeg_video_h264_level_V4L2_MPEG_VIDEO_H264_LEVEL_4_2,
        };
        set_control(node, V4L2_CID_MPEG_VIDEO_H264_LEVEL, level as i32);
    }
    if rotation {
        // Set the defaults, too: another program may have left other values.
        let degrees = config.rotation as i32;
        let got = set_control(node, V4L2_CID_ROTATE, degrees);
        note(&mut notes, "rotation", degrees, got.or((degrees == 0).then_some(0)));
        for (id, name, wanted) in
            [(V4L2_CID_HFLIP, "hflip", config.hflip), (V4L2_CID_VFLIP, "vflip", config.vflip)]
        {
            let got = set_control(node, id, i32::from(wanted));
            note(&mut notes, name, i32::from(wanted), got.or((!wanted).then_some(0)));
        }
    }
    notes
}

/// Sets a control. Returns the value that the driver uses, or `None` if it does not support the
/// control.
pub(super) fn set_control(node: &Node, id: u32, value: i32) -> Option<i32> {
    let found = query(node, id)?;
    // Drivers handle values outside the range differently.
    let is_integer = found.type_ == v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER;
    let value = if is_integer { value.clamp(found.minimum, found.maximum) } else { value };
    match ioctl::s_ctrl(&node.file, id, value) {
        Ok(got) => Some(got),
        Err(error) => {
            log::debug!(
                "{}: control {id:#x} = {value}: {}",
                node.path.display(),
                error.into_errno()
            );
            None
        }
    }
}

fn note(notes: &mut Vec<String>, key: &str, wanted: i32, got: Option<i32>) {
    match got {
        Some(got) if got == wanted => {}
        Some(got) => notes.push(format!("{key} = {wanted}: the driver uses {got} instead")),
        None => notes.push(format!("{key} = {wanted}: not supported by the driver")),
    }
}

/// Returns whether the device supports requests for key frames.
pub fn can_force_key_frame(node: &Node) -> bool {
    query(node, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME).is_some()
}

/// Requests a key frame. Returns whether the driver accepts the request.
pub fn force_key_frame(node: &Node) -> bool {
    ioctl::s_ctrl(&node.file, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 1).is_ok()
}

/// Returns a note about a size that differs from the configured one.
pub(crate) fn size_note(config: &config::Camera, got: &Format) -> Option<String> {
    ((got.width, got.height) != (config.width, config.height)).then(|| {
        format!(
            "width = {}, height = {}: the driver uses {}x{} instead",
            config.width, config.height, got.width, got.height
        )
    })
}

/// Returns a note about a frame rate that differs from the configured one.
pub(crate) fn framerate_note(config: &config::Camera, got: Option<f64>) -> Option<String> {
    let wanted = config.framerate;
    match got {
        Some(got) if (got - f64::from(wanted)).abs() < 0.5 => None,
        Some(got) => {
            let got = (got * 100.0).round() / 100.0;
            Some(format!("framerate = {wanted}: the driver uses {got} instead"))
        }
        None => Some(format!("framerate = {wanted}: not supported by the driver")),
    }
}

/// Requests key frames for new viewers, at most one per second.
pub(crate) struct KeyFrames<'a> {
    /// `None` if the device does not support requests for key frames.
    node: Option<&'a Node>,
    last: Option<Instant>,
}

impl<'a> KeyFrames<'a> {
    pub(crate) fn new(node: &'a Node) -> KeyFrames<'a> {
        KeyFrames { node: can_force_key_frame(node).then_some(node), last: None }
    }

    /// Requests a key frame if `wanted` returns true. For one second after a request, `wanted` is
    /// not called.
    pub(crate) fn request_if(&mut self, wanted: impl FnOnce() -> bool) {
        let Some(node) = self.node else { return };
        if self.last.is_none_or(|last| last.elapsed() >= KEY_FRAME_REQUEST_INTERVAL) && wanted() {
            self.last = Some(Instant::now());
            if !force_key_frame(node) {
                self.node = None;
            }
        }
    }
}
