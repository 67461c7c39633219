//! Chooses the source of a camera for which the configuration names none.
//!
//! In this order of preference: a device that delivers H.264; a Raspberry Pi camera, through
//! rpicam-vid; a raw camera, if there is an encoder for it; the test card, until a camera is ready.
//! Once a real camera has been shown, the test card does not return: an unplugged camera is an
//! error, and is searched for.

use crate::camera::error::SourceError;
use crate::camera::kind::CameraKind;
use crate::camera::rpicam::Rpicam;
use crate::camera::search::{PiSearch, Schedule};
use crate::camera::source::{Output, Source};
use crate::camera::test_card::TestCard;
use crate::camera::v4l2::find;
use crate::camera::{Stop, v4l2};
use crate::config;
use std::path::PathBuf;
use std::time::Instant;

pub(super) struct Auto {
    config: config::Camera,
    /// Position of this camera among the cameras found, from 0.
    index: usize,
    /// Nodes that the configuration assigns to other cameras.
    taken: Vec<PathBuf>,
    /// The selected device.
    selected: Option<(PathBuf, v4l2::device::Device)>,
    pi: PiSearch,
}

enum Choice {
    Device(PathBuf),
    Rpicam,
    TestCard,
}

impl Auto {
    pub fn new(config: &config::Camera, index: usize, taken: Vec<PathBuf>) -> Auto {
        Auto { config: config.clone(), index, taken, selected: None, pi: PiSearch::default() }
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
        let found = h264.into_iter().map(Choice::Device);
        let found = found.chain(self.pi.is_found().then_some(Choice::Rpicam));
        let mut found = found.chain(raw.into_iter().map(Choice::Device));
        found.nth(self.index).unwrap_or(Choice::TestCard)
    }

    fn select(&mut self, path: PathBuf) {
        let device = v4l2::device::Device::new(&path, &self.config);
        self.selected = Some((path, device));
    }

    /// Shows the test card until a camera is ready or `stop` is set.
    fn show_test_card(&mut self, output: &mut Output, stop: &Stop) -> Result<(), SourceError> {
        output.set_source("the test card (no camera found)".into());
        let mut schedule = Schedule::new(find::nodes(), Instant::now());
        let mut pi_found = self.pi.is_found();
        TestCard.run_until(output, stop, || {
            let is_due = schedule.is_due(find::nodes(), Instant::now());
            if is_due {
                self.pi.look();
            }
            let is_new = self.pi.is_found() && !std::mem::replace(&mut pi_found, true);
            (is_due || is_new) && !matches!(self.choose(), Choice::TestCard)
        })
    }
}

impl Source for Auto {
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), SourceError> {
        self.pi.first_look(stop);
        while !stop.is_set() {
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
                    output.set_kind(Some(CameraKind::RaspberryPi));
                    return Rpicam::new(&self.config, 0).run(output, stop);
                }
                Choice::TestCard => {
                    self.show_test_card(output, stop)?;
                    if !stop.is_set() {
                        output.restart();
                    }
                }
            }
        }
        Ok(())
    }
}
