//! The first part of a slice header: enough to tell pictures apart.
//!
//! Rec. ITU-T H.264, 7.3.3 (syntax) and 7.4.1.2.4 (detection of the first VCL NAL unit of a
//! primary coded picture).

use super::params::Params;
use super::{Error, annexb, nal_type};
use h264_reader::nal::sps::{FrameMbsFlags, PicOrderCntType};
use h264_reader::rbsp::{BitRead, BitReader, BitReaderError, ByteReader};

/// As many bytes of a slice NAL unit as [`SliceStart::parse`] can need at the most: with every
/// field at its longest it reads 38, and emulation prevention adds half to that.
pub const PREFIX: usize = 64;

/// Reads the beginning of `nal`: never more than [`PREFIX`] bytes, so that it makes no difference how
/// much of the NAL unit is here, and without the zeros behind it, which the reader calls invalid.
fn beginning(nal: &[u8]) -> BitReader<ByteReader<&[u8]>> {
    let nal = &nal[..nal.len().min(PREFIX)];
    let nal = &nal[..annexb::trim_zeros(nal, 0, nal.len())];
    BitReader::new(ByteReader::skipping_h264_header(nal))
}

/// Where a slice stands and which picture it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceStart {
    /// Address of the slice's first macroblock; 0 starts a picture.
    pub first_mb: u32,
    /// B slice: may be predicted from pictures shown later.
    pub is_b: bool,
    /// Part of an IDR picture.
    pub idr: bool,
    /// A field picture (half of an interlaced frame).
    pub field: bool,
    /// `pic_order_cnt_lsb`, where the SPS has picture order count type 0.
    pub poc_lsb: u32,
    /// The picture may be referred to by others.
    pub is_reference: bool,
    /// The parameter set in use.
    pub pps_id: u8,
    bottom: bool,
    frame_num: u32,
    idr_pic_id: u32,
    delta_poc: [i32; 2],
}

impl SliceStart {
    /// Reads the slice header of `nal` (header byte first; the end may be missing).
    pub fn parse(nal: &[u8], params: &Params) -> Result<SliceStart, Error> {
        let header = *nal.first().ok_or_else(|| Error::Damaged("an empty NAL unit".into()))?;
        let damaged =
            |e: BitReaderError| Error::Damaged(format!("its slice header ends early: {e:?}"));
        let mut r = beginning(nal);
        let first_mb = r.read_ue("first_mb_in_slice").map_err(damaged)?;
        let slice_type = r.read_ue("slice_type").map_err(damaged)?;
        if slice_type > 9 {
            return Err(Error::Damaged(format!("slice_type {slice_type} does not exist")));
        }
        let pps_id = r.read_ue("pic_parameter_set_id").map_err(damaged)?;
        let pps_id = u8::try_from(pps_id)
            .map_err(|_| Error::Damaged(format!("pic_parameter_set_id {pps_id} is above 255")))?;
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

    /// Only `first_mb_in_slice`: what can be read without any parameter set.
    pub fn first_mb_of(nal: &[u8]) -> Option<u32> {
        beginning(nal).read_ue("first_mb_in_slice").ok()
    }

    /// Whether both slices are of one picture, by 7.4.1.2.4: none of the fields named there differ.
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
