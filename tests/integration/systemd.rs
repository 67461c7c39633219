//! Notifications to systemd.

use crate::support::{Folder, Server, TIMEOUT, within};
use std::os::unix::net::UnixDatagram;
use tokio::task::spawn_blocking;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifies_systemd_of_start_watchdog_and_stop() {
    let folder = Folder::new();
    let path = folder.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let mut server = Server::start_with("[[camera]]\nsource = \"test-card\"\n", &environment).await;
    let until = |wanted: &'static str| {
        let socket = socket.try_clone().unwrap();
        within(wanted, async move {
            let heard = spawn_blocking(move || {
                let mut heard = String::new();
                while !heard.contains(wanted) {
                    let mut message = [0; 500];
                    let length = socket.recv(&mut message).unwrap();
                    heard += std::str::from_utf8(&message[..length]).unwrap();
                    heard += "\n";
                }
                heard
            });
            heard.await.unwrap()
        })
    };
    let heard = until("READY=1").await;
    assert!(heard.contains("STATUS=streaming at http://"), "{heard}");
    until("WATCHDOG=1").await;
    until("WATCHDOG=1").await;
    server.terminate();
    until("STOPPING=1").await;
    assert!(server.ended().await.success());
}
