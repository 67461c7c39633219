//! `/api/status` and `/healthz`: how it is doing, for pages and for watchers.

use super::Context;
use super::server::plain;
use crate::camera::Status;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderValue, ORIGIN, VARY};
use hyper::{Method, StatusCode};
use serde::Serialize;
use std::sync::Arc;
use warp::Reply;
use warp::reply::Response;

/// Of a configuration without cameras. There is no picture, and no search for one: whoever asked for a
/// password is not to show a camera to everybody because of a mistake in a name.
pub(crate) const NO_CAMERA: &str = "no camera is configured: add a [[camera]] to the configuration";

#[derive(Serialize)]
struct Answer {
    version: &'static str,
    /// Seconds since the program started.
    uptime: u64,
    /// Whether a password is asked for.
    password: bool,
    /// Why this caller would not be let in to a stream: a browser does not show a page what a
    /// WebSocket was refused for.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    /// What is wrong with the configuration's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    config_error: Option<String>,
    /// The machine has to be restarted for what is configured.
    reboot_needed: bool,
    cameras: Vec<Status>,
}

/// `GET /api/status`
pub(super) fn status(context: Arc<Context>, headers: HeaderMap) -> Response {
    // As strict as for what changes something; so it is for a WebSocket.
    let foreign = context.door.check_origin(&Method::POST, &headers).err();
    let allowed = headers.get(ORIGIN).filter(|_| foreign.is_none()).cloned();
    let none = context.cameras.is_empty().then(|| format!("{NO_CAMERA}."));
    let answer = Answer {
        version: env!("CARGO_PKG_VERSION"),
        uptime: context.started.elapsed().as_secs(),
        password: !context.door.is_open(),
        refusal: foreign.map(|refusal| refusal.message).or(none),
        config_error: context.settings.problem.clone(),
        reboot_needed: context.settings.reboot,
        cameras: context.cameras.iter().map(|camera| camera.status()).collect(),
    };
    let mut response = warp::reply::json(&answer).into_response();
    // A page of another site may read it if it may have the picture, too.
    if let Some(origin) = allowed {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Origin"));
    response
}

/// `GET /healthz`: 200 while every camera delivers frames, otherwise 503 and which one does not.
/// Names and states only: it is the one path that needs no password.
pub(super) fn health(context: Arc<Context>) -> Response {
    let statuses = context.cameras.iter().map(|camera| camera.status());
    let ill: Vec<String> = statuses
        .filter(|status| !status.healthy())
        .map(|status| format!("camera {:?}: {}", status.name, status.state))
        .collect();
    if ill.is_empty() {
        plain(StatusCode::OK, "ok")
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, &ill.join("\n"))
    }
}
