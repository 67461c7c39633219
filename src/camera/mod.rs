//! Where H.264 comes from, and what keeps it coming.
//!
//! Each camera has a thread of its own. It opens the source, hands every access unit to the
//! stream, and when the source ends or fails, it says why, waits a little and opens it again: a
//! broken camera is an everyday case, not the end.
//!
//! ```text
//! thread "camera front":  open ─► access units ─► Output ─► Stream
//!                          ▲            │ ends, fails, stalls
//!                          └── back-off ◄┘
//! ```

mod auto;
pub mod command;
pub mod rpicam;
mod stop;
pub mod test_card;
pub mod v4l2;

pub use stop::Stop;

use crate::config;
use crate::h264::{self, Parser};
use crate::stream::Stream;
use serde::Serialize;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A source that has not delivered a picture for so long has failed. A camera needs up to 3 s to
/// start, a network camera behind ffmpeg up to 8.
pub const STALL: Duration = Duration::from_secs(10);

/// A camera whose last picture is older than this is not live, and not healthy.
const LIVE: Duration = Duration::from_secs(3);

/// Wait before the source is opened again: the first time, and at the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How often a camera that is not there is looked for.
const LOOK: Duration = Duration::from_millis(250);

/// A source that has delivered for so long starts at the shortest wait again.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// Over this time frame rate and bit rate are measured.
const MEASURE: Duration = Duration::from_secs(2);

/// Lines of a command's standard error that are kept.
const OUTPUT_LINES: usize = 10;

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
struct State {
    phase: Phase,
    /// Where the pictures come from, in words, where the configuration leaves that open.
    from: Option<String>,
    frames: u64,
    key_frames: u64,
    damaged: u64,
    early_cuts: u64,
    restarts: u64,
    /// Arrival, capture by the source's clock, and size of the frames of the last [`MEASURE`].
    recent: VecDeque<(Instant, Duration, usize)>,
    last_frame: Option<Instant>,
    last_error: Option<String>,
    notes: Vec<String>,
    output: VecDeque<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
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

    fn state(&self) -> MutexGuard<'_, State> {
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
    fn forget_before(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, ..)| now - *at > MEASURE) {
            self.recent.pop_front();
        }
    }
}

/// A source in words: for the page, the log and the status.
fn describe(config: &config::Camera) -> String {
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

/// `rtsp://user:password@camera/` without the password: whoever may watch need not know it.
pub(crate) fn without_password(word: &str) -> String {
    let hidden = || {
        let (scheme, rest) = word.split_once("://")?;
        let (user, host) = rest.split('/').next()?.rsplit_once('@')?;
        let path = &rest[user.len() + 1 + host.len()..];
        Some(format!("{scheme}://***@{host}{path}"))
    };
    hidden().unwrap_or_else(|| word.into())
}

/// Why a source has ended, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub message: String,
    /// The camera is not there: it costs nothing to look for it often.
    pub gone: bool,
}

impl Failure {
    /// The camera is not there.
    pub fn gone(message: String) -> Failure {
        Failure { message, gone: true }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure { message, gone: false }
    }
}

/// Something that delivers H.264.
trait Source: Send {
    /// Delivers until `stop` (then `Ok`), or until it can't any more.
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), Failure>;
}

/// The sources of all cameras, in their order.
fn sources(configs: &[config::Camera]) -> Vec<Box<dyn Source>> {
    let named = |config: &config::Camera| match &config.source {
        Some(config::Source::Device(path)) => Some(PathBuf::from(path)),
        _ => None,
    };
    let taken: Vec<PathBuf> = configs.iter().filter_map(named).collect();
    let (mut rpicams, mut found) = (0..configs.len(), 0..configs.len());
    let next = |numbers: &mut std::ops::Range<usize>| numbers.next().unwrap_or_default();
    let source = |config: &config::Camera| -> Box<dyn Source> {
        match &config.source {
            None => Box::new(auto::Auto::new(config, next(&mut found), taken.clone())),
            Some(config::Source::TestCard) => Box::new(test_card::TestCard),
            Some(config::Source::Command(command)) => {
                Box::new(command::Command::new(command.clone()))
            }
            Some(config::Source::Rpicam) => {
                Box::new(rpicam::Rpicam::new(config, next(&mut rpicams)))
            }
            Some(config::Source::Device(path)) => Box::new(v4l2::Device::new(path, config)),
        }
    };
    configs.iter().map(source).collect()
}

/// Where a source puts its access units.
pub struct Output {
    camera: Arc<Camera>,
    parser: Parser,
    /// A damaged access unit has been complained of.
    warned: bool,
}

impl Output {
    /// For one run of a source: nothing of an earlier run is left.
    pub fn new(camera: Arc<Camera>) -> Output {
        camera.state().notes.clear();
        Output { camera, parser: Parser::default(), warned: false }
    }

    /// Another source goes on from here.
    fn restart(&mut self) {
        self.camera.stream.interrupt();
        *self = Output::new(self.camera.clone());
    }

    /// Takes one access unit in Annex B format, captured at `time` on the source's own clock.
    ///
    /// True if it is a picture. The error is one that ends the source.
    pub fn access_unit(&mut self, data: &[u8], time: Duration) -> Result<bool, String> {
        let camera = &self.camera;
        let arrived = Instant::now();
        let expected = Some(f64::from(camera.config.framerate));
        match self.parser.access_unit(data) {
            Ok(picture) => {
                let key = picture.key;
                let Some(len) = camera.stream.publish(data, &picture, time, expected) else {
                    return Ok(true); // waiting for a key frame
                };
                let now = Instant::now();
                // For ./ci/bench v4l2.
                log::trace!(
                    "camera {:?}: fragment out after {} ns",
                    camera.config.name,
                    (now - arrived).as_nanos()
                );
                let mut state = camera.state();
                if state.phase != Phase::Streaming {
                    state.phase = Phase::Streaming;
                    let parameters = picture.parameters;
                    log::info!(
                        "camera \"{}\": {}x{}, {}, from {}",
                        camera.config.name,
                        parameters.width,
                        parameters.height,
                        parameters.codec,
                        state.from.clone().unwrap_or_else(|| describe(&camera.config))
                    );
                }
                state.frames += 1;
                state.key_frames += u64::from(key);
                state.last_frame = Some(now);
                state.recent.push_back((now, time, len));
                state.forget_before(now);
                Ok(true)
            }
            Err(error @ (h264::Error::Reordered | h264::Error::Interlaced)) => {
                Err(error.to_string())
            }
            // Delimiters or filler alone: no harm.
            Err(h264::Error::NoPicture) => Ok(false),
            Err(error) => {
                self.damaged(&error.to_string());
                Ok(false)
            }
        }
    }

    /// A frame could not be used.
    fn damaged(&mut self, why: &str) {
        let mut state = self.camera.state();
        state.damaged += 1;
        // Once a run: garbage finds ever new words.
        if !std::mem::replace(&mut self.warned, true) {
            log::warn!("camera \"{}\": {why}", self.camera.config.name);
        }
        state.last_error = Some(why.into());
    }

    /// Where the pictures come from, in words.
    fn from(&self, source: String) {
        self.camera.state().from = Some(source);
    }

    /// Somebody new watches, and a key frame would give them a picture sooner. Asked once, it is
    /// taken as said.
    fn key_frame_wanted(&self) -> bool {
        self.camera.stream.key_frame_wanted()
    }

    /// What is wrong with the stream, if no picture has come out of it.
    fn complaint(&self) -> Option<String> {
        let state = self.camera.state();
        state.last_error.clone().filter(|_| state.damaged > 0)
    }

    /// A line that the command wrote to its standard error.
    fn said(&self, line: String) {
        log::debug!("camera \"{}\": {line}", self.camera.config.name);
        let mut state = self.camera.state();
        if state.output.len() == OUTPUT_LINES {
            state.output.pop_front();
        }
        state.output.push_back(line);
    }

    /// Something that was asked for and can't be had.
    fn note(&self, note: String) {
        let mut state = self.camera.state();
        if !state.notes.contains(&note) {
            log::info!("camera \"{}\": {note}", self.camera.config.name);
            state.notes.push(note);
        }
    }

    fn early_cuts(&self, count: u64) {
        self.camera.state().early_cuts += count;
    }
}

/// Cameras at work. Dropped, they stop.
pub struct Cameras {
    /// In the order of the configuration.
    pub all: Vec<Arc<Camera>>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

impl Cameras {
    /// Starts a thread for each camera.
    pub fn start(configs: &[config::Camera]) -> std::io::Result<Cameras> {
        let stop = Arc::new(Stop::new()?);
        let mut cameras = Cameras { all: vec![], stop, threads: vec![] };
        for (config, source) in configs.iter().zip(sources(configs)) {
            let camera = Arc::new(Camera::new(config.clone()));
            cameras.all.push(camera.clone());
            let stop = cameras.stop.clone();
            let name = format!("camera {}", config.name);
            let thread = std::thread::Builder::new().name(name);
            cameras.threads.push(thread.spawn(move || keep_running(&camera, source, &stop))?);
        }
        Ok(cameras)
    }
}

impl Drop for Cameras {
    fn drop(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Opens the source again and again, until `stop`.
fn keep_running(camera: &Arc<Camera>, mut source: Box<dyn Source>, stop: &Stop) {
    let mut wait = BACK_OFF.0;
    while !stop.is_set() {
        let started = Instant::now();
        let frames = camera.state().frames;
        let failure = match source.run(&mut Output::new(camera.clone()), stop) {
            Ok(()) if stop.is_set() => break,
            Ok(()) => Failure::from("the source ended".to_string()),
            Err(failure) => failure,
        };
        camera.stream.interrupt();
        let mut state = camera.state();
        if started.elapsed() > GOOD_RUN && state.frames > frames {
            wait = BACK_OFF.0;
        }
        let pause = if failure.gone { LOOK } else { wait };
        let again =
            state.last_error.as_ref() == Some(&failure.message) && state.phase == Phase::Failed;
        // The same trouble again and again fills no log.
        let level = if again { log::Level::Debug } else { log::Level::Error };
        let (name, message) = (&camera.config.name, &failure.message);
        match failure.gone {
            true => log::log!(level, "camera \"{name}\": {message} (waiting for it)"),
            false => {
                let seconds = pause.as_secs();
                log::log!(level, "camera \"{name}\": {message} (trying again in {seconds} s)");
            }
        }
        // Looking for a camera that is not there is no start.
        state.restarts += u64::from(!(failure.gone && again));
        state.phase = Phase::Failed;
        state.last_error = Some(failure.message);
        drop(state);
        if stop.wait(pause) {
            break;
        }
        if !failure.gone {
            wait = (wait * 2).min(BACK_OFF.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_cameras_are_not_told() {
        let hidden = |word| without_password(word);
        assert_eq!(hidden("rtsp://me:secret@cam/live"), "rtsp://***@cam/live");
        assert_eq!(hidden("http://cam/a@b"), "http://cam/a@b");
        assert_eq!(hidden("-i"), "-i");
    }
}
