//! The sequence of an update. After a power cut at any moment, sector 0 refers to a half with one
//! complete set.
//!
//! ```text
//! running system (good)              1. write the other half, read it back
//!                                    2. copy sector 0
//!                                    3. state: prepared; boot state: half on trial, 3 attempts
//!                                    4. write sector 0: the other half is the boot partition
//!                                    5. state: switched; mount the new boot partition
//! boot.scr in the new half           6. count an attempt; without any left, write the copy back
//! running system (good) in the new   7. confirm: clear the boot state, wipe the copy and secrets
//! running system in the former       8. the copy was written back: do not try this set again
//! ```

use crate::system::boot_files::disk::{Disk, SECTOR, read, read_sector, write_verified};
use crate::system::boot_files::error::BootFilesError;
use crate::system::boot_files::fat::Volume;
use crate::system::boot_files::fat_image::build;
use crate::system::boot_files::files::{Files, digest};
use crate::system::boot_files::machine::Machine;
use crate::system::boot_files::mbr::{BootRecord, Layout, former};
use crate::system::boot_files::merge::merge;
use crate::system::boot_files::set::{List, Set};
use crate::system::boot_files::state::{Pending, Phase, Report, State};
use std::io;
use std::path::Path;

/// Boot state: first sector of the half on trial, in hexadecimal, as U-Boot's `part start` prints it.
const HALF: &str = "BOOT_FILES";

/// Boot state: attempts left for the half on trial.
const LEFT: &str = "BOOT_FILES_LEFT";

/// Attempts for a new set.
const ATTEMPTS: &str = "3";

/// Maximum number of times that the half is written because the user's files have changed.
const MAX_COPIES: usize = 3;

/// Size of a transfer, in bytes. Saving a configuration waits at most for one.
const CHUNK: usize = 256 << 10;

/// The configuration file on the boot partition. It contains passwords.
const CONFIG: &str = "berrymse.toml";

/// An update of the boot files.
pub struct Update<'a> {
    /// The card.
    pub disk: &'a mut dyn Disk,
    /// The machine.
    pub machine: &'a mut dyn Machine,
    /// The layout of the card.
    pub layout: Layout,
    /// Folder with the boot files of this release.
    pub set: &'a Path,
    /// Identity of the set that started this system, if it has one.
    pub running: Option<String>,
    /// The model of this machine.
    pub model: String,
}

impl Update<'_> {
    /// Updates the boot files if necessary. The running system must be good. Returns `None` if this
    /// release has no boot files.
    ///
    /// # Errors
    ///
    /// The boot partition in use is unchanged.
    pub fn run(&mut self) -> Result<Option<Report>, BootFilesError> {
        let text = self.machine.load_state().map_err(BootFilesError::State)?;
        let mut state = State::parse(&text);
        let record = self.record()?;
        if let Some(pending) = state.pending.clone() {
            if pending.start != self.layout.halves[record.half] {
                // Unless sector 0 was not written at all, boot.scr has written the former one back.
                self.end_trial()?;
                state.pending = None;
                if pending.switched {
                    state.failed = Some(pending.identity);
                    state.note.clear();
                }
                self.save(&state)?;
                // `berrymse apply` has already read the configuration there.
                self.wipe(1 - record.half)?;
            } else if self.running.as_ref() == Some(&pending.identity) {
                self.confirm(&record, &mut state)?;
            } else {
                if !pending.switched {
                    state.pending = Some(Pending { switched: true, ..pending });
                    self.save(&state)?;
                    self.remount();
                }
                return Ok(Some(report(Phase::Waiting, &state.note)));
            }
        } else if self.machine.has_variable(HALF).map_err(BootFilesError::Variables)? {
            // The state was lost with the data partition. This system is healthy.
            self.end_trial()?;
        }
        let Some(list) = Set::load_list(self.set)? else { return Ok(None) };
        if self.running.as_ref() == Some(&list.identity) {
            return Ok(Some(report(Phase::Current, &state.note)));
        }
        if state.failed.as_ref() == Some(&list.identity) {
            let why = "the new boot files did not lead to a working system in three attempts: the \
                       earlier ones are used";
            return Ok(Some(report(Phase::Reverted, why)));
        }
        self.install(list, &mut state)?;
        Ok(Some(report(Phase::Waiting, &state.note)))
    }

    fn record(&mut self) -> Result<BootRecord, BootFilesError> {
        let sector = read_sector(self.disk, 0).map_err(card("read sector 0"))?;
        BootRecord::parse(&sector, &self.layout)
    }

    fn save(&mut self, state: &State) -> Result<(), BootFilesError> {
        self.machine.save_state(&state.text()).map_err(BootFilesError::State)
    }

    fn install(&mut self, list: List, state: &mut State) -> Result<(), BootFilesError> {
        let set = Set::load(self.set, list)?;
        for _ in 0..MAX_COPIES {
            let record = self.record()?;
            let running = self.running_files(&record)?;
            let merged = merge(&running, &set, &self.model);
            let image = build(&merged.files, self.layout.bytes())?;
            self.write_half(1 - record.half, &image).map_err(card("write the new boot files"))?;
            let _lock = self.machine.lock().map_err(BootFilesError::Lock)?;
            if self.running_files(&record)? != running {
                continue;
            }
            state.note = merged.note;
            state.pending = Some(Pending {
                identity: set.list.identity,
                start: self.layout.halves[1 - record.half],
                config: digest(running.get(CONFIG).unwrap_or_default()),
                switched: false,
            });
            return self.switch(&record, state);
        }
        Err(BootFilesError::Changed)
    }

    /// Returns the files on the boot partition in use.
    fn running_files(&mut self, record: &BootRecord) -> Result<Files, BootFilesError> {
        self.machine.check_boot().map_err(BootFilesError::Check)?;
        let mut volume = Volume::open(self.disk, self.layout.offset(record.half))?;
        // Before there were two halves, one partition extended over both.
        let limit = self.layout.offset(1) - self.layout.offset(0);
        if record.half == 0 && volume.end_of_use() > limit {
            return Err(BootFilesError::InUse);
        }
        volume.files()
    }

    /// Writes the half that is not in use. Its first sector is written last: before that, the half
    /// contains no file system.
    fn write_half(&mut self, half: usize, image: &[u8]) -> io::Result<()> {
        let start = self.layout.offset(half);
        write_verified(self.disk, start, &[0; SECTOR])?;
        let mut at = start + SECTOR as u64;
        for chunk in image[SECTOR..].chunks(CHUNK) {
            // Most of it is empty, before and afterwards.
            if read(self.disk, at, chunk.len())? != chunk {
                self.disk.write(at, chunk)?;
            }
            at += chunk.len() as u64;
        }
        self.disk.flush()?;
        write_verified(self.disk, start, &image[..SECTOR])?;
        for (number, chunk) in image.chunks(CHUNK).enumerate() {
            if read(self.disk, start + (number * CHUNK) as u64, chunk.len())? != chunk {
                return Err(io::Error::other("the card did not keep the data that was written"));
            }
        }
        Ok(())
    }

    fn switch(&mut self, record: &BootRecord, state: &mut State) -> Result<(), BootFilesError> {
        let copy = former(record.bytes());
        write_verified(self.disk, self.layout.former_offset(), &copy)
            .map_err(card("copy sector 0"))?;
        self.save(state)?;
        let start = format!("{:x}", self.layout.halves[1 - record.half]);
        // The half comes last: without it, the number of attempts has no meaning.
        for (name, value) in [(LEFT, ATTEMPTS), (HALF, &start)] {
            self.machine.set_variable(name, Some(value)).map_err(BootFilesError::Variables)?;
        }
        if self.record()? != *record {
            return Err(BootFilesError::Partitions("it has just changed"));
        }
        write_verified(self.disk, 0, &record.switched(&self.layout))
            .map_err(card("write sector 0"))?;
        if let Some(pending) = &mut state.pending {
            pending.switched = true;
        }
        self.save(state)?;
        self.remount();
        Ok(())
    }

    /// Mounts the new boot partition. If this fails, a configuration cannot be saved until the
    /// machine restarts, which is safe.
    fn remount(&mut self) {
        if let Err(error) = self.machine.remount_boot() {
            log::warn!("cannot mount the new boot partition before the next restart: {error}");
        }
    }

    /// Clears the boot state. The half comes first: without it, nothing is on trial.
    fn end_trial(&mut self) -> Result<(), BootFilesError> {
        for name in [HALF, LEFT] {
            self.machine.set_variable(name, None).map_err(BootFilesError::Variables)?;
        }
        Ok(())
    }

    /// Accepts the new set, which has led to a healthy system.
    fn confirm(&mut self, record: &BootRecord, state: &mut State) -> Result<(), BootFilesError> {
        self.end_trial()?;
        write_verified(self.disk, self.layout.former_offset(), &[0; 2 * SECTOR])
            .map_err(card("remove the copy of sector 0"))?;
        self.wipe(1 - record.half)?;
        state.pending = None;
        state.failed = None;
        self.save(state)
    }

    /// Overwrites the configuration, and everything that belongs to no file, in a half that is no
    /// longer in use: earlier versions of the configuration also contain passwords. Its boot files
    /// remain, for recovery on a computer.
    fn wipe(&mut self, half: usize) -> Result<(), BootFilesError> {
        let (start, size) = (self.layout.offset(half), self.layout.bytes());
        let areas = Volume::open(self.disk, start)
            .and_then(|mut volume| volume.areas_without(CONFIG, size));
        let areas = match areas {
            // Nothing could start from it.
            Err(BootFilesError::Fat(_)) => std::iter::once(start..start + size).collect(),
            areas => areas?,
        };
        let wipe = || {
            for area in areas {
                for at in area.clone().step_by(CHUNK) {
                    self.clear(at, area.end.min(at + CHUNK as u64))?;
                }
            }
            self.disk.flush()
        };
        wipe().map_err(card("overwrite the former boot partition"))
    }

    /// Overwrites the bytes from `start` to `end` with zeros, and leaves the other bytes in their
    /// sectors unchanged.
    fn clear(&mut self, start: u64, end: u64) -> io::Result<()> {
        let sector = SECTOR as u64;
        let first = start / sector * sector;
        let length = (end.next_multiple_of(sector) - first) as usize;
        let mut bytes = read(self.disk, first, length)?;
        let part = &mut bytes[(start - first) as usize..(end - first) as usize];
        if part.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        part.fill(0);
        self.disk.write(first, &bytes)
    }
}

fn report(state: Phase, why: &str) -> Report {
    Report { state, why: Some(why.to_string()).filter(|why| !why.is_empty()) }
}

fn card(action: &'static str) -> impl Fn(io::Error) -> BootFilesError {
    move |error| BootFilesError::Card { action, error }
}

/// Returns the text for the configuration file if a switch was taken back: the one in the half that
/// is no longer in use, if it was changed there after the switch and not in the half in use.
/// `current`: the configuration file in use.
///
/// # Errors
///
/// The card cannot be read.
pub fn config_from_other_half(
    disk: &mut dyn Disk,
    layout: &Layout,
    state: &State,
    current: &[u8],
) -> Result<Option<Vec<u8>>, BootFilesError> {
    // Even if sector 0 was not written: then both halves have the same configuration.
    let Some(pending) = &state.pending else { return Ok(None) };
    let sector = read_sector(disk, 0).map_err(card("read sector 0"))?;
    let record = BootRecord::parse(&sector, layout)?;
    let other = 1 - record.half;
    if layout.halves[other] != pending.start || digest(current) != pending.config {
        return Ok(None);
    }
    let text = Volume::open(disk, layout.offset(other))?.file(CONFIG)?.unwrap_or_default();
    let is_blank = text.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0);
    Ok(Some(text).filter(|text| !is_blank && digest(text) != pending.config))
}
