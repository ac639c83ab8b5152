//! Following containers as they come and go, from where the gateway stands. Who cannot take lines
//! makes us wait: the lines are on the VM's disk already. Who takes none for long is left the
//! newest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use vmkit_agent_protocol::calls::Reply;
use vmkit_agent_protocol::logs::{FollowLogs, ResumePoint, Source, Stream};
use vmkit_agent_protocol::messages::{Item, ToGateway};

use super::backlog::Backlog;
use super::reader::{Position, Reader};
use super::{source, wanted};
use crate::agent::Agent;
use crate::backoff;
use crate::calls::Fault;
use crate::session::{self, Asker};

/// Containers are listed at least so often, should an event be missed.
const LIST_EVERY: Duration = Duration::from_secs(5);

/// Follows until the call is cancelled (the future is dropped) or the link is gone.
pub(crate) async fn follow(
    agent: &Arc<Agent>,
    follow: FollowLogs,
    asker: &Asker,
) -> Result<Reply, Fault> {
    let backlog = Arc::new(Backlog::new(agent.room().clone()));
    let counted = follow.credit;
    asker.grant(counted.unwrap_or(0));
    let mut followers = Followers {
        agent,
        follow,
        backlog: Arc::clone(&backlog),
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let sending = async {
        for seq in 0.. {
            if counted.is_some() && !asker.spend().await {
                return;
            }
            let batch = backlog.take().await;
            let item = ToGateway::Item { id: asker.id, seq, item: Item::Logs(batch) };
            if let Some(text) = session::text(&item)
                && asker.queue.send(text).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = followers.keep() => {}
    }
    Err(Fault::ended())
}

struct Followers<'a> {
    agent: &'a Arc<Agent>,
    follow: FollowLogs,
    backlog: Arc<Backlog>,
    /// By container id: its state as last listed, and how to wake its reader.
    running: HashMap<String, (String, watch::Sender<u64>)>,
    tasks: JoinSet<String>,
}

impl Followers<'_> {
    /// Never ends; an engine that is away is asked again.
    async fn keep(&mut self) {
        let (mut first, mut attempt) = (true, 0);
        loop {
            let ended = match self.agent.engine().get().await {
                Ok(docker) => self.watch(&docker, &mut first, &mut attempt).await,
                Err(error) => error,
            };
            self.agent.engine().forget().await;
            attempt += 1;
            tracing::debug!(attempt, error = &ended as &dyn std::error::Error, "no Docker engine");
            tokio::time::sleep(backoff::jittered(attempt)).await;
        }
    }

    /// Lists on every event of the engine and every few seconds, until the engine goes away.
    async fn watch(&mut self, docker: &Docker, first: &mut bool, attempt: &mut u32) -> DockerError {
        let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
        let listen =
            || docker.events(Some(EventsOptionsBuilder::new().filters(&filters).build())).fuse();
        // The events are asked for before the first list, so that nothing falls between.
        let mut events = listen();
        let mut tick = tokio::time::interval(LIST_EVERY);
        loop {
            tokio::select! {
                event = events.select_next_some(), if !events.is_done() => match event {
                    Ok(event) => {
                        let id = event.actor.and_then(|actor| actor.id).unwrap_or_default();
                        if !matters(event.action.as_deref().unwrap_or_default()) {
                            continue;
                        }
                        if let Some((_, wake)) = self.running.get(&id) {
                            wake.send_modify(|changes| *changes += 1);
                        }
                    }
                    Err(error) => return error,
                },
                _ = tick.tick() => {
                    if events.is_done() {
                        events = listen();
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Ok(id) = ended {
                        self.running.remove(&id);
                    }
                    continue;
                }
            }
            match self.list(docker, *first).await {
                Ok(()) => (*first, *attempt) = (false, 0),
                Err(error) => return error,
            }
        }
    }

    /// Starts a reader for every container that has none, and wakes those whose state changed.
    async fn list(&mut self, docker: &Docker, first: bool) -> Result<(), DockerError> {
        let all = ListContainersOptionsBuilder::new().all(true).build();
        for summary in docker.list_containers(Some(all)).await? {
            let source = source(&summary);
            if !wanted(&self.follow.selector, &summary, &source) {
                continue;
            }
            let state = state(&summary);
            if let Some((known, wake)) = self.running.get_mut(&source.container) {
                if *known != state {
                    *known = state;
                    wake.send_modify(|changes| *changes += 1);
                }
                continue;
            }
            let (wake, changes) = watch::channel(0);
            self.running.insert(source.container.clone(), (state, wake));
            let reader = Reader {
                docker: docker.clone(),
                stdout: position(&self.follow.resume, &source, Stream::Stdout),
                stderr: position(&self.follow.resume, &source, Stream::Stderr),
                backfill: first.then_some(self.follow.backfill),
                source,
                backlog: Arc::clone(&self.backlog),
                changes,
            };
            self.tasks.spawn(reader.run());
        }
        Ok(())
    }
}

/// Events such as `exec_start` come with every health check, and mean nothing here.
fn matters(action: &str) -> bool {
    matches!(action, "create" | "start" | "die" | "destroy" | "rename" | "restart" | "stop")
}

fn state(summary: &ContainerSummary) -> String {
    summary.state.map(|state| state.to_string()).unwrap_or_default()
}

fn position(resume: &[ResumePoint], source: &Source, stream: Stream) -> Position {
    let point =
        resume.iter().find(|point| point.container == source.container && point.stream == stream);
    Position { last: point.map(|point| (point.time_ns, point.count)) }
}
