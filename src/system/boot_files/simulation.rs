//! A simulated machine that loses power, for the tests of updates of the boot files.
//!
//! The card forgets writes that were not flushed, as `tests/appliance/card.py` does. After each cut, a
//! model of the firmware must find one complete set: it reads sector 0, the first FAT partition,
//! config.txt and every file that it names, with another FAT implementation.

use crate::system::boot_files::disk::{Disk, SECTOR};
use crate::system::boot_files::error::BootFilesError;
use crate::system::boot_files::fat_image::build;
use crate::system::boot_files::files::{Files, digest};
use crate::system::boot_files::machine::Machine;
use crate::system::boot_files::mbr::{BootRecord, Layout};
use crate::system::boot_files::merge::MARKER;
use crate::system::boot_files::set::{LIST, List, is_firmware};
use crate::system::boot_files::state::{Phase, State};
use crate::system::boot_files::update::{Update, config_from_other_half};
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Cursor, ErrorKind, Read, Result, Write};
use std::path::PathBuf;
use std::rc::Rc;

/// A card with small halves, which can be copied quickly.
pub const LAYOUT: &str = "former - - 1 1\nboot 1 c 2 9\nboot-2 - - 11 9\n";
pub const MIB: usize = 1 << 20;
pub const CARD: usize = 20 * MIB;

pub const OLD_CONFIG: &str = "old configuration";

/// Sector 0 with a boot partition, the extended partition and `data`.
pub fn record(start_mib: u32, size_mib: u32) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    bytes[440..444].copy_from_slice(&[1, 2, 3, 4]);
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    let entries = [(0x80, 0x0c, start_mib, size_mib), (0, 5, 76, 324), (0, 0x83, 400, 32)];
    for (number, (flag, kind, start, size)) in entries.into_iter().enumerate() {
        let entry = &mut bytes[446 + number * 16..][..16];
        (entry[0], entry[4]) = (flag, kind);
        entry[8..12].copy_from_slice(&(start * 2048).to_le_bytes());
        entry[12..].copy_from_slice(&(size * 2048).to_le_bytes());
    }
    bytes
}

/// Files of a set: firmware, and files that belong to one release.
pub fn set(release: &str) -> Files {
    let config = format!(
        "kernel=u-boot.bin\nstart_file=start.elf\ndevice_tree={release}.dtb\n[all]\n{MARKER}\n"
    );
    let mut files: Files =
        ["bootcode.bin", "start.elf", "u-boot.bin", "boot.scr", "overlays/a.dtbo"]
            .into_iter()
            .map(|name| (name.into(), format!("{name} of {release}").repeat(500).into_bytes()))
            .collect();
    files.insert(&format!("{release}.dtb"), release.into());
    files.insert("config.txt", config.into());
    files.insert("cmdline.txt", format!("{release}\n").into());
    files
}

pub fn identity(release: &str) -> String {
    digest(release.as_bytes())[..16].into()
}

pub fn list(release: &str) -> List {
    let files = set(release);
    let digests = files.iter().map(|(path, content)| (path.to_lowercase(), digest(content)));
    List { identity: identity(release), started_on: vec![], files: digests.collect() }
}

/// The folder with the boot files in the root file system of a release.
pub struct Release(pub PathBuf);

impl Release {
    pub fn new(name: &str) -> Release {
        let unique = format!(
            "berrymse-boot-{name}-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let folder = std::env::temp_dir().join(unique);
        for (path, content) in set(name).iter() {
            std::fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
            std::fs::write(folder.join(path), content).unwrap();
        }
        std::fs::write(folder.join(LIST), list(name).text(&set(name))).unwrap();
        Release(folder)
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone)]
pub struct World {
    pub card: Vec<u8>,
    /// Since the last flush: the former content of each sector, and the writes in order.
    former: BTreeMap<usize, [u8; SECTOR]>,
    unflushed: Vec<(usize, Vec<u8>)>,
    pub variables: BTreeMap<String, String>,
    pub state: String,
    /// The half mounted at /boot.
    pub mounted: usize,
    /// Identity of the set that started the machine, if it has one.
    running: Option<String>,
    /// Whether the card was made by a release without halves.
    is_old: bool,
    /// Actions until the power is cut.
    pub left: usize,
    is_off: bool,
    /// Saves this configuration after that number of actions.
    pub save: Option<(usize, String)>,
    is_locked: bool,
    /// The configuration that the user saved last.
    pub config: String,
    pub random: u64,
}

impl World {
    /// A card of an old release, with one partition over both halves, or a new one.
    pub fn new(is_old: bool) -> World {
        let mut files = set("old");
        files.insert("berrymse.toml", OLD_CONFIG.into());
        files.insert("my own overlay with a long name.dtbo", b"mine".to_vec());
        let size = if is_old { 18 } else { 9 };
        if is_old {
            let shipped = include_str!("../../../appliance/shipped/config-0.1.0.txt");
            files.insert("config.txt", format!("{shipped}\ndtparam=mine").into());
            let shipped = include_str!("../../../appliance/shipped/cmdline-0.1.0.txt");
            files.insert("cmdline.txt", shipped.into());
        } else {
            files.insert(LIST, list("old").text(&set("old")).into());
        }
        let mut card = vec![0; CARD];
        let mut sector = record(2, size);
        // Other partitions follow behind the halves: the layout of this card is smaller.
        sector[446 + 16..446 + 48].fill(0);
        card[..SECTOR].copy_from_slice(&sector);
        let image = build(&files, u64::from(size) << 20).unwrap();
        card[2 * MIB..][..image.len()].copy_from_slice(&image);
        World {
            card,
            former: BTreeMap::new(),
            unflushed: vec![],
            variables: BTreeMap::new(),
            state: String::new(),
            mounted: 0,
            running: None,
            is_old,
            left: usize::MAX,
            is_off: false,
            save: None,
            is_locked: false,
            config: OLD_CONFIG.into(),
            random: 1,
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) as usize % below
    }

    /// Counts an action that is persistent. Returns whether it takes place.
    fn act(&mut self) -> Result<bool> {
        if self.is_off {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if let Some((after, text)) = self.save.take() {
            match after {
                0 if !self.is_locked => self.save_config(&text),
                after => self.save = Some((after.saturating_sub(1), text)),
            }
        }
        if self.left == 0 {
            self.is_off = true;
            return Ok(self.random(2) == 0);
        }
        self.left -= 1;
        Ok(true)
    }

    fn end(&self) -> Result<()> {
        if self.is_off { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn flush(&mut self) {
        self.former.clear();
        self.unflushed.clear();
    }

    /// Ends the power supply: each unflushed write is kept, lost or kept partially.
    pub fn lose_power(&mut self) {
        for (sector, former) in std::mem::take(&mut self.former) {
            self.card[sector * SECTOR..][..SECTOR].copy_from_slice(&former);
        }
        let share = [0, 100, self.random(100)][self.random(3)];
        for (at, mut bytes) in std::mem::take(&mut self.unflushed) {
            if self.random(100) < share {
                if bytes.len() > SECTOR && self.random(5) == 0 {
                    let sectors = self.random(bytes.len() / SECTOR);
                    bytes.truncate(sectors * SECTOR);
                }
                self.card[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        (self.is_off, self.left, self.save) = (false, usize::MAX, None);
    }

    pub fn record(&self) -> BootRecord {
        BootRecord::parse(self.card[..SECTOR].try_into().unwrap(), &layout()).unwrap()
    }

    /// The FAT partition that entry 1 describes.
    fn partition(&self) -> std::ops::Range<usize> {
        let word =
            |at: usize| u32::from_le_bytes(self.card[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(self.card[446 + 4], 0x0c);
        let (start, size) = (word(446 + 8) * SECTOR, word(446 + 12) * SECTOR);
        start..start + size
    }

    /// The firmware and boot.scr: returns the files that start the machine, and the release of the
    /// set. Panics unless there is exactly one complete set.
    pub fn firmware(&self) -> (BTreeMap<String, Vec<u8>>, &'static str) {
        let partition = Cursor::new(self.card[self.partition()].to_vec());
        let volume = fatfs::FileSystem::new(partition, fatfs::FsOptions::new()).expect("no FAT");
        let mut files = BTreeMap::new();
        read_all(volume.root_dir(), "", &mut files);
        let text = |name: &str| String::from_utf8_lossy(&files[name]).into_owned();
        let config = text("config.txt");
        for line in config.lines() {
            if let Some((name, file)) = line.split_once('=')
                && ["kernel", "start_file", "device_tree"].contains(&name)
            {
                assert!(files.contains_key(file), "config.txt names {file}");
            }
        }
        let release = ["old", "new", "newer"]
            .into_iter()
            .find(|release| files["boot.scr"] == set(release).get("boot.scr").unwrap())
            .expect("boot.scr of no release");
        for (path, content) in set(release).iter() {
            let found = &files[&path.to_lowercase()];
            match path {
                "config.txt" | "cmdline.txt" if release == "old" => {}
                "config.txt" => assert!(found.starts_with(content), "config.txt of {release}"),
                // Carried over: no board is known to start with another one.
                path if is_firmware(path) => {
                    assert_eq!(found, set("old").get(path).unwrap(), "{path}")
                }
                path => assert_eq!(found, content, "{path} of {release}"),
            }
        }
        assert_eq!(config.contains("dtparam=mine"), self.is_old);
        // An old card has no list of files that could be removed.
        let trees = ["old.dtb", "new.dtb", "newer.dtb"].map(|tree| files.contains_key(tree));
        assert!(self.is_old || trees.iter().filter(|is_present| **is_present).count() == 1);
        assert_eq!(files["my own overlay with a long name.dtbo"], b"mine");
        (files, release)
    }

    /// A start, from boot.scr to `berrymse apply`. Returns the release of the boot files that started.
    pub fn start(&mut self) -> &'static str {
        let (files, release) = self.firmware();
        let half = format!("{:x}", self.partition().start / SECTOR);
        let knows_trials = files.contains_key(LIST);
        if !knows_trials {
            self.variables.clear();
        } else if self.variables.get("BOOT_FILES") == Some(&half) {
            let left = self.variables["BOOT_FILES_LEFT"].parse::<u32>().unwrap();
            match left.checked_sub(1) {
                Some(left) => _ = self.variables.insert("BOOT_FILES_LEFT".into(), left.to_string()),
                None => {
                    let former = self.card[MIB..][..SECTOR].to_vec();
                    assert_eq!(former[510..], [0x55, 0xaa], "no copy of sector 0");
                    self.card[..SECTOR].copy_from_slice(&former);
                    self.variables.clear();
                    return self.start();
                }
            }
        }
        self.mounted = self.record().half;
        self.running = knows_trials.then(|| identity(release));
        let state = State::parse(&self.state);
        let current = self.read_config();
        let mut card = Handle::new(self.clone());
        if let Some(text) =
            config_from_other_half(&mut card, &layout(), &state, current.as_bytes()).unwrap()
        {
            self.write_config(&String::from_utf8(text).unwrap());
        }
        release
    }

    pub fn read_config(&self) -> String {
        let (files, _) = self.firmware();
        String::from_utf8(files["berrymse.toml"].clone()).unwrap()
    }

    /// Saves a configuration in the mounted partition.
    pub fn save_config(&mut self, text: &str) {
        self.config = text.into();
        self.write_config(text);
    }

    pub fn write_config(&mut self, text: &str) {
        let start = layout().offset(self.mounted) as usize;
        // The whole file system, which extends over both halves on an old card.
        let sectors = u16::from_le_bytes([self.card[start + 19], self.card[start + 20]]);
        let area = start..start + usize::from(sectors) * SECTOR;
        let mut bytes = Cursor::new(self.card[area.clone()].to_vec());
        let volume = fatfs::FileSystem::new(&mut bytes, fatfs::FsOptions::new()).unwrap();
        let mut file = volume.root_dir().create_file("berrymse.toml").unwrap();
        file.truncate().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        drop(file);
        volume.unmount().unwrap();
        let bytes = bytes.into_inner();
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = area.start + number * SECTOR;
            self.card[at..at + SECTOR].copy_from_slice(sector);
        }
        // Saving flushes the whole card.
        self.flush();
    }
}

pub fn layout() -> Layout {
    Layout::parse(LAYOUT).unwrap()
}

pub fn read_all(
    folder: fatfs::Dir<'_, Cursor<Vec<u8>>>,
    path: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
) {
    for entry in folder.iter().map(|entry| entry.expect("damaged folder")) {
        let name = format!("{path}{}", entry.file_name().to_lowercase());
        match entry.is_dir() {
            true if name.ends_with('.') => {}
            true => read_all(entry.to_dir(), &format!("{name}/"), files),
            false => {
                let mut content = vec![];
                entry.to_file().read_to_end(&mut content).expect("damaged file");
                files.insert(name, content);
            }
        }
    }
}

/// The machine, and its card.
#[derive(Clone)]
pub struct Handle(Rc<RefCell<World>>);

impl Handle {
    pub fn new(world: World) -> Handle {
        Handle(Rc::new(RefCell::new(world)))
    }

    fn into_world(self) -> World {
        self.0.borrow().clone()
    }
}

impl Disk for Handle {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let world = self.0.borrow();
        if world.is_off {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let from = world.card.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut world = self.0.borrow_mut();
        let happens = world.act()?;
        if happens {
            let at = offset as usize;
            for sector in at / SECTOR..(at + bytes.len()) / SECTOR {
                let former: [u8; SECTOR] =
                    world.card[sector * SECTOR..][..SECTOR].try_into().unwrap();
                world.former.entry(sector).or_insert(former);
            }
            world.unflushed.push((at, bytes.into()));
            world.card[at..at + bytes.len()].copy_from_slice(bytes);
        }
        world.end()
    }

    fn flush(&mut self) -> Result<()> {
        let mut world = self.0.borrow_mut();
        let happens = world.act()?;
        if happens {
            world.flush();
        }
        world.end()
    }
}

impl Machine for Handle {
    fn check_boot(&mut self) -> std::result::Result<(), String> {
        let world = self.0.borrow();
        if world.is_off { Err("off".into()) } else { Ok(()) }
    }

    fn has_variable(&mut self, name: &str) -> Result<bool> {
        Ok(self.0.borrow().variables.contains_key(name))
    }

    fn set_variable(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let mut world = self.0.borrow_mut();
        let happens = world.act()?;
        if happens {
            match value {
                Some(value) => _ = world.variables.insert(name.into(), value.into()),
                None => _ = world.variables.remove(name),
            }
        }
        world.end()
    }

    fn remount_boot(&mut self) -> Result<()> {
        let mut world = self.0.borrow_mut();
        world.act()?;
        world.mounted = world.record().half;
        world.end()
    }

    fn lock(&mut self) -> Result<Box<dyn Any>> {
        self.0.borrow_mut().is_locked = true;
        Ok(Box::new(Lock(self.clone())))
    }

    fn load_state(&mut self) -> Result<String> {
        Ok(self.0.borrow().state.clone())
    }

    fn save_state(&mut self, text: &str) -> Result<()> {
        let mut world = self.0.borrow_mut();
        let happens = world.act()?;
        if happens {
            world.state = text.into();
        }
        world.end()
    }
}

/// The lock on the boot partition. A save waits until it is dropped.
pub struct Lock(Handle);

impl Drop for Lock {
    fn drop(&mut self) {
        let mut world = self.0.0.borrow_mut();
        world.is_locked = false;
        if let Some((0, text)) = world.save.take_if(|(after, _)| *after == 0)
            && !world.is_off
        {
            world.save_config(&text);
        }
    }
}

/// Runs the update on a healthy system.
pub fn update(world: &mut World, set: &Release) -> std::result::Result<Phase, BootFilesError> {
    let handle = Handle::new(world.clone());
    let running = world.running.clone();
    let (mut card, mut machine) = (handle.clone(), handle.clone());
    let mut update = Update {
        disk: &mut card,
        machine: &mut machine,
        layout: layout(),
        set: &set.0,
        running,
        model: "Raspberry Pi 3 Model B Rev 1.2".into(),
    };
    let report = update.run().map(|report| report.unwrap().state);
    drop((card, machine));
    *world = handle.into_world();
    report
}
