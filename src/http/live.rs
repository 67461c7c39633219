//! Viewers over WebSocket (RFC 6455).
//!
//! warp and hyper receive the handshake. Then this module takes over the socket and writes the
//! fragments. All viewers share the bytes of each fragment. Each viewer has a socket, a place in a
//! shard ([`crate::stream::fanout`]), and a task. While the viewer keeps up, the shard writes to
//! its socket; the task sleeps until there is other work to do.

use crate::camera::Camera;
use crate::http::Context;
use crate::http::connections::ConnectionPermit;
use crate::http::handshake::{HandshakeError, handshake};
use crate::shutdown::Shutdown;
use crate::stream::fanout::{Connection, Fanout};
use crate::stream::{Event, Viewer};
use crate::stream::{Fragment, Init, Stream};
use crate::websocket;
use crate::websocket::{Message, Reader, status};
use bytes::{Buf, Bytes};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, StatusCode, Version};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use warp::reply::Response;

/// Time after which a viewer that accepts no data is considered gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval between pings to a viewer. Shorter than 30 s, the time after which some home routers
/// forget an idle connection.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Maximum time for the client to close the connection after the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum number of buffers in one write: enough for more than a second of frames, and well below
/// the Linux limit (`IOV_MAX`, 1024).
const MAX_SLICES: usize = 64;

/// The messages that a viewer understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `/live`: a text message that describes the stream, then an initial binary message (see
    /// [`start`]), then a binary message for each frame.
    Live,
    /// `/video_websocket`, for pages written for the Go version of BerryMSE: only binary messages,
    /// one for each fragment.
    Legacy,
}

/// A request from a viewer. Other text messages are ignored, so that newer pages work with this
/// server.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Request {
    /// Requests the server's current time and the publication time of the newest frame (see
    /// [`time`]).
    Time { id: u64 },
}

/// Replies to the handshake, and starts a task that serves the viewer.
pub(super) fn accept(
    headers: &HeaderMap,
    upgrade: Option<(OnUpgrade, Arc<ConnectionPermit>)>,
    camera: &Arc<Camera>,
    fanout: &Arc<Fanout>,
    dialect: Dialect,
    context: &Context,
) -> Result<Response, HandshakeError> {
    // The routes accept only GET and HEAD here, and hyper upgrades only HTTP/1.1.
    let accept = handshake(&Method::GET, Version::HTTP_11, headers)?;
    let (upgrade, permit) = upgrade.ok_or(HandshakeError::NotUpgradable)?;
    let viewer = camera.stream.watch();
    let shutdown = context.shutdown.clone();
    let fanout = fanout.clone();
    let name = camera.config.name.clone();
    let started = context.started;
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
        let mut reader = Reader::default();
        reader.push(&parts.read_buf);
        let connection = fanout.connect(parts.io.into_inner());
        let end = serve_viewer(&connection, reader, viewer, dialect, started, shutdown).await;
        connection.remove();
        drop(permit);
        match end {
            Ok(()) => log::debug!("camera \"{name}\": a viewer left"),
            Err(error) => log::debug!("camera \"{name}\": lost a viewer: {error}"),
        }
    });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// Serves a viewer from the handshake to the end of the connection.
async fn serve_viewer(
    connection: &Connection,
    mut reader: Reader,
    mut viewer: Viewer,
    dialect: Dialect,
    started: std::time::Instant,
    mut shutdown: Shutdown,
) -> io::Result<()> {
    let ping = sleep(PING_INTERVAL);
    tokio::pin!(ping);
    let mut pong_received = true;
    // Messages to send in addition to frames: pings, pongs and replies to requests.
    let mut messages: Vec<u8> = vec![];
    let code = 'open: loop {
        // On the first pass, this reads data that arrived together with the handshake.
        loop {
            match reader.next_message() {
                Ok(None) => break,
                Ok(Some(Message::Ping(payload))) => messages.extend(websocket::pong(&payload)),
                Ok(Some(Message::Close(code))) => break 'open code,
                Ok(Some(Message::Pong)) => pong_received = true,
                Ok(Some(Message::Text(text))) if dialect == Dialect::Live => {
                    if let Ok(Request::Time { id }) = serde_json::from_str(&text) {
                        messages.extend(websocket::text(&time(id, started, viewer.stream())));
                    }
                }
                Ok(Some(Message::Text(_) | Message::Binary)) => {}
                Err(code) => break 'open code,
            }
        }
        let claimed =
            if messages.is_empty() { connection.unsent() } else { Some(connection.claim()) };
        if let Some((next, unsent)) = claimed {
            send(&connection.socket, unsent.as_slice()).await?;
            if !messages.is_empty() {
                send(&connection.socket, &[std::mem::take(&mut messages).into()]).await?;
            }
            if viewer.position().is_some() {
                viewer.resume(next);
            }
            while let Some(event) = viewer.take() {
                send_event(&connection.socket, event, dialect).await?;
            }
            match viewer.position() {
                Some(next) if !connection.hand_back(next, viewer.stream()) => continue,
                _ => {}
            }
        }
        tokio::select! {
            () = connection.wake.notified() => {}
            // The shard serves a viewer only after its first frame, so the task waits for that
            // frame.
            event = viewer.next(), if viewer.position().is_none() => match event {
                Some(event) => {
                    send_event(&connection.socket, event, dialect).await?;
                    connection.claim_at(viewer.position());
                }
                None => break status::GOING_AWAY,
            },
            ready = connection.socket.readable() => {
                ready?;
                if !read(&connection.socket, &mut reader)? {
                    return Ok(());
                }
            }
            () = ping.as_mut() => {
                if !std::mem::take(&mut pong_received) {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no reply to a ping"));
                }
                messages.extend(websocket::ping());
                ping.as_mut().reset(Instant::now() + PING_INTERVAL);
            }
            () = shutdown.wait() => break status::GOING_AWAY,
        }
    };
    let (_, unsent) = connection.claim();
    send(&connection.socket, unsent.as_slice()).await?;
    send(&connection.socket, &[websocket::close(code).into()]).await?;
    socket2::SockRef::from(&connection.socket).shutdown(std::net::Shutdown::Write)?;
    // Closing a socket with unread data resets the connection, and the client may lose the close
    // frame. Therefore, read until the client closes the connection.
    let drain = async {
        while connection.socket.readable().await.is_ok() {
            if !read(&connection.socket, &mut Reader::default()).unwrap_or(false) {
                break;
            }
        }
    };
    let _ = timeout(CLOSE_TIMEOUT, drain).await;
    Ok(())
}

/// Reads available data into `reader`. Returns false if the client has closed the connection.
fn read(socket: &TcpStream, reader: &mut Reader) -> io::Result<bool> {
    // On the stack, and not held across an await, so that an idle viewer needs no buffer.
    let mut buffer = [0; 512];
    match socket.try_read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(len) => {
            reader.push(&buffer[..len]);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

async fn send_event(to: &TcpStream, event: Event, dialect: Dialect) -> io::Result<()> {
    match (event, dialect) {
        (Event::Frame(fragment), _) => send(to, &[fragment.message]).await,
        (Event::Start(init, group), Dialect::Live) => send(to, &start(&init, &group)).await,
        (Event::Start(init, group), Dialect::Legacy) => {
            send(to, &legacy_start(&init, &group)).await
        }
        (Event::Dropped(frames), Dialect::Live) => {
            let message = serde_json::json!({"type": "dropped", "frames": frames});
            send(to, &[websocket::text(&message.to_string()).into()]).await
        }
        (Event::Dropped(_), Dialect::Legacy) => Ok(()),
    }
}

/// Returns the description of the stream as a text message, and one binary message with the init
/// segment and the whole group, which browsers append in one step. The fragments are shared, not
/// copied.
fn start(init: &Init, group: &[Fragment]) -> Vec<Bytes> {
    let group: Vec<Bytes> = group.iter().map(Fragment::mp4).collect();
    let len = init.segment.len() + group.iter().map(Bytes::len).sum::<usize>();
    let mut head = websocket::text(&description(init));
    head.extend_from_slice(&websocket::Header::binary(len));
    head.extend_from_slice(&init.segment);
    std::iter::once(head.into()).chain(group).collect()
}

/// Returns the init segment and each fragment of the group as binary messages.
fn legacy_start(init: &Init, group: &[Fragment]) -> Vec<Bytes> {
    let mut head = websocket::Header::binary(init.segment.len()).to_vec();
    head.extend_from_slice(&init.segment);
    let group = group.iter().map(|fragment| fragment.message.clone());
    std::iter::once(head.into()).chain(group).collect()
}

/// Returns the description of the stream: `{"type":"init",…}`.
fn description(init: &Init) -> String {
    let parameters = &init.parameters;
    serde_json::json!({
        "type": "init",
        "codec": parameters.codec,
        "width": parameters.width,
        "height": parameters.height,
        "framerate": (init.framerate * 1000.0).round() / 1000.0,
    })
    .to_string()
}

/// Returns the reply to a time request: `{"type":"time",…}`. It contains the publication time of
/// the newest frame and the current time, from which the viewer computes the offset between the
/// clocks (as NTP does). All times are in ms since the start of the program, measured with a
/// monotonic clock, with a resolution of 1 µs.
fn time(id: u64, started: std::time::Instant, stream: &Stream) -> String {
    let ms =
        |at: std::time::Instant| at.saturating_duration_since(started).as_micros() as f64 / 1000.0;
    let mut reply = serde_json::json!({"type": "time", "id": id});
    if let Some((time, published)) = stream.newest() {
        reply["frame"] = serde_json::json!({"time": time, "published": ms(published)});
    }
    reply["now"] = ms(std::time::Instant::now()).into();
    reply.to_string()
}

/// Writes all pieces in order. Fails if the connection breaks or accepts no data for
/// [`WRITE_TIMEOUT`].
async fn send(to: &TcpStream, pieces: &[Bytes]) -> io::Result<()> {
    let mut pieces: VecDeque<Bytes> = pieces.iter().cloned().collect();
    while !pieces.is_empty() {
        let result = {
            let slices: Vec<IoSlice<'_>> =
                pieces.iter().take(MAX_SLICES).map(|piece| IoSlice::new(piece)).collect();
            to.try_write_vectored(&slices)
        };
        let mut written = match result {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // The timeout restarts whenever some data is written.
                match timeout(WRITE_TIMEOUT, to.writable()).await {
                    Ok(ready) => ready?,
                    Err(_) => {
                        let seconds = WRITE_TIMEOUT.as_secs();
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            format!("no data accepted within {seconds} s"),
                        ));
                    }
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        while written > 0
            && let Some(piece) = pieces.front_mut()
        {
            let part = written.min(piece.len());
            piece.advance(part);
            written -= part;
            if piece.is_empty() {
                pieces.pop_front();
            }
        }
    }
    Ok(())
}
