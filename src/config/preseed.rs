//! `rpi-preseed.toml`, to which Raspberry Pi Imager 2 writes what the user enters in its wizard.
//!
//! The format is that of github.com/raspberrypi/rpi-preseed, version 1: tables with strings, booleans
//! and lists of strings. This module takes over what this machine has, and names everything else.
//!
//! ```text
//! [system] hostname                                       ─► system.hostname
//! [ssh]    enabled, authorized_keys                       ─► system.ssh_keys
//! [wlan]   ssid | ssid_hex, password, country, key_mgmt   ─► network.wifi
//!          password_encrypted, hidden
//! [locale] timezone                                       ─► system.timezone
//! ```

use super::edit::{quoted, span_of, wifi_value, with_value};
use super::error::explain;
use super::{Config, ConfigError, Ssid, Wifi};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Maximum size of the file, in bytes. The wizard's files have less than 2 KiB.
pub const MAX_PRESEED: usize = 64 * 1024;

/// Maximum number of notes.
const MAX_NOTES: usize = 20;

/// The result of [`merge`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The configuration with the settings.
    pub text: String,
    /// The settings that were taken over, in words.
    pub applied: Vec<&'static str>,
    /// The settings that were not taken over, and why. They contain neither passwords nor keys.
    pub notes: Vec<String>,
}

/// Returns the valid configuration `config` with the settings of `preseed`. Comments and all other
/// settings stay as they are. If a value is invalid, the others are taken over nevertheless. Errors
/// name the file `file`.
///
/// # Errors
///
/// `preseed` is not TOML or has an unknown version, or `config` is invalid.
pub fn merge(config: &str, preseed: &str, file: &str) -> Result<Merged, ConfigError> {
    let old = Config::parse(config, "")?;
    // Editors on Windows add a byte order mark.
    let preseed = preseed.strip_prefix('\u{feff}').unwrap_or(preseed);
    let in_file = |message: &str, span| ConfigError::in_text(message, preseed, span).in_file(file);
    let document = DeTable::parse(preseed)
        .map_err(|error| in_file(&explain(error.message()), error.span()))?;
    let document = document.get_ref();
    if let Some(version) = document.get("config_version")
        && version.get_ref().as_str().is_none_or(|text| text.split('.').next() != Some("1"))
    {
        let message = "unknown version of the file: must be \"1.0\" or another version 1";
        return Err(in_file(message, Some(version.span())));
    }
    let mut merger =
        Merger { config: old, merged: Merged { text: config.into(), ..Merged::default() } };
    for (name, value) in document {
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("config_version", _) => {}
            ("system", DeValue::Table(table)) => merger.system(table),
            ("ssh", DeValue::Table(table)) => merger.ssh(table),
            ("wlan", DeValue::Table(table)) => merger.wlan(table),
            ("locale", DeValue::Table(table)) => merger.locale(table),
            (name @ ("system" | "ssh" | "wlan" | "locale"), _) => {
                merger.note(name, &format!("must be a table, [{name}]"));
            }
            (name, _) => merger.note(name, without_effect(name)),
        }
    }
    if document.keys().all(|name| name.get_ref() == "config_version") {
        merger.merged.notes.push("the file contains no settings".into());
    }
    for note in &mut merger.merged.notes {
        *note = in_file(note, None).to_string();
    }
    Ok(merger.merged)
}

/// Explains why a table is not for this machine.
fn without_effect(table: &str) -> &'static str {
    match table {
        "user" => {
            "has no effect: there are no user accounts. SSH logs in as root, with a key. The password \
             of the page is `password` under [server] in berrymse.toml"
        }
        "connect" => "has no effect: Raspberry Pi Connect is not available",
        "ethernet" => "has no effect: set `address` under [network] in berrymse.toml",
        "interfaces" | "boot" => "has no effect: edit config.txt",
        "packages" | "runcmd" => "has no effect: each update replaces the whole system",
        "time" => "has no effect: the time servers come from the router",
        _ => "has no effect on this device",
    }
}

/// A setting of the wrong type or with an invalid value. It has been noted.
struct Noted;

/// Takes over one setting after the other.
struct Merger {
    /// The configuration in `merged.text`.
    config: Config,
    merged: Merged,
}

impl Merger {
    fn note(&mut self, key: &str, message: &str) {
        let notes = &mut self.merged.notes;
        if notes.len() < MAX_NOTES {
            // A key can be as long as the file.
            let key: String = key.chars().take(60).collect();
            notes.push(format!("`{key}`: {message}"));
        } else if notes.len() == MAX_NOTES {
            notes.push("further settings were not applied".into());
        }
    }

    /// Notes the keys of a table that are not known here.
    fn note_others(&mut self, table: &str, found: &DeTable<'_>, known: &[&str]) {
        for key in found.keys().map(Spanned::get_ref).filter(|key| !known.contains(&key.as_ref())) {
            self.note(&format!("{table}.{key}"), "has no effect on this device");
        }
    }

    fn string(
        &mut self,
        table: &str,
        found: &DeTable<'_>,
        key: &str,
    ) -> Result<Option<String>, Noted> {
        match found.get(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.to_string())),
            Some(_) => {
                self.note(&format!("{table}.{key}"), "must be text in quotes");
                Err(Noted)
            }
        }
    }

    fn boolean(
        &mut self,
        table: &str,
        found: &DeTable<'_>,
        key: &str,
    ) -> Result<Option<bool>, Noted> {
        match found.get(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::Boolean(value)) => Ok(Some(*value)),
            Some(_) => {
                self.note(&format!("{table}.{key}"), "must be true or false");
                Err(Noted)
            }
        }
    }

    /// Sets `key` in `table` of the configuration to `value`, in TOML, if it is valid. `copy` copies
    /// the value from one configuration to another.
    fn set(
        &mut self,
        (table, key): (&str, &str),
        value: &str,
        copy: impl Fn(&mut Config, Config),
    ) -> Result<(), String> {
        let alone = Config::parse(&format!("[{table}]\n{key} = {value}\n"), "")
            .map_err(|error| error.message)?;
        self.replace(with_value(&self.merged.text, table, key, value), |config| copy(config, alone))
    }

    /// Replaces the text with `new`, in which only what `change` changes may differ.
    fn replace(&mut self, new: String, change: impl FnOnce(&mut Config)) -> Result<(), String> {
        let mut expected = self.config.clone();
        change(&mut expected);
        if expected == self.config {
            return Ok(());
        }
        match Config::parse(&new, "") {
            Ok(config) if config == expected => {
                (self.merged.text, self.config) = (new, config);
                Ok(())
            }
            // The text has a form that cannot be edited, such as a table [network.wifi].
            _ => Err("cannot be changed automatically: edit berrymse.toml".into()),
        }
    }

    /// Records the outcome of taking over the setting `key`.
    fn finish(&mut self, key: &str, name: &'static str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.merged.applied.push(name),
            Err(message) => self.note(key, &message),
        }
    }

    fn system(&mut self, found: &DeTable<'_>) {
        self.note_others("system", found, &["hostname"]);
        if let Ok(Some(name)) = self.string("system", found, "hostname") {
            let outcome = self.set(("system", "hostname"), &quoted(&name), |config, new| {
                config.system.hostname = new.system.hostname;
            });
            self.finish("system.hostname", "host name", outcome);
        }
    }

    fn locale(&mut self, found: &DeTable<'_>) {
        self.note_others("locale", found, &["timezone"]);
        if let Ok(Some(zone)) = self.string("locale", found, "timezone") {
            let outcome = self.set(("system", "timezone"), &quoted(&zone), |config, new| {
                config.system.timezone = new.system.timezone;
            });
            self.finish("locale.timezone", "time zone", outcome);
        }
    }

    fn ssh(&mut self, found: &DeTable<'_>) {
        let known = ["enabled", "authorized_keys", "password_authentication"];
        self.note_others("ssh", found, &known);
        let enabled = self.boolean("ssh", found, "enabled");
        let keys = match found.get("authorized_keys").map(Spanned::get_ref) {
            None => vec![],
            Some(DeValue::Array(keys)) => self.valid_keys(keys),
            Some(_) => {
                self.note("ssh.authorized_keys", "must be a list, such as [\"one\", \"two\"]");
                return;
            }
        };
        match enabled {
            Err(Noted) => return,
            Ok(Some(false)) => {
                if !keys.is_empty() {
                    self.note("ssh.authorized_keys", "not added, because `enabled` is false");
                }
                return;
            }
            Ok(_) => {}
        }
        let password = self.boolean("ssh", found, "password_authentication").unwrap_or_default();
        if password == Some(true) {
            self.note("ssh.password_authentication", "has no effect: SSH accepts only keys");
        }
        if keys.is_empty() {
            if self.config.system.ssh_keys.is_empty() {
                self.note("ssh", "SSH stays off, because it accepts only keys, and there is none");
            }
            return;
        }
        let outcome = self.add_keys(keys);
        self.finish("ssh.authorized_keys", "SSH keys", outcome);
    }

    /// Returns the valid keys of a list, and notes the others.
    fn valid_keys(&mut self, keys: &[Spanned<DeValue<'_>>]) -> Vec<String> {
        let mut valid = vec![];
        for (n, key) in keys.iter().enumerate() {
            let key = key.get_ref().as_str().unwrap_or_default().trim();
            let check = Config::parse(&format!("[system]\nssh_keys = [{}]\n", quoted(key)), "");
            match check {
                Ok(_) => valid.push(key.to_string()),
                Err(error) => {
                    self.note(&format!("ssh.authorized_keys[{n}]"), &error.message);
                }
            }
        }
        valid
    }

    /// Adds keys to those that are already configured.
    fn add_keys(&mut self, keys: Vec<String>) -> Result<(), String> {
        let mut new: Vec<String> = vec![];
        for key in keys {
            let is_same = |other: &String| other.trim() == key;
            if !self.config.system.ssh_keys.iter().chain(&new).any(is_same) {
                new.push(key);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let items: String = new.iter().map(|key| format!("  {},\n", quoted(key))).collect();
        let span = span_of(&self.merged.text, &["system", "ssh_keys"]);
        if let Some(Range { start, .. }) = span.filter(|_| !self.config.system.ssh_keys.is_empty())
        {
            // Insert after the bracket: the comments of the list stay, and a comma is always correct.
            let mut text = self.merged.text.clone();
            text.insert_str(start + 1, &format!("\n{items}"));
            return self.replace(text, |config| {
                config.system.ssh_keys.splice(..0, new);
            });
        }
        self.set(("system", "ssh_keys"), &format!("[\n{items}]"), |config, new| {
            config.system.ssh_keys = new.system.ssh_keys;
        })
    }

    fn wlan(&mut self, found: &DeTable<'_>) {
        let known =
            ["ssid", "ssid_hex", "password", "password_encrypted", "hidden", "country", "key_mgmt"];
        self.note_others("wlan", found, &known);
        // All networks are looked for by their name, so that hidden ones are found in any case.
        let _ = self.boolean("wlan", found, "hidden");
        if let Ok(Some(wifi)) = self.wifi(found) {
            let outcome = self.set(("network", "wifi"), &wifi_value(&wifi), |config, new| {
                config.network.wifi = new.network.wifi;
            });
            self.finish("wlan", "Wi-Fi network", outcome);
        }
    }

    /// Returns the wireless network, if there is one that this machine can join.
    fn wifi(&mut self, found: &DeTable<'_>) -> Result<Option<Wifi>, Noted> {
        let hex = self.string("wlan", found, "ssid_hex")?;
        let text = self.string("wlan", found, "ssid")?;
        let (key, ssid) = match (hex, text) {
            (Some(hex), _) => ("wlan.ssid_hex", Ssid::from_hex(&hex)),
            (None, Some(text)) => ("wlan.ssid", Ssid::new(text)),
            (None, None) => {
                self.note("wlan", "has no effect without `ssid`");
                return Ok(None);
            }
        };
        let ssid = ssid.map_err(|message| {
            self.note(key, &message);
            Noted
        })?;
        let psk = self.psk(found)?;
        let country = match self.string("wlan", found, "country") {
            Ok(Some(country)) if !is_country(&country) => {
                let message = "invalid country: must be two letters, such as \"DE\". Only what all \
                               countries allow is used";
                self.note("wlan.country", message);
                None
            }
            country => country.unwrap_or_default(),
        };
        let before = self.config.network.wifi.as_ref().and_then(|wifi| wifi.country.clone());
        Ok(Some(Wifi { ssid, psk, country: country.map(|c| c.to_uppercase()).or(before) }))
    }

    /// Returns the password or the key, or `None` for an open network.
    fn psk(&mut self, found: &DeTable<'_>) -> Result<Option<String>, Noted> {
        let password = self.string("wlan", found, "password")?;
        let is_key = self.boolean("wlan", found, "password_encrypted")?.unwrap_or(false);
        let method = self.string("wlan", found, "key_mgmt")?;
        let problem = match (method.as_deref(), &password) {
            (Some("owe"), _) => Some("Enhanced Open is not supported: Wi-Fi was not configured"),
            (None | Some("none"), None) | (None | Some("wpa-psk" | "sae"), Some(_)) => None,
            (Some("none"), Some(_)) => Some("is \"none\", but a password is set"),
            (Some("wpa-psk" | "sae"), None) => Some("needs a password, but none is set"),
            (Some(_), _) => Some("unknown: must be none, wpa-psk or sae"),
        };
        if let Some(problem) = problem {
            self.note("wlan.key_mgmt", problem);
            return Err(Noted);
        }
        let Some(psk) = password else { return Ok(None) };
        let digits = psk.len() == 64 && psk.bytes().all(|byte| byte.is_ascii_hexdigit());
        let message = match (is_key, digits, method.as_deref()) {
            (true, false, _) => "is encrypted, but does not have 64 hexadecimal digits",
            (_, true, Some("sae")) => "WPA3 needs the password itself, not a key of 64 digits",
            _ => return Ok(Some(psk)),
        };
        self.note("wlan.password", message);
        Err(Noted)
    }
}

fn is_country(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHIPPED: &str = include_str!("../../appliance/berrymse.toml");
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE you@home";
    const OTHER_KEY: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ other";

    /// The settings from every page of the wizard, as Imager 2.0.11 writes them.
    fn wizard(psk: &str) -> String {
        format!(
            "config_version = \"1.0\"\n\n[system]\nhostname = \"Garden-Cam\"\n\n[user]\n\
             name = \"me\"\npassword = \"$y$j9T$abc$def\"\npassword_encrypted = true\n\
             groups = [\"sudo\"]\n\n[ssh]\nenabled = true\npassword_authentication = false\n\
             authorized_keys = [\n  \"{KEY}\",\n  \"{OTHER_KEY}\",\n]\n\n[wlan]\n\
             ssid = \"Café \\\"5\\\" \\\\\"\npassword = \"{psk}\"\npassword_encrypted = true\n\
             hidden = false\ncountry = \"FR\"\n\n[locale]\nkeymap = \"fr\"\n\
             timezone = \"Europe/Paris\"\n"
        )
    }

    fn merged(config: &str, preseed: &str) -> Merged {
        merge(config, preseed, "preseed").unwrap()
    }

    /// The notes on a file, each without the name of the file.
    fn notes(preseed: &str) -> Vec<String> {
        let notes = merged("", preseed).notes;
        notes.iter().map(|note| note.strip_prefix("preseed: ").unwrap().into()).collect()
    }

    /// The configuration that results from an empty one.
    fn config(preseed: &str) -> Config {
        Config::parse(&merged("", preseed).text, "").unwrap()
    }

    #[test]
    fn takes_over_the_settings_of_the_wizard_and_keeps_the_rest_of_the_text() {
        let psk = "0a".repeat(32);
        let result = merged(SHIPPED, &wizard(&psk));
        assert_eq!(result.applied, ["time zone", "SSH keys", "host name", "Wi-Fi network"]);
        let added = [
            "hostname = \"Garden-Cam\"\n".to_string(),
            "timezone = \"Europe/Paris\"\n".into(),
            format!("ssh_keys = [\n  \"{KEY}\",\n  \"{OTHER_KEY}\",\n]\n"),
            format!(
                "wifi = {{ ssid = \"Café \\\"5\\\" \\\\\", psk = \"{psk}\", country = \"FR\" }}\n"
            ),
        ];
        let mut rest = result.text.clone();
        for lines in &added {
            let (before, after) = rest.split_once(&format!("\n{lines}")).unwrap();
            let example = &lines[..lines.find('=').unwrap()];
            let last = before.lines().last().unwrap();
            assert!(last.starts_with(&format!("#{example}")), "after the example: {last}");
            rest = format!("{before}\n{after}");
        }
        assert_eq!(rest, SHIPPED);
        let config = Config::parse(&result.text, "").unwrap();
        assert_eq!(config.system.hostname.as_deref(), Some("garden-cam"));
        assert_eq!(config.network.wifi.unwrap().psk, Some(psk));
        let [keyboard, user] = &result.notes[..] else { panic!("{:?}", result.notes) };
        assert!(keyboard.starts_with("preseed: `locale.keymap`: has no effect"), "{keyboard}");
        assert!(user.starts_with("preseed: `user`: ") && user.contains("[server]"), "{user}");
        // A second time, nothing changes.
        assert_eq!(merged(&result.text, &wizard(&"0a".repeat(32))).text, result.text);
    }

    #[test]
    fn replaces_settings_and_adds_keys_to_those_that_are_configured() {
        let old = format!(
            "[system]\nhostname = \"old\" # mine\nssh_keys = [ # keys\n  \"{OTHER_KEY}\" # work\n]\n\
             [network]\nwifi = {{ ssid = \"old\", country = \"DE\" }}\n"
        );
        let new = "[system]\nhostname = 'new'\n[wlan]\nssid_hex = 'E9'\npassword = '12345678'\n";
        let result =
            merged(&old, &format!("{new}[ssh]\nauthorized_keys = ['{KEY}', '{OTHER_KEY}']\n"));
        let expected = format!(
            "[system]\nhostname = \"new\" # mine\nssh_keys = [\n  \"{KEY}\",\n # keys\n  \
             \"{OTHER_KEY}\" # work\n]\n[network]\n\
             wifi = {{ ssid_hex = \"e9\", psk = \"12345678\", country = \"DE\" }}\n"
        );
        assert_eq!((result.text, result.notes), (expected, vec![]));
    }

    #[test]
    fn accepts_files_of_windows_editors() {
        let text = format!("\u{feff}{}", wizard(&"0a".repeat(32)).replace('\n', "\r\n"));
        assert_eq!(merged(SHIPPED, &text), merged(SHIPPED, &wizard(&"0a".repeat(32))));
    }

    #[test]
    fn configures_every_kind_of_wireless_network() {
        let psk = |keys: &str| {
            let preseed = format!("[wlan]\nssid = \"x\"\n{keys}\n");
            (config(&preseed).network.wifi.map(|wifi| wifi.psk), notes(&preseed).join("\n"))
        };
        let digits = "AB".repeat(32);
        assert_eq!(psk("hidden = true"), (Some(None), String::new()));
        assert_eq!(psk("key_mgmt = \"none\"").0, Some(None));
        for method in ["wpa-psk", "sae"] {
            let (found, notes) = psk(&format!("password = \"a secret\"\nkey_mgmt = \"{method}\""));
            assert_eq!((found, notes), (Some(Some("a secret".into())), String::new()));
        }
        for encrypted in [true, false] {
            let keys = format!("password = \"{digits}\"\npassword_encrypted = {encrypted}");
            assert_eq!(psk(&keys).0, Some(Some(digits.clone())));
        }
        // A network must never become an open one by mistake.
        for (keys, expected) in [
            ("password = 12345678".into(), "`wlan.password`: must be text in quotes"),
            ("password = \"short\"".into(), "8 to 63"),
            ("password = \"\"".into(), "8 to 63"),
            ("password = \"a secret\"\npassword_encrypted = true".into(), "64 hexadecimal digits"),
            ("password_encrypted = 1".into(), "`wlan.password_encrypted`: must be true or false"),
            ("key_mgmt = \"sae\"".into(), "needs a password"),
            ("key_mgmt = \"owe\"".into(), "not supported"),
            ("key_mgmt = \"wep\"".into(), "must be none, wpa-psk or sae"),
            ("key_mgmt = \"none\"\npassword = \"a secret\"".into(), "but a password is set"),
            (format!("key_mgmt = \"sae\"\npassword = \"{digits}\""), "the password itself"),
            ("ssid_hex = \"zz\"".into(), "`wlan.ssid_hex`: invalid network name"),
        ] {
            let (found, notes) = psk(&keys);
            assert!(found.is_none() && notes.contains(expected), "{keys}: {found:?} {notes}");
            assert!(!notes.contains("secret") && !notes.contains(&digits), "{notes}");
        }
        let (found, notes) = psk("country = \"Germany\"");
        assert!(found.is_some() && notes.contains("two letters"), "{notes}");
        assert_eq!(
            notes_of("[wlan]\nssid = \"\"\n"),
            "`wlan.ssid`: invalid network name of 0 bytes: must have 1 to 32 bytes"
        );
        assert_eq!(notes_of("[wlan]\ncountry = \"DE\"\n"), "`wlan`: has no effect without `ssid`");
    }

    fn notes_of(preseed: &str) -> String {
        notes(preseed).join("\n")
    }

    #[test]
    fn says_when_ssh_stays_off() {
        for (keys, expected) in [
            ("enabled = true\npassword_authentication = true", "SSH stays off"),
            ("enabled = true\npassword_authentication = true", "SSH accepts only keys"),
            ("authorized_keys = \"x\"", "must be a list"),
            ("authorized_keys = [1]", "`ssh.authorized_keys[0]`: invalid SSH public key"),
            ("ssh_import_id = [\"gh:me\"]", "`ssh.ssh_import_id`: has no effect"),
            ("enabled = \"yes\"", "`ssh.enabled`: must be true or false"),
        ] {
            let preseed = format!("[ssh]\n{keys}\n");
            assert!(notes_of(&preseed).contains(expected), "{keys}: {}", notes_of(&preseed));
            assert_eq!(config(&preseed).system.ssh_keys.len(), 0);
        }
        let off = format!("[ssh]\nenabled = false\nauthorized_keys = ['{KEY}']\n");
        assert!(notes_of(&off).contains("not added"));
        assert_eq!(config(&off).system.ssh_keys.len(), 0);
        let some = format!("[ssh]\nauthorized_keys = ['junk', '{KEY}', ' {KEY}']\n");
        assert!(notes_of(&some).starts_with("`ssh.authorized_keys[0]`: "));
        assert_eq!(config(&some).system.ssh_keys, [KEY]);
    }

    #[test]
    fn names_everything_that_has_no_effect() {
        let text = "debug = true\n[connect]\ntoken = \"secret\"\n[ethernet]\nmethod = \"dhcp\"\n\
                    [interfaces]\ni2c = true\n[runcmd]\nlate = [\"secret\"]\n[time]\nntp = []\n\
                    [system]\nname = \"secret\"\nhostname = \"a b\"\n[locale]\ntimezone = 1\n";
        let keys: Vec<String> =
            notes(text).iter().map(|note| note.split('`').nth(1).unwrap().to_string()).collect();
        let expected = [
            "connect",
            "debug",
            "ethernet",
            "interfaces",
            "locale.timezone",
            "runcmd",
            "system.name",
            "system.hostname",
            "time",
        ];
        assert_eq!(keys, expected);
        assert!(!notes_of(text).contains("secret"));
        assert_eq!(notes_of("system = 1\n"), "`system`: must be a table, [system]");
        assert_eq!(notes_of("config_version = \"1.1\"\n"), "the file contains no settings");
        let many: String = (0..1000).map(|n| format!("key{n} = 1\n")).collect();
        assert_eq!(notes(&many).len(), MAX_NOTES + 1);
    }

    #[test]
    fn rejects_a_text_as_a_whole() {
        let error = |text: &str| merge("", text, "preseed").unwrap_err().to_string();
        assert_eq!(error("[system\n"), "preseed:1:8: unclosed table, expected `]`");
        assert!(error("x = 1\nx = 2\n").starts_with("preseed:2:1: "));
        for version in ["\"2.0\"", "2", "\"\"", "1"] {
            let text = format!("config_version = {version}\n[system]\nhostname = \"x\"\n");
            assert!(error(&text).starts_with("preseed:1:18: unknown version"), "{}", error(&text));
        }
        assert!(merge("[broken", "", "").is_err());
    }

    #[test]
    fn leaves_configurations_of_unusual_form_alone() {
        let table = "[network.wifi]\nssid = \"x\"\n";
        let result = merged(table, "[wlan]\nssid = \"y\"\n[system]\nhostname = \"z\"\n");
        assert!(result.notes[0].contains("edit berrymse.toml"), "{:?}", result.notes);
        assert_eq!(result.text, format!("{table}\n[system]\nhostname = \"z\"\n"));
    }

    proptest! {
        #[test]
        fn accepts_any_text_and_changes_nothing_else(
            text in "(\\[(system|ssh|wlan|locale|user)\\]\n|(hostname|ssid|ssid_hex|password|country|\
                     timezone|authorized_keys|enabled|hidden) = |\"|'|true|\\[|\\]|[a-zA-Z0-9 ,ä\\\\]|\n|\
                     #){0,80}"
        ) {
            if let Ok(result) = merge(SHIPPED, &text, "preseed") {
                let new = Config::parse(&result.text, "").unwrap();
                let old = Config::parse(SHIPPED, "").unwrap();
                let Config { system, network, .. } = new.clone();
                prop_assert_eq!(&Config { system, network, ..old }, &new);
                prop_assert_eq!(&merge(&result.text, &text, "preseed").unwrap().text, &result.text);
            }
        }
    }
}
