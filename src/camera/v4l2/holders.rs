//! Which programs have a device open.

use serde::Serialize;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A program that has a device open.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenBy {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub program: String,
}

pub(crate) fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Programs other than this one that have a node open: those of this user, or all for root.
pub fn holders(path: &Path) -> Vec<OpenBy> {
    let Ok(device) = fs::metadata(path).map(|data| data.rdev()) else { return vec![] };
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found = vec![];
    for process in entries(Path::new("/proc")) {
        let Some(pid) = number(&process).filter(|pid| *pid != std::process::id()) else { continue };
        // Looking at the name first: opening a descriptor's link must not open the device.
        let open = entries(&process.join("fd")).any(|fd| {
            fs::read_link(&fd).is_ok_and(|to| to.starts_with("/dev"))
                && fs::metadata(&fd).is_ok_and(|data| data.rdev() == device)
        });
        if open {
            let program = fs::read_to_string(process.join("comm")).unwrap_or_default();
            found.push(OpenBy { pid, program: program.trim().into() });
        }
    }
    found
}
