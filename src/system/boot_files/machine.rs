//! What an update of the boot files needs from the machine, besides the card: programs that every
//! image of the appliance contains.

use crate::system::boot_lock::BootLock;
use crate::system::files::write;
use std::any::Any;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit status of fsck.fat if it found no errors.
const FSCK_CLEAN: i32 = 0;

/// The machine.
pub trait Machine {
    /// Flushes the boot partition in use and checks its file system.
    ///
    /// # Errors
    ///
    /// Holds the errors that the check found, or why it could not be run.
    fn check_boot(&mut self) -> std::result::Result<(), String>;

    /// Returns whether a variable of the boot state is set.
    ///
    /// # Errors
    ///
    /// The boot state could not be read.
    fn has_variable(&mut self, name: &str) -> Result<bool>;

    /// Sets or removes a variable of the boot state.
    ///
    /// # Errors
    ///
    /// The boot state could not be written.
    fn set_variable(&mut self, name: &str, value: Option<&str>) -> Result<()>;

    /// Mounts the partition that entry 1 now describes in place of the former one.
    ///
    /// # Errors
    ///
    /// The former partition is still mounted, or nothing is.
    fn remount_boot(&mut self) -> Result<()>;

    /// Waits until no configuration is being saved. None is saved until the lock is dropped.
    ///
    /// # Errors
    ///
    /// The lock could not be created.
    fn lock(&mut self) -> Result<Box<dyn Any>>;

    /// Loads the state. It is empty if there is none.
    ///
    /// # Errors
    ///
    /// The state could not be read.
    fn load_state(&mut self) -> Result<String>;

    /// Saves the state. It survives a power cut.
    ///
    /// # Errors
    ///
    /// The state could not be written.
    fn save_state(&mut self, text: &str) -> Result<()>;
}

/// The appliance.
#[derive(Debug)]
pub struct Appliance {
    /// Directory with the links to the devices, `/dev/berrymse`.
    pub devices: PathBuf,
    /// Mount point of the boot partition.
    pub boot: PathBuf,
    /// Script that mounts the boot partition again.
    pub remount: PathBuf,
    /// Lock on the boot partition.
    pub lock: PathBuf,
    /// File for the state, on the data partition.
    pub state: PathBuf,
}

impl Machine for Appliance {
    fn check_boot(&mut self) -> std::result::Result<(), String> {
        if let Ok(folder) = std::fs::File::open(&self.boot)
            && let Err(error) = rustix::fs::syncfs(folder)
        {
            return Err(error.to_string());
        }
        let output = Command::new("fsck.fat").arg("-n").arg(self.devices.join("boot")).output();
        let output = output.map_err(|error| format!("cannot run fsck.fat: {error}"))?;
        if output.status.code() == Some(FSCK_CLEAN) {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        // The first line is the version of the program.
        let lines = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty());
        Err(lines.take(3).collect::<Vec<_>>().join(", "))
    }

    fn has_variable(&mut self, name: &str) -> Result<bool> {
        // Without this variable, fw_printenv fails.
        Ok(Command::new("fw_printenv").args(["-n", name]).output()?.status.success())
    }

    fn set_variable(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        run(Command::new("fw_setenv").arg(name).args(value))
    }

    fn remount_boot(&mut self) -> Result<()> {
        run(&mut Command::new(&self.remount))
    }

    fn lock(&mut self) -> Result<Box<dyn Any>> {
        Ok(Box::new(BootLock::acquire(&self.lock)?))
    }

    fn load_state(&mut self) -> Result<String> {
        read_text(&self.state)
    }

    fn save_state(&mut self, text: &str) -> Result<()> {
        let folder = self.state.parent().unwrap_or(Path::new("/"));
        // Without the data partition, its contents are in memory and would be lost.
        if let Ok(data) = self.devices.join("data").metadata()
            && data.rdev() != folder.metadata()?.dev()
        {
            return Err(Error::other("the data partition is not mounted"));
        }
        write(&self.state, text.as_bytes(), 0o600)
    }
}

/// Returns the text of a file, which is empty if the file does not exist.
pub(super) fn read_text(path: &Path) -> Result<String> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => Ok(String::from_utf8_lossy(&text?).into()),
    }
}

/// Runs a program, which must succeed.
fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let program = command.get_program().to_string_lossy();
    Err(Error::other(format!("{program} failed: {}", text.trim())))
}
