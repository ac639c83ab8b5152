//! `resize_vm`: another size for a VM, with everything on it down for as long as that takes.
//!
//! Whatever goes wrong, the server is started again and what ran on it runs again; where the apps
//! do not answer on the new size, it gets the old one back.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::catalogue::{Age, catalogue};
use super::downtime::{Downtime, Inhabited, inhabited, of_others};
use super::{Ask, Context, OpError, Operation, Run, Started, Step, StepEnd, params, plans, queue};
use crate::clouds::{AnyCloud, Cloud, CloudError, CloudVm, Resize, ResizeRules};
use crate::domain::environment::Environment;
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, VmId};
use crate::domain::money::Money;
use crate::domain::names::{EnvironmentPath, RegionName, SizeName};
use crate::domain::operation::OperationState;
use crate::domain::plan::{PlanBody, Policy};
use crate::domain::size::Size;
use crate::store::{Failure, Lock, LockMode, NewOperation, OperationRow, PlanRow};

pub(super) const KIND: &str = "resize_vm";
pub(super) const VERSION: u32 = 1;

const STEPS: [Step; 11] = [
    Step { name: "look", says: "noting which apps answer" },
    Step { name: "lock_kamal", says: "taking Kamal's locks, so that nobody deploys meanwhile" },
    Step { name: "quiesce", says: "stopping the apps, then their services" },
    Step { name: "shut_down", says: "shutting the server down" },
    Step { name: "change_size", says: "changing the size" },
    Step { name: "power_on", says: "starting the server" },
    Step { name: "wait_agent", says: "waiting for the VM's agent to link" },
    Step { name: "resume", says: "starting the services, then the apps" },
    Step { name: "prove", says: "asking the apps whether they answer" },
    Step { name: "record", says: "noting the new size and its price" },
    Step { name: "unlock_kamal", says: "giving Kamal's locks back" },
];

/// How long a change may take: the disk may be copied to another machine.
const CHANGE_WAIT: Duration = Duration::from_secs(30 * 60);

/// What is to become of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResizeRequest {
    /// The VM.
    pub vm: VmId,
    /// Its new size.
    pub size: SizeName,
    /// Whether its disk grows too, which forbids smaller sizes for good.
    pub upgrade_disk: bool,
}

impl ResizeRequest {
    fn arguments(&self) -> Value {
        json!({ "vm": self.vm, "size": self.size, "upgrade_disk": self.upgrade_disk })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    vm: VmId,
    provider: String,
    server: String,
    from: SizeName,
    from_monthly: Money,
    /// The disk before, in GB, where the cloud tells.
    disk_gb: Option<u64>,
    to: Size,
    upgrade_disk: bool,
    /// What the environments' settings said before.
    wanted: BTreeMap<EnvironmentId, SizeName>,
}

/// What was found out before anything was changed.
struct Found {
    here: Inhabited,
    server: CloudVm,
    to: Size,
    rules: ResizeRules,
}

impl Found {
    fn seen(&self) -> Value {
        let here: Vec<String> = self.here.touches();
        json!({
            "size": self.server.size, "disk_gb": self.server.disk_gb, "to": self.to,
            "monthly": self.here.row.monthly, "touches": here,
        })
    }
}

async fn look(context: &Context, request: &ResizeRequest) -> Result<Found, OpError> {
    let here = inhabited(context, request.vm).await?;
    let vm = &here.row.vm;
    let id = here.server()?;
    let cloud = context.accounts.cloud(&vm.provider).await?;
    let gone = || OpError::ServerGone { vm: vm.id, provider: vm.provider.clone() };
    let server = cloud.get_vm(&id).await?.ok_or_else(gone)?;
    let sizes = cloud.sizes().await?;
    let to = pick(&sizes, &vm.region, &server, request, vm.arch)?;
    Ok(Found { to, server, rules: cloud.resize_rules(), here })
}

/// The wanted size, if this server can have it now.
fn pick(
    sizes: &[Size],
    region: &RegionName,
    server: &CloudVm,
    request: &ResizeRequest,
    arch: crate::domain::size::Arch,
) -> Result<Size, OpError> {
    let (vm, size) = (request.vm, request.size.to_string());
    if server.size == size {
        return Err(OpError::SameSize { vm, size });
    }
    let has = server.arch.unwrap_or(arch);
    let anywhere = sizes.iter().find(|s| s.name == request.size);
    let found = sizes.iter().find(|s| s.name == request.size && s.region == *region);
    if let Some(other) = found.or(anywhere).filter(|other| other.arch != has) {
        let arch = other.arch.as_str();
        return Err(OpError::OtherArch { vm, has: has.as_str(), size, arch });
    }
    let Some(found) = found else {
        let near = near(sizes, region, server, None);
        return Err(OpError::UnknownSize { size, region: region.to_string(), near });
    };
    if let Some(has_gb) = server.disk_gb.filter(|has_gb| *has_gb > found.disk_gb) {
        return Err(OpError::SmallerDisk { vm, has_gb, size, disk_gb: found.disk_gb });
    }
    if !found.available {
        let near = near(sizes, region, server, Some(found));
        return Err(OpError::SoldOut { size, region: region.to_string(), near });
    }
    Ok(found.clone())
}

/// Up to three sizes that this server could become instead, in its region, the cheapest first: with
/// at least the memory of the wanted one where that is known.
fn near(sizes: &[Size], region: &RegionName, server: &CloudVm, wanted: Option<&Size>) -> String {
    let fits = |s: &&Size| {
        let other = s.name.as_str() != server.size && wanted.is_none_or(|w| w.name != s.name);
        let arch = server.arch.is_none_or(|arch| arch == s.arch);
        let disk = server.disk_gb.is_none_or(|disk_gb| disk_gb <= s.disk_gb);
        let memory = wanted.is_none_or(|w| s.memory_mib >= w.memory_mib);
        s.available && s.region == *region && other && arch && disk && memory
    };
    let mut fitting: Vec<&Size> = sizes.iter().filter(fits).collect();
    fitting.sort_by_key(|s| s.monthly.amount);
    if fitting.is_empty() {
        return "nothing else that this server could become can be ordered there".to_owned();
    }
    let shown = fitting.iter().take(3).map(|s| {
        let more = wanted.map(|w| format!(", {:+.2} a month", s.monthly.amount - w.monthly.amount));
        format!("`{}` at {}{}", s.name, s.monthly, more.unwrap_or_default())
    });
    let shown: Vec<String> = shown.collect();
    format!("nearest that can be ordered there: {}", shown.join("; "))
}

/// Plans the change: what it costs, how long everything is down, what is lost. Changes nothing.
///
/// # Errors
/// Whatever would stop it: no such size, sold out, another architecture, a smaller disk.
pub async fn plan(context: &Context, request: &ResizeRequest) -> Result<PlanRow, OpError> {
    let found = look(context, request).await?;
    let (to, server, row) = (&found.to, &found.server, &found.here.row);
    let disk = match (request.upgrade_disk, server.disk_gb) {
        (true, _) => format!("its disk grows to {} GB", to.disk_gb),
        (false, Some(has_gb)) => format!("its disk stays at {has_gb} GB"),
        (false, None) => "its disk stays as it is".to_owned(),
    };
    let repricing = found.rules.repricing.map(|rule| format!("; {rule}")).unwrap_or_default();
    let mut lost = Vec::new();
    if request.upgrade_disk {
        lost.push(format!(
            "the way back: with a disk of {} GB the VM never takes a size with a smaller one again",
            to.disk_gb
        ));
    }
    let mut touches = found.here.touches();
    touches.extend(of_others(context, request.vm).await);
    let body = PlanBody {
        summary: format!(
            "resize VM {} from `{}` to `{}`: {} cores, {} GiB memory, {}; {disk}{repricing}",
            request.vm,
            server.size,
            to.name,
            to.cores,
            to.memory_mib / 1024,
            to.arch.as_str()
        ),
        steps: STEPS.iter().map(|step| step.says.to_owned()).collect(),
        monthly_before: Some(row.monthly),
        monthly_after: Some(to.monthly),
        downtime_s: found.rules.downtime_s,
        lost,
        touches,
        confirm_with: found.here.confirm_with(),
    };
    let policy = if found.here.is_protected() { Policy::Human } else { Policy::Plan };
    plans::make(context, KIND, request.arguments(), &found.seen(), body, policy).await
}

/// Carries out a plan.
///
/// # Errors
/// The plan is unknown, expired, used, for something else, or no longer what is there.
pub async fn start(
    context: &Context,
    request: &ResizeRequest,
    plan: PlanId,
    ask: Ask,
) -> Result<Started, OpError> {
    let plan = plans::usable(context, plan, KIND, &request.arguments()).await?;
    let found = look(context, request).await?;
    plans::still_holds(&plan, &found.seen(), "the size, its price, or who lives on the VM")?;
    if plans::waits(&plan) {
        return Ok(Started::NeedsApproval(Box::new(plan)));
    }
    let server = found.here.server()?;
    // Somebody may have changed it at the cloud.
    let from = found.server.size.parse().unwrap_or_else(|_| found.here.row.vm.size.clone());
    let Inhabited { row, environments } = found.here;
    let params = Params {
        vm: request.vm,
        provider: row.vm.provider,
        server,
        from,
        from_monthly: row.monthly,
        disk_gb: found.server.disk_gb,
        to: found.to,
        upgrade_disk: request.upgrade_disk,
        wanted: environments.iter().map(|one| (one.id, one.settings.size.clone())).collect(),
    };
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: environments.first().map(|one| one.id),
        vm: Some(request.vm),
        params: json!(params),
        locks: vec![Lock { resource: format!("vm:{}", request.vm), mode: LockMode::Exclusive }],
        steps: STEPS.len() as u32,
        idempotency: ask.identity(KIND, &request.arguments()),
        caller: ask.caller,
        reason: ask.reason,
        plan: Some(plan.id),
        deploy: None,
        created_at: context.clock.now(),
    };
    Ok(Started::Operation(queue(context, new, &format!("VM {}", request.vm)).await?))
}

/// Only notes which size the VM of an environment is to have: the next deploy answers with the plan
/// of the change. An environment without a VM gets that size when it is provisioned.
///
/// # Errors
/// The environment or the size does not exist, or its VM can never have it.
pub async fn want(
    context: &Context,
    path: &EnvironmentPath,
    size: &SizeName,
) -> Result<Environment, OpError> {
    let mut environment = super::environments::environment(&context.store, path).await?;
    let sizes = match environment.vm {
        Some(vm) => {
            let request = ResizeRequest { vm, size: size.clone(), upgrade_disk: false };
            match look(context, &request).await {
                // The size that it has is wanted again; what is sold out may come back.
                Err(OpError::SameSize { .. } | OpError::SoldOut { .. }) => None,
                found => found.map(|_| None)?,
            }
        }
        None => Some(catalogue(context, Age::Now).await?),
    };
    let mut settings = environment.settings;
    settings.size = size.clone();
    if let Some(sizes) = sizes {
        sizes.pick(&settings)?;
    }
    environment.settings = settings;
    context.store.set_environment_size(environment.id, size.clone()).await?;
    Ok(environment)
}

/// The plan of the change that an environment's settings ask for; none where its VM has that size.
///
/// # Errors
/// As [`plan`].
pub async fn wanted(context: &Context, path: &EnvironmentPath) -> Result<Option<PlanRow>, OpError> {
    let environment = super::environments::environment(&context.store, path).await?;
    let Some(vm) = environment.vm else { return Ok(None) };
    let row = context.store.vm(vm).await?;
    let size = environment.settings.size;
    if row.is_none_or(|row| row.vm.size == size) {
        return Ok(None);
    }
    match plan(context, &ResizeRequest { vm, size, upgrade_disk: false }).await {
        // Somebody changed it at the cloud.
        Err(OpError::SameSize { .. }) => Ok(None),
        planned => planned.map(Some),
    }
}

struct ResizeVm {
    params: Params,
    context: Context,
    down: Downtime,
}

pub(super) fn load(row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
    let params: Params = params(row)?;
    let down = Downtime {
        context: context.clone(),
        operation: row.id,
        vm: params.vm,
        provider: params.provider.clone(),
        server: params.server.clone(),
        why: "VMKit is resizing this VM; deploy again when it is over",
    };
    Ok(Box::new(ResizeVm { params, context: context.clone(), down }))
}

impl ResizeVm {
    async fn change(&self, cloud: &AnyCloud, to: &SizeName, grow: bool) -> Result<(), CloudError> {
        let installation = self.context.settings.installation;
        let resize = Resize { size: to.clone(), grow_disk: grow, limit: CHANGE_WAIT };
        cloud.resize_vm(&self.params.server, installation, &resize).await.map(drop)
    }

    async fn change_size(&self) -> Result<Value, OpError> {
        let (cloud, to) = (self.down.cloud().await?, &self.params.to);
        match self.change(&cloud, &to.name, self.params.upgrade_disk).await {
            Err(CloudError::SoldOut { .. }) => Err(self.sold_out(&cloud).await?),
            changed => Ok(changed.map(|()| json!({ "size": to.name }))?),
        }
    }

    /// Sold out between the plan and the change: says what can be had instead.
    async fn sold_out(&self, cloud: &AnyCloud) -> Result<OpError, OpError> {
        let (server, to) = (self.down.server().await?, &self.params.to);
        Ok(OpError::SoldOut {
            size: to.name.to_string(),
            region: to.region.to_string(),
            near: near(&cloud.sizes().await?, &to.region, &server, Some(to)),
        })
    }

    /// Gives the server its old size again, where it has another. It is off afterwards: while a
    /// change is under way the cloud still names the old size, so the size alone tells nothing.
    async fn change_back(&self) -> Result<(), OpError> {
        self.down.shut_down().await?;
        Ok(self.change(&self.down.cloud().await?, &self.params.from, false).await?)
    }

    /// Whether the server has the new size.
    async fn is_changed(&self) -> Result<bool, OpError> {
        Ok(self.down.server().await?.size == self.params.to.name.as_str())
    }

    async fn record(&self) -> Result<Value, OpError> {
        let (store, to) = (&self.context.store, &self.params.to);
        store.set_vm_size(self.params.vm, to.name.clone(), to.monthly).await?;
        for environment in self.params.wanted.keys() {
            store.set_environment_size(*environment, to.name.clone()).await?;
        }
        Ok(json!({ "size": to.name, "monthly": to.monthly.to_string() }))
    }

    async fn unrecord(&self) -> Result<(), OpError> {
        let (store, params) = (&self.context.store, &self.params);
        store.set_vm_size(params.vm, params.from.clone(), params.from_monthly).await?;
        for (environment, size) in &params.wanted {
            store.set_environment_size(*environment, size.clone()).await?;
        }
        Ok(())
    }
}

impl Operation for ResizeVm {
    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let down = &self.down;
            let output = match step {
                "look" => down.look().await?,
                "lock_kamal" => down.lock(run).await?,
                "quiesce" => down.quiesce().await?,
                "shut_down" => down.shut_down().await?,
                "change_size" => self.change_size().await?,
                "power_on" => down.power_on().await?,
                "wait_agent" => {
                    down.wait_agent(self.context.settings.agent_wait).await?;
                    Value::Null
                }
                "resume" => down.resume().await?,
                "prove" => down.prove(run).await?,
                "record" => self.record().await?,
                _ => {
                    down.unlock().await?;
                    Value::Null
                }
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
            let down = &self.down;
            match step {
                "record" => self.unrecord().await?,
                "resume" if self.is_changed().await? => down.try_quiesce().await,
                "change_size" => self.change_back().await?,
                "shut_down" => down.start_again(run).await?,
                "quiesce" => {
                    down.wait_agent(self.context.settings.agent_wait).await?;
                    down.resume().await?;
                }
                "lock_kamal" => down.unlock().await?,
                _ => {}
            }
            Ok(())
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
            let params = &self.params;
            let output = |step: &str, field: &str| match outputs.get(step) {
                Some(output) => output[field].clone(),
                None => Value::Null,
            };
            Ok((state == OperationState::Succeeded).then(|| {
                json!({
                    "vm": params.vm,
                    "size_before": params.from,
                    "size": params.to.name,
                    "monthly_before": params.from_monthly.to_string(),
                    "monthly": params.to.monthly.to_string(),
                    "power_was_cut": output("shut_down", "forced"),
                    "answering": output("look", "answering"),
                    "silent_before": output("look", "silent"),
                })
            }))
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let Params { vm, from, to, provider, server, .. } = &self.params;
        match step {
            "change_size" => format!(
                "VM {vm} may stay at size `{}`, which it is billed for; call `resize_vm` with size \
                 `{from}` when it can be ordered again",
                to.name
            ),
            "shut_down" => format!("start server {server} at {provider}; its apps start with it"),
            "quiesce" => format!(
                "restart VM {vm} with `maintain_vm`, or start its containers with `docker start`"
            ),
            _ => format!("call `get_status` for VM {vm}, then `resize_vm` again"),
        }
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Err(KIND)
    }

    fn make_safe(&self) -> BoxFuture<'_, Vec<String>> {
        async move {
            let mut left = self.down.make_safe().await;
            // What is billed is what the row names.
            let recorded = match self.is_changed().await {
                Ok(true) => self.record().await.map(drop),
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = recorded {
                left.push(format!("its size is not known ({error})"));
            }
            left
        }
        .boxed()
    }
}
