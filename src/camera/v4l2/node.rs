//! A V4L2 device node: opening it, asking it, and what its errors mean.
//!
//! Linux Media Infrastructure userspace API, part "Video for Linux API". v4l2r makes the system
//! calls; what they answer is said here in words that help whoever has to mend it.

use crate::camera::source::Failure;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use v4l2r::bindings::{
    v4l2_captureparm, v4l2_fract, v4l2_frmivalenum, v4l2_frmsizeenum, v4l2_outputparm,
    v4l2_streamparm, v4l2_streamparm__bindgen_ty_1,
};
use v4l2r::ioctl::{
    Capabilities, Capability, FmtDesc, FormatIterator, FrmIvalTypes, FrmSizeTypes, IntoErrno,
};
use v4l2r::{Format, PixelFormat, QueueDirection, QueueType, ioctl};

/// H.264 with start codes, an access unit a buffer.
pub const H264: PixelFormat = PixelFormat::from_fourcc(b"H264");

/// An open device node.
#[derive(Debug)]
pub struct Node {
    /// Where it stands.
    pub path: PathBuf,
    /// Open, non-blocking.
    pub file: File,
    /// What it says of itself.
    pub capability: Capability,
}

/// What a node is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Pictures come out.
    Capture,
    /// Pictures go in and come out otherwise: encoders, decoders, scalers.
    MemoryToMemory,
    /// Metadata, radio, displays, one part of several.
    Other,
}

/// Sizes that a format is delivered in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Size {
    /// This one.
    Exactly(u32, u32),
    /// Anything from the first to the second.
    Between((u32, u32), (u32, u32)),
}

impl Node {
    /// Opens `path`.
    pub fn open(path: &Path) -> Result<Node, Failure> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        // O_NONBLOCK: a camera that delivers nothing must not hold up whoever wants to stop.
        options.custom_flags((OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32);
        let failure = |errno| explain(path, "it cannot be opened", errno);
        let file = options
            .open(path)
            .map_err(|error| failure(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let capability =
            ioctl::querycap(&file).map_err(|error| {
                match Errno::from_raw_os_error(error.into_errno()) {
                    Errno::NOTTY | Errno::INVAL => {
                        Failure::from(format!("{} is not a V4L2 device", path.display()))
                    }
                    errno => failure(errno),
                }
            })?;
        Ok(Node { path: path.into(), file, capability })
    }

    /// An error of a system call on this node, in words.
    pub fn failure(&self, doing: &str, error: impl IntoErrno) -> Failure {
        self.failed(doing, Errno::from_raw_os_error(error.into_errno()))
    }

    /// The same, for an error's number.
    pub fn failed(&self, doing: &str, errno: Errno) -> Failure {
        explain(&self.path, doing, errno)
    }

    /// What it is good for.
    pub fn role(&self) -> Role {
        let caps = self.capability.device_caps();
        let m2m = Capabilities::VIDEO_M2M | Capabilities::VIDEO_M2M_MPLANE;
        let capture = Capabilities::VIDEO_CAPTURE | Capabilities::VIDEO_CAPTURE_MPLANE;
        // A node of a pipeline that the media controller puts together (V4L2_CAP_IO_MC, which
        // v4l2r does not name) delivers nothing by itself: libcamera's business. So are the parts
        // of the Pi's image processor, which do not say so.
        let part = caps.bits() & v4l2r::bindings::V4L2_CAP_IO_MC != 0
            || ["bcm2835-isp", "bm2835_isp", "unicam", "rp1-cfe", "pispbe"]
                .contains(&self.capability.driver.as_str());
        match () {
            () if !caps.contains(Capabilities::STREAMING) => Role::Other,
            () if caps.intersects(m2m) => Role::MemoryToMemory,
            () if caps.intersects(capture) && !part => Role::Capture,
            () => Role::Other,
        }
    }

    /// Its queue for this direction: multi-planar where there is no other.
    pub fn queue(&self, direction: QueueDirection) -> QueueType {
        let caps = self.capability.device_caps();
        let multi = match direction {
            QueueDirection::Capture => Capabilities::VIDEO_CAPTURE_MPLANE,
            QueueDirection::Output => Capabilities::VIDEO_OUTPUT_MPLANE,
        };
        let class = match caps.intersects(multi | Capabilities::VIDEO_M2M_MPLANE) {
            true => v4l2r::QueueClass::VideoMplane,
            false => v4l2r::QueueClass::Video,
        };
        QueueType::from_dir_and_class(direction, class)
    }

    /// The formats of a queue.
    pub fn formats(&self, direction: QueueDirection) -> Vec<FmtDesc> {
        FormatIterator::new(&self.file, self.queue(direction)).take(256).collect()
    }

    /// Whether a queue has this format.
    pub fn has(&self, direction: QueueDirection, format: PixelFormat) -> bool {
        self.formats(direction).iter().any(|offered| offered.pixelformat == format)
    }

    /// The sizes of a format, as the driver lists them.
    pub fn sizes(&self, format: PixelFormat) -> Vec<Size> {
        let size = |index| {
            let found: v4l2_frmsizeenum =
                ioctl::enum_frame_sizes(&self.file, index, format).ok()?;
            Some(match found.size()? {
                FrmSizeTypes::Discrete(size) => Size::Exactly(size.width, size.height),
                FrmSizeTypes::StepWise(size) => Size::Between(
                    (size.min_width, size.min_height),
                    (size.max_width, size.max_height),
                ),
            })
        };
        (0..256).map_while(size).collect()
    }

    /// The frame rates of a format and a size, frames a second, as the driver lists them.
    pub fn framerates(&self, format: PixelFormat, (width, height): (u32, u32)) -> Vec<f64> {
        let rate = |fract: &v4l2_fract| f64::from(fract.denominator) / f64::from(fract.numerator);
        let mut rates = vec![];
        for index in 0..256 {
            let found: Result<v4l2_frmivalenum, _> =
                ioctl::enum_frame_intervals(&self.file, index, format, width, height);
            let Ok(found) = found else { break };
            match found.intervals() {
                Some(FrmIvalTypes::Discrete(step)) => rates.push(rate(step)),
                Some(FrmIvalTypes::StepWise(steps)) => {
                    rates.extend([rate(&steps.max), rate(&steps.min)]);
                }
                None => {}
            }
        }
        rates.retain(|rate| rate.is_finite());
        rates
    }

    /// Sets a queue's format and returns what the driver made of it.
    pub fn set_format(
        &mut self,
        direction: QueueDirection,
        format: &Format,
    ) -> Result<Format, Failure> {
        let queue = self.queue(direction);
        ioctl::s_fmt(&mut self.file, (queue, format)).map_err(|error| {
            self.failure(&format!("it does not take the format {}", format.pixelformat), error)
        })
    }

    /// Sets the frame rate, frames a second, and returns what the driver made of it; `None` where
    /// it has none to set.
    pub fn set_framerate(&self, direction: QueueDirection, framerate: u32) -> Option<f64> {
        let timeperframe = v4l2_fract { numerator: 1, denominator: framerate };
        let parm = match direction {
            QueueDirection::Capture => v4l2_streamparm__bindgen_ty_1 {
                capture: v4l2_captureparm { timeperframe, ..Default::default() },
            },
            QueueDirection::Output => v4l2_streamparm__bindgen_ty_1 {
                output: v4l2_outputparm { timeperframe, ..Default::default() },
            },
        };
        let asked = v4l2_streamparm { type_: self.queue(direction) as u32, parm };
        let answer: v4l2_streamparm = ioctl::s_parm(&self.file, asked).ok()?;
        // SAFETY: every bit pattern is a capture parameter (integers only), and the driver fills in
        // the member that belongs to the type of the queue; those for capture and output have
        // timeperframe at the same place.
        #[allow(unsafe_code)]
        let got = unsafe { answer.parm.capture.timeperframe };
        let rate = f64::from(got.denominator) / f64::from(got.numerator);
        rate.is_finite().then_some(rate).filter(|rate| *rate > 0.0)
    }
}

/// An error in words, with what can be done about it.
fn explain(path: &Path, doing: &str, errno: Errno) -> Failure {
    let name = path.display();
    match errno {
        Errno::NOENT => Failure::gone(format!(
            "there is no {name}: is the camera plugged in? \"berrymse cameras\" lists what there is"
        )),
        Errno::NODEV | Errno::NXIO => {
            Failure::gone(format!("{name} is gone: the camera was unplugged, or has reset itself"))
        }
        Errno::ACCESS | Errno::PERM => Failure::from(format!(
            "{name} may not be opened by this user: sudo usermod -aG video USER, then log in again"
        )),
        Errno::BUSY => {
            let who = crate::camera::v4l2::holders::holders(path);
            let who = match who.first() {
                Some(holder) => format!("{} (process {}) uses it", holder.program, holder.pid),
                None => "another program uses it".into(),
            };
            Failure::from(format!("{name} is busy: {who}; end that, and the picture comes"))
        }
        Errno::NOSPC => Failure::from(format!(
            "{name}: {doing}: the USB bus has no room left for it; use another port, a smaller \
             size or a lower frame rate"
        )),
        errno => Failure::from(format!("{name}: {doing}: {errno}")),
    }
}
