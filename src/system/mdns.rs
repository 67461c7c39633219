//! The machine's name in the local network: `http://berrymse.local/`, and the page in the list of
//! web sites that browsers and phones show (mDNS and DNS-SD: RFC 6762, RFC 6763).

use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};
use std::net::SocketAddr;
use std::time::Duration;

/// What is announced: a web page.
const SERVICE: &str = "_http._tcp.local.";

/// Time to tell everybody that it is gone.
const GOODBYE: Duration = Duration::from_millis(500);

/// Answers for the machine's name, until it is dropped.
pub struct Announcement {
    daemon: ServiceDaemon,
    name: String,
}

impl Announcement {
    /// Announces the page at `address` as `host`.local, on all interfaces, also those that come up
    /// later.
    pub fn start(host: &str, address: SocketAddr) -> Result<Announcement, String> {
        let start = || {
            let daemon = ServiceDaemon::new()?;
            // Who is on this machine has localhost; nobody else should be told 127.0.0.1.
            daemon.disable_interface([IfKind::LoopbackV4, IfKind::LoopbackV6].to_vec())?;
            let full_host = format!("{host}.local.");
            let page = [("path", "/")];
            let info = ServiceInfo::new(SERVICE, host, &full_host, "", address.port(), &page[..])?;
            let name = info.get_fullname().to_string();
            daemon.register(info.enable_addr_auto())?;
            Ok::<_, mdns_sd::Error>(Announcement { daemon, name })
        };
        start().map_err(|error| format!("{host}.local cannot be announced: {error}"))
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Ok(done) = self.daemon.unregister(&self.name) {
            let _ = done.recv_timeout(GOODBYE);
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_timeout(GOODBYE);
        }
    }
}

/// The name that the kernel knows the machine by.
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_lowercase()
}
