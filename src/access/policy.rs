//! Rules for the host name that a request is sent to, and for the web site that sends it.
//!
//! - **Host** (RFC 9110, 7.2): a web site can make its own host name resolve to this machine's
//!   address, and thereby access this machine from a visitor's browser (DNS rebinding). Names that
//!   cannot be delegated in the public DNS cannot be used for this attack. All requests are
//!   therefore refused if Host is another name, unless the configuration lists it in `hosts`, or it
//!   is this machine's name in the domain of the local network.
//! - **Origin** (RFC 6454): browsers let any page open a WebSocket to any server. Handshakes from
//!   other sites are refused, unless the configuration lists them in `origins`.

use super::Password;
use crate::config::Server;
use std::fmt;
use std::net::IpAddr;

/// Suffixes that cannot be delegated in the public DNS: RFC 6762, RFC 6761, RFC 8375, and the
/// resolution of ICANN's board of 2024-07-29. Other suffixes that routers use can: a stranger
/// registered fritz.box in 2024.
const LOCAL_SUFFIXES: [&str; 4] = [".local", ".localhost", ".home.arpa", ".internal"];

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
    /// The request has several Host headers, one that is not a host, or one that differs from the
    /// host in its URI.
    InvalidHost,
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
            Denied::InvalidHost => {
                f.write_str("the request must have one valid Host header, which matches its URI")
            }
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

    /// Checks the name in a Host header. `is_own` returns whether a name, in lower case, is that of
    /// this machine in the domain of its network.
    ///
    /// # Errors
    ///
    /// Returns [`Denied::UnknownHost`].
    pub fn check_host(&self, host: &str, is_own: impl FnOnce(&str) -> bool) -> Result<(), Denied> {
        let name = host_name(host).to_ascii_lowercase();
        let is_configured = |own: &String| own.trim_end_matches('.').eq_ignore_ascii_case(&name);
        match is_local(&name) || self.hosts.iter().any(is_configured) || is_own(&name) {
            true => Ok(()),
            false => Err(Denied::UnknownHost(name)),
        }
    }

    /// Checks a request that a browser may send only from this machine's own page or from a site in
    /// `origins`. The host must have been checked with [`AccessPolicy::check_host`].
    ///
    /// # Errors
    ///
    /// Returns [`Denied::NoHost`] or [`Denied::ForeignOrigin`].
    pub fn check_origin(&self, requester: Requester<'_>) -> Result<(), Denied> {
        let host = requester.host.ok_or(Denied::NoHost)?;
        let Some(origin) = requester.origin else { return Ok(()) };
        let allowed = |own: &String| own == "*" || own.eq_ignore_ascii_case(origin);
        match is_same(origin, host) || self.origins.iter().any(allowed) {
            true => Ok(()),
            false => Err(Denied::ForeignOrigin(origin.into())),
        }
    }

    /// Checks a request to change settings or install updates, which a browser may send only from
    /// this machine's own page, regardless of `origins`. The host must have been checked with
    /// [`AccessPolicy::check_host`].
    ///
    /// # Errors
    ///
    /// Returns [`Denied::NoHost`] or [`Denied::NotOwnPage`].
    pub fn check_own_page(&self, requester: Requester<'_>) -> Result<(), Denied> {
        let host = requester.host.ok_or(Denied::NoHost)?;
        match requester.origin {
            Some(origin) if !is_same(origin, host) => Err(Denied::NotOwnPage(origin.into())),
            _ => Ok(()),
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
    fn accepts_only_names_that_cannot_be_public_or_are_known() {
        let policy = AccessPolicy::default();
        let local = [
            "berrymse",
            "cam:2020",
            "cam.local",
            "CAM.Local.:80",
            "a.b.local",
            "x.localhost",
            "cam.home.arpa",
            "cam.internal",
            "192.168.1.5:80",
            "[fe80::1]:80",
            "[::1]",
        ];
        for host in local {
            assert_eq!(policy.check_host(host, |_| false), Ok(()), "{host}");
        }
        let public = [
            "evil.example",
            "fritz.box",
            "cam.fritz.box",
            "cam.lan",
            "cam.home",
            "cam.intranet",
            "cam.localdomain",
            "local.com",
            "notlocal.evil.example:80",
            "home.arpa.evil.example",
            "10.0.0.1.evil.example",
            "10.0.0",
            "",
            ".",
            ":80",
            "[]",
        ];
        for host in public {
            let name = host_name(host).to_lowercase();
            assert_eq!(
                policy.check_host(host, |_| false),
                Err(Denied::UnknownHost(name)),
                "{host}"
            );
        }
        assert_eq!(policy.check_host("Cam.LAN.:80", |name| name == "cam.lan"), Ok(()));
        let hosts = vec!["cam.example.org".into(), "other.example.".into()];
        let policy = AccessPolicy::new(&Server { hosts, ..Default::default() });
        for host in ["CAM.example.org:443", "cam.example.org.", "other.example"] {
            assert_eq!(policy.check_host(host, |_| false), Ok(()), "{host}");
        }
        assert!(policy.check_host("x.cam.example.org", |_| false).is_err());
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
            let _ = AccessPolicy::default().check_host(&host, |_| false);
        }
    }
}
