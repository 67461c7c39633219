//! Raspberry Pi cameras: the arguments and the output of rpicam-vid.
//!
//! Most tests run a FAKE of rpicam-vid, because there is no Raspberry Pi here. The ignored tests run
//! rpicam-vid itself; `ci/stage/rpicam` builds it.

use crate::support::{Folder, Server, wait_until};
use berrymse::camera::rpicam::{Machine, Noir, Options, Plan};
use berrymse::camera::test_card;
use berrymse::config::Config;
use berrymse::h264::PauseRule;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The names of the options that the fake claims to know, in the layout of the real help text.
const HELP: &str = "\
Valid options are:
  -h [ --help ] [=arg(=1)] (=0)         Print this help message
  --camera arg (=0)                     Chooses the camera to use
  --flush [=arg(=1)] (=0)               Flush output data as soon as possible
  -o [ --output ] arg                   Set the output file name
  --post-process-file arg               Set the file name
  --autofocus-mode arg (=default)       Control to set the mode of the AF algorithm
  --libav-format arg                    Sets the libav encoder output format to use
  --low-latency [=arg(=1)] (=0)         Enables the low latency presets
  --buffer-count arg (=0)               Number of in-flight requests
";

/// Writes an executable file. Another process writes it: if this one did, a child that another thread starts
/// could hold it open for writing, and then it cannot be executed.
fn install(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let (source, program) = (folder.write("source", text), folder.path(name));
    let status = Command::new("install").arg("-m755").args([&source, &program]).status();
    assert!(status.unwrap().success());
    program
}

/// PATH with the folder of `program` in front.
fn path_with(program: &Path) -> String {
    format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap())
}

/// A fake that records its arguments and its standard input, and plays the test card.
struct Fake {
    folder: Folder,
    path: String,
}

impl Fake {
    fn new(help: &str) -> Fake {
        let folder = Folder::new();
        let clip = folder.write("clip.h264", test_card::CLIP);
        folder.write("help", help);
        let at = |name: &str| folder.path(name).display().to_string();
        let script = format!(
            "#!/bin/sh\n# A fake, for tests.\n\
             if [ \"$1\" = --help ]; then echo asked >>{}; cat {}; exit; fi\n\
             echo \"$@\" >>{}\ncat >{}\necho fake rpicam-vid >&2\n\
             echo 'No post processing stage found for \"annotate_cv\"' >&2\n\
             while cat {}; do sleep 0.2; done\n",
            at("asked"),
            at("help"),
            at("arguments"),
            at("input"),
            clip.display()
        );
        let program = install(&folder, "rpicam-vid", &script);
        let path = path_with(&program);
        Fake { folder, path }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path(name)).unwrap_or_default()
    }
}

#[tokio::test]
async fn passes_the_configuration_to_a_fake_rpicam_vid() {
    let fake = Fake::new(HELP);
    let config = "[[camera]]\nname = \"pi\"\nsource = \"rpicam\"\nwidth = 1920\nheight = 1080\n\
                  framerate = 25\nbitrate = 4_000_000\nkeyframe_interval = 50\nrotation = 180\n\
                  hflip = true\nvflip = true\ncamera_number = 1\nbuffer_count = 5\n\
                  autofocus = \"continuous\"\nsharpness = 1.5\noverlay = \"name-time\"\n";
    let server = Server::start_with(config, &[("PATH", &fake.path)]).await;
    let status =
        server.camera_until("pi", "pictures", |camera| camera["frames"].as_u64() > Some(300)).await;
    assert_eq!((&status["width"], &status["source"]), (&1280.into(), &"rpicam-vid".into()));
    assert_eq!(status["output"][0], "fake rpicam-vid");
    assert_eq!(
        fake.read("arguments").trim_end(),
        "--camera=1 --timeout=0 --width=1920 --height=1080 --framerate=25 --rotation=180 --hflip \
         --vflip --nopreview --codec=h264 --profile=high --level=4 --bitrate=4000000 --intra=50 \
         --inline --flush --libav-format=h264 --low-latency --autofocus-mode=continuous \
         --post-process-file=/proc/self/fd/0 --buffer-count=5 --output=-"
    );
    let input: serde_json::Value = serde_json::from_str(&fake.read("input")).unwrap();
    assert_eq!(input["annotate_cv"]["text"], "pi %Y-%m-%d %H:%M:%S");
    // The fake does not know --sharpness, and cannot draw text.
    let notes: Vec<&str> =
        status["notes"].as_array().unwrap().iter().flat_map(|n| n.as_str()).collect();
    let keys: Vec<&str> = notes.iter().flat_map(|note| note.split(':').next()).collect();
    assert_eq!(keys, ["sharpness", "overlay"], "{notes:?}");
    let mut viewer = server.watch("/live/pi").await;
    assert_eq!(viewer.text().await["width"], 1280);
    viewer.binary().await;
}

/// A program whose help text is unknown gets only the options that every version has.
#[tokio::test]
async fn runs_a_program_that_does_not_list_its_options() {
    let fake =
        Fake::new("ERROR: the system appears to be configured for the legacy camera stack\n");
    let config = "[[camera]]\nname = \"pi\"\nsource = \"rpicam\"\ncontrast = 1.5\n";
    let server = Server::start_with(config, &[("PATH", &fake.path)]).await;
    let status =
        server.camera_until("pi", "pictures", |camera| camera["frames"].as_u64() > Some(0)).await;
    let arguments = fake.read("arguments");
    assert!(!arguments.contains("libav") && arguments.contains("--flush"), "{arguments}");
    assert!(status["notes"][0].as_str().unwrap().starts_with("contrast: "), "{status:#}");
    assert!(server.log().contains("--help lists no options, but says: ERROR"), "{}", server.log());
}

#[tokio::test]
async fn numbers_the_cameras_in_the_order_of_the_file() {
    let fake = Fake::new(HELP);
    let camera = |number: &str| format!("[[camera]]\nsource = \"rpicam\"\n{number}\n");
    let config =
        [camera("width = 640"), camera("camera_number = 0"), camera("width = 320")].concat();
    let server = Server::start_with(&config, &[("PATH", &fake.path)]).await;
    let lines = wait_until("three processes", async || {
        let arguments = fake.read("arguments");
        (arguments.lines().count() == 3).then_some(arguments)
    })
    .await;
    let line = |width: &str| lines.lines().find(|line| line.contains(width)).unwrap();
    assert!(line("--width=640").starts_with("--camera=1 "), "{lines}");
    assert!(line("--width=1280").starts_with("--timeout=0 "), "{lines}");
    assert!(line("--width=320").starts_with("--camera=2 "), "{lines}");
    // All cameras are the same program, which is asked once.
    assert_eq!(fake.read("asked"), "asked\n");
    drop(server);
}

#[tokio::test]
async fn names_the_package_if_rpicam_vid_is_missing() {
    let folder = Folder::new();
    let config = "[[camera]]\nname = \"pi\"\nsource = \"rpicam\"\nrotation = 90\n";
    let empty = folder.path("");
    let path = empty.to_str().unwrap();
    let server = Server::start_with(config, &[("PATH", path)]).await;
    let status = server.camera_until("pi", "failure", |camera| camera["state"] == "failed").await;
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("apt install rpicam-apps"), "{error}");
    wait_until("the log", async || server.log().contains("apt install").then_some(())).await;
}

/// The writes that `output/file_output.cpp` of rpicam-apps 1.7.0 makes, recorded with strace by
/// `ci/stage/rpicam --record`. Each line has the size of a frame and, for each write, the microseconds since
/// the previous one and the number of bytes.
const WRITES: &str = include_str!("support/rpicam-writes.txt");

/// A fake that replays recorded writes: perl is part of every Debian system, and its syswrite makes one
/// system call. Each line of the plan is a frame.
const REPLAY: &str = r#"#!/usr/bin/perl
# A fake of rpicam-vid, for tests.
use strict;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);
exit if "@ARGV" eq "--help";
sub slurp { open my $file, "<:raw", $_[0] or die; local $/; return scalar <$file> }
my ($data, $offset) = (slurp("FRAMES"), 0);
my $due = clock_gettime(CLOCK_MONOTONIC);
for my $frame (split /\n/, slurp("PLAN")) {
    $due += 1 / 30;
    my $left = $due - clock_gettime(CLOCK_MONOTONIC);
    sleep $left if $left > 0;
    for my $write (split / /, $frame) {
        my ($gap, $bytes) = split /\+/, $write;
        my $end = clock_gettime(CLOCK_MONOTONIC) + $gap / 1e6;
        1 while clock_gettime(CLOCK_MONOTONIC) < $end;
        for (my $done = 0; $done < $bytes;) {
            $done += syswrite(STDOUT, $data, $bytes - $done, $offset + $done) // die;
        }
        $offset += $bytes;
    }
}
sleep 1000;
"#;

/// Frames of the test card, padded to recorded sizes, and the recorded writes for each.
struct Replay {
    frames: Vec<u8>,
    plan: String,
}

impl Replay {
    fn new(count: usize) -> Replay {
        // The load of the second half of the test causes gaps of its own.
        let (_, quiet) = WRITES.split_once("# quiet: ").unwrap();
        let mut recorded: Vec<(usize, &str)> = quiet
            .lines()
            .skip(1)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_once(' ').unwrap())
            .map(|(size, writes)| (size.parse().unwrap(), writes))
            .collect();
        recorded.sort_unstable();
        let units = test_card::access_units();
        let mut replay = Replay { frames: vec![], plan: String::new() };
        for n in 0..count {
            let unit = &test_card::CLIP[units[n % units.len()].clone()];
            // Every frame has another size than the one before, if the picture fits.
            let fits = |(size, _): &&(usize, &str)| *size >= unit.len();
            let from = n * 7 % recorded.len();
            let (size, writes) = recorded[from..].iter().chain(&recorded).find(fits).unwrap();
            replay.frames.extend(unit);
            // The slice is the last NAL unit. What follows its header is not parsed.
            replay.frames.resize(replay.frames.len() + size - unit.len(), 0xaa);
            writeln!(replay.plan, "{writes}").unwrap();
        }
        replay
    }
}

#[test]
fn recorded_writes_cover_small_and_large_frames() {
    let sizes: Vec<usize> = WRITES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (size, writes) = line.split_once(' ').unwrap();
            let bytes = writes.split(' ').map(|write| write.split_once('+').unwrap().1);
            let size: usize = size.parse().unwrap();
            assert_eq!(bytes.map(|bytes| bytes.parse::<usize>().unwrap()).sum::<usize>(), size);
            size
        })
        .collect();
    assert!(sizes.iter().any(|&size| size <= 2000) && sizes.iter().any(|&size| size >= 120_000));
    assert!(WRITES.contains("60000 "), "the size of the documented example");
}

/// The recorded gaps of each frame, on an idle or on a busy processor.
fn recorded_gaps(section: &str) -> Vec<Vec<Duration>> {
    let (_, lines) = WRITES.split_once(&format!("# {section}: ")).unwrap();
    let lines = lines.lines().skip(1).take_while(|line| !line.starts_with('#'));
    let gaps = |line: &str| -> Vec<Duration> {
        let writes = line.split(' ').skip(1).map(|write| write.split_once('+').unwrap().0);
        writes.map(|gap| Duration::from_micros(gap.parse().unwrap())).collect()
    };
    lines.map(gaps).collect()
}

/// The same as below without a clock: in a minute of frames, no recorded gap ends a frame. On an idle processor,
/// the pause between two frames does.
#[test]
fn recorded_gaps_do_not_end_a_frame() {
    for section in ["quiet", "loaded"] {
        let frames = recorded_gaps(section);
        assert!(frames.len() > 20);
        let mut rule = PauseRule::default();
        for gaps in frames.iter().cycle().take(1800) {
            rule.read(Duration::from_millis(33), true);
            for &gap in &gaps[1..] {
                assert!(rule.quiet().is_none_or(|quiet| gap < quiet), "{gap:?} of {gaps:?}");
                rule.read(gap, false);
            }
        }
        if section == "quiet" {
            let quiet = rule.quiet().expect("no pause is long enough");
            assert!(quiet <= Duration::from_millis(1), "{quiet:?}");
        }
    }
}

/// Frames are written in up to three pieces, and the gap between two pieces must not end a frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn does_not_cut_frames_that_are_written_in_pieces() {
    const FRAMES: u64 = 480;
    let replay = Replay::new(FRAMES as usize);
    let folder = Folder::new();
    let frames = folder.write("frames", &replay.frames).display().to_string();
    let plan = folder.write("plan", &replay.plan).display().to_string();
    let script = REPLAY.replace("FRAMES", &frames).replace("PLAN", &plan);
    let path = path_with(&install(&folder, "rpicam-vid", &script));
    let config = "[[camera]]\nname = \"pi\"\nsource = \"rpicam\"\n";
    let server = Server::start_with(config, &[("PATH", &path)]).await;
    let frames = |camera: &serde_json::Value| camera["frames"].as_u64().unwrap();
    let status = server.camera_until("pi", "the first half", |c| frames(c) >= FRAMES / 2).await;
    assert_eq!((&status["early_cuts"], &status["damaged"]), (&0.into(), &0.into()), "{status:#}");

    // The second half, with a busy thread for each core.
    let load = Load::start();
    // Without a pause that ends it, the last frame would wait for the next one.
    let status = server.camera_until("pi", "the second half", |c| frames(c) >= FRAMES - 1).await;
    drop(load);
    assert_eq!((&status["early_cuts"], &status["damaged"]), (&0.into(), &0.into()), "{status:#}");
    assert_eq!(status["restarts"], 0, "{status:#}");
}

/// Threads that keep every core busy, until dropped.
struct Load {
    stop: std::sync::Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Load {
    fn start() -> Load {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().unwrap().get();
        let spin = |stop: std::sync::Arc<AtomicBool>| {
            std::thread::spawn(move || {
                let mut turns = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    turns = std::hint::black_box(turns + 1);
                }
                turns
            })
        };
        let threads = (0..cores).map(|_| spin(stop.clone())).collect();
        Load { stop, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let turns = thread.join().unwrap();
            assert!(turns > 0 || std::thread::panicking());
        }
    }
}

/// One configuration for each sensor setting and each of its words, and one with many settings.
fn settings() -> Vec<String> {
    let words = |key: &str, words: &[&str]| -> Vec<String> {
        words.iter().map(|word| format!("{key} = {word:?}")).collect()
    };
    let mut settings = [
        words("autofocus", &["manual", "auto", "continuous"]),
        words("hdr_mode", &["off", "auto", "sensor", "single-exposure"]),
        words(
            "awb_mode",
            &["auto", "incandescent", "tungsten", "fluorescent", "indoor", "daylight", "cloudy"],
        ),
        words("exposure_mode", &["normal", "short", "long"]),
        words("noise_reduction", &["off", "minimal", "fast", "high-quality"]),
        words("overlay", &["time", "name-time"]),
    ]
    .concat();
    settings.extend(
        [
            "",
            "lens_position = 0",
            "lens_position = 32",
            "colour_gains = [0.1, 32]",
            "exposure_time = 1",
            "exposure_time = 33_333",
            "analogue_gain = 1",
            "analogue_gain = 64",
            "exposure_value = -8",
            "exposure_value = 8",
            "exposure_value = -0.33",
            "brightness = -1",
            "brightness = 0.25",
            "contrast = 15.99",
            "saturation = 0",
            "sharpness = 15.99",
            "roi = [0.25, 0.25, 0.5, 0.5]",
            "sensor_mode = [1640, 1232, 10]",
            "noir = true",
            "camera_number = 0",
            "buffer_count = 2",
            "rotation = 180\nhflip = true\nvflip = true",
            "width = 1920\nheight = 1080\nframerate = 50",
            "autofocus = \"manual\"\nlens_position = 0.5\nhdr_mode = \"off\"\nawb_mode = \"auto\"\n\
             exposure_mode = \"long\"\nexposure_time = 10_000\nanalogue_gain = 2.5\n\
             exposure_value = -1.5\nbrightness = -0.1\ncontrast = 1.2\nsaturation = 0.8\n\
             sharpness = 1.1\nnoise_reduction = \"fast\"\nroi = [0, 0, 1, 0.5]\n\
             sensor_mode = [2304, 1296, 10]\noverlay = \"name-time\"\nbuffer_count = 3",
        ]
        .map(String::from),
    );
    settings
}

/// The plan for a setting.
fn plan(setting: &str, options: &Options) -> Plan {
    let text = format!("[[camera]]\nname = \"front\"\nsource = \"rpicam\"\n{setting}\n");
    let config = Config::parse(&text, "").unwrap_or_else(|error| panic!("{setting}: {error}"));
    let noir = Noir::File("/usr/share/libcamera/ipa/rpi/vc4/imx219_noir.json".into());
    let machine = Machine { is_small: true, noir: Some(noir), ..Machine::default() };
    Plan::new(&config.cameras[0], 0, options, &machine)
}

/// Every value that reaches rpicam-vid is a number, a list of numbers, a known word or a path of ours.
#[test]
fn arguments_contain_no_text_of_the_user() {
    let options = Options::parse(&everything()).unwrap();
    for setting in settings() {
        let plan = plan(&setting, &options);
        assert_eq!(plan.notes, [""; 0], "{setting}");
        for argument in &plan.arguments {
            let is_plain =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-=.,:_;/P".contains(c);
            assert!(argument.starts_with("--") && argument.chars().all(is_plain), "{argument}");
            assert!(!argument.contains("front"), "{argument}");
        }
    }
}

#[test]
fn every_setting_becomes_an_argument() {
    let options = Options::parse(&everything()).unwrap();
    let plain = plan("", &options).arguments;
    for (setting, argument) in [
        ("autofocus = \"auto\"", "--autofocus-mode=auto"),
        ("lens_position = 0.5", "--lens-position=0.5"),
        ("hdr_mode = \"single-exposure\"", "--hdr=single-exp"),
        ("awb_mode = \"cloudy\"", "--awb=cloudy"),
        ("colour_gains = [1.8, 2]", "--awbgains=1.8,2"),
        ("exposure_mode = \"short\"", "--exposure=short"),
        ("exposure_time = 10_000", "--shutter=10000"),
        ("analogue_gain = 2.5", "--gain=2.5"),
        ("exposure_value = -1", "--ev=-1"),
        ("brightness = -0.5", "--brightness=-0.5"),
        ("contrast = 0", "--contrast=0"),
        ("saturation = 1.5", "--saturation=1.5"),
        ("sharpness = 2", "--sharpness=2"),
        ("noise_reduction = \"high-quality\"", "--denoise=cdn_hq"),
        ("roi = [0, 0.25, 1, 0.5]", "--roi=0,0.25,1,0.5"),
        ("sensor_mode = [1640, 1232, 10]", "--mode=1640:1232:10:P"),
        ("overlay = \"time\"", "--post-process-file=/proc/self/fd/0"),
        ("buffer_count = 8", "--buffer-count=8"),
    ] {
        let with = plan(setting, &options).arguments;
        let added: Vec<&String> = with.iter().filter(|word| !plain.contains(word)).collect();
        assert_eq!(added, [argument], "{setting}");
    }
    assert!(plain.contains(&"--buffer-count=4".into()), "small boards: {plain:?}");
}

#[test]
fn notes_settings_of_a_lens_that_cannot_be_moved() {
    let text = "[[camera]]\nautofocus = \"manual\"\nlens_position = 1\n";
    let config = Config::parse(text, "").unwrap();
    let options = Options::parse(&everything()).unwrap();
    let machine = Machine { has_lens: Some(false), ..Machine::default() };
    let plan = Plan::new(&config.cameras[0], 0, &options, &machine);
    let keys: Vec<&str> = plan.notes.iter().flat_map(|note| note.split(':').next()).collect();
    assert_eq!(keys, ["autofocus", "lens_position"]);
    assert!(!plan.arguments.iter().any(|word| word.contains("lens") || word.contains("focus")));
}

#[test]
fn avoids_b_frames_with_the_options_that_the_version_has() {
    let arguments = |without: &str| {
        let help = everything().replace(&format!("  --{without} arg\n"), "");
        plan("", &Options::parse(&help).unwrap()).arguments
    };
    let has = |arguments: &[String], start: &str| arguments.iter().any(|a| a.starts_with(start));
    let new = arguments("");
    assert!(has(&new, "--low-latency") && !has(&new, "--libav-video-codec-opts"), "{new:?}");
    let old = arguments("low-latency");
    assert!(
        has(&old, "--libav-video-codec-opts=preset=ultrafast;tune=zerolatency;bf=0"),
        "{old:?}"
    );
}

/// A help text with every option that BerryMSE uses.
fn everything() -> String {
    let options = "autofocus-mode awb awbgains bitrate brightness buffer-count camera codec contrast denoise ev \
                   exposure flush framerate gain height hflip inline intra lens-position level libav-format \
                   libav-video-codec-opts low-latency mode nopreview output post-process-file profile roi \
                   rotation saturation sharpness shutter timeout tuning-file vflip width";
    let mut help = String::from("  --hdr [=arg(=auto)] (=off)\n");
    for option in options.split_whitespace() {
        writeln!(help, "  --{option} arg").unwrap();
    }
    help
}

/// A program that `ci/stage/rpicam` has built. `build` names the variable with its folder.
fn built(build: &str, program: &str) -> PathBuf {
    let folder = std::env::var_os(build).expect("run this test with ci/stage/rpicam");
    Path::new(&folder).join(program)
}

/// Runs rpicam-vid. Returns what it writes to standard output and standard error.
fn run(program: &Path, arguments: &[impl AsRef<std::ffi::OsStr>], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The program may end without reading it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Without a camera, rpicam-vid ends with this error after it has read and checked all arguments.
const NO_CAMERA: &str = "no cameras available";

#[test]
#[ignore = "needs rpicam-vid: run ci/stage/rpicam"]
fn real_rpicam_vid_accepts_every_setting() {
    // Not every version can be built with libav everywhere.
    let full = std::env::var_os("RPICAM_VID").map(|_| "RPICAM_VID");
    for build in full.into_iter().chain(["RPICAM_VID_LITE"]) {
        let program = built(build, "apps/rpicam-vid");
        let options = Options::parse(&run(&program, &["--help"], "")).unwrap();
        for option in ["flush", "buffer-count", "mode", "tuning-file", "post-process-file"] {
            assert!(options.has(option), "{option}");
        }
        let settings = settings();
        assert!(settings.len() > 40);
        for setting in settings {
            let plan = plan(&setting, &options);
            assert_eq!(plan.notes, [""; 0], "{setting}");
            let said = run(&program, &plan.arguments, plan.input.as_deref().unwrap_or_default());
            assert!(said.contains(NO_CAMERA), "{setting}: {:?}\n{said}", plan.arguments);
        }
        // The test would notice an argument that is not accepted.
        for wrong in ["--no-such-option", "--awb=sunny", "--ev=bright", "--mode=1640", "--hdr=on"] {
            let mut arguments = plan("", &options).arguments;
            arguments.push(wrong.into());
            let said = run(&program, &arguments, "");
            assert!(said.contains("ERROR") && !said.contains(NO_CAMERA), "{wrong}: {said}");
        }
    }
}

#[tokio::test]
#[ignore = "needs rpicam-vid: run ci/stage/rpicam"]
async fn real_rpicam_vid_without_camera_is_reported() {
    let path = path_with(&built("RPICAM_VID", "apps/rpicam-vid"));
    let config = "[[camera]]\nname = \"pi\"\nsource = \"rpicam\"\n";
    let server = Server::start_with(config, &[("PATH", &path)]).await;
    let status = server.camera_until("pi", "failure", |camera| camera["state"] == "failed").await;
    assert!(status["error"].as_str().unwrap().contains(NO_CAMERA), "{status:#}");
}

/// The encoder and the output of rpicam-vid on a machine without H.264 hardware, such as a Raspberry Pi 5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rpicam-vid: run ci/stage/rpicam"]
async fn streams_what_real_rpicam_vid_encodes_in_software() {
    let program = built("RPICAM_VID", "with-pictures/rpicam-vid");
    let config = "[[camera]]\nname = \"pi\"\nsource = \"rpicam\"\nwidth = 640\nheight = 480\n\
                  framerate = 15\nkeyframe_interval = 30\noverlay = \"name-time\"\n";
    let server = Server::start_with(config, &[("PATH", &path_with(&program))]).await;
    let status =
        server.camera_until("pi", "pictures", |camera| camera["frames"].as_u64() > Some(150)).await;
    assert_eq!((&status["width"], &status["height"]), (&640.into(), &480.into()), "{status:#}");
    assert_eq!((&status["early_cuts"], &status["damaged"]), (&0.into(), &0.into()), "{status:#}");
    assert!(status["key_frames"].as_u64() >= Some(5), "{status:#}");
    // The build has no OpenCV. The real program says so, and it has read the file that it was given.
    let note = status["notes"][0].as_str().unwrap();
    assert!(note.starts_with("overlay: ") && note.contains("apt install rpicam-apps"), "{note}");
}

/// Runs the same program without some of its arguments, to show that they are necessary.
async fn error_without(argument: &str) -> String {
    let program = built("RPICAM_VID", "with-pictures/rpicam-vid");
    let folder = Folder::new();
    let script = format!(
        "#!/bin/sh\nfor word; do shift\ncase $word in {argument}*) ;; *) set -- \"$@\" \"$word\" ;; esac\n\
         done\nexec {} \"$@\"\n",
        program.display()
    );
    let path = path_with(&install(&folder, "rpicam-vid", &script));
    let config = "[[camera]]\nname = \"pi\"\nsource = \"rpicam\"\nwidth = 640\nheight = 480\n\
                  framerate = 15\n";
    let server = Server::start_with(config, &[("PATH", &path)]).await;
    let status = server.camera_until("pi", "failure", |camera| camera["state"] == "failed").await;
    status["error"].as_str().unwrap().into()
}

#[tokio::test]
#[ignore = "needs rpicam-vid: run ci/stage/rpicam"]
async fn software_encoding_needs_the_options_for_it() {
    let error = error_without("--libav-format").await;
    assert!(error.contains("try setting with --libav-format"), "{error}");
    let error = error_without("--low-latency").await;
    assert!(error.contains("B-frames"), "{error}");
}

#[tokio::test]
#[ignore = "needs rpicam-vid: run ci/stage/rpicam"]
async fn explains_that_real_rpicam_apps_lite_cannot_encode() {
    let program = built("RPICAM_VID_LITE", "with-pictures/rpicam-vid");
    let config = "[[camera]]\nname = \"pi\"\nsource = \"rpicam\"\n";
    let server = Server::start_with(config, &[("PATH", &path_with(&program))]).await;
    let status = server.camera_until("pi", "failure", |camera| camera["state"] == "failed").await;
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("run sudo apt install rpicam-apps)"), "{error}");
}
