//! Takes over the settings that Raspberry Pi Imager wrote beside the configuration file, once.
//!
//! The file contains secrets, so it is overwritten and removed when its settings have been saved. The
//! next file, after the card has been written again or because the user copied one, is taken over again.
//!
//! A power cut can happen at any time. Therefore each step is repeatable, and a marker on `/data`, the
//! digest of the file, is written before the file is touched:
//!
//! ```text
//! save berrymse.toml ─► write the marker ─► overwrite the file ─► remove it ─► remove the marker
//! ```
//!
//! While the marker exists, a file with the same digest has been taken over, and one with zero bytes is
//! a remainder of it. Neither is taken over.

use crate::config::error::ConfigError;
use crate::config::preseed::{MAX_PRESEED, Merged, merge};
use crate::system::error::SystemError;
use crate::system::files::{remove, write};
use crate::system::journal::save;
use crate::system::last_good::load;
use crate::system::mounts::RemountedRw;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::path::Path;

/// Name of the file that Imager 2 writes for images with the format `rpi-preseed`.
const NAME: &str = "rpi-preseed.toml";

/// Files that configure other systems at their first start. Imager 1 writes `firstrun.sh` beside any
/// image; `user-data` and `network-config` are those of cloud-init.
const FOREIGN: [&str; 7] = [
    "custom.toml",
    "firstrun.sh",
    "network-config",
    "ssh",
    "user-data",
    "userconf.txt",
    "wpa_supplicant.conf",
];

/// The result of [`take_over`].
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What was taken over, for the console.
    pub(super) notices: Vec<String>,
    /// Settings that could not be taken over, and files that have no effect.
    pub(super) problems: Vec<String>,
    /// What could not be written.
    pub(super) failures: Vec<SystemError>,
}

/// Takes over the settings of `rpi-preseed.toml`, in the folder of `config`, and removes that file.
pub(super) fn take_over(config: &Path, last_good: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    let file = config.with_file_name(NAME);
    let marker = last_good.with_extension("preseed");
    match read(&file) {
        Ok(Some(bytes)) => take(&mut outcome, &file, &marker, &bytes, (config, last_good)),
        Ok(None) => {
            if let Err(error) = remove(&marker) {
                outcome.failures.push(SystemError::Write { path: marker, error });
            }
        }
        Err(error) => outcome.problems.push(not_applied(&file, &error.to_string())),
    }
    for file in FOREIGN.map(|name| config.with_file_name(name)) {
        if file.exists() {
            outcome.problems.push(format!(
                "{}: has no effect, because it is for Raspberry Pi OS: make these settings in {}, or \
                 write the card again with Raspberry Pi Imager 2 and the release's \
                 .rpi-imager-manifest; then delete this file",
                file.display(),
                config.display()
            ));
        }
    }
    outcome
}

fn take(
    outcome: &mut Outcome,
    file: &Path,
    marker: &Path,
    bytes: &[u8],
    (config, last_good): (&Path, &Path),
) {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let marked = std::fs::read_to_string(marker).ok();
    let is_remainder = bytes.contains(&0) || bytes.is_empty();
    let is_done = marked.is_some_and(|marked| marked == digest || is_remainder);
    if !is_done {
        let merged = match merged(file, bytes, config, last_good) {
            Ok(merged) => merged,
            Err(message) => {
                outcome.problems.push(message);
                return;
            }
        };
        if let Err(error) = saved(&merged, config, last_good) {
            outcome.failures.push(error);
            return;
        }
        if !merged.applied.is_empty() {
            let settings = merged.applied.join(", ");
            outcome.notices.push(format!("{}: applied: {settings}", file.display()));
        }
        outcome.problems.extend(merged.notes);
        if let Err(error) = write(marker, digest.as_bytes(), 0o600) {
            // Without the marker, the file is taken over again after a power cut: harmless.
            outcome.failures.push(SystemError::Write { path: marker.into(), error });
        }
    }
    match wipe(file, bytes.len()) {
        Ok(()) => {
            if let Err(error) = remove(marker) {
                outcome.failures.push(SystemError::Write { path: marker.into(), error });
            }
        }
        Err(error) => outcome.failures.push(SystemError::Remove { path: file.into(), error }),
    }
}

/// Returns the file's content, or one byte more than [`MAX_PRESEED`] of it. `None` if there is no file.
fn read(file: &Path) -> Result<Option<Vec<u8>>> {
    match file.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if !found.is_file() => return Err(Error::other("is not a file")),
        Ok(_) => {}
    }
    let mut bytes = vec![];
    File::open(file)?.take(MAX_PRESEED as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Describes why nothing was taken over. The file stays.
fn not_applied(file: &Path, reason: &str) -> String {
    format!("{}: {reason}\n{NOT_APPLIED}", file.display())
}

const NOT_APPLIED: &str = "None of its settings was applied. Correct the file, or delete it.";

/// Merges the file into the configuration. The error is the message for the user.
fn merged(
    file: &Path,
    bytes: &[u8],
    config: &Path,
    last_good: &Path,
) -> std::result::Result<Merged, String> {
    if bytes.len() > MAX_PRESEED {
        let reason = format!("is larger than {MAX_PRESEED} bytes");
        return Err(not_applied(file, &reason));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(not_applied(file, "not UTF-8 text: save the file as UTF-8"));
    };
    let Some(current) = load(config, last_good).text else {
        return Err(format!(
            "{}: its settings will be applied at the next start with a valid {}. If you no longer \
             want them, delete the file.",
            file.display(),
            config.display()
        ));
    };
    merge(&current, text, &file.display().to_string())
        .map_err(|error: ConfigError| format!("{error}\n{NOT_APPLIED}"))
}

fn saved(merged: &Merged, config: &Path, last_good: &Path) -> std::result::Result<(), SystemError> {
    let is_same = std::fs::read(config).is_ok_and(|old| old == merged.text.as_bytes());
    if is_same { Ok(()) } else { save(config, last_good, &merged.text) }
}

/// Overwrites `length` bytes of the file with zeros, and removes it.
fn wipe(file: &Path, length: usize) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let _writable = RemountedRw::new(folder)?;
    let mut open = OpenOptions::new().write(true).open(file)?;
    open.write_all(&vec![0; length])?;
    open.sync_all()?;
    drop(open);
    std::fs::remove_file(file)?;
    File::open(folder)?.sync_all()
}
