//! A raw camera with a hardware encoder.
//!
//! Linux Media Infrastructure userspace API, "Memory-to-Memory Stateful Video Encoder Interface".
//! As in that document, an encoder reads raw frames from its OUTPUT queue and returns coded frames
//! on its CAPTURE queue.
//!
//! ```text
//! camera ──► buffer n ─┬─ shared (DMA-BUF) ─────► OUTPUT ┌─────────┐
//!               ▲      └─ copied to buffer m ───► OUTPUT │ encoder │ CAPTURE ──► coded frame
//!               │                                        └────┬────┘
//!               └── returned after it was read or copied ◄────┘
//! ```

use crate::camera::Stop;
use crate::camera::error::SourceError;
use crate::camera::v4l2::controls::{KeyFrames, framerate_note, size_note};
use crate::camera::v4l2::image::components;
use crate::camera::v4l2::node::Node;
use crate::camera::v4l2::queue::{BUFFER_COUNT, Content, Filled, Queue, raw_descriptors};
use crate::camera::v4l2::watch::{StallTimer, check_poll, wait};
use crate::camera::v4l2::{controls, find, image, sensor};
use crate::config;
use std::os::fd::{OwnedFd, RawFd};
use std::time::{Duration, Instant};
use v4l2r::bindings::v4l2_rect;
use v4l2r::ioctl::{EncoderCommand, SelectionFlags, SelectionTarget, SelectionType};
use v4l2r::{Format, PixelFormat, PlaneLayout, QueueDirection, ioctl};

/// Maximum time for an encoder to finish the pictures that it has read.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Minimum size of the buffer for a coded frame, in bytes per pixel. Key frames of noisy pictures
/// at high bit rates can be this large.
const CODED_BYTES_PER_PIXEL: f64 = 0.5;

/// Finds an H.264 encoder that accepts one of the camera's formats.
///
/// # Errors
///
/// [`SourceError::NoEncoder`] if there is none.
pub fn find(camera: &Node) -> Result<Node, SourceError> {
    let mut encoders = vec![];
    for path in find::paths() {
        let Ok(node) = Node::open(&path) else { continue };
        if find::kind(&node) != find::Kind::Encoder {
            continue;
        }
        match common_format(camera, &node) {
            Some(_) => return Ok(node),
            None => encoders.push(path),
        }
    }
    let formats = camera.formats(QueueDirection::Capture);
    let formats = formats.iter().map(|format| format.pixelformat.to_string()).collect();
    Err(SourceError::NoEncoder { device: camera.path.clone(), formats, encoders })
}

/// Returns the preferred format among those that the camera delivers and the encoder accepts.
fn common_format(camera: &Node, encoder: &Node) -> Option<PixelFormat> {
    let formats = find::RAW_FORMATS.into_iter().map(PixelFormat::from);
    let mut both = formats.filter(|format| {
        camera.has(QueueDirection::Capture, *format) && encoder.has(QueueDirection::Output, *format)
    });
    both.next()
}

/// A receiver of coded frames.
pub trait Sink {
    /// Takes a coded frame. Returns whether it contains a picture.
    ///
    /// # Errors
    ///
    /// The pipeline must stop.
    fn picture(&mut self, data: &[u8], filled: &Filled) -> Result<bool, SourceError>;
    /// Records a lost picture.
    fn damaged(&mut self, reason: &'static str);
    /// Returns whether a key frame would let a new viewer start earlier, and resets the request.
    fn key_frame_wanted(&mut self) -> bool;
    /// Records a note for the user.
    fn note(&mut self, note: String);
}

/// A camera and its encoder.
pub struct Pipeline {
    camera: Node,
    encoder: Node,
    /// Format of the camera's buffers.
    from: Format,
    /// Format of the encoder's input buffers.
    to: Format,
    /// Whether the encoder reads the camera's buffers. Reset if the encoder rejects them.
    share: bool,
    /// Settings that the devices do not support.
    pub notes: Vec<String>,
}

/// How a run ended.
enum End {
    Stopped,
    /// The encoder does not accept the camera's buffers. Contains the reason.
    NotShared(String),
}

impl Pipeline {
    /// Negotiates the formats, in the order that the kernel's documentation requires.
    ///
    /// # Errors
    ///
    /// The camera and the encoder have no format in common, or one of them is busy or unplugged.
    pub fn new(
        mut camera: Node,
        mut encoder: Node,
        coded: PixelFormat,
        config: &config::Camera,
    ) -> Result<Pipeline, SourceError> {
        let (capture, output) = (QueueDirection::Capture, QueueDirection::Output);
        let Some(pixelformat) = common_format(&camera, &encoder) else {
            return Err(find(&camera).err().unwrap_or_else(|| SourceError::Unusable {
                device: encoder.path.clone(),
                reason: "the encoder accepts none of the camera's formats".into(),
            }));
        };
        let (width, height) = (config.width, config.height);
        let planes = vec![PlaneLayout::default(); components(pixelformat, 2, 2).len()];
        let multi = [b"NM12", b"YM12"].contains(&&pixelformat.to_fourcc());
        let plane_fmt = if multi { planes } else { vec![PlaneLayout::default()] };
        let wanted = Format { width, height, pixelformat, plane_fmt };
        let from = camera.set_format(capture, &wanted)?;
        if from.pixelformat != pixelformat {
            return Err(SourceError::Unusable {
                device: camera.path.clone(),
                reason: format!("the driver uses {} instead of {pixelformat}", from.pixelformat),
            });
        }
        let mut notes = vec![];
        notes.extend(size_note(config, &from));
        let framerate = camera.set_framerate(capture, config.framerate);
        notes.extend(framerate_note(config, framerate));
        notes.extend(controls::set(&camera, config, false, true));
        notes.extend(sensor::set(&camera, config));

        let (width, height) = (from.width, from.height);
        let room = (f64::from(width * height) * CODED_BYTES_PER_PIXEL) as u32;
        let plane_fmt = vec![PlaneLayout { sizeimage: room, bytesperline: 0 }];
        let wanted = Format { width, height, pixelformat: coded, plane_fmt };
        let got = encoder.set_format(capture, &wanted)?;
        if got.pixelformat != coded {
            return Err(SourceError::Unusable {
                device: encoder.path.clone(),
                reason: format!("the encoder uses {} instead of {coded}", got.pixelformat),
            });
        }
        let to = encoder.set_format(output, &from)?;
        if to.pixelformat != pixelformat || to.width < width || to.height < height {
            return Err(SourceError::Unusable {
                device: encoder.path.clone(),
                reason: format!(
                    "the encoder does not accept {pixelformat} at {width}x{height}; it offers {} at {}x{}",
                    to.pixelformat, to.width, to.height
                ),
            });
        }
        if (to.width, to.height) != (width, height) {
            // The padding must not be visible.
            let rect = v4l2_rect { left: 0, top: 0, width, height };
            let cropped: Result<v4l2_rect, _> = ioctl::s_selection(
                &encoder.file,
                SelectionType::Output,
                SelectionTarget::Crop,
                rect,
                SelectionFlags::empty(),
            );
            if cropped.is_err() {
                notes.push(format!("the picture is padded to {}x{}", to.width, to.height));
            }
        }
        encoder.set_framerate(output, framerate.map_or(config.framerate, |fps| fps.round() as u32));
        notes.extend(controls::set(&encoder, config, true, false));
        let share = from.plane_fmt == to.plane_fmt && from.height == to.height;
        Ok(Pipeline { camera, encoder, from, to, share, notes })
    }

    /// Encodes until `stop` is set.
    ///
    /// # Errors
    ///
    /// A device fails, stalls or is unplugged, or `sink` returns an error.
    pub fn run(
        &mut self,
        sink: &mut dyn Sink,
        stall: &mut StallTimer,
        stop: &Stop,
    ) -> Result<(), SourceError> {
        if self.share {
            match self.stream(true, sink, stall, stop)? {
                End::Stopped => return Ok(()),
                End::NotShared(reason) => {
                    self.share = false;
                    log::info!("{}: pictures are copied: {reason}", self.encoder.path.display());
                }
            }
        }
        self.stream(false, sink, stall, stop).map(drop)
    }

    /// Returns whether the encoder reads the camera's buffers directly.
    pub fn shares(&self) -> bool {
        self.share
    }

    fn stream(
        &self,
        share: bool,
        sink: &mut dyn Sink,
        stall: &mut StallTimer,
        stop: &Stop,
    ) -> Result<End, SourceError> {
        let (camera, encoder) = (&self.camera, &self.encoder);
        let output = encoder.queue(QueueDirection::Output);
        let pictures = Queue::map(camera, camera.queue(QueueDirection::Capture), BUFFER_COUNT)?;
        let shared = match share {
            true => match pictures.export() {
                Ok(shared) => shared,
                Err(error) => return Ok(End::NotShared(error.to_string())),
            },
            false => vec![],
        };
        let input = match share {
            true => match Queue::import(encoder, output, pictures.count()) {
                Ok(input) => input,
                Err(error) => return Ok(End::NotShared(error.to_string())),
            },
            false => Queue::map(encoder, output, BUFFER_COUNT)?,
        };
        let coded = Queue::map(encoder, encoder.queue(QueueDirection::Capture), BUFFER_COUNT)?;
        coded.enqueue_all()?;
        pictures.enqueue_all()?;
        input.start()?;
        coded.start()?;
        pictures.start()?;
        let free = (0..input.count()).collect();
        let mut flow =
            Flow { pipeline: self, pictures, shared, input, coded, free, accepted: false };
        let mut keys = KeyFrames::new(encoder);
        loop {
            let ready = wait(&[camera, encoder], stop, stall.remaining());
            if stop.is_set() {
                flow.drain(sink);
                return Ok(End::Stopped);
            }
            if let Some(reason) = flow.feed(sink)? {
                return Ok(End::NotShared(reason));
            }
            let idle = !flow.deliver(sink, stall)?;
            keys.request_if(|| sink.key_frame_wanted());
            check_poll(camera, &ready[..1], idle)?;
            check_poll(encoder, &ready[1..], idle)?;
            stall.check(camera)?;
        }
    }
}

/// The buffers between the camera, the encoder and the sink.
struct Flow<'a> {
    pipeline: &'a Pipeline,
    pictures: Queue<'a>,
    /// Descriptors of the camera's buffers if the encoder reads them; otherwise empty.
    shared: Vec<Vec<(OwnedFd, usize)>>,
    input: Queue<'a>,
    coded: Queue<'a>,
    /// The encoder's input buffers that can be filled.
    free: Vec<u32>,
    /// Whether the encoder has accepted one of the camera's buffers.
    accepted: bool,
}

impl Flow<'_> {
    /// Passes the camera's pictures to the encoder. Returns the reason if the encoder does not
    /// accept the camera's buffers.
    fn feed(&mut self, sink: &mut dyn Sink) -> Result<Option<String>, SourceError> {
        while let Some(done) = self.input.dequeue()? {
            match self.shared.is_empty() {
                // The encoder has read the buffer; return it to the camera.
                false => self.pictures.enqueue(done.index)?,
                true => self.free.push(done.index),
            }
        }
        while let Some(picture) = self.pictures.dequeue()? {
            let index = picture.index;
            if picture.damaged || picture.used[0] == 0 {
                sink.damaged("the camera's driver reports a damaged picture");
                self.pictures.enqueue(index)?;
                continue;
            }
            if self.shared.is_empty() {
                match self.free.pop() {
                    Some(to) => self.copy(&picture, to)?,
                    None => sink.damaged("the encoder is slower than the camera"),
                }
                self.pictures.enqueue(index)?;
                continue;
            }
            let memory: Vec<(RawFd, usize)> = raw_descriptors(&self.shared[index as usize]);
            let content = Content {
                used: &picture.used[..memory.len()],
                timestamp: picture.timestamp,
                memory: Some(&memory),
            };
            match self.input.enqueue_content(index, &content) {
                Ok(()) => self.accepted = true,
                Err(errno) if !self.accepted => {
                    return Ok(Some(format!(
                        "the encoder does not accept the camera's buffers ({errno})"
                    )));
                }
                Err(errno) => {
                    return Err(self.pipeline.encoder.errno("encode a picture", errno));
                }
            }
        }
        Ok(None)
    }

    /// Copies a picture from the camera into the encoder's input buffer `to`.
    fn copy(&mut self, picture: &Filled, to: u32) -> Result<(), SourceError> {
        let Pipeline { from, to: layout, encoder, .. } = self.pipeline;
        let source: Vec<&[u8]> = (0..from.plane_fmt.len())
            .map(|plane| self.pictures.plane(picture.index, plane))
            .collect();
        let planes = self.input.planes_mut(to);
        let mut targets: Vec<&mut [u8]> = planes.iter_mut().map(|plane| &mut plane[..]).collect();
        image::copy(&source, from, &mut targets, layout);
        let used: Vec<usize> = targets
            .iter()
            .zip(&layout.plane_fmt)
            .map(|(target, plane)| target.len().min(plane.sizeimage as usize))
            .collect();
        let content = Content { used: &used, timestamp: picture.timestamp, memory: None };
        self.input
            .enqueue_content(to, &content)
            .map_err(|errno| encoder.errno("encode a picture", errno))
    }

    /// Passes the encoder's frames to the sink. Returns whether there were any.
    fn deliver(
        &mut self,
        sink: &mut dyn Sink,
        stall: &mut StallTimer,
    ) -> Result<bool, SourceError> {
        let mut any = false;
        while let Some(filled) = self.coded.dequeue()? {
            any = true;
            if self.deliver_frame(&filled, sink)? {
                stall.reset();
            }
            self.coded.enqueue(filled.index)?;
        }
        Ok(any)
    }

    fn deliver_frame(&self, filled: &Filled, sink: &mut dyn Sink) -> Result<bool, SourceError> {
        let data = self.coded.plane(filled.index, 0);
        let data = &data[..filled.used[0].min(data.len())];
        match filled.damaged || data.is_empty() {
            true => {
                if !filled.last {
                    sink.damaged("the encoder reports a damaged frame");
                }
                Ok(false)
            }
            false => sink.picture(data, filled),
        }
    }

    /// Delivers the frames that the encoder has not returned yet (section "Drain"). Stops early on
    /// error.
    fn drain(&mut self, sink: &mut dyn Sink) {
        let encoder = &self.pipeline.encoder;
        if ioctl::encoder_cmd::<_, ()>(&encoder.file, &EncoderCommand::Stop(false)).is_err() {
            return;
        }
        let end = Instant::now() + DRAIN_TIMEOUT;
        while Instant::now() < end {
            match self.coded.dequeue() {
                Ok(Some(filled)) => {
                    if self.deliver_frame(&filled, sink).is_err() || filled.last {
                        return;
                    }
                    let _ = self.coded.enqueue(filled.index);
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(_) => return,
            }
        }
    }
}
