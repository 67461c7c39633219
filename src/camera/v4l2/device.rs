//! A V4L2 camera as a source. A camera that is unplugged and plugged in again is found even if its
//! device number has changed.

use crate::camera::Stop;
use crate::camera::error::SourceError;
use crate::camera::kind::CameraKind;
use crate::camera::source::{Output, Source};
use crate::camera::v4l2::capture::{h264, raw};
use crate::camera::v4l2::find::Kind;
use crate::camera::v4l2::node::Node;
use crate::camera::v4l2::{encoder, find};
use crate::config;
use std::path::{Path, PathBuf};

/// A camera, given by its device node.
pub(crate) struct Device {
    /// The configured node.
    path: PathBuf,
    config: config::Camera,
    /// Identity of the camera once it has been opened. The camera may return with a different
    /// device number.
    known: Option<Identity>,
}

/// The properties that identify a camera after it has been unplugged and plugged in again.
pub(crate) struct Identity {
    links: Vec<PathBuf>,
    name: String,
    bus: String,
}

impl Device {
    /// Creates a source for the camera at `path`.
    pub fn new(path: impl Into<PathBuf>, config: &config::Camera) -> Device {
        Device { path: path.into(), config: config.clone(), known: None }
    }

    /// Returns the current node of the camera. A persistent name (a udev link) is used as is. A
    /// numbered node stands for the camera that was last opened, identified by its serial number,
    /// otherwise by its port, otherwise by its name and bus address. If no node matches, the
    /// configured node is used.
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
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), SourceError> {
        let path = self.path();
        let node = Node::open(&path)?;
        let kind = find::kind(&node);
        output.set_kind(Some(CameraKind::of_card(&node.capability.card)));
        self.known = Some(Identity {
            links: find::links(&path),
            name: node.capability.card.clone(),
            bus: node.capability.bus_info.clone(),
        });
        let from = match path == self.path {
            true => format!("{} ({})", node.capability.card, path.display()),
            false => format!(
                "{} ({}, now at {})",
                node.capability.card,
                self.path.display(),
                path.display()
            ),
        };
        match kind {
            Kind::H264 => {
                output.set_source(from);
                h264(node, &self.config, output, stop)
            }
            Kind::Raw => {
                let encoder = encoder::find(&node)?;
                output.set_source(format!("{from}, encoded by {}", encoder.path.display()));
                raw(node, encoder, &self.config, output, stop)
            }
            Kind::Encoder | Kind::Other => Err(SourceError::Unusable {
                device: path,
                reason: "not a camera: choose one that \"berrymse cameras\" lists".into(),
            }),
        }
    }
}

/// Returns the kind of camera at `path`, or `None` if it is not a camera or is a raw camera without
/// an encoder.
pub(crate) fn usable_kind(path: &Path) -> Option<Kind> {
    let node = Node::open(path).ok()?;
    match find::kind(&node) {
        Kind::Raw if encoder::find(&node).is_err() => None,
        kind @ (Kind::H264 | Kind::Raw) => Some(kind),
        _ => None,
    }
}
