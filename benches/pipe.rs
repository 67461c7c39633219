//! What it costs that a pipe does not say where a frame ends: `./ci/bench pipe`.
//!
//! A program (this one, started once more) writes access units to a pipe at 30 frames a second, as
//! a camera of `source = { command = … }`, and notes when each was written whole. What is measured
//! is the time from then until its fragment is ready for viewers. In the first second the reader
//! only watches, so an access unit comes out when the next one starts; after that, a pause ends it.

#![allow(clippy::print_stdout)] // a table is what this is for

use berrymse::camera::{Cameras, test_card};
use berrymse::config::{self, Source};
use berrymse::stream::Event;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant, SystemTime};

/// Frames that are written, at 30 a second; the first [`WATCHED`] of them end with the next.
const FRAMES: usize = 330;
const WATCHED: usize = 28;

/// How programs write: name, bytes of a frame (0: the test card's own), bytes a write.
const WRITERS: [(&str, usize, usize); 4] = [
    ("test card, one write a frame", 0, usize::MAX),
    ("test card, 4 kB writes", 0, 4096),
    ("100 kB a frame, one write", 100_000, usize::MAX),
    ("100 kB a frame, 32 kB writes (as ffmpeg)", 100_000, 32_768),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, writer, times] = &arguments[..]
        && mode == "--write"
    {
        return write(&WRITERS[writer.parse::<usize>().unwrap()], times);
    }
    println!("from the last byte written to the fragment ready, ms: median / 99 % / longest");
    println!("{:42} {:>24} {:>24} {:>6}", "", "with the next frame", "after a pause", "wrong");
    for (n, (name, ..)) in WRITERS.iter().enumerate() {
        let (delays, wrong) = measure(n);
        let (watched, later) = delays.split_at(WATCHED);
        // The second in between: the rule may still be watching.
        let later = &later[30..];
        println!("{name:42} {:>24} {:>24} {wrong:>6}", summary(watched), summary(later));
    }
}

fn summary(delays: &[Duration]) -> String {
    let mut ms: Vec<f64> = delays.iter().map(|d| d.as_secs_f64() * 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    let at = |part: f64| ms[((ms.len() - 1) as f64 * part) as usize];
    format!("{:.2} / {:.2} / {:.2}", at(0.5), at(0.99), at(1.0))
}

/// The delay of each frame, and how many were cut too early.
fn measure(writer: usize) -> (Vec<Duration>, u64) {
    let times = std::env::temp_dir().join(format!("berrymse-bench-{}", std::process::id()));
    let program = std::env::current_exe().unwrap().display().to_string();
    let command = vec![program, "--write".into(), writer.to_string(), times.display().to_string()];
    let camera = config::Camera { source: Some(Source::Command(command)), ..Default::default() };
    let cameras = Cameras::start(&[camera]).unwrap();
    let mut viewer = cameras.all[0].stream.watch();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut ready = vec![];
    runtime.block_on(async {
        // The last one ends with the program, not with a pause.
        while ready.len() < FRAMES - 1 {
            let published: Vec<Instant> = match viewer.next().await.unwrap() {
                Event::Start(_, group) => group.iter().map(|f| f.published).collect(),
                Event::Frame(fragment) => vec![fragment.published],
                Event::Dropped(_) => vec![],
            };
            ready.extend(published.iter().map(|at| SystemTime::now() - at.elapsed()));
        }
    });
    let wrong = cameras.all[0].status().early_cuts;
    drop(cameras);
    let mut text = String::new();
    std::fs::File::open(&times).unwrap().read_to_string(&mut text).unwrap();
    let _ = std::fs::remove_file(&times);
    let written = text.lines().map(|line| Duration::from_nanos(line.parse().unwrap()));
    let delays = ready.iter().zip(written).map(|(ready, written)| {
        ready.duration_since(SystemTime::UNIX_EPOCH + written).unwrap_or_default()
    });
    (delays.collect(), wrong)
}

fn write((_, size, at_once): &(&str, usize, usize), times: &str) {
    // Hands each write on by itself: no buffer in between.
    let mut out = std::fs::File::from(rustix::io::dup(std::io::stdout()).unwrap());
    let mut times = std::fs::File::create(times).unwrap();
    let units = test_card::access_units();
    let start = Instant::now();
    for n in 0..FRAMES {
        let due = Duration::from_secs(1) * n as u32 / 30;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let mut unit = test_card::CLIP[units[n % units.len()].clone()].to_vec();
        // A real slice header, and slice data that only its length is true of.
        unit.resize(unit.len().max(*size), 0x5a);
        for part in unit.chunks(*at_once) {
            out.write_all(part).unwrap();
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        writeln!(times, "{}", now.as_nanos()).unwrap();
    }
    // Wait: the reader shall not see an end.
    std::thread::sleep(Duration::from_secs(2));
}
