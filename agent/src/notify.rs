//! Telling systemd that the agent is up and alive, by datagrams to the socket that it named.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// systemd, as whoever started the agent described it. Without it, nothing is said to anybody.
#[derive(Debug, Clone, Default)]
pub struct Notifier(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    socket: UnixDatagram,
    to: SocketAddr,
    alive_within: Option<Duration>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    ///
    /// # Errors
    /// Where the first is no address of a socket.
    pub fn new(socket: Option<OsString>, watchdog_us: Option<u64>) -> io::Result<Self> {
        let Some(name) = socket.filter(|name| !name.is_empty()) else { return Ok(Self(None)) };
        let to = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => SocketAddr::from_pathname(&name)?,
        };
        let alive_within = watchdog_us.filter(|&us| us > 0).map(Duration::from_micros);
        Ok(Self(Some(Arc::new(Told { socket: UnixDatagram::unbound()?, to, alive_within }))))
    }

    /// The agent is up.
    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    /// The agent goes down.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says again and again that the agent is alive; for ever.
    pub(crate) async fn keep_saying_alive(&self) {
        let Some(within) = self.0.as_ref().and_then(|told| told.alive_within) else {
            return std::future::pending().await;
        };
        loop {
            self.say("WATCHDOG=1");
            tokio::time::sleep(within / 3).await;
        }
    }

    fn say(&self, word: &str) {
        if let Some(told) = &self.0
            && let Err(error) = told.socket.send_to_addr(word.as_bytes(), &told.to)
        {
            tracing::warn!(%error, word, "systemd cannot be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn systemd_hears_that_the_agent_is_up_and_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let notifier = Notifier::new(Some(path.into()), Some(30_000)).unwrap();
        notifier.ready();
        let alive = tokio::spawn({
            let notifier = notifier.clone();
            async move { notifier.keep_saying_alive().await }
        });
        let heard = tokio::task::spawn_blocking(move || {
            let mut heard = Vec::new();
            for _ in 0..3 {
                let mut bytes = [0; 64];
                let count = systemd.recv(&mut bytes).unwrap();
                heard.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
            }
            heard
        });
        assert_eq!(heard.await.unwrap(), ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
        alive.abort();
        Notifier::new(None, None).unwrap().ready();
    }
}
