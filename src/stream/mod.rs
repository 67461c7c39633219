//! The live edge of a camera: the newest fragments, and the viewers' positions in them.
//!
//! ```text
//!             ┌───────────── window ─────────────┐
//!   removed   │ P P P P P P │ K P P P P P P P P ◄── publish()
//!             └─────────────┴────────────────────┘
//!               previous      current group of pictures:
//!               group         sent to each new viewer
//! ```
//!
//! A [`Viewer`] is a position in the sequence of fragments. It reads at its own pace, and the
//! camera never waits for it. If a viewer lags by more than [`MAX_LAG`], or its position has left
//! the window, it resumes at the newest key frame and receives the number of dropped frames. All
//! viewers share each fragment ([`Bytes`]), which the camera builds once.

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

/// Maximum size of the fragments in the window, in bytes: 32 s at 4 Mbit/s. Limits memory use if a
/// camera stops sending key frames.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Maximum number of fragments in the window: 40 s at 30 frames per second. Limits the overhead of
/// very small fragments, such as those of black pictures.
const MAX_GROUP_FRAGMENTS: usize = 1200;

/// The description of a stream, replaced when its parameter sets change.
#[derive(Debug)]
pub struct Init {
    /// The parameter sets, with picture size and codec.
    pub parameters: Arc<ParameterSets>,
    /// Frame rate that the stream declares or the camera's configuration expects, in frames per
    /// second.
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

/// One frame, built once and shared by all viewers.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// A WebSocket message: `[WebSocket header | moof | mdat]`.
    pub message: Bytes,
    /// Length of the WebSocket header, in bytes.
    header_len: usize,
    /// Number of the fragment in the stream, starting at 0.
    pub number: u64,
    /// Whether this is a key frame, where playback can start.
    pub key: bool,
    /// The init segment that the fragment requires.
    pub init: Arc<Init>,
    /// Time of publication.
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

    /// Returns `moof` and `mdat`, without the WebSocket header.
    pub fn mp4(&self) -> Bytes {
        self.message.slice(self.header_len..)
    }

    /// Returns the decode time, in 1/90000 s.
    pub fn decode_time(&self) -> u64 {
        fmp4::decode_time(&self.message[self.header_len..])
    }
}

/// The stream of one camera.
#[derive(Debug)]
pub struct Stream {
    window: Mutex<Window>,
    /// Number of the next fragment, which viewers wait for.
    head: watch::Sender<u64>,
    viewers: AtomicUsize,
    dropped: AtomicU64,
    /// Set when a viewer joins.
    key_wanted: AtomicBool,
    sink: OnceLock<Arc<dyn FragmentSink>>,
    delays: Delays,
}

/// The fragments that the stream keeps, and the state of the publisher.
#[derive(Debug)]
struct Window {
    fragments: VecDeque<Fragment>,
    /// Number of `fragments[0]`.
    first: u64,
    /// Number of the newest key frame. `None` if it has left the window or if the camera is
    /// interrupted, so that new viewers do not start there.
    key: Option<u64>,
    /// Number of the newest key frame before an interruption. Viewers may still be reading its
    /// group.
    last_key: Option<u64>,
    /// Whether the camera is interrupted. The next fragment must then be a key frame.
    interrupted: bool,
    /// Total size of `fragments`, in bytes.
    bytes: usize,
    init: Option<Arc<Init>>,
    timeline: Timeline,
    /// Sequence number of the newest fragment.
    sequence: u32,
}

impl Window {
    /// Returns the number of the next fragment.
    fn next(&self) -> u64 {
        self.first + self.fragments.len() as u64
    }

    /// Removes the fragments before `number`.
    fn drop_before(&mut self, number: u64) {
        while self.first < number
            && let Some(removed) = self.fragments.pop_front()
        {
            self.bytes -= removed.message.len();
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
        // No code panics while the window is inconsistent, so a poisoned lock can be used.
        self.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Publishes the next picture of the camera, which was captured at `time` on the camera's
    /// clock. `framerate` is the expected frame rate, in frames per second, for streams that do not
    /// declare one.
    ///
    /// Returns the size of the fragment with its WebSocket header, in bytes, or `None` if the
    /// picture is discarded because no key frame precedes it.
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
            // After an interruption, only a key frame can continue the stream.
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
            // Keep the previous group for viewers that are slightly behind.
            let last_key = window.last_key.take();
            if let Some(previous) = window.key.replace(next - 1).or(last_key) {
                window.drop_before(previous);
            }
        }
        if window.bytes > MAX_GROUP_BYTES || window.fragments.len() > MAX_GROUP_FRAGMENTS {
            let quarter = window.first + window.fragments.len() as u64 / 4;
            let first = window.first;
            let end = window.key.filter(|&key| key > first).unwrap_or(quarter);
            window.drop_before(end);
        }
        drop(window);
        self.head.send_replace(next);
        if let Some(sink) = self.sink.get() {
            sink.deliver(&fragment, self);
        }
        Some(len)
    }

    /// Sets the sink that receives each fragment in the camera's thread. Only the first call has an
    /// effect.
    pub fn set_sink(&self, sink: Arc<dyn FragmentSink>) {
        let _ = self.sink.set(sink);
    }

    /// Marks the camera as interrupted. New viewers receive no old frames. Existing viewers stay
    /// connected and receive the remaining fragments.
    pub fn interrupt(&self) {
        let mut window = self.window();
        window.interrupted = true;
        window.last_key = window.key.take().or(window.last_key);
    }

    /// Returns the description of the stream, or `None` before the first picture.
    pub fn init(&self) -> Option<Arc<Init>> {
        self.window().init.clone()
    }

    /// Returns the decode time of the newest frame, in 1/90000 s, and its time of publication.
    pub fn newest(&self) -> Option<(u64, Instant)> {
        self.window().fragments.back().map(|newest| (newest.decode_time(), newest.published))
    }

    /// Returns the measured frame rate, in frames per second.
    pub fn framerate(&self) -> f64 {
        self.window().timeline.framerate()
    }

    /// Returns the current number of viewers.
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Returns whether viewers have joined since the last call. They reach the live edge faster
    /// with a new key frame than with all frames since the previous one.
    pub fn key_frame_wanted(&self) -> bool {
        self.key_wanted.swap(false, Ordering::Relaxed)
    }

    /// Returns the number of the next fragment.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Returns the number of frames dropped for slow viewers, summed over all viewers.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Records that `fragment` has been passed to the kernel for `viewers` viewers.
    pub fn delivered(&self, fragment: &Fragment, viewers: usize) {
        self.delays.add(fragment.published.elapsed(), viewers as u64);
    }

    /// Returns the delays from publication to delivery.
    pub fn delays(&self) -> &Delays {
        &self.delays
    }
}

/// A receiver of each new fragment in the camera's thread.
pub trait FragmentSink: Send + Sync + std::fmt::Debug {
    /// Delivers the newest fragment of `stream`. Must not block.
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

    /// Publishes frames with a single NAL unit, whose content is the number of the frame.
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

    /// Returns all available events of the viewer, as text: `init(1 2 3) 4 5 -7 12`.
    fn events(viewer: &mut Viewer) -> String {
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
    fn a_new_viewer_gets_the_whole_group_at_once() {
        let mut camera = Camera::new();
        camera.send("KPPKPP");
        let mut viewer = camera.stream.watch();
        assert_eq!(events(&mut viewer), "init(4 5 6)");
        camera.send("PK");
        assert_eq!(events(&mut viewer), "7 8");
    }

    #[test]
    fn a_stream_starts_with_a_key_frame() {
        let mut camera = Camera::new();
        let mut viewer = camera.stream.watch();
        camera.send("PPP");
        assert_eq!(events(&mut viewer), "");
        camera.send("KP");
        assert_eq!(events(&mut viewer), "init(4 5)");
    }

    #[test]
    fn a_viewer_slightly_behind_a_new_key_frame_loses_nothing() {
        let mut camera = Camera::new();
        camera.send("KP");
        let mut viewer = camera.stream.watch();
        assert_eq!(events(&mut viewer), "init(1 2)");
        camera.send("PPKP");
        assert_eq!(events(&mut viewer), "3 4 5 6");
    }

    #[test]
    fn a_viewer_far_behind_resumes_at_the_newest_key_frame() {
        let mut camera = Camera::new();
        camera.send("KP");
        let mut viewer = camera.stream.watch();
        assert_eq!(events(&mut viewer), "init(1 2)");
        camera.send("PKPPKPKP");
        assert_eq!(events(&mut viewer), "-6 9 10");
        camera.send("P");
        assert_eq!(events(&mut viewer), "11");
    }

    #[test]
    fn changed_parameter_sets_cause_a_new_start() {
        let mut camera = Camera::new();
        camera.send("KP");
        let mut viewer = camera.stream.watch();
        assert_eq!(events(&mut viewer), "init(1 2)");
        camera.send("P");
        camera.sets = sets(80);
        camera.send("KPP");
        assert_eq!(events(&mut viewer), "3 init(4 5 6)");
        assert_eq!(events(&mut camera.stream.watch()), "init(4 5 6)");
    }

    #[test]
    fn viewers_continue_after_an_interruption_without_a_new_start() {
        let mut camera = Camera::new();
        camera.send("KP");
        let mut viewer = camera.stream.watch();
        assert_eq!(events(&mut viewer), "init(1 2)");
        camera.send("P");
        camera.stream.interrupt();
        assert_eq!(
            events(&mut camera.stream.watch()),
            "",
            "a new viewer must not get an old frame"
        );
        assert_eq!(events(&mut viewer), "3", "the last frame must not be lost");
        camera.send("PPKP");
        assert_eq!(events(&mut viewer), "6 7");
        assert_eq!(events(&mut camera.stream.watch()), "init(6 7)");
    }

    #[test]
    fn repeated_interruptions_use_bounded_memory() {
        let mut camera = Camera::new();
        for _ in 0..50 {
            camera.count = 0;
            camera.send("KPPP");
            camera.stream.interrupt();
        }
        assert!(camera.stream.window().fragments.len() <= 8);
    }

    #[test]
    fn a_stream_without_key_frames_uses_bounded_memory() {
        let mut camera = Camera::new();
        camera.send("K");
        let mut viewer = camera.stream.watch();
        assert_eq!(events(&mut viewer), "init(1)");
        for _ in 0..20 {
            camera.count = 0;
            camera.send(&"P".repeat(200));
        }
        assert!(camera.stream.window().fragments.len() <= MAX_GROUP_FRAGMENTS);
        assert_eq!(events(&mut camera.stream.watch()), "", "a viewer cannot start within a group");
        assert_eq!(events(&mut viewer), "");
        camera.send("KP");
        assert_eq!(events(&mut viewer), "-4000 201 202");
    }

    #[tokio::test]
    async fn next_waits_for_the_next_frame() {
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
