//! Applies the access policy to HTTP requests: Host, Origin and password.
//!
//! Clients send the password with HTTP Basic authentication (RFC 7617) and any user name. Every
//! path except `/healthz` and two below it requires it. The reply sets a cookie that takes the place
//! of the password, because Safari sends no password with a WebSocket handshake.

use super::reply::ApiError;
use crate::access::{AccessPolicy, Denied, Password, Requester};
use headers::authorization::{Authorization, Basic};
use headers::{Cookie, HeaderMapExt};
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN, UPGRADE};
use hyper::{Method, StatusCode, Uri};
use std::time::Duration;

/// Name of the cookie that takes the place of the password.
const COOKIE: &str = "berrymse";

/// Paths that require no password.
const PUBLIC_PATHS: [&str; 3] = ["/healthz", "/healthz/update", "/healthz/cameras"];

/// Delay of the reply to a wrong password. It slows down guessing, but is acceptable after a typo.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_secs(1);

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> ApiError {
        let status = match denied {
            Denied::NoHost => StatusCode::BAD_REQUEST,
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

/// Checks Host and Origin of WebSocket handshakes and of requests that change state. Other requests
/// are allowed.
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
pub(super) async fn check(
    policy: &AccessPolicy,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, Denied> {
    check_origin(policy, method, headers)?;
    match policy.password() {
        Some(password) if !PUBLIC_PATHS.contains(&uri.path()) => {
            check_password(password, headers).await
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

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn checks_the_origin_of_changes_and_websockets() {
        let policy = AccessPolicy::default();
        let foreign = headers(&[("host", "cam.local"), ("origin", "http://evil.example")]);
        let uri = Uri::from_static("/");
        let check =
            async |method: Method, map: &HeaderMap| check(&policy, &method, &uri, map).await;
        assert_eq!(check(Method::GET, &foreign).await, Ok(None));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(check(method, &foreign).await.is_err());
        }
        assert_eq!(check(Method::POST, &HeaderMap::new()).await, Err(Denied::NoHost));
        let mut socket = foreign.clone();
        socket.insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert!(check(Method::GET, &socket).await.is_err());
        socket.insert(ORIGIN, HeaderValue::from_static("http://cam.local"));
        assert_eq!(check(Method::GET, &socket).await, Ok(None));
        socket.insert(ORIGIN, HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(check(Method::GET, &socket).await.is_err(), "an origin that is not text");
    }

    #[tokio::test(start_paused = true)]
    async fn requires_the_password_for_every_path_except_healthz() {
        let server = Server { password: Some("secret".into()), ..Default::default() };
        let policy = AccessPolicy::new(&server);
        let get = async |path: &'static str, map: HeaderMap| {
            check(&policy, &Method::GET, &Uri::from_static(path), &map).await
        };
        let basic = |password: &str| {
            let mut map = HeaderMap::new();
            map.typed_insert(Authorization::basic("anyone", password));
            map
        };
        for path in ["/", "/berrymse.js", "/live", "/api/status", "/metrics", "/healthz2"] {
            assert_eq!(get(path, HeaderMap::new()).await, Err(Denied::PasswordRequired), "{path}");
            assert_eq!(get(path, basic("wrong")).await, Err(Denied::WrongPassword));
            assert_eq!(get(path, basic("")).await, Err(Denied::WrongPassword));
        }
        for path in PUBLIC_PATHS {
            assert_eq!(get(path, HeaderMap::new()).await, Ok(None));
        }
        let cookie = get("/", basic("secret")).await.unwrap().unwrap();
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
        assert_eq!(get("/live", headers(&[("cookie", cookie)])).await, Ok(None));
        let forged = format!("{cookie}0");
        assert!(get("/live", headers(&[("cookie", &forged)])).await.is_err());
    }
}
