//! H.264 parsing: Annex B bytes to access units, pictures and parameter sets.
//!
//! Implements parts of Rec. ITU-T H.264 (08/2021): Annex B (byte stream format), 7.4.1.2.3 (order
//! of NAL units), 7.4.1.2.4 (first VCL NAL unit of a picture), 7.3.2.1 and 7.3.2.2 (parameter
//! sets), 8.2.1 (picture order count) and Annex E (VUI).
//!
//! A pipe needs a splitter; a V4L2 driver delivers whole access units:
//!
//! ```text
//! byte stream (pipe) ────► Splitter ──┐
//!                          splitter   ├─► access unit ──► Parser ──► Picture
//! buffers (V4L2) ─────────────────────┘                   parser     (NAL unit ranges, key frame)
//! ```
//!
//! The module is pure: it uses neither a clock nor I/O.

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

/// The `nal_unit_type` values (table 7-1) that the parser distinguishes.
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

/// An error in the H.264 data of a camera. The message names the remedy if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Decoding order differs from output order.
    Reordered,
    /// Field pictures.
    Interlaced,
    /// A parameter set is invalid or not supported. Contains the reason.
    ParameterSet(String),
    /// The access unit contains no primary coded picture.
    NoPicture,
    /// A picture refers to a PPS that has not been received, or whose SPS has not been received.
    /// Contains the ID of the PPS.
    MissingParameterSet(u8),
    /// A slice header is invalid, or part of the picture is missing. Contains the reason.
    Damaged(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Reordered => f.write_str(
                "the stream contains B-frames (pictures sent in a different order than displayed), \
                 which add delay: disable them in the encoder (ffmpeg: -bf 0, x264: --bframes 0 or \
                 --tune zerolatency, GStreamer x264enc: bframes=0, v4l2: video_b_frames=0)",
            ),
            Error::Interlaced => f.write_str(
                "the stream is interlaced (field pictures), which browsers cannot display: set the \
                 camera or the encoder to progressive (ffmpeg: -vf yadif before the encoder)",
            ),
            Error::ParameterSet(reason) => write!(f, "invalid parameter set: {reason}"),
            Error::NoPicture => f.write_str("the access unit contains no picture"),
            Error::MissingParameterSet(id) => write!(
                f,
                "a picture refers to parameter set {id}, which has not been received: configure \
                 the encoder to repeat its headers with every key frame (rpicam-vid: --inline, \
                 x264: repeat-headers=1, v4l2: repeat_sequence_header=1)"
            ),
            Error::Damaged(reason) => write!(f, "damaged picture: {reason}"),
        }
    }
}

impl std::error::Error for Error {}
