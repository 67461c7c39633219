//! Decode times: even, without holes, and in the long run as long as the real time.
//!
//! A browser freezes at a hole in the decode times and skips frames when they jitter, while a
//! camera's timestamps do both. So a sample's duration is not the step to the next timestamp
//! (nobody knows that yet) but the mean step of the last [`WINDOW`] frames; and the next decode
//! time is this one plus that duration, always. As every real step goes into the mean, the sum of
//! the durations follows the sum of the steps: an hour of stream is an hour long. A frame or two
//! lost stretch the next seconds by a trifle; a longer gap counts as one ordinary step. A camera that
//! turns out to have another frame rate than it said is believed after [`PROBE_FRAMES`] frames.
//!
//! Pure: the camera's time goes in, 1/90000 s come out.

use std::time::Duration;

/// Ticks a second of every time in the stream.
pub const TIMESCALE: u32 = 90_000;

/// Frames over which the step is measured: 3 s at 30 frames a second. 10 ms of jitter then move
/// the step by 0.1 ms.
const WINDOW: usize = 90;

/// Over so many steps it shows that the frame rate is another one: 0.4 s at 30 frames a second.
const PROBE_FRAMES: usize = 12;

/// It is another one if mean and median of the last steps are both longer, or both shorter, than
/// what was measured, by this part, in hundredths. Cameras that slow down in the dark halve it.
/// Neither a gap (which leaves the median alone) nor frames that come in bunches (which leave the
/// mean alone) nor 40 ms of jitter do that.
const RATE_CHANGE_PERCENT: u64 = 30;

/// A step longer than this many mean ones, and than [`BUNCH`], is an interruption, not a step.
const INTERRUPTION: u64 = 4;

/// Frames that come in bunches leave gaps of up to this, ticks: 0.25 s.
const BUNCH: u64 = 22_500;

/// Steps outside of this are not a camera's, ticks: 250 frames a second, one in 5 s.
const PLAUSIBLE: std::ops::RangeInclusive<u64> = 360..=450_000;

/// When nothing says otherwise: 30 frames a second.
const DEFAULT_STEP: u64 = 3000;

/// One sample's place in time, in 1/90000 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Decode time.
    pub decode_time: u64,
    /// Step to the next decode time.
    pub duration: u32,
}

/// Makes decode times out of a camera's timestamps.
#[derive(Debug, Clone)]
pub struct Timeline {
    next: u64,
    /// Timestamp of the last sample, in ticks.
    last: Option<u64>,
    /// The last steps, a ring.
    steps: [u32; WINDOW],
    at: usize,
    sum: u64,
    /// The last steps as they were, a ring, and how many of them there have been.
    trial: [u32; PROBE_FRAMES],
    tried: usize,
    /// What dividing by the window has left over so far.
    remainder: u64,
}

impl Timeline {
    /// A timeline that starts at 0 and expects `framerate` frames a second.
    pub fn new(framerate: Option<f64>) -> Timeline {
        let mut timeline = Timeline {
            next: 0,
            last: None,
            steps: [0; WINDOW],
            at: 0,
            sum: 0,
            trial: [0; PROBE_FRAMES],
            tried: 0,
            remainder: 0,
        };
        timeline.expect(framerate);
        timeline
    }

    /// The stream says of itself what its frame rate is (or `None`): a start for the mean. Decode
    /// times go on where they are.
    pub fn expect(&mut self, framerate: Option<f64>) {
        let step =
            framerate.map_or(DEFAULT_STEP, |fps| (f64::from(TIMESCALE) / fps).round() as u64);
        let step = step.clamp(*PLAUSIBLE.start(), *PLAUSIBLE.end());
        self.steps = [step as u32; WINDOW];
        self.sum = step * WINDOW as u64;
        self.last = None;
        self.tried = 0;
    }

    /// The next sample, captured at `time` on the camera's clock.
    pub fn step(&mut self, time: Duration) -> Step {
        let time = ticks(time);
        if let Some(last) = self.last {
            let mean = self.sum / WINDOW as u64;
            // A clock that goes back, or a gap: one ordinary step.
            let step = match time.checked_sub(last) {
                Some(step) if step <= BUNCH.max(INTERRUPTION * mean) => step,
                _ => mean,
            };
            let oldest = &mut self.steps[self.at];
            self.sum = self.sum - u64::from(*oldest) + step;
            *oldest = step as u32;
            self.at = (self.at + 1) % WINDOW;
            self.detect_rate_change(time.saturating_sub(last));
        }
        self.last = Some(time);
        let total = self.sum + self.remainder;
        self.remainder = total % WINDOW as u64;
        let duration = (total / WINDOW as u64).clamp(*PLAUSIBLE.start(), *PLAUSIBLE.end());
        let step = Step { decode_time: self.next, duration: duration as u32 };
        self.next += duration;
        step
    }

    /// Whether the last steps show another frame rate; then that one counts from now on.
    fn detect_rate_change(&mut self, step: u64) {
        self.trial[self.tried % PROBE_FRAMES] = step.min(*PLAUSIBLE.end()) as u32;
        self.tried += 1;
        if self.tried < PROBE_FRAMES {
            return;
        }
        let mut steps = self.trial;
        steps.sort_unstable();
        let median = u64::from(steps[PROBE_FRAMES / 2 - 1] + steps[PROBE_FRAMES / 2]) / 2;
        let mean = steps.iter().map(|step| u64::from(*step)).sum::<u64>() / PROBE_FRAMES as u64;
        let measured = self.sum / WINDOW as u64;
        let longer = mean.min(median) * 100 > measured * (100 + RATE_CHANGE_PERCENT);
        let shorter = mean.max(median) * 100 < measured * (100 - RATE_CHANGE_PERCENT);
        if longer || shorter {
            let step = mean.clamp(*PLAUSIBLE.start(), *PLAUSIBLE.end());
            self.steps = [step as u32; WINDOW];
            self.sum = step * WINDOW as u64;
            self.tried = 0;
        }
    }

    /// The measured frame rate, frames a second.
    pub fn framerate(&self) -> f64 {
        f64::from(TIMESCALE) * WINDOW as f64 / self.sum.max(1) as f64
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_nanos() * u128::from(TIMESCALE) / 1_000_000_000).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(timeline: &mut Timeline, times: impl IntoIterator<Item = f64>) -> Vec<Step> {
        times.into_iter().map(|t| timeline.step(Duration::from_secs_f64(t))).collect()
    }

    #[test]
    fn a_camera_that_said_30_and_delivers_otherwise_is_soon_believed() {
        for fps in [5.0, 15.0, 60.0] {
            let mut timeline = Timeline::new(Some(30.0));
            let steps = run(&mut timeline, (0..301).map(|n| 1.0 + f64::from(n) / fps));
            let wrong = steps[300].decode_time as f64 / 90_000.0 - 300.0 / fps;
            // What the first dozen frames were wrong by.
            let first = PROBE_FRAMES as f64 * (1.0 / 30.0 - 1.0 / fps);
            assert!((wrong - first).abs() < 0.25, "{fps}: {wrong} {first}");
            assert_eq!(steps[20].duration, (90_000.0 / fps) as u32);
        }
    }

    #[test]
    fn a_camera_that_slows_down_in_the_dark_is_followed() {
        let mut timeline = Timeline::new(Some(30.0));
        run(&mut timeline, (0..300).map(|n| f64::from(n) / 30.0));
        let steps = run(&mut timeline, (0..60).map(|n| 10.0 + f64::from(n) / 6.0));
        assert!(
            steps[2 * PROBE_FRAMES].duration.abs_diff(15_000) < 100,
            "{:?}",
            steps[2 * PROBE_FRAMES]
        );
    }

    #[test]
    fn bunches_and_gaps_are_not_another_frame_rate() {
        let mut timeline = Timeline::new(Some(30.0));
        // Five at a time, and every 5 s nothing for half a second.
        let times = (0..900).map(|n| f64::from(n / 5 * 5) / 30.0 + f64::from(n / 150) * 0.5);
        for step in run(&mut timeline, times) {
            assert!((2550..3500).contains(&step.duration), "{step:?}");
        }
    }

    #[test]
    fn an_hour_of_stream_is_an_hour_long() {
        // A camera that says 30 and delivers 29.91.
        let mut timeline = Timeline::new(Some(30.0));
        let steps = run(&mut timeline, (0..107_676).map(|n| f64::from(n) / 29.91));
        let end = steps.last().unwrap();
        let seconds = (end.decode_time + u64::from(end.duration)) as f64 / f64::from(TIMESCALE);
        assert!((seconds - 3600.0).abs() < 0.05, "{seconds}");
    }

    #[test]
    fn lost_frames_leave_no_hole_but_the_time_is_made_up() {
        let mut timeline = Timeline::new(Some(30.0));
        let steps =
            run(&mut timeline, (0..600).filter(|n| n % 50 != 49).map(|n| f64::from(n) / 30.0));
        for pair in steps.windows(2) {
            assert_eq!(pair[0].decode_time + u64::from(pair[0].duration), pair[1].decode_time);
        }
        let end = steps.last().unwrap().decode_time as f64 / f64::from(TIMESCALE);
        assert!((end - 598.0 / 30.0).abs() < 0.1, "{end}");
    }

    #[test]
    fn a_camera_away_for_a_minute_goes_on_at_once() {
        let mut timeline = Timeline::new(Some(25.0));
        let steps = run(&mut timeline, [0.0, 0.04, 0.08, 60.0, 60.04]);
        let times: Vec<u64> = steps.iter().map(|s| s.decode_time).collect();
        assert_eq!(times, [0, 3600, 7200, 10800, 14400]);
    }

    #[test]
    fn half_the_frame_rate_is_followed() {
        let mut timeline = Timeline::new(Some(30.0));
        run(&mut timeline, (0..400).map(|n| f64::from(n) / 15.0));
        assert!((timeline.framerate() - 15.0).abs() < 0.01);
    }

    proptest! {
        /// Whatever the clock does: no hole, no step backwards, and durations that differ little.
        #[test]
        fn even_and_without_holes(times in proptest::collection::vec(0u64..20_000_000, 2..300),
                                  fps in proptest::option::of(0.1f64..1000.0)) {
            let mut timeline = Timeline::new(fps);
            let mut before: Option<Step> = None;
            for time in times {
                let step = timeline.step(Duration::from_micros(time));
                prop_assert!(step.duration >= 360);
                if let Some(before) = before {
                    prop_assert_eq!(before.decode_time + u64::from(before.duration), step.decode_time);
                }
                before = Some(step);
            }
        }

        /// Jitter of a third of a frame moves the duration by less than a hundredth.
        #[test]
        fn jitter_never_shows(jitter in proptest::collection::vec(-11.0f64..11.0, 500)) {
            let mut timeline = Timeline::new(Some(30.0));
            let times = jitter.iter().enumerate().map(|(n, j)| 1.0 + n as f64 / 30.0 + j / 1000.0);
            for step in run(&mut timeline, times) {
                prop_assert!((2970..=3030).contains(&step.duration), "{}", step.duration);
            }
        }
    }
}
