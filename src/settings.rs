//! Saves and applies a configuration while the program is running.
//!
//! On the appliance, the server runs as a user that may neither write to `/boot` nor restart the
//! machine. `berrymse root-helper` does both for it. On other machines, the server writes the file
//! itself.

use crate::config::remote::{no_new_command, no_new_key};
use crate::config::{Camera, Config, ConfigError, Network, System};
use crate::system::helper::{self, HelperError};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};
use tokio::sync::Notify;

/// The configuration file, and the state needed to change it.
#[derive(Debug, Default)]
pub struct Settings {
    /// Path of the file.
    pub file: PathBuf,
    /// Socket of `berrymse root-helper`. It exists only on the appliance.
    pub helper: PathBuf,
    /// File in which `berrymse wifi` reports its state.
    pub wifi: PathBuf,
    /// Errors in the file, and which configuration is used instead.
    pub problem: Option<String>,
    /// The configuration of the machine when the program started.
    pub at_start: (System, Network),
    /// Whether the current configuration takes full effect only after a restart of the machine.
    pub reboot: bool,
    /// Notified when a new configuration has been saved.
    pub changed: Arc<Notify>,
    /// Held while saving.
    pub writing: tokio::sync::Mutex<()>,
}

/// Why a configuration was not saved.
#[derive(Debug)]
pub enum SaveError {
    /// The file has changed since the client read it.
    Changed,
    /// The new configuration is invalid, or contains something that cannot be added over the
    /// network.
    Invalid(ConfigError),
    /// The file could not be written.
    Write {
        /// Path of the file.
        file: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The root helper failed.
    Helper(HelperError),
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SaveError::Changed => {
                f.write_str("the configuration has changed since it was loaded: load it again")
            }
            SaveError::Invalid(error) => f.write_str(&error.message),
            SaveError::Write { file, error } => write!(
                f,
                "cannot write {}: {error}: edit the file on this machine, or grant write \
                 permission for the file's directory to the user that runs berrymse",
                file.display()
            ),
            SaveError::Helper(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SaveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SaveError::Changed => None,
            SaveError::Invalid(error) => Some(error),
            SaveError::Write { error, .. } => Some(error),
            SaveError::Helper(error) => Some(error),
        }
    }
}

impl From<ConfigError> for SaveError {
    fn from(error: ConfigError) -> SaveError {
        SaveError::Invalid(error)
    }
}

impl Settings {
    /// Returns whether `new` takes effect only after a restart of the machine.
    pub fn needs_restart(&self, new: &Config) -> bool {
        let (system, network) = &self.at_start;
        new.system != *system || new.network.without_wifi() != network.without_wifi()
    }

    /// Returns a version tag for the text of a configuration, as an HTTP entity tag.
    pub fn tag(text: &str) -> String {
        let hash = Sha256::digest(text);
        format!("\"{}\"", hash[..12].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// Edits the current text with `edit`, saves the result, and notifies the server. `expected` is
    /// the tag of the text that the change is based on. `cameras` are the cameras of the running
    /// configuration.
    ///
    /// Returns whether the machine must be restarted for the change to take effect.
    ///
    /// # Errors
    ///
    /// The file is unchanged unless the error is [`SaveError::Write`] or [`SaveError::Helper`]. In
    /// these cases, it contains either the old or the new text, never a mixture.
    pub async fn change(
        &self,
        expected: Option<&str>,
        cameras: &[Camera],
        edit: impl FnOnce(&str) -> Result<String, ConfigError>,
    ) -> Result<bool, SaveError> {
        let _guard = self.writing.lock().await;
        let old = Config::read(&self.file).ok();
        if expected.is_some() && expected != old.as_deref().map(Settings::tag).as_deref() {
            return Err(SaveError::Changed);
        }
        let old = old.unwrap_or_default();
        let text = edit(&old)?;
        let file = self.file.display().to_string();
        let config = Config::parse(&text, &file)?;
        let old = Config::parse(&old, "").unwrap_or_default();
        // If the file is invalid, the running configuration comes from elsewhere.
        no_new_command(&config, old.cameras.iter().chain(cameras), &file)?;
        let keys = old.system.ssh_keys.iter().chain(&self.at_start.0.ssh_keys);
        no_new_key(&text, &config, keys, &file)?;
        self.save(text).await?;
        log::info!("the configuration was changed over the network");
        self.changed.notify_one();
        Ok(self.needs_restart(&config))
    }

    async fn save(&self, text: String) -> Result<(), SaveError> {
        match self.ask_helper("save-config", text.clone()).await {
            Err(HelperError::Absent) => {}
            result => return result.map_err(SaveError::Helper),
        }
        // If the path is a symbolic link, its target is replaced.
        let file = std::fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone());
        let written = tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.metadata().map_or(0o640, |old| old.permissions().mode() & 0o777);
            crate::system::replace(&file, text.as_bytes(), mode)
        });
        let result = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|error| SaveError::Write { file: self.file.clone(), error })
    }

    /// Restarts the machine.
    ///
    /// # Errors
    ///
    /// [`HelperError::Absent`] if this machine is not an appliance, and other errors if the helper
    /// fails.
    pub async fn restart(&self) -> Result<(), HelperError> {
        self.ask_helper("reboot", String::new()).await
    }

    /// Allows a new system to lose the cameras that were recorded before the update.
    ///
    /// # Errors
    ///
    /// See [`Settings::restart`].
    pub async fn require_no_cameras(&self) -> Result<(), HelperError> {
        self.ask_helper("require-no-cameras", String::new()).await
    }

    async fn ask_helper(&self, verb: &'static str, text: String) -> Result<(), HelperError> {
        let socket = self.helper.clone();
        let task = tokio::task::spawn_blocking(move || helper::ask(&socket, verb, &text));
        task.await.unwrap_or_else(|error| Err(HelperError::Failed(error.to_string())))
    }
}
