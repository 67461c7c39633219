//! Builds a FAT16 file system in memory, in the format that `mkfs.vfat` and mtools give the boot
//! partition of a new card. Every file lies in one piece. Pure.
//!
//! ```text
//! 4 reserved sectors · 2 tables · root folder (512 entries) · clusters of 2 KiB
//! ```

use crate::system::boot_files::disk::SECTOR;
use crate::system::boot_files::error::BootFilesError;
use crate::system::boot_files::fat::short_checksum;
use crate::system::boot_files::files::{Files, digest};
use std::collections::{BTreeMap, BTreeSet};

const RESERVED: usize = 4;
const TABLES: usize = 2;
const ROOT_ENTRIES: usize = 512;
const SECTORS_PER_CLUSTER: usize = 4;
const CLUSTER: usize = SECTORS_PER_CLUSTER * SECTOR;

/// Size of a folder entry, in bytes.
const ENTRY: usize = 32;

/// UTF-16 units in one part of a long name.
const UNITS: usize = 13;

/// Maximum length of a long name, in UTF-16 units.
const MAX_NAME: usize = 255;

/// Label of the file system: the name of the drive on a computer.
const LABEL: &[u8; 11] = b"BERRYMSE   ";

/// 1980-01-01, the date of every file: identical files give an identical image.
const DATE: [u8; 2] = [0x21, 0];

const FOLDER: u8 = 0x10;
const ARCHIVE: u8 = 0x20;

/// Returns an image of `size` bytes that contains `files`.
///
/// # Errors
///
/// The files do not fit, or have names that FAT cannot store.
pub fn build(files: &Files, size: u64) -> Result<Vec<u8>, BootFilesError> {
    let sectors = size as usize / SECTOR;
    let root_sectors = ROOT_ENTRIES * ENTRY / SECTOR;
    // One table entry of 2 bytes for each cluster.
    let clusters = (sectors - RESERVED - root_sectors) / SECTORS_PER_CLUSTER;
    let table_sectors = ((clusters + 2) * 2).div_ceil(SECTOR);
    let data = RESERVED + TABLES * table_sectors + root_sectors;
    let clusters = (sectors - data) / SECTORS_PER_CLUSTER;

    let mut tree = Folder::default();
    for (path, content) in files.iter() {
        tree.insert(path, path, content)?;
    }
    let needed = tree.clusters();
    if needed > clusters {
        let needed = ((needed + data / SECTORS_PER_CLUSTER) * CLUSTER) as u64;
        return Err(BootFilesError::Full { needed, available: size });
    }
    let mut image = Image {
        // Only the parts that are used take up memory.
        bytes: vec![0; size as usize],
        data: data * SECTOR,
        table: vec![0xfff8, 0xffff],
    };
    let root = image.folder(&tree, None)?;
    if root.len() > ROOT_ENTRIES * ENTRY {
        return Err(BootFilesError::Full { needed: size + 1, available: size });
    }
    let at = (RESERVED + TABLES * table_sectors) * SECTOR;
    image.bytes[at..at + root.len()].copy_from_slice(&root);
    let table: Vec<u8> = image.table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    for number in 0..TABLES {
        let at = (RESERVED + number * table_sectors) * SECTOR;
        image.bytes[at..at + table.len()].copy_from_slice(&table);
    }
    let serial = u32::from_str_radix(&digest(&[root, table].concat())[..8], 16).unwrap_or_default();
    image.bytes[..SECTOR].copy_from_slice(&boot_sector(sectors, table_sectors, serial));
    Ok(image.bytes)
}

fn boot_sector(sectors: usize, table_sectors: usize, serial: u32) -> [u8; SECTOR] {
    let mut boot = [0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| boot[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xeb, 0x3c, 0x90]);
    put(3, b"mkfs.fat");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[SECTORS_PER_CLUSTER as u8]);
    put(14, &(RESERVED as u16).to_le_bytes());
    put(16, &[TABLES as u8]);
    put(17, &(ROOT_ENTRIES as u16).to_le_bytes());
    // The number of sectors, in 16 bits if they are sufficient.
    match u16::try_from(sectors) {
        Ok(sectors) => put(19, &sectors.to_le_bytes()),
        Err(_) => put(32, &(sectors as u32).to_le_bytes()),
    }
    // A fixed disk, with the geometry that mkfs.vfat assumes.
    put(21, &[0xf8]);
    put(22, &(table_sectors as u16).to_le_bytes());
    put(24, &32u16.to_le_bytes());
    put(26, &2u16.to_le_bytes());
    put(36, &[0x80, 0, 0x29]);
    put(39, &serial.to_le_bytes());
    put(43, LABEL);
    put(54, b"FAT16   ");
    // An endless loop, for a computer that tries to start from the partition.
    put(62, &[0xeb, 0xfe]);
    put(510, &[0x55, 0xaa]);
    boot
}

/// A folder, by the lower-case names of its contents.
#[derive(Default)]
struct Folder<'a> {
    files: BTreeMap<String, (&'a str, &'a [u8])>,
    folders: BTreeMap<String, (&'a str, Folder<'a>)>,
}

impl<'a> Folder<'a> {
    /// Adds the file `path`; `whole` is its path from the root folder.
    fn insert(
        &mut self,
        whole: &str,
        path: &'a str,
        content: &'a [u8],
    ) -> Result<(), BootFilesError> {
        let name = path.split('/').next().unwrap_or_default();
        let key = name.to_lowercase();
        let is_taken = match path.split_once('/') {
            Some((_, rest)) => {
                let (_, folder) =
                    self.folders.entry(key.clone()).or_insert((name, Folder::default()));
                folder.insert(whole, rest, content)?;
                self.files.contains_key(&key)
            }
            None => {
                self.files.insert(key.clone(), (name, content));
                self.folders.contains_key(&key)
            }
        };
        match is_taken || !is_valid(name) {
            true => Err(BootFilesError::Name(whole.into())),
            false => Ok(()),
        }
    }

    /// Returns the number of clusters that the contents take up.
    fn clusters(&self) -> usize {
        let files: usize =
            self.files.values().map(|(_, content)| content.len().div_ceil(CLUSTER)).sum();
        let folders = self.folders.values();
        files + folders.map(|(_, folder)| folder.clusters() + folder.own_clusters()).sum::<usize>()
    }

    /// Returns the number of clusters that the list of the contents takes up: names of at most
    /// 255 units need at most 20 parts and the entry itself.
    fn own_clusters(&self) -> usize {
        let names = self.files.values().map(|(name, _)| name);
        let names = names.chain(self.folders.values().map(|(name, _)| name));
        let entries =
            2 + names.map(|name| 1 + name.encode_utf16().count().div_ceil(UNITS)).sum::<usize>();
        (entries * ENTRY).div_ceil(CLUSTER)
    }
}

/// Returns whether FAT can store the name.
fn is_valid(name: &str) -> bool {
    let is_valid = |c: char| c >= ' ' && !"\"*/:<>?\\|\u{7f}".contains(c);
    !name.is_empty()
        && name.chars().all(is_valid)
        && !name.ends_with([' ', '.'])
        && name.encode_utf16().count() <= MAX_NAME
}

struct Image {
    bytes: Vec<u8>,
    /// Position of cluster 2, in bytes.
    data: usize,
    /// The table's entries up to the last cluster in use.
    table: Vec<u16>,
}

impl Image {
    /// Reserves clusters for `length` bytes. Returns the first one, or 0 if the length is 0.
    fn reserve(&mut self, length: usize) -> u16 {
        let (first, count) = (self.table.len(), length.div_ceil(CLUSTER));
        for cluster in first..first + count {
            let is_last = cluster + 1 == first + count;
            self.table.push(if is_last { 0xffff } else { cluster as u16 + 1 });
        }
        if count == 0 { 0 } else { first as u16 }
    }

    fn write(&mut self, cluster: u16, bytes: &[u8]) {
        if cluster != 0 {
            let at = self.data + (usize::from(cluster) - 2) * CLUSTER;
            self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Writes the contents of a folder. Returns its entries. `at`: the folder's own cluster and its
    /// parent's, except for the root folder.
    fn folder(
        &mut self,
        folder: &Folder<'_>,
        at: Option<(u16, u16)>,
    ) -> Result<Vec<u8>, BootFilesError> {
        let mut entries = vec![];
        match at {
            Some((own, parent)) => {
                entries.extend(entry(b".          ", 0, FOLDER, own, 0));
                entries.extend(entry(b"..         ", 0, FOLDER, parent, 0));
            }
            None => entries.extend(entry(LABEL, 0, 0x08, 0, 0)),
        }
        let mut taken = BTreeSet::new();
        for (name, content) in folder.files.values() {
            let cluster = self.reserve(content.len());
            self.write(cluster, content);
            entries.extend(named(name, ARCHIVE, cluster, content.len() as u32, &mut taken)?);
        }
        for (name, inner) in folder.folders.values() {
            let cluster = self.reserve(inner.own_clusters() * CLUSTER);
            let parent = at.map_or(0, |(own, _)| own);
            let list = self.folder(inner, Some((cluster, parent)))?;
            self.write(cluster, &list);
            entries.extend(named(name, FOLDER, cluster, 0, &mut taken)?);
        }
        Ok(entries)
    }
}

/// Returns the entries of a file or folder: the parts of its long name if it needs one, then the
/// entry itself. `taken`: the short names in this folder.
fn named(
    name: &str,
    attributes: u8,
    cluster: u16,
    size: u32,
    taken: &mut BTreeSet<[u8; 11]>,
) -> Result<Vec<u8>, BootFilesError> {
    if let Some((short, case)) = plain(name)
        && taken.insert(short)
    {
        return Ok(entry(&short, case, attributes, cluster, size).to_vec());
    }
    let short = alias(name, taken).ok_or_else(|| BootFilesError::Name(name.into()))?;
    let checksum = short_checksum(&short);
    let units: Vec<u16> = name.encode_utf16().collect();
    let mut bytes = vec![];
    for (number, part) in units.chunks(UNITS).enumerate().rev() {
        let mut padded = [0xffff; UNITS];
        padded[..part.len()].copy_from_slice(part);
        if let Some(end) = padded.get_mut(part.len()) {
            *end = 0;
        }
        let text: Vec<u8> = padded.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let is_last = (number + 1) * UNITS >= units.len();
        bytes.push((number as u8 + 1) | if is_last { 0x40 } else { 0 });
        bytes.extend(&text[..10]);
        bytes.extend([0x0f, 0, checksum]);
        bytes.extend(&text[10..22]);
        bytes.extend([0, 0]);
        bytes.extend(&text[22..]);
    }
    bytes.extend(entry(&short, 0, attributes, cluster, size));
    Ok(bytes)
}

fn entry(short: &[u8; 11], case: u8, attributes: u8, cluster: u16, size: u32) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..11].copy_from_slice(short);
    (bytes[11], bytes[12]) = (attributes, case);
    for date in [16, 18, 24] {
        bytes[date..date + 2].copy_from_slice(&DATE);
    }
    bytes[26..28].copy_from_slice(&cluster.to_le_bytes());
    bytes[28..].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// Characters of a short name besides letters and digits.
const PUNCTUATION: &str = "!#$%&'()-@^_`{}~";

/// Returns the short name if it represents the name completely, and the case of its two parts.
fn plain(name: &str) -> Option<([u8; 11], u8)> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let is_plain = |text: &str, max: usize| {
        text.len() <= max
            && text.chars().all(|c| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c))
            && !(text.contains(|c: char| c.is_ascii_lowercase())
                && text.contains(|c: char| c.is_ascii_uppercase()))
    };
    if base.is_empty() || !is_plain(base, 8) || !is_plain(extension, 3) {
        return None;
    }
    let lower =
        |text: &str, flag| if text.contains(|c: char| c.is_ascii_lowercase()) { flag } else { 0 };
    Some((short(base, extension), lower(base, 0x08) | lower(extension, 0x10)))
}

fn short(base: &str, extension: &str) -> [u8; 11] {
    let mut short = [b' '; 11];
    for (to, from) in short[..8].iter_mut().zip(base.bytes()) {
        *to = from.to_ascii_uppercase();
    }
    for (to, from) in short[8..].iter_mut().zip(extension.bytes()) {
        *to = from.to_ascii_uppercase();
    }
    short
}

/// Returns a free short name for a long one, such as `BCM271~1.DTB`.
fn alias(name: &str, taken: &mut BTreeSet<[u8; 11]>) -> Option<[u8; 11]> {
    let allowed = |text: &str| -> String {
        let kept = text.chars().filter(|c| !matches!(c, ' ' | '.'));
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c);
        kept.map(|c| if is_allowed(c) { c } else { '_' }).collect()
    };
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let (base, extension) = (allowed(base), allowed(extension));
    (1..1_000_000).find_map(|number: u32| {
        let tail = format!("~{number}");
        let base: String = base.chars().take(8 - tail.len()).collect();
        let short = short(&format!("{base}{tail}"), &extension);
        taken.insert(short).then_some(short)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::boot_files::disk::Disk;
    use crate::system::boot_files::fat::Volume;
    use proptest::prelude::*;
    use std::io::{ErrorKind, Result};

    const SIZE: u64 = 32 << 20;

    struct Memory(Vec<u8>);

    impl Disk for Memory {
        fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<()> {
            let from = self.0.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
            bytes.copy_from_slice(from.ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        }
        fn write(&mut self, _: u64, _: &[u8]) -> Result<()> {
            Err(ErrorKind::Unsupported.into())
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn read_back(image: Vec<u8>) -> Files {
        Volume::open(&mut Memory(image), 0).unwrap().files().unwrap()
    }

    /// The files as another implementation reads them.
    fn read_independently(image: Vec<u8>) -> Files {
        fn walk(folder: fatfs::Dir<'_, std::io::Cursor<Vec<u8>>>, path: &str, files: &mut Files) {
            use std::io::Read;
            for entry in folder.iter().map(|entry| entry.unwrap()) {
                let name = format!("{path}{}", entry.file_name());
                match entry.is_dir() {
                    true if name.ends_with('.') => {}
                    true => walk(entry.to_dir(), &format!("{name}/"), files),
                    false => {
                        let mut content = vec![];
                        entry.to_file().read_to_end(&mut content).unwrap();
                        files.insert(&name, content);
                    }
                }
            }
        }
        let options = fatfs::FsOptions::new();
        let volume = fatfs::FileSystem::new(std::io::Cursor::new(image), options).unwrap();
        assert_eq!(volume.volume_label(), "BERRYMSE");
        let mut files = Files::default();
        walk(volume.root_dir(), "", &mut files);
        files
    }

    fn files(files: &[(&str, &[u8])]) -> Files {
        files.iter().map(|(path, content)| ((*path).into(), content.to_vec())).collect()
    }

    #[test]
    fn contains_every_file_with_its_name() {
        let long = "a name of more than 40 letters, with spaces and Ümläuten.txt";
        let files = files(&[
            ("bootcode.bin", &[1; 52_000]),
            ("bcm2710-rpi-zero-2-w.dtb", b"tree"),
            ("bcm2710-rpi-3-b.dtb", b"another tree"),
            ("overlays/imx708.dtbo", b"overlay"),
            ("overlays/vc4-kms-dsi-waveshare-panel.dtbo", b"other overlay"),
            ("LICENCE.broadcom", b"licence"),
            ("empty", b""),
            ("MixedCase.TXT", b"mixed"),
            ("UPPER.TXT", b"upper"),
            (long, b"mine"),
            ("deeply/nested/folder/file.tar.gz", b"nested"),
            (".hidden", b"hidden"),
        ]);
        let image = build(&files, SIZE).unwrap();
        assert_eq!(image.len() as u64, SIZE);
        assert_eq!(read_back(image.clone()), files);
        assert_eq!(read_independently(image.clone()), files);
        // Names that fit are stored without a long name, as mtools does: ROM and firmware have
        // always seen them this way.
        let root = &image[(RESERVED + TABLES * 64) * SECTOR..][..ROOT_ENTRIES * ENTRY];
        let bootcode =
            root.chunks(ENTRY).position(|entry| entry.starts_with(b"BOOTCODEBIN")).unwrap();
        assert_eq!(root[bootcode * ENTRY + 12], 0x18);
        assert_ne!(root[(bootcode - 1) * ENTRY + 11], 0x0f);
        assert_eq!(build(&files, SIZE).unwrap(), image);
    }

    #[test]
    fn rejects_what_does_not_fit() {
        let rejects = |list: &[(&str, &[u8])]| build(&files(list), SIZE).unwrap_err();
        let large = vec![0; SIZE as usize];
        assert!(matches!(rejects(&[("large", &large)]), BootFilesError::Full { .. }));
        assert!(build(&files(&[("large", &large[..33_400_000])]), SIZE).is_ok());
        for name in
            ["a:b", "a/../b", "folder/", "/a", "question?", "dot.", "\u{1}", &"x".repeat(256)]
        {
            assert!(matches!(rejects(&[(name, b"")]), BootFilesError::Name(_)), "{name}");
        }
        assert!(matches!(rejects(&[("a", b""), ("A/b", b"")]), BootFilesError::Name(_)));
        // The root folder has 512 entries.
        let many: Files = (0..512).map(|n| (format!("f{n}"), vec![])).collect();
        assert!(matches!(build(&many, SIZE), Err(BootFilesError::Full { .. })));
        let many: Files = (0..2000).map(|n| (format!("f/a long name {n}"), vec![1])).collect();
        assert_eq!(read_back(build(&many, SIZE).unwrap()), many);
    }

    #[test]
    fn reports_what_is_in_use() {
        let mut disk = Memory(vec![0; 1 << 20]);
        disk.0.extend(build(&files(&[("a", &[1; 5000]), ("b.toml", b"secret")]), SIZE).unwrap());
        let mut volume = Volume::open(&mut disk, 1 << 20).unwrap();
        let data = (RESERVED + TABLES * 64 + 32) as u64 * SECTOR as u64;
        // Three clusters and one.
        assert_eq!(volume.end_of_use(), data + 4 * CLUSTER as u64);
        let first = (1 << 20) + data + 3 * CLUSTER as u64;
        let all = volume.free_areas("B.TOML", SIZE).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].start, first);
        assert!(all[0].end <= (1 << 20) + SIZE && all[0].end > (1 << 20) + SIZE - CLUSTER as u64);
        let limited = volume.free_areas("none", data + 5 * CLUSTER as u64).unwrap();
        assert_eq!(limited.len(), 1);
        assert_eq!(limited[0], first + CLUSTER as u64..first + 2 * CLUSTER as u64);
        assert_eq!(volume.file("B.toml").unwrap().unwrap(), b"secret");
        assert!(volume.file("c").unwrap().is_none());
    }

    /// FAT32, in which the root folder is a chain of clusters.
    #[test]
    fn reads_fat32() {
        use std::io::{Cursor, Write};
        let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32);
        let mut image = Cursor::new(vec![0; 64 << 20]);
        fatfs::format_volume(&mut image, options.bytes_per_cluster(512)).unwrap();
        let volume = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
        let root = volume.root_dir();
        let wanted: Files =
            (0..40).map(|n| (format!("A long name {n}.txt"), vec![n; 700])).collect();
        for (name, content) in wanted.iter() {
            root.create_file(name).unwrap().write_all(content).unwrap();
        }
        drop(root);
        volume.unmount().unwrap();
        assert_eq!(read_back(image.into_inner()), wanted);
    }

    fn name() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9 _.~üß€-]{0,30}[a-zA-Z0-9_€]"
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_files_are_read_back(list in prop::collection::vec(
            (prop::collection::vec(name(), 1..3), prop::collection::vec(any::<u8>(), 0..5000)), 0..60,
        )) {
            let files: Files =
                list.into_iter().map(|(path, content)| (path.join("/"), content)).collect();
            match build(&files, SIZE) {
                Ok(image) => {
                    prop_assert_eq!(read_back(image.clone()), files.clone());
                    prop_assert_eq!(read_independently(image), files);
                }
                // A name is both a file and a folder.
                Err(BootFilesError::Name(_)) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
        }

        #[test]
        fn any_damage_is_survived(
            places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
            noise in prop::collection::vec(any::<u8>(), 512),
        ) {
            let files: Files = (0..30).map(|n| (format!("folder {}/file {n}", n % 4), vec![n; 3000])).collect();
            let mut image = build(&files, SIZE).unwrap();
            // Tables, root folder and the first clusters.
            let used = 400 * SECTOR;
            for (place, byte) in places {
                // The boot sector contains fewer bytes of interest than its size suggests.
                let at = place.index(used * 2);
                image[if at < used { at } else { at % 64 }] = byte;
            }
            let mut disk = Memory(image);
            if let Ok(mut volume) = Volume::open(&mut disk, 0) {
                let _ = (volume.files(), volume.end_of_use(), volume.free_areas("x", SIZE));
            }
            disk.0[..512].copy_from_slice(&noise);
            disk.0[510..512].copy_from_slice(&[0x55, 0xaa]);
            disk.0[11..13].copy_from_slice(&[0, 2]);
            if let Ok(mut volume) = Volume::open(&mut disk, 0) {
                let _ = (volume.files(), volume.end_of_use(), volume.free_areas("x", SIZE));
            }
        }
    }
}
