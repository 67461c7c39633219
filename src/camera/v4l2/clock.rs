//! Capture times of pictures: the driver's timestamps while they are plausible.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Driver's times are believed this far around now: a slow encoder's pictures are some frames old;
/// vivid's lie two frames ahead.
pub(crate) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(1);

/// Which time a picture gets: the driver's, as long as it can be believed, else that of its arrival.
#[derive(Default)]
pub struct Clock {
    arrival: bool,
    last: Duration,
}

impl Clock {
    /// The time of a picture that the driver gives `time` and that arrives `now`, both on the
    /// monotonic clock; and the reason, where the driver's time is given up.
    pub(crate) fn time(
        &mut self,
        time: Option<Duration>,
        now: Duration,
    ) -> (Duration, Option<&'static str>) {
        if self.arrival {
            return (now, None);
        }
        let doubt = match time {
            None => "the driver gives no time",
            Some(time) if time > now + MAX_CLOCK_SKEW => "the driver's time lies ahead",
            Some(time) if time + MAX_CLOCK_SKEW < now => "the driver's time lies behind",
            Some(time) if time < self.last => "the driver's time goes back",
            Some(time) => {
                self.last = time;
                return (time, None);
            }
        };
        self.arrival = true;
        (now, Some(doubt))
    }
}

pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_drivers_time_counts_while_it_can_be_believed() {
        let now = 1_000_000 * MS;
        let mut clock = Clock::default();
        assert_eq!(clock.time(Some(now - 40 * MS), now), (now - 40 * MS, None));
        // As vivid does it.
        assert_eq!(clock.time(Some(now + 56 * MS), now), (now + 56 * MS, None));
    }

    #[test]
    fn what_cannot_be_believed_gives_way_to_the_arrival_for_good() {
        let now = 1_000_000 * MS;
        for bad in [None, Some(now + 1001 * MS), Some(now - 1001 * MS), Some(now - 90 * MS)] {
            let mut clock = Clock::default();
            clock.time(Some(now - 60 * MS), now - 33 * MS);
            let (time, doubt) = clock.time(bad, now);
            assert_eq!(time, now, "{bad:?}");
            assert!(doubt.is_some(), "{bad:?}");
            let (time, doubt) = clock.time(Some(now), now + 33 * MS);
            assert_eq!((time, doubt), (now + 33 * MS, None), "no jumping to and fro");
        }
    }
}
