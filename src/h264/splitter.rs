//! Splits a byte stream into access units with the lowest possible latency.
//!
//! Rec. ITU-T H.264, Annex B.2 (decoding of a byte stream), 7.4.1.2.3 and 7.4.1.2.4 (boundaries of
//! access units).
//!
//! In a byte stream, only the start of the next access unit marks the end of the current one, which
//! delays every frame by a frame period. In a pipe, timing provides additional information: an
//! encoder writes a frame and then nothing until the next one. When the pipe has been idle for long
//! enough (see [`super::PauseRule`]), the reader therefore calls [`Splitter::pause`], which returns
//! the access unit immediately. If more data for this access unit arrives, the cut was early: the
//! data is discarded, and the cut is counted ([`Splitter::wrong_cuts`]).

use super::params::Params;
use super::slice::{self, SliceStart};
use super::{Error, annexb, nal_type};
use std::collections::VecDeque;
use std::time::Duration;

/// Maximum access unit size, in bytes. Limits the memory that invalid data can occupy. Real cameras
/// stay far below this limit: level 5.2 allows 4096×2304 pixels at up to 30 MB/s.
pub const MAX_ACCESS_UNIT: usize = 8 * 1024 * 1024;

/// Maximum number of stored arrival times. Limits memory use if a program writes byte by byte.
const MAX_ARRIVALS: usize = 1024;

/// An access unit of a byte stream.
#[derive(Debug, PartialEq, Eq)]
pub struct AccessUnit<'a> {
    /// The bytes, in Annex B format.
    pub data: &'a [u8],
    /// Arrival time of the first byte, as passed to [`Splitter::push`].
    pub arrived: Duration,
}

/// Splits a byte stream into access units.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Received bytes. The first `consumed` bytes have been returned or skipped.
    buffer: Vec<u8>,
    consumed: usize,
    /// Position of `buffer[0]` in the stream.
    offset: u64,
    /// Position in the stream and arrival time of the data passed to [`Splitter::push`].
    arrivals: VecDeque<(u64, Duration)>,
    /// Index in `buffer` where the search for the next start code begins.
    scanned: usize,
    /// The current, incomplete NAL unit.
    nal: Option<Nal>,
    /// First slice of the current access unit.
    slice: Option<SliceStart>,
    /// Whether the current access unit contains a slice.
    has_picture: bool,
    /// Set if the previous access unit was cut at a pause.
    cut: Option<Cut>,
    params: Params,
    wrong_cuts: u64,
    discarded: u64,
    /// Position in the stream where the newest access unit starts.
    last_start: u64,
}

/// A NAL unit whose end is not yet known. Positions are indices in the buffer.
#[derive(Debug, Clone, Copy)]
struct Nal {
    /// Position of the start code, including the first zero of the 4-byte form.
    code: usize,
    /// Position of the header byte.
    start: usize,
    /// Whether the type and the slice header have been examined.
    examined: bool,
}

/// The end of an access unit at a pause.
#[derive(Debug)]
struct Cut {
    /// First slice of the access unit before the cut.
    slice: Option<SliceStart>,
    /// Whether the bytes after the cut have been checked for a start code.
    confirmed: bool,
}

impl Splitter {
    /// Appends `data`, which was read at time `now`.
    pub fn push(&mut self, data: &[u8], now: Duration) {
        if data.is_empty() {
            return;
        }
        self.compact();
        if self.arrivals.len() == MAX_ARRIVALS {
            // The first entry belongs to the current access unit. If the start of another access
            // unit has not been detected yet, it is within the last `slice::PREFIX_BYTES` bytes.
            // The entries in between are not needed.
            self.arrivals.drain(1..MAX_ARRIVALS / 2);
        }
        self.arrivals.push_back((self.offset + self.buffer.len() as u64, now));
        self.buffer.extend_from_slice(data);
    }

    /// Returns the next access unit whose end is known.
    pub fn next_unit(&mut self) -> Option<AccessUnit<'_>> {
        if !self.confirm_cut() {
            return None;
        }
        loop {
            if let Some(nal) = self.nal.filter(|nal| !nal.examined) {
                let end = annexb::start_code(&self.buffer, nal.start);
                if !self.can_examine(nal, end) {
                    return self.discard_excess();
                }
                self.nal = Some(Nal { examined: true, ..nal });
                if let Some(unit) = self.examine(nal, end.unwrap_or(self.buffer.len())) {
                    return Some(self.borrow_unit(unit));
                }
            }
            let Some(at) = annexb::start_code(&self.buffer, self.scanned) else {
                // The last two bytes may be part of a start code.
                self.scanned = self.scanned.max(self.buffer.len().saturating_sub(2));
                return self.discard_excess();
            };
            self.end_nal(at);
            let code = if at > self.consumed && self.buffer[at - 1] == 0 { at - 1 } else { at };
            if self.nal.is_none() && !self.has_picture {
                // Skip garbage before the first start code.
                self.consumed = code;
            }
            self.nal = Some(Nal { code, start: at + 3, examined: false });
            self.scanned = at + 3;
        }
    }

    /// Ends the current access unit because the pipe has been idle. Returns `None` if the received
    /// data cannot be a complete access unit.
    ///
    /// Call this only after [`Splitter::next_unit`] has returned `None`.
    pub fn pause(&mut self) -> Option<AccessUnit<'_>> {
        if let Some(unit) = self.examine_pending() {
            return Some(self.borrow_unit(unit));
        }
        if self.nal.is_some_and(|nal| !nal.examined) {
            return None;
        }
        // A NAL unit does not end with a zero byte (7.4.1), so more data must follow.
        if !self.has_picture || self.buffer.last() == Some(&0) {
            return None;
        }
        let end = self.buffer.len();
        self.end_nal(end);
        self.cut = Some(Cut { slice: self.slice.take(), confirmed: false });
        let unit = self.consumed..end;
        self.restart(end);
        Some(self.borrow_unit(unit))
    }

    /// After the end of the stream, returns the next remaining access unit that contains a picture.
    /// Call this until it returns `None`.
    pub fn finish(&mut self) -> Option<AccessUnit<'_>> {
        if let Some(unit) = self.examine_pending() {
            return Some(self.borrow_unit(unit));
        }
        if !self.has_picture {
            return None;
        }
        let unit = self.consumed..self.buffer.len();
        self.restart(unit.end);
        Some(self.borrow_unit(unit))
    }

    /// Returns whether the current access unit contains, or may contain, a picture, so that a pause
    /// could end it.
    pub fn has_picture(&self) -> bool {
        self.has_picture || self.nal.is_some_and(|nal| !nal.examined)
    }

    /// Returns whether the current access unit contains a slice with a valid header, whose
    /// parameter sets have been received.
    pub fn has_real_picture(&self) -> bool {
        self.slice.is_some()
    }

    /// Number of early cuts: access units that a pause ended before they were complete.
    pub fn wrong_cuts(&self) -> u64 {
        self.wrong_cuts
    }

    /// Number of bytes discarded because they were not valid H.264.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Position in the stream where the newest access unit starts, in bytes.
    pub fn last_start(&self) -> u64 {
        self.last_start
    }

    /// Position in the stream of the next byte passed to [`Splitter::push`], in bytes.
    pub fn position(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Examines the current NAL unit unless its slice header is incomplete. Returns the range of
    /// the access unit that it ends, if any.
    fn examine_pending(&mut self) -> Option<std::ops::Range<usize>> {
        let nal = self.nal.filter(|nal| !nal.examined)?;
        let bytes = self.buffer.get(nal.start..).filter(|bytes| !bytes.is_empty())?;
        let is_slice =
            matches!(bytes[0] & 31, nal_type::SLICE | nal_type::PARTITION_A | nal_type::IDR);
        if is_slice && matches!(SliceStart::parse(bytes, &self.params), Err(Error::Damaged(_))) {
            return None;
        }
        self.nal = Some(Nal { examined: true, ..nal });
        self.examine(nal, self.buffer.len())
    }

    /// Examines the beginning of a NAL unit. Returns the range of the access unit that it ends, if
    /// any.
    fn examine(&mut self, nal: Nal, end: usize) -> Option<std::ops::Range<usize>> {
        let bytes = &self.buffer[nal.start..end];
        let kind = bytes.first().map_or(0, |header| header & 31);
        let is_slice = matches!(kind, nal_type::SLICE | nal_type::PARTITION_A | nal_type::IDR);
        let slice = if is_slice { SliceStart::parse(bytes, &self.params).ok() } else { None };

        if let Some(cut) = self.cut.take_if(|_| is_slice) {
            // Discard the rest of a picture that was cut early.
            if let (Some(before), Some(now)) = (&cut.slice, &slice)
                && before.same_picture(now)
                && now.first_mb > before.first_mb
            {
                self.wrong_cuts += 1;
                self.cut = Some(cut);
                // If there is no current NAL unit and no picture, everything before the next start
                // code is skipped.
                self.nal = None;
                return None;
            }
        }
        let starts = if is_slice {
            match (&self.slice, &slice) {
                _ if !self.has_picture => false,
                (Some(first), Some(this)) => !first.same_picture(this),
                // Without parameter sets, only the first macroblock address is known.
                _ => SliceStart::first_mb_of(bytes) == Some(0),
            }
        } else {
            // 7.4.1.2.3: NAL units of these types precede a picture and never follow it.
            self.has_picture && matches!(kind, 6..=9 | 14..=18)
        };
        let unit = starts.then(|| {
            let unit = self.consumed..nal.code;
            self.restart(nal.code);
            self.nal = Some(Nal { examined: true, ..nal });
            unit
        });
        if is_slice {
            self.has_picture = true;
            if self.slice.is_none() {
                self.slice = slice;
            }
        }
        unit
    }

    /// Returns whether enough of the NAL unit has arrived to decide whether it starts an access
    /// unit.
    fn can_examine(&self, nal: Nal, end: Option<usize>) -> bool {
        let available = self.buffer.len() - nal.start;
        let Some(header) = self.buffer.get(nal.start) else {
            return false;
        };
        match header & 31 {
            nal_type::SLICE | nal_type::PARTITION_A | nal_type::IDR => {
                end.is_some() || available >= slice::PREFIX_BYTES
            }
            _ => true,
        }
    }

    /// Ends the current NAL unit at `at`, and stores it if it is a parameter set.
    fn end_nal(&mut self, at: usize) {
        let Some(nal) = self.nal else { return };
        let end = annexb::trim_zeros(&self.buffer, nal.start.min(at), at);
        let bytes = &self.buffer[nal.start.min(end)..end];
        // The parser reads the same bytes, and reports damaged parameter sets.
        let _ = match bytes.first().map(|header| header & 31) {
            Some(nal_type::SPS) => self.params.put_sps(bytes),
            Some(nal_type::PPS) => self.params.put_pps(bytes),
            _ => Ok(()),
        };
    }

    /// Starts a new access unit at `at`.
    fn restart(&mut self, at: usize) {
        self.consumed = at;
        self.scanned = self.scanned.max(at);
        self.nal = None;
        self.slice = None;
        self.has_picture = false;
        self.last_start = self.offset + at as u64;
    }

    /// Checks that a start code follows a cut. If none follows, the cut was early, and the data up
    /// to the next start code is discarded. Returns false until enough data has arrived.
    fn confirm_cut(&mut self) -> bool {
        let Some(cut) = self.cut.as_mut().filter(|cut| !cut.confirmed) else {
            return true;
        };
        let rest = &self.buffer[self.consumed..];
        match rest.iter().position(|&b| b != 0) {
            None => {
                self.consumed = self.buffer.len().saturating_sub(3).max(self.consumed);
                false
            }
            Some(zeros) => {
                cut.confirmed = true;
                if !(rest[zeros] == 1 && zeros >= 2) {
                    self.wrong_cuts += 1;
                }
                true
            }
        }
    }

    /// Discards data that exceeds the maximum access unit size, or that contains no start code.
    fn discard_excess(&mut self) -> Option<AccessUnit<'_>> {
        let pending = self.buffer.len() - self.consumed;
        if pending > MAX_ACCESS_UNIT {
            self.discarded += pending as u64;
            self.restart(self.buffer.len());
        } else if self.nal.is_none() && !self.has_picture && pending > 4 {
            // No start code so far. Keep the last bytes, which may be part of one.
            let keep_from = self.buffer.len() - 3;
            self.discarded += (keep_from - self.consumed) as u64;
            self.consumed = keep_from;
        }
        None
    }

    /// Borrows the access unit at `unit` from the buffer and adds its arrival time.
    fn borrow_unit(&mut self, unit: std::ops::Range<usize>) -> AccessUnit<'_> {
        let position = self.offset + unit.start as u64;
        while self.arrivals.get(1).is_some_and(|&(start, _)| start <= position) {
            self.arrivals.pop_front();
        }
        let arrived = self.arrivals.front().map_or(Duration::ZERO, |&(_, at)| at);
        AccessUnit { data: &self.buffer[unit], arrived }
    }

    /// Removes consumed bytes from the buffer.
    fn compact(&mut self) {
        let consumed = self.consumed;
        if consumed == 0 {
            return;
        }
        self.buffer.drain(..consumed);
        self.offset += consumed as u64;
        self.scanned = self.scanned.saturating_sub(consumed);
        if let Some(nal) = &mut self.nal {
            // The start code may already have been consumed.
            nal.code = nal.code.saturating_sub(consumed);
            nal.start -= consumed;
        }
        self.consumed = 0;
        let position = self.offset;
        while self.arrivals.get(1).is_some_and(|&(start, _)| start <= position) {
            self.arrivals.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLIP: &[u8] = include_bytes!("../camera/test_card.h264");

    /// Splits the test card by NAL unit type alone, which is sufficient for pictures of one slice.
    fn clip() -> Vec<&'static [u8]> {
        let mut starts = vec![];
        let mut after_picture = true;
        for nal in annexb::nal_units(CLIP) {
            let code = if CLIP[..nal.start - 3].last() == Some(&0) { 4 } else { 3 };
            if after_picture {
                starts.push(nal.start - code);
            }
            after_picture = matches!(CLIP[nal.start] & 31, 1 | 5);
        }
        starts.push(CLIP.len());
        starts.windows(2).map(|w| &CLIP[w[0]..w[1]]).collect()
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn drain(splitter: &mut Splitter) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| splitter.next_unit().map(|unit| unit.data.to_vec())).collect()
    }

    #[test]
    fn without_a_pause_a_frame_ends_when_the_next_one_starts() {
        let clip = clip();
        assert_eq!(clip.len(), 300);
        let mut splitter = Splitter::default();
        splitter.push(clip[0], at(0));
        assert_eq!(splitter.next_unit(), None);
        splitter.push(clip[1], at(33));
        let unit = splitter.next_unit().unwrap();
        assert_eq!((unit.data, unit.arrived), (clip[0], at(0)));
        assert_eq!(splitter.next_unit(), None);
        assert_eq!(splitter.finish().unwrap().data, clip[1]);
    }

    #[test]
    fn a_pause_ends_a_frame() {
        let mut splitter = Splitter::default();
        for (n, unit) in clip().into_iter().enumerate() {
            splitter.push(unit, at(33 * n as u64));
            assert_eq!(splitter.next_unit(), None);
            let got = splitter.pause().unwrap();
            assert_eq!((got.data, got.arrived), (unit, at(33 * n as u64)));
            assert_eq!(splitter.pause(), None);
        }
        assert_eq!(splitter.wrong_cuts(), 0);
    }

    #[test]
    fn an_early_cut_is_counted_and_loses_only_that_frame() {
        let clip = clip();
        let mut splitter = Splitter::default();
        let half = clip[0].len() / 2;
        let half = half + CLIP[half..].iter().position(|&b| b > 3).unwrap() + 1;
        splitter.push(&clip[0][..half], at(0));
        assert_eq!(splitter.next_unit(), None);
        assert_eq!(splitter.pause().unwrap().data, &clip[0][..half]);
        splitter.push(&clip[0][half..], at(9));
        assert_eq!(splitter.next_unit(), None);
        splitter.push(clip[1], at(33));
        assert_eq!(splitter.next_unit(), None);
        assert_eq!(splitter.pause().unwrap().data, clip[1]);
        assert_eq!(splitter.wrong_cuts(), 1);
    }

    #[test]
    fn a_pause_after_parameter_sets_returns_nothing() {
        let clip = clip();
        let mut splitter = Splitter::default();
        let slice = annexb::nal_units(clip[0]).last().unwrap().start;
        splitter.push(&clip[0][..slice], at(0));
        assert_eq!(splitter.next_unit(), None);
        assert_eq!(splitter.pause(), None);
        splitter.push(&clip[0][slice..], at(2));
        assert_eq!(splitter.next_unit(), None);
        let unit = splitter.pause().unwrap();
        assert_eq!((unit.data, unit.arrived), (clip[0], at(0)));
    }

    #[test]
    fn endless_garbage_uses_bounded_memory() {
        let mut splitter = Splitter::default();
        for byte in [0u8, 7] {
            for _ in 0..2_000 {
                splitter.push(&[byte; 65_536], at(0));
                assert_eq!(splitter.next_unit(), None);
                assert_eq!(splitter.pause(), None);
            }
        }
        // A NAL unit without an end.
        splitter.push(&[0, 0, 1, 0x65], at(0));
        for _ in 0..2_000 {
            splitter.push(&[9; 65_536], at(0));
            assert_eq!(splitter.next_unit(), None);
        }
        assert!(splitter.discarded() > 100_000_000);
        assert!(splitter.buffer.capacity() < 3 * MAX_ACCESS_UNIT, "{}", splitter.buffer.capacity());
    }

    /// Four access units from x264 (64x48, a still grey picture). Their slices are so short that
    /// the trailing zeros are within the prefix that is read for the slice header.
    #[test]
    fn accepts_short_slices_with_trailing_zeros() {
        const STILL: &[u8] = include_bytes!("../../fuzz/seeds/splitter/still-trailing-zeros");
        let mut splitter = Splitter::default();
        splitter.push(&STILL[2..], at(0)); // the first two bytes are options of the fuzz target
        let mut units = drain(&mut splitter);
        while let Some(unit) = splitter.finish() {
            units.push(unit.data.to_vec());
        }
        let slices = |unit: &Vec<u8>| {
            annexb::nal_units(unit).filter(|nal| matches!(unit[nal.start] & 31, 1 | 5)).count()
        };
        assert_eq!(units.len(), 4);
        assert!(units.iter().all(|unit| slices(unit) == 1));
    }

    #[test]
    fn byte_by_byte_writes_use_bounded_memory() {
        let mut splitter = Splitter::default();
        splitter.push(&[0, 0, 1, 0x65], at(0));
        for n in 0..100_000 {
            splitter.push(&[9], at(n));
        }
        assert!(splitter.arrivals.len() <= MAX_ARRIVALS);
    }

    #[test]
    fn with_byte_by_byte_writes_arrival_is_the_time_of_the_first_byte() {
        let clip = clip();
        let mut splitter = Splitter::default();
        let (mut now, mut starts, mut arrived) = (0, vec![], vec![]);
        for unit in &clip[..40] {
            starts.push(at(now));
            for byte in *unit {
                splitter.push(&[*byte], at(now));
                arrived.extend(splitter.next_unit().map(|unit| unit.arrived));
                now += 1;
            }
        }
        assert_eq!(arrived, starts[..39]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// The size of the reads does not change the access units.
        #[test]
        fn reads_of_any_size_return_the_same_access_units(
            sizes in proptest::collection::vec(1usize..9000, 1..400),
        ) {
            let clip = clip();
            let whole: Vec<u8> = clip[..80].concat();
            let mut splitter = Splitter::default();
            let mut units = vec![];
            let mut rest = &whole[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*size).min(rest.len()));
                splitter.push(now, at(0));
                units.extend(drain(&mut splitter));
                rest = later;
            }
            while let Some(unit) = splitter.finish() { units.push(unit.data.to_vec()); }
            prop_assert_eq!(units.len(), 80);
            prop_assert_eq!(units, clip[..80].iter().map(|u| u.to_vec()).collect::<Vec<_>>());
        }

        /// Arbitrary bytes and pauses cause no panic, and no more bytes are returned than received.
        #[test]
        fn arbitrary_bytes_do_not_panic(chunks in proptest::collection::vec(
            (proptest::collection::vec(
                prop_oneof![4 => Just(0u8), 2 => Just(1u8), 1 => Just(0x65u8), 1 => Just(0x41u8),
                            1 => Just(0x67u8), 4 => any::<u8>()], 0..120), any::<bool>()), 0..40)) {
            let mut splitter = Splitter::default();
            let (mut given, mut taken) = (0, 0);
            for (chunk, pause) in chunks {
                splitter.push(&chunk, at(0));
                given += chunk.len();
                while let Some(unit) = splitter.next_unit() { taken += unit.data.len(); }
                while pause && let Some(unit) = splitter.pause() { taken += unit.data.len(); }
            }
            while let Some(unit) = splitter.finish() { taken += unit.data.len(); }
            prop_assert!(taken <= given);
        }
    }
}
