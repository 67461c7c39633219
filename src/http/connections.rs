//! Limit on simultaneous connections per address.

use super::reply::RETRY_AFTER_SECONDS;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpStream;

/// Counts the connections of each address.
#[derive(Default, Clone)]
pub(super) struct ConnectionLimiter(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// One counted connection, until it is dropped. A WebSocket viewer keeps it.
pub(super) struct ConnectionPermit {
    limiter: ConnectionLimiter,
    address: IpAddr,
}

impl ConnectionLimiter {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for another connection of `address`, unless it has `limit` already.
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
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER_SECONDS}\r\nContent-Type: \
         text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes()); // a new connection has room for it
}
