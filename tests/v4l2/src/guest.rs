//! Helpers for the guest: programs, kernel modules, device nodes and panic messages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Maximum time to wait for a condition, on the guest's clock, which runs fast while the guest is
/// idle. Only a failing test waits this long.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Interval between checks of a condition.
pub const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Calls `look` until it returns a value. Panics with `what` after [`TIMEOUT`].
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_at_most(TIMEOUT, what, look)
}

/// Like [`wait_for`], with a time limit that is part of the test.
pub fn wait_at_most<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "{what}: did not happen within {limit:?}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

static PANICS: Mutex<Vec<String>> = Mutex::new(vec![]);

/// Records the messages of all later panics, in any thread.
pub fn record_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(|at| format!(" ({}:{})", at.file(), at.line()));
        let what = panic.payload_as_str().unwrap_or("a panic");
        PANICS.lock().unwrap().push(format!("{what}{}", at.unwrap_or_default()));
    }));
}

/// Returns and removes the recorded panic messages.
pub fn take_panics() -> String {
    std::mem::take(&mut *PANICS.lock().unwrap()).join("\n    ")
}

/// Returns a command that is ready to start.
pub fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a program and returns its result.
pub fn output(name: &str, arguments: &[&str]) -> Output {
    program(name, arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a program, which must succeed. Returns its standard output.
pub fn run(name: &str, arguments: &[&str]) -> String {
    let output = output(name, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {}: {stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A loaded kernel module. Unloaded on drop.
pub struct Module(&'static str);

impl Module {
    /// Loads a module and its dependencies from the modules that `ci/stage/v4l2` has added to the
    /// guest.
    pub fn load(name: &'static str, parameters: &[&str]) -> Module {
        let folder = Path::new("/modules");
        let needed = fs::read_to_string(folder.join(name)).unwrap();
        for file in needed.lines() {
            let module = file.trim_end_matches(".ko");
            if Path::new("/sys/module").join(module.replace('-', "_")).exists() {
                continue;
            }
            let path = folder.join(file);
            let mut arguments = vec![path.to_str().unwrap()];
            if module == name {
                arguments.extend(parameters);
            }
            run("insmod", &arguments);
        }
        settle();
        Module(name)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let output = output("rmmod", &[self.0]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || std::thread::panicking(), "rmmod {}: {stderr}", self.0);
    }
}

/// Waits until udev has created all links.
pub fn settle() {
    run("udevadm", &["settle"]);
}

/// Waits for a link to a device node in `/dev/v4l/by-id` or `by-path`, and returns its path.
pub fn link(folder: &str, name_part: &str) -> PathBuf {
    let folder = Path::new("/dev/v4l").join(folder);
    wait_for(&format!("a link with {name_part} in {}", folder.display()), || {
        fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            // udev creates the link as .#NAME and then renames it.
            !name.starts_with('.') && name.contains(name_part) && path.canonicalize().is_ok()
        })
    })
}

/// Waits for the device node of a camera, and returns its path.
pub fn node(serial: &str) -> PathBuf {
    let link = link("by-id", &format!("_{serial}-video-index0"));
    wait_for("the link's node", || link.canonicalize().ok())
}
