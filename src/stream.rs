//! The live edge: the fragments since the last key frame, and everybody who watches.
//!
//! ```text
//!             ┌──── kept ────────────────────────┐
//!   dropped   │ P P P P P P │ K P P P P P P P P ◄── publish()
//!             └─────────────┴────────────────────┘
//!               last group    current group: what a new viewer gets at once
//! ```
//!
//! A viewer is a position in this row ([`Viewer`]). It takes what it has not had yet; nobody waits
//! for it. One that falls so far behind that it lags by [`MAX_LAG`], or that its position is no
//! longer kept, goes on at the newest key frame and is told how many frames it lost. Fragments are
//! shared [`Bytes`]: built once, by the camera, whatever the number of viewers.

use crate::fmp4::{self, Sample, SampleEntry, Timeline};
use crate::h264::{ParameterSets, Picture};
use crate::http::websocket;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A viewer further behind than this goes on at the newest key frame: later than this the picture
/// is no longer live.
pub const MAX_LAG: Duration = Duration::from_secs(1);

/// At most this much of the current group of pictures is kept, bytes; 32 s at 4 Mbit/s. A camera
/// that sends no more key frames must not fill the memory.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// At most this many fragments are kept: 40 s at 30 frames a second. Fragments of a few bytes (a
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
    kept: Mutex<Kept>,
    /// Number of the next fragment: what viewers wait for.
    head: watch::Sender<u64>,
    viewers: AtomicUsize,
    dropped: AtomicU64,
    /// Somebody new watches.
    key_wanted: AtomicBool,
    front: OnceLock<Arc<dyn Front>>,
    delays: Delays,
}

#[derive(Debug)]
struct Kept {
    fragments: VecDeque<Fragment>,
    /// Number of `fragments[0]`.
    first: u64,
    /// Number of the newest key frame, while it is kept and whoever is new may start at it.
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

impl Kept {
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
            kept: Mutex::new(Kept {
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
            front: OnceLock::new(),
            delays: Delays::default(),
        }
    }
}

impl Stream {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here panics half way; what a panic elsewhere left behind is whole.
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
        let mut kept = self.kept();
        let known = kept.init.as_ref().filter(|init| {
            Arc::ptr_eq(&init.parameters, picture.parameters)
                || init.parameters == *picture.parameters
        });
        let init = match known {
            // After an interruption there is no group to add to.
            Some(init) if picture.key || !kept.interrupted => init.clone(),
            _ if !picture.key => return None,
            _ => {
                let framerate = picture.parameters.framerate.or(framerate);
                kept.timeline.expect(framerate);
                let init = Init::new(picture.parameters.clone(), kept.timeline.framerate());
                kept.init.insert(Arc::new(init)).clone()
            }
        };
        let step = kept.timeline.step(time);
        kept.sequence = kept.sequence.wrapping_add(1);
        let sample = Sample {
            sequence: kept.sequence,
            decode_time: step.decode_time,
            duration: step.duration,
            key: picture.key,
        };
        let fragment = Fragment::new(kept.next(), &sample, data, picture, init);
        let len = fragment.message.len();
        kept.bytes += len;
        kept.fragments.push_back(fragment.clone());
        let next = kept.next();
        if picture.key {
            kept.interrupted = false;
            // The group before this one stays for viewers who are only just behind.
            let before = kept.last_key.take();
            if let Some(last) = kept.key.replace(next - 1).or(before) {
                kept.drop_before(last);
            }
        }
        if kept.bytes > MAX_GROUP_BYTES || kept.fragments.len() > MAX_GROUP_FRAGMENTS {
            let enough = kept.first + kept.fragments.len() as u64 / 4;
            let first = kept.first;
            let until = kept.key.filter(|&key| key > first).unwrap_or(enough);
            kept.drop_before(until);
        }
        drop(kept);
        self.head.send_replace(next);
        if let Some(front) = self.front.get() {
            front.show(&fragment, self);
        }
        Some(len)
    }

    /// `front` is shown each fragment by the camera's own thread. There is one; a second is not
    /// taken.
    pub fn set_front(&self, front: Arc<dyn Front>) {
        let _ = self.front.set(front);
    }

    /// The camera is away: nobody new is shown old pictures. Viewers stay, and still get what they
    /// have not had.
    pub fn interrupt(&self) {
        let mut kept = self.kept();
        kept.interrupted = true;
        kept.last_key = kept.key.take().or(kept.last_key);
    }

    /// What the stream says of itself, once a picture has come.
    pub fn init(&self) -> Option<Arc<Init>> {
        self.kept().init.clone()
    }

    /// The newest frame: its decode time in 1/90000 s, and when it was published.
    pub fn newest(&self) -> Option<(u64, Instant)> {
        self.kept().fragments.back().map(|newest| (newest.decode_time(), newest.published))
    }

    /// The frame rate that its timestamps show, frames a second.
    pub fn framerate(&self) -> f64 {
        self.kept().timeline.framerate()
    }

    /// Viewers at this moment.
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Somebody starts to watch.
    pub fn watch(self: &Arc<Self>) -> Viewer {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        self.key_wanted.store(true, Ordering::Relaxed);
        let mut viewer = self.observe();
        viewer.counted = true;
        viewer
    }

    /// The same, for somebody who does not count as a viewer.
    pub fn observe(self: &Arc<Self>) -> Viewer {
        Viewer {
            stream: self.clone(),
            head: self.head.subscribe(),
            next: None,
            init: None,
            lost: 0,
            counted: false,
        }
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

/// Is shown each fragment in the camera's own thread, as soon as it is kept: it must not wait for
/// anything.
pub trait Front: Send + Sync + std::fmt::Debug {
    /// The newest fragment.
    fn show(&self, fragment: &Fragment, stream: &Stream);
}

/// How long fragments take from the camera to the last viewer's socket: a histogram.
#[derive(Debug, Default)]
pub struct Delays {
    counts: [AtomicU64; Delays::BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Delays {
    /// Upper bounds of the classes, microseconds; the last class has none.
    pub const BOUNDS: [u64; 12] =
        [100, 200, 400, 700, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000];

    fn add(&self, delay: Duration, count: u64) {
        let class = Delays::BOUNDS.partition_point(|&bound| Duration::from_micros(bound) < delay);
        self.counts[class].fetch_add(count, Ordering::Relaxed);
        let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds.saturating_mul(count), Ordering::Relaxed);
    }

    /// Seconds in all, and how many fell into each class.
    pub fn read(&self) -> (f64, [u64; Delays::BOUNDS.len() + 1]) {
        let counts = std::array::from_fn(|n| self.counts[n].load(Ordering::Relaxed));
        (self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9, counts)
    }
}

/// What a viewer is to be sent next.
#[derive(Debug)]
pub enum Event {
    /// The beginning, or other parameter sets: the init segment and everything since the last key
    /// frame.
    Start(Arc<Init>, Vec<Fragment>),
    /// The next frame.
    Frame(Fragment),
    /// So many frames were left out, because the viewer was too slow.
    Dropped(u64),
}

/// A position in the stream.
#[derive(Debug)]
pub struct Viewer {
    stream: Arc<Stream>,
    head: watch::Receiver<u64>,
    /// Number of the next fragment; `None`: at the newest key frame.
    next: Option<u64>,
    init: Option<Arc<Init>>,
    /// Frames left out that the viewer has not been told of.
    lost: u64,
    counted: bool,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        if self.counted {
            self.stream.viewers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Viewer {
    /// What is to be sent next. Waits for it. `None`: the stream is no more.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            self.head.borrow_and_update();
            if let Some(event) = self.take() {
                return Some(event);
            }
            self.head.changed().await.ok()?;
        }
    }

    /// The stream that is watched.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Number of the next fragment, once the viewer has started.
    pub fn position(&self) -> Option<u64> {
        self.next
    }

    /// Goes on at fragment `next`: somebody else has sent those before it.
    pub fn resume(&mut self, next: u64) {
        self.next = Some(next);
    }

    /// What is to be sent next, if there is something.
    pub fn take(&mut self) -> Option<Event> {
        let kept = self.stream.kept();
        if let Some(next) = self.next {
            // Where to go on: here, or at the newest key frame.
            let behind = |number: u64| {
                let at = usize::try_from(number.checked_sub(kept.first)?).ok()?;
                Some(kept.fragments.get(at)?.published.elapsed())
            };
            let too_late = next < kept.first || behind(next).is_some_and(|lag| lag > MAX_LAG);
            if too_late && let Some(key) = kept.key.filter(|&key| key > next) {
                self.lost += key - next;
                self.next = Some(key);
            } else if next < kept.first {
                // No key frame to go on at: wait for the next one.
                let now = kept.next();
                self.lost += now - next;
                self.next = None;
            }
        }
        let next = self.next.or(kept.key).filter(|&next| next < kept.next())?;
        let at = usize::try_from(next - kept.first).ok()?;
        let fragment = &kept.fragments[at];
        let same = self.init.as_ref().is_some_and(|init| Arc::ptr_eq(init, &fragment.init));
        if self.lost > 0 {
            // Set, so that no frame is counted twice if another key frame comes meanwhile.
            self.next = Some(next);
            if self.counted {
                self.stream.dropped.fetch_add(self.lost, Ordering::Relaxed);
            }
            return Some(Event::Dropped(std::mem::take(&mut self.lost)));
        }
        if same {
            let fragment = fragment.clone();
            self.next = Some(next + 1);
            return Some(Event::Frame(fragment));
        }
        let init = fragment.init.clone();
        let group = kept.fragments.range(at..);
        let group: Vec<Fragment> =
            group.take_while(|f| Arc::ptr_eq(&f.init, &init)).cloned().collect();
        self.next = Some(next + group.len() as u64);
        self.init = Some(init.clone());
        Some(Event::Start(init, group))
    }
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
        assert!(camera.stream.kept().fragments.len() <= 8);
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
        assert!(camera.stream.kept().fragments.len() <= MAX_GROUP_FRAGMENTS);
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
