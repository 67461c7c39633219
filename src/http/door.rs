//! Who may come in: host names, origins, the password.
//!
//! - **Host** (RFC 9110, 7.2): a page of somebody else can point a name of its own at this
//!   machine's address and so read from it in the visitor's browser (DNS rebinding). Such a name
//!   is not one of a local network; WebSockets and everything that changes something are refused
//!   under it, unless the configuration has it in `hosts`.
//! - **Origin** (RFC 6454): browsers open a WebSocket from any page to anywhere. Those of other
//!   sites are refused, unless the configuration has them in `origins`.
//! - **Password** (RFC 7617): HTTP Basic, any user name, everywhere but `/healthz`. After it, a
//!   cookie says the same, because Safari sends no password with a WebSocket.

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use headers::authorization::{Authorization, Basic};
use headers::{Cookie, HeaderMapExt};
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{Method, StatusCode, Uri};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

/// A wrong password is answered after this: guessing gets slow, a typo hurts nobody.
const WRONG_PASSWORD: Duration = Duration::from_secs(1);

/// Name of the cookie that stands for the password.
const COOKIE: &str = "berrymse";

/// Endings of names that exist in local networks only (RFC 6762, RFC 8375, and what routers give
/// out).
const LOCAL_NAMES: [&str; 9] = [
    ".local",
    ".localhost",
    ".lan",
    ".home",
    ".home.arpa",
    ".internal",
    ".intranet",
    ".box",
    ".localdomain",
];

/// Why somebody may not come in.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer.
    pub status: StatusCode,
    /// What to say.
    pub message: String,
}

/// How somebody came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// There is no password, the path needs none, or the cookie stood for it.
    Free,
    /// With the password: this cookie will stand for it.
    Password(HeaderValue),
}

/// The rules of one configuration.
#[derive(Debug, Default)]
pub struct Door {
    password: Option<Password>,
    origins: Vec<String>,
    hosts: Vec<String>,
}

#[derive(Debug)]
struct Password {
    /// As configured: in clear, or an argon2 hash.
    configured: String,
    /// Value of the cookie.
    session: String,
    /// Digest of the last right password: argon2 takes tens of milliseconds and 19 MiB, which is
    /// too much for every request.
    known: Mutex<Option<[u8; 32]>>,
    /// One argon2 at a time.
    verifying: tokio::sync::Mutex<()>,
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

impl Door {
    /// The rules of `config`.
    pub fn new(config: &crate::config::Server) -> Door {
        let password = config.password.as_ref().map(|configured| Password {
            session: digest(&["berrymse session\0", configured])
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            configured: configured.clone(),
            known: Mutex::default(),
            verifying: tokio::sync::Mutex::default(),
        });
        Door { password, origins: config.origins.clone(), hosts: config.hosts.clone() }
    }

    /// Whether the request came under one of our names, or under none.
    pub fn is_ours(&self, headers: &HeaderMap) -> bool {
        !headers.contains_key(HOST) || self.check_host(headers).is_ok()
    }

    /// Whether everybody may come in.
    pub fn is_open(&self) -> bool {
        self.password.is_none()
    }

    /// Whether this request may come in.
    pub async fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Entry, Refusal> {
        self.check_origin(method, headers)?;
        match &self.password {
            Some(password) if uri.path() != "/healthz" => password.check(headers).await,
            _ => Ok(Entry::Free),
        }
    }

    /// The rules for what only our own page, or a page that is allowed to, may do.
    pub fn check_origin(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if reads && !headers.contains_key(hyper::header::UPGRADE) {
            return Ok(());
        }
        let host = self.check_host(headers)?;
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) }; // not a browser
        let origin = origin.to_str().unwrap_or_default();
        let allowed = |own: &String| own == "*" || own.eq_ignore_ascii_case(origin);
        if is_same(origin, host) || self.origins.iter().any(allowed) {
            return Ok(());
        }
        Err(Refusal {
            status: StatusCode::FORBIDDEN,
            message: format!(
                "pages of {origin:?} may not do this: to allow it, put origins = [\"{origin}\"] \
                 under [server] in the configuration"
            ),
        })
    }

    /// The rules for what only our own page may do, whatever others may: settings and updates.
    pub fn check_own_page(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = self.check_host(headers)?;
        match headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default()) {
            Some(origin) if !is_same(origin, host) => Err(Refusal {
                status: StatusCode::FORBIDDEN,
                message: format!("pages of {origin:?} may not do this: only the machine's own may"),
            }),
            _ => Ok(()),
        }
    }

    /// The name that the request came under, which must be one that is ours.
    fn check_host<'a>(&self, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
        let refuse = |status, message| Err(Refusal { status, message });
        let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
            return refuse(StatusCode::BAD_REQUEST, "the request has no Host header".into());
        };
        let name = host_name(host).to_ascii_lowercase();
        if !is_local(&name) && !self.hosts.iter().any(|own| own.eq_ignore_ascii_case(&name)) {
            return refuse(
                StatusCode::FORBIDDEN,
                format!(
                    "this machine does not know itself as {name:?}: if that name is right, put \
                     hosts = [\"{name}\"] under [server] in the configuration"
                ),
            );
        }
        Ok(host)
    }
}

fn is_same(origin: &str, host: &str) -> bool {
    let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    site.is_some_and(|site| site.eq_ignore_ascii_case(host))
}

impl Password {
    async fn check(&self, headers: &HeaderMap) -> Result<Entry, Refusal> {
        let cookie = headers.typed_get::<Cookie>();
        if cookie.as_ref().and_then(|c| c.get(COOKIE)).is_some_and(|value| {
            // Compared as digests: how long that takes says nothing about the value.
            digest(&[value]) == digest(&[&self.session])
        }) {
            return Ok(Entry::Free);
        }
        let refusal =
            |message: &str| Refusal { status: StatusCode::UNAUTHORIZED, message: message.into() };
        let Some(Authorization(basic)) = headers.typed_get::<Authorization<Basic>>() else {
            return Err(refusal("a password is needed (any user name)"));
        };
        if !self.is_right(basic.password()).await {
            log::warn!("somebody gave a wrong password");
            tokio::time::sleep(WRONG_PASSWORD).await;
            return Err(refusal("the password is wrong (any user name will do)"));
        }
        let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Lax", self.session);
        match HeaderValue::try_from(cookie) {
            Ok(cookie) => Ok(Entry::Password(cookie)),
            Err(_) => Ok(Entry::Free),
        }
    }

    async fn is_right(&self, given: &str) -> bool {
        if !self.configured.starts_with("$argon2") {
            return digest(&[given]) == digest(&[&self.configured]);
        }
        let known = || *self.known.lock().unwrap_or_else(|poison| poison.into_inner());
        let digest = digest(&[given]);
        if known() == Some(digest) {
            return true;
        }
        let _one_at_a_time = self.verifying.lock().await;
        if known() == Some(digest) {
            return true;
        }
        let (configured, given) = (self.configured.clone(), given.to_string());
        let verify = move || {
            let hash = PasswordHash::new(&configured)?;
            Argon2::default().verify_password(given.as_bytes(), &hash)
        };
        let right = tokio::task::spawn_blocking(verify).await.is_ok_and(|result| result.is_ok());
        if right {
            *self.known.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(digest);
        }
        right
    }
}

/// The name in a Host header, without the port: `cam.local:2020`, `[::1]:80`.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.split(':').next().unwrap_or_default().trim_end_matches('.')
}

/// Whether a name can't be one of the public DNS.
fn is_local(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
        || (!name.is_empty() && !name.contains('.'))
        || LOCAL_NAMES.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn socket(door: &Door, host: &str, origin: Option<&'static str>) -> bool {
        let mut map = headers(&[("host", host), ("upgrade", "websocket")]);
        if let Some(origin) = origin {
            map.insert(ORIGIN, origin.parse().unwrap());
        }
        door.check_origin(&Method::GET, &map).is_ok()
    }

    #[test]
    fn our_own_page_may_open_a_websocket_and_others_may_not() {
        let door = Door::default();
        assert!(socket(&door, "cam.local:2020", Some("http://cam.local:2020")));
        assert!(socket(&door, "192.168.1.5", Some("http://192.168.1.5")));
        assert!(socket(&door, "[fe80::1]:80", Some("https://[fe80::1]:80")));
        assert!(socket(&door, "berrymse", None), "not a browser");
        assert!(!socket(&door, "cam.local", Some("http://evil.example")));
        assert!(!socket(&door, "cam.local:2020", Some("http://cam.local:8080")), "another port");
        assert!(!socket(&door, "cam.local", Some("null")));
    }

    #[test]
    fn a_name_of_the_public_dns_is_not_ours() {
        let door = Door::default();
        assert!(!socket(&door, "evil.example", Some("http://evil.example")), "DNS rebinding");
        let hosts = vec!["cam.example.org".into()];
        let door = Door::new(&crate::config::Server { hosts, ..Default::default() });
        assert!(socket(&door, "CAM.example.org:443", Some("https://CAM.example.org:443")));
    }

    #[test]
    fn other_sites_can_be_allowed() {
        let with = |origin: &str| {
            let origins = vec![origin.into()];
            Door::new(&crate::config::Server { origins, ..Default::default() })
        };
        assert!(socket(&with("https://a.example"), "cam.local", Some("https://a.example")));
        assert!(!socket(&with("https://a.example"), "cam.local", Some("https://b.example")));
        assert!(socket(&with("*"), "cam.local", Some("https://b.example")));
    }

    #[test]
    fn what_changes_something_has_the_same_rules_and_reading_has_none() {
        let door = Door::default();
        let map = headers(&[("host", "cam.local"), ("origin", "http://evil.example")]);
        assert!(door.check_origin(&Method::GET, &map).is_ok());
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(door.check_origin(&method, &map).is_err());
        }
        assert!(door.check_origin(&Method::POST, &HeaderMap::new()).is_err(), "no Host");
    }

    fn basic(password: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.typed_insert(Authorization::basic("anyone", password));
        map
    }

    async fn get(door: &Door, path: &'static str, headers: &HeaderMap) -> Result<Entry, Refusal> {
        door.check(&Method::GET, &Uri::from_static(path), headers).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_password_is_asked_for_everywhere_but_healthz() {
        // argon2id of "secret".
        use argon2::password_hash::{PasswordHasher, SaltString};
        let salt = SaltString::encode_b64(b"not so random").unwrap();
        let hash = Argon2::default().hash_password(b"secret", &salt).unwrap().to_string();
        for configured in ["secret".to_string(), hash] {
            let password = Some(configured);
            let door = Door::new(&crate::config::Server { password, ..Default::default() });
            for path in ["/", "/berrymse.js", "/live", "/api/status", "/metrics", "/healthz2"] {
                let refusal = get(&door, path, &HeaderMap::new()).await.unwrap_err();
                assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
                assert!(get(&door, path, &basic("wrong")).await.is_err());
                assert!(get(&door, path, &basic("")).await.is_err());
            }
            assert_eq!(get(&door, "/healthz", &HeaderMap::new()).await, Ok(Entry::Free));
            let Ok(Entry::Password(cookie)) = get(&door, "/", &basic("secret")).await else {
                panic!("the right password")
            };
            let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
            assert_eq!(get(&door, "/live", &headers(&[("cookie", cookie)])).await, Ok(Entry::Free));
            let forged = format!("{}0", &cookie[..cookie.len() - 1]);
            let forged =
                if forged == cookie { format!("{}1", &cookie[..cookie.len() - 1]) } else { forged };
            assert!(get(&door, "/live", &headers(&[("cookie", &forged)])).await.is_err());
        }
    }

    proptest! {
        #[test]
        fn any_host_and_origin(host in "[ -~]{0,30}", origin in "[ -~]{0,30}") {
            let mut map = headers(&[("upgrade", "websocket")]);
            if let (Ok(host), Ok(origin)) = (host.parse(), origin.parse()) {
                map.insert(HOST, host);
                map.insert(ORIGIN, origin);
            }
            let _ = Door::default().check_origin(&Method::GET, &map);
        }
    }
}
