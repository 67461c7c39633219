//! The boot files of a release, which are part of its root file system, and the list `boot-files.txt`
//! that is beside them here and on the boot partition. `appliance/assemble set` writes it.
//!
//! ```text
//! identity=0123456789abcdef           identifies the set; the first line, which boot.cmd reads
//! firmware=fedcba9876543210           identifies the files that run before boot.scr
//! started-on=Raspberry Pi 3 Model B   a model on which this firmware was seen to start (any number)
//! file=SHA256 NAME                    a file of the set (any number)
//! ```

use crate::system::boot_files::error::BootFilesError;
use crate::system::boot_files::files::{Files, digest};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::Path;

/// Name of the list.
pub const LIST: &str = "boot-files.txt";

/// Length of an identity, in hexadecimal digits.
const IDENTITY_DIGITS: usize = 16;

/// A list of boot files.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct List {
    /// Identity of the set.
    pub identity: String,
    /// Models on which the firmware was seen to start.
    pub started_on: Vec<String>,
    /// SHA-256 digest of each file, by its path in lower case.
    pub files: BTreeMap<String, String>,
}

impl List {
    /// Parses the text. Unknown lines are ignored. Returns `None` if it has no valid identity.
    pub fn parse(text: &str) -> Option<List> {
        let mut list = List::default();
        for line in text.lines() {
            match line.trim_end().split_once('=') {
                Some(("identity", identity)) if is_identity(identity) => {
                    list.identity = identity.into();
                }
                Some(("started-on", model)) => list.started_on.push(model.into()),
                Some(("file", file)) => {
                    if let Some((digest, path)) = file.split_once(' ') {
                        list.files.insert(path.to_lowercase(), digest.into());
                    }
                }
                _ => {}
            }
        }
        Some(list).filter(|list| !list.identity.is_empty())
    }

    /// Returns the list as text, for a boot partition that contains `files`.
    pub fn text(&self, files: &Files) -> String {
        let mut text = format!("identity={}\nfirmware={}\n", self.identity, firmware(files));
        for model in &self.started_on {
            text += &format!("started-on={model}\n");
        }
        for (path, digest) in &self.files {
            text += &format!("file={digest} {path}\n");
        }
        text
    }
}

/// Returns whether the text can be the identity of a set.
pub fn is_identity(text: &str) -> bool {
    text.len() == IDENTITY_DIGITS && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the identity of the set that started this system, according to the kernel command line.
pub fn running(cmdline: &str) -> Option<String> {
    let value =
        cmdline.split_whitespace().rev().find_map(|word| word.strip_prefix("berrymse.boot="));
    value.filter(|value| is_identity(value)).map(String::from)
}

/// Returns whether a file runs before `boot.scr`, which could switch back.
pub fn is_firmware(path: &str) -> bool {
    let path = path.to_lowercase();
    let between = |start, end| path.starts_with(start) && path.ends_with(end);
    !path.contains('/')
        && (path == "bootcode.bin"
            || path == "u-boot.bin"
            || between("start", ".elf")
            || between("fixup", ".dat"))
}

/// Returns the identity of the firmware among `files`: the start of the digest of a line
/// `DIGEST  NAME` for each file.
pub fn firmware(files: &Files) -> String {
    let mut lines: Vec<(&str, String)> = files
        .iter()
        .filter(|(path, _)| is_firmware(path))
        .map(|(path, content)| (path, format!("{}  {path}\n", digest(content))))
        .collect();
    lines.sort();
    let text: String = lines.into_iter().map(|(_, line)| line).collect();
    digest(text.as_bytes())[..IDENTITY_DIGITS].into()
}

/// The boot files of a release.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Set {
    /// The list.
    pub list: List,
    /// The files, without the list.
    pub files: Files,
}

impl Set {
    /// Loads the list in `folder`. Returns `None` if there is none: this release has no boot files.
    ///
    /// # Errors
    ///
    /// The list cannot be read, or is invalid.
    pub fn load_list(folder: &Path) -> Result<Option<List>, BootFilesError> {
        let path = folder.join(LIST);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| BootFilesError::Set { path, error })?,
        };
        List::parse(&text).ok_or_else(|| BootFilesError::Damaged(LIST.into())).map(Some)
    }

    /// Loads the files in `folder` that the list names, and checks them.
    ///
    /// # Errors
    ///
    /// A file is missing, or is not the one that was built.
    pub fn load(folder: &Path, list: List) -> Result<Set, BootFilesError> {
        let mut files = Files::default();
        read_folder(folder, "", &mut files)?;
        for (path, expected) in &list.files {
            if files.get(path).map(digest).as_ref() != Some(expected) {
                return Err(BootFilesError::Damaged(path.clone()));
            }
        }
        let is_listed = |path: &str| list.files.contains_key(&path.to_lowercase());
        let listed = files.iter().filter(|(path, _)| is_listed(path));
        let files = listed.map(|(path, content)| (path.into(), content.into())).collect();
        Ok(Set { list, files })
    }
}

fn read_folder(folder: &Path, name: &str, files: &mut Files) -> Result<(), BootFilesError> {
    let cannot_read = |path: &Path| {
        let path = path.to_path_buf();
        move |error: Error| BootFilesError::Set { path, error }
    };
    for entry in std::fs::read_dir(folder).map_err(cannot_read(folder))? {
        let entry = entry.map_err(cannot_read(folder))?;
        let path = entry.path();
        let name = format!("{name}{}", entry.file_name().to_string_lossy());
        match entry.file_type().map_err(cannot_read(&path))?.is_dir() {
            true => read_folder(&path, &format!("{name}/"), files)?,
            false => files.insert(&name, std::fs::read(&path).map_err(cannot_read(&path))?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "identity=0123456789abcdef\nfirmware=x\nstarted-on=Raspberry Pi 3 Model B Rev 1.2\r\n\
                        something new\nfile=aa config.txt\nfile=bb Overlays/A.dtbo\nfile=\n";

    #[test]
    fn parses_the_list() {
        let list = List::parse(TEXT).unwrap();
        assert_eq!(list.identity, "0123456789abcdef");
        assert_eq!(list.started_on, ["Raspberry Pi 3 Model B Rev 1.2"]);
        let files: Vec<_> = list.files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(files, [("config.txt", "aa"), ("overlays/a.dtbo", "bb")]);
        let text = list.text(&Files::default());
        assert!(text.starts_with("identity=0123456789abcdef\n"), "{text}");
        assert_eq!(List::parse(&text), Some(list));
        for text in ["", "identity=", "identity=0123456789ABCDEF", "identity=0123456789abcdef0"] {
            assert_eq!(List::parse(text), None, "{text}");
        }
    }

    #[test]
    fn recognizes_the_set_that_started_the_system() {
        assert_eq!(running("quiet root=x\n"), None);
        assert_eq!(running("berrymse.boot="), None);
        assert_eq!(running("a berrymse.boot=$(reboot)"), None);
        let line = "berrymse.boot=0000000000000000 b berrymse.boot=0123456789abcdef\n";
        assert_eq!(running(line).as_deref(), Some("0123456789abcdef"));
    }

    #[test]
    fn distinguishes_firmware_from_other_files() {
        for path in ["bootcode.bin", "START4.ELF", "start_x.elf", "fixup4x.dat", "u-boot.bin"] {
            assert!(is_firmware(path), "{path}");
        }
        for path in ["boot.scr", "config.txt", "overlays/start.elf", "kernel.bin", "start.txt"] {
            assert!(!is_firmware(path), "{path}");
        }
    }

    #[test]
    fn loads_only_complete_and_undamaged_sets() {
        let folder = std::env::temp_dir().join(format!("berrymse-set-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("overlays")).unwrap();
        assert!(Set::load_list(&folder).unwrap().is_none());
        std::fs::write(folder.join("boot.scr"), "script").unwrap();
        std::fs::write(folder.join("overlays/a.dtbo"), "overlay").unwrap();
        let list = |more: &str| {
            let (a, b) = (digest(b"script"), digest(b"overlay"));
            format!(
                "identity=0123456789abcdef\nfile={a} boot.scr\nfile={b} overlays/a.dtbo\n{more}"
            )
        };
        let load = |text: &str| {
            std::fs::write(folder.join(LIST), text).unwrap();
            Set::load(&folder, Set::load_list(&folder)?.unwrap())
        };
        let set = load(&list("")).unwrap();
        assert_eq!(set.files.iter().count(), 2);
        assert_eq!(set.files.get("overlays/A.DTBO"), Some(&b"overlay"[..]));
        assert!(matches!(load(&list("file=00 start.elf\n")), Err(BootFilesError::Damaged(_))));
        assert!(matches!(load("identity=1\n"), Err(BootFilesError::Damaged(_))));
        std::fs::write(folder.join("boot.scr"), "Script").unwrap();
        assert!(
            matches!(load(&list("")), Err(BootFilesError::Damaged(name)) if name == "boot.scr")
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    proptest! {
        #[test]
        fn any_list_is_parsed_or_rejected(text in ".{0,200}", lines in prop::collection::vec("(identity|file|started-on)=[a-f0-9 ]{0,20}", 0..5)) {
            for text in [text, lines.join("\n")] {
                if let Some(list) = List::parse(&text) {
                    prop_assert!(is_identity(&list.identity));
                }
            }
        }
    }
}
