//! Measures the delay caused by a pipe, which does not mark the end of a frame: `./ci/bench pipe`.
//!
//! A program (a second instance of this one) writes access units to a pipe at 30 frames per second,
//! like the command of a camera with `source = { command = … }`, and records when it has written
//! each of them. The delay is the time from then until the fragment is ready for viewers. In the
//! first second, the reader only observes how the program writes, so an access unit ends when the
//! next one starts. After that, a pause ends each access unit.

#![allow(clippy::print_stdout)] // prints a table

use berrymse::camera::{Cameras, test_card};
use berrymse::config::{self, Source};
use berrymse::stream::Event;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant, SystemTime};

/// Number of frames written, at 30 frames per second. Each of the first [`OBSERVED`] frames ends
/// when the next one starts.
const FRAMES: usize = 330;
const OBSERVED: usize = 28;

/// How programs write: name, bytes per frame (0 for the frames of the test card) and bytes per
/// write.
const WRITERS: [(&str, usize, usize); 4] = [
    ("test card, one write per frame", 0, usize::MAX),
    ("test card, 4 kB writes", 0, 4096),
    ("100 kB per frame, one write", 100_000, usize::MAX),
    ("100 kB per frame, 32 kB writes (like ffmpeg)", 100_000, 32_768),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, writer, times] = &arguments[..]
        && mode == "--write"
    {
        return write(&WRITERS[writer.parse::<usize>().unwrap()], times);
    }
    println!("time from writing the last byte to the fragment, in ms: median / 99 % / maximum");
    println!("{:42} {:>24} {:>24} {:>6}", "", "by the next frame", "by a pause", "wrong");
    for (n, (name, ..)) in WRITERS.iter().enumerate() {
        let (delays, wrong) = measure(n);
        let (observed, later) = delays.split_at(OBSERVED);
        // In the second after these frames, the rule may still be observing.
        let later = &later[30..];
        println!("{name:42} {:>24} {:>24} {wrong:>6}", summary(observed), summary(later));
    }
}

fn summary(delays: &[Duration]) -> String {
    let mut ms: Vec<f64> = delays.iter().map(|d| d.as_secs_f64() * 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    let at = |part: f64| ms[((ms.len() - 1) as f64 * part) as usize];
    format!("{:.2} / {:.2} / {:.2}", at(0.5), at(0.99), at(1.0))
}

/// Returns the delay of each frame, and the number of early cuts.
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
        // The end of the program ends the last frame, not a pause.
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
    // A File is unbuffered, unlike Stdout.
    let mut out = std::fs::File::from(rustix::io::dup(std::io::stdout()).unwrap());
    let mut times = std::fs::File::create(times).unwrap();
    let units = test_card::access_units();
    let start = Instant::now();
    for n in 0..FRAMES {
        let due = Duration::from_secs(1) * n as u32 / 30;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let mut unit = test_card::CLIP[units[n % units.len()].clone()].to_vec();
        // The slice header is real. Of the slice data, only the length is realistic.
        unit.resize(unit.len().max(*size), 0x5a);
        for part in unit.chunks(*at_once) {
            out.write_all(part).unwrap();
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        writeln!(times, "{}", now.as_nanos()).unwrap();
    }
    // Keep the pipe open until the reader has finished.
    std::thread::sleep(Duration::from_secs(2));
}
