//! The list of V4L2 devices that `berrymse cameras` prints.

use crate::camera::v4l2::controls;
use crate::camera::v4l2::controls::Control;
use crate::camera::v4l2::find::{Kind, RAW_FORMATS, kind, links, paths};
use crate::camera::v4l2::holders::{OpenBy, holders};
use crate::camera::v4l2::node::{Node, Role, Size};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use v4l2r::{PixelFormat, QueueDirection};

/// A V4L2 device, as `berrymse cameras` lists it.
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    /// Device node, such as `/dev/video0`.
    pub path: PathBuf,
    /// Persistent names of the node (udev links).
    pub links: Vec<PathBuf>,
    /// Name of the device.
    pub name: String,
    /// Kernel driver.
    pub driver: String,
    /// Bus address.
    pub bus: String,
    /// Kind of device.
    pub kind: Kind,
    /// Formats that the device delivers.
    pub formats: Vec<Format>,
    /// Relevant controls.
    pub controls: Vec<Control>,
    /// Programs that have the device open, if this user may see them.
    pub used_by: Vec<OpenBy>,
    /// Why the device could not be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A format that a device delivers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Format {
    /// FourCC of the format.
    pub fourcc: String,
    /// The driver's description.
    pub description: String,
    /// Sizes and frame rates.
    pub sizes: Vec<Mode>,
}

/// A size with its frame rates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mode {
    /// Width, in pixels.
    pub width: u32,
    /// Height, in pixels.
    pub height: u32,
    /// Maximum width and height, in pixels, if the size is variable; in this case, `width` and
    /// `height` are the minimum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to: Option<(u32, u32)>,
    /// Frame rates, in frames per second.
    pub framerates: Vec<f64>,
}

/// Lists all V4L2 devices, sorted by number.
pub fn devices() -> Vec<Device> {
    paths().iter().map(|path| device(path)).collect()
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
        Err(error) => device.error = Some(error.to_string()),
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
            let (size, up_to) = match size {
                Size::Discrete(width, height) => ((width, height), None),
                Size::Range(min, max) => (min, Some(max)),
            };
            let framerates = node.framerates(format, size);
            Mode { width: size.0, height: size.1, up_to, framerates }
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

impl Device {
    /// Returns the lines to copy into the configuration, or `None` if the device is not a usable
    /// camera.
    pub fn configuration(&self) -> Option<String> {
        if !matches!(self.kind, Kind::H264 | Kind::Raw) {
            return None;
        }
        let source = self.links.first().unwrap_or(&self.path).display().to_string();
        let wanted = self.formats.iter().find(|format| match self.kind {
            Kind::H264 => format.fourcc == "H264",
            _ => RAW_FORMATS.iter().any(|raw| format.fourcc.as_bytes() == *raw),
        })?;
        let mut lines = format!("[[camera]]\nsource = {source:?}\n");
        if let Some(mode) = best_size(&wanted.sizes) {
            lines += &format!("width = {}\nheight = {}\n", mode.width, mode.height);
            if let Some(rate) = best_framerate(&mode.framerates) {
                lines += &format!("framerate = {rate}\n");
            }
        }
        Some(lines)
    }
}

/// Selects 1280x720 if available, otherwise the largest smaller size, otherwise the first size.
fn best_size(sizes: &[Mode]) -> Option<&Mode> {
    let exact = sizes.iter().filter(|mode| mode.up_to.is_none());
    let below = exact.filter(|mode| mode.width <= 1280 && mode.height <= 720);
    below
        .max_by_key(|mode| mode.width * mode.height)
        .or_else(|| sizes.iter().find(|mode| mode.up_to.is_none()))
}

/// Selects 30 frames per second if available, otherwise the next lower frame rate, otherwise the
/// lowest frame rate.
fn best_framerate(rates: &[f64]) -> Option<u32> {
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
            Kind::Other => "not a camera",
        };
        match &self.used_by[..] {
            [] => writeln!(f, "  {what}")?,
            used => {
                let programs = used.iter().map(|by| format!("{}, pid {}", by.program, by.pid));
                let programs = programs.collect::<Vec<_>>().join("; ");
                writeln!(f, "  {what} (used by {programs})")?;
            }
        }
        for link in &self.links {
            writeln!(f, "  link: {}", link.display())?;
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
                None => writeln!(f, "  {}: supported", control.name)?,
                Some(value) => writeln!(
                    f,
                    "  {}: {value} ({} to {})",
                    control.name, control.minimum, control.maximum
                )?,
            }
        }
        if let Some(lines) = self.configuration() {
            writeln!(f, "  configuration:")?;
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
