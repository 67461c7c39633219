//! Settings of the machine: host name, network, Wi-Fi, SSH keys and time zone.
//!
//! `berrymse apply` runs as root, early in every boot of the appliance. It first takes over the
//! settings that Raspberry Pi Imager left on the card. Then it derives all files from the
//! configuration alone, so that nothing from an earlier configuration remains, and does not write
//! files that have not changed. `berrymse wifi` manages the wireless interface and applies changes
//! immediately.

mod apply;
pub mod boot_files;
mod boot_lock;
pub mod camera_record;
pub mod error;
mod files;
pub mod helper;
mod journal;
mod last_good;
pub mod mdns;
mod mounts;
pub mod network;
pub mod notify;
mod preseed;
pub mod wifi;

pub use apply::{Paths, Report, apply};
pub use error::SystemError;
pub use files::replace;
pub use last_good::{Found, as_shipped, load, with_problems_at_start};
