//! `/api/wifi`: the wireless network, for a phone that has joined the access point. Also redirects
//! the requests with which phones check for Internet access (captive portal detection) to the
//! settings page.

use super::config::saved;
use crate::access::Denied;
use crate::config::edit::with_wifi;
use crate::config::{Config, ConfigError, Ssid, Wifi};
use crate::http::access::{check_host, requester};
use crate::http::body::{self, Body};
use crate::http::context::Context;
use crate::http::reply::{ApiError, plain};
use crate::system::mdns::host_name;
use crate::system::wifi::ADDRESS;
use hyper::header::{HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use warp::Reply;
use warp::reply::Response;

/// Maximum size of a request body, in bytes.
const MAX_REQUEST: usize = 4096;

/// The JSON body of a `PUT`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WifiRequest {
    ssid: String,
    psk: Option<String>,
    country: String,
}

/// Returns the report of `berrymse wifi`, or `None` if it manages no wireless network.
fn report(context: &Context) -> Option<Value> {
    let text = std::fs::read(&context.settings.wifi).ok()?;
    serde_json::from_slice::<Value>(&text).ok().filter(Value::is_object)
}

/// Redirects a request for another host to the settings page while the access point is running. All
/// host names then resolve to this machine. Operating systems then show the page to the user.
pub(in crate::http) fn captive<B>(context: &Context, request: &Request<B>) -> Option<Response> {
    let is_foreign = matches!(check_host(&context.access, request), Err(Denied::UnknownHost(_)));
    if !is_foreign || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    report(context)?.get("access_point")?.as_str()?;
    let mut response = plain(StatusCode::FOUND, "this is the BerryMSE access point");
    let page = HeaderValue::try_from(format!("http://{ADDRESS}/settings.html")).ok()?;
    response.headers_mut().insert(LOCATION, page);
    Some(response)
}

/// `GET /api/wifi`, `PUT /api/wifi`
pub(in crate::http) async fn wifi(
    method: Method,
    context: Arc<Context>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    context.access.check_own_page(requester(&headers))?;
    match method {
        Method::GET | Method::HEAD => Ok(warp::reply::json(&state(&context)).into_response()),
        Method::PUT => put(&context, body).await,
        _ => Err(ApiError::Method("GET, HEAD, PUT")),
    }
}

fn state(context: &Context) -> Value {
    let Some(mut report) = report(context) else { return json!({ "available": false }) };
    report["available"] = true.into();
    report["host"] = host_name().into();
    let configured = Config::load(&context.settings.file).ok().and_then(|file| file.network.wifi);
    if let Some(wifi) = configured {
        report["ssid"] = wifi.ssid.to_string().into();
        if let Some(country) = wifi.country {
            report["country"] = country.into();
        }
    }
    report
}

async fn put(context: &Context, mut body: Body) -> Result<Response, ApiError> {
    let text = body::read(&mut body, MAX_REQUEST).await?;
    let WifiRequest { ssid, psk, country } = serde_json::from_slice(&text)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    if report(context).is_none() {
        let message = "BerryMSE manages no wireless network on this machine";
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message));
    }
    let ssid = Ssid::new(ssid).map_err(|error| ApiError::Invalid(ConfigError::new(error, None)))?;
    let wifi = Wifi { ssid, psk, country: Some(country) };
    let cameras = context.configs();
    let change = context.settings.change(None, &cameras, |old| with_wifi(old, &wifi));
    Ok(saved(change.await?))
}
