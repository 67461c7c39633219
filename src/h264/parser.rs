//! Whole access units: which NAL units go to viewers, is it a key frame, did the parameters change.
//!
//! Rec. ITU-T H.264, 7.4.1.2.3 (what an access unit holds), 8.2.1.1 (picture order count type 0);
//! ISO/IEC 14496-15, 5.3.2 and 5.4.2.2 (a sample of type `avc1` has no parameter sets in it).

use super::params::{ParameterSets, Params};
use super::slice::SliceStart;
use super::{Error, annexb, nal_type};
use h264_reader::nal::sps::PicOrderCntType;
use std::ops::Range;
use std::sync::Arc;

/// Reads access units, one after the other, of one stream.
#[derive(Debug, Default)]
pub struct Parser {
    params: Params,
    active: Option<Arc<ParameterSets>>,
    order: OutputOrder,
    /// Kept so that no frame allocates; its ranges are lent out by [`Picture`].
    nals: Vec<Range<usize>>,
}

/// One access unit, understood.
#[derive(Debug)]
pub struct Picture<'a> {
    /// An IDR picture: playing can start here.
    pub key: bool,
    /// The NAL units that go to viewers: slices and SEI. Parameter sets, delimiters and filler
    /// stay behind.
    pub nals: &'a [Range<usize>],
    /// The parameter sets in force; another `Arc` than before when they changed.
    pub parameters: &'a Arc<ParameterSets>,
}

impl Parser {
    /// Reads one access unit in Annex B format.
    ///
    /// After an error the next access unit can be given as if nothing had been.
    pub fn access_unit(&mut self, data: &[u8]) -> Result<Picture<'_>, Error> {
        self.nals.clear();
        let mut first: Option<SliceStart> = None;
        let mut any_b = false;
        for range in annexb::nal_units(data) {
            let nal = &data[range.clone()];
            match nal[0] & 31 {
                nal_type::SPS => self.params.put_sps(nal)?,
                nal_type::PPS => self.params.put_pps(nal)?,
                nal_type::SLICE | nal_type::PARTITION_A | nal_type::IDR => {
                    let slice = SliceStart::parse(nal, &self.params)?;
                    any_b |= slice.is_b;
                    match &first {
                        None => first = Some(slice),
                        Some(first) if first.same_picture(&slice) => {}
                        Some(_) => {
                            return Err(Error::Damaged("two pictures in one access unit".into()));
                        }
                    }
                    self.nals.push(range);
                }
                nal_type::SEI => self.nals.push(range),
                // Delimiters and filler mean nothing in a sample; extensions (SVC, MVC, alpha)
                // and unspecified types are for other decoders.
                _ => {}
            }
        }
        let first = first.ok_or(Error::NoPicture)?;
        if first.field {
            return Err(Error::Interlaced);
        }
        let (_, sps) =
            self.params.find(first.pps_id).ok_or(Error::MissingParameterSet(first.pps_id))?;
        // Slices in any order exist in (unconstrained) Baseline only; elsewhere the beginning of
        // the picture was lost.
        let any_order =
            sps.nal.get(1) == Some(&66) && sps.nal.get(2).is_some_and(|c| c & 0x40 == 0);
        if first.first_mb != 0 && !any_order {
            return Err(Error::Damaged("its beginning is missing".into()));
        }
        if self.order.reordered(&first, any_b, &sps.sps.pic_order_cnt) {
            return Err(Error::Reordered);
        }
        // Parameter sets may change at an IDR picture only (7.4.1.2.1), so that is where they are
        // looked at.
        if first.idr || self.active.is_none() {
            let sets = self.params.activate(first.pps_id)?;
            if self.active.as_deref() != Some(&sets) {
                self.active = Some(Arc::new(sets));
            }
        }
        let parameters = self.active.as_ref().ok_or(Error::MissingParameterSet(first.pps_id))?;
        Ok(Picture { key: first.idr, nals: &self.nals, parameters })
    }
}

/// Follows the picture order count, to see whether pictures come in another order than shown.
#[derive(Debug, Default)]
struct OutputOrder {
    /// Of the last reference picture, most significant part and least (8.2.1.1).
    previous: (i64, i64),
    /// The highest count since the last IDR picture.
    highest: Option<i64>,
}

impl OutputOrder {
    /// Takes the next picture; true if one that is shown later has come before it.
    fn reordered(&mut self, picture: &SliceStart, any_b: bool, kind: &PicOrderCntType) -> bool {
        let log2_max = match kind {
            PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4: n } => i64::from(*n) + 4,
            // Type 1 is hardly used: there, a B slice is proof enough.
            PicOrderCntType::TypeOne { .. } => return any_b,
            // Type 2: output order is decoding order.
            PicOrderCntType::TypeTwo => return false,
        };
        let max = 1i64 << log2_max;
        if picture.idr {
            self.previous = (0, 0);
            self.highest = None;
        }
        let (previous_msb, previous_lsb) = self.previous;
        let lsb = i64::from(picture.poc_lsb);
        let msb = if lsb < previous_lsb && previous_lsb - lsb >= max / 2 {
            previous_msb + max
        } else if lsb > previous_lsb && lsb - previous_lsb > max / 2 {
            previous_msb - max
        } else {
            previous_msb
        };
        if picture.is_reference {
            self.previous = (msb, lsb);
        }
        let count = msb + lsb;
        let late = self.highest.is_some_and(|highest| count < highest);
        self.highest = Some(self.highest.map_or(count, |highest| highest.max(count)));
        // Without B slices a falling count is a lost or reset counter, not reordering.
        late && any_b
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The test card: 300 access units of a real encoder.
    const CLIP: &[u8] = include_bytes!("../camera/test_card.h264");

    #[test]
    fn reads_a_real_stream() {
        let mut parser = Parser::default();
        // The first access unit: everything up to the second picture.
        let mut slices = annexb::nal_units(CLIP).filter(|r| matches!(CLIP[r.start] & 31, 1 | 5));
        let second = slices.nth(1).unwrap().start;
        let picture = parser.access_unit(&CLIP[..second - 3]).unwrap();
        assert!(picture.key);
        assert_eq!((picture.parameters.width, picture.parameters.height), (1280, 720));
        assert_eq!(picture.parameters.framerate, Some(30.0));
        assert!(picture.nals.iter().all(|r| matches!(CLIP[r.start] & 31, 1 | 5 | 6)));
    }

    #[test]
    fn half_a_stream_without_parameter_sets_says_what_is_missing() {
        let error = Parser::default().access_unit(&[0, 0, 1, 0x65, 0x88, 0x80, 0x10]).unwrap_err();
        assert_eq!(error, Error::MissingParameterSet(0));
        assert!(error.to_string().contains("--inline"));
    }

    #[test]
    fn nothing_is_no_picture() {
        assert_eq!(Parser::default().access_unit(&[]).unwrap_err(), Error::NoPicture);
        assert_eq!(Parser::default().access_unit(&[0, 0, 1, 9, 16]).unwrap_err(), Error::NoPicture);
    }

    proptest! {
        #[test]
        fn any_bytes(units in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..200), 1..5)) {
            let mut parser = Parser::default();
            for unit in units { let _ = parser.access_unit(&unit); }
        }
    }
}
