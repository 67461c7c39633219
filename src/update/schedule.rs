//! Looking for a newer version by itself, and installing it at night.
//!
//! `[update] url` names a small JSON file: `{"version": "1.3.0", "url": "berrymse-1.3.0.raucb"}`.
//! The bundle's own version and signature are what counts in the end; this file only says that
//! there is something to look at.

use crate::config;
use crate::config::{Check, Install};
use crate::fetch::fetch;
use crate::system::helper::ask;
use crate::update::announcement::read;
use crate::update::report::Offer;
use crate::update::report::{Phase, running};
use crate::update::updater::Updater;
use crate::update::version;
use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// The first look comes within this time after the start: when the power comes back, a thousand
/// machines must not ask in the same second.
const FIRST_CHECK_WITHIN: Duration = Duration::from_secs(30 * 60);

/// From one look to the next, and up to so much more.
const CHECK_INTERVAL: (Duration, Duration) =
    (Duration::from_secs(23 * 3600), Duration::from_secs(2 * 3600));

/// How long after the window's start an installation begins, at the most.
const MAX_START_DELAY: Duration = Duration::from_secs(20 * 60);

/// Looks and installs as `config` says. `helper` restarts the machine once a new system is there.
pub async fn run(updater: Arc<Updater>, config: config::Update, helper: PathBuf) {
    let Some(url) = config.url.filter(|_| config.check == Check::Daily) else { return };
    let mut wait = up_to(FIRST_CHECK_WITHIN);
    loop {
        tokio::time::sleep(wait).await;
        match updater.look(&url).await {
            Ok(Some(offer)) => {
                log::info!("version {} is there: {}", offer.version, offer.url);
                if config.install == Install::Auto && updater.is_new(&offer).await {
                    wait_for(config.window).await;
                    if updater.install_offer(offer).await {
                        restart(helper.clone()).await;
                    }
                }
            }
            Ok(None) => log::debug!("no newer version is there"),
            Err(why) => log::warn!("whether there is a newer version is not known: {why}"),
        }
        wait = CHECK_INTERVAL.0 + up_to(CHECK_INTERVAL.1);
    }
}

async fn restart(helper: PathBuf) {
    let asked = tokio::task::spawn_blocking(move || ask(&helper, "reboot", "")).await;
    if let Ok(Err(why)) = asked {
        log::error!("the machine was not restarted for the update: {why:?}");
    }
}

impl Updater {
    /// Asks whether there is a newer version.
    pub async fn look(&self, url: &str) -> Result<Option<Offer>, String> {
        let found = match fetch(url).await {
            Ok(text) => read(&text, url),
            Err(error) => Err(error.to_string()),
        };
        let now = self.report().await;
        let running = now.version.unwrap_or_else(|| running(&now.slots));
        let mut state = self.state();
        match found {
            Ok(manifest) => {
                let newer = version::compare(&manifest.version, &running) == Ordering::Greater;
                state.check_error = None;
                state.offer =
                    newer.then_some(Offer { version: manifest.version, url: manifest.url });
                Ok(state.offer.clone())
            }
            Err(why) => {
                state.check_error = Some(why.clone());
                Err(why)
            }
        }
    }

    /// Not one that has been installed and waits for a restart, and not one that has failed.
    async fn is_new(&self, offer: &Offer) -> bool {
        let report = self.report().await;
        let fell_back = report.fell_back.and_then(|fell| fell.version);
        let waiting = report.installing.filter(|_| report.state == Phase::Installed);
        let known = |version: Option<String>| version.as_deref() == Some(&offer.version);
        report.available && !known(fell_back) && !known(waiting)
    }

    /// Whether it is installed now.
    async fn install_offer(self: &Arc<Self>, offer: Offer) -> bool {
        match self.begin() {
            // On its own: a new configuration does not stop what RAUC has begun.
            Some(permit) => {
                let task = tokio::spawn(async move { permit.install(&offer.url, false).await });
                task.await.unwrap_or_default()
            }
            None => false,
        }
    }
}

/// Waits until the local time is inside of the window, and some minutes more.
async fn wait_for(window: Option<(u16, u16)>) {
    let Some(window) = window else { return };
    if !is_inside(window, minute_of_day()) {
        while !is_inside(window, minute_of_day()) {
            tokio::time::sleep(MINUTE).await;
        }
        tokio::time::sleep(up_to(MAX_START_DELAY.min(MINUTE * u32::from(length(window)) / 2)))
            .await;
    }
}

fn minute_of_day() -> u16 {
    let now = jiff::Zoned::now();
    now.hour() as u16 * 60 + now.minute() as u16
}

/// Windows may go past midnight.
fn is_inside((from, to): (u16, u16), minute: u16) -> bool {
    match from < to {
        true => (from..to).contains(&minute),
        false => minute >= from || minute < to,
    }
}

fn length((from, to): (u16, u16)) -> u16 {
    (to + 24 * 60 - from) % (24 * 60)
}

/// Any time up to `most`.
fn up_to(most: Duration) -> Duration {
    // The standard library's hash maps are seeded from the system's randomness.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    most.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_may_go_past_midnight() {
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
    fn not_everybody_at_once() {
        let waits: std::collections::BTreeSet<_> =
            (0..100).map(|_| up_to(FIRST_CHECK_WITHIN)).collect();
        assert!(waits.len() > 90 && waits.iter().all(|wait| *wait <= FIRST_CHECK_WITHIN));
        assert!(
            *waits.last().unwrap() > FIRST_CHECK_WITHIN / 2
                && *waits.first().unwrap() < FIRST_CHECK_WITHIN / 2
        );
    }
}
