//! What the tests of the whole program share: a server to talk to, cameras that do as they are
//! told, viewers, and an eye for MP4.
//!
//! Nothing here measures time. Where something must come to pass, it is waited for, up to
//! [`PATIENCE`]: the machine may be busy with other things.

// Each test file is a program of its own and takes from here what it needs.
#![allow(dead_code)]

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderMap};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mp4_atom::{Decode, Moof, Moov};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// What has not come to pass by then never will.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// `future`'s result; panics, naming `what`, when it takes too long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_) => panic!("{what}: nothing for {} s", PATIENCE.as_secs()),
    }
}

/// Looks again and again, until there is something to see.
pub async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(LOOK).await;
        }
    })
    .await
}

// ---- Files ----

/// A folder that is removed with this.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, data: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, data).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// ---- The server ----

/// The real program, serving. Ended with this, in good order if it can be.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    pub folder: Folder,
}

/// The program's path.
pub const BERRYMSE: &str = env!("CARGO_BIN_EXE_berrymse");

impl Server {
    /// Starts it with this configuration, on a free port.
    pub async fn start(config: &str) -> Server {
        Server::start_with(config, &[]).await
    }

    /// The same, with these variables in its environment.
    pub async fn start_with(config: &str, environment: &[(&str, &str)]) -> Server {
        Server::start_as(config, &[], environment).await
    }

    /// The same, with these options, too.
    pub async fn start_as(config: &str, options: &[&str], environment: &[(&str, &str)]) -> Server {
        let folder = Folder::new();
        let file = folder.write("berrymse.toml", config);
        let mut child = Command::new(BERRYMSE)
            .args(["serve", "--config"])
            .arg(&file)
            // Unless it is about that.
            .args(if config.contains("listen =") { &[][..] } else { &["--listen", "127.0.0.1:0"] })
            .args(options)
            .env_remove("BERRYMSE_LOG")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(vec![]));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let address = wait_until("the server's start", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended ({status}): {}", log.lock().unwrap().join("\n"));
            }
            let log = log.lock().unwrap();
            let line = log.iter().find_map(|line| line.split_once("streaming at http://"))?;
            let address = line.1.trim_end_matches('/').replace("localhost", "127.0.0.1");
            Some(address.parse().unwrap())
        })
        .await;
        Server { child, address, log, folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until it serves for the `times`th time: a new configuration starts it anew.
    pub async fn started(&self, times: usize) {
        wait_until("the start", async || {
            (self.log().matches("streaming at").count() >= times).then_some(())
        })
        .await;
    }

    /// A request, ready but for what is special about it.
    pub fn request(&self, path: &str) -> hyper::http::request::Builder {
        Request::get(path).header(HOST, self.address.to_string())
    }

    /// Sends a request; the answer's body is still to be read.
    pub async fn send(&self, request: hyper::http::request::Builder) -> Response<Incoming> {
        self.send_with(request, Empty::<Bytes>::new()).await
    }

    /// The same, with a body.
    pub async fn send_with<B>(
        &self,
        request: hyper::http::request::Builder,
        body: B,
    ) -> Response<Incoming>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        within("an answer", async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request.body(body).unwrap()).await.unwrap()
        })
        .await
    }

    /// Sends a request and reads the whole answer.
    pub async fn ask(&self, request: hyper::http::request::Builder) -> Answer {
        self.ask_with(request, "").await
    }

    /// The same, with a body.
    pub async fn ask_with(
        &self,
        request: hyper::http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Answer {
        let body = Full::new(body.into());
        let response = self.send_with(request.header(CONNECTION, "close"), body).await;
        let (parts, body) = response.into_parts();
        let body = within("an answer's body", body.collect()).await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(self.request(path)).await
    }

    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.ask_with(self.request(path).method("PUT"), body).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.ask_with(self.request(path).method("POST"), body).await
    }

    /// `/api/status`
    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.get("/api/status").await.text).unwrap()
    }

    /// How one camera is doing.
    pub async fn camera(&self, name: &str) -> Value {
        let mut status = self.status().await;
        let cameras = status["cameras"].as_array_mut().unwrap();
        cameras.iter_mut().find(|camera| camera["name"] == name).unwrap().take()
    }

    /// Waits until the camera is as it should be.
    pub async fn camera_until(
        &self,
        name: &str,
        what: &str,
        mut good: impl FnMut(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let camera = self.camera(name).await;
            if good(&camera) {
                return camera;
            }
            assert!(Instant::now() < end, "{what}: {camera:#}\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Watches over WebSocket.
    pub async fn watch(&self, path: &str) -> Viewer {
        let url = format!("ws://{}{path}", self.address);
        let connecting = tokio_tungstenite::connect_async(url);
        let (socket, _) = within("the handshake", connecting).await.unwrap();
        Viewer { socket }
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_until("the server's end", async || child.try_wait().unwrap()).await
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the server's log ----\n{}", self.log());
        }
        // Asked first, because only then the cameras' programs end, too.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            let end = Instant::now() + Duration::from_secs(10);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(LOOK);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

// ---- Viewers ----

/// Somebody who watches over WebSocket.
pub struct Viewer {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Viewer {
    /// The next message that is neither ping nor pong; `None` once the socket is closed.
    pub async fn next(&mut self) -> Option<Message> {
        next_message(&mut self.socket).await
    }

    /// The next message, which must be text.
    pub async fn text(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("no text: {}", short(&other)),
        }
    }

    /// The next message, which must be binary.
    pub async fn binary(&mut self) -> Bytes {
        match self.next().await {
            Some(Message::Binary(data)) => data,
            other => panic!("not binary: {}", short(&other)),
        }
    }
}

/// The next message of a WebSocket that is neither ping nor pong; `None` at its end.
pub async fn next_message<S>(socket: &mut WebSocketStream<S>) -> Option<Message>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let message = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(WsError::ConnectionClosed)) | None => return None,
                Some(Err(error)) => panic!("the WebSocket: {error}"),
            }
        }
    };
    within("a message", message).await
}

/// A message as far as it can be read in a test's output.
pub fn short(message: &Option<Message>) -> String {
    match message {
        Some(Message::Binary(data)) => format!("{} bytes", data.len()),
        other => format!("{other:?}"),
    }
}

// ---- MP4 ----

/// One `moof` and its `mdat`, as a viewer sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub sequence: u32,
    pub decode_time: u64,
    pub duration: u64,
    pub key: bool,
    /// Bytes of the picture.
    pub size: usize,
}

/// The boxes of a file, one after the other: their names and all of their bytes.
pub fn boxes(mut file: &[u8]) -> Vec<(String, &[u8])> {
    let mut boxes = vec![];
    while !file.is_empty() {
        let size = u32::from_be_bytes(file[..4].try_into().unwrap()) as usize;
        assert!((8..=file.len()).contains(&size), "a box of {size} bytes; {} left", file.len());
        let (this, rest) = file.split_at(size);
        boxes.push((String::from_utf8_lossy(&this[4..8]).into_owned(), this));
        file = rest;
    }
    boxes
}

/// Decodes a box with mp4-atom. Not a byte may be left over.
pub fn atom<T: Decode>(mut bytes: &[u8]) -> T {
    let atom = T::decode(&mut bytes).unwrap();
    assert!(bytes.is_empty());
    atom
}

/// Reads `moof`, `mdat`, `moof`, `mdat`, …
pub fn frames(file: &[u8]) -> Vec<Frame> {
    let boxes = boxes(file);
    let pairs = boxes.chunks(2).map(|pair| match pair {
        [(first, moof), (second, mdat)] if first == "moof" && second == "mdat" => {
            let size = mdat.len() - 8;
            let moof_len = moof.len();
            let moof: Moof = atom(moof);
            let [traf] = &moof.traf[..] else { panic!("{} tracks", moof.traf.len()) };
            let [trun] = &traf.trun[..] else { panic!("{} runs", traf.trun.len()) };
            let samples: Vec<_> = trun.samples.iter().collect();
            let [sample] = &samples[..] else { panic!("{} samples", samples.len()) };
            assert!(traf.tfhd.default_base_is_moof);
            assert_eq!(trun.data_offset, Some(moof_len as i32 + 8));
            assert_eq!(sample.size, Some(size as u32));
            let flags = sample.flags.or(traf.tfhd.default_sample_flags).unwrap();
            let duration = sample.duration.or(traf.tfhd.default_sample_duration).unwrap();
            Frame {
                sequence: moof.mfhd.sequence_number,
                decode_time: traf.tfdt.as_ref().unwrap().base_media_decode_time,
                duration: duration.into(),
                key: flags & 0x0001_0000 == 0, // sample_is_non_sync_sample
                size,
            }
        }
        other => panic!("{:?}", other.iter().map(|(name, _)| name).collect::<Vec<_>>()),
    });
    pairs.collect()
}

/// A file or message that begins with an init segment: its `moov`, and what follows.
pub fn split_init(file: &[u8]) -> (Moov, &[u8]) {
    let boxes = boxes(file);
    let [(first, ftyp), (second, moov), ..] = &boxes[..] else { panic!("no init segment") };
    assert_eq!((first.as_str(), second.as_str()), ("ftyp", "moov"));
    let _: mp4_atom::Ftyp = atom(ftyp);
    (atom(moov), &file[ftyp.len() + moov.len()..])
}

/// Frames follow each other: nothing is missing, and time has neither a hole nor a step back.
pub fn assert_even(frames: &[Frame]) {
    for pair in frames.windows(2) {
        assert_eq!(pair[0].sequence + 1, pair[1].sequence, "{pair:?}");
        assert_eq!(pair[0].decode_time + pair[0].duration, pair[1].decode_time, "{pair:?}");
    }
}

// ---- ffmpeg ----

/// Runs ffmpeg or ffprobe, which must succeed.
pub fn ffmpeg<S: AsRef<std::ffi::OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            panic!("these tests need {program} ({error}): apt-get install ffmpeg")
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    output
}

/// What ffmpeg makes of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// A checksum for each picture.
    pub pictures: Vec<String>,
    /// Errors and warnings.
    pub complaints: String,
}

/// Decodes a file with ffmpeg.
pub fn decode(file: &Path) -> Decoded {
    // framecrc writes a line for each picture; passthrough: exactly those that were decoded.
    let options = ["-v", "warning", "-i"];
    let end = ["-fps_mode", "passthrough", "-f", "framecrc", "-"];
    let arguments = options.map(Path::new).into_iter().chain([file]).chain(end.map(Path::new));
    let output = ffmpeg("ffmpeg", arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Decoded {
        pictures: lines.map(|line| line.rsplit(',').next().unwrap().trim().into()).collect(),
        complaints: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An H.264 stream and where its access units lie (as ffmpeg sees it).
pub struct Clip {
    pub file: PathBuf,
    pub data: Vec<u8>,
    units: Vec<std::ops::Range<usize>>,
}

impl Clip {
    /// Lets x264 encode ffmpeg's test picture. `options`: of ffmpeg, for the output.
    pub fn encode(folder: &Folder, name: &str, size: &str, frames: u32, options: &str) -> Clip {
        let file = folder.path(&format!("{name}.h264"));
        let source = format!("testsrc2=size={size}:rate=30");
        let count = frames.to_string();
        let input = ["-v", "error", "-y", "-f", "lavfi", "-i", &source, "-frames:v", &count];
        let output = "-pix_fmt yuv420p -c:v libx264 -preset veryfast -bf 0";
        let output = output.split(' ').chain(options.split_whitespace());
        ffmpeg("ffmpeg", input.into_iter().chain(output).chain([file.to_str().unwrap()]));
        Clip::read(file)
    }

    /// Takes a file as it is.
    pub fn read(file: PathBuf) -> Clip {
        let data = std::fs::read(&file).unwrap();
        let options = ["-v", "error", "-show_entries", "packet=size,pos", "-of", "csv=p=0"];
        let arguments = options.map(Path::new).into_iter().chain([file.as_path()]);
        let output = String::from_utf8(ffmpeg("ffprobe", arguments).stdout).unwrap();
        let mut end = 0;
        let units = output.lines().map(|line| {
            let (size, position) = line.split_once(',').unwrap();
            assert_eq!(position.trim_end_matches(',').parse(), Ok(end), "no gap between units");
            let start = end;
            end += size.parse::<usize>().unwrap();
            start..end
        });
        let units = units.collect();
        assert_eq!(end, data.len());
        Clip { file, data, units }
    }

    /// Number of access units.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Access unit `n`, counted on and on as if the clip were played again and again.
    pub fn unit(&self, n: usize) -> &[u8] {
        &self.data[self.units[n % self.units.len()].clone()]
    }
}

// ---- A camera that does as it is told ----

/// A named pipe that a camera's command (`cat`) reads: the test writes what the camera sends.
pub struct Feed {
    path: PathBuf,
    writer: Option<mpsc::Sender<Vec<u8>>>,
}

impl Feed {
    pub fn new(folder: &Folder, name: &str) -> Feed {
        let path = folder.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Feed { path, writer: None }
    }

    /// What to write behind `source =`.
    pub fn source(&self) -> String {
        format!("{{ command = [\"cat\", {:?}] }}", self.path)
    }

    /// Sends bytes, in one write.
    pub fn send(&mut self, bytes: &[u8]) {
        let path = &self.path;
        let writer = self.writer.get_or_insert_with(|| {
            // For reading, too: then it opens at once, even if nobody reads yet.
            let mut pipe = OpenOptions::new().read(true).write(true).open(path).unwrap();
            let (sender, receiver) = mpsc::channel::<Vec<u8>>();
            // A thread, because the pipe is full while nobody reads.
            std::thread::spawn(move || {
                while let Ok(bytes) = receiver.recv() {
                    pipe.write_all(&bytes).unwrap();
                }
                // What nobody has read yet would be lost with the last one who has it open.
                let end = Instant::now() + PATIENCE;
                while rustix::io::ioctl_fionread(&pipe).unwrap() > 0 && Instant::now() < end {
                    std::thread::sleep(LOOK);
                }
            });
            sender
        });
        writer.send(bytes.to_vec()).unwrap();
    }

    /// Plays some of a clip at 30 frames a second, or a little slower.
    pub async fn play(&mut self, clip: &Clip, range: std::ops::Range<usize>) {
        for n in range {
            self.send(clip.unit(n));
            tokio::time::sleep(Duration::from_millis(33)).await;
        }
    }

    /// Ends the command. What is sent after this is for the next one.
    pub fn close(&mut self) {
        self.writer = None;
    }
}

/// The file that `/proc` has of a process; empty if it is no more.
pub fn of_process(pid: u32, file: &str) -> String {
    let mut text = vec![];
    if let Ok(mut file) = File::open(format!("/proc/{pid}/{file}")) {
        let _ = std::io::Read::read_to_end(&mut file, &mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The processes that have this among their arguments.
pub fn processes_with(argument: &str) -> Vec<u32> {
    let folders = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| of_process(pid, "cmdline").split('\0').any(|a| a == argument)).collect()
}
