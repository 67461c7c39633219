//! Write access to a file system that is mounted read-only.

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{MountFlags, mount_remount};
use std::path::Path;

/// Makes a read-only file system writable until this guard is dropped. Does nothing if the file
/// system is already writable.
pub(crate) struct RemountedRw<'a> {
    folder: &'a Path,
    before: Option<MountFlags>,
}

impl RemountedRw<'_> {
    pub(super) fn new(folder: &Path) -> std::io::Result<RemountedRw<'_>> {
        let now = statvfs(folder)?.f_flag;
        if !now.contains(StatVfsMountFlags::RDONLY) {
            return Ok(RemountedRw { folder, before: None });
        }
        // A remount clears all flags that are not listed in the call.
        let mut before = MountFlags::RDONLY;
        for (is, flag) in [
            (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
            (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
            (StatVfsMountFlags::SYNCHRONOUS, MountFlags::SYNCHRONOUS),
        ] {
            before.set(flag, now.contains(is));
        }
        mount_remount(folder, before - MountFlags::RDONLY, "")?;
        Ok(RemountedRw { folder, before: Some(before) })
    }
}

impl Drop for RemountedRw<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before
            && let Err(error) = mount_remount(self.folder, before, "")
        {
            log::error!("cannot remount {} read-only: {error}", self.folder.display());
        }
    }
}
