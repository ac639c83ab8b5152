//! The steps of `control_app`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use vmkit_agent_protocol::beside::{Control, ControlAction};
use vmkit_agent_protocol::calls::{Call, Container, Reply};

use super::Params;
use crate::domain::operation::OperationState;
use crate::operations::agents::linked;
use crate::operations::deploy::{containers, prove_release};
use crate::operations::services::{ServiceError, of_agent};
use crate::operations::{Context, OpError, Operation, Run, Step, StepEnd, params};
use crate::store::{Failure, OperationRow};

/// How long an agent may take: each container has its time to end.
const AGENT_WAIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(200);

struct ControlApp {
    params: Params,
    context: Context,
}

pub(in crate::operations) fn load(
    row: &OperationRow,
    context: &Context,
) -> Result<Box<dyn Operation>, String> {
    Ok(Box::new(ControlApp { params: params(row)?, context: context.clone() }))
}

impl ControlApp {
    async fn control(&self, action: ControlAction) -> Result<Value, OpError> {
        let Params { path, vm, commit, .. } = &self.params;
        linked(&self.context, *vm).await?;
        let wanted = Control {
            app: path.app.to_string(),
            environment: path.name.to_string(),
            beside: None,
            action,
            version: commit.as_ref().map(ToString::to_string),
        };
        match self.context.fleet.call(*vm, Call::Control(wanted), AGENT_WAIT).await {
            Ok(Reply::Controlled(done)) => Ok(json!({ "containers": names(&done.containers) })),
            Ok(_) => Ok(Value::Null),
            Err(error) => Err(of_agent(&self.context, *vm, error).await),
        }
    }

    /// As after a deploy; an app takes its time to start.
    async fn prove(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let Params { environment, path, vm, .. } = &self.params;
        let live = self.context.store.releases(*environment, 1).await?.pop();
        let none = || ServiceError::NothingToStart { environment: path.to_string() };
        let live = live.ok_or_else(none)?;
        let deadline = tokio::time::Instant::now() + self.context.pace.answer;
        loop {
            match prove_release(&self.context, path, *vm, &live, run).await {
                Err(OpError::NotLive { .. }) if tokio::time::Instant::now() < deadline => {
                    run.stop_if_asked().await?;
                    tokio::time::sleep(PAUSE).await;
                }
                proven => return proven,
            }
        }
    }

    /// The app's containers that run.
    async fn running(&self) -> Result<Vec<Container>, OpError> {
        let service = self.params.path.service();
        let mut all = containers(&self.context.fleet, self.params.vm).await?;
        all.retain(|one| {
            let ours = one.labels.get("service") == Some(&service);
            ours && one.labels.contains_key("role") && one.state == "running"
        });
        Ok(all)
    }

    async fn running_once_linked(&self) -> Result<Vec<Container>, OpError> {
        linked(&self.context, self.params.vm).await?;
        self.running().await
    }

    async fn nothing_runs(&self) -> Result<Value, OpError> {
        let left = self.running_once_linked().await?;
        if left.is_empty() {
            return Ok(Value::Null);
        }
        let reason = format!("{} still runs", names(&left).join(", "));
        let environment = self.params.path.to_string();
        Err(ServiceError::NotAsAsked { environment, action: "stop", reason }.into())
    }

    async fn break_lock(&self) -> Result<Value, OpError> {
        let Params { path, vm, lock, .. } = &self.params;
        linked(&self.context, *vm).await?;
        let Some(lock) = lock.clone() else { return Ok(Value::Null) };
        match self.context.fleet.call(*vm, Call::BreakKamalLock(lock.clone()), AGENT_WAIT).await {
            Ok(Reply::KamalLocks { held: Some(held), .. }) => Err(ServiceError::OtherLock {
                environment: path.to_string(),
                by: held.by,
                since: held.since,
            }
            .into()),
            Ok(_) => Ok(json!({ "held_by": lock.by, "since": lock.since })),
            Err(error) => Err(of_agent(&self.context, *vm, error).await),
        }
    }
}

fn names(containers: &[Container]) -> Vec<String> {
    containers.iter().map(|one| format!("{} {}", one.name, one.state)).collect()
}

impl Operation for ControlApp {
    fn steps(&self) -> &'static [Step] {
        self.params.action.steps()
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let output = match step {
                "restart" => self.control(ControlAction::Restart).await?,
                "stop" => self.control(ControlAction::Stop).await?,
                "start" => self.control(ControlAction::Start).await?,
                "look" => self.nothing_runs().await?,
                "break_lock" => self.break_lock().await?,
                _ => self.prove(run).await?,
            };
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        step: &'static str,
        _run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            match step {
                "restart" => self.control(ControlAction::Start).await.map(drop),
                "stop" if self.params.commit.is_some() => {
                    self.control(ControlAction::Start).await.map(drop)
                }
                "start" => self.control(ControlAction::Stop).await.map(drop),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn ended<'a>(
        &'a self,
        _state: OperationState,
        _failure: Option<&'a Failure>,
        outputs: &'a BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>, OpError>> {
        async move {
            let Params { path, action, .. } = &self.params;
            // After a restart of ours its agent takes a moment to link again.
            let runs = match self.running_once_linked().await {
                Ok(running) if running.is_empty() => json!("nothing"),
                Ok(running) => json!(names(&running)),
                Err(_) => json!("the agent cannot be asked"),
            };
            let output = |step: &str, field: &str| match outputs.get(step) {
                Some(output) => output[field].clone(),
                None => Value::Null,
            };
            Ok(Some(json!({
                "environment": path, "action": action, "runs_now": runs,
                "url": output("prove", "url"), "lock_was_held_by": output("break_lock", "held_by"),
            })))
        }
        .boxed()
    }

    fn by_hand(&self, _step: &'static str) -> String {
        let path = &self.params.path;
        format!("call `get_status` with environment `{path}`, then `deploy` with ref `current`")
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Err(super::KIND)
    }
}
