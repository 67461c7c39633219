//! `/api/config` and `/api/reboot`: read and save the configuration file, and restart the machine.
//!
//! Only this machine's own page and clients other than browsers may use these paths. Web sites in
//! `origins` may show the stream, but can neither read nor change the configuration. Two rules
//! apply to all clients:
//!
//! - A server without a password shows `********` in place of each password in the file. Saving
//!   `********` keeps the password.
//! - A client can add neither a program to run nor an SSH key. A `command` or an SSH key is
//!   accepted only if the file already contains it.

use crate::config::secrets::{masked, unmasked};
use crate::config::{Config, ConfigError, MAX_CONFIG};
use crate::http::access::requester;
use crate::http::body::{self, Body};
use crate::http::context::Context;
use crate::http::reply::{ApiError, plain};
use crate::settings::Settings;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH};
use hyper::{Method, StatusCode};
use serde_json::json;
use std::sync::Arc;
use warp::Reply;
use warp::reply::Response;

/// `GET /api/config`, `PUT /api/config`
pub(in crate::http) async fn config(
    method: Method,
    context: Arc<Context>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    context.access.check_own_page(requester(&headers))?;
    match method {
        Method::GET | Method::HEAD => get(&context),
        Method::PUT => put(&context, &headers, body).await,
        _ => Err(ApiError::Method("GET, HEAD, PUT")),
    }
}

/// `POST /api/reboot`
pub(in crate::http) async fn reboot(
    method: Method,
    context: Arc<Context>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    context.access.check_own_page(requester(&headers))?;
    if method != Method::POST {
        return Err(ApiError::Method("POST"));
    }
    context.settings.restart().await?;
    Ok(plain(StatusCode::ACCEPTED, "restarting"))
}

fn get(context: &Context) -> Result<Response, ApiError> {
    let text = Config::read(&context.settings.file).map_err(|error| {
        let hint = "save a configuration here to create or replace it";
        ApiError::new(StatusCode::NOT_FOUND, format!("{error}; {hint}"))
    })?;
    let etag = Settings::tag(&text);
    let shown = match context.access.is_open() {
        true => masked(&text)
            .map_err(|error| ApiError::new(StatusCode::FORBIDDEN, error.to_string()))?,
        false => text,
    };
    let mut response = Response::new(shown.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.extend(HeaderValue::try_from(etag).map(|tag| (ETAG, tag)));
    Ok(response)
}

async fn put(context: &Context, headers: &HeaderMap, mut body: Body) -> Result<Response, ApiError> {
    let text = body::read(&mut body, MAX_CONFIG).await?;
    let text = String::from_utf8(text)
        .map_err(|_| ConfigError::new("not UTF-8 text: save the file as UTF-8", None))?;
    // A tag that is not text matches no version.
    let expected = headers.get(IF_MATCH).map(|tag| tag.to_str().unwrap_or_default());
    let cameras = context.configs();
    let change = context.settings.change(expected, &cameras, |old| unmasked(&text, old));
    Ok(saved(change.await?))
}

/// Returns the reply to a change that has been saved. `reboot` states whether the change requires a
/// restart of the machine.
pub(in crate::http) fn saved(reboot: bool) -> Response {
    warp::reply::json(&json!({ "reboot": reboot })).into_response()
}
