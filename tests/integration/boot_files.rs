//! `berrymse boot-files` and `berrymse apply` on a card image, with stand-ins for the programs of the
//! appliance: a new set is written and confirmed, and a configuration survives the return to the
//! former one.

use crate::support::{Folder, berrymse};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use std::fs::{File, OpenOptions, create_dir_all, read_to_string};
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;

const MIB: u64 = 1 << 20;
/// Positions of the two halves: appliance/layout.
const HALVES: [u64; 2] = [12 * MIB, 44 * MIB];
const HALF: usize = 32 << 20;
const FORMER: u64 = 10 * MIB;
const CONFIG: &str = "[[camera]]\nname = \"before\"\n";

struct Device {
    folder: Folder,
    card: File,
}

impl Device {
    /// A machine whose boot partition is the first half, from before there were lists of boot files.
    fn new() -> Device {
        let folder = Folder::new();
        for name in [
            "dev/berrymse",
            "usr/share/berrymse/boot/overlays",
            "usr/lib/berrymse",
            "proc/device-tree",
            "boot",
            "data/berrymse/state",
            "run/berrymse",
            "bin",
            "usr/share/zoneinfo",
        ] {
            create_dir_all(folder.path(name)).unwrap();
        }
        folder.write("usr/share/berrymse/layout", include_str!("../../appliance/layout"));
        folder.write("usr/share/zoneinfo/UTC", "TZif");
        folder.write("proc/cmdline", "root=PARTUUID=01020304-07 quiet");
        folder.write("proc/device-tree/model", "linux,dummy-virt\0");
        folder.write("boot/berrymse.toml", CONFIG);
        let script = |name: &str, text: &str| {
            let path = folder.write(name, format!("#!/bin/sh\n{text}\n"));
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let at = folder.path("");
        let at = at.display();
        script("bin/fsck.fat", &format!("echo \"fsck.fat $*\" >>{at}/calls"));
        script("bin/fw_setenv", &format!("echo \"fw_setenv $*\" >>{at}/calls"));
        script("bin/fw_printenv", "exit 1");
        script("usr/lib/berrymse/remount-boot", &format!("echo remount >>{at}/calls"));

        let path = folder.path("dev/berrymse/disk");
        let card = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        card.set_len(76 * MIB).unwrap();
        let mut sector = [0; 512];
        sector[440..444].copy_from_slice(&[4, 3, 2, 1]);
        sector[450] = 0x0c;
        sector[454..458].copy_from_slice(&24576u32.to_le_bytes());
        sector[458..462].copy_from_slice(&65536u32.to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        card.write_all_at(&sector, 0).unwrap();
        let mut half = Cursor::new(vec![0; HALF]);
        let options = FormatVolumeOptions::new().fat_type(FatType::Fat16).bytes_per_cluster(2048);
        fatfs::format_volume(&mut half, options).unwrap();
        card.write_all_at(half.get_ref(), HALVES[0]).unwrap();
        let device = Device { folder, card };
        device.write(0, "boot.scr", "old script");
        device.write(0, "berrymse.toml", CONFIG);
        device.write(0, "start.elf", "old firmware");
        device.write(0, "My notes.txt", "mine");
        device
    }

    fn edit<T>(&self, half: usize, edit: impl FnOnce(&FileSystem<&mut Cursor<Vec<u8>>>) -> T) -> T {
        let mut bytes = vec![0; HALF];
        self.card.read_exact_at(&mut bytes, HALVES[half]).unwrap();
        let mut bytes = Cursor::new(bytes);
        let volume = FileSystem::new(&mut bytes, FsOptions::new()).unwrap();
        let result = edit(&volume);
        volume.unmount().unwrap();
        self.card.write_all_at(bytes.get_ref(), HALVES[half]).unwrap();
        result
    }

    fn write(&self, half: usize, name: &str, text: &str) {
        self.edit(half, |volume| {
            let mut file = volume.root_dir().create_file(name).unwrap();
            file.truncate().unwrap();
            file.write_all(text.as_bytes()).unwrap();
        });
    }

    fn read(&self, half: usize, name: &str) -> String {
        self.edit(half, |volume| {
            let mut text = String::new();
            volume.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
            text
        })
    }

    fn sector(&self, offset: u64) -> [u8; 512] {
        let mut sector = [0; 512];
        self.card.read_exact_at(&mut sector, offset).unwrap();
        sector
    }

    /// Adds a set to the root file system, as the image builds do. Returns its identity.
    fn release(&self, script: &str) -> String {
        let set = self.folder.path("usr/share/berrymse/boot");
        for (name, text) in [
            ("boot.scr", script),
            ("config.txt", "a=1\n"),
            ("start.elf", "new firmware"),
            ("overlays/x.dtbo", "x"),
        ] {
            std::fs::write(set.join(name), text).unwrap();
        }
        let assemble = concat!(env!("CARGO_MANIFEST_DIR"), "/appliance/assemble");
        let output = Command::new(assemble).arg("set").arg(&set).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let list = read_to_string(set.join("boot-files.txt")).unwrap();
        list.lines().next().unwrap().strip_prefix("identity=").unwrap().into()
    }

    /// Runs the program with the stand-ins. Returns standard output.
    fn run(&self, command: &str) -> String {
        let path =
            format!("{}:{}", self.folder.path("bin").display(), std::env::var("PATH").unwrap());
        let output = Command::new(berrymse())
            .arg(command)
            .arg("--root")
            .arg(self.folder.path(""))
            .env("PATH", path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn report(&self) -> serde_json::Value {
        serde_json::from_str(
            &read_to_string(self.folder.path("run/berrymse/boot-files.json")).unwrap(),
        )
        .unwrap()
    }

    fn started_by(&self, identity: &str) {
        self.folder.write("proc/cmdline", format!("quiet berrymse.boot={identity} panic=5"));
    }
}

#[test]
fn new_boot_files_are_written_and_confirmed() {
    let device = Device::new();
    let former = device.sector(0);
    let identity = device.release("new script");
    assert_eq!(device.run("boot-files"), "boot files: new ones take effect at the next restart\n");
    assert_eq!(device.report(), serde_json::json!({"state": "waiting"}));
    // One byte of sector 0 has changed, and the copy is complete.
    let sector = device.sector(0);
    assert_eq!((0..512).filter(|&at| sector[at] != former[at]).collect::<Vec<_>>(), [0x1c8]);
    assert_eq!(device.sector(FORMER), former);
    let calls = read_to_string(device.folder.path("calls")).unwrap();
    let calls: Vec<&str> = calls.lines().filter(|call| !call.starts_with("fsck")).collect();
    assert_eq!(calls, ["fw_setenv BOOT_FILES_LEFT 3", "fw_setenv BOOT_FILES 16000", "remount"]);
    for (name, text) in [
        ("boot.scr", "new script"),
        ("overlays/x.dtbo", "x"),
        ("berrymse.toml", CONFIG),
        ("start.elf", "old firmware"),
        ("My notes.txt", "mine"),
    ] {
        assert_eq!(device.read(1, name), text, "{name}");
    }
    // Until the restart, nothing changes.
    assert_eq!(device.run("boot-files"), "boot files: new ones take effect at the next restart\n");
    assert_eq!(device.sector(0), sector);

    device.started_by(&identity);
    assert_eq!(device.run("boot-files"), "boot files: up to date\n");
    assert_eq!(device.report(), serde_json::json!({"state": "current"}));
    assert_eq!((device.sector(0), device.sector(FORMER)), (sector, [0; 512]));
    assert_eq!(read_to_string(device.folder.path("data/berrymse/state/boot-files")).unwrap(), "");
    // The former half keeps its files, but not its passwords.
    assert_eq!(device.read(0, "boot.scr"), "old script");
    assert_eq!(device.read(0, "berrymse.toml").trim_matches('\0'), "");

    // The next update uses the first half again.
    device.release("newer script");
    device.run("boot-files");
    assert_eq!(device.sector(0), former);
    assert_eq!(device.read(0, "boot.scr"), "newer script");
}

#[test]
fn configuration_changed_during_a_trial_survives_the_return() {
    let device = Device::new();
    let former = device.sector(0);
    device.release("broken script");
    device.run("boot-files");
    let edited = "[[camera]]\nname = \"edited\"\n";
    device.write(1, "berrymse.toml", edited);
    // With the new half in use, the configuration in use is the edited one.
    device.folder.write("boot/berrymse.toml", edited);
    device.run("apply");
    // boot.scr returns to the former half, where the configuration is as before.
    device.card.write_all_at(&former, 0).unwrap();
    device.folder.write("boot/berrymse.toml", CONFIG);
    device.run("apply");
    assert_eq!(read_to_string(device.folder.path("boot/berrymse.toml")).unwrap(), edited);
    assert_eq!(read_to_string(device.folder.path("data/berrymse/berrymse.toml")).unwrap(), edited);
    let output = device.run("boot-files");
    assert!(
        output.starts_with("boot files: not updated: the new boot files did not lead to"),
        "{output}"
    );
    assert_eq!(device.report()["state"], "reverted");
    // A later change is not undone.
    device.folder.write("boot/berrymse.toml", CONFIG);
    device.run("apply");
    assert_eq!(read_to_string(device.folder.path("boot/berrymse.toml")).unwrap(), CONFIG);
}

#[test]
fn damaged_boot_partition_is_reported_and_left_unchanged() {
    let device = Device::new();
    device.release("new script");
    let fsck = "#!/bin/sh\necho 'fsck.fat 4.2 (2021-01-31)'\necho 'FATs differ'\nexit 1\n";
    device.folder.write("bin/fsck.fat", fsck);
    let before = device.sector(0);
    let output = device.run("boot-files");
    assert!(output.contains("not updated: the boot partition is damaged"), "{output}");
    assert!(output.contains("FATs differ"), "{output}");
    assert_eq!(device.report()["state"], "refused");
    assert_eq!(device.sector(0), before);
}

#[test]
fn machine_without_boot_files_reports_nothing() {
    let device = Device::new();
    assert_eq!(device.run("boot-files"), "");
    assert!(!device.folder.path("run/berrymse/boot-files.json").exists());
}
