//! Cameras without H.264: the error message without an encoder, and the path through an encoder.
//!
//! The guest has no H.264 encoder. vicodec has the same interface (the kernel's "Memory-to-Memory Stateful
//! Video Encoder Interface") but produces FWHT, which no browser can decode. The streamer rejects it, so
//! these scenarios run its `Pipeline` directly. They test how pictures pass through an encoder, and nothing
//! about H.264.

use crate::camera::Camera;
use crate::guest::{Module, TIMEOUT, link, node, run};
use crate::streamer::Streamer;
use crate::{Lab, Scenario};
use berrymse::camera::v4l2::encoder::{Pipeline, Sink};
use berrymse::camera::v4l2::{Silence, node::Node, queue::Filled};
use berrymse::camera::{Failure, Stop};
use berrymse::config;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub const ALL: &[Scenario] = &[
    ("raw: a USB camera without H.264", usb_camera),
    ("raw: an encoder without H.264", other_encoder),
    ("raw: vivid through vicodec, single-planar, shared buffers (FWHT)", single_planar),
    ("raw: vivid through vicodec, multi-planar, shared buffers (FWHT)", multi_planar),
    ("raw: vivid through vicodec, multi- to single-planar, shared buffers (FWHT)", mixed),
    ("raw: vivid through vicodec, single-planar, copied (FWHT)", single_planar_copied),
    ("raw: vivid through vicodec, multi-planar, copied (FWHT)", multi_planar_copied),
    ("raw: vivid's damaged pictures (FWHT)", damaged),
    ("raw: vivid breaks down (FWHT)", breaks_down),
    ("raw: vivid is unplugged (FWHT)", unplugged),
];

fn usb_camera(lab: &Lab) {
    let _camera = Camera::plug(&lab.raw, 0);
    let config = format!("[[camera]]\nname = \"raw\"\nsource = \"{}\"\n", node("RAW").display());
    let streamer = Streamer::start(&config);
    let (status, _) = streamer.until_error(&["yuyv", "encoder", "ffmpeg"]);
    println!("    message: {}", status["error"]);
}

fn other_encoder(_: &Lab) {
    let _machine = Machine::new(Single, Single);
    let config = format!("[[camera]]\nname = \"raw\"\nsource = \"{}\"\n", camera().display());
    let streamer = Streamer::start(&config);
    let (status, _) = streamer.until_error(&["no h.264 encoder"]);
    println!("    message: {}", status["error"]);
}

/// The memory layout of pictures.
#[derive(PartialEq, Eq)]
enum Planes {
    Single,
    Multi,
}
use Planes::{Multi, Single};

/// The loaded drivers vivid and vicodec.
struct Machine {
    _vivid: Module,
    _vicodec: Module,
}

impl Machine {
    fn new(camera: Planes, encoder: Planes) -> Machine {
        // Only a webcam.
        let webcam = ["n_devs=1", "node_types=0x1", "num_inputs=1", "input_types=0"];
        let planes = if camera == Multi { "multiplanar=2" } else { "multiplanar=1" };
        let vivid = Module::load("vivid", &[&webcam[..], &[planes]].concat());
        let planes = if encoder == Multi { "multiplanar=1" } else { "multiplanar=0" };
        let vicodec = Module::load("vicodec", &[planes]);
        Machine { _vivid: vivid, _vicodec: vicodec }
    }
}

/// A height for which both drivers use the same layout, so that the encoder reads the camera's buffers.
const SHARED: u32 = 480;

/// A height for which the encoder requires eight additional rows.
const COPIED: u32 = 360;

/// Number of pictures: five for each buffer. Encoding takes most of the time.
const PICTURES: usize = 20;

fn camera() -> PathBuf {
    link("by-path", "platform-vivid.0-video-index0")
}

fn encoder() -> PathBuf {
    link("by-path", "platform-vicodec.0-video-index0")
}

/// The pipeline in its own thread. Stopped on drop.
struct Run {
    events: Receiver<Event>,
    stop: Arc<Stop>,
    shares: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

enum Event {
    /// `time`: when the driver captured it; `at`: when it arrived.
    Picture {
        data: Vec<u8>,
        time: Duration,
        at: Duration,
    },
    Damaged,
}

struct Keep(Sender<Event>);

impl Sink for Keep {
    fn picture(&mut self, data: &[u8], filled: &Filled) -> Result<bool, Failure> {
        let time = filled.time.expect("the driver's clock is the monotonic one");
        // The monotonic clock, with a resolution of 10 ms.
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let at = Duration::from_secs_f64(uptime.split(' ').next().unwrap().parse().unwrap());
        let _ = self.0.send(Event::Picture { data: data.to_vec(), time, at });
        Ok(true)
    }

    fn damaged(&mut self, _: &'static str) {
        let _ = self.0.send(Event::Damaged);
    }

    fn key_frame_wanted(&mut self) -> bool {
        false
    }

    fn note(&mut self, _: String) {}
}

impl Run {
    fn start(height: u32) -> Run {
        let config = config::Camera { width: 640, height, framerate: 15, ..Default::default() };
        let (camera, encoder) = (Node::open(&camera()).unwrap(), Node::open(&encoder()).unwrap());
        let mut pipeline = Pipeline::new(camera, encoder, b"FWHT".into(), &config).unwrap();
        let (sender, events) = channel();
        let stop = Arc::new(Stop::new().unwrap());
        let shares = Arc::new(AtomicBool::new(false));
        let thread = {
            let (stop, shares) = (stop.clone(), shares.clone());
            std::thread::spawn(move || {
                let mut silence = Silence::new(config.framerate);
                let result = pipeline.run(&mut Keep(sender), &mut silence, &stop);
                shares.store(pipeline.shares(), Ordering::Relaxed);
                result
            })
        };
        Run { events, stop, shares, thread: Some(thread) }
    }

    /// The next event.
    fn next(&self) -> Event {
        self.events.recv_timeout(TIMEOUT).expect("a picture")
    }

    /// Waits for the next intact picture. Returns the number of damaged ones before it.
    fn picture(&self) -> usize {
        let mut damaged = 0;
        while let Event::Damaged = self.next() {
            damaged += 1;
        }
        damaged
    }

    /// Waits for the end of the pipeline.
    fn end(&mut self) -> Result<(), Failure> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asserts the header of an FWHT picture: magic, version, width, height (big-endian).
fn assert_fwht(data: &[u8], height: u32) {
    let word = |n: usize| u32::from_be_bytes(data[4 * n..4 * n + 4].try_into().unwrap());
    assert_eq!((word(0), word(1)), (0x4f4f_4f4f, 0xffff_ffff));
    assert_eq!((word(3), word(4)), (640, height));
}

/// Pictures pass in order and one for one, including those in the encoder at the end.
fn comes_through(camera: Planes, encoder: Planes, height: u32) {
    let _machine = Machine::new(camera, encoder);
    let mut run = Run::start(height);
    let (mut times, mut ahead) = (vec![], vec![]);
    for _ in 0..PICTURES {
        let Event::Picture { data, time, at } = run.next() else { panic!("a damaged picture") };
        assert_fwht(&data, height);
        times.push(time);
        ahead.push(time.saturating_sub(at));
    }
    // 15 per second by the driver's clock, so none is missing and none is repeated.
    for pair in times.windows(2) {
        let step = (pair[1] - pair[0]).as_millis();
        assert!((30..100).contains(&step), "{step} ms");
    }
    let all = (times[PICTURES - 1] - times[0]).as_millis();
    assert!((19 * 66 - 30..19 * 67 + 30).contains(&all), "{all} ms");
    // Timestamps in the future are covered as well.
    let (least, most) = (ahead.iter().min().unwrap(), ahead.iter().max().unwrap());
    println!("    vivid's timestamps are {least:?} to {most:?} in the future");
    assert!(*most > Duration::from_millis(20));
    run.stop.set();
    run.end().unwrap();
    assert_eq!(run.shares.load(Ordering::Relaxed), height == SHARED);
}

fn single_planar(_: &Lab) {
    comes_through(Single, Single, SHARED);
}

fn multi_planar(_: &Lab) {
    comes_through(Multi, Multi, SHARED);
}

fn mixed(_: &Lab) {
    comes_through(Multi, Single, SHARED);
}

fn single_planar_copied(_: &Lab) {
    comes_through(Single, Single, COPIED);
}

fn multi_planar_copied(_: &Lab) {
    comes_through(Multi, Multi, COPIED);
}

/// Sets a control of vivid from another process.
fn make_vivid(what: &str) {
    run("v4l2-ctl", &["--device", camera().to_str().unwrap(), "--set-ctrl", what]);
}

fn damaged(_: &Lab) {
    let _machine = Machine::new(Single, Single);
    let mut run = Run::start(SHARED);
    run.picture();
    make_vivid("inject_v4l2_buf_flag_error=1");
    let mut before = 0;
    while before == 0 {
        before = run.picture();
    }
    // The stream continues.
    for _ in 0..PICTURES {
        assert_eq!(run.picture(), 0);
    }
    run.stop.set();
    run.end().unwrap();
}

/// From then on the driver's queue fails with EIO until it is restarted.
fn breaks_down(_: &Lab) {
    let _machine = Machine::new(Single, Single);
    let mut run = Run::start(SHARED);
    run.picture();
    make_vivid("inject_fatal_streaming_error=1");
    let failure = run.end().unwrap_err();
    println!("    message: {}", failure.message);
    let mut again = Run::start(SHARED);
    again.picture();
    again.stop.set();
    again.end().unwrap();
}

fn unplugged(_: &Lab) {
    let _machine = Machine::new(Single, Single);
    let mut run = Run::start(SHARED);
    run.picture();
    make_vivid("disconnect=1");
    let failure = run.end().unwrap_err();
    println!("    message: {}", failure.message);
    assert!(failure.gone, "{}", failure.message);
}
