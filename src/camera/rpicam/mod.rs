//! A Raspberry Pi camera, through `rpicam-vid` (called `libcamera-vid` until 2023).
//!
//! Versions and builds of rpicam-vid know different options, and end if they are given one that
//! they do not know. So it is asked for its options first ([`Options`]). A setting that it does not
//! support becomes a note.
//!
//! This has been tested with rpicam-vid itself, but not on a Raspberry Pi; docs/hardware.md lists
//! the checks to run on one.

mod arguments;
mod ask;
mod options;
mod overlay;
mod sensor;

pub use arguments::{Machine, Plan};
pub use options::Options;
pub use sensor::Noir;

use crate::camera::Stop;
use crate::camera::command::Command;
use crate::camera::error::SourceError;
use crate::camera::source::{Output, Source};
use crate::config;
use crate::h264;
use std::path::PathBuf;

/// Names of the program, the newer one first.
const PROGRAMS: [&str; 2] = ["rpicam-vid", "libcamera-vid"];

/// What rpicam-vid says if it contains no encoder for this machine (`encoder/encoder.cpp`).
const NO_ENCODER: &str = "Unable to find an appropriate H.264 codec";

pub(super) struct Rpicam {
    config: config::Camera,
    number: usize,
}

impl Rpicam {
    /// Creates the source for a camera. `number` applies if the configuration has no number; it
    /// counts from 0.
    pub fn new(config: &config::Camera, number: usize) -> Rpicam {
        let number = config.camera_number.map_or(number, |number| number as usize);
        Rpicam { config: config.clone(), number }
    }
}

impl Source for Rpicam {
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), SourceError> {
        let Some((name, path)) = installed() else {
            return Err(SourceError::NoRpicam);
        };
        let options = options::of(&path, stop);
        let mut machine = Machine::this();
        if self.config.noir {
            machine.noir = Some(sensor::noir(&path, self.number, stop));
        }
        if stop.is_set() {
            return Ok(());
        }
        let plan = Plan::new(&self.config, self.number, &options, &machine);
        for note in &plan.notes {
            output.note(note.clone());
        }
        let words = std::iter::once(name.to_string()).chain(plan.arguments).collect();
        let mut command = Command::new(words).with_input(plan.input).with_notes(overlay::note);
        command.run(output, stop).map_err(|error| explain(error, &options))
    }
}

/// Adds what to do about an error of rpicam-vid.
fn explain(error: SourceError, options: &Options) -> SourceError {
    match error {
        SourceError::Command { program, reason } if reason.contains(NO_ENCODER) => {
            SourceError::NoRpicamEncoder { program }
        }
        SourceError::Stream(h264::Error::Reordered) if !options.avoids_b_frames() => {
            SourceError::RpicamReorders
        }
        error => error,
    }
}

/// Whether rpicam-vid is installed and finds a camera. If it is installed, this takes about a
/// second.
pub(super) fn has_camera() -> bool {
    installed().is_some_and(|(_, path)| !sensor::cameras(&path, None).is_empty())
}

/// Returns the name and the path of the installed program.
fn installed() -> Option<(&'static str, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    PROGRAMS.into_iter().find_map(|name| {
        let found = std::env::split_paths(&path).map(|folder| folder.join(name));
        Some((name, found.into_iter().find(|path| path.is_file())?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reason: &str) -> String {
        let error = SourceError::Command { program: "rpicam-vid".into(), reason: reason.into() };
        explain(error, &Options::common()).to_string()
    }

    #[test]
    fn explains_that_rpicam_apps_lite_cannot_encode() {
        let lite = message(
            "ended (exit status: 255) without writing anything: ERROR: *** Unable to find an \
             appropriate H.264 codec ***",
        );
        assert!(lite.contains("sudo apt install rpicam-apps)"), "{lite}");
        assert!(lite.contains("rpicam-apps-lite"), "{lite}");
        let other = message("ended (exit status: 255): ERROR: *** no cameras available ***");
        assert!(other.contains("no cameras available"), "{other}");
    }

    #[test]
    fn advises_only_options_that_the_program_has() {
        let message = |options: &Options| {
            explain(SourceError::Stream(h264::Error::Reordered), options).to_string()
        };
        let old = message(&Options::common());
        assert!(old.contains("update rpicam-apps"), "{old}");
        assert!(!old.contains("--"), "{old}");
        // The options that avoid B-frames were given, so the general advice applies.
        let help = "  --output arg\n  --low-latency [=arg(=1)] (=0)\n";
        let new = message(&Options::parse(help).unwrap());
        assert_eq!(new, h264::Error::Reordered.to_string());
    }
}
