//! Parser for Annex B, independent of the splitter under test.

/// The H.264 stream of a camera at one size.
pub struct Clip {
    pub width: u16,
    pub height: u16,
    /// The access units, including start codes.
    pub units: Vec<Vec<u8>>,
}

impl Clip {
    pub fn new(width: u16, height: u16, stream: &[u8]) -> Clip {
        Clip { width, height, units: access_units(stream) }
    }
}

/// Returns the start of each NAL unit: the positions of the start code and of the header byte.
fn starts(stream: &[u8]) -> Vec<(usize, usize)> {
    let mut starts = vec![];
    let mut at = 0;
    while at + 3 <= stream.len() {
        if stream[at..at + 3] == [0, 0, 1] {
            // A preceding zero byte is part of the start code.
            let code = if at > 0 && stream[at - 1] == 0 { at - 1 } else { at };
            starts.push((code, at + 3));
            at += 3;
        } else {
            at += 1;
        }
    }
    starts
}

/// Returns the NAL units without start codes.
pub fn nal_units(stream: &[u8]) -> Vec<&[u8]> {
    let starts = starts(stream);
    let ends = starts.iter().skip(1).map(|(code, _)| *code).chain([stream.len()]);
    starts.iter().zip(ends).map(|((_, start), end)| &stream[*start..end]).collect()
}

/// NAL unit types (Rec. ITU-T H.264, table 7-1).
const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;

pub fn nal_type(nal: &[u8]) -> u8 {
    nal[0] & 0x1f
}

pub fn is_slice(nal: &[u8]) -> bool {
    matches!(nal_type(nal), SLICE | IDR_SLICE)
}

/// Splits a stream into access units. An access unit ends at the first NAL unit after its slices
/// that is either not a slice, or the first slice of the next picture (first_mb_in_slice is 0,
/// coded as one bit 1).
fn access_units(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut units = vec![];
    let mut unit_start = 0;
    let mut has_slice = false;
    for (code, start) in starts(stream) {
        let nal = &stream[start..];
        let first = is_slice(nal) && nal[1] & 0x80 != 0;
        if has_slice && (first || !is_slice(nal)) {
            units.push(stream[unit_start..code].to_vec());
            unit_start = code;
            has_slice = false;
        }
        has_slice |= is_slice(nal);
    }
    if has_slice {
        units.push(stream[unit_start..].to_vec());
    }
    units
}
