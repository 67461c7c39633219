//! One loop that gives each new frame to everybody who is up to date.
//!
//! A task for each viewer that waits for the next frame, is woken, writes and waits again costs more
//! in waking than in writing. So viewers who have everything sit in rows, and for each new fragment
//! somebody goes from seat to seat and writes the shared bytes, with a plain non-blocking write: in
//! the front row the camera's own thread, as soon as it has made the fragment, so that nobody has to
//! be woken at all; in the other rows a task.
//!
//! ```text
//!             from seat to seat with one fragment
//!             ┌──────┬──────┬──────┬──────┐  socket is full,       ┌─────────────────────────┐
//! stream ───► │ seat │ seat │ seat │ seat │ ───────────────────►   │ the viewer's own task:  │
//!             └──────┴──────┴──────┴──────┘  other parameters,     │ writes what is left,    │
//!                        ▲                   frames missed         │ skips, starts again     │
//!                        └──────────────────────────────────────── └─────────────────────────┘
//!                                     everything is sent
//! ```
//!
//! A socket belongs to one of the two at any time ([`Hand`]), so bytes never get mixed up. Nobody in
//! a row ever waits for anybody: what does not fit into a socket at once is its own task's business.

use crate::camera::Camera;
use crate::http::Shutdown;
use crate::stream::{Event, Fragment, Front, Init, Stream, Viewer};
use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Rows behind the front one at the most: more cores than that are not kept busy by writing to
/// sockets.
const MAX_ROWS: usize = 4;

/// Seats in the front row: about 1 ms of writing on a PC's core, in which the camera's next frame
/// would have to wait.
const FRONT_SEATS: usize = 400;

/// The rows of one camera.
#[derive(Debug)]
pub(super) struct Fanout {
    front: Arc<Row>,
    rows: Vec<Arc<Row>>,
    /// Where the next viewer sits.
    turn: AtomicUsize,
}

/// Viewers whom the same loop serves.
#[derive(Debug, Default)]
struct Row {
    seats: Mutex<Vec<Arc<Seat>>>,
    /// What the last fragment was to be played with.
    init: Mutex<Weak<Init>>,
    /// Somebody has sat down in an empty row.
    filled: Notify,
}

/// A viewer's place in a row.
#[derive(Debug)]
pub(super) struct Seat {
    /// Read by the viewer's task; written by whoever has the hand.
    pub socket: TcpStream,
    hand: Mutex<Hand>,
    /// The viewer's own task is to go on.
    pub call: Notify,
    row: Arc<Row>,
}

/// Who writes to a socket.
#[derive(Debug)]
enum Hand {
    /// The row, fragment `next` first.
    Row { next: u64 },
    /// The viewer's own task; it goes on at fragment `next`, after what is left of the one before.
    Own { next: u64, rest: Option<Bytes> },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing behind these locks is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fanout {
    /// Makes the rows of `camera`; their tasks end with `shutdown`.
    pub fn start(camera: &Arc<Camera>, shutdown: &Shutdown) -> Fanout {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let rows: Vec<Arc<Row>> =
            (0..cores.min(MAX_ROWS)).map(|_| Arc::new(Row::default())).collect();
        for row in &rows {
            let (row, viewer, mut shutdown) =
                (row.clone(), camera.stream.observe(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = row.run(viewer) => {}
                    () = shutdown.wait() => {}
                }
            });
        }
        let front = Arc::new(Row::default());
        camera.stream.set_front(front.clone());
        Fanout { front, rows, turn: AtomicUsize::new(0) }
    }

    /// A seat for a viewer whose own task has the hand.
    pub fn seat(&self, socket: TcpStream) -> Arc<Seat> {
        let seat = |row: &Arc<Row>| {
            Arc::new(Seat {
                socket,
                hand: Mutex::new(Hand::Own { next: 0, rest: None }),
                call: Notify::new(),
                row: row.clone(),
            })
        };
        let mut front = lock(&self.front.seats);
        if front.len() < FRONT_SEATS {
            let seat = seat(&self.front);
            front.push(seat.clone());
            return seat;
        }
        drop(front);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let row = &self.rows[turn % self.rows.len()];
        let seat = seat(row);
        lock(&row.seats).push(seat.clone());
        row.filled.notify_one();
        seat
    }
}

impl Front for Row {
    fn show(&self, fragment: &Fragment, stream: &Stream) {
        let seats = lock(&self.seats);
        if seats.is_empty() {
            return;
        }
        let mut init = lock(&self.init);
        if init.as_ptr() != Arc::as_ptr(&fragment.init) {
            // Other parameters: each viewer's own task tells it so.
            *init = Arc::downgrade(&fragment.init);
            seats.iter().for_each(|seat| seat.let_go());
            return;
        }
        seats.iter().for_each(|seat| seat.offer(fragment));
        stream.delivered(fragment, seats.len());
    }
}

impl Row {
    /// Serves a row that is not the front one.
    async fn run(&self, mut viewer: Viewer) {
        loop {
            // Nobody is there: nothing to be woken for.
            while lock(&self.seats).is_empty() {
                self.filled.notified().await;
            }
            let Some(event) = viewer.next().await else { break };
            match event {
                Event::Frame(fragment) => self.show(&fragment, viewer.stream()),
                Event::Start(_, group) => {
                    if let Some(fragment) = group.last() {
                        *lock(&self.init) = Arc::downgrade(&fragment.init);
                    }
                    lock(&self.seats).iter().for_each(|seat| seat.let_go());
                }
                Event::Dropped(_) => {} // whoever missed a frame is noticed by the number
            }
        }
    }
}

impl Seat {
    /// The row has a fragment.
    fn offer(&self, fragment: &Fragment) {
        let mut hand = lock(&self.hand);
        let Hand::Row { next } = *hand else { return };
        if next > fragment.number {
            return; // its own task was faster
        }
        let rest = if next < fragment.number {
            None
        } else {
            // Straight to the kernel: what the runtime knows of a socket is in memory of its own,
            // and looking there for each viewer costs a twentieth of the whole.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &fragment.message, flags) {
                Ok(len) if len == fragment.message.len() => {
                    *hand = Hand::Row { next: next + 1 };
                    return;
                }
                Ok(len) => Some(fragment.message.slice(len..)),
                Err(Errno::AGAIN) => Some(fragment.message.clone()),
                // Its own task will find out what happened.
                Err(_) => None,
            }
        };
        *hand = Hand::Own { next: next + u64::from(rest.is_some()), rest };
        self.call.notify_one();
    }

    /// Gives the socket to the viewer's own task.
    fn let_go(&self) {
        let mut hand = lock(&self.hand);
        if let Hand::Row { next } = *hand {
            *hand = Hand::Own { next, rest: None };
            self.call.notify_one();
        }
    }

    /// The viewer's own task takes what is left to write, and where to go on, if it has the hand.
    pub fn own(&self) -> Option<(u64, Option<Bytes>)> {
        match &mut *lock(&self.hand) {
            Hand::Own { next, rest } => Some((*next, rest.take())),
            Hand::Row { .. } => None,
        }
    }

    /// The viewer's own task takes the socket, wherever the row is: to write something of its own.
    pub fn take(&self) -> (u64, Option<Bytes>) {
        let mut hand = lock(&self.hand);
        let taken = match &mut *hand {
            Hand::Own { next, rest } => (*next, rest.take()),
            Hand::Row { next } => (*next, None),
        };
        *hand = Hand::Own { next: taken.0, rest: None };
        taken
    }

    /// The viewer has everything before `next`: the row may go on. False if there is more already,
    /// which the row may have passed by; then the viewer's own task keeps the hand.
    pub fn give(&self, next: u64, stream: &Stream) -> bool {
        *lock(&self.hand) = Hand::Row { next };
        if stream.head() <= next {
            return true;
        }
        let mut hand = lock(&self.hand);
        match *hand {
            Hand::Row { next: at } if at == next => {
                *hand = Hand::Own { next, rest: None };
                false
            }
            _ => true,
        }
    }

    /// The viewer's own task, which has the hand, has sent everything before `next`.
    pub fn hold(&self, next: Option<u64>) {
        if let Some(next) = next {
            *lock(&self.hand) = Hand::Own { next, rest: None };
        }
    }

    /// The viewer has left; its socket is closed with the last that knows of it.
    pub fn leave(&self) {
        lock(&self.row.seats).retain(|seat| !std::ptr::eq(&**seat, self));
    }
}
