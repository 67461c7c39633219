//! Programs that run as long as we do.

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time to end by itself when it is asked to.
const PATIENCE: Duration = Duration::from_secs(3);

/// The program is killed when the thread that starts it ends, however that comes.
pub(crate) fn end_with_us(command: &mut Command) {
    let end_with_us = || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec only a system call is made, which is safe there.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(end_with_us);
    }
}

/// A program that is ended when this is dropped.
pub(super) struct Process(Child);

impl Process {
    /// Starts `words`: a program and its arguments. What it says goes where our own log goes.
    pub(super) fn start(words: &[&str]) -> std::io::Result<Process> {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        end_with_us(&mut command);
        command.spawn().map(Process).map_err(|error| named(words[0], &error))
    }

    /// Whether it has not ended by itself.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + PATIENCE;
        while self.runs() {
            if Instant::now() > end {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs `words` to their end, and returns what they wrote.
pub(super) fn run(words: &[&str]) -> std::io::Result<String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| named(words[0], &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(std::io::Error::other(format!("{}: {}", words.join(" "), said.trim())))
}

fn named(program: &str, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{program} cannot be started: {error}"))
}
