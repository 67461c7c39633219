//! Well-known paths of the appliance. Most are defaults of command-line options.

/// Configuration file on the boot partition.
pub const CONFIG: &str = "/boot/berrymse.toml";

/// Directory for persistent data, such as uploads and the error message from the last failed
/// update.
pub const DATA: &str = "/data/berrymse";

/// Last good configuration.
pub const LAST_GOOD: &str = "/data/berrymse/berrymse.toml";

/// File with the name of the last wireless network that was joined.
pub const WIFI_STATE: &str = "/data/berrymse/state/wifi";

/// Errors that `berrymse apply` found in the configuration.
pub const CONFIG_ERROR: &str = "/run/berrymse/config-error";

/// Socket of `berrymse root-helper`.
pub const ROOT_HELPER: &str = "/run/berrymse/root";

/// State of the wireless network, reported by `berrymse wifi` (JSON).
pub const WIFI_REPORT: &str = "/run/berrymse/wifi.json";

/// Mount point of the boot partition.
pub const BOOT: &str = "/boot";

/// Directory with links to the card and its partitions.
pub const DEVICES: &str = "/dev/berrymse";

/// Layout of the card.
pub const LAYOUT: &str = "/usr/share/berrymse/layout";

/// Boot files of this release.
pub const BOOT_FILES: &str = "/usr/share/berrymse/boot";

/// State of the last update of the boot files.
pub const BOOT_FILES_STATE: &str = "/data/berrymse/state/boot-files";

/// Which boot files are in use, reported by `berrymse boot-files` (JSON).
pub const BOOT_FILES_REPORT: &str = "/run/berrymse/boot-files.json";

/// Lock on the boot partition.
pub const BOOT_LOCK: &str = "/run/berrymse/boot.lock";

/// Script that mounts the boot partition again after it has moved.
pub const REMOUNT_BOOT: &str = "/usr/lib/berrymse/remount-boot";

/// Exists while the mounted boot partition is not the one that the next start uses.
pub const BOOT_MOVED: &str = "/run/berrymse/boot-moved";
