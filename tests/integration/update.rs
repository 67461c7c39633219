//! Updates, with a **stand-in for RAUC** on a private bus: the requests to RAUC and the handling of its
//! replies. The tests of the appliance use the real RAUC.

// A macro of zbus generates public items.
#![allow(missing_docs)]

use crate::support::{Answer, Folder, Server, TEST_CARD, berrymse, wait_until};
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, ORIGIN};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use zbus::fdo;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedValue, Value};

/// A bundle for the stand-in: version and device as plain text. The first word marks it as signed.
fn bundle(version: &str, device: &str) -> String {
    format!("signed {version} {device} {}", "x".repeat(100_000))
}

type Dict = HashMap<String, OwnedValue>;

fn dict<const N: usize>(entries: [(&str, Value<'_>); N]) -> Dict {
    let owned = |value: Value<'_>| OwnedValue::try_from(value).unwrap();
    entries.into_iter().map(|(key, value)| (key.to_string(), owned(value))).collect()
}

/// State of the stand-in.
#[derive(Default)]
struct Known {
    operation: String,
    last_error: String,
    progress: (i32, String, i32),
    /// The error that the next installation reports.
    fail: Option<String>,
    /// Bundles by URL.
    addresses: HashMap<String, String>,
    /// States of slots that were set, and the slots.
    marked: Vec<(String, String)>,
    /// Sources and contents of the installed bundles.
    installed: Vec<(String, String)>,
    slots: Vec<(String, Dict)>,
}

#[derive(Clone, Default)]
struct StandIn {
    known: Arc<Mutex<Known>>,
    /// An installation waits for this before it completes.
    go: Arc<Notify>,
}

impl StandIn {
    fn read(&self, source: &str) -> fdo::Result<String> {
        let known = self.known.lock().unwrap();
        if let Some(bundle) = known.addresses.get(source) {
            return Ok(bundle.clone());
        }
        std::fs::read_to_string(source).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    fn busy(&self) -> fdo::Result<()> {
        match self.known.lock().unwrap().operation.as_str() {
            "idle" => Ok(()),
            _ => Err(fdo::Error::Failed("already processing a different method".into())),
        }
    }
}

#[zbus::interface(name = "de.pengutronix.rauc.Installer")]
impl StandIn {
    async fn inspect_bundle(&self, bundle: &str, _args: Dict) -> fdo::Result<Dict> {
        self.busy()?;
        let text = self.read(bundle)?;
        let words: Vec<&str> = text.split(' ').collect();
        let ["signed", version, device, ..] = words[..] else {
            let error = "signature verification failed: Verify error: self-signed certificate";
            return Err(fdo::Error::Failed(error.into()));
        };
        let update: HashMap<&str, Value<'_>> =
            [("compatible", device.into()), ("version", version.into())].into();
        Ok(dict([("manifest-hash", "00".into()), ("update", Value::new(Value::new(update)))]))
    }

    async fn install_bundle(
        &self,
        source: String,
        _args: Dict,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<()> {
        self.busy()?;
        let text = self.read(&source)?;
        let (this, emitter) = (self.clone(), emitter.to_owned());
        {
            let mut known = this.known.lock().unwrap();
            known.operation = "installing".into();
            known.progress = (40, "Copying image to rootfs.1".into(), 2);
        }
        tokio::spawn(async move {
            this.go.notified().await;
            let failed = {
                let mut known = this.known.lock().unwrap();
                known.operation = "idle".into();
                known.progress = (100, "Installing done.".into(), 1);
                known.installed.push((source, text));
                known.last_error = known.fail.clone().unwrap_or_default();
                known.fail.is_some()
            };
            StandIn::completed(&emitter, i32::from(failed)).await.unwrap();
        });
        Ok(())
    }

    async fn get_slot_status(&self) -> fdo::Result<Vec<(String, Dict)>> {
        self.busy()?;
        let known = self.known.lock().unwrap();
        let copy = |dict: &Dict| {
            dict.iter().map(|(key, value)| (key.clone(), value.try_clone().unwrap())).collect()
        };
        Ok(known.slots.iter().map(|(name, dict)| (name.clone(), copy(dict))).collect())
    }

    async fn mark(&self, state: String, slot: String) -> (String, String) {
        let mut known = self.known.lock().unwrap();
        known.slots[0].1.extend(dict([("boot-status", "good".into())]));
        known.marked.push((state, slot));
        ("rootfs.1".into(), "activated slot rootfs.1".into())
    }

    async fn get_primary(&self) -> String {
        "rootfs.0".into()
    }

    #[zbus(signal)]
    async fn completed(emitter: &SignalEmitter<'_>, result: i32) -> zbus::Result<()>;

    #[zbus(property)]
    fn operation(&self) -> String {
        self.known.lock().unwrap().operation.clone()
    }

    #[zbus(property)]
    fn last_error(&self) -> String {
        self.known.lock().unwrap().last_error.clone()
    }

    #[zbus(property)]
    fn progress(&self) -> (i32, String, i32) {
        self.known.lock().unwrap().progress.clone()
    }

    #[zbus(property)]
    fn compatible(&self) -> String {
        "berrymse-test".into()
    }
}

/// A private D-Bus daemon.
struct Bus {
    daemon: Child,
    folder: Folder,
    address: String,
}

impl Bus {
    async fn start() -> Bus {
        let folder = Folder::new();
        // The path of a socket is limited to 107 bytes.
        let name = format!("berrymse-bus-{}", folder.path("").display().to_string().len());
        let unique = folder.path("").file_name().unwrap().to_string_lossy().into_owned();
        let socket = std::env::temp_dir().join(format!("{name}-{unique}"));
        let address = format!("unix:path={}", socket.display());
        let config = folder.write(
            "bus.conf",
            format!(
                "<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>\
                 <policy context='default'><allow own='*'/><allow user='*'/>\
                 <allow send_destination='*'/><allow eavesdrop='true'/></policy></busconfig>"
            ),
        );
        let mut daemon = Command::new("dbus-daemon");
        daemon.arg("--nofork").arg("--nosyslog").arg("--config-file").arg(config);
        let daemon = daemon.stderr(Stdio::null()).spawn().unwrap_or_else(|error| {
            panic!("dbus-daemon: {error}: install it with apt-get install dbus-daemon")
        });
        // The socket exists before the daemon listens.
        wait_until("start of the bus", async || UnixStream::connect(&socket).ok()).await;
        Bus { daemon, folder, address }
    }

    fn upload(&self) -> PathBuf {
        self.folder.path("upload/bundle.raucb")
    }

    async fn server(&self, config: &str) -> Server {
        self.server_with(config, &[]).await
    }

    async fn server_with(&self, config: &str, options: &[&str]) -> Server {
        let data = self.folder.path("");
        let options = [&["--data", data.to_str().unwrap()], options].concat();
        let environment = [("DBUS_SYSTEM_BUS_ADDRESS", self.address.as_str())];
        Server::start_as(config, &options, &environment).await
    }

    /// Starts a stand-in, which runs until its connection is closed.
    async fn rauc(&self) -> (StandIn, zbus::Connection) {
        let rauc = StandIn::default();
        {
            let mut known = rauc.known.lock().unwrap();
            known.operation = "idle".into();
            known.slots = vec![
                slot("rootfs.1", "B", "inactive", "good", None),
                slot("rootfs.0", "A", "booted", "good", Some(("1.5", "2026-01-01T00:00:00Z"))),
                ("boot.0".into(), dict([("class", "boot".into())])),
            ];
        }
        let connection = zbus::connection::Builder::address(self.address.as_str())
            .unwrap()
            .serve_at("/", rauc.clone())
            .unwrap()
            .name("de.pengutronix.rauc")
            .unwrap()
            .build()
            .await
            .unwrap();
        (rauc, connection)
    }
}

fn slot(
    name: &str,
    bootname: &str,
    state: &str,
    boot_status: &str,
    installed: Option<(&str, &str)>,
) -> (String, Dict) {
    let mut status = dict([
        ("bootname", bootname.into()),
        ("state", state.into()),
        ("boot-status", boot_status.into()),
    ]);
    if let Some((version, at)) = installed {
        status
            .extend(dict([("bundle.version", version.into()), ("installed.timestamp", at.into())]));
    }
    (name.into(), status)
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = std::fs::remove_file(self.address.trim_start_matches("unix:path="));
    }
}

async fn update(server: &Server) -> Json {
    server.get("/api/update").await.json()
}

async fn state_becomes(server: &Server, state: &str) -> Json {
    wait_until(state, async || Some(update(server).await).filter(|now| now["state"] == state)).await
}

async fn post_json(server: &Server, body: Json) -> Answer {
    let request = server.request("/api/update").method("POST");
    server.ask_with(request.header(CONTENT_TYPE, "application/json"), body.to_string()).await
}

#[tokio::test]
async fn explains_that_updates_require_the_appliance() {
    let bus = Bus::start().await;
    let nowhere = [("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")];
    for (server, why) in [
        (Server::start_with(TEST_CARD, &nowhere).await, "no D-Bus"),
        (bus.server(TEST_CARD).await, "only the appliance"),
    ] {
        let now = update(&server).await;
        assert_eq!(now["available"], false);
        assert!(now["why"].as_str().unwrap().contains(why), "{now}");
        let answer = server.post("/api/update", bundle("2.0", "berrymse-test")).await;
        assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
        assert!(answer.text.contains(why), "{}", answer.text);
    }
    assert!(!bus.upload().exists());
}

#[tokio::test]
async fn installs_an_upload_with_progress_and_deletes_it() {
    let bus = Bus::start().await;
    let (rauc, _connection) = bus.rauc().await;
    let server = bus.server(TEST_CARD).await;
    let now = update(&server).await;
    assert_eq!((&now["available"], &now["version"]), (&json!(true), &json!("1.5")), "{now}");
    assert_eq!(now["state"], "idle");
    // Only bootable slots, sorted by boot name.
    let slots: Vec<_> = now["slots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["bootname"].clone(), s["booted"].clone()))
        .collect();
    assert_eq!(slots, [(json!("A"), json!(true)), (json!("B"), json!(false))]);

    let new = bundle("2.0", "berrymse-test");
    let answer = server.post("/api/update", new.clone()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let now = state_becomes(&server, "installing").await;
    assert_eq!((&now["progress"], &now["installing"]), (&json!(40), &json!("2.0")), "{now}");
    assert_eq!(now["step"], "Copying image to rootfs.1");
    assert_eq!(
        now["slots"].as_array().unwrap().len(),
        2,
        "the slots must be known even though RAUC does not report them during an installation"
    );
    let answer = server.post("/api/update", new.clone()).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    // A new configuration does not interrupt the installation.
    assert_eq!(
        server.put("/api/config", format!("# new\n{TEST_CARD}")).await.status,
        StatusCode::OK
    );
    rauc.go.notify_one();
    server.started(2).await;
    let now = state_becomes(&server, "installed").await;
    assert_eq!((&now["error"], &now["progress"]), (&Json::Null, &json!(100)));
    let installed = rauc.known.lock().unwrap().installed.clone();
    assert_eq!(installed, [(bus.upload().display().to_string(), new)]);
    assert!(!bus.upload().exists());
}

#[tokio::test]
async fn rejects_older_foreign_and_unsigned_updates() {
    let bus = Bus::start().await;
    let (rauc, _connection) = bus.rauc().await;
    let server = bus.server(TEST_CARD).await;
    for (body, why) in [
        (bundle("1.4", "berrymse-test"), "older than the running 1.5"),
        (bundle("2.0", "toaster"), "another device"),
        ("unsigned bundle".to_string(), "not signed with a certificate"),
    ] {
        let answer = server.post("/api/update", body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        let now = state_becomes(&server, "failed").await;
        assert!(now["error"].as_str().unwrap().contains(why), "{now}");
        assert!(!bus.upload().exists());
    }
    let answer = server.post("/api/update", "").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    // A page on another site.
    let request =
        server.request("/api/update").method("POST").header(ORIGIN, "http://evil.example");
    let answer = server.ask_with(request, bundle("2.0", "berrymse-test")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(rauc.known.lock().unwrap().installed.is_empty());

    // A downgrade on request.
    rauc.go.notify_one();
    let request = server.request("/api/update").method("POST").header("berrymse-downgrade", "true");
    let answer = server.ask_with(request, bundle("1.4", "berrymse-test")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let now = state_becomes(&server, "installed").await;
    assert_eq!((&now["installing"], &now["error"]), (&json!("1.4"), &Json::Null));
}

#[tokio::test]
async fn reports_failures_of_rauc_with_explanation_and_detail() {
    let bus = Bus::start().await;
    let (rauc, connection) = bus.rauc().await;
    let server = bus.server(TEST_CARD).await;
    let error = "Failed updating slot rootfs.1: failed to write: No space left on device";
    rauc.known.lock().unwrap().fail = Some(error.into());
    rauc.go.notify_one();
    server.post("/api/update", bundle("2.0", "berrymse-test")).await;
    let now = state_becomes(&server, "failed").await;
    assert!(now["error"].as_str().unwrap().contains("not enough space"), "{now}");
    assert_eq!(now["detail"], error);

    // RAUC exits during an installation and has not been restarted yet.
    server.post("/api/update", bundle("2.0", "berrymse-test")).await;
    state_becomes(&server, "installing").await;
    connection.close().await.unwrap();
    let now = state_becomes(&server, "failed").await;
    assert!(now["error"].as_str().unwrap().contains("stopped in the middle"), "{now}");
    assert_eq!(now["available"], false);
    assert!(now["why"].as_str().unwrap().contains("restarted shortly"), "{now}");

    // RAUC exits and is restarted immediately: it reports no error and has installed nothing.
    let (_rauc, connection) = bus.rauc().await;
    server.post("/api/update", bundle("2.0", "berrymse-test")).await;
    state_becomes(&server, "installing").await;
    connection.close().await.unwrap();
    let (_rauc, _connection) = bus.rauc().await;
    let now = state_becomes(&server, "failed").await;
    assert!(now["error"].as_str().unwrap().contains("stopped in the middle"), "{now}");
    assert_eq!((&now["available"], &now["installing"]), (&json!(true), &json!("2.0")));
}

#[tokio::test]
async fn deletes_an_interrupted_upload() {
    let bus = Bus::start().await;
    let (rauc, _connection) = bus.rauc().await;
    let server = bus.server(TEST_CARD).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/update HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\r\nsigned 2.0",
        server.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let now = state_becomes(&server, "receiving").await;
    assert!(now["progress"].is_i64(), "{now}");
    wait_until("first bytes of the upload", async || bus.upload().exists().then_some(())).await;
    drop(stream);
    let now = state_becomes(&server, "failed").await;
    assert!(now["error"].as_str().unwrap().contains("ended early"), "{now}");
    assert!(!bus.upload().exists());
    // An update that is too large is rejected before any of it is sent.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/update HTTP/1.1\r\nHost: {}\r\n{CONTENT_LENGTH}: 2000000000\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert!(rauc.known.lock().unwrap().installed.is_empty());
}

#[tokio::test]
async fn fetches_updates_only_from_http_addresses() {
    let bus = Bus::start().await;
    let (rauc, _connection) = bus.rauc().await;
    let server = bus.server(TEST_CARD).await;
    let url = "https://example.org/new.raucb";
    let addresses = [(url.to_string(), bundle("1.4", "berrymse-test"))];
    rauc.known.lock().unwrap().addresses = addresses.into();
    for body in [
        json!({ "url": "/etc/passwd" }),
        json!({ "url": "file:///etc/passwd" }),
        json!({ "downgrade": true }),
        json!({ "url": url, "downgarde": true }),
    ] {
        let answer = post_json(&server, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    }
    assert_eq!(update(&server).await["state"], "idle");
    rauc.go.notify_one();
    let answer = post_json(&server, json!({ "url": url, "downgrade": true })).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    state_becomes(&server, "installed").await;
    assert_eq!(rauc.known.lock().unwrap().installed[0].0, url);
}

/// Starts a web server that answers every request with the same text. Returns its URL.
async fn announce(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}/berrymse.json")
}

#[tokio::test]
async fn offers_only_newer_versions() {
    let bus = Bus::start().await;
    let (_rauc, _connection) = bus.rauc().await;
    let server = bus.server(TEST_CARD).await;
    let answer = post_json(&server, json!({ "check": true })).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    for (text, status, offer) in [
        ("{\"version\": \"1.10\", \"url\": \"new.raucb\"}", StatusCode::OK, Some("1.10")),
        ("{\"version\": \"1.5\", \"url\": \"new.raucb\"}", StatusCode::OK, None),
        ("<html>", StatusCode::BAD_GATEWAY, None),
    ] {
        let url = announce(text).await;
        let server = bus.server(&format!("{TEST_CARD}[update]\nurl = {url:?}\n")).await;
        let answer = post_json(&server, json!({ "check": true })).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        let now = update(&server).await;
        assert_eq!(now["offer"]["version"].as_str(), offer, "{now}");
        if offer.is_some() {
            let there = url.replace("berrymse.json", "new.raucb");
            assert_eq!(now["offer"]["url"], there);
        }
        assert_eq!(now["check_error"].is_string(), status != StatusCode::OK, "{now}");
    }
}

#[tokio::test]
async fn reports_the_failed_system_after_a_fallback() {
    let bus = Bus::start().await;
    let (rauc, _connection) = bus.rauc().await;
    let server = bus.server(TEST_CARD).await;
    assert_eq!(update(&server).await["fell_back"], Json::Null);
    rauc.known.lock().unwrap().slots[0] =
        slot("rootfs.1", "B", "inactive", "bad", Some(("2.0", "2026-02-01T00:00:00Z")));
    let now = update(&server).await;
    assert_eq!(now["fell_back"]["version"], "2.0", "{now}");
    assert!(now["fell_back"]["why"].as_str().unwrap().contains("did not start"), "{now}");
    bus.folder.write("health-error", "camera \"front\": failed\n");
    let now = update(&server).await;
    assert_eq!(now["fell_back"]["why"], "camera \"front\": failed");
}

/// The root helper of the machine.
struct Helper {
    process: Child,
    socket: PathBuf,
}

impl Helper {
    async fn start(folder: &Folder) -> Helper {
        let socket = folder.path("helper");
        let mut command = Command::new(berrymse());
        command.arg("root-helper").arg("--socket").arg(&socket);
        command.arg("--config").arg(folder.path("boot.toml"));
        command.arg("--last-good").arg(folder.path("berrymse.toml"));
        let process = command.stderr(Stdio::null()).spawn().unwrap();
        wait_until("root helper", async || UnixStream::connect(&socket).ok()).await;
        Helper { process, socket }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Slot A recorded a camera before the update: the one that shows the test card now.
fn record(bus: &Bus) {
    let _ = std::fs::create_dir(bus.folder.path("state"));
    bus.folder.write("state/proved-A", "1.5 100\n");
    let camera = json!({ "name": "card", "kind": "v4l2" });
    let record = json!({ "proved": "1.5 100", "cameras": [camera] });
    bus.folder.write("state/cameras-A", record.to_string());
}

fn recorded(bus: &Bus) -> Json {
    let text = std::fs::read_to_string(bus.folder.path("state/cameras-A")).unwrap();
    serde_json::from_str::<Json>(&text).unwrap()["cameras"].clone()
}

const OPEN: &str = "[[camera]]\nname = \"card\"\n";

#[tokio::test]
async fn a_lost_camera_is_reported_after_the_fallback_and_can_be_given_up() {
    let bus = Bus::start().await;
    let (rauc, _connection) = bus.rauc().await;
    let helper = Helper::start(&bus.folder).await;
    let options = ["--slot", "A", "--helper", helper.socket.to_str().unwrap()];
    let server = bus.server_with(OPEN, &options).await;
    record(&bus);
    let give_up = async || post_json(&server, json!({ "without_cameras": true })).await;
    // Nothing has failed.
    let answer = give_up().await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);

    rauc.known.lock().unwrap().slots[0] =
        slot("rootfs.1", "B", "inactive", "bad", Some(("2.0", "2026-02-01T00:00:00Z")));
    // The new system failed for another reason.
    bus.folder.write("health-error", "no pictures: camera \"card\": failed\n");
    let now = update(&server).await;
    assert_eq!(
        (&now["fell_back"]["cameras"], &now["missing_cameras"]),
        (&json!(null), &json!(null))
    );
    let answer = give_up().await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    // It has lost the camera, which is missing here, too.
    let lost = "camera \"card\": shows the test card; it delivered pictures before the update";
    bus.folder.write("health-error", format!("no pictures: berrymse: {lost}\n"));
    let now = update(&server).await;
    assert_eq!(now["fell_back"]["cameras"], json!(["card"]), "{now}");
    assert_eq!(now["missing_cameras"], json!([{ "name": "card", "kind": "v4l2" }]), "{now}");
    assert_eq!(now["trial"], Json::Null, "{now}");

    // Not for a page of another site.
    let request =
        server.request("/api/update").method("POST").header(ORIGIN, "http://evil.example");
    let request = request.header(CONTENT_TYPE, "application/json");
    let answer = server.ask_with(request, "{\"without_cameras\": true}").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(recorded(&bus), json!([{ "name": "card", "kind": "v4l2" }]));
    assert!(rauc.known.lock().unwrap().marked.is_empty());

    let answer = give_up().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let now = answer.json();
    assert_eq!((&now["state"], &now["installing"]), (&json!("installed"), &json!("2.0")), "{now}");
    assert_eq!((&now["fell_back"], &now["missing_cameras"]), (&Json::Null, &Json::Null), "{now}");
    assert_eq!(recorded(&bus), json!([]));
    let marked = rauc.known.lock().unwrap().marked.clone();
    assert_eq!(marked, [("active".to_string(), "other".to_string())]);
}

#[tokio::test]
async fn a_new_system_can_be_kept_although_it_has_lost_a_camera() {
    let bus = Bus::start().await;
    let (rauc, _connection) = bus.rauc().await;
    record(&bus);
    let give_up = json!({ "without_cameras": true });
    // Without the helper, which may change the record.
    let server = bus.server_with(OPEN, &["--slot", "B", "--helper", "/nonexistent"]).await;
    let answer = post_json(&server, give_up.clone()).await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "{}", answer.text);
    drop(server);

    let helper = Helper::start(&bus.folder).await;
    let options = ["--slot", "B", "--helper", helper.socket.to_str().unwrap()];
    let server = bus.server_with(OPEN, &options).await;
    let health = async || server.get("/healthz/update").await.status;
    let now = update(&server).await;
    assert_eq!(now["trial"], true, "{now}");
    assert_eq!(now["missing_cameras"], json!([{ "name": "card", "kind": "v4l2" }]), "{now}");
    assert_eq!(health().await, StatusCode::SERVICE_UNAVAILABLE);
    let answer = post_json(&server, give_up).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.json()["missing_cameras"], Json::Null);
    assert_eq!(health().await, StatusCode::OK);
    assert!(rauc.known.lock().unwrap().marked.is_empty(), "the new system is running already");
}

#[tokio::test]
async fn a_camera_that_is_missing_before_the_restart_is_reported() {
    let bus = Bus::start().await;
    let (rauc, _connection) = bus.rauc().await;
    let server = bus.server_with(OPEN, &["--slot", "A"]).await;
    rauc.go.notify_one();
    server.post("/api/update", bundle("2.0", "berrymse-test")).await;
    let now = state_becomes(&server, "installed").await;
    assert_eq!(now["missing_cameras"], Json::Null, "{now}");
    record(&bus);
    let now = update(&server).await;
    assert_eq!(now["missing_cameras"], json!([{ "name": "card", "kind": "v4l2" }]), "{now}");
}
