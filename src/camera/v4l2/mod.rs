//! V4L2 devices: cameras that deliver H.264, and raw cameras with an encoder behind them.
//!
//! ```text
//! camera with H.264:   driver's buffer ──────────────────────────────► access unit
//! raw camera:          driver's buffer ──► encoder ──► driver's buffer ──► access unit
//!                                   (DMA-BUF, or one copy)
//! ```
//!
//! A camera's thread waits in poll(2) for the driver. Each buffer is copied once, into the fragment,
//! and goes back to the driver at once.

pub mod controls;
pub mod encoder;
pub mod find;
mod image;
pub mod node;
pub mod queue;

use super::stop::timespec;
use super::{Failure, Output, STALL, Source, Stop};
use crate::config;
use encoder::Sink;
use find::Kind;
use node::{H264, Node};
use queue::{Filled, Queue};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use v4l2r::{Format, PlaneLayout, QueueDirection};

/// Buffers that are asked for: one that is being read, one that is being filled, and two for a
/// thread that comes late, 66 ms at 30 frames a second.
pub const BUFFERS: u32 = 4;

/// A camera that has delivered and then delivers nothing for so long is opened anew. Longer than
/// any exposure; 5 frames where they are rarer.
const SILENCE: Duration = Duration::from_secs(3);

/// Key frames are asked for no more often than this: each costs several ordinary frames.
const KEY_FRAME_EVERY: Duration = Duration::from_secs(1);

/// Driver's times are believed this far around now: a slow encoder's pictures are some frames old;
/// vivid's lie two frames ahead.
const BELIEVED: Duration = Duration::from_secs(1);

/// After so many buffers one after the other that the driver calls damaged, it is opened anew.
const MAX_DAMAGED: u32 = 100;

/// A camera by the name of its node.
pub(super) struct Device {
    /// As configured.
    path: PathBuf,
    config: config::Camera,
    /// The same camera under names that stay, once it has been opened: it may come back under
    /// another number.
    known: Option<Identity>,
}

/// What a camera is recognised by when it comes back.
struct Identity {
    links: Vec<PathBuf>,
    name: String,
    bus: String,
}

impl Device {
    pub fn new(path: impl Into<PathBuf>, config: &config::Camera) -> Device {
        Device { path: path.into(), config: config.clone(), known: None }
    }

    /// Where the camera is now. A configured name that stays (udev's links) means what it says;
    /// behind a number, it is the camera that was there first: by its serial number, else at its
    /// port, else whatever has the number.
    fn path(&self) -> PathBuf {
        let numbered = self.path.to_string_lossy().starts_with("/dev/video");
        let Some(known) = self.known.as_ref().filter(|_| numbered) else {
            return self.path.clone();
        };
        let link = || known.links.iter().find_map(|link| link.canonicalize().ok());
        let same = |path: &PathBuf| {
            Node::open(path).is_ok_and(|node| {
                let found = &node.capability;
                (&found.card, &found.bus_info) == (&known.name, &known.bus)
                    && find::kind(&node) != Kind::Other
            })
        };
        link()
            .or_else(|| Some(self.path.clone()).filter(same))
            .or_else(|| find::paths().into_iter().find(same))
            .unwrap_or_else(|| self.path.clone())
    }
}

impl Source for Device {
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), Failure> {
        let path = self.path();
        let node = Node::open(&path)?;
        let kind = find::kind(&node);
        self.known = Some(Identity {
            links: find::links(&path),
            name: node.capability.card.clone(),
            bus: node.capability.bus_info.clone(),
        });
        let from = match path == self.path {
            true => format!("{} ({})", node.capability.card, path.display()),
            false => format!(
                "{} ({}, now {})",
                node.capability.card,
                self.path.display(),
                path.display()
            ),
        };
        match kind {
            Kind::H264 => {
                output.from(from);
                h264(node, &self.config, output, stop)
            }
            Kind::Raw => {
                let encoder = encoder::find(&node)?;
                output.from(format!("{from}, encoded by {}", encoder.path.display()));
                raw(node, encoder, &self.config, output, stop)
            }
            Kind::Encoder | Kind::Other => Err(Failure::from(format!(
                "{} is not a camera: \"berrymse cameras\" lists those that are",
                path.display()
            ))),
        }
    }
}

/// Reads a camera that delivers H.264.
fn h264(
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
    let mut silence = Silence::new(config.framerate);
    let mut damaged = 0;

    let queue = Queue::map(&node, node.queue(direction), BUFFERS)?;
    queue.give_all()?;
    queue.start()?;
    loop {
        let ready = wait(&[&node], stop, silence.left());
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
                silence.broken();
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
        silence.check(&node)?;
    }
}

/// Reads a raw camera through an encoder.
fn raw(
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
    let mut silence = Silence::new(config.framerate);
    pipeline.run(&mut Coded { output, clock: Clock::default() }, &mut silence, stop)
}

/// Coded pictures on their way to the stream.
struct Coded<'a> {
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

/// The camera delivers another size than it was asked for: worth knowing.
fn size_note(config: &config::Camera, got: &Format) -> Option<String> {
    ((got.width, got.height) != (config.width, config.height)).then(|| {
        format!(
            "width = {}, height = {}: it becomes {}x{}",
            config.width, config.height, got.width, got.height
        )
    })
}

fn framerate_note(config: &config::Camera, got: Option<f64>) -> Option<String> {
    let wanted = config.framerate;
    match got {
        Some(got) if (got - f64::from(wanted)).abs() < 0.5 => None,
        Some(got) => {
            let got = (got * 100.0).round() / 100.0;
            Some(format!("framerate = {wanted}: it becomes {got}"))
        }
        None => Some(format!("framerate = {wanted}: there is no such setting")),
    }
}

/// Waits for one of the nodes or `stop`; tells what each node is ready for.
pub fn wait(nodes: &[&Node], stop: &Stop, time: Duration) -> Vec<PollFlags> {
    // POLLOUT: an encoder has read a picture.
    let wanted = PollFlags::IN | PollFlags::OUT;
    let fds = nodes.iter().map(|node| std::os::fd::AsFd::as_fd(&node.file));
    let fds: Vec<BorrowedFd<'_>> = fds.chain([stop.as_fd()]).collect();
    let mut polls: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, wanted)).collect();
    polls[nodes.len()] = PollFd::new(&fds[nodes.len()], PollFlags::IN);
    // An interrupted poll is a poll that found nothing.
    let _ = poll(&mut polls, Some(&timespec(time)));
    polls[..nodes.len()].iter().map(PollFd::revents).collect()
}

/// Poll says that something is wrong, and there is no buffer that says what: ask the device.
pub fn gone(node: &Node, ready: &[PollFlags], idle: bool) -> Result<(), Failure> {
    if !idle || !ready.iter().any(|flags| flags.intersects(PollFlags::ERR | PollFlags::HUP)) {
        return Ok(());
    }
    match v4l2r::ioctl::querycap::<v4l2r::ioctl::Capability>(&node.file) {
        Err(error) => Err(node.failure("it does not answer", error)),
        Ok(_) => Err(Failure::from(format!(
            "{}: the driver has stopped the stream",
            node.path.display()
        ))),
    }
}

/// A timer for cameras that fall silent without a word.
pub struct Silence {
    since: Instant,
    patience: Duration,
    allowed: Duration,
}

impl Silence {
    /// A camera may take [`STALL`] to start.
    pub fn new(framerate: u32) -> Silence {
        let allowed = SILENCE.max(Duration::from_secs(5) / framerate.max(1));
        Silence { since: Instant::now(), patience: STALL, allowed }
    }

    /// A picture has come.
    pub fn broken(&mut self) {
        self.since = Instant::now();
        self.patience = self.allowed;
    }

    /// Time that is left for the next one.
    pub fn left(&self) -> Duration {
        self.patience.saturating_sub(self.since.elapsed())
    }

    /// The error, once it is over.
    pub fn check(&self, node: &Node) -> Result<(), Failure> {
        match self.left().is_zero() {
            false => Ok(()),
            true => Err(Failure::from(format!(
                "{}: no picture for {} s; opening the camera anew",
                node.path.display(),
                self.patience.as_secs()
            ))),
        }
    }
}

/// Asks for key frames when somebody new watches.
struct KeyFrames<'a> {
    /// `None`: this camera can't be asked.
    node: Option<&'a Node>,
    last: Option<Instant>,
}

impl<'a> KeyFrames<'a> {
    fn new(node: &'a Node) -> KeyFrames<'a> {
        KeyFrames { node: controls::can_force_key_frame(node).then_some(node), last: None }
    }

    fn ask(&mut self, wanted: impl FnOnce() -> bool) {
        let Some(node) = self.node else { return };
        if self.last.is_none_or(|last| last.elapsed() >= KEY_FRAME_EVERY) && wanted() {
            self.last = Some(Instant::now());
            if !controls::force_key_frame(node) {
                self.node = None;
            }
        }
    }
}

/// Which time a picture gets: the driver's, as long as it can be believed, else that of its arrival.
#[derive(Default)]
pub struct Clock {
    arrival: bool,
    last: Duration,
}

impl Clock {
    /// The time of a picture that the driver gives `time` and that arrives `now`, both on the
    /// monotonic clock; and the reason, where the driver's time is given up.
    fn time(&mut self, time: Option<Duration>, now: Duration) -> (Duration, Option<&'static str>) {
        if self.arrival {
            return (now, None);
        }
        let doubt = match time {
            None => "the driver gives no time",
            Some(time) if time > now + BELIEVED => "the driver's time lies ahead",
            Some(time) if time + BELIEVED < now => "the driver's time lies behind",
            Some(time) if time < self.last => "the driver's time goes back",
            Some(time) => {
                self.last = time;
                return (time, None);
            }
        };
        self.arrival = true;
        (now, Some(doubt))
    }
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

/// What kind of camera `path` is, if it can be shown.
pub(super) fn usable(path: &Path) -> Option<Kind> {
    let node = Node::open(path).ok()?;
    match find::kind(&node) {
        Kind::Raw if encoder::find(&node).is_err() => None,
        kind @ (Kind::H264 | Kind::Raw) => Some(kind),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_drivers_time_counts_while_it_can_be_believed() {
        let now = 1_000_000 * MS;
        let mut clock = Clock::default();
        assert_eq!(clock.time(Some(now - 40 * MS), now), (now - 40 * MS, None));
        // As vivid does it.
        assert_eq!(clock.time(Some(now + 56 * MS), now), (now + 56 * MS, None));
    }

    #[test]
    fn what_cannot_be_believed_gives_way_to_the_arrival_for_good() {
        let now = 1_000_000 * MS;
        for bad in [None, Some(now + 1001 * MS), Some(now - 1001 * MS), Some(now - 90 * MS)] {
            let mut clock = Clock::default();
            clock.time(Some(now - 60 * MS), now - 33 * MS);
            let (time, doubt) = clock.time(bad, now);
            assert_eq!(time, now, "{bad:?}");
            assert!(doubt.is_some(), "{bad:?}");
            let (time, doubt) = clock.time(Some(now), now + 33 * MS);
            assert_eq!((time, doubt), (now + 33 * MS, None), "no jumping to and fro");
        }
    }
}
