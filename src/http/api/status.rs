//! `/api/status` and `/healthz`: the server's state, for pages and for monitoring.

use crate::camera::Status;
use crate::http::access::requester;
use crate::http::context::Context;
use crate::http::reply::plain;
use hyper::StatusCode;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderValue, ORIGIN, VARY};
use serde::Serialize;
use std::sync::Arc;
use warp::Reply;
use warp::reply::Response;

/// State of a configuration without cameras. No camera is searched for then: a typo in a key must not
/// publish a picture.
pub(crate) const NO_CAMERA: &str = "no camera is configured: add a [[camera]] to the configuration";

#[derive(Serialize)]
struct Answer {
    version: &'static str,
    /// Seconds since the program started.
    uptime: u64,
    /// A password is required.
    password: bool,
    /// Why a stream would be refused to this client: browsers hide the reason when a WebSocket is
    /// refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    /// What is wrong with the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    config_error: Option<String>,
    /// The configuration takes effect only after a restart of the machine.
    reboot_needed: bool,
    cameras: Vec<Status>,
}

/// `GET /api/status`
pub(in crate::http) fn status(context: Arc<Context>, headers: HeaderMap) -> Response {
    // The rules for WebSockets are those for requests that change something.
    let foreign = context.access.check_origin(requester(&headers)).err();
    let allowed = headers.get(ORIGIN).filter(|_| foreign.is_none()).cloned();
    let none = context.cameras.is_empty().then(|| format!("{NO_CAMERA}."));
    let answer = Answer {
        version: env!("CARGO_PKG_VERSION"),
        uptime: context.started.elapsed().as_secs(),
        password: !context.access.is_open(),
        refusal: foreign.map(|denied| denied.to_string()).or(none),
        config_error: context.settings.problem.clone(),
        reboot_needed: context.settings.reboot,
        cameras: context.cameras.iter().map(|camera| camera.status()).collect(),
    };
    let mut response = warp::reply::json(&answer).into_response();
    // Another site may read the status if it may show the picture.
    if let Some(origin) = allowed {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Origin"));
    response
}

/// `GET /healthz`: 200 while every camera delivers frames, otherwise 503 and the cameras that do not.
/// Names and states only: this path needs no password.
pub(in crate::http) fn health(context: Arc<Context>) -> Response {
    let statuses = context.cameras.iter().map(|camera| camera.status());
    let unhealthy: Vec<String> = statuses
        .filter(|status| !status.healthy())
        .map(|status| format!("camera {:?}: {}", status.name, status.state))
        .collect();
    if unhealthy.is_empty() {
        plain(StatusCode::OK, "ok")
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, &unhealthy.join("\n"))
    }
}
