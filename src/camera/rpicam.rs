//! A Raspberry Pi camera, through `rpicam-vid` (called `libcamera-vid` until 2023).
//!
//! The command line follows the "rpicam-apps options reference". It has not been tested on a
//! Raspberry Pi; docs/hardware.md lists the checks to run on one.

use crate::camera::Stop;
use crate::camera::command::Command;
use crate::camera::error::SourceError;
use crate::camera::source::{Output, Source};
use crate::config;
use std::path::Path;

/// Names of the program, the newer one first.
const PROGRAMS: [&str; 2] = ["rpicam-vid", "libcamera-vid"];

pub(super) struct Rpicam {
    arguments: Vec<String>,
    note: Option<String>,
}

impl Rpicam {
    /// Creates the source for camera number `index` of this machine, counting from 0.
    pub fn new(config: &config::Camera, index: usize) -> Rpicam {
        Rpicam { arguments: arguments(config, index), note: note(config) }
    }
}

impl Source for Rpicam {
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), SourceError> {
        if let Some(note) = &self.note {
            output.note(note.clone());
        }
        let Some(program) = PROGRAMS.iter().find(|program| is_installed(program)) else {
            return Err(SourceError::NoRpicam);
        };
        let command = std::iter::once(program.to_string()).chain(self.arguments.clone());
        Command::new(command.collect()).run(output, stop)
    }
}

/// Returns the arguments for rpicam-vid.
pub fn arguments(config: &config::Camera, index: usize) -> Vec<String> {
    let mut arguments = vec![];
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    if index > 0 {
        option("camera", index.to_string());
    }
    option("timeout", "0".into()); // No limit.
    option("codec", "h264".into());
    option("profile", "high".into());
    // Level 4.0 allows up to 1920x1080 at 30 frames per second. The Pi's encoder also supports 4.2.
    let macroblocks = config.width.div_ceil(16) * config.height.div_ceil(16) * config.framerate;
    option("level", if macroblocks <= 245_760 { "4" } else { "4.2" }.into());
    option("width", config.width.to_string());
    option("height", config.height.to_string());
    option("framerate", config.framerate.to_string());
    option("bitrate", config.bitrate.to_string());
    option("intra", config.keyframe_interval.to_string());
    if config.rotation == 180 {
        option("rotation", "180".into());
    }
    if config.hflip {
        arguments.push("--hflip".into());
    }
    if config.vflip {
        arguments.push("--vflip".into());
    }
    // Repeat the parameter sets with every key frame, flush every frame, show no window, write to
    // the pipe.
    arguments.extend(["--inline", "--flush", "--nopreview", "--output", "-"].map(String::from));
    arguments
}

fn note(config: &config::Camera) -> Option<String> {
    matches!(config.rotation, 90 | 270).then(|| {
        format!(
            "rotation = {}: rpicam-vid supports only 0 and 180; the picture is not rotated",
            config.rotation
        )
    })
}

/// Whether rpicam-vid is installed and finds a camera. If it is installed, this takes about a
/// second.
pub(super) fn has_camera() -> bool {
    let Some(program) = PROGRAMS.iter().find(|program| is_installed(program)) else { return false };
    let listing = std::process::Command::new(program).arg("--list-cameras").output();
    // "Available cameras", then one line for each: "0 : imx708 [4608x2592 …] (…)".
    listing.is_ok_and(|listing| {
        [listing.stdout, listing.stderr].iter().any(|text| {
            String::from_utf8_lossy(text).lines().any(|line| line.trim_start().starts_with("0 :"))
        })
    })
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_configuration_as_arguments() {
        let config = config::Camera {
            width: 1920,
            height: 1080,
            framerate: 50,
            bitrate: 4_000_000,
            keyframe_interval: 100,
            rotation: 180,
            hflip: true,
            ..Default::default()
        };
        assert_eq!(
            arguments(&config, 0).join(" "),
            "--timeout 0 --codec h264 --profile high --level 4.2 --width 1920 --height 1080 \
             --framerate 50 --bitrate 4000000 --intra 100 --rotation 180 --hflip --inline --flush \
             --nopreview --output -"
        );
        assert!(arguments(&config, 1).join(" ").starts_with("--camera 1 "));
    }

    #[test]
    fn notes_an_unsupported_rotation() {
        let turned = config::Camera { rotation: 90, ..Default::default() };
        assert!(note(&turned).unwrap().contains("rotation = 90"));
        assert_eq!(note(&config::Camera::default()), None);
    }
}
