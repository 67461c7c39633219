//! Annex B byte stream format: where NAL units start and end.
//!
//! Rec. ITU-T H.264, Annex B.1:
//!
//! ```text
//! leading_zero_8bits*  [zero_byte] 00 00 01  nal_unit  trailing_zero_8bits*
//!                      ^ 4-byte start code   ^ header byte first
//! ```
//!
//! A NAL unit never ends in a zero byte (7.4.1), so zeros in front of a start code belong to
//! nobody and are left out.

use memchr::memmem;
use std::ops::Range;

/// Position of the next `00 00 01` in `data`, at or after `from`.
pub fn start_code(data: &[u8], from: usize) -> Option<usize> {
    let rest = data.get(from..)?;
    memmem::find(rest, &[0, 0, 1]).map(|at| from + at)
}

/// The NAL units of a buffer that holds whole ones, as ranges without start codes and without
/// trailing zeros. Bytes in front of the first start code are left out; empty NAL units too.
pub fn nal_units(data: &[u8]) -> NalUnits<'_> {
    NalUnits { data, next: start_code(data, 0).map(|at| at + 3) }
}

/// Iterator made by [`nal_units`].
#[derive(Debug, Clone)]
pub struct NalUnits<'a> {
    data: &'a [u8],
    next: Option<usize>,
}

impl Iterator for NalUnits<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let start = self.next?;
            let code = start_code(self.data, start);
            self.next = code.map(|at| at + 3);
            let end = trim_zeros(self.data, start, code.unwrap_or(self.data.len()));
            if end > start {
                return Some(start..end);
            }
        }
    }
}

/// `end` without the zero bytes in front of it, but not below `start`.
pub fn trim_zeros(data: &[u8], start: usize, end: usize) -> usize {
    data[start..end].iter().rposition(|&b| b != 0).map_or(start, |last| start + last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(data: &[u8]) -> Vec<&[u8]> {
        nal_units(data).map(|r| &data[r]).collect()
    }

    #[test]
    fn three_and_four_byte_start_codes() {
        let data = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 0, 1, 0x65, 4];
        assert_eq!(split(&data), [&[0x67, 1, 2][..], &[0x68, 3], &[0x65, 4]]);
    }

    #[test]
    fn leading_and_trailing_zeros_belong_to_nobody() {
        let data = [0, 0, 0, 0, 0, 1, 0x65, 9, 0, 0, 0, 0, 0, 1, 0x41, 8, 0, 0];
        assert_eq!(split(&data), [&[0x65, 9][..], &[0x41, 8]]);
    }

    #[test]
    fn garbage_in_front_and_empty_nal_units_are_left_out() {
        let data = [7, 7, 0, 0, 1, 0, 0, 1, 0x41];
        assert_eq!(split(&data), [&[0x41][..]]);
        assert!(split(&[1, 2, 3]).is_empty());
        assert!(split(&[]).is_empty());
    }

    proptest! {
        /// Whatever is joined with start codes comes apart again the same.
        #[test]
        fn join_then_split(
            nals in proptest::collection::vec(
                (proptest::collection::vec(1u8..=255, 1..40), 0usize..4, any::<bool>()), 1..12),
        ) {
            let mut data = Vec::new();
            for (nal, zeros, long) in &nals {
                if *long { data.push(0); }
                data.extend([0, 0, 1]);
                data.extend(nal);
                data.extend(std::iter::repeat_n(0, *zeros));
            }
            let want: Vec<&[u8]> = nals.iter().map(|(n, _, _)| &n[..]).collect();
            prop_assert_eq!(split(&data), want);
        }
    }
}
