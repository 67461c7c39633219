//! `rpi-preseed.toml`, which Raspberry Pi Imager or a user writes.
//!
//! Properties:
//! - Nothing panics. Each note and each error is one line of printable characters.
//! - The result is a valid configuration. Only `[system]` and `network.wifi` differ from the shipped
//!   one, and all of its lines are still there, in order.
//! - Nothing happens that is not named: if the text has changed, a setting was taken over.
//! - Merging again changes nothing.
//! - A network with a password in any form does not become an open network.
//!
//! Input: the text of the file.

#![no_main]

use berrymse::config::Config;
use berrymse::config::preseed::merge;
use libfuzzer_sys::fuzz_target;

const SHIPPED: &str = include_str!("../../appliance/berrymse.toml");

fuzz_target!(|text: &str| {
    let result = match merge(SHIPPED, text, "fuzz") {
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error}");
            return;
        }
        Ok(result) => result,
    };
    for note in &result.notes {
        assert!(note.starts_with("fuzz: ") && !note.contains(char::is_control), "{note:?}");
    }
    let old = Config::parse(SHIPPED, "").unwrap();
    let new = Config::parse(&result.text, "").unwrap();
    let mut network = old.network.clone();
    network.wifi = new.network.wifi.clone();
    assert_eq!(Config { system: new.system.clone(), network, ..old }, new);
    let mut lines = result.text.lines();
    assert!(SHIPPED.lines().all(|line| lines.any(|other| other == line)), "{}", result.text);
    assert!(result.text == SHIPPED || !result.applied.is_empty());
    assert_eq!(merge(&result.text, text, "fuzz").unwrap().text, result.text);
    if let Some(wifi) = &new.network.wifi
        && wifi.psk.is_none()
    {
        let document: toml::Table = text.trim_start_matches('\u{feff}').parse().unwrap();
        assert!(document["wlan"].get("password").is_none(), "{text}");
    }
});
