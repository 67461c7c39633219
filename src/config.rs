//! `/boot/berrymse.toml`: what can be set, what it may be, and what stands when it is not set.
//!
//! TOML 1.1 (toml.io). Everything is optional; unknown keys are refused, because a typo that is
//! silently ignored costs an evening. Every error names line and column, says what is wrong and
//! what would be right ([`ConfigError`]).
//!
//! `appliance/berrymse.toml` documents every key; a test holds the two together.

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use toml::Spanned;

/// Where the configuration is looked for when the command line names no file.
pub const DEFAULT_PATH: &str = "/boot/berrymse.toml";

/// Address that is listened on when nothing else is said.
pub const DEFAULT_LISTEN: &str = "0.0.0.0:2020";

/// A configuration larger than this is not one, bytes: the file as shipped is 5 KiB.
pub const MAX_CONFIG: usize = 256 * 1024;

/// Cameras at the most: more than a USB bus or an encoder carries.
const MAX_CAMERAS: usize = 16;

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The web server.
    pub server: Server,
    /// The cameras, in order; the first is the one that `/live` shows.
    #[serde(rename = "camera", deserialize_with = "cameras")]
    pub cameras: Vec<Camera>,
    /// The machine (appliance).
    pub system: System,
    /// Its network (appliance).
    pub network: Network,
    /// Its updates (appliance).
    pub update: Update,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address and port.
    #[serde(deserialize_with = "listen")]
    pub listen: SocketAddr,
    /// Asked for everywhere but `/healthz`; in clear or as an argon2 hash.
    #[serde(deserialize_with = "password")]
    pub password: Option<String>,
    /// Other web sites that may show the picture: `https://example.org`, or `*` for all.
    #[serde(deserialize_with = "origins")]
    pub origins: Vec<String>,
    /// Other names that this machine is reached under, such as `cam.example.org`.
    #[serde(deserialize_with = "hosts")]
    pub hosts: Vec<String>,
    /// Viewers at the most, of all cameras together.
    #[serde(deserialize_with = "range::<1, 100_000, _>")]
    pub max_viewers: u32,
    /// Connections that one address may have at a time.
    #[serde(deserialize_with = "range::<1, 100_000, _>")]
    pub max_connections_per_address: u32,
    /// A request's headers must have come within this, seconds.
    #[serde(deserialize_with = "range::<1, 60, _>")]
    pub request_timeout: u32,
    /// A request's line and headers may be so long, bytes.
    #[serde(deserialize_with = "range::<8192, 1_048_576, _>")]
    pub max_request_size: u32,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            listen: SocketAddr::from(([0, 0, 0, 0], 2020)),
            password: None,
            origins: vec![],
            hosts: vec![],
            max_viewers: 1000,
            // A household behind one router, or a wall of screens; a reverse proxy needs more.
            max_connections_per_address: 100,
            request_timeout: 10,
            max_request_size: 16 * 1024,
        }
    }
}

/// `[[camera]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Camera {
    /// Its name in addresses: `/live/NAME`. Empty until [`Config::parse`] has given it one.
    #[serde(deserialize_with = "camera_name")]
    pub name: String,
    /// Where its H.264 comes from. `None`: the first camera that is found.
    pub source: Option<Source>,
    /// Width of the picture, pixels.
    #[serde(deserialize_with = "even::<16, 4096, _>")]
    pub width: u32,
    /// Height of the picture, pixels.
    #[serde(deserialize_with = "even::<16, 4096, _>")]
    pub height: u32,
    /// Frames a second.
    #[serde(deserialize_with = "range::<1, 240, _>")]
    pub framerate: u32,
    /// Bits a second.
    #[serde(deserialize_with = "range::<50_000, 100_000_000, _>")]
    pub bitrate: u32,
    /// Frames from one key frame to the next.
    #[serde(deserialize_with = "range::<1, 1200, _>")]
    pub keyframe_interval: u32,
    /// Degrees, clockwise.
    #[serde(deserialize_with = "rotation")]
    pub rotation: u32,
    /// Mirrored left to right.
    pub hflip: bool,
    /// Mirrored top to bottom.
    pub vflip: bool,
}

impl Default for Camera {
    fn default() -> Camera {
        Camera {
            name: String::new(),
            source: None,
            width: 1280,
            height: 720,
            framerate: 30,
            bitrate: 2_000_000,
            keyframe_interval: 60,
            rotation: 0,
            hflip: false,
            vflip: false,
        }
    }
}

/// `source = …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A V4L2 device: `"/dev/video0"`.
    Device(String),
    /// A Raspberry Pi camera, through rpicam-vid: `"rpicam"`.
    Rpicam,
    /// The built-in test card: `"test-card"`.
    TestCard,
    /// A program that writes H.264 to its standard output: `{ command = ["ffmpeg", …] }`.
    Command(Vec<String>),
}

/// `[system]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct System {
    /// Host name.
    #[serde(deserialize_with = "hostname")]
    pub hostname: Option<String>,
    /// Time zone, such as `Europe/Berlin`.
    #[serde(deserialize_with = "timezone")]
    pub timezone: Option<String>,
    /// OpenSSH public keys that may log in. None: no SSH.
    #[serde(deserialize_with = "ssh_keys")]
    pub ssh_keys: Vec<String>,
}

/// `[network]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// `"dhcp"`, or an address with its prefix length.
    pub address: Address,
    /// Router.
    #[serde(deserialize_with = "gateway")]
    pub gateway: Option<IpAddr>,
    /// Name servers.
    #[serde(deserialize_with = "dns")]
    pub dns: Vec<IpAddr>,
    /// Wireless network.
    pub wifi: Option<Wifi>,
}

/// `address = …`
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Address {
    /// From a DHCP server.
    #[default]
    Dhcp,
    /// Fixed: address and prefix length.
    Fixed(IpAddr, u8),
}

/// `wifi = { … }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wifi {
    /// Name of the network.
    #[serde(deserialize_with = "ssid")]
    pub ssid: String,
    /// Its password; absent: an open network.
    #[serde(default, deserialize_with = "psk")]
    pub psk: Option<String>,
    /// The country whose radio rules hold: two letters.
    #[serde(deserialize_with = "country")]
    pub country: String,
}

/// `[update]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// Where updates are announced.
    #[serde(deserialize_with = "update_url")]
    pub url: Option<String>,
    /// How often to look.
    pub check: Check,
    /// What to do when there is one.
    pub install: Install,
    /// When to install by itself: `"03:00-05:00"`, minutes of the day.
    #[serde(deserialize_with = "window")]
    pub window: Option<(u16, u16)>,
}

/// `check = …`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Once a day.
    #[default]
    Daily,
    /// Never.
    Never,
}

/// `install = …`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Install {
    /// When somebody says so on the page.
    #[default]
    Manual,
    /// By itself.
    Auto,
}

/// What is wrong with a configuration, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Name of the file.
    pub file: String,
    /// Line and column, from 1; `None` where the file as a whole is meant.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and validates the file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::parse(&Config::read(path)?, &path.display().to_string())
    }

    /// Reads the file's text, without looking into it.
    pub fn read(path: &Path) -> Result<String, ConfigError> {
        let file = path.display().to_string();
        let error = |message| ConfigError { file: file.clone(), at: None, message };
        let bytes = std::fs::read(path).map_err(|e| error(read_error(&e)))?;
        if bytes.len() > MAX_CONFIG {
            return Err(error(format!(
                "{} bytes: a configuration has at most {MAX_CONFIG}",
                bytes.len()
            )));
        }
        String::from_utf8(bytes).map_err(|e| {
            let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            ConfigError {
                file: file.clone(),
                at: Some(line_column(&String::from_utf8_lossy(good), good.len())),
                message: "not UTF-8 text: save the file as UTF-8".into(),
            }
        })
    }

    /// Validates `text`; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
        // Editors on Windows put a byte order mark in front.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let error = |message: String, span: Option<std::ops::Range<usize>>| ConfigError {
            file: file.into(),
            at: span.map(|span| line_column(text, span.start)),
            message: printable(&message),
        };
        let mut config: Config =
            toml::from_str(text).map_err(|e| error(explain(e.message()), e.span()))?;
        if config.cameras.len() > MAX_CAMERAS {
            return Err(error(
                format!("{} cameras: at most {MAX_CAMERAS} work", config.cameras.len()),
                None,
            ));
        }
        // What no single value can tell is checked here, with the places from a second look.
        let places: Places = toml::from_str(text).unwrap_or_default();
        for (n, place) in places.camera.iter().enumerate() {
            if let Some(name) = &place.name
                && config.cameras[..n].iter().any(|other| other.name == *name.get_ref())
            {
                return Err(error(
                    format!(
                        "there is a camera {:?} already: give each its own name",
                        name.get_ref()
                    ),
                    Some(name.span()),
                ));
            }
        }
        if let (Address::Fixed(..), None, Some(place)) =
            (&config.network.address, config.network.gateway, &places.network.address)
        {
            return Err(error(
                "a fixed address also needs `gateway = \"…\"` (the router's address)".into(),
                Some(place.span()),
            ));
        }
        if let Some(gateway) = &places.network.gateway
            && config.network.address == Address::Dhcp
        {
            return Err(error(
                "`gateway` needs a fixed `address`: with \"dhcp\" the router tells it".into(),
                Some(gateway.span()),
            ));
        }
        if let (Address::Fixed(address, prefix), Some(gateway), Some(place)) =
            (&config.network.address, config.network.gateway, &places.network.gateway)
            && !reaches(*address, *prefix, gateway)
        {
            return Err(error(
                format!(
                    "{gateway} is not in the network of {address}/{prefix}: no way leads there"
                ),
                Some(place.span()),
            ));
        }
        if let Some(dns) = &places.network.dns
            && config.network.address == Address::Dhcp
        {
            return Err(error(
                "`dns` needs a fixed `address`: with \"dhcp\" the router tells it".into(),
                Some(dns.span()),
            ));
        }
        if let Some(install) = &places.update.install
            && config.update.install == Install::Auto
            && config.update.url.is_none()
        {
            return Err(error(
                "`install = \"auto\"` needs `url = \"https://…\"`: where the updates are".into(),
                Some(install.span()),
            ));
        }
        config.name_cameras();
        Ok(config)
    }

    /// Gives every camera without a name one: `camera`, `camera2`, …
    pub fn name_cameras(&mut self) {
        let mut taken: Vec<String> = self.cameras.iter().map(|c| c.name.clone()).collect();
        for camera in self.cameras.iter_mut().filter(|camera| camera.name.is_empty()) {
            let names = (1..).map(|n| if n == 1 { "camera".into() } else { format!("camera{n}") });
            let mut names = names.filter(|name: &String| !taken.contains(name));
            camera.name = names.next().unwrap_or_default();
            taken.push(camera.name.clone());
        }
    }

    /// The configuration of a machine without a configuration file.
    pub fn without_file() -> Config {
        let mut config = Config { cameras: vec![Camera::default()], ..Config::default() };
        config.name_cameras();
        config
    }
}

/// Where in `text` the value of a key stands, with its quotation marks: `["network", "gateway"]`.
pub fn place(text: &str, key: &[&str]) -> Option<std::ops::Range<usize>> {
    // The byte order mark counts as text here.
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

/// Where in the text the values stand that are checked against each other.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Places {
    camera: Vec<PlaceOfCamera>,
    network: PlaceOfNetwork,
    update: PlaceOfUpdate,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PlaceOfCamera {
    name: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PlaceOfNetwork {
    address: Option<Spanned<String>>,
    gateway: Option<Spanned<String>>,
    dns: Option<Spanned<Vec<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PlaceOfUpdate {
    install: Option<Spanned<String>>,
}

fn read_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "may not be read by this user".into(),
        std::io::ErrorKind::IsADirectory => "is a folder, not a file".into(),
        _ => format!("cannot be read: {error}"),
    }
}

/// On one line, and nothing in it that a terminal would obey: messages quote the text.
fn printable(message: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    message.chars().map(escape).collect()
}

/// Line and column of a byte, both from 1; columns count characters.
pub(crate) fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// The parser's message, with the nearest valid name where a name is wrong.
fn explain(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("invalid type: ")
        && let Some((found, wanted)) = rest.rsplit_once(", expected ")
    {
        let wanted = match wanted {
            "i64" => "a whole number, without quotes,",
            "a sequence" => "a list, such as [\"one\", \"two\"],",
            "a string" => "text in quotes",
            "a boolean" => "true or false",
            wanted if wanted.starts_with("struct") => "a table, such as { name = \"value\" },",
            wanted => wanted,
        };
        return format!("{found} is not right here: {wanted} is needed");
    }
    let wrong_name = ["unknown field `", "unknown variant `"];
    let Some(rest) = wrong_name.iter().find_map(|start| message.strip_prefix(start)) else {
        return message.trim().replace('\n', ": ");
    };
    // From the end: the wrong name may have anything in it, the valid ones have no backtick.
    let (wrong, valid) = rest.rsplit_once("`, expected ").unwrap_or((rest, ""));
    let valid: Vec<&str> = valid.split('`').skip(1).step_by(2).collect();
    let what = if message.starts_with("unknown field") { "no such key" } else { "no such value" };
    let best = valid
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong.to_lowercase(), name), *name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3);
    match best {
        Some((_, name)) => format!("{what}: `{wrong}`; did you mean `{name}`?"),
        None => format!("{what}: `{wrong}`; there are `{}`", valid.join("`, `")),
    }
}

// ---- Values ----

fn string<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    check(&text).map_err(de::Error::custom)
}

fn integer<'de, D: Deserializer<'de>>(
    deserializer: D,
    low: u32,
    high: u32,
) -> Result<u32, D::Error> {
    let value = i64::deserialize(deserializer)?;
    u32::try_from(value)
        .ok()
        .filter(|value| (low..=high).contains(value))
        .ok_or_else(|| de::Error::custom(format!("{value} is out of range: {low} to {high}")))
}

fn range<'de, const LOW: u32, const HIGH: u32, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u32, D::Error> {
    integer(deserializer, LOW, HIGH)
}

fn even<'de, const LOW: u32, const HIGH: u32, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u32, D::Error> {
    let value = integer(deserializer, LOW, HIGH)?;
    if value % 2 == 1 {
        return Err(de::Error::custom(format!(
            "{value} is odd: encoders take even sizes only, such as {}",
            value - 1
        )));
    }
    Ok(value)
}

fn rotation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match i64::deserialize(deserializer)? {
        value @ (0 | 90 | 180 | 270) => Ok(value as u32),
        value => Err(de::Error::custom(format!("{value} is no rotation: 0, 90, 180 or 270"))),
    }
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    string(deserializer, parse_listen)
}

/// Reads an address to listen on: `0.0.0.0:2020`, `[::]:80`, `:80`, or a port alone.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let all = |port: &str| u16::from_str(port).ok().map(|port| SocketAddr::from(([0; 4], port)));
    SocketAddr::from_str(text)
        .ok()
        .or_else(|| all(text.strip_prefix(':').unwrap_or(text)))
        .ok_or_else(|| {
            format!("{text:?} is no address to listen on: for example {DEFAULT_LISTEN:?}")
        })
}

fn password<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| {
        if text.is_empty() {
            return Err("the password is empty: leave the line out to have none".into());
        }
        if text.starts_with("$argon2") {
            // Half a line copied must not lock everybody out.
            let whole = |hash: argon2::PasswordHash<'_>| hash.salt.is_some() && hash.hash.is_some();
            if !argon2::PasswordHash::new(text).is_ok_and(whole) {
                return Err(
                    "starts like an argon2 hash, but is no whole one: it ends in its salt \
                            and its hash, each after a $"
                        .into(),
                );
            }
        }
        Ok(Some(text.into()))
    })
}

fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let origins = Vec::<String>::deserialize(deserializer)?;
    for origin in &origins {
        let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let site = |rest: &str| !rest.is_empty() && !rest.contains(['/', '*', ' ']);
        if origin != "*" && !rest.is_some_and(site) {
            return Err(de::Error::custom(format!(
                "{origin:?} is no origin: for example \"https://example.org\" (no path), or \"*\""
            )));
        }
    }
    Ok(origins)
}

fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let hosts = Vec::<String>::deserialize(deserializer)?;
    match hosts.iter().find(|host| !is_hostname(host, 253)) {
        Some(host) => Err(de::Error::custom(format!(
            "{host:?} is no host name: for example \"cam.example.org\" (no port)"
        ))),
        None => Ok(hosts),
    }
}

/// RFC 1123, 2.1: letters, digits and hyphens between dots.
fn is_hostname(text: &str, longest: usize) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= longest && text.split('.').all(label)
}

fn camera_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    string(deserializer, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if (1..=32).contains(&text.len()) && text.bytes().all(good) {
            Ok(text.into())
        } else {
            Err(format!(
                "{text:?} is no camera name: 1 to 32 letters, digits, - and _ (it is part of \
                 addresses)"
            ))
        }
    })
}

fn hostname<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| {
        if is_hostname(text, 63) && !text.contains('.') {
            return Ok(Some(text.to_lowercase()));
        }
        Err(format!("{text:?} is no host name: 1 to 63 letters, digits and hyphens"))
    })
}

fn timezone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+');
        if text.bytes().all(good) && text.starts_with(|c: char| c.is_ascii_uppercase()) {
            return Ok(Some(text.into()));
        }
        Err(format!("{text:?} is no time zone: for example \"Europe/Berlin\" or \"UTC\""))
    })
}

fn ssh_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let keys = Vec::<String>::deserialize(deserializer)?;
    for key in &keys {
        let kind = key.split_whitespace().next().unwrap_or_default();
        let known = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|k| kind.starts_with(k));
        if !known || key.split_whitespace().count() < 2 || key.contains(char::is_control) {
            return Err(de::Error::custom(
                "not an SSH public key: the one line of ~/.ssh/id_ed25519.pub, such as \
                 \"ssh-ed25519 AAAA… you@home\"",
            ));
        }
    }
    Ok(keys)
}

fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address: for example \"192.168.1.1\""))
}

fn gateway<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    string(deserializer, |text| ip_address(text).map(Some))
}

fn dns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let servers = Vec::<String>::deserialize(deserializer)?;
    servers.iter().map(|text| ip_address(text).map_err(de::Error::custom)).collect()
}

/// Whether a router at `gateway` can be spoken to from `address`.
fn reaches(address: IpAddr, prefix: u8, gateway: IpAddr) -> bool {
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

/// `[[camera]]`, and what to do about `[camera]`.
fn cameras<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Camera>, D::Error> {
    struct List;

    impl<'de> Visitor<'de> for List {
        type Value = Vec<Camera>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("[[camera]]")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Camera>, A::Error> {
            let mut cameras = vec![];
            while let Some(camera) = list.next_element()? {
                cameras.push(camera);
            }
            Ok(cameras)
        }

        fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Vec<Camera>, A::Error> {
            Err(de::Error::custom("write [[camera]], in two brackets: there may be several"))
        }
    }

    deserializer.deserialize_any(List)
}

fn ssid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    string(deserializer, |text| match text.len() {
        1..=32 => Ok(text.into()),
        len => Err(format!("the network's name has {len} bytes: 1 to 32 are possible")),
    })
}

fn psk<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| match text.len() {
        // It becomes a line of another file.
        _ if text.contains(char::is_control) => {
            Err("the network's password has a line break or another control character in it".into())
        }
        8..=63 => Ok(Some(text.into())),
        64 if text.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Some(text.into())),
        len => Err(format!("the network's password has {len} characters: 8 to 63 are possible")),
    })
}

fn country<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    string(deserializer, |text| {
        if text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Ok(text.to_uppercase());
        }
        Err(format!("{text:?} is no country: two letters, such as \"DE\""))
    })
}

fn update_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    string(deserializer, |text| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        if rest.is_some_and(|rest| !rest.is_empty()) && !text.contains(char::is_whitespace) {
            return Ok(Some(text.into()));
        }
        Err(format!(
            "{text:?} is no web address: for example \"https://example.org/berrymse.json\""
        ))
    })
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(u16, u16)>, D::Error> {
    string(deserializer, |text| {
        let time = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            // Multiplied only once it is known to be small.
            (hours < 24 && minutes < 60).then(|| hours * 60 + minutes)
        };
        text.split_once('-')
            .and_then(|(from, to)| Some((time(from)?, time(to)?)))
            .filter(|(from, to)| from != to)
            .map(Some)
            .ok_or_else(|| format!("{text:?} is no time window: for example \"03:00-05:00\""))
    })
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        string(deserializer, |text| {
            if text == "dhcp" {
                return Ok(Address::Dhcp);
            }
            let fixed = text.split_once('/').and_then(|(address, prefix)| {
                let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse().ok()?);
                let longest = if address.is_ipv4() { 32 } else { 128 };
                (1..=longest).contains(&prefix).then_some(Address::Fixed(address, prefix))
            });
            fixed.ok_or_else(|| {
                format!("{text:?} is no address: \"dhcp\", or for example \"192.168.1.10/24\"")
            })
        })
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a source: \"/dev/video0\", \"rpicam\", \"test-card\" or { command = [\"…\"] }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Source, E> {
                match text {
                    "rpicam" => Ok(Source::Rpicam),
                    "test-card" => Ok(Source::TestCard),
                    device if device.starts_with("/dev/") => Ok(Source::Device(device.into())),
                    other => {
                        let near = |name: &&&str| strsim::damerau_levenshtein(other, name) <= 2;
                        Err(E::custom(match ["rpicam", "test-card"].iter().find(near) {
                            Some(name) => {
                                format!("no such source: {other:?}; did you mean {name:?}?")
                            }
                            None => format!(
                                "no such source: {other:?}; there are \"/dev/video…\", \"rpicam\", \
                                 \"test-card\" and {{ command = [\"program\", \"argument\", …] }}"
                            ),
                        }))
                    }
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Source, A::Error> {
                #[derive(Deserialize)]
                #[serde(field_identifier, rename_all = "lowercase")]
                enum Key {
                    Command,
                }
                let mut command: Option<Vec<String>> = None;
                while let Some(Key::Command) = map.next_key()? {
                    command = Some(map.next_value()?);
                }
                match command {
                    Some(command) if command.first().is_some_and(|program| !program.is_empty()) => {
                        Ok(Source::Command(command))
                    }
                    Some(_) => Err(de::Error::custom("the command is empty: name a program")),
                    None => Err(de::Error::missing_field("command")),
                }
            }
        }

        deserializer.deserialize_any(Any)
    }
}
