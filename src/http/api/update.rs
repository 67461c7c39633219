//! `/api/update`: the state of updates, and a new one.

use crate::http::access::requester;
use crate::http::body::{self, Body, BodyError};
use crate::http::context::Context;
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

/// Maximum size of a bundle, in bytes. No slot holds more.
const MAX_BUNDLE: u64 = 1024 * 1024 * 1024;

/// Space that must stay free beside an upload, in bytes.
const MARGIN: u64 = 16 * 1024 * 1024;

/// Maximum size of a JSON request, in bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// Header that allows an upload to be older than the running system.
const DOWNGRADE: &str = "berrymse-downgrade";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Request {
    /// Address of the bundle.
    url: Option<String>,
    /// Allow a version older than the running one.
    downgrade: bool,
    /// Only look for a newer version.
    check: bool,
}

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
    let report = warp::reply::json(&context.updater.report().await);
    Ok(warp::reply::with_status(report, status).into_response())
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
            let message = "no update address is configured: set url under [update]";
            return Err(ApiError::new(StatusCode::CONFLICT, message));
        };
        return match updater.check_for_update(url).await {
            Ok(_) => Ok(StatusCode::OK),
            Err(error) => Err(ApiError::new(StatusCode::BAD_GATEWAY, error.to_string())),
        };
    }
    let busy = "another update is being installed: wait until it has finished";
    let permit = updater.begin().ok_or(ApiError::new(StatusCode::CONFLICT, busy))?;
    if json {
        match request.url {
            Some(url) if is_web_address(&url) => Updater::install(permit, url, request.downgrade),
            _ => {
                permit.give_back();
                let message = "name the bundle: {\"url\": \"https://…\"}";
                return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
            }
        }
        return Ok(StatusCode::ACCEPTED);
    }
    let downgrade = headers.get(DOWNGRADE).is_some_and(|value| value == "true");
    let permit = receive(permit, updater, headers, body).await?;
    Updater::install(permit, updater.upload().display().to_string(), downgrade);
    Ok(StatusCode::ACCEPTED)
}

async fn read_request(body: &mut Body) -> Result<Request, ApiError> {
    let text = body::read(body, MAX_REQUEST).await?;
    serde_json::from_slice(&text).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("not a valid request: {error}"))
    })
}

/// Writes an upload to its file, piece by piece.
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
    Empty,
    TooLarge,
    NoRoom { size: u64, room: u64 },
    Body(BodyError),
    Write(io::Error, String),
}

impl std::fmt::Display for UploadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UploadError::Empty => f.write_str("empty upload: send the bundle as the body"),
            UploadError::TooLarge => {
                write!(f, "the file exceeds {} MiB, the maximum for an update", MAX_BUNDLE >> 20)
            }
            UploadError::NoRoom { size, room } => write!(
                f,
                "not enough space: the update needs {} MiB, {} MiB are free",
                size >> 20,
                room >> 20
            ),
            UploadError::Body(error) => write!(f, "the upload ended early: {error}"),
            UploadError::Write(error, file) => write!(f, "cannot write {file}: {error}"),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> ApiError {
        let status = match &error {
            UploadError::Empty | UploadError::Body(_) => StatusCode::BAD_REQUEST,
            UploadError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            UploadError::NoRoom { .. } => StatusCode::INSUFFICIENT_STORAGE,
            UploadError::Write(error, _) => match error.kind() {
                io::ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        ApiError::Status(status, error.to_string())
    }
}

async fn write_upload(
    updater: &Updater,
    length: Option<u64>,
    mut body: Body,
) -> Result<(), UploadError> {
    let path = updater.upload();
    let cannot = |error| UploadError::Write(error, path.display().to_string());
    let (file, free) = create(path).map_err(cannot)?;
    let room = free.saturating_sub(MARGIN);
    let check = |size: u64| match size {
        _ if size > MAX_BUNDLE => Err(UploadError::TooLarge),
        _ if size > room => Err(UploadError::NoRoom { size, room }),
        _ => Ok(()),
    };
    check(length.unwrap_or(1))?;
    let mut file = Some(file);
    let mut received = 0;
    while let Some(piece) = body::next(&mut body).await.map_err(UploadError::Body)? {
        received += piece.len() as u64;
        check(received)?;
        // A slow card must not delay the pictures.
        let Some(mut out) = file.take() else { break };
        let task = tokio::task::spawn_blocking(move || out.write_all(&piece).map(|()| out));
        let written = task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        file = Some(written.map_err(cannot)?);
        updater.received(received, length);
    }
    match received {
        0 => Err(UploadError::Empty),
        _ => Ok(()),
    }
}

/// A new file, and the free space of its file system in bytes.
fn create(path: &Path) -> io::Result<(File, u64)> {
    let _ = std::fs::remove_file(path);
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        std::fs::create_dir(folder)?;
    }
    let file = File::create_new(path)?;
    let room = rustix::fs::fstatvfs(&file)?;
    Ok((file, room.f_bavail * room.f_frsize))
}
