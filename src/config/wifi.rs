//! The wireless network that the machine joins.

use super::values::{self, string};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// The key `wifi` of the network.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Keys")]
pub struct Wifi {
    /// Name of the network.
    pub ssid: Ssid,
    /// Password, or a key of 64 hexadecimal digits. `None` stands for an open network.
    pub psk: Option<String>,
    /// Country whose radio regulations apply: two letters (ISO 3166-1). Without a country, the
    /// kernel uses only what all countries allow.
    pub country: Option<String>,
}

/// The keys as they are written: the name is text or hexadecimal digits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default, deserialize_with = "ssid")]
    ssid: Option<Ssid>,
    #[serde(default, deserialize_with = "ssid_hex")]
    ssid_hex: Option<Ssid>,
    #[serde(default, deserialize_with = "values::psk")]
    psk: Option<String>,
    #[serde(default, deserialize_with = "values::country")]
    country: Option<String>,
}

fn ssid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ssid>, D::Error> {
    string(deserializer, |text| Ssid::new(text).map(Some))
}

fn ssid_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ssid>, D::Error> {
    string(deserializer, |digits| Ssid::from_hex(digits).map(Some))
}

impl TryFrom<Keys> for Wifi {
    type Error = &'static str;

    fn try_from(keys: Keys) -> Result<Wifi, &'static str> {
        let ssid = match (keys.ssid, keys.ssid_hex) {
            (Some(ssid), None) | (None, Some(ssid)) => ssid,
            // In the words of serde: `validate` compares them.
            (None, None) => return Err("missing field `ssid`"),
            (Some(_), Some(_)) => return Err("`ssid` and `ssid_hex` are both set: remove one"),
        };
        Ok(Wifi { ssid, psk: keys.psk, country: keys.country })
    }
}

/// The name of a wireless network: 1 to 32 bytes (IEEE 802.11, 9.4.2.2). They are almost always
/// UTF-8 text.
#[derive(Clone, PartialEq, Eq)]
pub struct Ssid(Vec<u8>);

impl Ssid {
    /// Returns the name with these bytes.
    ///
    /// # Errors
    ///
    /// The name is empty or too long. The error says which lengths are valid.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Ssid, String> {
        let bytes = bytes.into();
        match bytes.len() {
            1..=32 => Ok(Ssid(bytes)),
            len => Err(format!("invalid network name of {len} bytes: must have 1 to 32 bytes")),
        }
    }

    /// Parses hexadecimal digits, two for each byte.
    ///
    /// # Errors
    ///
    /// The text does not consist of pairs of hexadecimal digits, or the name is empty or too long.
    pub fn from_hex(digits: &str) -> Result<Ssid, String> {
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_hex || digits.len() % 2 == 1 {
            let message =
                "invalid network name: must be pairs of hexadecimal digits, such as \"c3a4\"";
            return Err(message.into());
        }
        Ssid::new(digits.as_bytes().chunks(2).filter_map(pair).collect::<Vec<u8>>())
    }

    /// Returns the name in hexadecimal digits, which are safe for every byte.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the name as text. `None` if it is not UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

/// Replaces bytes that are not UTF-8.
impl fmt::Display for Ssid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

/// Like that of a string, if the name is one.
impl fmt::Debug for Ssid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => fmt::Debug::fmt(text, f),
            None => fmt::Debug::fmt(&self.0, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn wifi(keys: &str) -> Result<Wifi, String> {
        let config = Config::parse(&format!("[network]\nwifi = {{ {keys} }}\n"), "");
        config.map(|config| config.network.wifi.unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn reads_names_as_text_and_as_hexadecimal_digits() {
        let text = wifi("ssid = \"Café\"").unwrap();
        assert_eq!(text, wifi("ssid_hex = \"436166C3a9\"").unwrap());
        assert_eq!((text.ssid.as_str(), text.country), (Some("Café"), None));
        let bytes = wifi("ssid_hex = \"436166e9\", country = \"fr\"").unwrap();
        assert_eq!((bytes.ssid.as_str(), bytes.country.as_deref()), (None, Some("FR")));
        assert_eq!(
            (bytes.ssid.to_hex(), bytes.ssid.to_string()),
            ("436166e9".into(), "Caf\u{fffd}".into())
        );
        for (keys, expected) in [
            ("country = \"DE\"", "missing field `ssid`"),
            ("ssid = \"x\", ssid_hex = \"78\"", "remove one"),
            ("ssid_hex = \"7\"", "pairs of hexadecimal digits"),
            ("ssid_hex = \"é\"", "pairs of hexadecimal digits"),
            ("ssid_hex = \"\"", "0 bytes: must have 1 to 32"),
            ("ssid = \"\"", "0 bytes: must have 1 to 32"),
        ] {
            let message = wifi(keys).unwrap_err();
            assert!(message.contains(expected), "{keys}: {message}");
        }
        assert!(wifi(&format!("ssid_hex = \"{}\"", "ff".repeat(33))).is_err());
    }
}
