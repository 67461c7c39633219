//! A set of files as on a FAT partition: names differ in more than their case.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Files by their path (`overlays/imx708.dtbo`). Empty folders are not represented.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Files(BTreeMap<String, (String, Vec<u8>)>);

impl Files {
    /// Returns the content of a file.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.0.get(&path.to_lowercase()).map(|(_, content)| content.as_slice())
    }

    /// Adds a file, or replaces the file of this name.
    pub fn insert(&mut self, path: &str, content: Vec<u8>) {
        self.0.insert(path.to_lowercase(), (path.into(), content));
    }

    /// Adds a file, unless there is one of this name already.
    pub fn insert_new(&mut self, path: &str, content: &[u8]) {
        if let Entry::Vacant(entry) = self.0.entry(path.to_lowercase()) {
            entry.insert((path.into(), content.into()));
        }
    }

    /// Returns all paths and contents, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.values().map(|(path, content)| (path.as_str(), content.as_slice()))
    }
}

impl FromIterator<(String, Vec<u8>)> for Files {
    fn from_iter<T: IntoIterator<Item = (String, Vec<u8>)>>(files: T) -> Files {
        let files = files.into_iter();
        Files(files.map(|(path, content)| (path.to_lowercase(), (path, content))).collect())
    }
}

/// Returns the SHA-256 digest of `bytes` as hexadecimal text.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
