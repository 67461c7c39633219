//! Reads H.264 from a camera, or raw pictures through an encoder.

use crate::camera::Stop;
use crate::camera::source::{Failure, Output};
use crate::camera::v4l2::clock::{Clock, monotonic};
use crate::camera::v4l2::controls::{KeyFrames, framerate_note, size_note};
use crate::camera::v4l2::encoder::Sink;
use crate::camera::v4l2::node::{H264, Node};
use crate::camera::v4l2::queue::{BUFFERS, Filled, Queue};
use crate::camera::v4l2::watch::{StallTimer, gone, wait};
use crate::camera::v4l2::{controls, encoder};
use crate::config;
use v4l2r::{Format, PlaneLayout, QueueDirection};

/// After so many buffers one after the other that the driver calls damaged, it is opened anew.
pub(crate) const MAX_DAMAGED: u32 = 100;

/// Reads a camera that delivers H.264.
pub(crate) fn h264(
    mut node: Node,
    config: &config::Camera,
    output: &mut Output,
    stop: &Stop,
) -> Result<(), Failure> {
    let direction = QueueDirection::Capture;
    let plane_fmt = vec![PlaneLayout::default()];
    let wanted =
        Format { width: config.width, height: config.height, pixelformat: H264, plane_fmt };
    let got = node.set_format(direction, &wanted)?;
    if got.pixelformat != H264 {
        return Err(Failure::from(format!(
            "{}: asked for H.264, the driver gives {}: is it listed by \"berrymse cameras\"?",
            node.path.display(),
            got.pixelformat
        )));
    }
    let framerate = node.set_framerate(direction, config.framerate);
    let notes = size_note(config, &got).into_iter().chain(framerate_note(config, framerate));
    for note in notes.chain(controls::set(&node, config, true, true)) {
        output.note(note);
    }
    let mut sink = Coded { output, clock: Clock::default() };
    let mut keys = KeyFrames::new(&node);
    let mut stall = StallTimer::new(config.framerate);
    let mut damaged = 0;

    let queue = Queue::map(&node, node.queue(direction), BUFFERS)?;
    queue.give_all()?;
    queue.start()?;
    loop {
        let ready = wait(&[&node], stop, stall.left());
        if stop.is_set() {
            return Ok(());
        }
        let mut idle = true;
        while let Some(filled) = queue.take()? {
            idle = false;
            let data = queue.plane(filled.index, 0);
            let data = &data[..filled.used[0].min(data.len())];
            if filled.damaged && data.is_empty() && filled.time.is_none() {
                // uvcvideo gives all buffers back like this when the endpoint has halted, and
                // nothing ever comes after them.
                return Err(Failure::from(format!(
                    "{}: the driver has given up the stream: cable, USB port or power supply",
                    node.path.display()
                )));
            }
            if filled.damaged || data.is_empty() {
                sink.damaged(match filled.damaged {
                    true => "the driver calls a frame damaged: cable, USB port or power supply",
                    false => "the driver delivers an empty frame",
                });
                damaged += 1;
            } else if sink.picture(data, &filled)? {
                damaged = 0;
                stall.broken();
            }
            queue.give(filled.index)?;
        }
        if damaged >= MAX_DAMAGED {
            return Err(Failure::from(format!(
                "{}: {damaged} damaged frames one after the other: cable, USB port or power supply",
                node.path.display()
            )));
        }
        keys.ask(|| sink.key_frame_wanted());
        gone(&node, &ready, idle)?;
        stall.check(&node)?;
    }
}

/// Reads a raw camera through an encoder.
pub(crate) fn raw(
    node: Node,
    encoder: Node,
    config: &config::Camera,
    output: &mut Output,
    stop: &Stop,
) -> Result<(), Failure> {
    let mut pipeline = encoder::Pipeline::new(node, encoder, H264, config)?;
    for note in pipeline.notes.drain(..) {
        output.note(note);
    }
    let mut stall = StallTimer::new(config.framerate);
    pipeline.run(&mut Coded { output, clock: Clock::default() }, &mut stall, stop)
}

/// Coded pictures on their way to the stream.
pub(crate) struct Coded<'a> {
    output: &'a mut Output,
    clock: Clock,
}

impl Sink for Coded<'_> {
    fn picture(&mut self, data: &[u8], filled: &Filled) -> Result<bool, Failure> {
        let (time, doubt) = self.clock.time(filled.time, monotonic());
        if let Some(doubt) = doubt {
            self.note(format!("{doubt}: pictures are timed by their arrival"));
        }
        Ok(self.output.access_unit(data, time)?)
    }

    fn damaged(&mut self, why: &'static str) {
        self.output.damaged(why);
    }

    fn key_frame_wanted(&mut self) -> bool {
        self.output.key_frame_wanted()
    }

    fn note(&mut self, note: String) {
        self.output.note(note);
    }
}
