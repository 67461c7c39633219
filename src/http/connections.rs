//! Limit on the number of connections per IP address.

use super::reply::RETRY_AFTER_SECONDS;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpStream;

/// A count of open connections per IP address.
#[derive(Default, Clone)]
pub(super) struct ConnectionLimiter(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// A counted connection. Dropping it decreases the count. A WebSocket viewer holds its permit until
/// the viewer disconnects.
pub(super) struct ConnectionPermit {
    limiter: ConnectionLimiter,
    address: IpAddr,
    /// The address of this machine that the connection uses.
    own_address: Option<IpAddr>,
}

impl ConnectionLimiter {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a permit for another connection from `address` to `own_address`, or `None` if
    /// `address` already has `limit` connections.
    pub(super) fn acquire(
        &self,
        address: IpAddr,
        own_address: Option<IpAddr>,
        limit: u32,
    ) -> Option<Arc<ConnectionPermit>> {
        let mut counts = self.lock();
        let count = counts.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Arc::new(ConnectionPermit { limiter: self.clone(), address, own_address }))
    }
}

impl ConnectionPermit {
    /// Whether the client runs on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.address.to_canonical().is_loopback() || self.own_address == Some(self.address)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.limiter.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Refuses a connection over the limit, without reading from it.
pub(super) fn refuse(stream: &TcpStream) {
    let body = "too many connections from your address: try again later\n";
    let reply = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER_SECONDS}\r\nContent-Type: \
         text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(reply.as_bytes()); // fits into the buffer of a new connection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_clients_on_this_machine() {
        let is_local = |client: &str, own: &str| {
            let own = own.parse().unwrap();
            let limiter = ConnectionLimiter::default();
            limiter.acquire(client.parse().unwrap(), Some(own), 1).unwrap().is_local()
        };
        assert!(is_local("127.0.0.1", "127.0.0.1") && is_local("::1", "::1"));
        assert!(is_local("::ffff:127.0.0.1", "::ffff:127.0.0.1"));
        assert!(is_local("192.168.1.5", "192.168.1.5"), "the server listens on this address");
        assert!(!is_local("192.168.1.9", "192.168.1.5"));
        assert!(!is_local("::ffff:192.168.1.9", "::ffff:192.168.1.5"));
    }
}
