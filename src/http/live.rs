//! Viewers over WebSocket.
//!
//! warp and hyper take the handshake; then the socket is taken over, and what goes out are the
//! shared bytes of the fragments, as they are, with plain writes. A viewer costs a socket, a place in
//! a row ([`super::fanout`]), and a task that sleeps until something unusual happens.

use crate::camera::Camera;
use crate::http::Context;
use crate::http::connections::ConnectionPermit;
use crate::http::handshake::handshake;
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

/// A viewer that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a viewer is asked whether it is still there: below the 30 s after which home routers
/// forget a quiet connection.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Time for the peer to close after we have.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Pieces that go into one write: well below the 1024 of Linux (IOV_MAX), and a second of frames.
const MAX_SLICES: usize = 64;

/// Which messages a viewer understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `/live`: text about the stream, then one binary message to start, then one a frame.
    Live,
    /// `/video_websocket`, for pages of the Go BerryMSE: binary only, each fragment a message.
    Legacy,
}

/// What a viewer may ask. Any other text is ignored, so that newer pages get along with this server.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Request {
    /// What time it is here, and how old the newest frame: see [`time`].
    Time { id: u64 },
}

/// Answers the handshake, and sends pictures once it is through.
pub(super) fn accept(
    headers: &HeaderMap,
    upgrade: Option<(OnUpgrade, Arc<ConnectionPermit>)>,
    camera: &Arc<Camera>,
    fanout: &Arc<Fanout>,
    dialect: Dialect,
    context: &Context,
) -> Result<Response, (StatusCode, &'static str)> {
    // The door and the routes have let only GET through, and hyper upgrades only HTTP/1.1.
    let accept = handshake(&Method::GET, Version::HTTP_11, headers)?;
    let (upgrade, permit) =
        upgrade.ok_or((StatusCode::BAD_REQUEST, "this connection cannot be a WebSocket"))?;
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
            Ok(()) => log::debug!("a viewer of \"{name}\" left"),
            Err(error) => log::debug!("a viewer of \"{name}\" is gone: {error}"),
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

/// One viewer, from the handshake to the end.
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
    let mut answered = true;
    // What is to be said besides pictures: pings, answers to pings and questions.
    let mut words: Vec<u8> = vec![];
    let code = 'open: loop {
        // Also what came together with the handshake.
        loop {
            match reader.next_message() {
                Ok(None) => break,
                Ok(Some(Message::Ping(payload))) => words.extend(websocket::pong(&payload)),
                Ok(Some(Message::Close(code))) => break 'open code,
                Ok(Some(Message::Pong)) => answered = true,
                Ok(Some(Message::Text(text))) if dialect == Dialect::Live => {
                    if let Ok(Request::Time { id }) = serde_json::from_str(&text) {
                        words.extend(websocket::text(&time(id, started, viewer.stream())));
                    }
                }
                Ok(Some(Message::Text(_) | Message::Binary)) => {}
                Err(code) => break 'open code,
            }
        }
        let claimed = if words.is_empty() { connection.unsent() } else { Some(connection.claim()) };
        if let Some((next, unsent)) = claimed {
            send(&connection.socket, unsent.as_slice()).await?;
            if !words.is_empty() {
                send(&connection.socket, &[std::mem::take(&mut words).into()]).await?;
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
            // Until there is a first picture, nobody else watches for it.
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
                if !std::mem::take(&mut answered) {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
                }
                words.extend(websocket::ping());
                ping.as_mut().reset(Instant::now() + PING_INTERVAL);
            }
            () = shutdown.wait() => break status::GOING_AWAY,
        }
    };
    let (_, unsent) = connection.claim();
    send(&connection.socket, unsent.as_slice()).await?;
    send(&connection.socket, &[websocket::close(code).into()]).await?;
    socket2::SockRef::from(&connection.socket).shutdown(std::net::Shutdown::Write)?;
    // What the peer still had to say is read, so that it gets our last words (no reset).
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

/// Reads what is there. False at the end.
fn read(socket: &TcpStream, reader: &mut Reader) -> io::Result<bool> {
    // On the stack, and not across a wait: a viewer that says nothing needs no buffer.
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

/// The text about the stream, and one message with the init segment and all of the group: a
/// browser appends it at once. The fragments are those that everybody has; nothing is copied.
fn start(init: &Init, group: &[Fragment]) -> Vec<Bytes> {
    let group: Vec<Bytes> = group.iter().map(Fragment::mp4).collect();
    let len = init.segment.len() + group.iter().map(Bytes::len).sum::<usize>();
    let mut head = websocket::text(&description(init));
    head.extend_from_slice(&websocket::Header::binary(len));
    head.extend_from_slice(&init.segment);
    std::iter::once(head.into()).chain(group).collect()
}

fn legacy_start(init: &Init, group: &[Fragment]) -> Vec<Bytes> {
    let mut head = websocket::Header::binary(init.segment.len()).to_vec();
    head.extend_from_slice(&init.segment);
    let group = group.iter().map(|fragment| fragment.message.clone());
    std::iter::once(head.into()).chain(group).collect()
}

/// `{"type":"init",…}`
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

/// `{"type":"time",…}`: with it a viewer sets its clock by ours (as NTP does: the answer belongs to
/// the middle between question and answer), and knows when one certain frame left. Our clock runs
/// evenly, from the program's start; in ms, to the microsecond.
fn time(id: u64, started: std::time::Instant, stream: &Stream) -> String {
    let ms =
        |at: std::time::Instant| at.saturating_duration_since(started).as_micros() as f64 / 1000.0;
    let mut answer = serde_json::json!({"type": "time", "id": id});
    if let Some((time, published)) = stream.newest() {
        answer["frame"] = serde_json::json!({"time": time, "published": ms(published)});
    }
    answer["now"] = ms(std::time::Instant::now()).into();
    answer.to_string()
}

/// Writes all of it, one piece after the other, or finds that the viewer is gone.
async fn send(to: &TcpStream, pieces: &[Bytes]) -> io::Result<()> {
    let mut pieces: VecDeque<Bytes> = pieces.iter().cloned().collect();
    while !pieces.is_empty() {
        let wrote = {
            let slices: Vec<IoSlice<'_>> =
                pieces.iter().take(MAX_SLICES).map(|piece| IoSlice::new(piece)).collect();
            to.try_write_vectored(&slices)
        };
        let mut wrote = match wrote {
            Ok(wrote) => wrote,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Not the whole has to go within this time, but something.
                match timeout(WRITE_TIMEOUT, to.writable()).await {
                    Ok(ready) => ready?,
                    Err(_) => {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes nothing"));
                    }
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        while wrote > 0
            && let Some(piece) = pieces.front_mut()
        {
            let part = wrote.min(piece.len());
            piece.advance(part);
            wrote -= part;
            if piece.is_empty() {
                pieces.pop_front();
            }
        }
    }
    Ok(())
}
