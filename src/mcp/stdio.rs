//! MCP over stdin and stdout: nothing else is ever written there, and the end of stdin ends us.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rmcp::{ServerHandler, ServiceExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

/// How long answers under way may take once nobody can send anything any more.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Serves one client until its stream ends, and cancels `ended` then: calls that only wait end at
/// once, and whatever else is under way gets a moment.
///
/// # Errors
/// The client did not begin as the protocol wants.
pub async fn serve<S, R, W>(
    server: S,
    ended: CancellationToken,
    input: R,
    output: W,
) -> io::Result<()>
where
    S: ServerHandler,
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let watched = Watched { input, ended: ended.clone() };
    let running = match server.serve((watched, output)).await {
        Ok(running) => running,
        // A client that leaves before it begins is no fault of anybody's.
        Err(_) if ended.is_cancelled() => return Ok(()),
        Err(error) => return Err(io::Error::other(error)),
    };
    let late = async {
        ended.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        finished = running.waiting() => finished.map(|_| ()).map_err(io::Error::other),
        () = late => Ok(()),
    }
}

/// Tells when its stream has ended.
struct Watched<R> {
    input: R,
    ended: CancellationToken,
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.input).poll_read(context, buffer);
        if let Poll::Ready(outcome) = &polled
            && (outcome.is_err() || buffer.filled().len() == before)
        {
            self.ended.cancel();
        }
        polled
    }
}
