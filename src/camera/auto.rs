//! The camera when the configuration names none: the best that is there.
//!
//! One that delivers H.264 by itself, else a Raspberry Pi camera through rpicam-vid, else a raw one
//! with an encoder, else the test card, until a camera is plugged in. Who has once shown a real
//! camera does not go back to the test card: a camera that was unplugged is an error, and is waited
//! for.

use crate::camera::rpicam::Rpicam;
use crate::camera::source::{Failure, Output, Source};
use crate::camera::test_card::TestCard;
use crate::camera::v4l2::find;
use crate::camera::{Stop, rpicam, v4l2};
use crate::config;
use std::path::PathBuf;

/// A node that has just appeared is looked at so often, once a second: udev may still have to let this
/// user open it, and a camera may still be starting.
const LOOKS: u32 = 10;

pub(super) struct Auto {
    config: config::Camera,
    /// Which of the cameras found is this one's, from 0.
    index: usize,
    /// Nodes that the configuration gives to others.
    taken: Vec<PathBuf>,
    /// What is being shown.
    chosen: Option<(PathBuf, v4l2::device::Device)>,
    /// rpicam-vid has a camera; asked once, as that takes a second.
    rpicam: Option<bool>,
}

enum Choice {
    Device(PathBuf),
    Rpicam,
    TestCard,
}

impl Auto {
    pub fn new(config: &config::Camera, index: usize, taken: Vec<PathBuf>) -> Auto {
        Auto { config: config.clone(), index, taken, chosen: None, rpicam: None }
    }

    fn choose(&mut self) -> Choice {
        let taken: Vec<PathBuf> =
            self.taken.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let (mut h264, mut raw) = (vec![], vec![]);
        for path in find::paths().into_iter().filter(|path| !taken.contains(path)) {
            match v4l2::device::usable(&path) {
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
}

impl Source for Auto {
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), Failure> {
        loop {
            // The same camera again, if it is there again.
            if let Some((path, device)) = &mut self.chosen {
                let path = path.clone();
                let end = device.run(output, stop);
                if !matches!(&end, Err(failure) if failure.gone) {
                    return end;
                }
                match self.choose() {
                    Choice::Device(other) if other != path => self.take(other),
                    _ => return end,
                }
                output.restart();
                continue;
            }
            match self.choose() {
                Choice::Device(path) => self.take(path),
                Choice::Rpicam => {
                    output.from("rpicam-vid, the first camera that was found".into());
                    return Rpicam::new(&self.config, 0).run(output, stop);
                }
                Choice::TestCard => {
                    output.from("the test card, because no camera was found".into());
                    let (mut known, mut looks) = (find::paths(), 0);
                    TestCard.run_until(output, stop, || {
                        let now = find::paths();
                        looks = if now != known { LOOKS } else { looks.saturating_sub(1) };
                        known = now;
                        looks > 0 && matches!(self.choose(), Choice::Device(_))
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

impl Auto {
    fn take(&mut self, path: PathBuf) {
        let device = v4l2::device::Device::new(&path, &self.config);
        self.chosen = Some((path, device));
    }
}
