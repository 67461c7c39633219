//! `berrymse apply`: applies the configuration to the machine.

use crate::config::Config;
use crate::config::edit::span_of;
use crate::config::error::{ConfigError, line_column};
use crate::system::error::SystemError;
use crate::system::files::{link, remove, replace, write};
use crate::system::last_good::{keep, load};
use crate::system::mounts::RemountedRw;
use crate::system::preseed::take_over;
use crate::system::wifi::files::wpa_supplicant;
use crate::system::{boot_files, journal, network};
use std::path::{Path, PathBuf};

/// The files that `apply` reads and writes.
#[derive(Debug)]
pub struct Paths {
    /// The configuration file.
    pub config: PathBuf,
    /// The last good configuration.
    pub last_good: PathBuf,
    /// Root directory of all written files, usually `/`.
    pub root: PathBuf,
}

/// The result of [`apply`].
#[derive(Debug, Default)]
pub struct Report {
    /// What was taken over from Raspberry Pi Imager.
    pub notices: Vec<String>,
    /// Errors in the configuration. Everything else in it has been applied.
    pub problems: Vec<String>,
    /// Settings that could not be applied, such as files that could not be written.
    pub failures: Vec<String>,
}

/// Applies as much of the configuration as possible.
pub fn apply(paths: &Paths) -> Report {
    let recovered = journal::recover(&paths.config, &paths.last_good);
    let recovered = recovered.and_then(|_| restore(paths));
    let preseed = take_over(&paths.config, &paths.last_good);
    let found = load(&paths.config, &paths.last_good);
    let mut machine = Machine { root: &paths.root, report: Report::default() };
    machine.check(&paths.config, recovered);
    machine.report.notices = preseed.notices;
    preseed.failures.into_iter().for_each(|error| machine.fail(error));
    machine.report.problems.extend(found.problem);
    machine.report.problems.extend(preseed.problems);
    if let Some(text) = &found.text {
        machine.check(&paths.last_good, keep(&paths.last_good, text));
    }
    machine.names(&found.config);
    machine.network(&found.config);
    machine.ssh(&found.config.system.ssh_keys);
    let text = found.text.unwrap_or_default();
    machine.timezone(&paths.config, &text, found.config.system.timezone.as_deref());
    let problems = machine.report.problems.join("\n");
    match problems.is_empty() {
        true => machine.remove("run/berrymse/config-error"),
        false => machine.write("run/berrymse/config-error", &format!("{problems}\n"), 0o644),
    }
    machine.report
}

/// Restores a configuration that was changed while new boot files were on trial, if the boot loader
/// has since returned to the former ones.
fn restore(paths: &Paths) -> std::io::Result<()> {
    let current = std::fs::read(&paths.config).unwrap_or_default();
    match boot_files::config_after_return(&paths.root, &current) {
        Ok(Some(text)) => {
            let _writable = RemountedRw::new(paths.config.parent().unwrap_or(Path::new("/")))?;
            replace(&paths.config, &text, 0o644)
        }
        Ok(None) => Ok(()),
        Err(error) => Err(std::io::Error::other(error)),
    }
}

struct Machine<'a> {
    root: &'a Path,
    report: Report,
}

impl Machine<'_> {
    fn fail(&mut self, error: SystemError) {
        self.report.failures.push(error.to_string());
    }

    fn check(&mut self, path: &Path, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.fail(SystemError::Write { path: path.into(), error });
        }
    }

    fn write(&mut self, name: &str, text: &str, mode: u32) {
        let path = self.root.join(name);
        self.check(&path, write(&path, text.as_bytes(), mode));
    }

    fn remove(&mut self, name: &str) {
        let path = self.root.join(name);
        self.check(&path, remove(&path));
    }

    fn names(&mut self, config: &Config) {
        let name = config.system.hostname.as_deref().unwrap_or(network::HOSTNAME);
        self.write("etc/hostname", &format!("{name}\n"), 0o644);
        let hosts =
            format!("{}127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost\n", network::HEAD);
        self.write("etc/hosts", &hosts, 0o644);
        if self.root == Path::new("/")
            && let Err(error) = rustix::system::sethostname(name.as_bytes())
        {
            self.fail(SystemError::HostName(error.into()));
        }
    }

    fn network(&mut self, config: &Config) {
        let name = config.system.hostname.as_deref().unwrap_or(network::HOSTNAME);
        let interfaces = network::interfaces(&config.network, name);
        self.write("etc/network/interfaces", &interfaces, 0o644);
        if let Some(servers) = network::resolv_conf(&config.network) {
            self.write("etc/resolv.conf", &servers, 0o644);
        }
        match &config.network.wifi {
            Some(wifi) => {
                self.write("etc/wpa_supplicant.conf", &wpa_supplicant(wifi), 0o600);
            }
            None => self.remove("etc/wpa_supplicant.conf"),
        }
    }

    /// Writes the keys, and the file that enables SSH.
    fn ssh(&mut self, keys: &[String]) {
        if keys.is_empty() {
            self.remove("run/berrymse/ssh");
            self.remove("root/.ssh/authorized_keys");
            return;
        }
        let folder = self.root.join("root/.ssh");
        let created = create_private_folder(&folder);
        self.check(&folder, created);
        let keys: String = keys.iter().map(|key| format!("{}\n", key.trim())).collect();
        self.write("root/.ssh/authorized_keys", &keys, 0o600);
        self.write("run/berrymse/ssh", "", 0o644);
    }

    fn timezone(&mut self, config: &Path, text: &str, zone: Option<&str>) {
        let file = |zone: &str| Path::new("/usr/share/zoneinfo").join(zone);
        let exists = |zone: &str| {
            self.root.join("usr/share/zoneinfo").join(zone).metadata().is_ok_and(|m| m.is_file())
        };
        let mut zone = zone.unwrap_or("UTC");
        let mut found = exists(zone);
        if !found && zone != "UTC" {
            let span = span_of(text, &["system", "timezone"]);
            let error = ConfigError {
                file: config.display().to_string(),
                at: span.map(|span| line_column(text, span.start)),
                message: format!(
                    "unknown time zone {zone:?}: the clock shows UTC until this is corrected"
                ),
            };
            self.report.problems.push(error.to_string());
            zone = "UTC";
            found = exists(zone);
        }
        self.write("etc/timezone", &format!("{zone}\n"), 0o644);
        let localtime = self.root.join("etc/localtime");
        // Without this link, programs use UTC.
        let result = if found { link(&localtime, &file(zone)) } else { remove(&localtime) };
        self.check(&localtime, result);
    }
}

/// Creates a folder that only root can access. sshd and dropbear ignore keys in a folder that other
/// users can write to.
fn create_private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if path.metadata()?.permissions().mode() & 0o777 != 0o700 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
