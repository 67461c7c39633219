//! Capture times of frames: the driver's timestamps, as long as they are plausible.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Maximum difference between the driver's timestamps and the current time. Frames from a slow
/// encoder are several frame periods old; vivid's timestamps are two frame periods in the future.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(1);

/// Selects the capture time of each frame: the driver's timestamp until the first implausible one,
/// and the time of arrival from then on.
#[derive(Default)]
pub struct Clock {
    use_arrival: bool,
    last: Duration,
}

impl Clock {
    /// Returns the capture time of a frame that has the driver's timestamp `time` and arrived at
    /// `now`, both on the monotonic clock. At the first implausible timestamp, also returns what is
    /// wrong with it.
    pub(crate) fn time(
        &mut self,
        time: Option<Duration>,
        now: Duration,
    ) -> (Duration, Option<&'static str>) {
        if self.use_arrival {
            return (now, None);
        }
        let problem = match time {
            None => "the driver provides no timestamps",
            Some(time) if time > now + MAX_CLOCK_SKEW => {
                "the driver's timestamps are in the future"
            }
            Some(time) if time + MAX_CLOCK_SKEW < now => "the driver's timestamps are too old",
            Some(time) if time < self.last => "the driver's timestamps go backwards",
            Some(time) => {
                self.last = time;
                return (time, None);
            }
        };
        self.use_arrival = true;
        (now, Some(problem))
    }
}

/// Returns the current time of the monotonic clock.
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn uses_plausible_driver_timestamps() {
        let now = 1_000_000 * MS;
        let mut clock = Clock::default();
        assert_eq!(clock.time(Some(now - 40 * MS), now), (now - 40 * MS, None));
        // vivid's timestamps are in the future.
        assert_eq!(clock.time(Some(now + 56 * MS), now), (now + 56 * MS, None));
    }

    #[test]
    fn keeps_arrival_times_after_an_implausible_timestamp() {
        let now = 1_000_000 * MS;
        for bad in [None, Some(now + 1001 * MS), Some(now - 1001 * MS), Some(now - 90 * MS)] {
            let mut clock = Clock::default();
            clock.time(Some(now - 60 * MS), now - 33 * MS);
            let (time, problem) = clock.time(bad, now);
            assert_eq!(time, now, "{bad:?}");
            assert!(problem.is_some(), "{bad:?}");
            let (time, problem) = clock.time(Some(now), now + 33 * MS);
            assert_eq!((time, problem), (now + 33 * MS, None), "must not switch back");
        }
    }
}
