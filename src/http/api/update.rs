//! `/api/update`: reports the state of updates, checks for a newer version and starts an update.

use crate::http::access::requester;
use crate::http::body::{self, Body, BodyError};
use crate::http::context::Context;
use crate::http::lost::SinceUpdate;
use crate::http::reply::ApiError;
use crate::update::announcement::is_web_address;
use crate::update::updater::{Permit, Updater};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use warp::Reply;
use warp::reply::Response;

/// Maximum size of a bundle, in bytes. No slot is larger.
const MAX_BUNDLE: u64 = 1024 * 1024 * 1024;

/// Minimum free space after an upload, in bytes.
const MIN_FREE_BYTES: u64 = 16 * 1024 * 1024;

/// Maximum size of a JSON request, in bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// Request header that permits an upload older than the running system.
const DOWNGRADE_HEADER: &str = "berrymse-downgrade";

/// The JSON body of a `POST`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Request {
    /// URL of the bundle.
    url: Option<String>,
    /// Whether the bundle may be older than the running system.
    downgrade: bool,
    /// Whether to only check for a newer version.
    check: bool,
    /// Whether to only allow the new system to lose cameras.
    without_cameras: bool,
}

/// Error message while an update is in progress.
const BUSY: &str = "another update is being installed: wait until it finishes";

/// `GET /api/update`, `POST /api/update`
pub(in crate::http) async fn update(
    method: Method,
    context: Arc<Context>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    context.access.check_own_page(requester(&headers))?;
    let status = match method {
        Method::GET | Method::HEAD => StatusCode::OK,
        Method::POST => post(&context, &headers, body).await?,
        _ => return Err(ApiError::Method("GET, HEAD, POST")),
    };
    let mut report = context.updater.report().await;
    SinceUpdate::new(&context).add_to(&mut report);
    Ok(warp::reply::with_status(warp::reply::json(&report), status).into_response())
}

async fn post(
    context: &Context,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<StatusCode, ApiError> {
    let updater = &context.updater;
    updater
        .available()
        .await
        .map_err(|error| ApiError::new(StatusCode::NOT_IMPLEMENTED, error.to_string()))?;
    let json = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("application/json")));
    let request = if json { read_request(&mut body).await? } else { Request::default() };
    if request.check {
        let Some(url) = &context.update_url else {
            let message = "no update URL is configured: set url under [update]";
            return Err(ApiError::new(StatusCode::CONFLICT, message));
        };
        return match updater.check_for_update(url).await {
            Ok(_) => Ok(StatusCode::OK),
            Err(error) => Err(ApiError::new(StatusCode::BAD_GATEWAY, error.to_string())),
        };
    }
    if request.without_cameras {
        allow_missing_cameras(context).await?;
        return Ok(StatusCode::OK);
    }
    let permit = updater.begin().ok_or(ApiError::new(StatusCode::CONFLICT, BUSY))?;
    if json {
        match request.url {
            Some(url) if is_web_address(&url) => Updater::install(permit, url, request.downgrade),
            _ => {
                permit.give_back();
                let message = "missing or invalid bundle URL: send {\"url\": \"https://…\"}";
                return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
            }
        }
        return Ok(StatusCode::ACCEPTED);
    }
    let downgrade = headers.get(DOWNGRADE_HEADER).is_some_and(|value| value == "true");
    let permit = receive(permit, updater, headers, body).await?;
    Updater::install(permit, updater.upload().display().to_string(), downgrade);
    Ok(StatusCode::ACCEPTED)
}

/// Allows the new system to lose cameras. If the old one runs again because of them, makes the boot
/// loader start the new one again after a restart.
async fn allow_missing_cameras(context: &Context) -> Result<(), ApiError> {
    let updater = &context.updater;
    if updater.is_busy() {
        return Err(ApiError::new(StatusCode::CONFLICT, BUSY));
    }
    let since = SinceUpdate::new(context);
    if since.missing.is_empty() && since.lost.is_empty() {
        let message = "no camera is missing since the last update: nothing has been changed";
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    let failed = updater.report().await.fell_back.filter(|_| !since.lost.is_empty());
    context.settings.require_no_cameras().await?;
    log::info!("the update may lose cameras, as requested over the network");
    if let Some(failed) = failed {
        let result = updater.retry(&failed).await;
        result.map_err(|error| {
            let message = format!(
                "cannot start the new system again: {error}: install the update again, it may now \
                 lose cameras"
            );
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        })?;
    }
    Ok(())
}

async fn read_request(body: &mut Body) -> Result<Request, ApiError> {
    let text = body::read(body, MAX_REQUEST).await?;
    serde_json::from_slice(&text).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("invalid request: {error}"))
    })
}

/// Receives an upload. If this fails, the reason is also recorded through the permit.
async fn receive(
    permit: Permit,
    updater: &Updater,
    headers: &HeaderMap,
    body: Body,
) -> Result<Permit, ApiError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match write_upload(updater, length, body).await {
        Ok(()) => Ok(permit),
        Err(error) => {
            permit.fail(&error.to_string());
            Err(error.into())
        }
    }
}

/// Why an upload was not stored.
#[derive(Debug)]
enum UploadError {
    /// The body is empty.
    Empty,
    /// The bundle exceeds [`MAX_BUNDLE`].
    TooLarge,
    /// The free space is insufficient. Holds the required and the free space, in bytes.
    NoSpace { size: u64, free: u64 },
    /// The body could not be read.
    Body(BodyError),
    /// The file with this path could not be written.
    Write(io::Error, String),
}

impl std::fmt::Display for UploadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UploadError::Empty => f.write_str("empty upload: send the bundle as the body"),
            UploadError::TooLarge => {
                write!(f, "the file exceeds {} MiB, the maximum for an update", MAX_BUNDLE >> 20)
            }
            UploadError::NoSpace { size, free } => write!(
                f,
                "not enough space: the update requires {} MiB, {} MiB are free",
                size >> 20,
                free >> 20
            ),
            UploadError::Body(error) => write!(f, "cannot receive the upload: {error}"),
            UploadError::Write(error, file) => write!(f, "cannot write {file}: {error}"),
        }
    }
}

impl std::error::Error for UploadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UploadError::Body(error) => Some(error),
            UploadError::Write(error, _) => Some(error),
            UploadError::Empty | UploadError::TooLarge | UploadError::NoSpace { .. } => None,
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> ApiError {
        let status = match &error {
            UploadError::Empty | UploadError::Body(_) => StatusCode::BAD_REQUEST,
            UploadError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            UploadError::NoSpace { .. } => StatusCode::INSUFFICIENT_STORAGE,
            UploadError::Write(error, _) => match error.kind() {
                io::ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        ApiError::Status(status, error.to_string())
    }
}

/// Writes the body to the upload file. `length` is the value of `Content-Length`, if given.
async fn write_upload(
    updater: &Updater,
    length: Option<u64>,
    mut body: Body,
) -> Result<(), UploadError> {
    let path = updater.upload();
    let write_error = |error| UploadError::Write(error, path.display().to_string());
    let (file, free) = create(path).map_err(write_error)?;
    let free = free.saturating_sub(MIN_FREE_BYTES);
    let check = |size: u64| match size {
        _ if size > MAX_BUNDLE => Err(UploadError::TooLarge),
        _ if size > free => Err(UploadError::NoSpace { size, free }),
        _ => Ok(()),
    };
    check(length.unwrap_or(1))?;
    let mut file = Some(file);
    let mut received = 0;
    while let Some(piece) = body::next(&mut body).await.map_err(UploadError::Body)? {
        received += piece.len() as u64;
        check(received)?;
        // Writing to a slow card must not block the tasks of viewers.
        let Some(mut out) = file.take() else { break };
        let task = tokio::task::spawn_blocking(move || out.write_all(&piece).map(|()| out));
        let written = task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        file = Some(written.map_err(write_error)?);
        updater.received(received, length);
    }
    match received {
        0 => Err(UploadError::Empty),
        _ => Ok(()),
    }
}

/// Creates or replaces a file. Returns it and the free space on its file system, in bytes.
fn create(path: &Path) -> io::Result<(File, u64)> {
    let _ = std::fs::remove_file(path);
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        std::fs::create_dir(directory)?;
    }
    let file = File::create_new(path)?;
    let stat = rustix::fs::fstatvfs(&file)?;
    Ok((file, stat.f_bavail * stat.f_frsize))
}
