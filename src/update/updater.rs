//! Installs updates, one at a time.

use crate::update::rauc::{InstallerProxy, Slot};
use crate::update::report::{Offer, Phase, Report, fell_back, running};
use crate::update::{rauc, version};
use futures_util::StreamExt;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// In it: an upload, until it is installed. The folder is the server's own; the one above is root's,
/// because the last good configuration lies there.
pub(crate) const UPLOAD: &str = "upload/bundle.raucb";

/// In it: what `berrymse health` said last before a system was given up.
pub(crate) const HEALTH_ERROR: &str = "health-error";

/// How often RAUC is asked whether it still works, should it not say when it is done.
pub(crate) const RAUC_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// A question that everybody waits for on the page.
pub(crate) const RAUC_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no new system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In plain words.
    pub message: String,
    /// As RAUC says it.
    pub detail: Option<String>,
}

impl Failure {
    fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), detail: None }
    }

    fn of_rauc(error: &zbus::Error) -> Failure {
        match error {
            error if rauc::is_absent(error) => Failure::new(RAUC_ABSENT),
            error if rauc::has_ended(error) => Failure::new(RAUC_CRASHED),
            error => Failure::from_words(rauc::said(error)),
        }
    }

    fn from_words(detail: String) -> Failure {
        Failure { message: rauc::plain_words(&detail).into(), detail: Some(detail) }
    }
}

pub(crate) const RAUC_ABSENT: &str =
    "RAUC does not run here: only the appliance is updated this way";

/// It was there before: the appliance's init starts it again.
pub(crate) const RAUC_RESTARTING: &str =
    "RAUC, which installs the updates, has stopped: it is started again in a moment";

/// Reading a damaged block of a bundle may end it, where it has mapped the bundle into its memory.
const RAUC_CRASHED: &str = "RAUC stopped in the middle of the update, as it may if the update is damaged: \
                         the running system is as it was; download the update again";

/// Updates, from one configuration to the next.
#[derive(Debug, Default)]
pub struct Updater {
    upload: PathBuf,
    health_error: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    phase: Phase,
    /// Bytes of an upload: those that came, and all of them.
    received: (u64, Option<u64>),
    version: Option<String>,
    failure: Option<Failure>,
    /// As they were last seen: RAUC does not tell while it installs.
    slots: Vec<Slot>,
    pub(super) offer: Option<Offer>,
    pub(super) check_error: Option<String>,
}

impl Updater {
    /// With what is to outlive them in `data`.
    pub fn new(data: &Path) -> Arc<Updater> {
        let (upload, health_error) = (data.join(UPLOAD), data.join(HEALTH_ERROR));
        // What a power cut has left.
        let _ = std::fs::remove_file(&upload);
        Arc::new(Updater { upload, health_error, state: Mutex::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an upload is to be written.
    pub fn upload(&self) -> &Path {
        &self.upload
    }

    /// The right to update: one at a time. `None`: somebody else has it.
    pub fn begin(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.state();
        if matches!(state.phase, Phase::Receiving | Phase::Checking | Phase::Installing) {
            return None;
        }
        state.phase = Phase::Receiving;
        (state.received, state.version, state.failure) = ((0, None), None, None);
        Some(Permit { updater: self.clone(), used: false })
    }

    /// So much of an upload is there.
    pub fn received(&self, bytes: u64, of: Option<u64>) {
        self.state().received = (bytes, of);
    }

    /// Whether RAUC is there. The error says why it is not.
    pub async fn available(&self) -> Result<(), String> {
        let asked = async { rauc::connect().await?.compatible().await.map_err(describe_error) };
        let late = |_| Err("RAUC does not answer".into());
        tokio::time::timeout(RAUC_REPLY_TIMEOUT, asked).await.unwrap_or_else(late).map(drop)
    }

    /// All there is to say.
    pub async fn report(&self) -> Report {
        let asked = async {
            let rauc = rauc::connect().await?;
            self.ask(&rauc).await.map_err(describe_error)
        };
        let why = match tokio::time::timeout(RAUC_REPLY_TIMEOUT, asked).await {
            Ok(Ok(report)) => return report,
            Ok(Err(why)) => why,
            Err(_) => "RAUC does not answer".into(),
        };
        let known = self.known();
        let was_there = !known.slots.is_empty();
        let why = if was_there && why == RAUC_ABSENT { RAUC_RESTARTING.into() } else { why };
        Report { why: Some(why), ..known }
    }

    /// What there is to say without asking anybody.
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
            report.error = Some(failure.message.clone());
            report.detail = failure.detail.clone();
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

    async fn ask(&self, rauc: &InstallerProxy<'_>) -> zbus::Result<Report> {
        // First what was done here, then what RAUC says: so a system that is installed is among the slots.
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
            slots,
            ..known
        };
        if report.state == Phase::Idle && report.error.is_none() {
            // Somebody installs by other means, or did before this program was started anew.
            if operation == "installing" {
                report.state = Phase::Installing;
            } else if !last_error.is_empty() {
                report.error = Some(rauc::plain_words(&last_error).into());
                report.detail = Some(last_error);
            }
        }
        if report.state == Phase::Installing {
            // 100 is still that of looking into the bundle, or already the end.
            report.progress = Some(percent).filter(|percent| *percent < 100);
            report.step = Some(step);
        }
        Ok(report)
    }

    /// Installs what is at `source`, a path or an address. Goes on by itself.
    pub fn install(permit: Permit, source: String, downgrade: bool) {
        tokio::spawn(async move { permit.install(&source, downgrade).await });
    }

    async fn try_install(&self, source: &str, downgrade: bool) -> Result<(), Failure> {
        let of_rauc = |error: zbus::Error| Failure::of_rauc(&error);
        let rauc = rauc::connect().await.map_err(Failure::new)?;
        let slots = rauc::slots(&rauc).await.map_err(of_rauc)?;
        let bundle = rauc::inspect(&rauc, source).await.map_err(of_rauc)?;
        self.state().version = bundle.version.clone();
        let own = rauc.compatible().await.map_err(of_rauc)?;
        if bundle.compatible != own {
            let other = bundle.compatible;
            return Err(Failure::new(format!(
                "the update is for another device: for {other:?}, and this is {own:?}"
            )));
        }
        check_version(bundle.version.as_deref(), &running(&slots), downgrade)
            .map_err(Failure::new)?;
        self.state().phase = Phase::Installing;
        let mut completed = rauc.receive_completed().await.map_err(of_rauc)?;
        let mut ends = rauc.inner().receive_owner_changed().await.map_err(of_rauc)?;
        log::info!("installing version {}", bundle.version.unwrap_or_default());
        rauc.install_bundle(source, Default::default()).await.map_err(of_rauc)?;
        let mut idle = 0;
        let result = loop {
            tokio::select! {
                done = completed.next() => {
                    if let Some(done) = done.as_ref().and_then(|done| done.args().ok()) {
                        break done.result;
                    }
                }
                // The next one, which init starts, knows nothing of this update and of no error.
                Some(_) = ends.next() => return Err(Failure::new(RAUC_CRASHED)),
                _ = tokio::time::sleep(RAUC_POLL_INTERVAL) => {}
            }
            let operation =
                rauc.operation().await.map_err(|error| match rauc::is_absent(&error) {
                    true => Failure::new(RAUC_CRASHED),
                    false => of_rauc(error),
                })?;
            // Its word may have been missed.
            match operation.as_str() {
                "idle" if idle > 1 => {
                    break i32::from(!rauc.last_error().await.unwrap_or_default().is_empty());
                }
                "idle" => idle += 1,
                _ => idle = 0,
            }
        };
        match result {
            0 => Ok(()),
            _ => Err(Failure::from_words(rauc.last_error().await.unwrap_or_default())),
        }
    }

    fn finish(&self, result: Result<(), Failure>) {
        let _ = std::fs::remove_file(&self.upload);
        let mut state = self.state();
        state.phase = match &result {
            Ok(()) => Phase::Installed,
            Err(_) => Phase::Failed,
        };
        match &result {
            Ok(()) => log::info!("the update is installed: it runs after a restart"),
            Err(failure) => log::error!(
                "no update: {}{}",
                failure.message,
                failure.detail.as_ref().map(|said| format!(" ({said})")).unwrap_or_default()
            ),
        }
        state.failure = result.err();
    }
}

pub(crate) fn describe_error(error: zbus::Error) -> String {
    match rauc::is_absent(&error) {
        true => RAUC_ABSENT.into(),
        false => rauc::said(&error),
    }
}

/// The right to update. Dropped without having been used, the update has failed.
pub struct Permit {
    updater: Arc<Updater>,
    used: bool,
}

impl Permit {
    pub(super) async fn install(mut self, source: &str, downgrade: bool) -> bool {
        self.updater.state().phase = Phase::Checking;
        let result = self.updater.try_install(source, downgrade).await;
        let good = result.is_ok();
        self.end(result);
        good
    }

    /// It has failed.
    pub fn fail(mut self, message: &str) {
        self.end(Err(Failure::new(message)));
    }

    /// Nothing was to be done.
    pub fn give_back(mut self) {
        self.used = true;
        self.updater.state().phase = Phase::Idle;
    }

    fn end(&mut self, result: Result<(), Failure>) {
        self.used = true;
        self.updater.finish(result);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.used {
            self.updater.finish(Err(Failure::new("the upload ended early: try it again")));
        }
    }
}

/// Whether a bundle of `version` may be installed where `running` runs. The error says why not.
pub(crate) fn check_version(
    version: Option<&str>,
    running: &str,
    downgrade: bool,
) -> Result<(), String> {
    match version {
        _ if downgrade => Ok(()),
        None => Err("the update does not say its version: it is installed only if downgrades are \
                     allowed"
            .into()),
        Some(version) if version::compare(version, running) == Ordering::Less => Err(format!(
            "the update's version, {version}, is older than {running}, which runs: it is installed \
             only if downgrades are allowed"
        )),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rauc_that_ends_instead_of_answering_broke_off() {
        let said = "Message recipient disconnected from message bus without replying";
        let error = zbus::Error::FDO(Box::new(zbus::fdo::Error::NoReply(said.into())));
        assert_eq!(Failure::of_rauc(&error), Failure::new(RAUC_CRASHED));
    }

    #[test]
    fn older_versions_and_none_need_to_be_asked_for() {
        assert!(check_version(Some("1.2"), "1.2", false).is_ok());
        assert!(check_version(Some("1.10"), "1.9", false).is_ok());
        assert!(check_version(Some("1.1"), "1.2", false).unwrap_err().contains("older than 1.2"));
        assert!(check_version(Some("1.1"), "1.2", true).is_ok());
        assert!(check_version(None, "1.2", false).unwrap_err().contains("version"));
    }
}
