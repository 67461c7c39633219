//! Runs a program that prints something and ends, with limits on its time and its output.

use crate::camera::Stop;
use crate::camera::stop::timespec;
use crate::process::{Child, Group};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit. On a Pi Zero 2 W, loading rpicam-vid from a cold card takes a few seconds.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Maximum length of an answer, in bytes. `rpicam-vid --help` prints 15 KiB.
const MAX_BYTES: usize = 128 * 1024;

/// Time from SIGTERM to SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(1);

/// Runs `program` and returns what it writes to standard output and standard error, as one text.
///
/// # Errors
///
/// The program cannot be started, exceeds a limit, or `stop` was set.
pub(super) fn ask(
    program: &Path,
    arguments: &[&str],
    stop: Option<&Stop>,
) -> Result<String, io::Error> {
    ask_within(program, arguments, stop, TIME_LIMIT)
}

fn ask_within(
    program: &Path,
    arguments: &[&str],
    stop: Option<&Stop>,
    limit: Duration,
) -> Result<String, io::Error> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Child::spawn(&mut command, Group::Own, TERM_GRACE)?;
    let Some((stdout, stderr)) = child.take_output() else {
        return Err(io::Error::other("started without output pipes"));
    };
    let mut pipes = vec![(stdout.as_fd(), vec![]), (stderr.as_fd(), vec![])];
    let mut text = String::new();
    let end = Instant::now() + limit;
    while !pipes.is_empty() {
        let ready = wait(&pipes, stop, end)?;
        for n in (0..pipes.len()).rev().filter(|&n| ready[n]) {
            let (pipe, read) = &mut pipes[n];
            let mut buffer = [0; 4096];
            match rustix::io::read(*pipe, &mut buffer) {
                Ok(0) => text += &String::from_utf8_lossy(&pipes.remove(n).1),
                Ok(len) if read.len() + len <= MAX_BYTES => read.extend(&buffer[..len]),
                Ok(_) => return Err(io::Error::other("wrote too much")),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(text)
}

/// Waits until one of the pipes is readable. Returns which of them are.
fn wait(
    pipes: &[(BorrowedFd<'_>, Vec<u8>)],
    stop: Option<&Stop>,
    end: Instant,
) -> Result<Vec<bool>, io::Error> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
    }
    let fds = pipes.iter().map(|(pipe, _)| *pipe).chain(stop.map(Stop::as_fd));
    let mut polls: Vec<PollFd<'_>> =
        fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    // If poll(2) is interrupted, nothing is ready.
    let _ = poll(&mut polls, Some(&timespec(left)));
    if stop.is_some_and(Stop::is_set) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped"));
    }
    Ok(polls.iter().map(|poll| !poll.revents().is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<String, io::Error> {
        ask_within(Path::new("/bin/sh"), &["-c", script], None, limit)
    }

    #[test]
    fn returns_standard_output_and_standard_error() {
        let text = shell("echo out; echo err >&2; exit 1", TIME_LIMIT).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["err", "out"]);
    }

    #[test]
    fn stops_programs_that_exceed_a_limit() {
        let error = shell("sleep 1000", Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = shell("cat /dev/zero", TIME_LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "wrote too much");
        let error = ask(Path::new("/nonexistent"), &[], None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn ends_when_the_camera_is_stopped() {
        let stop = Stop::new().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| stop.set());
            let error = ask(Path::new("/bin/sleep"), &["1000"], Some(&stop)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        });
    }
}
