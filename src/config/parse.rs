//! Reads a configuration and finds every error in it.
//!
//! serde stops at the first error. Therefore the invalid value is removed from the document and the
//! rest is read again, until no error is left. Values that are invalid only in combination are
//! checked last. All errors are reported in the order of the file.

use super::error::{explain, read_error};
use super::sensor::Autofocus;
use super::{Address, Camera, Config, ConfigError, Install, MAX_CONFIG};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// Maximum number of cameras. A USB bus or an encoder can handle fewer.
const MAX_CAMERAS: usize = 16;

/// Maximum number of reported errors.
const MAX_ERRORS: usize = 50;

impl Config {
    /// Reads and validates the file.
    ///
    /// # Errors
    ///
    /// The first error in the file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::parse(&Config::read(path)?, &path.display().to_string())
    }

    /// Reads the file's text without validating it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is not UTF-8, or exceeds [`MAX_CONFIG`].
    pub fn read(path: &Path) -> Result<String, ConfigError> {
        let file = path.display().to_string();
        let error = |message| ConfigError::new(message, None).in_file(&file);
        let bytes = std::fs::read(path).map_err(|e| error(read_error(&e)))?;
        if bytes.len() > MAX_CONFIG {
            let message =
                format!("the file has {} bytes: must have at most {MAX_CONFIG}", bytes.len());
            return Err(error(message));
        }
        String::from_utf8(bytes).map_err(|e| {
            let valid = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
            let message = "not UTF-8 text: save the file as UTF-8";
            let end = Some(valid.len()..valid.len());
            ConfigError::in_text(message, &valid, end).in_file(&file)
        })
    }

    /// Parses and validates `text`. Errors name it `file`.
    ///
    /// # Errors
    ///
    /// The first error that the parser finds.
    pub fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
        // Clients can send any text, so the search stops at the first error to limit the work.
        validate(text, file, 1).map_err(|mut errors| errors.swap_remove(0))
    }

    /// Parses and validates `text`. Errors name it `file`.
    ///
    /// # Errors
    ///
    /// Every error in the text, in order; at least one and at most 50.
    pub fn check(text: &str, file: &str) -> Result<Config, Vec<ConfigError>> {
        validate(text, file, MAX_ERRORS)
    }

    /// Names the cameras that have no name: `camera`, `camera2`, …
    pub fn name_cameras(&mut self) {
        let mut taken: Vec<String> = self.cameras.iter().map(|c| c.name.clone()).collect();
        for camera in self.cameras.iter_mut().filter(|camera| camera.name.is_empty()) {
            let names = (1..).map(|n| if n == 1 { "camera".into() } else { format!("camera{n}") });
            let mut names = names.filter(|name: &String| !taken.contains(name));
            camera.name = names.next().unwrap_or_default();
            taken.push(camera.name.clone());
        }
    }

    /// Returns the configuration of a machine without a configuration file.
    pub fn without_file() -> Config {
        let mut config = Config { cameras: vec![Camera::default()], ..Config::default() };
        config.name_cameras();
        config
    }
}

/// Validates `text`, and stops after `limit` errors. Text that serde rejects is read at most `limit`
/// times.
fn validate(text: &str, file: &str, limit: usize) -> Result<Config, Vec<ConfigError>> {
    // Editors on Windows add a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut errors = Errors { text, found: BTreeMap::new() };
    let mut document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(first) if limit == 1 => {
            errors.add(explain(first.message()), first.span());
            return Err(errors.in_file(file));
        }
        Err(_) => {
            let (document, syntax) = DeTable::parse_recoverable(text);
            errors.add_syntax(&syntax, limit);
            document
        }
    };
    let broken = !errors.found.is_empty();
    let mut paths: Vec<Vec<String>> = vec![];
    let mut result = None;
    for _ in 0..limit {
        let error = match Config::deserialize(Deserializer::from(document.clone())) {
            Ok(config) => {
                result = Some(config);
                break;
            }
            Err(error) => error,
        };
        let span = error.span();
        let removed = span.as_ref().and_then(|span| remove(document.get_mut(), span));
        // A value that was removed, or lost because of a syntax error, is not missing.
        let is_missing = error.message().starts_with("missing field");
        let is_inside =
            |path: &Vec<String>| removed.as_ref().is_some_and(|(table, _)| path.starts_with(table));
        let lost = is_missing && (broken || paths.iter().any(is_inside));
        // Do not report the rest of a line with a syntax error separately.
        let leftover =
            broken && removed.as_ref().is_some_and(|(_, span)| errors.is_on_line_of(span));
        if !lost && !leftover {
            errors.add(explain(error.message()), span);
        }
        match removed {
            Some((path, _)) => paths.push(path),
            None => break,
        }
    }
    let Some(mut config) = result else { return Err(errors.in_file(file)) };
    if config.cameras.len() > MAX_CAMERAS {
        let count = config.cameras.len();
        errors.add(format!("{count} cameras: at most {MAX_CAMERAS} are supported"), None);
    }
    // Do not report a value as missing if it was removed because of another error.
    if errors.found.is_empty() {
        let spans = Spans::deserialize(Deserializer::from(document)).unwrap_or_default();
        spans.check(&config, &mut errors);
    }
    if errors.found.is_empty() {
        config.name_cameras();
        return Ok(config);
    }
    Err(errors.in_file(file))
}

/// Errors, sorted by position.
struct Errors<'a> {
    text: &'a str,
    found: BTreeMap<(usize, usize), ConfigError>,
}

impl Errors<'_> {
    fn add(&mut self, message: String, span: Option<Range<usize>>) {
        let start = span.as_ref().map_or(0, |span| span.start);
        let error = ConfigError::in_text(&message, self.text, span);
        self.found.insert((start, self.found.len()), error);
    }

    /// Adds the parser's errors. The parser can report the same error several times, so only the
    /// first error on each line counts.
    fn add_syntax(&mut self, errors: &[toml::de::Error], limit: usize) {
        let mut line = 0..0;
        for error in errors {
            let Some(span) = error.span() else { continue };
            if line.contains(&span.start) {
                continue;
            }
            let (before, after) = self.text.split_at_checked(span.start).unwrap_or((self.text, ""));
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            let end = after.find('\n').map_or(self.text.len(), |at| span.start + at);
            line = start..end + 1;
            self.add(explain(error.message()), Some(span));
            if self.found.len() >= limit {
                break;
            }
        }
        // There is at least one error, even if its position is unknown.
        if let (true, Some(first)) = (self.found.is_empty(), errors.first()) {
            self.add(explain(first.message()), None);
        }
    }

    /// Returns whether a line in `span` already has an error.
    fn is_on_line_of(&self, span: &Range<usize>) -> bool {
        let line = |at: usize| self.text.get(..at).unwrap_or(self.text).matches('\n').count();
        let lines = line(span.start)..=line(span.end);
        self.found.keys().any(|&(start, _)| lines.contains(&line(start)))
    }

    fn in_file(self, file: &str) -> Vec<ConfigError> {
        self.found.into_values().map(|error| error.in_file(file)).collect()
    }
}

/// Removes the innermost entry that contains `span`. Returns its path and its position.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<(Vec<String>, Range<usize>)> {
    let inside = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let key = table
        .iter()
        .find(|(key, value)| inside(&key.span()) || inside(&value.span()) || reaches(value, span))
        .map(|(key, _)| key.clone())?;
    let value = table.get_mut(&key)?;
    let inner = match value.get_mut() {
        DeValue::Table(table) => remove(table, span),
        DeValue::Array(array) => array.iter_mut().enumerate().find_map(|(n, value)| {
            let DeValue::Table(table) = value.get_mut() else { return None };
            let (mut path, span) = remove(table, span)?;
            path.insert(0, n.to_string());
            Some((path, span))
        }),
        _ => None,
    };
    let name = key.get_ref().to_string();
    if let Some((mut path, span)) = inner {
        path.insert(0, name);
        return Some((path, span));
    }
    let (key, value) = table.remove_entry(&key)?;
    let start = key.span().start.min(value.span().start);
    let end = key.span().end.max(value.span().end);
    Some((vec![name], start..end))
}

/// Returns whether an entry below `value` contains `span`. (The span of a table with a header covers
/// only the header.)
fn reaches(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    let inside = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    match value.get_ref() {
        DeValue::Table(table) => table
            .iter()
            .any(|(key, value)| inside(key.span()) || inside(value.span()) || reaches(value, span)),
        DeValue::Array(array) => {
            array.iter().any(|value| inside(value.span()) || reaches(value, span))
        }
        _ => false,
    }
}

/// Positions of the values that are checked in combination with others.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Spans {
    camera: Vec<CameraSpans>,
    network: NetworkSpans,
    update: UpdateSpans,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CameraSpans {
    name: Option<Spanned<String>>,
    lens_position: Option<Spanned<IgnoredAny>>,
    exposure_time: Option<Spanned<IgnoredAny>>,
    camera_number: Option<Spanned<IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NetworkSpans {
    address: Option<Spanned<String>>,
    gateway: Option<Spanned<String>>,
    dns: Option<Spanned<Vec<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UpdateSpans {
    install: Option<Spanned<String>>,
}

impl Spans {
    /// Checks the values that depend on each other.
    fn check(&self, config: &Config, errors: &mut Errors<'_>) {
        for (n, spans) in self.camera.iter().enumerate() {
            if let Some(name) = &spans.name
                && config.cameras[..n].iter().any(|other| other.name == *name.get_ref())
            {
                let name_text = name.get_ref();
                let message =
                    format!("duplicate camera name {name_text:?}: give each camera a unique name");
                errors.add(message, Some(name.span()));
            }
            spans.check(&config.cameras[n], &config.cameras[..n], errors);
        }
        self.network.check(&config.network, errors);
        if let Some(install) = &self.update.install
            && config.update.install == Install::Auto
            && config.update.url.is_none()
        {
            let message = "`install = \"auto\"` also needs `url = \"https://…\"`, the URL of the \
                           update announcement";
            errors.add(message.into(), Some(install.span()));
        }
    }
}

impl CameraSpans {
    fn check(&self, camera: &Camera, before: &[Camera], errors: &mut Errors<'_>) {
        let autofocus = camera.autofocus.filter(|mode| *mode != Autofocus::Manual);
        if let (Some(position), Some(_)) = (&self.lens_position, autofocus) {
            let message = "`lens_position` needs `autofocus = \"manual\"`: any other mode moves the \
                           lens";
            errors.add(message.into(), Some(position.span()));
        }
        let frame_time = 1_000_000 / camera.framerate;
        if let (Some(key), Some(time)) = (&self.exposure_time, camera.exposure_time)
            && time > frame_time
        {
            let message = format!(
                "`exposure_time` exceeds the time of one frame: must be at most {frame_time} \
                 microseconds with `framerate = {}`",
                camera.framerate
            );
            errors.add(message, Some(key.span()));
        }
        if let (Some(key), Some(number)) = (&self.camera_number, camera.camera_number)
            && before.iter().any(|other| other.camera_number == Some(number))
        {
            let message = format!("duplicate camera number {number}: give each its own number");
            errors.add(message, Some(key.span()));
        }
    }
}

impl NetworkSpans {
    fn check(&self, network: &super::Network, errors: &mut Errors<'_>) {
        match network.address {
            Address::Dhcp => {
                let gateway = self.gateway.as_ref().map(|key| ("gateway", key.span()));
                let dns = self.dns.as_ref().map(|key| ("dns", key.span()));
                for (key, span) in gateway.into_iter().chain(dns) {
                    let message = format!(
                        "`{key}` needs a fixed `address`: with \"dhcp\", the router provides it"
                    );
                    errors.add(message, Some(span));
                }
            }
            Address::Fixed(address, prefix) => match (network.gateway, &self.gateway) {
                (Some(gateway), Some(key)) if !is_on_link(address, prefix, gateway) => {
                    let message = format!(
                        "{gateway} is not in the network of {address}/{prefix}, so it cannot be \
                         reached"
                    );
                    errors.add(message, Some(key.span()));
                }
                (None, _) => {
                    let message = "a fixed address also needs `gateway = \"…\"` (the router's \
                                   address)";
                    errors.add(message.into(), self.address.as_ref().map(Spanned::span));
                }
                _ => {}
            },
        }
    }
}

/// Returns whether `gateway` can be reached directly from `address`.
fn is_on_link(address: IpAddr, prefix: u8, gateway: IpAddr) -> bool {
    match (address, gateway) {
        (IpAddr::V4(address), IpAddr::V4(gateway)) => {
            (u32::from(address) ^ u32::from(gateway)).leading_zeros() >= u32::from(prefix)
        }
        (IpAddr::V6(address), IpAddr::V6(gateway)) => {
            let link_local = gateway.is_unicast_link_local();
            link_local
                || (u128::from(address) ^ u128::from(gateway)).leading_zeros() >= u32::from(prefix)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<((usize, usize), String)> {
        let errors = Config::check(text, "").unwrap_err();
        errors.into_iter().map(|error| (error.at.unwrap_or_default(), error.message)).collect()
    }

    #[test]
    fn finds_every_error_in_the_order_of_the_file() {
        let text = "[server]\nlisten = \"here\"\nport = 80\n[[camera]]\nwidth = 1281\n\
                    [[camera]]\nrotation = 45\nnaem = \"x\"\n[network]\n\
                    wifi = { ssid = \"\", psk = \"short\", country = \"Germany\" }\n[srever]\nx = 1\n";
        let places: Vec<_> = errors(text).into_iter().map(|(at, _)| at).collect();
        let expected =
            [(2, 10), (3, 1), (5, 9), (7, 12), (8, 1), (10, 17), (10, 27), (10, 46), (11, 2)];
        assert_eq!(places, expected);
    }

    #[test]
    fn finds_other_errors_after_a_syntax_error() {
        let text = "[server]\nlisten = here\nhots = []\n[[camera]]\nwidth = 8\n";
        let places: Vec<_> = errors(text).into_iter().map(|(at, _)| at.0).collect();
        assert_eq!(places, [2, 3, 5]);
    }

    #[test]
    fn does_not_report_invalid_values_as_missing() {
        let wifi = "[network]\nwifi = { ssid = \"x\", country = DE }\n";
        assert_eq!(errors(wifi).len(), 1, "{:?}", errors(wifi));
        let table = "[network.wifi]\nssid = \"x\"\ncountry = DE\n";
        assert_eq!(errors(table).len(), 1, "{:?}", errors(table));
        let typo = "[network.wifi]\nssdi = \"x\"\ncountry = \"DE\"\n";
        assert_eq!(errors(typo).len(), 1, "{:?}", errors(typo));
        let gateway = "[network]\naddress = \"10.0.0.1/8\"\ngateway = 10\n";
        assert_eq!(errors(gateway).len(), 1, "{:?}", errors(gateway));
    }

    #[test]
    fn finds_every_conflict_between_values() {
        let text = "[[camera]]\nname = \"a\"\n[[camera]]\nname = \"a\"\n[network]\n\
                    gateway = \"10.0.0.1\"\ndns = [\"9.9.9.9\"]\n[update]\ninstall = \"auto\"\n";
        let places: Vec<_> = errors(text).into_iter().map(|(at, _)| at).collect();
        assert_eq!(places, [(4, 8), (6, 11), (7, 7), (9, 11)]);
    }

    #[test]
    fn limits_the_work_for_long_invalid_texts() {
        // For texts of up to the maximum length, quadratic work would take minutes.
        let garbage = "=]\n".repeat(MAX_CONFIG / 3);
        let line = format!("x = {}", "=".repeat(MAX_CONFIG - 4));
        let keys: String = (0..20_000).map(|n| format!("k{n} = 1\n")).collect();
        let inline: Vec<String> = (0..20_000).map(|n| format!("k{n}=1")).collect();
        let inline = format!("a = [\nserver = {{{}}}\n", inline.join(","));
        for text in [garbage, line, keys, inline] {
            assert!((1..=MAX_ERRORS).contains(&errors(&text).len()));
            assert!(Config::parse(&text, "").is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn parse_and_check_agree_on_any_text(text in "(ä|€|😀|\r\n|\"\"\"|[\\[\\]{}=\"',.#\n a-z0-9]|\\[\\[camera\\]\\]\n|wifi = |name = ){0,60}") {
            match Config::check(&text, "") {
                Ok(_) => {}
                Err(errors) => proptest::prop_assert!(!errors.is_empty()),
            }
            proptest::prop_assert_eq!(
                Config::check(&text, "").is_ok(),
                Config::parse(&text, "").is_ok()
            );
        }
    }
}
