//! Measures the cost of many viewers: `./ci/bench viewers`.
//!
//! Five servers send frames of the same size to the same number of sockets:
//!
//! - `ours`: BerryMSE;
//! - `floor`: a loop that only writes to non-blocking sockets, which is the minimum amount of work;
//! - `uring`: the same with io_uring;
//! - `tasks`: a tokio task for each viewer;
//! - `warp`: the WebSocket server of warp.
//!
//! This program contains the servers, the load, and the driver that measures them:
//!
//! ```text
//! driver ─┬─ server (core 0)   --serve ours|floor|uring|tasks|warp
//!         └─ load   (core 1)   --load: reads and discards in the kernel (MSG_TRUNC)
//! ```
//!
//! The CPU time is the sum of the schedstat values of the server's threads. The runs of the servers
//! alternate, and each result is a median. The ratios matter, not the absolute values. The raw data
//! is written to bench-results/viewers.jsonl.

#![allow(clippy::print_stdout)] // prints results

use berrymse::access::AccessPolicy;
use berrymse::camera::{Camera, test_card};
use berrymse::http::{Context, Server};
use berrymse::shutdown::Shutdown;
use berrymse::stream::Delays;
use berrymse::{config, h264};
use bytes::Bytes;
use rustix::event::epoll;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use warp::Filter;

/// Number of frames in a group of pictures.
const GROUP: u64 = 60;

// ---- Counting allocations ----

struct Counting;
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all calls are forwarded to the system allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let arguments: Vec<String> = std::env::args().collect();
    let number = |n: usize| arguments[n].parse::<u64>().unwrap();
    match arguments.get(1).map(String::as_str) {
        Some("--serve") => serve(&arguments[2], number(3), number(4) as usize),
        Some("--load") => load(
            arguments[2].parse().unwrap(),
            number(3) as usize,
            &arguments[4],
            number(5) as usize,
            number(6),
        ),
        _ => {
            let has = |name: &str| arguments.iter().any(|argument| argument == name);
            drive(has("--quick"), has("--cpu"));
        }
    }
}

// ---- Servers ----

/// Returns an access unit of `size` bytes. The slice header is real. Of the slice data, only the
/// length is realistic.
fn access_unit(number: u64, size: usize) -> Vec<u8> {
    let frame = match (number % GROUP, number % 30) {
        (0, _) => 0,
        (_, 0) => 1, // the clip has a key frame every 30 frames
        (_, frame) => frame,
    };
    let range = &test_card::access_units()[frame as usize];
    let mut unit = test_card::CLIP[range.clone()].to_vec();
    unit.resize(size, 0x5a);
    unit
}

/// Returns the frame numbers, each at the time when the frame is due.
fn pace(fps: u64) -> impl Iterator<Item = u64> {
    let start = Instant::now();
    (0..).inspect(move |n| {
        let due = Duration::from_secs(1) * *n as u32 / fps as u32;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    })
}

fn serve(kind: &str, fps: u64, size: usize) {
    let counts: Arc<dyn Fn() -> Value + Send + Sync> = match kind {
        "ours" => serve_ours(fps, size),
        "floor" => serve_floor(fps, size, false),
        "uring" => serve_floor(fps, size, true),
        "warp" => serve_warp(fps, size),
        "tasks" => serve_tasks(fps, size),
        other => panic!("unknown server {other:?}"),
    };
    // Each input line requests the counters. The server exits at the end of the input.
    for _ in std::io::stdin().lines() {
        println!("{}", counts());
    }
    std::process::exit(0);
}

fn serve_ours(fps: u64, size: usize) -> Arc<dyn Fn() -> Value + Send + Sync> {
    let camera =
        Arc::new(Camera::new(config::Camera { name: "bench".into(), ..Default::default() }));
    let server = config::Server {
        max_viewers: 100_000,
        max_connections_per_address: 100_000,
        ..Default::default()
    };
    let (listening, port) = std::sync::mpsc::channel();
    let stream = camera.stream.clone();
    let cameras = vec![camera];
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = berrymse::http::listen(([127, 0, 0, 1], 0).into()).unwrap();
            listening.send(listener.local_addr().unwrap().port()).unwrap();
            let (_stop, shutdown) = Shutdown::new();
            let access = AccessPolicy::new(&server);
            let (settings, started) = (Default::default(), Instant::now());
            let (updater, records, update_url) = Default::default();
            let context = Context {
                cameras,
                access,
                server,
                settings,
                updater,
                records,
                update_url,
                started,
                shutdown,
            };
            Server::new(listener, Arc::new(context)).run().await;
        });
    });
    println!("{}", port.recv().unwrap());
    let publisher = stream.clone();
    std::thread::spawn(move || {
        let mut parser = h264::Parser::default();
        // Created in advance, because BerryMSE receives them from a driver.
        let units: Vec<Vec<u8>> = (0..GROUP).map(|n| access_unit(n, size)).collect();
        for n in pace(fps) {
            let unit = &units[(n % GROUP) as usize];
            let picture = parser.access_unit(unit).unwrap();
            let time = Duration::from_secs(1) * n as u32 / fps as u32;
            publisher.publish(unit, &picture, time, None);
        }
    });
    Arc::new(move || {
        let (_, delays) = stream.delays().read();
        json!({
            "frames": stream.head(), "dropped": stream.dropped(), "viewers": stream.viewers(),
            "delays": delays, "allocations": ALLOCATIONS.load(Ordering::Relaxed),
        })
    })
}

/// Returns a message with the size of a BerryMSE message: WebSocket header, fragment header and
/// payload.
fn message(size: usize) -> Vec<u8> {
    vec![0x5a; size + 4 + berrymse::fmp4::FRAGMENT_OVERHEAD]
}

/// With `uring`, a single system call (io_uring) writes a frame to all sockets, instead of one call
/// for each socket.
fn serve_floor(fps: u64, size: usize, uring: bool) -> Arc<dyn Fn() -> Value + Send + Sync> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let (join, joined) = std::sync::mpsc::channel::<TcpStream>();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            socket.set_nodelay(true).unwrap();
            socket.set_nonblocking(true).unwrap();
            join.send(socket).unwrap();
        }
    });
    let dropped = Arc::new(AtomicU64::new(0));
    let count = dropped.clone();
    std::thread::spawn(move || {
        let message = message(size);
        let mut sockets: Vec<TcpStream> = vec![];
        let mut ring = uring.then(|| io_uring::IoUring::new(4096).unwrap());
        for _ in pace(fps) {
            sockets.extend(joined.try_iter());
            if let Some(ring) = &mut ring {
                count.fetch_add(write_by_ring(ring, &sockets, &message), Ordering::Relaxed);
                continue;
            }
            for mut socket in &sockets {
                match socket.write(&message) {
                    Ok(len) if len == message.len() => {}
                    _ => _ = count.fetch_add(1, Ordering::Relaxed),
                }
            }
        }
    });
    Arc::new(move || json!({"dropped": dropped.load(Ordering::Relaxed)}))
}

/// Writes to all sockets with one system call. Returns the number of incomplete writes.
#[allow(unsafe_code)]
fn write_by_ring(ring: &mut io_uring::IoUring, sockets: &[TcpStream], message: &[u8]) -> u64 {
    use std::os::fd::AsRawFd;
    for socket in sockets {
        let fd = io_uring::types::Fd(socket.as_raw_fd());
        let len = message.len() as u32;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let entry = io_uring::opcode::Send::new(fd, message.as_ptr(), len)
            .flags(flags.bits() as i32)
            .build();
        // SAFETY: the sockets and the message outlive the writes: `submit_and_wait` waits for all
        // writes.
        unsafe { ring.submission().push(&entry).unwrap() };
    }
    ring.submit_and_wait(sockets.len()).unwrap();
    ring.completion().filter(|done| done.result() != message.len() as i32).count() as u64
}

/// For each viewer, a task waits for the next frame and writes the shared bytes.
fn serve_tasks(fps: u64, size: usize) -> Arc<dyn Fn() -> Value + Send + Sync> {
    let (frame, frames) = tokio::sync::watch::channel(Bytes::new());
    let (listening, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listening.send(listener.local_addr().unwrap().port()).unwrap();
            while let Ok((mut socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let mut frames = frames.clone();
                tokio::spawn(async move {
                    use tokio::io::AsyncWriteExt;
                    while frames.changed().await.is_ok() {
                        let message = frames.borrow_and_update().clone();
                        if socket.write_all(&message).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    });
    println!("{}", port.recv().unwrap());
    std::thread::spawn(move || {
        let message: Bytes = message(size).into();
        for _ in pace(fps) {
            frame.send_replace(message.clone());
        }
    });
    Arc::new(|| json!({}))
}

fn serve_warp(fps: u64, size: usize) -> Arc<dyn Fn() -> Value + Send + Sync> {
    let (frame, frames) = tokio::sync::watch::channel(Bytes::new());
    let (listening, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listening.send(listener.local_addr().unwrap().port()).unwrap();
            let route = warp::path("live").and(warp::ws()).map(move |ws: warp::ws::Ws| {
                let mut frames = frames.clone();
                ws.on_upgrade(|mut socket| async move {
                    use futures_util::SinkExt;
                    while frames.changed().await.is_ok() {
                        let message = frames.borrow_and_update().clone();
                        if socket.send(warp::ws::Message::binary(message)).await.is_err() {
                            break;
                        }
                    }
                })
            });
            warp::serve(route).incoming(listener).run().await;
        });
    });
    println!("{}", port.recv().unwrap());
    std::thread::spawn(move || {
        for _ in pace(fps) {
            frame.send_replace(message(size).into());
        }
    });
    Arc::new(|| json!({}))
}

// ---- Load ----

/// Opens `viewers` connections, and prints "ready" when all have received data. Then reads the data
/// and discards it. After an input line, the first `stalled` connections stop reading for `seconds`
/// seconds.
fn load(address: SocketAddr, viewers: usize, handshake: &str, stalled: usize, seconds: u64) {
    let request = format!(
        "GET /live HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let sockets: Vec<TcpStream> = (0..viewers)
        .map(|n| {
            let mut socket = TcpStream::connect(address).unwrap();
            if handshake == "ws" {
                socket.write_all(request.as_bytes()).unwrap();
            }
            socket.set_nonblocking(true).unwrap();
            let data = epoll::EventData::new_u64(n as u64);
            epoll::add(&poll, &socket, data, epoll::EventFlags::IN).unwrap();
            socket
        })
        .collect();
    let (line, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines() {
            line.send(()).unwrap();
        }
        std::process::exit(0);
    });
    let mut started = vec![false; viewers];
    let mut waiting = viewers;
    let mut stall_end: Option<Instant> = None;
    let mut buffer = vec![0u8; 1 << 20];
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        if epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&wait)).is_err() {
            continue;
        }
        for event in &events {
            let n = event.data.u64() as usize;
            // The kernel discards the data, so that the load is not the bottleneck.
            let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
            match rustix::net::recv(&sockets[n], &mut buffer[..], flags) {
                Ok((0, 0)) | Err(_) => {}
                Ok(_) if !started[n] => {
                    started[n] = true;
                    waiting -= 1;
                    if waiting == 0 {
                        println!("ready");
                    }
                }
                Ok(_) => {}
            }
        }
        if stalled > 0 && lines.try_recv().is_ok() {
            stall_end = Some(Instant::now() + Duration::from_secs(seconds));
            sockets[..stalled].iter().for_each(|socket| epoll::delete(&poll, socket).unwrap());
        }
        if stall_end.is_some_and(|end| Instant::now() > end) {
            stall_end = None;
            for (n, socket) in sockets[..stalled].iter().enumerate() {
                let data = epoll::EventData::new_u64(n as u64);
                epoll::add(&poll, socket, data, epoll::EventFlags::IN).unwrap();
            }
        }
    }
}

// ---- Driver ----

/// A server or a load, bound to a core.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(core: usize, arguments: &[String]) -> Process {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]).arg(std::env::current_exe().unwrap());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("taskset (Debian: util-linux)");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { child, input, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the process has ended");
        line.trim().into()
    }

    fn ask(&mut self) -> Value {
        self.tell();
        serde_json::from_str(&self.line()).unwrap()
    }

    fn tell(&mut self) {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Returns the total CPU time of all threads.
    fn cpu(&self) -> Duration {
        let mut sum = 0u64;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap() {
            let file = task.unwrap().path().join("schedstat");
            let text = std::fs::read_to_string(file).unwrap_or_default();
            sum += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        Duration::from_nanos(sum)
    }

    /// Returns the value of a field of /proc/PID/status, in KiB.
    fn memory(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
struct Run {
    viewers: usize,
    fps: u64,
    size: usize,
    seconds: f64,
    stalled: usize,
}

/// Runs a server with its load, and returns the measurements.
fn run(kind: &str, run: Run) -> Value {
    let Run { viewers, fps, size, seconds, stalled } = run;
    let mut server =
        Process::start(0, &["--serve".into(), kind.into(), fps.to_string(), size.to_string()]);
    let port = server.line();
    let handshake = if matches!(kind, "floor" | "uring" | "tasks") { "plain" } else { "ws" };
    let mut load = Process::start(
        1,
        &[
            "--load".into(),
            format!("127.0.0.1:{port}"),
            viewers.to_string(),
            handshake.into(),
            stalled.to_string(),
            "4".into(),
        ],
    );
    assert_eq!(load.line(), "ready");
    std::thread::sleep(Duration::from_secs(2)); // until startup is complete
    if stalled > 0 {
        load.tell();
        std::thread::sleep(Duration::from_millis(500));
    }
    let (before, cpu, start) = (server.ask(), server.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (after, used, time) = (server.ask(), server.cpu() - cpu, start.elapsed());
    let difference = |name: &str| {
        after[name].as_u64().unwrap_or_default() - before[name].as_u64().unwrap_or_default()
    };
    let delays: Vec<u64> = match (before["delays"].as_array(), after["delays"].as_array()) {
        (Some(before), Some(after)) => before
            .iter()
            .zip(after)
            .map(|(before, after)| after.as_u64().unwrap() - before.as_u64().unwrap())
            .collect(),
        _ => vec![],
    };
    json!({
        "kind": kind, "viewers": viewers, "fps": fps, "size": size, "seconds": time.as_secs_f64(),
        "stalled": stalled,
        "cpu": used.as_secs_f64() / time.as_secs_f64(),
        "frames": difference("frames"), "dropped": difference("dropped"),
        "allocations": difference("allocations"), "delays": delays,
        "rss": server.memory("VmRSS"), "peak": server.memory("VmHWM"),
        "descriptors": server.descriptors(),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the upper bound of the bucket that contains this percentile of the delays, in ms.
fn percentile(result: &Value, part: f64) -> f64 {
    let counts: Vec<u64> =
        result["delays"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    let all: u64 = counts.iter().sum();
    let mut sum = 0;
    for (count, bound) in counts.iter().zip(Delays::BOUNDS) {
        sum += count;
        if sum as f64 >= all as f64 * part {
            return bound as f64 / 1000.0;
        }
    }
    f64::INFINITY
}

fn drive(quick: bool, only_cpu: bool) {
    std::fs::create_dir_all("bench-results").unwrap();
    let mut raw = std::fs::File::create("bench-results/viewers.jsonl").unwrap();
    let mut measure = |kind: &str, parameters: Run| {
        let result = run(kind, parameters);
        writeln!(raw, "{result}").unwrap();
        result
    };
    let rounds = if quick { 1 } else { 5 };
    let seconds = if quick { 2.0 } else { 6.0 };
    let plain = Run { viewers: 300, fps: 30, size: 8192, seconds, stalled: 0 };
    println!(
        "server on core 0, load on core 1; medians of {rounds} alternating runs of {seconds} s\n"
    );

    println!("300 viewers, 30 frames per second, 8 KiB per frame");
    let mut cpu: [Vec<f64>; 5] = Default::default();
    let mut ours = vec![];
    for _ in 0..rounds {
        for (kind, cpu) in ["floor", "ours", "warp", "uring", "tasks"].iter().zip(&mut cpu) {
            let result = measure(kind, plain);
            cpu.push(result["cpu"].as_f64().unwrap());
            if *kind == "ours" {
                ours.push(result);
            }
        }
    }
    let [floor, own, warp, uring, tasks] = cpu.map(median);
    println!("  CPU, fraction of a core: floor {floor:.3}, ours {own:.3}, warp {warp:.3}");
    println!("  ours / floor {:.2}   ours / warp {:.2}", own / floor, own / warp);
    println!("  floor with io_uring / floor {:.2}", uring / floor);
    println!("  task per viewer with shared bytes / floor {:.2}", tasks / floor);
    let of = |part: f64| median(ours.iter().map(|r| percentile(r, part)).collect());
    println!("  delay to the last socket: 50 % within {} ms, 99 % within {} ms", of(0.5), of(0.99));
    let per_frame = |r: &Value| r["allocations"].as_f64().unwrap() / r["frames"].as_f64().unwrap();
    println!("  allocations per frame: {:.2}", median(ours.iter().map(per_frame).collect()));
    if only_cpu {
        return;
    }
    let ten: Vec<Value> =
        (0..rounds).map(|_| measure("ours", Run { viewers: 10, ..plain })).collect();
    println!(
        "10 viewers: 99 % within {} ms, allocations per frame {:.2}",
        median(ten.iter().map(|r| percentile(r, 0.99)).collect()),
        median(ten.iter().map(per_frame).collect())
    );

    println!("\n100 of 300 viewers stop reading for 4 s");
    let stall = Run { stalled: 100, seconds: 4.0, ..plain };
    let stalled: Vec<Value> = (0..rounds).map(|_| measure("ours", stall)).collect();
    println!(
        "  delay of the others: 99 % within {} ms; peak memory {} MiB; dropped frames {}",
        median(stalled.iter().map(|r| percentile(r, 0.99)).collect()),
        stalled.iter().map(|r| r["peak"].as_u64().unwrap()).max().unwrap() / 1024,
        stalled[0]["dropped"]
    );

    println!("\n1000 viewers");
    let rate = 4_000_000 / 8 / 30;
    let memory = measure("ours", Run { viewers: 1000, size: rate, ..plain });
    println!(
        "  4 Mbit/s: memory {:.1} MiB (peak {:.1})",
        memory["rss"].as_f64().unwrap() / 1024.0,
        memory["peak"].as_f64().unwrap() / 1024.0
    );
    let long = if quick { 5.0 } else { 60.0 };
    let many = measure("ours", Run { viewers: 1000, seconds: long, ..plain });
    println!(
        "  30 x 8 KiB for {long} s on one core: dropped frames {}, CPU {:.2}, 99 % within {} ms",
        many["dropped"],
        many["cpu"].as_f64().unwrap(),
        percentile(&many, 0.99)
    );

    println!("\nCPU per viewer, 30 frames per second of 1 KiB");
    let mut curve = vec![];
    for viewers in [1, 10, 100, 1000, 5000] {
        let runs = (0..rounds.min(3)).map(|_| {
            measure("ours", Run { viewers, size: 1024, ..plain })["cpu"].as_f64().unwrap()
        });
        let each = median(runs.collect()) / viewers as f64 * 1e6;
        println!("  {viewers:>5}: {each:>8.1} µs per second");
        curve.push((viewers, each));
    }
    std::fs::write("bench-results/viewers.svg", picture(&curve)).unwrap();

    println!("\n10000 connections, 500 per second");
    churn(if quick { 1000 } else { 10_000 });
}

/// Opens and closes connections, and measures the memory, descriptors and viewers that remain.
fn churn(count: u64) {
    let arguments = ["--serve".into(), "ours".into(), "30".into(), "8192".into()];
    let mut server = Process::start(0, &arguments);
    let address: SocketAddr = format!("127.0.0.1:{}", server.line()).parse().unwrap();
    let connect = || {
        let mut socket = TcpStream::connect(address).unwrap();
        let request = format!(
            "GET /live HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut buffer = [0; 4096];
        assert!(socket.read(&mut buffer).unwrap() > 0);
    };
    (0..500).for_each(|_| connect()); // allocates memory that is needed only once
    std::thread::sleep(Duration::from_secs(1));
    let (memory, descriptors) = (server.memory("VmRSS"), server.descriptors());
    for _ in pace(500).take(count as usize) {
        connect();
    }
    std::thread::sleep(Duration::from_secs(1));
    println!(
        "  memory {} -> {} KiB, descriptors {} -> {}, remaining viewers {}",
        memory,
        server.memory("VmRSS"),
        descriptors,
        server.descriptors(),
        server.ask()["viewers"]
    );
}

/// Returns the curve as SVG, with logarithmic axes.
fn picture(curve: &[(usize, f64)]) -> String {
    let x = |viewers: usize| 60.0 + (viewers as f64).log10() / 4.0 * 560.0;
    let y = |cost: f64| 300.0 - (cost.log10() - 1.0) / 4.0 * 260.0;
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 360\" \
         font-family=\"sans-serif\" font-size=\"13\"><rect width=\"680\" height=\"360\" \
         fill=\"#fff\"/>\n<text x=\"60\" y=\"22\">CPU time per viewer, in µs per second, by \
         number of viewers</text>\n",
    );
    for power in 1..=5 {
        let value = 10f64.powi(power);
        let at = y(value);
        out += &format!(
            "<path d=\"M60 {at}H640\" stroke=\"#ddd\"/><text x=\"52\" y=\"{}\" \
             text-anchor=\"end\">{value}</text>\n",
            at + 4.0
        );
    }
    let points: Vec<String> =
        curve.iter().map(|&(viewers, cost)| format!("{:.1},{:.1}", x(viewers), y(cost))).collect();
    out += &format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#c2185b\" stroke-width=\"3\"/>\n",
        points.join(" ")
    );
    for &(viewers, cost) in curve {
        out += &format!(
            "<circle cx=\"{0:.1}\" cy=\"{1:.1}\" r=\"5\" fill=\"#c2185b\"/><text x=\"{0:.1}\" \
             y=\"{2:.1}\" text-anchor=\"middle\">{cost:.0}</text><text x=\"{0:.1}\" y=\"330\" \
             text-anchor=\"middle\">{viewers}</text>\n",
            x(viewers),
            y(cost),
            y(cost) - 12.0
        );
    }
    out + "</svg>\n"
}
