//! The device side of USB/IP (Documentation/usb/usbip_protocol.rst in the kernel), and the ports of
//! vhci_hcd, the kernel's virtual host controller.

use crate::uvc::Setup;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const CMD_SUBMIT: u32 = 1;
const CMD_UNLINK: u32 = 2;
const RET_SUBMIT: u32 = 3;
const RET_UNLINK: u32 = 4;

/// Status of a request to a stalled endpoint, and of an unlinked request.
pub const EPIPE: i32 = -32;
pub const ECONNRESET: i32 = -104;

/// Size of each message's header, in bytes.
const HEADER_LEN: usize = 48;

/// A command from the host.
#[derive(Debug)]
pub enum Command {
    Submit {
        number: u32,
        endpoint: u32,
        setup: Setup,
        /// Number of bytes that the host requests or sends.
        length: usize,
        /// The bytes that the host sends.
        data: Vec<u8>,
    },
    /// Cancels the request `victim`.
    Unlink { number: u32, victim: u32 },
}

/// Reads the next command. `None` at the end of the connection.
pub fn read(socket: &mut impl Read) -> io::Result<Option<Command>> {
    let mut header = [0; HEADER_LEN];
    match socket.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
    let number = word(4);
    match word(0) {
        CMD_SUBMIT => {
            let length = word(0x18) as usize;
            let mut data = vec![];
            if word(0xc) == 0 {
                data.resize(length, 0);
                socket.read_exact(&mut data)?;
            }
            let setup = Setup::new(header[0x28..0x30].try_into().unwrap());
            Ok(Some(Command::Submit { number, endpoint: word(0x10), setup, length, data }))
        }
        CMD_UNLINK => Ok(Some(Command::Unlink { number, victim: word(0x14) })),
        other => Err(io::Error::other(format!("USB/IP command {other}"))),
    }
}

/// Encodes a message to the host.
fn message(command: u32, number: u32, status: i32, length: usize, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    bytes[0..4].copy_from_slice(&command.to_be_bytes());
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[0x14..0x18].copy_from_slice(&status.to_be_bytes());
    bytes[0x18..0x1c].copy_from_slice(&(length as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// Answers a request. `taken` is the number of bytes transferred.
pub fn answer(
    mut socket: impl Write,
    number: u32,
    status: i32,
    taken: usize,
    data: &[u8],
) -> io::Result<()> {
    socket.write_all(&message(RET_SUBMIT, number, status, taken, data))
}

/// Reports that a request was cancelled (ECONNRESET), or that it had already been answered (0).
pub fn unlinked(mut socket: impl Write, number: u32, status: i32) -> io::Result<()> {
    socket.write_all(&message(RET_UNLINK, number, status, 0, &[]))
}

const VHCI: &str = "/sys/devices/platform/vhci_hcd.0";

/// USB 2 at 480 Mbit/s (enum usb_device_speed).
const HIGH_SPEED: u32 = 3;

/// Status of a free port (enum usbip_device_status).
const FREE: &str = "004";

/// Returns whether a port is free.
fn is_free(port: u32) -> bool {
    let status = fs::read_to_string(format!("{VHCI}/status")).expect("vhci_hcd is not loaded");
    status.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words[..1] == ["hs"] && words[1].parse() == Ok(port) && words[2] == FREE
    })
}

/// Plugs in the device at the other end of `socket`.
pub fn attach(port: u32, socket: &UnixStream) {
    // The controller releases ports with a delay.
    let end = Instant::now() + Duration::from_secs(10);
    while !is_free(port) {
        assert!(Instant::now() < end, "port {port} of vhci_hcd does not become free");
        std::thread::sleep(Duration::from_millis(10));
    }
    // The number of the device is arbitrary.
    let words = format!("{port} {} {} {HIGH_SPEED}", socket.as_raw_fd(), port + 1);
    fs::write(format!("{VHCI}/attach"), words).expect("vhci_hcd rejected the device");
}

/// Unplugs the device in a port.
pub fn detach(port: u32) {
    fs::write(format!("{VHCI}/detach"), port.to_string())
        .expect("vhci_hcd cannot unplug the device");
}
