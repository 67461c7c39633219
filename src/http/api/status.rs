//! `/api/status` and `/healthz`: the state of the server, for pages and monitoring.

use crate::camera::Status;
use crate::http::access::requester;
use crate::http::connections::ConnectionPermit;
use crate::http::context::Context;
use crate::http::lost::{self, SinceUpdate};
use crate::http::reply::{ApiError, plain};
use crate::system::camera_record::RecordedCamera;
use hyper::StatusCode;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderValue, ORIGIN, VARY};
use serde::Serialize;
use std::sync::Arc;
use warp::Reply;
use warp::reply::Response;

/// Message for a configuration without cameras. In this case, no camera is opened automatically,
/// because a typo in the configuration must not make a camera public.
pub(crate) const NO_CAMERA: &str = "no camera is configured: add a [[camera]] to the configuration";

/// The body of the reply.
#[derive(Serialize)]
struct StatusReply {
    version: &'static str,
    /// Time since the program started, in seconds.
    uptime: u64,
    /// Whether a password is required.
    password: bool,
    /// Why the server would refuse to stream to this client. Browsers do not report why a WebSocket
    /// handshake was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    /// Errors in the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    config_error: Option<String>,
    /// Whether the configuration takes full effect only after a restart of the machine.
    reboot_needed: bool,
    /// Names of cameras that delivered video before an update, and do not now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_cameras: Vec<String>,
    cameras: Vec<Status>,
}

/// `GET /api/status`
pub(in crate::http) fn status(context: Arc<Context>, headers: HeaderMap) -> Response {
    // Apply the rules for WebSocket handshakes, not those for reading.
    let foreign = context.access.check_origin(requester(&headers)).err();
    let allowed = headers.get(ORIGIN).filter(|_| foreign.is_none()).cloned();
    let none = context.cameras.is_empty().then(|| format!("{NO_CAMERA}."));
    let reply = StatusReply {
        version: env!("CARGO_PKG_VERSION"),
        uptime: context.started.elapsed().as_secs(),
        password: !context.access.is_open(),
        refusal: foreign.map(|denied| denied.to_string()).or(none),
        config_error: context.settings.problem.clone(),
        reboot_needed: context.settings.reboot,
        missing_cameras: SinceUpdate::new(&context).missing.into_iter().map(|c| c.name).collect(),
        cameras: context.cameras.iter().map(|camera| camera.status()).collect(),
    };
    let mut response = warp::reply::json(&reply).into_response();
    // A web site that may show the stream may also read the status.
    if let Some(origin) = allowed {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Origin"));
    response
}

/// `GET /healthz`: 200 if every camera delivers frames, otherwise 503 and a list of the cameras
/// that do not. The list contains only names and states, because this path requires no password.
///
/// In a new system, the list also contains the cameras that were lost with the update.
pub(in crate::http) fn health(context: Arc<Context>) -> Response {
    let mut unhealthy = lost::required_but_missing(&context).unwrap_or_default();
    for status in context.cameras.iter().map(|camera| camera.status()) {
        let prefix = lost::prefix(&status.name);
        let is_listed = unhealthy.iter().any(|line| line.starts_with(&prefix));
        if !status.healthy() && !is_listed {
            unhealthy.push(format!("{prefix}{}", status.state));
        }
    }
    health_reply(&unhealthy)
}

/// `GET /healthz/update`: like `/healthz`, but in a new system only for the cameras that delivered
/// frames before the update.
pub(in crate::http) fn health_since_update(context: Arc<Context>) -> Response {
    match lost::required_but_missing(&context) {
        Some(unhealthy) => health_reply(&unhealthy),
        None => health(context),
    }
}

fn health_reply(unhealthy: &[String]) -> Response {
    match unhealthy.is_empty() {
        true => plain(StatusCode::OK, "ok"),
        false => plain(StatusCode::SERVICE_UNAVAILABLE, &unhealthy.join("\n")),
    }
}

/// `GET /healthz/cameras`: the cameras that have delivered frames within the last hour, and what they
/// showed. This is recorded before an update. This path requires no password, but replies only to this machine.
pub(in crate::http) fn recent_cameras(
    context: Arc<Context>,
    permit: Option<Arc<ConnectionPermit>>,
) -> Result<Response, ApiError> {
    if !permit.is_some_and(|permit| permit.is_local()) {
        let message = "only programs on this machine may read this list";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let recent = context.cameras.iter().filter_map(|camera| {
        let kind = camera.shown_recently()?.into();
        Some(RecordedCamera { name: camera.config.name.clone(), kind })
    });
    Ok(warp::reply::json(&recent.collect::<Vec<_>>()).into_response())
}
