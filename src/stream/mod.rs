//! The live edge: the fragments since the last key frame, and everybody who watches.
//!
//! ```text
//!             ┌──── window ────────────────────────┐
//!   dropped   │ P P P P P P │ K P P P P P P P P ◄── publish()
//!             └─────────────┴────────────────────┘
//!               last group    current group: what a new viewer gets at once
//! ```
//!
//! A viewer is a position in this row ([`Viewer`]). It takes what it has not had yet; nobody waits
//! for it. One that falls so far behind that it lags by [`MAX_LAG`], or that its position is no
//! longer window, goes on at the newest key frame and is told how many frames it lost. Fragments are
//! shared [`Bytes`]: built once, by the camera, whatever the number of viewers.

pub mod fanout;
mod latency;
mod viewer;

pub use latency::Delays;
pub use viewer::{Event, MAX_LAG, Viewer};

use crate::fmp4::{Sample, SampleEntry, Timeline};
use crate::h264::{ParameterSets, Picture};
use crate::{fmp4, websocket};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// At most this much of the current group of pictures is window, bytes; 32 s at 4 Mbit/s. A camera
/// that sends no more key frames must not fill the memory.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// At most this many fragments are window: 40 s at 30 frames a second. Fragments of a few bytes (a
/// black picture) would otherwise add up to more bookkeeping than content.
const MAX_GROUP_FRAGMENTS: usize = 1200;

/// What a stream says of itself: made anew when its parameter sets change.
#[derive(Debug)]
pub struct Init {
    /// Size, codec, parameter sets.
    pub parameters: Arc<ParameterSets>,
    /// Frame rate that the stream or its camera's configuration states, frames a second.
    pub framerate: f64,
    /// The init segment.
    pub segment: Bytes,
}

impl Init {
    fn new(parameters: Arc<ParameterSets>, framerate: f64) -> Init {
        let segment = fmp4::init_segment(&parameters, SampleEntry::Avc1).into();
        Init { parameters, framerate, segment }
    }
}

/// One frame: built once, sent to everyone.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// `[WebSocket header | moof | mdat]`.
    pub message: Bytes,
    /// Length of the WebSocket header, bytes.
    header_len: usize,
    /// Its number in the stream, from 0.
    pub number: u64,
    /// Playing can start here.
    pub key: bool,
    /// What it is to be played with.
    pub init: Arc<Init>,
    /// When it was published.
    pub published: Instant,
}

impl Fragment {
    fn new(
        number: u64,
        sample: &Sample,
        data: &[u8],
        picture: &Picture<'_>,
        init: Arc<Init>,
    ) -> Fragment {
        let len = fmp4::fragment_len(picture.nals);
        let header = websocket::Header::binary(len);
        let mut message = Vec::with_capacity(header.len() + len);
        message.extend_from_slice(&header);
        fmp4::write_fragment(&mut message, sample, data, picture.nals);
        Fragment {
            message: message.into(),
            header_len: header.len(),
            number,
            key: sample.key,
            init,
            published: Instant::now(),
        }
    }

    /// `moof` and `mdat`, without the WebSocket header.
    pub fn mp4(&self) -> Bytes {
        self.message.slice(self.header_len..)
    }

    /// Its decode time, in 1/90000 s.
    pub fn decode_time(&self) -> u64 {
        fmp4::decode_time(&self.message[self.header_len..])
    }
}

/// One camera's stream.
#[derive(Debug)]
pub struct Stream {
    window: Mutex<Window>,
    /// Number of the next fragment: what viewers wait for.
    head: watch::Sender<u64>,
    viewers: AtomicUsize,
    dropped: AtomicU64,
    /// Somebody new watches.
    key_wanted: AtomicBool,
    sink: OnceLock<Arc<dyn FragmentSink>>,
    delays: Delays,
}

#[derive(Debug)]
struct Window {
    fragments: VecDeque<Fragment>,
    /// Number of `fragments[0]`.
    first: u64,
    /// Number of the newest key frame, while it is window and whoever is new may start at it.
    key: Option<u64>,
    /// The one before the camera went away: viewers may still be in its group.
    last_key: Option<u64>,
    /// The camera is away; what comes next must be a key frame.
    interrupted: bool,
    bytes: usize,
    init: Option<Arc<Init>>,
    timeline: Timeline,
    sequence: u32,
}

impl Window {
    fn next(&self) -> u64 {
        self.first + self.fragments.len() as u64
    }

    fn drop_before(&mut self, number: u64) {
        while self.first < number
            && let Some(gone) = self.fragments.pop_front()
        {
            self.bytes -= gone.message.len();
            self.first += 1;
        }
        self.key = self.key.filter(|&key| key >= self.first);
    }
}

impl Default for Stream {
    fn default() -> Stream {
        Stream {
            window: Mutex::new(Window {
                fragments: VecDeque::new(),
                first: 0,
                key: None,
                last_key: None,
                interrupted: true,
                bytes: 0,
                init: None,
                timeline: Timeline::new(None),
                sequence: 0,
            }),
            head: watch::Sender::new(0),
            viewers: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            key_wanted: AtomicBool::new(false),
            sink: OnceLock::new(),
            delays: Delays::default(),
        }
    }
}

impl Stream {
    fn window(&self) -> MutexGuard<'_, Window> {
        // Nothing in here panics half way; what a panic elsewhere left behind is whole.
        self.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes the next picture of the camera, captured at `time` on the camera's own clock, and
    /// shows it to every viewer. `framerate`: what to expect where the stream does not say.
    ///
    /// Returns the length of the fragment, or `None` where the picture can't be shown because no
    /// key frame has come before it.
    pub fn publish(
        &self,
        data: &[u8],
        picture: &Picture<'_>,
        time: Duration,
        framerate: Option<f64>,
    ) -> Option<usize> {
        let mut window = self.window();
        let known = window.init.as_ref().filter(|init| {
            Arc::ptr_eq(&init.parameters, picture.parameters)
                || init.parameters == *picture.parameters
        });
        let init = match known {
            // After an interruption there is no group to add to.
            Some(init) if picture.key || !window.interrupted => init.clone(),
            _ if !picture.key => return None,
            _ => {
                let framerate = picture.parameters.framerate.or(framerate);
                window.timeline.expect(framerate);
                let init = Init::new(picture.parameters.clone(), window.timeline.framerate());
                window.init.insert(Arc::new(init)).clone()
            }
        };
        let step = window.timeline.step(time);
        window.sequence = window.sequence.wrapping_add(1);
        let sample = Sample {
            sequence: window.sequence,
            decode_time: step.decode_time,
            duration: step.duration,
            key: picture.key,
        };
        let fragment = Fragment::new(window.next(), &sample, data, picture, init);
        let len = fragment.message.len();
        window.bytes += len;
        window.fragments.push_back(fragment.clone());
        let next = window.next();
        if picture.key {
            window.interrupted = false;
            // The group before this one stays for viewers who are only just behind.
            let before = window.last_key.take();
            if let Some(last) = window.key.replace(next - 1).or(before) {
                window.drop_before(last);
            }
        }
        if window.bytes > MAX_GROUP_BYTES || window.fragments.len() > MAX_GROUP_FRAGMENTS {
            let enough = window.first + window.fragments.len() as u64 / 4;
            let first = window.first;
            let until = window.key.filter(|&key| key > first).unwrap_or(enough);
            window.drop_before(until);
        }
        drop(window);
        self.head.send_replace(next);
        if let Some(sink) = self.sink.get() {
            sink.deliver(&fragment, self);
        }
        Some(len)
    }

    /// `sink` is shown each fragment by the camera's own thread. There is one; a second is not
    /// taken.
    pub fn set_sink(&self, sink: Arc<dyn FragmentSink>) {
        let _ = self.sink.set(sink);
    }

    /// The camera is away: nobody new is shown old pictures. Viewers stay, and still get what they
    /// have not had.
    pub fn interrupt(&self) {
        let mut window = self.window();
        window.interrupted = true;
        window.last_key = window.key.take().or(window.last_key);
    }

    /// What the stream says of itself, once a picture has come.
    pub fn init(&self) -> Option<Arc<Init>> {
        self.window().init.clone()
    }

    /// The newest frame: its decode time in 1/90000 s, and when it was published.
    pub fn newest(&self) -> Option<(u64, Instant)> {
        self.window().fragments.back().map(|newest| (newest.decode_time(), newest.published))
    }

    /// The frame rate that its timestamps show, frames a second.
    pub fn framerate(&self) -> f64 {
        self.window().timeline.framerate()
    }

    /// Viewers at this moment.
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Somebody new watches: a key frame would give them a picture sooner than what has gathered
    /// since the last one. True once for any number of them.
    pub fn key_frame_wanted(&self) -> bool {
        self.key_wanted.swap(false, Ordering::Relaxed)
    }

    /// Number of the next fragment.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Frames that were left out for viewers who were too slow, all of them together.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A fragment has been handed to the kernel for so many viewers.
    pub fn delivered(&self, fragment: &Fragment, viewers: usize) {
        self.delays.add(fragment.published.elapsed(), viewers as u64);
    }

    /// How long that has taken.
    pub fn delays(&self) -> &Delays {
        &self.delays
    }
}

/// Is shown each fragment in the camera's own thread, as soon as it is window: it must not wait for
/// anything.
pub trait FragmentSink: Send + Sync + std::fmt::Debug {
    /// The newest fragment.
    fn deliver(&self, fragment: &Fragment, stream: &Stream);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h264::Params;
    use crate::h264::params::tests::plain_sps;

    fn sets(width: u32) -> Arc<ParameterSets> {
        let mut params = Params::default();
        params.put_sps(&plain_sps(width, 30, 1)).unwrap();
        params.put_pps(&[0x68, 0xee, 0x3c, 0x80]).unwrap();
        Arc::new(params.activate(0).unwrap())
    }

    /// Publishes frames whose one NAL unit is their number.
    struct Camera {
        stream: Arc<Stream>,
        sets: Arc<ParameterSets>,
        count: u8,
    }

    impl Camera {
        fn new() -> Camera {
            Camera { stream: Arc::default(), sets: sets(40), count: 0 }
        }

        fn send(&mut self, kinds: &str) {
            for kind in kinds.chars() {
                self.count += 1;
                let picture = Picture {
                    key: kind == 'K',
                    nals: std::slice::from_ref(&(0..1)),
                    parameters: &self.sets,
                };
                let time = Duration::from_millis(33) * u32::from(self.count);
                self.stream.publish(&[self.count], &picture, time, None);
            }
        }
    }

    /// Everything the viewer can have now, as text: `init(1 2 3) 4 5 -7 12`.
    fn taken(viewer: &mut Viewer) -> String {
        let number = |f: &Fragment| f.message.last().unwrap().to_string();
        let mut out = vec![];
        while let Some(event) = viewer.take() {
            out.push(match event {
                Event::Start(_, group) => {
                    format!("init({})", group.iter().map(number).collect::<Vec<_>>().join(" "))
                }
                Event::Frame(f) => number(&f),
                Event::Dropped(n) => format!("-{n}"),
            });
        }
        out.join(" ")
    }

    #[test]
    fn a_new_viewer_gets_everything_since_the_key_frame_at_once() {
        let mut camera = Camera::new();
        camera.send("KPPKPP");
        let mut viewer = camera.stream.watch();
        assert_eq!(taken(&mut viewer), "init(4 5 6)");
        camera.send("PK");
        assert_eq!(taken(&mut viewer), "7 8");
    }

    #[test]
    fn nothing_is_shown_before_a_key_frame() {
        let mut camera = Camera::new();
        let mut viewer = camera.stream.watch();
        camera.send("PPP");
        assert_eq!(taken(&mut viewer), "");
        camera.send("KP");
        assert_eq!(taken(&mut viewer), "init(4 5)");
    }

    #[test]
    fn a_viewer_just_behind_a_new_key_frame_loses_nothing() {
        let mut camera = Camera::new();
        camera.send("KP");
        let mut viewer = camera.stream.watch();
        assert_eq!(taken(&mut viewer), "init(1 2)");
        camera.send("PPKP");
        assert_eq!(taken(&mut viewer), "3 4 5 6");
    }

    #[test]
    fn a_viewer_far_behind_goes_on_at_the_newest_key_frame() {
        let mut camera = Camera::new();
        camera.send("KP");
        let mut viewer = camera.stream.watch();
        assert_eq!(taken(&mut viewer), "init(1 2)");
        camera.send("PKPPKPKP");
        assert_eq!(taken(&mut viewer), "-6 9 10");
        camera.send("P");
        assert_eq!(taken(&mut viewer), "11");
    }

    #[test]
    fn other_parameter_sets_make_a_new_start() {
        let mut camera = Camera::new();
        camera.send("KP");
        let mut viewer = camera.stream.watch();
        assert_eq!(taken(&mut viewer), "init(1 2)");
        camera.send("P");
        camera.sets = sets(80);
        camera.send("KPP");
        assert_eq!(taken(&mut viewer), "3 init(4 5 6)");
        assert_eq!(taken(&mut camera.stream.watch()), "init(4 5 6)");
    }

    #[test]
    fn a_camera_that_comes_back_goes_on_without_a_new_start() {
        let mut camera = Camera::new();
        camera.send("KP");
        let mut viewer = camera.stream.watch();
        assert_eq!(taken(&mut viewer), "init(1 2)");
        camera.send("P");
        camera.stream.interrupt();
        assert_eq!(taken(&mut camera.stream.watch()), "", "no old picture for a new viewer");
        assert_eq!(taken(&mut viewer), "3", "the last one is not lost");
        camera.send("PPKP");
        assert_eq!(taken(&mut viewer), "6 7");
        assert_eq!(taken(&mut camera.stream.watch()), "init(6 7)");
    }

    #[test]
    fn a_camera_that_comes_and_goes_does_not_fill_the_memory() {
        let mut camera = Camera::new();
        for _ in 0..50 {
            camera.count = 0;
            camera.send("KPPP");
            camera.stream.interrupt();
        }
        assert!(camera.stream.window().fragments.len() <= 8);
    }

    #[test]
    fn a_camera_without_key_frames_does_not_fill_the_memory() {
        let mut camera = Camera::new();
        camera.send("K");
        let mut viewer = camera.stream.watch();
        assert_eq!(taken(&mut viewer), "init(1)");
        for _ in 0..20 {
            camera.count = 0;
            camera.send(&"P".repeat(200));
        }
        assert!(camera.stream.window().fragments.len() <= MAX_GROUP_FRAGMENTS);
        assert_eq!(taken(&mut camera.stream.watch()), "", "nobody can start in mid-group");
        assert_eq!(taken(&mut viewer), "");
        camera.send("KP");
        assert_eq!(taken(&mut viewer), "-4000 201 202");
    }

    #[tokio::test]
    async fn a_viewer_waits_for_the_next_frame() {
        let mut camera = Camera::new();
        camera.send("K");
        let mut viewer = camera.stream.watch();
        assert!(matches!(viewer.next().await, Some(Event::Start(..))));
        assert_eq!(camera.stream.viewers(), 1);
        let waiting = tokio::spawn(async move { viewer.next().await.is_some() });
        tokio::task::yield_now().await;
        camera.send("P");
        assert!(waiting.await.unwrap());
        assert_eq!(camera.stream.viewers(), 0);
    }
}
