//! Histogram of the delays between the publication of fragments and their delivery.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Histogram of the delays between the publication of a fragment and its delivery to the socket of
/// the last viewer in a shard.
#[derive(Debug, Default)]
pub struct Delays {
    /// Number of deliveries in each bucket.
    counts: [AtomicU64; Delays::BOUNDS.len() + 1],
    /// Sum of the delays, in nanoseconds.
    nanoseconds: AtomicU64,
}

impl Delays {
    /// Upper bounds of the buckets, in microseconds. The last bucket has no upper bound.
    pub const BOUNDS: [u64; 12] =
        [100, 200, 400, 700, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000];

    /// Adds `count` deliveries with this delay.
    pub(super) fn add(&self, delay: Duration, count: u64) {
        let bucket = Delays::BOUNDS.partition_point(|&bound| Duration::from_micros(bound) < delay);
        self.counts[bucket].fetch_add(count, Ordering::Relaxed);
        let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds.saturating_mul(count), Ordering::Relaxed);
    }

    /// Returns the sum of the delays, in seconds, and the number of deliveries in each bucket.
    pub fn read(&self) -> (f64, [u64; Delays::BOUNDS.len() + 1]) {
        let counts = std::array::from_fn(|n| self.counts[n].load(Ordering::Relaxed));
        (self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9, counts)
    }
}
