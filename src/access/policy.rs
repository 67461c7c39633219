//! Rules for the host name that a request is sent to, and for the web site that sends it.
//!
//! - **Host** (RFC 9110, 7.2): a web site can make its own host name resolve to this machine's
//!   address, and thereby access this machine from a visitor's browser (DNS rebinding). Names that
//!   are valid only on a local network cannot be used for this attack. WebSocket handshakes and
//!   requests that change state are therefore refused if Host is a public name, unless the
//!   configuration lists it in `hosts`.
//! - **Origin** (RFC 6454): browsers let any page open a WebSocket to any server. Handshakes from
//!   other sites are refused, unless the configuration lists them in `origins`.

use super::Password;
use crate::config::Server;
use std::fmt;
use std::net::IpAddr;

/// Suffixes of names that exist only on local networks (RFC 6762, RFC 8375, and common router
/// defaults).
const LOCAL_SUFFIXES: [&str; 9] = [
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

/// The destination and the origin of a request, as stated in its headers.
#[derive(Debug, Default, Clone, Copy)]
pub struct Requester<'a> {
    /// Host and port that the request was sent to, such as `cam.local:2020`.
    pub host: Option<&'a str>,
    /// Web site whose page sent the request. `None` if the client is not a browser.
    pub origin: Option<&'a str>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The request has no Host header.
    NoHost,
    /// The Host header does not name this machine.
    UnknownHost(String),
    /// The request comes from another web site, which is not in `origins`.
    ForeignOrigin(String),
    /// The request comes from another web site, but only this machine's own page may send it.
    NotOwnPage(String),
    /// The request contains no password.
    PasswordRequired,
    /// The password is wrong.
    WrongPassword,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::NoHost => f.write_str("the request has no Host header"),
            Denied::UnknownHost(name) => write!(
                f,
                "unknown host name {name:?}: if it belongs to this machine, add \
                 hosts = [\"{name}\"] under [server] in the configuration"
            ),
            Denied::ForeignOrigin(origin) => write!(
                f,
                "pages from {origin:?} are not allowed to do this: to allow them, add \
                 origins = [\"{origin}\"] under [server] in the configuration"
            ),
            Denied::NotOwnPage(origin) => write!(
                f,
                "pages from {origin:?} are not allowed to do this: use this machine's own page"
            ),
            Denied::PasswordRequired => {
                f.write_str("password required (any user name is accepted)")
            }
            Denied::WrongPassword => f.write_str("wrong password (any user name is accepted)"),
        }
    }
}

impl std::error::Error for Denied {}

/// The access rules of a configuration. The default has no password, origins or hosts.
#[derive(Debug, Default)]
pub struct AccessPolicy {
    password: Option<Password>,
    origins: Vec<String>,
    hosts: Vec<String>,
}

impl AccessPolicy {
    /// Creates the rules from `config`.
    pub fn new(config: &Server) -> AccessPolicy {
        AccessPolicy {
            password: config.password.as_deref().map(Password::new),
            origins: config.origins.clone(),
            hosts: config.hosts.clone(),
        }
    }

    /// Returns the password that clients must send, if one is set.
    pub fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// Returns whether access is possible without a password.
    pub fn is_open(&self) -> bool {
        self.password.is_none()
    }

    /// Returns whether the Host header names this machine or is missing.
    pub fn is_own_host(&self, requester: Requester<'_>) -> bool {
        requester.host.is_none() || self.check_host(requester).is_ok()
    }

    /// Checks a request that a browser may send only from this machine's own page or from a site in
    /// `origins`.
    ///
    /// # Errors
    ///
    /// Returns [`Denied::NoHost`], [`Denied::UnknownHost`] or [`Denied::ForeignOrigin`].
    pub fn check_origin(&self, requester: Requester<'_>) -> Result<(), Denied> {
        let host = self.check_host(requester)?;
        let Some(origin) = requester.origin else { return Ok(()) };
        let allowed = |own: &String| own == "*" || own.eq_ignore_ascii_case(origin);
        match is_same(origin, host) || self.origins.iter().any(allowed) {
            true => Ok(()),
            false => Err(Denied::ForeignOrigin(origin.into())),
        }
    }

    /// Checks a request to change settings or install updates, which a browser may send only from
    /// this machine's own page, regardless of `origins`.
    ///
    /// # Errors
    ///
    /// Returns [`Denied::NoHost`], [`Denied::UnknownHost`] or [`Denied::NotOwnPage`].
    pub fn check_own_page(&self, requester: Requester<'_>) -> Result<(), Denied> {
        let host = self.check_host(requester)?;
        match requester.origin {
            Some(origin) if !is_same(origin, host) => Err(Denied::NotOwnPage(origin.into())),
            _ => Ok(()),
        }
    }

    fn check_host<'a>(&self, requester: Requester<'a>) -> Result<&'a str, Denied> {
        let host = requester.host.ok_or(Denied::NoHost)?;
        let name = host_name(host).to_ascii_lowercase();
        match is_local(&name) || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(&name)) {
            true => Ok(host),
            false => Err(Denied::UnknownHost(name)),
        }
    }
}

fn is_same(origin: &str, host: &str) -> bool {
    let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    site.is_some_and(|site| site.eq_ignore_ascii_case(host))
}

/// Returns the name in a Host header such as `cam.local:2020` or `[::1]:80`.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.split(':').next().unwrap_or_default().trim_end_matches('.')
}

/// Returns whether `name` cannot be a public DNS name.
fn is_local(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
        || (!name.is_empty() && !name.contains('.'))
        || LOCAL_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allows<'a>(
        policy: &AccessPolicy,
        host: &'a str,
        origin: impl Into<Option<&'a str>>,
    ) -> bool {
        policy.check_origin(Requester { host: Some(host), origin: origin.into() }).is_ok()
    }

    #[test]
    fn allows_only_its_own_page() {
        let policy = AccessPolicy::default();
        assert!(allows(&policy, "cam.local:2020", "http://cam.local:2020"));
        assert!(allows(&policy, "192.168.1.5", "http://192.168.1.5"));
        assert!(allows(&policy, "[fe80::1]:80", "https://[fe80::1]:80"));
        assert!(allows(&policy, "berrymse", None), "a program other than a browser");
        assert!(!allows(&policy, "cam.local", "http://evil.example"));
        assert!(!allows(&policy, "cam.local:2020", "http://cam.local:8080"), "another port");
        assert!(!allows(&policy, "cam.local", "null"));
        assert!(!allows(&policy, "cam.local", ""), "an origin that is not text");
        assert_eq!(policy.check_origin(Requester::default()), Err(Denied::NoHost));
    }

    #[test]
    fn rejects_public_names_that_are_not_configured() {
        let policy = AccessPolicy::default();
        assert!(!allows(&policy, "evil.example", "http://evil.example"), "DNS rebinding");
        let hosts = vec!["cam.example.org".into()];
        let policy = AccessPolicy::new(&Server { hosts, ..Default::default() });
        assert!(allows(&policy, "CAM.example.org:443", "https://CAM.example.org:443"));
    }

    #[test]
    fn allows_configured_origins() {
        let with = |origin: &str| {
            let origins = vec![origin.into()];
            AccessPolicy::new(&Server { origins, ..Default::default() })
        };
        assert!(allows(&with("https://a.example"), "cam.local", "https://a.example"));
        assert!(!allows(&with("https://a.example"), "cam.local", "https://b.example"));
        assert!(allows(&with("*"), "cam.local", "https://b.example"));
        let foreign = Requester { host: Some("cam.local"), origin: Some("https://a.example") };
        assert!(with("*").check_own_page(foreign).is_err(), "settings ignore origins");
    }

    proptest! {
        #[test]
        fn never_panics(host in "\\PC{0,30}", origin in "\\PC{0,30}") {
            let requester = Requester { host: Some(&host), origin: Some(&origin) };
            let _ = AccessPolicy::default().check_origin(requester);
            let _ = AccessPolicy::default().check_own_page(requester);
        }
    }
}
