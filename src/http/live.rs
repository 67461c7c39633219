//! Viewers over WebSocket.
//!
//! warp and hyper take the handshake; then the socket is taken over, and what goes out are the
//! shared bytes of the fragments, as they are, with plain writes. A viewer costs a task, a socket
//! and a position in the stream.

use super::websocket::{self, Message, Reader};
use super::{Context, Shutdown, websocket::status};
use crate::camera::Camera;
use crate::stream::{Event, Fragment, Init, Viewer};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, StatusCode, Version};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::time::{MissedTickBehavior, interval, timeout};
use warp::reply::Response;

/// A viewer that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a viewer is asked whether it is still there: below the 30 s after which home routers
/// forget a quiet connection.
const PING: Duration = Duration::from_secs(20);

/// Time for the peer to close after we have.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Which messages a viewer understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `/live`: text about the stream, then one binary message to start, then one a frame.
    Live,
    /// `/video_websocket`, for pages of the Go BerryMSE: binary only, each fragment a message.
    Old,
}

/// Answers the handshake, and sends pictures once it is through.
pub(super) fn accept(
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
    camera: &Arc<Camera>,
    dialect: Dialect,
    context: &Context,
) -> Result<Response, (StatusCode, &'static str)> {
    // The door and the routes have let only GET through, and hyper upgrades only HTTP/1.1.
    let accept = websocket::handshake(&Method::GET, Version::HTTP_11, headers)?;
    let upgrade =
        upgrade.ok_or((StatusCode::BAD_REQUEST, "this connection cannot be a WebSocket"))?;
    let viewer = camera.stream.watch();
    let shutdown = context.shutdown.clone();
    let name = camera.config.name.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
        let mut reader = Reader::default();
        reader.push(&parts.read_buf);
        match show(parts.io.into_inner(), reader, viewer, dialect, shutdown).await {
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

async fn show(
    mut stream: TcpStream,
    mut reader: Reader,
    mut viewer: Viewer,
    dialect: Dialect,
    mut shutdown: Shutdown,
) -> io::Result<()> {
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.tick().await; // the first is at once
    let mut answered = true;
    let mut buffer = [0; 512];
    let (mut from, mut to) = stream.split();
    // Also what came together with the handshake.
    let code = 'open: loop {
        loop {
            match reader.next_message() {
                Ok(None) => break,
                Ok(Some(Message::Ping(payload))) => {
                    send(&mut to, &websocket::pong(&payload)).await?
                }
                Ok(Some(Message::Close(code))) => break 'open code,
                Ok(Some(Message::Pong)) => answered = true,
                Ok(Some(Message::Text(_) | Message::Binary)) => {} // nothing is asked for yet
                Err(code) => break 'open code,
            }
        }
        tokio::select! {
            event = viewer.next() => match event {
                Some(event) => send_event(&mut to, event, dialect).await?,
                None => break status::GOING_AWAY,
            },
            read = from.read(&mut buffer) => match read? {
                0 => return Ok(()),
                len => reader.push(&buffer[..len]),
            },
            _ = pings.tick() => {
                if !std::mem::take(&mut answered) {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
                }
                send(&mut to, &websocket::ping()).await?;
            }
            _ = shutdown.wait() => break status::GOING_AWAY,
        }
    };
    send(&mut to, &websocket::close(code)).await?;
    to.shutdown().await?;
    // What the peer still had to say is read, so that it gets our last words (no reset).
    let drain = async { while from.read(&mut buffer).await.is_ok_and(|len| len > 0) {} };
    let _ = timeout(CLOSE_TIMEOUT, drain).await;
    Ok(())
}

async fn send_event(to: &mut WriteHalf<'_>, event: Event, dialect: Dialect) -> io::Result<()> {
    match (event, dialect) {
        (Event::Frame(fragment), _) => send(to, &fragment.message).await,
        (Event::Start(init, group), Dialect::Live) => send(to, &start(&init, &group)).await,
        (Event::Start(init, group), Dialect::Old) => send(to, &old_start(&init, &group)).await,
        (Event::Dropped(frames), Dialect::Live) => {
            let message = serde_json::json!({"type": "dropped", "frames": frames});
            send(to, &websocket::text(&message.to_string())).await
        }
        (Event::Dropped(_), Dialect::Old) => Ok(()),
    }
}

/// The text about the stream, and one message with the init segment and all of the group: a
/// browser appends it at once.
fn start(init: &Init, group: &[Fragment]) -> Vec<u8> {
    let text = websocket::text(&description(init));
    let body = init.segment.len() + group.iter().map(|f| f.mp4().len()).sum::<usize>();
    let header = websocket::Header::binary(body);
    let mut out = Vec::with_capacity(text.len() + header.len() + body);
    out.extend(text);
    out.extend_from_slice(&header);
    out.extend_from_slice(&init.segment);
    group.iter().for_each(|fragment| out.extend_from_slice(&fragment.mp4()));
    out
}

fn old_start(init: &Init, group: &[Fragment]) -> Vec<u8> {
    let mut out = websocket::Header::binary(init.segment.len()).to_vec();
    out.extend_from_slice(&init.segment);
    group.iter().for_each(|fragment| out.extend_from_slice(&fragment.message));
    out
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

/// Writes all of it, or finds that the viewer is gone.
async fn send(to: &mut WriteHalf<'_>, data: &[u8]) -> io::Result<()> {
    match timeout(WRITE_TIMEOUT, to.write_all(data)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it takes nothing")),
    }
}
