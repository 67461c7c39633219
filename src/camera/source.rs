//! The source interface: a `Source` delivers H.264 to an [`Output`].

use crate::camera::Stop;
use crate::camera::error::SourceError;
use crate::camera::kind::CameraKind;
use crate::camera::status::Camera;
use crate::config;
use crate::h264;
use crate::h264::Parser;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum time without a picture from a source, after which it has failed. A camera takes up to
/// 3 s to start; a network camera that ffmpeg reads takes up to 8 s.
pub const PICTURE_TIMEOUT: Duration = Duration::from_secs(10);

/// A producer of H.264.
pub(crate) trait Source: Send {
    /// Delivers access units to `output` until `stop` is set.
    ///
    /// # Errors
    ///
    /// The source cannot be opened, or can no longer deliver access units.
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), SourceError>;
}

/// The receiver of a source's access units, for one run of the source.
pub struct Output {
    pub(super) camera: Arc<Camera>,
    parser: Parser,
    /// Whether a warning about a damaged access unit has been logged.
    warned: bool,
}

impl Output {
    /// Creates the receiver for a new run. It keeps no state from earlier runs.
    pub fn new(camera: Arc<Camera>) -> Output {
        camera.begin_run();
        if let Some(config::Source::Command(_) | config::Source::TestCard) = camera.config.source {
            for key in camera.config.sensor_settings() {
                camera.add_note(format!("{key}: has no effect on this source"));
            }
        }
        Output { camera, parser: Parser::default(), warned: false }
    }

    /// Prepares for another source, which starts with a key frame.
    pub(crate) fn restart(&mut self) {
        self.camera.stream.interrupt();
        *self = Output::new(self.camera.clone());
    }

    /// Publishes one access unit in Annex B format, captured at `time` on the source's clock.
    ///
    /// Returns whether it contains a picture. Damaged access units are counted and skipped.
    ///
    /// # Errors
    ///
    /// The pictures are reordered or interlaced, so the source must end.
    pub fn access_unit(&mut self, data: &[u8], time: Duration) -> Result<bool, SourceError> {
        let camera = &self.camera;
        let arrived = Instant::now();
        let expected = Some(f64::from(camera.config.framerate));
        match self.parser.access_unit(data) {
            Ok(picture) => {
                let Some(len) = camera.stream.publish(data, &picture, time, expected) else {
                    return Ok(true); // The stream is waiting for a key frame.
                };
                let now = Instant::now();
                // For ./ci/bench v4l2.
                log::trace!(
                    "camera {:?}: fragment out after {} ns",
                    camera.config.name,
                    (now - arrived).as_nanos()
                );
                camera.frame_published(&picture, now, time, len);
                Ok(true)
            }
            Err(error @ (h264::Error::Reordered | h264::Error::Interlaced)) => Err(error.into()),
            // Delimiters or filler data without a picture are harmless.
            Err(h264::Error::NoPicture) => Ok(false),
            Err(error) => {
                self.damaged(&error.to_string());
                Ok(false)
            }
        }
    }

    /// Counts a frame that cannot be used.
    pub(crate) fn damaged(&mut self, reason: &str) {
        // Once per run, because damaged data can cause many different errors.
        if !std::mem::replace(&mut self.warned, true) {
            log::warn!("camera \"{}\": {reason}", self.camera.config.name);
        }
        self.camera.frame_damaged(reason);
    }

    /// Sets the description of the source, which replaces the one from the configuration.
    pub(crate) fn set_source(&self, description: String) {
        self.camera.set_source(description);
    }

    /// Sets the kind of the source, if the configuration does not determine it: `None` for the test
    /// card.
    pub(crate) fn set_kind(&self, kind: Option<CameraKind>) {
        self.camera.set_kind(kind);
    }

    /// Returns whether a key frame would let a new viewer start earlier, and resets the request.
    pub(crate) fn key_frame_wanted(&self) -> bool {
        self.camera.stream.key_frame_wanted()
    }

    /// Returns the last problem in the stream, if access units were damaged.
    pub(crate) fn stream_problem(&self) -> Option<String> {
        self.camera.stream_problem()
    }

    /// Records a line of the command's standard error.
    pub(crate) fn stderr_line(&self, line: String) {
        log::debug!("camera \"{}\": {line}", self.camera.config.name);
        self.camera.add_stderr_line(line);
    }

    /// Records a setting that the source does not support.
    pub(crate) fn note(&self, note: String) {
        self.camera.add_note(note);
    }

    /// Counts access units that were sent before they were complete.
    pub(crate) fn early_cuts(&self, count: u64) {
        self.camera.add_early_cuts(count);
    }
}
