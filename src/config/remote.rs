//! Settings that cannot be changed over the network.

use super::edit::span_of;
use super::error::line_column;
use super::{Camera, Config, ConfigError, Source};

/// Rejects camera commands that are not already configured, because they would run as the server's
/// user.
///
/// # Errors
///
/// A camera has a new command. The error names the camera.
pub fn no_new_command<'a>(
    new: &Config,
    known: impl Iterator<Item = &'a Camera> + Clone,
    file: &str,
) -> Result<(), ConfigError> {
    for camera in &new.cameras {
        if let Some(Source::Command(_)) = &camera.source
            && !known.clone().any(|known| known.source == camera.source)
        {
            let message = format!(
                "camera {:?} has a new command: commands cannot be set over the network; add it to \
                 {file} on the machine itself",
                camera.name
            );
            return Err(ConfigError::new(message, None).in_file(file));
        }
    }
    Ok(())
}

/// Rejects SSH keys that are not already configured, because they would allow logging in as root.
///
/// # Errors
///
/// The text contains a new key. The error has the position of the list of keys.
pub fn no_new_key<'a>(
    text: &str,
    new: &Config,
    known: impl Iterator<Item = &'a String> + Clone,
    file: &str,
) -> Result<(), ConfigError> {
    if new.system.ssh_keys.iter().all(|key| known.clone().any(|known| known == key)) {
        return Ok(());
    }
    let at = span_of(text, &["system", "ssh_keys"]).map(|span| line_column(text, span.start));
    let message =
        "new SSH key: keys cannot be added over the network; add it to the file on the card";
    Err(ConfigError::new(message, at).in_file(file))
}
