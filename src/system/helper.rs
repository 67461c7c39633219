//! What only root may do: writing to /boot, and restarting the machine.
//!
//! The server runs as a user of its own, who may do neither. `berrymse root-helper` runs as root and
//! does these two things and nothing else, for whoever may open its socket. One request a
//! connection: a line with the verb, then the text, to the end; one line comes back, `ok` or
//! `error …`.
//!
//! ```text
//! save-config⏎ [server]⏎ …      ─► validated again, kept as the last good one, written to /boot
//! reboot⏎                       ─► files written out, machine restarted
//! ```

use crate::config::remote::no_new_key;
use crate::config::{Config, MAX_CONFIG};
use crate::system::files::replace;
use crate::system::journal;
use crate::system::last_good::{keep, load};
use crate::system::mounts::RemountedRw;
use rustix::fs::Mode;
use rustix::process::umask;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Writing to a worn card takes seconds; nothing takes this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for the answer to reach a browser before the machine goes down.
const REPLY_GRACE: Duration = Duration::from_millis(500);

/// Why the helper did not do what it was asked to.
#[derive(Debug)]
pub enum HelperError {
    /// This machine has no helper.
    Absent,
    /// The helper does not answer.
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The helper refused or failed; its message.
    Failed(String),
}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HelperError::Absent => {
                f.write_str("this machine cannot be restarted from here: only the appliance can")
            }
            HelperError::Unreachable { socket, error } => {
                write!(f, "the root helper behind {} does not answer: {error}", socket.display())
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

/// Asks the helper behind `socket`, and waits for its answer.
///
/// # Errors
///
/// [`HelperError::Absent`] if there is no socket; it then does nothing.
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
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer =
        exchange().map_err(|error| HelperError::Unreachable { socket: socket.into(), error })?;
    match answer.trim() {
        "ok" => Ok(()),
        answer => Err(HelperError::Failed(answer.strip_prefix("error ").unwrap_or(answer).into())),
    }
}

/// The helper.
#[derive(Debug)]
pub struct Helper {
    /// The configuration that it writes.
    pub config: PathBuf,
    /// Where it keeps the last good copy.
    pub last_good: PathBuf,
    /// What `apply` found wrong: void once there is a new configuration.
    pub config_error: PathBuf,
    /// Restarts the machine.
    pub reboot: fn() -> Result<(), String>,
}

impl Helper {
    /// Listens on `socket`, for root and for `group`. Returns only when it can't.
    pub fn run(&self, socket: &Path, group: Option<&str>) -> Result<(), String> {
        let listener = listen(socket, group)
            .map_err(|error| format!("{} cannot be made: {error}", socket.display()))?;
        loop {
            // One after the other: two saves at a time would be one too many.
            let answered = listener.accept().and_then(|(stream, _)| self.answer(stream));
            if let Err(error) = answered {
                log::warn!("a request to the helper: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// One connection.
    fn answer(&self, mut stream: UnixStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
        let mut request = String::new();
        (&stream).take(MAX_CONFIG as u64 + 64).read_to_string(&mut request)?;
        let (verb, text) = request.split_once('\n').unwrap_or((&request, ""));
        let result = match verb {
            "save-config" => self.save(text),
            "reboot" => Ok(()),
            verb => Err(format!("there is no {verb:?} here")),
        };
        match &result {
            Ok(()) => log::info!("{verb}: done as asked"),
            Err(error) => log::error!("{verb}: {error}"),
        }
        let answer = match &result {
            Ok(()) => "ok\n".into(),
            Err(error) => format!("error {}\n", error.replace('\n', " ")),
        };
        stream.write_all(answer.as_bytes())?;
        drop(stream);
        if verb == "reboot" {
            std::thread::sleep(REPLY_GRACE);
            (self.reboot)().map_err(std::io::Error::other)?;
        }
        Ok(())
    }

    fn save(&self, text: &str) -> Result<(), String> {
        // Whoever asks may be somebody who has taken the server over.
        let new = Config::parse(text, "berrymse.toml").map_err(|error| error.to_string())?;
        let now = load(&self.config, &self.last_good).config;
        no_new_key(text, &new, now.system.ssh_keys.iter(), "").map_err(|error| error.message)?;
        let cannot = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| format!("{path} cannot be written: {error}")
        };
        // First where a power cut does no harm.
        journal::begin(&self.config, &self.last_good).map_err(cannot(&self.last_good))?;
        let result = (|| {
            keep(&self.last_good, text).map_err(cannot(&self.last_good))?;
            let folder = self.config.parent().unwrap_or(Path::new("/"));
            let _writable = RemountedRw::make(folder).map_err(cannot(folder))?;
            replace(&self.config, text.as_bytes(), 0o644).map_err(cannot(&self.config))
        })();
        journal::commit(&self.last_good).map_err(cannot(&self.last_good))?;
        result?;
        let _ = super::files::remove(&self.config_error);
        Ok(())
    }
}

fn listen(socket: &Path, group: Option<&str>) -> std::io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    super::files::remove(socket)?;
    // Nobody may come in before the group is set.
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(socket);
    umask(before);
    if let Some(group) = group {
        std::os::unix::fs::chown(socket, None, Some(group_id(group)?))?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))?;
    }
    listener
}

/// group(5): `name:password:number:members`.
fn group_id(name: &str) -> std::io::Result<u32> {
    let groups = std::fs::read_to_string("/etc/group")?;
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    number.ok_or_else(|| std::io::Error::new(ErrorKind::NotFound, format!("no group {name:?}")))
}

/// Restarts the machine. By init, which ends the programs first and keeps the time and the log: a machine
/// without a clock would be earlier after its restart than before. If init has not within a minute (it takes
/// seconds, also on a busy machine), all the same.
pub fn reboot() -> Result<(), String> {
    match std::process::Command::new("reboot").status() {
        Ok(status) if status.success() => std::thread::sleep(Duration::from_secs(60)),
        Ok(status) => log::warn!("reboot has ended with {status}"),
        Err(error) => log::warn!("reboot cannot be run: {error}"),
    }
    rustix::fs::sync();
    let command = rustix::system::RebootCommand::Restart;
    rustix::system::reboot(command).map_err(|error| format!("it cannot be restarted: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn it_does_what_it_is_there_for_and_nothing_else() {
        static REBOOTED: AtomicBool = AtomicBool::new(false);
        let folder = std::env::temp_dir().join(format!("berrymse-helper-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("boot")).unwrap();
        let helper = Helper {
            config: folder.join("boot/berrymse.toml"),
            last_good: folder.join("data/berrymse.toml"),
            config_error: folder.join("config-error"),
            reboot: || {
                REBOOTED.store(true, Ordering::SeqCst);
                Ok(())
            },
        };
        std::fs::write(&helper.config_error, "old").unwrap();
        let (config, last_good) = (helper.config.clone(), helper.last_good.clone());
        let config_error = helper.config_error.clone();
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
        for (verb, broken, says) in [
            ("save-config", "[srever]\n", "berrymse.toml:1:2: no such key"),
            ("save-config", "[system]\nssh_keys = ['ssh-rsa AAAA']\n", "new SSH key"),
            ("rm -r /", "", "there is no"),
            ("", "", "there is no"),
        ] {
            let Err(HelperError::Failed(why)) = ask(&socket, verb, broken) else {
                panic!("{verb}")
            };
            assert!(why.contains(says), "{why}");
        }
        assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
        assert!(!REBOOTED.load(Ordering::SeqCst));
        assert!(ask(&socket, "reboot", "").is_ok());
        while !REBOOTED.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn groups_by_name() {
        assert_eq!(group_id("root").unwrap(), 0);
        assert!(group_id("no such group").is_err());
    }
}
