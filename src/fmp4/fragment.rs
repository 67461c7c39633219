//! Fragments: one access unit in `moof` and `mdat` (ISO/IEC 14496-12, 8.8.4 to 8.8.12).
//!
//! The layout is fixed, because pages for the Go version of BerryMSE expect `trun` at byte 76 and
//! the first byte of the sample flags at byte 92:
//!
//! ```text
//!   0 moof  size
//!   8   mfhd  16 bytes   16+4 sequence_number
//!  24   traf  size 76
//!  32     tfhd 20 bytes  44 track_ID, 48 default_sample_duration
//!  52     tfdt 20 bytes  64 baseMediaDecodeTime (64 bits)
//!  72     trun 28 bytes  76 "trun", 84 sample_count = 1, 88 data_offset = 108,
//!                        92 first_sample_flags (first byte 2: key frame, 1: other frame),
//!                        96 sample_size
//! 100 mdat  size
//! 108   NAL unit length (4 bytes), NAL unit, …
//! ```

use super::init::TRACK;
use crate::h264::ParameterSets;
use std::ops::Range;

/// Number of bytes in a fragment before the length field of its first NAL unit.
pub const FRAGMENT_OVERHEAD: usize = 108;

/// Size of the `moof` box, in bytes.
const MOOF_SIZE: u32 = 100;
/// Offsets in a fragment, in bytes.
const DECODE_TIME_OFFSET: usize = 64;
const SAMPLE_SIZE_OFFSET: usize = 96;
const MDAT_SIZE_OFFSET: usize = 100;

/// tfhd: default-base-is-moof, default-sample-duration-present (8.8.7.1).
const TFHD_FLAGS: u32 = 0x02_0008;
/// trun: data-offset-present, first-sample-flags-present, sample-size-present (8.8.8.1).
const TRUN_FLAGS: u32 = 0x00_0205;
/// sample_depends_on = 2: does not depend on other samples (8.8.3.1).
const KEY_FRAME_FLAGS: u32 = 0x0200_0000;
/// sample_depends_on = 1: depends on other samples; sample_is_non_sync_sample.
const OTHER_FRAME_FLAGS: u32 = 0x0101_0000;

/// The description of the sample in a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Sequence number of the fragment, starting at 1.
    pub sequence: u32,
    /// Decode time, in 1/90000 s.
    pub decode_time: u64,
    /// Time until the decode time of the next sample, in 1/90000 s.
    pub duration: u32,
    /// Whether this is a key frame, where playback can start.
    pub key: bool,
}

/// Returns the size of a fragment that contains the NAL units `nals`, in bytes.
pub fn fragment_len(nals: &[Range<usize>]) -> usize {
    FRAGMENT_OVERHEAD + nals.iter().map(|nal| 4 + nal.len()).sum::<usize>()
}

/// Appends a fragment with the NAL units `nals` of the access unit `data` to `out`.
///
/// Does not allocate if `out` has a spare capacity of [`fragment_len`] bytes.
pub fn write_fragment(out: &mut Vec<u8>, sample: &Sample, data: &[u8], nals: &[Range<usize>]) {
    let size = (fragment_len(nals) - FRAGMENT_OVERHEAD) as u32;
    let mut head = [0u8; FRAGMENT_OVERHEAD];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        head[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    let word = u32::to_be_bytes;
    put(&word(MOOF_SIZE));
    put(b"moof");
    put(&word(16));
    put(b"mfhd");
    put(&word(0));
    put(&word(sample.sequence));
    put(&word(76));
    put(b"traf");
    put(&word(20));
    put(b"tfhd");
    put(&word(TFHD_FLAGS));
    put(&word(TRACK));
    put(&word(sample.duration));
    put(&word(20));
    put(b"tfdt");
    put(&word(1 << 24)); // version 1: 64 bits
    put(&sample.decode_time.to_be_bytes());
    put(&word(28));
    put(b"trun");
    put(&word(TRUN_FLAGS));
    put(&word(1));
    put(&word(FRAGMENT_OVERHEAD as u32));
    put(&word(if sample.key { KEY_FRAME_FLAGS } else { OTHER_FRAME_FLAGS }));
    put(&word(size));
    put(&word(size + 8));
    put(b"mdat");
    out.extend_from_slice(&head);
    for nal in nals {
        out.extend_from_slice(&word(nal.len() as u32));
        out.extend_from_slice(&data[nal.clone()]);
    }
}

/// Returns the decode time of a fragment, in 1/90000 s.
pub fn decode_time(fragment: &[u8]) -> u64 {
    let field = &fragment[DECODE_TIME_OFFSET..DECODE_TIME_OFFSET + 8];
    field.iter().fold(0, |time, &byte| time << 8 | u64::from(byte))
}

/// Returns `fragment` with the camera's parameter sets prepended to its sample. In an endless file
/// ([`super::SampleEntry::Avc3`]), parameter sets that change after the init segment are sent in
/// this way.
pub fn with_parameter_sets(fragment: &[u8], sets: &ParameterSets) -> Vec<u8> {
    let nals = || std::iter::once(&sets.sps).chain(&sets.pps);
    let added: usize = nals().map(|nal| 4 + nal.len()).sum();
    let mut out = Vec::with_capacity(fragment.len() + added);
    out.extend_from_slice(&fragment[..FRAGMENT_OVERHEAD]);
    for at in [SAMPLE_SIZE_OFFSET, MDAT_SIZE_OFFSET] {
        let field: &mut [u8] = &mut out[at..at + 4];
        let size = field.iter().fold(0u32, |size, &byte| size << 8 | u32::from(byte));
        field.copy_from_slice(&(size + added as u32).to_be_bytes());
    }
    for nal in nals() {
        out.extend_from_slice(&(nal.len() as u32).to_be_bytes());
        out.extend_from_slice(nal);
    }
    out.extend_from_slice(&fragment[FRAGMENT_OVERHEAD..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mp4_atom::{Decode, Mdat, Moof};
    use proptest::prelude::*;

    fn build(sample: &Sample, nals: &[&[u8]]) -> Vec<u8> {
        let mut data = Vec::new();
        let mut ranges = Vec::new();
        for nal in nals {
            data.extend([0, 0, 1]);
            ranges.push(data.len()..data.len() + nal.len());
            data.extend_from_slice(nal);
        }
        let mut out = Vec::with_capacity(fragment_len(&ranges));
        let capacity = out.capacity();
        write_fragment(&mut out, sample, &data, &ranges);
        assert_eq!(
            (out.len(), out.capacity()),
            (fragment_len(&ranges), capacity),
            "one allocation"
        );
        out
    }

    const SAMPLE: Sample = Sample { sequence: 7, decode_time: 1 << 40, duration: 3000, key: true };

    #[test]
    fn layout_is_what_pages_for_the_go_version_expect() {
        let key = build(&SAMPLE, &[&[0x65, 1]]);
        assert_eq!((&key[76..80], key[92]), (&b"trun"[..], 2));
        let other = build(&Sample { key: false, ..SAMPLE }, &[&[0x41, 1]]);
        assert_eq!((&other[76..80], other[92]), (&b"trun"[..], 1));
    }

    #[test]
    fn prepends_parameter_sets_to_the_sample() {
        let mut params = crate::h264::Params::default();
        params.put_sps(crate::h264::params::tests::PI_SPS).unwrap();
        params.put_pps(&[0x68, 0xee, 0x3c, 0x80]).unwrap();
        let sets = params.activate(0).unwrap();
        let fragment = build(&SAMPLE, &[&[0x65, 1, 2]]);
        let got = with_parameter_sets(&fragment, &sets);
        let want = build(&SAMPLE, &[&sets.sps, &sets.pps[0], &[0x65, 1, 2]]);
        assert_eq!(got, want);
    }

    proptest! {
        #[test]
        fn mp4_atom_parses_every_box(
            sequence: u32, decode_time: u64, duration: u32, key: bool,
            nals in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..6),
        ) {
            let sample = Sample { sequence, decode_time, duration, key };
            let bytes = build(&sample, &nals.iter().map(|n| &n[..]).collect::<Vec<_>>());
            let mut rest = &bytes[..];
            let moof = Moof::decode(&mut rest).unwrap();
            prop_assert_eq!(bytes.len() - rest.len(), MOOF_SIZE as usize);
            prop_assert_eq!(super::decode_time(&bytes), decode_time);
            let mdat = Mdat::decode(&mut rest).unwrap();
            prop_assert!(rest.is_empty());
            let traf = &moof.traf[0];
            prop_assert_eq!(moof.mfhd.sequence_number, sequence);
            prop_assert_eq!(traf.tfhd.default_sample_duration, Some(duration));
            prop_assert_eq!(traf.tfdt.as_ref().unwrap().base_media_decode_time, decode_time);
            let run = &traf.trun[0];
            prop_assert_eq!(run.data_offset, Some(FRAGMENT_OVERHEAD as i32));
            prop_assert_eq!(run.samples.len(), 1);
            prop_assert_eq!(run.samples.get(0).unwrap().size, Some(mdat.data.len() as u32));
            let mut data = &mdat.data[..];
            for nal in &nals {
                let (len, after) = data.split_at(4);
                prop_assert_eq!(len, (nal.len() as u32).to_be_bytes());
                let (got, after) = after.split_at(nal.len());
                prop_assert_eq!(got, &nal[..]);
                data = after;
            }
            prop_assert!(data.is_empty());
        }
    }
}
