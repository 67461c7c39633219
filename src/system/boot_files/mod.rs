//! Updates of the boot files: what is on the boot partition besides the configuration.
//!
//! The boot partition is one of two halves of the same size. A new set is written to the other half,
//! and then one write of sector 0 makes that half the boot partition. `docs/decisions/boot-files.md`
//! explains why.

mod disk;
mod error;
mod fat;
mod fat_image;
mod files;
mod machine;
mod mbr;
mod merge;
#[cfg(test)]
mod power_cuts;
mod set;
#[cfg(test)]
mod simulation;
mod state;
mod update;

pub use error::BootFilesError;
pub use state::{Phase, Report};

use crate::paths;
use crate::system::files::write;
use disk::BlockDevice;
use machine::{Appliance, read_text};
use mbr::Layout;
use state::State;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use update::{Update, config_from_other_half};

/// Returns the absolute path `path`, moved below the root directory `root`.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn read_layout(root: &Path) -> Result<Layout, BootFilesError> {
    let path = below(root, paths::LAYOUT);
    let text = std::fs::read_to_string(&path);
    Layout::parse(&text.map_err(|error| BootFilesError::Set { path, error })?)
}

/// Updates the boot files of this machine if necessary, and stores the report for the page. The
/// running system must be good. `root` takes the place of `/`. Returns `None` if this release has no
/// boot files.
pub fn update(root: &Path) -> Option<Report> {
    let report = try_update(root).unwrap_or_else(|error| {
        Some(Report { state: Phase::Refused, why: Some(error.to_string()) })
    });
    let path = below(root, paths::BOOT_FILES_REPORT);
    let text = report.as_ref().and_then(|report| serde_json::to_vec(report).ok());
    if let Some(text) = text
        && let Err(error) = write(&path, &text, 0o644)
    {
        log::warn!("cannot write {}: {error}", path.display());
    }
    report
}

/// Returns the report of the last update, if this machine has boot files.
pub fn report() -> Option<Report> {
    Report::load(Path::new(paths::BOOT_FILES_REPORT))
}

fn try_update(root: &Path) -> Result<Option<Report>, BootFilesError> {
    let read = |path: &str| read_text(&below(root, path)).unwrap_or_default();
    let devices = below(root, paths::DEVICES);
    let mut disk = BlockDevice::open(&devices.join("disk"))
        .map_err(|error| BootFilesError::Card { action: "open the card", error })?;
    let mut machine = Appliance {
        boot: below(root, paths::BOOT),
        remount: below(root, paths::REMOUNT_BOOT),
        lock: below(root, paths::BOOT_LOCK),
        state: below(root, paths::BOOT_FILES_STATE),
        devices,
    };
    let model = read("/proc/device-tree/model");
    let mut update = Update {
        disk: &mut disk,
        machine: &mut machine,
        layout: read_layout(root)?,
        set: &below(root, paths::BOOT_FILES),
        running: set::running(&read("/proc/cmdline")),
        model: model.trim_end_matches('\0').into(),
    };
    update.run()
}

/// If boot.scr has returned to the former half, returns the configuration file from the other half,
/// if it was changed only there. `current`: the configuration file in use.
///
/// # Errors
///
/// The card cannot be read.
pub fn config_after_return(root: &Path, current: &[u8]) -> Result<Option<Vec<u8>>, BootFilesError> {
    let text = read_text(&below(root, paths::BOOT_FILES_STATE)).map_err(BootFilesError::State)?;
    let state = State::parse(&text);
    if state.pending.is_none() {
        return Ok(None);
    }
    let mut disk = match BlockDevice::open(&below(root, paths::DEVICES).join("disk")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        disk => disk.map_err(|error| BootFilesError::Card { action: "open the card", error })?,
    };
    config_from_other_half(&mut disk, &read_layout(root)?, &state, current)
}
