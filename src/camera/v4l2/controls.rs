//! What the configuration asks of a camera or an encoder, as V4L2 controls.
//!
//! Linux Media Infrastructure userspace API, "Codec Control Reference" and "User Control Reference".
//! Cameras know few of them, and many a USB camera ignores those that it knows; so nothing here
//! fails: what cannot be had is a note.

use crate::camera::v4l2::controls;
use crate::camera::v4l2::node::Node;
use crate::config;
use serde::Serialize;
use std::time::{Duration, Instant};
use v4l2r::bindings::*;
use v4l2r::ioctl::{CtrlId, IntoErrno, QueryCtrlFlags};
use v4l2r::{Format, ioctl};

/// A control that matters here, and what it is called.
const KNOWN: [(u32, &str); 12] = [
    (V4L2_CID_MPEG_VIDEO_BITRATE, "bit rate"),
    (V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, "key frame interval"),
    (V4L2_CID_MPEG_VIDEO_GOP_SIZE, "group of pictures"),
    (V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, "key frame on demand"),
    (V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, "parameter sets with every key frame"),
    (V4L2_CID_MPEG_VIDEO_H264_PROFILE, "profile"),
    (V4L2_CID_MPEG_VIDEO_H264_LEVEL, "level"),
    (V4L2_CID_MPEG_VIDEO_B_FRAMES, "B-frames"),
    (V4L2_CID_ROTATE, "rotation"),
    (V4L2_CID_HFLIP, "horizontal flip"),
    (V4L2_CID_VFLIP, "vertical flip"),
    (V4L2_CID_EXPOSURE_AUTO_PRIORITY, "slower in the dark"),
];

/// Key frames are asked for no more often than this: each costs several ordinary frames.
pub(crate) const KEY_FRAME_INTERVAL: Duration = Duration::from_secs(1);

/// A control that a device has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Control {
    /// What it is called.
    pub name: &'static str,
    /// Its number (V4L2_CID_…).
    pub id: u32,
    /// Least and greatest value.
    pub minimum: i32,
    /// Least and greatest value.
    pub maximum: i32,
    /// As the driver starts.
    pub default: i32,
    /// Now; none for a button.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i32>,
}

/// A control, if the device has it.
fn query(node: &Node, id: u32) -> Option<v4l2_queryctrl> {
    let ctrl = CtrlId::new(id).ok()?;
    let found: v4l2_queryctrl = ioctl::queryctrl(&node.file, ctrl, QueryCtrlFlags::empty()).ok()?;
    (found.flags & V4L2_CTRL_FLAG_DISABLED == 0).then_some(found)
}

/// The controls of a device that matter here.
pub fn list(node: &Node) -> Vec<Control> {
    let control = |(id, name): (u32, &'static str)| {
        let found = query(node, id)?;
        let value = ioctl::g_ctrl(&node.file, id).ok();
        Some(Control {
            name,
            id,
            minimum: found.minimum,
            maximum: found.maximum,
            default: found.default_value,
            value,
        })
    };
    KNOWN.into_iter().filter_map(control).collect()
}

/// Sets what the configuration asks for. Before the stream starts: bcm2835-codec takes
/// REPEAT_SEQ_HEADER only then.
///
/// `turns`: rotation and flips are this device's business, too. The answer is what cannot be had.
pub fn set(node: &Node, config: &config::Camera, codec: bool, turns: bool) -> Vec<String> {
    let mut notes = vec![];
    if codec {
        let interval = config.keyframe_interval as i32;
        // Either of the two means it; most drivers have one.
        let period = ask(node, V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, interval);
        let group = ask(node, V4L2_CID_MPEG_VIDEO_GOP_SIZE, interval);
        note(&mut notes, "keyframe_interval", interval, period.or(group));
        let bitrate = i32::try_from(config.bitrate).unwrap_or(i32::MAX);
        let got = ask(node, V4L2_CID_MPEG_VIDEO_BITRATE, bitrate);
        note(&mut notes, "bitrate", bitrate, got);
        // Not asked for by anybody, but good for those who join; B-frames would be refused.
        ask(node, V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, 1);
        ask(node, V4L2_CID_MPEG_VIDEO_B_FRAMES, 0);
        let high = v4l2_mpeg_video_h264_profile_V4L2_MPEG_VIDEO_H264_PROFILE_HIGH;
        ask(node, V4L2_CID_MPEG_VIDEO_H264_PROFILE, high as i32);
        // Level 4.0 ends at 1920x1080 with 30 frames a second (ITU-T H.264, table A-1).
        let macroblocks = config.width.div_ceil(16) * config.height.div_ceil(16) * config.framerate;
        let level = match macroblocks {
            0..=245_760 => v4l2_mpeg_video_h264_level_V4L2_MPEG_VIDEO_H264_LEVEL_4_0,
            _ => v4l2_mpeg_video_h264_level_V4L2_MPEG_VIDEO_H264_LEVEL_4_2,
        };
        ask(node, V4L2_CID_MPEG_VIDEO_H264_LEVEL, level as i32);
    }
    if turns {
        // Also what is not asked for: an earlier program may have left it otherwise.
        let rotation = config.rotation as i32;
        let got = ask(node, V4L2_CID_ROTATE, rotation);
        note(&mut notes, "rotation", rotation, got.or((rotation == 0).then_some(0)));
        for (id, name, wanted) in
            [(V4L2_CID_HFLIP, "hflip", config.hflip), (V4L2_CID_VFLIP, "vflip", config.vflip)]
        {
            let got = ask(node, id, i32::from(wanted));
            note(&mut notes, name, i32::from(wanted), got.or((!wanted).then_some(0)));
        }
    }
    notes
}

/// Sets a control and returns what the driver made of the value; `None` where it has it not.
fn ask(node: &Node, id: u32, value: i32) -> Option<i32> {
    let found = query(node, id)?;
    // Drivers answer values outside of the range in different ways.
    let number = found.type_ == v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER;
    let value = if number { value.clamp(found.minimum, found.maximum) } else { value };
    match ioctl::s_ctrl(&node.file, id, value) {
        Ok(got) => Some(got),
        Err(error) => {
            log::debug!(
                "{}: control {id:#x} = {value}: {}",
                node.path.display(),
                error.into_errno()
            );
            None
        }
    }
}

fn note(notes: &mut Vec<String>, key: &str, wanted: i32, got: Option<i32>) {
    match got {
        Some(got) if got == wanted => {}
        Some(got) => notes.push(format!("{key} = {wanted}: it becomes {got}")),
        None => notes.push(format!("{key} = {wanted}: there is no such setting")),
    }
}

/// Whether a key frame can be asked for.
pub fn can_force_key_frame(node: &Node) -> bool {
    query(node, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME).is_some()
}

/// Asks for a key frame.
pub fn force_key_frame(node: &Node) -> bool {
    ioctl::s_ctrl(&node.file, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 1).is_ok()
}

/// The camera delivers another size than it was asked for: worth knowing.
pub(crate) fn size_note(config: &config::Camera, got: &Format) -> Option<String> {
    ((got.width, got.height) != (config.width, config.height)).then(|| {
        format!(
            "width = {}, height = {}: it becomes {}x{}",
            config.width, config.height, got.width, got.height
        )
    })
}

pub(crate) fn framerate_note(config: &config::Camera, got: Option<f64>) -> Option<String> {
    let wanted = config.framerate;
    match got {
        Some(got) if (got - f64::from(wanted)).abs() < 0.5 => None,
        Some(got) => {
            let got = (got * 100.0).round() / 100.0;
            Some(format!("framerate = {wanted}: it becomes {got}"))
        }
        None => Some(format!("framerate = {wanted}: there is no such setting")),
    }
}

/// Asks for key frames when somebody new watches.
pub(crate) struct KeyFrames<'a> {
    /// `None`: this camera can't be asked.
    node: Option<&'a Node>,
    last: Option<Instant>,
}

impl<'a> KeyFrames<'a> {
    pub(crate) fn new(node: &'a Node) -> KeyFrames<'a> {
        KeyFrames { node: controls::can_force_key_frame(node).then_some(node), last: None }
    }

    pub(crate) fn ask(&mut self, wanted: impl FnOnce() -> bool) {
        let Some(node) = self.node else { return };
        if self.last.is_none_or(|last| last.elapsed() >= KEY_FRAME_INTERVAL) && wanted() {
            self.last = Some(Instant::now());
            if !controls::force_key_frame(node) {
                self.node = None;
            }
        }
    }
}
