//! Fragmented MP4: one init segment per stream and one fragment per frame.
//!
//! ISO/IEC 14496-12 (ISO base media file format), ISO/IEC 14496-15 (carriage of H.264) and ISO/IEC
//! 23000-19 (CMAF; each fragment is a CMAF chunk with one sample).
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
//! The durations in the init segment are zero, and `mehd` is absent. Chromium therefore treats the
//! stream as live and displays each frame as soon as it arrives. With a declared duration, each
//! frame is displayed more than 100 ms later (measured).

mod fragment;
mod init;
mod timeline;

pub use fragment::{
    FRAGMENT_OVERHEAD, Sample, decode_time, fragment_len, with_parameter_sets, write_fragment,
};
pub use init::{SampleEntry, init_segment};
pub use timeline::{Step, TIMESCALE, Timeline};
