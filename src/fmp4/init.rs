//! Init segments: `ftyp` and `moov` (ISO/IEC 14496-12, 8.1 to 8.8; ISO/IEC 14496-15, 5.3 and 5.4).

use super::TIMESCALE;
use crate::h264::ParameterSets;

/// The sample entry type, which determines where parameter sets are stored (ISO/IEC 14496-15,
/// 5.4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleEntry {
    /// `avc1`: only in the init segment. Every browser supports this type. New parameter sets
    /// require a new init segment.
    Avc1,
    /// `avc3`: in the init segment, and in samples when they change. Used for endless files.
    Avc3,
}

/// Unity transformation matrix (14496-12, 6.2.2).
const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];

/// ID of the only track.
pub(super) const TRACK: u32 = 1;

/// Builds the init segment for `sets`.
pub fn init_segment(sets: &ParameterSets, entry: SampleEntry) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    container(&mut out, b"ftyp", |out| {
        out.extend(b"iso6"); // major brand: default-base-is-moof, tfdt
        out.extend(0u32.to_be_bytes());
        out.extend(b"iso6");
        out.extend(b"cmfc"); // CMAF structural brand
        out.extend(b"mp41");
    });
    container(&mut out, b"moov", |out| {
        full(out, b"mvhd", 0, 0, |out| {
            put(out, &[0, 0, TIMESCALE, 0]); // creation and modification time, timescale, duration
            put(out, &[0x0001_0000]); // rate 1.0
            out.extend([1, 0, 0, 0]); // volume 1.0, reserved
            put(out, &[0, 0]); // reserved
            put(out, &MATRIX);
            put(out, &[0; 6]); // pre_defined
            put(out, &[TRACK + 1]); // next_track_ID
        });
        container(out, b"trak", |out| track(out, sets, entry));
        container(out, b"mvex", |out| {
            full(out, b"trex", 0, 0, |out| {
                put(out, &[TRACK, 1, 0, 0, 0]); // sample description 1; fragments contain the rest
            });
        });
    });
    out
}

fn track(out: &mut Vec<u8>, sets: &ParameterSets, entry: SampleEntry) {
    let (sar_width, sar_height) = sets.sample_aspect.unwrap_or((1, 1));
    // tkhd contains the display size as 16.16 fixed-point numbers. Pixels need not be square.
    let shown_width = u64::from(sets.width) * 65536 * u64::from(sar_width) / u64::from(sar_height);
    full(out, b"tkhd", 0, 7, |out| {
        put(out, &[0, 0, TRACK, 0, 0]); // creation and modification time, track, reserved, duration
        put(out, &[0, 0]); // reserved
        put(out, &[0, 0]); // layer, alternate group, volume, reserved
        put(out, &MATRIX);
        put(out, &[u32::try_from(shown_width).unwrap_or(u32::MAX), u32::from(sets.height) << 16]);
    });
    container(out, b"mdia", |out| {
        full(out, b"mdhd", 0, 0, |out| {
            put(out, &[0, 0, TIMESCALE, 0]);
            out.extend([0x55, 0xc4, 0, 0]); // language "und", pre_defined
        });
        full(out, b"hdlr", 0, 0, |out| {
            put(out, &[0]);
            out.extend(b"vide");
            put(out, &[0; 3]);
            out.extend(b"BerryMSE\0");
        });
        container(out, b"minf", |out| {
            full(out, b"vmhd", 0, 1, |out| put(out, &[0, 0]));
            container(out, b"dinf", |out| {
                full(out, b"dref", 0, 0, |out| {
                    put(out, &[1]);
                    full(out, b"url ", 0, 1, |_| {}); // media data in the same file
                });
            });
            container(out, b"stbl", |out| {
                full(out, b"stsd", 0, 0, |out| {
                    put(out, &[1]);
                    sample_entry(out, sets, entry);
                });
                // Empty, because the samples are in fragments.
                full(out, b"stts", 0, 0, |out| put(out, &[0]));
                full(out, b"stsc", 0, 0, |out| put(out, &[0]));
                full(out, b"stsz", 0, 0, |out| put(out, &[0, 0]));
                full(out, b"stco", 0, 0, |out| put(out, &[0]));
            });
        });
    });
}

/// VisualSampleEntry (14496-12, 12.1.3) with `avcC` (14496-15, 5.3.3.1).
fn sample_entry(out: &mut Vec<u8>, sets: &ParameterSets, entry: SampleEntry) {
    let name = match entry {
        SampleEntry::Avc1 => b"avc1",
        SampleEntry::Avc3 => b"avc3",
    };
    container(out, name, |out| {
        out.extend([0, 0, 0, 0, 0, 0, 0, 1]); // reserved, data_reference_index
        put(out, &[0; 4]); // pre_defined, reserved
        out.extend(sets.width.to_be_bytes());
        out.extend(sets.height.to_be_bytes());
        put(out, &[0x0048_0000, 0x0048_0000, 0]); // 72 dpi horizontally and vertically, reserved
        out.extend([0, 1]); // frame_count
        out.extend([0; 32]); // compressorname
        out.extend([0, 0x18, 0xff, 0xff]); // depth 24, pre_defined -1
        container(out, b"avcC", |out| {
            let sps = &sets.browser_sps;
            out.push(1); // configurationVersion
            out.extend(&sps[1..4]); // profile, compatibility, level
            out.push(0xfc | 3); // reserved, lengthSizeMinusOne: 4 bytes
            out.push(0xe0 | 1); // reserved, numOfSequenceParameterSets
            out.extend((sps.len() as u16).to_be_bytes());
            out.extend(sps);
            // The count has 8 bits. Streams with all 256 possible sets do not occur in practice.
            let pps = &sets.pps[..sets.pps.len().min(255)];
            out.push(pps.len() as u8);
            for pps in pps {
                out.extend((pps.len() as u16).to_be_bytes());
                out.extend(pps);
            }
            if let Some((format, luma, chroma)) = sets.chroma {
                out.extend([0xfc | format, 0xf8 | luma, 0xf8 | chroma, 0]);
            }
        });
        if let Some((horizontal, vertical)) = sets.sample_aspect {
            container(out, b"pasp", |out| put(out, &[horizontal.into(), vertical.into()]));
        }
    });
}

/// Appends a box: 32-bit size, type, content.
fn container(out: &mut Vec<u8>, name: &[u8; 4], content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put(out, &[0]);
    out.extend(name);
    content(out);
    let size = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a full box: a box whose content starts with version and flags.
fn full(
    out: &mut Vec<u8>,
    name: &[u8; 4],
    version: u8,
    flags: u32,
    content: impl FnOnce(&mut Vec<u8>),
) {
    container(out, name, |out| {
        put(out, &[u32::from(version) << 24 | flags]);
        content(out);
    });
}

/// Appends 32-bit integers in network byte order.
fn put(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| out.extend(word.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h264::Params;
    use crate::h264::params::tests::plain_sps;
    use mp4_atom::{Atom, Codec, Decode, Ftyp, Moov};

    fn sets() -> ParameterSets {
        let mut params = Params::default();
        params.put_sps(&plain_sps(40, 30, 1)).unwrap();
        params.put_pps(&[0x68, 0xee, 0x3c, 0x80]).unwrap();
        params.activate(0).unwrap()
    }

    #[test]
    fn mp4_atom_parses_every_box() {
        let sets = sets();
        let bytes = init_segment(&sets, SampleEntry::Avc1);
        let mut rest = &bytes[..];
        assert_eq!(Ftyp::decode(&mut rest).unwrap().major_brand, b"iso6".into());
        let moov = Moov::decode(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!((moov.mvhd.timescale, moov.mvhd.duration), (TIMESCALE, 0));
        let mvex = moov.mvex.unwrap();
        assert!(mvex.mehd.is_none(), "a declared duration adds 100 ms of delay in Chromium");
        let track = &moov.trak[0];
        assert_eq!((track.tkhd.duration, track.mdia.mdhd.duration), (0, 0));
        let Codec::Avc1(avc1) = &track.mdia.minf.stbl.stsd.codecs[0] else { panic!() };
        assert_eq!((avc1.visual.width, avc1.visual.height), (640, 480));
        assert_eq!(avc1.avcc.sequence_parameter_sets, std::slice::from_ref(&sets.browser_sps));
        assert_eq!(avc1.avcc.picture_parameter_sets, sets.pps);
        assert_eq!(avc1.avcc.length_size, 4);
    }

    #[test]
    fn endless_files_have_an_avc3_sample_entry() {
        let bytes = init_segment(&sets(), SampleEntry::Avc3);
        let at = bytes.windows(4).position(|w| w == Moov::KIND.as_ref()).unwrap() - 4;
        let moov = Moov::decode(&mut &bytes[at..]).unwrap();
        assert!(matches!(moov.trak[0].mdia.minf.stbl.stsd.codecs[0], Codec::Avc3(_)));
    }

    #[test]
    fn declares_the_sample_aspect_ratio() {
        let sets = ParameterSets { sample_aspect: Some((16, 11)), ..sets() };
        let bytes = init_segment(&sets, SampleEntry::Avc1);
        let at = bytes.windows(4).position(|w| w == b"pasp").unwrap();
        assert_eq!(bytes[at + 4..at + 12], [0, 0, 0, 16, 0, 0, 0, 11]);
    }
}
