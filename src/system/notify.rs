//! What systemd is told, where it has started us: that we are ready, and that we are still alive
//! (sd_notify(3): a datagram with `NAME=value` lines to the socket in `NOTIFY_SOCKET`).

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

/// A server that has not answered by then does not work.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells systemd, if it listens: `READY=1`, `STOPPING=1`, `STATUS=…`, a line each.
pub fn tell(lines: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, lines) {
        log::warn!("systemd cannot be told {lines:?}: {error}");
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

/// Tells systemd again and again that the server at `address` answers, as long as it does. Ends at
/// once where systemd does not ask for it (`WatchdogSec=`).
pub async fn watchdog(address: SocketAddr) {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let for_another =
        number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
    let Some(limit) = number("WATCHDOG_USEC").filter(|&limit| limit > 0 && !for_another) else {
        return;
    };
    loop {
        if answers(address).await {
            tell("WATCHDOG=1");
        } else {
            log::error!("the server does not answer itself");
        }
        // Three tries before systemd's patience ends.
        tokio::time::sleep(Duration::from_micros(limit / 3)).await;
    }
}

/// Whether something comes back, whatever it is. A refusal for want of room is an answer, too: the
/// server must not be killed because it has many viewers.
async fn answers(address: SocketAddr) -> bool {
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
    async fn a_refusal_is_an_answer() {
        let (listener, address) = listener().await;
        let server = async { drop(listener.accept().await.unwrap()) };
        assert!(tokio::join!(answers(address), server).0);
    }

    // With its clock standing still but for timeouts, so that nobody waits.
    #[tokio::test(start_paused = true)]
    async fn silence_is_none() {
        let (_listener, address) = listener().await;
        assert!(!answers(address).await);
    }

    #[tokio::test]
    async fn nobody_there_is_none() {
        let (listener, address) = listener().await;
        drop(listener);
        assert!(!answers(address).await);
    }
}
