//! Where H.264 comes from, and what keeps it coming.
//!
//! Each camera has a thread of its own. It opens the source, hands every access unit to the
//! stream, and when the source ends or fails, it says why, waits a little and opens it again: a
//! broken camera is an everyday case, not the end.
//!
//! ```text
//! thread "camera front":  open ─► access units ─► Output ─► Stream
//!                          ▲            │ ends, fails, stalls
//!                          └── back-off ◄┘
//! ```

mod auto;
pub mod command;
pub mod rpicam;
pub mod source;
pub mod status;
mod stop;
pub mod supervisor;
pub mod test_card;
pub mod v4l2;

pub use source::{Failure, Output};
pub use status::{Camera, Status};
pub use stop::Stop;
pub use supervisor::Cameras;
