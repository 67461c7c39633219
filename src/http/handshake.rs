//! The WebSocket handshake (RFC 6455, 4.2).

use super::reply::ApiError;
use headers::{HeaderMapExt, SecWebsocketAccept, SecWebsocketKey};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::{Method, StatusCode, Version};
use std::fmt;

/// Why a handshake was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeError {
    /// `Upgrade: websocket` is missing.
    NotWebSocket,
    /// The request is not an HTTP/1.1 GET request.
    NotGet,
    /// `Connection: Upgrade` is missing.
    NoConnectionUpgrade,
    /// `Sec-WebSocket-Version` is not 13.
    Version,
    /// `Sec-WebSocket-Key` is missing or invalid.
    Key,
    /// The connection cannot be upgraded.
    NotUpgradable,
}

impl HandshakeError {
    /// Returns the status of the reply (4.2.2, 4.4).
    pub fn status(self) -> StatusCode {
        match self {
            HandshakeError::NotWebSocket | HandshakeError::Version => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandshakeError::NotWebSocket => {
                "this URL accepts only WebSocket connections (RFC 6455)"
            }
            HandshakeError::NotGet => "a WebSocket handshake must be an HTTP/1.1 GET request",
            HandshakeError::NoConnectionUpgrade => {
                "the WebSocket handshake has no 'Connection: Upgrade' header"
            }
            HandshakeError::Version => {
                "unsupported WebSocket version: Sec-WebSocket-Version must be 13"
            }
            HandshakeError::Key => "Sec-WebSocket-Key must be 16 bytes in base64",
            HandshakeError::NotUpgradable => "this connection cannot be upgraded to WebSocket",
        })
    }
}

impl std::error::Error for HandshakeError {}

impl From<HandshakeError> for ApiError {
    fn from(error: HandshakeError) -> ApiError {
        ApiError::new(error.status(), error.to_string())
    }
}

/// Checks a handshake (4.2.1), and returns the value of `Sec-WebSocket-Accept` for the reply
/// (4.2.2).
///
/// # Errors
///
/// Fails if the request is not a valid WebSocket version 13 handshake.
pub fn handshake(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<HeaderValue, HandshakeError> {
    if !has_token(headers, UPGRADE, "websocket") {
        return Err(HandshakeError::NotWebSocket);
    }
    if method != Method::GET || version != Version::HTTP_11 {
        return Err(HandshakeError::NotGet);
    }
    if !has_token(headers, CONNECTION, "upgrade") {
        return Err(HandshakeError::NoConnectionUpgrade);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(HandshakeError::Version);
    }
    // 16 bytes in base64 (4.1) are 24 characters, of which the last two are padding.
    let key = headers.get("sec-websocket-key").map(HeaderValue::as_bytes).unwrap_or_default();
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    if !(key.len() == 24 && key[..22].iter().all(is_base64) && key.ends_with(b"==")) {
        return Err(HandshakeError::Key);
    }
    let key = headers.typed_get::<SecWebsocketKey>().ok_or(HandshakeError::Key)?;
    let mut reply = HeaderMap::new();
    reply.typed_insert(SecWebsocketAccept::from(key));
    reply.into_iter().next().map(|(_, value)| value).ok_or(HandshakeError::Key)
}

/// Returns whether the header `name`, a comma-separated list, contains `token`, ignoring ASCII
/// case.
pub(crate) fn has_token(headers: &HeaderMap, name: hyper::header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn get(headers: &HeaderMap) -> Result<HeaderValue, HandshakeError> {
        handshake(&Method::GET, Version::HTTP_11, headers)
    }

    #[test]
    fn accepts_the_example_from_the_rfc() {
        assert_eq!(get(&headers(&GOOD)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn distinguishes_missing_headers() {
        use HandshakeError::{
            Key, NoConnectionUpgrade, NotGet, NotWebSocket, Version as Unsupported,
        };
        let mut messages = std::collections::HashSet::new();
        let expected = [
            (NotWebSocket, StatusCode::UPGRADE_REQUIRED),
            (NoConnectionUpgrade, StatusCode::BAD_REQUEST),
            (Unsupported, StatusCode::UPGRADE_REQUIRED),
            (Key, StatusCode::BAD_REQUEST),
        ];
        for (omitted, (error, status)) in expected.into_iter().enumerate() {
            let mut pairs = GOOD.to_vec();
            pairs.remove(omitted);
            assert_eq!(get(&headers(&pairs)), Err(error));
            assert_eq!(error.status(), status);
            assert!(messages.insert(error.to_string()), "{error}");
        }
        let good = headers(&GOOD);
        assert_eq!(handshake(&Method::POST, Version::HTTP_11, &good), Err(NotGet));
        assert_eq!(handshake(&Method::GET, Version::HTTP_10, &good), Err(NotGet));
    }

    proptest! {
        #[test]
        fn never_panics(values in proptest::collection::vec("[ -~]{0,40}", 4)) {
            let mut map = HeaderMap::new();
            for ((name, _), value) in GOOD.iter().zip(&values) {
                if let Ok(value) = value.parse() { map.insert(*name, value); }
            }
            let _ = get(&map);
        }
    }
}
