//! Atomic file replacement: after a power cut, a file has its old or its new content.

use rustix::fs::{Mode, OFlags, open};
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes `bytes` to `path`, and replaces an existing file or symbolic link.
///
/// The directory can belong to a user with fewer privileges. Therefore, existing files are not
/// opened, and symbolic links are not followed.
///
/// # Errors
///
/// The file or its directory cannot be written. The old content is unchanged unless the last step,
/// syncing the directory, failed.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = folder.join(name);
    remove(&new)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    let mut file = File::from(open(&new, flags, mode)?);
    // Set the mode explicitly, because the umask affects the mode of a new file.
    match rustix::fs::fchmod(&file, mode) {
        // FAT has no modes.
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

/// Writes `bytes` to `path` with [`replace`], unless the file already has this content and mode.
/// Creates the directory if necessary.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let comparable = std::fs::symlink_metadata(path).is_ok_and(|old| {
        old.is_file() && old.permissions().mode() & 0o777 == mode && old.len() < 1 << 20
    });
    if comparable && std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    replace(path, bytes, mode)
}

/// Makes `path` a symbolic link to `target`, unless it already is one.
pub(super) fn link(path: &Path, target: &Path) -> Result<()> {
    if std::fs::read_link(path).is_ok_and(|old| old == target) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    remove(path)?;
    std::os::unix::fs::symlink(target, path)
}

/// Removes a file if it exists.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let name = format!("berrymse-files-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn replaces_symbolic_links_without_following_them() {
        let folder = folder("link");
        let (victim, file) = (folder.join("victim"), folder.join("file"));
        std::fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, folder.join("file.new")).unwrap();
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        replace(&file, b"text", 0o600).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
        let file = std::fs::symlink_metadata(&file).unwrap();
        assert!(file.is_file());
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert!(!folder.join("file.new").exists());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn corrects_the_mode_of_unchanged_files() {
        let folder = folder("mode");
        let file = folder.join("secret");
        std::fs::write(&file, "same").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        write(&file, b"same", 0o600).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
