//! A two-way stream of text messages: nobody above it knows whether it is a WebSocket or a socket.

use std::io;
use std::pin::Pin;

use futures::stream::{BoxStream, StreamExt};
use futures::{Sink, SinkExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

use crate::MAX_MESSAGE_BYTES;

/// Where messages go.
pub type Outgoing = Pin<Box<dyn Sink<String, Error = WireError> + Send>>;
/// Where messages come from; ends when the peer has closed.
pub type Incoming = BoxStream<'static, Result<String, WireError>>;

/// Why a message could not be carried.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// A message of the peer is longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// The peer has closed.
    #[error("the peer closed the connection")]
    Closed,
    /// A message is not what the protocol says.
    #[error("a message is not understood")]
    NotUnderstood(#[source] serde_json::Error),
}

/// A connection that carries whole messages.
pub struct Wire {
    /// To the peer.
    pub outgoing: Outgoing,
    /// From the peer.
    pub incoming: Incoming,
}

impl Wire {
    /// One line a message, over any byte stream.
    pub fn lines(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let codec = LinesCodec::new_with_max_length(MAX_MESSAGE_BYTES);
        let (sink, stream) = Framed::new(io, codec).split();
        Self {
            outgoing: Box::pin(sink.sink_map_err(from_codec)),
            incoming: stream.map(|line| line.map_err(from_codec)).boxed(),
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        let text = serde_json::to_string(message).map_err(WireError::NotUnderstood)?;
        self.outgoing.send(text).await
    }

    /// The next message.
    ///
    /// # Errors
    /// Where the connection is gone, or the message is not one.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        let text = self.incoming.next().await.ok_or(WireError::Closed)??;
        serde_json::from_str(&text).map_err(WireError::NotUnderstood)
    }
}

fn from_codec(error: LinesCodecError) -> WireError {
    match error {
        LinesCodecError::MaxLineLengthExceeded => WireError::TooLong,
        LinesCodecError::Io(error) => WireError::Broken(error),
    }
}
