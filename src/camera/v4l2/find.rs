//! Finds V4L2 devices and determines their kinds.

use crate::camera::v4l2::holders::entries;
use crate::camera::v4l2::node::{H264, Node, Role};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use v4l2r::QueueDirection;

/// Directories in which udev creates persistent names: by serial number, and by port.
const LINK_DIRECTORIES: [&str; 2] = ["/dev/v4l/by-id", "/dev/v4l/by-path"];

/// Names of nodes that appear together with a camera, without their numbers.
const NODE_NAMES: [&str; 3] = ["video", "media", "v4l-subdev"];

/// Uncompressed formats for encoders, in order of preference: 12 bits per pixel, then 16.
pub const RAW_FORMATS: [&[u8; 4]; 6] = [b"NV12", b"YU12", b"NM12", b"YM12", b"YUYV", b"UYVY"];

/// The kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A camera that delivers H.264.
    H264,
    /// A camera that delivers raw video only.
    Raw,
    /// An encoder that converts raw video to H.264.
    Encoder,
    /// Any other device.
    Other,
}

/// Returns the nodes of all video devices, sorted by number.
pub fn paths() -> Vec<PathBuf> {
    let number = |path: &Path| -> Option<u32> {
        path.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()
    };
    let mut found: Vec<(u32, PathBuf)> = entries(Path::new("/dev"))
        .filter_map(|path| number(&path).map(|number| (number, path)))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Returns all nodes that appear together with a camera: of video devices, media controllers and
/// sensors.
pub fn nodes() -> BTreeSet<PathBuf> {
    let is_node = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = NODE_NAMES.iter().find_map(|kind| name.strip_prefix(kind));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    entries(Path::new("/dev")).filter(|path| is_node(path)).collect()
}

/// Returns the persistent names of a node (udev links), starting with those by serial number.
pub fn links(path: &Path) -> Vec<PathBuf> {
    let Ok(target) = path.canonicalize() else { return vec![] };
    let mut found = vec![];
    for folder in LINK_DIRECTORIES {
        let mut links: Vec<PathBuf> = entries(Path::new(folder))
            // udev creates a link as .#NAME and then renames it.
            .filter(|link| link.file_name().is_some_and(|name| name.as_encoded_bytes()[0] != b'.'))
            .filter(|link| link.canonicalize().is_ok_and(|leads_to| leads_to == target))
            .collect();
        links.sort();
        found.append(&mut links);
    }
    found
}

/// Determines the kind of a device.
pub fn kind(node: &Node) -> Kind {
    let encodes = || {
        let raw = node.formats(QueueDirection::Output);
        raw.iter().any(|format| RAW_FORMATS.contains(&&format.pixelformat.to_fourcc()))
    };
    let h264 = node.has(QueueDirection::Capture, H264);
    match node.role() {
        Role::Capture if h264 => Kind::H264,
        Role::Capture => Kind::Raw,
        Role::MemoryToMemory if h264 && encodes() => Kind::Encoder,
        _ => Kind::Other,
    }
}
