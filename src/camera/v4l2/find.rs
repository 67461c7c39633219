//! Which cameras there are, and what each can deliver.

use super::controls::{self, Control};
use super::node::{H264, Node, Role, Size};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use v4l2r::{PixelFormat, QueueDirection};

/// Where udev puts names that stay: by serial number, and by the port it is plugged into.
const LINKS: [&str; 2] = ["/dev/v4l/by-id", "/dev/v4l/by-path"];

/// Formats without compression that an encoder may take, the cheaper ones (12 bits a pixel) first.
pub const RAW: [&[u8; 4]; 6] = [b"NV12", b"YU12", b"NM12", b"YM12", b"YUYV", b"UYVY"];

/// A V4L2 device node, as `berrymse cameras` lists it.
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    /// Its node: `/dev/video0`.
    pub path: PathBuf,
    /// Names that stay when it is plugged in again.
    pub links: Vec<PathBuf>,
    /// What it calls itself.
    pub name: String,
    /// Kernel driver.
    pub driver: String,
    /// Where it is plugged in.
    pub bus: String,
    /// What it is.
    pub kind: Kind,
    /// What comes out of it.
    pub formats: Vec<Format>,
    /// Controls that matter here.
    pub controls: Vec<Control>,
    /// Programs that have it open, as far as this user may know.
    pub used_by: Vec<Holder>,
    /// Why nothing more is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

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

/// A format that comes out of a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Format {
    /// Four characters.
    pub fourcc: String,
    /// In the driver's words.
    pub description: String,
    /// Sizes and frame rates.
    pub sizes: Vec<Mode>,
}

/// A size with its frame rates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mode {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Where everything between is possible: up to here, pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to: Option<(u32, u32)>,
    /// Frames a second.
    pub framerates: Vec<f64>,
}

/// A program that has a device open.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holder {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub program: String,
}

/// Every V4L2 node, in the order of their numbers.
pub fn devices() -> Vec<Device> {
    paths().iter().map(|path| device(path)).collect()
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

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
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

fn device(path: &Path) -> Device {
    let links = links(path);
    let used_by = holders(path);
    let mut device = Device {
        path: path.into(),
        links,
        name: String::new(),
        driver: String::new(),
        bus: String::new(),
        kind: Kind::Other,
        formats: vec![],
        controls: vec![],
        used_by,
        error: None,
    };
    match Node::open(path) {
        Err(failure) => device.error = Some(failure.message),
        Ok(node) => {
            device.kind = kind(&node);
            if node.role() != Role::Other {
                device.formats = formats(&node);
                device.controls = controls::list(&node);
            }
            let capability = node.capability;
            device.name = capability.card;
            device.driver = capability.driver;
            device.bus = capability.bus_info;
        }
    }
    device
}

fn formats(node: &Node) -> Vec<Format> {
    let modes = |format: PixelFormat| {
        let sizes = node.sizes(format).into_iter();
        let mode = |size| {
            let (at, up_to) = match size {
                Size::Exactly(width, height) => ((width, height), None),
                Size::Between(least, greatest) => (least, Some(greatest)),
            };
            let framerates = node.framerates(format, at);
            Mode { width: at.0, height: at.1, up_to, framerates }
        };
        sizes.map(mode).collect()
    };
    let offered = node.formats(QueueDirection::Capture).into_iter();
    let format = |format: v4l2r::ioctl::FmtDesc| Format {
        fourcc: format.pixelformat.to_string(),
        sizes: modes(format.pixelformat),
        description: format.description,
    };
    offered.map(format).collect()
}

/// Programs other than this one that have a node open: those of this user, or all for root.
pub fn holders(path: &Path) -> Vec<Holder> {
    let Ok(device) = fs::metadata(path).map(|data| data.rdev()) else { return vec![] };
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found = vec![];
    for process in entries(Path::new("/proc")) {
        let Some(pid) = number(&process).filter(|pid| *pid != std::process::id()) else { continue };
        // Looking at the name first: opening a descriptor's link must not open the device.
        let open = entries(&process.join("fd")).any(|fd| {
            fs::read_link(&fd).is_ok_and(|to| to.starts_with("/dev"))
                && fs::metadata(&fd).is_ok_and(|data| data.rdev() == device)
        });
        if open {
            let program = fs::read_to_string(process.join("comm")).unwrap_or_default();
            found.push(Holder { pid, program: program.trim().into() });
        }
    }
    found
}

impl Device {
    /// The lines for the configuration, if it can be used.
    pub fn configuration(&self) -> Option<String> {
        if !matches!(self.kind, Kind::H264 | Kind::Raw) {
            return None;
        }
        let source = self.links.first().unwrap_or(&self.path).display().to_string();
        let wanted = self.formats.iter().find(|format| match self.kind {
            Kind::H264 => format.fourcc == "H264",
            _ => RAW.iter().any(|raw| format.fourcc.as_bytes() == *raw),
        })?;
        let mut lines = format!("[[camera]]\nsource = {source:?}\n");
        if let Some(mode) = best(&wanted.sizes) {
            lines += &format!("width = {}\nheight = {}\n", mode.width, mode.height);
            if let Some(rate) = framerate(&mode.framerates) {
                lines += &format!("framerate = {rate}\n");
            }
        }
        Some(lines)
    }
}

/// 1280x720 where it is listed, else the largest below, else the first.
fn best(sizes: &[Mode]) -> Option<&Mode> {
    let exact = sizes.iter().filter(|mode| mode.up_to.is_none());
    let below = exact.filter(|mode| mode.width <= 1280 && mode.height <= 720);
    below
        .max_by_key(|mode| mode.width * mode.height)
        .or_else(|| sizes.iter().find(|mode| mode.up_to.is_none()))
}

/// 30 where it is listed, else the highest below, else the lowest.
fn framerate(rates: &[f64]) -> Option<u32> {
    let whole = || rates.iter().map(|rate| rate.round() as u32).filter(|rate| *rate > 0);
    whole().filter(|rate| *rate <= 30).max().or_else(|| whole().min())
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(error) = &self.error {
            return writeln!(f, "\n  {error}");
        }
        writeln!(f, "  {} ({}, {})", self.name, self.driver, self.bus)?;
        let what = match self.kind {
            Kind::H264 => "H.264 camera",
            Kind::Raw => "camera without H.264: needs an encoder",
            Kind::Encoder => "H.264 encoder",
            Kind::Other => "not a camera by itself",
        };
        match &self.used_by[..] {
            [] => writeln!(f, "  {what}")?,
            used => {
                let who = used.iter().map(|by| format!("{} (process {})", by.program, by.pid));
                writeln!(f, "  {what}, open in {}", who.collect::<Vec<_>>().join(", "))?;
            }
        }
        for link in &self.links {
            writeln!(f, "  also {}", link.display())?;
        }
        if self.kind == Kind::Other {
            return Ok(());
        }
        for format in &self.formats {
            let modes = format.sizes.iter().map(Mode::to_string).collect::<Vec<_>>();
            writeln!(f, "  {}  {}", format.fourcc, modes.join(", "))?;
        }
        for control in &self.controls {
            match control.value {
                None => writeln!(f, "  has: {}", control.name)?,
                Some(value) => writeln!(
                    f,
                    "  {}: {value} ({} to {})",
                    control.name, control.minimum, control.maximum
                )?,
            }
        }
        if let Some(lines) = self.configuration() {
            writeln!(f, "  in berrymse.toml:")?;
            for line in lines.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)?;
        if let Some((width, height)) = self.up_to {
            write!(f, " to {width}x{height}")?;
        }
        if !self.framerates.is_empty() {
            let rates: Vec<String> = self
                .framerates
                .iter()
                .map(|rate| format!("{}", (rate * 100.0).round() / 100.0))
                .collect();
            write!(f, " ({})", rates.join(", "))?;
        }
        Ok(())
    }
}
