//! The source of a camera that the configuration leaves open.
//!
//! In this order of preference: a device that delivers H.264; a Raspberry Pi camera, through
//! rpicam-vid; a raw camera, if there is an encoder for it; the test card, until a camera is
//! plugged in. Once a real camera has been shown, the test card does not return: an unplugged
//! camera is an error, and is searched for.

use crate::camera::error::SourceError;
use crate::camera::rpicam::Rpicam;
use crate::camera::source::{Output, Source};
use crate::camera::test_card::TestCard;
use crate::camera::v4l2::find;
use crate::camera::{Stop, rpicam, v4l2};
use crate::config;
use std::path::PathBuf;

/// How many times a new node is probed, once per second: udev may not have set its permissions yet,
/// or the camera may still be starting.
const PROBE_ATTEMPTS: u32 = 10;

pub(super) struct Auto {
    config: config::Camera,
    /// Position of this camera among the cameras found, from 0.
    index: usize,
    /// Nodes that the configuration assigns to other cameras.
    taken: Vec<PathBuf>,
    /// The selected device.
    selected: Option<(PathBuf, v4l2::device::Device)>,
    /// Whether rpicam-vid has a camera. Checked once, because the check takes a second.
    rpicam: Option<bool>,
}

enum Choice {
    Device(PathBuf),
    Rpicam,
    TestCard,
}

impl Auto {
    pub fn new(config: &config::Camera, index: usize, taken: Vec<PathBuf>) -> Auto {
        Auto { config: config.clone(), index, taken, selected: None, rpicam: None }
    }

    fn choose(&mut self) -> Choice {
        let taken: Vec<PathBuf> =
            self.taken.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let (mut h264, mut raw) = (vec![], vec![]);
        for path in find::paths().into_iter().filter(|path| !taken.contains(path)) {
            match v4l2::device::usable_kind(&path) {
                Some(find::Kind::H264) => h264.push(path),
                Some(_) => raw.push(path),
                None => {}
            }
        }
        let rpicam = *self.rpicam.get_or_insert_with(rpicam::has_camera);
        let found = h264.into_iter().map(Choice::Device);
        let found = found.chain(rpicam.then_some(Choice::Rpicam));
        let mut found = found.chain(raw.into_iter().map(Choice::Device));
        found.nth(self.index).unwrap_or(Choice::TestCard)
    }

    fn select(&mut self, path: PathBuf) {
        let device = v4l2::device::Device::new(&path, &self.config);
        self.selected = Some((path, device));
    }
}

impl Source for Auto {
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), SourceError> {
        loop {
            // The selected camera has precedence as long as it can be found.
            if let Some((path, device)) = &mut self.selected {
                let path = path.clone();
                let result = device.run(output, stop);
                if !matches!(&result, Err(error) if error.is_absent()) {
                    return result;
                }
                match self.choose() {
                    Choice::Device(other) if other != path => self.select(other),
                    _ => return result,
                }
                output.restart();
                continue;
            }
            match self.choose() {
                Choice::Device(path) => self.select(path),
                Choice::Rpicam => {
                    output.set_source("rpicam-vid (the first camera found)".into());
                    return Rpicam::new(&self.config, 0).run(output, stop);
                }
                Choice::TestCard => {
                    output.set_source("the test card (no camera found)".into());
                    let (mut known, mut attempts) = (find::paths(), 0_u32);
                    TestCard.run_until(output, stop, || {
                        let paths = find::paths();
                        attempts = match paths == known {
                            true => attempts.saturating_sub(1),
                            false => PROBE_ATTEMPTS,
                        };
                        known = paths;
                        attempts > 0 && matches!(self.choose(), Choice::Device(_))
                    })?;
                    if stop.is_set() {
                        return Ok(());
                    }
                    output.restart();
                }
            }
        }
    }
}
