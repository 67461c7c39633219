//! A program that writes H.264 (Annex B) to its standard output: ffmpeg, GStreamer, rpicam-vid, …
//!
//! The pipe is made as large as the kernel allows, so that a whole frame fits into one write. A
//! pause then marks the end of a frame ([`PauseRule`]). The program runs in its own process group,
//! so that all processes in it, such as the children of a shell, are stopped together. If this
//! process is killed, the kernel kills the program.

use crate::camera::Stop;
use crate::camera::error::SourceError;
use crate::camera::source::{Output, PICTURE_TIMEOUT, Source};
use crate::camera::stop::timespec;
use crate::h264::{PauseRule, Splitter};
use crate::process::{Child, Group};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::io::{ErrorKind, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Requested size of the pipe, in bytes: the default maximum for an unprivileged process
/// (`/proc/sys/fs/pipe-max-size`), and larger than a 1080p key frame at 20 Mbit/s.
const PIPE_BYTES: usize = 1024 * 1024;

/// Maximum size of a read, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Time from SIGTERM to SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(1);

/// Maximum length of a line from standard error, in bytes. Longer lines are truncated.
const MAX_LINE_BYTES: usize = 500;

/// The output that a program must produce, for error messages.
const REQUIRED_OUTPUT: &str = "the program must write H.264 in Annex B format to its standard \
                               output (ffmpeg: -f h264 -)";

pub(super) struct Command {
    command: Vec<String>,
    /// Content of standard input.
    input: Option<String>,
    /// Returns a note about a line of standard error.
    note_of_line: fn(&str) -> Option<String>,
}

impl Command {
    /// Creates a source that runs `command`: a program, followed by its arguments. `command` must
    /// not be empty.
    pub fn new(command: Vec<String>) -> Command {
        Command { command, input: None, note_of_line: |_| None }
    }

    /// Passes `input` as the standard input, which is otherwise empty. The program can also open it
    /// as the file `/proc/self/fd/0`.
    pub fn with_input(self, input: Option<String>) -> Command {
        Command { input, ..self }
    }

    /// Calls `note_of_line` for each line of standard error, and adds the note that it returns.
    pub fn with_notes(self, note_of_line: fn(&str) -> Option<String>) -> Command {
        Command { note_of_line, ..self }
    }

    /// Records a line of standard error.
    fn stderr_line(&self, line: String, output: &Output) {
        if let Some(note) = (self.note_of_line)(&line) {
            output.note(note);
        }
        output.stderr_line(line);
    }

    /// Returns the standard input: a file in memory.
    fn stdin(&self) -> std::io::Result<Stdio> {
        let Some(input) = &self.input else { return Ok(Stdio::null()) };
        let mut file = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
        file.write_all(input.as_bytes())?;
        file.rewind()?;
        Ok(file.into())
    }

    fn start(&self) -> Result<Child, SourceError> {
        let program = &self.command[0];
        let mut command = std::process::Command::new(program);
        command.args(&self.command[1..]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self
            .stdin()
            .and_then(|stdin| Child::spawn(command.stdin(stdin), Group::Own, TERM_GRACE));
        child.map_err(|error| {
            let is_directory =
                error.kind() == ErrorKind::PermissionDenied && Path::new(program).is_dir();
            let error = if is_directory { ErrorKind::IsADirectory.into() } else { error };
            SourceError::Start { program: program.clone(), error }
        })
    }
}

impl Source for Command {
    fn run(&mut self, output: &mut Output, stop: &Stop) -> Result<(), SourceError> {
        let program = &self.command[0];
        let failed = |reason| SourceError::Command { program: program.clone(), reason };
        let pipe_error = |error| SourceError::Pipe { program: program.clone(), error };
        let mut process = self.start()?;
        let Some((stdout, stderr)) = process.take_output() else {
            return Err(failed("was started without output pipes".into()));
        };
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES); // A smaller pipe also works.
        for fd in [stdout.as_fd(), stderr.as_fd()] {
            rustix::io::ioctl_fionbio(fd, true).map_err(pipe_error)?;
        }

        let started = Instant::now();
        let mut reader = Reader::new(started);
        let mut lines = Lines::default();
        let mut buffer = vec![0; READ_BYTES];
        let (mut stdout_open, mut stderr_open) = (true, true);
        while stdout_open {
            let wait = reader.wait(PICTURE_TIMEOUT);
            let ready =
                wait_for(&[stdout.as_fd(), stop.as_fd(), stderr.as_fd()], stderr_open, wait);
            if stop.is_set() {
                return Ok(());
            }
            if ready[2] {
                stderr_open =
                    lines.read(stderr.as_fd(), &mut buffer, |line| self.stderr_line(line, output));
            }
            if ready[0] {
                match rustix::io::read(&stdout, &mut buffer[..]) {
                    Ok(0) => stdout_open = false,
                    Ok(len) => reader.read(&buffer[..len], output)?,
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(pipe_error(error)),
                }
            } else {
                reader.pause(output)?;
            }
            if reader.last_picture.elapsed() > PICTURE_TIMEOUT {
                lines.read(stderr.as_fd(), &mut buffer, |line| self.stderr_line(line, output));
                return Err(failed(reader.stall_reason(output)));
            }
        }
        reader.finish(output)?;
        // The last lines usually explain why the program ended.
        let status = process.wait(TERM_GRACE);
        while stderr_open && wait_for(&[stderr.as_fd()], true, Duration::ZERO)[0] {
            stderr_open =
                lines.read(stderr.as_fd(), &mut buffer, |line| self.stderr_line(line, output));
        }
        lines.end_line(|line| self.stderr_line(line, output));
        let mut reason = match status {
            Some(status) => format!("ended ({status})"),
            None => "closed its output".into(),
        };
        match (reader.bytes, reader.pictures) {
            (0, _) => reason += " without writing anything",
            (bytes, 0) => reason += &format!(" after writing {bytes} bytes, but no picture"),
            _ => {}
        }
        if let Some(line) = &lines.last {
            reason += &format!(": {line}");
        }
        if reader.bytes > 0 && reader.pictures == 0 {
            reason += &format!("{}; {REQUIRED_OUTPUT}", problem(output));
        }
        Err(failed(reason))
    }
}

/// Returns the problem found in the stream, as a suffix for an error message. Empty if there is
/// none.
fn problem(output: &Output) -> String {
    output.stream_problem().map(|problem| format!("; {problem}")).unwrap_or_default()
}

/// Splits the output of the program into access units, and decides when to stop waiting for more.
struct Reader {
    splitter: Splitter,
    rule: PauseRule,
    started: Instant,
    last_read: Instant,
    last_picture: Instant,
    /// Whether the current pause has been handled. If so, only further bytes can end an access
    /// unit.
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

    /// Returns how long to wait for more bytes: until the pause is long enough to end a frame, or
    /// until the stall timeout.
    fn wait(&self, timeout: Duration) -> Duration {
        let until_stall =
            timeout.saturating_sub(self.last_picture.elapsed()) + Duration::from_millis(1);
        match self.rule.quiet() {
            Some(quiet) if !self.paused => quiet.saturating_sub(self.last_read.elapsed()),
            _ => until_stall,
        }
    }

    fn read(&mut self, data: &[u8], output: &mut Output) -> Result<(), SourceError> {
        let now = Instant::now();
        let position = self.splitter.position();
        self.splitter.push(data, now - self.started);
        while let Some(unit) = self.splitter.next_unit() {
            if output.access_unit(unit.data, unit.arrived)? {
                self.pictures += 1;
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

    /// Handles a pause in the output: no bytes arrived within the time that [`Reader::wait`]
    /// returned.
    fn pause(&mut self, output: &mut Output) -> Result<(), SourceError> {
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

    fn finish(&mut self, output: &mut Output) -> Result<(), SourceError> {
        while let Some(unit) = self.splitter.finish() {
            self.pictures += u64::from(output.access_unit(unit.data, unit.arrived)?);
        }
        Ok(())
    }

    /// Describes what the program did instead of writing pictures.
    fn stall_reason(&self, output: &Output) -> String {
        let seconds = PICTURE_TIMEOUT.as_secs();
        let problem = problem(output);
        match (self.bytes, self.pictures) {
            (0, _) => format!("has written nothing for {seconds} s"),
            (bytes, 0) if self.splitter.has_real_picture() => {
                format!(
                    "has written only part of a picture in {seconds} s ({bytes} bytes){problem}"
                )
            }
            (bytes, 0) => format!(
                "has written {bytes} bytes in {seconds} s, but no picture{problem}; \
                 {REQUIRED_OUTPUT}"
            ),
            _ => format!("has written no picture for {seconds} s{problem}"),
        }
    }
}

/// Waits up to `time` for one of `fds` to become readable. Returns which of them are ready. The
/// last one is ignored unless `with_last` is set.
fn wait_for(fds: &[BorrowedFd<'_>], with_last: bool, time: Duration) -> Vec<bool> {
    let watched = fds.len() - usize::from(!with_last);
    let mut polls: Vec<PollFd<'_>> =
        fds[..watched].iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    // If poll(2) is interrupted, treat nothing as ready.
    let _ = poll(&mut polls, Some(&timespec(time)));
    let mut ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
    ready.resize(fds.len(), false);
    ready
}

/// Splits standard error into lines.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    last: Option<String>,
}

impl Lines {
    /// Reads once and calls `line` for each complete line. Returns false at end of file.
    fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        buffer: &mut [u8],
        mut line: impl FnMut(String),
    ) -> bool {
        let len = match rustix::io::read(fd, &mut *buffer) {
            Ok(0) => return false,
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        for &byte in &buffer[..len] {
            match byte {
                // ffmpeg ends its progress line with a carriage return.
                b'\n' | b'\r' => self.end_line(&mut line),
                _ if self.partial.len() < MAX_LINE_BYTES => self.partial.push(byte),
                _ => {}
            }
        }
        true
    }

    /// Ends the current line, unless it is empty. Control characters are removed.
    fn end_line(&mut self, mut line: impl FnMut(String)) {
        let text: String = String::from_utf8_lossy(&self.partial)
            .chars()
            .filter(|c| !c.is_control())
            .collect::<String>()
            .trim()
            .into();
        self.partial.clear();
        if !text.is_empty() {
            self.last = Some(text.clone());
            line(text);
        }
    }
}
