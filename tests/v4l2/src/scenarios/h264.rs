//! The streamer with cameras that deliver H.264.

use crate::camera::{Camera, Change};
use crate::guest::{TIMEOUT, link, node, program, run, wait_for};
use crate::streamer::Streamer;
use crate::viewer::{Viewer, visible};
use crate::{Lab, Scenario};
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub const ALL: &[Scenario] = &[
    ("h264: the viewer receives the test card", test_card),
    ("h264: 300 of 300 pictures, in order and unchanged", all_pictures),
    ("h264: cameras are listed", listed),
    ("h264: the camera is found without a configuration", found),
    ("h264: the camera is plugged in later", plugged_later),
    ("h264: a busy camera", busy),
    ("h264: an unsupported size", other_size),
    ("h264: an unsupported frame rate", other_rate),
    ("h264: an incorrect frame rate", ignored_rate),
    ("h264: sensor settings", sensor_settings),
    ("h264: a size change within the stream", mid_stream),
    ("h264: damaged pictures that the driver drops", dropped),
    ("h264: damaged pictures that the driver delivers", damaged),
    ("h264: empty pictures", empty),
    ("h264: a stall without an error", stall),
    ("h264: a camera that never delivers a picture", silent),
    ("h264: an endpoint halt", halt),
    ("h264: the camera refuses to start", refused),
    ("h264: unplugged and plugged in again", replug),
    ("h264: plugged in again with another size", replug_smaller),
    ("h264: plugged in again as another node, found by its ID", other_node),
    ("h264: another camera in the same port, found by its path", other_camera),
    ("h264: two cameras, one of which is unplugged", two),
    ("h264: unplugged and plugged in again 200 times", cycles),
];

/// Maximum time from a camera's return to its first picture.
const RECOVERY_LIMIT: Duration = Duration::from_secs(2);

/// Maximum time until the status reports that a camera has been unplugged.
const UNPLUG_LIMIT: Duration = Duration::from_secs(1);

/// Returns a configuration with this camera and further settings.
fn config(source: &Path, settings: &str) -> String {
    format!("[[camera]]\nname = \"front\"\nsource = \"{}\"\n{settings}", source.display())
}

/// Returns the usual configuration: 1280x720 at 30 frames per second.
fn usual_config(source: &Path) -> String {
    config(source, "width = 1280\nheight = 720\nframerate = 30\n")
}

/// Returns the path of the camera in by-id, which does not depend on the port.
fn by_id(serial: &str) -> std::path::PathBuf {
    link("by-id", &format!("_{serial}-video-index0"))
}

/// Starts a streamer with a camera, and a viewer that has received the first picture.
fn watch(source: &Path) -> (Streamer, Viewer) {
    let streamer = Streamer::start(&usual_config(source));
    streamer.until_streaming();
    let viewer = Viewer::new();
    viewer.picture(TIMEOUT);
    (streamer, viewer)
}

/// Returns the index of the access unit in a clip that is identical to a picture.
fn number(lab: &Lab, clip: usize, nals: &[Vec<u8>]) -> usize {
    let units = &lab.front.clips[clip].units;
    units
        .iter()
        .position(|unit| visible(unit) == nals)
        .expect("the camera has not sent this picture")
}

fn test_card(lab: &Lab) {
    let _streamer = Streamer::start(&config(Path::new("test-card"), ""));
    let viewer = Viewer::new();
    let (init, first) = viewer.picture(TIMEOUT);
    assert_eq!(init.unwrap()["width"], 1280);
    let (mut before, mut time) = (number(lab, 0, &first.nals), first.time);
    for _ in 0..60 {
        let (init, picture) = viewer.picture(TIMEOUT);
        assert!(init.is_none() && picture.time > time);
        assert_eq!(number(lab, 0, &picture.nals), (before + 1) % 300);
        (before, time) = (before + 1, picture.time);
    }
}

fn all_pictures(lab: &Lab) {
    // The camera sends its first picture only after a viewer has connected.
    let camera = Camera::plug_with(&lab.front, 0, |camera| camera.stalled = true);
    let streamer = Streamer::start_verbose(&usual_config(&by_id("FRONT")));
    wait_for("start of the camera's stream", || {
        camera.with_state(|camera| camera.stream.is_some()).then_some(())
    });
    let viewer = Viewer::new();
    camera.with_state(|camera| camera.stalled = false);
    let mut time = None;
    let mut delays = vec![];
    for (count, unit) in lab.front.clips[0].units.iter().enumerate() {
        let (init, picture) = viewer.picture(TIMEOUT);
        assert_eq!(init.is_some(), count == 0);
        assert!(picture.nals == visible(unit), "picture {count} differs from the one sent");
        // The durations are even: 30 frames per second.
        let step = time.map_or(3000, |before| picture.time - before);
        assert!((2990..=3010).contains(&step), "duration of picture {count}: {step}/90000 s");
        time = Some(picture.time);
        let sent = camera.with_state(|camera| camera.sent_at[count]);
        delays.push(picture.at - sent);
    }
    delays.sort();
    println!(
        "    delay from the camera to the viewer: median {:?}, maximum {:?}",
        delays[150], delays[299]
    );
    let status = streamer.camera();
    assert_eq!((&status["restarts"], &status["damaged"]), (&0.into(), &0.into()), "{status:#}");
    assert_eq!((&status["width"], &status["height"]), (&1280.into(), &720.into()), "{status:#}");
    camera.with_state(|camera| assert_eq!(camera.starts, 1));
    // When the streamer exits, it stops the camera's stream.
    drop(streamer);
    camera.with_state(|camera| assert_eq!(camera.stream, None));
    let mut delays = Streamer::frame_times();
    delays.sort();
    assert_eq!(delays.len(), 300);
    println!(
        "    delay from the driver's buffer to the viewer's socket: median {:?}, maximum {:?}",
        delays[150], delays[299]
    );
}

fn listed(lab: &Lab) {
    let _front = Camera::plug(&lab.front, 0);
    let _raw = Camera::plug(&lab.raw, 1);
    let (front, raw) = (by_id("FRONT"), by_id("RAW"));
    let text = run("berrymse", &["cameras"]);
    for word in ["Lab Camera", "1280x720", "640x480", "160x120", "source = "] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&run("berrymse", &["cameras", "--json"])).unwrap();
    let json = json.to_string();
    for node in [front.as_path(), raw.as_path()] {
        let node = node.canonicalize().unwrap();
        let node = node.to_str().unwrap();
        assert!(text.contains(node), "{node} is missing: {text}");
        assert!(json.contains(node), "{node} is missing: {json}");
    }
}

fn found(lab: &Lab) {
    let _raw = Camera::plug(&lab.raw, 0);
    // The raw camera gets the first node.
    node("RAW");
    let camera = Camera::plug(&lab.front, 1);
    node("FRONT");
    let streamer = Streamer::start_without_config();
    let (status, _) = streamer.until_streaming();
    assert_eq!(status["width"], 1280, "{status:#}");
    assert!(camera.with_state(|camera| camera.stream.is_some()), "{status:#}");
    println!("    source: {}, notes: {}", status["source"], status["notes"]);
}

fn plugged_later(lab: &Lab) {
    let path = "/dev/v4l/by-id/usb-BerryMSE_Lab_Camera_FRONT-video-index0";
    let streamer = Streamer::start(&usual_config(Path::new(path)));
    let (status, _) = streamer.until_error(&["video-index0"]);
    println!("    message: {}", status["error"]);
    let viewer = Viewer::new();
    // Long enough to reach the maximum retry delay.
    std::thread::sleep(Duration::from_secs(30));
    let _camera = Camera::plug(&lab.front, 0);
    node("FRONT");
    let (init, _) = viewer.picture(RECOVERY_LIMIT);
    assert!(init.is_some());
}

fn busy(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let name = by_id("FRONT");
    let node = node("FRONT");
    let arguments = ["--device", node.to_str().unwrap(), "--stream-mmap", "--stream-count=1000000"];
    let mut other = program("v4l2-ctl", &arguments).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the other program's stream", || {
        camera.with_state(|camera| (camera.sent > 3).then_some(()))
    });
    let streamer = Streamer::start(&usual_config(&name));
    let (status, _) = streamer.until_error(&["busy", "v4l2-ctl"]);
    println!("    message: {}", status["error"]);
    other.kill().unwrap();
    other.wait().unwrap();
    let (_, took) = streamer.until_streaming();
    println!("    streaming {took:?} after the camera became available");
    assert!(took < Duration::from_secs(10));
}

fn other_size(lab: &Lab) {
    let _camera = Camera::plug(&lab.front, 0);
    let streamer = Streamer::start(&config(&by_id("FRONT"), "width = 1920\nheight = 1080\n"));
    let (status, _) = streamer.until_streaming();
    assert_eq!((&status["width"], &status["height"]), (&1280.into(), &720.into()), "{status:#}");
    let notes = status["notes"].to_string();
    assert!(notes.contains("1920") && notes.contains("1280x720"), "{notes}");
}

fn other_rate(lab: &Lab) {
    let _camera = Camera::plug(&lab.front, 0);
    let streamer = Streamer::start(&config(&by_id("FRONT"), "framerate = 20\n"));
    let (status, _) = streamer.until_streaming();
    let notes = status["notes"].to_string();
    assert!(notes.contains("20"), "{notes}");
}

/// The camera has one control.
fn sensor_settings(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let settings = "brightness = 0.5\ncontrast = 2\nnoise_reduction = \"fast\"\n";
    let streamer = Streamer::start(&config(&node("FRONT"), settings));
    let (status, _) = streamer.until_streaming();
    camera.with_state(|camera| assert_eq!(camera.brightness, 192));
    let notes: Vec<&str> =
        status["notes"].as_array().unwrap().iter().filter_map(|note| note.as_str()).collect();
    assert!(!notes.iter().any(|note| note.starts_with("brightness")), "{notes:?}");
    assert!(notes.contains(&"contrast: not supported by the driver"), "{notes:?}");
    assert!(notes.contains(&"noise_reduction: V4L2 has no control for it"), "{notes:?}");
}

fn ignored_rate(lab: &Lab) {
    let _camera = Camera::plug_with(&lab.front, 0, |camera| camera.own_interval = Some(666_666));
    let (streamer, viewer) = watch(&by_id("FRONT"));
    let times: Vec<u64> = (0..300).map(|_| viewer.picture(TIMEOUT).1.time).collect();
    let seconds = |from: usize, to: usize| (times[to] - times[from]) as f64 / 90_000.0;
    println!(
        "    duration of 150 pictures (10 s): {:.2} s, then {:.2} s",
        seconds(0, 149),
        seconds(150, 299)
    );
    // The server adopts the actual frame rate after twelve pictures.
    assert!((9.4..=10.2).contains(&seconds(0, 149)));
    assert!((9.8..=10.2).contains(&seconds(150, 299)));
    let status = streamer.camera();
    let rate = status["framerate"].as_f64().unwrap();
    assert!((14.0..=16.0).contains(&rate), "{status:#}");
}

fn mid_stream(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let (_streamer, viewer) = watch(&by_id("FRONT"));
    camera.with_state(|camera| {
        // Takes effect at the next key frame: both clips have one every 30 access units.
        camera.own_clip = Some(1);
    });
    let (init, first) = loop {
        if let (Some(init), picture) = viewer.picture(TIMEOUT) {
            break (init, number(lab, 1, &picture.nals));
        }
    };
    assert_eq!((&init["width"], &init["height"]), (&640.into(), &480.into()));
    assert_eq!(first % 30, 0, "the new size must start with a key frame");
}

/// The parameter `nodrop` of uvcvideo. Reset on drop.
struct NoDrop;

impl NoDrop {
    const FILE: &str = "/sys/module/uvcvideo/parameters/nodrop";

    /// Makes uvcvideo deliver buffers with errors, for cameras that are plugged in later.
    fn set() -> NoDrop {
        fs::write(Self::FILE, "1").unwrap();
        NoDrop
    }
}

impl Drop for NoDrop {
    fn drop(&mut self) {
        fs::write(Self::FILE, "0").unwrap();
    }
}

/// Before picture 40, applies a change that damages pictures 40 to 42. These must not be delivered.
/// All pictures before them, and all pictures from the next key frame on, must be delivered without
/// a restart.
fn loses_only_three_pictures(lab: &Lab, change: Change) {
    let camera = Camera::plug_with(&lab.front, 0, |camera| camera.stalled = true);
    let streamer = Streamer::start(&usual_config(&by_id("FRONT")));
    wait_for("start of the camera's stream", || {
        camera.with_state(|camera| camera.stream.is_some()).then_some(())
    });
    let viewer = Viewer::new();
    camera.with_state(|camera| {
        camera.stalled = false;
        camera.change = Some((40, change));
    });
    let mut seen = vec![];
    while seen.last() != Some(&100) {
        seen.push(number(lab, 0, &viewer.picture(TIMEOUT).1.nals));
    }
    assert!(seen.starts_with(&(0..40).collect::<Vec<_>>()), "{seen:?}");
    assert!(!seen.iter().any(|number| (40..43).contains(number)), "{seen:?}");
    assert!(seen.ends_with(&(60..=100).collect::<Vec<_>>()), "{seen:?}");
    let status = streamer.camera();
    assert_eq!(status["restarts"], 0, "{status:#}");
    assert_eq!(status["state"], "streaming", "{status:#}");
}

fn dropped(lab: &Lab) {
    loses_only_three_pictures(lab, |camera| camera.damaged = 3);
}

fn damaged(lab: &Lab) {
    let _no_drop = NoDrop::set();
    loses_only_three_pictures(lab, |camera| camera.damaged = 3);
}

fn empty(lab: &Lab) {
    loses_only_three_pictures(lab, |camera| camera.empty = 3);
}

fn stall(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let (streamer, viewer) = watch(&by_id("FRONT"));
    camera.with_state(|camera| camera.stalled = true);
    let (status, took) = streamer.until("not streaming", |camera| camera["state"] != "streaming");
    println!("    reported after {took:?}: {}", status["error"]);
    assert!(took < Duration::from_secs(4));
    // Long enough for several retries.
    std::thread::sleep(Duration::from_secs(10));
    viewer.skip();
    camera.with_state(|camera| camera.stalled = false);
    let start = Instant::now();
    viewer.picture(Duration::from_secs(5));
    println!("    first picture {:?} after the stall", start.elapsed());
    streamer.until_streaming();
}

fn silent(lab: &Lab) {
    let camera = Camera::plug_with(&lab.front, 0, |camera| camera.stalled = true);
    let streamer = Streamer::start(&usual_config(&by_id("FRONT")));
    let (status, took) = streamer.until_error(&["no picture"]);
    println!("    reported after {took:?}: {}", status["error"]);
    // The streamer tries again, and can still be terminated (tested when it is dropped).
    wait_for("another start", || camera.with_state(|camera| (camera.starts > 1).then_some(())));
}

fn halt(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let (streamer, viewer) = watch(&by_id("FRONT"));
    let starts = camera.with_state(|camera| {
        camera.halted = true;
        camera.starts
    });
    let start = Instant::now();
    wait_for("another start", || {
        camera.with_state(|camera| (camera.starts > starts).then_some(()))
    });
    viewer.skip();
    viewer.picture(TIMEOUT);
    println!("    first picture {:?} after the halt", start.elapsed());
    // The driver reports the halt only by returning empty buffers with errors.
    assert!(start.elapsed() < RECOVERY_LIMIT);
    let (status, _) = streamer.until_streaming();
    println!("    message: {}", status["last_error"]);
}

fn refused(lab: &Lab) {
    let camera = Camera::plug_with(&lab.front, 0, |camera| camera.refuses = true);
    let streamer = Streamer::start(&usual_config(&by_id("FRONT")));
    // EIO
    let (status, _) = streamer.until_error(&["input/output error"]);
    println!("    message: {}", status["error"]);
    assert_eq!(status["state"], "failed");
    camera.with_state(|camera| camera.refuses = false);
    streamer.until_streaming();
}

/// Unplugs a camera and asserts that the status reports it in time.
fn unplug(camera: Camera, streamer: &Streamer) {
    let start = Instant::now();
    drop(camera);
    let (status, _) = streamer.until("an error", |camera| camera["error"].is_string());
    let error = status["error"].as_str().unwrap().to_lowercase();
    assert!(error.contains("unplugged") || error.contains("gone"), "{error}");
    println!("    reported after {:?}: {error}", start.elapsed());
    assert!(start.elapsed() < UNPLUG_LIMIT);
}

/// Waits for the first picture after a camera has returned. Returns the parameters if they are new.
fn recover(viewer: &Viewer) -> Option<serde_json::Value> {
    let start = Instant::now();
    let (init, _) = viewer.picture(RECOVERY_LIMIT);
    println!("    first picture {:?} after the camera returned", start.elapsed());
    assert!(start.elapsed() < RECOVERY_LIMIT);
    init
}

fn replug(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let (streamer, viewer) = watch(&by_id("FRONT"));
    unplug(camera, &streamer);
    std::thread::sleep(Duration::from_secs(5));
    viewer.skip();
    let _camera = Camera::plug(&lab.front, 0);
    node("FRONT");
    recover(&viewer);
    let mut before = number(lab, 0, &viewer.picture(RECOVERY_LIMIT).1.nals);
    for _ in 0..30 {
        let this = number(lab, 0, &viewer.picture(RECOVERY_LIMIT).1.nals);
        assert_eq!(this, before + 1);
        before = this;
    }
    let (status, _) = streamer.until_streaming();
    assert!(status["restarts"].as_u64().unwrap() > 0, "{status:#}");
}

fn replug_smaller(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let (streamer, viewer) = watch(&by_id("FRONT"));
    unplug(camera, &streamer);
    viewer.skip();
    let _camera = Camera::plug(&lab.small, 0);
    node("FRONT");
    let init = recover(&viewer).expect("no new parameters");
    assert_eq!((&init["width"], &init["height"]), (&640.into(), &480.into()));
}

fn other_node(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let (streamer, viewer) = watch(&by_id("FRONT"));
    let before = node("FRONT");
    // The open file keeps the kernel from reusing the node's number.
    let held = File::open(&before).unwrap();
    unplug(camera, &streamer);
    viewer.skip();
    let _camera = Camera::plug(&lab.front, 1);
    let after = node("FRONT");
    assert_ne!(before, after);
    recover(&viewer);
    drop(held);
}

fn other_camera(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    node("FRONT");
    let path = link("by-path", "platform-vhci_hcd.0-usb-0:1:1.0-video-index0");
    let (streamer, viewer) = watch(&path);
    unplug(camera, &streamer);
    viewer.skip();
    let camera = Camera::plug(&lab.back, 0);
    node("BACK");
    recover(&viewer);
    assert!(camera.with_state(|camera| camera.stream.is_some()));
}

fn two(lab: &Lab) {
    let front = Camera::plug(&lab.front, 0);
    let _back = Camera::plug(&lab.back, 1);
    let second = format!("[[camera]]\nname = \"back\"\nsource = \"{}\"\n", by_id("BACK").display());
    let streamer = Streamer::start(&(usual_config(&by_id("FRONT")) + &second));
    let viewers = [Viewer::of("/live/front"), Viewer::of("/live/back")];
    viewers.iter().for_each(|viewer| drop(viewer.picture(TIMEOUT)));
    unplug(front, &streamer);
    viewers[1].skip();
    let (_, picture) = viewers[1].picture(RECOVERY_LIMIT);
    let mut before = number(lab, 0, &picture.nals);
    // The other camera is not affected: no picture is missing.
    for _ in 0..60 {
        let this = number(lab, 0, &viewers[1].picture(RECOVERY_LIMIT).1.nals);
        assert_eq!(this, (before + 1) % 300);
        before = this;
    }
    viewers[0].skip();
    let _front = Camera::plug(&lab.front, 0);
    node("FRONT");
    recover(&viewers[0]);
}

fn cycles(lab: &Lab) {
    let mut camera = Camera::plug(&lab.front, 0);
    let (streamer, viewer) = watch(&by_id("FRONT"));
    let mut sizes = vec![];
    for cycle in 0..200 {
        drop(camera);
        streamer.until("not streaming", |camera| camera["error"].is_string());
        viewer.skip();
        camera = Camera::plug(&lab.front, cycle % 2);
        viewer.picture(TIMEOUT);
        sizes.push(streamer.size());
    }
    // Memory that is allocated only once is allocated in the first half of the cycles.
    let (early, late) = (sizes[99], sizes[199]);
    println!(
        "    (KiB, open files) after 1, 100 and 200 cycles: {:?}, {early:?}, {late:?}",
        sizes[0]
    );
    assert_eq!(early.1, late.1, "open files");
    assert!(late.0 <= early.0 + 256, "memory use grew by {} KiB", late.0 - early.0);
}
