//! The programs that have a device open (proc(5)).

use serde::Serialize;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A program that has a device open.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenBy {
    /// Process ID.
    pub pid: u32,
    /// Name of the program.
    pub program: String,
}

/// Returns the entries of a directory, or none if it cannot be read.
pub(crate) fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Returns the other programs that have a node open. Unless this process runs as root, it sees only
/// the programs of the same user.
pub fn holders(path: &Path) -> Vec<OpenBy> {
    let Ok(device) = fs::metadata(path).map(|data| data.rdev()) else { return vec![] };
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found = vec![];
    for process in entries(Path::new("/proc")) {
        let Some(pid) = number(&process).filter(|pid| *pid != std::process::id()) else { continue };
        // Check the path first, so that only device nodes are accessed.
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
