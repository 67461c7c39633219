//! A program that writes H.264 (Annex B) to its standard output: ffmpeg, GStreamer, rpicam-vid, …
//!
//! Its pipe is made as large as the kernel allows, so that a whole frame fits into one write; the
//! end of a frame is then seen as a pause ([`PauseRule`]). The program runs in a process group of
//! its own, which is ended with it: a shell's children, too. If this program should be killed, the
//! kernel ends the child.

use crate::camera::Stop;
use crate::camera::source::{Failure, Output, STALL, Source};
use crate::camera::stop::timespec;
use crate::h264::{PauseRule, Splitter};
use crate::process::{Child, Group};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Size that is asked for the pipe, bytes: what an unprivileged process may have
/// (`/proc/sys/fs/pipe-max-size`), and more than a key frame of 1080p at 20 Mbit/s.
const PIPE: usize = 1024 * 1024;

/// Read at once at the most, bytes.
const READ: usize = 256 * 1024;

/// A program that was asked to end and has not after this is killed.
const GRACE: Duration = Duration::from_secs(1);

/// Longer lines of standard error are cut, bytes.
const LONGEST_LINE: usize = 500;

pub(super) struct Command {
    command: Vec<String>,
}

impl Command {
    /// `command`: program and arguments; not empty.
    pub fn new(command: Vec<String>) -> Command {
        Command { command }
    }

    fn start(&self) -> Result<Child, String> {
        let program = &self.command[0];
        let mut command = std::process::Command::new(program);
        command.args(&self.command[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Child::spawn(&mut command, Group::Own, GRACE).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                format!("{program:?} cannot be started: no such program (installed? in PATH?)")
            }
            ErrorKind::PermissionDenied if std::path::Path::new(program).is_dir() => {
                format!("{program:?} cannot be started: it is a folder, not a program")
            }
            ErrorKind::PermissionDenied => {
                format!("{program:?} cannot be started: it is not executable by this user")
            }
            _ => format!("{program:?} cannot be started: {error}"),
        })
    }
}

impl Source for Command {
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), Failure> {
        Ok(self.read(output, stop)?)
    }
}

impl Command {
    fn read(&mut self, output: &mut Output, stop: &Stop) -> Result<(), String> {
        let program = self.command[0].clone();
        let mut process = self.start()?;
        let Some((stdout, stderr)) = process.take_output() else {
            return Err(format!("{program:?} has no output"));
        };
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE); // smaller works, too
        for fd in [stdout.as_fd(), stderr.as_fd()] {
            rustix::io::ioctl_fionbio(fd, true).map_err(|e| format!("its pipe: {e}"))?;
        }

        let started = Instant::now();
        let mut reader = Reader::new(started);
        let mut lines = Lines::default();
        let mut buffer = vec![0; READ];
        let (mut stdout_open, mut stderr_open) = (true, true);
        while stdout_open {
            let wait = reader.wait(STALL);
            let ready =
                wait_for(&[stdout.as_fd(), stop.as_fd(), stderr.as_fd()], stderr_open, wait);
            if stop.is_set() {
                return Ok(());
            }
            if ready[2] {
                stderr_open = lines.read(stderr.as_fd(), &mut buffer, |line| output.said(line));
            }
            if ready[0] {
                match rustix::io::read(&stdout, &mut buffer[..]) {
                    Ok(0) => stdout_open = false,
                    Ok(len) => reader.read(&buffer[..len], output)?,
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(format!("reading from {program:?}: {error}")),
                }
            } else {
                reader.quiet(output)?;
            }
            if reader.last_picture.elapsed() > STALL {
                lines.read(stderr.as_fd(), &mut buffer, |line| output.said(line));
                return Err(reader.stalled(&program, output));
            }
        }
        reader.finish(output)?;
        // What it said last is most worth knowing.
        let ended = process.wait(GRACE);
        while stderr_open && wait_for(&[stderr.as_fd()], true, Duration::ZERO)[0] {
            stderr_open = lines.read(stderr.as_fd(), &mut buffer, |line| output.said(line));
        }
        lines.rest(|line| output.said(line));
        let how = match ended {
            Some(status) => format!("{program:?} ended ({status})"),
            None => format!("{program:?} closed its output"),
        };
        let said = lines.last.map(|line| format!(": {line}")).unwrap_or_default();
        let complaint = output.complaint().map(|c| format!("; {c}")).unwrap_or_default();
        Err(match reader.pictures {
            0 if reader.bytes == 0 => format!("{how} without having written anything{said}"),
            0 => format!("{how}; {} {complaint}{said}", no_picture(reader.bytes)),
            _ => format!("{how}{said}"),
        })
    }
}

fn no_picture(bytes: u64) -> String {
    format!(
        "of the {bytes} bytes it wrote, none was a picture: it must write H.264 in Annex B format \
         to its standard output (ffmpeg: -f h264 -)"
    )
}

/// Cuts what is read into access units, and knows when to wait no longer.
struct Reader {
    splitter: Splitter,
    rule: PauseRule,
    started: Instant,
    last_read: Instant,
    last_picture: Instant,
    /// Nothing can come of waiting longer: the pause has been looked at.
    paused: bool,
    bytes: u64,
    pictures: u64,
    wrong_cuts: u64,
}

impl Reader {
    fn new(started: Instant) -> Reader {
        Reader {
            splitter: Splitter::default(),
            rule: PauseRule::default(),
            started,
            last_read: started,
            last_picture: started,
            paused: true,
            bytes: 0,
            pictures: 0,
            wrong_cuts: 0,
        }
    }

    /// How long to wait for more bytes before something else has to be done.
    fn wait(&self, stall: Duration) -> Duration {
        let until_stall =
            stall.saturating_sub(self.last_picture.elapsed()) + Duration::from_millis(1);
        match self.rule.quiet() {
            Some(quiet) if !self.paused => quiet.saturating_sub(self.last_read.elapsed()),
            _ => until_stall,
        }
    }

    fn read(&mut self, data: &[u8], output: &mut Output) -> Result<(), String> {
        let now = Instant::now();
        let position = self.splitter.position();
        self.splitter.push(data, now - self.started);
        while let Some(unit) = self.splitter.next_unit() {
            let shown = output.access_unit(unit.data, unit.arrived)?;
            self.pictures += u64::from(shown);
            if shown {
                self.last_picture = now;
            }
        }
        if self.bytes > 0 {
            let starts_unit = self.splitter.last_start() == position;
            self.rule.read(now - self.last_read, starts_unit);
        }
        let wrong_cuts = self.splitter.wrong_cuts();
        if wrong_cuts > self.wrong_cuts {
            output.early_cuts(wrong_cuts - self.wrong_cuts);
            self.wrong_cuts = wrong_cuts;
            self.rule.was_wrong();
        }
        self.bytes += data.len() as u64;
        self.last_read = now;
        self.paused = !self.splitter.has_picture();
        Ok(())
    }

    /// Nothing has come for [`Reader::wait`].
    fn quiet(&mut self, output: &mut Output) -> Result<(), String> {
        let Some(quiet) = self.rule.quiet() else { return Ok(()) };
        if self.paused || self.last_read.elapsed() < quiet {
            return Ok(());
        }
        while let Some(unit) = self.splitter.pause() {
            if output.access_unit(unit.data, unit.arrived)? {
                self.pictures += 1;
                self.last_picture = Instant::now();
            }
        }
        self.paused = true;
        Ok(())
    }

    fn finish(&mut self, output: &mut Output) -> Result<(), String> {
        while let Some(unit) = self.splitter.finish() {
            self.pictures += u64::from(output.access_unit(unit.data, unit.arrived)?);
        }
        Ok(())
    }

    fn stalled(&self, program: &str, output: &Output) -> String {
        let seconds = STALL.as_secs();
        let complaint = output.complaint().map(|c| format!(" ({c})")).unwrap_or_default();
        match (self.bytes, self.pictures) {
            (0, _) => format!("{program:?} has written nothing for {seconds} s"),
            (bytes, 0) if self.splitter.has_real_picture() => format!(
                "{program:?} began a picture and has not finished it for {seconds} s, after {bytes} \
                 bytes{complaint}"
            ),
            (bytes, 0) => {
                format!("{program:?}: after {seconds} s, {}{complaint}", no_picture(bytes))
            }
            _ => format!("{program:?} has sent no picture for {seconds} s{complaint}"),
        }
    }
}

/// Which of `fds` can be read, after at most `time`; the last one only if `with_last`.
fn wait_for(fds: &[BorrowedFd<'_>], with_last: bool, time: Duration) -> Vec<bool> {
    let watched = fds.len() - usize::from(!with_last);
    let mut polls: Vec<PollFd<'_>> =
        fds[..watched].iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    // An interrupted poll is a poll that found nothing.
    let _ = poll(&mut polls, Some(&timespec(time)));
    let mut ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
    ready.resize(fds.len(), false);
    ready
}

/// Standard error, line by line.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    last: Option<String>,
}

impl Lines {
    /// Reads once; false at the end.
    fn read(&mut self, fd: BorrowedFd<'_>, buffer: &mut [u8], mut say: impl FnMut(String)) -> bool {
        let len = match rustix::io::read(fd, &mut *buffer) {
            Ok(0) => return false,
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        for &byte in &buffer[..len] {
            match byte {
                // ffmpeg's progress ends in a carriage return.
                b'\n' | b'\r' => self.rest(&mut say),
                _ if self.partial.len() < LONGEST_LINE => self.partial.push(byte),
                _ => {}
            }
        }
        true
    }

    /// What stands there without an end of line.
    fn rest(&mut self, mut say: impl FnMut(String)) {
        let line: String = String::from_utf8_lossy(&self.partial)
            .chars()
            .filter(|c| !c.is_control())
            .collect::<String>()
            .trim()
            .into();
        self.partial.clear();
        if !line.is_empty() {
            self.last = Some(line.clone());
            say(line);
        }
    }
}
