//! Errors that end a source.

use crate::camera::v4l2::holders::OpenBy;
use crate::h264;
use rustix::io::Errno;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

/// Maximum number of formats that [`SourceError::NoEncoder`] lists.
const MAX_LISTED_FORMATS: usize = 6;

/// Why a source ended.
#[derive(Debug)]
pub enum SourceError {
    /// The device node does not exist.
    NotFound(PathBuf),
    /// The device disappeared while it was open.
    Unplugged(PathBuf),
    /// Another program uses the device.
    Busy {
        /// The device node.
        device: PathBuf,
        /// The program, if this user may see it.
        used_by: Option<OpenBy>,
    },
    /// A system call on the device failed.
    Driver {
        /// The device node.
        device: PathBuf,
        /// What was tried, worded to follow "cannot".
        action: String,
        /// Error of the system call.
        error: Errno,
    },
    /// The device cannot be used with this configuration, or at all.
    Unusable {
        /// The device node.
        device: PathBuf,
        /// The reason, and what to do about it.
        reason: String,
    },
    /// The camera delivers only raw formats, and no encoder accepts them.
    NoEncoder {
        /// The camera's device node.
        device: PathBuf,
        /// Formats of the camera (FourCC).
        formats: Vec<String>,
        /// H.264 encoders on this machine.
        encoders: Vec<PathBuf>,
    },
    /// The transfer of frames from the camera failed.
    Transfer {
        /// The device node.
        device: PathBuf,
        /// What failed.
        reason: String,
    },
    /// The device delivered no picture within the timeout.
    Stalled {
        /// The device node.
        device: PathBuf,
        /// Time without a picture after which the device is considered stalled.
        timeout: Duration,
    },
    /// The program cannot be started.
    Start {
        /// The program.
        program: String,
        /// The cause.
        error: io::Error,
    },
    /// A pipe from the program cannot be read.
    Pipe {
        /// The program.
        program: String,
        /// Error of the system call.
        error: Errno,
    },
    /// The program ended, or wrote no picture in time.
    Command {
        /// The program.
        program: String,
        /// What the program did, worded to follow its name.
        reason: String,
    },
    /// rpicam-vid is not installed.
    NoRpicam,
    /// rpicam-vid contains no encoder for this machine.
    NoRpicamEncoder {
        /// The program.
        program: String,
    },
    /// rpicam-vid writes B-frames, and this version cannot be told not to.
    RpicamReorders,
    /// The stream cannot be played in a browser.
    Stream(h264::Error),
    /// The source ended without an error.
    Ended,
}

impl SourceError {
    /// Returns whether the device is absent. Frequent searches for an absent device are cheap.
    pub fn is_absent(&self) -> bool {
        matches!(self, SourceError::NotFound(_) | SourceError::Unplugged(_))
    }
}

impl From<h264::Error> for SourceError {
    fn from(error: h264::Error) -> SourceError {
        SourceError::Stream(error)
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SourceError::Driver { error, .. } | SourceError::Pipe { error, .. } => Some(error),
            SourceError::Start { error, .. } => Some(error),
            SourceError::Stream(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::NotFound(device) => write!(
                f,
                "{} does not exist: plug in the camera, or choose one that \"berrymse cameras\" \
                 lists",
                device.display()
            ),
            SourceError::Unplugged(device) => write!(
                f,
                "{} disappeared: the camera was unplugged or reset itself",
                device.display()
            ),
            SourceError::Busy { device, used_by } => {
                write!(f, "{} is busy (used by ", device.display())?;
                match used_by {
                    Some(OpenBy { pid, program }) => write!(f, "{program}, pid {pid}")?,
                    None => f.write_str("another program")?,
                }
                f.write_str("): stop that program or choose another device")
            }
            SourceError::Driver { device, action, error } => {
                let device = device.display();
                match *error {
                    Errno::ACCESS | Errno::PERM => write!(
                        f,
                        "{device}: permission denied: add this user to the video group (sudo \
                         usermod -aG video USER) and log in again"
                    ),
                    Errno::NOSPC => write!(
                        f,
                        "{device}: cannot {action}: not enough USB bandwidth: use another port, a \
                         smaller size or a lower frame rate"
                    ),
                    error => write!(f, "{device}: cannot {action}: {error}"),
                }
            }
            SourceError::Unusable { device, reason } => write!(f, "{}: {reason}", device.display()),
            SourceError::NoEncoder { device, formats, encoders } => {
                let device = device.display();
                let listed = &formats[..formats.len().min(MAX_LISTED_FORMATS)];
                let more = if formats.len() > listed.len() { ", …" } else { "" };
                write!(f, "{device} delivers {}{more}, but not H.264, and ", listed.join(", "))?;
                match &encoders[..] {
                    [] => f.write_str("this machine has no H.264 encoder")?,
                    paths => {
                        let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
                        write!(
                            f,
                            "no encoder ({}) accepts any of these formats",
                            paths.join(", ")
                        )?;
                    }
                }
                write!(
                    f,
                    ": to encode in software with ffmpeg, set source = {{ command = [\"ffmpeg\", \
                     \"-f\", \"v4l2\", \"-i\", \"{device}\", \"-c:v\", \"libx264\", \"-preset\", \
                     \"ultrafast\", \"-tune\", \"zerolatency\", \"-f\", \"h264\", \"-\"] }}"
                )
            }
            SourceError::Transfer { device, reason } => write!(
                f,
                "{}: {reason}: check the cable, the USB port and the power supply",
                device.display()
            ),
            SourceError::Stalled { device, timeout } => write!(
                f,
                "{}: no picture for {} s; reopening the camera",
                device.display(),
                timeout.as_secs()
            ),
            SourceError::Start { program, error } => {
                write!(f, "cannot start {program:?}: ")?;
                match error.kind() {
                    io::ErrorKind::NotFound => {
                        f.write_str("program not found: install it, or add its directory to PATH")
                    }
                    io::ErrorKind::IsADirectory => {
                        f.write_str("it is a directory: specify a program")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("permission denied: make it executable for this user")
                    }
                    _ => error.fmt(f),
                }
            }
            SourceError::Pipe { program, error } => {
                write!(f, "cannot read from {program:?}: {error}")
            }
            SourceError::Command { program, reason } => write!(f, "{program:?} {reason}"),
            SourceError::NoRpicam => f.write_str(
                "rpicam-vid is not installed: on Raspberry Pi OS, run sudo apt install rpicam-apps \
                 (rpicam-apps-lite is sufficient, except on a Pi 5)",
            ),
            SourceError::NoRpicamEncoder { program } => write!(
                f,
                "{program:?} cannot encode H.264: this machine has no H.264 encoder, and \
                 rpicam-apps-lite contains none either: install rpicam-apps, which encodes in \
                 software (on Raspberry Pi OS, run sudo apt install rpicam-apps)"
            ),
            SourceError::RpicamReorders => f.write_str(
                "rpicam-vid encodes in software and writes B-frames, which add delay; this version \
                 has no option to disable them: update rpicam-apps to version 1.6 or later",
            ),
            SourceError::Stream(error) => error.fmt(f),
            SourceError::Ended => f.write_str("the source ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    fn driver(error: Errno) -> SourceError {
        SourceError::Driver { device: "/dev/video0".into(), action: "open it".into(), error }
    }

    #[test]
    fn distinguishes_absent_devices_from_other_errors() {
        assert!(SourceError::NotFound("/dev/video0".into()).is_absent());
        assert!(SourceError::Unplugged("/dev/video0".into()).is_absent());
        assert!(!driver(Errno::IO).is_absent());
        assert!(!SourceError::Ended.is_absent());
    }

    #[test]
    fn names_the_remedy_and_keeps_the_cause() {
        let used_by = Some(OpenBy { pid: 812, program: "motion".into() });
        let busy = SourceError::Busy { device: "/dev/video0".into(), used_by };
        assert_eq!(
            busy.to_string(),
            "/dev/video0 is busy (used by motion, pid 812): stop that program or choose another \
             device"
        );
        let denied = driver(Errno::ACCESS);
        assert!(denied.to_string().contains("usermod -aG video"), "{denied}");
        assert!(driver(Errno::NOSPC).to_string().contains("USB bandwidth"));
        let failed = driver(Errno::IO);
        assert!(failed.to_string().starts_with("/dev/video0: cannot open it: "), "{failed}");
        assert_eq!(failed.source().unwrap().to_string(), Errno::IO.to_string());
    }

    #[test]
    fn lists_a_limited_number_of_formats() {
        let error = |formats: usize, encoders: &[&str]| {
            let formats = (0..formats).map(|n| format!("FMT{n}")).collect();
            let encoders = encoders.iter().map(PathBuf::from).collect();
            SourceError::NoEncoder { device: "/dev/video0".into(), formats, encoders }.to_string()
        };
        let few = error(2, &[]);
        assert!(few.starts_with("/dev/video0 delivers FMT0, FMT1, but not H.264"), "{few}");
        assert!(few.contains("this machine has no H.264 encoder"), "{few}");
        let many = error(7, &["/dev/video11"]);
        assert!(many.contains("FMT5, …, but") && !many.contains("FMT6"), "{many}");
        assert!(many.contains("no encoder (/dev/video11) accepts any of these formats"), "{many}");
    }
}
