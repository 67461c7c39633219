//! A V4L2 camera as a source, found again after it was unplugged.

use crate::camera::Stop;
use crate::camera::source::{Failure, Output, Source};
use crate::camera::v4l2::capture::{h264, raw};
use crate::camera::v4l2::find::Kind;
use crate::camera::v4l2::node::Node;
use crate::camera::v4l2::{encoder, find};
use crate::config;
use std::path::{Path, PathBuf};

/// A camera by the name of its node.
pub(crate) struct Device {
    /// As configured.
    path: PathBuf,
    config: config::Camera,
    /// The same camera under names that stay, once it has been opened: it may come back under
    /// another number.
    known: Option<Identity>,
}

/// What a camera is recognised by when it comes back.
pub(crate) struct Identity {
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

/// What kind of camera `path` is, if it can be shown.
pub(crate) fn usable(path: &Path) -> Option<Kind> {
    let node = Node::open(path).ok()?;
    match find::kind(&node) {
        Kind::Raw if encoder::find(&node).is_err() => None,
        kind @ (Kind::H264 | Kind::Raw) => Some(kind),
        _ => None,
    }
}
