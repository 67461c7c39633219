//! Checks of single values: ranges and formats, and error messages that say what is valid.

use serde::de::Deserializer;
use serde::{Deserialize, de};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Default address to listen on.
pub const DEFAULT_LISTEN: &str = "0.0.0.0:2020";

/// Reads a string and converts it with `check`, whose error is the message.
pub(super) fn string<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    check(&text).map_err(de::Error::custom)
}

/// Reads an integer from `low` to `high`.
pub(super) fn integer<'de, D: Deserializer<'de>>(
    deserializer: D,
    low: u32,
    high: u32,
) -> Result<u32, D::Error> {
    let value = i64::deserialize(deserializer)?;
    u32::try_from(value)
        .ok()
        .filter(|value| (low..=high).contains(value))
        .ok_or_else(|| de::Error::custom(format!("invalid value {value}: must be {low} to {high}")))
}

pub(super) fn range<'de, const LOW: u32, const HIGH: u32, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u32, D::Error> {
    integer(deserializer, LOW, HIGH)
}

/// Reads an integer that has no default.
pub(super) fn optional<'de, const LOW: u32, const HIGH: u32, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    integer(deserializer, LOW, HIGH).map(Some)
}

/// Reads a number that has no default, with or without a decimal point. `LOW` and `HIGH` are in
/// hundredths.
pub(super) fn decimal<'de, const LOW: i32, const HIGH: i32, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f64>, D::Error> {
    let value = f64::deserialize(deserializer)?;
    let (low, high) = (f64::from(LOW) / 100.0, f64::from(HIGH) / 100.0);
    match value {
        // Not a number is in no range.
        value if (low..=high).contains(&value) => Ok(Some(value)),
        value => Err(de::Error::custom(format!("invalid value {value}: must be {low} to {high}"))),
    }
}

pub(super) fn even<'de, const LOW: u32, const HIGH: u32, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u32, D::Error> {
    let value = integer(deserializer, LOW, HIGH)?;
    if value % 2 == 1 {
        return Err(de::Error::custom(format!(
            "invalid size {value}: must be even, such as {} (encoders require it)",
            value - 1
        )));
    }
    Ok(value)
}

pub(super) fn rotation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match i64::deserialize(deserializer)? {
        value @ (0 | 90 | 180 | 270) => Ok(value as u32),
        value => {
            Err(de::Error::custom(format!("invalid rotation {value}: must be 0, 90, 180 or 270")))
        }
    }
}

pub(super) fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    string(deserializer, |text| parse_listen(text).map_err(|error| error.to_string()))
}

/// The error of [`parse_listen`]. Holds the rejected text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidListen(pub String);

impl fmt::Display for InvalidListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid address {:?}: must be an address and a port, for example {DEFAULT_LISTEN:?}",
            self.0
        )
    }
}

impl std::error::Error for InvalidListen {}

/// Parses an address to listen on: `0.0.0.0:2020`, `[::]:80`, `:80`, or a port alone.
///
/// # Errors
///
/// The text has none of these forms.
pub fn parse_listen(text: &str) -> Result<SocketAddr, InvalidListen> {
    let all = |port: &str| u16::from_str(port).ok().map(|port| SocketAddr::from(([0; 4], port)));
    SocketAddr::from_str(text)
        .ok()
        .or_else(|| all(text.strip_prefix(':').unwrap_or(text)))
        .ok_or_else(|| InvalidListen(text.into()))
}

pub(super) fn password<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| {
        if text.is_empty() {
            return Err("empty password: leave the line out for access without a password".into());
        }
        if text.starts_with("$argon2") {
            // A hash that was only partly copied must not lock out every user.
            let is_complete =
                |hash: argon2::PasswordHash<'_>| hash.salt.is_some() && hash.hash.is_some();
            if !argon2::PasswordHash::new(text).is_ok_and(is_complete) {
                return Err(
                    "incomplete argon2 hash: must end with the salt and the hash, each after \
                            a $"
                    .into(),
                );
            }
        }
        Ok(Some(text.into()))
    })
}

pub(super) fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let origins = Vec::<String>::deserialize(deserializer)?;
    for origin in &origins {
        let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let site = |rest: &str| !rest.is_empty() && !rest.contains(['/', '*', ' ']);
        if origin != "*" && !rest.is_some_and(site) {
            return Err(de::Error::custom(format!(
                "invalid origin {origin:?}: must be a scheme and a host without a path, for example \
                 \"https://example.org\", or \"*\""
            )));
        }
    }
    Ok(origins)
}

pub(super) fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let hosts = Vec::<String>::deserialize(deserializer)?;
    match hosts.iter().find(|host| !is_hostname(host, 253)) {
        Some(host) => Err(de::Error::custom(format!(
            "invalid host name {host:?}: must be a name without a port, for example \
             \"cam.example.org\""
        ))),
        None => Ok(hosts),
    }
}

/// Returns whether `text` is a host name of at most `longest` bytes: labels of letters, digits and
/// hyphens, separated by dots (RFC 1123, 2.1).
pub(super) fn is_hostname(text: &str, longest: usize) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= longest && text.split('.').all(label)
}

pub(super) fn camera_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    string(deserializer, |text| {
        let is_valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if (1..=32).contains(&text.len()) && text.bytes().all(is_valid) {
            Ok(text.into())
        } else {
            Err(format!(
                "invalid camera name {text:?}: must be 1 to 32 letters, digits, - and _, because it \
                 is part of URLs"
            ))
        }
    })
}

pub(super) fn hostname<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| {
        if is_hostname(text, 63) && !text.contains('.') {
            return Ok(Some(text.to_lowercase()));
        }
        Err(format!("invalid host name {text:?}: must be 1 to 63 letters, digits and hyphens"))
    })
}

pub(super) fn timezone<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| {
        let is_valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+');
        if text.bytes().all(is_valid) && text.starts_with(|c: char| c.is_ascii_uppercase()) {
            return Ok(Some(text.into()));
        }
        Err(format!(
            "invalid time zone {text:?}: must be a name such as \"Europe/Berlin\" or \"UTC\""
        ))
    })
}

pub(super) fn ssh_keys<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let keys = Vec::<String>::deserialize(deserializer)?;
    for key in &keys {
        let kind = key.split_whitespace().next().unwrap_or_default();
        let known = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|k| kind.starts_with(k));
        if !known || key.split_whitespace().count() < 2 || key.contains(char::is_control) {
            return Err(de::Error::custom(
                "invalid SSH public key: must be the single line of a file such as \
                 ~/.ssh/id_ed25519.pub, for example \"ssh-ed25519 AAAA… you@home\"",
            ));
        }
    }
    Ok(keys)
}

fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        format!("invalid address {text:?}: must be an IP address, for example \"192.168.1.1\"")
    })
}

pub(super) fn gateway<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<IpAddr>, D::Error> {
    string(deserializer, |text| ip_address(text).map(Some))
}

pub(super) fn dns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let servers = Vec::<String>::deserialize(deserializer)?;
    servers.iter().map(|text| ip_address(text).map_err(de::Error::custom)).collect()
}

pub(super) fn psk<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| match text.len() {
        // The password becomes a line of wpa_supplicant's configuration.
        _ if text.contains(char::is_control) => {
            Err("invalid network password: must not contain a line break or another control \
                 character"
                .into())
        }
        8..=63 => Ok(Some(text.into())),
        64 if text.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Some(text.into())),
        len => Err(format!("invalid network password of {len} characters: must have 8 to 63")),
    })
}

pub(super) fn country<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| {
        if text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Ok(Some(text.to_uppercase()));
        }
        Err(format!("invalid country {text:?}: must be two letters, such as \"DE\""))
    })
}

pub(super) fn update_url<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        if rest.is_some_and(|rest| !rest.is_empty()) && !text.contains(char::is_whitespace) {
            return Ok(Some(text.into()));
        }
        Err(format!(
            "invalid URL {text:?}: must start with https:// or http://, for example \
             \"https://example.org/berrymse.json\""
        ))
    })
}

pub(super) fn window<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<(u16, u16)>, D::Error> {
    string(deserializer, |text| {
        let time = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            // The range is checked first, so that the product cannot overflow.
            (hours < 24 && minutes < 60).then(|| hours * 60 + minutes)
        };
        text.split_once('-')
            .and_then(|(from, to)| Some((time(from)?, time(to)?)))
            .filter(|(from, to)| from != to)
            .map(Some)
            .ok_or_else(|| {
                format!("invalid time window {text:?}: must be two times, such as \"03:00-05:00\"")
            })
    })
}
