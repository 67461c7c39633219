//! The fallback for an invalid configuration file: the last good copy, or the configuration as
//! shipped.

use crate::config::Config;
use crate::config::error::ConfigError;
use crate::paths;
use crate::system::files::write;
use std::path::{Path, PathBuf};

/// The configuration file of a new image.
const SHIPPED: &str = include_str!("../../appliance/berrymse.toml");

/// The active configuration, and where it comes from.
#[derive(Debug)]
pub struct Found {
    /// The configuration.
    pub config: Config,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// The text of the file, if the configuration comes from the file.
    pub text: Option<String>,
    /// The error in the file, and which configuration is used instead.
    pub problem: Option<String>,
}

/// Loads `file`. If it is missing or invalid, loads the copy in `last_good`. If that also fails,
/// returns the configuration as shipped, but without a camera: a typo must not expose the video of
/// a camera that was protected by a password.
pub fn load(file: &Path, last_good: &Path) -> Found {
    let found = |config, text, problem| Found { config, file: Some(file.into()), text, problem };
    let read = |path: &Path| {
        let text = Config::read(path)?;
        let file = path.display().to_string();
        // An empty file is valid, but not intended: removing the card too early can leave one behind.
        if text.trim_matches(|c: char| c.is_whitespace() || c == '\0').is_empty() {
            return Err(ConfigError { file, at: None, message: "the file is empty".into() });
        }
        let config = Config::parse(&text, &file)?;
        Ok::<_, ConfigError>((config, text))
    };
    let error = match read(file) {
        Ok((config, text)) => return found(config, Some(text), None),
        Err(error) => error,
    };
    let (config, instead) = match read(last_good) {
        Ok((config, _)) => (config, "the last good configuration is used"),
        Err(_) => (as_shipped(), "no camera is configured, and the address comes from DHCP"),
    };
    found(config, None, Some(format!("{error}\nUntil this is corrected, {instead}.")))
}

/// Returns `problem`, found by [`load`], with the errors that `berrymse apply` found when the machine
/// started. `apply` also detects errors that [`load`] does not, such as an unknown time zone.
pub fn with_problems_at_start(problem: Option<String>) -> Option<String> {
    let text = std::fs::read_to_string(paths::CONFIG_ERROR).ok();
    combined(problem, text.map(|text| text.trim().to_string()).filter(|text| !text.is_empty()))
}

/// The errors at startup usually include the one of the file. Otherwise, the file has been changed
/// since then, and only its own error is current.
fn combined(problem: Option<String>, at_start: Option<String>) -> Option<String> {
    match (problem, at_start) {
        (Some(problem), Some(all)) if all.contains(&problem) => Some(all),
        (problem, all) => problem.or(all),
    }
}

/// Returns the configuration as shipped, without a camera.
pub fn as_shipped() -> Config {
    let shipped = Config::parse(SHIPPED, "berrymse.toml").unwrap_or_default();
    Config { cameras: vec![], ..shipped }
}

/// Stores `text` as the last good configuration. Only the file's owner and the group of its
/// directory can read it, because it contains passwords.
pub(crate) fn keep(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    write(path, text.as_bytes(), 0o640)?;
    let Some(folder) = path.parent() else { return Ok(()) };
    let group = folder.metadata()?.gid();
    if path.metadata()?.gid() != group {
        std::os::unix::fs::lchown(path, None, Some(group))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_the_errors_at_startup_with_that_of_the_file() {
        let text = |text: &str| Some(text.to_string());
        assert_eq!(combined(text("a"), text("a\nb")), text("a\nb"));
        assert_eq!(combined(text("new"), text("old\nb")), text("new"));
        assert_eq!(combined(None, text("b")), text("b"));
        assert_eq!(combined(text("a"), None), text("a"));
        assert_eq!(combined(None, None), None);
    }

    #[test]
    fn shipped_configuration_listens_on_port_80_without_a_camera() {
        let config = as_shipped();
        assert_eq!(config.server.listen.port(), 80);
        assert_eq!(config.cameras, []);
    }
}
