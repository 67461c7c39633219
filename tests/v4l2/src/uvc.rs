//! The protocol of a USB camera: descriptors and the negotiation of a stream.
//!
//! Implements parts of the USB Device Class Definition for Video Devices 1.1 ("UVC") and of its
//! Frame Based Payload specification. As in real cameras, YUYV is the first format and H.264 the
//! second. There is one bulk endpoint and one control (brightness).

use crate::annexb::Clip;

/// Descriptor types.
const DEVICE: u8 = 1;
const CONFIGURATION: u8 = 2;
const STRING: u8 = 3;
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;
const ASSOCIATION: u8 = 11;
const CS_INTERFACE: u8 = 0x24;

/// The video class and its subclasses: control, streaming, and the collection of both.
const VIDEO: u8 = 14;
const CONTROL: u8 = 1;
const STREAMING: u8 = 2;
const COLLECTION: u8 = 3;

/// Interface numbers.
const CONTROL_INTERFACE: u8 = 0;
const STREAMING_INTERFACE: u8 = 1;

/// Entities of the control interface.
const CAMERA_TERMINAL: u8 = 1;
const PROCESSING_UNIT: u8 = 2;
const OUTPUT_TERMINAL: u8 = 3;

/// Number of the endpoint for pictures.
pub const BULK_IN: u32 = 1;

/// Size of a bulk packet at high speed, in bytes.
const PACKET_LEN: u16 = 512;

/// End of the GUID that identifies a format in a descriptor. The FourCC precedes it.
const GUID: [u8; 12] = [0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// Supported frame intervals, in units of 100 ns: 30, 15 and 10 frames per second.
pub const INTERVALS: [u32; 3] = [333_333, 666_666, 1_000_000];

/// Size of raw pictures, in pixels. Small, because the streamer rejects them.
pub const RAW: (u16, u16) = (160, 120);

/// Maximum size of a compressed picture, in bytes.
const MAX_FRAME_BYTES: u32 = 512 << 10;

/// Formats, numbered from 1 as in UVC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Yuyv = 1,
    H264 = 2,
}

/// The permanent properties of a camera.
pub struct Model {
    pub serial: &'static str,
    /// The H.264 clips, one for each size. Empty for cameras without H.264.
    pub clips: Vec<Clip>,
}

impl Model {
    fn frames(&self, format: Format) -> Vec<(u16, u16)> {
        match format {
            Format::Yuyv => vec![RAW],
            Format::H264 => self.clips.iter().map(|clip| (clip.width, clip.height)).collect(),
        }
    }
}

/// The negotiated parameters of a stream (UVC 4.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub format: Format,
    /// Index of the frame size, from 0.
    pub size: usize,
    /// Frame interval, in units of 100 ns.
    pub interval: u32,
}

impl Choice {
    pub fn first() -> Choice {
        Choice { format: Format::Yuyv, size: 0, interval: INTERVALS[0] }
    }

    /// Selects the supported parameters closest to those that the host requests.
    pub fn negotiate(requested: &[u8], model: &Model) -> Choice {
        let format = match requested.get(2) {
            Some(2) if !model.clips.is_empty() => Format::H264,
            _ => Format::Yuyv,
        };
        let sizes = model.frames(format).len();
        let size = usize::from(*requested.get(3).unwrap_or(&1)).clamp(1, sizes) - 1;
        let interval =
            requested.get(4..8).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap()));
        let nearest = INTERVALS.into_iter().min_by_key(|supported| supported.abs_diff(interval));
        Choice { format, size, interval: nearest.unwrap() }
    }

    /// Encodes the parameters for the host: 34 bytes in UVC 1.1.
    pub fn to_bytes(self) -> Vec<u8> {
        let max_frame = match self.format {
            Format::Yuyv => u32::from(RAW.0) * u32::from(RAW.1) * 2,
            Format::H264 => MAX_FRAME_BYTES,
        };
        let mut bytes = vec![0; 34];
        bytes[2] = self.format as u8;
        bytes[3] = self.size as u8 + 1;
        bytes[4..8].copy_from_slice(&self.interval.to_le_bytes());
        bytes[18..22].copy_from_slice(&max_frame.to_le_bytes());
        // A payload is a complete frame with its header, and ends with a short packet.
        bytes[22..26].copy_from_slice(&(max_frame + 512).to_le_bytes());
        bytes[26..30].copy_from_slice(&48_000_000u32.to_le_bytes()); // clock
        bytes[30] = 3; // bmFramingInfo: frame ID and end of frame are marked
        bytes
    }
}

/// Appends a descriptor, preceded by its length.
fn push(to: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    to.push(len as u8 + 1);
    to.extend(parts.concat());
}

/// Returns a descriptor for GET_DESCRIPTOR. `None` if it does not exist.
pub fn descriptor(kind: u8, index: u8, model: &Model) -> Option<Vec<u8>> {
    match (kind, index) {
        (DEVICE, 0) => Some(device()),
        (CONFIGURATION, 0) => Some(configuration(model)),
        (STRING, 0) => Some(vec![4, STRING, 0x09, 0x04]), // languages: only English
        (STRING, 1) => Some(string("BerryMSE")),
        (STRING, 2) => Some(string("Lab Camera")),
        (STRING, 3) => Some(string(model.serial)),
        _ => None,
    }
}

fn string(text: &str) -> Vec<u8> {
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut bytes = vec![];
    push(&mut bytes, &[&[STRING], &utf16]);
    bytes
}

fn device() -> Vec<u8> {
    let mut bytes = vec![];
    // USB 2.0; the class for interface associations. Linux Foundation, "Webcam Gadget".
    push(&mut bytes, &[&[DEVICE, 0, 2, 0xef, 2, 1, 64, 0x6b, 0x1d, 0x02, 0x01, 0, 1, 1, 2, 3, 1]]);
    bytes
}

fn configuration(model: &Model) -> Vec<u8> {
    let mut body = vec![];
    push(&mut body, &[&[ASSOCIATION, CONTROL_INTERFACE, 2, VIDEO, COLLECTION, 0, 2]]);
    push(&mut body, &[&[INTERFACE, CONTROL_INTERFACE, 0, 0, VIDEO, CONTROL, 0, 2]]);

    let mut units = vec![];
    // A camera terminal (type 0x0201) without controls.
    push(
        &mut units,
        &[&[CS_INTERFACE, 2, CAMERA_TERMINAL, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]],
    );
    // A processing unit with brightness (bit 0 of bmControls).
    push(&mut units, &[&[CS_INTERFACE, 5, PROCESSING_UNIT, CAMERA_TERMINAL, 0, 0, 2, 1, 0, 0, 0]]);
    // The output terminal for streaming (type 0x0101).
    push(&mut units, &[&[CS_INTERFACE, 3, OUTPUT_TERMINAL, 0x01, 0x01, 0, PROCESSING_UNIT, 0]]);
    let total = (13 + units.len() as u16).to_le_bytes();
    let clock = 48_000_000u32.to_le_bytes();
    push(&mut body, &[&[CS_INTERFACE, 1, 0x10, 0x01], &total, &clock, &[1, STREAMING_INTERFACE]]);
    body.extend(units);

    push(&mut body, &[&[INTERFACE, STREAMING_INTERFACE, 0, 1, VIDEO, STREAMING, 0, 0]]);
    body.extend(formats(model));
    push(&mut body, &[&[ENDPOINT, 0x80 | BULK_IN as u8, 2], &PACKET_LEN.to_le_bytes(), &[0]]);

    let total = (9 + body.len() as u16).to_le_bytes();
    let mut bytes = vec![];
    // Bus-powered, 100 mA.
    push(&mut bytes, &[&[CONFIGURATION], &total, &[2, 1, 0, 0x80, 50]]);
    bytes.extend(body);
    bytes
}

/// Class-specific descriptors of the streaming interface (UVC 3.9.2).
fn formats(model: &Model) -> Vec<u8> {
    let mut formats = vec![];
    let raw = model.frames(Format::Yuyv);
    push(
        &mut formats,
        &[
            &[CS_INTERFACE, 4, Format::Yuyv as u8, raw.len() as u8],
            b"YUY2",
            &GUID,
            &[16, 1, 0, 0, 0, 0],
        ],
    );
    for (index, size) in raw.iter().enumerate() {
        let bytes = u32::from(size.0) * u32::from(size.1) * 2;
        frame(&mut formats, 5, index, *size, &bytes.to_le_bytes());
    }
    color(&mut formats);
    let compressed = model.frames(Format::H264);
    if !compressed.is_empty() {
        push(
            &mut formats,
            &[
                &[CS_INTERFACE, 0x10, Format::H264 as u8, compressed.len() as u8],
                b"H264",
                &GUID,
                &[16, 1, 0, 0, 0, 0, 1], // the last byte: frames vary in size
            ],
        );
        for (index, size) in compressed.iter().enumerate() {
            frame(&mut formats, 0x11, index, *size, &[]);
        }
        color(&mut formats);
    }

    let count = if compressed.is_empty() { 1 } else { 2 };
    let total = (13 + count + formats.len()) as u16;
    let mut bytes = vec![];
    push(
        &mut bytes,
        &[
            &[CS_INTERFACE, 1, count as u8],
            &total.to_le_bytes(),
            &[0x80 | BULK_IN as u8, 0, OUTPUT_TERMINAL, 0, 0, 0, 1],
            &vec![0; count],
        ],
    );
    bytes.extend(formats);
    bytes
}

/// Appends a frame descriptor. For uncompressed formats, it contains the size of a picture before
/// the default interval. For frame-based formats, it contains the length of a line (0) after the
/// number of intervals.
fn frame(to: &mut Vec<u8>, kind: u8, index: usize, size: (u16, u16), bytes: &[u8]) {
    let rates: Vec<u8> = INTERVALS.into_iter().flat_map(u32::to_le_bytes).collect();
    let line: &[u8] = if bytes.is_empty() { &[0; 4] } else { &[] };
    push(
        to,
        &[
            &[CS_INTERFACE, kind, index as u8 + 1, 0],
            &size.0.to_le_bytes(),
            &size.1.to_le_bytes(),
            &1_000_000u32.to_le_bytes(),
            &20_000_000u32.to_le_bytes(),
            bytes,
            &INTERVALS[0].to_le_bytes(),
            &[INTERVALS.len() as u8],
            line,
            &rates,
        ],
    );
}

/// Appends the color matching descriptor for BT.709 and sRGB.
fn color(to: &mut Vec<u8>) {
    push(to, &[&[CS_INTERFACE, 0x0d, 1, 1, 4]]);
}

/// Class-specific requests (UVC A.8).
const SET_CUR: u8 = 0x01;
const GET_CUR: u8 = 0x81;
const GET_MIN: u8 = 0x82;
const GET_MAX: u8 = 0x83;
const GET_RES: u8 = 0x84;
const GET_LEN: u8 = 0x85;
const GET_INFO: u8 = 0x86;
const GET_DEF: u8 = 0x87;

/// A control request on endpoint 0.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub kind: u8,
    pub request: u8,
    pub value: u16,
    pub index: u16,
}

impl Setup {
    pub fn new(bytes: [u8; 8]) -> Setup {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let [kind, request, ..] = bytes;
        Setup { kind, request, value: word(2), index: word(4) }
    }
}

/// A decoded control request.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Answer with these bytes.
    Answer(Vec<u8>),
    /// Accept the request, which requires no data and no action.
    Done,
    /// Negotiate parameters.
    Probe,
    /// Start the stream.
    Commit,
    /// Stop the stream, or clear a halt. UVC uses the same request for both on bulk endpoints.
    ClearHalt,
    /// Set the brightness.
    Brightness,
    /// Unsupported: the endpoint stalls.
    Unknown,
}

/// Decodes a control request.
pub fn request(setup: Setup, model: &Model, probe: Choice, brightness: u16) -> Request {
    let [selector, _] = setup.value.to_be_bytes();
    let [entity, interface] = setup.index.to_be_bytes();
    let selector = u32::from(selector);
    match (setup.kind, setup.request) {
        // GET_DESCRIPTOR
        (0x80, 6) => {
            let [kind, index] = setup.value.to_be_bytes();
            descriptor(kind, index, model).map_or(Request::Unknown, Request::Answer)
        }
        // GET_STATUS of the device, an interface or an endpoint
        (0x80..=0x82, 0) => Request::Answer(vec![0, 0]),
        // GET_CONFIGURATION, GET_INTERFACE
        (0x80, 8) => Request::Answer(vec![1]),
        (0x81, 10) => Request::Answer(vec![0]),
        // SET_CONFIGURATION, SET_INTERFACE
        (0x00, 9) | (0x01, 11) => Request::Done,
        // CLEAR_FEATURE(ENDPOINT_HALT)
        (0x02, 1) => Request::ClearHalt,
        (0x21, SET_CUR) if interface == STREAMING_INTERFACE => match selector {
            1 => Request::Probe,
            2 => Request::Commit,
            _ => Request::Unknown,
        },
        (0xa1, query) if interface == STREAMING_INTERFACE && matches!(selector, 1 | 2) => {
            let with = |interval| Choice { interval, ..probe }.to_bytes();
            match query {
                GET_CUR => Request::Answer(probe.to_bytes()),
                GET_MIN => Request::Answer(with(INTERVALS[0])),
                GET_MAX => Request::Answer(with(INTERVALS[INTERVALS.len() - 1])),
                GET_DEF => Request::Answer(Choice::first().to_bytes()),
                GET_LEN => Request::Answer(vec![34, 0]),
                GET_INFO => Request::Answer(vec![3]),
                _ => Request::Unknown,
            }
        }
        // Brightness, 0 to 255.
        (0x21, SET_CUR) if entity == PROCESSING_UNIT && selector == 2 => Request::Brightness,
        (0xa1, query) if entity == PROCESSING_UNIT && selector == 2 => {
            let value = match query {
                GET_CUR => brightness,
                GET_MIN => 0,
                GET_MAX => 255,
                GET_RES => 1,
                GET_DEF => 128,
                GET_LEN => 2,
                GET_INFO => return Request::Answer(vec![3]),
                _ => return Request::Unknown,
            };
            Request::Answer(value.to_le_bytes().to_vec())
        }
        // Reason for the last error: "invalid control".
        (0xa1, GET_CUR) if interface == CONTROL_INTERFACE && entity == 0 && selector == 2 => {
            Request::Answer(vec![6])
        }
        _ => Request::Unknown,
    }
}
