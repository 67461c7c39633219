//! A simulated USB camera, controlled by the test. The kernel driver uvcvideo treats it as a real
//! camera.
//!
//! One thread answers the host's requests; the other produces pictures when they are due. They
//! share [`State`], protected by a lock. Answers are written while the lock is held, so that a
//! request that is unlinked is answered either before that or not at all.

use crate::usbip::{self, Command, ECONNRESET, EPIPE};
use crate::uvc::{self, BULK_IN, Choice, Format, Model, Request};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Flags in a payload's header (UVC 2.4.3.3).
const FRAME_ID: u8 = 1;
const END_OF_FRAME: u8 = 2;
const ERROR: u8 = 0x40;
const END_OF_HEADER: u8 = 0x80;

/// A change to a camera's state.
pub type Change = fn(&mut State);

/// The faults of the camera, and its current state. By default, there are no faults.
#[derive(Default)]
pub struct State {
    /// The camera sends no pictures and reports no error.
    pub stalled: bool,
    /// Number of upcoming pictures to mark as damaged.
    pub damaged: u32,
    /// Number of upcoming pictures to send without data after the header.
    pub empty: u32,
    /// The endpoint is halted: every request is answered with EPIPE until the host clears the halt.
    pub halted: bool,
    /// The camera refuses to start streams, so that the host gets EIO.
    pub refuses: bool,
    /// Actual frame interval, in units of 100 ns, regardless of the negotiated one.
    pub own_interval: Option<u32>,
    /// A change to apply before the picture with this number.
    pub change: Option<(usize, Change)>,
    /// Index of the clip to send, regardless of the negotiated size.
    pub own_clip: Option<usize>,

    /// The most recently negotiated parameters.
    pub probe: Option<Choice>,
    /// The parameters of the running stream.
    pub stream: Option<Choice>,
    /// Number of streams started.
    pub starts: u32,
    /// Number of pictures sent since the start of the stream, and index of the next access unit.
    pub sent: usize,
    /// Time at which each picture was sent.
    pub sent_at: Vec<Instant>,

    /// The control "brightness", 0 to 255.
    pub brightness: u16,
    /// Pending requests for pictures: number and length.
    requests: VecDeque<(u32, usize)>,
    /// Payloads that have not been sent completely, each a picture with its header.
    payloads: VecDeque<Vec<u8>>,
    /// Number of bytes already sent from the first payload.
    done: usize,
    gone: bool,
}

struct Shared {
    model: Arc<Model>,
    state: Mutex<State>,
    changed: Condvar,
    socket: UnixStream,
}

/// A camera plugged into a port. Unplugged on drop.
pub struct Camera {
    pub port: u32,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Camera {
    /// Plugs in a camera.
    pub fn plug(model: &Arc<Model>, port: u32) -> Camera {
        Camera::plug_with(model, port, |_| {})
    }

    /// Plugs in a camera with a changed initial state.
    pub fn plug_with(model: &Arc<Model>, port: u32, change: impl FnOnce(&mut State)) -> Camera {
        let (socket, kernel_socket) = UnixStream::pair().unwrap();
        let mut state = State { brightness: 128, ..State::default() };
        change(&mut state);
        let model = model.clone();
        let shared =
            Arc::new(Shared { model, state: Mutex::new(state), changed: Condvar::new(), socket });
        usbip::attach(port, &kernel_socket);
        let threads = [answer_requests, produce_pictures].map(|run| {
            let shared = shared.clone();
            std::thread::spawn(move || run(&shared))
        });
        Camera { port, shared, threads: threads.into() }
    }

    /// Calls `access` with the state of the camera, to read or change it.
    pub fn with_state<T>(&self, access: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.lock();
        let result = access(&mut state);
        if state.halted {
            self.shared.refuse_all(&mut state);
        }
        self.shared.changed.notify_all();
        result
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        usbip::detach(self.port);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Ignores the error that results when the host has closed the connection.
fn unless_closed(result: std::io::Result<()>) {
    if let Err(error) = result {
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "USB/IP: {error}");
    }
}

/// Answers the host's requests.
fn answer_requests(shared: &Shared) {
    let mut socket = &shared.socket;
    while let Some(command) = usbip::read(&mut socket).expect("invalid data from the host") {
        let mut state = shared.lock();
        match command {
            Command::Unlink { number, victim } => {
                let before = state.requests.len();
                state.requests.retain(|(request, _)| *request != victim);
                let found = state.requests.len() < before;
                unless_closed(usbip::unlinked(socket, number, if found { ECONNRESET } else { 0 }));
            }
            Command::Submit { number, endpoint: BULK_IN, length, .. } => {
                state.requests.push_back((number, length));
                if state.halted {
                    shared.refuse_all(&mut state);
                } else {
                    shared.send(&mut state);
                }
            }
            Command::Submit { number, setup, length, data, .. } => {
                let (status, mut answer) = match shared.control(&mut state, setup, &data) {
                    Some(answer) => (0, answer),
                    None => (EPIPE, vec![]),
                };
                answer.truncate(length);
                let taken = if status == 0 { answer.len().max(data.len()) } else { 0 };
                unless_closed(usbip::answer(socket, number, status, taken, &answer));
            }
        }
    }
    shared.lock().gone = true;
    shared.changed.notify_all();
}

/// Produces pictures at the frame interval.
fn produce_pictures(shared: &Shared) {
    let mut state = shared.lock();
    while !state.gone {
        let (Some(stream), false) = (state.stream, state.stalled) else {
            state = shared.changed.wait(state).unwrap();
            continue;
        };
        // Pictures are due at this interval until the stream changes.
        let current = (state.starts, stream);
        let interval = state.own_interval.unwrap_or(stream.interval);
        let interval = Duration::from_nanos(u64::from(interval) * 100);
        let mut due = Instant::now() + interval;
        while !state.gone
            && !state.stalled
            && state.stream.map(|s| (state.starts, s)) == Some(current)
        {
            let now = Instant::now();
            if now < due {
                state = shared.changed.wait_timeout(state, due - now).unwrap().0;
                continue;
            }
            due += interval;
            let payload = shared.payload(&mut state, stream);
            // Cameras have little memory: pictures that the host does not fetch are lost.
            if state.payloads.len() < 4 {
                state.payloads.push_back(payload);
            }
            shared.send(&mut state);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Answers a control request. `None` means that it is refused.
    fn control(&self, state: &mut State, setup: uvc::Setup, data: &[u8]) -> Option<Vec<u8>> {
        let probe = state.probe.unwrap_or(Choice::first());
        match uvc::request(setup, &self.model, probe, state.brightness) {
            Request::Answer(answer) => return Some(answer),
            Request::Done => {}
            Request::Unknown => return None,
            Request::Probe => state.probe = Some(Choice::negotiate(data, &self.model)),
            Request::Commit if state.refuses => return None,
            Request::Commit => {
                let choice = Choice::negotiate(data, &self.model);
                state.stop();
                state.probe = Some(choice);
                state.stream = Some(choice);
                state.starts += 1;
                state.sent = 0;
                state.sent_at.clear();
                self.changed.notify_all();
            }
            Request::ClearHalt => {
                state.stop();
                state.halted = false;
                self.changed.notify_all();
            }
            Request::Brightness => {
                state.brightness = u16::from_le_bytes(data.try_into().ok()?);
            }
        }
        Some(vec![])
    }

    /// Returns the next picture with its header.
    fn payload(&self, state: &mut State, stream: Choice) -> Vec<u8> {
        let number = state.sent;
        if let Some((_, change)) = state.change.take_if(|(at, _)| *at == number) {
            change(state);
        }
        state.sent += 1;
        state.sent_at.push(Instant::now());
        let mut flags = END_OF_HEADER | END_OF_FRAME;
        flags |= if number % 2 == 1 { FRAME_ID } else { 0 };
        if state.damaged > 0 {
            state.damaged -= 1;
            flags |= ERROR;
        }
        let mut payload = vec![2, flags];
        if state.empty > 0 {
            state.empty -= 1;
            return payload;
        }
        match stream.format {
            // Starts with black and becomes brighter with each picture.
            Format::Yuyv => {
                let pixels = usize::from(uvc::RAW.0) * usize::from(uvc::RAW.1);
                payload.extend([number as u8, 0x80].repeat(pixels));
            }
            Format::H264 => {
                let clip = state.own_clip.unwrap_or(stream.size);
                let units = &self.model.clips[clip].units;
                payload.extend(&units[number % units.len()]);
            }
        }
        payload
    }

    /// Sends as much data as the host has requested. The last part of a payload is shorter than the
    /// request (possibly empty), which tells the host that the payload ends.
    fn send(&self, state: &mut State) {
        while let (Some(payload), Some(&(number, length))) =
            (state.payloads.front(), state.requests.front())
        {
            state.requests.pop_front();
            let part = &payload[state.done..];
            let part = &part[..part.len().min(length)];
            unless_closed(usbip::answer(&self.socket, number, 0, part.len(), part));
            state.done += part.len();
            if part.len() < length {
                state.payloads.pop_front();
                state.done = 0;
            }
        }
    }

    /// Stops the stream and answers all pending requests with EPIPE.
    fn refuse_all(&self, state: &mut State) {
        state.stop();
        for (number, _) in std::mem::take(&mut state.requests) {
            unless_closed(usbip::answer(&self.socket, number, EPIPE, 0, &[]));
        }
    }
}

impl State {
    /// Stops the stream.
    fn stop(&mut self) {
        self.stream = None;
        self.payloads.clear();
        self.done = 0;
    }
}
