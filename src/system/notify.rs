//! Notifications to systemd: the service is ready, alive or stopping.
//!
//! sd_notify(3) describes the protocol: datagrams with `NAME=value` lines, sent to the socket that
//! `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Maximum time for the server to respond to a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends `lines` to systemd: `READY=1`, `STOPPING=1`, `STATUS=…`. Does nothing if systemd did not
/// start this process.
pub fn tell(lines: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, lines) {
        log::warn!("cannot notify systemd of {lines:?}: {error}");
    }
}

fn send(socket: &OsStr, lines: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => net::SocketAddr::from_abstract_name(name)?,
        _ => net::SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(lines.as_bytes(), &address)?;
    Ok(())
}

/// Notifies systemd's watchdog periodically while the server at `address` responds. Returns
/// immediately if the service has no watchdog (`WatchdogSec=`).
pub async fn watchdog(address: SocketAddr) {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let for_another =
        number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
    let Some(limit) = number("WATCHDOG_USEC").filter(|&limit| limit > 0 && !for_another) else {
        return;
    };
    loop {
        if responds(address).await {
            tell("WATCHDOG=1");
        } else {
            log::error!("the server does not respond to requests from this machine");
        }
        // Three attempts within the limit.
        tokio::time::sleep(Duration::from_micros(limit / 3)).await;
    }
}

/// Returns whether the server responds in any way. 503 Service Unavailable and a closed connection
/// also count: the server must not be killed because it has many viewers.
async fn responds(address: SocketAddr) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        stream.read(&mut [0]).await
    };
    match timeout(CHECK_TIMEOUT, exchange).await {
        Ok(Err(error)) => error.kind() != std::io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_closed_connection_is_a_response() {
        let (listener, address) = listener().await;
        let server = async { drop(listener.accept().await.unwrap()) };
        assert!(tokio::join!(responds(address), server).0);
    }

    // The clock is paused and advances only to the next timeout, so the test does not wait.
    #[tokio::test(start_paused = true)]
    async fn silence_is_not_a_response() {
        let (_listener, address) = listener().await;
        assert!(!responds(address).await);
    }

    #[tokio::test]
    async fn a_refused_connection_is_not_a_response() {
        let (listener, address) = listener().await;
        drop(listener);
        assert!(!responds(address).await);
    }
}
