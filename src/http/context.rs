//! State shared by all requests.

use crate::access::AccessPolicy;
use crate::camera::Camera;
use crate::config;
use crate::settings::Settings;
use crate::shutdown::Shutdown;
use crate::system::camera_record::CameraRecords;
use crate::update::Updater;
use std::sync::Arc;
use std::time::Instant;

/// State shared by all requests.
#[derive(Debug)]
pub struct Context {
    /// The cameras, in the order of the configuration. The first one is the default.
    pub cameras: Vec<Arc<Camera>>,
    /// Rules for Host, Origin and password.
    pub access: AccessPolicy,
    /// The `[server]` section of the configuration, with the limits.
    pub server: config::Server,
    /// Access to the configuration file.
    pub settings: Settings,
    /// Updates of the appliance.
    pub updater: Arc<Updater>,
    /// Cameras that an update must not lose.
    pub records: CameraRecords,
    /// URL of the update announcement.
    pub update_url: Option<String>,
    /// When the program started.
    pub started: Instant,
    /// The shutdown signal.
    pub shutdown: Shutdown,
}

impl Context {
    /// Returns whether the viewer limit allows another viewer.
    pub(super) fn has_room(&self) -> bool {
        let viewers: usize = self.cameras.iter().map(|camera| camera.stream.viewers()).sum();
        viewers < self.server.max_viewers as usize
    }

    /// Returns the index of the camera called `name`, or of the first camera if `name` is `None`.
    pub(super) fn position(&self, name: Option<&str>) -> Option<usize> {
        match name {
            None => Some(0),
            Some(name) => self.cameras.iter().position(|camera| camera.config.name == name),
        }
    }

    /// Returns the configurations of the running cameras.
    pub(super) fn configs(&self) -> Vec<config::Camera> {
        self.cameras.iter().map(|camera| camera.config.clone()).collect()
    }
}
