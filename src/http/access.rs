//! Applies the access policy to HTTP requests: Host, Origin and password.
//!
//! A request has exactly one Host header (RFC 9112, 3.2). Only HTTP/1.0, which no browser sends, does
//! without.
//!
//! Clients send the password with HTTP Basic authentication (RFC 7617) and any user name. Every
//! path except `/healthz` and two below it requires it. The reply sets a cookie that takes the place
//! of the password, because Safari sends no password with a WebSocket handshake.

use super::reply::ApiError;
use crate::access::{AccessPolicy, Denied, Password, Requester};
use crate::system::network::is_own_name;
use headers::authorization::{Authorization, Basic};
use headers::{Cookie, HeaderMapExt};
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN, UPGRADE};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode, Version};
use std::time::Duration;

/// Name of the cookie that takes the place of the password.
const COOKIE: &str = "berrymse";

/// Paths that require no password.
const PUBLIC_PATHS: [&str; 3] = ["/healthz", "/healthz/update", "/healthz/cameras"];

/// Delay before the reply to a wrong password. It slows down guessing, but is acceptable after a
/// typo.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_secs(1);

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> ApiError {
        let status = match denied {
            Denied::NoHost | Denied::InvalidHost => StatusCode::BAD_REQUEST,
            Denied::UnknownHost(_) | Denied::ForeignOrigin(_) | Denied::NotOwnPage(_) => {
                StatusCode::FORBIDDEN
            }
            Denied::PasswordRequired | Denied::WrongPassword => StatusCode::UNAUTHORIZED,
        };
        ApiError::Status(status, denied.to_string())
    }
}

/// Returns the host and the origin of a request.
pub fn requester(headers: &HeaderMap) -> Requester<'_> {
    Requester {
        host: headers.get(HOST).and_then(|host| host.to_str().ok()),
        // An origin that is not text counts as present, but matches nothing.
        origin: headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default()),
    }
}

/// Returns the host of a request, or `None` for HTTP/1.0 without one.
fn host<B>(request: &Request<B>) -> Result<Option<&str>, Denied> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        let is_missing = !request.headers().contains_key(HOST);
        return match is_missing && request.version() == Version::HTTP_10 {
            true => Ok(None),
            false => Err(if is_missing { Denied::NoHost } else { Denied::InvalidHost }),
        };
    };
    let host = host.to_str().map_err(|_| Denied::InvalidHost)?;
    let authority = host.parse::<Authority>().map_err(|_| Denied::InvalidHost)?;
    let port = |authority: &Authority| authority.port_u16().unwrap_or(80);
    let matches = request.uri().authority().is_none_or(|target| {
        target.host().eq_ignore_ascii_case(authority.host()) && port(target) == port(&authority)
    });
    let rest = host.strip_prefix(authority.host());
    let has_valid_port = matches!(rest, Some("" | ":")) || authority.port_u16().is_some();
    match matches && has_valid_port && !host.contains('@') {
        true => Ok(Some(host)),
        false => Err(Denied::InvalidHost),
    }
}

/// Checks that a request is for this machine.
///
/// # Errors
///
/// Returns [`Denied::NoHost`], [`Denied::InvalidHost`] or [`Denied::UnknownHost`].
pub(super) fn check_host<B>(policy: &AccessPolicy, request: &Request<B>) -> Result<(), Denied> {
    match host(request)? {
        Some(host) => policy.check_host(host, is_own_name),
        None => Ok(()),
    }
}

/// Checks the origin of WebSocket handshakes and of requests that change state. Other requests are
/// allowed.
///
/// # Errors
///
/// See [`AccessPolicy::check_origin`].
pub fn check_origin(
    policy: &AccessPolicy,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Denied> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match reads && !headers.contains_key(UPGRADE) {
        true => Ok(()),
        false => policy.check_origin(requester(headers)),
    }
}

/// Checks whether a request is allowed. Returns the cookie that the reply must set, if any.
pub(super) async fn check<B>(
    policy: &AccessPolicy,
    request: &Request<B>,
) -> Result<Option<HeaderValue>, Denied> {
    check_host(policy, request)?;
    check_origin(policy, request.method(), request.headers())?;
    match policy.password() {
        Some(password) if !PUBLIC_PATHS.contains(&request.uri().path()) => {
            check_password(password, request.headers()).await
        }
        _ => Ok(None),
    }
}

async fn check_password(
    password: &Password,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, Denied> {
    let cookie = headers.typed_get::<Cookie>();
    if cookie
        .as_ref()
        .and_then(|cookies| cookies.get(COOKIE))
        .is_some_and(|c| password.is_session(c))
    {
        return Ok(None);
    }
    let Some(Authorization(basic)) = headers.typed_get::<Authorization<Basic>>() else {
        return Err(Denied::PasswordRequired);
    };
    if !password.is_right(basic.password()).await {
        log::warn!("a client sent a wrong password");
        tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
        return Err(Denied::WrongPassword);
    }
    let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Lax", password.session());
    Ok(HeaderValue::try_from(cookie).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;

    fn request(method: Method, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in headers {
            let name = name.parse::<hyper::header::HeaderName>().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn checks_the_host_of_every_request() {
        let policy = AccessPolicy::default();
        let check = |method: &Method, uri: &str, hosts: &[&str]| {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            check_host(&policy, &request(method.clone(), uri, &headers))
        };
        let unknown = || Err(Denied::UnknownHost("evil.example".into()));
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::TRACE] {
            for path in ["/", "/live.mp4", "/healthz", "/berrymse.js", "/api/config", "*"] {
                assert_eq!(check(&method, path, &["cam.local:2020"]), Ok(()));
                assert_eq!(check(&method, path, &["evil.example"]), unknown());
                assert_eq!(check(&method, path, &["evil.example.:80"]), unknown());
                assert_eq!(check(&method, path, &[]), Err(Denied::NoHost));
                let two = check(&method, path, &["cam.local", "cam.local"]);
                assert_eq!(two, Err(Denied::InvalidHost));
            }
        }
        for host in [
            "",
            "cam.local/x",
            "a b",
            "x@cam.local",
            "cam.local:port",
            "cam.local:65536",
            "[::1",
            "\u{e9}",
        ] {
            let result = check(&Method::GET, "/", &[host]);
            assert!(matches!(result, Err(Denied::InvalidHost)), "{host:?}: {result:?}");
        }
        // A URI in absolute form (RFC 9112, 3.2.2).
        let get = |uri: &str, host: &str| check(&Method::GET, uri, &[host]);
        assert_eq!(get("http://cam.local/x", "CAM.local:80"), Ok(()));
        assert_eq!(get("http://evil.example/x", "cam.local"), Err(Denied::InvalidHost));
        assert_eq!(get("http://cam.local:81/x", "cam.local"), Err(Denied::InvalidHost));
        assert_eq!(get("http://evil.example/", "evil.example"), unknown());
        // HTTP/1.0.
        let mut old = request(Method::GET, "/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(check_host(&policy, &old), Ok(()));
        old.headers_mut().insert(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(check_host(&policy, &old), unknown());
    }

    #[tokio::test]
    async fn checks_the_origin_of_changes_and_websockets() {
        let policy = AccessPolicy::default();
        let foreign = [("host", "cam.local"), ("origin", "http://evil.example")];
        let check = async |method: Method, headers: &[(&str, &str)]| {
            check(&policy, &request(method, "/", headers)).await
        };
        assert_eq!(check(Method::GET, &foreign).await, Ok(None));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(check(method, &foreign).await.is_err());
        }
        let socket = |origin| [("host", "cam.local"), ("upgrade", "websocket"), ("origin", origin)];
        assert!(check(Method::GET, &socket("http://evil.example")).await.is_err());
        assert_eq!(check(Method::GET, &socket("http://cam.local")).await, Ok(None));
        let mut binary = request(Method::GET, "/", &socket("x"));
        binary.headers_mut().insert(ORIGIN, HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(super::check(&policy, &binary).await.is_err(), "an origin that is not text");
    }

    #[tokio::test(start_paused = true)]
    async fn requires_the_password_for_every_path_except_healthz() {
        let server = Server { password: Some("secret".into()), ..Default::default() };
        let policy = AccessPolicy::new(&server);
        let get = async |path: &str, header: Option<(&str, &str)>| {
            let headers: Vec<_> = [("host", "cam.local")].into_iter().chain(header).collect();
            check(&policy, &request(Method::GET, path, &headers)).await
        };
        let basic = |password: &str| {
            let mut map = HeaderMap::new();
            map.typed_insert(Authorization::basic("anyone", password));
            map["authorization"].to_str().unwrap().to_string()
        };
        for path in ["/", "/berrymse.js", "/live", "/api/status", "/metrics", "/healthz2"] {
            assert_eq!(get(path, None).await, Err(Denied::PasswordRequired), "{path}");
            for wrong in [basic("wrong"), basic("")] {
                let answer = get(path, Some(("authorization", &wrong))).await;
                assert_eq!(answer, Err(Denied::WrongPassword));
            }
        }
        for path in PUBLIC_PATHS {
            assert_eq!(get(path, None).await, Ok(None));
        }
        let cookie = get("/", Some(("authorization", &basic("secret")))).await.unwrap().unwrap();
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
        assert_eq!(get("/live", Some(("cookie", cookie))).await, Ok(None));
        let forged = format!("{cookie}0");
        assert!(get("/live", Some(("cookie", &forged))).await.is_err());
    }
}
