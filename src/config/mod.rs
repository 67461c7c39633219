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
pub mod sensor;
mod values;
mod wifi;

pub use error::ConfigError;
pub use values::{DEFAULT_LISTEN, InvalidListen, parse_listen};
pub use wifi::{Ssid, Wifi};

use sensor::{Autofocus, AwbMode, ExposureMode, HdrMode, NoiseReduction, Overlay};
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
    /// How the lens is focused. `None` here and below stands for the choice of the camera.
    pub autofocus: Option<Autofocus>,
    /// Focal distance, in dioptres (1 / metres), 0 to 32.
    #[serde(deserialize_with = "values::decimal::<0, 3200, _>")]
    pub lens_position: Option<f64>,
    /// High dynamic range.
    pub hdr_mode: Option<HdrMode>,
    /// The kind of light that the white balance is adjusted to.
    pub awb_mode: Option<AwbMode>,
    /// Fixed gains of red and blue, instead of the automatic white balance, 0.1 to 32.
    #[serde(deserialize_with = "sensor::colour_gains")]
    pub colour_gains: Option<[f64; 2]>,
    /// What the automatic exposure prefers.
    pub exposure_mode: Option<ExposureMode>,
    /// Fixed exposure time, in microseconds, 1 to 1000000, at most the time of one frame.
    #[serde(deserialize_with = "values::optional::<1, 1_000_000, _>")]
    pub exposure_time: Option<u32>,
    /// Fixed gain of the sensor, 1 to 64.
    #[serde(deserialize_with = "values::decimal::<100, 6400, _>")]
    pub analogue_gain: Option<f64>,
    /// Exposure compensation, in stops, -8 to 8.
    #[serde(deserialize_with = "values::decimal::<-800, 800, _>")]
    pub exposure_value: Option<f64>,
    /// Brightness, -1 to 1; 0 is normal.
    #[serde(deserialize_with = "values::decimal::<-100, 100, _>")]
    pub brightness: Option<f64>,
    /// Contrast, 0 to 15.99; 1 is normal.
    #[serde(deserialize_with = "values::decimal::<0, 1599, _>")]
    pub contrast: Option<f64>,
    /// Saturation, 0 to 15.99; 1 is normal.
    #[serde(deserialize_with = "values::decimal::<0, 1599, _>")]
    pub saturation: Option<f64>,
    /// Sharpness, 0 to 15.99; 1 is normal.
    #[serde(deserialize_with = "values::decimal::<0, 1599, _>")]
    pub sharpness: Option<f64>,
    /// Noise reduction.
    pub noise_reduction: Option<NoiseReduction>,
    /// The region that is shown: left, top, width and height, as fractions of the whole picture.
    #[serde(deserialize_with = "sensor::roi")]
    pub roi: Option<[f64; 4]>,
    /// Sensor mode: width, height and bit depth.
    #[serde(deserialize_with = "sensor::sensor_mode")]
    pub sensor_mode: Option<[u32; 3]>,
    /// Whether the camera has no infrared filter.
    pub noir: bool,
    /// Text in the picture.
    pub overlay: Overlay,
    /// Number of the Raspberry Pi camera, counted from 0, 0 to 15.
    #[serde(deserialize_with = "values::optional::<0, 15, _>")]
    pub camera_number: Option<u32>,
    /// Number of buffers per stream, 2 to 16. `None` stands for a number that fits the memory.
    #[serde(deserialize_with = "values::optional::<2, 16, _>")]
    pub buffer_count: Option<u32>,
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
            autofocus: None,
            lens_position: None,
            hdr_mode: None,
            awb_mode: None,
            colour_gains: None,
            exposure_mode: None,
            exposure_time: None,
            analogue_gain: None,
            exposure_value: None,
            brightness: None,
            contrast: None,
            saturation: None,
            sharpness: None,
            noise_reduction: None,
            roi: None,
            sensor_mode: None,
            noir: false,
            overlay: Overlay::Off,
            camera_number: None,
            buffer_count: None,
        }
    }
}

impl Camera {
    /// Returns the keys of the sensor settings that are set.
    pub fn sensor_settings(&self) -> Vec<&'static str> {
        let keys = [
            ("autofocus", self.autofocus.is_some()),
            ("lens_position", self.lens_position.is_some()),
            ("hdr_mode", self.hdr_mode.is_some()),
            ("awb_mode", self.awb_mode.is_some()),
            ("colour_gains", self.colour_gains.is_some()),
            ("exposure_mode", self.exposure_mode.is_some()),
            ("exposure_time", self.exposure_time.is_some()),
            ("analogue_gain", self.analogue_gain.is_some()),
            ("exposure_value", self.exposure_value.is_some()),
            ("brightness", self.brightness.is_some()),
            ("contrast", self.contrast.is_some()),
            ("saturation", self.saturation.is_some()),
            ("sharpness", self.sharpness.is_some()),
            ("noise_reduction", self.noise_reduction.is_some()),
            ("roi", self.roi.is_some()),
            ("sensor_mode", self.sensor_mode.is_some()),
            ("noir", self.noir),
            ("overlay", self.overlay != Overlay::Off),
            ("camera_number", self.camera_number.is_some()),
            ("buffer_count", self.buffer_count.is_some()),
        ];
        keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
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
