//! Child processes that end when this process ends.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Interval at which [`Child::wait`] polls.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The process group of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// A new group. Signals are sent to the whole group, so that they also reach the children of a
    /// shell.
    Own,
    /// The group of this process.
    Shared,
}

/// A child process. Dropping it sends SIGTERM, and SIGKILL if the child does not end in time. If
/// this process is killed, the kernel kills the child.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    group: Group,
    /// Time between SIGTERM and SIGKILL.
    grace: Duration,
}

impl Child {
    /// Starts `command`. `grace` is the time from SIGTERM to SIGKILL.
    ///
    /// # Errors
    ///
    /// See [`Command::spawn`].
    pub fn spawn(command: &mut Command, group: Group, grace: Duration) -> io::Result<Child> {
        if group == Group::Own {
            command.process_group(0);
        }
        kill_on_parent_death(command);
        Ok(Child { child: command.spawn()?, group, grace })
    }

    /// Takes the child's standard output and standard error, if both are pipes.
    pub fn take_output(&mut self) -> Option<(ChildStdout, ChildStderr)> {
        self.child.stdout.take().zip(self.child.stderr.take())
    }

    /// Returns whether the child is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits up to `time` for the child to end. Returns its exit status if it has ended.
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
        // The PID of a reaped child may have been reused, but the ID of its group is valid as long
        // as the group has members.
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

/// Makes the kernel kill the child when the thread that started it ends.
fn kill_on_parent_death(command: &mut Command) {
    let kill = || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: the closure only makes a system call, which is allowed between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(kill);
    }
}

/// Returns a command that runs `words`, a program and its arguments, with an empty standard input.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}

/// Runs `words`, a program and its arguments, and returns the standard output.
///
/// # Errors
///
/// Fails if the program cannot be started or exits unsuccessfully. In the latter case, the message
/// contains its standard error.
pub fn run(words: &[&str]) -> io::Result<String> {
    let output = command(words).output().map_err(|error| start_error(words[0], &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {}", words.join(" "), message.trim())))
}

/// Adds the name of `program` to the error that occurred when it was started.
pub fn start_error(program: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot start {program}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn exists(pid: &str) -> bool {
        // The command line of a zombie is empty.
        std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|text| !text.is_empty())
    }

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + GRACE;
        while !condition() {
            assert!(Instant::now() < end, "timeout: {what}");
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    #[test]
    fn ends_the_process_group_of_the_child() {
        let mut shell = command(&["sh", "-c", "sleep 100 & echo $!; wait"]);
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Child::spawn(&mut shell, Group::Own, GRACE).unwrap();
        let (stdout, _stderr) = child.take_output().unwrap();
        let mut pid = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut pid).unwrap();
        // The command line is empty for a moment while the child of the shell executes sleep.
        wait_until("the child of the shell runs", || exists(&pid));
        drop(child);
        wait_until("the child of the shell has ended", || !exists(&pid));
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
