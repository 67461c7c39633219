//! The web server: the page, the streams and the API.
//!
//! ```text
//! accept ─► access policy ─► warp routes ─┬─ site         the page and its script
//!  server     access           routes     ├─ live         WebSocket viewers
//!                                         ├─ endless      .mp4 and .h264 over HTTP
//!                                         ├─ api/status   /api/status, /healthz
//!                                         ├─ api/config   /api/config, /api/reboot
//!                                         ├─ api/update   /api/update
//!                                         ├─ api/wifi     /api/wifi
//!                                         └─ metrics      /metrics
//! ```

pub mod access;
mod api;
mod body;
mod connections;
mod context;
mod endless;
pub mod handshake;
mod live;
mod lost;
mod metrics;
mod reply;
mod routes;
mod server;
mod site;

pub(crate) use api::status::NO_CAMERA;
pub use context::Context;
pub use server::{ListenError, Server, listen};
