//! DNS server of the access point (RFC 1035): every name resolves to this machine. A phone that checks
//! for Internet access therefore reaches the page and opens it automatically.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time to live of an answer, in seconds. It is short because the phone soon joins another network.
const TTL: u32 = 1;

/// A DNS server that runs until it is dropped.
pub(super) struct CaptiveDns(Arc<AtomicBool>);

impl CaptiveDns {
    /// Listens on port 53 of `address`, and resolves every name to `address`.
    pub(super) fn start(address: Ipv4Addr) -> std::io::Result<CaptiveDns> {
        let socket = UdpSocket::bind(SocketAddr::from((address, 53)))?;
        socket.set_read_timeout(Some(Duration::from_millis(250)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::Builder::new().name("names".into()).spawn(move || {
            let mut question = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                if let Some(answer) = answer(&question[..length], address) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        })?;
        Ok(CaptiveDns(stop))
    }
}

impl Drop for CaptiveDns {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns the response to a query (RFC 1035, 4.1): the address for type A, no record for other types.
/// `None` if the message is not a standard query with one question.
fn answer(message: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let header = message.get(..12)?;
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    // A response, an opcode other than QUERY, or not exactly one question.
    if header[2] & 0xf8 != 0 || number(4)? != 1 {
        return None;
    }
    let mut end = 12;
    loop {
        match *message.get(end)? {
            0 => break,
            length @ 1..=63 => end += 1 + usize::from(length),
            // A compression pointer: there is no earlier name that it could refer to.
            _ => return None,
        }
        if end > 12 + 255 {
            return None;
        }
    }
    let (kind, class) = (number(end + 1)?, number(end + 3)?);
    let question = message.get(12..end + 5)?;
    let found = kind == 1 && class == 1;
    let mut answer = header[..2].to_vec();
    // QR, AA, RD as in the query, RA; no error; one question, and at most one answer.
    answer.extend([0x84 | header[2] & 1, 0x80, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(question);
    if found {
        // The name is a pointer to the question, at byte 12.
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(TTL.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUESTION: &[u8] =
        b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x07captive\x05apple\x03com\0\0\x01\0\x01";
    const HERE: Ipv4Addr = Ipv4Addr::new(10, 20, 20, 1);

    #[test]
    fn resolves_every_name_to_this_machine() {
        let got = answer(QUESTION, HERE).unwrap();
        assert_eq!(&got[..12], b"\x12\x34\x85\x80\0\x01\0\x01\0\0\0\0");
        assert_eq!(&got[12..QUESTION.len()], &QUESTION[12..]);
        assert_eq!(&got[QUESTION.len()..], b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04\x0a\x14\x14\x01");
        // AAAA: the name exists, but has no such record.
        let mut question = QUESTION.to_vec();
        question[QUESTION.len() - 3] = 28;
        let got = answer(&question, HERE).unwrap();
        assert_eq!((got[3] & 15, got[7], got.len()), (0, 0, question.len()));
    }

    #[test]
    fn ignores_messages_that_are_not_queries() {
        let mut response = QUESTION.to_vec();
        response[2] |= 0x80;
        let mut two = QUESTION.to_vec();
        two[5] = 2;
        let mut pointing = QUESTION.to_vec();
        pointing[12] = 0xc0;
        for message in [&response, &two, &pointing, &QUESTION[..20].to_vec(), &vec![]] {
            assert_eq!(answer(message, HERE), None);
        }
    }

    proptest! {
        #[test]
        fn responses_are_short(message in proptest::collection::vec(any::<u8>(), 0..600)) {
            let got = answer(&message, HERE);
            // Hardly longer than the query: useless for amplification attacks.
            prop_assert!(got.is_none_or(|got| got.len() <= message.len() + 16));
        }
    }
}
