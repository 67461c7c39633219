//! Installation of updates, one at a time.

use crate::system::boot_files;
use crate::update::error::UpdateError;
use crate::update::rauc::{InstallerProxy, Slot};
use crate::update::report::{FellBack, Offer, Phase, Report, fell_back, running};
use crate::update::{rauc, version};
use futures_util::StreamExt;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// File in the data directory that holds an upload until it is installed. The server's user owns
/// only the `upload` directory. The data directory belongs to root, because it contains the last
/// good configuration.
pub(crate) const UPLOAD: &str = "upload/bundle.raucb";

/// File in the data directory with the last message of `berrymse health` before the fallback.
pub(crate) const HEALTH_ERROR: &str = "health-error";

/// Interval between queries of RAUC's state, in case its completion signal is lost.
pub(crate) const RAUC_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum time for a reply from RAUC while the page waits.
pub(crate) const RAUC_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of updates. It persists across changes to the configuration.
#[derive(Debug, Default)]
pub struct Updater {
    upload: PathBuf,
    health_error: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    phase: Phase,
    /// Received and total size of an upload, in bytes.
    received: (u64, Option<u64>),
    version: Option<String>,
    failure: Option<UpdateError>,
    /// Slots as RAUC last reported them. RAUC does not report them during an installation.
    slots: Vec<Slot>,
    pub(super) offer: Option<Offer>,
    pub(super) check_error: Option<String>,
}

impl Updater {
    /// Creates the updater. `data` is the directory for files that persist across restarts.
    pub fn new(data: &Path) -> Arc<Updater> {
        let (upload, health_error) = (data.join(UPLOAD), data.join(HEALTH_ERROR));
        // A power cut can leave an upload behind.
        let _ = std::fs::remove_file(&upload);
        Arc::new(Updater { upload, health_error, state: Mutex::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last message of `berrymse health` in a new system that failed, or an empty text.
    pub fn health_error(&self) -> String {
        std::fs::read_to_string(&self.health_error).unwrap_or_default()
    }

    /// Returns whether an update is in progress.
    pub fn is_busy(&self) -> bool {
        self.state().phase.is_busy()
    }

    /// Returns whether a new system will run after a restart.
    pub fn is_installed(&self) -> bool {
        self.state().phase == Phase::Installed
    }

    /// Makes the boot loader start `failed`, the system in the other slot, again after a restart.
    ///
    /// # Errors
    ///
    /// RAUC cannot be reached, or cannot change the boot state.
    pub async fn retry(&self, failed: &FellBack) -> Result<(), UpdateError> {
        let rauc = rauc::connect().await.map_err(UpdateError::no_bus)?;
        rauc.mark("active", "other").await.map_err(UpdateError::from_call)?;
        let mut state = self.state();
        (state.phase, state.failure) = (Phase::Installed, None);
        state.version.clone_from(&failed.version);
        Ok(())
    }

    /// Returns the file for an upload.
    pub fn upload(&self) -> &Path {
        &self.upload
    }

    /// Starts an update. Returns `None` if another update is in progress.
    pub fn begin(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.state();
        if state.phase.is_busy() {
            return None;
        }
        state.phase = Phase::Receiving;
        (state.received, state.version, state.failure) = ((0, None), None, None);
        Some(Permit { updater: self.clone(), used: false })
    }

    /// Records the progress of an upload: received and total size, in bytes.
    pub fn received(&self, bytes: u64, of: Option<u64>) {
        self.state().received = (bytes, of);
    }

    /// Checks whether RAUC is available.
    ///
    /// # Errors
    ///
    /// RAUC cannot be reached, or does not reply within 5 s.
    pub async fn available(&self) -> Result<(), UpdateError> {
        let query = async {
            let rauc = rauc::connect().await.map_err(UpdateError::no_bus)?;
            rauc.compatible().await.map_err(UpdateError::from_query)
        };
        let reply = tokio::time::timeout(RAUC_REPLY_TIMEOUT, query).await;
        reply.unwrap_or(Err(UpdateError::RaucTimeout)).map(drop)
    }

    /// Returns the state of updates.
    pub async fn report(&self) -> Report {
        let query = async {
            let rauc = rauc::connect().await.map_err(UpdateError::no_bus)?;
            self.query(&rauc).await.map_err(UpdateError::from_query)
        };
        let error = match tokio::time::timeout(RAUC_REPLY_TIMEOUT, query).await {
            Ok(Ok(report)) => return report,
            Ok(Err(error)) => error,
            Err(_) => UpdateError::RaucTimeout,
        };
        let known = self.known();
        let error = match error {
            // RAUC was running before, so init restarts it.
            UpdateError::NoRauc if !known.slots.is_empty() => UpdateError::RaucRestarting,
            error => error,
        };
        Report { why: Some(error.to_string()), ..known }
    }

    /// Returns the state of updates without querying RAUC.
    fn known(&self) -> Report {
        let state = self.state();
        let mut report = Report {
            state: state.phase,
            installing: state.version.clone(),
            offer: state.offer.clone(),
            check_error: state.check_error.clone(),
            slots: state.slots.clone(),
            ..Report::default()
        };
        if let Some(failure) = &state.failure {
            report.error = Some(failure.to_string());
            report.detail = failure.detail().map(String::from);
        }
        report.progress = match state.phase {
            Phase::Receiving => {
                let (bytes, of) = state.received;
                of.map(|of| (bytes * 100 / of.max(1)) as i32)
            }
            Phase::Installed => Some(100),
            _ => None,
        };
        report
    }

    async fn query(&self, rauc: &InstallerProxy<'_>) -> zbus::Result<Report> {
        // Read the local state before RAUC's, so that the slots include a system that was just
        // installed.
        let known = self.known();
        let compatible = rauc.compatible().await?;
        let operation = rauc.operation().await?;
        let (percent, step, _) = rauc.progress().await?;
        let last_error = rauc.last_error().await?;
        let mut slots = known.slots;
        if operation == "idle"
            && let Ok(now) = rauc::slots(rauc).await
        {
            self.state().slots.clone_from(&now);
            slots = now;
        }
        let mut report = Report {
            available: true,
            version: Some(running(&slots)),
            compatible: Some(compatible),
            fell_back: fell_back(&slots, &self.health_error),
            boot_files: boot_files::report(),
            slots,
            ..known
        };
        if report.state == Phase::Idle && report.error.is_none() {
            // The update was started by another program, or this program has restarted since.
            if operation == "installing" {
                report.state = Phase::Installing;
            } else if !last_error.is_empty() {
                report.error = Some(rauc::explain(&last_error).into());
                report.detail = Some(last_error);
            }
        }
        if report.state == Phase::Installing {
            // 100 is left over from the inspection, or means that the installation has ended.
            report.progress = Some(percent).filter(|percent| *percent < 100);
            report.step = Some(step);
        }
        Ok(report)
    }

    /// Starts installing the bundle at `source`, a path or URL, in the background.
    pub fn install(permit: Permit, source: String, downgrade: bool) {
        tokio::spawn(async move { permit.install(&source, downgrade).await });
    }

    async fn try_install(&self, source: &str, downgrade: bool) -> Result<(), UpdateError> {
        let rauc = rauc::connect().await.map_err(UpdateError::no_bus)?;
        let slots = rauc::slots(&rauc).await.map_err(UpdateError::from_call)?;
        let bundle = rauc::inspect(&rauc, source).await.map_err(UpdateError::from_call)?;
        self.state().version = bundle.version.clone();
        let machine = rauc.compatible().await.map_err(UpdateError::from_call)?;
        if bundle.compatible != machine {
            return Err(UpdateError::WrongDevice { bundle: bundle.compatible, machine });
        }
        check_version(bundle.version.as_deref(), &running(&slots), downgrade)?;
        self.state().phase = Phase::Installing;
        let mut completed = rauc.receive_completed().await.map_err(UpdateError::from_call)?;
        let owner_changes = rauc.inner().receive_owner_changed().await;
        let mut owner_changes = owner_changes.map_err(UpdateError::from_call)?;
        log::info!("installing version {}", bundle.version.unwrap_or_default());
        let started = rauc.install_bundle(source, Default::default()).await;
        started.map_err(UpdateError::from_call)?;
        let mut idle_polls = 0;
        let result = loop {
            tokio::select! {
                done = completed.next() => {
                    if let Some(done) = done.as_ref().and_then(|done| done.args().ok()) {
                        break done.result;
                    }
                }
                // RAUC exited. After a restart, it reports neither this update nor an error.
                Some(_) = owner_changes.next() => return Err(UpdateError::RaucCrashed),
                _ = tokio::time::sleep(RAUC_POLL_INTERVAL) => {}
            }
            let operation = rauc.operation().await.map_err(|error| match error {
                error if rauc::is_absent(&error) => UpdateError::RaucCrashed,
                error => UpdateError::from_call(error),
            })?;
            // The signal may have been lost.
            match operation.as_str() {
                "idle" if idle_polls > 1 => {
                    break i32::from(!rauc.last_error().await.unwrap_or_default().is_empty());
                }
                "idle" => idle_polls += 1,
                _ => idle_polls = 0,
            }
        };
        match result {
            0 => Ok(()),
            _ => {
                let detail = rauc.last_error().await.unwrap_or_default();
                Err(UpdateError::Rauc { detail, error: None })
            }
        }
    }

    fn finish(&self, result: Result<(), UpdateError>) {
        let _ = std::fs::remove_file(&self.upload);
        let mut state = self.state();
        state.phase = match &result {
            Ok(()) => Phase::Installed,
            Err(_) => Phase::Failed,
        };
        match &result {
            Ok(()) => log::info!("update installed: restart the machine to use it"),
            Err(failure) => log::error!(
                "update failed: {failure}{}",
                failure.detail().map(|detail| format!(" ({detail})")).unwrap_or_default()
            ),
        }
        state.failure = result.err();
    }
}

/// Permission to perform one update. Dropping it unused makes the update fail.
pub struct Permit {
    updater: Arc<Updater>,
    used: bool,
}

impl Permit {
    /// Installs the bundle at `source`, a path or URL. Returns whether that succeeded.
    pub(super) async fn install(mut self, source: &str, downgrade: bool) -> bool {
        self.updater.state().phase = Phase::Checking;
        let result = self.updater.try_install(source, downgrade).await;
        let installed = result.is_ok();
        self.end(result);
        installed
    }

    /// Ends the update with the error `message`.
    pub fn fail(mut self, message: &str) {
        self.end(Err(UpdateError::Upload(message.into())));
    }

    /// Ends the update without a result.
    pub fn give_back(mut self) {
        self.used = true;
        self.updater.state().phase = Phase::Idle;
    }

    fn end(&mut self, result: Result<(), UpdateError>) {
        self.used = true;
        self.updater.finish(result);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.used {
            self.updater.finish(Err(UpdateError::UploadEnded));
        }
    }
}

/// Checks whether a bundle of `version` may replace `running`.
pub(crate) fn check_version(
    version: Option<&str>,
    running: &str,
    downgrade: bool,
) -> Result<(), UpdateError> {
    match version {
        _ if downgrade => Ok(()),
        None => Err(UpdateError::NoVersion),
        Some(version) if version::compare(version, running) == Ordering::Less => {
            Err(UpdateError::Older { version: version.into(), running: running.into() })
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_older_and_missing_versions_unless_downgrades_are_allowed() {
        assert!(check_version(Some("1.2"), "1.2", false).is_ok());
        assert!(check_version(Some("1.10"), "1.9", false).is_ok());
        let error = check_version(Some("1.1"), "1.2", false).unwrap_err().to_string();
        assert!(error.contains("1.1, which is older than the running 1.2"), "{error}");
        assert!(check_version(Some("1.1"), "1.2", true).is_ok());
        assert!(matches!(check_version(None, "1.2", false), Err(UpdateError::NoVersion)));
    }
}
