//! Raw cameras: the streamer's error without an encoder, and the pipeline through an encoder.
//!
//! The kernel has no virtual H.264 encoder. vicodec implements the same interface
//! ("Memory-to-Memory Stateful Video Encoder Interface") but encodes FWHT, which browsers do not
//! support and the streamer therefore rejects. These tests run the streamer's `Pipeline` directly.
//! They cover the path of the pictures through an encoder, but not H.264.

use crate::camera::Camera;
use crate::guest::{Module, TIMEOUT, link, node, run};
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
    ("raw: an encoder without H.264 is not used", other_encoder),
    ("raw: vivid through vicodec, single-planar, shared buffers (FWHT)", single_planar),
    ("raw: vivid through vicodec, multi-planar, shared buffers (FWHT)", multi_planar),
    ("raw: vivid through vicodec, multi- to single-planar, shared buffers (FWHT)", mixed),
    ("raw: vivid through vicodec, single-planar, copied (FWHT)", single_planar_copied),
    ("raw: vivid through vicodec, multi-planar, copied (FWHT)", multi_planar_copied),
    ("raw: vivid's sensor settings (FWHT)", sensor_settings),
    ("raw: vivid's damaged pictures (FWHT)", damaged),
    ("raw: vivid reports a fatal error (FWHT)", fatal_error),
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
    let _devices = Devices::new(Single, Single);
    let config = format!("[[camera]]\nname = \"raw\"\nsource = \"{}\"\n", camera().display());
    let streamer = Streamer::start(&config);
    let (status, _) = streamer.until_error(&["no h.264 encoder"]);
    println!("    message: {}", status["error"]);
}

/// Memory layout of a driver's pictures.
#[derive(PartialEq, Eq)]
enum Planes {
    Single,
    Multi,
}
use Planes::{Multi, Single};

/// The loaded modules vivid and vicodec.
struct Devices {
    _vivid: Module,
    _vicodec: Module,
}

impl Devices {
    fn new(camera: Planes, encoder: Planes) -> Devices {
        // One webcam and no other devices.
        let webcam = ["n_devs=1", "node_types=0x1", "num_inputs=1", "input_types=0"];
        let planes = if camera == Multi { "multiplanar=2" } else { "multiplanar=1" };
        let vivid = Module::load("vivid", &[&webcam[..], &[planes]].concat());
        let planes = if encoder == Multi { "multiplanar=1" } else { "multiplanar=0" };
        let vicodec = Module::load("vicodec", &[planes]);
        Devices { _vivid: vivid, _vicodec: vicodec }
    }
}

/// Height, in pixels, at which both drivers use the same layout, so that the encoder reads the
/// camera's buffers.
const SHARED_HEIGHT: u32 = 480;

/// Height, in pixels, for which the encoder requires eight additional lines, so that pictures are
/// copied.
const COPIED_HEIGHT: u32 = 360;

/// Number of pictures to encode, five per buffer. Encoding takes most of the time of these tests.
const PICTURES: usize = 20;

fn camera() -> PathBuf {
    link("by-path", "platform-vivid.0-video-index0")
}

fn encoder() -> PathBuf {
    link("by-path", "platform-vicodec.0-video-index0")
}

/// The streamer's pipeline, running in a thread. Stopped on drop.
struct Run {
    events: Receiver<Event>,
    stop: Arc<Stop>,
    shares: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), SourceError>>>,
}

enum Event {
    /// A picture. `time` is the capture time according to the driver, `at` the time of arrival.
    Picture {
        data: Vec<u8>,
        time: Duration,
        at: Duration,
    },
    Damaged,
}

/// Passes the output of the pipeline to the test.
struct Recorder(Sender<Event>);

impl Sink for Recorder {
    fn picture(&mut self, data: &[u8], filled: &Filled) -> Result<bool, SourceError> {
        let time = filled.time.expect("the driver does not use the monotonic clock");
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
        Run::with(config::Camera { height, ..Default::default() })
    }

    fn with(config: config::Camera) -> Run {
        let config = config::Camera { width: 640, framerate: 15, ..config };
        let (camera, encoder) = (Node::open(&camera()).unwrap(), Node::open(&encoder()).unwrap());
        let mut pipeline = Pipeline::new(camera, encoder, b"FWHT".into(), &config).unwrap();
        let (sender, events) = channel();
        let stop = Arc::new(Stop::new().unwrap());
        let shares = Arc::new(AtomicBool::new(false));
        let thread = {
            let (stop, shares) = (stop.clone(), shares.clone());
            std::thread::spawn(move || {
                let mut stall = StallTimer::new(config.framerate);
                let result = pipeline.run(&mut Recorder(sender), &mut stall, &stop);
                shares.store(pipeline.shares(), Ordering::Relaxed);
                result
            })
        };
        Run { events, stop, shares, thread: Some(thread) }
    }

    /// Waits for the next event.
    fn next(&self) -> Event {
        self.events.recv_timeout(TIMEOUT).expect("no picture arrived")
    }

    /// Waits for the next intact picture. Returns the number of damaged ones before it.
    fn picture(&self) -> usize {
        let mut damaged = 0;
        while let Event::Damaged = self.next() {
            damaged += 1;
        }
        damaged
    }

    /// Waits until the pipeline ends.
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

/// Asserts the header of an FWHT picture: magic, version, width, height (big-endian).
fn assert_fwht(data: &[u8], height: u32) {
    let word = |n: usize| u32::from_be_bytes(data[4 * n..4 * n + 4].try_into().unwrap());
    assert_eq!((word(0), word(1)), (0x4f4f_4f4f, 0xffff_ffff));
    assert_eq!((word(3), word(4)), (640, height));
}

/// Asserts that every picture passes through the encoder, in order.
fn passes_through(camera: Planes, encoder: Planes, height: u32) {
    let _devices = Devices::new(camera, encoder);
    let mut run = Run::start(height);
    let (mut times, mut ahead) = (vec![], vec![]);
    for _ in 0..PICTURES {
        let Event::Picture { data, time, at } = run.next() else { panic!("a picture is damaged") };
        assert_fwht(&data, height);
        times.push(time);
        ahead.push(time.saturating_sub(at));
    }
    // 15 per second, give or take some milliseconds: no picture is missing or repeated.
    for pair in times.windows(2) {
        let step = (pair[1] - pair[0]).as_millis();
        assert!((30..100).contains(&step), "{step} ms");
    }
    let total = (times[PICTURES - 1] - times[0]).as_millis();
    assert!((19 * 66 - 30..19 * 67 + 30).contains(&total), "{total} ms");
    // Make sure that the test covers capture times in the future.
    let (min, max) = (ahead.iter().min().unwrap(), ahead.iter().max().unwrap());
    println!("    vivid's capture times are {min:?} to {max:?} in the future");
    assert!(*max > Duration::from_millis(20));
    run.stop.set();
    run.end().unwrap();
    assert_eq!(run.shares.load(Ordering::Relaxed), height == SHARED_HEIGHT);
}

fn single_planar(_: &Lab) {
    passes_through(Single, Single, SHARED_HEIGHT);
}

fn multi_planar(_: &Lab) {
    passes_through(Multi, Multi, SHARED_HEIGHT);
}

fn mixed(_: &Lab) {
    passes_through(Multi, Single, SHARED_HEIGHT);
}

fn single_planar_copied(_: &Lab) {
    passes_through(Single, Single, COPIED_HEIGHT);
}

fn multi_planar_copied(_: &Lab) {
    passes_through(Multi, Multi, COPIED_HEIGHT);
}

/// Settings take effect, and the controls get their earlier values when the settings are removed.
fn sensor_settings(_: &Lab) {
    let _devices = Devices::new(Single, Single);
    // Not the default.
    set_vivid_control("saturation=100");
    let controls = || {
        let names = "--get-ctrl=brightness,contrast,saturation";
        run("v4l2-ctl", &["--device", camera().to_str().unwrap(), names])
    };
    let before = controls();
    assert!(before.contains("brightness: 128") && before.contains("contrast: 128"), "{before}");
    let mut with = Run::with(config::Camera {
        height: SHARED_HEIGHT,
        brightness: Some(-1.0),
        contrast: Some(2.0),
        saturation: Some(0.5),
        ..Default::default()
    });
    with.picture();
    assert_eq!(controls(), "brightness: 0\ncontrast: 255\nsaturation: 64\n");
    with.stop.set();
    with.end().unwrap();
    let mut without = Run::start(SHARED_HEIGHT);
    without.picture();
    assert_eq!(controls(), before);
    without.stop.set();
    without.end().unwrap();
}

/// Sets one of vivid's controls from another process.
fn set_vivid_control(control: &str) {
    run("v4l2-ctl", &["--device", camera().to_str().unwrap(), "--set-ctrl", control]);
}

fn damaged(_: &Lab) {
    let _devices = Devices::new(Single, Single);
    let mut run = Run::start(SHARED_HEIGHT);
    run.picture();
    set_vivid_control("inject_v4l2_buf_flag_error=1");
    let mut before = 0;
    while before == 0 {
        before = run.picture();
    }
    // The pipeline continues.
    for _ in 0..PICTURES {
        assert_eq!(run.picture(), 0);
    }
    run.stop.set();
    run.end().unwrap();
}

/// After the error, the driver's queue returns EIO until it is restarted.
fn fatal_error(_: &Lab) {
    let _devices = Devices::new(Single, Single);
    let mut run = Run::start(SHARED_HEIGHT);
    run.picture();
    set_vivid_control("inject_fatal_streaming_error=1");
    let error = run.end().unwrap_err();
    println!("    message: {error}");
    let mut restarted = Run::start(SHARED_HEIGHT);
    restarted.picture();
    restarted.stop.set();
    restarted.end().unwrap();
}

fn unplugged(_: &Lab) {
    let _devices = Devices::new(Single, Single);
    let mut run = Run::start(SHARED_HEIGHT);
    run.picture();
    set_vivid_control("disconnect=1");
    let error = run.end().unwrap_err();
    println!("    message: {error}");
    assert!(error.is_absent(), "{error}");
}
