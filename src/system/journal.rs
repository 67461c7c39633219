//! A journal for the configuration file, because FAT has none.
//!
//! After a power cut, a file on FAT can have its old or its new content, or be truncated anywhere. An
//! empty file would even be a valid configuration. Therefore, the last good copy is written first.
//! While the configuration file is being written, its previous content is stored next to that copy.
//! If this journal exists at the next boot, the file cannot be trusted and is restored.

use crate::system::error::SystemError;
use crate::system::files::{remove, replace, write};
use crate::system::last_good::keep;
use crate::system::mounts::RemountedRw;
use std::fs::{File, read};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Returns the path of the journal, next to the last good copy.
fn journal(last_good: &Path) -> PathBuf {
    last_good.with_extension("before")
}

/// Saves `text` as the last good copy, and then as the configuration file. After a power cut, the next
/// [`recover`] completes or reverts this.
pub(super) fn save(
    config: &Path,
    last_good: &Path,
    text: &str,
) -> std::result::Result<(), SystemError> {
    let cannot_write = |path: &Path| {
        let path = path.to_path_buf();
        move |error: Error| SystemError::Write { path, error }
    };
    // Write the copy on `/data` first: its file system survives a power cut.
    begin(config, last_good).map_err(cannot_write(last_good))?;
    let result = (|| {
        keep(last_good, text).map_err(cannot_write(last_good))?;
        let folder = config.parent().unwrap_or(Path::new("/"));
        let _writable = RemountedRw::new(folder).map_err(cannot_write(folder))?;
        replace(config, text.as_bytes(), 0o644).map_err(cannot_write(config))
    })();
    commit(last_good).map_err(cannot_write(last_good))?;
    result
}

/// Creates the journal. Until [`commit`], `config` can have any content.
fn begin(config: &Path, last_good: &Path) -> Result<()> {
    // An unreadable file must not prevent saving. Mode 0600, because it contains passwords.
    write(&journal(last_good), &read(config).unwrap_or_default(), 0o600)
}

/// Removes the journal: `config` is complete, or was not changed.
fn commit(last_good: &Path) -> Result<()> {
    remove(&journal(last_good))?;
    File::open(last_good.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Restores `config` after a power cut that interrupted saving. Returns whether it was changed.
///
/// If the file is not a prefix of the old or the new content, it has since been edited on a different
/// computer and is left unchanged.
pub(super) fn recover(config: &Path, last_good: &Path) -> Result<bool> {
    let before = match read(journal(last_good)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        before => before?,
    };
    let wanted = match read(last_good) {
        // The power cut happened before the first good copy was written.
        Err(error) if error.kind() == ErrorKind::NotFound => before.clone(),
        wanted => wanted?,
    };
    let found = read(config).unwrap_or_default();
    let recover = found != wanted && (wanted.starts_with(&found) || before.starts_with(&found));
    if recover {
        let _writable = RemountedRw::new(config.parent().unwrap_or(Path::new("/")))?;
        replace(config, &wanted, 0o644)?;
    }
    commit(last_good)?;
    Ok(recover)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, remove_dir_all, remove_file};

    #[test]
    fn restores_the_file_after_a_power_cut_at_any_time() {
        let folder = std::env::temp_dir().join(format!("berrymse-journal-{}", std::process::id()));
        let _ = remove_dir_all(&folder);
        create_dir_all(folder.join("data")).unwrap();
        let (config, last_good) = (folder.join("berrymse.toml"), folder.join("data/berrymse.toml"));
        let (old, new) = ("[[camera]]\nname = \"old\"\n", "[[camera]]\nname = \"newer\"\n");
        let after = |left: Option<&str>, kept: &str| {
            std::fs::write(&config, old).unwrap();
            std::fs::write(&last_good, old).unwrap();
            begin(&config, &last_good).unwrap();
            std::fs::write(&last_good, kept).unwrap();
            match left {
                Some(left) => std::fs::write(&config, left).unwrap(),
                None => remove_file(&config).unwrap(),
            }
            let recovered = recover(&config, &last_good).unwrap();
            assert!(!recover(&config, &last_good).unwrap(), "recovered twice");
            (recovered, std::fs::read_to_string(&config).unwrap())
        };
        // A power cut before and after the copy is written.
        assert_eq!(after(Some(old), old), (false, old.into()));
        assert_eq!(after(Some(old), new), (true, new.into()));
        // States of the file that FAT can leave.
        for left in [None, Some(""), Some("[[camera]]\n"), Some(&old[..20]), Some(&new[..22])] {
            assert_eq!(after(left, new), (true, new.into()), "{left:?}");
        }
        assert_eq!(after(Some(new), new), (false, new.into()));
        // The file was edited on a different computer.
        let edited = "[[camera]]\nname = \"else\"\n";
        assert_eq!(after(Some(edited), new), (false, edited.into()));
        // There was no good copy yet.
        begin(&config, &last_good).unwrap();
        remove_file(&last_good).unwrap();
        assert!(!recover(&config, &last_good).unwrap());
        // Without a power cut, an empty file is left unchanged.
        std::fs::write(&config, "").unwrap();
        assert!(!recover(&config, &last_good).unwrap());
        remove_dir_all(folder).unwrap();
    }
}
