//! Measures the processing time of a frame, step by step: `./ci/bench frame`.
//!
//! The inputs are one second of the test card (30 access units: a key frame of 23 kB and 29 small
//! frames), and one access unit with the size of a 1080p key frame at 20 Mbit/s.

use berrymse::camera::test_card;
use berrymse::fmp4::{Sample, fragment_len, write_fragment};
use berrymse::h264::{Parser, Splitter};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use std::time::Duration;

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

/// Returns the access units to process: one second of the test card, or one large access unit.
fn units(large: bool) -> Vec<Vec<u8>> {
    let units = test_card::access_units();
    let mut units: Vec<Vec<u8>> =
        units[..30].iter().map(|range| test_card::CLIP[range.clone()].to_vec()).collect();
    if large {
        // The slice header is real. Of the slice data, only the length is realistic.
        units.truncate(1);
        units[0].resize(400_000, 0x5a);
    }
    units
}

const SIZES: [&str; 2] = ["a second of the test card", "a key frame of 400 kB"];

fn bytes(units: &[Vec<u8>]) -> BytesCount {
    BytesCount::new(units.iter().map(Vec::len).sum::<usize>())
}

#[divan::bench(args = SIZES)]
fn byte_stream_to_access_units(bencher: Bencher<'_, '_>, size: &str) {
    let units = units(size == SIZES[1]);
    bencher.counter(bytes(&units)).with_inputs(Splitter::default).bench_local_values(
        |mut splitter| {
            for unit in &units {
                for read in unit.chunks(65_536) {
                    splitter.push(read, Duration::ZERO);
                    while let Some(unit) = splitter.next_unit() {
                        black_box(unit.data.len());
                    }
                }
                black_box(splitter.pause().map(|unit| unit.data.len()));
            }
            splitter
        },
    );
}

#[divan::bench(args = SIZES)]
fn access_units_to_pictures(bencher: Bencher<'_, '_>, size: &str) {
    let units = units(size == SIZES[1]);
    let mut parser = Parser::default();
    bencher.counter(bytes(&units)).bench_local(|| {
        for unit in &units {
            black_box(parser.access_unit(unit).unwrap().key);
        }
    });
}

#[divan::bench(args = SIZES)]
fn pictures_to_fragments(bencher: Bencher<'_, '_>, size: &str) {
    let units = units(size == SIZES[1]);
    let mut parser = Parser::default();
    let sample = Sample { sequence: 1, decode_time: 0, duration: 3000, key: true };
    let nals: Vec<_> =
        units.iter().map(|unit| parser.access_unit(unit).unwrap().nals.to_vec()).collect();
    bencher.counter(bytes(&units)).bench_local(|| {
        for (unit, nals) in units.iter().zip(&nals) {
            let mut out = Vec::with_capacity(fragment_len(nals));
            write_fragment(&mut out, &sample, unit, nals);
            black_box(out);
        }
    });
}
