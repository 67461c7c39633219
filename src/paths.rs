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
