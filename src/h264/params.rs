//! Parameter sets: what a stream says about itself, and what browsers are told.
//!
//! Rec. ITU-T H.264, 7.3.2.1 (SPS), 7.3.2.2 (PPS), Annex E (VUI); RFC 6381, 3.3 (codec string).
//!
//! A decoder that does not know how many pictures a stream reorders must assume the most its level
//! allows and holds that many back before it shows the first (C.4.5.3, E.2.1). Many cameras leave
//! `bitstream_restriction` out of the SPS. As this program refuses streams that reorder, it can
//! say so: the SPS that browsers get then has `max_num_reorder_frames = 0`.
//!
//! Oddities of real cameras that are taken as they come:
//! - a level too low for the picture size (the level is ignored when sizes are checked),
//! - zero bytes behind a parameter set,
//! - parameter sets repeated with every key frame, or sent once and never again,
//! - VUI timing of 0 or of 1000 frames a second (the measured rate counts).

use super::Error;
use h264_reader::nal::sps::{BitstreamRestrictions, SeqParameterSet, VuiParameters};
use h264_reader::nal::{NalHeader, WritableNal};
use h264_reader::rbsp::{BitRead, BitReader, ByteReader};
use std::collections::BTreeMap;

/// Frame rates outside of this are not believed, frames a second.
const PLAUSIBLE_FRAMERATE: std::ops::RangeInclusive<f64> = 0.5..=250.0;

/// A parameter set longer than this is not one, bytes. The largest real ones (all scaling lists,
/// 32 CPB specifications) stay under 2 KiB; avcC counts their length in 16 bits.
const MAX_PARAMETER_SET: usize = 16 * 1024;

/// Level 6.2, the highest there is: allows every picture size.
const HIGHEST_LEVEL: u8 = 62;

/// Byte of an SPS NAL unit that holds `level_idc`.
const LEVEL_AT: usize = 3;

/// An SPS, as bytes and as parsed.
#[derive(Debug, Clone)]
pub struct Sps {
    /// The NAL unit as it was sent.
    pub nal: Vec<u8>,
    /// The same, parsed.
    pub sps: SeqParameterSet,
}

/// A PPS: the bytes, and the fields that are needed to tell pictures apart.
#[derive(Debug, Clone)]
pub struct Pps {
    /// The NAL unit as it was sent.
    pub nal: Vec<u8>,
    /// The SPS it refers to.
    pub sps_id: u8,
    /// `bottom_field_pic_order_in_frame_present_flag`.
    pub bottom_field_pic_order_in_frame_present: bool,
}

/// The parameter sets a stream has sent so far.
#[derive(Debug, Clone, Default)]
pub struct Params {
    // Ordered, so that the same sets always make the same init segment.
    sps: BTreeMap<u8, Sps>,
    pps: BTreeMap<u8, Pps>,
}

impl Params {
    /// Takes an SPS NAL unit (header byte first).
    pub fn put_sps(&mut self, nal: &[u8]) -> Result<(), Error> {
        if self.sps.values().any(|known| known.nal == nal) {
            return Ok(()); // repeated with every key frame: nothing new
        }
        let sps = parse_sps(nal)?;
        self.sps.insert(sps.seq_parameter_set_id.id(), Sps { nal: nal.to_vec(), sps });
        Ok(())
    }

    /// Takes a PPS NAL unit (header byte first).
    pub fn put_pps(&mut self, nal: &[u8]) -> Result<(), Error> {
        if self.pps.values().any(|known| known.nal == nal) {
            return Ok(());
        }
        if nal.len() > MAX_PARAMETER_SET {
            return Err(Error::ParameterSet(format!("a PPS of {} bytes", nal.len())));
        }
        let bad = |e| Error::ParameterSet(format!("PPS: {e:?}"));
        // Only the fields in front of those that depend on the SPS: a PPS may come before its SPS.
        let mut r = BitReader::new(ByteReader::skipping_h264_header(nal));
        let id = r.read_ue("pic_parameter_set_id").map_err(bad)?;
        let sps_id = r.read_ue("seq_parameter_set_id").map_err(bad)?;
        r.skip(1, "entropy_coding_mode_flag").map_err(bad)?;
        let bottom = r.read_bit("bottom_field_pic_order_in_frame_present_flag").map_err(bad)?;
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

    /// The PPS `pps_id` and the SPS it refers to, if both were sent.
    pub fn find(&self, pps_id: u8) -> Option<(&Pps, &Sps)> {
        let pps = self.pps.get(&pps_id)?;
        Some((pps, self.sps.get(&pps.sps_id)?))
    }

    /// What a key frame that uses `pps_id` makes the stream's parameter sets: its SPS and every
    /// PPS that refers to it.
    pub fn activate(&self, pps_id: u8) -> Result<ParameterSets, Error> {
        let (pps, sps) = self.find(pps_id).ok_or(Error::MissingParameterSet(pps_id))?;
        let same_sps = |other: &&Pps| other.sps_id == pps.sps_id;
        let pps = self.pps.values().filter(same_sps).map(|p| p.nal.clone()).collect();
        ParameterSets::new(sps, pps)
    }
}

/// The parameter sets that are in force, and what they mean.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSets {
    /// The SPS as the camera sent it.
    pub sps: Vec<u8>,
    /// The SPS for browsers: see [`restrict_reordering`].
    pub browser_sps: Vec<u8>,
    /// Every PPS that refers to the SPS, in the order of their numbers.
    pub pps: Vec<Vec<u8>>,
    /// RFC 6381 codec string, such as `avc1.640028`.
    pub codec: String,
    /// Width in pixels, cropping applied.
    pub width: u16,
    /// Height in pixels, cropping applied.
    pub height: u16,
    /// Frames a second, where the VUI says it and it can be believed.
    pub framerate: Option<f64>,
    /// Width and height of a sample, where they are not the same (VUI, table E-1).
    pub sample_aspect: Option<(u16, u16)>,
    /// Chroma format and bit depths (luma, chroma) for the profiles whose avcC carries them.
    pub chroma: Option<(u8, u8, u8)>,
}

impl ParameterSets {
    fn new(sps: &Sps, pps: Vec<Vec<u8>>) -> Result<ParameterSets, Error> {
        let parsed = &sps.sps;
        let (width, height) =
            parsed.pixel_dimensions().map_err(|e| Error::ParameterSet(format!("SPS: {e:?}")))?;
        let size = |pixels: u32| {
            u16::try_from(pixels)
                .ok()
                .filter(|&p| p > 0)
                .ok_or_else(|| Error::ParameterSet(format!("a picture of {width}x{height} pixels")))
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
            // ISO/IEC 14496-15, 5.3.3.1.2: only for these profiles.
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

/// Parses an SPS NAL unit (header byte first).
pub fn parse_sps(nal: &[u8]) -> Result<SeqParameterSet, Error> {
    if nal.len() > MAX_PARAMETER_SET {
        return Err(Error::ParameterSet(format!("an SPS of {} bytes", nal.len())));
    }
    let parse = |nal: &[u8]| {
        SeqParameterSet::from_bits(BitReader::new(ByteReader::skipping_h264_header(nal)))
    };
    let sps = parse(nal).or_else(|error| {
        // Cameras understate their level; sizes are then judged by the highest one.
        let mut nal = nal.to_vec();
        let Some(level) = nal.get_mut(LEVEL_AT) else {
            return Err(error);
        };
        let stated = std::mem::replace(level, HIGHEST_LEVEL);
        parse(&nal).map_err(|_| error).map(|sps| SeqParameterSet { level_idc: stated, ..sps })
    });
    let sps = sps.map_err(|e| Error::ParameterSet(format!("SPS: {e:?}")))?;
    // pixel_dimensions() adds and multiplies unchecked below these (H.264 A.3: 1055 at the most
    // at level 6.2 for either side of a square, 8 × that for the longest stripe).
    if sps.pic_width_in_mbs_minus1 >= 4096 || sps.pic_height_in_map_units_minus1 >= 4096 {
        return Err(Error::ParameterSet("a picture of more than 65535 pixels a side".into()));
    }
    Ok(sps)
}

/// The SPS for browsers: where it does not say how many pictures are reordered, it says that none
/// are, and that no more pictures need to be kept than are referred to (E.2.1). Everything else
/// stays as it is. Where the SPS already has a bitstream restriction, it is returned unchanged.
pub fn restrict_reordering(nal: &[u8], sps: &SeqParameterSet) -> Vec<u8> {
    let vui = sps.vui_parameters.clone().unwrap_or_default();
    if vui.bitstream_restrictions.is_some() {
        return nal.to_vec();
    }
    let restriction = BitstreamRestrictions {
        // The values E.2.1 infers when the restriction is missing.
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
    // What can't be read back is not handed on: the original plays too, only later.
    match parse_sps(&rewritten) {
        Ok(again) if again == restricted => rewritten,
        _ => nal.to_vec(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The Raspberry Pi's own (bcm2835, 1080p, High, level 4.0): has a restriction already.
    pub const PI_SPS: &[u8] =
        &[0x27, 0x64, 0x00, 0x28, 0xac, 0x2b, 0x40, 0x28, 0x02, 0xdd, 0x00, 0xf1, 0x22, 0x6a];

    /// An SPS of a plain stream without VUI.
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
    fn the_pis_own_sps_is_left_alone() {
        let sps = parse_sps(PI_SPS).unwrap();
        assert_eq!(sps.rfc6381().to_string(), "avc1.640028");
        assert_eq!(sps.pixel_dimensions().unwrap(), (1280, 720));
        assert_eq!(restrict_reordering(PI_SPS, &sps), PI_SPS);
    }

    #[test]
    fn an_sps_without_restriction_gets_one() {
        let nal = plain_sps(80, 45, 3);
        let rewritten = restrict_reordering(&nal, &parse_sps(&nal).unwrap());
        let vui = parse_sps(&rewritten).unwrap().vui_parameters.unwrap();
        let restriction = vui.bitstream_restrictions.unwrap();
        assert_eq!(restriction.max_num_reorder_frames, 0);
        assert_eq!(restriction.max_dec_frame_buffering, 3);
    }

    #[test]
    fn a_level_too_low_for_the_picture_is_forgiven() {
        let mut nal = plain_sps(120, 68, 1);
        nal[LEVEL_AT] = 10; // level 1.0 ends at 99 macroblocks
        let sps = parse_sps(&nal).unwrap();
        assert_eq!(sps.level_idc, 10);
        assert_eq!(sps.pixel_dimensions().unwrap(), (1920, 1088));
        let rewritten = restrict_reordering(&nal, &sps);
        assert_eq!(rewritten[LEVEL_AT], 10);
        assert!(parse_sps(&rewritten).unwrap().vui_parameters.is_some());
    }

    #[test]
    fn a_picture_that_names_an_unknown_set_is_told_so() {
        assert_eq!(Params::default().activate(3).unwrap_err(), Error::MissingParameterSet(3));
    }

    proptest! {
        /// parse(rewrite(x)) differs from x only in the restriction fields.
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
            let mut again = parse_sps(&rewritten).unwrap();
            let vui = again.vui_parameters.as_mut().unwrap();
            prop_assert_eq!(vui.bitstream_restrictions.take().unwrap().max_dec_frame_buffering, refs);
            if sps.vui_parameters.is_none() {
                prop_assert_eq!(&*vui, &VuiParameters::default());
                again.vui_parameters = None;
            }
            prop_assert_eq!(again, sps);
        }

        /// Whatever bytes come, nothing panics.
        #[test]
        fn any_bytes(nal in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut params = Params::default();
            let _ = params.put_sps(&nal);
            let _ = params.put_pps(&nal);
            for id in 0..=255 { let _ = params.activate(id); }
        }
    }
}
