//! Updates of the whole system with RAUC (rauc.io).
//!
//! RAUC verifies signatures, writes the inactive slot and makes the boot loader boot it next. This
//! module receives bundles as uploads or from a URL, compares their versions with the running one,
//! and reports progress and errors. After the restart, `berrymse health` decides whether the new
//! system is kept.
//!
//! ```text
//! upload ──► file on /data ─┐
//!                           ├─► inspect ─────► newer version? ──► install ──► restart
//! URL ──────────────────────┘   (signature)
//! ```

pub mod announcement;
pub mod error;
pub mod rauc;
pub mod report;
pub mod schedule;
pub mod updater;
pub mod version;

pub use error::UpdateError;
pub use report::{FellBack, Report};
pub use updater::{Permit, Updater};
