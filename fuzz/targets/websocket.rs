//! A WebSocket client that sends arbitrary headers and frames (RFC 6455).
//!
//! Properties:
//! - No input causes a panic. A refused handshake has status 400 or 426 and a message. An accepted
//!   handshake contains all headers that the RFC requires, and receives the reply specified in
//!   4.2.2.
//! - [`access::check_origin`] accepts only the server's own page, an allowed page, or a program
//!   that is not a browser. The host name must be an address, a name that is valid only on a local
//!   network, or a configured name.
//! - The sizes of the reads change neither the messages nor the status code that ends them, which
//!   is one of those defined by the RFC.
//! - A frame from a conforming client is read as the message that it contains.
//!
//! Input: lines of the form `name: value` up to an empty line, then a byte with the size of the
//! reads, then frames. The names `:method`, `:version`, `:origin` and `:host` are not headers; the
//! last two are part of the configuration.

#![no_main]

use berrymse::access::{AccessPolicy, Denied};
use berrymse::config::Server;
use berrymse::http::{access, handshake::handshake};
use berrymse::websocket::{self, MAX_MESSAGE, Message, Reader, status};
use http::header::{HOST, ORIGIN, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use libfuzzer_sys::fuzz_target;
use sha1::{Digest, Sha1};

fuzz_target!(|data: &[u8]| {
    let (head, body) = match data.windows(2).position(|end| end == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &data[..0]),
    };
    let request = Request::read(head);
    request.handshake();
    request.access();
    if let [size, frames @ ..] = body {
        reader(frames, usize::from(*size).max(1));
        round_trip(frames, usize::from(*size).max(1));
    }
});

struct Request {
    method: Method,
    version: Version,
    headers: HeaderMap,
    config: Server,
}

impl Request {
    fn read(head: &[u8]) -> Request {
        let mut request = Request {
            method: Method::GET,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            config: Server::default(),
        };
        for line in head.split(|&b| b == b'\n').take(40) {
            let Some(colon) = line.iter().skip(1).position(|&b| b == b':') else { continue };
            let (name, value) = (&line[..=colon], line[colon + 2..].trim_ascii());
            let text = || String::from_utf8_lossy(value).into_owned();
            match name {
                b":method" => request.method = Method::from_bytes(value).unwrap_or_default(),
                b":version" => request.version = Version::HTTP_10,
                b":origin" => request.config.origins.push(text()),
                b":host" => request.config.hosts.push(text()),
                _ => {
                    if let (Ok(name), Ok(value)) =
                        (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
                    {
                        request.headers.append(name, value);
                    }
                }
            }
        }
        request
    }

    fn handshake(&self) {
        let has = |name: &str, token: &str| {
            self.headers.get_all(name).iter().any(|value| {
                value.to_str().is_ok_and(|value| {
                    value.to_lowercase().split(',').any(|part| part.trim() == token)
                })
            })
        };
        let key = self.headers.get("sec-websocket-key").map_or(&b""[..], HeaderValue::as_bytes);
        match handshake(&self.method, self.version, &self.headers) {
            Ok(accept) => {
                assert!(self.method == Method::GET && self.version == Version::HTTP_11);
                assert!(has("upgrade", "websocket") && has("connection", "upgrade"));
                assert!(has("sec-websocket-version", "13"));
                assert_eq!(key.len(), 24);
                let hash = Sha1::new()
                    .chain_update(key)
                    .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
                    .finalize();
                use base64::Engine;
                assert_eq!(accept, base64::prelude::BASE64_STANDARD.encode(hash));
            }
            Err(error) => {
                let statuses = [StatusCode::BAD_REQUEST, StatusCode::UPGRADE_REQUIRED];
                assert!(statuses.contains(&error.status()));
                assert!(!error.to_string().is_empty());
            }
        }
    }

    fn access(&self) {
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let policy = AccessPolicy::new(&self.config);
        let name = text(HOST).unwrap_or_default();
        let known = policy.check_host(name, |_| false);
        let result = access::check_origin(&policy, &self.method, &self.headers);
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&self.method);
        if reads && !self.headers.contains_key(UPGRADE) {
            assert_eq!(result, Ok(()), "any page may read");
            return;
        }
        if let Err(denied) = result {
            use Denied::{ForeignOrigin, NoHost};
            assert!(matches!(denied, NoHost | ForeignOrigin(_)));
            assert!(!denied.to_string().is_empty());
            return;
        }
        let host = text(HOST).expect("a request without Host is refused");
        let name = host.to_lowercase();
        let configured = self.config.hosts.iter().any(|own| {
            let own = own.to_lowercase();
            name.trim_end_matches('.').starts_with(&own) || name.starts_with(&format!("[{own}"))
        });
        // A public DNS name in the form that browsers send: letters, digits, hyphens and dots, a
        // suffix that is not local, and an optional port.
        let bare = name.split_once(':').map_or(&name[..], |(bare, _)| bare).trim_end_matches('.');
        let public = ["example", "com", "org", "local.com", "localhost.dev", "1"];
        let labels = bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        let has_ending = public.iter().any(|end| bare.ends_with(&format!(".{end}")));
        let is_address = bare.parse::<std::net::IpAddr>().is_ok();
        let public = labels && has_ending && !is_address;
        assert!(!public || configured || known.is_err(), "DNS rebinding: {host:?}");
        let Some(origin) = self.headers.get(ORIGIN) else { return }; // not a browser
        let origin = origin.to_str().unwrap_or_default().to_lowercase();
        let own = [format!("http://{name}"), format!("https://{name}")].contains(&origin);
        let allowed = |one: &String| one == "*" || one.to_lowercase() == origin;
        assert!(
            own || self.config.origins.iter().any(allowed),
            "page from {origin:?}, host {host:?}"
        );
    }
}

/// Reads `bytes` in pieces of `size` bytes. Returns the messages and the status code of the error,
/// if any.
fn read(bytes: &[u8], size: usize) -> (Vec<Message>, Option<u16>) {
    let mut reader = Reader::default();
    let mut messages = vec![];
    for piece in bytes.chunks(size) {
        reader.push(piece);
        loop {
            match reader.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(code) => return (messages, Some(code)),
            }
        }
    }
    (messages, None)
}

fn reader(bytes: &[u8], size: usize) {
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, size), whole, "reads of {size} bytes change the result");
    let (messages, end) = whole;
    for message in messages {
        match message {
            Message::Text(text) => assert!(text.len() <= MAX_MESSAGE),
            Message::Ping(payload) => {
                // The pong is a frame with the same payload, without a mask.
                let pong = websocket::pong(&payload);
                assert!(payload.len() <= 125);
                assert_eq!(pong, [&[0x8a, payload.len() as u8], &payload[..]].concat());
            }
            Message::Close(code) => {
                assert!(matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999));
                assert_eq!(websocket::close(code)[..2], [0x88, 2]);
            }
            Message::Binary | Message::Pong => {}
        }
    }
    if let Some(code) = end {
        use status::*;
        assert!([PROTOCOL, UNSUPPORTED, INVALID, TOO_BIG].contains(&code), "code {code}");
    }
}

/// Sends `payload` like a client, in each kind of message, and checks that the server reads it.
fn round_trip(payload: &[u8], size: usize) {
    let mask = [payload.first().map_or(7, |b| !b), 0, 0xff, size as u8];
    let long = &payload[..payload.len().min(MAX_MESSAGE)];
    let short = &payload[..payload.len().min(125)];
    let mut bytes = vec![];
    let mut frame = |opcode: u8, payload: &[u8]| {
        bytes.push(0x80 | opcode);
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    };
    frame(2, long);
    frame(9, short);
    frame(10, short);
    let text = String::from_utf8_lossy(long);
    let text: String = text.chars().take(MAX_MESSAGE / 4).collect();
    frame(1, text.as_bytes());
    frame(8, &[3, 233]);
    let want = vec![
        Message::Binary,
        Message::Ping(short.to_vec()),
        Message::Pong,
        Message::Text(text),
        Message::Close(1001),
    ];
    assert_eq!(read(&bytes, size), (want, None));
}
