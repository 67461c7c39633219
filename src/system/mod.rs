//! What the configuration sets on the machine: host name, network, Wi-Fi, SSH keys, time zone.
//!
//! `berrymse apply` does it early at every start of the appliance, as root. Everything is written
//! anew from the configuration alone, so nothing of an earlier one is left, and what has not changed
//! is not written again. The radio is kept by `berrymse wifi`, which obeys a change at once.

mod apply;
mod files;
pub mod helper;
mod journal;
mod last_good;
pub mod mdns;
mod mounts;
mod network;
pub mod notify;
pub mod wifi;

pub use apply::{Paths, Report, apply};
pub use files::replace;
pub use last_good::{Found, as_shipped, load, problem_at_start};
