//! Errors in updating the boot files.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why the boot files were not updated. The boot partition in use is unchanged.
#[derive(Debug)]
pub enum BootFilesError {
    /// The release's description of the card is invalid.
    Layout(&'static str),
    /// The card's partition table differs from the layout.
    Partitions(&'static str),
    /// The release's boot files cannot be read.
    Set {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A boot file of the release is not the one that was built.
    Damaged(String),
    /// The boot partition cannot be read. Holds the reason.
    Fat(&'static str),
    /// The file system check found errors in the boot partition.
    Check(String),
    /// The user's files use a part of the boot partition that the new boot files need.
    InUse,
    /// The files do not fit.
    Full {
        /// Size of all files, in bytes.
        needed: u64,
        /// Size of a half, in bytes.
        available: u64,
    },
    /// A file has a name that FAT cannot store.
    Name(String),
    /// The files on the boot partition changed during the update.
    Changed,
    /// The card could not be read or written.
    Card {
        /// What was being done.
        action: &'static str,
        /// The cause.
        error: io::Error,
    },
    /// The state on the data partition could not be read or written.
    State(io::Error),
    /// The lock on the boot partition could not be created.
    Lock(io::Error),
    /// The boot state could not be written.
    Variables(io::Error),
}

impl fmt::Display for BootFilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootFilesError::Layout(why) => {
                write!(f, "the layout of this release is invalid: {why}")
            }
            BootFilesError::Partitions(why) => {
                write!(f, "this card has another partition table than the image: {why}")
            }
            BootFilesError::Set { path, error } => {
                write!(f, "cannot read {}: {error}", path.display())
            }
            BootFilesError::Damaged(name) => {
                write!(f, "the boot file {name} of this release is damaged: install it again")
            }
            BootFilesError::Fat(why) => write!(f, "cannot read the boot partition: {why}"),
            BootFilesError::Check(output) => write!(
                f,
                "the boot partition is damaged: restart the machine, or repair it on a computer \
                 ({output})"
            ),
            BootFilesError::InUse => f.write_str(
                "your files on the boot partition take up too much space: keep at most 24 MB \
                 there, then restart the machine",
            ),
            BootFilesError::Full { needed, available } => write!(
                f,
                "the boot files and your own files do not fit together: they need {} MB of {} MB. \
                 Remove files from the boot partition, then restart the machine",
                needed.div_ceil(1_000_000),
                available / 1_000_000
            ),
            BootFilesError::Name(name) => {
                write!(f, "the boot partition contains a file with an invalid name: {name:?}")
            }
            BootFilesError::Changed => f.write_str(
                "the files on the boot partition changed while they were copied: restart the \
                 machine to try again",
            ),
            BootFilesError::Card { action, error } => write!(f, "cannot {action}: {error}"),
            BootFilesError::State(error) => {
                write!(f, "cannot record the switch on the data partition: {error}")
            }
            BootFilesError::Lock(error) => write!(f, "cannot lock the boot partition: {error}"),
            BootFilesError::Variables(error) => write!(f, "cannot write the boot state: {error}"),
        }
    }
}

impl std::error::Error for BootFilesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BootFilesError::Set { error, .. }
            | BootFilesError::Card { error, .. }
            | BootFilesError::State(error)
            | BootFilesError::Lock(error)
            | BootFilesError::Variables(error) => Some(error),
            _ => None,
        }
    }
}
