//! A byte stream → access units, as early as can be.
//!
//! Rec. ITU-T H.264, Annex B.2 (decoding a byte stream), 7.4.1.2.3 and 7.4.1.2.4 (where an access
//! unit ends).
//!
//! In a byte stream the end of an access unit shows only when the next one starts: a whole frame
//! of delay. A pipe tells more than its bytes, though: an encoder writes a frame and then nothing
//! until the next. So the reader says [`Splitter::pause`] when the pipe has been quiet for long
//! enough ([`super::PauseRule`] decides how long that is), and the access unit goes out at once.
//! If it turns out that more of it was to come, what comes late is dropped and counted
//! ([`Splitter::wrong_cuts`]).

use super::params::Params;
use super::slice::{self, SliceStart};
use super::{Error, annexb, nal_type};
use std::collections::VecDeque;
use std::time::Duration;

/// An access unit larger than this is none, bytes: level 5.2 allows 4096×2304 at up to 30 MB/s,
/// and no picture of a real camera comes near. Bounds the memory that garbage can take.
pub const MAX_ACCESS_UNIT: usize = 8 * 1024 * 1024;

/// Reads whose times are kept at the most: a program that writes byte by byte would otherwise fill
/// the memory with them.
const MAX_ARRIVALS: usize = 1024;

/// One access unit, cut out of a byte stream.
#[derive(Debug, PartialEq, Eq)]
pub struct AccessUnit<'a> {
    /// Its bytes, in Annex B format.
    pub data: &'a [u8],
    /// When its first byte arrived: the time given to [`Splitter::push`] with it.
    pub arrived: Duration,
}

/// Cuts a byte stream into access units.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Bytes not handed out yet, behind `spent` bytes that were.
    buffer: Vec<u8>,
    spent: usize,
    /// Position in the stream of `buffer[0]`.
    offset: u64,
    /// What [`Splitter::push`] was given: position in the stream, time.
    arrivals: VecDeque<(u64, Duration)>,
    /// Where to look for the next start code.
    scanned: usize,
    /// The NAL unit that is arriving.
    nal: Option<Nal>,
    /// First slice of the access unit that is arriving.
    slice: Option<SliceStart>,
    has_picture: bool,
    /// The last access unit was cut at a pause; this was its first slice.
    cut: Option<Cut>,
    params: Params,
    wrong_cuts: u64,
    discarded: u64,
    /// Position in the stream where the newest access unit was seen to start.
    last_start: u64,
}

/// A NAL unit whose end is not known yet.
#[derive(Debug, Clone, Copy)]
struct Nal {
    /// Position of its start code (the 4-byte form's first zero).
    code: usize,
    /// Position of its header byte.
    start: usize,
    /// Its type and its slice header have been looked at.
    examined: bool,
}

#[derive(Debug)]
struct Cut {
    slice: Option<SliceStart>,
    /// The bytes behind the cut have been seen to begin with a start code.
    confirmed: bool,
}

impl Splitter {
    /// Takes what was read, and when.
    pub fn push(&mut self, data: &[u8], now: Duration) {
        if data.is_empty() {
            return;
        }
        self.compact();
        if self.arrivals.len() == MAX_ARRIVALS {
            // The first is that of the access unit that is arriving; a start that has not been
            // noticed yet lies in the last bytes (`slice::PREFIX`). What is between is never asked for.
            self.arrivals.drain(1..MAX_ARRIVALS / 2);
        }
        self.arrivals.push_back((self.offset + self.buffer.len() as u64, now));
        self.buffer.extend_from_slice(data);
    }

    /// The next access unit whose end is certain.
    pub fn next_unit(&mut self) -> Option<AccessUnit<'_>> {
        if !self.confirm_cut() {
            return None;
        }
        loop {
            if let Some(nal) = self.nal.filter(|nal| !nal.examined) {
                let end = annexb::start_code(&self.buffer, nal.start);
                if !self.can_examine(nal, end) {
                    return self.give_up_on_too_much();
                }
                self.nal = Some(Nal { examined: true, ..nal });
                if let Some(unit) = self.examine(nal, end.unwrap_or(self.buffer.len())) {
                    return Some(self.lend(unit));
                }
            }
            let Some(at) = annexb::start_code(&self.buffer, self.scanned) else {
                // A start code may be half here.
                self.scanned = self.scanned.max(self.buffer.len().saturating_sub(2));
                return self.give_up_on_too_much();
            };
            self.end_nal(at);
            let code = if at > self.spent && self.buffer[at - 1] == 0 { at - 1 } else { at };
            if self.nal.is_none() && !self.has_picture {
                // Garbage in front of the first start code belongs to nobody.
                self.spent = code;
            }
            self.nal = Some(Nal { code, start: at + 3, examined: false });
            self.scanned = at + 3;
        }
    }

    /// The pipe has been quiet: what is here is taken as a whole access unit, if it can be one.
    ///
    /// To be called only after [`Splitter::next_unit`] has returned `None`.
    pub fn pause(&mut self) -> Option<AccessUnit<'_>> {
        if let Some(unit) = self.examine_what_is_here() {
            return Some(self.lend(unit));
        }
        if self.nal.is_some_and(|nal| !nal.examined) {
            return None;
        }
        // A NAL unit does not end in a zero byte (7.4.1): there, more must follow.
        if !self.has_picture || self.buffer.last() == Some(&0) {
            return None;
        }
        let end = self.buffer.len();
        self.end_nal(end);
        self.cut = Some(Cut { slice: self.slice.take(), confirmed: false });
        let unit = self.spent..end;
        self.restart(end);
        Some(self.lend(unit))
    }

    /// The stream has ended: what is left, if it has a picture. To be called until it has nothing.
    pub fn finish(&mut self) -> Option<AccessUnit<'_>> {
        if let Some(unit) = self.examine_what_is_here() {
            return Some(self.lend(unit));
        }
        if !self.has_picture {
            return None;
        }
        let unit = self.spent..self.buffer.len();
        self.restart(unit.end);
        Some(self.lend(unit))
    }

    /// Bytes of an access unit are here that has a picture: a pause could end it.
    pub fn has_picture(&self) -> bool {
        self.has_picture || self.nal.is_some_and(|nal| !nal.examined)
    }

    /// The same for certain: its slice header refers to parameter sets that were sent.
    pub fn has_real_picture(&self) -> bool {
        self.slice.is_some()
    }

    /// Access units that were cut at a pause though more of them was to come.
    pub fn wrong_cuts(&self) -> u64 {
        self.wrong_cuts
    }

    /// Bytes thrown away because they were no H.264.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Position in the stream where the newest access unit was seen to start.
    pub fn last_start(&self) -> u64 {
        self.last_start
    }

    /// Position in the stream where the next [`Splitter::push`] will begin.
    pub fn position(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Examines the NAL unit that is arriving, if its slice header is whole.
    fn examine_what_is_here(&mut self) -> Option<std::ops::Range<usize>> {
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

    /// Looks at the beginning of a NAL unit; the range of the access unit that it ends, if any.
    fn examine(&mut self, nal: Nal, end: usize) -> Option<std::ops::Range<usize>> {
        let bytes = &self.buffer[nal.start..end];
        let kind = bytes.first().map_or(0, |header| header & 31);
        let is_slice = matches!(kind, nal_type::SLICE | nal_type::PARTITION_A | nal_type::IDR);
        let slice = if is_slice { SliceStart::parse(bytes, &self.params).ok() } else { None };

        if let Some(cut) = self.cut.take_if(|_| is_slice) {
            // The rest of a picture that was cut: too late, it is dropped.
            if let (Some(before), Some(now)) = (&cut.slice, &slice)
                && before.same_picture(now)
                && now.first_mb > before.first_mb
            {
                self.wrong_cuts += 1;
                self.cut = Some(cut);
                // Without a NAL unit and a picture, it is left behind at the next start code.
                self.nal = None;
                return None;
            }
        }
        let starts = if is_slice {
            match (&self.slice, &slice) {
                _ if !self.has_picture => false,
                (Some(first), Some(this)) => !first.same_picture(this),
                // No parameter sets (yet): the first macroblock tells.
                _ => SliceStart::first_mb_of(bytes) == Some(0),
            }
        } else {
            // 7.4.1.2.3: these come in front of a picture, never behind it.
            self.has_picture && matches!(kind, 6..=9 | 14..=18)
        };
        let unit = starts.then(|| {
            let unit = self.spent..nal.code;
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

    /// Enough of the NAL unit is here to know whether it starts an access unit.
    fn can_examine(&self, nal: Nal, end: Option<usize>) -> bool {
        let here = self.buffer.len() - nal.start;
        let Some(header) = self.buffer.get(nal.start) else {
            return false;
        };
        match header & 31 {
            nal_type::SLICE | nal_type::PARTITION_A | nal_type::IDR => {
                end.is_some() || here >= slice::PREFIX
            }
            _ => true,
        }
    }

    /// The NAL unit that was arriving ends at `at`: parameter sets are kept.
    fn end_nal(&mut self, at: usize) {
        let Some(nal) = self.nal else { return };
        let end = annexb::trim_zeros(&self.buffer, nal.start.min(at), at);
        let bytes = &self.buffer[nal.start.min(end)..end];
        // A damaged set is reported by the parser, which sees the same bytes.
        let _ = match bytes.first().map(|header| header & 31) {
            Some(nal_type::SPS) => self.params.put_sps(bytes),
            Some(nal_type::PPS) => self.params.put_pps(bytes),
            _ => Ok(()),
        };
    }

    /// A new access unit begins at `at`.
    fn restart(&mut self, at: usize) {
        self.spent = at;
        self.scanned = self.scanned.max(at);
        self.nal = None;
        self.slice = None;
        self.has_picture = false;
        self.last_start = self.offset + at as u64;
    }

    /// Behind a cut there must be a start code; otherwise the cut was wrong, and everything up to
    /// the next start code is dropped. False while that can't be known.
    fn confirm_cut(&mut self) -> bool {
        let Some(cut) = self.cut.as_mut().filter(|cut| !cut.confirmed) else {
            return true;
        };
        let rest = &self.buffer[self.spent..];
        match rest.iter().position(|&b| b != 0) {
            None => {
                self.spent = self.buffer.len().saturating_sub(3).max(self.spent);
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

    /// More than an access unit can have, and no end: it is thrown away.
    fn give_up_on_too_much(&mut self) -> Option<AccessUnit<'_>> {
        let waiting = self.buffer.len() - self.spent;
        if waiting > MAX_ACCESS_UNIT {
            self.discarded += waiting as u64;
            self.restart(self.buffer.len());
        } else if self.nal.is_none() && !self.has_picture && waiting > 4 {
            // No start code at all so far: nothing of it will ever be used.
            let keep = self.buffer.len() - 3;
            self.discarded += (keep - self.spent) as u64;
            self.spent = keep;
        }
        None
    }

    fn lend(&mut self, unit: std::ops::Range<usize>) -> AccessUnit<'_> {
        let position = self.offset + unit.start as u64;
        while self.arrivals.get(1).is_some_and(|&(start, _)| start <= position) {
            self.arrivals.pop_front();
        }
        let arrived = self.arrivals.front().map_or(Duration::ZERO, |&(_, at)| at);
        AccessUnit { data: &self.buffer[unit], arrived }
    }

    /// Moves what is left to the front.
    fn compact(&mut self) {
        let spent = self.spent;
        if spent == 0 {
            return;
        }
        self.buffer.drain(..spent);
        self.offset += spent as u64;
        self.scanned = self.scanned.saturating_sub(spent);
        if let Some(nal) = &mut self.nal {
            // The start code may have been handed out with garbage in front of it.
            nal.code = nal.code.saturating_sub(spent);
            nal.start -= spent;
        }
        self.spent = 0;
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

    /// Access units of the clip, found by its NAL unit types alone: it has one slice a picture.
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
    fn without_a_pause_a_frame_comes_out_with_the_next() {
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
    fn a_pause_in_mid_frame_is_noticed_and_costs_only_that_frame() {
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
    fn a_pause_with_only_a_start_code_or_parameter_sets_ends_nothing() {
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
    fn endless_garbage_takes_no_memory() {
        let mut splitter = Splitter::default();
        for byte in [0u8, 7] {
            for _ in 0..2_000 {
                splitter.push(&[byte; 65_536], at(0));
                assert_eq!(splitter.next_unit(), None);
                assert_eq!(splitter.pause(), None);
            }
        }
        // A NAL unit that never ends, too.
        splitter.push(&[0, 0, 1, 0x65], at(0));
        for _ in 0..2_000 {
            splitter.push(&[9; 65_536], at(0));
            assert_eq!(splitter.next_unit(), None);
        }
        assert!(splitter.discarded() > 100_000_000);
        assert!(splitter.buffer.capacity() < 3 * MAX_ACCESS_UNIT, "{}", splitter.buffer.capacity());
    }

    /// Four access units of x264 (64x48, a grey picture that stands still): slices so short that
    /// the zeros behind them came into what was read of their headers.
    #[test]
    fn short_slices_with_zeros_behind_them() {
        const STILL: &[u8] = include_bytes!("../../fuzz/seeds/splitter/still-trailing-zeros");
        let mut splitter = Splitter::default();
        splitter.push(&STILL[2..], at(0)); // behind the fuzz target's own two bytes
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
    fn byte_by_byte_takes_no_memory() {
        let mut splitter = Splitter::default();
        splitter.push(&[0, 0, 1, 0x65], at(0));
        for n in 0..100_000 {
            splitter.push(&[9], at(n));
        }
        assert!(splitter.arrivals.len() <= MAX_ARRIVALS);
    }

    #[test]
    fn byte_by_byte_each_access_unit_has_the_time_of_its_first_byte() {
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

        /// However the bytes are cut into reads, the same access units come out.
        #[test]
        fn reads_of_any_size(sizes in proptest::collection::vec(1usize..9000, 1..400)) {
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

        /// Any bytes, with pauses anywhere: no panic, nothing handed out twice.
        #[test]
        fn any_bytes(chunks in proptest::collection::vec(
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
