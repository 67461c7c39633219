//! One loop that gives each new frame to everybody who is up to date.
//!
//! A task for each viewer that waits for the next frame, is woken, writes and waits again costs more
//! in waking than in writing. So viewers who have everything sit in shards, and for each new fragment
//! somebody goes from connection to connection and writes the shared bytes, with a plain non-blocking write: in
//! the camera_shard shard the camera's own thread, as soon as it has made the fragment, so that nobody has to
//! be woken at all; in the other shards a task.
//!
//! ```text
//!             from connection to connection with one fragment
//!             ┌──────┬──────┬──────┬──────┐  socket is full,       ┌─────────────────────────┐
//! stream ───► │ connection │ connection │ connection │ connection │ ───────────────────►   │ the viewer's own task:  │
//!             └──────┴──────┴──────┴──────┘  other parameters,     │ writes what is left,    │
//!                        ▲                   frames missed         │ skips, starts again     │
//!                        └──────────────────────────────────────── └─────────────────────────┘
//!                                     everything is sent
//! ```
//!
//! A socket belongs to one of the two at any time ([`Owner`]), so bytes never get mixed up. Nobody in
//! a shard ever waits for anybody: what does not fit into a socket at once is its own task's business.

use crate::shutdown::Shutdown;
use crate::stream::{Event, Viewer};
use crate::stream::{Fragment, FragmentSink, Init, Stream};
use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Rows behind the camera_shard one at the most: more cores than that are not kept busy by writing to
/// sockets.
const MAX_TASK_SHARDS: usize = 4;

/// Seats in the camera_shard shard: about 1 ms of writing on a PC's core, in which the camera's next frame
/// would have to wait.
const CAMERA_SHARD_CONNECTIONS: usize = 400;

/// The shards of one camera.
#[derive(Debug)]
pub struct Fanout {
    camera_shard: Arc<Shard>,
    shards: Vec<Arc<Shard>>,
    /// Where the next viewer sits.
    next_shard: AtomicUsize,
}

/// Viewers whom the same loop serves.
#[derive(Debug, Default)]
struct Shard {
    connections: Mutex<Vec<Arc<Connection>>>,
    /// What the last fragment was to be played with.
    init: Mutex<Weak<Init>>,
    /// Somebody has sat down in an empty shard.
    filled: Notify,
}

/// A viewer's place in a shard.
#[derive(Debug)]
pub struct Connection {
    /// Read by the viewer's task; written by whoever has the owner.
    pub socket: TcpStream,
    owner: Mutex<Owner>,
    /// The viewer's own task is to go on.
    pub wake: Notify,
    shard: Arc<Shard>,
}

/// Who writes to a socket.
#[derive(Debug)]
enum Owner {
    /// The shard, fragment `next` first.
    Shard { next: u64 },
    /// The viewer's own task; it goes on at fragment `next`, after what is left of the one before.
    Task { next: u64, unsent: Option<Bytes> },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing behind these locks is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fanout {
    /// Makes the shards of `camera`; their tasks end with `shutdown`.
    pub fn start(stream: &Arc<Stream>, shutdown: &Shutdown) -> Fanout {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards: Vec<Arc<Shard>> =
            (0..cores.min(MAX_TASK_SHARDS)).map(|_| Arc::new(Shard::default())).collect();
        for shard in &shards {
            let (shard, viewer, mut shutdown) = (shard.clone(), stream.observe(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = shard.run(viewer) => {}
                    () = shutdown.wait() => {}
                }
            });
        }
        let camera_shard = Arc::new(Shard::default());
        stream.set_sink(camera_shard.clone());
        Fanout { camera_shard, shards, next_shard: AtomicUsize::new(0) }
    }

    /// A connection for a viewer whose own task has the owner.
    pub fn connect(&self, socket: TcpStream) -> Arc<Connection> {
        let connection = |shard: &Arc<Shard>| {
            Arc::new(Connection {
                socket,
                owner: Mutex::new(Owner::Task { next: 0, unsent: None }),
                wake: Notify::new(),
                shard: shard.clone(),
            })
        };
        let mut camera_shard = lock(&self.camera_shard.connections);
        if camera_shard.len() < CAMERA_SHARD_CONNECTIONS {
            let connection = connection(&self.camera_shard);
            camera_shard.push(connection.clone());
            return connection;
        }
        drop(camera_shard);
        let next_shard = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let shard = &self.shards[next_shard % self.shards.len()];
        let connection = connection(shard);
        lock(&shard.connections).push(connection.clone());
        shard.filled.notify_one();
        connection
    }
}

impl FragmentSink for Shard {
    fn deliver(&self, fragment: &Fragment, stream: &Stream) {
        let connections = lock(&self.connections);
        if connections.is_empty() {
            return;
        }
        let mut init = lock(&self.init);
        if init.as_ptr() != Arc::as_ptr(&fragment.init) {
            // Other parameters: each viewer's own task tells it so.
            *init = Arc::downgrade(&fragment.init);
            connections.iter().for_each(|connection| connection.detach());
            return;
        }
        connections.iter().for_each(|connection| connection.try_send(fragment));
        stream.delivered(fragment, connections.len());
    }
}

impl Shard {
    /// Serves a shard that is not the camera_shard one.
    async fn run(&self, mut viewer: Viewer) {
        loop {
            // Nobody is there: nothing to be woken for.
            while lock(&self.connections).is_empty() {
                self.filled.notified().await;
            }
            let Some(event) = viewer.next().await else { break };
            match event {
                Event::Frame(fragment) => self.deliver(&fragment, viewer.stream()),
                Event::Start(_, group) => {
                    if let Some(fragment) = group.last() {
                        *lock(&self.init) = Arc::downgrade(&fragment.init);
                    }
                    lock(&self.connections).iter().for_each(|connection| connection.detach());
                }
                Event::Dropped(_) => {} // whoever missed a frame is noticed by the number
            }
        }
    }
}

impl Connection {
    /// The shard has a fragment.
    fn try_send(&self, fragment: &Fragment) {
        let mut owner = lock(&self.owner);
        let Owner::Shard { next } = *owner else { return };
        if next > fragment.number {
            return; // its own task was faster
        }
        let unsent = if next < fragment.number {
            None
        } else {
            // Straight to the kernel: what the runtime knows of a socket is in memory of its own,
            // and looking there for each viewer costs a twentieth of the whole.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &fragment.message, flags) {
                Ok(len) if len == fragment.message.len() => {
                    *owner = Owner::Shard { next: next + 1 };
                    return;
                }
                Ok(len) => Some(fragment.message.slice(len..)),
                Err(Errno::AGAIN) => Some(fragment.message.clone()),
                // Its own task will find out what happened.
                Err(_) => None,
            }
        };
        *owner = Owner::Task { next: next + u64::from(unsent.is_some()), unsent };
        self.wake.notify_one();
    }

    /// Gives the socket to the viewer's own task.
    fn detach(&self) {
        let mut owner = lock(&self.owner);
        if let Owner::Shard { next } = *owner {
            *owner = Owner::Task { next, unsent: None };
            self.wake.notify_one();
        }
    }

    /// The viewer's own task takes what is left to write, and where to go on, if it has the owner.
    pub fn unsent(&self) -> Option<(u64, Option<Bytes>)> {
        match &mut *lock(&self.owner) {
            Owner::Task { next, unsent } => Some((*next, unsent.take())),
            Owner::Shard { .. } => None,
        }
    }

    /// The viewer's own task takes the socket, wherever the shard is: to write something of its own.
    pub fn claim(&self) -> (u64, Option<Bytes>) {
        let mut owner = lock(&self.owner);
        let taken = match &mut *owner {
            Owner::Task { next, unsent } => (*next, unsent.take()),
            Owner::Shard { next } => (*next, None),
        };
        *owner = Owner::Task { next: taken.0, unsent: None };
        taken
    }

    /// The viewer has everything before `next`: the shard may go on. False if there is more already,
    /// which the shard may have passed by; then the viewer's own task keeps the owner.
    pub fn hand_back(&self, next: u64, stream: &Stream) -> bool {
        *lock(&self.owner) = Owner::Shard { next };
        if stream.head() <= next {
            return true;
        }
        let mut owner = lock(&self.owner);
        match *owner {
            Owner::Shard { next: at } if at == next => {
                *owner = Owner::Task { next, unsent: None };
                false
            }
            _ => true,
        }
    }

    /// The viewer's own task, which has the owner, has sent everything before `next`.
    pub fn claim_at(&self, next: Option<u64>) {
        if let Some(next) = next {
            *lock(&self.owner) = Owner::Task { next, unsent: None };
        }
    }

    /// The viewer has left; its socket is closed with the last that knows of it.
    pub fn remove(&self) {
        lock(&self.shard.connections).retain(|connection| !std::ptr::eq(&**connection, self));
    }
}
