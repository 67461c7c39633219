//! The host name on the local network (mDNS). Requires a multicast interface other than `lo`.

use crate::support::{Server, TIMEOUT};
use mdns_sd::{ServiceDaemon, ServiceEvent};
use std::time::Instant;

#[tokio::test]
async fn announces_the_host_name_until_shutdown() {
    let host = format!("cam-{}", std::process::id());
    let daemon = ServiceDaemon::new().unwrap();
    let events = daemon.browse("_http._tcp.local.").unwrap();
    let start = Instant::now();
    let next = |what: &str| {
        let left = TIMEOUT.saturating_sub(start.elapsed());
        events.recv_timeout(left).unwrap_or_else(|error| panic!("{what}: {error}"))
    };
    let config = format!(
        "[server]\nlisten = \"0.0.0.0:0\"\n[system]\nhostname = {host:?}\n\
         [[camera]]\nsource = \"test-card\"\n"
    );
    let mut server = Server::start(&config).await;
    let found = loop {
        match next("announcement") {
            ServiceEvent::ServiceResolved(found) if found.get_hostname().starts_with(&host) => {
                break found;
            }
            _ => {}
        }
    };
    assert_eq!(found.get_hostname(), format!("{host}.local."));
    assert_eq!(found.get_port(), server.address.port());
    assert!(!found.get_addresses().is_empty());
    assert!(found.get_addresses().iter().all(|address| !address.is_loopback()));
    server.terminate();
    server.ended().await;
    loop {
        if let ServiceEvent::ServiceRemoved(_, name) = next("goodbye")
            && name.starts_with(&host)
        {
            break;
        }
    }
}
