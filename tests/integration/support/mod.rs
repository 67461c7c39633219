//! Code that the tests share: a running server, viewers, simulated cameras, MP4 and ffmpeg.
//!
//! No test depends on how fast this machine is, because the machine may be busy. Tests wait for a
//! condition, with [`TIMEOUT`] as the limit.

mod clip;
mod feed;
mod mp4;
mod server;
mod viewer;
pub mod websocket;

pub use clip::{Clip, decode, ffmpeg};
pub use feed::Feed;
pub use mp4::{Frame, assert_even, frames, split_init};
pub use server::{Answer, Server, berrymse};
pub use viewer::{Viewer, describe, next_message};

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The configuration of a camera that shows the test card.
pub const TEST_CARD: &str = "[[camera]]\nname = \"card\"\nsource = \"test-card\"\n";

/// Maximum time to wait for a condition. Only a failing test waits this long.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Interval between checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Returns `future`'s result. Panics with `what` after [`TIMEOUT`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(result) => result,
        Err(_) => panic!("{what}: did not happen within {} s", TIMEOUT.as_secs()),
    }
}

/// Calls `look` until it returns a value.
pub async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    })
    .await
}

/// A temporary directory, removed on drop.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Returns a path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in the directory.
    pub fn write(&self, name: &str, data: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, data).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reads `/proc/<pid>/<file>`. Returns an empty text if the process has ended.
pub fn proc_file(pid: u32, file: &str) -> String {
    let mut text = vec![];
    if let Ok(mut file) = File::open(format!("/proc/{pid}/{file}")) {
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Returns the IDs of the processes that have this argument.
pub fn processes_with(argument: &str) -> Vec<u32> {
    let folders = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| proc_file(pid, "cmdline").split('\0').any(|a| a == argument)).collect()
}
