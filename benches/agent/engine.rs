//! A Docker engine with one container that says as many lines as are wanted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const SERVICE: &str = "bench-staging";
/// Lines of one write.
const TOGETHER: u64 = 200;
/// The text of a line, in bytes, its number included.
const TEXT: usize = 120;

/// Serves until it is dropped.
pub(crate) struct FakeEngine {
    sent: Arc<AtomicU64>,
    _end: DropGuard,
}

impl FakeEngine {
    /// A container with `lines` lines; a followed log then stays open. With a rate per second they
    /// come at that rate.
    pub(crate) fn serve(socket: &Path, lines: u64, rate: Option<u64>) -> Self {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let (sent, end) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let counted = sent.clone();
        let router = Router::new()
            .fallback(async move |request: Request| answer(&request, lines, rate, &counted));
        let ended = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                served = axum::serve(listener, router) => served.unwrap(),
                () = ended.cancelled() => {}
            }
        });
        Self { sent, _end: end.drop_guard() }
    }

    /// How many lines have been written.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn answer(request: &Request, lines: u64, rate: Option<u64>, sent: &Arc<AtomicU64>) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    // With the API's version before it, or without.
    let rest = match path.split_once('/') {
        Some((version, rest)) if version.starts_with("v1.") => rest,
        _ => path,
    };
    let follow = request.uri().query().is_some_and(|query| query.contains("follow=true"));
    match rest {
        "version" => Json(json!({"Version": "26.1.5", "ApiVersion": "1.45"})).into_response(),
        "containers/json" => Json(json!([{
            "Id": "c1", "Names": [format!("/{SERVICE}-web-abc")], "Image": "bench:1", "State": "running",
            "Labels": {"service": SERVICE, "role": "web"}, "Status": "Up 1 second",
        }]))
        .into_response(),
        "containers/c1/json" => Json(json!({
            "Id": "c1", "Name": format!("/{SERVICE}-web-abc"), "RestartCount": 0,
            "State": {"Status": "running", "Running": true, "StartedAt": "2026-11-01T09:00:00Z"},
        }))
        .into_response(),
        "containers/c1/logs" if follow => {
            Body::from_stream(stream(lines, rate, sent.clone())).into_response()
        }
        // Asked where the log begins: there is nothing before the first line.
        "containers/c1/logs" => {
            let mut bytes = Vec::new();
            frame(1, &mut bytes);
            bytes.into_response()
        }
        "events" => Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>())
            .into_response(),
        _ => (axum::http::StatusCode::NOT_FOUND, Json(json!({"message": "absent"}))).into_response(),
    }
}

fn stream(
    lines: u64,
    rate: Option<u64>,
    sent: Arc<AtomicU64>,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    let begun = Instant::now();
    futures::stream::unfold(0, move |from| {
        let sent = sent.clone();
        async move {
            if from >= lines {
                return std::future::pending().await;
            }
            let count = rate.map_or(TOGETHER, |rate| rate / 20).min(lines - from);
            if let Some(rate) = rate {
                let due = begun + Duration::from_secs_f64(from as f64 / rate as f64);
                tokio::time::sleep_until(due.into()).await;
            }
            let mut bytes = Vec::with_capacity(200 * TOGETHER as usize);
            for number in from + 1..=from + count {
                frame(number, &mut bytes);
            }
            sent.fetch_add(count, Ordering::Relaxed);
            Some((Ok(bytes.into()), from + count))
        }
    })
}

/// As Docker writes it, a microsecond after the one before.
fn frame(number: u64, bytes: &mut Vec<u8>) {
    let (second, micros) = (number / 1_000_000 % 60, number % 1_000_000);
    let text = format!("{number} {}", "x".repeat(TEXT));
    let line = format!("2026-11-01T09:30:{second:02}.{micros:06}000Z {}\n", &text[..TEXT]);
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(u32::try_from(line.len()).unwrap().to_be_bytes());
    bytes.extend(line.as_bytes());
}

/// Lines per second to a reader that does nothing but read: the peer.
pub(crate) async fn bare(lines: u64) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let _engine = FakeEngine::serve(&socket, lines, None);
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let begun = Instant::now();
    let ask = "GET /v1.44/containers/c1/logs?follow=true HTTP/1.1\r\nHost: docker\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let (mut seen, mut bytes) = (0, vec![0; 1 << 16]);
    while seen < lines {
        let count = stream.read(&mut bytes).await.unwrap();
        seen += bytes[..count].windows(2).filter(|two| two == b"x\n").count() as u64;
    }
    lines as f64 / begun.elapsed().as_secs_f64()
}
