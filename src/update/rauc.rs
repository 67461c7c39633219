//! RAUC's D-Bus interface, `de.pengutronix.rauc.Installer`, and explanations of its errors.

use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;
use zbus::proxy::CacheProperties;
use zbus::zvariant::{OwnedValue, Value};

/// Maximum time for a reply. RAUC downloads parts of a remote bundle before it replies.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

type Dict = HashMap<String, OwnedValue>;

/// The part of RAUC's interface that this program uses.
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
    fn mark(&self, state: &str, slot_identifier: &str) -> zbus::Result<(String, String)>;
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

/// Connects to the system bus. Succeeds even if RAUC is not running.
pub(super) async fn connect() -> zbus::Result<InstallerProxy<'static>> {
    let connection =
        zbus::connection::Builder::system()?.method_timeout(CALL_TIMEOUT).build().await?;
    InstallerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await
}

/// A system that the machine can boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Name of the slot, such as `rootfs.0`.
    pub name: String,
    /// Name of the slot in the boot loader, such as `A`.
    pub bootname: String,
    /// Whether this system is running.
    pub booted: bool,
    /// Whether the machine boots this system next.
    pub primary: bool,
    /// `good`; `bad` if the boot loader no longer boots this system; or `unknown`.
    pub state: String,
    /// Installed version. `None` for the system that was installed with the card image.
    pub version: Option<String>,
    /// Time of the installation (RFC 3339).
    pub installed: Option<String>,
}

/// Returns the systems that the machine can boot, sorted by boot name.
pub(super) async fn slots(rauc: &InstallerProxy<'_>) -> zbus::Result<Vec<Slot>> {
    // The call fails if the boot loader has no primary slot yet.
    let primary = rauc.get_primary().await.unwrap_or_default();
    let mut slots = vec![];
    for (name, status) in rauc.get_slot_status().await? {
        // A slot without a boot name is part of another slot.
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

/// Properties of a bundle whose signature RAUC has verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    /// Type of device that the bundle is for.
    pub compatible: String,
    pub version: Option<String>,
}

/// Verifies the bundle at `source`, a path or URL, and returns its properties.
pub(super) async fn inspect(rauc: &InstallerProxy<'_>, source: &str) -> zbus::Result<Bundle> {
    let info = rauc.inspect_bundle(source, HashMap::new()).await?;
    let update = info.get("update").map(|update| unwrap_variants(update));
    let field = |name: &str| {
        let Some(Value::Dict(update)) = update else { return None };
        let is_it = |key: &Value<'_>| matches!(key, Value::Str(key) if key.as_str() == name);
        match unwrap_variants(update.iter().find(|(key, _)| is_it(key))?.1) {
            Value::Str(text) => Some(text.to_string()),
            _ => None,
        }
    };
    Ok(Bundle {
        compatible: field("compatible").unwrap_or_default(),
        version: field("version").filter(|version| !version.is_empty()),
    })
}

/// Unwraps nested variants. RAUC wraps some values more than once.
fn unwrap_variants<'a>(mut value: &'a Value<'a>) -> &'a Value<'a> {
    while let Value::Value(inner) = value {
        value = inner;
    }
    value
}

fn text(dict: &Dict, key: &str) -> Option<String> {
    match unwrap_variants(dict.get(key)?) {
        Value::Str(text) if !text.is_empty() => Some(text.to_string()),
        _ => None,
    }
}

/// Extracts RAUC's own message from a D-Bus error.
pub(super) fn message(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(message), _) => message.clone(),
        zbus::Error::FDO(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// Returns whether RAUC is not running and cannot be started by D-Bus.
pub(super) fn is_absent(error: &zbus::Error) -> bool {
    let text = error.to_string();
    ["ServiceUnknown", "NameHasNoOwner", "Spawn.", "was not provided by any .service files"]
        .iter()
        .any(|words| text.contains(words))
}

/// Returns whether RAUC exited before it replied.
pub(super) fn has_exited(error: &zbus::Error) -> bool {
    error.to_string().contains("NoReply")
}

/// Explains an error message from RAUC, and says what to do about it.
pub fn explain(error: &str) -> &'static str {
    let has = |words: &[&str]| {
        let error = error.to_ascii_lowercase();
        words.iter().any(|word| error.contains(word))
    };
    // The order matters: messages are nested, and the innermost cause is the most useful.
    if has(&["not yet valid", "has expired", "certificate expired"]) {
        "the update's certificate is not valid at this time: check that the clock is correct and \
         that this machine can reach a time server"
    } else if has(&["compatible mismatch", "does not match compatible"]) {
        "the update is for another device"
    } else if has(&["no space left", "not enough space", "too small", "does not fit"]) {
        "not enough space for the update"
    } else if has(&["format 'plain'"]) {
        "the update has a format that this machine does not accept: it must be a verity bundle"
    } else if has(&["not responding"]) && has(&["https:"]) {
        // RAUC reports no further details.
        "cannot download the update: the server does not respond, or has a certificate that this \
         machine does not trust"
    } else if has(&["verity", "input/output error", "corrupt", "checksum", "digest"])
        && !has(&["signature verification failed"])
    {
        "the update is damaged: download it again"
    } else if has(&["verify error", "self signed", "self-signed", "issuer certificate", "signer"]) {
        "the update is not signed with a certificate that this machine trusts"
    } else if has(&["invalid bundle", "signature size", "identifier", "not a bundle", "magic"])
        || has(&["no signature", "signature verification failed", "failed to decode"])
    {
        "this is not a signed update, or it was truncated or changed: download it again"
    } else if has(&[
        "not responding",
        "resolve host",
        "could not connect",
        "couldn't connect",
        "timed out",
    ]) || has(&["http", "curl", "download", "nbd"])
    {
        "cannot download the update"
    } else if has(&["already processing", "busy"]) {
        "another update is already being installed"
    } else {
        "the update failed; the running system is unchanged"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages from RAUC 1.8 to 1.15.
    #[test]
    fn explains_rauc_messages() {
        for (error, expected) in [
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
            ("Signature size (6504122418421497188) exceeds bundle size", "not a signed update"),
            ("Invalid bundle identifier: hsqs", "not a signed update"),
            ("Invalid bundle format: Signature size is 0", "not a signed update"),
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
            ("Failed to write file: No space left on device", "space"),
            (
                "Failed to stream bundle: failed to configure streaming: Could not resolve host",
                "download",
            ),
            ("Already processing a different method", "already"),
            ("something new", "unchanged"),
        ] {
            assert!(explain(error).contains(expected), "{error}: {}", explain(error));
        }
    }
}
