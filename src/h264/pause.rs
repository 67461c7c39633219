//! Decides how long a pipe must be idle before the received data is treated as a complete access
//! unit.
//!
//! An encoder outputs each frame in one or more writes, microseconds apart, and then writes nothing
//! for most of the frame period. The gaps depend on the program and on the load of the machine, so
//! the rule first learns them. It observes `LEARNING_UNITS` access units, each ended by the start
//! of the next one, and records the longest gap within an access unit and the shortest gap between
//! two access units. A pause may end an access unit only if these gaps differ widely. It must then
//! be several times as long as the longest gap recorded in roughly the last minute. After a wrong
//! decision, the rule learns for longer and requires longer pauses. While its decisions are
//! correct, the required pauses slowly become shorter again.
//!
//! The rule reads no clock: the caller passes the gaps to it. `benches/pipe.rs` measures the gain,
//! and docs/performance.md reports it.

use std::time::Duration;

/// Number of access units to observe before a pause may end an access unit. At 30 frames per
/// second, they take one second and usually include a key frame.
const LEARNING_UNITS: u32 = 30;

/// Minimum number of access units for which a recorded gap counts: one minute at 30 frames per
/// second. A gap expires after at most twice this number, so that one long gap does not delay all
/// later frames.
const WINDOW_UNITS: u32 = 1800;

/// Required length of a pause, in multiples of the longest gap within an access unit.
const PAUSE_PER_GAP: u32 = 4;

/// Minimum length of a pause. Allows for the writer's scheduling delay on a loaded machine.
const MIN_PAUSE: Duration = Duration::from_micros(500);

/// The maximum length of a pause is the shortest gap between access units divided by this number. A
/// longer pause would gain little over waiting for the next access unit.
const MAX_PAUSE_DIVISOR: u32 = 2;

/// Decides how long a pause must be to end an access unit (see the module documentation).
#[derive(Debug, Clone)]
pub struct PauseRule {
    /// Number of access units observed since the start or the last wrong decision.
    observed_units: u32,
    /// Number of access units to observe before deciding.
    learning_units: u32,
    /// Factor for the length of a pause; doubles after each wrong decision.
    caution: u32,
    current: Gaps,
    previous: Gaps,
}

#[derive(Debug, Clone, Copy)]
struct Gaps {
    units: u32,
    longest_within: Duration,
    shortest_between: Duration,
}

impl Default for Gaps {
    fn default() -> Gaps {
        Gaps { units: 0, longest_within: Duration::ZERO, shortest_between: Duration::MAX }
    }
}

impl Default for PauseRule {
    fn default() -> PauseRule {
        PauseRule {
            observed_units: 0,
            learning_units: LEARNING_UNITS,
            caution: 1,
            current: Gaps::default(),
            previous: Gaps::default(),
        }
    }
}

impl PauseRule {
    /// Records a read that returned data after `gap`. `starts_unit` states whether an access unit
    /// starts at the first byte of the data.
    pub fn read(&mut self, gap: Duration, starts_unit: bool) {
        if !starts_unit {
            self.current.longest_within = self.current.longest_within.max(gap);
            return;
        }
        self.observed_units = self.observed_units.saturating_add(1);
        self.current.shortest_between = self.current.shortest_between.min(gap);
        self.current.units += 1;
        if self.current.units == WINDOW_UNITS {
            self.previous = std::mem::take(&mut self.current);
            if self.observed_units >= WINDOW_UNITS {
                self.caution = (self.caution / 2).max(1);
            }
        }
    }

    /// Records that a pause ended an access unit too early.
    pub fn was_wrong(&mut self) {
        self.caution = self.caution.saturating_mul(2);
        self.learning_units = self.learning_units.saturating_mul(2).min(WINDOW_UNITS);
        self.observed_units = 0;
        self.current.shortest_between = Duration::MAX;
    }

    /// Returns how long the pipe must be idle to end an access unit. `None` means that only the
    /// start of the next access unit ends it.
    pub fn quiet(&self) -> Option<Duration> {
        if self.observed_units < self.learning_units {
            return None;
        }
        let (now, before) = (&self.current, &self.previous);
        let within = now.longest_within.max(before.longest_within);
        let between = now.shortest_between.min(before.shortest_between);
        let margin = PAUSE_PER_GAP.saturating_mul(self.caution);
        let quiet = within.saturating_mul(margin).max(MIN_PAUSE.saturating_mul(self.caution));
        (quiet <= between / MAX_PAUSE_DIVISOR).then_some(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn observes_access_units_before_deciding() {
        let mut rule = PauseRule::default();
        for _ in 0..LEARNING_UNITS {
            assert_eq!(rule.quiet(), None);
            rule.read(us(33_000), true);
            rule.read(us(200), false);
        }
        assert_eq!(rule.quiet(), Some(us(800)));
    }

    #[test]
    fn never_decides_if_gaps_within_frames_are_long() {
        let mut rule = PauseRule::default();
        for _ in 0..200 {
            rule.read(us(20_000), true);
            rule.read(us(9_000), false);
        }
        assert_eq!(rule.quiet(), None);
    }

    #[test]
    fn never_decides_if_frames_arrive_in_bursts() {
        let mut rule = PauseRule::default();
        for n in 0..200 {
            rule.read(us(if n % 10 == 0 { 300_000 } else { 30 }), true);
        }
        assert_eq!(rule.quiet(), None);
    }

    #[test]
    fn requires_longer_pauses_after_each_wrong_decision() {
        let mut rule = PauseRule::default();
        let learn = |rule: &mut PauseRule| {
            for _ in 0..100_000 {
                if rule.quiet().is_some() {
                    break;
                }
                rule.read(us(33_000), true);
                rule.read(us(100), false);
            }
            rule.quiet()
        };
        let mut before = learn(&mut rule).unwrap();
        for _ in 0..4 {
            rule.was_wrong();
            assert_eq!(rule.quiet(), None);
            let after = learn(&mut rule).unwrap();
            assert!(after > before);
            before = after;
        }
        for _ in 0..40 {
            rule.was_wrong();
        }
        for _ in 0..WINDOW_UNITS + 100 {
            rule.read(us(33_000), true);
            assert_eq!(rule.quiet(), None);
        }
    }

    #[test]
    fn forgets_a_single_long_gap() {
        let mut rule = PauseRule::default();
        rule.read(us(30_000), false);
        for n in 0..2 * WINDOW_UNITS {
            assert_eq!(rule.quiet(), None, "after {n}");
            rule.read(us(33_000), true);
            rule.read(us(100), false);
        }
        assert!(rule.quiet().is_some());
    }

    proptest! {
        /// The required pause is longer than every gap recorded within an access unit.
        #[test]
        fn pause_exceeds_every_recorded_gap(
            gaps in proptest::collection::vec((0u64..40_000, any::<bool>()), 0..500),
        ) {
            let mut rule = PauseRule::default();
            let mut longest = Duration::ZERO;
            for (gap, starts) in gaps {
                rule.read(us(gap), starts);
                if !starts { longest = longest.max(us(gap)); }
                if let Some(quiet) = rule.quiet() { prop_assert!(quiet > longest); }
            }
        }
    }
}
