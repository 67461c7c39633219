//! `berrymse check`: the error, the position and the remedy for each mistake in a configuration.

use crate::support::{Folder, berrymse};
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

/// Runs `berrymse check`. Returns the exit status and the output.
fn check(file: &Path) -> (Option<i32>, String) {
    let output = Command::new(berrymse()).arg("check").arg(file).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// An invalid configuration, the position of the error, and a part of the message.
const BROKEN: [(&str, &str, &str); 61] = [
    ("[server]\nlisten = \"here\"", "2:10", "for example \"0.0.0.0:2020\""),
    ("[server]\npassword = \"\"", "2:12", "leave the line out"),
    ("[server]\norigins = [\"example.org\"]", "2:11", "https://example.org"),
    ("[server]\nhosts = [\"cam:80\"]", "2:9", "without a port"),
    ("[srever]", "1:2", "did you mean `server`?"),
    ("[server\nlisten = \"0.0.0.0:80\"", "1:8", "`]`"),
    ("[server]\nlisten = \"0.0.0.0:80\nhosts = []", "2:21", "expected `\"`"),
    ("[server]\n\n[server]", "3:2", "duplicate key"),
    ("[[camera]]\nnaem = \"front\"", "2:1", "did you mean `name`?"),
    ("# Grüße\n[[camera]]\n  keyframe_intervall = 30", "3:3", "`keyframe_interval`?"),
    ("[[camera]]\nname = \"front door\"", "2:8", "letters, digits, - and _"),
    ("[[camera]]\nname = \"a\"\n[[camera]]\nname = \"a\"", "4:8", "duplicate camera name \"a\""),
    ("[[camera]]\nwidth = 1281", "2:9", "such as 1280"),
    ("[[camera]]\nheight = 8", "2:10", "16 to 4096"),
    ("[[camera]]\nframerate = 0", "2:13", "1 to 240"),
    ("[[camera]]\nbitrate = 5_000_000_000", "2:11", "50000 to 100000000"),
    ("[[camera]]\nrotation = 45", "2:12", "0, 90, 180 or 270"),
    ("[[camera]]\nautofocus = \"continous\"", "2:13", "did you mean `continuous`?"),
    ("[[camera]]\nautofocus = true", "2:13", "must be text in quotes"),
    ("[[camera]]\nlens_position = 32.5", "2:17", "0 to 32"),
    (
        "[[camera]]\nlens_position = 1\nautofocus = \"auto\"",
        "2:17",
        "needs `autofocus = \"manual\"`",
    ),
    ("[[camera]]\nhdr_mode = \"yes please\"", "2:12", "`single-exposure`"),
    ("[[camera]]\nawb_mode = \"daylite\"", "2:12", "did you mean `daylight`?"),
    ("[[camera]]\ncolour_gains = [0, 1.5]", "2:16", "the gains of red and blue, 0.1 to 32"),
    ("[[camera]]\nexposure_mode = \"sport\"", "2:17", "did you mean `short`?"),
    ("[[camera]]\nexposure_time = 0", "2:17", "1 to 1000000"),
    ("[[camera]]\nframerate = 50\nexposure_time = 20_001", "3:17", "at most 20000 microseconds"),
    ("[[camera]]\nanalogue_gain = \"2\"", "2:17", "a number without quotes"),
    ("[[camera]]\nexposure_value = -8.1", "2:18", "-8 to 8"),
    ("[[camera]]\nbrightness = nan", "2:14", "-1 to 1"),
    ("[[camera]]\ncontrast = 16", "2:12", "0 to 15.99"),
    ("[[camera]]\nnoise_reduction = \"cdn_fast\"", "2:19", "`high-quality`"),
    ("[[camera]]\nroi = [0.5, 0, 0.6, 1]", "2:7", "as fractions of the whole picture"),
    ("[[camera]]\nsensor_mode = [1640, 1232, -10]", "2:15", "bit depth (8 to 16)"),
    ("[[camera]]\noverlay = \"tiem\"", "2:11", "did you mean `time`?"),
    (
        "[[camera]]\ncamera_number = 1\n[[camera]]\ncamera_number = 1",
        "4:17",
        "duplicate camera number 1",
    ),
    ("[[camera]]\nbuffer_count = 1", "2:16", "2 to 16"),
    ("[[camera]]\nsource = \"testcard\"", "2:10", "did you mean \"test-card\"?"),
    ("[[camera]]\nsource = \"http://cam/\"", "2:10", "{ command = [\"program\""),
    ("[[camera]]\nsource = { command = [] }", "2:10", "name a program"),
    ("[[camera]]\nsource = { comand = [\"x\"] }", "2:12", "did you mean `command`?"),
    ("[system]\nhostname = \"my pi\"", "2:12", "hyphens"),
    ("[system]\ntimezone = \"berlin\"", "2:12", "\"Europe/Berlin\""),
    ("[system]\nssh_keys = [\"AAAA\"]", "2:12", "ssh-ed25519"),
    ("[network]\naddress = \"192.168.1.10\"", "2:11", "192.168.1.10/24"),
    ("[network]\naddress = \"192.168.1.10/24\"", "2:11", "`gateway ="),
    ("[network]\ngateway = \"192.168.1.1\"", "2:11", "needs a fixed `address`"),
    ("[network]\ndns = [\"9.9.9.9\"]", "2:7", "`dns` needs a fixed `address`"),
    (
        "[network]\naddress = \"192.168.1.10/24\"\ngateway = \"192.168.2.1\"",
        "3:11",
        "not in the network of 192.168.1.10/24",
    ),
    ("[network]\naddress = \"10.0.0.1/8\"\ngateway = \"fe80::1\"", "3:11", "cannot be reached"),
    (
        "[network]\nwifi = { ssid = \"x\", psk = \"two\\nlines\", country = \"DE\" }",
        "2:28",
        "control character",
    ),
    ("[network]\nwifi = { ssid = \"x\", psk = \"short\", country = \"DE\" }", "2:28", "8 to 63"),
    ("[network]\nwifi = { country = \"DE\" }", "2:8", "`ssid`"),
    ("[network]\nwifi = { ssid = \"x\", ssid_hex = \"78\" }", "2:8", "remove one"),
    ("[network]\nwifi = { ssid_hex = \"7\" }", "2:21", "pairs of hexadecimal digits"),
    ("[network]\nwifi = { ssid = \"x\", country = \"Germany\" }", "2:32", "\"DE\""),
    ("[update]\ninstall = \"auto\"", "2:11", "`url ="),
    ("[update]\ncheck = \"weekly\"", "2:9", "`daily`"),
    ("[update]\nurl = \"example.org\"", "2:7", "https://"),
    ("[update]\nwindow = \"3-5\"", "2:10", "\"03:00-05:00\""),
    ("[update]\nwindow = \"40006:00-05:00\"", "2:10", "40006:00"),
];

#[test]
fn reports_a_specific_error_and_position_for_each_mistake() {
    let folder = Folder::new();
    let mut texts = HashSet::new();
    for (config, place, expected) in BROKEN {
        let file = folder.write("berrymse.toml", config);
        let (code, text) = check(&file);
        assert_eq!(code, Some(1), "{config}\n{text}");
        let start = format!("berrymse: {}:{place}: ", file.display());
        let Some(message) = text.strip_prefix(&start) else { panic!("{config}\n{text}") };
        assert!(message.contains(expected), "{config}\n{text}");
        assert_eq!(message.lines().count(), 1, "{text}");
        assert!(texts.insert(message.to_string()), "the same message twice: {text}");
    }
}

#[test]
fn accepts_valid_configurations_silently() {
    let folder = Folder::new();
    for config in [
        "",
        "# nothing but this\n",
        // As Notepad writes it.
        "\u{feff}[[camera]]\r\nname = \"front\"\r\n",
        "[server]\nlisten = \"[::]:80\"\npassword = \"a secret\"\norigins = [\"*\"]\n\
         [[camera]]\nsource = \"rpicam\"\nframerate = 50\n\
         [[camera]]\nsource = { command = [\"ffmpeg\", \"-version\"] }\n\
         [system]\nhostname = \"cam\"\ntimezone = \"Europe/Berlin\"\n\
         [network]\naddress = \"192.168.1.10/24\"\ngateway = \"192.168.1.1\"\n\
         wifi = { ssid = \"home\", psk = \"12345678\", country = \"DE\" }\n\
         [update]\nurl = \"https://example.org/berrymse.json\"\ninstall = \"auto\"\n",
    ] {
        let file = folder.write("berrymse.toml", config);
        assert_eq!(check(&file), (Some(0), String::new()), "{config}");
    }
}

#[test]
fn rejects_files_that_are_not_configurations() {
    let folder = Folder::new();
    let missing = folder.path("missing.toml");
    let (code, text) = check(&missing);
    assert_eq!(code, Some(1));
    assert!(text.contains(missing.to_str().unwrap()) && text.contains("no such file"), "{text}");
    let (code, text) = check(&folder.path(""));
    assert_eq!(code, Some(1));
    assert!(text.contains("is a directory"), "{text}");
    let (code, text) = check(&folder.write("latin1.toml", b"[server]\npassword = \"\xfc\""));
    assert_eq!(code, Some(1));
    assert!(text.contains(":2:13: not UTF-8"), "{text}");
    let (code, text) = check(&folder.write("picture.toml", vec![b'#'; 300 * 1024]));
    assert_eq!(code, Some(1));
    assert!(text.contains("at most"), "{text}");
}

/// No password would match such a hash.
#[test]
fn rejects_incomplete_argon2_hashes() {
    let folder = Folder::new();
    for half in ["$argon2id", "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ", "$argon2id$broken"] {
        let file = folder.write("berrymse.toml", format!("[server]\npassword = '{half}'\n"));
        let (code, text) = check(&file);
        assert_eq!(code, Some(1), "{half}");
        assert!(text.contains(":2:12: ") && text.contains("argon2"), "{text}");
    }
}

#[test]
fn explains_common_mistakes_without_parser_jargon() {
    let folder = Folder::new();
    for config in [
        "[camera]\nname = \"front\"", // instead of [[camera]]
        "[[camera]]\nwidth = \"1280\"",
        "[[camera]]\nbitrate = 2.5",
        "[[camera]]\nsource = { command = \"ffmpeg -i x\" }",
    ] {
        let (code, text) = check(&folder.write("berrymse.toml", config));
        assert_eq!(code, Some(1));
        assert!(!text.contains("i64") && !text.contains("sequence"), "{config}\n{text}");
    }
    let (_, text) = check(&folder.path("missing.toml"));
    assert!(!text.contains("--config"), "check has no such option: {text}");
}

/// An invalid configuration ends `serve` with the same message.
#[test]
fn serve_reports_the_same_error() {
    let folder = Folder::new();
    let file = folder.write("berrymse.toml", BROKEN[0].0);
    let mut serve = Command::new(berrymse());
    let output = serve.args(["serve", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), check(&file).1);
}
