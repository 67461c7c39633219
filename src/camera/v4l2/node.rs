//! An open V4L2 device node: its capabilities, its formats and its errors.
//!
//! Linux Media Infrastructure userspace API, part "Video for Linux API". v4l2r makes the system
//! calls.

use crate::camera::error::SourceError;
use crate::camera::v4l2::holders::holders;
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

/// H.264 in Annex B format, with one access unit per buffer.
pub const H264: PixelFormat = PixelFormat::from_fourcc(b"H264");

/// An open device node.
#[derive(Debug)]
pub struct Node {
    /// Path of the node.
    pub path: PathBuf,
    /// The file, open in non-blocking mode.
    pub file: File,
    /// Capabilities of the device (VIDIOC_QUERYCAP).
    pub capability: Capability,
}

/// The role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Delivers pictures.
    Capture,
    /// Converts pictures: an encoder, decoder or scaler.
    MemoryToMemory,
    /// Anything else: metadata, radio, a display, or one part of a media pipeline.
    Other,
}

/// A size, or a range of sizes, in pixels: width and height.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Size {
    /// One size.
    Discrete(u32, u32),
    /// All sizes from the first to the second.
    Range((u32, u32), (u32, u32)),
}

impl Node {
    /// Opens `path`.
    ///
    /// # Errors
    ///
    /// The device does not exist, cannot be opened by this user, or is not a V4L2 device.
    pub fn open(path: &Path) -> Result<Node, SourceError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        // Reading from a camera that delivers nothing must not block.
        options.custom_flags((OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32);
        let failed = |errno| explain(path, "open the device", errno);
        let file = options
            .open(path)
            .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let capability =
            ioctl::querycap(&file).map_err(|error| {
                match Errno::from_raw_os_error(error.into_errno()) {
                    Errno::NOTTY | Errno::INVAL => SourceError::Unusable {
                        device: path.into(),
                        reason: "not a V4L2 device".into(),
                    },
                    errno => failed(errno),
                }
            })?;
        Ok(Node { path: path.into(), file, capability })
    }

    /// Converts an error from v4l2r. `action` says what was tried, worded to follow "cannot".
    pub fn error(&self, action: &str, error: impl IntoErrno) -> SourceError {
        self.errno(action, Errno::from_raw_os_error(error.into_errno()))
    }

    /// Converts an error from a system call. `action` says what was tried, worded to follow
    /// "cannot".
    pub fn errno(&self, action: &str, errno: Errno) -> SourceError {
        explain(&self.path, action, errno)
    }

    /// Returns the role of the node.
    pub fn role(&self) -> Role {
        let caps = self.capability.device_caps();
        let m2m = Capabilities::VIDEO_M2M | Capabilities::VIDEO_M2M_MPLANE;
        let capture = Capabilities::VIDEO_CAPTURE | Capabilities::VIDEO_CAPTURE_MPLANE;
        // A node of a media controller pipeline (V4L2_CAP_IO_MC, which v4l2r does not define)
        // delivers frames only after libcamera has configured it. The same is true of the Raspberry
        // Pi's camera receivers and image processors, some of which do not set the flag.
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

    /// Returns the queue for a direction: the multi-planar one if the device supports it.
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

    /// Lists the formats of a queue.
    pub fn formats(&self, direction: QueueDirection) -> Vec<FmtDesc> {
        FormatIterator::new(&self.file, self.queue(direction)).take(256).collect()
    }

    /// Returns whether a queue supports a format.
    pub fn has(&self, direction: QueueDirection, format: PixelFormat) -> bool {
        self.formats(direction).iter().any(|offered| offered.pixelformat == format)
    }

    /// Lists the sizes of a format, in the driver's order.
    pub fn sizes(&self, format: PixelFormat) -> Vec<Size> {
        let size = |index| {
            let found: v4l2_frmsizeenum =
                ioctl::enum_frame_sizes(&self.file, index, format).ok()?;
            Some(match found.size()? {
                FrmSizeTypes::Discrete(size) => Size::Discrete(size.width, size.height),
                FrmSizeTypes::StepWise(size) => Size::Range(
                    (size.min_width, size.min_height),
                    (size.max_width, size.max_height),
                ),
            })
        };
        (0..256).map_while(size).collect()
    }

    /// Lists the frame rates of a format and size, in frames per second, in the driver's order.
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

    /// Sets the format of a queue. Returns the format that the driver uses.
    ///
    /// # Errors
    ///
    /// The driver rejects the format, or the device is busy or unplugged.
    pub fn set_format(
        &mut self,
        direction: QueueDirection,
        format: &Format,
    ) -> Result<Format, SourceError> {
        let queue = self.queue(direction);
        ioctl::s_fmt(&mut self.file, (queue, format))
            .map_err(|error| self.error(&format!("set the format {}", format.pixelformat), error))
    }

    /// Sets the frame rate, in frames per second. Returns the frame rate that the driver uses, or
    /// `None` if it cannot be set.
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
        let request = v4l2_streamparm { type_: self.queue(direction) as u32, parm };
        let reply: v4l2_streamparm = ioctl::s_parm(&self.file, request).ok()?;
        // SAFETY: every bit pattern is a valid capture parameter, because all fields are integers.
        // The driver fills in the member for the type of the queue; timeperframe has the same
        // offset in the members for capture and output.
        #[allow(unsafe_code)]
        let got = unsafe { reply.parm.capture.timeperframe };
        let rate = f64::from(got.denominator) / f64::from(got.numerator);
        rate.is_finite().then_some(rate).filter(|rate| *rate > 0.0)
    }
}

/// Converts an error from a system call on the device at `path`.
fn explain(path: &Path, action: &str, error: Errno) -> SourceError {
    let device = path.to_path_buf();
    match error {
        Errno::NOENT => SourceError::NotFound(device),
        Errno::NODEV | Errno::NXIO => SourceError::Unplugged(device),
        Errno::BUSY => SourceError::Busy { used_by: holders(path).into_iter().next(), device },
        error => SourceError::Driver { device, action: action.into(), error },
    }
}
