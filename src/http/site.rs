//! The page and its script, which are part of the executable.

use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, IF_NONE_MATCH,
};
use rust_embed::RustEmbed;
use warp::reply::Response;

#[derive(RustEmbed)]
#[folder = "web/"]
struct Files;

/// The file at `path`, if there is one.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let name = if path == "/" { "index.html" } else { path.strip_prefix('/')? };
    let file = Files::get(name)?;
    let kind = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("webmanifest") => "application/manifest+json",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    let hash = file.metadata.sha256_hash();
    let tag: String = hash[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = HeaderValue::try_from(format!("\"{tag}\"")).ok()?;
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|known| known == tag);
    let mut response = Response::default();
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        response = Response::new(file.data.into_owned().into());
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(ETAG, tag);
    if name == "settings.html" {
        // No other site may show it and guide somebody's clicks.
        let policy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    }
    // Asked for again each time, answered with "not modified": an update shows at once.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Scripts of type module are only loaded from other sites with this.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Some(response)
}
