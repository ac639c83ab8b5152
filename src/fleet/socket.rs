//! A fleet that another process holds: one request a line, one answer a line, over a Unix socket.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use regex::Regex;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::logs::SystemLog;

use super::{Fleet, FleetError, LogPage, LogQuery, Presence};
use crate::domain::clock::Millis;
use crate::domain::ids::VmId;

/// The longest request or answer, in bytes: a page of logs is the longest.
const MESSAGE_BYTES: usize = 32 << 20;
/// Connections that are served at a time; more wait in the listener's own queue.
const CONNECTIONS: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What an answer may take beyond the time that the request itself asks for.
const TRAVEL: Duration = Duration::from_secs(3);
/// What a log query may take.
const LOGS_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum Request {
    Nudge,
    Renew,
    Presence { vm: VmId },
    WaitLinked { vm: VmId, timeout_ms: u64 },
    Call { vm: VmId, call: Call, timeout_ms: u64 },
    Logs { vm: VmId, query: Query, live: bool },
}

/// [`LogQuery`] on the wire.
#[derive(Serialize, Deserialize)]
struct Query {
    service: String,
    #[serde(default)]
    system: Option<SystemLog>,
    role: Option<String>,
    since: Option<Millis>,
    until: Option<Millis>,
    grep: Option<String>,
    limit: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum Answer {
    Done,
    Presence { presence: Presence },
    Reply { reply: Reply },
    Logs { page: LogPage },
    Failed { error: FleetError },
}

/// The way to the process that holds the links.
#[derive(Clone)]
pub(super) struct Remote {
    socket: Arc<PathBuf>,
}

impl Remote {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket: Arc::new(socket) }
    }

    pub(super) async fn nudge(&self) -> Result<(), FleetError> {
        match self.ask(&Request::Nudge, Duration::ZERO).await? {
            Answer::Done => Ok(()),
            other => Err(odd(other)),
        }
    }

    pub(super) async fn renew(&self) -> Result<(), FleetError> {
        match self.ask(&Request::Renew, Duration::ZERO).await? {
            Answer::Done => Ok(()),
            other => Err(odd(other)),
        }
    }

    pub(super) async fn presence(&self, vm: VmId) -> Result<Presence, FleetError> {
        match self.ask(&Request::Presence { vm }, Duration::ZERO).await? {
            Answer::Presence { presence } => Ok(presence),
            other => Err(odd(other)),
        }
    }

    pub(super) async fn wait_linked(
        &self,
        vm: VmId,
        timeout: Duration,
    ) -> Result<Presence, FleetError> {
        let request = Request::WaitLinked { vm, timeout_ms: millis(timeout) };
        match self.ask(&request, timeout).await? {
            Answer::Presence { presence } => Ok(presence),
            other => Err(odd(other)),
        }
    }

    pub(super) async fn call(
        &self,
        vm: VmId,
        call: Call,
        timeout: Duration,
    ) -> Result<Reply, FleetError> {
        let request = Request::Call { vm, call, timeout_ms: millis(timeout) };
        match self.ask(&request, timeout).await? {
            Answer::Reply { reply } => Ok(reply),
            other => Err(odd(other)),
        }
    }

    pub(super) async fn logs(
        &self,
        vm: VmId,
        query: LogQuery,
        live: bool,
    ) -> Result<LogPage, FleetError> {
        let query = Query {
            service: query.service,
            system: query.system,
            role: query.role,
            since: query.since,
            until: query.until,
            grep: query.grep.map(|grep| grep.as_str().to_owned()),
            limit: query.limit,
        };
        match self.ask(&Request::Logs { vm, query, live }, LOGS_TIMEOUT).await? {
            Answer::Logs { page } => Ok(page),
            other => Err(odd(other)),
        }
    }

    /// One connection a request: the worker may be another one at the next.
    async fn ask(&self, request: &Request, patience: Duration) -> Result<Answer, FleetError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&*self.socket));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(away(&error)),
            Err(_) => return Err(away(&"its socket does not accept")),
        };
        let asking = async {
            let mut lines = framed(stream);
            let text = serde_json::to_string(request).map_err(|error| away(&error))?;
            lines.send(text).await.map_err(|error| away(&error))?;
            let answer = lines.next().await.ok_or_else(|| away(&"it closed the connection"))?;
            serde_json::from_str(&answer.map_err(|error| away(&error))?)
                .map_err(|error| away(&error))
        };
        tokio::time::timeout(patience + TRAVEL, asking)
            .await
            .unwrap_or_else(|_| Err(away(&"it did not answer in time")))
    }
}

fn framed(stream: UnixStream) -> Framed<UnixStream, LinesCodec> {
    Framed::new(stream, LinesCodec::new_with_max_length(MESSAGE_BYTES))
}

fn away(reason: &dyn std::fmt::Display) -> FleetError {
    FleetError::WorkerAway { reason: reason.to_string() }
}

fn odd(answer: Answer) -> FleetError {
    match answer {
        Answer::Failed { error } => error,
        Answer::Done | Answer::Presence { .. } | Answer::Reply { .. } | Answer::Logs { .. } => {
            away(&"it answered something else; it may be of another version")
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Answers remote fleets until `stop` is cancelled.
pub(super) async fn serve(fleet: Fleet, listener: UnixListener, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(fleet.clone(), stream));
                }
                Err(error) => {
                    tracing::warn!("the worker's socket does not accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn converse(fleet: Fleet, stream: UnixStream) -> Result<(), LinesCodecError> {
    let mut lines = framed(stream);
    while let Some(line) = lines.next().await {
        let answer = match serde_json::from_str(&line?) {
            Ok(request) => answer(&fleet, request).await,
            Err(error) => Answer::Failed { error: away(&error) },
        };
        let text = serde_json::to_string(&answer).map_err(io::Error::other)?;
        lines.send(text).await?;
    }
    Ok(())
}

async fn answer(fleet: &Fleet, request: Request) -> Answer {
    let answered = match request {
        Request::Nudge => fleet.nudge().await.map(|()| Answer::Done),
        Request::Renew => fleet.renew().await.map(|()| Answer::Done),
        Request::Presence { vm } => {
            fleet.presence(vm).await.map(|presence| Answer::Presence { presence })
        }
        Request::WaitLinked { vm, timeout_ms } => fleet
            .wait_linked(vm, Duration::from_millis(timeout_ms))
            .await
            .map(|presence| Answer::Presence { presence }),
        Request::Call { vm, call, timeout_ms } => fleet
            .call(vm, call, Duration::from_millis(timeout_ms))
            .await
            .map(|reply| Answer::Reply { reply }),
        Request::Logs { vm, query, live } => logs(fleet, vm, query, live).await,
    };
    answered.unwrap_or_else(|error| Answer::Failed { error })
}

async fn logs(fleet: &Fleet, vm: VmId, query: Query, live: bool) -> Result<Answer, FleetError> {
    let grep = query.grep.as_deref().map(Regex::new).transpose().map_err(|error| away(&error))?;
    let query = LogQuery {
        service: query.service,
        system: query.system,
        role: query.role,
        since: query.since,
        until: query.until,
        grep,
        limit: query.limit,
    };
    let page = if live { fleet.logs(vm, query).await } else { fleet.cached_logs(vm, query).await };
    page.map(|page| Answer::Logs { page })
}
