//! State that all requests share.

use crate::access::AccessPolicy;
use crate::camera::Camera;
use crate::config;
use crate::settings::Settings;
use crate::shutdown::Shutdown;
use crate::update::Updater;
use std::sync::Arc;
use std::time::Instant;

/// State that all requests share.
#[derive(Debug)]
pub struct Context {
    /// In the order of the configuration; the first is shown where none is named.
    pub cameras: Vec<Arc<Camera>>,
    /// Who may do what.
    pub access: AccessPolicy,
    /// `[server]`: limits.
    pub server: config::Server,
    /// The configuration file.
    pub settings: Settings,
    /// Updates of the system.
    pub updater: Arc<Updater>,
    /// Where updates are announced.
    pub update_url: Option<String>,
    /// When the program started.
    pub started: Instant,
    /// Set when the program is to end.
    pub shutdown: Shutdown,
}

impl Context {
    /// Whether another viewer may be accepted.
    pub(super) fn has_room(&self) -> bool {
        let viewers: usize = self.cameras.iter().map(|camera| camera.stream.viewers()).sum();
        viewers < self.server.max_viewers as usize
    }

    /// Index of the camera called `name`; without a name, the first.
    pub(super) fn position(&self, name: Option<&str>) -> Option<usize> {
        match name {
            None => Some(0),
            Some(name) => self.cameras.iter().position(|camera| camera.config.name == name),
        }
    }

    /// The configurations of the cameras in force.
    pub(super) fn configs(&self) -> Vec<config::Camera> {
        self.cameras.iter().map(|camera| camera.config.clone()).collect()
    }
}
