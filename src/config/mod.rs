//! The configuration file, `/boot/berrymse.toml`: keys, valid values and defaults.
//!
//! The format is TOML 1.1 (toml.io). Every key is optional. Unknown keys are rejected, because a
//! typo that is silently ignored is hard to find. Every error has a line and a column, and says
//! what is wrong and what is valid ([`ConfigError`]).
//!
//! `appliance/berrymse.toml` documents every key. A test compares it with these types.

pub mod edit;
pub mod error;
pub mod parse;
pub mod preseed;
pub mod remote;
pub mod secrets;
mod values;
mod wifi;

pub use error::ConfigError;
pub use values::{DEFAULT_LISTEN, InvalidListen, parse_listen};
pub use wifi::{Ssid, Wifi};

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use values::string;

/// Maximum size of a configuration, in bytes. The shipped file has about 5 KiB.
pub const MAX_CONFIG: usize = 256 * 1024;

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The web server.
    pub server: Server,
    /// The cameras, in file order. `/live` shows the first one.
    #[serde(rename = "camera", deserialize_with = "cameras")]
    pub cameras: Vec<Camera>,
    /// The machine (appliance only).
    pub system: System,
    /// The network of the machine (appliance only).
    pub network: Network,
    /// The updates of the machine (appliance only).
    pub update: Update,
}

/// The table `[server]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address and port to listen on.
    #[serde(deserialize_with = "values::listen")]
    pub listen: SocketAddr,
    /// Password, in plain text or as an argon2 hash. Required for everything except `/healthz`.
    #[serde(deserialize_with = "values::password")]
    pub password: Option<String>,
    /// Other web sites that may show the video: `https://example.org`, or `*` for all sites.
    #[serde(deserialize_with = "values::origins")]
    pub origins: Vec<String>,
    /// Additional host names of this machine, such as `cam.example.org`.
    #[serde(deserialize_with = "values::hosts")]
    pub hosts: Vec<String>,
    /// Maximum number of viewers across all cameras, 1 to 100000.
    #[serde(deserialize_with = "values::range::<1, 100_000, _>")]
    pub max_viewers: u32,
    /// Maximum number of simultaneous connections per client address, 1 to 100000.
    #[serde(deserialize_with = "values::range::<1, 100_000, _>")]
    pub max_connections_per_address: u32,
    /// Maximum time for the headers of a request to arrive, in seconds, 1 to 60.
    #[serde(deserialize_with = "values::range::<1, 60, _>")]
    pub request_timeout: u32,
    /// Maximum size of the request line and headers, in bytes, 8192 to 1048576.
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
            // Enough for a household behind one router or for a video wall. A reverse proxy needs
            // more.
            max_connections_per_address: 100,
            request_timeout: 10,
            max_request_size: 16 * 1024,
        }
    }
}

/// A table `[[camera]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Camera {
    /// Name of the camera in URLs: `/live/NAME`. [`Config::parse`] fills in missing names.
    #[serde(deserialize_with = "values::camera_name")]
    pub name: String,
    /// Source of the H.264 stream. `None` stands for the first camera found.
    pub source: Option<Source>,
    /// Width of the picture, in pixels: an even number, 16 to 4096.
    #[serde(deserialize_with = "values::even::<16, 4096, _>")]
    pub width: u32,
    /// Height of the picture, in pixels: an even number, 16 to 4096.
    #[serde(deserialize_with = "values::even::<16, 4096, _>")]
    pub height: u32,
    /// Frame rate, in frames per second, 1 to 240.
    #[serde(deserialize_with = "values::range::<1, 240, _>")]
    pub framerate: u32,
    /// Bit rate, in bits per second, 50000 to 100000000.
    #[serde(deserialize_with = "values::range::<50_000, 100_000_000, _>")]
    pub bitrate: u32,
    /// Distance between key frames, in frames, 1 to 1200.
    #[serde(deserialize_with = "values::range::<1, 1200, _>")]
    pub keyframe_interval: u32,
    /// Clockwise rotation, in degrees: 0, 90, 180 or 270.
    #[serde(deserialize_with = "values::rotation")]
    pub rotation: u32,
    /// Whether the picture is mirrored horizontally.
    pub hflip: bool,
    /// Whether the picture is mirrored vertically.
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

/// The key `source` of a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A V4L2 device: `"/dev/video0"`.
    Device(String),
    /// A Raspberry Pi camera that is read with rpicam-vid: `"rpicam"`.
    Rpicam,
    /// The built-in test card: `"test-card"`.
    TestCard,
    /// A program that writes H.264 to its standard output: `{ command = ["ffmpeg", …] }`.
    Command(Vec<String>),
}

/// The table `[system]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct System {
    /// Host name.
    #[serde(deserialize_with = "values::hostname")]
    pub hostname: Option<String>,
    /// Time zone, such as `Europe/Berlin`.
    #[serde(deserialize_with = "values::timezone")]
    pub timezone: Option<String>,
    /// OpenSSH public keys that are allowed to log in. SSH is off if the list is empty.
    #[serde(deserialize_with = "values::ssh_keys")]
    pub ssh_keys: Vec<String>,
}

/// The table `[network]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// `"dhcp"`, or an address with a prefix length.
    pub address: Address,
    /// Address of the router.
    #[serde(deserialize_with = "values::gateway")]
    pub gateway: Option<IpAddr>,
    /// Addresses of the name servers.
    #[serde(deserialize_with = "values::dns")]
    pub dns: Vec<IpAddr>,
    /// Wireless network to join.
    pub wifi: Option<Wifi>,
}

impl Network {
    /// Returns the settings of the wired interface. If a wireless network is configured, a fixed
    /// address applies to the wireless interface. Changes to the wired settings take effect when the
    /// machine restarts; changes to the wireless settings take effect immediately.
    pub fn without_wifi(&self) -> Network {
        match self.wifi {
            Some(_) => Network::default(),
            None => self.clone(),
        }
    }
}

/// The key `address` of the network.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Address {
    /// An address from a DHCP server.
    #[default]
    Dhcp,
    /// A fixed address with its prefix length, in bits.
    Fixed(IpAddr, u8),
}

/// The table `[update]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// URL of the update announcement.
    #[serde(deserialize_with = "values::update_url")]
    pub url: Option<String>,
    /// How often to check for an update.
    pub check: Check,
    /// What to do with an available update.
    pub install: Install,
    /// Time window for automatic installation, such as `"03:00-05:00"`: start and end in minutes
    /// after midnight, local time.
    #[serde(deserialize_with = "values::window")]
    pub window: Option<(u16, u16)>,
}

/// The key `check` of the updates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Once a day.
    #[default]
    Daily,
    /// Never.
    Never,
}

/// The key `install` of the updates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Install {
    /// On request, on the settings page.
    #[default]
    Manual,
    /// Automatically.
    Auto,
}

/// Reads the list of `[[camera]]` tables, and explains the error if the file contains `[camera]`
/// instead.
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
            Err(de::Error::custom("use double brackets, [[camera]]: there can be several cameras"))
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
                format!(
                    "invalid address {text:?}: must be \"dhcp\", or an address with a prefix \
                     length, for example \"192.168.1.10/24\""
                )
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
                                "no such source: {other:?}; must be \"/dev/video…\", \"rpicam\", \
                                 \"test-card\" or {{ command = [\"program\", \"argument\", …] }}"
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
                    Some(_) => Err(de::Error::custom("empty command: name a program")),
                    None => Err(de::Error::missing_field("command")),
                }
            }
        }

        deserializer.deserialize_any(Any)
    }
}
