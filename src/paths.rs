//! Well-known paths of the appliance. Each is the default of a command-line option.

/// Configuration file on the boot partition.
pub const CONFIG: &str = "/boot/berrymse.toml";

/// Directory for everything that outlives a restart: uploads, and the reason for a failed update.
pub const DATA: &str = "/data/berrymse";

/// Copy of the last configuration that was valid.
pub const LAST_GOOD: &str = "/data/berrymse/berrymse.toml";

/// Name of the wireless network that was joined before.
pub const WIFI_STATE: &str = "/data/berrymse/state/wifi";

/// Errors in the configuration, as `berrymse apply` found them.
pub const CONFIG_ERROR: &str = "/run/berrymse/config-error";

/// Socket of `berrymse root-helper`.
pub const ROOT_HELPER: &str = "/run/berrymse/root";

/// State of the wireless network, as `berrymse wifi` reports it (JSON).
pub const WIFI_REPORT: &str = "/run/berrymse/wifi.json";

/// Present while SSH is allowed to start.
pub const SSH: &str = "/run/berrymse/ssh";
