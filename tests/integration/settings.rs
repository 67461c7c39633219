//! The configuration over HTTP: who may read it, who may change it, and how a change is applied.

use crate::support::{Answer, Folder, Server, berrymse, wait_until};
use hyper::StatusCode;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_SECURITY_POLICY, ETAG, HOST, IF_MATCH, ORIGIN};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};

const CARD: &str = "# mine\n[[camera]]\nname = \"card\" # the first\nsource = \"test-card\"\n";

/// Waits for the restart with the second configuration, and asserts its cameras.
async fn cameras_become(server: &Server, names: &[&str]) {
    server.started(2).await;
    let status = server.status().await;
    let now = status["cameras"].as_array().unwrap().iter().map(|camera| camera["name"].clone());
    assert_eq!(now.collect::<Vec<_>>(), names);
}

#[tokio::test]
async fn saves_a_change_verbatim_and_applies_it_immediately() {
    let server = Server::start(CARD).await;
    let mut viewer = server.watch("/live").await;
    viewer.text().await;
    let answer = server.get("/api/config").await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, CARD));
    let new = format!("{CARD}# and another\n[[camera]]\nname = 'two'\nsource = \"test-card\"\n");
    let put = server.request("/api/config").method("PUT").header(IF_MATCH, &answer.headers[ETAG]);
    let answer = server.ask_with(put, new.clone()).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({ "reboot": false })));
    cameras_become(&server, &["card", "two"]).await;
    assert_eq!(server.get("/api/config").await.text, new);
    // The viewer was told to reconnect.
    while let Some(message) = viewer.next().await {
        if let tokio_tungstenite::tungstenite::Message::Close(frame) = message {
            assert_eq!(u16::from(frame.unwrap().code), 1001);
        }
    }
    let mut viewer = server.watch("/live/two").await;
    assert_eq!(viewer.text().await["type"], "init");
}

#[tokio::test]
async fn rejects_invalid_configurations_with_line_and_column() {
    let server = Server::start(CARD).await;
    for (broken, line, column, says) in [
        (format!("{CARD}widht = 1280\n"), json!(5), json!(1), "did you mean `width`?"),
        ("[[camera]]\nname = \"\u{e4}\"\n".into(), json!(2), json!(8), "invalid camera name"),
        (
            "[network]\nwifi = { ssid = 'x', psk = \"********\", country = 'DE' }".into(),
            json!(2),
            json!(28),
            "keeps the current",
        ),
        (
            "[system]\nhostname = 'x'\nssh_keys = ['ssh-rsa AAAA']".into(),
            json!(3),
            json!(12),
            "SSH key",
        ),
        ("[[camera]]\nsource = { command = [\"sh\"] }".into(), json!(null), json!(null), "command"),
    ] {
        let answer = server.put("/api/config", broken).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        let answer = answer.json();
        assert_eq!((&answer["line"], &answer["column"]), (&line, &column), "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
    }
    let answer = server.put("/api/config", &b"\xff"[..]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let answer = server.put("/api/config", vec![b'#'; 256 * 1024 + 1]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let stale = server.request("/api/config").method("PUT").header(IF_MATCH, "\"stale\"");
    let answer = server.ask_with(stale, "").await;
    assert_eq!(answer.status, StatusCode::PRECONDITION_FAILED, "{}", answer.text);
    let answer = server.ask(server.request("/api/config").method("DELETE")).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers[ALLOW], "GET, HEAD, PUT");
    assert_eq!(server.get("/api/config").await.text, CARD);
}

#[tokio::test]
async fn rejects_changes_from_other_origins() {
    let config = format!("{CARD}[server]\norigins = [\"http://friend.example\", \"*\"]\n");
    let server = Server::start(&config).await;
    let own = format!("http://{}", server.address);
    for (origin, allowed) in [
        ("http://friend.example", false),
        ("https://evil.example", false),
        ("null", false),
        (own.as_str(), true),
    ] {
        for (method, path) in [("PUT", "/api/config"), ("POST", "/api/reboot")] {
            let request = server.request(path).method(method).header(ORIGIN, origin);
            let answer = server.ask_with(request, "[broken").await;
            assert_eq!(answer.status != StatusCode::FORBIDDEN, allowed, "{origin} {path}");
        }
    }
    // A foreign host name that resolves to this machine.
    let mut request = server.request("/api/config");
    request.headers_mut().unwrap().insert(HOST, "rebound.example".parse().unwrap());
    assert_eq!(server.ask(request).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn masks_passwords_unless_the_client_is_authenticated() {
    let wifi = "[network]\nwifi = { ssid = \"x\", psk = \"very secret\", country = \"DE\" }\n";
    let server = Server::start(wifi).await;
    let answer = server.get("/api/config").await;
    let masked = wifi.replace("very secret", "********");
    assert_eq!(answer.text, masked);
    // Saving the mask keeps the old password.
    let new = format!("{masked}[server]\npassword = \"open sesame\"\n");
    let answer = server.put("/api/config", new.clone()).await;
    assert_eq!(answer.json(), json!({ "reboot": false }), "{}", answer.text);
    let config = std::fs::read_to_string(server.folder.path("berrymse.toml")).unwrap();
    assert_eq!(config, new.replace("********", "very secret"));

    // From now on, a password is required.
    server.started(2).await;
    let get = async |authorization: &str| -> Answer {
        server.ask(server.request("/api/config").header(AUTHORIZATION, authorization)).await
    };
    let refused = get("Basic OnNlc2FtZQ==").await; // :sesame
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(!refused.text.contains("secret"));
    assert_eq!(get("Basic Om9wZW4gc2VzYW1l").await.text, config); // :open sesame
}

/// Framing would allow clickjacking.
#[tokio::test]
async fn settings_page_forbids_framing() {
    let server = Server::start(CARD).await;
    let policy = async |path: &str| {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap().to_string()
    };
    assert!(policy("/settings.html").await.contains("frame-ancestors 'none'"));
    assert!(
        policy("/").await.contains("frame-ancestors *"),
        "other sites must be able to embed the video"
    );
}

#[tokio::test]
async fn keeps_configured_commands_and_rejects_new_ones() {
    let command = "[[camera]]\nname = \"a\"\nsource = { command = [\"sleep\", \"1000\"] }\n";
    let server = Server::start(command).await;
    let answer = server.put("/api/config", command.replace("\"a\"", "\"b\"")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    cameras_become(&server, &["b"]).await;
    let answer = server.put("/api/config", command.replace("1000", "1001")).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text.contains("cannot be set over the network"), "{}", answer.text);
}

#[tokio::test]
async fn explains_what_to_do_without_root() {
    let server = Server::start(CARD).await;
    let answer = server.post("/api/reboot", "").await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    assert!(answer.text.contains("appliance"), "{}", answer.text);
    std::fs::remove_file(server.folder.path("berrymse.toml")).unwrap();
    let answer = server.get("/api/config").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    std::fs::remove_dir(server.folder.path("")).unwrap();
    let answer = server.put("/api/config", CARD).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text.contains("cannot write "), "{}", answer.text);
}

#[tokio::test]
async fn keeps_serving_if_the_new_address_is_unavailable() {
    let server = Server::start("[server]\nlisten = \"127.0.0.1:0\"\n").await;
    // An address for documentation (RFC 5737), which no machine uses.
    let new = format!("[server]\nlisten = \"203.0.113.7:2020\"\n{CARD}");
    assert_eq!(server.put("/api/config", new).await.status, StatusCode::OK);
    cameras_become(&server, &["card"]).await;
    let status = server.status().await;
    let error = status["config_error"].as_str().unwrap();
    assert!(error.contains("203.0.113.7") && error.contains("Until this is corrected"), "{error}");
}

/// `berrymse root-helper`. Never ask it for a reboot: it would reboot this machine.
struct Helper(Child);

impl Helper {
    fn start(socket: &Path, folder: &Folder) -> Helper {
        let mut helper = Command::new(berrymse());
        helper.arg("root-helper").arg("--socket").arg(socket);
        helper.arg("--config").arg(folder.path("boot.toml"));
        helper.arg("--last-good").arg(folder.path("data/berrymse.toml"));
        Helper(helper.spawn().unwrap())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn root_helper_writes_the_files_on_the_appliance() {
    let folder = Folder::new();
    let socket = folder.path("root");
    let helper = Helper::start(&socket, &folder);
    wait_until("start of the helper", async || socket.exists().then_some(())).await;
    let options = ["--helper", socket.to_str().unwrap()];
    let server = Server::start_as(CARD, &options, &[]).await;
    let new = format!("{CARD}[system]\nhostname = \"new\"\n");
    let answer = server.put("/api/config", new.clone()).await;
    assert_eq!(answer.json(), json!({ "reboot": true }));
    for name in ["boot.toml", "data/berrymse.toml"] {
        assert_eq!(std::fs::read_to_string(folder.path(name)).unwrap(), new);
    }
    // The server itself has not written its file.
    let own = std::fs::read_to_string(server.folder.path("berrymse.toml")).unwrap();
    assert_eq!(own, CARD);
    drop(helper);
    server.started(2).await;
    let answer = server.put("/api/config", CARD).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.text.contains("does not respond"), "{}", answer.text);
}

#[tokio::test]
async fn reports_and_requests_a_required_reboot() {
    let folder = Folder::new();
    let socket = folder.path("root");
    // In place of the helper, which would reboot the machine that runs this test.
    let listener = UnixListener::bind(&socket).unwrap();
    let stand_in = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        stream.write_all(b"ok\n").unwrap();
        line
    });
    let server = Server::start_as(CARD, &["--helper", socket.to_str().unwrap()], &[]).await;
    assert_eq!(server.status().await["reboot_needed"], false);
    let answer = server.post("/api/reboot", "").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(stand_in.join().unwrap(), "reboot\n");

    let server = Server::start(CARD).await;
    let new =
        format!("{CARD}[[camera]]\nname = 'x'\nsource = 'test-card'\n[system]\nhostname = 'x'\n");
    assert_eq!(server.put("/api/config", new).await.json(), json!({ "reboot": true }));
    server.started(2).await;
    assert_eq!(server.status().await["reboot_needed"], true);
    assert_eq!(server.put("/api/config", CARD).await.json(), json!({ "reboot": false }));
    server.started(3).await;
    assert_eq!(server.status().await["reboot_needed"], false);
}

/// A report as `berrymse wifi` writes it, so that no wireless interface is needed.
const ACCESS_POINT: &str = r#"{"access_point": "BerryMSE-1a2b", "error": "no network named \"x\" is in range",
    "networks": [{"ssid": "Home", "signal": -50, "locked": true}]}"#;

#[tokio::test]
async fn changes_only_the_wifi_settings_in_the_file() {
    let folder = Folder::new();
    let report = folder.path("wifi.json");
    let server = Server::start_as(CARD, &["--wifi", report.to_str().unwrap()], &[]).await;
    let wish = json!({ "ssid": "Home", "psk": "very secret", "country": "DE" }).to_string();
    assert_eq!(server.get("/api/wifi").await.json(), json!({ "available": false }));
    let answer = server.put("/api/wifi", wish.clone()).await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "{}", answer.text);

    folder.write("wifi.json", ACCESS_POINT);
    let state = server.get("/api/wifi").await.json();
    assert_eq!(state["available"], true);
    assert_eq!(state["access_point"], "BerryMSE-1a2b");
    assert_eq!(state["networks"][0]["ssid"], "Home");
    for (broken, says) in [
        ("", "EOF"),
        (r#"{"ssid": "x"}"#, "country"),
        (r#"{"ssid": "", "country": "DE"}"#, "\"error\":\"invalid network name of 0 bytes"),
        (r#"{"ssid": "x", "psk": "short", "country": "DE"}"#, "8 to 63"),
        (r#"{"ssid": "x", "country": "Germany"}"#, "invalid country"),
    ] {
        let answer = server.put("/api/wifi", broken).await;
        assert!(answer.status.is_client_error() && answer.text.contains(says), "{}", answer.text);
    }
    assert_eq!(server.get("/api/config").await.text, CARD);
    // Applied immediately, without a reboot.
    let answer = server.put("/api/wifi", wish).await;
    assert_eq!(answer.json(), json!({ "reboot": false }), "{}", answer.text);
    let line = "wifi = { ssid = \"Home\", psk = \"very secret\", country = \"DE\" }";
    let text = std::fs::read_to_string(server.folder.path("berrymse.toml")).unwrap();
    assert_eq!(text, format!("{CARD}\n[network]\n{line}\n"));
    server.started(2).await;
    let state = server.get("/api/wifi").await;
    assert_eq!((&state.json()["ssid"], &state.json()["country"]), (&json!("Home"), &json!("DE")));
    assert!(!state.text.contains("very secret"));
    let evil = server.request("/api/wifi").method("PUT").header(ORIGIN, "https://evil.example");
    assert_eq!(server.ask_with(evil, "{}").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn access_point_redirects_every_host_name_to_the_page() {
    let folder = Folder::new();
    let report = folder.path("wifi.json");
    let config = format!("{CARD}[server]\npassword = \"asked for later\"\n");
    let server = Server::start_as(&config, &["--wifi", report.to_str().unwrap()], &[]).await;
    let visit = async |host: &str, path: &str| {
        let mut request = server.request(path);
        request.headers_mut().unwrap().insert(HOST, host.parse().unwrap());
        server.ask(request).await
    };
    let probes = [
        ("connectivitycheck.gstatic.com", "/generate_204"),
        ("captive.apple.com", "/hotspot-detect.html"),
        ("www.msftconnecttest.com", "/connecttest.txt"),
        ("nmcheck.gnome.org", "/check_network_status.txt"),
    ];
    for (host, path) in probes {
        assert_eq!(
            visit(host, path).await.status,
            StatusCode::FORBIDDEN,
            "the access point is stopped"
        );
    }
    folder.write("wifi.json", ACCESS_POINT);
    for (host, path) in probes {
        let answer = visit(host, path).await;
        assert_eq!(answer.status, StatusCode::FOUND);
        assert_eq!(answer.headers["location"], "http://10.20.20.1/settings.html");
    }
    for host in ["10.20.20.1", "berrymse.local", "berrymse"] {
        let answer = visit(host, "/settings.html").await;
        assert_eq!(
            answer.status,
            StatusCode::UNAUTHORIZED,
            "requests for its own names must not be redirected"
        );
    }
    folder.write("wifi.json", r#"{"joined": "Home", "networks": []}"#);
    assert_eq!(visit(probes[0].0, probes[0].1).await.status, StatusCode::FORBIDDEN);
}
