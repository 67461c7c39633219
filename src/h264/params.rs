//! Parameter sets: parses those from the camera, and rewrites the SPS for browsers.
//!
//! Rec. ITU-T H.264, 7.3.2.1 (SPS), 7.3.2.2 (PPS) and Annex E (VUI); RFC 6381, 3.3 (codec string).
//!
//! If the SPS does not limit reordering, a decoder must assume the maximum that the level allows,
//! and delays its output by that number of pictures (C.4.5.3, E.2.1). Many cameras omit the
//! `bitstream_restriction` fields. Since this program rejects streams with reordered pictures, it
//! adds the fields to the SPS for browsers, with `max_num_reorder_frames = 0`.
//!
//! The parser tolerates these deviations of real cameras:
//! - a level too low for the picture size (the size check ignores the level);
//! - zero bytes after a parameter set;
//! - parameter sets that are repeated with every key frame, or sent only once;
//! - VUI timing of 0 or 1000 frames per second (the measured rate is used instead).

use super::Error;
use h264_reader::nal::sps::{BitstreamRestrictions, SeqParameterSet, VuiParameters};
use h264_reader::nal::{NalHeader, WritableNal};
use h264_reader::rbsp::{BitRead, BitReader, ByteReader};
use std::collections::BTreeMap;

/// Plausible frame rates, in frames per second. Other values are ignored.
const PLAUSIBLE_FRAMERATE: std::ops::RangeInclusive<f64> = 0.5..=250.0;

/// Maximum size of a parameter set, in bytes. The largest valid ones (all scaling lists, 32 CPB
/// specifications) are smaller than 2 KiB; the length field in avcC has 16 bits.
const MAX_PARAMETER_SET_BYTES: usize = 16 * 1024;

/// `level_idc` of level 6.2, the highest level, which allows the largest pictures.
const HIGHEST_LEVEL: u8 = 62;

/// Offset of `level_idc` in an SPS NAL unit, in bytes.
const LEVEL_OFFSET: usize = 3;

/// A sequence parameter set, as bytes and parsed.
#[derive(Debug, Clone)]
pub struct Sps {
    /// The NAL unit as received.
    pub nal: Vec<u8>,
    /// The parsed NAL unit.
    pub sps: SeqParameterSet,
}

/// A picture parameter set: the bytes, and the fields that are needed to distinguish pictures.
#[derive(Debug, Clone)]
pub struct Pps {
    /// The NAL unit as received.
    pub nal: Vec<u8>,
    /// ID of the SPS that it refers to.
    pub sps_id: u8,
    /// `bottom_field_pic_order_in_frame_present_flag`.
    pub bottom_field_pic_order_in_frame_present: bool,
}

/// The parameter sets received so far.
#[derive(Debug, Clone, Default)]
pub struct Params {
    // Ordered, so that the same sets always result in the same init segment.
    sps: BTreeMap<u8, Sps>,
    pps: BTreeMap<u8, Pps>,
}

impl Params {
    /// Stores the SPS NAL unit `nal`, which starts with its header byte. Replaces any SPS with the
    /// same ID.
    ///
    /// # Errors
    /// [`Error::ParameterSet`] if the SPS is invalid.
    pub fn put_sps(&mut self, nal: &[u8]) -> Result<(), Error> {
        if self.sps.values().any(|known| known.nal == nal) {
            return Ok(()); // repeated, usually with every key frame
        }
        let sps = parse_sps(nal)?;
        self.sps.insert(sps.seq_parameter_set_id.id(), Sps { nal: nal.to_vec(), sps });
        Ok(())
    }

    /// Stores the PPS NAL unit `nal`, which starts with its header byte. Replaces any PPS with the
    /// same ID.
    ///
    /// # Errors
    /// [`Error::ParameterSet`] if the PPS is invalid.
    pub fn put_pps(&mut self, nal: &[u8]) -> Result<(), Error> {
        if self.pps.values().any(|known| known.nal == nal) {
            return Ok(());
        }
        if nal.len() > MAX_PARAMETER_SET_BYTES {
            return Err(too_large("PPS", nal));
        }
        let invalid = |e| Error::ParameterSet(format!("PPS: {e:?}"));
        // Reads only the fields that do not depend on the SPS, because a PPS may precede its SPS.
        let mut r = BitReader::new(ByteReader::skipping_h264_header(nal));
        let id = r.read_ue("pic_parameter_set_id").map_err(invalid)?;
        let sps_id = r.read_ue("seq_parameter_set_id").map_err(invalid)?;
        r.skip(1, "entropy_coding_mode_flag").map_err(invalid)?;
        let bottom = r.read_bit("bottom_field_pic_order_in_frame_present_flag").map_err(invalid)?;
        let (Ok(id), true) = (u8::try_from(id), sps_id < 32) else {
            return Err(Error::ParameterSet(format!("PPS {id} for SPS {sps_id}: out of range")));
        };
        self.pps.insert(
            id,
            Pps {
                nal: nal.to_vec(),
                sps_id: sps_id as u8,
                bottom_field_pic_order_in_frame_present: bottom,
            },
        );
        Ok(())
    }

    /// Returns the PPS with the ID `pps_id` and the SPS that it refers to, if both have been
    /// received.
    pub fn find(&self, pps_id: u8) -> Option<(&Pps, &Sps)> {
        let pps = self.pps.get(&pps_id)?;
        Some((pps, self.sps.get(&pps.sps_id)?))
    }

    /// Returns the parameter sets that a key frame with the PPS `pps_id` activates: the SPS and
    /// every PPS that refers to it.
    ///
    /// # Errors
    /// [`Error::MissingParameterSet`] if the PPS or its SPS has not been received, and
    /// [`Error::ParameterSet`] if the picture size is not supported.
    pub fn activate(&self, pps_id: u8) -> Result<ParameterSets, Error> {
        let (pps, sps) = self.find(pps_id).ok_or(Error::MissingParameterSet(pps_id))?;
        let same_sps = |other: &&Pps| other.sps_id == pps.sps_id;
        let pps = self.pps.values().filter(same_sps).map(|p| p.nal.clone()).collect();
        ParameterSets::new(sps, pps)
    }
}

/// The active parameter sets, and the properties of the stream that they contain.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSets {
    /// The SPS as received from the camera.
    pub sps: Vec<u8>,
    /// The SPS for browsers (see [`restrict_reordering`]).
    pub browser_sps: Vec<u8>,
    /// Every PPS that refers to the SPS, ordered by ID.
    pub pps: Vec<Vec<u8>>,
    /// RFC 6381 codec string, such as `avc1.640028`.
    pub codec: String,
    /// Width after cropping, in pixels.
    pub width: u16,
    /// Height after cropping, in pixels.
    pub height: u16,
    /// Frame rate from the VUI, in frames per second, if present and plausible (0.5 to 250).
    pub framerate: Option<f64>,
    /// Sample aspect ratio (VUI, table E-1) as width and height, unless samples are square.
    pub sample_aspect: Option<(u16, u16)>,
    /// `chroma_format_idc`, `bit_depth_luma_minus8` and `bit_depth_chroma_minus8`, for the profiles
    /// whose avcC contains them.
    pub chroma: Option<(u8, u8, u8)>,
}

impl ParameterSets {
    fn new(sps: &Sps, pps: Vec<Vec<u8>>) -> Result<ParameterSets, Error> {
        let parsed = &sps.sps;
        let (width, height) =
            parsed.pixel_dimensions().map_err(|e| Error::ParameterSet(format!("SPS: {e:?}")))?;
        let size = |pixels: u32| {
            u16::try_from(pixels).ok().filter(|&p| p > 0).ok_or_else(|| {
                Error::ParameterSet(format!("unsupported picture size {width}x{height}"))
            })
        };
        let info = &parsed.chroma_info;
        Ok(ParameterSets {
            browser_sps: restrict_reordering(&sps.nal, parsed),
            codec: parsed.rfc6381().to_string(),
            width: size(width)?,
            height: size(height)?,
            framerate: parsed.fps().filter(|fps| PLAUSIBLE_FRAMERATE.contains(fps)),
            sample_aspect: parsed
                .vui_parameters
                .as_ref()
                .and_then(|vui| vui.aspect_ratio_info.as_ref()?.get())
                .filter(|&(width, height)| width != height && width > 0 && height > 0),
            // ISO/IEC 14496-15, 5.3.3.1.2: present only for these profiles.
            chroma: matches!(parsed.profile_idc.into(), 100u8 | 110 | 122 | 144 | 244).then_some((
                info.chroma_format.to_u32() as u8,
                info.bit_depth_luma_minus8,
                info.bit_depth_chroma_minus8,
            )),
            sps: sps.nal.clone(),
            pps,
        })
    }
}

fn too_large(kind: &str, nal: &[u8]) -> Error {
    let len = nal.len();
    Error::ParameterSet(format!("{kind} of {len} bytes (maximum: {MAX_PARAMETER_SET_BYTES})"))
}

/// Parses the SPS NAL unit `nal`, which starts with its header byte.
///
/// # Errors
/// [`Error::ParameterSet`] if the SPS is invalid.
pub fn parse_sps(nal: &[u8]) -> Result<SeqParameterSet, Error> {
    if nal.len() > MAX_PARAMETER_SET_BYTES {
        return Err(too_large("SPS", nal));
    }
    let parse = |nal: &[u8]| {
        SeqParameterSet::from_bits(BitReader::new(ByteReader::skipping_h264_header(nal)))
    };
    let sps = parse(nal).or_else(|error| {
        // Some cameras declare a level that is too low. Check the sizes against the highest level.
        let mut nal = nal.to_vec();
        let Some(level) = nal.get_mut(LEVEL_OFFSET) else {
            return Err(error);
        };
        let stated = std::mem::replace(level, HIGHEST_LEVEL);
        parse(&nal).map_err(|_| error).map(|sps| SeqParameterSet { level_idc: stated, ..sps })
    });
    let sps = sps.map_err(|e| Error::ParameterSet(format!("SPS: {e:?}")))?;
    // pixel_dimensions() uses unchecked arithmetic, which cannot overflow below these limits.
    // (Level 6.2 allows at most 1055 macroblocks per side; A.3.)
    if sps.pic_width_in_mbs_minus1 >= 4096 || sps.pic_height_in_map_units_minus1 >= 4096 {
        return Err(Error::ParameterSet("the picture is wider or taller than 65535 pixels".into()));
    }
    Ok(sps)
}

/// Returns the SPS for browsers. If `nal` has no bitstream restriction (E.2.1), one is added. It
/// states that no pictures are reordered and that the decoder needs to store only reference
/// pictures. All other fields are preserved. An SPS with a bitstream restriction is returned
/// unchanged.
pub fn restrict_reordering(nal: &[u8], sps: &SeqParameterSet) -> Vec<u8> {
    let vui = sps.vui_parameters.clone().unwrap_or_default();
    if vui.bitstream_restrictions.is_some() {
        return nal.to_vec();
    }
    let restriction = BitstreamRestrictions {
        // The values that E.2.1 infers if the restriction is absent.
        motion_vectors_over_pic_boundaries_flag: true,
        max_bytes_per_pic_denom: 2,
        max_bits_per_mb_denom: 1,
        log2_max_mv_length_horizontal: 15,
        log2_max_mv_length_vertical: 15,
        max_num_reorder_frames: 0,
        max_dec_frame_buffering: sps.max_num_ref_frames,
    };
    let restricted = SeqParameterSet {
        vui_parameters: Some(VuiParameters { bitstream_restrictions: Some(restriction), ..vui }),
        ..sps.clone()
    };
    let Ok(header) = NalHeader::new(nal[0]) else {
        return nal.to_vec();
    };
    let rewritten = restricted.to_vec_with_header(header);
    // If parsing the result does not return the same SPS, use the original, which also plays, but
    // with more delay.
    match parse_sps(&rewritten) {
        Ok(parsed) if parsed == restricted => rewritten,
        _ => nal.to_vec(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An SPS with a bitstream restriction, from a Raspberry Pi's encoder (bcm2835, High profile,
    /// level 4.0).
    pub const PI_SPS: &[u8] =
        &[0x27, 0x64, 0x00, 0x28, 0xac, 0x2b, 0x40, 0x28, 0x02, 0xdd, 0x00, 0xf1, 0x22, 0x6a];

    /// Returns an SPS without VUI.
    pub fn plain_sps(width_mbs: u32, height_mbs: u32, refs: u32) -> Vec<u8> {
        let mut sps = parse_sps(PI_SPS).unwrap();
        sps.vui_parameters = None;
        sps.frame_cropping = None;
        sps.pic_width_in_mbs_minus1 = width_mbs - 1;
        sps.pic_height_in_map_units_minus1 = height_mbs - 1;
        sps.max_num_ref_frames = refs;
        sps.to_vec_with_header(NalHeader::new(0x67).unwrap())
    }

    #[test]
    fn keeps_an_sps_with_a_bitstream_restriction() {
        let sps = parse_sps(PI_SPS).unwrap();
        assert_eq!(sps.rfc6381().to_string(), "avc1.640028");
        assert_eq!(sps.pixel_dimensions().unwrap(), (1280, 720));
        assert_eq!(restrict_reordering(PI_SPS, &sps), PI_SPS);
    }

    #[test]
    fn adds_a_missing_bitstream_restriction() {
        let nal = plain_sps(80, 45, 3);
        let rewritten = restrict_reordering(&nal, &parse_sps(&nal).unwrap());
        let vui = parse_sps(&rewritten).unwrap().vui_parameters.unwrap();
        let restriction = vui.bitstream_restrictions.unwrap();
        assert_eq!(restriction.max_num_reorder_frames, 0);
        assert_eq!(restriction.max_dec_frame_buffering, 3);
    }

    #[test]
    fn accepts_a_level_too_low_for_the_picture_size() {
        let mut nal = plain_sps(120, 68, 1);
        nal[LEVEL_OFFSET] = 10; // level 1.0 allows 99 macroblocks
        let sps = parse_sps(&nal).unwrap();
        assert_eq!(sps.level_idc, 10);
        assert_eq!(sps.pixel_dimensions().unwrap(), (1920, 1088));
        let rewritten = restrict_reordering(&nal, &sps);
        assert_eq!(rewritten[LEVEL_OFFSET], 10);
        assert!(parse_sps(&rewritten).unwrap().vui_parameters.is_some());
    }

    #[test]
    fn reports_a_missing_parameter_set() {
        assert_eq!(Params::default().activate(3).unwrap_err(), Error::MissingParameterSet(3));
    }

    proptest! {
        /// The rewritten SPS differs from the original only in the bitstream restriction.
        #[test]
        fn rewriting_changes_only_the_restriction(
            width in 1u32..200, height in 1u32..120, refs in 0u32..16, poc in 0u8..3,
            frame_num_bits in 0u8..=12, crop in proptest::option::of(0u32..8),
            timing in proptest::option::of((1u32..=u32::MAX, 1u32..=u32::MAX)),
            level in 10u8..63,
        ) {
            use h264_reader::nal::sps::{FrameCropping, PicOrderCntType, TimingInfo};
            let mut sps = parse_sps(PI_SPS).unwrap();
            sps.level_idc = level;
            sps.pic_width_in_mbs_minus1 = width - 1;
            sps.pic_height_in_map_units_minus1 = height - 1;
            sps.max_num_ref_frames = refs;
            sps.log2_max_frame_num_minus4 = frame_num_bits;
            sps.pic_order_cnt = match poc {
                0 => PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4: frame_num_bits },
                1 => PicOrderCntType::TypeOne {
                    delta_pic_order_always_zero_flag: true, offset_for_non_ref_pic: -7,
                    offset_for_top_to_bottom_field: 9, offsets_for_ref_frame: vec![1, -2, 3],
                },
                _ => PicOrderCntType::TypeTwo,
            };
            sps.frame_cropping = crop.map(|c| FrameCropping {
                left_offset: 0, right_offset: c, top_offset: 0, bottom_offset: c });
            sps.vui_parameters = timing.map(|(num_units_in_tick, time_scale)| VuiParameters {
                timing_info: Some(TimingInfo {
                    num_units_in_tick, time_scale, fixed_frame_rate_flag: true }),
                ..Default::default()
            });
            let nal = sps.to_vec_with_header(NalHeader::new(0x67).unwrap());
            let parsed = parse_sps(&nal).unwrap();
            prop_assert_eq!(&parsed, &sps);

            let rewritten = restrict_reordering(&nal, &parsed);
            prop_assert!(super::super::annexb::start_code(&rewritten, 0).is_none());
            let mut reparsed = parse_sps(&rewritten).unwrap();
            let vui = reparsed.vui_parameters.as_mut().unwrap();
            prop_assert_eq!(vui.bitstream_restrictions.take().unwrap().max_dec_frame_buffering, refs);
            if sps.vui_parameters.is_none() {
                prop_assert_eq!(&*vui, &VuiParameters::default());
                reparsed.vui_parameters = None;
            }
            prop_assert_eq!(reparsed, sps);
        }

        /// Arbitrary bytes cause no panic.
        #[test]
        fn arbitrary_bytes_do_not_panic(nal in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut params = Params::default();
            let _ = params.put_sps(&nal);
            let _ = params.put_pps(&nal);
            for id in 0..=255 { let _ = params.activate(id); }
        }
    }
}
