//! V4L2 devices as `berrymse cameras` lists them.

use crate::camera::v4l2::controls;
use crate::camera::v4l2::controls::Control;
use crate::camera::v4l2::find::{Kind, RAW, kind, links, paths};
use crate::camera::v4l2::holders::{OpenBy, holders};
use crate::camera::v4l2::node::{Node, Role, Size};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use v4l2r::{PixelFormat, QueueDirection};

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
    pub used_by: Vec<OpenBy>,
    /// Why nothing more is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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

/// Every V4L2 node, in the order of their numbers.
pub fn devices() -> Vec<Device> {
    paths().iter().map(|path| device(path)).collect()
}

pub(crate) fn device(path: &Path) -> Device {
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

pub(crate) fn formats(node: &Node) -> Vec<Format> {
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
pub(crate) fn best(sizes: &[Mode]) -> Option<&Mode> {
    let exact = sizes.iter().filter(|mode| mode.up_to.is_none());
    let below = exact.filter(|mode| mode.width <= 1280 && mode.height <= 720);
    below
        .max_by_key(|mode| mode.width * mode.height)
        .or_else(|| sizes.iter().find(|mode| mode.up_to.is_none()))
}

/// 30 where it is listed, else the highest below, else the lowest.
pub(crate) fn framerate(rates: &[f64]) -> Option<u32> {
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
