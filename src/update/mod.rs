//! Updates of the whole system, through RAUC (rauc.io).
//!
//! RAUC checks signatures, writes the slot that does not run and tells the boot loader to start it
//! next. Here is what is around that: a bundle comes as an upload or from an address, its version
//! is compared with the running one, progress and errors are told in plain words. Whether the new
//! system is kept is decided after its start, by `berrymse health`.
//!
//! ```text
//! upload ──► file on /data ─┐
//!                           ├─► looked into ──► version newer? ──► installed ──► restart
//! address ──────────────────┘   (signature)
//! ```

pub mod announcement;
pub mod rauc;
pub mod report;
pub mod schedule;
pub mod updater;
pub mod version;

pub use report::{FellBack, Report};
pub use updater::{Permit, Updater};
