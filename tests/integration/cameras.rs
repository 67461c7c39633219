//! Cameras that are found late, and cameras that are lost with an update.

use crate::support::{Feed, Folder, Server, berrymse, wait_until, within};
use berrymse::camera::test_card;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

// ---- A camera that is found late ----

/// A FAKE of rpicam-vid, which finds a camera once the file `ready` exists. There is no Raspberry Pi
/// here. Returns the value of PATH.
fn fake_rpicam(folder: &Folder, list: &str) -> String {
    let clip = folder.write("clip.h264", test_card::CLIP);
    let script = format!(
        "#!/bin/sh\n# A fake, for tests.\ncase $1 in --list-cameras) {list} ;; --help) exit ;; esac\n\
         while cat {}; do sleep 0.2; done\n",
        clip.display()
    );
    let program = folder.write("rpicam-vid", script);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap())
}

fn shows(camera: &Value, source: &str) -> bool {
    camera["state"] == "streaming" && camera["source"].as_str().unwrap().starts_with(source)
}

#[tokio::test]
async fn a_camera_that_is_ready_late_replaces_the_test_card() {
    let folder = Folder::new();
    let ready = folder.path("ready");
    let list = format!(
        "if [ -e {} ]; then echo '0 : imx708 [4608x2592 10-bit RGGB] (/base/soc/imx708@1a)'; \
         else echo 'No cameras available!'; fi; exit",
        ready.display()
    );
    let path = fake_rpicam(&folder, &list);
    let server = Server::start_with("[[camera]]\nname = \"pi\"\n", &[("PATH", &path)]).await;
    let card = server.camera_until("pi", "test card", |now| shows(now, "the test card")).await;
    assert_eq!(card["kind"], Value::Null);
    let mut viewer = server.watch("/live").await;
    assert_eq!(viewer.text().await["type"], "init");
    let viewing = tokio::spawn(async move { while viewer.next().await.is_some() {} });
    folder.write("ready", "");
    let pi = server.camera_until("pi", "rpicam-vid", |now| shows(now, "rpicam-vid")).await;
    assert_eq!((&pi["kind"], &pi["restarts"]), (&json!("raspberry-pi"), &json!(0)), "{pi:#}");
    // The viewer stays connected.
    let frames = pi["frames"].as_u64().unwrap();
    let more = |now: &Value| now["frames"].as_u64().unwrap() > frames + 100;
    assert_eq!(server.camera_until("pi", "more frames", more).await["viewers"], 1);
    assert!(!viewing.is_finished());
    // The test card does not return if the camera fails.
    std::fs::remove_file(ready).unwrap();
    std::fs::remove_file(folder.path("clip.h264")).unwrap();
    let failed = server.camera_until("pi", "failure", |now| now["state"] == "failed").await;
    assert_eq!(failed["source"], pi["source"]);
}

#[tokio::test]
async fn a_search_that_takes_forever_does_not_stop_the_test_card() {
    let folder = Folder::new();
    let path = fake_rpicam(&folder, "exec sleep 90");
    let mut server = Server::start_with("[[camera]]\nname = \"pi\"\n", &[("PATH", &path)]).await;
    server.camera_until("pi", "test card", |now| shows(now, "the test card")).await;
    server.terminate();
    assert!(server.ended().await.success());
}

// ---- Cameras before an update ----

/// A system in a slot, with its data directory.
struct System {
    folder: Folder,
}

impl System {
    /// Slot A was marked good.
    fn new() -> System {
        let folder = Folder::new();
        std::fs::create_dir(folder.path("state")).unwrap();
        folder.write("state/proved-A", "0.1.0 1764547200\n");
        System { folder }
    }

    async fn start(&self, slot: &str, config: &str) -> Server {
        self.start_with(slot, config, &[]).await
    }

    async fn start_with(&self, slot: &str, config: &str, options: &[&str]) -> Server {
        let data = self.folder.path("").display().to_string();
        let options = [&["--data", &data, "--slot", slot], options].concat();
        Server::start_as(config, &options, &[]).await
    }

    /// Writes the record of slot A: names and kinds.
    fn record(&self, cameras: &[(&str, &str)]) {
        let cameras: Vec<Value> =
            cameras.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
        let record = json!({ "proved": "0.1.0 1764547200", "cameras": cameras });
        self.folder.write("state/cameras-A", record.to_string());
    }

    /// Runs `berrymse record-cameras` in slot A. Returns its output and the record.
    async fn record_cameras(&self, server: &str) -> (Output, Option<Value>) {
        let data = self.folder.path("");
        let mut command = Command::new(berrymse());
        command.args(["record-cameras", "--slot", "A", "--url", server, "--data"]).arg(data);
        let output = run(command).await;
        let text = std::fs::read_to_string(self.folder.path("state/cameras-A")).ok();
        (output, text.map(|text| serde_json::from_str(&text).unwrap()))
    }
}

async fn run(mut command: Command) -> Output {
    let task = tokio::task::spawn_blocking(move || command.output().unwrap());
    within("the end of the command", task).await.unwrap()
}

/// Runs `berrymse health`. Returns its exit status and its output.
async fn health(server: &Server, options: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(berrymse());
    command.args(["health", "--url", &format!("http://{}", server.address)]).args(options);
    let output = run(command).await;
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A camera whose command plays the test card. For the server, a command is a real camera.
fn playing(folder: &Folder, name: &str) -> String {
    let clip = folder.write("clip.h264", test_card::CLIP);
    let play = format!("while cat {}; do sleep 0.2; done", clip.display());
    format!("[[camera]]\nname = {name:?}\nsource = {{ command = [\"sh\", \"-c\", {play:?}] }}\n")
}

const FAILING: &str = "[[camera]]\nname = \"gone\"\nsource = { command = [\"false\"] }\n";
const CARD: &str = "[[camera]]\nname = \"front\"\nsource = \"test-card\"\n";

#[tokio::test]
async fn records_what_the_cameras_show() {
    let system = System::new();
    let config = format!(
        "[server]\npassword = \"secret\"\n{}{FAILING}{CARD}",
        playing(&system.folder, "porch")
    );
    let server = system.start("A", &config).await;
    wait_until("health of all but one", async || {
        (server.get("/healthz").await.text.trim() == "camera \"gone\": failed").then_some(())
    })
    .await;
    let url = format!("http://{}", server.address);
    let (output, record) = system.record_cameras(&url).await;
    assert!(output.status.success(), "{output:?}");
    let shown = json!([
        { "name": "porch", "kind": "command" },
        { "name": "front", "kind": "test-card" },
    ]);
    let expected = json!({ "proved": "0.1.0 1764547200", "cameras": shown });
    assert_eq!(record, Some(expected));
    // The old system itself requires none of them.
    assert_eq!(server.get("/healthz/update").await.text.trim(), "camera \"gone\": failed");

    // The record of an earlier update does not remain if the server does not reply.
    drop(server);
    let (output, record) = system.record_cameras(&url).await;
    assert_eq!((output.status.code(), record), (Some(1), None));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot reach"), "{output:?}");
}

#[tokio::test]
async fn a_change_of_the_configuration_does_not_hide_a_camera_that_has_delivered_pictures() {
    let system = System::new();
    let mut feed = Feed::new(&system.folder, "feed");
    let config = format!("[[camera]]\nname = \"front\"\nsource = {}\n", feed.source());
    let server = system.start("A", &config).await;
    let recent = async || server.get("/healthz/cameras").await.json();
    assert_eq!(recent().await, json!([]));
    feed.send(test_card::CLIP);
    let front = json!([{ "name": "front", "kind": "command" }]);
    wait_until("pictures", async || (recent().await == front).then_some(())).await;
    // After the change, the camera delivers nothing.
    let put = async |config: &str| server.put("/api/config", config.to_string()).await.status;
    assert_eq!(put(&format!("{config}bitrate = 1_000_000\n")).await, StatusCode::OK);
    server.started(2).await;
    assert_eq!(recent().await, front);
    // A different camera with the same name.
    assert_eq!(put(CARD).await, StatusCode::OK);
    server.started(3).await;
    assert_ne!(recent().await, front);
}

// ---- Cameras after an update ----

#[tokio::test]
async fn a_new_system_that_shows_the_test_card_in_place_of_a_camera_is_unhealthy() {
    let system = System::new();
    system.record(&[("front", "raspberry-pi")]);
    let empty = system.folder.path("empty");
    std::fs::create_dir(&empty).unwrap();
    // Without rpicam-vid.
    let data = system.folder.path("").display().to_string();
    let start = async |slot| {
        let options = ["--data", &data, "--slot", slot];
        let environment = [("PATH", empty.to_str().unwrap())];
        let server =
            Server::start_as("[[camera]]\nname = \"front\"\n", &options, &environment).await;
        server.camera_until("front", "test card", |now| shows(now, "the test card")).await;
        server
    };
    let server = start("B").await;
    let lost = "camera \"front\": shows the test card; it delivered pictures before the update";
    for path in ["/healthz", "/healthz/update"] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.status, answer.text.trim()),
            (StatusCode::SERVICE_UNAVAILABLE, lost),
            "{path}"
        );
    }
    for options in [&[][..], &["--since-update"]] {
        let expected = (Some(3), format!("berrymse: {lost}\n"));
        assert_eq!(health(&server, options).await, expected, "{options:?}");
    }
    assert_eq!(server.status().await["missing_cameras"], json!(["front"]));

    // The keeper removes the record of the old system when it marks the new one good.
    std::fs::remove_file(system.folder.path("state/cameras-A")).unwrap();
    assert_eq!(health(&server, &["--since-update"]).await.0, Some(0));
    assert_eq!(server.status().await["missing_cameras"], Value::Null);

    // The same in the old system is not an error of this system.
    system.record(&[("front", "raspberry-pi")]);
    drop(server);
    let server = start("A").await;
    assert_eq!(health(&server, &["--since-update"]).await, (Some(0), String::new()));
    assert_eq!(server.status().await["missing_cameras"], Value::Null);
    // Unless the new system has failed for this reason: then it is missing in both.
    let error = format!("no pictures within 45 s: berrymse: {lost}\n");
    system.folder.write("health-error", error);
    assert_eq!(server.status().await["missing_cameras"], json!(["front"]));
    assert_eq!(health(&server, &["--since-update"]).await, (Some(0), String::new()));
}

/// Without a record or a slot, the health check is the same as in earlier versions.
#[tokio::test]
async fn only_recorded_cameras_are_required_and_only_as_long_as_they_are_configured() {
    let system = System::new();
    let porch = playing(&system.folder, "porch");
    let (ok, bad) = (Some(0), Some(3));
    let both = format!("{porch}{FAILING}");
    for (recorded, config, expected) in [
        // The same camera, and a camera that did not deliver video before.
        (&[("porch", "command")][..], &both, ok),
        (&[("gone", "command")], &both, bad),
        (&[], &both, ok),
        // The test card is replaced by a camera or by the test card, but not by an error.
        (&[("porch", "test-card")], &porch, ok),
        (&[("front", "test-card")], &format!("{porch}{CARD}"), ok),
        (&[("gone", "test-card")], &both, bad),
        // Another kind of camera cannot be meant: the user has changed the source since.
        (&[("porch", "raspberry-pi")], &porch, ok),
        (&[("front", "v4l2")], &format!("{porch}{CARD}"), ok),
        // Renamed or removed since.
        (&[("garden", "command")], &porch, ok),
        // A kind from a newer version: any real camera is sufficient, the test card is not.
        (&[("porch", "hologram")], &porch, ok),
        (&[("gone", "hologram")], &both, bad),
    ] {
        system.record(recorded);
        let server = system.start("B", config).await;
        server.camera_until("porch", "pictures", |now| now["state"] == "streaming").await;
        if config.contains("gone") {
            server.camera_until("gone", "failure", |now| now["state"] == "failed").await;
        }
        let (code, text) = health(&server, &["--since-update"]).await;
        assert_eq!(code, expected, "{recorded:?} {config}: {text}");
    }

    // No usable record.
    let server = system.start("B", &both).await;
    server.camera_until("porch", "pictures", |now| now["state"] == "streaming").await;
    server.camera_until("gone", "failure", |now| now["state"] == "failed").await;
    for record in [None, Some(""), Some("{}"), Some("[{\"name\": \"porch\"")] {
        let file = system.folder.path("state/cameras-A");
        let _ = std::fs::remove_file(&file);
        if let Some(text) = record {
            std::fs::write(&file, text).unwrap();
        }
        let expected = (bad, "berrymse: camera \"gone\": failed\n".into());
        for options in [&[][..], &["--since-update"]] {
            assert_eq!(health(&server, options).await, expected, "{record:?}");
        }
        assert_eq!(server.status().await["missing_cameras"], Value::Null, "{record:?}");
    }
}

#[tokio::test]
async fn another_kind_of_camera_does_not_replace_a_lost_one() {
    let system = System::new();
    let path = fake_rpicam(&system.folder, "echo '0 : imx708 [4608x2592]'; exit");
    let data = system.folder.path("").display().to_string();
    let options = ["--data", &data, "--slot", "B"];
    let config = "[[camera]]\nname = \"front\"\n";
    let server = Server::start_as(config, &options, &[("PATH", &path)]).await;
    server.camera_until("front", "rpicam-vid", |now| shows(now, "rpicam-vid")).await;
    for (kind, expected) in [("raspberry-pi", Some(0)), ("test-card", Some(0)), ("v4l2", Some(3))] {
        system.record(&[("front", kind)]);
        let (code, text) = health(&server, &["--since-update"]).await;
        assert_eq!(code, expected, "{kind}: {text}");
        assert_eq!(code == Some(3), text.contains("shows another camera; it delivered"), "{text}");
    }
}

#[tokio::test]
async fn a_new_system_that_cannot_read_the_configuration_has_lost_its_cameras() {
    let system = System::new();
    system.record(&[("front", "v4l2")]);
    let missing = system.folder.path("no-last-good.toml").display().to_string();
    let options = ["--last-good", &missing];
    let server = system.start_with("B", "[[camera]]\nnaem = \"front\"\n", &options).await;
    let (code, text) = health(&server, &["--since-update"]).await;
    assert_eq!(code, Some(3));
    assert!(text.contains("camera \"front\": not configured; it delivered pictures"), "{text}");
}
