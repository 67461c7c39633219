//! Tests of the simulated camera with other programs, before the streamer is tested with it.

use crate::camera::Camera;
use crate::guest::{Module, link, node, output, program, run, wait_for};
use crate::{Lab, Scenario};
use std::process::Stdio;

pub const ALL: &[Scenario] = &[
    ("lab: v4l2-ctl finds the camera, its H.264 formats and its links", names),
    ("lab: v4l2-ctl reads 300 unchanged access units", reads),
    ("lab: the camera is busy for a second reader", busy),
    ("lab: v4l2-compliance", compliance),
    ("lab: vicodec encodes pictures from vivid (FWHT)", vicodec),
];

/// Runs v4l2-ctl on a device node. Returns its output.
fn v4l2_ctl(node: &str, arguments: &[&str]) -> String {
    run("v4l2-ctl", &[&["--device", node][..], arguments].concat())
}

fn names(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let node = node("FRONT");
    let node = node.to_str().unwrap();
    let path = link("by-path", "platform-vhci_hcd.0-usb-0:1:1.0-video-index0");
    assert_eq!(path.canonicalize().unwrap().to_str().unwrap(), node);
    let info = v4l2_ctl(node, &["--info"]);
    assert!(info.contains("Driver name      : uvcvideo"), "{info}");
    assert!(info.contains("Card type        : Lab Camera"), "{info}");
    let formats = v4l2_ctl(node, &["--list-formats-ext"]);
    for word in ["'YUYV'", "'H264' (H.264, compressed)", "1280x720", "640x480", "(15.000 fps)"] {
        assert!(formats.contains(word), "{word} is missing: {formats}");
    }
    // Size and frame rate are negotiated with the camera.
    v4l2_ctl(node, &["--set-fmt-video=width=640,height=480,pixelformat=H264", "--set-parm=15"]);
    let got = v4l2_ctl(node, &["--get-fmt-video", "--get-parm"]);
    assert!(got.contains("640/480") && got.contains("15.000 (15/1)"), "{got}");
    drop(camera);
    wait_for("removal of the links", || (!path.exists()).then_some(()));
}

fn reads(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let node = node("FRONT");
    let file = "/tmp/read.h264";
    v4l2_ctl(
        node.to_str().unwrap(),
        &[
            "--set-fmt-video=width=1280,height=720,pixelformat=H264",
            "--stream-mmap",
            "--stream-count=300",
            &format!("--stream-to={file}"),
        ],
    );
    let read = std::fs::read(file).unwrap();
    std::fs::remove_file(file).unwrap();
    let sent = lab.front.clips[0].units.concat();
    assert_eq!(lab.front.clips[0].units.len(), 300);
    assert!(read == sent, "{} bytes read, {} bytes sent", read.len(), sent.len());
    camera.with_state(|camera| assert_eq!((camera.starts, camera.stream), (1, None)));
}

fn busy(lab: &Lab) {
    let camera = Camera::plug(&lab.front, 0);
    let node = node("FRONT");
    let node = node.to_str().unwrap();
    let arguments = ["--device", node, "--stream-mmap", "--stream-count=100000"];
    let mut first = program("v4l2-ctl", &arguments).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the first reader's stream", || {
        camera.with_state(|camera| (camera.sent > 3).then_some(()))
    });
    let second = output("v4l2-ctl", &["--device", node, "--stream-mmap", "--stream-count=1"]);
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(stderr.contains("Device or resource busy"), "{stderr}");
}

/// Failures of the driver itself are printed but do not fail the scenario.
fn compliance(lab: &Lab) {
    let _camera = Camera::plug(&lab.front, 0);
    let node = node("FRONT");
    let output = output("v4l2-compliance", &["--device", node.to_str().unwrap(), "--streaming=10"]);
    let report = String::from_utf8_lossy(&output.stdout);
    for line in report.lines().filter(|line| line.contains("fail") || line.starts_with("Total")) {
        println!("    {}", line.trim());
    }
    assert!(report.contains("Driver name      : uvcvideo"), "{report}");
    assert!(report.contains("Total for uvcvideo device"), "{report}");
}

/// Tests the interface of an encoder with FWHT, which browsers do not support.
fn vicodec(_: &Lab) {
    let _vivid =
        Module::load("vivid", &["n_devs=1", "node_types=0x1", "num_inputs=1", "input_types=0"]);
    let _vicodec = Module::load("vicodec", &[]);
    let devices = run("v4l2-ctl", &["--list-devices"]);
    assert!(devices.contains("vicodec") && devices.contains("vivid"), "{devices}");
    let raw = "/tmp/raw";
    let size = "width=640,height=360";
    let camera = link("by-path", "platform-vivid.0-video-index0");
    v4l2_ctl(
        camera.to_str().unwrap(),
        &[
            &format!("--set-fmt-video={size},pixelformat=YU12"),
            "--stream-mmap",
            "--stream-count=5",
            &format!("--stream-to={raw}"),
        ],
    );
    let encoder = link("by-path", "platform-vicodec.0-video-index0");
    let encoded = "/tmp/fwht";
    v4l2_ctl(
        encoder.to_str().unwrap(),
        &[
            &format!("--set-fmt-video-out={size},pixelformat=YU12"),
            "--stream-mmap",
            "--stream-out-mmap",
            "--stream-count=5",
            &format!("--stream-from={raw}"),
            &format!("--stream-to={encoded}"),
        ],
    );
    let bytes = |file| std::fs::metadata(file).unwrap().len();
    assert_eq!(bytes(raw), 5 * 640 * 360 * 3 / 2);
    assert!((1..bytes(raw)).contains(&bytes(encoded)), "{}", bytes(encoded));
    std::fs::remove_file(raw).unwrap();
    std::fs::remove_file(encoded).unwrap();
}
