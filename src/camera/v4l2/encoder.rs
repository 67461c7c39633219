//! A raw camera with a hardware encoder behind it.
//!
//! Linux Media Infrastructure userspace API, "Memory-to-Memory Stateful Video Encoder Interface".
//! Names follow the standard: an encoder's OUTPUT queue takes pictures in, its CAPTURE queue gives
//! the coded ones out.
//!
//! ```text
//!            camera's buffer n                         encoder
//! camera ──► │ n filled │ ──── DMA-BUF n ────► OUTPUT │ reads it │ ──► n goes back to the camera
//!                       └── or copied ──► own buffer m            ──► coded picture on CAPTURE
//! ```

use crate::camera::Stop;
use crate::camera::source::Failure;
use crate::camera::v4l2::controls::KeyFrames;
use crate::camera::v4l2::image::components;
use crate::camera::v4l2::node::Node;
use crate::camera::v4l2::queue::{BUFFERS, Content, Filled, Queue, raw};
use crate::camera::v4l2::watch::{StallTimer, gone, wait};
use crate::camera::v4l2::{controls, find, image};
use crate::config;
use std::os::fd::{OwnedFd, RawFd};
use std::time::{Duration, Instant};
use v4l2r::bindings::v4l2_rect;
use v4l2r::ioctl::{EncoderCommand, SelectionFlags, SelectionTarget, SelectionType};
use v4l2r::{Format, PixelFormat, PlaneLayout, QueueDirection, ioctl};

/// An encoder that has been told to finish and has not after this is left as it is.
const DRAIN: Duration = Duration::from_millis(500);

/// The coded size of a picture is given room for so many bytes a pixel at least: key frames of
/// noisy pictures at high bit rates.
const CODED_BYTES_PER_PIXEL: f64 = 0.5;

/// Formats of a camera that an error names at the most.
const NAMED: usize = 6;

/// Finds an encoder that makes H.264 of what `camera` delivers.
pub fn find(camera: &Node) -> Result<Node, Failure> {
    let mut refused = vec![];
    for path in find::paths() {
        let Ok(node) = Node::open(&path) else { continue };
        if find::kind(&node) != find::Kind::Encoder {
            continue;
        }
        match common_format(camera, &node) {
            Some(_) => return Ok(node),
            None => refused.push(path.display().to_string()),
        }
    }
    let formats = camera.formats(QueueDirection::Capture);
    let more = if formats.len() > NAMED { ", …" } else { "" };
    let formats: Vec<String> =
        formats.iter().take(NAMED).map(|format| format.pixelformat.to_string()).collect();
    let why = match refused.is_empty() {
        true => "this machine has no H.264 encoder".to_string(),
        false => format!("the encoder ({}) takes none of these", refused.join(", ")),
    };
    let path = camera.path.display();
    Err(Failure::from(format!(
        "{path} delivers {}{more}, but not H.264, and {why}. ffmpeg can encode in software: source = {{ command = \
         [\"ffmpeg\", \"-f\", \"v4l2\", \"-i\", \"{path}\", \"-c:v\", \"libx264\", \"-preset\", \
         \"ultrafast\", \"-tune\", \"zerolatency\", \"-f\", \"h264\", \"-\"] }}",
        formats.join(", ")
    )))
}

/// The cheapest format that the camera gives and the encoder takes.
fn common_format(camera: &Node, encoder: &Node) -> Option<PixelFormat> {
    let formats = find::RAW.into_iter().map(PixelFormat::from);
    let mut both = formats.filter(|format| {
        camera.has(QueueDirection::Capture, *format) && encoder.has(QueueDirection::Output, *format)
    });
    both.next()
}

/// Takes pictures as they come.
pub trait Sink {
    /// A coded picture; true if it is one.
    fn picture(&mut self, data: &[u8], filled: &Filled) -> Result<bool, Failure>;
    /// A picture has been lost.
    fn damaged(&mut self, why: &'static str);
    /// A key frame would be welcome. Asked once, it is taken as said.
    fn key_frame_wanted(&mut self) -> bool;
    /// Something that is to be known.
    fn note(&mut self, note: String);
}

/// A camera and its encoder.
pub struct Pipeline {
    camera: Node,
    encoder: Node,
    /// What the camera delivers.
    from: Format,
    /// What the encoder reads.
    to: Format,
    /// The encoder reads the camera's buffers. Until that has failed once.
    share: bool,
    /// What was asked for and can't be had.
    pub notes: Vec<String>,
}

/// How a run ended.
enum End {
    Stopped,
    /// The encoder does not take the camera's buffers.
    NotShared(String),
}

impl Pipeline {
    /// Settles the formats, in the order that the kernel's documentation asks for.
    pub fn new(
        mut camera: Node,
        mut encoder: Node,
        coded: PixelFormat,
        config: &config::Camera,
    ) -> Result<Pipeline, Failure> {
        let (capture, output) = (QueueDirection::Capture, QueueDirection::Output);
        let Some(pixelformat) = common_format(&camera, &encoder) else {
            return Err(find(&camera).err().unwrap_or_else(|| {
                Failure::from("camera and encoder have no format in common".to_string())
            }));
        };
        let (width, height) = (config.width, config.height);
        let planes = vec![PlaneLayout::default(); components(pixelformat, 2, 2).len()];
        let multi = [b"NM12", b"YM12"].contains(&&pixelformat.to_fourcc());
        let plane_fmt = if multi { planes } else { vec![PlaneLayout::default()] };
        let wanted = Format { width, height, pixelformat, plane_fmt };
        let from = camera.set_format(capture, &wanted)?;
        if from.pixelformat != pixelformat {
            return Err(Failure::from(format!(
                "{}: asked for {pixelformat}, the driver gives {}",
                camera.path.display(),
                from.pixelformat
            )));
        }
        let mut notes = vec![];
        notes.extend(crate::camera::v4l2::controls::size_note(config, &from));
        let framerate = camera.set_framerate(capture, config.framerate);
        notes.extend(crate::camera::v4l2::controls::framerate_note(config, framerate));
        notes.extend(controls::set(&camera, config, false, true));

        let (width, height) = (from.width, from.height);
        let room = (f64::from(width * height) * CODED_BYTES_PER_PIXEL) as u32;
        let plane_fmt = vec![PlaneLayout { sizeimage: room, bytesperline: 0 }];
        let wanted = Format { width, height, pixelformat: coded, plane_fmt };
        let got = encoder.set_format(capture, &wanted)?;
        if got.pixelformat != coded {
            return Err(Failure::from(format!(
                "{}: asked for {coded}, the encoder gives {}",
                encoder.path.display(),
                got.pixelformat
            )));
        }
        let to = encoder.set_format(output, &from)?;
        if to.pixelformat != pixelformat || to.width < width || to.height < height {
            return Err(Failure::from(format!(
                "{}: the encoder does not take {pixelformat} in {width}x{height}, but {} in {}x{}",
                encoder.path.display(),
                to.pixelformat,
                to.width,
                to.height
            )));
        }
        if (to.width, to.height) != (width, height) {
            // Rows and columns that only fill up are not to be seen.
            let rect = v4l2_rect { left: 0, top: 0, width, height };
            let cropped: Result<v4l2_rect, _> = ioctl::s_selection(
                &encoder.file,
                SelectionType::Output,
                SelectionTarget::Crop,
                rect,
                SelectionFlags::empty(),
            );
            if cropped.is_err() {
                notes.push(format!("the picture is filled up to {}x{}", to.width, to.height));
            }
        }
        encoder.set_framerate(output, framerate.map_or(config.framerate, |fps| fps.round() as u32));
        notes.extend(controls::set(&encoder, config, true, false));
        let share = from.plane_fmt == to.plane_fmt && from.height == to.height;
        Ok(Pipeline { camera, encoder, from, to, share, notes })
    }

    /// Encodes until `stop`.
    pub fn run(
        &mut self,
        sink: &mut dyn Sink,
        stall: &mut StallTimer,
        stop: &Stop,
    ) -> Result<(), Failure> {
        if self.share {
            match self.stream(true, sink, stall, stop)? {
                End::Stopped => return Ok(()),
                End::NotShared(why) => {
                    self.share = false;
                    log::info!("{}: pictures are copied: {why}", self.encoder.path.display());
                }
            }
        }
        self.stream(false, sink, stall, stop).map(drop)
    }

    /// Whether the encoder reads the camera's buffers, or a copy.
    pub fn shares(&self) -> bool {
        self.share
    }

    fn stream(
        &self,
        share: bool,
        sink: &mut dyn Sink,
        stall: &mut StallTimer,
        stop: &Stop,
    ) -> Result<End, Failure> {
        let (camera, encoder) = (&self.camera, &self.encoder);
        let taking = encoder.queue(QueueDirection::Output);
        let pictures = Queue::map(camera, camera.queue(QueueDirection::Capture), BUFFERS)?;
        let shared = match share {
            true => match pictures.export() {
                Ok(shared) => shared,
                Err(failure) => return Ok(End::NotShared(failure.message)),
            },
            false => vec![],
        };
        let input = match share {
            true => match Queue::import(encoder, taking, pictures.count()) {
                Ok(input) => input,
                Err(failure) => return Ok(End::NotShared(failure.message)),
            },
            false => Queue::map(encoder, taking, BUFFERS)?,
        };
        let coded = Queue::map(encoder, encoder.queue(QueueDirection::Capture), BUFFERS)?;
        coded.give_all()?;
        pictures.give_all()?;
        input.start()?;
        coded.start()?;
        pictures.start()?;
        let free = (0..input.count()).collect();
        let mut flow = Flow { pipeline: self, pictures, shared, input, coded, free, given: false };
        let mut keys = KeyFrames::new(encoder);
        loop {
            let ready = wait(&[camera, encoder], stop, stall.left());
            if stop.is_set() {
                flow.drain(sink);
                return Ok(End::Stopped);
            }
            if let Some(why) = flow.feed(sink)? {
                return Ok(End::NotShared(why));
            }
            let idle = !flow.deliver(sink, stall)?;
            keys.ask(|| sink.key_frame_wanted());
            gone(camera, &ready[..1], idle)?;
            gone(encoder, &ready[1..], idle)?;
            stall.check(camera)?;
        }
    }
}

/// Pictures on their way.
struct Flow<'a> {
    pipeline: &'a Pipeline,
    pictures: Queue<'a>,
    /// The camera's buffers as descriptors, where the encoder reads them.
    shared: Vec<Vec<(OwnedFd, usize)>>,
    input: Queue<'a>,
    coded: Queue<'a>,
    /// Buffers of the encoder's that can be filled.
    free: Vec<u32>,
    /// The encoder has taken a picture.
    given: bool,
}

impl Flow<'_> {
    /// Gives the camera's pictures to the encoder. Says why it does not take them as they are.
    fn feed(&mut self, sink: &mut dyn Sink) -> Result<Option<String>, Failure> {
        while let Some(done) = self.input.take()? {
            match self.shared.is_empty() {
                // The encoder has read it: the camera's again.
                false => self.pictures.give(done.index)?,
                true => self.free.push(done.index),
            }
        }
        while let Some(picture) = self.pictures.take()? {
            let index = picture.index;
            if picture.damaged || picture.used[0] == 0 {
                sink.damaged("the camera's driver calls a picture damaged");
                self.pictures.give(index)?;
                continue;
            }
            if self.shared.is_empty() {
                match self.free.pop() {
                    Some(to) => self.copy(&picture, to)?,
                    None => sink.damaged("the encoder is slower than the camera"),
                }
                self.pictures.give(index)?;
                continue;
            }
            let memory: Vec<(RawFd, usize)> = raw(&self.shared[index as usize]);
            let content = Content {
                used: &picture.used[..memory.len()],
                timestamp: picture.timestamp,
                memory: Some(&memory),
            };
            match self.input.put(index, &content) {
                Ok(()) => self.given = true,
                Err(errno) if !self.given => {
                    return Ok(Some(format!("it does not take the camera's buffers ({errno})")));
                }
                Err(errno) => {
                    return Err(self.pipeline.encoder.failed("it takes no picture", errno));
                }
            }
        }
        Ok(None)
    }

    fn copy(&mut self, picture: &Filled, to: u32) -> Result<(), Failure> {
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
        self.input.put(to, &content).map_err(|errno| encoder.failed("it takes no picture", errno))
    }

    /// Takes what the encoder has made. True if there was something.
    fn deliver(&mut self, sink: &mut dyn Sink, stall: &mut StallTimer) -> Result<bool, Failure> {
        let mut some = false;
        while let Some(filled) = self.coded.take()? {
            some = true;
            if self.hand_on(&filled, sink)? {
                stall.broken();
            }
            self.coded.give(filled.index)?;
        }
        Ok(some)
    }

    fn hand_on(&self, filled: &Filled, sink: &mut dyn Sink) -> Result<bool, Failure> {
        let data = self.coded.plane(filled.index, 0);
        let data = &data[..filled.used[0].min(data.len())];
        match filled.damaged || data.is_empty() {
            true => {
                if !filled.last {
                    sink.damaged("the encoder calls a picture damaged");
                }
                Ok(false)
            }
            false => sink.picture(data, filled),
        }
    }

    /// The pictures that are still inside ("Drain"): errors end it, too.
    fn drain(&mut self, sink: &mut dyn Sink) {
        let encoder = &self.pipeline.encoder;
        if ioctl::encoder_cmd::<_, ()>(&encoder.file, &EncoderCommand::Stop(false)).is_err() {
            return;
        }
        let end = Instant::now() + DRAIN;
        while Instant::now() < end {
            match self.coded.take() {
                Ok(Some(filled)) => {
                    if self.hand_on(&filled, sink).is_err() || filled.last {
                        return;
                    }
                    let _ = self.coded.give(filled.index);
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(_) => return,
            }
        }
    }
}
