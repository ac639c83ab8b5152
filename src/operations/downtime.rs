//! Taking everything on a VM down for a while, and bringing all of it back: what every operation
//! that needs its server off, or started anew, is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use vmkit_agent_protocol::calls::{Call, Container, Reply};
use vmkit_agent_protocol::upkeep::{HeldLock, KamalLocks, Upkeep};

use super::agents::linked;
use super::deploy::{containers, proxy_ports};
use super::{Context, OpError, Run};
use crate::clouds::{AnyCloud, Cloud, CloudVm};
use crate::domain::environment::{Environment, VmState};
use crate::domain::ids::{OperationId, VmId};
use crate::fleet::FleetError;
use crate::pipeline::TRAEFIK;
use crate::probe;
use crate::store::VmRow;

/// How long a server may take to start.
const SERVER_WAIT: Duration = Duration::from_secs(300);
/// How long the agent may take for what needs no waiting.
const AGENT_WAIT: Duration = Duration::from_secs(20);
/// How long an agent is waited for before it is looked again whether its server runs: one that is
/// about to go off looks as if it did.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long it may take until every container has ended, its time to do so included.
const QUIESCE_WAIT: Duration = Duration::from_secs(180);
/// How long it may take until every container is started.
const RESUME_WAIT: Duration = Duration::from_secs(120);
/// How long an app may take for one answer.
const PROBE_WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// Kamal's proxy, which carries no service's label.
const PROXY: &str = "kamal-proxy";
/// What Kamal writes into the lock of a deploy; a person writes something else.
const AUTOMATIC: &str = "Automatic deploy lock";

/// A VM with all that lives on it.
#[derive(Debug, Clone)]
pub struct Inhabited {
    /// The VM.
    pub row: VmRow,
    /// The environments on it, by app and name.
    pub environments: Vec<Environment>,
}

impl Inhabited {
    /// Whether a person has to approve what disturbs it.
    pub fn is_protected(&self) -> bool {
        self.environments.iter().any(|one| one.settings.protected)
    }

    /// The cloud's id of its server.
    pub(super) fn server(&self) -> Result<String, OpError> {
        let vm = &self.row.vm;
        if vm.is_own_machine() {
            return Err(OpError::OwnMachine { vm: vm.id });
        }
        let gone = || OpError::ServerGone { vm: vm.id, provider: vm.provider.clone() };
        vm.provider_id.clone().ok_or_else(gone)
    }

    /// What a plan touches here.
    pub(super) fn touches(&self) -> Vec<String> {
        let mut touches = vec![format!("VM {}", self.row.vm.id)];
        touches.extend(self.environments.iter().map(|one| {
            let protected = if one.settings.protected { " (protected)" } else { "" };
            match &one.settings.domain {
                Some(domain) => format!("{}{protected} at {domain}", one.path),
                None => format!("{}{protected}", one.path),
            }
        }));
        touches
    }

    /// What a person types to approve a plan for it.
    pub(super) fn confirm_with(&self) -> String {
        let protected = self.environments.iter().find(|one| one.settings.protected);
        let named = protected.or(self.environments.first());
        named.map_or_else(|| self.row.vm.id.to_string(), |one| one.path.to_string())
    }
}

/// A VM that is ready, with what lives on it.
///
/// # Errors
/// [`OpError::UnknownVm`], which names those that there are.
pub async fn inhabited(context: &Context, vm: VmId) -> Result<Inhabited, OpError> {
    let store = &context.store;
    match store.vm(vm).await? {
        Some(row) if row.vm.state == VmState::Ready => {
            let mut environments = store.environments().await?;
            environments.retain(|one| one.vm == Some(vm));
            Ok(Inhabited { row, environments })
        }
        _ => {
            let ready = |row: &VmRow| row.vm.state == VmState::Ready;
            let all = store.vms().await?;
            let names: Vec<String> =
                all.iter().filter(|row| ready(row)).map(|row| row.vm.id.to_string()).collect();
            let known = match names.as_slice() {
                [] => "there is none yet".to_owned(),
                names => format!("there are: {}", names.join(", ")),
            };
            Err(OpError::UnknownVm { vm: vm.to_string(), known })
        }
    }
}

/// Containers on the VM that are not Kamal's, as on a server that was adopted: nobody here starts them
/// again. None where there is none, or where the agent cannot be asked now.
pub(super) async fn of_others(context: &Context, vm: VmId) -> Option<String> {
    let all = containers(&context.fleet, vm).await.ok()?;
    let others = all.iter().filter(|one| {
        let ours = one.labels.contains_key("service") || [PROXY, TRAEFIK].contains(&&*one.name);
        one.state == "running" && !ours
    });
    let names: Vec<String> = others.map(|one| format!("`{}`", one.name)).collect();
    (!names.is_empty()).then(|| {
        format!(
            "containers that are not VMKit's come back only where their own restart policy says so: {}",
            names.join(", ")
        )
    })
}

/// One operation's time without the VM.
pub(super) struct Downtime {
    pub(super) context: Context,
    pub(super) operation: OperationId,
    pub(super) vm: VmId,
    pub(super) provider: String,
    /// The cloud's id of the server.
    pub(super) server: String,
    /// Why, for whoever meets Kamal's lock.
    pub(super) why: &'static str,
}

impl Downtime {
    pub(super) async fn cloud(&self) -> Result<AnyCloud, OpError> {
        Ok(self.context.accounts.cloud(&self.provider).await?)
    }

    /// The server as the cloud has it.
    pub(super) async fn server(&self) -> Result<CloudVm, OpError> {
        let found = self.cloud().await?.get_vm(&self.server).await?;
        found.ok_or_else(|| OpError::ServerGone { vm: self.vm, provider: self.provider.clone() })
    }

    async fn ask(&self, call: Call, limit: Duration) -> Result<Reply, OpError> {
        linked(&self.context, self.vm).await?;
        match self.context.fleet.call(self.vm, call, limit).await {
            Err(FleetError::Fault { code, .. }) if code == "unsupported" => {
                let presence = self.context.fleet.presence(self.vm).await?;
                let version = presence.agent_version.unwrap_or_else(|| "unknown".to_owned());
                Err(OpError::AgentTooOld { vm: self.vm, version })
            }
            answered => Ok(answered?),
        }
    }

    fn not_understood(&self) -> OpError {
        FleetError::NotUnderstood { vm: self.vm }.into()
    }

    fn upkeep(&self) -> Upkeep {
        Upkeep { operation: self.operation.to_string() }
    }

    /// Which apps answer now: only those have to answer afterwards.
    pub(super) async fn look(&self) -> Result<Value, OpError> {
        linked(&self.context, self.vm).await?;
        let containers = containers(&self.context.fleet, self.vm).await?;
        let here = inhabited(&self.context, self.vm).await?;
        let (mut answering, mut silent) = (Vec::new(), Vec::new());
        for environment in &here.environments {
            match self.answer(&here, environment, &containers).await {
                Ok(()) => answering.push(environment.path.to_string()),
                Err(_) => silent.push(environment.path.to_string()),
            }
        }
        Ok(json!({ "answering": answering, "silent": silent }))
    }

    /// Whether an app answers at its public name; why not, where it does not.
    async fn answer(
        &self,
        here: &Inhabited,
        environment: &Environment,
        containers: &[Container],
    ) -> Result<(), String> {
        let settings = &environment.settings;
        let address = here.row.vm.address.ok_or("the VM has no address")?;
        let ports = proxy_ports(containers);
        let url = probe::app_url(address, settings.domain.as_ref(), ports)
            .ok_or("the proxy publishes no port")?;
        match probe::status(&url, &settings.health_path, address, PROBE_WAIT).await {
            Ok(status) if (200..400).contains(&status) => Ok(()),
            Ok(status) => Err(format!("{url} answers {status} at `{}`", settings.health_path)),
            Err(reason) => Err(format!("{url}: {reason}")),
        }
    }

    /// Takes Kamal's lock of every service on the VM; waits a while for a deploy that holds one,
    /// and not for a person who does.
    pub(super) async fn lock(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let here = inhabited(&self.context, self.vm).await?;
        let wanted = KamalLocks {
            operation: self.operation.to_string(),
            message: self.why.to_owned(),
            services: here.environments.iter().map(|one| one.path.service()).collect(),
        };
        let deadline = Instant::now() + self.context.pace.kamal;
        let mut said = HeldLock::default();
        loop {
            let call = Call::TakeKamalLocks(wanted.clone());
            let held = match self.ask(call, AGENT_WAIT).await? {
                Reply::KamalLocks { services, held: None } => {
                    return Ok(json!({ "services": services }));
                }
                Reply::KamalLocks { held: Some(held), .. } => held,
                _ => return Err(self.not_understood()),
            };
            let over = Instant::now() >= deadline;
            let deploying = held.message == AUTOMATIC || held.by.is_empty();
            if !over && self.give_back_of_ended(&held).await? {
                continue;
            }
            if over || !deploying {
                return Err(refused(held));
            }
            run.stop_if_asked().await?;
            if held != said {
                run.say(format!("waiting for {}", refused(held.clone()))).await?;
                said = held;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A lock of ours whose operation is over, but could not give it back, is nobody's.
    async fn give_back_of_ended(&self, held: &HeldLock) -> Result<bool, OpError> {
        let Some(operation) = held.by.strip_prefix("vmkit ") else { return Ok(false) };
        let Ok(id) = operation.parse::<OperationId>() else { return Ok(false) };
        let row = self.context.store.operation(id).await?;
        if !row.is_some_and(|row| row.state.is_ended()) {
            return Ok(false);
        }
        let call = Call::ReleaseKamalLocks(Upkeep { operation: operation.to_owned() });
        self.ask(call, AGENT_WAIT).await?;
        Ok(true)
    }

    /// Gives Kamal's locks back.
    pub(super) async fn unlock(&self) -> Result<(), OpError> {
        match self.ask(Call::ReleaseKamalLocks(self.upkeep()), AGENT_WAIT).await {
            // It has taken none either.
            Ok(Reply::KamalLocks { .. }) | Err(OpError::AgentTooOld { .. }) => Ok(()),
            Ok(_) => Err(self.not_understood()),
            Err(error) => Err(error),
        }
    }

    /// Stops the apps, then their services.
    pub(super) async fn quiesce(&self) -> Result<Value, OpError> {
        match self.ask(Call::Quiesce(self.upkeep()), QUIESCE_WAIT).await? {
            Reply::Quiesced { containers } => Ok(json!({ "containers": containers })),
            _ => Err(self.not_understood()),
        }
    }

    /// The same where the agent is there; a VM that is beyond that is switched off without.
    pub(super) async fn try_quiesce(&self) {
        let linked = self.context.fleet.presence(self.vm).await.is_ok_and(|known| known.linked);
        if linked && let Err(error) = self.quiesce().await {
            let vm = self.vm;
            tracing::warn!(%vm, code = error.code(), %error, "the apps of {vm} were not stopped");
        }
    }

    /// Shuts the server down; its power is cut where it does not.
    pub(super) async fn shut_down(&self) -> Result<Value, OpError> {
        let installation = self.context.settings.installation;
        let grace = self.context.pace.shut_down;
        let stopped = self.cloud().await?.stop_vm(&self.server, installation, grace).await?;
        Ok(json!({ "forced": stopped.forced }))
    }

    /// Starts the server.
    pub(super) async fn power_on(&self) -> Result<Value, OpError> {
        let installation = self.context.settings.installation;
        let cloud = self.cloud().await?;
        let server = cloud.start_vm(&self.server, installation, SERVER_WAIT).await?;
        self.note_server(server).await
    }

    /// Takes a shutdown back. One that may still be under way is seen to its end first: a server
    /// that is about to go off looks as if it ran.
    pub(super) async fn start_again(&self, run: &Run<'_>) -> Result<(), OpError> {
        if run.output("shut_down").is_null() {
            self.shut_down().await?;
        }
        self.power_on().await.map(drop)
    }

    /// Cuts the server's power and gives it back.
    pub(super) async fn cycle(&self) -> Result<Value, OpError> {
        let installation = self.context.settings.installation;
        let cloud = self.cloud().await?;
        let server = cloud.cycle_vm(&self.server, installation, SERVER_WAIT).await?;
        self.note_server(server).await
    }

    async fn note_server(&self, server: CloudVm) -> Result<Value, OpError> {
        let address = server.address;
        self.context.store.set_vm_server(self.vm, server.provider_id, address).await?;
        Ok(json!({ "address": address }))
    }

    /// Waits until the agent answers: a link of before the power went may look alive for a while.
    pub(super) async fn wait_agent(&self, limit: Duration) -> Result<(), OpError> {
        let deadline = Instant::now() + limit;
        let brief = Duration::from_secs(5);
        loop {
            let fleet = &self.context.fleet;
            let answered = match fleet.wait_linked(self.vm, brief).await {
                Ok(_) => fleet.call(self.vm, Call::HostFacts, brief).await.map(drop),
                Err(error) => Err(error),
            };
            match answered {
                Ok(()) => return Ok(()),
                Err(error) if !error.retryable() => return Err(error.into()),
                Err(_) if Instant::now() >= deadline => {
                    return Err(OpError::AgentAway { vm: self.vm, waited_s: limit.as_secs() });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Starts the services, then the apps: exactly those that ran.
    pub(super) async fn resume(&self) -> Result<Value, OpError> {
        match self.ask(Call::Resume(self.upkeep()), RESUME_WAIT).await {
            Ok(Reply::Resumed { containers, missing }) => {
                Ok(json!({ "containers": containers, "missing": missing }))
            }
            Ok(_) => Err(self.not_understood()),
            Err(OpError::AgentTooOld { .. }) => Ok(Value::Null),
            Err(error) => Err(error),
        }
    }

    /// Waits until what ran runs, and what answered answers; then watches that it stays so.
    pub(super) async fn prove(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let names = strings(&run.output("quiesce")["containers"]);
        let answering = strings(&run.output("look")["answering"]);
        let deadline = Instant::now() + self.context.pace.answer;
        let silent = |reason| OpError::AppsSilent { vm: self.vm, reason };
        let restarts = loop {
            match self.check(&names, &answering).await {
                Ok(restarts) => break restarts,
                Err(reason) if Instant::now() >= deadline => return Err(silent(reason)),
                Err(_) => {}
            }
            run.stop_if_asked().await?;
            tokio::time::sleep(PAUSE * 2).await;
        };
        let until = Instant::now() + self.context.settings.steady;
        while Instant::now() < until {
            run.stop_if_asked().await?;
            tokio::time::sleep(PAUSE).await;
            let now = self.check(&names, &[]).await.map_err(silent)?;
            if let Some((name, _)) = now.iter().find(|(name, count)| restarts[*name] != **count) {
                return Err(silent(format!("`{name}` was restarted")));
            }
        }
        Ok(json!({ "answering": answering }))
    }

    /// How often each of these containers was restarted; what is wrong, where something is.
    async fn check(
        &self,
        names: &[String],
        answering: &[String],
    ) -> Result<BTreeMap<String, u32>, String> {
        let here = inhabited(&self.context, self.vm).await.map_err(|error| error.to_string())?;
        let all = containers(&self.context.fleet, self.vm).await;
        let all = all.map_err(|error| error.to_string())?;
        let mut restarts = BTreeMap::new();
        for name in names {
            match all.iter().find(|container| container.name == *name) {
                Some(container) if container.oom_killed => {
                    return Err(format!("`{name}` ran out of memory"));
                }
                Some(container) if container.state == "running" => {
                    restarts.insert(name.clone(), container.restarts);
                }
                Some(container) => return Err(format!("`{name}` is {}", container.state)),
                None => return Err(format!("`{name}` is gone")),
            }
        }
        let asked = here.environments.iter();
        for environment in asked.filter(|one| answering.contains(&one.path.to_string())) {
            self.answer(&here, environment, &all).await?;
        }
        Ok(restarts)
    }

    /// Whatever happened: the server runs, what ran on it runs, and nobody is locked out. Returns
    /// what could not be brought about.
    pub(super) async fn make_safe(&self) -> Vec<String> {
        let mut left = Vec::new();
        let deadline = Instant::now() + self.context.pace.relink;
        let (power, up) = loop {
            let power = self.power_on().await;
            let up = self.wait_agent(LOOK_AGAIN).await;
            if up.is_ok() || Instant::now() >= deadline {
                break (power, up);
            }
        };
        if let Err(error) = power {
            left.push(format!("its server may be off ({error}): start it at {}", self.provider));
        }
        if let Err(error) = match up {
            Ok(()) => self.resume().await.map(drop),
            away => away,
        } {
            left.push(format!("its apps may be down ({error}): a boot starts them again"));
        }
        if let Err(error) = self.unlock().await {
            let holder = format!("`vmkit {}`", self.operation);
            left.push(format!(
                "Kamal's locks may be held by {holder} ({error}): the next `maintain_vm` or \
                 `resize_vm` gives them back, or `kamal lock release`"
            ));
        }
        left
    }
}

fn refused(held: HeldLock) -> OpError {
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    OpError::KamalLocked {
        service: held.service,
        by: or(held.by, "somebody"),
        since: or(held.since, "just now"),
        why: or(held.message, "a deploy that begins"),
    }
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
