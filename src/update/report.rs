//! The state of updates, as `GET /api/update` reports it.

use crate::update::rauc::Slot;
use serde::Serialize;
use std::path::Path;

/// A newer version that was announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Its version.
    pub version: String,
    /// The bundle.
    pub url: String,
}

/// What is being done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// A bundle is being uploaded.
    Receiving,
    /// RAUC looks into it.
    Checking,
    /// RAUC writes it.
    Installing,
    /// It will run after a restart.
    Installed,
    /// It went wrong.
    Failed,
}

/// The new system did not prove itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FellBack {
    /// Its version.
    pub version: Option<String>,
    /// What is known of it.
    pub why: String,
}

/// All there is to say, for `GET /api/update`.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// This machine can be updated.
    pub available: bool,
    /// Why it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The running system's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The kind of device that bundles must be for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compatible: Option<String>,
    /// What is being done.
    pub state: Phase,
    /// How far that is, per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<i32>,
    /// RAUC's word for where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The version that is being installed or has been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installing: Option<String>,
    /// What went wrong, in plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As RAUC says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The systems that there are.
    pub slots: Vec<Slot>,
    /// The last update did not prove itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fell_back: Option<FellBack>,
    /// A newer version is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// Why that could not be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_error: Option<String>,
}

/// The version of the system that runs.
pub(crate) fn running(slots: &[Slot]) -> String {
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    image_version(&os_release)
        .or_else(|| slots.iter().find(|slot| slot.booted)?.version.clone())
        .unwrap_or_else(|| env!("CARGO_PKG_VERSION").into())
}

/// os-release(5): `IMAGE_VERSION="1.2.3"`.
pub(crate) fn image_version(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    let value = value.trim().trim_matches(['"', '\'']);
    Some(value.to_string()).filter(|value| !value.is_empty())
}

/// The newest system is not the one that runs, and is not started any more.
pub(crate) fn fell_back(slots: &[Slot], why: &Path) -> Option<FellBack> {
    let booted = slots.iter().find(|slot| slot.booted)?;
    let newer =
        |slot: &&Slot| !slot.booted && slot.state == "bad" && slot.installed > booted.installed;
    let bad = slots.iter().find(newer)?;
    let why = std::fs::read_to_string(why).unwrap_or_default();
    let why = match why.trim() {
        "" => "it did not start, or its cameras delivered no picture in time",
        why => why,
    };
    Some(FellBack { version: bad.version.clone(), why: why.into() })
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
    fn only_a_newer_system_that_is_given_up_has_fallen_back() {
        let why = Path::new("/nonexistent");
        let (old, new) = (Some("2026-01-01T00:00:00Z"), Some("2026-02-01T00:00:00Z"));
        let fell = |a, b| fell_back(&[a, b], why).is_some();
        assert!(fell(slot("A", true, "good", old), slot("B", false, "bad", new)));
        assert!(fell(slot("A", true, "good", None), slot("B", false, "bad", new)));
        // Installed, and not started yet.
        assert!(!fell(slot("A", true, "good", old), slot("B", false, "good", new)));
        // The card has never had a second system.
        assert!(!fell(slot("A", true, "good", None), slot("B", false, "bad", None)));
        // The old one was given up later.
        assert!(!fell(slot("A", false, "bad", old), slot("B", true, "good", new)));
    }

    #[test]
    fn the_image_says_its_version() {
        let version = |text| image_version(text);
        assert_eq!(version("NAME=x\nIMAGE_VERSION=\"1.2\"\n").as_deref(), Some("1.2"));
        assert_eq!(version("NAME=x\nVERSION=1\nIMAGE_VERSION=\n"), None);
    }
}
