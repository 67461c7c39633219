//! A simulated USB camera, driven by the kernel's uvcvideo.
//!
//! One thread answers the host, another prepares a picture when it is due. They share [`State`] behind a
//! lock, which is held while an answer is written, so that a request that is being cancelled is answered
//! either before that or not at all.

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

/// An action on a camera.
pub type Action = fn(&mut State);

/// Simulated faults and the state of a camera. By default there are no faults.
#[derive(Default)]
pub struct State {
    /// The camera sends no pictures and reports no error.
    pub stalled: bool,
    /// Number of following pictures that are marked as damaged.
    pub damaged: u32,
    /// Number of following pictures that consist of a header only.
    pub empty: u32,
    /// The endpoint is halted: every request fails with EPIPE until the host clears the halt.
    pub halted: bool,
    /// Starting a stream fails; the host gets EIO.
    pub refuses: bool,
    /// A fixed frame interval in units of 100 ns, regardless of the negotiated one.
    pub own_interval: Option<u32>,
    /// An action before the picture with this number.
    pub spoil: Option<(usize, Action)>,
    /// A fixed clip, regardless of the negotiated size.
    pub own_clip: Option<usize>,

    /// The last negotiated parameters.
    pub probe: Option<Choice>,
    /// The running stream.
    pub stream: Option<Choice>,
    /// Number of started streams.
    pub starts: u32,
    /// Number of pictures sent since the start of the stream, which is the index of the next unit.
    pub sent: usize,
    /// When each picture was sent.
    pub sent_at: Vec<Instant>,

    brightness: u16,
    /// The host's pending requests for data: number and length.
    requests: VecDeque<(u32, usize)>,
    /// Payloads to be sent, each with its header.
    payloads: VecDeque<Vec<u8>>,
    /// Number of bytes of the first payload that have been sent.
    done: usize,
    gone: bool,
}

struct Shared {
    model: Arc<Model>,
    state: Mutex<State>,
    changed: Condvar,
    socket: UnixStream,
}

/// A camera that is plugged in. Unplugged on drop.
pub struct Camera {
    pub port: u32,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Camera {
    /// Plugs a camera in.
    pub fn plug(model: &Arc<Model>, port: u32) -> Camera {
        Camera::plug_with(model, port, |_| {})
    }

    /// Plugs in a camera with faults from the start.
    pub fn plug_with(model: &Arc<Model>, port: u32, spoil: impl FnOnce(&mut State)) -> Camera {
        let (socket, kernels) = UnixStream::pair().unwrap();
        let mut state = State { brightness: 128, ..State::default() };
        spoil(&mut state);
        let model = model.clone();
        let shared =
            Arc::new(Shared { model, state: Mutex::new(state), changed: Condvar::new(), socket });
        usbip::attach(port, &kernels);
        let threads = [answer_requests, keep_time].map(|run| {
            let shared = shared.clone();
            std::thread::spawn(move || run(&shared))
        });
        Camera { port, shared, threads: threads.into() }
    }

    /// Changes or reads the state of the camera.
    pub fn tell<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.lock();
        let result = what(&mut state);
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

/// Ignores the error of a connection that the host has closed.
fn unless_gone(result: std::io::Result<()>) {
    if let Err(error) = result {
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "USB/IP: {error}");
    }
}

/// The thread that answers the host.
fn answer_requests(shared: &Shared) {
    let mut socket = &shared.socket;
    while let Some(command) = usbip::read(&mut socket).expect("a USB/IP command") {
        let mut state = shared.lock();
        match command {
            Command::Unlink { number, victim } => {
                let before = state.requests.len();
                state.requests.retain(|(request, _)| *request != victim);
                let found = state.requests.len() < before;
                unless_gone(usbip::unlinked(socket, number, if found { ECONNRESET } else { 0 }));
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
                unless_gone(usbip::answer(socket, number, status, taken, &answer));
            }
        }
    }
    shared.lock().gone = true;
    shared.changed.notify_all();
}

/// The thread that prepares a picture when it is due.
fn keep_time(shared: &Shared) {
    let mut state = shared.lock();
    while !state.gone {
        let (Some(stream), false) = (state.stream, state.stalled) else {
            state = shared.changed.wait(state).unwrap();
            continue;
        };
        // Pictures are due at this interval until the stream changes.
        let this = (state.starts, stream);
        let interval = state.own_interval.unwrap_or(stream.interval);
        let interval = Duration::from_nanos(u64::from(interval) * 100);
        let mut due = Instant::now() + interval;
        while !state.gone && !state.stalled && state.stream.map(|s| (state.starts, s)) == Some(this)
        {
            let now = Instant::now();
            if now < due {
                state = shared.changed.wait_timeout(state, due - now).unwrap().0;
                continue;
            }
            due += interval;
            let payload = shared.payload(&mut state, stream);
            // A camera has little memory: pictures that the host does not fetch are lost.
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

    /// Answers a control request. `None` rejects it.
    fn control(&self, state: &mut State, setup: uvc::Setup, data: &[u8]) -> Option<Vec<u8>> {
        let probe = state.probe.unwrap_or(Choice::first());
        match uvc::request(setup, &self.model, probe, state.brightness) {
            Request::Answer(answer) => return Some(answer),
            Request::Done => {}
            Request::Unknown => return None,
            Request::Probe => state.probe = Some(Choice::from_wish(data, &self.model)),
            Request::Commit if state.refuses => return None,
            Request::Commit => {
                let choice = Choice::from_wish(data, &self.model);
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

    /// The next picture, with its header.
    fn payload(&self, state: &mut State, stream: Choice) -> Vec<u8> {
        let number = state.sent;
        if let Some((_, spoil)) = state.spoil.take_if(|(at, _)| *at == number) {
            spoil(state);
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
            // Starts black and becomes brighter with every picture.
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

    /// Sends as much as the host has requested. The last part of a payload is shorter than the request,
    /// or empty, which marks its end.
    fn send(&self, state: &mut State) {
        while let (Some(payload), Some(&(number, length))) =
            (state.payloads.front(), state.requests.front())
        {
            state.requests.pop_front();
            let piece = &payload[state.done..];
            let piece = &piece[..piece.len().min(length)];
            unless_gone(usbip::answer(&self.socket, number, 0, piece.len(), piece));
            state.done += piece.len();
            if piece.len() < length {
                state.payloads.pop_front();
                state.done = 0;
            }
        }
    }

    /// Halts the endpoint: fails all pending requests.
    fn refuse_all(&self, state: &mut State) {
        state.stop();
        for (number, _) in std::mem::take(&mut state.requests) {
            unless_gone(usbip::answer(&self.socket, number, EPIPE, 0, &[]));
        }
    }
}

impl State {
    /// Ends the stream.
    fn stop(&mut self) {
        self.stream = None;
        self.payloads.clear();
        self.done = 0;
    }
}
