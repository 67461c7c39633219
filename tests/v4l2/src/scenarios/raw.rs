//! Raw cameras: what the streamer says where there is no encoder for them, and the way through one.
//!
//! No encoder for H.264 exists here. vicodec works as they do (the kernel's "Memory-to-Memory
//! Stateful Video Encoder Interface"), but what it makes is FWHT, which no browser shows. So the
//! streamer does not take it, and its `Pipeline` is run here by itself: this proves how pictures get
//! through an encoder, and nothing about H.264.

use crate::camera::Camera;
use crate::guest::{Module, PATIENCE, link, node, run};
use crate::streamer::Streamer;
use crate::{Lab, Scenario};
use berrymse::camera::v4l2::encoder::{Pipeline, Sink};
use berrymse::camera::v4l2::{node::Node, queue::Filled, watch::StallTimer};
use berrymse::camera::{SourceError, Stop};
use berrymse::config;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub const ALL: &[Scenario] = &[
    ("raw: a USB camera without H.264", usb_camera),
    ("raw: an encoder of something else is no help", other_encoder),
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
    println!("    it says: {}", status["error"]);
}

fn other_encoder(_: &Lab) {
    let _machine = Machine::new(Single, Single);
    let config = format!("[[camera]]\nname = \"raw\"\nsource = \"{}\"\n", camera().display());
    let streamer = Streamer::start(&config);
    let (status, _) = streamer.until_error(&["no h.264 encoder"]);
    println!("    it says: {}", status["error"]);
}

/// How a driver lays out pictures.
#[derive(PartialEq, Eq)]
enum Planes {
    Single,
    Multi,
}
use Planes::{Multi, Single};

/// vivid and vicodec.
struct Machine {
    _vivid: Module,
    _vicodec: Module,
}

impl Machine {
    fn new(camera: Planes, encoder: Planes) -> Machine {
        // A webcam and nothing else.
        let webcam = ["n_devs=1", "node_types=0x1", "num_inputs=1", "input_types=0"];
        let planes = if camera == Multi { "multiplanar=2" } else { "multiplanar=1" };
        let vivid = Module::load("vivid", &[&webcam[..], &[planes]].concat());
        let planes = if encoder == Multi { "multiplanar=1" } else { "multiplanar=0" };
        let vicodec = Module::load("vicodec", &[planes]);
        Machine { _vivid: vivid, _vicodec: vicodec }
    }
}

/// At this height both drivers lay pictures out alike: the encoder reads the camera's own buffers.
const SHARED: u32 = 480;

/// At this one the encoder wants eight rows more.
const COPIED: u32 = 360;

/// So many are encoded: five for each buffer. They are most of the work here.
const PICTURES: usize = 20;

fn camera() -> PathBuf {
    link("by-path", "platform-vivid.0-video-index0")
}

fn encoder() -> PathBuf {
    link("by-path", "platform-vicodec.0-video-index0")
}

/// The streamer's way through an encoder, in a thread of its own. Dropped, it is stopped.
struct Run {
    events: Receiver<Event>,
    stop: Arc<Stop>,
    shares: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), SourceError>>>,
}

enum Event {
    /// `time`: when it was captured, by the driver; `at`: when it came.
    Picture {
        data: Vec<u8>,
        time: Duration,
        at: Duration,
    },
    Damaged,
}

struct Keep(Sender<Event>);

impl Sink for Keep {
    fn picture(&mut self, data: &[u8], filled: &Filled) -> Result<bool, SourceError> {
        let time = filled.time.expect("the driver's clock is the monotonic one");
        // Time since the machine has started: what the monotonic clock shows, to 10 ms.
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
                let mut stall = StallTimer::new(config.framerate);
                let result = pipeline.run(&mut Keep(sender), &mut stall, &stop);
                shares.store(pipeline.shares(), Ordering::Relaxed);
                result
            })
        };
        Run { events, stop, shares, thread: Some(thread) }
    }

    /// What comes next.
    fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("a picture")
    }

    /// Waits for the next good picture; how many damaged ones came before it.
    fn picture(&self) -> usize {
        let mut damaged = 0;
        while let Event::Damaged = self.next() {
            damaged += 1;
        }
        damaged
    }

    /// Waits for its end.
    fn end(&mut self) -> Result<(), SourceError> {
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

/// What an FWHT picture begins with: magic, version, width, height (big-endian).
fn assert_fwht(data: &[u8], height: u32) {
    let word = |n: usize| u32::from_be_bytes(data[4 * n..4 * n + 4].try_into().unwrap());
    assert_eq!((word(0), word(1)), (0x4f4f_4f4f, 0xffff_ffff));
    assert_eq!((word(3), word(4)), (640, height));
}

/// Pictures come through in order and one for one; those that are inside at the end come, too.
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
    // 15 a second, give or take some milliseconds: none is left out, none comes twice.
    for pair in times.windows(2) {
        let step = (pair[1] - pair[0]).as_millis();
        assert!((30..100).contains(&step), "{step} ms");
    }
    let all = (times[PICTURES - 1] - times[0]).as_millis();
    assert!((19 * 66 - 30..19 * 67 + 30).contains(&all), "{all} ms");
    // So that nobody thinks that times which lie ahead have not been tried.
    let (least, most) = (ahead.iter().min().unwrap(), ahead.iter().max().unwrap());
    println!("    vivid's times lie {least:?} to {most:?} ahead");
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

/// Makes vivid do something, from another process.
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
    // It goes on.
    for _ in 0..PICTURES {
        assert_eq!(run.picture(), 0);
    }
    run.stop.set();
    run.end().unwrap();
}

/// The driver's queue is in error from then on (EIO), until it is started anew.
fn breaks_down(_: &Lab) {
    let _machine = Machine::new(Single, Single);
    let mut run = Run::start(SHARED);
    run.picture();
    make_vivid("inject_fatal_streaming_error=1");
    let error = run.end().unwrap_err();
    println!("    it says: {error}");
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
    let error = run.end().unwrap_err();
    println!("    it says: {error}");
    assert!(error.is_absent(), "{error}");
}
