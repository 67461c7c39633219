//! WebSocket, the server's side: RFC 6455. Pure: headers and bytes in, headers and bytes out.
//!
//! A server's frames are not masked (5.1), so they are the same for every viewer: a header is put
//! in front of a fragment once, and everybody gets the same bytes.
//!
//! ```text
//! 82 len(7 bits)           a binary message of up to 125 bytes
//! 82 7e len(16 bits)       … of up to 65535
//! 82 7f len(64 bits)       … of any length
//! ```
//!
//! Clients have little to say here. What they send is read by all the rules of section 5, within
//! narrow limits ([`MAX_MESSAGE`], no fragmented messages), and anything else ends the connection
//! with the status code of 7.4.1 that fits.

/// The longest message a client may send, bytes: what clients have to say is a line of JSON.
pub const MAX_MESSAGE: usize = 4096;

const FIN: u8 = 0x80;

const TEXT: u8 = 1;

const BINARY: u8 = 2;

const CLOSE: u8 = 8;

const PING: u8 = 9;

const PONG: u8 = 10;

/// Status codes of 7.4.1.
pub mod status {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// The server stops.
    pub const GOING_AWAY: u16 = 1001;
    /// Against the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// A kind of data that is not taken: fragmented messages.
    pub const UNSUPPORTED: u16 = 1003;
    /// Text that is not UTF-8.
    pub const INVALID: u16 = 1007;
    /// A message longer than is taken.
    pub const TOO_BIG: u16 = 1009;
}

/// The header of a frame that the server sends.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; 10],
    len: u8,
}

impl Header {
    /// Of a binary message of `len` bytes.
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

/// A text message.
pub fn text(message: &str) -> Vec<u8> {
    frame(TEXT, message.as_bytes())
}

/// A ping; its answer shows that the viewer is still there.
pub fn ping() -> Vec<u8> {
    frame(PING, b"")
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    frame(PONG, payload)
}

/// The last frame of a connection.
pub fn close(code: u16) -> Vec<u8> {
    frame(CLOSE, &code.to_be_bytes())
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message, of which nobody here makes anything.
    Binary,
    /// To be answered with [`pong`] and the same payload.
    Ping(Vec<u8>),
    /// The viewer is still there.
    Pong,
    /// The viewer goes; to be answered with [`close`] and this code.
    Close(u16),
}

/// Reads a client's frames from whatever pieces arrive.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// Takes what was read from the socket.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next message, if it is whole. The error is the status code to close with.
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
                // 5.2: the shortest form that holds it.
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
                // 7.4: what may stand in a close frame.
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
    fn messages_of_a_client() {
        assert_eq!(read(&client(0x81, b"hi")), Ok(Some(Message::Text("hi".into()))));
        assert_eq!(read(&client(0x89, b"x")), Ok(Some(Message::Ping(b"x".into()))));
        assert_eq!(read(&client(0x8a, b"")), Ok(Some(Message::Pong)));
        assert_eq!(read(&client(0x88, b"")), Ok(Some(Message::Close(1000))));
        assert_eq!(read(&client(0x88, &[3, 233, b'o'])), Ok(Some(Message::Close(1001))));
        let long = vec![b'a'; MAX_MESSAGE];
        assert!(matches!(read(&client(0x81, &long)), Ok(Some(Message::Text(_)))));
    }

    #[test]
    fn what_is_against_the_rules_has_the_right_code() {
        assert_eq!(read(&frame(TEXT, b"hi")), Err(1002), "not masked");
        assert_eq!(read(&client(0xc1, b"hi")), Err(1002), "reserved bit");
        assert_eq!(read(&client(0x83, b"hi")), Err(1002), "unknown opcode");
        assert_eq!(read(&client(0x09, b"hi")), Err(1002), "fragmented control frame");
        assert_eq!(read(&[0x81, 0xfe, 0, 125]), Err(1002), "a length longer than need be");
        assert_eq!(read(&client(0x89, &[0; 126])), Err(1002), "long control frame");
        assert_eq!(read(&client(0x01, b"hi")), Err(1003), "fragmented message");
        assert_eq!(read(&client(0x80, b"hi")), Err(1003), "continuation of nothing");
        assert_eq!(read(&client(0x81, &[0xff])), Err(1007), "not UTF-8");
        assert_eq!(read(&client(0x82, &[0; MAX_MESSAGE + 1])), Err(1009));
        assert_eq!(read(&client(0x82, &[0; 70_000])), Err(1009));
        assert_eq!(read(&client(0x88, &[3])), Err(1002), "half a code");
        assert_eq!(read(&client(0x88, &[3, 0xed])), Err(1002), "1005 is never sent");
    }

    proptest! {
        #[test]
        fn headers_say_the_length(len in prop_oneof![0usize..300, 65_000usize..70_000]) {
            let header = Header::binary(len);
            let said = match header[1] {
                126 => usize::from(u16::from_be_bytes([header[2], header[3]])),
                127 => u64::from_be_bytes(header[2..10].try_into().unwrap()) as usize,
                short => usize::from(short),
            };
            prop_assert_eq!((header[0], said), (0x82, len));
        }

        /// In whatever pieces a message arrives, it is the same message.
        #[test]
        fn pieces_of_any_size(payload in proptest::collection::vec(any::<u8>(), 0..400),
                              size in 1usize..50) {
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
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_message() {}
        }
    }
}
