//! The HTTP API under `/api`, and `/healthz`.

pub(super) mod config;
pub(crate) mod status;
pub(super) mod update;
pub(super) mod wifi;
