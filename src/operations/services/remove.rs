//! The end of a service beside an app, with its data: a part of `destroy`, and always for a person to
//! approve.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vmkit_agent_protocol::beside::RemoveService;
use vmkit_agent_protocol::calls::{Call, Reply};

use super::{ServiceError, locks, of_agent, of_kind, ready_vm};
use crate::domain::env_values::EnvClass;
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, ServiceId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::domain::operation::OperationState;
use crate::domain::plan::{PlanBody, Policy};
use crate::domain::service::{Service, ServiceKind, ServiceState};
use crate::operations::agents::linked;
use crate::operations::config_files::{self, Why};
use crate::operations::env::{self, Change};
use crate::operations::environments::{app, environment};
use crate::operations::{
    Ask, Context, OpError, Operation, Run, Started, Step, StepEnd, params, plans, queue,
};
use crate::store::{Changes, Failure, NewOperation, OperationRow, PlanRow};

pub(in crate::operations) const KIND: &str = "remove_service";
pub(in crate::operations) const VERSION: u32 = 1;
/// The tool that plans and starts it.
const ACTION: &str = "destroy";
/// How long an agent may take: a service has a minute to end.
const AGENT_WAIT: Duration = Duration::from_secs(120);

const STEPS: [Step; 5] = [
    Step { name: "mark", says: "noting that it is being removed" },
    Step { name: "commit_config", says: "taking it out of the Kamal config in the repo" },
    Step { name: "unset_address", says: "taking its address out of the app's env values" },
    Step {
        name: "remove",
        says: "removing its container, its volume with the data and its env file",
    },
    Step { name: "forget", says: "forgetting it and its password" },
];

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    vm: VmId,
    kind: ServiceKind,
    service: ServiceId,
}

async fn look(
    context: &Context,
    path: &EnvironmentPath,
    kind: ServiceKind,
) -> Result<(Service, VmId), OpError> {
    let environment = environment(&context.store, path).await?;
    let none = || ServiceError::None { environment: path.to_string(), kind };
    let service = of_kind(context, environment.id, kind).await?.ok_or_else(none)?;
    Ok((service, ready_vm(context, &environment).await?))
}

fn arguments(path: &EnvironmentPath, kind: ServiceKind) -> Value {
    json!({ "environment": path, "service": kind })
}

fn seen(service: &Service) -> Value {
    json!({ "service": service.id, "version": service.version.to_string() })
}

/// Plans it. Changes nothing.
///
/// # Errors
/// There is no such service, or no VM.
pub async fn plan(
    context: &Context,
    path: &EnvironmentPath,
    kind: ServiceKind,
) -> Result<PlanRow, OpError> {
    let (service, vm) = look(context, path, kind).await?;
    let (title, name) = (kind.title(), kind.host(path));
    let keys: Vec<&str> = kind.keys().collect();
    let body = PlanBody {
        summary: format!("destroy {title} {} of `{path}` with all its data", service.version),
        steps: STEPS.iter().map(|step| step.says.to_owned()).collect(),
        monthly_before: None,
        monthly_after: None,
        downtime_s: 0,
        lost: vec![format!("all data of {title}: volume `{name}` on VM {vm}")],
        touches: vec![
            format!("container `{name}`"),
            format!(
                "{} of the app, which keeps the old value until it is deployed again and then has none",
                keys.join(", ")
            ),
        ],
        confirm_with: path.to_string(),
    };
    let policy = Policy::Human;
    plans::make(context, ACTION, arguments(path, kind), &seen(&service), body, policy).await
}

/// Carries out a plan, once a person has approved it.
///
/// # Errors
/// The plan is unknown, expired, used, for something else, or no longer what is there.
pub async fn start(
    context: &Context,
    path: &EnvironmentPath,
    kind: ServiceKind,
    plan: PlanId,
    ask: Ask,
) -> Result<Started, OpError> {
    let arguments = arguments(path, kind);
    let plan = plans::usable(context, plan, ACTION, &arguments).await?;
    let (service, vm) = look(context, path, kind).await?;
    plans::still_holds(&plan, &seen(&service), "the service")?;
    if plans::waits(&plan) {
        return Ok(Started::NeedsApproval(Box::new(plan)));
    }
    let environment = service.environment;
    let params = Params { environment, path: path.clone(), vm, kind, service: service.id };
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: Some(environment),
        vm: Some(vm),
        params: json!(params),
        locks: locks(environment, vm),
        steps: STEPS.len() as u32,
        idempotency: ask.identity(ACTION, &arguments),
        caller: ask.caller,
        reason: ask.reason,
        plan: Some(plan.id),
        deploy: None,
        created_at: context.clock.now(),
    };
    Ok(Started::Operation(queue(context, new, &format!("environment `{path}`")).await?))
}

struct Remove {
    params: Params,
    context: Context,
}

pub(in crate::operations) fn load(
    row: &OperationRow,
    context: &Context,
) -> Result<Box<dyn Operation>, String> {
    Ok(Box::new(Remove { params: params(row)?, context: context.clone() }))
}

impl Remove {
    async fn commit(&self, run: &Run<'_>) -> Result<StepEnd, OpError> {
        let Params { path, kind, .. } = &self.params;
        let row = app(&self.context.store, &path.app).await?;
        let what = format!("{} for {path}", kind.title());
        let then = format!("call `destroy` with service `{kind}` again");
        config_files::commit(&self.context, &row, run, Why { what: &what, then: &then }).await
    }

    async fn unset(&self) -> Result<Value, OpError> {
        let change = |key: &str| {
            let key = key.parse().ok()?;
            Some(Change { key, value: None, class: EnvClass::Secret })
        };
        let changes = self.params.kind.keys().filter_map(change).collect();
        let changed = env::of_service(&self.context, &self.params.path, changes).await?;
        Ok(json!({ "env_revision": changed.environment.env_revision }))
    }

    async fn remove(&self) -> Result<Value, OpError> {
        let Params { path, vm, kind, .. } = &self.params;
        linked(&self.context, *vm).await?;
        let wanted = RemoveService {
            app: path.app.to_string(),
            environment: path.name.to_string(),
            beside: kind.accessory().to_owned(),
            volume: true,
            file_only: false,
        };
        match self.context.fleet.call(*vm, Call::RemoveService(wanted), AGENT_WAIT).await {
            Ok(Reply::AppRemoved(removed)) => Ok(json!(removed)),
            Ok(_) => Ok(Value::Null),
            Err(error) => Err(of_agent(&self.context, *vm, error).await),
        }
    }
}

impl Operation for Remove {
    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let (store, service) = (&self.context.store, self.params.service);
            let output = match step {
                "mark" => {
                    store.set_service_state(service, ServiceState::Removing).await?;
                    Value::Null
                }
                "commit_config" => return self.commit(run).await,
                "unset_address" => self.unset().await?,
                "remove" => self.remove().await?,
                _ => {
                    store.remove_service(service).await?;
                    Value::Null
                }
            };
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    /// It stays marked: what is gone stays gone, and the next call ends it.
    fn undo<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            let Params { path, kind, .. } = &self.params;
            let half = || ServiceError::Unfinished {
                environment: path.to_string(),
                kind: *kind,
                state: ServiceState::Removing.as_str(),
            };
            match step {
                // From here on the data may be gone, and nothing brings it back.
                "remove" | "forget" => Err(half().into()),
                "commit_config" => {
                    let row = app(&self.context.store, &path.app).await?;
                    match row.changes {
                        // What is right again is committed when the mark is off.
                        Changes::Direct => Ok(()),
                        Changes::Pr | Changes::AutoMerge => {
                            config_files::take_back(&self.context, &row).await
                        }
                    }
                }
                "unset_address" => self.give_back().await,
                _ => {
                    let store = &self.context.store;
                    store.set_service_state(self.params.service, ServiceState::Ready).await?;
                    let row = app(store, &path.app).await?;
                    match row.changes {
                        Changes::Direct => self.commit(run).await.map(drop),
                        Changes::Pr | Changes::AutoMerge => Ok(()),
                    }
                }
            }
        }
        .boxed()
    }

    fn ended<'a>(
        &'a self,
        state: OperationState,
        _failure: Option<&'a Failure>,
        outputs: &'a BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>, OpError>> {
        async move {
            let Params { path, kind, .. } = &self.params;
            let removed = outputs.get("remove").cloned().unwrap_or(Value::Null);
            Ok((state == OperationState::Succeeded).then(|| {
                json!({
                    "environment": path, "service": kind, "removed": removed["containers"],
                    "volumes": removed["volumes"], "applied": false,
                    "apply_with": format!("call `deploy` with environment `{path}` and ref `current`"),
                })
            }))
        }
        .boxed()
    }

    fn by_hand(&self, _step: &'static str) -> String {
        let Params { path, kind, .. } = &self.params;
        format!(
            "call `destroy` with environment `{path}` and service `{kind}` again: it goes on from here"
        )
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Err(ACTION)
    }
}

impl Remove {
    async fn give_back(&self) -> Result<(), OpError> {
        let Params { environment, path, kind, .. } = &self.params;
        let Some(service) = of_kind(&self.context, *environment, *kind).await? else {
            return Ok(());
        };
        let changes = super::files::changes(&self.context, path, &service).await?;
        env::of_service(&self.context, path, changes).await.map(drop)
    }
}
