//! The content of a new half: the release's boot files and the user's. Pure.
//!
//! | file | rule |
//! |---|---|
//! | `config.txt` | the release's lines, then the marker, then the user's lines |
//! | `cmdline.txt` | the user's if the user changed it |
//! | firmware | the running one, unless this model is known to start with the release's |
//! | other files of the release | the release's |
//! | files of the earlier set that the release does not have | removed |
//! | all other files, such as `berrymse.toml` | the user's |

use crate::system::boot_files::files::{Files, digest};
use crate::system::boot_files::set::{LIST, List, Set, is_firmware};

/// The line in config.txt below which the user's own lines follow. `appliance/assemble` writes it.
pub const MARKER: &str = "# Your own lines go below this one: updates keep them.";

const CONFIG: &str = "config.txt";
const CMDLINE: &str = "cmdline.txt";

/// `config.txt` in releases without the marker. `README` in that folder says where they come from.
const SHIPPED_CONFIG: [&str; 2] = [
    include_str!("../../../appliance/shipped/config-0.1.0.txt"),
    include_str!("../../../appliance/shipped/config-0.1.0-32.txt"),
];

/// `cmdline.txt` in releases without `boot-files.txt`.
const SHIPPED_CMDLINE: [&str; 1] = [include_str!("../../../appliance/shipped/cmdline-0.1.0.txt")];

/// The content of a new half.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    /// All files.
    pub files: Files,
    /// What the user should know, or empty.
    pub note: String,
}

/// Combines the files of the running half with those of a release for a machine of this `model`.
pub fn merge(running: &Files, release: &Set, model: &str) -> Merged {
    let listed = running.get(LIST).and_then(|text| List::parse(&String::from_utf8_lossy(text)));
    let listed = listed.unwrap_or_default();
    let replaces_firmware = release.list.started_on.iter().any(|known| known == model);
    let mut files = Files::default();
    let mut note = String::new();
    for (path, content) in release.files.iter() {
        match path {
            CONFIG => {
                let head = listed.files.get(CONFIG).map(String::as_str);
                let (text, kept) = config(running.get(CONFIG), head, content);
                if kept {
                    note =
                        "config.txt was not updated, because lines that came with the image were \
                            changed in it"
                            .into();
                }
                files.insert(path, text);
            }
            CMDLINE => files.insert(path, cmdline(running.get(CMDLINE), &listed, content)),
            path if is_firmware(path) && !replaces_firmware => {}
            path => files.insert(path, content.into()),
        }
    }
    for (path, content) in running.iter() {
        let keeps = match is_firmware(path) {
            true => !replaces_firmware,
            false => !listed.files.contains_key(&path.to_lowercase()) && path != LIST,
        };
        if keeps {
            files.insert_new(path, content);
        }
    }
    let text = release.list.text(&files);
    files.insert(LIST, text.into());
    Merged { files, note }
}

/// Returns the new config.txt, and whether it is the user's as a whole. `head`: digest of the lines
/// up to the marker that the running set was shipped with. `ours` ends with the marker.
fn config(running: Option<&[u8]>, head: Option<&str>, ours: &[u8]) -> (Vec<u8>, bool) {
    let Some(running) = running else { return (ours.into(), false) };
    let kept = (running.to_vec(), true);
    if let Some((above, below)) = split_at_marker(running) {
        let above = unix_lines(above);
        let unchanged = Some(digest(&above).as_str()) == head || above == ours;
        return if unchanged { ([ours, below].concat(), false) } else { kept };
    }
    let running = String::from_utf8_lossy(running);
    match SHIPPED_CONFIG.iter().rev().find_map(|shipped| added_lines(&running, shipped)) {
        Some(added) => ([ours, added.as_bytes()].concat(), false),
        None => kept,
    }
}

/// Splits config.txt after the line with the marker.
fn split_at_marker(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut end = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        if line.trim_ascii() == MARKER.as_bytes() {
            return Some(text.split_at(end));
        }
    }
    None
}

/// Returns the text with the line ends of Unix, also at its end. Editors may change them.
fn unix_lines(text: &[u8]) -> Vec<u8> {
    let mut unix = vec![];
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        unix.extend(line.strip_suffix(b"\r").unwrap_or(line));
        unix.push(b'\n');
    }
    unix
}

/// Returns the lines of `text` that are not in `shipped`, each with a line end. Returns `None` if a
/// setting in `shipped` is missing or changed, or if an added line depends on a filter in `shipped`,
/// such as `[cm4]`: it cannot be moved.
fn added_lines(text: &str, shipped: &str) -> Option<String> {
    let is_setting = |line: &str| !line.is_empty() && !line.starts_with('#');
    let mut settings = shipped.lines().map(str::trim).filter(|line| is_setting(line)).peekable();
    let mut added = String::new();
    let mut filtered = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if settings.next_if_eq(&trimmed).is_some() {
            filtered = trimmed.starts_with('[') && trimmed != "[all]"
                || filtered && !trimmed.starts_with('[');
        } else if is_setting(trimmed) {
            let is_filter = trimmed.starts_with('[');
            if filtered && !is_filter {
                return None;
            }
            filtered = filtered && !is_filter;
            added += &format!("{line}\n");
        } else if !trimmed.is_empty() && !shipped.lines().any(|shipped| shipped.trim() == trimmed) {
            added += &format!("{line}\n");
        }
    }
    settings.next().is_none().then_some(added)
}

/// Returns the new cmdline.txt.
fn cmdline(running: Option<&[u8]>, listed: &List, ours: &[u8]) -> Vec<u8> {
    let Some(running) = running else { return ours.into() };
    let text = running.trim_ascii();
    let is_shipped = listed.files.get(CMDLINE) == Some(&digest(&unix_lines(running)))
        || SHIPPED_CMDLINE.iter().any(|shipped| shipped.trim().as_bytes() == text);
    if is_shipped { ours.into() } else { running.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: &str =
        "new=1\n[cm4]\nx=2\n[all]\n# Your own lines go below this one: updates keep them.\n";

    fn after(running: &str, head: Option<&str>) -> (String, bool) {
        let head = head.map(|head| digest(head.as_bytes()));
        let (text, kept) = config(Some(running.as_bytes()), head.as_deref(), OURS.as_bytes());
        (String::from_utf8(text).unwrap(), kept)
    }

    #[test]
    fn keeps_the_lines_below_the_marker() {
        let old = format!("old=1\n{MARKER}\n");
        let with = |below: &str| (format!("{OURS}{below}"), false);
        for below in ["", "mine=1", "mine=1\n", "[pi4]\r\nmine=1\r\n\r\n", "\n\u{fffd}ü\n"] {
            assert_eq!(after(&format!("{old}{below}"), Some(&old)), with(below), "{below:?}");
            // A release that changes nothing in this file.
            assert_eq!(after(&format!("{OURS}{below}"), None), with(below), "{below:?}");
        }
        // An editor that changes every line end, and one that removes the last.
        let windows = format!("{old}mine=1\n").replace('\n', "\r\n");
        assert_eq!(after(&windows, Some(&old)), with("mine=1\r\n"));
        assert_eq!(after(old.trim_end(), Some(&old)), with(""));
        // Lines above the marker that the user edited.
        for edited in [
            format!("old=2\n{MARKER}\nmine=1\n"),
            format!("{MARKER}\n"),
            format!("old=1\nadded=1\n{MARKER}\n"),
        ] {
            assert_eq!(after(&edited, Some(&old)), (edited.clone(), true));
        }
    }

    #[test]
    fn moves_lines_added_to_a_file_without_marker() {
        let [shipped, shipped_32] = SHIPPED_CONFIG;
        let with = |below: &str| (format!("{OURS}{below}"), false);
        for shipped in [shipped, shipped_32] {
            assert_eq!(after(shipped, None), with(""));
            assert_eq!(after(&shipped.replace('\n', "\r\n"), None), with(""));
            assert_eq!(after(shipped.trim_end(), None), with(""));
            assert_eq!(
                after(&format!("{shipped}\n# mine\ndtparam=a"), None),
                with("# mine\ndtparam=a\n")
            );
            assert_eq!(after(&format!("first=1\n{shipped}"), None), with("first=1\n"));
            assert_eq!(after(&format!("{shipped}[pi4]\r\nx=1\r\n"), None), with("[pi4]\nx=1\n"));
            // Without its comments.
            let bare: String = shipped
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(after(&bare, None), with(""));
            // A setting that is missing or changed.
            for edited in [
                shipped.replace("enable_uart=1", ""),
                shipped.replace("enable_uart=1", "enable_uart=0"),
                String::new(),
            ] {
                assert_eq!(after(&edited, None), (edited.clone(), true));
            }
        }
        assert_eq!(config(None, None, OURS.as_bytes()), (OURS.into(), false));
    }

    #[test]
    fn does_not_move_a_line_out_of_its_filter() {
        let shipped = "a=1\n[cm4]\nb=1\n[all]\nc=1\n";
        assert_eq!(
            added_lines("a=1\nx=1\n[cm4]\nb=1\n[all]\nc=1\ny=1\n", shipped).as_deref(),
            Some("x=1\ny=1\n")
        );
        assert_eq!(added_lines("a=1\n[cm4]\nb=1\nx=1\n[all]\nc=1\n", shipped), None);
        assert_eq!(added_lines("a=1\n[cm4]\nx=1\nb=1\n[all]\nc=1\n", shipped), None);
        let own = "a=1\n[cm4]\nb=1\n[pi3]\nx=1\n[all]\nc=1\n";
        assert_eq!(added_lines(own, shipped).as_deref(), Some("[pi3]\nx=1\n"));
    }

    #[test]
    fn keeps_a_changed_cmdline() {
        let list = List {
            files: [("cmdline.txt".into(), digest(b"shipped\n"))].into(),
            ..List::default()
        };
        let after = |text: &str| {
            String::from_utf8(cmdline(Some(text.as_bytes()), &list, b"ours\n")).unwrap()
        };
        for shipped in ["shipped\n", "shipped", "shipped\r\n", SHIPPED_CMDLINE[0]] {
            assert_eq!(after(shipped), "ours\n", "{shipped:?}");
        }
        assert_eq!(after("shipped mine=1\r\n"), "shipped mine=1\r\n");
        assert_eq!(cmdline(None, &list, b"ours\n"), b"ours\n");
    }

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(path, content)| ((*path).into(), content.as_bytes().to_vec())).collect()
    }

    fn release(started_on: &[&str]) -> Set {
        let files = files(&[
            ("bootcode.bin", "new"),
            ("start4.elf", "new"),
            ("fixup4.dat", "new"),
            ("u-boot.bin", "new"),
            ("boot.scr", "new"),
            ("config.txt", OURS),
            ("cmdline.txt", "new\n"),
            ("a.dtb", "new"),
            ("overlays/x.dtbo", "new"),
        ]);
        let list = List {
            identity: "0123456789abcdef".into(),
            started_on: started_on.iter().map(|model| (*model).into()).collect(),
            files: files.iter().map(|(path, content)| (path.into(), digest(content))).collect(),
        };
        Set { list, files }
    }

    #[test]
    fn carries_firmware_over_unless_it_was_started_on_this_model() {
        let running = files(&[
            ("BOOTCODE.BIN", "old"),
            ("start4.elf", "old"),
            ("start4x.elf", "old"),
            ("u-boot.bin", "old"),
            ("boot.scr", "old"),
            ("overlays/x.dtbo", "old"),
        ]);
        let set = release(&["Raspberry Pi 4 Model B Rev 1.4"]);
        let merged = merge(&running, &set, "Raspberry Pi 4 Model B Rev 1.1").files;
        for name in ["bootcode.bin", "start4.elf", "start4x.elf", "u-boot.bin"] {
            assert_eq!(merged.get(name), Some(&b"old"[..]), "{name}");
        }
        // Not even files that the running firmware does not have.
        assert_eq!(merged.get("fixup4.dat"), None);
        for name in ["boot.scr", "a.dtb", "overlays/x.dtbo"] {
            assert_eq!(merged.get(name), Some(&b"new"[..]), "{name}");
        }
        let merged = merge(&running, &set, "Raspberry Pi 4 Model B Rev 1.4").files;
        for name in ["bootcode.bin", "start4.elf", "fixup4.dat", "u-boot.bin"] {
            assert_eq!(merged.get(name), Some(&b"new"[..]), "{name}");
        }
        assert_eq!(merged.get("start4x.elf"), None);
    }

    #[test]
    fn keeps_the_users_files_and_removes_those_of_the_earlier_set() {
        let list = "identity=0123456789abcdee\nfile=00 old.dtb\nfile=00 overlays/old.dtbo\nfile=00 a.dtb\n";
        let name = "overlays/my own overlay.dtbo";
        let running = files(&[
            ("boot-files.txt", list),
            ("old.dtb", "old"),
            ("overlays/old.dtbo", "old"),
            ("a.dtb", "old"),
            ("berrymse.toml", "# mine\r\n"),
            (name, "mine"),
            ("Notes.txt", "mine"),
        ]);
        let merged = merge(&running, &release(&[]), "virt");
        assert_eq!(merged.note, "");
        let merged = merged.files;
        assert_eq!(merged.get("berrymse.toml"), Some(&b"# mine\r\n"[..]));
        assert_eq!(merged.get(name), Some(&b"mine"[..]));
        assert_eq!(merged.get("notes.txt"), Some(&b"mine"[..]));
        assert_eq!(merged.get("a.dtb"), Some(&b"new"[..]));
        assert_eq!((merged.get("old.dtb"), merged.get("overlays/old.dtbo")), (None, None));
        let list = List::parse(std::str::from_utf8(merged.get(LIST).unwrap()).unwrap()).unwrap();
        assert_eq!(list, release(&[]).list);
        // What was merged once remains the same.
        let again = merge(&merged, &release(&[]), "virt").files;
        assert_eq!(again, merged);
        let running = files(&[("config.txt", "mine=1\n")]);
        assert!(merge(&running, &release(&[]), "virt").note.contains("config.txt"));
    }

    proptest! {
        #[test]
        fn every_setting_of_the_user_survives(
            lines in prop::collection::vec("(# ?[a-z]{0,3}|[a-z]{1,3}=[0-9]{0,2}|\\[(pi3|pi4|all)\\]|)[ \t]{0,1}\r?", 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 12),
            which in 0..SHIPPED_CONFIG.len(),
            marked in any::<bool>(),
        ) {
            // Lines at random places of a file without marker, or below the marker.
            let mut text: Vec<String> = SHIPPED_CONFIG[which].lines().map(String::from).collect();
            if marked {
                text.push(MARKER.into());
            }
            for (line, place) in lines.iter().zip(&cuts) {
                let at = if marked { text.len() } else { place.index(text.len() + 1) };
                text.insert(at, line.clone());
            }
            let text = text.join("\n");
            let head = marked.then(|| format!("{}\n{MARKER}\n", SHIPPED_CONFIG[which].trim_end()));
            let (merged, kept) = after(&text, head.as_deref());
            prop_assert!(!marked || !kept);
            for line in lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()) {
                prop_assert!(merged.lines().any(|merged| merged.trim() == line), "{line} is lost:\n{merged}");
            }
            prop_assert!(kept || merged.starts_with(OURS));
        }

        #[test]
        fn any_file_is_merged(running in prop::collection::vec(any::<u8>(), 0..300), head in ".{0,5}") {
            let (merged, kept) = config(Some(&running), Some(&head), OURS.as_bytes());
            prop_assert!(kept && merged == running || merged.starts_with(OURS.as_bytes()));
        }
    }
}
