//! How long fragments take from the camera to the viewers' sockets: a histogram.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long fragments take from the camera to the last viewer's socket: a histogram.
#[derive(Debug, Default)]
pub struct Delays {
    counts: [AtomicU64; Delays::BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Delays {
    /// Upper bounds of the classes, microseconds; the last class has none.
    pub const BOUNDS: [u64; 12] =
        [100, 200, 400, 700, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000];

    pub(super) fn add(&self, delay: Duration, count: u64) {
        let class = Delays::BOUNDS.partition_point(|&bound| Duration::from_micros(bound) < delay);
        self.counts[class].fetch_add(count, Ordering::Relaxed);
        let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds.saturating_mul(count), Ordering::Relaxed);
    }

    /// Seconds in all, and how many fell into each class.
    pub fn read(&self) -> (f64, [u64; Delays::BOUNDS.len() + 1]) {
        let counts = std::array::from_fn(|n| self.counts[n].load(Ordering::Relaxed));
        (self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9, counts)
    }
}
