//! Capture of H.264 from a camera, directly or through an encoder.

use crate::camera::Stop;
use crate::camera::error::SourceError;
use crate::camera::source::Output;
use crate::camera::v4l2::clock::{Clock, monotonic};
use crate::camera::v4l2::controls::{KeyFrames, framerate_note, size_note};
use crate::camera::v4l2::encoder::Sink;
use crate::camera::v4l2::node::{H264, Node};
use crate::camera::v4l2::queue::{BUFFER_COUNT, Filled, Queue};
use crate::camera::v4l2::watch::{StallTimer, check_poll, wait};
use crate::camera::v4l2::{controls, encoder, sensor};
use crate::config;
use v4l2r::{Format, PlaneLayout, QueueDirection};

/// Number of consecutive damaged frames after which the camera is reopened.
const MAX_DAMAGED_FRAMES: u32 = 100;

/// Captures from a camera that delivers H.264, until `stop` is set.
pub(crate) fn h264(
    mut node: Node,
    config: &config::Camera,
    output: &mut Output,
    stop: &Stop,
) -> Result<(), SourceError> {
    let direction = QueueDirection::Capture;
    let plane_fmt = vec![PlaneLayout::default()];
    let wanted =
        Format { width: config.width, height: config.height, pixelformat: H264, plane_fmt };
    let got = node.set_format(direction, &wanted)?;
    if got.pixelformat != H264 {
        return Err(SourceError::Unusable {
            device: node.path.clone(),
            reason: format!(
                "the driver delivers {} instead of H.264: choose a camera that \"berrymse \
                 cameras\" lists with H.264",
                got.pixelformat
            ),
        });
    }
    let framerate = node.set_framerate(direction, config.framerate);
    let notes = size_note(config, &got).into_iter().chain(framerate_note(config, framerate));
    let notes = notes.chain(controls::set(&node, config, true, true));
    for note in notes.chain(sensor::set(&node, config)) {
        output.note(note);
    }
    let mut sink = StreamSink { output, clock: Clock::default() };
    let mut keys = KeyFrames::new(&node);
    let mut stall = StallTimer::new(config.framerate);
    let mut damaged = 0;

    let queue = Queue::map(&node, node.queue(direction), BUFFER_COUNT)?;
    queue.enqueue_all()?;
    queue.start()?;
    loop {
        let ready = wait(&[&node], stop, stall.remaining());
        if stop.is_set() {
            return Ok(());
        }
        let mut idle = true;
        while let Some(filled) = queue.dequeue()? {
            idle = false;
            let data = queue.plane(filled.index, 0);
            let data = &data[..filled.used[0].min(data.len())];
            if filled.damaged && data.is_empty() && filled.time.is_none() {
                // uvcvideo returns all buffers in this state when the endpoint has halted. No
                // frames follow.
                return Err(SourceError::Transfer {
                    device: node.path.clone(),
                    reason: "the driver has ended the stream".into(),
                });
            }
            if filled.damaged || data.is_empty() {
                sink.damaged(match filled.damaged {
                    true => {
                        "the driver reports a damaged frame: check the cable, the USB port and the \
                         power supply"
                    }
                    false => "the driver delivered an empty frame",
                });
                damaged += 1;
            } else if sink.picture(data, &filled)? {
                damaged = 0;
                stall.reset();
            }
            queue.enqueue(filled.index)?;
        }
        if damaged >= MAX_DAMAGED_FRAMES {
            return Err(SourceError::Transfer {
                device: node.path.clone(),
                reason: format!("{damaged} consecutive damaged frames"),
            });
        }
        keys.request_if(|| sink.key_frame_wanted());
        check_poll(&node, &ready, idle)?;
        stall.check(&node)?;
    }
}

/// Captures from a raw camera through an encoder, until `stop` is set.
pub(crate) fn raw(
    node: Node,
    encoder: Node,
    config: &config::Camera,
    output: &mut Output,
    stop: &Stop,
) -> Result<(), SourceError> {
    let mut pipeline = encoder::Pipeline::new(node, encoder, H264, config)?;
    for note in pipeline.notes.drain(..) {
        output.note(note);
    }
    let mut stall = StallTimer::new(config.framerate);
    pipeline.run(&mut StreamSink { output, clock: Clock::default() }, &mut stall, stop)
}

/// Publishes coded frames in the stream.
pub(crate) struct StreamSink<'a> {
    output: &'a mut Output,
    clock: Clock,
}

impl Sink for StreamSink<'_> {
    fn picture(&mut self, data: &[u8], filled: &Filled) -> Result<bool, SourceError> {
        let (time, problem) = self.clock.time(filled.time, monotonic());
        if let Some(problem) = problem {
            self.note(format!("{problem}: using the time of arrival instead"));
        }
        self.output.access_unit(data, time)
    }

    fn damaged(&mut self, reason: &'static str) {
        self.output.damaged(reason);
    }

    fn key_frame_wanted(&mut self) -> bool {
        self.output.key_frame_wanted()
    }

    fn note(&mut self, note: String) {
        self.output.note(note);
    }
}
