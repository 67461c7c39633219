//! The root helper: saves the configuration on `/boot`, allows an update to lose cameras, and
//! restarts the machine.
//!
//! The server runs as a separate user, which has permission for none of these. `berrymse root-helper`
//! runs as root and performs only these tasks, for any process that can connect to its socket.
//! Each connection carries one request: a line with the verb, then the text up to the end of the
//! stream. The reply is one line, `ok` or `error …`.
//!
//! ```text
//! save-config⏎ [server]⏎ …      ─► validate again, store as last good copy, write to /boot
//! require-no-cameras⏎           ─► empty the records of the cameras that a new system must show
//! reboot⏎                       ─► sync the file systems, restart the machine
//! ```

use crate::config::remote::no_new_key;
use crate::config::{Config, ConfigError, MAX_CONFIG};
use crate::system::boot_lock::BootLock;
use crate::system::camera_record::require_no_cameras;
use crate::system::error::SystemError;
use crate::system::journal;
use crate::system::last_good::load;
use rustix::fs::Mode;
use rustix::process::umask;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Timeout for reading a request or writing a reply. Writing to a worn card takes several seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for the reply to reach the browser before the machine shuts down.
const REPLY_GRACE: Duration = Duration::from_millis(500);

/// Why a request to the helper failed.
#[derive(Debug)]
pub enum HelperError {
    /// This machine has no helper.
    Absent,
    /// The helper does not respond.
    Unreachable {
        /// The socket of the helper.
        socket: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The helper rejected the request, or failed. Holds its message.
    Failed(String),
}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HelperError::Absent => {
                f.write_str("this machine does not support this: only an appliance does")
            }
            HelperError::Unreachable { socket, error } => {
                write!(f, "the root helper at {} does not respond: {error}", socket.display())
            }
            HelperError::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for HelperError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HelperError::Unreachable { error, .. } => Some(error),
            HelperError::Absent | HelperError::Failed(_) => None,
        }
    }
}

/// Sends a request to the helper at `socket`, and waits for the reply.
///
/// # Errors
///
/// [`HelperError::Absent`] if the socket does not exist, [`HelperError::Unreachable`] if the helper
/// does not reply within 30 s, [`HelperError::Failed`] if it rejects the request.
pub fn ask(socket: &Path, verb: &str, text: &str) -> Result<(), HelperError> {
    if !socket.exists() {
        return Err(HelperError::Absent);
    }
    let exchange = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
        stream.write_all(format!("{verb}\n{text}").as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut reply = String::new();
        stream.take(4096).read_to_string(&mut reply)?;
        Ok(reply)
    };
    let reply =
        exchange().map_err(|error| HelperError::Unreachable { socket: socket.into(), error })?;
    match reply.trim() {
        "ok" => Ok(()),
        reply => Err(HelperError::Failed(reply.strip_prefix("error ").unwrap_or(reply).into())),
    }
}

/// The root helper.
#[derive(Debug)]
pub struct Helper {
    /// The configuration file that it writes.
    pub config: PathBuf,
    /// The last good copy.
    pub last_good: PathBuf,
    /// The file with the errors that `apply` found. Deleted when a new configuration is saved.
    pub config_error: PathBuf,
    /// Lock on the boot partition.
    pub boot_lock: PathBuf,
    /// Exists while the mounted boot partition is not the one that the next start uses.
    pub boot_moved: PathBuf,
    /// Restarts the machine.
    pub reboot: fn() -> Result<(), SystemError>,
}

impl Helper {
    /// Serves requests from root and from the members of `group` on `socket`. Returns only on
    /// error.
    ///
    /// # Errors
    ///
    /// [`SystemError::Listen`] if the socket cannot be created.
    pub fn run(&self, socket: &Path, group: Option<&str>) -> Result<(), SystemError> {
        let listener = listen(socket, group)
            .map_err(|error| SystemError::Listen { socket: socket.into(), error })?;
        loop {
            // One at a time: saves must not overlap.
            let result = listener.accept().and_then(|(stream, _)| self.handle(stream));
            if let Err(error) = result {
                log::warn!("helper request failed: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Handles one connection.
    fn handle(&self, mut stream: UnixStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
        let mut request = String::new();
        (&stream).take(MAX_CONFIG as u64 + 64).read_to_string(&mut request)?;
        let (verb, text) = request.split_once('\n').unwrap_or((&request, ""));
        let result = match verb {
            "save-config" => self.save(text),
            "require-no-cameras" => self.require_no_cameras(),
            "reboot" => Ok(()),
            verb => Err(SystemError::UnknownRequest(verb.into())),
        };
        match &result {
            Ok(()) => log::info!("{verb}: done"),
            Err(error) => log::error!("{verb}: {error}"),
        }
        let reply = match &result {
            Ok(()) => "ok\n".into(),
            Err(error) => format!("error {}\n", error.to_string().replace('\n', " ")),
        };
        stream.write_all(reply.as_bytes())?;
        drop(stream);
        if verb == "reboot" {
            std::thread::sleep(REPLY_GRACE);
            (self.reboot)().map_err(std::io::Error::other)?;
        }
        Ok(())
    }

    fn require_no_cameras(&self) -> Result<(), SystemError> {
        // The last good copy is in the data directory.
        let data = self.last_good.parent().unwrap_or(Path::new("/"));
        require_no_cameras(data).map_err(|error| SystemError::Write { path: data.into(), error })
    }

    fn save(&self, text: &str) -> Result<(), SystemError> {
        // Check again: an attacker may control the server.
        let new = Config::parse(text, "berrymse.toml")?;
        let current = load(&self.config, &self.last_good).config;
        no_new_key(text, &new, current.system.ssh_keys.iter(), "")
            .map_err(|error| ConfigError::new(error.message, None))?;
        let lock = |error| SystemError::Write { path: self.boot_lock.clone(), error };
        let _lock = BootLock::acquire(&self.boot_lock).map_err(lock)?;
        if self.boot_moved.exists() {
            return Err(SystemError::BootMoved);
        }
        journal::save(&self.config, &self.last_good, text)?;
        let _ = super::files::remove(&self.config_error);
        Ok(())
    }
}

fn listen(socket: &Path, group: Option<&str>) -> std::io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    super::files::remove(socket)?;
    // No access for others until the group is set.
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(socket);
    umask(before);
    if let Some(group) = group {
        std::os::unix::fs::chown(socket, None, Some(group_id(group)?))?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))?;
    }
    listener
}

/// Returns the ID of a group (group(5): `name:password:GID:members`).
fn group_id(name: &str) -> std::io::Result<u32> {
    let groups = std::fs::read_to_string("/etc/group")?;
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    number
        .ok_or_else(|| std::io::Error::new(ErrorKind::NotFound, format!("unknown group {name:?}")))
}

/// Restarts the machine.
///
/// First asks init to restart the machine. Init stops all programs and saves the log and the time:
/// without a real-time clock, the time would otherwise go backwards. Init needs only a few seconds,
/// even on a busy machine. If init has not restarted the machine after one minute, restarts it
/// directly.
///
/// # Errors
///
/// [`SystemError::Reboot`] if the kernel refuses, for example because this process is not root.
pub fn reboot() -> Result<(), SystemError> {
    match std::process::Command::new("reboot").status() {
        Ok(status) if status.success() => std::thread::sleep(Duration::from_secs(60)),
        Ok(status) => log::warn!("reboot failed: {status}"),
        Err(error) => log::warn!("cannot run reboot: {error}"),
    }
    rustix::fs::sync();
    let command = rustix::system::RebootCommand::Restart;
    rustix::system::reboot(command).map_err(|error| SystemError::Reboot(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::camera_record::{CameraRecords, RecordedCamera, Slot};
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn handles_its_requests_and_rejects_all_others() {
        static REBOOTED: AtomicBool = AtomicBool::new(false);
        let folder = std::env::temp_dir().join(format!("berrymse-helper-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("boot")).unwrap();
        let helper = Helper {
            config: folder.join("boot/berrymse.toml"),
            last_good: folder.join("data/berrymse.toml"),
            config_error: folder.join("config-error"),
            boot_lock: folder.join("run/boot.lock"),
            boot_moved: folder.join("run/boot-moved"),
            reboot: || {
                REBOOTED.store(true, Ordering::SeqCst);
                Ok(())
            },
        };
        std::fs::write(&helper.config_error, "old").unwrap();
        let (config, last_good) = (helper.config.clone(), helper.last_good.clone());
        let (config_error, boot_moved) = (helper.config_error.clone(), helper.boot_moved.clone());
        let socket = folder.join("run/root");
        assert!(matches!(ask(&socket, "reboot", ""), Err(HelperError::Absent)));
        let at = socket.clone();
        std::thread::spawn(move || helper.run(&at, None));
        while UnixStream::connect(&socket).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mode = socket.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let text = "# kept\n[server]\nlisten = \"0.0.0.0:80\"\n";
        assert!(ask(&socket, "save-config", text).is_ok());
        assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
        assert_eq!(std::fs::read_to_string(&last_good).unwrap(), text);
        assert!(!config_error.exists());
        // The boot partition has moved, but the former one is still mounted.
        std::fs::write(&boot_moved, "").unwrap();
        let Err(HelperError::Failed(message)) = ask(&socket, "save-config", "[server]\n") else {
            panic!("saved in the former boot partition")
        };
        assert!(message.contains("restart"), "{message}");
        std::fs::remove_file(&boot_moved).unwrap();
        assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
        for (verb, text, expected) in [
            ("save-config", "[srever]\n", "berrymse.toml:1:2: no such key"),
            ("save-config", "[system]\nssh_keys = ['ssh-rsa AAAA']\n", "new SSH key"),
            ("rm -r /", "", "unknown request \"rm -r /\""),
            ("", "", "unknown request \"\""),
        ] {
            let Err(HelperError::Failed(message)) = ask(&socket, verb, text) else {
                panic!("{verb}")
            };
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(std::fs::read_to_string(&config).unwrap(), text);

        std::fs::create_dir_all(folder.join("data/state")).unwrap();
        let records = CameraRecords::new(&folder.join("data"), Some(Slot::A));
        let camera = RecordedCamera { name: "front".into(), kind: "v4l2".into() };
        records.save(vec![camera]).unwrap();
        assert!(ask(&socket, "require-no-cameras", "").is_ok());
        assert_eq!(records.before_update(), Some(vec![]));

        assert!(!REBOOTED.load(Ordering::SeqCst));
        assert!(ask(&socket, "reboot", "").is_ok());
        while !REBOOTED.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn finds_groups_by_name() {
        assert_eq!(group_id("root").unwrap(), 0);
        assert!(group_id("no such group").is_err());
    }
}
