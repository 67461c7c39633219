//! Converts capture times to decode times that are evenly spaced, have no gaps and follow real
//! time.
//!
//! Browsers freeze at gaps in the decode times and skip frames if the times jitter. Camera
//! timestamps have both gaps and jitter. The duration of a sample is therefore not the step to the
//! next timestamp, which is still unknown, but the mean step of the last [`WINDOW_FRAMES`] frames.
//! The next decode time is always the current one plus this duration. Since every step contributes
//! to the mean, the sum of the durations follows the sum of the steps: an hour of video takes an
//! hour. A few lost frames slightly lengthen the durations over the next few seconds; a longer gap
//! counts as one mean step. If the actual frame rate differs from the declared one, the timeline
//! adopts it after [`PROBE_FRAMES`] frames.
//!
//! The module is pure: it receives capture times and uses no clock.

use std::time::Duration;

/// Timescale of the decode times and durations, in ticks per second.
pub const TIMESCALE: u32 = 90_000;

/// Number of steps in the mean: 3 s at 30 frames per second. Jitter of 10 ms changes the mean by
/// 0.1 ms.
const WINDOW_FRAMES: usize = 90;

/// Number of steps used to detect a change in the frame rate: 0.4 s at 30 frames per second.
const PROBE_FRAMES: usize = 12;

/// Threshold for a change in the frame rate, in percent. The rate has changed if the mean and the
/// median of the last steps both exceed the measured step, or both fall below it, by more than this
/// percentage. Cameras that lower their frame rate in low light halve it. Gaps (which do not affect
/// the median), frames that arrive in bunches (which do not affect the mean) and 40 ms of jitter do
/// not reach the threshold.
const RATE_CHANGE_PERCENT: u64 = 30;

/// Threshold for an interruption, in mean steps. An interruption is also longer than
/// [`MAX_BUNCH_GAP_TICKS`].
const INTERRUPTION_STEPS: u64 = 4;

/// Maximum gap between bunches of frames, in ticks (0.25 s).
const MAX_BUNCH_GAP_TICKS: u64 = 22_500;

/// Plausible steps, in ticks: from 250 frames per second to one frame every 5 s.
const PLAUSIBLE_STEP_TICKS: std::ops::RangeInclusive<u64> = 360..=450_000;

/// Step to assume if the frame rate is unknown, in ticks: 30 frames per second.
const DEFAULT_STEP_TICKS: u64 = 3000;

/// Decode time and duration of a sample, in 1/90000 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Decode time.
    pub decode_time: u64,
    /// Time until the next decode time.
    pub duration: u32,
}

/// Converts the timestamps of a camera to decode times.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Decode time of the next sample, in ticks.
    next: u64,
    /// Timestamp of the previous sample, in ticks.
    last: Option<u64>,
    /// Ring buffer of the last steps, in ticks; gaps are replaced by the mean.
    steps: [u32; WINDOW_FRAMES],
    /// Index of the oldest step.
    oldest: usize,
    /// Sum of `steps`.
    sum: u64,
    /// Ring buffer of the last steps as measured, in ticks.
    probe: [u32; PROBE_FRAMES],
    /// Number of steps written to `probe`.
    probed: usize,
    /// Remainder when the sum is divided by the number of steps, carried over to the next sample.
    remainder: u64,
}

impl Timeline {
    /// Creates a timeline that starts at 0 and expects `framerate` frames per second (`None`: 30).
    pub fn new(framerate: Option<f64>) -> Timeline {
        let mut timeline = Timeline {
            next: 0,
            last: None,
            steps: [0; WINDOW_FRAMES],
            oldest: 0,
            sum: 0,
            probe: [0; PROBE_FRAMES],
            probed: 0,
            remainder: 0,
        };
        timeline.expect(framerate);
        timeline
    }

    /// Sets the expected frame rate, in frames per second (`None`: 30), and resets the mean to it.
    /// The decode times continue without a gap.
    pub fn expect(&mut self, framerate: Option<f64>) {
        let step =
            framerate.map_or(DEFAULT_STEP_TICKS, |fps| (f64::from(TIMESCALE) / fps).round() as u64);
        let step = step.clamp(*PLAUSIBLE_STEP_TICKS.start(), *PLAUSIBLE_STEP_TICKS.end());
        self.steps = [step as u32; WINDOW_FRAMES];
        self.sum = step * WINDOW_FRAMES as u64;
        self.last = None;
        self.probed = 0;
    }

    /// Returns the decode time and duration of the next sample, which was captured at `time` on the
    /// camera's clock.
    pub fn step(&mut self, time: Duration) -> Step {
        let time = ticks(time);
        if let Some(last) = self.last {
            let mean = self.sum / WINDOW_FRAMES as u64;
            // After a gap or a backward step of the clock, use the mean.
            let step = match time.checked_sub(last) {
                Some(step) if step <= MAX_BUNCH_GAP_TICKS.max(INTERRUPTION_STEPS * mean) => step,
                _ => mean,
            };
            let slot = &mut self.steps[self.oldest];
            self.sum = self.sum - u64::from(*slot) + step;
            *slot = step as u32;
            self.oldest = (self.oldest + 1) % WINDOW_FRAMES;
            self.detect_rate_change(time.saturating_sub(last));
        }
        self.last = Some(time);
        let total = self.sum + self.remainder;
        self.remainder = total % WINDOW_FRAMES as u64;
        let duration = (total / WINDOW_FRAMES as u64)
            .clamp(*PLAUSIBLE_STEP_TICKS.start(), *PLAUSIBLE_STEP_TICKS.end());
        let step = Step { decode_time: self.next, duration: duration as u32 };
        self.next += duration;
        step
    }

    /// Adopts the frame rate of the last steps if it differs from the measured one by more than
    /// [`RATE_CHANGE_PERCENT`].
    fn detect_rate_change(&mut self, step: u64) {
        self.probe[self.probed % PROBE_FRAMES] = step.min(*PLAUSIBLE_STEP_TICKS.end()) as u32;
        self.probed += 1;
        if self.probed < PROBE_FRAMES {
            return;
        }
        let mut steps = self.probe;
        steps.sort_unstable();
        let median = u64::from(steps[PROBE_FRAMES / 2 - 1] + steps[PROBE_FRAMES / 2]) / 2;
        let mean = steps.iter().map(|step| u64::from(*step)).sum::<u64>() / PROBE_FRAMES as u64;
        let measured = self.sum / WINDOW_FRAMES as u64;
        let longer = mean.min(median) * 100 > measured * (100 + RATE_CHANGE_PERCENT);
        let shorter = mean.max(median) * 100 < measured * (100 - RATE_CHANGE_PERCENT);
        if longer || shorter {
            let step = mean.clamp(*PLAUSIBLE_STEP_TICKS.start(), *PLAUSIBLE_STEP_TICKS.end());
            self.steps = [step as u32; WINDOW_FRAMES];
            self.sum = step * WINDOW_FRAMES as u64;
            self.probed = 0;
        }
    }

    /// Returns the measured frame rate, in frames per second.
    pub fn framerate(&self) -> f64 {
        f64::from(TIMESCALE) * WINDOW_FRAMES as f64 / self.sum.max(1) as f64
    }
}

/// Converts a time to ticks.
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
    fn adopts_the_actual_frame_rate_after_the_probe() {
        for fps in [5.0, 15.0, 60.0] {
            let mut timeline = Timeline::new(Some(30.0));
            let steps = run(&mut timeline, (0..301).map(|n| 1.0 + f64::from(n) / fps));
            let error = steps[300].decode_time as f64 / 90_000.0 - 300.0 / fps;
            // The error that accumulates during the probe.
            let expected = PROBE_FRAMES as f64 * (1.0 / 30.0 - 1.0 / fps);
            assert!((error - expected).abs() < 0.25, "{fps}: {error} {expected}");
            assert_eq!(steps[20].duration, (90_000.0 / fps) as u32);
        }
    }

    #[test]
    fn follows_a_camera_that_slows_down_in_the_dark() {
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
    fn bunches_and_gaps_do_not_change_the_frame_rate() {
        let mut timeline = Timeline::new(Some(30.0));
        // Bunches of five frames, and a gap of half a second every 5 s.
        let times = (0..900).map(|n| f64::from(n / 5 * 5) / 30.0 + f64::from(n / 150) * 0.5);
        for step in run(&mut timeline, times) {
            assert!((2550..3500).contains(&step.duration), "{step:?}");
        }
    }

    #[test]
    fn decode_times_follow_real_time_for_an_hour() {
        // A camera that declares 30 frames per second and delivers 29.91.
        let mut timeline = Timeline::new(Some(30.0));
        let steps = run(&mut timeline, (0..107_676).map(|n| f64::from(n) / 29.91));
        let end = steps.last().unwrap();
        let seconds = (end.decode_time + u64::from(end.duration)) as f64 / f64::from(TIMESCALE);
        assert!((seconds - 3600.0).abs() < 0.05, "{seconds}");
    }

    #[test]
    fn lost_frames_cause_no_gap_and_no_drift() {
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
    fn an_interruption_counts_as_one_step() {
        let mut timeline = Timeline::new(Some(25.0));
        let steps = run(&mut timeline, [0.0, 0.04, 0.08, 60.0, 60.04]);
        let times: Vec<u64> = steps.iter().map(|s| s.decode_time).collect();
        assert_eq!(times, [0, 3600, 7200, 10800, 14400]);
    }

    #[test]
    fn adopts_half_the_frame_rate() {
        let mut timeline = Timeline::new(Some(30.0));
        run(&mut timeline, (0..400).map(|n| f64::from(n) / 15.0));
        assert!((timeline.framerate() - 15.0).abs() < 0.01);
    }

    proptest! {
        /// Decode times have neither gaps nor backward steps, whatever the timestamps are.
        #[test]
        fn decode_times_have_no_gaps(times in proptest::collection::vec(0u64..20_000_000, 2..300),
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

        /// Jitter of a third of the frame period changes the durations by at most 1 %.
        #[test]
        fn jitter_is_averaged_out(jitter in proptest::collection::vec(-11.0f64..11.0, 500)) {
            let mut timeline = Timeline::new(Some(30.0));
            let times = jitter.iter().enumerate().map(|(n, j)| 1.0 + n as f64 / 30.0 + j / 1000.0);
            for step in run(&mut timeline, times) {
                prop_assert!((2970..=3030).contains(&step.duration), "{}", step.duration);
            }
        }
    }
}
