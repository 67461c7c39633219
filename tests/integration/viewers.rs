//! Viewers: start, falling behind, stream changes, restarts, access control and shutdown.

use crate::support::{
    Clip, Feed, Folder, Frame, Server, TEST_CARD, Viewer, assert_even, berrymse, decode, describe,
    frames, next_message, processes_with, split_init, wait_until, within,
};
use futures_util::SinkExt;
use http_body_util::BodyExt;
use hyper::header::{ALLOW, AUTHORIZATION, COOKIE, HOST, HeaderValue, ORIGIN, SET_COOKIE};
use hyper::{Method, StatusCode};
use mp4_atom::Codec;
use rustix::process::{Pid, Signal, kill_process};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// Size of an access unit delimiter, in bytes. Sent after a frame, it marks the end of that frame.
const DELIMITER: usize = 6;

fn camera(name: &str, source: &str) -> String {
    format!("[[camera]]\nname = {name:?}\nsource = {source}\n")
}

/// Sends frames of a clip that contains delimiters, all at once, and the delimiter that follows them.
fn burst(feed: &mut Feed, clip: &Clip, range: std::ops::Range<usize>) {
    for n in range {
        // Each delimiter was sent with the frame before it, except the first.
        let from = if n == 0 { 0 } else { DELIMITER };
        feed.send(&clip.unit(n)[from..]);
        feed.send(&clip.unit(n + 1)[..DELIMITER]);
    }
}

/// Returns the frame in a message that contains exactly one.
fn one_frame(message: &[u8]) -> Frame {
    let frames = frames(message);
    assert_eq!(frames.len(), 1);
    frames[0]
}

/// Returns the decode time of the last frame in a message.
fn last_time(message: &[u8]) -> u64 {
    let moof = message.windows(4).rposition(|four| four == b"tfdt").unwrap();
    u64::from_be_bytes(message[moof + 8..moof + 16].try_into().unwrap())
}

/// Creates a request for the server's time. The response has the same `id`.
fn time_request(id: u32) -> Message {
    Message::text(format!("{{\"type\":\"time\",\"id\":{id}}}"))
}

#[tokio::test]
async fn answers_time_requests() {
    let folder = Folder::new();
    let clip = Clip::encode(&folder, "clip", "320x240", 30, "-g 300 -x264-params aud=1");
    let mut feed = Feed::new(&folder, "pipe");
    let server = Server::start(&camera("front", &feed.source())).await;
    let mut early = server.watch("/live").await;
    early.socket.send(time_request(1)).await.unwrap();
    let answer = early.text().await;
    assert_eq!((&answer["type"], &answer["id"]), (&"time".into(), &1.into()));
    assert!(
        answer.get("frame").is_none(),
        "the response names a frame before the first one was sent: {answer}"
    );

    burst(&mut feed, &clip, 0..5);
    server.camera_until("front", "the frames", |camera| camera["frames"] == 5).await;
    let mut viewer = server.watch("/live").await;
    assert_eq!(viewer.text().await["type"], "init");
    let newest = last_time(&viewer.binary().await);
    let mut last = answer["now"].as_f64().unwrap();
    let mut last_asked = Instant::now();
    for id in 2..6 {
        let asked = Instant::now();
        // Messages that are not valid requests are ignored.
        viewer.socket.send(Message::text("{\"type\":\"time\"}")).await.unwrap();
        viewer.socket.send(Message::text("[]")).await.unwrap();
        viewer.socket.send(time_request(id)).await.unwrap();
        let answer = viewer.text().await;
        let now = answer["now"].as_f64().unwrap();
        assert_eq!(answer["id"], id);
        assert_eq!(answer["frame"]["time"], newest);
        assert!(answer["frame"]["published"].as_f64().unwrap() <= now, "{answer}");
        assert!(now > last, "the time does not advance");
        if id > 2 {
            // The server read its clock twice between the previous request and this response, so no
            // more time can have passed, whatever the load. The times are in milliseconds.
            let most = last_asked.elapsed().as_secs_f64() * 1000.0;
            assert!(now - last <= most + 0.01, "{last} to {now} in {most} ms");
        }
        (last, last_asked) = (now, asked);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Frames arrive between the responses.
    burst(&mut feed, &clip, 5..6);
    assert!(last_time(&viewer.binary().await) > newest);
}

#[tokio::test]
async fn status_allows_the_configured_origins() {
    let config = format!("[server]\norigins = [\"https://example.org\"]\n{TEST_CARD}");
    let server = Server::start(&config).await;
    for (origin, allowed) in [("https://example.org", true), ("https://example.com", false)] {
        let request = server.request("/api/status").header(ORIGIN, origin);
        let answer = server.send(request).await;
        let header = answer.headers().get("access-control-allow-origin");
        assert_eq!(header.map(|value| value.to_str().unwrap()), allowed.then_some(origin));
        assert_eq!(answer.headers()["vary"], "Origin");
    }
}

/// At the start, the test card sends all frames since its last key frame at once.
#[tokio::test]
async fn initial_backlog_does_not_raise_the_frame_rate() {
    let server = Server::start("[[camera]]\nsource = \"test-card\"\n").await;
    server
        .camera_until("camera", "a frame rate", |camera| {
            let rate = camera["framerate"].as_f64().unwrap();
            // The rate is computed over the longer of two periods, between arrivals or between due
            // times, so load can only lower it.
            assert!(rate < 31.0, "{camera}");
            rate > 0.0 && camera["frames"].as_u64() > Some(20)
        })
        .await;
}

#[tokio::test]
async fn new_viewers_get_the_whole_group_of_pictures() {
    let folder = Folder::new();
    let options = "-g 300 -keyint_min 300 -sc_threshold 0 -x264-params aud=1";
    let clip = Clip::encode(&folder, "long", "320x240", 300, options);
    let mut feed = Feed::new(&folder, "pipe");
    let server = Server::start(&camera("long", &feed.source())).await;
    let mut sent = 0;
    for until in [1, 2, 40, 150, 299, 300, 301, 330] {
        burst(&mut feed, &clip, sent..until);
        sent = until;
        server.camera_until("long", "the frames", |camera| camera["frames"] == sent).await;
        // The camera sends nothing more in this round, so viewers receive only the frames kept so far.
        let in_group = (sent - 1) % 300 + 1;

        let mut viewer = server.watch("/live").await;
        let text = viewer.text().await;
        assert_eq!((&text["type"], &text["width"]), (&"init".into(), &320.into()), "{text}");
        let start = viewer.binary().await;
        let group = frames(split_init(&start).1);
        assert_eq!(group.len(), in_group);
        assert!(group[0].key);
        assert_even(&group);
        let decoded = decode(&folder.write("group.mp4", &start));
        assert_eq!((decoded.pictures.len(), decoded.complaints.as_str()), (in_group, ""));

        let mut viewer = server.watch("/video_websocket").await;
        split_init(&viewer.binary().await);
        for frame in &group {
            assert_eq!(one_frame(&viewer.binary().await), *frame);
        }
        let mut body = server.send(server.request("/live.mp4")).await.into_body();
        let mut file = vec![];
        while file.len() < start.len() {
            let data = within("the group", body.frame()).await.unwrap().unwrap();
            file.extend(data.into_data().unwrap());
        }
        // The file has a different sample entry (avc3) of the same length.
        assert_eq!(frames(split_init(&file).1), group);
    }
}

#[tokio::test]
async fn video_websocket_serves_pages_for_the_go_version() {
    let server = Server::start(TEST_CARD).await;
    let mut viewer = server.watch("/video_websocket").await;
    let first = viewer.binary().await;
    let (moov, rest) = split_init(&first);
    assert!(rest.is_empty());
    assert!(matches!(moov.trak[0].mdia.minf.stbl.stsd.codecs[..], [Codec::Avc1(_)]));
    assert!(first.windows(4).any(|name| name == b"avcC"));
    let mut frames = vec![];
    for n in 0..70 {
        let message = viewer.binary().await;
        assert_eq!(&message[76..80], b"trun");
        let frame = one_frame(&message);
        assert_eq!(message[92], if frame.key { 2 } else { 1 });
        assert!(n > 0 || frame.key, "the stream does not start with a key frame");
        frames.push(frame);
    }
    assert_even(&frames);
    assert!(frames[1..].iter().any(|frame| frame.key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_viewer_resumes_at_a_key_frame_while_others_lose_nothing() {
    let folder = Folder::new();
    let options = "-vf noise=alls=80:allf=t -b:v 14M -minrate 14M -maxrate 14M -bufsize 2M \
                   -g 15 -keyint_min 15 -x264-params aud=1";
    let clip = Clip::encode(&folder, "heavy", "640x480", 60, options);
    assert!(clip.data.len() > 60 * 40_000, "{} bytes", clip.data.len());
    let mut feed = Feed::new(&folder, "pipe");
    let server = Server::start(&camera("heavy", &feed.source())).await;
    tokio::spawn(async move { feed.play(&clip, 0..usize::MAX).await });

    let mut other = server.watch("/live").await;
    assert_eq!(other.text().await["type"], "init");
    let seen = Arc::new(Mutex::new(frames(split_init(&other.binary().await).1)));
    let task = tokio::spawn({
        let seen = seen.clone();
        async move {
            loop {
                let frame = one_frame(&other.binary().await);
                seen.lock().unwrap().push(frame);
            }
        }
    });

    // With a small receive buffer, so that the viewer falls behind after little data.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    let stream = within("a connection", socket.connect(server.address)).await.unwrap();
    let url = format!("ws://{}/live", server.address);
    let (mut slow, _) =
        within("the handshake", tokio_tungstenite::client_async(url, stream)).await.unwrap();
    let first = next_message(&mut slow).await;
    assert!(matches!(first, Some(Message::Text(_))), "{}", describe(&first));
    let start = next_message(&mut slow).await.unwrap().into_data();
    let mut last = *frames(split_init(&start).1).last().unwrap();

    // The viewer does not read during the next 90 frames.
    let so_far = seen.lock().unwrap().len();
    wait_until("frames for the other", async || {
        let enough = seen.lock().unwrap().len() >= so_far + 90;
        assert!(!task.is_finished(), "the other viewer failed");
        enough.then_some(())
    })
    .await;

    let lost = loop {
        match next_message(&mut slow).await {
            Some(Message::Binary(data)) => {
                let frame = one_frame(&data);
                assert_eq!(
                    frame.sequence,
                    last.sequence + 1,
                    "a frame is missing without a message"
                );
                last = frame;
            }
            Some(Message::Text(text)) => {
                let text: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(text["type"], "dropped");
                break text["frames"].as_u64().unwrap();
            }
            other => panic!("{}", describe(&other)),
        }
    };
    assert!(lost > 0);
    let next = next_message(&mut slow).await.unwrap().into_data();
    assert_eq!(next[92], 2, "a key frame");
    assert_eq!(u64::from(one_frame(&next).sequence), u64::from(last.sequence) + lost + 1);

    assert!(!task.is_finished(), "the other viewer failed");
    task.abort();
    assert_even(&seen.lock().unwrap());
}

#[tokio::test]
async fn size_change_sends_a_new_init_segment() {
    let folder = Folder::new();
    // Each clip is one group of pictures, so that a late viewer still gets all frames.
    let options = "-g 20 -x264-params aud=1";
    let small = Clip::encode(&folder, "small", "320x240", 20, options);
    let large = Clip::encode(&folder, "large", "640x360", 20, options);
    let mut feed = Feed::new(&folder, "pipe");
    let server = Server::start(&camera("zoom", &feed.source())).await;
    let mut viewer = server.watch("/live").await;
    let mut old = server.watch("/video_websocket").await;
    let (mut all, mut old_all) = (vec![], vec![]);
    for (clip, size) in [(&small, (320, 240)), (&large, (640, 360)), (&small, (320, 240))] {
        // The first delimiter was sent with the previous clip.
        let skip = if all.is_empty() { 0 } else { DELIMITER };
        feed.send(&clip.data[skip..]);
        feed.send(&clip.data[..DELIMITER]);

        let text = viewer.text().await;
        assert_eq!((&text["width"], &text["height"]), (&size.0.into(), &size.1.into()));
        let before = all.len();
        let start = viewer.binary().await;
        all.extend(frames(split_init(&start).1));
        while all.len() < before + clip.len() {
            all.push(one_frame(&viewer.binary().await));
        }
        assert!(all[before].key);

        let (moov, rest) = split_init_owned(&old.binary().await);
        assert!(rest.is_empty());
        let [Codec::Avc1(avc1)] = &moov.trak[0].mdia.minf.stbl.stsd.codecs[..] else { panic!() };
        assert_eq!((avc1.visual.width, avc1.visual.height), size);
        for _ in 0..clip.len() {
            old_all.push(one_frame(&old.binary().await));
        }
        let status = server.camera("zoom").await;
        assert_eq!((&status["width"], &status["height"]), (&size.0.into(), &size.1.into()));
    }
    assert_even(&all);
    assert_eq!(all, old_all);
}

fn split_init_owned(file: &[u8]) -> (mp4_atom::Moov, Vec<u8>) {
    let (moov, rest) = split_init(file);
    (moov, rest.to_vec())
}

#[tokio::test]
async fn viewers_stay_connected_while_the_camera_restarts() {
    let folder = Folder::new();
    let clip = Clip::encode(&folder, "again", "320x240", 20, "-g 20");
    let mut feed = Feed::new(&folder, "pipe");
    let server = Server::start(&camera("again", &feed.source())).await;
    let mut viewer = server.watch("/live").await;
    let mut all = vec![];
    for run in 0..3 {
        let half = clip.data.len() / 2;
        feed.send(&clip.data[..half]);
        if run == 0 {
            assert_eq!(viewer.text().await["type"], "init");
            all.extend(frames(split_init(&viewer.binary().await).1));
        }
        // Without a pause, so that the last frames arrive together with the end.
        feed.send(&clip.data[half..]);
        feed.close();
        // Only frames: neither an init segment nor a message about dropped frames.
        while all.len() < (run + 1) * clip.len() {
            all.push(one_frame(&viewer.binary().await));
        }
        let total = (run + 1) * clip.len();
        let status = server
            .camera_until("again", "its end", |camera| {
                camera["state"] == "failed" && camera["frames"] == total
            })
            .await;
        assert!(status["error"].as_str().unwrap().contains("ended"), "{status:#}");
        // A viewer that connects now gets no old picture: the responses to its requests arrive first.
        // The second request is sent after the server has had a chance to send a picture.
        let mut late = server.watch("/live").await;
        for id in [1, 2] {
            late.socket.send(time_request(id)).await.unwrap();
            let answer = late.text().await;
            assert_eq!((&answer["type"], &answer["id"]), (&"time".into(), &id.into()));
        }
    }
    assert_even(&all);
}

#[tokio::test]
async fn unknown_camera_names_get_a_list_of_the_known_ones() {
    let folder = Folder::new();
    let clip = Clip::encode(&folder, "second", "320x240", 30, "-g 10 -x264-params aud=1");
    let mut feed = Feed::new(&folder, "pipe");
    let config = TEST_CARD.to_string() + &camera("second", &feed.source());
    let server = Server::start(&config).await;
    burst(&mut feed, &clip, 0..30);
    for (path, width) in
        [("/live", 1280), ("/live/card", 1280), ("/live/second", 320), ("/live", 1280)]
    {
        assert_eq!(server.watch(path).await.text().await["width"], width, "{path}");
    }
    for path in ["/live/third", "/live/third.mp4", "/live/third.h264", "/live/Card"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.text.contains("\"card\", \"second\""), "{path}: {}", answer.text);
    }
    let refused = refusal(&server, "/live/third", |_| {}).await;
    assert_eq!(refused.0, StatusCode::NOT_FOUND);
    assert!(refused.1.contains("\"card\", \"second\""), "{}", refused.1);
    for path in ["/nothing", "/live/", "/live/card/x", "/api/nothing"] {
        assert_eq!(server.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let plain = server.get("/live").await;
    assert_eq!(plain.status, StatusCode::UPGRADE_REQUIRED);
}

// ---- Access control ----

type Handshake = tokio_tungstenite::tungstenite::handshake::client::Request;

/// Opens a WebSocket with a modified handshake.
async fn shake(
    server: &Server,
    path: &str,
    special: impl FnOnce(&mut Handshake),
) -> Result<Viewer, WsError> {
    let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
    special(&mut request);
    let connecting = tokio_tungstenite::connect_async(request);
    within("the handshake", connecting).await.map(|(socket, _)| Viewer { socket })
}

/// Returns the status and the text of a rejected handshake.
async fn refusal(
    server: &Server,
    path: &str,
    special: impl FnOnce(&mut Handshake),
) -> (StatusCode, String) {
    match shake(server, path, special).await {
        Err(WsError::Http(response)) => {
            let text = response.body().as_deref().unwrap_or_default();
            (response.status(), String::from_utf8_lossy(text).into_owned())
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{path}: the handshake succeeded"),
    }
}

#[tokio::test]
async fn password_protects_everything_except_healthz() {
    let config = format!("[server]\npassword = \"secret\"\n{TEST_CARD}");
    let server = Server::start(&config).await;
    for path in [
        "/",
        "/berrymse.js",
        "/live.mp4",
        "/live/card.h264",
        "/live",
        "/api/status",
        "/metrics",
        "/nothing",
        "/healthz/",
        "//healthz",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Basic "));
        assert_eq!(answer.headers.get(SET_COOKIE), None);
    }
    wait_until("the card to be healthy", async || {
        (server.get("/healthz").await.status == StatusCode::OK).then_some(())
    })
    .await;
    for path in ["/live", "/live/card", "/video_websocket", "/live/nothing"] {
        assert_eq!(refusal(&server, path, |_| {}).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }

    // "anyone:secret" and "anyone:wrong"
    let (right, wrong) = ("Basic YW55b25lOnNlY3JldA==", "Basic YW55b25lOndyb25n");
    let with = |value: &'static str| {
        move |request: &mut Handshake| {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static(value));
        }
    };
    let answer = server.ask(server.request("/api/status").header(AUTHORIZATION, wrong)).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refusal(&server, "/live", with(wrong)).await.0, StatusCode::UNAUTHORIZED);
    let mut viewer = shake(&server, "/live", with(right)).await.unwrap();
    assert_eq!(viewer.text().await["type"], "init");

    let answer = server.ask(server.request("/api/status").header(AUTHORIZATION, right)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let cookie = answer.headers[SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite="), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_string();
    assert!(!cookie.contains("secret"));
    let answer = server.ask(server.request("/metrics").header(COOKIE, &cookie)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let with_cookie = |request: &mut Handshake| {
        request.headers_mut().insert(COOKIE, cookie.parse().unwrap());
    };
    let mut viewer = shake(&server, "/live", with_cookie).await.unwrap();
    assert_eq!(viewer.text().await["type"], "init");
    let almost = format!("{}0", &cookie[..cookie.len() - 1]);
    let answer = server.ask(server.request("/metrics").header(COOKIE, almost + "0")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(!server.log().contains("secret"), "{}", server.log());
}

#[tokio::test]
async fn rejects_foreign_origins_and_methods() {
    let server = Server::start(TEST_CARD).await;
    let own = format!("http://{}", server.address);
    let with = |origin: &str| {
        let origin: HeaderValue = origin.parse().unwrap();
        move |request: &mut Handshake| {
            request.headers_mut().insert(ORIGIN, origin);
        }
    };
    for path in ["/live", "/live/card", "/video_websocket"] {
        shake(&server, path, with(&own)).await.unwrap();
        for foreign in ["http://evil.example", "null", "http://127.0.0.1:1", "file://"] {
            let (status, text) = refusal(&server, path, with(foreign)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} {foreign}");
            assert!(text.contains("origins = ["), "{text}");
        }
    }
    // A foreign host name that resolves to this machine (DNS rebinding).
    let (status, text) = refusal(&server, "/live", |request| {
        request.headers_mut().insert(HOST, HeaderValue::from_static("evil.example"));
        request.headers_mut().insert(ORIGIN, HeaderValue::from_static("http://evil.example"));
    })
    .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(text.contains("hosts = ["), "{text}");
    for path in
        ["/", "/berrymse.js", "/live.mp4", "/live.h264", "/api/status", "/metrics", "/healthz"]
    {
        for host in ["evil.example", "fritz.box", "cam.lan"] {
            let answer = server.ask(hyper::Request::get(path).header(HOST, host)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {host}");
            assert!(answer.text.contains(&format!("hosts = [\"{host}\"]")), "{}", answer.text);
        }
    }

    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        for path in ["/", "/api/status", "/live.mp4", "/healthz"] {
            let request = || server.request(path).method(&method);
            let foreign = server.ask(request().header(ORIGIN, "http://evil.example")).await;
            assert_eq!(foreign.status, StatusCode::FORBIDDEN, "{method} {path}");
            for request in [request(), request().header(ORIGIN, &own)] {
                let answer = server.ask(request).await;
                assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                assert_eq!(answer.headers[ALLOW], "GET, HEAD");
            }
        }
    }
    // HEAD works even for endless bodies.
    for path in ["/", "/api/status", "/live.mp4", "/live.h264"] {
        let answer = server.ask(server.request(path).method(Method::HEAD)).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, ""), "{path}");
    }
}

// ---- Shutdown ----

/// Returns two unique arguments for `sleep`.
fn sleeps() -> [String; 2] {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    ["1", "2"].map(|which| format!("86400.{}{n}{which}", std::process::id()))
}

async fn wait_for_processes(arguments: &[String], running: bool) {
    wait_until(&format!("{arguments:?} running: {running}"), async || {
        arguments.iter().all(|sleep| processes_with(sleep).is_empty() != running).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sigterm_closes_connections_and_ends_all_processes() {
    let ([a, b], [c, d]) = (sleeps(), sleeps());
    let scripts = [
        format!("sleep {a} & sleep {b}"),
        format!("trap '' TERM; sleep {c} & sleep {d}; sleep {d}"),
    ];
    let mut config = TEST_CARD.to_string();
    for (n, script) in scripts.iter().enumerate() {
        let source = format!("{{ command = [\"sh\", \"-c\", {script:?}] }}");
        config += &camera(&format!("shell{n}"), &source);
    }
    let mut server = Server::start(&config).await;
    let all = [a, b, c, d];
    wait_for_processes(&all, true).await;
    let mut viewer = server.watch("/live").await;
    let mut waiting = server.watch("/live/shell0").await;
    assert_eq!(viewer.text().await["type"], "init");
    let download = server.send(server.request("/live.mp4")).await.into_body();
    server.terminate();
    for viewer in [&mut viewer, &mut waiting] {
        let close = loop {
            match viewer.next().await {
                Some(Message::Binary(_)) => {}
                Some(Message::Close(Some(close))) => break close,
                other => panic!("{}", describe(&other)),
            }
        };
        assert_eq!(close.code, CloseCode::Away);
    }
    within("end of the download", download.collect()).await.expect("a whole body");
    assert_eq!(server.ended().await.code(), Some(0));
    // The processes end before the server does, so the test need not wait for them.
    for sleep in &all {
        assert!(processes_with(sleep).is_empty(), "{sleep}");
    }
}

#[tokio::test]
async fn sigkill_ends_the_programs_of_the_cameras() {
    let [a, b] = sleeps();
    let script = format!("sleep {a} & exec sleep {b}");
    let source = format!("{{ command = [\"sh\", \"-c\", {script:?}] }}");
    let mut server = Server::start(&camera("shell", &source)).await;
    wait_for_processes(&[a.clone(), b.clone()], true).await;
    server.kill();
    wait_for_processes(&[b], false).await;
    // The children of the programs are still running; end them here.
    for pid in processes_with(&a) {
        let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
    }
}

// ---- Health and metrics ----

async fn health(url: &str) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(berrymse());
    command.args(["health", "--url", url]);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = within("berrymse health", run).await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn health_reports_failed_cameras() {
    let server = Server::start(TEST_CARD).await;
    server.camera_until("card", "pictures", |camera| camera["state"] == "streaming").await;
    let answer = server.get("/healthz").await;
    assert_eq!((answer.status, answer.text.trim()), (StatusCode::OK, "ok"));
    let url = format!("http://{}", server.address);
    for url in [&url, &format!("{url}/"), &format!("{url}/healthz")] {
        assert_eq!(health(url).await, (Some(0), String::new()), "{url}");
    }
    drop(server);
    let (code, text) = health(&url).await;
    assert_eq!(code, Some(1));
    assert!(text.contains(&url) && text.contains("cannot reach"), "{text}");
    assert_eq!(health("ftp://127.0.0.1/").await.0, Some(1));

    let config = TEST_CARD.to_string() + &camera("gone", "{ command = [\"false\"] }");
    let server = Server::start(&config).await;
    server.camera_until("gone", "failure", |camera| camera["state"] == "failed").await;
    server.camera_until("card", "pictures", |camera| camera["state"] == "streaming").await;
    let answer = server.get("/healthz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text.contains("\"gone\"") && !answer.text.contains("card"), "{}", answer.text);
    // The exit status differs from that for a server that cannot be reached.
    let (code, text) = health(&format!("http://{}", server.address)).await;
    assert_eq!(code, Some(3));
    assert!(text.contains("\"gone\""), "{text}");
}

#[tokio::test]
async fn metrics_are_openmetrics_labelled_by_camera() {
    let config = TEST_CARD.to_string() + &camera("gone", "{ command = [\"false\"] }");
    let server = Server::start(&config).await;
    server.camera_until("card", "pictures", |camera| camera["frames"].as_u64() > Some(5)).await;
    server.camera_until("gone", "failure", |camera| camera["state"] == "failed").await;
    let mut viewer = server.watch("/live").await;
    viewer.text().await;
    let answer = server.get("/metrics").await;
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = answer.text.strip_suffix("# EOF\n").expect("# EOF at the end");
    let mut families = std::collections::HashMap::new();
    let mut samples = std::collections::HashMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => {
                assert!(families.insert(name, kind).is_none(), "{name} twice");
            }
            ["#", "HELP" | "UNIT", _, _] => {}
            [sample, value] => {
                let value: f64 = value.parse().unwrap();
                let (name, _) = sample.split_once('{').unwrap_or((sample, ""));
                let endings = ["_total", "_bucket", "_sum", "_count"];
                let family = endings.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                if families[family] == "histogram" {
                    continue;
                }
                let counts = families[family] == "counter";
                assert_eq!(counts, name.ends_with("_total"), "{line}");
                assert!(samples.insert(sample, value).is_none(), "{sample} twice");
            }
            _ => panic!("{line}"),
        }
    }
    let figure = |name: &str, camera: &str| {
        samples[format!("berrymse_camera_{name}{{camera=\"{camera}\"}}").as_str()]
    };
    assert_eq!((figure("up", "card"), figure("up", "gone")), (1.0, 0.0));
    assert!(figure("frames_total", "card") > 5.0);
    assert_eq!(figure("frames_total", "gone"), 0.0);
    assert_eq!((figure("viewers", "card"), figure("viewers", "gone")), (1.0, 0.0));
    assert_eq!(figure("width_pixels", "card"), 1280.0);
    assert_eq!(families["berrymse_delivery_seconds"], "histogram");
    assert!(samples["berrymse_uptime_seconds"] > 0.0);
}
