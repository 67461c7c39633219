//! How long a pipe must be quiet before what is there counts as a whole access unit.
//!
//! An encoder hands over a frame in one write or in a few, microseconds apart, and then nothing
//! for most of a frame period. What "a few" and "apart" mean differs from program to program and
//! with the load of the machine, so the rule first learns: it watches [`LEARN`] access units whose
//! ends are certain (by the start of the next), and notes the longest gap within one and the
//! shortest in front of one. Only where these two lie far apart does it let a pause decide, and
//! it asks for several times the longest gap it has seen in the last minute or so. Every wrong
//! decision makes it learn again, with more patience, which fades slowly while all goes well.
//!
//! Pure: gaps in, decision out. `benches/frame.rs` and docs/performance.md say what it gains.

use std::time::Duration;

/// Access units to watch before a pause may decide: one second at 30 frames a second, which takes
/// in at least one key frame of an ordinary stream.
const LEARN: u32 = 30;

/// What was seen this many access units ago (to twice as many) is forgotten: one hiccup of the
/// machine must not cost the delay of a frame for ever. A minute at 30 frames a second.
const WINDOW: u32 = 1800;

/// A pause is this many times the longest gap seen within an access unit.
const MARGIN: u32 = 4;

/// Never a shorter pause than this: it is what a loaded machine takes to let a writer go on.
const SHORTEST: Duration = Duration::from_micros(500);

/// Never a longer pause than this part of the shortest gap between access units: otherwise little
/// is gained over waiting for the next one.
const LONGEST_PART: u32 = 2;

/// Decides on pauses. See the module's description.
#[derive(Debug, Clone)]
pub struct PauseRule {
    /// Access units since the start or the last mistake.
    watched: u32,
    learn: u32,
    patience: u32,
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
            watched: 0,
            learn: LEARN,
            patience: 1,
            current: Gaps::default(),
            previous: Gaps::default(),
        }
    }
}

impl PauseRule {
    /// A read came after `gap`; `starts_unit`: an access unit began exactly with it.
    pub fn read(&mut self, gap: Duration, starts_unit: bool) {
        if !starts_unit {
            self.current.longest_within = self.current.longest_within.max(gap);
            return;
        }
        self.watched = self.watched.saturating_add(1);
        self.current.shortest_between = self.current.shortest_between.min(gap);
        self.current.units += 1;
        if self.current.units == WINDOW {
            self.previous = std::mem::take(&mut self.current);
            if self.watched >= WINDOW {
                self.patience = (self.patience / 2).max(1);
            }
        }
    }

    /// An access unit was cut too early, after a pause.
    pub fn was_wrong(&mut self) {
        self.patience = self.patience.saturating_mul(2);
        self.learn = self.learn.saturating_mul(2).min(WINDOW);
        self.watched = 0;
        self.current.shortest_between = Duration::MAX;
    }

    /// How long the pipe must be quiet; `None`: only the next access unit ends this one.
    pub fn quiet(&self) -> Option<Duration> {
        if self.watched < self.learn {
            return None;
        }
        let (now, before) = (&self.current, &self.previous);
        let within = now.longest_within.max(before.longest_within);
        let between = now.shortest_between.min(before.shortest_between);
        let margin = MARGIN.saturating_mul(self.patience);
        let quiet = within.saturating_mul(margin).max(SHORTEST.saturating_mul(self.patience));
        (quiet <= between / LONGEST_PART).then_some(quiet)
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
    fn learns_before_it_decides() {
        let mut rule = PauseRule::default();
        for _ in 0..LEARN {
            assert_eq!(rule.quiet(), None);
            rule.read(us(33_000), true);
            rule.read(us(200), false);
        }
        assert_eq!(rule.quiet(), Some(us(800)));
    }

    #[test]
    fn a_writer_that_dawdles_within_a_frame_is_never_cut() {
        let mut rule = PauseRule::default();
        for _ in 0..200 {
            rule.read(us(20_000), true);
            rule.read(us(9_000), false);
        }
        assert_eq!(rule.quiet(), None);
    }

    #[test]
    fn bursts_leave_no_room_for_a_pause() {
        let mut rule = PauseRule::default();
        for n in 0..200 {
            rule.read(us(if n % 10 == 0 { 300_000 } else { 30 }), true);
        }
        assert_eq!(rule.quiet(), None);
    }

    #[test]
    fn every_mistake_makes_it_more_patient() {
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
        for _ in 0..WINDOW + 100 {
            rule.read(us(33_000), true);
            assert_eq!(rule.quiet(), None);
        }
    }

    #[test]
    fn one_hiccup_is_forgotten() {
        let mut rule = PauseRule::default();
        rule.read(us(30_000), false);
        for n in 0..2 * WINDOW {
            assert_eq!(rule.quiet(), None, "after {n}");
            rule.read(us(33_000), true);
            rule.read(us(100), false);
        }
        assert!(rule.quiet().is_some());
    }

    proptest! {
        /// It never decides on a pause shorter than a gap it has seen within an access unit.
        #[test]
        fn longer_than_any_gap_seen(gaps in proptest::collection::vec((0u64..40_000, any::<bool>()), 0..500)) {
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
