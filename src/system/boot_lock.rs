//! The lock on the boot partition: a configuration is not saved while the partition is switched.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::Result;
use std::path::Path;

/// The lock. Released when dropped, or when the process ends.
#[derive(Debug)]
pub struct BootLock {
    _file: File,
}

impl BootLock {
    /// Waits until no other process holds the lock file `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be created.
    pub fn acquire(path: &Path) -> Result<BootLock> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = File::create(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(BootLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn is_held_by_one_process_at_a_time() {
        let path = std::env::temp_dir().join(format!("berrymse-lock-{}", std::process::id()));
        let first = BootLock::acquire(&path).unwrap();
        let (sender, receiver) = mpsc::channel();
        let at = path.clone();
        let second = std::thread::spawn(move || {
            let lock = BootLock::acquire(&at);
            sender.send(()).unwrap();
            lock
        });
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(100)).is_err());
        drop(first);
        receiver.recv().unwrap();
        second.join().unwrap().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
