//! BerryMSE streams H.264 from a camera to any browser with the lowest possible latency.
//!
//! The path of a frame, which is copied once:
//!
//! ```text
//! camera ──► access unit ──► fragment ──► stream ──► viewers 1..n
//! camera/    h264/           fmp4/        stream/    http/live.rs ─► socket ─► <berry-mse>
//! ```
//!
//! [`h264`], [`fmp4`] and [`websocket`] only convert bytes: they use neither clocks nor I/O.
//! `docs/architecture.md` describes all modules.

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
