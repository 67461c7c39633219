//! A flag that ends a camera's thread, also while it waits for something else.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set once, seen by all.
#[derive(Debug)]
pub struct Stop {
    set: AtomicBool,
    /// Readable once set: for [`poll`].
    event: OwnedFd,
}

impl Stop {
    /// Not set.
    pub fn new() -> std::io::Result<Stop> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop { set: AtomicBool::new(false), event })
    }

    /// Ends whoever looks at it.
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
        // Can only fail when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Readable once it is set.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Waits; true as soon as it is set.
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

/// A duration as the kernel takes it.
pub(super) fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
