//! V4L2 devices: cameras that deliver H.264, and raw cameras with an encoder behind them.
//!
//! ```text
//! camera with H.264:   driver's buffer ──────────────────────────────► access unit
//! raw camera:          driver's buffer ──► encoder ──► driver's buffer ──► access unit
//!                                   (DMA-BUF, or one copy)
//! ```
//!
//! A camera's thread waits in poll(2) for the driver. Each buffer is copied once, into the fragment,
//! and goes back to the driver at once.

pub mod capture;
pub mod clock;
pub mod controls;
pub mod device;
pub mod encoder;
pub mod find;
pub mod holders;
mod image;
pub mod listing;
pub mod node;
pub mod queue;
pub mod watch;
