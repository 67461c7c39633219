//! Update errors.

use crate::fetch::FetchError;
use crate::update::rauc;
use std::error::Error;
use std::fmt;

/// Why an update is impossible, or why it failed.
#[derive(Debug)]
pub enum UpdateError {
    /// This machine has no system bus.
    NoBus(Box<zbus::Error>),
    /// RAUC is not running on this machine.
    NoRauc,
    /// RAUC has exited. Init restarts it.
    RaucRestarting,
    /// RAUC did not reply in time.
    RaucTimeout,
    /// RAUC exited during an installation. It maps bundles into memory, so reading a damaged block
    /// terminates the process.
    RaucCrashed,
    /// RAUC rejected a query.
    Query(Box<zbus::Error>),
    /// RAUC rejected the bundle, or could not install it.
    Rauc {
        /// RAUC's own message.
        detail: String,
        /// The D-Bus error, if there was one.
        error: Option<Box<zbus::Error>>,
    },
    /// The bundle is for another type of device.
    WrongDevice {
        /// The type of device that the bundle is for.
        bundle: String,
        /// The type of this machine.
        machine: String,
    },
    /// The bundle has no version.
    NoVersion,
    /// The bundle is older than the running system.
    Older {
        /// Version of the bundle.
        version: String,
        /// Version of the running system.
        running: String,
    },
    /// The upload failed. Contains the complete message.
    Upload(String),
    /// The upload ended before it was complete.
    UploadEnded,
    /// The announcement could not be fetched.
    Fetch(FetchError),
    /// The announcement is not valid JSON, or a field is missing.
    Announcement {
        /// URL of the announcement.
        url: String,
        /// The cause.
        error: serde_json::Error,
    },
    /// The announcement names a bundle whose URL is neither http nor https.
    AnnouncedUrl {
        /// URL of the announcement.
        url: String,
        /// The URL of the bundle.
        bundle: String,
    },
}

impl UpdateError {
    /// Creates the error for a missing system bus.
    pub(super) fn no_bus(error: zbus::Error) -> UpdateError {
        UpdateError::NoBus(error.into())
    }

    /// Creates the error for a failed call during an installation.
    pub(super) fn from_call(error: zbus::Error) -> UpdateError {
        match error {
            error if rauc::is_absent(&error) => UpdateError::NoRauc,
            error if rauc::has_exited(&error) => UpdateError::RaucCrashed,
            error => UpdateError::Rauc { detail: rauc::message(&error), error: Some(error.into()) },
        }
    }

    /// Creates the error for a failed query of the state.
    pub(super) fn from_query(error: zbus::Error) -> UpdateError {
        match rauc::is_absent(&error) {
            true => UpdateError::NoRauc,
            false => UpdateError::Query(error.into()),
        }
    }

    /// Returns RAUC's own message, if the error comes from RAUC.
    pub fn detail(&self) -> Option<&str> {
        match self {
            UpdateError::Rauc { detail, .. } => Some(detail),
            _ => None,
        }
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpdateError::NoBus(error) => {
                write!(f, "cannot connect to RAUC: this machine has no D-Bus: {error}")
            }
            UpdateError::NoRauc => f.write_str(
                "RAUC is not running on this machine: only the appliance can be updated",
            ),
            UpdateError::RaucRestarting => f.write_str(
                "RAUC, which installs the updates, has stopped: it will be restarted shortly",
            ),
            UpdateError::RaucTimeout => f.write_str("RAUC does not respond"),
            UpdateError::RaucCrashed => f.write_str(
                "RAUC stopped in the middle of the update, which can happen if the update is \
                 damaged: the running system is unchanged; download the update again",
            ),
            UpdateError::Query(error) => f.write_str(&rauc::message(error)),
            UpdateError::Rauc { detail, .. } => f.write_str(rauc::explain(detail)),
            UpdateError::WrongDevice { bundle, machine } => write!(
                f,
                "the update is for another device: it is for {bundle:?}, but this machine is \
                 {machine:?}"
            ),
            UpdateError::NoVersion => f.write_str(
                "the update has no version: it is installed only if downgrades are allowed",
            ),
            UpdateError::Older { version, running } => write!(
                f,
                "the update has version {version}, which is older than the running {running}: it \
                 is installed only if downgrades are allowed"
            ),
            UpdateError::Upload(message) => f.write_str(message),
            UpdateError::UploadEnded => f.write_str("the upload ended early: try again"),
            UpdateError::Fetch(error) => error.fmt(f),
            UpdateError::Announcement { url, error } => {
                write!(f, "{url} is not a valid update announcement: {error}")
            }
            UpdateError::AnnouncedUrl { url, bundle } => write!(
                f,
                "{url} names {bundle:?}, which is not a web address: it must start with https:// \
                 or http://"
            ),
        }
    }
}

impl Error for UpdateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            UpdateError::NoBus(error) | UpdateError::Query(error) => Some(&**error),
            UpdateError::Rauc { error: Some(error), .. } => Some(&**error),
            UpdateError::Fetch(error) => Some(error),
            UpdateError::Announcement { error, .. } => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn treats_a_missing_reply_as_a_rauc_crash() {
        let message = "Message recipient disconnected from message bus without replying";
        let error = zbus::Error::FDO(Box::new(zbus::fdo::Error::NoReply(message.into())));
        assert!(matches!(UpdateError::from_call(error), UpdateError::RaucCrashed));
    }

    #[test]
    fn explains_rauc_errors_and_keeps_their_text() {
        let failed = || zbus::Error::FDO(Box::new(zbus::fdo::Error::Failed("disk full".into())));
        let error = UpdateError::from_call(failed());
        assert!(error.to_string().contains("update failed"), "{error}");
        assert!(error.detail().unwrap().contains("disk full"));
        assert!(error.source().unwrap().to_string().contains("disk full"));
        let error = UpdateError::from_query(failed());
        assert!(error.to_string().contains("disk full"), "{error}");
        assert_eq!(error.detail(), None);
    }
}
