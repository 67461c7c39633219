//! How a camera's thread waits for its driver: `./ci/bench wake`.
//!
//! A device becomes readable 30 times a second (here: an eventfd, as no camera is needed for that).
//! Either a thread of its own waits in poll(2), or a task of the runtime by `AsyncFd`. Measured: how
//! long after the event it runs, and what all threads but the one that makes the events spend.

#![allow(clippy::print_stdout)] // tables are what this is for

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// Events in a run: 5 s.
const EVENTS: usize = 150;

const PERIOD: Duration = Duration::from_micros(33_333);

/// Alternating runs.
const ROUNDS: usize = 5;

/// What a run has shown.
struct Run {
    delays: Vec<Duration>,
    cpu: Duration,
}

fn now(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Takes the event away; its value is when it was made, in ns of the monotonic clock.
fn delay(event: &OwnedFd) -> Option<Duration> {
    let mut made = [0; 8];
    rustix::io::read(event, &mut made).ok()?;
    let made = Duration::from_nanos(u64::from_ne_bytes(made));
    Some(now(ClockId::Monotonic).saturating_sub(made))
}

/// Makes events, and calls `wait` in the thread or on the runtime that is measured.
fn run(wait: impl FnOnce(Arc<OwnedFd>) -> Vec<Duration> + Send + 'static) -> Run {
    let event = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let waiting = {
        let event = event.clone();
        std::thread::spawn(move || wait(event))
    };
    std::thread::sleep(Duration::from_millis(200)); // it waits by now
    let (cpu, own) = (now(ClockId::ProcessCPUTime), now(ClockId::ThreadCPUTime));
    let start = Instant::now();
    for n in 0..EVENTS {
        let due = start + PERIOD * (n as u32 + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let made = now(ClockId::Monotonic).as_nanos() as u64;
        rustix::io::write(&event, &made.to_ne_bytes()).unwrap();
    }
    let delays = waiting.join().unwrap();
    let own = now(ClockId::ThreadCPUTime) - own;
    Run { delays, cpu: (now(ClockId::ProcessCPUTime) - cpu).saturating_sub(own) }
}

fn by_thread() -> Run {
    run(|event| {
        let mut delays = vec![];
        while delays.len() < EVENTS {
            poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
            delays.extend(delay(&event));
        }
        delays
    })
}

fn by_task() -> Run {
    run(|event| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let task = runtime.spawn(async move {
            // SAFETY: the Arc keeps the descriptor open for as long as it is registered.
            #[allow(unsafe_code)]
            let event = unsafe { AsyncFd::register(event) }.unwrap();
            let mut delays = vec![];
            while delays.len() < EVENTS {
                let mut ready = event.readable().await.unwrap();
                delays.extend(delay(event.get_ref()));
                ready.clear_ready();
            }
            delays
        });
        runtime.block_on(task).unwrap()
    })
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort();
    values[values.len() / 2]
}

fn main() {
    let mut runs: [Vec<Run>; 2] = Default::default();
    for _ in 0..ROUNDS {
        runs[0].push(by_thread());
        runs[1].push(by_task());
    }
    println!("{EVENTS} events, 30 a second; medians of {ROUNDS} alternating runs\n");
    println!("{:<28} {:>12} {:>12} {:>18}", "", "median", "99 %", "CPU an event");
    for (name, runs) in ["a thread in poll", "a task with AsyncFd"].iter().zip(runs) {
        let at = |part: f64| {
            let each = runs.iter().map(|run| {
                let mut delays = run.delays.clone();
                delays.sort();
                delays[(delays.len() as f64 * part) as usize]
            });
            median(each.collect())
        };
        let cpu = median(runs.iter().map(|run| run.cpu).collect()) / EVENTS as u32;
        println!("{name:<28} {:>12?} {:>12?} {cpu:>18?}", at(0.5), at(0.99));
    }
}
