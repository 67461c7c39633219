//! On the local network, announces the host name, such as `berrymse.local` (mDNS, RFC 6762), and
//! the page as a web site that browsers and phones can discover (DNS-SD, RFC 6763).

use crate::system::error::SystemError;
use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};
use std::net::SocketAddr;
use std::time::Duration;

/// The announced service: a web page.
const SERVICE: &str = "_http._tcp.local.";

/// Maximum time to send the goodbye packets (RFC 6762, 10.1).
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// Responds to queries for the host name until it is dropped.
pub struct Announcement {
    daemon: ServiceDaemon,
    name: String,
}

impl Announcement {
    /// Announces the page at `address` as `host`.local on all interfaces, including those that come
    /// up later.
    ///
    /// # Errors
    ///
    /// [`SystemError::Announce`] if the responder cannot be started or the name is invalid.
    pub fn start(host: &str, address: SocketAddr) -> Result<Announcement, SystemError> {
        let start = || {
            let daemon = ServiceDaemon::new()?;
            // Programs on this machine use localhost. Other machines must not receive 127.0.0.1.
            daemon.disable_interface([IfKind::LoopbackV4, IfKind::LoopbackV6].to_vec())?;
            let full_host = format!("{host}.local.");
            let page = [("path", "/")];
            let info = ServiceInfo::new(SERVICE, host, &full_host, "", address.port(), &page[..])?;
            let name = info.get_fullname().to_string();
            daemon.register(info.enable_addr_auto())?;
            Ok::<_, mdns_sd::Error>(Announcement { daemon, name })
        };
        start().map_err(|error| SystemError::Announce { host: host.into(), error })
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Ok(done) = self.daemon.unregister(&self.name) {
            let _ = done.recv_timeout(GOODBYE_TIMEOUT);
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_timeout(GOODBYE_TIMEOUT);
        }
    }
}

/// Returns the kernel's host name, in lower case and without a domain.
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_lowercase()
}
