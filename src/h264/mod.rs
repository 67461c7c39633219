//! H.264 as it comes from a camera: Annex B bytes → access units, parameter sets.
//!
//! Rec. ITU-T H.264 (08/2021): Annex B (byte stream), 7.4.1.2.3 (order of NAL units),
//! 7.4.1.2.4 (first VCL NAL unit of a picture), 7.3.2.1/2 (parameter sets), 8.2.1 (picture order
//! count), Annex E (VUI).
//!
//! There are two kinds of input, and a part for each step:
//!
//! ```text
//! byte stream (a pipe) ──► Splitter ──┐
//!                          splitter   ├─► whole access unit ──► Parser ──► Picture
//! whole buffers (V4L2) ───────────────┘                         parser     (NAL ranges, key?)
//! ```
//!
//! Everything here is pure: no clock, no I/O.

pub mod annexb;
pub mod params;
pub mod parser;
pub mod pause;
pub mod slice;
pub mod splitter;

pub use params::{ParameterSets, Params};
pub use parser::{Parser, Picture};
pub use pause::PauseRule;
pub use splitter::Splitter;

/// `nal_unit_type` values (table 7-1) that this program tells apart.
pub mod nal_type {
    /// Coded slice of a non-IDR picture.
    pub const SLICE: u8 = 1;
    /// Coded slice data partition A (Extended profile).
    pub const PARTITION_A: u8 = 2;
    /// Coded slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const AUD: u8 = 9;
    /// End of sequence.
    pub const END_OF_SEQUENCE: u8 = 10;
    /// End of stream.
    pub const END_OF_STREAM: u8 = 11;
    /// Filler data.
    pub const FILLER: u8 = 12;
}

/// What is wrong with the H.264 that a camera sent, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The pictures are not sent in the order in which they are shown.
    Reordered,
    /// Field pictures.
    Interlaced,
    /// A parameter set that can't be read.
    ParameterSet(String),
    /// An access unit without any picture in it that could be shown.
    NoPicture,
    /// A picture that refers to a parameter set nobody sent.
    MissingParameterSet(u8),
    /// A picture starts, but nothing of its slice header can be read.
    Damaged(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Reordered => f.write_str(
                "the stream has B-frames (pictures sent in another order than shown), which costs \
                 delay: switch them off in the encoder (ffmpeg: -bf 0, x264: --bframes 0 or --tune \
                 zerolatency, GStreamer x264enc: bframes=0, v4l2: video_b_frames=0)",
            ),
            Error::Interlaced => f.write_str(
                "the stream is interlaced (field pictures), which browsers cannot show: switch the \
                 camera or the encoder to progressive (ffmpeg: -vf yadif before the encoder)",
            ),
            Error::ParameterSet(why) => write!(f, "a parameter set cannot be read: {why}"),
            Error::NoPicture => f.write_str("an access unit without a picture"),
            Error::MissingParameterSet(id) => write!(
                f,
                "a picture refers to parameter set {id}, which was never sent: let the encoder \
                 repeat its headers with every key frame (rpicam-vid: --inline, x264: \
                 repeat-headers=1, v4l2: repeat_sequence_header=1)"
            ),
            Error::Damaged(why) => write!(f, "a damaged picture: {why}"),
        }
    }
}

impl std::error::Error for Error {}
