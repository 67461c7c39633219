//! Viewers over WebSocket.

use super::within;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A WebSocket client.
pub struct Viewer {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Viewer {
    /// Returns the next message that is neither a ping nor a pong, or `None` after the end of the
    /// connection.
    pub async fn next(&mut self) -> Option<Message> {
        next_message(&mut self.socket).await
    }

    /// Returns the next message, which must be text with JSON.
    pub async fn text(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("not text: {}", describe(&other)),
        }
    }

    /// Returns the next message, which must be binary.
    pub async fn binary(&mut self) -> Bytes {
        match self.next().await {
            Some(Message::Binary(data)) => data,
            other => panic!("not binary: {}", describe(&other)),
        }
    }
}

/// Returns the next message of a WebSocket that is neither a ping nor a pong, or `None` at its end.
pub async fn next_message<S>(socket: &mut WebSocketStream<S>) -> Option<Message>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let message = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(WsError::ConnectionClosed)) | None => return None,
                Some(Err(error)) => panic!("WebSocket: {error}"),
            }
        }
    };
    within("a message", message).await
}

/// Describes a message briefly, for the output of a test.
pub fn describe(message: &Option<Message>) -> String {
    match message {
        Some(Message::Binary(data)) => format!("{} bytes", data.len()),
        other => format!("{other:?}"),
    }
}
