//! Errors of operations on the machine.

use crate::config::ConfigError;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why an operation on the machine failed.
#[derive(Debug)]
pub enum SystemError {
    /// A file could not be written.
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A file could not be removed.
    Remove {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The kernel did not accept the host name.
    HostName(io::Error),
    /// The socket of the root helper could not be created.
    Listen {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The configuration to save is invalid, or contains a change that is not allowed.
    Config(ConfigError),
    /// The mounted boot partition is not the one that the next start uses.
    BootMoved,
    /// The root helper does not know this request.
    UnknownRequest(String),
    /// The machine could not be restarted.
    Reboot(io::Error),
    /// The host name could not be announced on the local network.
    Announce {
        /// The host name, without `.local`.
        host: String,
        /// The cause.
        error: mdns_sd::Error,
    },
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SystemError::Write { path, error } => {
                write!(f, "cannot write {}: {error}", path.display())
            }
            SystemError::Remove { path, error } => {
                write!(f, "cannot remove {}, which contains passwords: {error}", path.display())
            }
            SystemError::HostName(error) => write!(f, "cannot set the host name: {error}"),
            SystemError::Listen { socket, error } => {
                write!(f, "cannot create the socket {}: {error}", socket.display())
            }
            SystemError::Config(error) => error.fmt(f),
            SystemError::BootMoved => f.write_str(
                "the boot files have just been updated: restart the machine, then save again",
            ),
            SystemError::UnknownRequest(request) => write!(f, "unknown request {request:?}"),
            SystemError::Reboot(error) => write!(f, "cannot restart the machine: {error}"),
            SystemError::Announce { host, error } => {
                write!(f, "cannot announce {host}.local: {error}")
            }
        }
    }
}

impl std::error::Error for SystemError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SystemError::Write { error, .. }
            | SystemError::Remove { error, .. }
            | SystemError::HostName(error)
            | SystemError::Listen { error, .. }
            | SystemError::Reboot(error) => Some(error),
            SystemError::Config(error) => Some(error),
            SystemError::Announce { error, .. } => Some(error),
            SystemError::BootMoved | SystemError::UnknownRequest(_) => None,
        }
    }
}

impl From<ConfigError> for SystemError {
    fn from(error: ConfigError) -> SystemError {
        SystemError::Config(error)
    }
}
