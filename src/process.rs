//! Child processes that end when this process ends.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Interval at which a child is checked for its end.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Which process group a child belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// One of its own, which is ended with it: also the children of a shell.
    Own,
    /// That of this process.
    Shared,
}

/// A child process. Dropped, it is asked to end, and killed if it does not. If this process is
/// killed, the kernel kills the child.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    group: Group,
    /// Time to end after SIGTERM.
    grace: Duration,
}

impl Child {
    /// Starts `command`. After SIGTERM the child has `grace` to end.
    ///
    /// # Errors
    ///
    /// That of [`Command::spawn`].
    pub fn spawn(command: &mut Command, group: Group, grace: Duration) -> io::Result<Child> {
        if group == Group::Own {
            command.process_group(0);
        }
        kill_on_parent_death(command);
        Ok(Child { child: command.spawn()?, group, grace })
    }

    /// Its standard output and standard error, if they are pipes.
    pub fn take_output(&mut self) -> Option<(ChildStdout, ChildStderr)> {
        self.child.stdout.take().zip(self.child.stderr.take())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits at most `time` for its end.
    pub fn wait(&mut self, time: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + time;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < end => std::thread::sleep(POLL_INTERVAL),
                _ => return None,
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        let _ = match self.group {
            Group::Own => kill_process_group(pid, signal),
            Group::Shared => kill_process(pid, signal),
        };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A child that has been waited for has no number any more; what is left of its group has.
        if self.group == Group::Own || self.is_running() {
            self.signal(Signal::TERM);
            self.wait(self.grace);
        }
        if self.group == Group::Own || self.is_running() {
            self.signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// The kernel kills the child when the thread that starts it ends, for whatever reason.
fn kill_on_parent_death(command: &mut Command) {
    let kill = || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec only a system call is made, which is safe there.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(kill);
    }
}

/// The command line `words`, a program and its arguments, without standard input.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}

/// Runs `words` to the end, and returns their standard output.
///
/// # Errors
///
/// The program cannot be started, or fails; then with its standard error.
pub fn run(words: &[&str]) -> io::Result<String> {
    let output = command(words).output().map_err(|error| start_error(words[0], &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {}", words.join(" "), message.trim())))
}

/// An error of starting `program`, with its name.
pub fn start_error(program: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot start {program}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn exists(pid: &str) -> bool {
        // A zombie has no command line.
        std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|text| !text.is_empty())
    }

    #[test]
    fn ends_the_whole_group_of_a_child() {
        let mut shell = command(&["sh", "-c", "sleep 100 & echo $!; wait"]);
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Child::spawn(&mut shell, Group::Own, GRACE).unwrap();
        let (stdout, _stderr) = child.take_output().unwrap();
        let mut pid = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut pid).unwrap();
        assert!(exists(&pid));
        drop(child);
        let end = Instant::now() + GRACE;
        while exists(&pid) {
            assert!(Instant::now() < end, "the child of the shell still runs");
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    #[test]
    fn kills_a_child_that_ignores_sigterm() {
        let mut shell = command(&["sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"]);
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        for group in [Group::Own, Group::Shared] {
            let mut child = Child::spawn(&mut shell, group, 20 * POLL_INTERVAL).unwrap();
            let (stdout, _stderr) = child.take_output().unwrap();
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
            assert!(child.is_running());
            let pid = child.child.id().to_string();
            drop(child);
            assert!(!exists(&pid));
        }
    }

    #[test]
    fn errors_name_the_program() {
        let error = run(&["/nonexistent/program"]).unwrap_err().to_string();
        assert!(error.starts_with("cannot start /nonexistent/program: "), "{error}");
        let error = run(&["sh", "-c", "echo reason >&2; exit 1"]).unwrap_err().to_string();
        assert!(error.ends_with(": reason"), "{error}");
        assert_eq!(run(&["echo", "out"]).unwrap(), "out\n");
    }
}
