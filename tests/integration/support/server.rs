//! The executable, running as a server.

use super::{Folder, POLL_INTERVAL, TIMEOUT, Viewer, wait_until, within};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderMap};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A running server. Terminated on drop, and killed only if that fails.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    pub folder: Folder,
}

/// Returns the path of the executable. The environment variable BERRYMSE overrides it, for example to run
/// a build for another machine in an emulator.
pub fn berrymse() -> PathBuf {
    std::env::var_os("BERRYMSE").map_or(env!("CARGO_BIN_EXE_berrymse").into(), PathBuf::from)
}

impl Server {
    /// Starts a server with this configuration, on a free port.
    pub async fn start(config: &str) -> Server {
        Server::start_with(config, &[]).await
    }

    /// Like [`Server::start`], with additional environment variables.
    pub async fn start_with(config: &str, environment: &[(&str, &str)]) -> Server {
        Server::start_as(config, &[], environment).await
    }

    /// Like [`Server::start_with`], with additional command-line options.
    pub async fn start_as(config: &str, options: &[&str], environment: &[(&str, &str)]) -> Server {
        let folder = Folder::new();
        let file = folder.write("berrymse.toml", config);
        let mut child = Command::new(berrymse())
            .args(["serve", "--config"])
            .arg(&file)
            // If the configuration contains an address, that address is used.
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
        let address = wait_until("start of the server", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server exited ({status}): {}", log.lock().unwrap().join("\n"));
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

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until the server has started `times` times. A new configuration restarts it.
    pub async fn started(&self, times: usize) {
        wait_until("restart of the server", async || {
            (self.log().matches("streaming at").count() >= times).then_some(())
        })
        .await;
    }

    /// Creates a GET request for `path` with the usual headers.
    pub fn request(&self, path: &str) -> hyper::http::request::Builder {
        Request::get(path).header(HOST, self.address.to_string())
    }

    /// Sends a request. Returns the response without waiting for its body.
    pub async fn send(&self, request: hyper::http::request::Builder) -> Response<Incoming> {
        self.send_with(request, Empty::<Bytes>::new()).await
    }

    /// Like [`Server::send`], with a body.
    pub async fn send_with<B>(
        &self,
        request: hyper::http::request::Builder,
        body: B,
    ) -> Response<Incoming>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        within("a response", async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request.body(body).unwrap()).await.unwrap()
        })
        .await
    }

    /// Sends a request and reads the whole response.
    pub async fn ask(&self, request: hyper::http::request::Builder) -> Answer {
        self.ask_with(request, "").await
    }

    /// Like [`Server::ask`], with a body.
    pub async fn ask_with(
        &self,
        request: hyper::http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Answer {
        let body = Full::new(body.into());
        let response = self.send_with(request.header(CONNECTION, "close"), body).await;
        let (parts, body) = response.into_parts();
        let body = within("the body of a response", body.collect()).await.unwrap().to_bytes();
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

    /// Gets `/api/status`.
    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.get("/api/status").await.text).unwrap()
    }

    /// Returns the status of one camera.
    pub async fn camera(&self, name: &str) -> Value {
        let mut status = self.status().await;
        let cameras = status["cameras"].as_array_mut().unwrap();
        cameras.iter_mut().find(|camera| camera["name"] == name).unwrap().take()
    }

    /// Waits until `good` accepts the status of a camera.
    pub async fn camera_until(
        &self,
        name: &str,
        what: &str,
        mut good: impl FnMut(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + TIMEOUT;
        loop {
            let camera = self.camera(name).await;
            if good(&camera) {
                return camera;
            }
            assert!(Instant::now() < end, "{what}: {camera:#}\n{}", self.log());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Opens a WebSocket.
    pub async fn watch(&self, path: &str) -> Viewer {
        let url = format!("ws://{}{path}", self.address);
        let connecting = tokio_tungstenite::connect_async(url);
        let (socket, _) = within("handshake", connecting).await.unwrap();
        Viewer { socket }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), Signal::TERM).unwrap();
    }

    /// Waits until the server has exited.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_until("end of the server", async || child.try_wait().unwrap()).await
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the server ----\n{}", self.log());
        }
        // Send SIGTERM first, because it also ends the programs of the cameras.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            let end = Instant::now() + Duration::from_secs(10);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(POLL_INTERVAL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A response with its whole body.
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
