//! The WebSocket handshake (RFC 6455, 4.2).

use headers::{HeaderMapExt, SecWebsocketAccept, SecWebsocketKey};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::{Method, StatusCode, Version};

/// The answer to a handshake (4.2.2), or why there is none and which status says so.
///
/// On success, the value of `Sec-WebSocket-Accept`.
pub fn handshake(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<HeaderValue, (StatusCode, &'static str)> {
    let bad = |why| Err((StatusCode::BAD_REQUEST, why));
    if !has_token(headers, UPGRADE, "websocket") {
        return Err((StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket (RFC 6455)"));
    }
    if method != Method::GET || version != Version::HTTP_11 {
        return bad("a WebSocket handshake is a GET of HTTP/1.1");
    }
    if !has_token(headers, CONNECTION, "upgrade") {
        return bad("the handshake lacks 'Connection: Upgrade'");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken here"));
    }
    // 16 bytes in base64 (4.1): 24 characters, the last two padding.
    let key = headers.get("sec-websocket-key").map(HeaderValue::as_bytes).unwrap_or_default();
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    if !(key.len() == 24 && key[..22].iter().all(is_base64) && key.ends_with(b"==")) {
        return bad("the handshake's Sec-WebSocket-Key is not 16 bytes in base64");
    }
    let Some(key) = headers.typed_get::<SecWebsocketKey>() else {
        return bad("the handshake has no Sec-WebSocket-Key");
    };
    let mut answer = HeaderMap::new();
    answer.typed_insert(SecWebsocketAccept::from(key));
    match answer.into_iter().next() {
        Some((_, value)) => Ok(value),
        None => bad("the handshake's Sec-WebSocket-Key cannot be answered"),
    }
}

/// Whether a comma-separated header has `token` in it, in any case.
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

    fn shake(headers: &HeaderMap) -> Result<HeaderValue, (StatusCode, &'static str)> {
        handshake(&Method::GET, Version::HTTP_11, headers)
    }

    #[test]
    fn the_example_of_the_standard() {
        assert_eq!(shake(&headers(&GOOD)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_missing_part_has_its_own_answer() {
        let mut texts = std::collections::HashSet::new();
        for left_out in 0..4 {
            let some: Vec<_> =
                GOOD.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, p)| *p).collect();
            assert!(texts.insert(shake(&headers(&some)).unwrap_err().1));
        }
        let good = headers(&GOOD);
        assert!(handshake(&Method::POST, Version::HTTP_11, &good).is_err());
        assert!(handshake(&Method::GET, Version::HTTP_10, &good).is_err());
    }

    proptest! {
        #[test]
        fn any_handshake(values in proptest::collection::vec("[ -~]{0,40}", 4)) {
            let mut map = HeaderMap::new();
            for ((name, _), value) in GOOD.iter().zip(&values) {
                if let Ok(value) = value.parse() { map.insert(*name, value); }
            }
            let _ = shake(&map);
        }
    }
}
