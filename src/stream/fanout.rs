//! Delivery of each new fragment to all viewers that are up to date.
//!
//! With a task for each viewer, waking the tasks would cost more than writing the data. Viewers
//! that are up to date are therefore grouped into shards. For each new fragment, one loop writes
//! the shared bytes to every connection of a shard, with non-blocking writes. The camera's thread
//! serves one of the shards, the camera shard, as soon as it has built the fragment, without waking
//! a task. A task serves each of the other shards.
//!
//! ```text
//!             one fragment to each connection in turn
//!             ┌────────────┬────────────┬────────────┐ socket full,     ┌───────────────────────┐
//! stream ───► │ connection │ connection │ connection │ ───────────────► │ viewer's task:        │
//!             └────────────┴────────────┴────────────┘ new parameters,  │ writes unsent bytes,  │
//!                                ▲                     missed frames    │ skips frames, sends   │
//!                                └───────────────────────────────────── │ init segments         │
//!                                     everything sent                   └───────────────────────┘
//! ```
//!
//! At any time, either the shard or the viewer's task writes to a socket (`Owner`), never both, so
//! messages are never interleaved. A loop never waits for a viewer: if data does not fit into a
//! socket's send buffer, the viewer's task sends the rest.

use crate::shutdown::Shutdown;
use crate::stream::{Event, Fragment, FragmentSink, Init, Stream, Viewer};
use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Maximum number of shards that are served by tasks. Writing to sockets cannot keep more cores
/// than this busy.
const MAX_TASK_SHARDS: usize = 4;

/// Maximum number of connections in the camera shard. Writing to them takes about 1 ms on a PC,
/// which can delay the camera's next frame.
const MAX_CAMERA_SHARD_CONNECTIONS: usize = 400;

/// The shards of one camera.
#[derive(Debug)]
pub struct Fanout {
    /// The shard that the camera's thread serves.
    camera_shard: Arc<Shard>,
    /// The shards that tasks serve.
    task_shards: Vec<Arc<Shard>>,
    /// Counter that selects the task shard for the next viewer.
    next_shard: AtomicUsize,
}

/// A group of viewers that one loop serves.
#[derive(Debug, Default)]
struct Shard {
    connections: Mutex<Vec<Arc<Connection>>>,
    /// The init segment of the newest fragment.
    init: Mutex<Weak<Init>>,
    /// Notified when a connection is added.
    filled: Notify,
}

/// A viewer's place in a shard.
#[derive(Debug)]
pub struct Connection {
    /// The socket. The viewer's task reads from it; the owner writes to it.
    pub socket: TcpStream,
    owner: Mutex<Owner>,
    /// Wakes the viewer's task when it becomes the owner.
    pub wake: Notify,
    shard: Arc<Shard>,
}

/// The current writer of a socket.
#[derive(Debug)]
enum Owner {
    /// The shard, which continues with fragment `next`.
    Shard { next: u64 },
    /// The viewer's task, which sends the unsent bytes and then continues with fragment `next`.
    Task { next: u64, unsent: Option<Bytes> },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while the data is inconsistent, so a poisoned lock can be used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fanout {
    /// Creates the shards of `stream` and starts their tasks, which end when `shutdown` is
    /// signaled.
    pub fn start(stream: &Arc<Stream>, shutdown: &Shutdown) -> Fanout {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let task_shards: Vec<Arc<Shard>> =
            (0..cores.min(MAX_TASK_SHARDS)).map(|_| Arc::new(Shard::default())).collect();
        for shard in &task_shards {
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
        Fanout { camera_shard, task_shards, next_shard: AtomicUsize::new(0) }
    }

    /// Adds a connection for a viewer. The viewer's task is the initial owner.
    pub fn connect(&self, socket: TcpStream) -> Arc<Connection> {
        let connection = |shard: &Arc<Shard>| {
            Arc::new(Connection {
                socket,
                owner: Mutex::new(Owner::Task { next: 0, unsent: None }),
                wake: Notify::new(),
                shard: shard.clone(),
            })
        };
        let mut connections = lock(&self.camera_shard.connections);
        if connections.len() < MAX_CAMERA_SHARD_CONNECTIONS {
            let connection = connection(&self.camera_shard);
            connections.push(connection.clone());
            return connection;
        }
        drop(connections);
        let next_shard = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let shard = &self.task_shards[next_shard % self.task_shards.len()];
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
            // The init segment has changed: each viewer's task sends the new one.
            *init = Arc::downgrade(&fragment.init);
            connections.iter().for_each(|connection| connection.detach());
            return;
        }
        connections.iter().for_each(|connection| connection.try_send(fragment));
        stream.delivered(fragment, connections.len());
    }
}

impl Shard {
    /// Serves this shard; runs in its own task.
    async fn run(&self, mut viewer: Viewer) {
        loop {
            // While the shard has no connections, do not wake up for every fragment.
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
                // try_send detects missed frames by the gap in the fragment numbers.
                Event::Dropped(_) => {}
            }
        }
    }
}

impl Connection {
    /// Sends `fragment` if the shard owns the socket and the viewer is up to date. Passes the
    /// socket to the viewer's task if the write is incomplete or fails, or if frames were missed.
    fn try_send(&self, fragment: &Fragment) {
        let mut owner = lock(&self.owner);
        let Owner::Shard { next } = *owner else { return };
        if next > fragment.number {
            return; // the viewer's task has already sent it
        }
        let unsent = if next < fragment.number {
            None
        } else {
            // Bypass the runtime: accessing its per-socket state takes 5 % of the total time.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &fragment.message, flags) {
                Ok(len) if len == fragment.message.len() => {
                    *owner = Owner::Shard { next: next + 1 };
                    return;
                }
                Ok(len) => Some(fragment.message.slice(len..)),
                Err(Errno::AGAIN) => Some(fragment.message.clone()),
                // The viewer's task will get the same error.
                Err(_) => None,
            }
        };
        *owner = Owner::Task { next: next + u64::from(unsent.is_some()), unsent };
        self.wake.notify_one();
    }

    /// Passes the socket to the viewer's task.
    fn detach(&self) {
        let mut owner = lock(&self.owner);
        if let Owner::Shard { next } = *owner {
            *owner = Owner::Task { next, unsent: None };
            self.wake.notify_one();
        }
    }

    /// If the viewer's task is the owner, takes the unsent bytes and returns them with the number
    /// of the next fragment. Called by the viewer's task.
    pub fn unsent(&self) -> Option<(u64, Option<Bytes>)> {
        match &mut *lock(&self.owner) {
            Owner::Task { next, unsent } => Some((*next, unsent.take())),
            Owner::Shard { .. } => None,
        }
    }

    /// Makes the viewer's task the owner, so that it can write other messages. Returns the number
    /// of the next fragment and the unsent bytes. Called by the viewer's task.
    pub fn claim(&self) -> (u64, Option<Bytes>) {
        let mut owner = lock(&self.owner);
        let claimed = match &mut *owner {
            Owner::Task { next, unsent } => (*next, unsent.take()),
            Owner::Shard { next } => (*next, None),
        };
        *owner = Owner::Task { next: claimed.0, unsent: None };
        claimed
    }

    /// Makes the shard the owner after everything before fragment `next` has been sent. Returns
    /// false if `next` has already been published and the shard may have missed it. The viewer's
    /// task then stays the owner.
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

    /// Records that the viewer's task, which is the owner, has sent everything before fragment
    /// `next`. `None` has no effect.
    pub fn claim_at(&self, next: Option<u64>) {
        if let Some(next) = next {
            *lock(&self.owner) = Owner::Task { next, unsent: None };
        }
    }

    /// Removes the connection from its shard. The socket is closed when the last reference is
    /// dropped.
    pub fn remove(&self) {
        lock(&self.shard.connections).retain(|connection| !std::ptr::eq(&**connection, self));
    }
}
