//! Automatic checks for updates, and automatic installation in a time window.
//!
//! `[update] url` names the announcement, a small JSON file (see
//! [`announcement`](super::announcement)). The announcement only says that a bundle exists: the
//! version and the signature in the bundle determine whether it is installed.

use crate::config;
use crate::config::{Check, Install};
use crate::fetch::fetch;
use crate::system::boot_files::{self, Phase as BootFiles};
use crate::system::helper::ask;
use crate::update::announcement::{Announcement, parse};
use crate::update::error::UpdateError;
use crate::update::report::{Offer, Phase, running};
use crate::update::updater::Updater;
use crate::update::version;
use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Maximum time from startup to the first check. The time is random, so that a thousand machines do
/// not send their requests in the same second after a power failure.
const FIRST_CHECK_WITHIN: Duration = Duration::from_secs(30 * 60);

/// Minimum time between checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(23 * 3600);

/// Maximum random time added to the interval.
const MAX_CHECK_DELAY: Duration = Duration::from_secs(2 * 3600);

/// Maximum random time from the start of the window to the start of an installation.
const MAX_START_DELAY: Duration = Duration::from_secs(20 * 60);

/// Checks for updates and installs them as configured. `helper` is the socket of the root helper,
/// which restarts the machine after an installation.
pub async fn run(updater: Arc<Updater>, config: config::Update, helper: PathBuf) {
    let Some(url) = config.url.filter(|_| config.check == Check::Daily) else { return };
    let mut wait = random_up_to(FIRST_CHECK_WITHIN);
    loop {
        tokio::time::sleep(wait).await;
        match updater.check_for_update(&url).await {
            Ok(Some(offer)) => {
                log::info!("version {} is available: {}", offer.version, offer.url);
                if config.install == Install::Auto && updater.is_new(&offer).await {
                    wait_for_window(config.window).await;
                    if updater.install_offer(offer).await {
                        restart(helper.clone()).await;
                    }
                }
            }
            Ok(None) => log::debug!("no newer version is available"),
            Err(error) => log::warn!("cannot check for a newer version: {error}"),
        }
        // A new system has updated the boot files, and this restart completes its update.
        let waits =
            || boot_files::report().is_some_and(|report| report.state == BootFiles::Waiting);
        if config.install == Install::Auto && waits() {
            wait_for_window(config.window).await;
            log::info!("restarting the machine to use the new boot files");
            restart(helper.clone()).await;
        }
        wait = CHECK_INTERVAL + random_up_to(MAX_CHECK_DELAY);
    }
}

async fn restart(helper: PathBuf) {
    let result = tokio::task::spawn_blocking(move || ask(&helper, "reboot", "")).await;
    if let Ok(Err(error)) = result {
        log::error!("cannot restart the machine after the update: {error}");
    }
}

impl Updater {
    /// Checks whether the announcement at `url` names a newer version.
    ///
    /// # Errors
    ///
    /// The announcement cannot be fetched or is invalid.
    pub async fn check_for_update(&self, url: &str) -> Result<Option<Offer>, UpdateError> {
        let announced = match fetch(url).await {
            Ok(text) => parse(&text, url),
            Err(error) => Err(UpdateError::Fetch(error)),
        };
        let report = self.report().await;
        let running = report.version.unwrap_or_else(|| running(&report.slots));
        let mut state = self.state();
        match announced {
            Ok(Announcement { version, url }) => {
                let is_newer = version::compare(&version, &running) == Ordering::Greater;
                state.check_error = None;
                state.offer = is_newer.then_some(Offer { version, url });
                Ok(state.offer.clone())
            }
            Err(error) => {
                state.check_error = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Returns whether the offer is neither installed already nor known to have failed.
    async fn is_new(&self, offer: &Offer) -> bool {
        let report = self.report().await;
        let failed = report.fell_back.and_then(|failed| failed.version);
        let installed = report.installing.filter(|_| report.state == Phase::Installed);
        let is_offer = |version: Option<String>| version.as_deref() == Some(&offer.version);
        report.available && !is_offer(failed) && !is_offer(installed)
    }

    /// Installs the offer. Returns whether that succeeded.
    async fn install_offer(self: &Arc<Self>, offer: Offer) -> bool {
        match self.begin() {
            // Install in a separate task, so that a new configuration does not interrupt it.
            Some(permit) => {
                let task = tokio::spawn(async move { permit.install(&offer.url, false).await });
                task.await.unwrap_or_default()
            }
            None => false,
        }
    }
}

/// Waits until the local time is in the window, and then for a random time, so that many machines
/// do not install at the same time.
async fn wait_for_window(window: Option<(u16, u16)>) {
    let Some(window) = window else { return };
    if !is_inside(window, minute_of_day()) {
        while !is_inside(window, minute_of_day()) {
            tokio::time::sleep(MINUTE).await;
        }
        tokio::time::sleep(random_up_to(
            MAX_START_DELAY.min(MINUTE * u32::from(length(window)) / 2),
        ))
        .await;
    }
}

/// Returns the local time, in minutes after midnight.
fn minute_of_day() -> u16 {
    let now = jiff::Zoned::now();
    now.hour() as u16 * 60 + now.minute() as u16
}

/// Returns whether `minute` is in a window, which can extend past midnight.
fn is_inside((from, to): (u16, u16), minute: u16) -> bool {
    match from < to {
        true => (from..to).contains(&minute),
        false => minute >= from || minute < to,
    }
}

/// Returns the length of a window, in minutes.
fn length((from, to): (u16, u16)) -> u16 {
    (to + 24 * 60 - from) % (24 * 60)
}

/// Returns a random time from 0 to `max`.
fn random_up_to(max: Duration) -> Duration {
    // The hash maps of the standard library are seeded with random numbers from the system.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    max.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_windows_past_midnight() {
        let night = (23 * 60, 5 * 60);
        for (minute, inside) in
            [(23 * 60, true), (0, true), (299, true), (300, false), (720, false)]
        {
            assert_eq!(is_inside(night, minute), inside, "{minute}");
        }
        assert_eq!(length(night), 360);
        assert!(is_inside((180, 300), 180) && !is_inside((180, 300), 300));
    }

    #[test]
    fn spreads_checks_over_time() {
        let waits: std::collections::BTreeSet<_> =
            (0..100).map(|_| random_up_to(FIRST_CHECK_WITHIN)).collect();
        assert!(waits.len() > 90 && waits.iter().all(|wait| *wait <= FIRST_CHECK_WITHIN));
        assert!(
            *waits.last().unwrap() > FIRST_CHECK_WITHIN / 2
                && *waits.first().unwrap() < FIRST_CHECK_WITHIN / 2
        );
    }
}
