//! Kinds of real cameras. After an update, a camera is recognized by its name and its kind.

use crate::config;
use serde::Serialize;

/// The kind of a real camera. The test card has no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CameraKind {
    /// A camera on the Raspberry Pi's camera connector, through rpicam-vid or its V4L2 driver. A
    /// new system may use the other one of the two.
    RaspberryPi,
    /// Any other V4L2 device.
    V4l2,
    /// The output of a configured command.
    Command,
}

/// Kind of a camera that shows only the test card, in camera records.
pub const TEST_CARD: &str = "test-card";

/// Start of the name that bcm2835-v4l2, the V4L2 driver of the Raspberry Pi's cameras, reports.
const RASPBERRY_PI_CARD: &str = "mmal service";

impl CameraKind {
    const ALL: [CameraKind; 3] = [CameraKind::RaspberryPi, CameraKind::V4l2, CameraKind::Command];

    /// The name of the kind in the API and in records.
    pub fn name(self) -> &'static str {
        match self {
            CameraKind::RaspberryPi => "raspberry-pi",
            CameraKind::V4l2 => "v4l2",
            CameraKind::Command => "command",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<CameraKind> {
        CameraKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of a V4L2 device, by the name that its driver reports.
    pub(super) fn of_card(card: &str) -> CameraKind {
        match card.starts_with(RASPBERRY_PI_CARD) {
            true => CameraKind::RaspberryPi,
            false => CameraKind::V4l2,
        }
    }

    /// The kind that the configured source has for certain.
    pub(super) fn of_source(source: Option<&config::Source>) -> Option<CameraKind> {
        match source {
            None | Some(config::Source::TestCard) => None,
            Some(config::Source::Rpicam) => Some(CameraKind::RaspberryPi),
            Some(config::Source::Device(_)) => Some(CameraKind::V4l2),
            Some(config::Source::Command(_)) => Some(CameraKind::Command),
        }
    }

    /// Whether the configured source can be a camera of this kind.
    pub(super) fn is_possible(self, source: Option<&config::Source>) -> bool {
        match source {
            None | Some(config::Source::Device(_)) => self != CameraKind::Command,
            source => CameraKind::of_source(source) == Some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_equal_to_the_serialized_form() {
        for kind in CameraKind::ALL {
            assert_eq!(CameraKind::from_name(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert_eq!(CameraKind::from_name("hologram"), None);
    }

    #[test]
    fn a_raspberry_pi_camera_has_the_same_kind_with_both_drivers() {
        assert_eq!(CameraKind::of_card("mmal service 16.1"), CameraKind::RaspberryPi);
        assert_eq!(CameraKind::of_card("HD Pro Webcam C920"), CameraKind::V4l2);
        let rpicam = Some(config::Source::Rpicam);
        assert_eq!(CameraKind::of_source(rpicam.as_ref()), Some(CameraKind::RaspberryPi));
    }

    #[test]
    fn knows_which_kinds_a_configured_source_can_be() {
        let device = config::Source::Device("/dev/video0".into());
        let command = config::Source::Command(vec!["ffmpeg".into()]);
        for (source, possible) in [
            (None, &["raspberry-pi", "v4l2"][..]),
            (Some(&device), &["raspberry-pi", "v4l2"]),
            (Some(&config::Source::Rpicam), &["raspberry-pi"]),
            (Some(&command), &["command"]),
            (Some(&config::Source::TestCard), &[]),
        ] {
            let found = CameraKind::ALL.into_iter().filter(|kind| kind.is_possible(source));
            assert_eq!(found.map(CameraKind::name).collect::<Vec<_>>(), possible, "{source:?}");
        }
    }
}
