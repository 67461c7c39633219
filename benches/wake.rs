//! Compares two ways to wait for a driver: `./ci/bench wake`.
//!
//! An eventfd takes the place of the device and becomes readable 30 times per second. Either a
//! thread waits in poll(2), or a task of the runtime waits with `AsyncFd`. The program measures the
//! time from each event until the waiting code runs, and the CPU time of all threads except the one
//! that triggers the events.

#![allow(clippy::print_stdout)] // prints a table

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// Number of events in a run, which takes 5 s.
const EVENTS: usize = 150;

/// Time between two events.
const PERIOD: Duration = Duration::from_micros(33_333);

/// Number of runs of each kind. The kinds alternate.
const ROUNDS: usize = 5;

/// The result of a run.
struct Run {
    /// Time from each event until the waiting code runs.
    delays: Vec<Duration>,
    /// CPU time of the waiting side.
    cpu: Duration,
}

fn now(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Reads an event and returns its delay. The value of an event is the time of its creation on the
/// monotonic clock, in nanoseconds.
fn delay(event: &OwnedFd) -> Option<Duration> {
    let mut created = [0; 8];
    rustix::io::read(event, &mut created).ok()?;
    let created = Duration::from_nanos(u64::from_ne_bytes(created));
    Some(now(ClockId::Monotonic).saturating_sub(created))
}

/// Triggers the events, and measures `wait`, which runs in another thread and returns the delays.
fn run(wait: impl FnOnce(Arc<OwnedFd>) -> Vec<Duration> + Send + 'static) -> Run {
    let event = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let waiting = {
        let event = event.clone();
        std::thread::spawn(move || wait(event))
    };
    std::thread::sleep(Duration::from_millis(200)); // until the thread is waiting
    let (cpu, own) = (now(ClockId::ProcessCPUTime), now(ClockId::ThreadCPUTime));
    let start = Instant::now();
    for n in 0..EVENTS {
        let due = start + PERIOD * (n as u32 + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let created = now(ClockId::Monotonic).as_nanos() as u64;
        rustix::io::write(&event, &created.to_ne_bytes()).unwrap();
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
            // SAFETY: the Arc keeps the descriptor open while it is registered.
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
    println!("{EVENTS} events, 30 per second; medians of {ROUNDS} alternating runs\n");
    println!("{:<28} {:>12} {:>12} {:>18}", "", "median", "99 %", "CPU per event");
    for (name, runs) in ["thread in poll", "task with AsyncFd"].iter().zip(runs) {
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
