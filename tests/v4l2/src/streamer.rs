//! The running release executable, its status and its log.

use crate::guest::{POLL_INTERVAL, TIMEOUT, program, wait_for};
use crate::viewer::ADDRESS;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};

const CONFIG: &str = "/tmp/berrymse.toml";
const LOG: &str = "/tmp/berrymse.log";

/// Number of log lines to print after a failure.
const LOG_LINES: usize = 12;

/// The running streamer. Terminated on drop. If the test has failed, the end of the log is printed.
pub struct Streamer(Child);

impl Streamer {
    /// Starts the streamer with a configuration, and waits until it accepts connections.
    pub fn start(config: &str) -> Streamer {
        fs::write(CONFIG, config).unwrap();
        Streamer::spawn(&["--config", CONFIG])
    }

    /// Like [`Streamer::start`], with the most detailed log.
    pub fn start_verbose(config: &str) -> Streamer {
        fs::write(CONFIG, config).unwrap();
        Streamer::spawn(&["--config", CONFIG, "-vv"])
    }

    /// Returns the delay of each frame from the driver's buffer to the viewers' sockets, as recorded
    /// in the log.
    pub fn frame_times() -> Vec<Duration> {
        let nanoseconds = |line: &str| {
            let (_, rest) = line.split_once("fragment out after ")?;
            rest.strip_suffix(" ns")?.parse().ok()
        };
        Streamer::log().lines().filter_map(nanoseconds).map(Duration::from_nanos).collect()
    }

    /// Starts the streamer without a configuration.
    pub fn start_without_config() -> Streamer {
        Streamer::spawn(&[])
    }

    fn spawn(arguments: &[&str]) -> Streamer {
        let log = File::create(LOG).unwrap();
        let arguments = [&["--listen", ADDRESS], arguments].concat();
        let mut streamer = Streamer(
            program("berrymse", &arguments).stderr(log).spawn().expect("cannot start berrymse"),
        );
        wait_for("start of the streamer", || {
            let ended = streamer.0.try_wait().unwrap();
            assert!(ended.is_none(), "the streamer ended: {}", Streamer::log());
            TcpStream::connect(ADDRESS).ok()
        });
        streamer
    }

    pub fn log() -> String {
        fs::read_to_string(LOG).unwrap()
    }

    /// Returns the status of the first camera (`/api/status`).
    pub fn camera(&self) -> Value {
        let mut status: Value = serde_json::from_str(&get("/api/status")).unwrap();
        status["cameras"][0].take()
    }

    /// Waits until `good` accepts the camera's status. Returns the status and the time waited.
    pub fn until(&self, what: &str, mut good: impl FnMut(&Value) -> bool) -> (Value, Duration) {
        let start = Instant::now();
        loop {
            let camera = self.camera();
            if good(&camera) {
                return (camera, start.elapsed());
            }
            assert!(
                start.elapsed() < TIMEOUT,
                "{what}: did not happen within {TIMEOUT:?}: {camera}"
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until the camera delivers frames.
    pub fn until_streaming(&self) -> (Value, Duration) {
        self.until("streaming", |camera| camera["state"] == "streaming")
    }

    /// Waits until the camera has failed with an error that contains all these words.
    pub fn until_error(&self, words: &[&str]) -> (Value, Duration) {
        self.until(&format!("an error with {words:?}"), |camera| {
            let error = camera["error"].as_str().unwrap_or_default().to_lowercase();
            !error.is_empty() && words.iter().all(|word| error.contains(word))
        })
    }

    /// Returns the resident memory, in KiB, and the number of open files.
    pub fn size(&self) -> (u64, usize) {
        let proc = format!("/proc/{}", self.0.id());
        let status = fs::read_to_string(format!("{proc}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
        (memory, fs::read_dir(format!("{proc}/fd")).unwrap().count())
    }
}

impl Drop for Streamer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = Streamer::log();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            println!("    end of the streamer's log:\n    {}", last.join("\n    "));
        }
        // Shut down with SIGTERM, so that this is tested as well.
        let _ = program("kill", &[&self.0.id().to_string()]).status();
        let end = Instant::now() + TIMEOUT;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.0.kill();
                let _ = self.0.wait();
                assert!(std::thread::panicking(), "the streamer did not exit after SIGTERM");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Sends a GET request to the streamer. Returns the body of the response.
pub fn get(path: &str) -> String {
    let mut socket = TcpStream::connect(ADDRESS).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}\n{body}");
    body.to_string()
}
