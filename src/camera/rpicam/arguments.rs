//! The arguments of rpicam-vid for a camera's configuration.
//!
//! Every value is a number or one of a fixed set of words. The only text of the user's that reaches
//! rpicam-vid is the name of the camera, which consists of letters, digits, `-` and `_`; it is part
//! of the post-processing file.
//!
//! The options follow `core/options.cpp` and `core/video_options.hpp` of rpicam-apps, versions 1.0
//! to 1.13.

use crate::camera::rpicam::options::Options;
use crate::camera::rpicam::overlay;
use crate::camera::rpicam::sensor::{Noir, has_lens};
use crate::config;
use crate::config::sensor::{Autofocus, AwbMode, ExposureMode, HdrMode, NoiseReduction, Overlay};

/// Memory of boards on which the default number of buffers is reduced, in bytes. A Pi Zero 2 W and
/// a Pi 3A+ have 512 MiB.
const SMALL_MEMORY: u64 = 600 * 1024 * 1024;

/// Buffers per stream on boards with little memory; rpicam-vid's default is 6.
///
/// rpicam-vid has two streams: 1080p in YUV420 takes 3.1 MB per buffer, the raw picture of the
/// largest 1080p sensor mode 4.6 MB (IMX477, 2028x1520 with 12 bits). Four buffers take 31 MB of
/// the 64 MiB that a board of this size reserves by default; six take 46 MB, which fails once the
/// memory is fragmented. libcamera uses at least four buffers for the sensor anyway
/// (`min_total_unicam_buffers` of its pipeline for the Pi 0 to 4).
const SMALL_BUFFER_COUNT: u32 = 4;

/// Where rpicam-vid finds its standard input, as a file.
const INPUT: &str = "/proc/self/fd/0";

/// The facts about this machine that the arguments depend on.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Whether the board has little memory.
    pub is_small: bool,
    /// Whether a camera module has a lens that can be moved. `None` if that is unknown.
    pub has_lens: Option<bool>,
    /// The tuning file for a sensor without infrared filter, if the configuration needs one.
    pub noir: Option<Noir>,
}

impl Machine {
    /// Returns the facts about this machine.
    pub fn this() -> Machine {
        let info = rustix::system::sysinfo();
        let memory = info.totalram as u64 * u64::from(info.mem_unit);
        Machine { is_small: memory <= SMALL_MEMORY, has_lens: has_lens(), noir: None }
    }
}

/// How to run rpicam-vid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The arguments.
    pub arguments: Vec<String>,
    /// The standard input: the post-processing file, if there is one.
    pub input: Option<String>,
    /// Settings that have no effect.
    pub notes: Vec<String>,
}

impl Plan {
    /// Plans a run for camera `number`, counted from 0.
    pub fn new(
        config: &config::Camera,
        number: usize,
        options: &Options,
        machine: &Machine,
    ) -> Plan {
        let mut planner = Planner { plan: Plan::default(), options };
        planner.stream(config, number);
        planner.encoder(config);
        planner.sensor(config, machine);
        planner.picture(config);
        planner.overlay(config);
        planner.buffers(config, machine);
        planner.option("output", "-");
        planner.plan
    }
}

struct Planner<'a> {
    plan: Plan,
    options: &'a Options,
}

impl Planner<'_> {
    /// What is captured.
    fn stream(&mut self, config: &config::Camera, number: usize) {
        if number > 0 {
            self.option("camera", number);
        }
        self.option("timeout", 0); // No limit.
        self.option("width", config.width);
        self.option("height", config.height);
        self.option("framerate", config.framerate);
        match config.rotation {
            180 => self.option("rotation", 180),
            90 | 270 => self.note(format!(
                "rotation = {}: rpicam-vid supports only 0 and 180; the picture is not rotated",
                config.rotation
            )),
            _ => {}
        }
        if config.hflip {
            self.flag("hflip");
        }
        if config.vflip {
            self.flag("vflip");
        }
        self.flag("nopreview");
    }

    /// How the pictures are encoded and written.
    fn encoder(&mut self, config: &config::Camera) {
        self.option("codec", "h264");
        self.option("profile", "high");
        // Level 4.0 allows up to 1920x1080 at 30 frames per second. The Pi's encoder also supports
        // 4.2.
        let macroblocks = config.width.div_ceil(16) * config.height.div_ceil(16) * config.framerate;
        self.option("level", if macroblocks <= 245_760 { "4" } else { "4.2" });
        self.option("bitrate", config.bitrate);
        self.option("intra", config.keyframe_interval);
        // Repeat the parameter sets with every key frame, and flush every frame.
        self.flag("inline");
        self.flag("flush");
        // The rest is for machines without H.264 hardware, such as the Pi 5, on which libav and x264
        // encode. The Pi 0 to 4 ignore it (`h264_codec_select` in `encoder/encoder.cpp`).
        // Without the format, libav rejects standard output.
        if self.options.has("libav-format") {
            self.option("libav-format", "h264");
        }
        // Without one of these, x264 makes B-frames. The first is available since version 1.6.0, the
        // second since 1.5.0.
        if self.options.has("low-latency") {
            self.flag("low-latency");
        } else if self.options.has("libav-video-codec-opts") {
            self.option("libav-video-codec-opts", "preset=ultrafast;tune=zerolatency;bf=0");
        }
    }

    /// Lens, exposure, white balance and mode of the sensor.
    fn sensor(&mut self, config: &config::Camera, machine: &Machine) {
        let autofocus = config.autofocus.map(|mode| match mode {
            Autofocus::Manual => "manual",
            Autofocus::Auto => "auto",
            Autofocus::Continuous => "continuous",
        });
        if machine.has_lens == Some(false) {
            // rpicam-vid would ignore these settings.
            for (key, is_set) in [
                ("autofocus", autofocus.is_some()),
                ("lens_position", config.lens_position.is_some()),
            ] {
                if is_set {
                    self.note(format!("{key}: the lens of this camera cannot be moved"));
                }
            }
        } else {
            self.setting("autofocus", "autofocus-mode", autofocus);
            self.setting("lens_position", "lens-position", config.lens_position);
        }
        self.hdr(config.hdr_mode);
        let awb = config.awb_mode.map(|mode| match mode {
            AwbMode::Auto => "auto",
            AwbMode::Incandescent => "incandescent",
            AwbMode::Tungsten => "tungsten",
            AwbMode::Fluorescent => "fluorescent",
            AwbMode::Indoor => "indoor",
            AwbMode::Daylight => "daylight",
            AwbMode::Cloudy => "cloudy",
        });
        self.setting("awb_mode", "awb", awb);
        let gains = config.colour_gains.map(|gains| join(&gains, ","));
        self.setting("colour_gains", "awbgains", gains);
        let exposure = config.exposure_mode.map(|mode| match mode {
            ExposureMode::Normal => "normal",
            ExposureMode::Short => "short",
            ExposureMode::Long => "long",
        });
        self.setting("exposure_mode", "exposure", exposure);
        self.setting("exposure_time", "shutter", config.exposure_time);
        self.setting("analogue_gain", "gain", config.analogue_gain);
        self.setting("exposure_value", "ev", config.exposure_value);
        let mode = config.sensor_mode.map(|mode| join(&mode, ":") + ":P"); // Packed.
        self.setting("sensor_mode", "mode", mode);
        match &machine.noir {
            Some(Noir::File(path)) => {
                self.setting("noir", "tuning-file", Some(path.display()));
            }
            Some(Noir::Missing(reason)) => self.note(format!("noir: {reason}")),
            Some(Noir::Chosen) | None => {}
        }
    }

    fn hdr(&mut self, mode: Option<HdrMode>) {
        let word = match mode {
            None => None,
            Some(HdrMode::SingleExposure) if !self.options.hdr_takes_name() => {
                self.unknown("hdr_mode = \"single-exposure\"");
                None
            }
            Some(HdrMode::Off) if !self.options.hdr_takes_name() => Some("0"),
            Some(_) if !self.options.hdr_takes_name() => Some("1"),
            Some(HdrMode::Off) => Some("off"),
            Some(HdrMode::Auto) => Some("auto"),
            Some(HdrMode::Sensor) => Some("sensor"),
            Some(HdrMode::SingleExposure) => Some("single-exp"),
        };
        self.setting("hdr_mode", "hdr", word);
    }

    /// Processing of the picture.
    fn picture(&mut self, config: &config::Camera) {
        self.setting("brightness", "brightness", config.brightness);
        self.setting("contrast", "contrast", config.contrast);
        self.setting("saturation", "saturation", config.saturation);
        self.setting("sharpness", "sharpness", config.sharpness);
        let denoise = config.noise_reduction.map(|mode| match mode {
            NoiseReduction::Off => "off",
            NoiseReduction::Minimal => "cdn_off",
            NoiseReduction::Fast => "cdn_fast",
            NoiseReduction::HighQuality => "cdn_hq",
        });
        self.setting("noise_reduction", "denoise", denoise);
        self.setting("roi", "roi", config.roi.map(|region| join(&region, ",")));
    }

    fn overlay(&mut self, config: &config::Camera) {
        if config.overlay == Overlay::Off {
            return;
        }
        if self.options.has("post-process-file") {
            self.option("post-process-file", INPUT);
            self.plan.input = overlay::post_processing(config.overlay, &config.name);
        } else {
            self.unknown("overlay");
        }
    }

    fn buffers(&mut self, config: &config::Camera, machine: &Machine) {
        let default = machine.is_small.then_some(SMALL_BUFFER_COUNT);
        match (config.buffer_count, default) {
            (Some(count), _) => self.setting("buffer_count", "buffer-count", Some(count)),
            (None, Some(count)) if self.options.has("buffer-count") => {
                self.option("buffer-count", count);
            }
            (None, _) => {}
        }
    }

    /// Adds `--option=value` for a key of the configuration, if the key is set and rpicam-vid knows
    /// the option.
    fn setting(&mut self, key: &str, option: &str, value: Option<impl ToString>) {
        let Some(value) = value else { return };
        if self.options.has(option) {
            self.option(option, value);
        } else {
            self.unknown(key);
        }
    }

    /// Adds `--name=value`, in one word: boost requires that for options whose value may be left
    /// out, and a negative number could otherwise be taken for an option.
    fn option(&mut self, name: &str, value: impl ToString) {
        self.plan.arguments.push(format!("--{name}={}", value.to_string()));
    }

    fn flag(&mut self, name: &str) {
        self.plan.arguments.push(format!("--{name}"));
    }

    /// Notes that the installed version does not support a key.
    fn unknown(&mut self, key: &str) {
        self.note(format!(
            "{key}: the installed version of rpicam-vid does not support it: update rpicam-apps"
        ));
    }

    fn note(&mut self, note: String) {
        self.plan.notes.push(note);
    }
}

/// Joins numbers, such as `0.25,0.25,0.5,0.5`.
fn join(numbers: &[impl ToString], separator: &str) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}
