//! Sensor settings of a camera: enumerations and lists of numbers.
//!
//! The keys are named after libcamera's controls. The ranges come from libcamera 0.7
//! (`src/libcamera/control_ids_core.yaml`; `src/ipa/rpi/common/ipa_base.cpp` for the Raspberry Pi)
//! and rpicam-apps 1.13 (`core/options.cpp`). A sensor may have a smaller range; libcamera then uses
//! the nearest value.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// How the lens is focused (libcamera: AfMode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Autofocus {
    /// The lens stays in one position.
    Manual,
    /// The camera focuses once, when it starts.
    Auto,
    /// The camera focuses again whenever the scene changes.
    Continuous,
}

/// High dynamic range (libcamera: HdrMode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HdrMode {
    /// Off.
    Off,
    /// In the sensor if it supports that, otherwise in the image processor.
    Auto,
    /// In the sensor.
    Sensor,
    /// In the image processor, from a single exposure.
    SingleExposure,
}

/// The kind of light that the white balance is adjusted to (libcamera: AwbMode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AwbMode {
    /// Any light.
    Auto,
    /// Incandescent lamps.
    Incandescent,
    /// Tungsten lamps.
    Tungsten,
    /// Fluorescent lamps.
    Fluorescent,
    /// Indoor lighting.
    Indoor,
    /// Daylight.
    Daylight,
    /// A cloudy sky.
    Cloudy,
}

/// What the automatic exposure prefers (libcamera: AeExposureMode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExposureMode {
    /// A balance of exposure time and gain.
    Normal,
    /// Short exposure times, against motion blur.
    Short,
    /// Long exposure times, against noise.
    Long,
}

/// Noise reduction (libcamera: NoiseReductionMode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseReduction {
    /// Off.
    Off,
    /// Without color noise reduction.
    Minimal,
    /// With fast color noise reduction.
    Fast,
    /// With the best color noise reduction, which can lower the frame rate.
    HighQuality,
}

/// Text in the picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlay {
    /// None.
    #[default]
    Off,
    /// Date and time.
    Time,
    /// Name of the camera, date and time.
    NameTime,
}

/// Reads the gains of red and blue. rpicam-vid ignores a gain of 0.
pub(super) fn colour_gains<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<[f64; 2]>, D::Error> {
    let in_range = |gains: &[f64; 2]| gains.iter().all(|gain| (0.1..=32.0).contains(gain));
    numbers(deserializer, in_range, "the gains of red and blue, 0.1 to 32, such as [1.8, 1.5]")
}

/// Reads a region: left, top, width and height, as fractions of the whole.
pub(super) fn roi<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<[f64; 4]>, D::Error> {
    let is_inside = |&[left, top, width, height]: &[f64; 4]| {
        let fits =
            |start: f64, size: f64| start >= 0.0 && size >= 0.01 && start + size <= 1.0 + 1e-9;
        fits(left, width) && fits(top, height)
    };
    numbers(
        deserializer,
        is_inside,
        "left, top, width and height as fractions of the whole picture, such as [0.25, 0.25, 0.5, \
         0.5]",
    )
}

/// Reads the width, height and bit depth of a sensor mode.
pub(super) fn sensor_mode<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<[u32; 3]>, D::Error> {
    let is_valid = |&[width, height, bits]: &[i64; 3]| {
        let is_size = |size| (16..=16_384).contains(&size);
        is_size(width) && is_size(height) && (8..=16).contains(&bits)
    };
    let mode = numbers(
        deserializer,
        is_valid,
        "width, height (16 to 16384) and bit depth (8 to 16) of a sensor mode, such as [1640, \
         1232, 10]",
    )?;
    Ok(mode.map(|mode| mode.map(|number| number as u32)))
}

/// Reads a list of `N` numbers that satisfies `is_valid`. `expected` describes it in the error
/// message.
fn numbers<'de, T: Deserialize<'de>, const N: usize, D: Deserializer<'de>>(
    deserializer: D,
    is_valid: impl FnOnce(&[T; N]) -> bool,
    expected: &str,
) -> Result<Option<[T; N]>, D::Error> {
    let list = Vec::<T>::deserialize(deserializer)?;
    let list = <[T; N]>::try_from(list).ok().filter(is_valid);
    list.map(Some).ok_or_else(|| D::Error::custom(format!("invalid list: must be {expected}")))
}
