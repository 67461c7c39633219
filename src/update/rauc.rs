//! RAUC over D-Bus: what it knows, what it is asked, and its errors in plain words.

use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;
use zbus::proxy::CacheProperties;
use zbus::zvariant::{OwnedValue, Value};

/// A bundle at an address is looked into before RAUC answers: that may take a while.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);

type Dict = HashMap<String, OwnedValue>;

/// RAUC's interface, as far as it is used.
#[zbus::proxy(
    interface = "de.pengutronix.rauc.Installer",
    default_service = "de.pengutronix.rauc",
    default_path = "/"
)]
pub(super) trait Installer {
    fn install_bundle(&self, source: &str, args: HashMap<&str, Value<'_>>) -> zbus::Result<()>;
    fn inspect_bundle(&self, bundle: &str, args: HashMap<&str, Value<'_>>) -> zbus::Result<Dict>;
    fn get_slot_status(&self) -> zbus::Result<Vec<(String, Dict)>>;
    fn get_primary(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn completed(&self, result: i32) -> zbus::Result<()>;
    #[zbus(property)]
    fn operation(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn last_error(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn progress(&self) -> zbus::Result<(i32, String, i32)>;
    #[zbus(property)]
    fn compatible(&self) -> zbus::Result<String>;
}

/// A connection to RAUC. The error says why there is none.
pub(super) async fn connect() -> Result<InstallerProxy<'static>, String> {
    let connection = async {
        let connection =
            zbus::connection::Builder::system()?.method_timeout(CONNECT_TIMEOUT).build().await?;
        InstallerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await
    };
    connection.await.map_err(|error| format!("this machine has no D-Bus to reach RAUC by: {error}"))
}

/// One of the systems that the machine can start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Its name, such as `rootfs.0`.
    pub name: String,
    /// What the boot loader calls it, such as `A`.
    pub bootname: String,
    /// It is the one that runs.
    pub booted: bool,
    /// It will be started next.
    pub primary: bool,
    /// `good`, or `bad`: it is not started any more.
    pub state: String,
    /// The version that was installed there; unknown for the one that came with the card.
    pub version: Option<String>,
    /// When, as RFC 3339.
    pub installed: Option<String>,
}

/// The systems that there are.
pub(super) async fn slots(rauc: &InstallerProxy<'_>) -> zbus::Result<Vec<Slot>> {
    // Boot loaders that were never told have none.
    let primary = rauc.get_primary().await.unwrap_or_default();
    let mut slots = vec![];
    for (name, status) in rauc.get_slot_status().await? {
        // A slot without such a name is part of another.
        let Some(bootname) = text(&status, "bootname") else { continue };
        slots.push(Slot {
            booted: text(&status, "state").as_deref() == Some("booted"),
            primary: name == primary,
            state: text(&status, "boot-status").unwrap_or_else(|| "unknown".into()),
            version: text(&status, "bundle.version"),
            installed: text(&status, "installed.timestamp"),
            bootname,
            name,
        });
    }
    slots.sort_by(|a, b| a.bootname.cmp(&b.bootname));
    Ok(slots)
}

/// What a bundle says about itself; RAUC has checked its signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub compatible: String,
    pub version: Option<String>,
}

pub(super) async fn inspect(rauc: &InstallerProxy<'_>, source: &str) -> zbus::Result<Bundle> {
    let info = rauc.inspect_bundle(source, HashMap::new()).await?;
    let update = info.get("update").map(|update| layers(update));
    let field = |name: &str| {
        let Some(Value::Dict(update)) = update else { return None };
        let is_it = |key: &Value<'_>| matches!(key, Value::Str(key) if key.as_str() == name);
        match layers(update.iter().find(|(key, _)| is_it(key))?.1) {
            Value::Str(text) => Some(text.to_string()),
            _ => None,
        }
    };
    Ok(Bundle {
        compatible: field("compatible").unwrap_or_default(),
        version: field("version").filter(|version| !version.is_empty()),
    })
}

/// RAUC wraps some values more than once.
fn layers<'a>(mut value: &'a Value<'a>) -> &'a Value<'a> {
    while let Value::Value(inner) = value {
        value = inner;
    }
    value
}

fn text(dict: &Dict, key: &str) -> Option<String> {
    match layers(dict.get(key)?) {
        Value::Str(text) if !text.is_empty() => Some(text.to_string()),
        _ => None,
    }
}

/// RAUC's own words out of a D-Bus error.
pub(super) fn said(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(message), _) => message.clone(),
        zbus::Error::FDO(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// Whether RAUC is not there at all.
pub(super) fn is_absent(error: &zbus::Error) -> bool {
    let text = error.to_string();
    ["ServiceUnknown", "NameHasNoOwner", "Spawn.", "was not provided by any .service files"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// RAUC was there, and has ended before it answered.
pub(super) fn has_ended(error: &zbus::Error) -> bool {
    error.to_string().contains("NoReply")
}

/// What RAUC's error means, and what to do about it.
pub fn plain_words(error: &str) -> &'static str {
    let has = |words: &[&str]| {
        let error = error.to_ascii_lowercase();
        words.iter().any(|word| error.contains(word))
    };
    // The first that fits: the innermost reason is the most telling.
    if has(&["not yet valid", "has expired", "certificate expired"]) {
        "the update's certificate is not valid today: is the clock right? It needs the network"
    } else if has(&["compatible mismatch", "does not match compatible"]) {
        "the update is for another device"
    } else if has(&["no space left", "not enough space", "too small", "does not fit"]) {
        "there is not enough room for the update"
    } else if has(&["format 'plain'"]) {
        "the update is of a format that this machine does not take: it has to be a verity bundle"
    } else if has(&["not responding"]) && has(&["https:"]) {
        // It says no more than that.
        "the update cannot be downloaded: the server does not answer, or has a certificate that this \
         machine does not trust"
    } else if has(&["verity", "input/output error", "corrupt", "checksum", "digest"])
        && !has(&["signature verification failed"])
    {
        "the update is damaged: download it again"
    } else if has(&["verify error", "self signed", "self-signed", "issuer certificate", "signer"]) {
        "the update is not signed by anybody whom this machine trusts"
    } else if has(&["invalid bundle", "signature size", "identifier", "not a bundle", "magic"])
        || has(&["no signature", "signature verification failed", "failed to decode"])
    {
        "this is no signed update, or it was cut short or changed on its way: download it again"
    } else if has(&[
        "not responding",
        "resolve host",
        "could not connect",
        "couldn't connect",
        "timed out",
    ]) || has(&["http", "curl", "download", "nbd"])
    {
        "the update cannot be downloaded"
    } else if has(&["already processing", "busy"]) {
        "an update is being installed already"
    } else {
        "the update failed; nothing has changed on the running system"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RAUC 1.8 to 1.15 word them.
    #[test]
    fn errors_in_plain_words() {
        for (error, means) in [
            (
                "signature verification failed: Verify error: self-signed certificate in \
                 certificate chain",
                "trusts",
            ),
            (
                "signature verification failed: Verify error: unable to get local issuer \
                 certificate",
                "trusts",
            ),
            ("signature verification failed: Verify error: certificate is not yet valid", "clock"),
            ("Signature size (6504122418421497188) exceeds bundle size", "no signed update"),
            ("Invalid bundle identifier: hsqs", "no signed update"),
            ("Invalid bundle format: Signature size is 0", "no signed update"),
            ("Bundle format 'plain' not allowed", "format"),
            (
                "Failed to stream bundle https://example.org/x.raucb: failed to configure streaming: \
                 server not responding",
                "certificate",
            ),
            (
                "Compatible mismatch: Expected 'berrymse-virt' but bundle manifest has 'x'",
                "another",
            ),
            (
                "Failed mounting bundle: failed to load dm table: Input/output error, check DM_VERITY \
              support in kernel.",
                "damaged",
            ),
            ("Failed to write file: No space left on device", "room"),
            (
                "Failed to stream bundle: failed to configure streaming: Could not resolve host",
                "downloaded",
            ),
            ("Already processing a different method", "already"),
            ("something new", "nothing has changed"),
        ] {
            assert!(plain_words(error).contains(means), "{error}: {}", plain_words(error));
        }
    }
}
