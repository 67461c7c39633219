//! The configuration file, which a user or a client of the HTTP API can write.
//!
//! Properties:
//! - No input causes a panic. An error message is one line of printable characters, and the line
//!   and column of the error exist in the text (the column may be one past the end of the line).
//! - A name that an error message suggests is not empty.
//! - Every error has a line and a column, except the error for too many cameras.
//! - A leading byte order mark has no effect.
//! - A valid configuration observes the documented limits: camera names are unique and can be part
//!   of a URL, sizes are even, and numbers are within their ranges.
//!
//! Input: the text of the file.

#![no_main]

use berrymse::config::{Address, Camera, Config, Source};
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;

fuzz_target!(|text: &str| {
    let result = Config::parse(text, "fuzz");
    if !text.starts_with('\u{feff}') {
        assert_eq!(Config::parse(&format!("\u{feff}{text}"), "fuzz"), result);
    }
    match result {
        Err(error) => {
            assert_eq!(error.file, "fuzz");
            assert!(!error.message.trim().is_empty());
            assert!(!error.message.contains(char::is_control), "{:?}", error.message);
            assert!(!error.message.ends_with("did you mean ``?"), "{error}");
            let Some((line, column)) = error.at else {
                assert!(error.message.contains("cameras: at most"), "{error}: no position");
                return;
            };
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            // Not lines(): the position may be after the last line break.
            let Some(text) = text.split('\n').nth(line.wrapping_sub(1)) else {
                panic!("{error}: this line does not exist")
            };
            assert!(
                (1..=text.chars().count() + 1).contains(&column),
                "{error}: no such column in {text:?}"
            );
        }
        Ok(config) => check(&config),
    }
});

/// Checks that a valid configuration observes the limits.
fn check(config: &Config) {
    let mut names = HashSet::new();
    for camera in &config.cameras {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        assert!(!camera.name.is_empty() && camera.name.len() <= 32);
        assert!(camera.name.bytes().all(good), "{:?}", camera.name);
        assert!(names.insert(&camera.name), "two cameras called {:?}", camera.name);
        for size in [camera.width, camera.height] {
            assert!((16..=4096).contains(&size) && size.is_multiple_of(2));
        }
        assert!((1..=240).contains(&camera.framerate));
        assert!((50_000..=100_000_000).contains(&camera.bitrate));
        assert!((1..=1200).contains(&camera.keyframe_interval));
        assert!([0, 90, 180, 270].contains(&camera.rotation));
        check_sensor(camera);
        match &camera.source {
            Some(Source::Command(command)) => assert!(!command[0].is_empty()),
            Some(Source::Device(device)) => assert!(device.starts_with("/dev/")),
            Some(Source::Rpicam | Source::TestCard) | None => {}
        }
    }
    assert!(config.cameras.len() <= 16);
    assert_ne!(config.server.password.as_deref(), Some(""));
    assert!(config.server.hosts.iter().all(|host| !host.is_empty() && host.is_ascii()));
    let network = &config.network;
    match network.address {
        Address::Dhcp => assert_eq!(network.gateway, None),
        Address::Fixed(ip, prefix) => {
            assert!(network.gateway.is_some());
            assert!((1..=if ip.is_ipv4() { 32 } else { 128 }).contains(&prefix));
        }
    }
    if let Some(wifi) = &network.wifi {
        assert!((2..=64).contains(&wifi.ssid.to_hex().len()));
        assert!(wifi.psk.as_ref().is_none_or(|psk| (8..=64).contains(&psk.len())));
        let is_valid = |c: &String| c.len() == 2 && c.bytes().all(|b| b.is_ascii_uppercase());
        assert!(wifi.country.as_ref().is_none_or(is_valid));
    }
    assert!(config.update.window.is_none_or(|(from, to)| from != to && from.max(to) < 24 * 60));
}

/// Checks that the sensor settings are in their ranges, which also means that they are numbers.
fn check_sensor(camera: &Camera) {
    for (value, low, high) in [
        (camera.lens_position, 0.0, 32.0),
        (camera.analogue_gain, 1.0, 64.0),
        (camera.exposure_value, -8.0, 8.0),
        (camera.brightness, -1.0, 1.0),
        (camera.contrast, 0.0, 15.99),
        (camera.saturation, 0.0, 15.99),
        (camera.sharpness, 0.0, 15.99),
    ] {
        assert!(value.is_none_or(|value| (low..=high).contains(&value)));
    }
    assert!(camera.colour_gains.iter().flatten().all(|gain| (0.1..=32.0).contains(gain)));
    assert!(camera.roi.iter().flatten().all(|part| (0.0..=1.001).contains(part)));
    assert!(camera.exposure_time.is_none_or(|time| (1..=1_000_000).contains(&time)));
    assert!(camera.camera_number.is_none_or(|number| number <= 15));
    assert!(camera.buffer_count.is_none_or(|count| (2..=16).contains(&count)));
}
