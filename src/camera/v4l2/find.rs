//! Which cameras there are, and what each can deliver.

use crate::camera::v4l2::holders::entries;
use crate::camera::v4l2::node::{H264, Node, Role};
use serde::Serialize;
use std::path::{Path, PathBuf};
use v4l2r::QueueDirection;

/// Where udev puts names that stay: by serial number, and by the port it is plugged into.
const LINKS: [&str; 2] = ["/dev/v4l/by-id", "/dev/v4l/by-path"];

/// Formats without compression that an encoder may take, the cheaper ones (12 bits a pixel) first.
pub const RAW: [&[u8; 4]; 6] = [b"NV12", b"YU12", b"NM12", b"YM12", b"YUYV", b"UYVY"];

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A camera that delivers H.264.
    H264,
    /// A camera without an encoder.
    Raw,
    /// Makes H.264 of raw pictures.
    Encoder,
    /// Anything else.
    Other,
}

/// The nodes of video devices.
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

/// The names under which udev lists a node, those by serial number first.
pub fn links(path: &Path) -> Vec<PathBuf> {
    let Ok(target) = path.canonicalize() else { return vec![] };
    let mut found = vec![];
    for folder in LINKS {
        let mut here: Vec<PathBuf> = entries(Path::new(folder))
            // udev makes it as .#NAME, and then renames it.
            .filter(|link| link.file_name().is_some_and(|name| name.as_encoded_bytes()[0] != b'.'))
            .filter(|link| link.canonicalize().is_ok_and(|leads_to| leads_to == target))
            .collect();
        here.sort();
        found.append(&mut here);
    }
    found
}

/// What a node is.
pub fn kind(node: &Node) -> Kind {
    let encodes = || {
        let raw = node.formats(QueueDirection::Output);
        raw.iter().any(|format| RAW.contains(&&format.pixelformat.to_fourcc()))
    };
    let h264 = node.has(QueueDirection::Capture, H264);
    match node.role() {
        Role::Capture if h264 => Kind::H264,
        Role::Capture => Kind::Raw,
        Role::MemoryToMemory if h264 && encodes() => Kind::Encoder,
        _ => Kind::Other,
    }
}
