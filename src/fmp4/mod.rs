//! Fragmented MP4: an init segment a stream, a fragment a frame.
//!
//! ISO/IEC 14496-12 (boxes), ISO/IEC 14496-15 (H.264 in them), ISO/IEC 23000-19 (CMAF: each
//! fragment is a CMAF chunk of one sample).
//!
//! ```text
//! init segment (init.rs)                        fragment (fragment.rs)
//! ftyp                                          moof
//! moov                                            mfhd
//!   mvhd                                          traf
//!   trak                                            tfhd
//!     tkhd                                          tfdt
//!     mdia                                          trun
//!       mdhd                                    mdat
//!       hdlr
//!       minf
//!         vmhd
//!         dinf ─ dref ─ url
//!         stbl
//!           stsd ─ avc1/avc3 ─ avcC (pasp)
//!           stts stsc stsz stco
//!   mvex ─ trex
//! ```
//!
//! Durations are zero and there is no `mehd`: that is what makes Chromium treat the stream as live
//! and show a frame as soon as it has one. A declared duration costs over 100 ms (measured).

mod fragment;
mod init;
mod timeline;

pub use fragment::{
    FRAGMENT_OVERHEAD, Sample, decode_time, fragment_len, with_parameter_sets, write_fragment,
};
pub use init::{SampleEntry, init_segment};
pub use timeline::{Step, TIMESCALE, Timeline};
