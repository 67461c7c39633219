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

use super::apply::keep;
use super::files::replace;
use super::last_good::load;
use super::saving;
use crate::config::{Config, MAX_CONFIG, line_column, place};
use rustix::fs::{Mode, StatVfsMountFlags, statvfs};
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::umask;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the helper is spoken to.
pub const SOCKET: &str = "/run/berrymse/root";

/// Writing to a worn card takes seconds; nothing takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for the answer to reach a browser before the machine goes down.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why nothing was done.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no helper on this machine.
    NoHelper,
    /// In words.
    Because(String),
}

/// Asks the helper behind `socket`. Waits for its answer.
pub fn ask(socket: &Path, verb: &str, text: &str) -> Result<(), Refused> {
    if !socket.exists() {
        return Err(Refused::NoHelper);
    }
    let exchange = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{verb}\n{text}").as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let because = |error: std::io::Error| {
        let (socket, error) = (socket.display(), error);
        Refused::Because(format!("the helper behind {socket} does not answer: {error}"))
    };
    match exchange().map_err(because)?.trim() {
        "ok" => Ok(()),
        answer => {
            let answer = answer.strip_prefix("error ").unwrap_or(answer);
            Err(Refused::Because(answer.into()))
        }
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
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
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
            std::thread::sleep(LAST_WORDS);
            (self.reboot)().map_err(std::io::Error::other)?;
        }
        Ok(())
    }

    fn save(&self, text: &str) -> Result<(), String> {
        // Whoever asks may be somebody who has taken the server over.
        let new = Config::parse(text, "berrymse.toml").map_err(|error| error.to_string())?;
        let now = load(&self.config, &self.last_good).config;
        no_new_key(text, &new, &now.system.ssh_keys).map_err(|(why, _)| why)?;
        let cannot = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| format!("{path} cannot be written: {error}")
        };
        // First where a power cut does no harm.
        saving::begin(&self.config, &self.last_good).map_err(cannot(&self.last_good))?;
        let result = (|| {
            keep(&self.last_good, text).map_err(cannot(&self.last_good))?;
            let folder = self.config.parent().unwrap_or(Path::new("/"));
            let _writable = Writable::make(folder).map_err(cannot(folder))?;
            replace(&self.config, text.as_bytes(), 0o644).map_err(cannot(&self.config))
        })();
        saving::end(&self.last_good).map_err(cannot(&self.last_good))?;
        result?;
        let _ = super::files::remove(&self.config_error);
        Ok(())
    }
}

/// SSH keys are root's, so they come from whoever holds the card, and never from the network. The
/// error says where a new one stands.
pub fn no_new_key(
    text: &str,
    new: &Config,
    known: &[String],
) -> Result<(), (String, Option<(usize, usize)>)> {
    if new.system.ssh_keys.iter().all(|key| known.contains(key)) {
        return Ok(());
    }
    let at = place(text, &["system", "ssh_keys"]).map(|place| line_column(text, place.start));
    let why = "a new SSH key: who may log in is never taken from the network; write it into the \
               file on the card";
    Err((why.into(), at))
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

/// A file system that is usually mounted read-only, writable until this is dropped.
pub(super) struct Writable<'a> {
    folder: &'a Path,
    before: Option<MountFlags>,
}

impl Writable<'_> {
    pub(super) fn make(folder: &Path) -> std::io::Result<Writable<'_>> {
        let now = statvfs(folder)?.f_flag;
        if !now.contains(StatVfsMountFlags::RDONLY) {
            return Ok(Writable { folder, before: None });
        }
        // All of them, or they would be taken away.
        let mut before = MountFlags::RDONLY;
        for (is, flag) in [
            (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
            (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
            (StatVfsMountFlags::SYNCHRONOUS, MountFlags::SYNCHRONOUS),
        ] {
            before.set(flag, now.contains(is));
        }
        mount_remount(folder, before - MountFlags::RDONLY, "")?;
        Ok(Writable { folder, before: Some(before) })
    }
}

impl Drop for Writable<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before
            && let Err(error) = mount_remount(self.folder, before, "")
        {
            log::error!("{} stays writable: {error}", self.folder.display());
        }
    }
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
        assert_eq!(ask(&socket, "reboot", ""), Err(Refused::NoHelper));
        let at = socket.clone();
        std::thread::spawn(move || helper.run(&at, None));
        while UnixStream::connect(&socket).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mode = socket.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let text = "# kept\n[server]\nlisten = \"0.0.0.0:80\"\n";
        assert_eq!(ask(&socket, "save-config", text), Ok(()));
        assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
        assert_eq!(std::fs::read_to_string(&last_good).unwrap(), text);
        assert!(!config_error.exists());
        for (verb, broken, says) in [
            ("save-config", "[srever]\n", "berrymse.toml:1:2: no such key"),
            ("save-config", "[system]\nssh_keys = ['ssh-rsa AAAA']\n", "a new SSH key"),
            ("rm -r /", "", "there is no"),
            ("", "", "there is no"),
        ] {
            let Err(Refused::Because(why)) = ask(&socket, verb, broken) else { panic!("{verb}") };
            assert!(why.contains(says), "{why}");
        }
        assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
        assert!(!REBOOTED.load(Ordering::SeqCst));
        assert_eq!(ask(&socket, "reboot", ""), Ok(()));
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
