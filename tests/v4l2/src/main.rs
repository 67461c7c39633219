//! The test program for the guest of `ci/stage/v4l2`. Each scenario plugs in simulated cameras,
//! runs the streamer with them and prints `ok NAME` or `FAILED NAME: REASON`. The last line is `N
//! passed, N failed`.
//!
//! All times are those of the guest, whose clock counts instructions. They do not depend on the
//! load of the host.

mod annexb;
mod camera;
mod guest;
mod streamer;
mod usbip;
mod uvc;
mod viewer;

mod scenarios {
    pub mod h264;
    pub mod lab;
    pub mod raw;
}

use annexb::Clip;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use uvc::Model;

/// The available cameras.
pub struct Lab {
    /// Two cameras of the same kind, with H.264 at 1280x720 and 640x480.
    pub front: Arc<Model>,
    pub back: Arc<Model>,
    /// A camera with the name of the first one, but only 640x480.
    pub small: Arc<Model>,
    /// A camera without H.264.
    pub raw: Arc<Model>,
}

impl Lab {
    fn new() -> Lab {
        let clip = |width, height| {
            let file = format!("/clips/{width}x{height}.h264");
            let stream = std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
            Clip::new(width, height, &stream)
        };
        let model = |serial, sizes: &[(u16, u16)]| {
            let clips = sizes.iter().map(|(width, height)| clip(*width, *height)).collect();
            Arc::new(Model { serial, clips })
        };
        Lab {
            front: model("FRONT", &[(1280, 720), (640, 480)]),
            back: model("BACK", &[(1280, 720), (640, 480)]),
            small: model("FRONT", &[(640, 480)]),
            raw: model("RAW", &[]),
        }
    }
}

/// A scenario: its name and its function, which panics on failure.
pub type Scenario = (&'static str, fn(&Lab));

fn main() -> ExitCode {
    let scenarios: Vec<Scenario> =
        [scenarios::lab::ALL, scenarios::h264::ALL, scenarios::raw::ALL].concat();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words == ["--list"] {
        scenarios.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let lab = Lab::new();
    if words == ["--shell"] {
        let _camera = camera::Camera::plug(&lab.front, 0);
        guest::node("FRONT");
        let shell = std::process::Command::new("sh").arg("-i").status();
        return if shell.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let chosen: Vec<_> = scenarios
        .into_iter()
        .filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(word)))
        .collect();
    guest::record_panics();
    let (mut passed, mut failed) = (0, 0);
    for (name, run) in &chosen {
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(&lab)));
        let reason = guest::take_panics();
        if result.is_ok() && reason.is_empty() {
            passed += 1;
            println!("ok {name} ({:.1} s)", start.elapsed().as_secs_f64());
        } else {
            failed += 1;
            println!("FAILED {name}: {reason}");
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
