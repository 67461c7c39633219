//! The sensors of the Raspberry Pi cameras, and the tuning files for sensors without infrared
//! filter.

use crate::camera::Stop;
use crate::camera::rpicam::ask::ask;
use std::fs::File;
use std::path::{Path, PathBuf};
use v4l2r::bindings::V4L2_CID_FOCUS_ABSOLUTE;
use v4l2r::bindings::v4l2_queryctrl;
use v4l2r::ioctl::{self, CtrlId, QueryCtrlFlags};

/// Where libcamera's tuning files are installed. The last one is that of versions before 2023.
const TUNING_FOLDERS: [&str; 3] = [
    "usr/local/share/libcamera/ipa/rpi",
    "usr/share/libcamera/ipa/rpi",
    "usr/share/libcamera/ipa/raspberrypi",
];

/// What `noir = true` leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noir {
    /// This tuning file must be used.
    File(PathBuf),
    /// The sensor's name shows that it has no infrared filter, so libcamera chooses the file.
    Chosen,
    /// No tuning file can be chosen, for this reason.
    Missing(String),
}

/// Returns the tuning file for camera `number` without infrared filter.
pub(super) fn noir(program: &Path, number: usize, stop: &Stop) -> Noir {
    match cameras(program, Some(stop)).get(number) {
        Some(model) => tuning_file(Path::new("/"), model),
        None => Noir::Missing("the sensor is unknown, because rpicam-vid lists no camera".into()),
    }
}

/// Returns the tuning file for sensor `model`. `root` is `/`, except in tests.
///
/// The kernel's driver names the variants of Camera Module 3 (`imx708_noir`). Those of other modules
/// look alike to it.
fn tuning_file(root: &Path, model: &str) -> Noir {
    // The name becomes part of a path.
    let is_name = model.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !is_name {
        return Noir::Missing(format!("unexpected name of the sensor: {model:?}"));
    }
    if model.ends_with("_noir") {
        return Noir::Chosen;
    }
    // The image processor of the Raspberry Pi 5 has its own tuning files.
    let machine = std::fs::read(root.join("proc/device-tree/compatible")).unwrap_or_default();
    let is_pi5 = machine.windows(12).any(|part| part == b"brcm,bcm2712");
    let processor = if is_pi5 { "pisp" } else { "vc4" };
    let name = format!("{model}_noir.json");
    let found = TUNING_FOLDERS.iter().map(|folder| {
        let folder = root.join(folder);
        if folder.ends_with("rpi") {
            folder.join(processor).join(&name)
        } else {
            folder.join(&name)
        }
    });
    match found.into_iter().find(|path| path.is_file()) {
        Some(path) => Noir::File(path),
        None => Noir::Missing(format!("libcamera has no file {name} for this sensor")),
    }
}

/// Returns the sensors of the cameras that `rpicam-vid --list-cameras` lists, in the order of their
/// numbers.
pub(super) fn cameras(program: &Path, stop: Option<&Stop>) -> Vec<String> {
    match ask(program, &["--list-cameras"], stop) {
        Ok(text) => read_list(&text),
        Err(error) => {
            log::debug!("{} --list-cameras: {error}", program.display());
            vec![]
        }
    }
}

/// Reads lines such as `0 : imx708 [4608x2592 10-bit RGGB] (/base/soc/…)`.
fn read_list(text: &str) -> Vec<String> {
    let mut models = vec![];
    for line in text.lines() {
        if let Some((number, rest)) = line.trim_start().split_once(" : ")
            && number.parse() == Ok(models.len())
            && let Some(model) = rest.split_whitespace().next()
        {
            models.push(model.into());
        }
    }
    models
}

/// Whether one of the camera modules has a lens that can be moved. Returns `None` if that is
/// unknown.
pub(super) fn has_lens() -> Option<bool> {
    let entries = std::fs::read_dir("/dev").ok()?.flatten();
    let is_subdevice = |name: &str| name.starts_with("v4l-subdev");
    let paths = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_subdevice));
    let files: Option<Vec<File>> = paths.map(|entry| File::open(entry.path()).ok()).collect();
    let focuses = |file: &File| {
        CtrlId::new(V4L2_CID_FOCUS_ABSOLUTE).is_ok_and(|id| {
            ioctl::queryctrl::<v4l2_queryctrl>(file, id, QueryCtrlFlags::empty()).is_ok()
        })
    };
    let files = files.filter(|files| !files.is_empty())?;
    Some(files.iter().any(focuses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_list_of_cameras() {
        // The layout of rpicam-apps 1.7 (`core/options.cpp`).
        let text = "Available cameras\n-----------------\n\
             0 : imx219 [3280x2464 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx219@10)\n    \
             Modes: 'SRGGB10_CSI2P' : 640x480 [206.65 fps - (1000, 752)/1280x960 crop]\n          \
             1640x1232 [83.70 fps - (0, 0)/3280x2464 crop]\n\n\
             1 : imx708_wide_noir [4608x2592 10-bit RGGB] (/base/soc/i2c0mux/i2c@0/imx708@1a)\n";
        assert_eq!(read_list(text), ["imx219", "imx708_wide_noir"]);
        assert_eq!(read_list("No cameras available!\n"), [""; 0]);
    }

    #[test]
    fn chooses_the_tuning_file_by_sensor_and_image_processor() {
        let root = std::env::temp_dir().join(format!("berrymse-noir-{}", std::process::id()));
        let file = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let vc4 = file("usr/share/libcamera/ipa/rpi/vc4/imx219_noir.json", "");
        let pisp = file("usr/share/libcamera/ipa/rpi/pisp/imx219_noir.json", "");
        let old = file("usr/share/libcamera/ipa/raspberrypi/ov5647_noir.json", "");
        file("proc/device-tree/compatible", "raspberrypi,model-zero-2-w\0brcm,bcm2837\0");
        assert_eq!(tuning_file(&root, "imx219"), Noir::File(vc4));
        assert_eq!(tuning_file(&root, "ov5647"), Noir::File(old));
        assert_eq!(tuning_file(&root, "imx708_wide_noir"), Noir::Chosen);
        let Noir::Missing(reason) = tuning_file(&root, "imx296") else { panic!() };
        assert!(reason.contains("imx296_noir.json"), "{reason}");
        assert!(matches!(tuning_file(&root, "../imx219"), Noir::Missing(_)));
        file("proc/device-tree/compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0");
        assert_eq!(tuning_file(&root, "imx219"), Noir::File(pisp));
        std::fs::remove_dir_all(root).unwrap();
    }
}
