//! The record of the cameras that an update must not lose.
//!
//! Before RAUC installs an update, the running system saves the cameras that have delivered video
//! within the last hour in `cameras-A` or `cameras-B`, named after its own slot, in the directory
//! for the state of the appliance. The new system, in the other slot, must show these cameras
//! before it is marked good. The keeper removes the record afterwards.
//!
//! ```json
//! {"proved": "0.1.0 1764547200", "cameras": [{"name": "front", "kind": "raspberry-pi"}]}
//! ```
//!
//! `proved` is the content of `proved-A` or `proved-B`, in which the keeper names the system that it
//! last marked good in that slot. If it has changed since, a version of BerryMSE that keeps no records
//! has replaced the system in between, and the record is out of date. A record that is missing,
//! unreadable or out of date is ignored.

use crate::system::files::{remove, replace};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Maximum size of a record, in bytes.
const MAX_RECORD: u64 = 64 * 1024;

/// Directory of the records in the data directory.
const STATE: &str = "state";

/// A camera that delivered video before an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedCamera {
    /// Its name in the configuration.
    pub name: String,
    /// The kind of the camera that it showed, or `test-card`.
    pub kind: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    proved: String,
    cameras: Vec<RecordedCamera>,
}

/// The slot of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Slot A.
    A,
    /// Slot B.
    B,
}

impl std::str::FromStr for Slot {
    type Err = String;

    fn from_str(name: &str) -> Result<Slot, String> {
        match name {
            "A" => Ok(Slot::A),
            "B" => Ok(Slot::B),
            name => Err(format!("unknown slot {name:?}: must be A or B")),
        }
    }
}

impl Slot {
    /// The slot of the running system, which the boot loader passes as `rauc.slot`. `None` if the
    /// machine is not an appliance.
    pub fn running() -> Option<Slot> {
        let arguments = std::fs::read_to_string("/proc/cmdline").ok()?;
        arguments.split_whitespace().find_map(|word| word.strip_prefix("rauc.slot="))?.parse().ok()
    }

    fn name(self) -> &'static str {
        match self {
            Slot::A => "A",
            Slot::B => "B",
        }
    }

    fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

/// The records of both slots.
#[derive(Debug, Default, Clone)]
pub struct CameraRecords {
    state: PathBuf,
    slot: Option<Slot>,
}

impl CameraRecords {
    /// The records in the data directory `data`. `slot` is the slot of the running system; without
    /// a slot, there are no records.
    pub fn new(data: &Path, slot: Option<Slot>) -> CameraRecords {
        CameraRecords { state: data.join(STATE), slot }
    }

    /// The cameras that this system must show, because the system in the other slot showed them
    /// before the update to this one. `None` if this system is not new.
    pub fn required(&self) -> Option<Vec<RecordedCamera>> {
        self.cameras(self.slot?.other())
    }

    /// The cameras that this system showed before its last update to the system in the other slot.
    pub fn before_update(&self) -> Option<Vec<RecordedCamera>> {
        self.cameras(self.slot?)
    }

    fn cameras(&self, slot: Slot) -> Option<Vec<RecordedCamera>> {
        let text = read(&self.file(slot))?;
        let record: Record = serde_json::from_str(&text).ok()?;
        (record.proved == self.proved(slot)).then_some(record.cameras)
    }

    /// Saves the cameras that the running system shows.
    ///
    /// # Errors
    ///
    /// The machine is not an appliance, or the file cannot be written.
    pub fn save(&self, cameras: Vec<RecordedCamera>) -> io::Result<()> {
        self.write(self.slot()?, cameras)
    }

    /// Removes the record of the running system.
    ///
    /// # Errors
    ///
    /// See [`CameraRecords::save`].
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.file(self.slot()?))
    }

    fn slot(&self) -> io::Result<Slot> {
        let message = "this machine has no slots for updates: only an appliance has";
        self.slot.ok_or_else(|| io::Error::new(ErrorKind::Unsupported, message))
    }

    fn write(&self, slot: Slot, cameras: Vec<RecordedCamera>) -> io::Result<()> {
        let record = Record { proved: self.proved(slot), cameras };
        let text = serde_json::to_string(&record)?;
        // The server's user may read it.
        replace(&self.file(slot), text.as_bytes(), 0o644)
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.state.join(format!("cameras-{}", slot.name()))
    }

    fn proved(&self, slot: Slot) -> String {
        let text = read(&self.state.join(format!("proved-{}", slot.name()))).unwrap_or_default();
        text.trim().into()
    }
}

/// Empties the records of both slots: the next start of a new system requires no cameras.
///
/// # Errors
///
/// A record cannot be written.
pub(super) fn require_no_cameras(data: &Path) -> io::Result<()> {
    let records = CameraRecords::new(data, None);
    for slot in [Slot::A, Slot::B] {
        if records.file(slot).exists() {
            records.write(slot, vec![])?;
        }
    }
    Ok(())
}

fn read(file: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(file).ok()?.take(MAX_RECORD).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> PathBuf {
        let name = format!("berrymse-record-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join(STATE)).unwrap();
        std::fs::write(folder.join("state/proved-A"), "0.1.0 100\n").unwrap();
        folder
    }

    fn front() -> Vec<RecordedCamera> {
        vec![RecordedCamera { name: "front".into(), kind: "v4l2".into() }]
    }

    #[test]
    fn a_new_system_must_show_the_cameras_of_the_old_one() {
        let data = data("new");
        let old = CameraRecords::new(&data, Some(Slot::A));
        let new = CameraRecords::new(&data, Some(Slot::B));
        assert_eq!((old.before_update(), new.required()), (None, None));
        old.save(front()).unwrap();
        assert_eq!((old.before_update(), new.required()), (Some(front()), Some(front())));
        assert_eq!((old.required(), new.before_update()), (None, None));
        // On request, no cameras are required. The system is still new.
        require_no_cameras(&data).unwrap();
        assert_eq!(new.required(), Some(vec![]));
        assert!(!data.join("state/cameras-B").exists());
        old.remove().unwrap();
        old.remove().unwrap();
        assert_eq!(new.required(), None);
        std::fs::remove_dir_all(data).unwrap();
    }

    #[test]
    fn ignores_records_that_are_damaged_or_out_of_date() {
        let data = data("damaged");
        let new = CameraRecords::new(&data, Some(Slot::B));
        CameraRecords::new(&data, Some(Slot::A)).save(front()).unwrap();
        assert_eq!(new.required(), Some(front()));
        let file = data.join("state/cameras-A");
        let text = std::fs::read(&file).unwrap();
        for damaged in [b"".as_slice(), &text[..text.len() - 1], b"[]", b"\xff\0", &[b' '; 70_000]]
        {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(new.required(), None, "{damaged:?}");
        }
        std::fs::write(&file, &text).unwrap();
        assert_eq!(new.required(), Some(front()));
        // Another system has been marked good in slot A since.
        std::fs::write(data.join("state/proved-A"), "0.1.0 200\n").unwrap();
        assert_eq!(new.required(), None);
        std::fs::remove_dir_all(data).unwrap();
    }

    #[test]
    fn accepts_fields_of_newer_versions() {
        let data = data("fields");
        let text = "{\"proved\": \"0.1.0 100\", \"since\": 1, \"cameras\": \
                    [{\"name\": \"front\", \"kind\": \"v4l2\", \"serial\": \"7\"}]}";
        std::fs::write(data.join("state/cameras-A"), text).unwrap();
        assert_eq!(CameraRecords::new(&data, Some(Slot::B)).required(), Some(front()));
        std::fs::remove_dir_all(data).unwrap();
    }

    #[test]
    fn only_an_appliance_has_records() {
        let data = data("none");
        let records = CameraRecords::new(&data, None);
        let error = records.save(front()).unwrap_err().to_string();
        assert!(error.contains("only an appliance"), "{error}");
        assert_eq!((records.required(), records.before_update()), (None, None));
        assert!("C".parse::<Slot>().is_err() && "A".parse() == Ok(Slot::A));
        std::fs::remove_dir_all(data).unwrap();
    }
}
