//! The second path: what the demo sees with its own eyes.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Stopped;

/// How long something that must come true may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks for itself.
#[derive(Clone)]
pub(super) struct Witness {
    http: reqwest::Client,
}

impl Witness {
    pub(super) fn new() -> Result<Self, Stopped> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .user_agent("vmkit-demo")
            .build()
            .map_err(Stopped::because)?;
        Ok(Self { http })
    }

    /// What `http://ADDRESS:PORT/path` answers to the host name of `url`.
    pub(super) async fn visit(
        &self,
        url: &str,
        address: &str,
        path: &str,
    ) -> Result<String, Stopped> {
        let url = url::Url::parse(url).map_err(Stopped::because)?;
        let port = url.port_or_known_default().unwrap_or(80);
        let host = url.host_str().unwrap_or_default().to_owned();
        let there = format!("http://{address}:{port}{path}");
        let answer = self.http.get(&there).header("host", host).send().await;
        let answer = answer.map_err(|error| Stopped::because(format!("GET {there}: {error}")))?;
        let status = answer.status();
        let text = answer.text().await.map_err(Stopped::because)?;
        if status.is_success() {
            return Ok(text);
        }
        Err(Stopped::because(format!("GET {there} as {url}: {status}")))
    }

    /// JSON from a simulator's own lists, or from its API.
    pub(super) async fn get(&self, url: &str, token: Option<&str>) -> Result<Value, Stopped> {
        let mut request = self.http.get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(Stopped::because)?;
        answer.json().await.map_err(|error| Stopped::because(format!("GET {url}: {error}")))
    }

    /// Sends JSON as the person would through GitHub's pages.
    pub(super) async fn send(
        &self,
        method: reqwest::Method,
        url: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<Value, Stopped> {
        let mut request = self.http.request(method.clone(), url).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(Stopped::because)?;
        let status = answer.status();
        let text = answer.text().await.map_err(Stopped::because)?;
        if !status.is_success() {
            return Err(Stopped::because(format!("{method} {url}: {status} {text}")));
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Waits until `look` sees it.
    pub(super) async fn until(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<bool, Stopped>,
    ) -> Result<(), Stopped> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !look().await? {
            if tokio::time::Instant::now() >= deadline {
                return Err(Stopped::because(format!("{what} did not come true within 30 s")));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }
}

/// Processes whose command line contains every one of `words`, by id, from `/proc`.
pub(super) fn processes(words: &[&str]) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| {
        let line = command_line(*id);
        !line.is_empty() && words.iter().all(|word| line.contains(word))
    })
    .collect()
}

fn command_line(id: i32) -> String {
    let path = Path::new("/proc").join(id.to_string()).join("cmdline");
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The processes of `program worker` whose environment names `home`.
pub(super) fn workers(home: &Path) -> Vec<i32> {
    let wanted = format!("VMKIT_HOME={}", home.display());
    let of_home = |id: &i32| {
        let path = Path::new("/proc").join(id.to_string()).join("environ");
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    processes(&[" worker"]).into_iter().filter(of_home).collect()
}

/// Ends a process as a crash would.
pub(super) fn kill(id: i32) -> Result<(), Stopped> {
    let pid = rustix::process::Pid::from_raw(id)
        .ok_or_else(|| Stopped::because(format!("{id} is no process id")))?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(Stopped::because)
}
