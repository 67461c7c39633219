//! Waits for a device, and detects when it stalls or disappears.

use crate::camera::Stop;
use crate::camera::error::SourceError;
use crate::camera::source::PICTURE_TIMEOUT;
use crate::camera::stop::timespec;
use crate::camera::v4l2::node::Node;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Maximum time without a picture from a running camera, after which it is reopened: this time, or
/// 5 frame periods if they are longer. No camera has such a long exposure time.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Waits up to `time` for one of the nodes or for `stop`. Returns the poll(2) events of each node.
pub fn wait(nodes: &[&Node], stop: &Stop, time: Duration) -> Vec<PollFlags> {
    // POLLOUT: the encoder has read a picture.
    let wanted = PollFlags::IN | PollFlags::OUT;
    let fds = nodes.iter().map(|node| std::os::fd::AsFd::as_fd(&node.file));
    let fds: Vec<BorrowedFd<'_>> = fds.chain([stop.as_fd()]).collect();
    let mut polls: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, wanted)).collect();
    polls[nodes.len()] = PollFd::new(&fds[nodes.len()], PollFlags::IN);
    // If poll(2) is interrupted, treat nothing as ready.
    let _ = poll(&mut polls, Some(&timespec(time)));
    polls[..nodes.len()].iter().map(PollFd::revents).collect()
}

/// Checks the poll(2) events of a node for errors. `idle` means that the driver returned no buffer
/// whose state would explain the error, so the device is queried.
///
/// # Errors
///
/// The device was unplugged, or its driver has stopped the stream.
pub fn check_poll(node: &Node, ready: &[PollFlags], idle: bool) -> Result<(), SourceError> {
    if !idle || !ready.iter().any(|flags| flags.intersects(PollFlags::ERR | PollFlags::HUP)) {
        return Ok(());
    }
    match v4l2r::ioctl::querycap::<v4l2r::ioctl::Capability>(&node.file) {
        Err(error) => Err(node.error("query the device", error)),
        Ok(_) => Err(SourceError::Unusable {
            device: node.path.clone(),
            reason: "the driver has stopped the stream".into(),
        }),
    }
}

/// Detects cameras that stop delivering frames without an error.
pub struct StallTimer {
    /// Time of the last picture or, before the first one, the time at which the timer was created.
    last: Instant,
    /// Current timeout.
    timeout: Duration,
    /// Timeout after the first picture.
    running_timeout: Duration,
}

impl StallTimer {
    /// Starts the timer. The first picture may take [`PICTURE_TIMEOUT`].
    pub fn new(framerate: u32) -> StallTimer {
        let running_timeout = STALL_TIMEOUT.max(Duration::from_secs(5) / framerate.max(1));
        StallTimer { last: Instant::now(), timeout: PICTURE_TIMEOUT, running_timeout }
    }

    /// Restarts the timer after a picture.
    pub fn reset(&mut self) {
        self.last = Instant::now();
        self.timeout = self.running_timeout;
    }

    /// Returns the time left for the next picture.
    pub fn remaining(&self) -> Duration {
        self.timeout.saturating_sub(self.last.elapsed())
    }

    /// Checks whether the timeout has expired.
    ///
    /// # Errors
    ///
    /// [`SourceError::Stalled`] if it has.
    pub fn check(&self, node: &Node) -> Result<(), SourceError> {
        match self.remaining().is_zero() {
            false => Ok(()),
            true => Err(SourceError::Stalled { device: node.path.clone(), timeout: self.timeout }),
        }
    }
}
