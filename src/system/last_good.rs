//! The configuration that counts when the file is broken: the last good copy, or the one as shipped.

use crate::config::Config;
use crate::config::error::ConfigError;
use crate::paths;
use crate::system::files::write;
use std::path::{Path, PathBuf};

/// The file that every image starts with.
const SHIPPED: &str = include_str!("../../appliance/berrymse.toml");

/// The configuration that counts.
#[derive(Debug)]
pub struct Found {
    /// What is obeyed.
    pub config: Config,
    /// The file that it was looked for in, where there is one.
    pub file: Option<PathBuf>,
    /// The file's own text, where that is what is obeyed.
    pub text: Option<String>,
    /// What is wrong with the file, and what is obeyed in its place.
    pub problem: Option<String>,
}

/// Reads `file`; when it is missing or broken, the copy in `last_good`; when there is none, the
/// configuration as shipped, but without a camera: whoever asked for a password is not to be shown
/// without one for a typo.
pub fn load(file: &Path, last_good: &Path) -> Found {
    let found = |config, text, problem| Found { config, file: Some(file.into()), text, problem };
    let read = |path: &Path| {
        let text = Config::read(path)?;
        let file = path.display().to_string();
        // A valid configuration, but nobody's: what a card that was pulled out leaves of it.
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
        Ok((config, _)) => (config, "the last good one is in force"),
        Err(_) => (as_shipped(), "there is no camera, and the router is asked for an address"),
    };
    found(config, None, Some(format!("{error}\nUntil that is mended, {instead}.")))
}

/// What `apply` found wrong at the machine's start, beyond the file itself.
pub fn problem_at_start() -> Option<String> {
    let text = std::fs::read_to_string(paths::CONFIG_ERROR).ok()?;
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

/// The configuration as shipped, without a camera.
pub fn as_shipped() -> Config {
    let shipped = Config::parse(SHIPPED, "berrymse.toml").unwrap_or_default();
    Config { cameras: vec![], ..shipped }
}

/// Keeps `text` as the last good configuration, for whoever its folder is for: there are passwords
/// in it.
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
    fn as_shipped_the_page_is_where_people_look_for_it() {
        let config = as_shipped();
        assert_eq!(config.server.listen.port(), 80);
        assert_eq!(config.cameras, []);
    }
}
