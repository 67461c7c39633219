//! A byte stream from a camera (Rec. ITU-T H.264, Annex B), read in arbitrary pieces with pauses.
//!
//! Properties:
//! - No input causes a panic. The access units are parts of the stream, in order and without
//!   overlap. Each has the arrival time of its first byte.
//! - The total number of returned and discarded bytes does not exceed the size of the input.
//! - Without pauses, the sizes of the reads have no effect, no byte between the first and the last
//!   access unit is lost, and no cut is early.
//! - Zero bytes between NAL units are ignored: without them, and with only short start codes, the
//!   NAL units form the same access units.
//! - Memory use is bounded, even if the stream is endless.
//! - If the parser accepts an access unit, its picture consists of whole NAL units of that access
//!   unit. Its fragment has the predicted length, requires one allocation, and contains the same
//!   NAL units. The boxes of the init segment fill it exactly.
//!
//! Input: the number of reads, one byte for each read (see [`Read`]), and the stream. The reads are
//! repeated until the end of the stream.

#![no_main]

use berrymse::fmp4::{self, FRAGMENT_OVERHEAD, Sample, SampleEntry};
use berrymse::h264::splitter::{AccessUnit, MAX_ACCESS_UNIT};
use berrymse::h264::{ParameterSets, Parser, Splitter, annexb, nal_type};
use libfuzzer_sys::fuzz_target;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// One in this number of inputs is also repeated to test that memory use is bounded. This takes
/// longer than a thousand ordinary runs.
const ENDLESS_EVERY: u64 = 10_000;

fuzz_target!(|data: &[u8]| {
    let Some((reads, rest)) = data.split_first() else { return };
    let Some((reads, stream)) = rest.split_at_checked(usize::from(*reads)) else { return };
    if hash(stream).is_multiple_of(ENDLESS_EVERY) {
        endless(stream);
    }
    let reads: Vec<Read> = reads.iter().copied().map(Read::new).collect();
    let unpaused: Vec<Read> = reads.iter().map(|read| Read { pause: false, ..*read }).collect();

    let whole = run(stream, &[]);
    let pieces = run(stream, &unpaused);
    let bytes = |units: &[Unit]| units.iter().map(|unit| unit.data.clone()).collect::<Vec<_>>();
    assert_eq!(bytes(&whole), bytes(&pieces), "the sizes of the reads change the access units");
    let joined = bytes(&whole).concat();
    assert!(
        joined.is_empty() || stream.windows(joined.len()).any(|part| part == joined),
        "bytes between access units are lost"
    );
    parse(&whole);

    // A delimiter ends the last access unit, because incomplete access units cannot be compared.
    let mut plain = vec![];
    for nal in annexb::nal_units(stream) {
        plain.extend([0, 0, 1]);
        plain.extend(&stream[nal]);
    }
    let ended = |stream: &[u8]| run(&[stream, &[0, 0, 1, nal_type::AUD]].concat(), &[]);
    assert_eq!(nals(&ended(&plain)), nals(&ended(stream)), "zeros change the access units");

    if reads.iter().any(|read| read.pause) {
        parse(&run(stream, &reads));
    }
});

/// Returns the NAL units of each access unit.
fn nals(units: &[Unit]) -> Vec<Vec<&[u8]>> {
    let nals = |data| annexb::nal_units(data).map(|nal| &data[nal]).collect();
    units.iter().map(|unit| nals(&unit.data[..])).collect()
}

/// One read from the pipe.
#[derive(Clone, Copy)]
struct Read {
    len: usize,
    /// Whether a pause follows.
    pause: bool,
}

impl Read {
    /// Bit 7 is `pause`. The other bits are the length: up to 64 in steps of one byte, and above
    /// that in steps of 64 bytes.
    fn new(byte: u8) -> Read {
        let len = usize::from(byte & 0x7f) + 1;
        Read { len: if len <= 64 { len } else { (len - 63) * 64 }, pause: byte & 0x80 != 0 }
    }
}

/// A copy of an access unit.
struct Unit {
    data: Vec<u8>,
    arrived: Duration,
}

/// Splits `stream`, which is read at once if `reads` is empty. The time of each read is the
/// position of its first byte, so that arrival times can be checked.
fn run(stream: &[u8], reads: &[Read]) -> Vec<Unit> {
    let before = allocated();
    let mut splitter = Splitter::default();
    let mut units = vec![];
    let mut times = vec![];
    let (mut given, mut returned) = (0, 0);
    let mut take = |unit: AccessUnit<'_>| {
        assert!(!unit.data.is_empty(), "empty access unit");
        returned += unit.data.len();
        units.push(Unit { data: unit.data.to_vec(), arrived: unit.arrived });
        returned + units.capacity() * size_of::<Unit>()
    };
    let mut own = 0; // memory of the returned access units
    let everything = [Read { len: stream.len(), pause: false }];
    let reads = if reads.is_empty() { &everything } else { reads };
    for read in reads.iter().cycle() {
        if given == stream.len() {
            break;
        }
        let end = stream.len().min(given + read.len);
        splitter.push(&stream[given..end], time(given));
        times.push(given..end);
        given = end;
        assert_eq!(splitter.position(), given as u64);
        while let Some(unit) = splitter.next_unit() {
            own = take(unit);
        }
        while read.pause
            && let Some(unit) = splitter.pause()
        {
            own = take(unit);
        }
        assert!(splitter.last_start() <= splitter.position());
        let kept =
            allocated() - before - (own + times.capacity() * size_of::<Range<usize>>()) as isize;
        // The arrival time of a read takes 24 bytes, and buffers grow by doubling.
        assert!(
            kept < (256 * 1024 + 64 * given) as isize,
            "{kept} bytes allocated after {given} bytes"
        );
    }
    while let Some(unit) = splitter.finish() {
        take(unit);
    }
    assert!(returned as u64 + splitter.discarded() <= given as u64, "more bytes than the input");
    assert!(reads.iter().any(|read| read.pause) || splitter.wrong_cuts() == 0);
    in_order(stream, &units, &times);
    units
}

fn time(position: usize) -> Duration {
    Duration::from_micros(position as u64)
}

/// Checks that the access units are parts of the stream in this order, and that each of them begins
/// in the read with its arrival time.
fn in_order(stream: &[u8], units: &[Unit], times: &[Range<usize>]) {
    let mut end = 0;
    for (n, unit) in units.iter().enumerate() {
        let Ok(read) = times.binary_search_by_key(&unit.arrived, |read| time(read.start)) else {
            panic!("unit {n}: no read at {:?}", unit.arrived)
        };
        let Range { start: from, end: to } = times[read];
        let start = (from.max(end)..to).find(|&at| stream[at..].starts_with(&unit.data));
        let Some(start) = start else {
            panic!("unit {n} does not begin in bytes {}..{to} of the stream", from.max(end))
        };
        end = start + unit.data.len();
    }
}

/// Returns the FNV-1a hash, which depends only on the input, so that failures can be reproduced.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Repeats the stream in large reads, until the limit would be exceeded if memory were not
/// released.
fn endless(stream: &[u8]) {
    if stream.is_empty() {
        return;
    }
    let read = stream.repeat((64 * 1024_usize).div_ceil(stream.len()));
    let nals = annexb::nal_units(&read).count();
    let before = allocated();
    let mut splitter = Splitter::default();
    let (mut given, mut seen) = (0, 0);
    // The number of NAL units is limited to limit the time.
    while given < 4 * MAX_ACCESS_UNIT && seen < 200_000 {
        splitter.push(&read, Duration::ZERO);
        given += read.len();
        seen += nals;
        while splitter.next_unit().is_some() {}
        let kept = allocated() - before;
        // The limit covers the buffer, which grows by doubling, and the maximum number of parameter
        // sets.
        assert!(
            kept < (3 * MAX_ACCESS_UNIT + MAX_ACCESS_UNIT / 2) as isize,
            "{kept} bytes allocated after {given} bytes"
        );
    }
}

/// Parses the access units, and checks the pictures, fragments and init segments.
fn parse(units: &[Unit]) {
    let mut parser = Parser::default();
    let mut before: Option<Arc<ParameterSets>> = None;
    let mut time = fmp4::Timeline::new(None);
    for (n, unit) in units.iter().enumerate() {
        let data = &unit.data[..];
        let picture = match parser.access_unit(data) {
            Ok(picture) => picture,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        let nals: Vec<&[u8]> = picture.nals.iter().map(|nal| &data[nal.clone()]).collect();
        let mut end = 0;
        let (mut slices, mut key) = (0, 0);
        for (range, nal) in picture.nals.iter().zip(&nals) {
            assert!(range.start >= end + 3 && data[..range.start].ends_with(&[0, 0, 1]));
            end = range.end;
            assert!(!nal.is_empty() && !nal.windows(3).any(|code| code == [0, 0, 1]));
            assert_ne!(nal.last(), Some(&0), "the NAL unit ends with a zero byte");
            match nal[0] & 31 {
                nal_type::IDR => (slices, key) = (slices + 1, key + 1),
                nal_type::SLICE | nal_type::PARTITION_A => slices += 1,
                nal_type::SEI => {}
                other => panic!("NAL unit of type {other} in a sample"),
            }
        }
        assert!(slices > 0, "picture without a slice");
        assert_eq!(key, if picture.key { slices } else { 0 }, "picture with IDR and other slices");

        let step = time.step(unit.arrived);
        let sample = Sample {
            sequence: n as u32 + 1,
            decode_time: step.decode_time,
            duration: step.duration,
            key: picture.key,
        };
        let len = fmp4::fragment_len(picture.nals);
        let mut out = Vec::with_capacity(len);
        let room = out.capacity();
        fmp4::write_fragment(&mut out, &sample, data, picture.nals);
        assert_eq!((out.len(), out.capacity()), (len, room), "predicted length, one allocation");
        fragment(&out, &sample, &nals);

        let sets = picture.parameters;
        if before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, sets)) {
            assert!(
                before.is_none_or(|before| before != *sets),
                "new parameter sets without a change"
            );
            for entry in [SampleEntry::Avc1, SampleEntry::Avc3] {
                let init = fmp4::init_segment(sets, entry);
                boxes(&init, b"ftyp");
            }
            assert!(sets.width > 0 && sets.height > 0 && sets.codec.starts_with("avc1."));
            assert!(!sets.pps.is_empty());
            before = Some(sets.clone());
        }
        let with_sets: Vec<&[u8]> = std::iter::once(&sets.sps)
            .chain(&sets.pps)
            .map(Vec::as_slice)
            .chain(nals.iter().copied())
            .collect();
        fragment(&fmp4::with_parameter_sets(&out, sets), &sample, &with_sets);
    }
}

/// Reads a 32-bit big-endian number.
fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Checks that a fragment contains `sample` and `nals`.
fn fragment(bytes: &[u8], sample: &Sample, nals: &[&[u8]]) {
    boxes(bytes, b"moof");
    let payload = bytes.len() - FRAGMENT_OVERHEAD;
    assert_eq!(
        (word(bytes, 20), word(bytes, 48)),
        (sample.sequence as usize, sample.duration as usize)
    );
    assert_eq!(u64::from_be_bytes(bytes[64..72].try_into().unwrap()), sample.decode_time);
    assert_eq!((&bytes[76..80], bytes[92]), (&b"trun"[..], if sample.key { 2 } else { 1 }));
    assert_eq!((word(bytes, 96), word(bytes, 100)), (payload, payload + 8));
    let mut rest = &bytes[FRAGMENT_OVERHEAD..];
    for nal in nals {
        let (len, after) = rest.split_at(4);
        assert_eq!(word(len, 0), nal.len());
        let (got, after) = after.split_at(nal.len());
        assert_eq!(got, *nal);
        rest = after;
    }
    assert!(rest.is_empty());
}

/// Checks recursively that boxes fill `bytes` exactly, and that the first one has the type `first`.
fn boxes(mut bytes: &[u8], first: &[u8; 4]) {
    assert_eq!(&bytes[4..8], first);
    while !bytes.is_empty() {
        let (one, rest) = bytes.split_at(word(bytes, 0));
        bytes = rest;
        let (head, first) = match &one[4..8] {
            b"moov" => (8, b"mvhd"),
            b"trak" => (8, b"tkhd"),
            b"mdia" => (8, b"mdhd"),
            b"minf" => (8, b"vmhd"),
            b"dinf" => (8, b"dref"),
            b"stbl" => (8, b"stsd"),
            b"mvex" => (8, b"trex"),
            b"moof" => (8, b"mfhd"),
            b"traf" => (8, b"tfhd"),
            b"stsd" => (16, if one[20..24] == *b"avc1" { b"avc1" } else { b"avc3" }),
            b"avc1" | b"avc3" => (86, b"avcC"),
            _ => continue,
        };
        boxes(&one[head..], first);
    }
}

/// An allocator that counts the allocated bytes, to measure the memory use of the splitter.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
}

fn allocated() -> isize {
    ALLOCATED.get()
}

fn count(change: isize) {
    // Fails only while a thread ends.
    let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + change));
}

// SAFETY: all calls are forwarded to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
