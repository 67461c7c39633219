//! Parses the first part of a slice header, enough to distinguish pictures.
//!
//! Rec. ITU-T H.264, 7.3.3 (slice header syntax) and 7.4.1.2.4 (detection of the first VCL NAL unit
//! of a primary coded picture).

use super::params::Params;
use super::{Error, annexb, nal_type};
use h264_reader::nal::sps::{FrameMbsFlags, PicOrderCntType};
use h264_reader::rbsp::{BitRead, BitReader, BitReaderError, ByteReader};

/// Maximum number of bytes that [`SliceStart::parse`] reads from a slice NAL unit. With every field
/// at its maximum length, the header takes 38 bytes, and emulation prevention adds up to half as
/// many.
pub const PREFIX_BYTES: usize = 64;

/// Returns a reader for the first [`PREFIX_BYTES`] bytes of `nal`. The limit makes the result
/// independent of how much of the NAL unit has arrived. Trailing zeros are removed because the
/// reader rejects them.
fn beginning(nal: &[u8]) -> BitReader<ByteReader<&[u8]>> {
    let nal = &nal[..nal.len().min(PREFIX_BYTES)];
    let nal = &nal[..annexb::trim_zeros(nal, 0, nal.len())];
    BitReader::new(ByteReader::skipping_h264_header(nal))
}

/// The fields of a slice header that identify the picture and the position in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceStart {
    /// Address of the first macroblock in the slice (`first_mb_in_slice`). The value 0 usually
    /// marks the start of a picture.
    pub first_mb: u32,
    /// Whether this is a B slice, which may be predicted from pictures that are displayed later.
    pub is_b: bool,
    /// Whether the slice belongs to an IDR picture.
    pub idr: bool,
    /// Whether the slice belongs to a field (half of an interlaced frame).
    pub field: bool,
    /// `pic_order_cnt_lsb`; 0 unless the picture order count type is 0.
    pub poc_lsb: u32,
    /// Whether other pictures may refer to this picture (`nal_ref_idc` is not 0).
    pub is_reference: bool,
    /// ID of the picture parameter set (`pic_parameter_set_id`).
    pub pps_id: u8,
    bottom: bool,
    frame_num: u32,
    idr_pic_id: u32,
    delta_poc: [i32; 2],
}

impl SliceStart {
    /// Parses the slice header of `nal`, which starts with its header byte and may be truncated.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the header is truncated or invalid, and [`Error::MissingParameterSet`]
    /// if `params` does not contain its parameter sets.
    pub fn parse(nal: &[u8], params: &Params) -> Result<SliceStart, Error> {
        let header = *nal.first().ok_or_else(|| Error::Damaged("empty NAL unit".into()))?;
        let damaged = |e: BitReaderError| Error::Damaged(format!("truncated slice header: {e:?}"));
        let mut r = beginning(nal);
        let first_mb = r.read_ue("first_mb_in_slice").map_err(damaged)?;
        let slice_type = r.read_ue("slice_type").map_err(damaged)?;
        if slice_type > 9 {
            return Err(Error::Damaged(format!("invalid slice_type {slice_type}")));
        }
        let pps_id = r.read_ue("pic_parameter_set_id").map_err(damaged)?;
        let pps_id = u8::try_from(pps_id)
            .map_err(|_| Error::Damaged(format!("pic_parameter_set_id {pps_id} exceeds 255")))?;
        let (pps, sps) = params.find(pps_id).ok_or(Error::MissingParameterSet(pps_id))?;
        let sps = &sps.sps;

        let mut start = SliceStart {
            first_mb,
            is_b: slice_type % 5 == 1,
            idr: header & 31 == nal_type::IDR,
            field: false,
            poc_lsb: 0,
            is_reference: header & 0x60 != 0,
            pps_id,
            bottom: false,
            frame_num: 0,
            idr_pic_id: 0,
            delta_poc: [0; 2],
        };
        if sps.chroma_info.separate_colour_plane_flag {
            r.skip(2, "colour_plane_id").map_err(damaged)?;
        }
        start.frame_num =
            r.read_var(u32::from(sps.log2_max_frame_num()), "frame_num").map_err(damaged)?;
        if matches!(sps.frame_mbs_flags, FrameMbsFlags::Fields { .. }) {
            start.field = r.read_bit("field_pic_flag").map_err(damaged)?;
            if start.field {
                start.bottom = r.read_bit("bottom_field_flag").map_err(damaged)?;
            }
        }
        if start.idr {
            start.idr_pic_id = r.read_ue("idr_pic_id").map_err(damaged)?;
        }
        let both_fields = pps.bottom_field_pic_order_in_frame_present && !start.field;
        match sps.pic_order_cnt {
            PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4 } => {
                let bits = u32::from(log2_max_pic_order_cnt_lsb_minus4) + 4;
                start.poc_lsb = r.read_var(bits, "pic_order_cnt_lsb").map_err(damaged)?;
                if both_fields {
                    start.delta_poc[0] =
                        r.read_se("delta_pic_order_cnt_bottom").map_err(damaged)?;
                }
            }
            PicOrderCntType::TypeOne { delta_pic_order_always_zero_flag: false, .. } => {
                start.delta_poc[0] = r.read_se("delta_pic_order_cnt[0]").map_err(damaged)?;
                if both_fields {
                    start.delta_poc[1] = r.read_se("delta_pic_order_cnt[1]").map_err(damaged)?;
                }
            }
            PicOrderCntType::TypeOne { .. } | PicOrderCntType::TypeTwo => {}
        }
        Ok(start)
    }

    /// Reads `first_mb_in_slice`, which does not depend on a parameter set.
    pub fn first_mb_of(nal: &[u8]) -> Option<u32> {
        beginning(nal).read_ue("first_mb_in_slice").ok()
    }

    /// Returns whether both slices belong to the same picture, that is, whether none of the fields
    /// listed in 7.4.1.2.4 differ.
    pub fn same_picture(&self, other: &SliceStart) -> bool {
        self.frame_num == other.frame_num
            && self.pps_id == other.pps_id
            && self.field == other.field
            && self.bottom == other.bottom
            && self.is_reference == other.is_reference
            && self.poc_lsb == other.poc_lsb
            && self.delta_poc == other.delta_poc
            && self.idr == other.idr
            && self.idr_pic_id == other.idr_pic_id
    }
}
