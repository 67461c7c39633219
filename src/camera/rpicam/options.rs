//! The options that the installed rpicam-vid knows, according to `rpicam-vid --help`.

use crate::camera::Stop;
use crate::camera::rpicam::ask::ask;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Options of every version since the first that selects a camera (November 2021).
const ALWAYS: [&str; 17] = [
    "bitrate",
    "camera",
    "codec",
    "flush",
    "framerate",
    "height",
    "hflip",
    "inline",
    "intra",
    "level",
    "nopreview",
    "output",
    "profile",
    "rotation",
    "timeout",
    "vflip",
    "width",
];

/// The options of a version of rpicam-vid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    names: BTreeSet<String>,
    /// Whether `--hdr` takes the name of a mode. Before version 1.3, it took 0 or 1.
    hdr_takes_name: bool,
}

impl Options {
    /// Reads the output of `rpicam-vid --help`. Returns `None` if it lists no options.
    ///
    /// Boost.Program_options prints each option on a line that starts with two spaces, such as
    /// `  -n [ --nopreview ] [=arg(=1)] (=0)  Do not …`. Descriptions continue further to the right.
    pub fn parse(help: &str) -> Option<Options> {
        let mut options = Options { names: BTreeSet::new(), hdr_takes_name: false };
        for line in help.lines() {
            if !line.strip_prefix("  ").is_some_and(|rest| rest.starts_with('-')) {
                continue;
            }
            let Some((_, rest)) = line.split_once("--") else { continue };
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
            options.hdr_takes_name |= name == "hdr" && rest.starts_with(" [=arg(=auto)]");
            options.names.insert(name.into());
        }
        options.has("output").then_some(options)
    }

    /// The options that every version has.
    pub fn common() -> Options {
        let names = ALWAYS.into_iter().map(String::from).collect();
        Options { names, hdr_takes_name: false }
    }

    /// Whether the program knows `--name`.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn hdr_takes_name(&self) -> bool {
        self.hdr_takes_name
    }

    /// Whether the encoder for machines without H.264 hardware can be told not to make B-frames.
    pub(super) fn avoids_b_frames(&self) -> bool {
        self.has("low-latency") || self.has("libav-video-codec-opts")
    }
}

/// Identifies the file of a program. An update changes it.
#[derive(PartialEq, Eq)]
struct Version {
    path: PathBuf,
    modified: Option<SystemTime>,
    bytes: u64,
}

/// Returns the options of `program`. It is asked once, and again when its file has changed.
///
/// If it does not answer, these are the options that every version has. The next call asks again.
pub(super) fn of(program: &Path, stop: &Stop) -> Options {
    static KNOWN: Mutex<Option<(Version, Options)>> = Mutex::new(None);
    let Some(version) = version(program) else { return Options::common() };
    // Two cameras that start at the same time ask once.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, options)) = &*known
        && *known == version
    {
        return options.clone();
    }
    match ask(program, &["--help"], Some(stop)) {
        Ok(answer) => match Options::parse(&answer) {
            Some(options) => return known.insert((version, options)).1.clone(),
            None => log::warn!(
                "{} --help lists no options, but says: {}",
                program.display(),
                answer.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim()
            ),
        },
        Err(_) if stop.is_set() => {}
        Err(error) => log::warn!("{} --help: {error}", program.display()),
    }
    Options::common()
}

fn version(program: &Path) -> Option<Version> {
    // The path may be a link that a package manager changes.
    let path = program.canonicalize().ok()?;
    let metadata = path.metadata().ok()?;
    Some(Version { path, modified: metadata.modified().ok(), bytes: metadata.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Part of the output of version 1.7.0 with libav, in the layout of Boost.Program_options.
    const HELP: &str = "\
Valid options are:
  -h [ --help ] [=arg(=1)] (=0)         Print this help message
  --camera arg (=0)                     Chooses the camera to use. To list the available indexes, use the
                                        --list-cameras option.
  --flush [=arg(=1)] (=0)               Flush output data as soon as possible
  -o [ --output ] arg                   Set the output file name
  --hdr [=arg(=auto)] (=off)            Enable High Dynamic Range, where supported. Available values are \"off\",
                                        \"auto\"
  --libav-format arg                    Sets the libav encoder output format to use. Leave blank to try and deduce
                                        this from the filename.
                                        To list available formats, run  the \"ffmpeg -formats\" command.
  -l [ --listen ] [=arg(=1)] (=0)       Listen
";

    #[test]
    fn reads_the_help_text() {
        let options = Options::parse(HELP).unwrap();
        let names: Vec<&str> = options.names.iter().map(String::as_str).collect();
        assert_eq!(names, ["camera", "flush", "hdr", "help", "libav-format", "listen", "output"]);
        assert!(options.hdr_takes_name);
        let old = HELP.replace("[=arg(=auto)] (=off)", "[=arg(=1)] (=0)   ");
        assert!(!Options::parse(&old).unwrap().hdr_takes_name);
    }

    #[test]
    fn rejects_other_texts() {
        for text in [
            "",
            "ERROR: the system appears to be configured for the legacy camera stack\n",
            "usage: rpicam-vid --output FILE\n",
            "    --output",
        ] {
            assert_eq!(Options::parse(text), None, "{text}");
        }
    }

    #[test]
    fn asks_again_only_if_the_program_has_changed() {
        let folder = std::env::temp_dir().join(format!("berrymse-options-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (program, asked) = (folder.join("rpicam-vid"), folder.join("asked"));
        let install = |options: &str| {
            let script = format!(
                "#!/bin/sh\necho \"$@\" >>{}\nprintf '  --output arg\\n{options}'\n",
                asked.display()
            );
            // As a package manager does: a new file replaces the old one. Another process writes it:
            // if this one did, a child that another thread starts could hold it open for writing, and
            // then it cannot be executed.
            let text = folder.join("text");
            std::fs::write(&text, script).unwrap();
            let new = folder.join("new");
            let mut copy = std::process::Command::new("install");
            assert!(copy.arg("-m755").args([&text, &new]).status().unwrap().success());
            std::fs::rename(new, &program).unwrap();
        };
        let stop = Stop::new().unwrap();
        install("");
        assert!(!of(&program, &stop).has("low-latency"));
        assert!(!of(&program, &stop).has("low-latency"));
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), "--help\n");
        install("  --low-latency [=arg(=1)] (=0)\\n");
        assert!(of(&program, &stop).has("low-latency"));
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), "--help\n--help\n");
        std::fs::remove_file(&program).unwrap();
        assert_eq!(of(&program, &stop), Options::common());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
