//! Requests that come in all the time, of which none may be lost.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A load on one URL, until it is stopped.
pub(crate) struct Load {
    end: CancellationToken,
    clients: Vec<JoinHandle<Counted>>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) good: usize,
    /// What went wrong, each time.
    pub(crate) lost: Vec<String>,
}

impl Load {
    /// Four clients that ask again as soon as they have an answer, each time on a new connection for
    /// two of them.
    pub(crate) fn start(url: &str, visitor: impl Fn() -> reqwest::Client) -> Self {
        let end = CancellationToken::new();
        let clients = (0..4).map(|number| {
            let (url, ending, client) = (url.to_owned(), end.clone(), visitor());
            tokio::spawn(async move {
                let mut counted = Counted::default();
                while !ending.is_cancelled() {
                    let mut request = client.get(&url);
                    if number % 2 == 0 {
                        request = request.header("connection", "close");
                    }
                    let asked = async { request.send().await?.error_for_status()?.text().await };
                    match asked.await {
                        Ok(text) if text.contains("version=") => counted.good += 1,
                        Ok(text) => counted.lost.push(format!("half an answer: {text}")),
                        Err(error) => counted.lost.push(format!("{error:?}")),
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                counted
            })
        });
        Self { clients: clients.collect(), end }
    }

    pub(crate) async fn stop(self) -> Counted {
        self.end.cancel();
        let mut all = Counted::default();
        for client in self.clients {
            let counted = client.await.expect("a client");
            all.good += counted.good;
            all.lost.extend(counted.lost);
        }
        all
    }
}
