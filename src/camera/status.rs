//! A camera and its state: for the page, the log and the metrics.

use crate::config;
use crate::config::secrets::without_password;
use crate::stream::Stream;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A camera whose last picture is older than this is not live, and not healthy.
pub(crate) const LIVE: Duration = Duration::from_secs(3);

/// Over this time frame rate and bit rate are measured.
pub(crate) const MEASURE: Duration = Duration::from_secs(2);

/// Lines of a command's standard error that are kept.
pub(crate) const OUTPUT_LINES: usize = 10;

/// One camera: its configuration, its stream, and how it is doing.
#[derive(Debug)]
pub struct Camera {
    /// What was asked for.
    pub config: config::Camera,
    /// What everybody watches.
    pub stream: Arc<Stream>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(super) phase: Phase,
    /// Where the pictures come from, in words, where the configuration leaves that open.
    pub(super) from: Option<String>,
    pub(super) frames: u64,
    pub(super) key_frames: u64,
    pub(super) damaged: u64,
    pub(super) early_cuts: u64,
    pub(super) restarts: u64,
    /// Arrival, capture by the source's clock, and size of the frames of the last [`MEASURE`].
    pub(super) recent: VecDeque<(Instant, Duration, usize)>,
    pub(super) last_frame: Option<Instant>,
    pub(super) last_error: Option<String>,
    pub(super) notes: Vec<String>,
    pub(super) output: VecDeque<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Starting,
    Streaming,
    Failed,
}

/// How a camera is doing, as `/api/status` tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its name in addresses.
    pub name: String,
    /// `starting`, `streaming`, `stalled` (no picture for 3 s) or `failed`.
    pub state: &'static str,
    /// Why there is no picture, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where its pictures come from, in words.
    pub source: String,
    /// RFC 6381 codec string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u16>,
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u16>,
    /// Frames a second, measured over the last 2 s.
    pub framerate: f64,
    /// Bits a second, measured over the last 2 s.
    pub bitrate: u64,
    /// Frames since the program started.
    pub frames: u64,
    /// Key frames among them.
    pub key_frames: u64,
    /// Access units that could not be used.
    pub damaged: u64,
    /// Access units that were sent before their end was there.
    pub early_cuts: u64,
    /// How often the source was opened again.
    pub restarts: u64,
    /// Who watches now.
    pub viewers: usize,
    /// Frames left out for viewers who were too slow, all of them together.
    pub dropped: u64,
    /// The last thing that went wrong, also when it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What was asked for and can't be had.
    pub notes: Vec<String>,
    /// The last lines of the command's standard error.
    pub output: Vec<String>,
}

impl Status {
    /// It delivers pictures.
    pub fn healthy(&self) -> bool {
        self.state == "streaming"
    }
}

impl Camera {
    /// A camera that has not been started.
    pub fn new(config: config::Camera) -> Camera {
        Camera { config, stream: Arc::default(), state: Mutex::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is doing at this moment.
    pub fn status(&self) -> Status {
        let mut state = self.state();
        let now = Instant::now();
        state.forget_before(now);
        // What a source had ready as it started comes at once, but took as long as its times say.
        let span = state.recent.front().zip(state.recent.back()).map(|(first, last)| {
            let captured = last.1.saturating_sub(first.1);
            (last.0 - first.0).max(if captured <= 2 * MEASURE { captured } else { Duration::ZERO })
        });
        let per_second = |amount: f64| {
            span.filter(|span| *span > Duration::ZERO).map_or(0.0, |s| amount / s.as_secs_f64())
        };
        // The bytes and the frames between the first arrival and the last.
        let bytes: usize = state.recent.iter().skip(1).map(|(_, _, bytes)| bytes).sum();
        let steps = state.recent.len().saturating_sub(1);
        let name = match state.phase {
            Phase::Starting => "starting",
            Phase::Streaming if state.last_frame.is_none_or(|at| at.elapsed() > LIVE) => "stalled",
            Phase::Streaming => "streaming",
            Phase::Failed => "failed",
        };
        let error = match name {
            "failed" => state.last_error.clone(),
            "stalled" => Some(format!("no picture for {} s", LIVE.as_secs())),
            _ => None,
        };
        let init = self.stream.init();
        let parameters = init.as_ref().map(|init| &init.parameters);
        Status {
            name: self.config.name.clone(),
            state: name,
            error,
            source: state.from.clone().unwrap_or_else(|| describe(&self.config)),
            codec: parameters.map(|p| p.codec.clone()),
            width: parameters.map(|p| p.width),
            height: parameters.map(|p| p.height),
            framerate: (per_second(steps as f64) * 100.0).round() / 100.0,
            bitrate: per_second(bytes as f64 * 8.0) as u64,
            frames: state.frames,
            key_frames: state.key_frames,
            damaged: state.damaged,
            early_cuts: state.early_cuts,
            restarts: state.restarts,
            viewers: self.stream.viewers(),
            dropped: self.stream.dropped(),
            last_error: state.last_error.clone(),
            notes: state.notes.clone(),
            output: state.output.iter().cloned().collect(),
        }
    }
}

impl State {
    pub(super) fn forget_before(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, ..)| now - *at > MEASURE) {
            self.recent.pop_front();
        }
    }
}

/// A source in words: for the page, the log and the status.
pub(crate) fn describe(config: &config::Camera) -> String {
    match &config.source {
        None => "the first camera that is found".into(),
        Some(config::Source::TestCard) => "the test card".into(),
        Some(config::Source::Rpicam) => "rpicam-vid".into(),
        Some(config::Source::Device(path)) => path.clone(),
        Some(config::Source::Command(command)) => {
            command.iter().map(|word| without_password(word)).collect::<Vec<_>>().join(" ")
        }
    }
}
