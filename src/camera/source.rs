//! What delivers H.264 ([`Source`]), and where it puts its access units ([`Output`]).

use crate::camera::Stop;
use crate::camera::status::{Camera, OUTPUT_LINES, Phase, describe};
use crate::h264;
use crate::h264::Parser;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A source that has not delivered a picture for so long has failed. A camera needs up to 3 s to
/// start, a network camera behind ffmpeg up to 8.
pub const STALL: Duration = Duration::from_secs(10);

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
pub(crate) trait Source: Send {
    /// Delivers until `stop` (then `Ok`), or until it can't any more.
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), Failure>;
}

/// Where a source puts its access units.
pub struct Output {
    pub(super) camera: Arc<Camera>,
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
    pub(crate) fn restart(&mut self) {
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
    pub(crate) fn damaged(&mut self, why: &str) {
        let mut state = self.camera.state();
        state.damaged += 1;
        // Once a run: garbage finds ever new words.
        if !std::mem::replace(&mut self.warned, true) {
            log::warn!("camera \"{}\": {why}", self.camera.config.name);
        }
        state.last_error = Some(why.into());
    }

    /// Where the pictures come from, in words.
    pub(crate) fn from(&self, source: String) {
        self.camera.state().from = Some(source);
    }

    /// Somebody new watches, and a key frame would give them a picture sooner. Asked once, it is
    /// taken as said.
    pub(crate) fn key_frame_wanted(&self) -> bool {
        self.camera.stream.key_frame_wanted()
    }

    /// What is wrong with the stream, if no picture has come out of it.
    pub(crate) fn complaint(&self) -> Option<String> {
        let state = self.camera.state();
        state.last_error.clone().filter(|_| state.damaged > 0)
    }

    /// A line that the command wrote to its standard error.
    pub(crate) fn said(&self, line: String) {
        log::debug!("camera \"{}\": {line}", self.camera.config.name);
        let mut state = self.camera.state();
        if state.output.len() == OUTPUT_LINES {
            state.output.pop_front();
        }
        state.output.push_back(line);
    }

    /// Something that was asked for and can't be had.
    pub(crate) fn note(&self, note: String) {
        let mut state = self.camera.state();
        if !state.notes.contains(&note) {
            log::info!("camera \"{}\": {note}", self.camera.config.name);
            state.notes.push(note);
        }
    }

    pub(crate) fn early_cuts(&self, count: u64) {
        self.camera.state().early_cuts += count;
    }
}
