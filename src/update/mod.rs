//! Updates of the whole system, through RAUC (rauc.io).
//!
//! RAUC checks signatures, writes the slot that does not run and tells the boot loader to start it
//! next. Here is what is around that: a bundle comes as an upload or from an address, its version
//! is compared with the running one, progress and errors are told in plain words. Whether the new
//! system is kept is decided after its start, by `berrymse health`.
//!
//! ```text
//! upload ──► file on /data ─┐
//!                           ├─► looked into ──► version newer? ──► installed ──► restart
//! address ──────────────────┘   (signature)
//! ```

pub mod check;
pub mod rauc;
pub mod version;

use futures_util::StreamExt;
use rauc::{InstallerProxy, Slot};
use serde::Serialize;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where the appliance keeps what outlives an update.
pub const DATA: &str = "/data/berrymse";

/// In it: an upload, until it is installed. The folder is the server's own; the one above is root's,
/// because the last good configuration lies there.
const UPLOAD: &str = "upload/bundle.raucb";

/// In it: what `berrymse health` said last before a system was given up.
const HEALTH_ERROR: &str = "health-error";

/// How often RAUC is asked whether it still works, should it not say when it is done.
const LOOK: Duration = Duration::from_secs(2);

/// A question that everybody waits for on the page.
const ANSWER: Duration = Duration::from_secs(5);

/// What is being done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// A bundle is being uploaded.
    Receiving,
    /// RAUC looks into it.
    Checking,
    /// RAUC writes it.
    Installing,
    /// It will run after a restart.
    Installed,
    /// It went wrong.
    Failed,
}

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
            error if rauc::is_absent(error) => Failure::new(ABSENT),
            error if rauc::has_ended(error) => Failure::new(BROKE_OFF),
            error => Failure::from_words(rauc::said(error)),
        }
    }

    fn from_words(detail: String) -> Failure {
        Failure { message: rauc::plain_words(&detail).into(), detail: Some(detail) }
    }
}

const ABSENT: &str = "RAUC does not run here: only the appliance is updated this way";

/// It was there before: the appliance's init starts it again.
const STOPPED: &str =
    "RAUC, which installs the updates, has stopped: it is started again in a moment";

/// Reading a damaged block of a bundle may end it, where it has mapped the bundle into its memory.
const BROKE_OFF: &str = "RAUC stopped in the middle of the update, as it may if the update is damaged: \
                         the running system is as it was; download the update again";

/// A newer version that was announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Its version.
    pub version: String,
    /// The bundle.
    pub url: String,
}

/// The new system did not prove itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FellBack {
    /// Its version.
    pub version: Option<String>,
    /// What is known of it.
    pub why: String,
}

/// All there is to say, for `GET /api/update`.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// This machine can be updated.
    pub available: bool,
    /// Why it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The running system's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The kind of device that bundles must be for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compatible: Option<String>,
    /// What is being done.
    pub state: Phase,
    /// How far that is, per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<i32>,
    /// RAUC's word for where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The version that is being installed or has been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installing: Option<String>,
    /// What went wrong, in plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As RAUC says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The systems that there are.
    pub slots: Vec<Slot>,
    /// The last update did not prove itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fell_back: Option<FellBack>,
    /// A newer version is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// Why that could not be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_error: Option<String>,
}

/// Updates, from one configuration to the next.
#[derive(Debug, Default)]
pub struct Updater {
    upload: PathBuf,
    health_error: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Bytes of an upload: those that came, and all of them.
    received: (u64, Option<u64>),
    version: Option<String>,
    failure: Option<Failure>,
    /// As they were last seen: RAUC does not tell while it installs.
    slots: Vec<Slot>,
    offer: Option<Offer>,
    check_error: Option<String>,
}

impl Updater {
    /// With what is to outlive them in `data`.
    pub fn new(data: &Path) -> Arc<Updater> {
        let (upload, health_error) = (data.join(UPLOAD), data.join(HEALTH_ERROR));
        // What a power cut has left.
        let _ = std::fs::remove_file(&upload);
        Arc::new(Updater { upload, health_error, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
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
        let asked = async { rauc::connect().await?.compatible().await.map_err(why_not) };
        let late = |_| Err("RAUC does not answer".into());
        tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(late).map(drop)
    }

    /// All there is to say.
    pub async fn report(&self) -> Report {
        let asked = async {
            let rauc = rauc::connect().await?;
            self.ask(&rauc).await.map_err(why_not)
        };
        let why = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(report)) => return report,
            Ok(Err(why)) => why,
            Err(_) => "RAUC does not answer".into(),
        };
        let known = self.known();
        let was_there = !known.slots.is_empty();
        let why = if was_there && why == ABSENT { STOPPED.into() } else { why };
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
        may_follow(bundle.version.as_deref(), &running(&slots), downgrade).map_err(Failure::new)?;
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
                Some(_) = ends.next() => return Err(Failure::new(BROKE_OFF)),
                _ = tokio::time::sleep(LOOK) => {}
            }
            let operation =
                rauc.operation().await.map_err(|error| match rauc::is_absent(&error) {
                    true => Failure::new(BROKE_OFF),
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

fn why_not(error: zbus::Error) -> String {
    match rauc::is_absent(&error) {
        true => ABSENT.into(),
        false => rauc::said(&error),
    }
}

/// The right to update. Dropped without having been used, the update has failed.
pub struct Permit {
    updater: Arc<Updater>,
    used: bool,
}

impl Permit {
    async fn install(mut self, source: &str, downgrade: bool) -> bool {
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
fn may_follow(version: Option<&str>, running: &str, downgrade: bool) -> Result<(), String> {
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

/// The version of the system that runs.
fn running(slots: &[Slot]) -> String {
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    image_version(&os_release)
        .or_else(|| slots.iter().find(|slot| slot.booted)?.version.clone())
        .unwrap_or_else(|| env!("CARGO_PKG_VERSION").into())
}

/// os-release(5): `IMAGE_VERSION="1.2.3"`.
fn image_version(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    let value = value.trim().trim_matches(['"', '\'']);
    Some(value.to_string()).filter(|value| !value.is_empty())
}

/// The newest system is not the one that runs, and is not started any more.
fn fell_back(slots: &[Slot], why: &Path) -> Option<FellBack> {
    let booted = slots.iter().find(|slot| slot.booted)?;
    let newer =
        |slot: &&Slot| !slot.booted && slot.state == "bad" && slot.installed > booted.installed;
    let bad = slots.iter().find(newer)?;
    let why = std::fs::read_to_string(why).unwrap_or_default();
    let why = match why.trim() {
        "" => "it did not start, or its cameras delivered no picture in time",
        why => why,
    };
    Some(FellBack { version: bad.version.clone(), why: why.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(bootname: &str, booted: bool, state: &str, installed: Option<&str>) -> Slot {
        Slot {
            name: format!("rootfs.{bootname}"),
            bootname: bootname.into(),
            booted,
            primary: booted,
            state: state.into(),
            version: Some("2.0".into()),
            installed: installed.map(String::from),
        }
    }

    #[test]
    fn only_a_newer_system_that_is_given_up_has_fallen_back() {
        let why = Path::new("/nonexistent");
        let (old, new) = (Some("2026-01-01T00:00:00Z"), Some("2026-02-01T00:00:00Z"));
        let fell = |a, b| fell_back(&[a, b], why).is_some();
        assert!(fell(slot("A", true, "good", old), slot("B", false, "bad", new)));
        assert!(fell(slot("A", true, "good", None), slot("B", false, "bad", new)));
        // Installed, and not started yet.
        assert!(!fell(slot("A", true, "good", old), slot("B", false, "good", new)));
        // The card has never had a second system.
        assert!(!fell(slot("A", true, "good", None), slot("B", false, "bad", None)));
        // The old one was given up later.
        assert!(!fell(slot("A", false, "bad", old), slot("B", true, "good", new)));
    }

    #[test]
    fn a_rauc_that_ends_instead_of_answering_broke_off() {
        let said = "Message recipient disconnected from message bus without replying";
        let error = zbus::Error::FDO(Box::new(zbus::fdo::Error::NoReply(said.into())));
        assert_eq!(Failure::of_rauc(&error), Failure::new(BROKE_OFF));
    }

    #[test]
    fn older_versions_and_none_need_to_be_asked_for() {
        assert!(may_follow(Some("1.2"), "1.2", false).is_ok());
        assert!(may_follow(Some("1.10"), "1.9", false).is_ok());
        assert!(may_follow(Some("1.1"), "1.2", false).unwrap_err().contains("older than 1.2"));
        assert!(may_follow(Some("1.1"), "1.2", true).is_ok());
        assert!(may_follow(None, "1.2", false).unwrap_err().contains("version"));
    }

    #[test]
    fn the_image_says_its_version() {
        let version = |text| image_version(text);
        assert_eq!(version("NAME=x\nIMAGE_VERSION=\"1.2\"\n").as_deref(), Some("1.2"));
        assert_eq!(version("NAME=x\nVERSION=1\nIMAGE_VERSION=\n"), None);
    }
}
