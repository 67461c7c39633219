//! BerryMSE: a camera's H.264, live in any browser, at the least delay.
//!
//! The way of a frame, one direction, one copy:
//!
//! ```text
//! camera ──► access unit ──► fragment ──► stream ──► viewer 1..n
//! (thread)    h264/          fmp4/        stream.rs   http/live.rs → socket → <berry-mse>
//! ```
//!
//! [`h264`] and [`fmp4`] are pure: bytes in, bytes out, no clock, no I/O. Sockets, devices and
//! clocks stand at the rim, in [`camera`] and [`http`]. `docs/architecture.md` has the picture.

pub mod access;
pub mod camera;
pub mod cli;
pub mod config;
pub mod fetch;
pub mod fmp4;
pub mod h264;
pub mod http;
pub mod paths;
pub mod process;
pub mod serve;
pub mod settings;
pub mod shutdown;
pub mod stream;
pub mod system;
pub mod update;
pub mod websocket;
