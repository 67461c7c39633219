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

/// Returns the text with `wifi` as its wireless network.
///
/// # Errors
///
/// The network or the text is invalid, or the text specifies the network in a form that this
/// function does not edit.
pub fn with_wifi(text: &str, wifi: &Wifi) -> Result<String, ConfigError> {
    // A JSON string is also a TOML string.
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let psk = wifi.psk.as_deref().map(|psk| format!("psk = {}, ", quoted(psk)));
    let (ssid, psk, country) = (quoted(&wifi.ssid), psk.unwrap_or_default(), quoted(&wifi.country));
    let value = format!("{{ ssid = {ssid}, {psk}country = {country} }}");
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
    let mut new = text.to_string();
    match span_of(text, &["network", "wifi"]) {
        Some(span) => new.replace_range(span, &value),
        None => match after_network(text) {
            Some(at) => new.insert_str(at, &format!("wifi = {value}\n")),
            None => {
                let gap = if new.is_empty() || new.ends_with('\n') { "" } else { "\n" };
                new.push_str(&format!("{gap}\n[network]\nwifi = {value}\n"));
            }
        },
    }
    match Config::parse(&new, "") {
        Ok(config) if config.network.wifi == alone.network.wifi => Ok(new),
        _ => {
            let message = "wifi is written in a form that cannot be changed here: edit the text of \
                           the configuration";
            Err(ConfigError::new(message, None))
        }
    }
}

/// Returns the position at which a line can be inserted into `[network]`: after the commented-out
/// example if there is one, otherwise after the table header.
fn after_network(text: &str) -> Option<usize> {
    let mut at = 0;
    let mut found = None;
    for line in text.split_inclusive('\n') {
        at += line.len();
        let words = line.trim();
        if words.starts_with('[') {
            if found.is_some() {
                break;
            }
            let head = words.split('#').next().unwrap_or_default();
            if head.split_whitespace().collect::<String>() == "[network]" && line.ends_with('\n') {
                found = Some(at);
            }
        } else if found.is_some() && words.starts_with("#wifi =") && line.ends_with('\n') {
            found = Some(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wifi(ssid: &str, psk: Option<&str>) -> Wifi {
        Wifi { ssid: ssid.into(), psk: psk.map(Into::into), country: "de".into() }
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
        assert_eq!((read.ssid.as_str(), read.country.as_str()), ("a \"b\"\\ä", "DE"));
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
    fn rejects_texts_that_it_cannot_edit() {
        let says = |text: &str, wifi: Wifi| with_wifi(text, &wifi).unwrap_err().message;
        assert!(says("", wifi("", None)).contains("1 to 32"));
        assert!(says("", wifi("x", Some("short"))).contains("8 to 63"));
        assert!(says("[network\n", wifi("x", None)).contains("another error"));
        let table = "[network.wifi]\nssid = \"x\"\ncountry = \"DE\"\n";
        assert!(says(table, wifi("y", None)).contains("edit the text"));
    }
}
