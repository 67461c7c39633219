//! A camera that the test controls.

use super::{Clip, Folder, POLL_INTERVAL, TIMEOUT};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A named pipe that a camera's command (`cat`) reads. The test writes what the camera sends.
pub struct Feed {
    path: PathBuf,
    writer: Option<mpsc::Sender<Vec<u8>>>,
}

impl Feed {
    pub fn new(folder: &Folder, name: &str) -> Feed {
        let path = folder.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Feed { path, writer: None }
    }

    /// Returns the value of `source` in the configuration.
    pub fn source(&self) -> String {
        format!("{{ command = [\"cat\", {:?}] }}", self.path)
    }

    /// Sends bytes, in one write.
    pub fn send(&mut self, bytes: &[u8]) {
        let path = &self.path;
        let writer = self.writer.get_or_insert_with(|| {
            // Open the pipe for reading, too, because open would otherwise wait for a reader.
            let mut pipe = OpenOptions::new().read(true).write(true).open(path).unwrap();
            let (sender, receiver) = mpsc::channel::<Vec<u8>>();
            // Write in a thread, because writing blocks while the pipe is full.
            std::thread::spawn(move || {
                while let Ok(bytes) = receiver.recv() {
                    pipe.write_all(&bytes).unwrap();
                }
                // When the last process closes the pipe, unread bytes are lost.
                let end = Instant::now() + TIMEOUT;
                while rustix::io::ioctl_fionread(&pipe).unwrap() > 0 && Instant::now() < end {
                    std::thread::sleep(POLL_INTERVAL);
                }
            });
            sender
        });
        writer.send(bytes.to_vec()).unwrap();
    }

    /// Sends frames of a clip, at slightly less than 30 frames per second.
    pub async fn play(&mut self, clip: &Clip, range: std::ops::Range<usize>) {
        for n in range {
            self.send(clip.unit(n));
            tokio::time::sleep(Duration::from_millis(33)).await;
        }
    }

    /// Ends the command. Bytes that are sent later go to the next command.
    pub fn close(&mut self) {
        self.writer = None;
    }
}
