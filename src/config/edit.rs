//! Changes one value in the text of a configuration, and preserves comments and order.

use super::{Config, ConfigError, Wifi};
use std::ops::Range;

/// Returns the byte range of a key's value in `text`, including quotation marks. `key` is a path,
/// such as `["network", "gateway"]`.
pub fn span_of(text: &str, key: &[&str]) -> Option<Range<usize>> {
    // The parser does not accept a byte order mark, but positions must include it.
    let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (last, tables) = key.split_last()?;
    let document = toml::de::DeTable::parse(rest).ok()?;
    let mut table = document.get_ref();
    for name in tables {
        table = table.get(*name)?.get_ref().as_table()?;
    }
    let span = table.get(*last)?.span();
    let mark = text.len() - rest.len();
    Some(span.start + mark..span.end + mark)
}

/// Returns `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    // A JSON string is also a TOML string, except for this character.
    serde_json::to_string(text).unwrap_or_default().replace('\u{7f}', "\\u007f")
}

/// Returns the text with `value`, in TOML, as the value of `key` in `table`. The result can be invalid
/// if the text defines the table or the value in another form, such as `network.wifi.ssid = "x"`.
pub(super) fn with_value(text: &str, table: &str, key: &str, value: &str) -> String {
    let mut new = text.to_string();
    if let Some(span) = span_of(text, &[table, key]) {
        new.replace_range(span, value);
        return new;
    }
    match line_for(text, table, key) {
        Some(at) => new.insert_str(at, &format!("{key} = {value}\n")),
        None => {
            let gap = if new.is_empty() || new.ends_with('\n') { "" } else { "\n" };
            new.push_str(&format!("{gap}\n[{table}]\n{key} = {value}\n"));
        }
    }
    new
}

/// Returns `wifi` as a TOML value.
pub(super) fn wifi_value(wifi: &Wifi) -> String {
    let mut keys = match wifi.ssid.as_str() {
        Some(text) => format!("ssid = {}", quoted(text)),
        None => format!("ssid_hex = {}", quoted(&wifi.ssid.to_hex())),
    };
    for (key, value) in [("psk", &wifi.psk), ("country", &wifi.country)] {
        if let Some(value) = value {
            keys.push_str(&format!(", {key} = {}", quoted(value)));
        }
    }
    format!("{{ {keys} }}")
}

/// Returns the text with `wifi` as its wireless network.
///
/// # Errors
///
/// The network or the text is invalid, or the text specifies the network in a form that this
/// function does not edit.
pub fn with_wifi(text: &str, wifi: &Wifi) -> Result<String, ConfigError> {
    let value = wifi_value(wifi);
    // Check the network separately, so that an error refers to it.
    let alone = Config::parse(&format!("[network]\nwifi = {value}\n"), "")
        .map_err(|error| ConfigError::new(error.message, None))?;
    Config::parse(text, "").map_err(|error| {
        let line = error.at.map(|at| format!("line {}: ", at.0)).unwrap_or_default();
        let message = format!(
            "the configuration contains another error; correct it first: {line}{}",
            error.message
        );
        ConfigError::new(message, None)
    })?;
    let new = with_value(text, "network", "wifi", &value);
    match Config::parse(&new, "") {
        Ok(config) if config.network.wifi == alone.network.wifi => Ok(new),
        _ => {
            let message = "wifi is written in a form that cannot be changed here: edit the text of \
                           the configuration";
            Err(ConfigError::new(message, None))
        }
    }
}

/// Returns the position at which a line with `key` can be inserted into `table`: after the
/// commented-out example if there is one, otherwise after the table header.
fn line_for(text: &str, table: &str, key: &str) -> Option<usize> {
    let (header, example) = (format!("[{table}]"), format!("#{key} ="));
    let mut at = 0;
    let mut found = None;
    for line in text.split_inclusive('\n') {
        at += line.len();
        let words = line.trim().trim_start_matches('\u{feff}');
        if words.starts_with('[') {
            if found.is_some() {
                break;
            }
            let head = words.split('#').next().unwrap_or_default();
            if head.split_whitespace().collect::<String>() == header && line.ends_with('\n') {
                found = Some(at);
            }
        } else if found.is_some() && words.starts_with(&example) && line.ends_with('\n') {
            found = Some(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Ssid;
    use super::*;

    fn wifi(ssid: &str, psk: Option<&str>) -> Wifi {
        let ssid = Ssid::new(ssid).unwrap();
        Wifi { ssid, psk: psk.map(Into::into), country: Some("de".into()) }
    }

    #[test]
    fn changes_one_value_and_keeps_the_rest() {
        let shipped = include_str!("../../appliance/berrymse.toml");
        let new = with_wifi(shipped, &wifi("a \"b\"\\ä", Some("pass # word"))).unwrap();
        let line = r#"wifi = { ssid = "a \"b\"\\ä", psk = "pass # word", country = "de" }"#;
        let (before, after) = new.split_once(&format!("{line}\n")).unwrap();
        assert_eq!(format!("{before}{after}"), shipped);
        assert!(before.ends_with("country = \"DE\" }\n"), "after the example");
        let read = Config::parse(&new, "").unwrap().network.wifi.unwrap();
        assert_eq!(read.ssid.as_str(), Some("a \"b\"\\ä"));
        assert_eq!(read.country.as_deref(), Some("DE"));
        // Another change replaces it in place.
        let again = with_wifi(&new, &wifi("c", None)).unwrap();
        assert_eq!(again, new.replace(line, r#"wifi = { ssid = "c", country = "de" }"#));
        for (text, expected) in [
            ("", "\n[network]\nwifi = V\n"),
            ("[system]\nhostname = \"x\"", "[system]\nhostname = \"x\"\n\n[network]\nwifi = V\n"),
            (
                "[network] # x\naddress = \"dhcp\"\n",
                "[network] # x\nwifi = V\naddress = \"dhcp\"\n",
            ),
            ("[network]", ""),
        ] {
            let new = with_wifi(text, &wifi("c", None));
            let expected = expected.replace('V', r#"{ ssid = "c", country = "de" }"#);
            assert_eq!(new.unwrap_or_default(), expected, "{text}");
        }
    }

    #[test]
    fn writes_every_name_so_that_it_is_read_again() {
        for ssid in [&b"Caf\xe9"[..], b"\x7f\x01\0\"\\\n", "\u{feff}ä".as_bytes(), b"x\ty"] {
            let wifi = Wifi { ssid: Ssid::new(ssid).unwrap(), psk: None, country: None };
            let new = with_wifi("# kept\n[network]\n", &wifi).unwrap();
            assert!(new.starts_with("# kept\n[network]\nwifi = { ssid"), "{new}");
            assert_eq!(Config::parse(&new, "").unwrap().network.wifi, Some(wifi));
        }
    }

    #[test]
    fn rejects_texts_that_it_cannot_edit() {
        let says = |text: &str, wifi: Wifi| with_wifi(text, &wifi).unwrap_err().message;
        assert!(says("", wifi("x", Some("short"))).contains("8 to 63"));
        assert!(says("[network\n", wifi("x", None)).contains("another error"));
        let table = "[network.wifi]\nssid = \"x\"\ncountry = \"DE\"\n";
        assert!(says(table, wifi("y", None)).contains("edit the text"));
    }
}
