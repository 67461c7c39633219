//! H.264 clips and ffmpeg.

use super::Folder;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs ffmpeg or ffprobe. Panics if it fails.
pub fn ffmpeg<S: AsRef<std::ffi::OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            panic!("{program}: {error}: install it with apt-get install ffmpeg")
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    output
}

/// The result of decoding a file with ffmpeg.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The checksum of each picture.
    pub pictures: Vec<String>,
    /// Errors and warnings.
    pub complaints: String,
}

/// Decodes a file with ffmpeg.
pub fn decode(file: &Path) -> Decoded {
    // framecrc writes a line for each picture. With passthrough, these are exactly the pictures that
    // were decoded.
    let options = ["-v", "warning", "-i"];
    let end = ["-fps_mode", "passthrough", "-f", "framecrc", "-"];
    let arguments = options.map(Path::new).into_iter().chain([file]).chain(end.map(Path::new));
    let output = ffmpeg("ffmpeg", arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Decoded {
        pictures: lines.map(|line| line.rsplit(',').next().unwrap().trim().into()).collect(),
        complaints: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An H.264 stream and the ranges of its access units, according to ffprobe.
pub struct Clip {
    pub file: PathBuf,
    pub data: Vec<u8>,
    units: Vec<std::ops::Range<usize>>,
}

impl Clip {
    /// Encodes ffmpeg's test picture with x264. `options` are ffmpeg output options.
    pub fn encode(folder: &Folder, name: &str, size: &str, frames: u32, options: &str) -> Clip {
        let file = folder.path(&format!("{name}.h264"));
        let source = format!("testsrc2=size={size}:rate=30");
        let count = frames.to_string();
        let input = ["-v", "error", "-y", "-f", "lavfi", "-i", &source, "-frames:v", &count];
        let output = "-pix_fmt yuv420p -c:v libx264 -preset veryfast -bf 0";
        let output = output.split(' ').chain(options.split_whitespace());
        ffmpeg("ffmpeg", input.into_iter().chain(output).chain([file.to_str().unwrap()]));
        Clip::read(file)
    }

    /// Reads an existing file.
    pub fn read(file: PathBuf) -> Clip {
        let data = std::fs::read(&file).unwrap();
        let options = ["-v", "error", "-show_entries", "packet=size,pos", "-of", "csv=p=0"];
        let arguments = options.map(Path::new).into_iter().chain([file.as_path()]);
        let output = String::from_utf8(ffmpeg("ffprobe", arguments).stdout).unwrap();
        let mut end = 0;
        let units = output.lines().map(|line| {
            let (size, position) = line.split_once(',').unwrap();
            assert_eq!(
                position.trim_end_matches(',').parse(),
                Ok(end),
                "a gap between access units"
            );
            let start = end;
            end += size.parse::<usize>().unwrap();
            start..end
        });
        let units = units.collect();
        assert_eq!(end, data.len());
        Clip { file, data, units }
    }

    /// Returns the number of access units.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Returns access unit `n` of the clip, played in a loop.
    pub fn unit(&self, n: usize) -> &[u8] {
        &self.data[self.units[n % self.units.len()].clone()]
    }
}
