//! A camera and its state, for the page, the log and the metrics.

use crate::camera::kind::{CameraKind, TEST_CARD};
use crate::config;
use crate::config::secrets::without_password;
use crate::h264::Picture;
use crate::stream::Stream;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum age of a camera's last picture. A camera with an older one is stalled, and not healthy.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// Period over which the frame rate and the bit rate are measured.
const MEASUREMENT_PERIOD: Duration = Duration::from_secs(2);

/// Length of the period before an update. A camera that delivered video in this period must also
/// deliver it after the update.
const RECENT: Duration = Duration::from_secs(3600);

/// Number of lines from a command's standard error to keep.
const MAX_STDERR_LINES: usize = 10;

/// A camera: its configuration, its stream and its state.
#[derive(Debug)]
pub struct Camera {
    /// Its configuration.
    pub config: config::Camera,
    /// The stream that its viewers receive.
    pub stream: Arc<Stream>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Description of the source. `None` until the source sets it; the configured source is
    /// described instead.
    source: Option<String>,
    /// The kind of the current source, if it is a real camera.
    kind: Option<CameraKind>,
    frames: u64,
    key_frames: u64,
    damaged: u64,
    early_cuts: u64,
    restarts: u64,
    /// When a real camera last delivered a frame, and its kind.
    delivered: Option<(Instant, CameraKind)>,
    /// The frames of the last [`MEASUREMENT_PERIOD`].
    recent: VecDeque<Frame>,
    last_frame: Option<Instant>,
    last_error: Option<String>,
    notes: Vec<String>,
    stderr: VecDeque<String>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    arrived: Instant,
    /// Capture time, on the source's clock.
    captured: Duration,
    bytes: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Streaming,
    Failed,
}

/// The state of a camera, as `/api/status` reports it.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its name, as used in the URLs of its streams.
    pub name: String,
    /// `starting`, `streaming`, `stalled` (no picture for 3 s) or `failed`.
    pub state: &'static str,
    /// The cause and the remedy, while no picture is available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Description of its source.
    pub source: String,
    /// Kind of its source, if it is a real camera.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<CameraKind>,
    /// RFC 6381 codec string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// Width, in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u16>,
    /// Height, in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u16>,
    /// Frames per second, measured over the last 2 s.
    pub framerate: f64,
    /// Bits per second, measured over the last 2 s.
    pub bitrate: u64,
    /// Number of frames since the program started.
    pub frames: u64,
    /// Number of key frames among them.
    pub key_frames: u64,
    /// Number of access units that could not be used.
    pub damaged: u64,
    /// Number of access units that were sent before they were complete.
    pub early_cuts: u64,
    /// Number of times the source was reopened.
    pub restarts: u64,
    /// Current number of viewers.
    pub viewers: usize,
    /// Number of frames dropped for slow viewers.
    pub dropped: u64,
    /// The last error, even if it has been resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Notes for the user, such as settings that the source does not support.
    pub notes: Vec<String>,
    /// The last lines of the command's standard error.
    pub output: Vec<String>,
}

impl Status {
    /// Returns whether the camera delivers video.
    pub fn healthy(&self) -> bool {
        self.state == "streaming"
    }
}

impl Camera {
    /// Creates a camera that has not been started.
    pub fn new(config: config::Camera) -> Camera {
        Camera { config, stream: Arc::default(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current state.
    pub fn status(&self) -> Status {
        let mut state = self.state();
        state.forget_before(Instant::now());
        let (framerate, bitrate) = state.rates();
        let name = match state.phase {
            Phase::Starting => "starting",
            Phase::Streaming if state.last_frame.is_none_or(|at| at.elapsed() > STALLED_AFTER) => {
                "stalled"
            }
            Phase::Streaming => "streaming",
            Phase::Failed => "failed",
        };
        let error = match name {
            "failed" => state.last_error.clone(),
            "stalled" => Some(format!("no picture for {} s", STALLED_AFTER.as_secs())),
            _ => None,
        };
        let init = self.stream.init();
        let parameters = init.as_ref().map(|init| &init.parameters);
        Status {
            name: self.config.name.clone(),
            state: name,
            error,
            source: state.source(&self.config),
            kind: state.kind,
            codec: parameters.map(|p| p.codec.clone()),
            width: parameters.map(|p| p.width),
            height: parameters.map(|p| p.height),
            framerate: (framerate * 100.0).round() / 100.0,
            bitrate: bitrate as u64,
            frames: state.frames,
            key_frames: state.key_frames,
            damaged: state.damaged,
            early_cuts: state.early_cuts,
            restarts: state.restarts,
            viewers: self.stream.viewers(),
            dropped: self.stream.dropped(),
            last_error: state.last_error.clone(),
            notes: state.notes.clone(),
            output: state.stderr.iter().cloned().collect(),
        }
    }

    /// Returns the number of frames since the program started.
    pub(super) fn frames(&self) -> u64 {
        self.state().frames
    }

    /// Records a published frame of `bytes` bytes, captured at `captured` on the source's clock.
    /// The first frame of a run changes the phase to streaming.
    pub(super) fn frame_published(
        &self,
        picture: &Picture<'_>,
        arrived: Instant,
        captured: Duration,
        bytes: usize,
    ) {
        let mut state = self.state();
        if state.phase != Phase::Streaming {
            state.phase = Phase::Streaming;
            let parameters = picture.parameters;
            log::info!(
                "camera \"{}\": {}x{}, {}, from {}",
                self.config.name,
                parameters.width,
                parameters.height,
                parameters.codec,
                state.source(&self.config)
            );
        }
        state.frames += 1;
        state.key_frames += u64::from(picture.key);
        state.last_frame = Some(arrived);
        if let Some(kind) = state.kind {
            state.delivered = Some((arrived, kind));
        }
        state.recent.push_back(Frame { arrived, captured, bytes });
        state.forget_before(arrived);
    }

    /// Records a frame that cannot be used.
    pub(super) fn frame_damaged(&self, reason: &str) {
        let mut state = self.state();
        state.damaged += 1;
        state.last_error = Some(reason.into());
    }

    /// Returns whether the camera has failed with this error and has delivered nothing since.
    pub(super) fn has_failed_with(&self, error: &str) -> bool {
        let state = self.state();
        state.phase == Phase::Failed && state.last_error.as_deref() == Some(error)
    }

    /// Records the end of a run. `is_restart` says whether the source is about to be reopened, as
    /// opposed to searched for.
    pub(super) fn failed(&self, error: String, is_restart: bool) {
        let mut state = self.state();
        state.restarts += u64::from(is_restart);
        state.phase = Phase::Failed;
        state.last_error = Some(error);
    }

    /// Returns the last error, if access units were damaged.
    pub(super) fn stream_problem(&self) -> Option<String> {
        let state = self.state();
        state.last_error.clone().filter(|_| state.damaged > 0)
    }

    /// Sets the description of the source, which replaces the one from the configuration.
    pub(super) fn set_source(&self, description: String) {
        self.state().source = Some(description);
    }

    /// Sets the kind of the source: `None` for the test card.
    pub(super) fn set_kind(&self, kind: Option<CameraKind>) {
        self.state().kind = kind;
    }

    /// Prepares the state for a new run: no notes, and the kind of the configured source.
    pub(super) fn begin_run(&self) {
        let mut state = self.state();
        state.notes.clear();
        state.kind = CameraKind::of_source(self.config.source.as_ref());
    }

    /// What the camera has shown within the last hour: the name of a [`CameraKind`], [`TEST_CARD`] if
    /// it has shown only the test card, or `None` if it has shown nothing. The time does not depend
    /// on the wall clock.
    pub fn shown_recently(&self) -> Option<&'static str> {
        let state = self.state();
        let is_recent = |at: &Instant| at.elapsed() <= RECENT;
        match state.delivered.filter(|(at, _)| is_recent(at)) {
            Some((_, kind)) => Some(kind.name()),
            None => state.last_frame.filter(is_recent).map(|_| TEST_CARD),
        }
    }

    /// Takes over from `earlier`, the same camera before a change of the configuration, when it
    /// delivered frames. Has no effect if it is another camera.
    pub(super) fn continue_from(&self, earlier: &Camera) {
        if (&self.config.name, &self.config.source)
            == (&earlier.config.name, &earlier.config.source)
        {
            let delivered = earlier.state().delivered;
            let mut state = self.state();
            state.delivered = state.delivered.or(delivered);
        }
    }

    /// Whether the camera still shows `shown`, a result of [`Camera::shown_recently`] before an
    /// update. A real camera is as good as the test card, but not the other way round. An unknown
    /// kind, from a newer version, stands for any real camera. If the configured source cannot be of
    /// this kind, the configuration has been changed since, and this is also true.
    pub fn still_shows(&self, shown: &str) -> bool {
        let source = self.config.source.as_ref();
        let kind = CameraKind::from_name(shown);
        let is_possible = match kind {
            Some(kind) => kind.is_possible(source),
            None => shown == TEST_CARD || source != Some(&config::Source::TestCard),
        };
        let status = self.status();
        let is_same = match kind {
            Some(kind) => status.kind == Some(kind),
            None => shown == TEST_CARD || status.kind.is_some(),
        };
        !is_possible || status.healthy() && is_same
    }

    /// Adds a note for the user, for example about a setting that the source does not support.
    pub(super) fn add_note(&self, note: String) {
        let mut state = self.state();
        if !state.notes.contains(&note) {
            log::info!("camera \"{}\": {note}", self.config.name);
            state.notes.push(note);
        }
    }

    /// Adds a line of the command's standard error.
    pub(super) fn add_stderr_line(&self, line: String) {
        let mut state = self.state();
        if state.stderr.len() == MAX_STDERR_LINES {
            state.stderr.pop_front();
        }
        state.stderr.push_back(line);
    }

    /// Adds to the number of access units that were sent before they were complete.
    pub(super) fn add_early_cuts(&self, count: u64) {
        self.state().early_cuts += count;
    }
}

impl State {
    fn forget_before(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|frame| now - frame.arrived > MEASUREMENT_PERIOD) {
            self.recent.pop_front();
        }
    }

    /// Returns the frames and bits per second between the first recent frame and the last.
    fn rates(&self) -> (f64, f64) {
        let Some((first, last)) = self.recent.front().zip(self.recent.back()) else {
            return (0.0, 0.0);
        };
        // Frames that the source buffered before it was opened arrive all at once. Their capture
        // times give the true period.
        let captured = last.captured.saturating_sub(first.captured);
        let captured = if captured <= 2 * MEASUREMENT_PERIOD { captured } else { Duration::ZERO };
        let period = (last.arrived - first.arrived).max(captured);
        if period.is_zero() {
            return (0.0, 0.0);
        }
        let bytes: usize = self.recent.iter().skip(1).map(|frame| frame.bytes).sum();
        let frames = self.recent.len() - 1;
        let per_second = |amount: f64| amount / period.as_secs_f64();
        (per_second(frames as f64), per_second(bytes as f64 * 8.0))
    }

    fn source(&self, config: &config::Camera) -> String {
        self.source.clone().unwrap_or_else(|| describe(config))
    }
}

/// Describes the configured source.
fn describe(config: &config::Camera) -> String {
    match &config.source {
        None => "the first camera found".into(),
        Some(config::Source::TestCard) => "the test card".into(),
        Some(config::Source::Rpicam) => "rpicam-vid".into(),
        Some(config::Source::Device(path)) => path.clone(),
        Some(config::Source::Command(command)) => {
            command.iter().map(|word| without_password(word)).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn state(frames: impl IntoIterator<Item = (u32, u32)>) -> State {
        let start = Instant::now();
        let frame = |(arrived, captured): (u32, u32)| Frame {
            arrived: start + arrived * MS,
            captured: captured * MS,
            bytes: 1000,
        };
        State { recent: frames.into_iter().map(frame).collect(), ..Default::default() }
    }

    #[test]
    fn measures_rates_between_the_first_frame_and_the_last() {
        assert_eq!(state([]).rates(), (0.0, 0.0));
        assert_eq!(state([(0, 0)]).rates(), (0.0, 0.0));
        assert_eq!(state([(0, 0), (50, 50), (100, 100)]).rates(), (20.0, 160_000.0));
        // Buffered frames arrive all at once.
        assert_eq!(state([(0, 0), (0, 50), (0, 100)]).rates(), (20.0, 160_000.0));
        // The source's clock has jumped.
        assert_eq!(state([(0, 0), (50, 50), (100, 9000)]).rates(), (20.0, 160_000.0));
    }

    #[test]
    fn recognizes_a_repeated_error() {
        let camera = Camera::new(config::Camera::default());
        camera.frame_damaged("damaged");
        assert!(!camera.has_failed_with("damaged"), "the source has not failed");
        camera.failed("unplugged".into(), true);
        assert!(camera.has_failed_with("unplugged"));
        assert!(!camera.has_failed_with("busy"));
        camera.failed("unplugged".into(), false);
        let status = camera.status();
        assert_eq!((status.state, status.restarts), ("failed", 1));
        assert_eq!(status.error.as_deref(), Some("unplugged"));
    }
}
