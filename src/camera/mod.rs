//! Sources of H.264 and their supervision.
//!
//! Each camera has its own thread. The thread opens the source and passes every access unit to the
//! stream. When the source ends or fails, the thread reports the reason, waits, and reopens the
//! source.
//!
//! ```text
//! thread "camera front":  open ─► access units ─► Output ─► Stream
//!                          ▲            │ ends, fails, stalls
//!                          └── back-off ◄┘
//! ```

mod auto;
pub mod command;
pub mod error;
pub mod kind;
pub mod rpicam;
mod search;
pub mod source;
pub mod status;
mod stop;
pub mod supervisor;
pub mod test_card;
pub mod v4l2;

pub use error::SourceError;
pub use kind::CameraKind;
pub use source::Output;
pub use status::{Camera, Status};
pub use stop::Stop;
pub use supervisor::Cameras;
