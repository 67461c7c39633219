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
}

impl ConnectionLimiter {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a permit for another connection from `address`, or `None` if the address already has
    /// `limit` connections.
    pub(super) fn acquire(&self, address: IpAddr, limit: u32) -> Option<Arc<ConnectionPermit>> {
        let mut counts = self.lock();
        let count = counts.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Arc::new(ConnectionPermit { limiter: self.clone(), address }))
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
