//! Reads a FAT16 or FAT32 file system (Microsoft's "FAT32 File System Specification", 1.03) directly
//! from the card, including a half that has no partition entry. Accepts any content without panicking
//! and without endless loops.
//!
//! ```text
//! reserved sectors (the first describes all others) · tables · root folder (FAT16) · clusters
//! ```

use crate::system::boot_files::disk::{Disk, SECTOR, read};
use crate::system::boot_files::error::BootFilesError;
use crate::system::boot_files::files::Files;
use std::ops::Range;

/// Maximum number of files and folders.
const MAX_FILES: usize = 4096;

/// Maximum depth of folders.
const MAX_DEPTH: usize = 8;

/// Maximum size of a folder, in bytes: 65536 entries.
const MAX_FOLDER: u64 = 2 << 20;

/// Maximum size of a table, in bytes. 64 MiB with the smallest clusters of FAT32 need 512 KiB.
const MAX_TABLE: u64 = 1 << 20;

/// Size of a folder entry, in bytes.
const ENTRY: usize = 32;

/// Maximum length of a long name, in UTF-16 units.
const MAX_NAME: usize = 255;

/// Folders in which operating systems store data of their own. They are not copied.
const OF_COMPUTERS: [&str; 5] =
    ["system volume information", ".spotlight-v100", ".fseventsd", ".trashes", "$recycle.bin"];

/// A file system.
pub struct Volume<'a> {
    disk: &'a mut dyn Disk,
    /// Position of the file system on the disk, in bytes.
    start: u64,
    /// Position of cluster 2 in the file system, in bytes.
    data: u64,
    cluster_bytes: u64,
    /// The entry of each cluster in the first table. Entries 0 and 1 have other purposes.
    table: Vec<u32>,
    root: Root,
    /// Entries from this value on mark the end of a chain.
    end_mark: u32,
}

enum Root {
    /// FAT16: position in the file system and size, in bytes.
    Fixed(u64, usize),
    /// FAT32: first cluster.
    Chain(u32),
}

/// A file or folder.
struct Found {
    name: String,
    is_folder: bool,
    cluster: u32,
    size: u32,
}

impl<'a> Volume<'a> {
    /// Opens the file system that starts at the byte `start` of the disk.
    ///
    /// # Errors
    ///
    /// The disk cannot be read, or contains no FAT16 or FAT32 file system at this position.
    pub fn open(disk: &'a mut dyn Disk, start: u64) -> Result<Volume<'a>, BootFilesError> {
        let boot = read(disk, start, SECTOR).map_err(cannot_read)?;
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| word(at) | word(at + 2) << 16;
        let or = |short: u64, long: u64| if short == 0 { long } else { short };
        if boot[510..] != [0x55, 0xaa] || word(11) != SECTOR as u64 {
            return Err(BootFilesError::Fat("it has no FAT file system with sectors of 512 bytes"));
        }
        let (per_cluster, reserved, tables) = (u64::from(boot[13]), word(14), u64::from(boot[16]));
        let (root_entries, sectors) = (word(17), or(word(19), long(32)));
        let table_sectors = or(word(22), long(36));
        let root_sectors = (root_entries * ENTRY as u64).div_ceil(SECTOR as u64);
        let data = reserved + tables * table_sectors + root_sectors;
        let invalid = BootFilesError::Fat("its FAT file system is damaged");
        if !per_cluster.is_power_of_two()
            || reserved == 0
            || tables == 0
            || table_sectors == 0
            || table_sectors * SECTOR as u64 > MAX_TABLE
            || data >= sectors
        {
            return Err(invalid);
        }
        let clusters = (sectors - data) / per_cluster;
        if clusters < 4085 {
            return Err(BootFilesError::Fat("its file system is FAT12, not FAT16 or FAT32"));
        }
        let wide = clusters >= 65525;
        let entry = if wide { 4 } else { 2 };
        if table_sectors * (SECTOR as u64 / entry) < clusters + 2 || wide != (root_entries == 0) {
            return Err(invalid);
        }
        let bytes =
            read(disk, start + reserved * SECTOR as u64, (table_sectors * SECTOR as u64) as usize)
                .map_err(cannot_read)?;
        let number = |entry: &[u8]| match *entry {
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) & 0x0fff_ffff,
            _ => 0,
        };
        let table = bytes.chunks_exact(entry as usize).take(clusters as usize + 2).map(number);
        let root_start = (reserved + tables * table_sectors) * SECTOR as u64;
        Ok(Volume {
            start,
            data: data * SECTOR as u64,
            cluster_bytes: per_cluster * SECTOR as u64,
            table: table.collect(),
            root: match wide {
                true => Root::Chain(long(44) as u32),
                false => Root::Fixed(root_start, root_sectors as usize * SECTOR),
            },
            end_mark: if wide { 0x0fff_fff8 } else { 0xfff8 },
            disk,
        })
    }

    /// Returns all files.
    ///
    /// # Errors
    ///
    /// The disk cannot be read, or the file system is damaged.
    pub fn files(&mut self) -> Result<Files, BootFilesError> {
        let mut files = Files::default();
        let mut count = 0;
        // Files and folders that share clusters could otherwise take up all memory and time.
        let mut left = self.table.len() as u64 * self.cluster_bytes;
        let root = self.read_root()?;
        let mut folders = vec![(String::new(), root, 1)];
        while let Some((path, bytes, depth)) = folders.pop() {
            for found in entries(&bytes) {
                count += 1;
                if count > MAX_FILES || left == 0 {
                    return Err(BootFilesError::Fat("it contains too many files"));
                }
                if OF_COMPUTERS.contains(&found.name.to_lowercase().as_str()) {
                    continue;
                }
                let path = format!("{path}{}", found.name);
                if found.is_folder {
                    if depth == MAX_DEPTH {
                        return Err(BootFilesError::Fat("it contains folders nested too deeply"));
                    }
                    let bytes = self.read_chain(found.cluster, None)?;
                    left = left.saturating_sub(bytes.len() as u64);
                    folders.push((format!("{path}/"), bytes, depth + 1));
                } else {
                    left = left
                        .checked_sub(u64::from(found.size))
                        .ok_or(BootFilesError::Fat("its files are larger than it is"))?;
                    files.insert(&path, self.read_chain(found.cluster, Some(found.size))?);
                }
            }
        }
        Ok(files)
    }

    /// Returns the content of a file in the root folder.
    ///
    /// # Errors
    ///
    /// The disk cannot be read, or the file system is damaged.
    pub fn file(&mut self, name: &str) -> Result<Option<Vec<u8>>, BootFilesError> {
        match self.find(name)? {
            Some(found) => self.read_chain(found.cluster, Some(found.size)).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the end of the last cluster in use, as a position in the file system in bytes.
    pub fn end_of_use(&self) -> u64 {
        let last = (2..self.table.len()).rev().find(|&cluster| self.table[cluster] != 0);
        self.data + last.map_or(0, |cluster| (cluster as u64 - 1) * self.cluster_bytes)
    }

    /// Returns the areas that belong to no file and those of the file `name` in the root folder, as
    /// positions on the disk in bytes, up to the position `limit` in the file system.
    ///
    /// # Errors
    ///
    /// The disk cannot be read, or the file system is damaged.
    pub fn free_areas(
        &mut self,
        name: &str,
        limit: u64,
    ) -> Result<Vec<Range<u64>>, BootFilesError> {
        let mut free: Vec<bool> = self.table.iter().map(|&entry| entry == 0).collect();
        if let Some(found) = self.find(name)? {
            for cluster in self.chain(found.cluster)? {
                free[cluster as usize] = true;
            }
        }
        let mut areas: Vec<Range<u64>> = vec![];
        for cluster in (2..free.len()).filter(|&cluster| free[cluster]) {
            let start = self.position(cluster as u32);
            let end = (start + self.cluster_bytes).min(self.start + limit);
            match areas.last_mut() {
                _ if start >= end => {}
                Some(last) if last.end == start => last.end = end,
                _ => areas.push(start..end),
            }
        }
        Ok(areas)
    }

    fn find(&mut self, name: &str) -> Result<Option<Found>, BootFilesError> {
        let root = self.read_root()?;
        let is_it = |found: &Found| !found.is_folder && found.name.eq_ignore_ascii_case(name);
        Ok(entries(&root).into_iter().find(is_it))
    }

    fn read_root(&mut self) -> Result<Vec<u8>, BootFilesError> {
        match self.root {
            Root::Fixed(start, size) => {
                read(self.disk, self.start + start, size).map_err(cannot_read)
            }
            Root::Chain(cluster) => self.read_chain(cluster, None),
        }
    }

    /// Returns the position of a cluster on the disk, in bytes.
    fn position(&self, cluster: u32) -> u64 {
        self.start + self.data + u64::from(cluster - 2) * self.cluster_bytes
    }

    /// Returns the clusters of a chain.
    fn chain(&self, first: u32) -> Result<Vec<u32>, BootFilesError> {
        let mut chain = vec![];
        let mut cluster = first;
        // An empty file has no cluster.
        while cluster != 0 && cluster < self.end_mark {
            let next = self.table.get(cluster as usize).filter(|_| cluster >= 2);
            let Some(&next) = next.filter(|_| chain.len() < self.table.len()) else {
                return Err(BootFilesError::Fat("its FAT file system is damaged"));
            };
            chain.push(cluster);
            cluster = next;
        }
        Ok(chain)
    }

    /// Reads a file of `size` bytes, or a folder.
    fn read_chain(&mut self, first: u32, size: Option<u32>) -> Result<Vec<u8>, BootFilesError> {
        let damaged = BootFilesError::Fat("its FAT file system is damaged");
        let size = size.map(u64::from);
        let mut clusters = if size == Some(0) { vec![] } else { self.chain(first)? };
        let length = clusters.len() as u64 * self.cluster_bytes;
        if size.unwrap_or(0) > length || size.is_none() && length > MAX_FOLDER {
            return Err(damaged);
        }
        // A chain can be longer than its file.
        let size = size.unwrap_or(length);
        clusters.truncate(size.div_ceil(self.cluster_bytes) as usize);
        let mut bytes = Vec::with_capacity(clusters.len() * self.cluster_bytes as usize);
        for run in clusters.chunk_by(|a, b| a + 1 == *b) {
            let (at, length) = (self.position(run[0]), run.len() * self.cluster_bytes as usize);
            bytes.extend(read(self.disk, at, length).map_err(cannot_read)?);
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }
}

fn cannot_read(error: std::io::Error) -> BootFilesError {
    BootFilesError::Card { action: "read the boot partition", error }
}

/// Parses the entries of a folder.
fn entries(bytes: &[u8]) -> Vec<Found> {
    let mut found = vec![];
    // Parts of a long name precede the entry, in reverse order.
    let mut long: Vec<u16> = vec![];
    let mut checksum = None;
    for entry in bytes.chunks_exact(ENTRY) {
        let (first, attributes) = (entry[0], entry[11]);
        match (first, attributes & 0x3f) {
            (0, _) => break,
            (0xe5, _) => checksum = None,
            (_, 0x0f) => {
                if first & 0x40 != 0 {
                    long.clear();
                    checksum = Some(entry[13]);
                }
                let units = [&entry[1..11], &entry[14..26], &entry[28..32]].concat();
                let units =
                    units.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
                long.splice(0..0, units.take_while(|unit| *unit != 0 && *unit != 0xffff));
                if long.len() > MAX_NAME {
                    long.clear();
                    checksum = None;
                }
            }
            // The label of the file system.
            (_, attributes) if attributes & 0x08 != 0 => checksum = None,
            (_, attributes) => {
                let short = &entry[..11];
                let valid = checksum.take() == Some(short_checksum(short));
                let name = match valid && !long.is_empty() {
                    true => String::from_utf16_lossy(&long),
                    false => short_name(short, entry[12]),
                };
                let word = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                if name != "." && name != ".." {
                    found.push(Found {
                        name,
                        is_folder: attributes & 0x10 != 0,
                        cluster: word(20) << 16 | word(26),
                        size: word(28) | word(30) << 16,
                    });
                }
            }
        }
    }
    found
}

/// Returns the checksum of a short name in the parts of its long name.
pub fn short_checksum(short: &[u8]) -> u8 {
    short.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Returns a short name as text. `case`: 0x08 and 0x10 for a base and an extension in lower case.
fn short_name(short: &[u8], case: u8) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text: String = bytes
            .iter()
            .map(|&byte| if byte.is_ascii() && byte >= 0x20 { byte as char } else { '_' })
            .collect();
        let text = text.trim_end();
        if lower { text.to_ascii_lowercase() } else { text.into() }
    };
    let (base, extension) =
        (part(&short[..8], case & 0x08 != 0), part(&short[8..], case & 0x10 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}
