//! The state of updates, as `GET /api/update` reports it.

use crate::system::boot_files;
use crate::system::camera_record::RecordedCamera;
use crate::update::rauc::Slot;
use serde::Serialize;
use std::path::Path;

/// An announced version that is newer than the running one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Version.
    pub version: String,
    /// URL of the bundle.
    pub url: String,
}

/// The state of an update.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// No update is in progress.
    #[default]
    Idle,
    /// A bundle is being uploaded.
    Receiving,
    /// RAUC is inspecting the bundle.
    Checking,
    /// RAUC is installing the bundle.
    Installing,
    /// The new system will run after a restart.
    Installed,
    /// The update failed.
    Failed,
}

impl Phase {
    /// Whether an update is in progress.
    pub(crate) fn is_busy(self) -> bool {
        matches!(self, Phase::Receiving | Phase::Checking | Phase::Installing)
    }
}

/// A new system that failed its health check, after which the machine booted the old one again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FellBack {
    /// Version of the new system.
    pub version: Option<String>,
    /// Why it failed.
    pub why: String,
    /// Cameras that delivered video before the update, and were missing in the new system.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cameras: Vec<String>,
}

/// The state of updates, for `GET /api/update`.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Whether this machine can be updated.
    pub available: bool,
    /// Why this machine cannot be updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Version of the running system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Type of this device, which bundles must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compatible: Option<String>,
    /// State of the current or last update.
    pub state: Phase,
    /// Progress of the upload or installation, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<i32>,
    /// Current step of the installation, as RAUC describes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Version of the current or last update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installing: Option<String>,
    /// Why the update failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// RAUC's own error message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The systems that the machine can boot.
    pub slots: Vec<Slot>,
    /// The last update, if it failed its health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fell_back: Option<FellBack>,
    /// Which boot files are in use, if this machine can update them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_files: Option<boot_files::Report>,
    /// Whether this system is new, and must show the cameras of the old system to stay.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trial: bool,
    /// Cameras that delivered video before the update, and do not now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_cameras: Vec<RecordedCamera>,
    /// A newer version, if one was announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// Why the last check for a newer version failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_error: Option<String>,
}

/// Returns the version of the running system.
pub(crate) fn running(slots: &[Slot]) -> String {
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    image_version(&os_release)
        .or_else(|| slots.iter().find(|slot| slot.booted)?.version.clone())
        .unwrap_or_else(|| env!("CARGO_PKG_VERSION").into())
}

/// Returns the version in a file such as `/etc/os-release` (os-release(5): `IMAGE_VERSION="1.2.3"`).
pub(crate) fn image_version(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    let value = value.trim().trim_matches(['"', '\'']);
    Some(value.to_string()).filter(|value| !value.is_empty())
}

/// Returns the system that is newer than the running one and marked bad, if there is one.
/// `reason` is the file with the last error of its health check.
pub(crate) fn fell_back(slots: &[Slot], reason: &Path) -> Option<FellBack> {
    let booted = slots.iter().find(|slot| slot.booted)?;
    let newer =
        |slot: &&Slot| !slot.booted && slot.state == "bad" && slot.installed > booted.installed;
    let bad = slots.iter().find(newer)?;
    let reason = std::fs::read_to_string(reason).unwrap_or_default();
    let reason = match reason.trim() {
        "" => "it did not start, or its cameras delivered no video in time",
        reason => reason,
    };
    Some(FellBack { version: bad.version.clone(), why: reason.into(), cameras: vec![] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(bootname: &str, booted: bool, state: &str, installed: Option<&str>) -> Slot {
        Slot {
            name: format!("rootfs.{bootname}"),
            bootname: bootname.into(),
            booted,
            primary: booted,
            state: state.into(),
            version: Some("2.0".into()),
            installed: installed.map(String::from),
        }
    }

    #[test]
    fn reports_only_newer_systems_that_failed() {
        let reason = Path::new("/nonexistent");
        let (old, new) = (Some("2026-01-01T00:00:00Z"), Some("2026-02-01T00:00:00Z"));
        let fell = |a, b| fell_back(&[a, b], reason).is_some();
        assert!(fell(slot("A", true, "good", old), slot("B", false, "bad", new)));
        assert!(fell(slot("A", true, "good", None), slot("B", false, "bad", new)));
        // Installed, but not booted yet.
        assert!(!fell(slot("A", true, "good", old), slot("B", false, "good", new)));
        // There has never been a second system.
        assert!(!fell(slot("A", true, "good", None), slot("B", false, "bad", None)));
        // The old system failed later.
        assert!(!fell(slot("A", false, "bad", old), slot("B", true, "good", new)));
    }

    #[test]
    fn reads_the_version_of_the_image() {
        let version = |text| image_version(text);
        assert_eq!(version("NAME=x\nIMAGE_VERSION=\"1.2\"\n").as_deref(), Some("1.2"));
        assert_eq!(version("NAME=x\nVERSION=1\nIMAGE_VERSION=\n"), None);
    }
}
