//! WebSocket frames (RFC 6455, section 5), server side. Bytes in, bytes out; no I/O.
//!
//! The server does not mask its frames (5.1), so they are identical for all viewers: the header of
//! a fragment is created once, and all viewers receive the same bytes.
//!
//! ```text
//! 82 len(7 bits)           binary message of up to 125 bytes
//! 82 7e len(16 bits)       binary message of up to 65535 bytes
//! 82 7f len(64 bits)       longer binary message
//! ```
//!
//! Frames from clients must follow the rules of section 5 and two limits: a message has at most
//! [`MAX_MESSAGE`] bytes and is not fragmented. For all other frames, the server closes the
//! connection with a status code from 7.4.1.

/// Maximum length of a message from a client, in bytes. Clients send only short JSON objects.
pub const MAX_MESSAGE: usize = 4096;

const FIN: u8 = 0x80;

const TEXT: u8 = 1;

const BINARY: u8 = 2;

const CLOSE: u8 = 8;

const PING: u8 = 9;

const PONG: u8 = 10;

/// Status codes (7.4.1).
pub mod status {
    /// Normal closure.
    pub const NORMAL: u16 = 1000;
    /// The server is shutting down.
    pub const GOING_AWAY: u16 = 1001;
    /// Protocol error.
    pub const PROTOCOL: u16 = 1002;
    /// Unsupported data: a fragmented message.
    pub const UNSUPPORTED: u16 = 1003;
    /// A text message is not UTF-8.
    pub const INVALID: u16 = 1007;
    /// A message exceeds [`MAX_MESSAGE`](super::MAX_MESSAGE).
    pub const TOO_BIG: u16 = 1009;
}

/// The header of a frame sent by the server. Dereferences to its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; 10],
    len: u8,
}

impl Header {
    /// Returns the header for a binary message of `len` bytes.
    pub fn binary(len: usize) -> Header {
        Header::new(BINARY, len)
    }

    fn new(opcode: u8, len: usize) -> Header {
        let mut bytes = [0; 10];
        bytes[0] = FIN | opcode;
        let header_len = match len {
            0..=125 => {
                bytes[1] = len as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(len as u64).to_be_bytes());
                10
            }
        };
        Header { bytes, len: header_len }
    }
}

impl std::ops::Deref for Header {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&Header::new(opcode, payload.len()), payload].concat()
}

/// Returns a frame with a text message.
pub fn text(message: &str) -> Vec<u8> {
    frame(TEXT, message.as_bytes())
}

/// Returns a ping frame. The client replies with a pong, which shows that it is still connected.
pub fn ping() -> Vec<u8> {
    frame(PING, b"")
}

/// Returns the pong frame that replies to a ping with this payload.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    frame(PONG, payload)
}

/// Returns a close frame, which is the last frame on a connection.
pub fn close(code: u16) -> Vec<u8> {
    frame(CLOSE, &code.to_be_bytes())
}

/// A message from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message. The server ignores these, so the payload is not kept.
    Binary,
    /// A ping. The reply is [`pong`] with the same payload.
    Ping(Vec<u8>),
    /// A pong, the reply to [`ping`].
    Pong,
    /// A close frame. The reply is [`close`] with the same code.
    Close(u16),
}

/// An incremental parser for frames from a client.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// Appends bytes read from the socket. They need not end at a frame boundary.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Returns the next message, or `None` if it is still incomplete.
    ///
    /// # Errors
    ///
    /// The status code to close the connection with, if the client violates the protocol or a
    /// limit.
    pub fn next_message(&mut self) -> Result<Option<Message>, u16> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return Ok(None) };
        let opcode = first & 0x0f;
        let control = opcode & 8 != 0;
        if first & 0x70 != 0 || second & 0x80 == 0 || !matches!(opcode, 0..=2 | 8..=10) {
            return Err(status::PROTOCOL); // reserved bits, no mask, unknown opcode
        }
        let short = usize::from(second & 0x7f);
        if control && (first & FIN == 0 || short > 125) {
            return Err(status::PROTOCOL); // 5.5
        }
        if first & FIN == 0 || opcode == 0 {
            return Err(status::UNSUPPORTED);
        }
        let (len, rest) = match short {
            126 => match rest {
                // 5.2: a length must be encoded in its shortest form.
                [0, 0..=125, ..] => return Err(status::PROTOCOL),
                [a, b, rest @ ..] => (usize::from(u16::from_be_bytes([*a, *b])), rest),
                _ => return Ok(None),
            },
            127 => return Err(status::TOO_BIG),
            len => (len, rest),
        };
        if len > MAX_MESSAGE {
            return Err(status::TOO_BIG);
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let Some(masked) = rest.get(..len) else { return Ok(None) };
        let payload: Vec<u8> =
            masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let used = self.buffer.len() - rest.len() + len;
        self.buffer.drain(..used);
        message(opcode, payload).map(Some)
    }
}

fn message(opcode: u8, payload: Vec<u8>) -> Result<Message, u16> {
    Ok(match opcode {
        TEXT => Message::Text(String::from_utf8(payload).map_err(|_| status::INVALID)?),
        BINARY => Message::Binary,
        PING => Message::Ping(payload),
        PONG => Message::Pong,
        _ => match &payload[..] {
            [] => Message::Close(status::NORMAL),
            [_] => return Err(status::PROTOCOL),
            [a, b, reason @ ..] => {
                // 7.4: these codes are allowed in a close frame.
                let code = u16::from_be_bytes([*a, *b]);
                if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    return Err(status::PROTOCOL);
                }
                std::str::from_utf8(reason).map_err(|_| status::INVALID)?;
                Message::Close(code)
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut out = frame(0, payload);
        out[0] = first;
        out[1] |= 0x80;
        out.truncate(out.len() - payload.len());
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    fn read(bytes: &[u8]) -> Result<Option<Message>, u16> {
        let mut reader = Reader::default();
        reader.push(bytes);
        reader.next_message()
    }

    #[test]
    fn reads_messages_from_clients() {
        assert_eq!(read(&client(0x81, b"hi")), Ok(Some(Message::Text("hi".into()))));
        assert_eq!(read(&client(0x89, b"x")), Ok(Some(Message::Ping(b"x".into()))));
        assert_eq!(read(&client(0x8a, b"")), Ok(Some(Message::Pong)));
        assert_eq!(read(&client(0x88, b"")), Ok(Some(Message::Close(1000))));
        assert_eq!(read(&client(0x88, &[3, 233, b'o'])), Ok(Some(Message::Close(1001))));
        let long = vec![b'a'; MAX_MESSAGE];
        assert!(matches!(read(&client(0x81, &long)), Ok(Some(Message::Text(_)))));
    }

    #[test]
    fn rejects_invalid_frames_with_the_standard_status_codes() {
        assert_eq!(read(&frame(TEXT, b"hi")), Err(1002), "not masked");
        assert_eq!(read(&client(0xc1, b"hi")), Err(1002), "reserved bit");
        assert_eq!(read(&client(0x83, b"hi")), Err(1002), "unknown opcode");
        assert_eq!(read(&client(0x09, b"hi")), Err(1002), "fragmented control frame");
        assert_eq!(read(&[0x81, 0xfe, 0, 125]), Err(1002), "length not in its shortest form");
        assert_eq!(read(&client(0x89, &[0; 126])), Err(1002), "long control frame");
        assert_eq!(read(&client(0x01, b"hi")), Err(1003), "fragmented message");
        assert_eq!(read(&client(0x80, b"hi")), Err(1003), "continuation frame without a start");
        assert_eq!(read(&client(0x81, &[0xff])), Err(1007), "not UTF-8");
        assert_eq!(read(&client(0x82, &[0; MAX_MESSAGE + 1])), Err(1009));
        assert_eq!(read(&client(0x82, &[0; 70_000])), Err(1009));
        assert_eq!(read(&client(0x88, &[3])), Err(1002), "incomplete status code");
        assert_eq!(read(&client(0x88, &[3, 0xed])), Err(1002), "1005 is not allowed in a frame");
    }

    proptest! {
        #[test]
        fn headers_contain_the_length(len in prop_oneof![0usize..300, 65_000usize..70_000]) {
            let header = Header::binary(len);
            let length = match header[1] {
                126 => usize::from(u16::from_be_bytes([header[2], header[3]])),
                127 => u64::from_be_bytes(header[2..10].try_into().unwrap()) as usize,
                short => usize::from(short),
            };
            prop_assert_eq!((header[0], length), (0x82, len));
        }

        #[test]
        fn reads_messages_in_pieces_of_any_size(
            payload in proptest::collection::vec(any::<u8>(), 0..400),
            size in 1usize..50,
        ) {
            let bytes = [client(0x82, &payload), client(0x89, b"z")].concat();
            let mut reader = Reader::default();
            let mut got = vec![];
            for piece in bytes.chunks(size) {
                reader.push(piece);
                while let Some(message) = reader.next_message().unwrap() { got.push(message); }
            }
            prop_assert_eq!(got, [Message::Binary, Message::Ping(b"z".into())]);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_message() {}
        }
    }
}
