//! Parser for access units: selects the NAL units for viewers, and detects key frames and changed
//! parameter sets.
//!
//! Rec. ITU-T H.264, 7.4.1.2.3 (contents of an access unit) and 8.2.1.1 (picture order count type
//! 0); ISO/IEC 14496-15, 5.3.2 and 5.4.2.2 (samples of type `avc1` contain no parameter sets).

use super::params::{ParameterSets, Params};
use super::slice::SliceStart;
use super::{Error, annexb, nal_type};
use h264_reader::nal::sps::PicOrderCntType;
use std::ops::Range;
use std::sync::Arc;

/// Parser for the access units of one stream.
#[derive(Debug, Default)]
pub struct Parser {
    params: Params,
    active: Option<Arc<ParameterSets>>,
    order: OutputOrder,
    /// Reused for every access unit to avoid allocations. [`Picture`] borrows it.
    nals: Vec<Range<usize>>,
}

/// A parsed access unit.
#[derive(Debug)]
pub struct Picture<'a> {
    /// Whether this is an IDR picture, where playback can start.
    pub key: bool,
    /// The NAL units for viewers, as ranges of the access unit: slices and SEI, but no parameter
    /// sets, delimiters or filler data.
    pub nals: &'a [Range<usize>],
    /// The active parameter sets. The same `Arc` as before unless they have changed.
    pub parameters: &'a Arc<ParameterSets>,
}

impl Parser {
    /// Parses one access unit in Annex B format.
    ///
    /// # Errors
    /// Returns an [`Error`] if the access unit is damaged, has no picture, or cannot be streamed.
    /// Parsing can continue with the next access unit.
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
                            return Err(Error::Damaged(
                                "the access unit contains two pictures".into(),
                            ));
                        }
                    }
                    self.nals.push(range);
                }
                nal_type::SEI => self.nals.push(range),
                // Delimiters and filler data have no meaning in a sample. Extensions (SVC, MVC,
                // alpha) and unspecified types are for other decoders.
                _ => {}
            }
        }
        let first = first.ok_or(Error::NoPicture)?;
        if first.field {
            return Err(Error::Interlaced);
        }
        let (_, sps) =
            self.params.find(first.pps_id).ok_or(Error::MissingParameterSet(first.pps_id))?;
        // Only the (unconstrained) Baseline profile allows arbitrary slice order. In other
        // profiles, a first slice that does not start at macroblock 0 means that the beginning of
        // the picture has been lost.
        let any_order =
            sps.nal.get(1) == Some(&66) && sps.nal.get(2).is_some_and(|c| c & 0x40 == 0);
        if first.first_mb != 0 && !any_order {
            return Err(Error::Damaged("the beginning of the picture is missing".into()));
        }
        if self.order.reordered(&first, any_b, &sps.sps.pic_order_cnt) {
            return Err(Error::Reordered);
        }
        // Parameter sets may change only at an IDR picture (7.4.1.2.1).
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

/// Detects reordered pictures by their picture order count (POC).
#[derive(Debug, Default)]
struct OutputOrder {
    /// `PicOrderCntMsb` and `pic_order_cnt_lsb` of the last reference picture (8.2.1.1).
    previous: (i64, i64),
    /// Highest POC since the last IDR picture.
    highest: Option<i64>,
}

impl OutputOrder {
    /// Processes the next picture in decoding order. Returns true if a previous picture follows it
    /// in output order.
    fn reordered(&mut self, picture: &SliceStart, any_b: bool, kind: &PicOrderCntType) -> bool {
        let log2_max = match kind {
            PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4: n } => i64::from(*n) + 4,
            // Type 1 is rare, so a B slice is taken as sufficient evidence of reordering.
            PicOrderCntType::TypeOne { .. } => return any_b,
            // Type 2: output order equals decoding order.
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
        // Without B slices, a lower POC results from lost pictures or a reset, not from reordering.
        late && any_b
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The test card: 300 access units from x264.
    const CLIP: &[u8] = include_bytes!("../camera/test_card.h264");

    #[test]
    fn parses_the_first_access_unit_of_the_test_card() {
        let mut parser = Parser::default();
        // The first access unit extends to the second picture.
        let mut slices = annexb::nal_units(CLIP).filter(|r| matches!(CLIP[r.start] & 31, 1 | 5));
        let second = slices.nth(1).unwrap().start;
        let picture = parser.access_unit(&CLIP[..second - 3]).unwrap();
        assert!(picture.key);
        assert_eq!((picture.parameters.width, picture.parameters.height), (1280, 720));
        assert_eq!(picture.parameters.framerate, Some(30.0));
        assert!(picture.nals.iter().all(|r| matches!(CLIP[r.start] & 31, 1 | 5 | 6)));
    }

    #[test]
    fn names_the_encoder_option_if_parameter_sets_are_missing() {
        let error = Parser::default().access_unit(&[0, 0, 1, 0x65, 0x88, 0x80, 0x10]).unwrap_err();
        assert_eq!(error, Error::MissingParameterSet(0));
        assert!(error.to_string().contains("--inline"));
    }

    #[test]
    fn rejects_access_units_without_a_picture() {
        assert_eq!(Parser::default().access_unit(&[]).unwrap_err(), Error::NoPicture);
        assert_eq!(Parser::default().access_unit(&[0, 0, 1, 9, 16]).unwrap_err(), Error::NoPicture);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(units in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..200), 1..5)) {
            let mut parser = Parser::default();
            for unit in units { let _ = parser.access_unit(&unit); }
        }
    }
}
