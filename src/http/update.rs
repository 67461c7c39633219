//! `/api/update`: how updates stand, and a new one.

use super::Context;
use super::server::plain;
use super::settings::{Body, next, wrong_method};
use crate::update::check::is_web_address;
use crate::update::{Permit, Updater};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use warp::Reply;
use warp::reply::Response;

/// A larger bundle fits into no slot, bytes.
const MAX_BUNDLE: u64 = 1024 * 1024 * 1024;

/// What must stay free beside an upload, bytes.
const MARGIN: u64 = 16 * 1024 * 1024;

/// A request in JSON is not larger than this, bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// Says that an upload may be older than what runs.
const DOWNGRADE: &str = "berrymse-downgrade";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Request {
    /// Where the bundle is.
    url: Option<String>,
    /// It may be older than what runs.
    downgrade: bool,
    /// Only look whether there is a newer one.
    check: bool,
}

type Refused = (StatusCode, String);

/// `GET /api/update`, `POST /api/update`
pub(super) async fn update(
    method: Method,
    context: Arc<Context>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(refusal) = context.door.check_own_page(&headers) {
        return plain(refusal.status, &refusal.message);
    }
    let status = match method {
        Method::GET | Method::HEAD => StatusCode::OK,
        Method::POST => match post(&context, &headers, body).await {
            Ok(status) => status,
            Err((status, why)) => return plain(status, &why),
        },
        _ => return wrong_method("GET, HEAD, POST"),
    };
    let report = warp::reply::json(&context.updater.report().await);
    warp::reply::with_status(report, status).into_response()
}

async fn post(
    context: &Context,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<StatusCode, Refused> {
    let updater = &context.updater;
    updater.available().await.map_err(|why| (StatusCode::NOT_IMPLEMENTED, why))?;
    let json = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("application/json")));
    let request = if json { read_request(&mut body).await? } else { Request::default() };
    if request.check {
        let Some(url) = &context.update_url else {
            let why = "no url is configured under [update]: nobody knows where to look";
            return Err((StatusCode::CONFLICT, why.into()));
        };
        return match updater.look(url).await {
            Ok(_) => Ok(StatusCode::OK),
            Err(why) => Err((StatusCode::BAD_GATEWAY, why)),
        };
    }
    let busy = "another update is being installed: wait for its end";
    let permit = updater.begin().ok_or((StatusCode::CONFLICT, busy.into()))?;
    if json {
        match request.url {
            Some(url) if is_web_address(&url) => Updater::install(permit, url, request.downgrade),
            _ => {
                permit.give_back();
                let why = "name the bundle: {\"url\": \"https://…\"}";
                return Err((StatusCode::BAD_REQUEST, why.into()));
            }
        }
        return Ok(StatusCode::ACCEPTED);
    }
    let downgrade = headers.get(DOWNGRADE).is_some_and(|value| value == "true");
    let permit = receive(permit, updater, headers, body).await?;
    Updater::install(permit, updater.upload().display().to_string(), downgrade);
    Ok(StatusCode::ACCEPTED)
}

async fn read_request(body: &mut Body) -> Result<Request, Refused> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let mut text = vec![];
    while let Some(piece) = next(body).await.map_err(bad)? {
        if text.len() + piece.len() > MAX_REQUEST {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "that is too much".into()));
        }
        text.extend_from_slice(&piece);
    }
    serde_json::from_slice(&text).map_err(|error| bad(format!("this is no request: {error}")))
}

/// Writes an upload to its file, piece by piece.
async fn receive(
    permit: Permit,
    updater: &Updater,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<Permit, Refused> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let written = async {
        let (file, room) = create(updater.upload())?;
        let large = |bytes: u64| match bytes {
            _ if bytes > MAX_BUNDLE => Some((
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("an update has at most {} MiB", MAX_BUNDLE >> 20),
            )),
            _ if bytes + MARGIN > room => Some((
                StatusCode::INSUFFICIENT_STORAGE,
                format!(
                    "the update has {} MiB, and there is room for {} MiB",
                    bytes >> 20,
                    room.saturating_sub(MARGIN) >> 20
                ),
            )),
            _ => None,
        };
        if let Some(refused) = large(length.unwrap_or(1)) {
            return Err(refused);
        }
        let mut file = Some(file);
        let mut received = 0;
        let early = |why| (StatusCode::BAD_REQUEST, format!("the upload ended early: {why}"));
        while let Some(piece) = next(&mut body).await.map_err(early)? {
            received += piece.len() as u64;
            if let Some(refused) = large(received) {
                return Err(refused);
            }
            // A slow card must not hold up the pictures.
            let Some(mut out) = file.take() else { break };
            let task = move || out.write_all(&piece).map(|()| out);
            let written = tokio::task::spawn_blocking(task).await;
            let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            file = Some(written.map_err(|error| cannot(updater.upload(), &error))?);
            updater.received(received, length);
        }
        if received == 0 {
            return Err((StatusCode::BAD_REQUEST, "send the bundle as the body".into()));
        }
        Ok(())
    };
    match written.await {
        Ok(()) => Ok(permit),
        Err((status, why)) => {
            permit.fail(&why);
            Err((status, why))
        }
    }
}

/// A new file, and the room beside it.
fn create(path: &Path) -> Result<(File, u64), Refused> {
    let open = || {
        let _ = std::fs::remove_file(path);
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            std::fs::create_dir(folder)?;
        }
        let file = File::create_new(path)?;
        let room = rustix::fs::fstatvfs(&file)?;
        Ok((file, room.f_bavail * room.f_frsize))
    };
    open().map_err(|error| cannot(path, &error))
}

fn cannot(path: &Path, error: &std::io::Error) -> Refused {
    let why = format!("{} cannot be written: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull => (StatusCode::INSUFFICIENT_STORAGE, why),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}
