//! The steps of `manage_service`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use vmkit_agent_protocol::beside::{Control, ControlAction, RemoveService};
use vmkit_agent_protocol::calls::{Call, Container};

use super::{Action, Params, ServiceError, files};
use crate::domain::ids::OperationId;
use crate::domain::operation::OperationState;
use crate::domain::service::{Service, ServiceState, ServiceVersion};
use crate::fleet::FleetError;
use crate::operations::agents::linked;
use crate::operations::config_files::{self, Why};
use crate::operations::deploy::containers;
use crate::operations::env::{self, Change};
use crate::operations::environments::app;
use crate::operations::runs::{Asked, Work, went_well};
use crate::operations::{Context, OpError, Operation, Run, Step, StepEnd, keys, params};
use crate::store::{AppRow, Changes, Failure, OperationRow};
use crate::vault::Purpose;

/// How long an agent may take: a service has a minute to end.
const AGENT_WAIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

struct ManageService {
    operation: OperationId,
    params: Params,
    context: Context,
}

pub(in crate::operations) fn load(
    row: &OperationRow,
    context: &Context,
) -> Result<Box<dyn Operation>, String> {
    let params = params(row)?;
    Ok(Box::new(ManageService { operation: row.id, params, context: context.clone() }))
}

impl ManageService {
    async fn app(&self) -> Result<AppRow, OpError> {
        app(&self.context.store, &self.params.path.app).await
    }

    fn version(&self) -> Result<ServiceVersion, OpError> {
        self.parsed(&self.params.version)
    }

    fn parsed(&self, text: &str) -> Result<ServiceVersion, OpError> {
        Ok(ServiceVersion::parse(self.params.kind, text).map_err(ServiceError::from)?)
    }

    fn failed(&self, code: &str, cause: String, fix: String) -> OpError {
        let Params { path, kind, .. } = &self.params;
        let (environment, code) = (path.to_string(), code.to_owned());
        ServiceError::Failed { environment, kind: *kind, code, cause, fix }.into()
    }

    async fn service(&self) -> Result<Service, OpError> {
        let Params { environment, path, kind, .. } = &self.params;
        let found = super::of_kind(&self.context, *environment, *kind).await?;
        let none = ServiceError::None { environment: path.to_string(), kind: *kind };
        Ok(found.ok_or(none)?)
    }

    /// The row and its password come before anything outside.
    async fn claim(&self) -> Result<Value, OpError> {
        let Params { environment, kind, service, secret, memory_mb, .. } = &self.params;
        let row = secret.to_string();
        let sealed = self.context.vault.seal(&files::password(), Purpose::ServicePassword, &row)?;
        let version = self.version()?;
        let wanted = Service {
            id: *service,
            environment: *environment,
            kind: *kind,
            version,
            memory_mb: *memory_mb,
            secret: *secret,
            state: ServiceState::Ordered,
            created_at: self.context.clock.now(),
        };
        let store = &self.context.store;
        let kept = store.put_service(wanted, (Purpose::ServicePassword.as_str(), sealed)).await?;
        store.set_service_version(kept.id, version, *memory_mb).await?;
        Ok(json!({ "service": kept.id }))
    }

    async fn write_file(&self) -> Result<Value, OpError> {
        let Params { path, vm, kind, .. } = &self.params;
        linked(&self.context, *vm).await?;
        let service = self.service().await?;
        let (changed, volume) = files::write(&self.context, path, *vm, &service).await?;
        // A file of ours that was there says that the volume is ours too.
        if changed && volume {
            return Err(ServiceError::ForeignVolume { volume: kind.host(path) }.into());
        }
        Ok(json!({ "changed": changed }))
    }

    async fn commit_config(&self, run: &Run<'_>) -> Result<StepEnd, OpError> {
        let Params { path, kind, action, .. } = &self.params;
        let what = format!("{} for {path}", kind.title());
        let then = match action {
            Action::Add => {
                format!("call `manage_service` with action `add` and service `{kind}` again")
            }
            _ => format!("call `manage_service` with action `upgrade` and service `{kind}` again"),
        };
        let why = Why { what: &what, then: &then };
        config_files::commit(&self.context, &self.app().await?, run, why).await
    }

    async fn work(&self, nonce: String) -> Result<Work<'_>, OpError> {
        let (row, github) = (self.app().await?, self.context.accounts.github().await?);
        Ok(Work { context: &self.context, github, row, nonce })
    }

    /// The accessory that the run makes anew; none where it only starts what has no container.
    fn anew(&self) -> &'static str {
        match self.params.action {
            Action::Upgrade => self.params.kind.accessory(),
            Action::Add | Action::Restart => "",
        }
    }

    fn asked(&self) -> Asked<'static> {
        Asked { action: "services", more: [("service", self.anew())].into() }
    }

    async fn dispatch(&self, again: bool) -> Result<Value, OpError> {
        let work = self.work(self.operation.to_string()).await?;
        let name = &self.params.path.name;
        let started = work.start(name, self.asked(), again).await?;
        let lost = || ServiceError::RunLost {
            repo: work.row.app.repo.to_string(),
            operation: self.operation.to_string(),
        };
        let started = started.ok_or_else(lost)?;
        Ok(json!({ "run": started.id, "url": started.html_url }))
    }

    async fn watch(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let work = self.work(self.operation.to_string()).await?;
        let id = run.output("dispatch")["run"].as_u64().unwrap_or_default();
        let Some(mut trouble) = work.trouble(id, &self.params.path, run).await? else {
            return Ok(json!({ "run": id }));
        };
        if trouble.code == "image_missing" {
            trouble.fix = "give a version whose image exists".to_owned();
        }
        Err(self.failed(trouble.code, trouble.cause, trouble.fix))
    }

    /// Its container, by the agent's word.
    async fn container(&self) -> Result<Option<Container>, OpError> {
        let Params { path, vm, kind, .. } = &self.params;
        let host = kind.host(path);
        let all = containers(&self.context.fleet, *vm).await?;
        Ok(all.into_iter().find(|one| one.name == host))
    }

    /// Waits until the container of this version runs and Docker says that it is well.
    async fn prove(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let Params { path, vm, kind, .. } = &self.params;
        linked(&self.context, *vm).await?;
        let image = self.version()?.image(*kind);
        let deadline = tokio::time::Instant::now() + self.context.pace.answer;
        loop {
            let said = match self.container().await? {
                None => format!("there is no container `{}`", kind.host(path)),
                Some(one) if one.image != image => {
                    format!("its container is of {}, not of {image}", one.image)
                }
                Some(one) => {
                    let health = one.health.as_deref().unwrap_or("healthy");
                    if one.state == "running" && health == "healthy" {
                        return Ok(json!({ "container": one.name, "restarts": one.restarts }));
                    }
                    let code = one.exit_code.map(|code| format!(" with {code}"));
                    format!("its container is {}{}, {health}", one.state, code.unwrap_or_default())
                }
            };
            run.stop_if_asked().await?;
            if tokio::time::Instant::now() >= deadline {
                let name = kind.host(path);
                let fix =
                    format!("look at it on the VM (`docker logs {name}`), then call this again");
                return Err(self.failed("service_unhealthy", said, fix));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The app's env values that lead to it.
    async fn values(&self) -> Result<Vec<Change>, OpError> {
        files::changes(&self.context, &self.params.path, &self.service().await?).await
    }

    async fn give_address(&self) -> Result<Value, OpError> {
        let changed =
            env::of_service(&self.context, &self.params.path, self.values().await?).await?;
        let store = &self.context.store;
        store.set_service_state(self.params.service, ServiceState::Ready).await?;
        Ok(json!({ "env_revision": changed.environment.env_revision }))
    }

    async fn restart(&self) -> Result<Value, OpError> {
        self.control(ControlAction::Restart).await
    }

    async fn control(&self, action: ControlAction) -> Result<Value, OpError> {
        let Params { path, vm, kind, .. } = &self.params;
        linked(&self.context, *vm).await?;
        let wanted = Control {
            app: path.app.to_string(),
            environment: path.name.to_string(),
            beside: Some(kind.accessory().to_owned()),
            action,
            version: None,
        };
        match self.context.fleet.call(*vm, Call::Control(wanted), AGENT_WAIT).await {
            Ok(_) => Ok(Value::Null),
            Err(error) => Err(super::of_agent(&self.context, *vm, error).await),
        }
    }

    /// Takes the container, its volume and its file away, all of which this operation made.
    async fn take_away(&self, run: &Run<'_>) -> Result<(), OpError> {
        let Params { path, vm, kind, .. } = &self.params;
        let wrote = run.output("write_file");
        match linked(&self.context, *vm).await {
            // It was away all the time, so there is nothing to take back.
            Err(OpError::AgentAway { .. }) if wrote.is_null() => return Ok(()),
            linked => linked?,
        }
        let wanted = RemoveService {
            app: path.app.to_string(),
            environment: path.name.to_string(),
            beside: kind.accessory().to_owned(),
            volume: true,
            // What was there before we wrote is somebody's.
            file_only: wrote.is_null(),
        };
        match self.context.fleet.call(*vm, Call::RemoveService(wanted), AGENT_WAIT).await {
            Err(FleetError::Fault { code, .. }) if code == "unsupported" => Ok(()),
            removed => Ok(removed.map(drop)?),
        }
    }

    async fn back_to(&self, run: &Run<'_>) -> Result<(), OpError> {
        let Some((before, memory_mb)) = &self.params.before else { return Ok(()) };
        let store = &self.context.store;
        store.set_service_version(self.params.service, self.parsed(before)?, *memory_mb).await?;
        let image = self.version()?.image(self.params.kind);
        let moved = self.container().await?.is_some_and(|one| one.image == image);
        match self.app().await?.changes {
            Changes::Direct => drop(self.commit_config(run).await?),
            Changes::Pr | Changes::AutoMerge if moved => {
                let Params { path, kind, version, .. } = &self.params;
                return Err(ServiceError::NoWayBack {
                    environment: path.to_string(),
                    kind: *kind,
                    version: version.clone(),
                    before: before.clone(),
                }
                .into());
            }
            Changes::Pr | Changes::AutoMerge => return self.drop_branch().await,
        }
        let dispatched = !run.output("dispatch").is_null();
        if !dispatched || !moved && self.container().await?.is_some() {
            return Ok(());
        }
        run.say(format!("bringing back version {before}")).await?;
        let work = self.work(format!("back_{}", self.operation.bare())).await?;
        let started = work.start(&self.params.path.name, self.asked(), true).await?;
        let ended = match started {
            Some(started) => work.end(started.id, None).await?,
            None => None,
        };
        if ended.as_ref().is_some_and(went_well) {
            return Ok(());
        }
        let page = ended.map(|facts| format!(": {}", facts.html_url)).unwrap_or_default();
        let cause = format!("{before} was to be brought back, and its run failed too{page}");
        Err(self.failed("not_brought_back", cause, "look at the run's page".to_owned()))
    }

    async fn drop_branch(&self) -> Result<(), OpError> {
        config_files::take_back(&self.context, &self.app().await?).await
    }

    /// The service leaves the config before its file leaves the VM.
    async fn leave_config(&self, run: &Run<'_>) -> Result<(), OpError> {
        let store = &self.context.store;
        store.set_service_state(self.params.service, ServiceState::Removing).await?;
        match self.app().await?.changes {
            Changes::Direct => self.commit_config(run).await.map(drop),
            Changes::Pr | Changes::AutoMerge => self.drop_branch().await,
        }
    }

    async fn stop_run(&self, run: &Run<'_>) -> Result<(), OpError> {
        let work = self.work(self.operation.to_string()).await?;
        // A run whose start was not answered may be listed a little later.
        let looks = if run.output("dispatch").is_null() { 3 } else { 1 };
        if work.stop(looks).await? {
            return Ok(());
        }
        let cause = "GitHub has not stopped its workflow run".to_owned();
        Err(self.failed("run_not_stopped", cause, "look at the Actions tab of the repo".to_owned()))
    }
}

impl Operation for ManageService {
    fn steps(&self) -> &'static [Step] {
        self.params.action.steps()
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let Params { path, vm, service, memory_mb, .. } = &self.params;
            let output = match step {
                "claim" => self.claim().await?,
                "write_file" => self.write_file().await?,
                "commit_config" => return self.commit_config(run).await,
                "grant_access" => {
                    keys::grant(&self.context, path, *vm).await?;
                    Value::Null
                }
                "dispatch" => self.dispatch(run.again).await?,
                "watch" => self.watch(run).await?,
                "give_address" => self.give_address().await?,
                "note_version" => {
                    let (store, version) = (&self.context.store, self.version()?);
                    store.set_service_version(*service, version, *memory_mb).await?;
                    Value::Null
                }
                "restart" => self.restart().await?,
                _ => self.prove(run).await?,
            };
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            let store = &self.context.store;
            match (step, self.params.action) {
                ("give_address", _) => {
                    store.set_service_state(self.params.service, ServiceState::Ordered).await?;
                    let unset = |change: Change| Change { value: None, ..change };
                    let changes = self.values().await?.into_iter().map(unset).collect();
                    env::of_service(&self.context, &self.params.path, changes).await.map(drop)
                }
                ("dispatch", _) => self.stop_run(run).await,
                ("commit_config", Action::Add) => self.leave_config(run).await,
                ("commit_config", _) => self.back_to(run).await,
                ("write_file", _) => self.take_away(run).await,
                ("claim", _) => Ok(store.remove_service(self.params.service).await?),
                ("note_version", _) => {
                    let Some((before, memory_mb)) = &self.params.before else { return Ok(()) };
                    let version = self.parsed(before)?;
                    store.set_service_version(self.params.service, version, *memory_mb).await?;
                    Ok(())
                }
                ("restart", _) => self.control(ControlAction::Start).await.map(drop),
                _ => Ok(()),
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
            if state != OperationState::Succeeded {
                return Ok(None);
            }
            let Params { path, kind, action, version, .. } = &self.params;
            let run = outputs.get("dispatch").map(|started| started["url"].clone());
            let mut result = json!({
                "environment": path, "service": kind, "version": version,
                "container": kind.host(path), "state": "running, healthy", "run_url": run,
            });
            if *action == Action::Add {
                let keys: Vec<&str> = kind.keys().collect();
                result["env_keys"] = json!(keys);
                result["applied"] = json!(false);
                result["apply_with"] = json!(format!(
                    "call `deploy` with environment `{path}`; ref `current` builds nothing"
                ));
            }
            Ok(Some(result))
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let Params { path, kind, .. } = &self.params;
        match step {
            "dispatch" => format!(
                "cancel the workflow run whose title has {} in the repo of `{}`",
                self.operation, path.app
            ),
            "write_file" | "claim" | "commit_config" if self.params.action == Action::Add => {
                format!(
                    "call `destroy` with environment `{path}` and service `{kind}`: it removes what is left"
                )
            }
            _ => format!("call `manage_service` with environment `{path}` and action `status`"),
        }
    }

    /// What was wanted an hour ago is still wanted where it only adds.
    fn resumes_when_old(&self) -> Result<(), &'static str> {
        match self.params.action {
            Action::Add => Ok(()),
            Action::Upgrade | Action::Restart => Err(super::KIND),
        }
    }
}
