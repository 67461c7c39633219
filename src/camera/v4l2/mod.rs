//! V4L2 devices: cameras that deliver H.264, and raw cameras with an encoder.
//!
//! ```text
//! camera with H.264:   driver's buffer ──────────────────────────────► access unit
//! raw camera:          driver's buffer ──► encoder ──► driver's buffer ──► access unit
//!                                   (DMA-BUF, or one copy)
//! ```
//!
//! A camera's thread waits for the driver in poll(2). The thread copies each buffer once, into the
//! fragment, and returns the buffer to the driver immediately.

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
pub mod sensor;
pub mod watch;
