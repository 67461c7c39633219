//! When and how to look for a camera while the test card is shown.
//!
//! A camera may be ready only seconds or minutes after the program has started: its driver loads
//! late, udev has not set the permissions of its nodes yet, or it is plugged in. Looking must not
//! disturb the viewers of the test card.

use crate::camera::{Stop, rpicam};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};
use std::{collections::BTreeSet, io};

/// Delay before the next look. It doubles with each look, and starts again at the minimum when a
/// device node appears or disappears.
const MIN_DELAY: Duration = Duration::from_secs(1);

/// Maximum delay before the next look. With rpicam-vid, a look takes about a second of CPU time.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Maximum delay of the test card while the first look for a Raspberry Pi camera runs. A look takes
/// about a second, and a few seconds if the program is read from a slow card.
const FIRST_LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval at which `PiSearch::wait` checks for the result.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Times at which to look for a camera.
pub(super) struct Schedule {
    /// Device nodes at the last check.
    nodes: BTreeSet<PathBuf>,
    delay: Duration,
    next: Instant,
}

impl Schedule {
    /// Starts after a look at `now`, with these device nodes.
    pub fn new(nodes: BTreeSet<PathBuf>, now: Instant) -> Schedule {
        Schedule { nodes, delay: MIN_DELAY, next: now + MIN_DELAY }
    }

    /// Whether to look at `now`. `nodes` are the current device nodes.
    pub fn is_due(&mut self, nodes: BTreeSet<PathBuf>, now: Instant) -> bool {
        if nodes != self.nodes {
            *self = Schedule { nodes, delay: MIN_DELAY, next: now };
        }
        let is_due = now >= self.next;
        if is_due {
            self.next = now + self.delay;
            self.delay = (self.delay * 2).min(MAX_DELAY);
        }
        is_due
    }
}

/// The search for a Raspberry Pi camera. Each look runs rpicam-vid, in a separate thread.
#[derive(Default)]
pub(super) struct PiSearch {
    /// A camera was found. It is not searched for again: if it fails later, that is an error.
    found: bool,
    has_looked: bool,
    /// The result of the look that is in progress.
    result: Option<Receiver<bool>>,
}

impl PiSearch {
    /// Starts a look, unless the camera was found or a look is in progress.
    pub fn look(&mut self) {
        if self.found || self.result.is_some() {
            return;
        }
        self.has_looked = true;
        match start(rpicam::has_camera) {
            Ok(result) => self.result = Some(result),
            Err(error) => log::warn!("cannot look for a Raspberry Pi camera: {error}"),
        }
    }

    /// Performs the first look, and waits for its result unless `stop` is set. After
    /// [`FIRST_LOOK_TIMEOUT`], the look continues in the background.
    pub fn first_look(&mut self, stop: &Stop) {
        if self.has_looked {
            return;
        }
        self.look();
        let end = Instant::now() + FIRST_LOOK_TIMEOUT;
        while !self.is_found() && self.result.is_some() && Instant::now() < end {
            if stop.wait(POLL_INTERVAL) {
                return;
            }
        }
    }

    /// Whether the looks so far have found a camera.
    pub fn is_found(&mut self) -> bool {
        match self.result.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => {}
            Some(result) => {
                self.found = result.unwrap_or_default();
                self.result = None;
            }
        }
        self.found
    }
}

/// Runs `look` in a thread. The result is sent to the returned receiver.
fn start(look: fn() -> bool) -> io::Result<Receiver<bool>> {
    let (sender, receiver) = sync_channel(1);
    let thread = std::thread::Builder::new().name("camera search".into());
    thread.spawn(move || {
        // The receiver no longer exists if the camera was stopped.
        let _ = sender.send(look());
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    /// The seconds after `start` at which a look is due, if it is asked every second.
    fn looks(schedule: &mut Schedule, nodes: &BTreeSet<PathBuf>, start: Instant) -> Vec<u64> {
        let is_due = |n: &u64| schedule.is_due(nodes.clone(), start + Duration::from_secs(*n));
        (0..240).filter(is_due).collect()
    }

    #[test]
    fn looks_again_after_increasing_delays_without_end() {
        let (start, none) = (Instant::now(), nodes(&[]));
        let mut schedule = Schedule::new(none.clone(), start);
        assert_eq!(looks(&mut schedule, &none, start), [1, 2, 4, 8, 16, 32, 64, 124, 184]);
    }

    #[test]
    fn looks_immediately_and_often_after_a_change_of_the_devices() {
        let start = Instant::now();
        let mut schedule = Schedule::new(nodes(&["/dev/media0"]), start);
        looks(&mut schedule, &nodes(&["/dev/media0"]), start);
        let later = start + Duration::from_secs(240);
        for devices in [nodes(&["/dev/media0", "/dev/v4l-subdev0"]), nodes(&[])] {
            assert_eq!(looks(&mut schedule, &devices, later)[..4], [0, 1, 3, 7]);
        }
    }

    #[test]
    fn a_look_does_not_block_and_its_result_is_kept() {
        let (sender, receiver) = sync_channel(1);
        let mut search = PiSearch { result: Some(receiver), ..PiSearch::default() };
        assert!(!search.is_found() && search.result.is_some(), "the look is in progress");
        sender.send(true).unwrap();
        assert!(search.is_found() && search.result.is_none());
        // The camera is not searched for again.
        search.look();
        assert!(search.is_found() && search.result.is_none());
    }

    #[test]
    fn a_look_that_fails_is_repeated() {
        let result = Some(start(|| false).unwrap());
        let mut search = PiSearch { result, ..PiSearch::default() };
        while search.result.is_some() {
            assert!(!search.is_found());
            std::thread::sleep(Duration::from_millis(1));
        }
        search.result = Some(start(|| true).unwrap());
        while !search.is_found() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
