//! A WebSocket viewer that checks the received data, independent of the code under test.

use crate::annexb::{is_slice, nal_type};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Address of the streamer.
pub const ADDRESS: &str = "127.0.0.1:2020";

/// Opcodes (RFC 6455, 5.2).
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// NAL unit type of supplemental enhancement information, which viewers receive in addition to
/// slices.
const SEI: u8 = 6;

/// A received picture.
#[derive(Debug)]
pub struct Picture {
    /// The NAL units: slices and SEI.
    pub nals: Vec<Vec<u8>>,
    /// Time of arrival.
    pub at: Instant,
    /// Decode time, in 1/90000 s.
    pub time: u64,
}

/// An event that a viewer receives.
#[derive(Debug)]
pub enum Event {
    /// The stream starts, or continues with new parameters.
    Init(Value),
    Picture(Picture),
    /// The server has dropped pictures.
    Dropped,
    Closed,
}

pub struct Viewer {
    events: Receiver<Event>,
}

impl Viewer {
    /// Connects to the first camera.
    pub fn new() -> Viewer {
        Viewer::of("/live")
    }

    /// Connects to the camera at this path.
    pub fn of(path: &str) -> Viewer {
        let mut socket = TcpStream::connect(ADDRESS).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let (sender, events) = channel();
        // Ends when the server closes the connection or the viewer is dropped.
        std::thread::spawn(move || {
            watch(socket, &sender);
            let _ = sender.send(Event::Closed);
        });
        Viewer { events }
    }

    /// Waits for the next event. Returns `None` after the time limit.
    pub fn next(&self, limit: Duration) -> Option<Event> {
        match self.events.recv_timeout(limit) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::Closed),
        }
    }

    /// Waits for the next picture. Also returns the parameters if new ones preceded the picture.
    pub fn picture(&self, limit: Duration) -> (Option<Value>, Picture) {
        let mut init = None;
        loop {
            match self.next(limit) {
                Some(Event::Picture(picture)) => return (init, picture),
                Some(Event::Init(parameters)) => init = Some(parameters),
                other => panic!("no picture within {limit:?}: {other:?}"),
            }
        }
    }

    /// Discards all events so far.
    pub fn skip(&self) {
        while let Some(event) = self.next(Duration::ZERO) {
            assert!(!matches!(event, Event::Closed), "the server has closed the connection");
        }
    }
}

/// Reads messages until the connection ends or the viewer is dropped.
fn watch(mut socket: TcpStream, to: &Sender<Event>) {
    while let Some((opcode, message)) = message(&mut socket) {
        let at = Instant::now();
        let sent = match opcode {
            TEXT => {
                let text: Value = serde_json::from_slice(&message).unwrap();
                let init = text["type"] == "init";
                to.send(if init { Event::Init(text) } else { Event::Dropped })
            }
            BINARY => {
                pictures(&message, at).into_iter().try_for_each(|p| to.send(Event::Picture(p)))
            }
            PING => {
                // Clients must mask their frames. A mask of zeros changes nothing.
                let pong = [&[0x80 | PONG, 0x80 | message.len() as u8, 0, 0, 0, 0][..], &message];
                let _ = socket.write_all(&pong.concat());
                Ok(())
            }
            CLOSE => return,
            other => panic!("WebSocket opcode {other}"),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Reads the next message. The server does not fragment messages.
fn message(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut read = |len: usize| {
        let mut bytes = vec![0; len];
        match socket.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) => {
                let expected = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(expected.contains(&error.kind()), "{error}");
                None
            }
        }
    };
    let head = read(2)?;
    assert_eq!(head[0] & 0xf0, 0x80, "a fragment or a reserved bit");
    let len = match head[1] {
        126 => u16::from_be_bytes(read(2)?.try_into().unwrap()).into(),
        127 => u64::from_be_bytes(read(8)?.try_into().unwrap()),
        len => u64::from(len),
    };
    Some((head[0] & 0xf, read(len as usize)?))
}

/// Splits MP4 data into boxes: their names and contents.
fn boxes(mut bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut boxes = vec![];
    while !bytes.is_empty() {
        let size = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        boxes.push((&bytes[4..8], &bytes[8..size]));
        bytes = &bytes[size..];
    }
    boxes
}

/// Returns the contents of the box with this name.
fn find<'a>(bytes: &'a [u8], name: &[u8]) -> &'a [u8] {
    let found = boxes(bytes).into_iter().find(|(this, _)| *this == name);
    found.unwrap_or_else(|| panic!("no {}", String::from_utf8_lossy(name))).1
}

/// Returns the pictures of a message: fragments, optionally after an init segment.
fn pictures(message: &[u8], at: Instant) -> Vec<Picture> {
    let mut pictures = vec![];
    let mut time = 0;
    for (name, bytes) in boxes(message) {
        match name {
            b"moof" => {
                let tfdt = find(find(bytes, b"traf"), b"tfdt");
                // The version determines the size of the time.
                time = match tfdt[0] {
                    0 => u32::from_be_bytes(tfdt[4..8].try_into().unwrap()).into(),
                    _ => u64::from_be_bytes(tfdt[4..12].try_into().unwrap()),
                };
            }
            b"mdat" => pictures.push(Picture { nals: nals(bytes), at, time }),
            _ => {}
        }
    }
    pictures
}

/// Splits a sample into NAL units, each of which is preceded by its length.
fn nals(mut sample: &[u8]) -> Vec<Vec<u8>> {
    let mut nals = vec![];
    while !sample.is_empty() {
        let (len, rest) = sample.split_at(4);
        let (nal, rest) = rest.split_at(u32::from_be_bytes(len.try_into().unwrap()) as usize);
        nals.push(nal.to_vec());
        sample = rest;
    }
    nals
}

/// Returns those NAL units of an access unit that a viewer must receive.
pub fn visible(unit: &[u8]) -> Vec<&[u8]> {
    let mut nals = crate::annexb::nal_units(unit);
    nals.retain(|nal| is_slice(nal) || nal_type(nal) == SEI);
    nals
}
