//! The output of real encoders, read with `{ command = [...] }`: viewers receive every picture bit for bit,
//! in files that ffmpeg and mp4-atom accept without warnings.

use crate::support::{
    Clip, Folder, Frame, Server, TIMEOUT, assert_even, decode, ffmpeg, frames, split_init, within,
};
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::nal::{Nal, RefNal};
use http_body_util::BodyExt;
use memchr::memmem;
use mp4_atom::{Avcc, Codec, Moov};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;

/// Number of frames in each clip: two groups of pictures.
const FRAMES: u32 = 48;
const GROUP: &str = "-g 24 -keyint_min 24";

/// The stream of one camera and the expected result.
struct Case {
    name: &'static str,
    /// The command of the camera.
    command: Vec<String>,
    /// The expected pictures: a clip for each series of frames with the same parameter sets.
    parts: Vec<Clip>,
    /// All pictures in one file.
    whole: PathBuf,
    size: Vec<(u64, u64)>,
}

impl Case {
    /// Creates a case from a clip that ffmpeg plays in real time.
    fn new(name: &'static str, size: (u64, u64), clip: Clip) -> Case {
        let whole = clip.file.clone();
        Case { name, command: play(&whole), whole, parts: vec![clip], size: vec![size] }
    }

    fn frames(&self) -> usize {
        self.parts.iter().map(Clip::len).sum()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

fn play(file: &Path) -> Vec<String> {
    let mut command = words("ffmpeg -v error -re -framerate 30 -i");
    command.push(file.to_str().unwrap().into());
    command.extend(words("-c copy -flush_packets 1 -f h264 -"));
    command
}

fn cases(folder: &Folder) -> Vec<Case> {
    let encode = |name: &str, size: &str, options: &str| {
        Clip::encode(folder, name, size, FRAMES, &format!("{GROUP} {options}"))
    };
    let mut cases = vec![];
    for (width, height, names) in [
        (640, 480, ["baseline-480", "main-480", "high-480"]),
        (1280, 720, ["baseline-720", "main-720", "high-720"]),
        (1920, 1080, ["baseline-1080", "main-1080", "high-1080"]),
    ] {
        for (name, profile) in names.into_iter().zip(["baseline", "main", "high"]) {
            let clip = encode(name, &format!("{width}x{height}"), &format!("-profile:v {profile}"));
            cases.push(Case::new(name, (width, height), clip));
        }
    }
    let small = (640, 480);

    let clip = encode("slices", "1280x720", "-x264-params slices=4");
    let pictures = nals(&clip.data).filter(|nal| matches!(nal[0] & 31, 1 | 5)).count();
    assert_eq!(pictures, 4 * clip.len());
    cases.push(Case::new("slices", (1280, 720), clip));

    let clip = encode("delimiters", "640x480", "-x264-params aud=1");
    assert_eq!(nals(&clip.data).filter(|nal| nal[0] & 31 == 9).count(), clip.len());
    cases.push(Case::new("delimiters", small, clip));

    // `-c copy` does not change start codes.
    let mut short = vec![];
    for nal in nals(&encode("short-source", "640x480", "").data) {
        short.extend([0, 0, 1]);
        short.extend_from_slice(nal);
    }
    assert_eq!(memmem::find(&short, &[0, 0, 0, 1]), None);
    let clip = Clip::read(folder.write("short.h264", short));
    cases.push(Case::new("short-start-codes", small, clip));

    // Many cameras send their parameter sets only once.
    let (mut once, mut seen) = (vec![], 0);
    for nal in nals(&encode("once-source", "640x480", "").data) {
        let is_set = matches!(nal[0] & 31, 7 | 8);
        seen += usize::from(is_set);
        if !is_set || seen <= 2 {
            once.extend([0, 0, 0, 1]);
            once.extend_from_slice(nal);
        }
    }
    assert_eq!(seen, 4);
    let clip = Clip::read(folder.write("once.h264", once));
    cases.push(Case::new("sets-once", small, clip));

    // x264 always declares that it does not reorder pictures; many cameras do not declare it.
    let mut plain = vec![];
    for nal in nals(&encode("plain-source", "640x480", "-profile:v main").data) {
        plain.extend([0, 0, 0, 1]);
        plain.extend(if nal[0] & 31 == 7 { without_vui(nal) } else { nal.to_vec() });
    }
    let clip = Clip::read(folder.write("plain.h264", plain));
    assert!(parse_sps(sps_of(&clip.data)).vui_parameters.is_none());
    cases.push(Case::new("no-restriction", small, clip));

    let parts = vec![encode("before", "640x480", ""), encode("after", "1280x720", "")];
    let whole = folder.write("change.h264", [&parts[0].data[..], &parts[1].data].concat());
    let size = vec![(640, 480), (1280, 720)];
    cases.push(Case { name: "size-change", command: play(&whole), whole, parts, size });

    // An encoder that runs live, with the usual options. Its output is deterministic.
    let options = "-tune zerolatency -threads 2 -x264-params sliced-threads=1";
    let mut live = Case::new("live-encoder", small, encode("live", "640x480", options));
    live.command = words(&format!(
        "ffmpeg -v error -re -f lavfi -i testsrc2=size=640x480:rate=30 -frames:v {FRAMES} -pix_fmt \
         yuv420p -c:v libx264 -preset veryfast -bf 0 {GROUP} {options} -flush_packets 1 -f h264 -"
    ));
    cases.push(live);
    cases
}

/// Returns a camera that starts once all viewers are connected, and plays once: when restarted, it sends
/// nothing.
fn once(folder: &Folder, case: &Case) -> String {
    let script = "[ -e \"$1\" ] && exec sleep 1000; until [ -e \"$2\" ]; do sleep 0.2; done; \
                  : > \"$1\"; shift 2; exec \"$@\"";
    let [played, go] = [case.name, "go"].map(|name| folder.path(name).display().to_string());
    let mut command = vec!["sh".into(), "-c".into(), script.into(), "sh".into(), played, go];
    command.extend(case.command.iter().cloned());
    format!("[[camera]]\nname = {:?}\nsource = {{ command = {command:?} }}\n", case.name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivers_every_picture_of_real_encoders_with_even_timestamps() {
    let folder = Folder::new();
    let cases = cases(&folder);
    let config: String = cases.iter().map(|case| once(&folder, case)).collect();
    let mut server = Server::start(&config).await;
    let mut viewers = vec![];
    for case in &cases {
        let name = case.name;
        viewers.push((
            Download::start(&server, &format!("/live/{name}.mp4")).await,
            Download::start(&server, &format!("/live/{name}.h264")).await,
            Messages::start(&server, &format!("/live/{name}")).await,
        ));
    }
    folder.write("go", "");
    for (case, (mp4, h264, messages)) in cases.iter().zip(&viewers) {
        let status = server
            .camera_until(case.name, "end of the clip", |camera| camera["state"] == "failed")
            .await;
        let error = status["error"].as_str().unwrap();
        assert!(error.ends_with("ended (exit status: 0)"), "{}: {status:#}", case.name);
        let count = case.frames();
        assert_eq!(
            (&status["frames"], &status["damaged"]),
            (&count.into(), &0.into()),
            "{}: {status:#}",
            case.name
        );
        let end = Instant::now() + TIMEOUT;
        loop {
            let arrived = [mp4.fragments(), h264.pictures(), messages.fragments()];
            if arrived.iter().all(|&arrived| arrived >= count) {
                break;
            }
            let name = case.name;
            assert!(Instant::now() < end, "{name}: {arrived:?} of {count} (mp4, h264, WebSocket)");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    // Stopping the server also ends the downloads.
    server.terminate();
    assert!(server.ended().await.success());

    // All cases are checked, so that one failure does not hide others.
    let mut failed = vec![];
    for (case, (mp4, h264, messages)) in cases.iter().zip(viewers) {
        let (mp4, h264, messages) = (mp4.end().await, h264.end().await, messages.end().await);
        let check = || check(&folder, case, &mp4, &h264, &messages);
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}: see above");
}

fn check(folder: &Folder, case: &Case, mp4: &[u8], h264: &[u8], parts: &[Part]) {
    let name = case.name;
    let file = |kind: &str, data: &[u8]| folder.write(&format!("{name}-got{kind}"), data);
    let whole = decode(&case.whole);
    assert_eq!(whole.pictures.len(), case.frames(), "{name}: the clip itself");
    assert_eq!(whole.complaints, "", "{name}: the clip itself");

    // One endless file.
    let (moov, fragments) = split_init(mp4);
    let avcc = avcc(&moov, true);
    let in_file = frames(fragments);
    check_frames(name, &in_file, case.frames());
    let path = file(".mp4", mp4);
    assert_eq!(decode(&path), whole, "{name}: .mp4");
    check_packets(&path, &in_file);
    check_sps(name, avcc, &case.parts[0]);

    // Annex B, with the encoder's own parameter sets.
    assert_eq!(decode(&file(".h264", h264)), whole, "{name}: .h264");
    assert_eq!(sps_of(h264), sps_of(&case.parts[0].data), "{name}: .h264");

    // WebSocket, a file for each init segment.
    assert_eq!(parts.len(), case.parts.len(), "{name}: init segments");
    let mut all = vec![];
    for ((part, clip), (width, height)) in parts.iter().zip(&case.parts).zip(&case.size) {
        let (moov, fragments) = split_init(&part.data);
        let avcc = self::avcc(&moov, false);
        let text = &part.text;
        let codec = format!(
            "avc1.{:02x}{:02x}{:02x}",
            avcc.avc_profile_indication, avcc.profile_compatibility, avcc.avc_level_indication
        );
        assert_eq!(text["codec"].as_str().unwrap().to_lowercase(), codec, "{name}");
        let described = (&text["width"], &text["height"], &text["framerate"]);
        assert_eq!(
            described,
            (&(*width).into(), &(*height).into(), &30.0.into()),
            "{name}: {text}"
        );
        check_sps(name, avcc, clip);
        let path = file("-ws.mp4", &part.data);
        assert_eq!(decode(&path), decode(&clip.file), "{name}: WebSocket");
        let in_part = frames(fragments);
        check_packets(&path, &in_part);
        all.extend(in_part);
    }
    check_frames(name, &all, case.frames());
}

/// Asserts that all frames have arrived, numbered from 1 and without gaps.
fn check_frames(name: &str, frames: &[Frame], count: usize) {
    assert_eq!(frames.len(), count, "{name}");
    assert_eq!((frames[0].sequence, frames[0].decode_time), (1, 0), "{name}");
    assert_even(frames);
    let keys: Vec<usize> = (0..count).filter(|&n| frames[n].key).collect();
    assert_eq!(keys, (0..count).step_by(24).collect::<Vec<_>>(), "{name}");
}

/// Asserts that ffprobe sees the same timestamps as mp4-atom, which have no gaps ([`assert_even`]). In a
/// fragmented file, ffprobe's durations are estimates, so they are not compared.
fn check_packets(file: &Path, frames: &[Frame]) {
    let options = "-v warning -show_entries packet=pts,dts -of csv=p=0";
    let output = ffmpeg("ffprobe", options.split(' ').chain([file.to_str().unwrap()]));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let expected: String =
        frames.iter().map(|frame| format!("{0},{0}\n", frame.decode_time)).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

/// Asserts that the SPS in the init segment declares that pictures are not reordered, and that it is the
/// encoder's own SPS if that already declares it.
fn check_sps(name: &str, avcc: &Avcc, clip: &Clip) {
    let [sps] = &avcc.sequence_parameter_sets[..] else { panic!("{name}: no SPS, or several") };
    let restrictions = parse_sps(sps).vui_parameters.unwrap().bitstream_restrictions.unwrap();
    assert_eq!(restrictions.max_num_reorder_frames, 0, "{name}");
    let own = sps_of(&clip.data);
    let declared =
        parse_sps(own).vui_parameters.is_some_and(|v| v.bitstream_restrictions.is_some());
    assert_eq!(declared, sps == own, "{name}");
    assert_eq!(declared, name != "no-restriction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_b_frames_and_names_the_encoder_option() {
    let folder = Folder::new();
    let clip = Clip::encode(&folder, "b", "640x480", FRAMES, &format!("{GROUP} -bf 2"));
    let source = format!("{{ command = {:?} }}", play(&clip.file));
    let server = Server::start(&format!("[[camera]]\nname = \"b\"\nsource = {source}\n")).await;
    let status = server.camera_until("b", "rejection", |camera| camera["state"] == "failed").await;
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("B-frames") && error.contains("-bf 0"), "{error}");
    assert!(server.log().contains("-bf 0"));
}

// ---- H.264 ----

/// Splits a stream into NAL units, without start codes.
fn nals(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts: Vec<usize> = memmem::find_iter(data, &[0, 0, 1]).map(|at| at + 3).collect();
    starts.push(data.len() + 3);
    let ranges: Vec<_> = starts.windows(2).map(|pair| pair[0]..pair[1] - 3).collect();
    ranges.into_iter().map(|range| {
        let nal = &data[range];
        // Remove padding and the fourth byte of the next start code.
        &nal[..nal.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)]
    })
}

fn sps_of(data: &[u8]) -> &[u8] {
    nals(data).find(|nal| nal[0] & 31 == 7).unwrap()
}

fn parse_sps(nal: &[u8]) -> SeqParameterSet {
    SeqParameterSet::from_bits(RefNal::new(nal, &[], true).rbsp_bits()).unwrap()
}

/// Removes the VUI from a Main profile SPS written by x264: clears
/// `vui_parameters_present_flag`, the last element before the VUI (7.3.2.1.1).
fn without_vui(nal: &[u8]) -> Vec<u8> {
    // These bytes contain no emulation prevention.
    let bit = |n: usize| nal[n / 8] >> (7 - n % 8) & 1;
    let mut at = 32; // header, profile, constraints, level
    let skip_ue = |at: &mut usize| {
        let zeros = (*at..).take_while(|&n| bit(n) == 0).count();
        let value = (*at + zeros..=*at + 2 * zeros).fold(0, |v, n| v << 1 | u32::from(bit(n))) - 1;
        *at += 2 * zeros + 1;
        value
    };
    skip_ue(&mut at); // seq_parameter_set_id
    skip_ue(&mut at); // log2_max_frame_num_minus4
    match skip_ue(&mut at) {
        0 => drop(skip_ue(&mut at)), // log2_max_pic_order_cnt_lsb_minus4
        kind => assert_eq!(kind, 2, "pic_order_cnt_type"),
    }
    skip_ue(&mut at); // max_num_ref_frames
    at += 1; // gaps_in_frame_num_value_allowed_flag
    skip_ue(&mut at); // pic_width_in_mbs_minus1
    skip_ue(&mut at); // pic_height_in_map_units_minus1
    assert_eq!(bit(at), 1, "frame_mbs_only_flag");
    at += 2; // direct_8x8_inference_flag
    assert_eq!((bit(at), bit(at + 1)), (0, 1), "no cropping, a VUI");
    at += 1;
    let mut out = nal[..=at / 8].to_vec();
    // The flag, then the stop bit (7.3.2.11).
    let rest = 0xffu16 >> (at % 8);
    out[at / 8] &= !(rest as u8);
    match at % 8 {
        7 => out.push(0x80),
        n => out[at / 8] |= 0x40 >> n,
    }
    out
}

fn avcc(moov: &Moov, endless: bool) -> &Avcc {
    let [track] = &moov.trak[..] else { panic!("{} tracks", moov.trak.len()) };
    match (&track.mdia.minf.stbl.stsd.codecs[..], endless) {
        ([Codec::Avc1(avc1)], false) => &avc1.avcc,
        // The parameter sets may change in mid-stream.
        ([Codec::Avc3(avc3)], true) => &avc3.avcc,
        (other, _) => panic!("{other:?}"),
    }
}

// ---- Viewers ----

/// A download that continues until the server ends it.
struct Download {
    data: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Download {
    async fn start(server: &Server, path: &str) -> Download {
        let mut body = server.send(server.request(path)).await.into_body();
        let data = Arc::<Mutex<Vec<u8>>>::default();
        let shared = data.clone();
        let task = tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                // An error means a truncated body.
                shared.lock().unwrap().extend(frame.unwrap().into_data().unwrap());
            }
        });
        Download { data, task }
    }

    /// Returns the number of fragments received; the last one may be incomplete.
    fn fragments(&self) -> usize {
        let data = self.data.lock().unwrap();
        let mut rest = &data[..];
        let mut count = 0;
        while let Some((size, _)) = rest.split_first_chunk::<4>() {
            count += usize::from(rest.get(4..8).is_some_and(|name| name == b"moof"));
            rest = rest.get(u32::from_be_bytes(*size) as usize..).unwrap_or_default();
        }
        count
    }

    /// Returns the number of pictures received in Annex B format; the last one may be incomplete.
    fn pictures(&self) -> usize {
        let data = self.data.lock().unwrap();
        // A slice that starts with macroblock 0.
        let first = |nal: &&[u8]| nal.len() > 1 && matches!(nal[0] & 31, 1 | 5) && nal[1] >= 0x80;
        nals(&data).filter(first).count()
    }

    /// Waits for the end and returns everything received.
    async fn end(self) -> Vec<u8> {
        within("end of the download", self.task).await.unwrap();
        std::mem::take(&mut self.data.lock().unwrap())
    }
}

/// The data between two init messages of a WebSocket.
#[derive(Clone)]
struct Part {
    text: Value,
    data: Vec<u8>,
    fragments: usize,
}

/// The messages that a viewer receives over WebSocket.
struct Messages {
    parts: Arc<Mutex<Vec<Part>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Messages {
    async fn start(server: &Server, path: &str) -> Messages {
        let mut viewer = server.watch(path).await;
        let parts = Arc::<Mutex<Vec<Part>>>::default();
        let shared = parts.clone();
        let task = tokio::spawn(async move {
            loop {
                // Longer than all other limits, because the clips must be encoded and played.
                match tokio::time::timeout(Duration::from_secs(300), viewer.next()).await.unwrap() {
                    Some(Message::Text(text)) => {
                        let text: Value = serde_json::from_str(&text).unwrap();
                        assert_eq!(text["type"], "init", "{text}");
                        let part = Part { text, data: vec![], fragments: 0 };
                        shared.lock().unwrap().push(part);
                    }
                    Some(Message::Binary(data)) => {
                        let mut parts = shared.lock().unwrap();
                        let part = parts.last_mut().expect("no text message before the data");
                        // The first message contains the init segment and the group; the others
                        // contain one frame each.
                        let starts = part.data.is_empty();
                        let fragments = if starts { split_init(&data).1 } else { &data[..] };
                        let count = frames(fragments).len();
                        assert!(starts || count == 1, "{count} frames in a message");
                        part.fragments += count;
                        part.data.extend_from_slice(&data);
                    }
                    Some(Message::Close(_)) => {}
                    None => break,
                    other => panic!("{other:?}"),
                }
            }
        });
        Messages { parts, task }
    }

    fn fragments(&self) -> usize {
        self.parts.lock().unwrap().iter().map(|part| part.fragments).sum()
    }

    async fn end(self) -> Vec<Part> {
        within("end of the WebSocket", self.task).await.unwrap();
        self.parts.lock().unwrap().clone()
    }
}
