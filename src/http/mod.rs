//! What is served: the page, the streams, the state.
//!
//! ```text
//! accept ─► door (host, origin, password) ─► warp routes ─┬─ site      the page and its script
//!  server     door                              routes    ├─ live      WebSocket viewers
//!                                                         ├─ endless   .mp4 and .h264 over HTTP
//!                                                         ├─ status    /api/status, /healthz
//!                                                         ├─ settings  /api/config, /api/reboot
//!                                                         ├─ update    /api/update
//!                                                         ├─ wifi      /api/wifi
//!                                                         └─ metrics   /metrics
//! ```

pub mod client;
pub mod door;
mod endless;
mod fanout;
mod live;
mod metrics;
mod routes;
mod server;
mod settings;
mod site;
mod status;
mod update;
pub mod websocket;
mod wifi;

pub use door::Door;
pub use server::{Server, listen};
pub use settings::Settings;
pub(crate) use status::NO_CAMERA;

use crate::camera::Camera;
use crate::update::Updater;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// What all requests share.
#[derive(Debug)]
pub struct Context {
    /// In the order of the configuration; the first is shown where none is named.
    pub cameras: Vec<Arc<Camera>>,
    /// Who may come in.
    pub door: Door,
    /// How many, and how much.
    pub server: crate::config::Server,
    /// The configuration's file.
    pub settings: Settings,
    /// Updates of the system.
    pub updater: Arc<Updater>,
    /// Where they are announced.
    pub update_url: Option<String>,
    /// When the program started.
    pub started: Instant,
    /// Set once the program is to end.
    pub shutdown: Shutdown,
}

/// Tells everything that runs to end.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// And what sets it, with `true`.
    pub fn new() -> (watch::Sender<bool>, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (sender, Shutdown(receiver))
    }

    /// Waits until it is set. Cancel safe.
    pub async fn wait(&mut self) {
        // An error means that nobody is left who could set it: that is an end, too.
        let _ = self.0.wait_for(|set| *set).await;
    }
}

impl Context {
    /// Whether one more viewer has room.
    fn has_room(&self) -> bool {
        let viewers: usize = self.cameras.iter().map(|camera| camera.stream.viewers()).sum();
        viewers < self.server.max_viewers as usize
    }

    /// Which camera is called `name`; without a name, the first.
    fn position(&self, name: Option<&str>) -> Option<usize> {
        match name {
            None => Some(0),
            Some(name) => self.cameras.iter().position(|camera| camera.config.name == name),
        }
    }
}
