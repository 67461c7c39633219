//! `/boot/berrymse.toml`: what can be set, what it may be, and what stands when it is not set.
//!
//! TOML 1.1 (toml.io). Everything is optional; unknown keys are refused, because a typo that is
//! silently ignored costs an evening. Every error names line and column, says what is wrong and
//! what would be right ([`ConfigError`]).
//!
//! `appliance/berrymse.toml` documents every key; a test holds the two together.

pub mod edit;
pub mod error;
pub mod parse;
pub mod remote;
pub mod secrets;
mod values;

pub use error::ConfigError;
pub use values::{DEFAULT_LISTEN, parse_listen};

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use values::string;

/// A configuration larger than this is not one, bytes: the file as shipped is 5 KiB.
pub const MAX_CONFIG: usize = 256 * 1024;

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
    #[serde(deserialize_with = "values::listen")]
    pub listen: SocketAddr,
    /// Asked for everywhere but `/healthz`; in clear or as an argon2 hash.
    #[serde(deserialize_with = "values::password")]
    pub password: Option<String>,
    /// Other web sites that may show the picture: `https://example.org`, or `*` for all.
    #[serde(deserialize_with = "values::origins")]
    pub origins: Vec<String>,
    /// Other names that this machine is reached under, such as `cam.example.org`.
    #[serde(deserialize_with = "values::hosts")]
    pub hosts: Vec<String>,
    /// Viewers at the most, of all cameras together.
    #[serde(deserialize_with = "values::range::<1, 100_000, _>")]
    pub max_viewers: u32,
    /// Connections that one address may have at a time.
    #[serde(deserialize_with = "values::range::<1, 100_000, _>")]
    pub max_connections_per_address: u32,
    /// A request's headers must have come within this, seconds.
    #[serde(deserialize_with = "values::range::<1, 60, _>")]
    pub request_timeout: u32,
    /// A request's line and headers may be so long, bytes.
    #[serde(deserialize_with = "values::range::<8192, 1_048_576, _>")]
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
    #[serde(deserialize_with = "values::camera_name")]
    pub name: String,
    /// Where its H.264 comes from. `None`: the first camera that is found.
    pub source: Option<Source>,
    /// Width of the picture, pixels.
    #[serde(deserialize_with = "values::even::<16, 4096, _>")]
    pub width: u32,
    /// Height of the picture, pixels.
    #[serde(deserialize_with = "values::even::<16, 4096, _>")]
    pub height: u32,
    /// Frames a second.
    #[serde(deserialize_with = "values::range::<1, 240, _>")]
    pub framerate: u32,
    /// Bits a second.
    #[serde(deserialize_with = "values::range::<50_000, 100_000_000, _>")]
    pub bitrate: u32,
    /// Frames from one key frame to the next.
    #[serde(deserialize_with = "values::range::<1, 1200, _>")]
    pub keyframe_interval: u32,
    /// Degrees, clockwise.
    #[serde(deserialize_with = "values::rotation")]
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
    #[serde(deserialize_with = "values::hostname")]
    pub hostname: Option<String>,
    /// Time zone, such as `Europe/Berlin`.
    #[serde(deserialize_with = "values::timezone")]
    pub timezone: Option<String>,
    /// OpenSSH public keys that may log in. None: no SSH.
    #[serde(deserialize_with = "values::ssh_keys")]
    pub ssh_keys: Vec<String>,
}

/// `[network]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// `"dhcp"`, or an address with its prefix length.
    pub address: Address,
    /// Router.
    #[serde(deserialize_with = "values::gateway")]
    pub gateway: Option<IpAddr>,
    /// Name servers.
    #[serde(deserialize_with = "values::dns")]
    pub dns: Vec<IpAddr>,
    /// Wireless network.
    pub wifi: Option<Wifi>,
}

impl Network {
    /// The settings of the cable. The one fixed address belongs to the radio where there is a
    /// wireless network. A change of these takes effect after a restart; the radio's at once.
    pub fn without_wifi(&self) -> Network {
        match self.wifi {
            Some(_) => Network::default(),
            None => self.clone(),
        }
    }
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
    #[serde(deserialize_with = "values::ssid")]
    pub ssid: String,
    /// Its password; absent: an open network.
    #[serde(default, deserialize_with = "values::psk")]
    pub psk: Option<String>,
    /// The country whose radio rules hold: two letters.
    #[serde(deserialize_with = "values::country")]
    pub country: String,
}

/// `[update]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// Where updates are announced.
    #[serde(deserialize_with = "values::update_url")]
    pub url: Option<String>,
    /// How often to look.
    pub check: Check,
    /// What to do when there is one.
    pub install: Install,
    /// When to install by itself: `"03:00-05:00"`, minutes of the day.
    #[serde(deserialize_with = "values::window")]
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
