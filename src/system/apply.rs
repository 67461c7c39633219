//! `berrymse apply`: the configuration becomes the machine's.

use crate::config::Config;
use crate::config::edit::span_of;
use crate::config::error::{ConfigError, line_column};
use crate::system::files::{link, remove, write};
use crate::system::last_good::{keep, load};
use crate::system::wifi::files::wpa_supplicant;
use crate::system::{journal, network};
use std::path::{Path, PathBuf};

/// Where everything is.
#[derive(Debug)]
pub struct Paths {
    /// The configuration.
    pub config: PathBuf,
    /// The last one that was good.
    pub last_good: PathBuf,
    /// What counts as `/` for everything that is written.
    pub root: PathBuf,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong with the configuration. The rest of it has been applied.
    pub problems: Vec<String>,
    /// What could not be written.
    pub failures: Vec<String>,
}

/// Applies the configuration, as much of it as can be.
pub fn apply(paths: &Paths) -> Report {
    let mended = journal::recover(&paths.config, &paths.last_good);
    let found = load(&paths.config, &paths.last_good);
    let mut machine = Machine { root: &paths.root, report: Report::default() };
    machine.check(&paths.config, mended.map(drop));
    machine.report.problems.extend(found.problem);
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

struct Machine<'a> {
    root: &'a Path,
    report: Report,
}

impl Machine<'_> {
    fn check(&mut self, path: &Path, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.report.failures.push(format!("{} cannot be written: {error}", path.display()));
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
            self.report.failures.push(format!("the host name cannot be set: {error}"));
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

    /// The keys, and the mark that SSH is to be started.
    fn ssh(&mut self, keys: &[String]) {
        if keys.is_empty() {
            self.remove("run/berrymse/ssh");
            self.remove("root/.ssh/authorized_keys");
            return;
        }
        let folder = self.root.join("root/.ssh");
        let made = private_folder(&folder);
        self.check(&folder, made);
        let keys: String = keys.iter().map(|key| format!("{}\n", key.trim())).collect();
        self.write("root/.ssh/authorized_keys", &keys, 0o600);
        self.write("run/berrymse/ssh", "", 0o644);
    }

    fn timezone(&mut self, config: &Path, text: &str, zone: Option<&str>) {
        let file = |zone: &str| Path::new("/usr/share/zoneinfo").join(zone);
        let is_there = |zone: &str| {
            self.root.join("usr/share/zoneinfo").join(zone).metadata().is_ok_and(|m| m.is_file())
        };
        let mut zone = zone.unwrap_or("UTC");
        let mut there = is_there(zone);
        if !there && zone != "UTC" {
            let span = span_of(text, &["system", "timezone"]);
            let error = ConfigError {
                file: config.display().to_string(),
                at: span.map(|span| line_column(text, span.start)),
                message: format!(
                    "this machine knows no time zone {zone:?}: until that is mended, its clock \
                     shows UTC"
                ),
            };
            self.report.problems.push(error.to_string());
            zone = "UTC";
            there = is_there(zone);
        }
        self.write("etc/timezone", &format!("{zone}\n"), 0o644);
        let localtime = self.root.join("etc/localtime");
        // Without that link, UTC is what everybody takes.
        let result = if there { link(&localtime, &file(zone)) } else { remove(&localtime) };
        self.check(&localtime, result);
    }
}

/// sshd and dropbear refuse keys in a folder that others may write to.
fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if path.metadata()?.permissions().mode() & 0o777 != 0o700 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
