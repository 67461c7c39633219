//! Saving the configuration on FAT, which has no journal: after a power cut its file may be the old one,
//! the new one, or cut short at any place, even empty, which would be a valid configuration. So while it
//! is written, what it was before lies beside the last good copy, which is written first; whoever finds
//! that at the next start knows that the file is not to be trusted, and what it should be.

use crate::system::files::{remove, replace, write};
use crate::system::mounts::RemountedRw;
use std::fs::{File, read};
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};

/// The file beside the last good copy.
fn journal(last_good: &Path) -> PathBuf {
    last_good.with_extension("before")
}

/// From now on, `config` may be anything.
pub(super) fn begin(config: &Path, last_good: &Path) -> Result<()> {
    // One that cannot be read is no reason not to write another. There are passwords in it.
    write(&journal(last_good), &read(config).unwrap_or_default(), 0o600)
}

/// It is whole, or has not been touched.
pub(super) fn commit(last_good: &Path) -> Result<()> {
    remove(&journal(last_good))?;
    File::open(last_good.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Puts `config` right if the power went while it was saved. Whether it did.
///
/// A file that is neither a part of the old one nor of the new one was edited outside since then, and
/// stays.
pub(super) fn recover(config: &Path, last_good: &Path) -> Result<bool> {
    let before = match read(journal(last_good)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        before => before?,
    };
    let wanted = match read(last_good) {
        // The first one that is good was about to be written.
        Err(error) if error.kind() == ErrorKind::NotFound => before.clone(),
        wanted => wanted?,
    };
    let there = read(config).unwrap_or_default();
    let recover = there != wanted && (wanted.starts_with(&there) || before.starts_with(&there));
    if recover {
        let _writable = RemountedRw::make(config.parent().unwrap_or(Path::new("/")))?;
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
    fn whenever_the_power_goes_the_file_is_whole_afterwards() {
        let folder = std::env::temp_dir().join(format!("berrymse-saving-{}", std::process::id()));
        let _ = remove_dir_all(&folder);
        create_dir_all(folder.join("data")).unwrap();
        let (config, last_good) = (folder.join("berrymse.toml"), folder.join("data/berrymse.toml"));
        let (old, new) = ("[[camera]]\nname = \"old\"\n", "[[camera]]\nname = \"newer\"\n");
        let after = |there: Option<&str>, kept: &str| {
            std::fs::write(&config, old).unwrap();
            std::fs::write(&last_good, old).unwrap();
            begin(&config, &last_good).unwrap();
            std::fs::write(&last_good, kept).unwrap();
            match there {
                Some(there) => std::fs::write(&config, there).unwrap(),
                None => remove_file(&config).unwrap(),
            }
            let mended = recover(&config, &last_good).unwrap();
            assert!(!recover(&config, &last_good).unwrap(), "once");
            (mended, std::fs::read_to_string(&config).unwrap())
        };
        // Before the copy is written, and after.
        assert_eq!(after(Some(old), old), (false, old.into()));
        assert_eq!(after(Some(old), new), (true, new.into()));
        // The file, as FAT leaves it.
        for left in [None, Some(""), Some("[[camera]]\n"), Some(&old[..20]), Some(&new[..22])] {
            assert_eq!(after(left, new), (true, new.into()), "{left:?}");
        }
        assert_eq!(after(Some(new), new), (false, new.into()));
        // Somebody had the card in a reader.
        let edited = "[[camera]]\nname = \"else\"\n";
        assert_eq!(after(Some(edited), new), (false, edited.into()));
        // There has never been a good one.
        begin(&config, &last_good).unwrap();
        remove_file(&last_good).unwrap();
        assert!(!recover(&config, &last_good).unwrap());
        // It was saved without any power cut.
        std::fs::write(&config, "").unwrap();
        assert!(!recover(&config, &last_good).unwrap());
        remove_dir_all(folder).unwrap();
    }
}
