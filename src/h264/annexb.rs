//! Finds NAL units in the byte stream format (Rec. ITU-T H.264, Annex B.1).
//!
//! ```text
//! leading_zero_8bits*  [zero_byte] 00 00 01  nal_unit  trailing_zero_8bits*
//!                      ^ 4-byte start code   ^ starts with its header byte
//! ```
//!
//! A NAL unit never ends with a zero byte (7.4.1). Zeros before a start code are therefore padding
//! and are skipped.

use memchr::memmem;
use std::ops::Range;

/// Returns the position of the next `00 00 01` in `data`, at or after `from`.
pub fn start_code(data: &[u8], from: usize) -> Option<usize> {
    let rest = data.get(from..)?;
    memmem::find(rest, &[0, 0, 1]).map(|at| from + at)
}

/// Iterates over the NAL units in a buffer of complete NAL units, as ranges without start codes or
/// trailing zeros. Bytes before the first start code and empty NAL units are skipped.
pub fn nal_units(data: &[u8]) -> NalUnits<'_> {
    NalUnits { data, next: start_code(data, 0).map(|at| at + 3) }
}

/// Iterator returned by [`nal_units`].
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
            let next_code = start_code(self.data, start);
            self.next = next_code.map(|at| at + 3);
            let end = trim_zeros(self.data, start, next_code.unwrap_or(self.data.len()));
            if end > start {
                return Some(start..end);
            }
        }
    }
}

/// Moves `end` back over the zero bytes before it, but not past `start`, and returns it.
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
    fn accepts_start_codes_of_three_and_four_bytes() {
        let data = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 0, 1, 0x65, 4];
        assert_eq!(split(&data), [&[0x67, 1, 2][..], &[0x68, 3], &[0x65, 4]]);
    }

    #[test]
    fn skips_leading_and_trailing_zeros() {
        let data = [0, 0, 0, 0, 0, 1, 0x65, 9, 0, 0, 0, 0, 0, 1, 0x41, 8, 0, 0];
        assert_eq!(split(&data), [&[0x65, 9][..], &[0x41, 8]]);
    }

    #[test]
    fn skips_leading_garbage_and_empty_nal_units() {
        let data = [7, 7, 0, 0, 1, 0, 0, 1, 0x41];
        assert_eq!(split(&data), [&[0x41][..]]);
        assert!(split(&[1, 2, 3]).is_empty());
        assert!(split(&[]).is_empty());
    }

    proptest! {
        /// Splitting returns the NAL units that were joined with start codes.
        #[test]
        fn split_reverses_join(
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
