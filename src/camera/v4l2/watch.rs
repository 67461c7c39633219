//! Waits for a device, and notices when it stalls or disappears.

use crate::camera::Stop;
use crate::camera::source::{Failure, STALL};
use crate::camera::stop::timespec;
use crate::camera::v4l2::node::Node;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// A camera that has delivered and then delivers nothing for so long is opened anew. Longer than
/// any exposure; 5 frames where they are rarer.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Waits for one of the nodes or `stop`; tells what each node is ready for.
pub fn wait(nodes: &[&Node], stop: &Stop, time: Duration) -> Vec<PollFlags> {
    // POLLOUT: an encoder has read a picture.
    let wanted = PollFlags::IN | PollFlags::OUT;
    let fds = nodes.iter().map(|node| std::os::fd::AsFd::as_fd(&node.file));
    let fds: Vec<BorrowedFd<'_>> = fds.chain([stop.as_fd()]).collect();
    let mut polls: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, wanted)).collect();
    polls[nodes.len()] = PollFd::new(&fds[nodes.len()], PollFlags::IN);
    // An interrupted poll is a poll that found nothing.
    let _ = poll(&mut polls, Some(&timespec(time)));
    polls[..nodes.len()].iter().map(PollFd::revents).collect()
}

/// Poll says that something is wrong, and there is no buffer that says what: ask the device.
pub fn gone(node: &Node, ready: &[PollFlags], idle: bool) -> Result<(), Failure> {
    if !idle || !ready.iter().any(|flags| flags.intersects(PollFlags::ERR | PollFlags::HUP)) {
        return Ok(());
    }
    match v4l2r::ioctl::querycap::<v4l2r::ioctl::Capability>(&node.file) {
        Err(error) => Err(node.failure("it does not answer", error)),
        Ok(_) => Err(Failure::from(format!(
            "{}: the driver has stopped the stream",
            node.path.display()
        ))),
    }
}

/// A timer for cameras that fall silent without a word.
pub struct StallTimer {
    since: Instant,
    patience: Duration,
    allowed: Duration,
}

impl StallTimer {
    /// A camera may take [`STALL`] to start.
    pub fn new(framerate: u32) -> StallTimer {
        let allowed = STALL_TIMEOUT.max(Duration::from_secs(5) / framerate.max(1));
        StallTimer { since: Instant::now(), patience: STALL, allowed }
    }

    /// A picture has come.
    pub fn broken(&mut self) {
        self.since = Instant::now();
        self.patience = self.allowed;
    }

    /// Time that is left for the next one.
    pub fn left(&self) -> Duration {
        self.patience.saturating_sub(self.since.elapsed())
    }

    /// The error, once it is over.
    pub fn check(&self, node: &Node) -> Result<(), Failure> {
        match self.left().is_zero() {
            false => Ok(()),
            true => Err(Failure::from(format!(
                "{}: no picture for {} s; opening the camera anew",
                node.path.display(),
                self.patience.as_secs()
            ))),
        }
    }
}
