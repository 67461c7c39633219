//! The pages and the player's script, prepared and compressed by `build.rs`.

use headers::{ETag, HeaderMapExt, IfNoneMatch};
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, VARY,
};
use warp::reply::Response;

// Defines `struct Files`: the directories `identity` and `gzip`, which contain files with the same
// names.
include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Returns the response for the file at `path`, or `None` if no such file exists.
pub(super) fn file(path: &str, request: &HeaderMap) -> Option<Response> {
    let name = if path == "/" { "index.html" } else { path.strip_prefix('/')? };
    let compressed = prefers_gzip(request);
    let file = Files::get(&format!("{}/{name}", if compressed { "gzip" } else { "identity" }))?;
    let kind = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        // TypeScript reads this file from disk. A browser that opens it should display it.
        Some("ts") => "text/plain; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("webmanifest") => "application/manifest+json",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    // The two variants of a file differ in their bytes, so they need different entity tags.
    let hash = file.metadata.sha256_hash();
    let tag: String = hash[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag: ETag = format!("\"{tag}\"").parse().ok()?;
    let modified =
        request.typed_get::<IfNoneMatch>().is_none_or(|known| known.precondition_passes(&tag));
    let mut response = Response::default();
    if modified {
        response = Response::new(file.data.into_owned().into());
        if compressed {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    } else {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.typed_insert(tag);
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if name == "settings.html" {
        // Prevent other sites from embedding the page to trick people into clicking on it
        // (clickjacking).
        let policy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    }
    // Browsers revalidate the file on every visit, so an update takes effect immediately.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Without this header, other sites cannot load the player as a module script.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Some(response)
}

/// Returns whether the client accepts gzip and does not prefer the uncompressed file (RFC 9110,
/// 12.5.3).
///
/// A client that rejects both gets the uncompressed file, and so does a client that sends no
/// `Accept-Encoding`.
fn prefers_gzip(request: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut other) = (None, None, None);
    let values = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for element in values.flat_map(|value| value.split(',')) {
        let (coding, parameters) = element.split_once(';').unwrap_or((element, ""));
        let weight = weight(parameters);
        match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "identity" => identity = Some(weight),
            "*" => other = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(other).unwrap_or(0);
    // If identity is not listed, it is acceptable but least preferred. Other codings that are not
    // listed are not acceptable.
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// Returns the weight in parameters such as `q=0.5`, in thousandths: 1000 if there is no weight, 0
/// if it is malformed.
fn weight(parameters: &str) -> u16 {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return 1000;
    }
    let value = parameters.strip_prefix("q=").or_else(|| parameters.strip_prefix("Q="));
    match value.map(|value| value.split_once('.').unwrap_or((value, ""))) {
        Some(("1", zeros)) if zeros.len() <= 3 && zeros.bytes().all(|zero| zero == b'0') => 1000,
        Some(("0", digits))
            if digits.len() <= 3 && digits.bytes().all(|digit| digit.is_ascii_digit()) =>
        {
            format!("{digits:0<3}").parse().unwrap_or(0)
        }
        _ => 0,
    }
}

// Part of build.rs. Included here because Cargo does not run tests in build scripts.
#[cfg(test)]
#[path = "../../build/modules.rs"]
mod modules;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use hyper::header::{ETAG, IF_NONE_MATCH};

    fn get(path: &str, request: &[(hyper::header::HeaderName, &str)]) -> Option<Response> {
        let mut headers = HeaderMap::new();
        for (name, value) in request {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        file(path, &headers)
    }

    fn tag(response: &Response) -> &str {
        response.headers()[ETAG].to_str().unwrap()
    }

    #[test]
    fn selects_the_variant_by_accept_encoding() {
        let encoded = |value: &str| {
            let response = get("/", &[(ACCEPT_ENCODING, value)]).unwrap();
            response.headers().get(CONTENT_ENCODING).map(|coding| coding == "gzip") == Some(true)
        };
        for value in [
            "gzip",
            "GZIP",
            "x-gzip",
            "gzip, deflate",
            "deflate,gzip;q=0.001",
            "br;q=1.0, gzip;q=0.8, *;q=0.1",
            "gzip ; q=1.000",
            "*",
            "*;q=0.5",
            "identity;q=0, gzip;q=0.1",
            "identity;q=0.5, gzip;q=0.5",
            "gzip;Q=0.5",
            "identity;q=0, *",
        ] {
            assert!(encoded(value), "{value:?}");
        }
        for value in [
            "",
            "identity",
            "deflate, br",
            "gzip;q=0",
            "gzip;q=0.000",
            "gzip;q=0, *",
            "*;q=0",
            "identity, gzip;q=0.5",
            "identity;q=0.9, *;q=0.8",
            "gzip;q=2",
            "gzip;q=0.1234",
            "gzip;q=",
            "gzip;level=9",
            "gzipped",
        ] {
            assert!(!encoded(value), "{value:?}");
        }
        let split = [(ACCEPT_ENCODING, "br"), (ACCEPT_ENCODING, "gzip")];
        assert!(get("/", &split).unwrap().headers().contains_key(CONTENT_ENCODING));
    }

    #[tokio::test]
    async fn both_variants_decode_to_the_same_content() {
        for path in
            ["/", "/berrymse.js", "/berrymse.d.ts", "/page.css", "/settings.html", "/icon.svg"]
        {
            let plain = get(path, &[]).unwrap();
            let compressed = get(path, &[(ACCEPT_ENCODING, "gzip")]).unwrap();
            assert_ne!(tag(&plain), tag(&compressed), "{path}");
            for response in [&plain, &compressed] {
                assert_eq!(response.headers()[VARY], "Accept-Encoding", "{path}");
            }
            assert_eq!(plain.headers()[CONTENT_TYPE], compressed.headers()[CONTENT_TYPE]);
            let plain = plain.into_body().collect().await.unwrap().to_bytes();
            let compressed = compressed.into_body().collect().await.unwrap().to_bytes();
            assert!(compressed.len() < plain.len(), "{path}");
            let mut decoder = flate2::read::GzDecoder::new(&compressed[..]);
            let mut decoded = Vec::new();
            std::io::Read::read_to_end(&mut decoder, &mut decoded).unwrap();
            assert!(decoded == plain, "{path}");
        }
    }

    #[test]
    fn serves_only_the_files_of_the_site() {
        for path in [
            "/gzip/index.html",
            "/identity/index.html",
            "/../gzip/index.html",
            "//index.html",
            "/player/clock.js",
            "/README.md",
            "/package.json",
            "",
        ] {
            assert!(get(path, &[]).is_none(), "{path}");
        }
    }

    #[tokio::test]
    async fn confirms_a_cached_file_by_its_tag() {
        let gzip = (ACCEPT_ENCODING, "gzip");
        let known = tag(&get("/page.js", std::slice::from_ref(&gzip)).unwrap()).to_owned();
        let status = |value: &str| {
            get("/page.js", &[gzip.clone(), (IF_NONE_MATCH, value)]).unwrap().status()
        };
        for value in [
            known.clone(),
            format!("W/{known}"),
            format!("\"a,b\", {known}"),
            format!("W/\"x\",W/{known} , \"y\""),
            "*".to_owned(),
        ] {
            assert_eq!(status(&value), StatusCode::NOT_MODIFIED, "{value}");
        }
        for value in ["\"other\"", "W/\"other\"", "", known.trim_matches('"'), "nonsense"] {
            assert_eq!(status(value), StatusCode::OK, "{value}");
        }
        let two = [gzip.clone(), (IF_NONE_MATCH, "\"other\""), (IF_NONE_MATCH, &known)];
        let response = get("/page.js", &two).unwrap();
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        // RFC 9110, 15.4.5, requires the headers that a cache updates, and no body.
        assert_eq!(tag(&response), known);
        assert_eq!(response.headers()[VARY], "Accept-Encoding");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-cache");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
        // The tag of one variant does not validate the other.
        let plain = get("/page.js", &[(IF_NONE_MATCH, &known)]).unwrap();
        assert_eq!(plain.status(), StatusCode::OK);
    }

    #[test]
    fn the_player_is_a_single_module_without_comments() {
        let script = Files::get("identity/berrymse.js").unwrap();
        let script = std::str::from_utf8(&script.data).unwrap();
        assert!(script.contains("export class BerryMse"));
        assert!(script.contains("customElements.define('berry-mse'"));
        assert!(!script.contains("import "), "no imports are left");
        assert!(!script.contains("/**") && !script.contains("// "), "no comments are left");
    }

    /// The files that a browser loads before it shows the first picture are at most 16 kB in total.
    #[test]
    fn the_first_picture_needs_at_most_16_kb() {
        let size: usize = ["index.html", "page.css", "page.js", "berrymse.js", "icon.svg"]
            .iter()
            .map(|name| Files::get(&format!("gzip/{name}")).unwrap().data.len())
            .sum();
        assert!(size <= 16_000, "{size} bytes compressed");
    }
}
