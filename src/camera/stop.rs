//! A flag that ends a camera's thread, even while the thread waits in poll(2).

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A flag that is set once and never reset.
#[derive(Debug)]
pub struct Stop {
    set: AtomicBool,
    /// Becomes readable when the flag is set, for [`poll`].
    event: OwnedFd,
}

impl Stop {
    /// Creates a flag that is not set.
    ///
    /// # Errors
    ///
    /// The process or the system has too many open files.
    pub fn new() -> std::io::Result<Stop> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop { set: AtomicBool::new(false), event })
    }

    /// Sets the flag and wakes all threads that wait for it.
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
        // Fails only if the counter is full, in which case the descriptor is already readable.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Returns whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Returns a descriptor that becomes readable when the flag is set.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Waits until the flag is set, for at most `time`. Returns whether it is set.
    pub fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.is_set() || left.is_zero() {
                return self.is_set();
            }
            let _ = poll(&mut [PollFd::new(&self.event, PollFlags::IN)], Some(&timespec(left)));
        }
    }
}

/// Converts a duration for the kernel.
pub(super) fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
