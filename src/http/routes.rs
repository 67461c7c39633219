//! Route table.

use crate::http::api::{config, status, update, wifi};
use crate::http::body::boxed;
use crate::http::connections::ConnectionPermit;
use crate::http::context::Context;
use crate::http::reply::ApiError;
use crate::http::{endless, live, metrics, site};
use crate::stream::fanout::Fanout;
use hyper::header::HeaderMap;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, StatusCode};
use std::convert::Infallible;
use std::sync::Arc;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

/// Returns the routes of the whole server.
pub(super) fn all(
    context: Arc<Context>,
    fanouts: Arc<[Arc<Fanout>]>,
) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
    let with = move || {
        let context = context.clone();
        warp::any().map(move || context.clone())
    };
    let read = || {
        warp::method()
            .and_then(|method| async move {
                match method {
                    Method::GET | Method::HEAD => Ok(()),
                    _ => Err(warp::reject::custom(MethodNotAllowed)),
                }
            })
            .untuple_one()
    };

    let streams = with()
        .and(warp::any().map(move || fanouts.clone()))
        .and(warp::path::full())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::optional::<Arc<ConnectionPermit>>())
        .and(warp::header::headers_cloned())
        .and_then(stream);
    let api = warp::path!("api" / "status")
        .and(with())
        .and(warp::header::headers_cloned())
        .map(status::status);
    let health = warp::path!("healthz").and(with()).map(status::health);
    let since_update =
        warp::path!("healthz" / "update").and(with()).map(status::health_since_update);
    let recent = warp::path!("healthz" / "cameras")
        .and(with())
        .and(warp::ext::optional::<Arc<ConnectionPermit>>())
        .map(|context, permit| reply(status::recent_cameras(context, permit)));
    let health = health.or(since_update).unify().or(recent).unify();
    let metrics = warp::path!("metrics").and(with()).map(metrics::metrics);
    let site = warp::path::full().and(warp::header::headers_cloned()).and_then(site);

    let changes = |path: BoxedFilter<()>| {
        path.and(warp::method()).and(with()).and(warp::header::headers_cloned())
    };
    let config = changes(warp::path!("api" / "config").boxed())
        .and(warp::body::stream().map(boxed))
        .then(config::config)
        .map(reply);
    let update = changes(warp::path!("api" / "update").boxed())
        .and(warp::body::stream().map(boxed))
        .then(update::update)
        .map(reply);
    let wifi = changes(warp::path!("api" / "wifi").boxed())
        .and(warp::body::stream().map(boxed))
        .then(wifi::wifi)
        .map(reply);
    let reboot = changes(warp::path!("api" / "reboot").boxed()).then(config::reboot).map(reply);

    let read: BoxedFilter<(Response,)> = read()
        .and(api.or(health).unify().or(metrics).unify().or(streams).unify().or(site).unify())
        .boxed();
    let routes =
        config.or(update).unify().or(wifi).unify().or(reboot).unify().or(read).unify().boxed();
    routes.recover(recover).unify()
}

fn reply(result: Result<Response, impl Into<ApiError>>) -> Response {
    result.unwrap_or_else(|error| error.into().into_response())
}

/// Rejection of methods other than GET and HEAD.
#[derive(Debug)]
struct MethodNotAllowed;

impl warp::reject::Reject for MethodNotAllowed {}

async fn recover(rejection: Rejection) -> Result<Response, Infallible> {
    let error = match rejection.find::<MethodNotAllowed>() {
        Some(_) => ApiError::Method("GET, HEAD"),
        None => ApiError::new(StatusCode::NOT_FOUND, "not found"),
    };
    Ok(error.into_response())
}

async fn site(path: FullPath, headers: HeaderMap) -> Result<Response, Rejection> {
    site::file(path.as_str(), &headers).ok_or_else(warp::reject::not_found)
}

/// `GET /live…` and `GET /video_websocket`
async fn stream(
    context: Arc<Context>,
    fanouts: Arc<[Arc<Fanout>]>,
    path: FullPath,
    upgrade: Option<OnUpgrade>,
    permit: Option<Arc<ConnectionPermit>>,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    let Some((name, format)) = parse(path.as_str()) else { return Err(warp::reject::not_found()) };
    let found = context.position(name).and_then(|n| context.cameras.get(n).zip(fanouts.get(n)));
    let Some((camera, fanout)) = found else {
        let names: Vec<String> =
            context.cameras.iter().map(|camera| format!("{:?}", camera.config.name)).collect();
        let names = if names.is_empty() { "none".into() } else { names.join(", ") };
        let message = format!("no camera {:?}; configured: {names}", name.unwrap_or("1"));
        return Ok(ApiError::new(StatusCode::NOT_FOUND, message).into_response());
    };
    if !context.has_room() {
        let limit = context.server.max_viewers;
        let message = format!("viewer limit reached (max_viewers = {limit}): try again later");
        return Ok(ApiError::Busy(message).into_response());
    }
    Ok(match format {
        Format::WebSocket(dialect) => {
            let connection = upgrade.zip(permit);
            reply(live::accept(&headers, connection, camera, fanout, dialect, &context))
        }
        Format::Mp4 => endless::mp4(camera, &context),
        Format::H264 => endless::h264(camera, &context),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    WebSocket(live::Dialect),
    Mp4,
    H264,
}

/// Returns the camera and the format that the path of a stream specifies: `/live`, `/live/front`,
/// `/live.mp4`, `/live/front.h264`, …
fn parse(path: &str) -> Option<(Option<&str>, Format)> {
    if path == "/video_websocket" {
        return Some((None, Format::WebSocket(live::Dialect::Legacy)));
    }
    let rest = path.strip_prefix("/live")?;
    let (rest, format) = match rest {
        _ if rest.ends_with(".mp4") => (&rest[..rest.len() - 4], Format::Mp4),
        _ if rest.ends_with(".h264") => (&rest[..rest.len() - 5], Format::H264),
        _ => (rest, Format::WebSocket(live::Dialect::Live)),
    };
    match rest.strip_prefix('/') {
        None if rest.is_empty() => Some((None, format)),
        Some(name) if !name.is_empty() && !name.contains('/') => Some((Some(name), format)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_stream_paths() {
        let live = Format::WebSocket(live::Dialect::Live);
        assert_eq!(parse("/live"), Some((None, live)));
        assert_eq!(parse("/live/front"), Some((Some("front"), live)));
        assert_eq!(parse("/live.mp4"), Some((None, Format::Mp4)));
        assert_eq!(parse("/live/front.mp4"), Some((Some("front"), Format::Mp4)));
        assert_eq!(parse("/live.h264"), Some((None, Format::H264)));
        assert_eq!(
            parse("/video_websocket"),
            Some((None, Format::WebSocket(live::Dialect::Legacy)))
        );
        for path in ["/livefront", "/live/", "/live/a/b", "/live/.mp4", "/", "/lives.mp4"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
