//! What systemd is told by a server that it has started.

mod common;

use common::{Folder, PATIENCE, Server, within};
use std::os::unix::net::UnixDatagram;
use tokio::task::spawn_blocking;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_is_told_that_it_is_ready_that_it_lives_and_that_it_stops() {
    let folder = Folder::new();
    let path = folder.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
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
    // It is asked again and again.
    until("WATCHDOG=1").await;
    until("WATCHDOG=1").await;
    server.terminate();
    until("STOPPING=1").await;
    assert!(server.ended().await.success());
}
