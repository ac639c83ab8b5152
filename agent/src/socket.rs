//! The Unix socket: VMKit comes to the agent, over SSH and `vmkit-agent bridge`.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::wire::Wire;

use crate::agent::Agent;
use crate::host::Host;
use crate::session;

/// Links at a time; more wait in the listener's own queue.
const LINKS: usize = 8;

/// Serves links until `stop` is cancelled, then removes the socket.
pub(crate) async fn serve(agent: Arc<Agent>, stop: CancellationToken) -> io::Result<()> {
    let path = agent.host().agent_socket();
    let listener = listen(agent.host(), &path)?;
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if links.len() < LINKS => {
                let Ok((stream, _)) = accepted else { continue };
                let (agent, stop) = (Arc::clone(&agent), stop.clone());
                links.spawn(async move {
                    if let Err(error) = session::run(&agent, Wire::lines(stream), None, &stop, || ()).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "a link over the socket ended");
                    }
                });
            }
            Some(_) = links.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(std::fs::remove_file(&path));
    Ok(())
}

fn listen(host: &Host, path: &Path) -> io::Result<UnixListener> {
    host.make_dir(path.parent().unwrap_or(host.root()), 0o755)?;
    // Left behind by an agent that was killed; nothing but a socket is ever removed.
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // For root and the group of the user that VMKit's own SSH key leads to; the handshake says
    // who is who in any case.
    let mode = if let Some((group, _)) = host.user("vmkit")
        && rustix::process::geteuid().is_root()
    {
        rustix::fs::chown(path, None, Some(rustix::fs::Gid::from_raw(group)))?;
        0o660
    } else {
        0o600
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Joins standard input and output to the agent's socket until the agent closes. The end of
/// standard input is passed on, and what the agent still says is heard.
pub(crate) async fn bridge(host: &Host) -> io::Result<()> {
    let (mut from_agent, mut to_agent) =
        UnixStream::connect(host.agent_socket()).await?.into_split();
    let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let ours = async {
        let copied = tokio::io::copy(&mut stdin, &mut to_agent).await;
        drop(to_agent);
        match copied {
            Ok(_) => std::future::pending().await,
            Err(error) => error,
        }
    };
    let ended = tokio::select! {
        copied = tokio::io::copy(&mut from_agent, &mut stdout) => copied.map(|_| ()),
        error = ours => Err(error),
    };
    ended.or_else(|error| if is_end(error.kind()) { Ok(()) } else { Err(error) })
}

/// An agent that ends before it has read all that we passed on resets the connection: that is its
/// end, and no fault of ours.
fn is_end(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
