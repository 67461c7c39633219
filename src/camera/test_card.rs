//! The test card: a 10-second clip, synchronized with the wall clock.
//!
//! The clip (`test_card.h264`, made by `ci/generate/testcard`) has 300 access units of 1280x720 at
//! 30 frames per second, with a key frame every second. Frame n is due when Unix time modulo 10 s
//! is n/30 s. The clock on the card therefore shows the current time, and comparing it with another
//! clock gives the latency.

use crate::camera::Stop;
use crate::camera::error::SourceError;
use crate::camera::source::{Output, Source};
use crate::h264::Splitter;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The clip, in Annex B format.
pub const CLIP: &[u8] = include_bytes!("test_card.h264");

/// Frame rate of the clip, in frames per second.
pub const FRAMERATE: u32 = 30;

/// Distance between key frames in the clip, in frames.
const KEY_INTERVAL: u64 = 30;

/// Maximum deviation from the due time. A larger deviation means that the wall clock was set.
const MAX_DEVIATION: Duration = Duration::from_millis(500);

/// Returns the byte ranges of the access units in [`CLIP`].
pub fn access_units() -> &'static [Range<usize>] {
    static UNITS: OnceLock<Vec<Range<usize>>> = OnceLock::new();
    UNITS.get_or_init(|| {
        let mut splitter = Splitter::default();
        let mut lengths = vec![];
        splitter.push(CLIP, Duration::ZERO);
        while let Some(unit) = splitter.next_unit() {
            lengths.push(unit.data.len());
        }
        while let Some(unit) = splitter.finish() {
            lengths.push(unit.data.len());
        }
        let mut start = 0;
        lengths
            .into_iter()
            .map(|len| {
                start += len;
                start - len..start
            })
            .collect()
    })
}

/// Returns the due time of frame `number`, as a duration since the Unix epoch. Frame 0 was due at
/// the epoch.
fn due(number: u64) -> Duration {
    let rate = u64::from(FRAMERATE);
    Duration::from_secs(number / rate) + Duration::from_secs(1) * (number % rate) as u32 / FRAMERATE
}

/// Returns the number of the frame to show at `time`, a duration since the Unix epoch.
fn frame_at(time: Duration) -> u64 {
    (time.as_nanos() * u128::from(FRAMERATE) / 1_000_000_000) as u64
}

pub(super) struct TestCard;

impl Source for TestCard {
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), SourceError> {
        self.run_until(output, stop, || false)
    }
}

impl TestCard {
    /// Plays until `stop` is set, or until `is_over` returns true at a key frame.
    pub fn run_until(
        &self,
        output: &mut Output,
        stop: &Stop,
        mut is_over: impl FnMut() -> bool,
    ) -> Result<(), SourceError> {
        let config = &output.camera.config;
        let default = crate::config::Camera::default();
        if (
            config.width,
            config.height,
            config.framerate,
            config.rotation,
            config.hflip,
            config.vflip,
        ) != (1280, 720, FRAMERATE, 0, false, false)
            || config.bitrate != default.bitrate
            || config.keyframe_interval != default.keyframe_interval
        {
            output.note(
                "the test card is always 1280x720 at 30 frames per second and is never rotated; its \
                 bit rate and key frame interval are fixed"
                    .into(),
            );
        }
        let units = access_units();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Start at the last key frame, so that the first viewer does not wait for the next one.
        let start = |time| frame_at(time) / KEY_INTERVAL * KEY_INTERVAL;
        let mut number = start(now());
        while !stop.is_set() {
            let time = now();
            let due = due(number);
            if due > time + MAX_DEVIATION || time > due + MAX_DEVIATION + Duration::from_secs(1) {
                number = start(time);
                continue;
            }
            if due > time && stop.wait(due - time) || number % KEY_INTERVAL == 0 && is_over() {
                break;
            }
            let unit = &units[(number % units.len() as u64) as usize];
            output.access_unit(&CLIP[unit.clone()], due)?;
            number += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h264::Parser;

    #[test]
    fn the_clip_has_the_documented_format() {
        assert!(CLIP.len() < 600_000);
        assert_eq!(access_units().len(), 300);
        let mut parser = Parser::default();
        for (n, unit) in access_units().iter().enumerate() {
            let picture = parser.access_unit(&CLIP[unit.clone()]).unwrap();
            assert_eq!(picture.key, (n as u64).is_multiple_of(KEY_INTERVAL));
            assert_eq!((picture.parameters.width, picture.parameters.height), (1280, 720));
            assert_eq!(picture.parameters.framerate, Some(30.0));
        }
    }

    #[test]
    fn due_is_the_inverse_of_frame_at() {
        for number in [0, 1, 2, 299, 300, 52_000_000_001] {
            assert_eq!(frame_at(due(number) + Duration::from_nanos(1)), number);
        }
    }
}
