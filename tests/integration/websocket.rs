//! WebSocket according to RFC 6455, and limits: invalid clients, too many clients, slow clients.
//!
//! The protocol cases follow the categories of the autobahn-testsuite, as far as they apply to a server
//! that does not echo messages. Numbers such as 7.9.1 are the case numbers of that suite. Where the suite
//! expects an echo, these tests expect further pictures.

use crate::support::websocket::{frame, header};
use crate::support::{
    Answer, Clip, Feed, Folder, Frame, Server, TEST_CARD, Viewer, assert_even, describe, frames,
    split_init, wait_until, within,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

// ---- A client without a library ----

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x80;
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Payload of the last ping in each case that must leave the connection open.
const LAST_PING: &[u8] = b"last ping";

/// Returns a close frame.
fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A WebSocket without a library.
struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// Sends the handshake and `more` in one write.
    async fn open(address: SocketAddr, path: &str, more: &[u8]) -> Raw {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Raw { stream, buffer: vec![] };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: chat\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        );
        raw.send(&[request.as_bytes(), more].concat()).await;
        let end = loop {
            if let Some(at) = raw.buffer.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(raw.more().await, "the connection ended during the handshake");
        };
        let head: Vec<u8> = raw.buffer.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The example of RFC 6455, 1.3.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        // 12 and 13: neither compression nor a subprotocol is accepted.
        let head = head.to_lowercase();
        assert!(!head.contains("-extensions") && !head.contains("-protocol"), "{head}");
        raw
    }

    /// Sends bytes. Errors are ignored, because reading reports them.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = within("write", self.stream.write_all(bytes)).await;
    }

    /// Reads more data. Returns false at the end of the connection.
    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.buffer);
        within("data from the WebSocket", read).await.unwrap() > 0
    }

    /// Returns the first byte and the payload of the next frame, or `None` at the end. Asserts that a
    /// server may send this frame.
    async fn frame(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if let Some((first, header_len, len)) = self.header()
                && self.buffer.len() >= header_len + len
            {
                let frame: Vec<u8> = self.buffer.drain(..header_len + len).collect();
                let payload = Bytes::from(frame).slice(header_len..);
                let good = match first {
                    TEXT => serde_json::from_slice::<serde_json::Value>(&payload).is_ok(),
                    BINARY => matches!(&payload[4..8], b"ftyp" | b"moof"),
                    CLOSE | PING | PONG => len <= 125,
                    _ => false,
                };
                assert!(good, "{first:#04x} with {len} bytes");
                return Some((first, payload));
            }
            if !self.more().await {
                assert!(self.buffer.is_empty(), "the connection ended within a frame");
                return None;
            }
        }
    }

    /// Returns the first byte, the length of the header and the length of the payload, if they have been
    /// received.
    fn header(&self) -> Option<(u8, usize, usize)> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return None };
        assert_eq!(first & 0xf0, FIN, "FIN must be set, and reserved bits must not");
        assert_eq!(second & 0x80, 0, "a server must not mask frames");
        let (size, least) = match second {
            127 => (8, 0x1_0000),
            126 => (2, 126),
            len => return Some((*first, 2, usize::from(*len))),
        };
        let len = rest.get(..size)?.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
        assert!(len >= least, "{len} is not encoded in the shortest form");
        Some((*first, 2 + size, len))
    }

    /// Returns the next control frame.
    async fn control(&mut self) -> Option<(u8, Bytes)> {
        loop {
            match self.frame().await {
                Some((TEXT | BINARY, _)) => {}
                other => return other,
            }
        }
    }
}

// ---- The protocol ----

/// Bytes that a client sends, and the expected result.
struct Case {
    name: String,
    sent: Vec<u8>,
    expected: Expected,
}

enum Expected {
    /// Pongs with these payloads, in this order. The connection stays open.
    Open(Vec<Vec<u8>>),
    /// A close frame with this code and the end of the connection.
    Closed(u16),
}

/// How the bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Delivery {
    AtOnce,
    WithTheHandshake,
    ByteByByte,
}

/// Maximum size of the cases that are sent byte by byte, in bytes.
const MAX_BYTEWISE_LEN: usize = 160;

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn stays_open(&mut self, name: impl Into<String>, sent: Vec<u8>) {
        self.ponged(name, sent, &[]);
    }

    fn ponged(&mut self, name: impl Into<String>, sent: Vec<u8>, pongs: &[&[u8]]) {
        let pongs = pongs.iter().map(|pong| pong.to_vec()).collect();
        self.0.push(Case { name: name.into(), sent, expected: Expected::Open(pongs) });
    }

    fn closed(&mut self, name: impl Into<String>, sent: Vec<u8>, code: u16) {
        self.0.push(Case { name: name.into(), sent, expected: Expected::Closed(code) });
    }

    /// Runs every case with each delivery, several at a time.
    async fn run(self, path: &'static str) {
        let server = Server::start(TEST_CARD).await;
        server.camera_until("card", "pictures", |camera| camera["state"] == "streaming").await;
        let mut rounds = vec![];
        for case in self.0.into_iter().map(Arc::new) {
            rounds.push((case.clone(), Delivery::AtOnce));
            rounds.push((case.clone(), Delivery::WithTheHandshake));
            if case.sent.len() <= MAX_BYTEWISE_LEN {
                rounds.push((case.clone(), Delivery::ByteByByte));
            }
        }
        let rounds = Arc::new(Mutex::new(rounds.into_iter()));
        let (address, mut at_a_time) = (server.address, JoinSet::new());
        for _ in 0..8 {
            let rounds = rounds.clone();
            at_a_time.spawn(async move {
                let next = || rounds.lock().unwrap().next();
                while let Some((case, delivery)) = next() {
                    let result =
                        tokio::spawn(
                            async move { (case.run(address, path, delivery).await, case) },
                        );
                    let (result, case) = result.await.unwrap();
                    assert_eq!(result, Ok(()), "{} ({delivery:?})", case.name);
                }
            });
        }
        at_a_time.join_all().await;
        // All viewers have been released.
        server.camera_until("card", "no viewers", |camera| camera["viewers"] == 0).await;
    }
}

impl Case {
    async fn run(&self, address: SocketAddr, path: &str, delivery: Delivery) -> Result<(), String> {
        let with = if delivery == Delivery::WithTheHandshake { &self.sent[..] } else { &[] };
        let mut raw = Raw::open(address, path, with).await;
        match delivery {
            Delivery::AtOnce => raw.send(&self.sent).await,
            Delivery::WithTheHandshake => {}
            Delivery::ByteByByte => {
                for byte in &self.sent {
                    raw.send(&[*byte]).await;
                    tokio::task::yield_now().await;
                }
            }
        }
        let mut expect = async |frame: Option<(u8, &[u8])>| {
            let got = raw.control().await;
            let same = got.as_ref().map(|(first, payload)| (*first, &payload[..])) == frame;
            if same { Ok(()) } else { Err(format!("{got:02x?} instead of {frame:02x?}")) }
        };
        match &self.expected {
            Expected::Closed(code) => {
                expect(Some((CLOSE, &code.to_be_bytes()))).await?;
                match raw.frame().await {
                    None => Ok(()),
                    Some(frame) => Err(format!("{frame:02x?} after the close frame")),
                }
            }
            Expected::Open(pongs) => {
                for pong in pongs {
                    expect(Some((PONG, pong))).await?;
                }
                raw.send(&frame(PING, LAST_PING)).await;
                match raw.control().await {
                    Some((PONG, payload)) if payload == LAST_PING => {}
                    other => return Err(format!("{other:02x?} instead of the last pong")),
                }
                // Pictures continue.
                loop {
                    match raw.frame().await {
                        Some((BINARY, _)) => return Ok(()),
                        Some((TEXT, _)) => {}
                        other => return Err(format!("{other:02x?} instead of a picture")),
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepts_messages_of_up_to_4096_bytes() {
    let mut cases = Cases::default();
    // 1.1.x text, 1.2.x binary
    for first in [TEXT, BINARY] {
        for len in [0, 1, 125, 126, 127, 128, 4096] {
            cases.stays_open(format!("1: {len} bytes, {first:x}"), frame(first, &vec![b'*'; len]));
        }
        // 1.1.6 to 1.1.8, 9.1.x, 9.2.x
        for len in [4097, 65535, 65536, 1 << 20] {
            let sent = frame(first, &vec![b'*'; len]);
            cases.closed(format!("9: {len} bytes, {first:x}"), sent, 1009);
        }
        // The length is rejected before the payload arrives. 0 and 4096 must not be encoded in 64 bits.
        for len in [0u64, 4096, 65536, 1 << 40, i64::MAX as u64, u64::MAX] {
            let sent = [&[first, 0xff][..], &len.to_be_bytes()].concat();
            cases.closed(format!("9: {len} bytes in 64 bits, {first:x}"), sent, 1009);
        }
    }
    let many = frame(TEXT, b"{}").repeat(100);
    cases.ponged("1: a hundred messages at once", [many, frame(PING, b"z")].concat(), &[b"z"]);
    // 5.1 of the standard
    for first in [TEXT, BINARY, CLOSE, PING, PONG] {
        let sent = [header(first, 2), 1000u16.to_be_bytes().to_vec()].concat();
        cases.closed(format!("not masked, {first:x}"), sent, 1002);
    }
    cases.run("/live").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_pings_in_order_with_their_payload() {
    let mut cases = Cases::default();
    let binary: Vec<u8> = [0, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0, 0xff].into();
    let long = vec![0xfe; 125];
    // 2.1, 2.2, 2.3, 2.4 and (byte by byte) 2.6
    for payload in [&b""[..], b"Hello, world!", &binary, &long] {
        let name = format!("2: ping of {} bytes", payload.len());
        cases.ponged(name, frame(PING, payload), &[payload]);
    }
    cases.closed("2.5: ping of 126 bytes", frame(PING, &[0xfe; 126]), 1002);
    cases.closed("pong of 126 bytes", frame(PONG, &[0xfe; 126]), 1002);
    // 2.7, 2.8
    cases.stays_open("2.7: pong without a ping", frame(PONG, b""));
    cases.stays_open("2.8: pong with a payload, without a ping", frame(PONG, b"unsolicited"));
    let sent = [frame(PONG, b"unsolicited"), frame(PING, b"ping"), frame(PONG, b"more")].concat();
    cases.ponged("2.9: a ping between pongs", sent, &[b"ping"]);
    // 2.10, 2.11
    let payloads: Vec<String> = (0..10).map(|n| format!("payload-{n}")).collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(String::as_bytes).collect();
    let sent = payloads.iter().flat_map(|payload| frame(PING, payload)).collect();
    cases.ponged("2.10: ten pings", sent, &payloads);
    let sent = payloads.iter().map(|n| [frame(TEXT, n), frame(PING, n), frame(BINARY, n)].concat());
    cases.ponged("ten pings between messages", sent.collect::<Vec<_>>().concat(), &payloads);
    cases.run("/live").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_reserved_bits_opcodes_and_fragments() {
    let mut cases = Cases::default();
    // 3.1 to 3.7
    for bits in 1..8u8 {
        for first in [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] {
            let first = first | bits << 4;
            cases.closed(format!("3: {first:x}"), frame(first, b""), 1002);
        }
    }
    cases.closed(
        "3: reserved bits after a message",
        [frame(TEXT, b"fine"), frame(TEXT | 0x40, b"not")].concat(),
        1002,
    );
    // 4.1.x, 4.2.x
    for opcode in (3..8).chain(11..16) {
        for payload in [&b""[..], b"a payload"] {
            let sent = [frame(TEXT, b"fine"), frame(FIN | opcode, payload)].concat();
            cases.closed(format!("4: opcode {opcode}, {} bytes", payload.len()), sent, 1002);
        }
        cases.closed(format!("4: opcode {opcode}, not FIN"), frame(opcode, b""), 1002);
    }
    // 5.1, 5.2
    for first in [PING, PONG, CLOSE] {
        cases.closed(format!("5: {first:x} in parts"), frame(first & !FIN, b""), 1002);
    }
    // 5.3 to 5.15: fragmented messages are rejected (docs/api.md), valid or not.
    for first in [TEXT, BINARY] {
        for payload in [&b""[..], b"fragment 1"] {
            let sent = [frame(first & !FIN, payload), frame(CONTINUATION, b"fragment 2")].concat();
            cases.closed(format!("5.3: {first:x} in two parts"), sent, 1003);
        }
        let sent =
            [frame(first & !FIN, b"1"), frame(PING, b""), frame(CONTINUATION, b"2")].concat();
        cases.closed(format!("5.6: a ping between parts of {first:x}"), sent, 1003);
        let sent = [frame(first & !FIN, b"1"), frame(TEXT, b"2")].concat();
        cases.closed(format!("5.18: another message between parts of {first:x}"), sent, 1003);
    }
    for first in [CONTINUATION, CONTINUATION & !FIN] {
        for payload in [&b""[..], b"of nothing"] {
            let sent = [frame(first, payload), frame(TEXT, b"fine")].concat();
            cases.closed(format!("5.9: continuation of nothing, {first:x}"), sent, 1003);
        }
    }
    cases.run("/video_websocket").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_text_that_is_not_utf_8() {
    let mut cases = Cases::default();
    // 6.2, 6.5, 6.7, 6.9, 6.11, 6.22, 6.23, including noncharacters
    for text in [
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\0",
        "\u{7f}\u{80}\u{7ff}\u{800}",
        "\u{d7ff}\u{e000}\u{fffd}\u{fffe}\u{ffff}",
        "\u{10000}\u{1fffe}\u{10ffff}",
    ] {
        cases.stays_open(format!("6: {text:?}"), frame(TEXT, text.as_bytes()));
    }
    // The longest message: 1365 characters and one byte
    let longest = "€".repeat(1365) + "!";
    cases.stays_open("6: 4096 bytes", frame(TEXT, longest.as_bytes()));
    let wrong: [&[u8]; 17] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", // 6.3.1
        b"\xce",                                                           // 6.6.x, 6.14.x
        b"\xe1\xbd",
        b"\xf0\x90\x80",
        b"\xf4\x90\x80\x80",     // 6.8, 6.10: beyond U+10FFFF
        b"\xf8\x88\x80\x80\x80", // 6.15: five and six bytes
        b"\xfc\x84\x80\x80\x80\x80",
        b"\x80", // 6.12: unexpected continuation
        b"\x80\xbf\x80\xbf",
        b"\xc0 \xc1 \xe0 \xf0", // 6.13: missing continuation
        b"\xfe",                // 6.16
        b"\xff",
        b"\xc0\xaf", // 6.17 to 6.19: overlong
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xed\xa0\x80", // 6.20, 6.21: surrogates
        b"\xed\xaf\xbf\xed\xbf\xbf",
    ];
    for bytes in wrong {
        cases.closed(format!("6: {bytes:02x?}"), frame(TEXT, bytes), 1007);
        cases.stays_open(format!("6: {bytes:02x?}, binary"), frame(BINARY, bytes));
        cases.closed(format!("7.5: {bytes:02x?}, a reason"), close(1000, bytes), 1007);
    }
    let late = [&[b'a'; 4095][..], b"\xff"].concat();
    cases.closed("6.4: invalid last byte", frame(TEXT, &late), 1007);
    cases.run("/live").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_a_close_frame_with_its_code_and_closes() {
    let mut cases = Cases::default();
    let normal = || close(1000, b"");
    // 7.1.1 to 7.1.4, 7.1.6
    cases.closed("7.1.1: after a message", [frame(TEXT, b"Hello"), normal()].concat(), 1000);
    cases.closed("7.1.2: twice", [normal(), close(1001, b"")].concat(), 1000);
    cases.closed("7.1.3: a ping after it", [normal(), frame(PING, b"?")].concat(), 1000);
    cases.closed("7.1.4: text after it", [normal(), frame(TEXT, b"more")].concat(), 1000);
    cases.closed("7.1.6: a lot of data after it", [normal(), vec![0; 60_000]].concat(), 1000);
    cases.closed("invalid data after it", [normal(), vec![0xff; 20]].concat(), 1000);
    // 7.1.5
    let sent = [frame(TEXT & !FIN, b"fragment"), normal()].concat();
    cases.closed("7.1.5: after an incomplete message", sent, 1003);
    // 7.3.x
    cases.closed("7.3.1: empty", frame(CLOSE, b""), 1000);
    cases.closed("7.3.2: half a code", frame(CLOSE, b"\x03"), 1002);
    cases.closed("7.3.4: with a reason", close(1000, "Schluß für heute".as_bytes()), 1000);
    cases.closed("7.3.5: with the longest reason", close(1000, &[b'*'; 123]), 1000);
    cases.closed("7.3.6: with a reason that is too long", close(1000, &[b'*'; 124]), 1002);
    // 7.7.x
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    for code in good {
        cases.closed(format!("7.7: {code}"), close(code, b""), code);
    }
    // 7.9.x, 7.13.x; 1005, 1006 and 1015 are never sent
    let bad = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
    for code in bad {
        cases.closed(format!("7.9: {code}"), close(code, b""), 1002);
        cases.closed(format!("7.9: {code} with a reason"), close(code, b"why"), 1002);
    }
    cases.run("/video_websocket").await;
}

// ---- Limits ----

fn limits(limits: &str) -> String {
    format!("[server]\n{limits}\n{TEST_CARD}")
}

/// Tries to open a WebSocket.
async fn try_watch(server: &Server) -> Result<Viewer, Answer> {
    let url = format!("ws://{}/live", server.address);
    match within("the handshake", tokio_tungstenite::connect_async(url)).await {
        Ok((socket, _)) => Ok(Viewer { socket }),
        Err(WsError::Http(response)) => {
            let text = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default());
            let (status, headers) = (response.status(), response.headers().clone());
            Err(Answer { status, headers, text: text.into_owned() })
        }
        Err(other) => panic!("{other}"),
    }
}

fn assert_no_room(status: StatusCode, headers: &HeaderMap, text: &str) {
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    let seconds = headers[RETRY_AFTER].to_str().unwrap();
    assert!(seconds.parse::<u32>().unwrap() > 0, "{seconds}");
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    assert!(text.contains("try again later"), "{text}");
}

#[tokio::test]
async fn limits_the_number_of_viewers() {
    let server = Server::start(&limits("max_viewers = 2")).await;
    let full = async || {
        let answer = try_watch(&server).await.err().expect("the WebSocket was accepted");
        assert_no_room(answer.status, &answer.headers, &answer.text);
        for path in ["/live.mp4", "/live.h264", "/live/card.mp4"] {
            let answer = server.get(path).await;
            assert_no_room(answer.status, &answer.headers, &answer.text);
        }
        assert_eq!(server.camera("card").await["viewers"], 2);
    };
    let mut first = server.watch("/live").await;
    let second = server.watch("/video_websocket").await;
    full().await;
    assert_eq!(first.text().await["type"], "init");
    let start = first.binary().await;
    let mut seen = frames(split_init(&start).1);

    // One viewer disconnects without a close frame, and a download takes its place.
    drop(second);
    let download = wait_until("room for a download", async || {
        let response = server.send(server.request("/live.mp4")).await;
        (response.status() == StatusCode::OK).then_some(response)
    })
    .await;
    full().await;
    // The download ends as well.
    drop(download);
    let mut third = wait_until("room for a viewer", async || try_watch(&server).await.ok()).await;
    assert_eq!(third.text().await["type"], "init");
    full().await;

    // The first viewer is not affected.
    for _ in 0..20 {
        seen.extend(frames(&first.binary().await));
    }
    assert_even(&seen);
    // One viewer leaves with a close frame.
    third.socket.close(None).await.unwrap();
    wait_until("room for a viewer", async || try_watch(&server).await.ok()).await;
}

/// Reads until the server closes the connection, which it may do before it has read everything that was
/// sent.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut received = vec![];
    let read = async { while let Ok(1..) = stream.read_buf(&mut received).await {} };
    within("end of a connection", read).await;
    String::from_utf8(received).unwrap()
}

/// Sends a request on a new connection, without a library. Returns the response.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    read_to_end(&mut stream).await
}

/// Parses a response: status, headers, body.
fn parse(answer: &str) -> (StatusCode, HeaderMap, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.parse().unwrap(), value.trim().parse().unwrap())
    });
    (status[..3].parse().unwrap(), headers.collect(), body)
}

#[tokio::test]
async fn limits_the_connections_from_one_address() {
    let server = Server::start(&limits("max_connections_per_address = 3")).await;
    let request = format!(
        "GET /api/status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.address
    );
    let full = async || {
        for request in [request.as_str(), ""] {
            let answer = ask(server.address, request).await;
            let (status, headers, body) = parse(&answer);
            assert_no_room(status, &headers, body);
            assert_eq!(headers["content-length"], body.len().to_string().as_str());
            assert_eq!(headers["connection"], "close");
        }
    };
    // The server notices disconnected clients with a delay, so new clients retry.
    let room_for_a_viewer = async || {
        let url = format!("ws://{}/live", server.address);
        wait_until("room for a viewer", async || {
            let (socket, _) = tokio_tungstenite::connect_async(&url).await.ok()?;
            Some(Viewer { socket })
        })
        .await
    };
    // An idle connection, after one request.
    let room_for_an_idle_one = async || {
        let request = request.replace("close", "keep-alive");
        wait_until("room for a connection", async || {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut start = [0; 12];
            within("a response", stream.read_exact(&mut start)).await.ok()?;
            (start == *b"HTTP/1.1 200").then_some(stream)
        })
        .await
    };

    let mut viewer = room_for_a_viewer().await;
    let download = server.send(server.request("/live.mp4")).await;
    assert_eq!(download.status(), StatusCode::OK);
    let first = room_for_an_idle_one().await;
    full().await;
    // Each of them makes room for another one when it disconnects.
    drop(first);
    let second = room_for_an_idle_one().await;
    full().await;
    drop(download);
    let third = room_for_an_idle_one().await;
    full().await;
    assert_eq!(viewer.text().await["type"], "init");
    drop(viewer);
    let mut viewer = room_for_a_viewer().await;
    full().await;
    viewer.socket.close(None).await.unwrap();
    let fourth = room_for_an_idle_one().await;
    full().await;
    drop((second, third));
    let mut viewer = room_for_a_viewer().await;
    assert_eq!(viewer.text().await["type"], "init");
    drop((viewer, fourth));
}

#[tokio::test]
async fn closes_incomplete_requests_after_the_timeout() {
    let server = Server::start(&limits("request_timeout = 1")).await;
    let mut viewer = server.watch("/live").await;
    assert_eq!(viewer.text().await["type"], "init");
    let mut body = server.send(server.request("/live.mp4")).await.into_body();

    let whole = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let half = &whole[..whole.len() - 2];
    for started in ["", "G", "GET / HTTP/1.1\r\n", half] {
        let response = ask(server.address, started).await;
        assert!(
            response.is_empty() || response.starts_with("HTTP/1.1 408 "),
            "{started:?}: {response:?}"
        );
    }
    // A second request on the same connection.
    let response = ask(server.address, &format!("{whole}{half}")).await;
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response:?}");
    // A request that never ends, sent byte by byte.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let drip = async {
        stream.write_all(half.as_bytes()).await?;
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            stream.write_all(b"X").await?;
        }
    };
    let end: std::io::Result<()> = within("end of a slow request", drip).await;
    assert!(end.is_err());

    let start = viewer.binary().await;
    let mut seen = frames(split_init(&start).1);
    let last = server.camera("card").await["frames"].as_u64().unwrap() as usize;
    while seen.len() < last.min(60) {
        seen.extend(frames(&viewer.binary().await));
    }
    assert_even(&seen);
    for _ in 0..20 {
        within("more of a download", body.frame()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn limits_the_size_of_requests() {
    let server = Server::start(&limits("max_request_size = 8192")).await;
    let request = |path: &str, name: &str, len: usize| {
        let head =
            format!("GET /{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", server.address);
        let filling = "x".repeat(len.saturating_sub(head.len() + name.len() + 6));
        format!("{head}{name}: {filling}\r\n\r\n")
    };
    for name in ["X-Anything", "Cookie", "Sec-WebSocket-Key"] {
        let just = ask(server.address, &request("api/status", name, 8000)).await;
        assert_eq!(parse(&just).0, StatusCode::OK);
        for len in [8300, 16_000, 200_000] {
            let answer = ask(server.address, &request("api/status", name, len)).await;
            let status = parse(&answer).0;
            assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{name} {len}");
        }
    }
    let answer = ask(server.address, &request(&"x".repeat(9000), "X-Anything", 0)).await;
    assert!(parse(&answer).0.is_client_error(), "{answer}");
    assert_eq!(server.get("/healthz").await.status, StatusCode::OK);
}

// ---- Viewers that stop reading or disappear ----

/// Records the frames of a viewer, and asserts that there are no gaps.
fn keep(mut viewer: Viewer, seen: Arc<Mutex<Vec<Frame>>>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        assert_eq!(viewer.text().await["type"], "init");
        let start = viewer.binary().await;
        seen.lock().unwrap().extend(frames(split_init(&start).1));
        loop {
            match viewer.next().await {
                Some(Message::Binary(message)) => {
                    let mut seen = seen.lock().unwrap();
                    seen.extend(frames(&message));
                    assert_even(&seen[seen.len() - 2..]);
                }
                other => panic!("{}", describe(&other)),
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_stalled_viewers_while_others_receive_every_frame() {
    let folder = Folder::new();
    let options = "-vf noise=alls=80:allf=t -b:v 14M -minrate 14M -maxrate 14M -bufsize 2M \
                   -g 15 -keyint_min 15 -x264-params aud=1";
    let clip = Clip::encode(&folder, "heavy", "640x480", 30, options);
    let mut feed = Feed::new(&folder, "pipe");
    let config = format!("[[camera]]\nname = \"heavy\"\nsource = {}\n", feed.source());
    let server = Server::start(&config).await;
    tokio::spawn(async move { feed.play(&clip, 0..usize::MAX).await });

    let seen = [Arc::<Mutex<Vec<Frame>>>::default(), Arc::default()];
    let mut others = vec![];
    for seen in &seen {
        others.push(keep(server.watch("/live").await, seen.clone()));
    }
    // With a small receive buffer, so that the viewer falls behind after little data.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    let stream = within("a connection", socket.connect(server.address)).await.unwrap();
    let url = format!("ws://{}/live", server.address);
    let (stalled, _) =
        within("the handshake", tokio_tungstenite::client_async(url, stream)).await.unwrap();
    server.camera_until("heavy", "three viewers", |camera| camera["viewers"] == 3).await;

    // From now on, it does not read. TIMEOUT is six times the server's limit for writing.
    server
        .camera_until("heavy", "two viewers", |camera| {
            assert!(others.iter().all(|other| !other.is_finished()), "another viewer failed");
            camera["viewers"] == 2
        })
        .await;
    // The connection is closed, so it ends after the data in flight.
    let mut stream = stalled.into_inner();
    let mut rest = [0; 16 * 1024];
    within("end of the stalled connection", async {
        while let Ok(1..) = stream.read(&mut rest).await {}
    })
    .await;

    // The others continue.
    let marks = seen.each_ref().map(|seen| seen.lock().unwrap().len());
    for (seen, mark) in seen.iter().zip(marks) {
        wait_until("frames for the others", async || {
            (seen.lock().unwrap().len() >= mark + 30).then_some(())
        })
        .await;
    }
    for (other, seen) in others.iter().zip(&seen) {
        assert!(!other.is_finished(), "another viewer failed");
        other.abort();
        assert_even(&seen.lock().unwrap());
    }
}

/// Returns the number of open files and sockets of a process.
fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test]
async fn releases_viewers_that_leave_before_the_first_picture() {
    let config = "[[camera]]\nname = \"none\"\nsource = { command = [\"sleep\", \"3600\"] }\n";
    let server = Server::start(config).await;
    let before = open_files(server.pid());
    for _ in 0..5 {
        let mut viewers = vec![];
        for _ in 0..10 {
            viewers.push(server.watch("/live").await);
        }
        drop(viewers);
        server.camera_until("none", "no viewers", |camera| camera["viewers"] == 0).await;
    }
    wait_until("closed sockets", async || {
        let open = open_files(server.pid());
        (open <= before + 5).then_some(())
    })
    .await;
}
