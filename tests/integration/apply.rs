//! `berrymse apply`: how the configuration is applied to a machine, here a directory in place of `/`.

use crate::support::{Folder, Server, berrymse};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory in place of a machine's `/`.
struct Machine(Folder);

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE you@home";

impl Machine {
    fn new() -> Machine {
        let folder = Folder::new();
        for name in ["boot", "usr/share/zoneinfo/Europe"] {
            std::fs::create_dir_all(folder.path(name)).unwrap();
        }
        folder.write("usr/share/zoneinfo/UTC", "TZif");
        folder.write("usr/share/zoneinfo/Europe/Berlin", "TZif");
        Machine(folder)
    }

    fn configure(&self, text: impl AsRef<[u8]>) {
        self.0.write("boot/berrymse.toml", text);
    }

    /// Applies the configuration, which must succeed. Returns standard error.
    fn apply(&self) -> String {
        let (code, text) = self.try_apply();
        assert_eq!(code, Some(0), "{text}");
        text
    }

    fn try_apply(&self) -> (Option<i32>, String) {
        let mut apply = Command::new(berrymse());
        let output = apply.args(["apply", "--root"]).arg(self.0.path("")).output().unwrap();
        assert_eq!(output.stdout, b"");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.0.path(name)).unwrap().permissions().mode() & 0o777
    }

    fn has(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.0.path(name)).is_ok()
    }

    /// Returns the inode number and change time of every file. Replacing a file changes its inode number.
    fn files(&self) -> BTreeMap<PathBuf, (u64, i64, i64)> {
        fn walk(folder: &Path, files: &mut BTreeMap<PathBuf, (u64, i64, i64)>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = std::fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() {
                    walk(&path, files);
                }
                files.insert(path, (meta.ino(), meta.ctime(), meta.ctime_nsec()));
            }
        }
        let mut files = BTreeMap::new();
        walk(&self.0.path(""), &mut files);
        files
    }
}

#[test]
fn writes_every_setting_to_its_file() {
    let machine = Machine::new();
    machine.configure(format!(
        "[system]\nhostname = \"Cam-1\"\ntimezone = \"Europe/Berlin\"\nssh_keys = [\"{KEY}\"]\n\
         [network]\naddress = \"10.0.0.9/8\"\ngateway = \"10.0.0.1\"\ndns = [\"10.0.0.2\"]\n\
         wifi = {{ ssid = \"home\", psk = \"a secret\", country = \"de\" }}\n"
    ));
    assert_eq!(machine.apply(), "");
    assert_eq!(machine.read("etc/hostname"), "cam-1\n");
    assert!(machine.read("etc/hosts").contains("127.0.1.1\tcam-1\n"));
    // The address is for the wireless interface, which `berrymse wifi` configures.
    assert!(machine.read("etc/network/interfaces").contains("iface eth0 inet dhcp\n"));
    assert!(machine.read("etc/resolv.conf").contains("nameserver 10.0.0.2\n"));
    let wifi = machine.read("etc/wpa_supplicant.conf");
    assert!(wifi.contains("psk=\"a secret\"\n") && wifi.contains("country=DE\n"), "{wifi}");
    assert_eq!(machine.mode("etc/wpa_supplicant.conf"), 0o600);
    let zone = std::fs::read_link(machine.0.path("etc/localtime")).unwrap();
    assert_eq!(zone, Path::new("/usr/share/zoneinfo/Europe/Berlin"));
    assert_eq!(machine.read("etc/timezone"), "Europe/Berlin\n");
    assert_eq!(machine.read("root/.ssh/authorized_keys"), format!("{KEY}\n"));
    assert_eq!(machine.mode("root/.ssh/authorized_keys"), 0o600);
    assert_eq!(machine.mode("root/.ssh"), 0o700);
    assert!(machine.has("run/berrymse/ssh"));
    assert!(!machine.has("run/berrymse/config-error"));
    assert_eq!(machine.read("data/berrymse/berrymse.toml"), machine.read("boot/berrymse.toml"));
    assert_eq!(machine.mode("data/berrymse/berrymse.toml"), 0o640);
}

#[test]
fn removes_settings_that_are_no_longer_configured() {
    let machine = Machine::new();
    machine.configure("# Nothing is set.\n");
    machine.apply();
    let plain = machine.read("etc/network/interfaces");
    assert!(!machine.has("run/berrymse/ssh"));
    machine.configure(format!(
        "[system]\nhostname = \"x\"\ntimezone = \"Europe/Berlin\"\nssh_keys = ['{KEY}']\n\
         [network]\nwifi = {{ ssid = \"home\", country = \"DE\" }}\n"
    ));
    machine.apply();
    assert!(machine.has("run/berrymse/ssh"));
    machine.configure("# Nothing is set.\n");
    machine.apply();
    assert_eq!(machine.read("etc/hostname"), "berrymse\n");
    assert_eq!(machine.read("etc/network/interfaces"), plain);
    assert_eq!(machine.read("etc/timezone"), "UTC\n");
    for gone in ["etc/wpa_supplicant.conf", "run/berrymse/ssh", "root/.ssh/authorized_keys"] {
        assert!(!machine.has(gone), "{gone}");
    }
}

#[test]
fn writes_nothing_if_nothing_has_changed() {
    let machine = Machine::new();
    for config in [
        format!(
            "[system]\nssh_keys = ['{KEY}']\ntimezone = \"Europe/Berlin\"\n\
             [network]\nwifi = {{ ssid = \"home\", country = \"DE\" }}\n"
        ),
        "[broken".into(),
    ] {
        machine.configure(config);
        machine.apply();
        let before = machine.files();
        machine.apply();
        assert_eq!(machine.files(), before);
    }
}

#[test]
fn keeps_the_last_good_configuration_and_reports_the_position_of_the_error() {
    let machine = Machine::new();
    let file = machine.0.path("boot/berrymse.toml");
    machine.configure("[system]\nhostname = \"good\"\n");
    machine.apply();
    for (broken, place) in [
        (&b"[system]\nhostname = \"bad\"\ntimezon = \"UTC\"\n"[..], ":3:1: no such key"),
        (b"[system]\nhostname = \"b\xff\"\n", ":2:14: not UTF-8"),
        (b"[system]\nhostname = \"evil\\nname\"\n", ":2:12: "),
    ] {
        machine.configure(broken);
        let said = machine.apply();
        assert!(said.contains(&format!("{}{place}", file.display())), "{said}");
        assert!(said.contains("the last good configuration is used"), "{said}");
        assert!(machine.read("run/berrymse/config-error").contains(place));
        assert_eq!(machine.read("etc/hostname"), "good\n");
        assert!(machine.read("data/berrymse/berrymse.toml").contains("good"));
    }
    std::fs::remove_file(&file).unwrap();
    assert!(machine.apply().contains("no such file"));
    assert_eq!(machine.read("etc/hostname"), "good\n");
    machine.configure("[system]\nhostname = \"better\"\n");
    assert_eq!(machine.apply(), "");
    assert_eq!(machine.read("etc/hostname"), "better\n");
    assert!(!machine.has("run/berrymse/config-error"));
}

#[test]
fn configures_the_network_without_any_valid_configuration() {
    let machine = Machine::new();
    machine.configure("[server]\npassword = secret\n");
    let said = machine.apply();
    assert!(said.contains(":2:12: ") && said.contains("no camera is configured"), "{said}");
    assert_eq!(machine.read("etc/hostname"), "berrymse\n");
    assert!(machine.read("etc/network/interfaces").contains("iface eth0 inet dhcp\n"));
    assert!(!machine.has("data/berrymse/berrymse.toml"));
}

#[test]
fn reports_an_unknown_time_zone_and_applies_the_rest() {
    let machine = Machine::new();
    machine.configure("[system]\nhostname = \"cam\"\ntimezone = \"Europe/Berln\"\n");
    let said = machine.apply();
    assert!(said.contains("berrymse.toml:3:12: ") && said.contains("\"Europe/Berln\""), "{said}");
    assert!(machine.read("run/berrymse/config-error").contains(":3:12: "));
    assert_eq!(machine.read("etc/timezone"), "UTC\n");
    assert_eq!(machine.read("etc/hostname"), "cam\n");
    // A directory is not a time zone.
    machine.configure("[system]\ntimezone = \"Europe\"\n");
    assert!(machine.apply().contains(":2:12: "));
}

/// Values that would add lines to the configuration files of other programs.
#[test]
fn rejects_values_with_line_breaks_and_commands() {
    let machine = Machine::new();
    machine.configure("# Nothing is set.\n");
    machine.apply();
    let before = machine.files();
    for value in [
        "[system]\nhostname = \"a\\nb\"",
        "[system]\nhostname = \"a b\"",
        "[system]\ntimezone = \"../../etc/shadow\"",
        "[system]\nssh_keys = [\"ssh-rsa AAAA\\ncommand=\\\"x\\\" ssh-rsa BBBB\"]",
        "[system]\nssh_keys = [\"ssh-rsa AAAA\\rssh-rsa BBBB\"]",
        "[system]\nssh_keys = [\"command=\\\"x\\\" ssh-rsa AAAA\"]",
        "[network]\naddress = \"10.0.0.9/8\\n\\tup rm -r /\"\ngateway = \"10.0.0.1\"",
        "[network]\nwifi = { ssid = \"x\", psk = \"12345678\\n}\", country = \"DE\" }",
        "[network]\nwifi = { ssid = \"x\", psk = \"12345678\", country = \"D\\n\" }",
    ] {
        machine.configure(value);
        let said = machine.apply();
        assert!(said.contains("berrymse.toml:2:"), "{value}\n{said}");
        let mut after = machine.files();
        after.retain(|path, _| before.contains_key(path) && path.is_file());
        for (path, stamp) in after {
            if !path.ends_with("boot/berrymse.toml") {
                assert_eq!(stamp, before[&path], "{value}\n{}", path.display());
            }
        }
    }
}

/// A file that cannot be written must not leave the machine without a network.
#[test]
fn reports_files_that_cannot_be_written_and_writes_the_rest() {
    let machine = Machine::new();
    machine.configure(format!("[system]\nssh_keys = ['{KEY}']\n"));
    machine.0.write("root", "a file where a directory should be");
    let (code, said) = machine.try_apply();
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot write ") && said.contains("root/.ssh: "), "{said}");
    assert!(machine.has("etc/network/interfaces") && machine.has("etc/timezone"));
}

/// FAT can leave an empty file after a power cut or when the card is removed.
#[test]
fn treats_an_empty_file_as_invalid() {
    let machine = Machine::new();
    machine.configure("[system]\nhostname = \"kept\"\n");
    machine.apply();
    for empty in ["", "\n", "\0\0\0\0"] {
        machine.configure(empty);
        let said = machine.apply();
        assert!(said.contains("the file is empty") && said.contains("last good"), "{said}");
        assert_eq!(machine.read("etc/hostname"), "kept\n");
        assert!(machine.read("data/berrymse/berrymse.toml").contains("kept"));
    }
}

/// `serve` uses the same fallback as `apply`, and reports it in the log and the status.
#[tokio::test]
async fn serve_falls_back_to_the_last_good_configuration() {
    let machine = Machine::new();
    machine.configure("[[camera]]\nname = \"kept\"\nsource = \"test-card\"\n");
    machine.apply();
    let copy = machine.0.path("data/berrymse/berrymse.toml");
    let copy = copy.to_str().unwrap();
    let server = Server::start_as("[[camera]]\nnaem = 1\n", &["--last-good", copy], &[]).await;
    let status = server.status().await;
    assert_eq!(status["cameras"][0]["name"], "kept");
    let error = status["config_error"].as_str().unwrap();
    assert!(error.contains(":2:1: no such key: `naem`"), "{error}");
    assert!(server.log().contains("no such key: `naem`"));
    let url = format!("http://{}", server.address);
    let health = Command::new(berrymse()).args(["health", "--url", &url]).output().unwrap();
    assert_eq!(health.status.code(), Some(0), "{health:?}");

    let missing = machine.0.path("missing.toml");
    let options = ["--last-good", missing.to_str().unwrap()];
    let server = Server::start_as("[server]\npassword = secret\n", &options, &[]).await;
    let status = server.status().await;
    assert_eq!(
        status["cameras"],
        serde_json::json!([]),
        "without the password, no camera may be shown"
    );
    assert!(status["config_error"].as_str().unwrap().contains(":2:12: "));
    // The page shows this in place of the picture.
    assert!(status["refusal"].as_str().unwrap().contains("no camera is configured"));
}

const SHIPPED: &str = include_str!("../../appliance/berrymse.toml");

/// Text of the file that Raspberry Pi Imager writes beside the shipped configuration.
const PRESEED: &str = "config_version = \"1.0\"\n\n[system]\nhostname = \"garden\"\n\n[user]\nname = \"me\"\n\
                       password = \"$y$j9T$very-secret\"\npassword_encrypted = true\ngroups = [\"sudo\"]\n\n\
                       [ssh]\nenabled = true\npassword_authentication = false\nauthorized_keys = [\n  \
                       \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE you@home\",\n]\n\n[wlan]\nssid = \"Home\"\n\
                       password = \"5ec1e75ec1e75ec1e75ec1e75ec1e75ec1e75ec1e75ec1e75ec1e75ec1e75e01\"\n\
                       password_encrypted = true\nhidden = true\ncountry = \"DE\"\n\n[locale]\n\
                       keymap = \"de\"\ntimezone = \"Europe/Berlin\"\n";

/// A machine with the shipped configuration and with a file from Raspberry Pi Imager.
fn preseeded(preseed: impl AsRef<[u8]>) -> Machine {
    let machine = Machine::new();
    machine.configure(SHIPPED);
    machine.0.write("boot/rpi-preseed.toml", preseed);
    machine
}

#[test]
fn takes_over_the_settings_of_raspberry_pi_imager_once() {
    let machine = preseeded(PRESEED);
    let (file, copy) = (machine.0.path("boot/rpi-preseed.toml"), machine.0.path("copy"));
    std::fs::hard_link(&file, &copy).unwrap();
    let said = machine.apply();
    let first = format!("berrymse: {}: applied: ", file.display());
    assert!(said.starts_with(&first) && said.contains("Wi-Fi network"), "{said}");
    for word in ["`user`: has no effect", "`locale.keymap`: has no effect"] {
        assert!(
            said.contains(word) && machine.read("run/berrymse/config-error").contains(word),
            "{said}"
        );
    }
    assert!(!said.contains("secret") && !said.contains("5ec1e7"), "{said}");
    assert_eq!(machine.read("etc/hostname"), "garden\n");
    assert_eq!(machine.read("etc/timezone"), "Europe/Berlin\n");
    assert_eq!(machine.read("root/.ssh/authorized_keys"), format!("{KEY}\n"));
    let wifi = machine.read("etc/wpa_supplicant.conf");
    for line in ["ssid=486f6d65", "scan_ssid=1", "psk=5ec1e7", "key_mgmt=WPA-PSK\n", "country=DE\n"]
    {
        assert!(wifi.contains(line), "{wifi}");
    }
    let config = machine.read("boot/berrymse.toml");
    assert!(config.starts_with(&SHIPPED[..1000]) && config.contains("\nhostname = \"garden\"\n"));
    assert_eq!(machine.read("data/berrymse/berrymse.toml"), config);
    // The secrets are overwritten before the file is removed.
    assert!(
        !machine.has("boot/rpi-preseed.toml") && !machine.has("data/berrymse/berrymse.preseed")
    );
    assert_eq!(std::fs::read(copy).unwrap(), vec![0; PRESEED.len()]);

    // The next start changes nothing, and later changes of the user stay.
    let before = machine.files();
    assert_eq!(machine.apply(), "");
    let mut after = machine.files();
    after.retain(|path, _| before.contains_key(path));
    for (path, stamp) in after.iter().filter(|(path, _)| path.is_file()) {
        assert_eq!(stamp, &before[path], "{}", path.display());
    }
    machine.configure(config.replace("\"garden\"", "\"kitchen\""));
    assert_eq!(machine.apply(), "");
    assert_eq!(machine.read("etc/hostname"), "kitchen\n");
    // A new file is taken over again.
    machine.0.write("boot/rpi-preseed.toml", "[system]\nhostname = \"attic\"\n");
    assert!(machine.apply().ends_with(": applied: host name\n"));
    assert_eq!(machine.read("etc/hostname"), "attic\n");
}

/// The states in which a power cut can leave the card while the file is being taken over.
#[test]
fn takes_over_the_settings_of_raspberry_pi_imager_despite_power_cuts() {
    let machine = preseeded(PRESEED);
    machine.apply();
    let (taken, marker) = (machine.read("boot/berrymse.toml"), "data/berrymse/berrymse.preseed");
    let digest = {
        use sha2::{Digest, Sha256};
        Sha256::digest(PRESEED).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    // Before the marker was written: everything is repeated, and changes nothing.
    machine.0.write("boot/rpi-preseed.toml", PRESEED);
    machine.apply();
    assert_eq!(machine.read("boot/berrymse.toml"), taken);
    // After that, while the file was being overwritten, and before the marker was removed.
    let half = [&[0; 256][..], &PRESEED.as_bytes()[256..]].concat();
    let zeros = vec![0; PRESEED.len()];
    for left in [Some(PRESEED.as_bytes()), Some(&half), Some(&zeros), Some(b""), None] {
        machine.configure(taken.replace("\"garden\"", "\"kitchen\""));
        machine.0.write(marker, &digest);
        if let Some(left) = left {
            machine.0.write("boot/rpi-preseed.toml", left);
        }
        assert_eq!(machine.apply(), "", "{left:?}");
        assert_eq!(machine.read("etc/hostname"), "kitchen\n");
        assert!(!machine.has("boot/rpi-preseed.toml") && !machine.has(marker), "{left:?}");
    }
    // Another file, written elsewhere in the meantime, is not a remainder.
    machine.0.write(marker, &digest);
    machine.0.write("boot/rpi-preseed.toml", "[system]\nhostname = \"attic\"\n");
    machine.apply();
    assert_eq!(machine.read("etc/hostname"), "attic\n");
    assert!(!machine.has(marker));
}

#[test]
fn keeps_everything_if_the_file_of_raspberry_pi_imager_is_broken() {
    let mut latin1 = PRESEED.as_bytes().to_vec();
    latin1.extend(b"# \xe4\n");
    let large = format!("{PRESEED}#{}\n", " ".repeat(1 << 16));
    for (broken, expected) in [
        (PRESEED.replace("[wlan]", "[wlan").into_bytes(), ":19:6: "),
        (latin1, ": not UTF-8"),
        (large.into_bytes(), ": is larger than 65536 bytes"),
        (vec![0; 2000], ":1:2001: "),
        (PRESEED.replace("1.0", "2.0").into_bytes(), ":1:18: unknown version"),
    ] {
        let machine = preseeded(&broken);
        let config = format!("{SHIPPED}\n").replace("#password = ", "password = ");
        machine.configure(&config);
        let said = machine.apply();
        let file = machine.0.path("boot/rpi-preseed.toml");
        assert!(said.contains(&format!("{}{expected}", file.display())), "{said}");
        assert!(said.contains("None of its settings was applied"), "{said}");
        assert!(machine.read("run/berrymse/config-error").contains(expected));
        assert!(!said.contains("secret") && !said.contains("5ec1e7"), "{said}");
        assert_eq!(machine.read("boot/berrymse.toml"), config);
        assert_eq!(std::fs::read(file).unwrap(), broken);
        assert_eq!(machine.read("etc/hostname"), "berrymse\n");
        assert!(machine.has("etc/network/interfaces"));
    }
    let machine = preseeded("");
    assert!(machine.apply().contains("the file contains no settings"));
    assert!(!machine.has("boot/rpi-preseed.toml"));
    // A folder instead of a file.
    std::fs::create_dir(machine.0.path("boot/rpi-preseed.toml")).unwrap();
    assert!(machine.apply().contains("is not a file"));
}

#[test]
fn takes_over_the_settings_of_raspberry_pi_imager_as_soon_as_it_can() {
    let machine = preseeded(PRESEED);
    // Saving fails.
    let obstacle = machine.0.path("boot/berrymse.toml.new");
    std::fs::create_dir(&obstacle).unwrap();
    let (code, said) = machine.try_apply();
    assert!(code == Some(1) && said.contains("cannot write "), "{code:?} {said}");
    assert_eq!(machine.read("boot/berrymse.toml"), SHIPPED);
    assert_eq!(machine.read("boot/rpi-preseed.toml"), PRESEED);
    std::fs::remove_dir(obstacle).unwrap();
    // The configuration is invalid.
    machine.configure("[broken");
    let said = machine.apply();
    assert!(said.contains("will be applied at the next start with a valid"), "{said}");
    assert_eq!(machine.read("boot/berrymse.toml"), "[broken");
    assert_eq!(machine.read("boot/rpi-preseed.toml"), PRESEED);
    machine.configure(SHIPPED);
    machine.apply();
    assert_eq!(machine.read("etc/hostname"), "garden\n");
    assert!(!machine.has("boot/rpi-preseed.toml"));
}

/// Raspberry Pi Imager 1 writes `firstrun.sh` beside every image.
#[test]
fn reports_files_that_configure_other_systems() {
    let machine = Machine::new();
    machine.configure(SHIPPED);
    for name in ["firstrun.sh", "wpa_supplicant.conf", "user-data"] {
        let file = machine.0.write(&format!("boot/{name}"), "secret");
        let said = machine.apply();
        let expected = format!("berrymse: {}: has no effect", file.display());
        assert!(said.starts_with(&expected) && said.contains("rpi-imager-manifest"), "{said}");
        assert!(machine.read("run/berrymse/config-error").contains(name));
        std::fs::remove_file(file).unwrap();
        assert_eq!(machine.apply(), "");
    }
}
