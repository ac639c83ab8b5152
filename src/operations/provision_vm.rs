//! `provision_vm`: a server of an environment's own, with its agent linked.

pub(super) mod address;
mod fresh;
mod shared;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(super) use self::fresh::{deploy_key_pair, random_token};
pub(super) use self::shared::Shared;
use super::adopt_vm::AdoptError;
use super::agents::{AgentBinary, token_hash};
use super::catalogue::{Age, catalogue, may_order};
use super::environments::environment;
use super::maintain_vm::care;
use super::{
    Ask, Context, OpError, Operation, Run, Started, Step, StepEnd, links, params, plans, queue,
};
use crate::clouds::{AnyCloud, Cloud, CloudError, VmOrder, vm_labels};
use crate::domain::clock::Millis;
use crate::domain::environment::{Environment, Vm, VmState};
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, SecretId, VmId};
use crate::domain::money::Money;
use crate::domain::names::EnvironmentPath;
use crate::domain::operation::OperationState;
use crate::domain::plan::{PlanBody, Policy};
use crate::domain::secret::Secret;
use crate::domain::size::{Arch, Offer, Size};
use crate::store::{
    DeployKey, Failure, Lock, LockMode, NewOperation, OperationRow, PlanRow, VmRow,
};
use crate::vault::Purpose;

pub(super) const KIND: &str = "provision_vm";
pub(super) const VERSION: u32 = 3;

const STEPS: [Step; 12] = [
    PREPARE,
    SSH_KEY,
    FIREWALL,
    ADDRESS,
    CREATE_SERVER,
    OWN_ADDRESS,
    WAIT_SERVER,
    WAIT_AGENT,
    RECORD,
    Step { name: "harden", says: "hardening the VM, with an undo that the VM plays by itself" },
    Step { name: "new_login", says: "linking anew, to see that the way in is still open" },
    Step { name: "keep", says: "telling the VM to keep it" },
];

/// As version 2 had them: nothing was hardened.
const STEPS_2: [Step; 9] = [
    PREPARE,
    SSH_KEY,
    FIREWALL,
    ADDRESS,
    CREATE_SERVER,
    OWN_ADDRESS,
    WAIT_SERVER,
    WAIT_AGENT,
    RECORD,
];

/// As version 1 had them: the address went with the server.
const STEPS_1: [Step; 7] =
    [PREPARE, SSH_KEY, FIREWALL, CREATE_SERVER, WAIT_SERVER, WAIT_AGENT, RECORD];

const PREPARE: Step = Step { name: "prepare", says: "making the VM's keys" };
const SSH_KEY: Step = Step { name: "ssh_key", says: "storing your public key at the cloud" };
const FIREWALL: Step = Step { name: "firewall", says: "making the firewall: 22, 80 and 443 in" };
const ADDRESS: Step = Step { name: "address", says: "reserving an address of the VM's own" };
const OWN_ADDRESS: Step = Step { name: "own_address", says: "giving the server its own address" };
const CREATE_SERVER: Step = Step { name: "create_server", says: "ordering the server" };
const WAIT_SERVER: Step = Step { name: "wait_server", says: "waiting for the server to start" };
const WAIT_AGENT: Step = Step { name: "wait_agent", says: "waiting for the VM's agent to link" };
const RECORD: Step = Step { name: "record", says: "noting the VM's host key" };

/// How long a server may take to start.
const SERVER_WAIT: Duration = Duration::from_secs(300);
/// How long the token of a first boot lasts, in milliseconds.
pub(super) const ENROLMENT_MS: i64 = 60 * 60 * 1000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    vm: VmId,
    token: SecretId,
    deploy_key: SecretId,
    size: Size,
}

/// What is looked at before anything is ordered: a fault that is known then costs nothing.
async fn look(context: &Context, path: &EnvironmentPath) -> Result<(Environment, Size), OpError> {
    let environment = environment(&context.store, path).await?;
    super::environments::not_retired(&context.store, &environment).await?;
    if let Some(vm) = environment.vm {
        return Err(OpError::HasVm { environment: path.to_string(), vm: vm.to_string() });
    }
    if environment.settings.provider.as_deref() == Some(Vm::OWN_MACHINE) {
        return Err(AdoptError::NoTarget { environment: path.to_string() }.into());
    }
    let size = catalogue(context, Age::Now).await?.pick(&environment.settings)?;
    if context.settings.owner_key.is_none() {
        return Err(OpError::NoOwnerKey);
    }
    agent_binary(context, size.arch).await?;
    Ok((environment, size))
}

/// The agent for VMs of an architecture.
pub(super) async fn agent_binary(context: &Context, arch: Arch) -> Result<AgentBinary, OpError> {
    super::agents::fit(context, arch).await
}

fn seen(environment: &Environment, size: &Size) -> Value {
    json!({ "environment": environment.id, "settings": environment.settings, "size": size })
}

/// Plans the order: what it would cost and do. Changes nothing.
///
/// # Errors
/// Whatever would stop the order: no such size, sold out, no key of the owner.
pub async fn plan(context: &Context, path: &EnvironmentPath) -> Result<PlanRow, OpError> {
    let (environment, size) = look(context, path).await?;
    may_order(context, &size.provider).await?;
    let body = PlanBody {
        summary: format!(
            "order a `{}` server at {} in `{}` for {path}: {} cores, {} GiB memory, {} GB disk, {}, an IPv4 address \
             of its own (in the price) and IPv6; {}",
            size.name,
            size.provider,
            size.region,
            size.cores,
            size.memory_mib / 1024,
            size.disk_gb,
            size.arch.as_str(),
            links::told(context)
        ),
        steps: STEPS.iter().map(|step| step.says.to_owned()).collect(),
        monthly_before: Some(Money::zero(size.monthly.currency)),
        monthly_after: Some(size.monthly),
        downtime_s: 0,
        lost: Vec::new(),
        touches: vec![path.to_string()],
        confirm_with: path.to_string(),
    };
    let policy = if environment.settings.protected { Policy::Human } else { Policy::Plan };
    let arguments = json!({ "environment": path });
    plans::make(context, KIND, arguments, &seen(&environment, &size), body, policy).await
}

/// Carries out a plan.
///
/// # Errors
/// The plan is unknown, expired, used, for something else, or no longer what is there.
pub async fn start(
    context: &Context,
    path: &EnvironmentPath,
    plan: PlanId,
    ask: Ask,
) -> Result<Started, OpError> {
    let arguments = json!({ "environment": path });
    let plan = plans::usable(context, plan, KIND, &arguments).await?;
    let (environment, size) = look(context, path).await?;
    plans::still_holds(&plan, &seen(&environment, &size), "the size, its price or the settings")?;
    if plans::waits(&plan) {
        return Ok(Started::NeedsApproval(Box::new(plan)));
    }
    let vm = VmId::generate();
    let params = Params {
        environment: environment.id,
        path: path.clone(),
        vm,
        token: SecretId::generate(),
        deploy_key: SecretId::generate(),
        size,
    };
    let exclusive = |resource| Lock { resource, mode: LockMode::Exclusive };
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        params: json!(params),
        environment: Some(environment.id),
        vm: None,
        locks: vec![exclusive(format!("env:{}", environment.id)), exclusive(format!("vm:{vm}"))],
        steps: STEPS.len() as u32,
        idempotency: ask.identity(KIND, &arguments),
        caller: ask.caller,
        reason: ask.reason,
        plan: Some(plan.id),
        deploy: None,
        created_at: context.clock.now(),
    };
    Ok(Started::Operation(queue(context, new, &format!("environment `{path}`")).await?))
}

/// What the steps use.
struct ProvisionVm {
    version: u32,
    operation: OperationId,
    params: Params,
    context: Context,
}

pub(super) fn load(row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
    let params = params(row)?;
    let (version, operation) = (row.version, row.id);
    Ok(Box::new(ProvisionVm { version, operation, params, context: context.clone() }))
}

impl ProvisionVm {
    async fn cloud(&self) -> Result<AnyCloud, OpError> {
        Ok(self.context.accounts.cloud(&self.params.size.provider).await?)
    }

    fn now(&self) -> Millis {
        self.context.clock.now()
    }

    /// The VM's row, its token and its deploy key: all made here, before anything is ordered.
    async fn prepare(&self) -> Result<Value, OpError> {
        let (store, params) = (&self.context.store, &self.params);
        // Somebody else's order may have ended after this one looked and before it was queued.
        let other = environment(store, &params.path).await?.vm.filter(|vm| *vm != params.vm);
        if let Some(vm) = other {
            let environment = params.path.to_string();
            return Err(OpError::HasVm { environment, vm: vm.to_string() });
        }
        let row = VmRow {
            vm: Vm {
                id: params.vm,
                provider: params.size.provider.clone(),
                provider_id: None,
                size: params.size.name.clone(),
                region: params.size.region.clone(),
                arch: params.size.arch,
                address: None,
                address_id: None,
                ipv6: None,
                known_hosts: None,
                state: VmState::Ordered,
                created_at: self.now(),
            },
            monthly: params.size.monthly,
        };
        store.insert_vm(row).await?;
        store.set_environment_vm(params.environment, Some(params.vm)).await?;
        self.seal_once(params.token, Purpose::EnrolmentToken, random_token()).await?;
        let token = self.unseal(params.token, Purpose::EnrolmentToken).await?;
        let expires_at = self.now().plus_ms(ENROLMENT_MS);
        store.set_enrolment(params.vm, token_hash(&token), expires_at).await?;
        let (public_key, private_key) = deploy_key_pair(&params.path)?;
        let secret = params.deploy_key;
        let sealed =
            self.context.vault.seal(&private_key, Purpose::DeployKey, &secret.to_string())?;
        let key = DeployKey { environment: params.environment, vm: params.vm, public_key, secret };
        let purpose = Purpose::DeployKey.as_str();
        store.put_deploy_key(key, purpose, sealed, self.now()).await?;
        Ok(json!({ "vm": params.vm }))
    }

    async fn seal_once(
        &self,
        id: SecretId,
        purpose: Purpose,
        value: Secret,
    ) -> Result<(), OpError> {
        let sealed = self.context.vault.seal(&value, purpose, &id.to_string())?;
        Ok(self.context.store.put_secret(id, purpose.as_str(), sealed, self.now()).await?)
    }

    async fn unseal(&self, id: SecretId, purpose: Purpose) -> Result<Secret, OpError> {
        let sealed = self.context.store.secret(id).await?.unwrap_or_default();
        Ok(self.context.vault.unseal(&sealed, purpose, &id.to_string())?)
    }

    async fn order(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let (params, cloud) = (&self.params, self.cloud().await?);
        let image = cloud.image(params.size.arch).await?;
        let order = VmOrder {
            name: Vm::cloud_name(&params.vm),
            size: params.size.name.clone(),
            region: params.size.region.clone(),
            image,
            user_data: self.user_data().await?,
            ssh_keys: strings(run.output("ssh_key")),
            firewalls: strings(run.output("firewall")),
            address: run.output("address")["id"].as_str().map(str::to_owned),
            labels: vm_labels(self.context.settings.installation, params.vm, Some(self.operation)),
        };
        let server = match cloud.create_vm(&order).await {
            Err(CloudError::SoldOut { .. }) => return Err(self.sold_out().await?),
            ordered => ordered?,
        };
        let store = &self.context.store;
        store.set_vm_server(params.vm, server.provider_id.clone(), server.address).await?;
        Ok(json!({ "server": server.provider_id }))
    }

    /// An address that survives the server; none where the cloud makes one only for a server.
    async fn address(&self, server: Option<&str>) -> Result<Value, OpError> {
        let (vm, region) = (self.params.vm, &self.params.size.region);
        let cloud = self.cloud().await?;
        let made = address::ensure(&self.context, &cloud, vm, region, server).await?;
        Ok(match made {
            Some(made) => json!({ "id": made.provider_id, "address": made.address }),
            None => Value::Null,
        })
    }

    /// Sold out between the plan and the order: says what can be had instead.
    async fn sold_out(&self) -> Result<OpError, OpError> {
        let wanted = Offer::of(self.params.size.clone());
        // The list may not know yet; what is nearest leaves the wanted one out in any case.
        let offers = catalogue(&self.context, Age::Now).await?.offers();
        Ok(super::catalogue::sold_out(&wanted, &offers))
    }

    async fn user_data(&self) -> Result<Secret, OpError> {
        let params = &self.params;
        let owner_key = self.context.settings.owner_key.as_ref().ok_or(OpError::NoOwnerKey)?;
        let binary = agent_binary(&self.context, params.size.arch).await?;
        let key = self.context.store.deploy_key(params.environment, params.vm).await?;
        let token = self.unseal(params.token, Purpose::EnrolmentToken).await?;
        let boot = links::FirstBoot {
            vm: params.vm,
            arch: params.size.arch,
            binary: &binary,
            enrolment_token: &token,
            deploy_public_key: &key.map(|key| key.public_key).unwrap_or_default(),
            owner_public_key: owner_key,
        };
        links::first_boot(&self.context, &boot).await
    }

    async fn wait_server(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let server = run.output("create_server")["server"].as_str().unwrap_or_default();
        let server = self.cloud().await?.wait_running(server, SERVER_WAIT).await?;
        let store = &self.context.store;
        store.set_vm_server(self.params.vm, server.provider_id, server.address).await?;
        store.set_vm_ipv6(self.params.vm, server.ipv6).await?;
        Ok(json!({ "address": server.address }))
    }

    async fn wait_agent(&self, run: &Run<'_>) -> Result<Value, OpError> {
        links::first_link(&self.context, run, self.params.vm, &["first_boot_failed"]).await?;
        Ok(Value::Null)
    }

    /// Deletes the server of our name, whether or not its order was answered.
    async fn delete_server(&self) -> Result<(), OpError> {
        let cloud = self.cloud().await?;
        let installation = self.context.settings.installation;
        if let Some(server) = cloud.find_vm(&Vm::cloud_name(&self.params.vm)).await?
            && server.belongs_to(installation)
        {
            cloud.delete_vm(&server.provider_id, installation).await?;
        }
        Ok(())
    }
}

impl Operation for ProvisionVm {
    fn steps(&self) -> &'static [Step] {
        match self.version {
            1 => &STEPS_1,
            2 => &STEPS_2,
            _ => &STEPS,
        }
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let shared = Shared::of(&self.context);
            let installation = self.context.settings.installation;
            let output = match step {
                "prepare" => self.prepare().await?,
                "ssh_key" => {
                    let key = self.context.settings.owner_key.clone().ok_or(OpError::NoOwnerKey)?;
                    let cloud = self.cloud().await?;
                    json!([cloud.ensure_ssh_key(&shared.ssh_key, &key, installation).await?])
                }
                "firewall" => {
                    let cloud = self.cloud().await?;
                    json!([cloud.ensure_firewall(&shared.firewall, installation).await?])
                }
                "address" => self.address(None).await?,
                "create_server" => self.order(run).await?,
                "own_address" if run.output("address").is_null() => {
                    let server = run.output("create_server")["server"].as_str();
                    // Such a cloud gives an address only to a server that is up (DigitalOcean
                    // refuses while it is being made).
                    let id = server.unwrap_or_default();
                    self.cloud().await?.wait_running(id, SERVER_WAIT).await?;
                    self.address(server).await?
                }
                "own_address" => Value::Null,
                "wait_server" => self.wait_server(run).await?,
                "wait_agent" => self.wait_agent(run).await?,
                "record" => links::record(&self.context, self.params.vm).await?,
                "harden" => care::harden(&self.context, self.operation, self.params.vm).await?,
                "new_login" => care::new_login(&self.context, run, self.params.vm).await?,
                _ => care::keep(&self.context, self.operation, run, self.params.vm).await?,
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
            let shared = Shared::of(&self.context);
            let installation = self.context.settings.installation;
            let needed = Shared::needed_without(&self.context, self.params.vm).await?;
            match step {
                "create_server" => self.delete_server().await?,
                // One that was made for the server goes before it, lest its order be forgotten.
                "address" | "own_address" => {
                    let own = step == "address" || run.output("address").is_null();
                    if let Some(row) = self.context.store.vm(self.params.vm).await?.filter(|_| own)
                    {
                        address::delete(&self.context, &self.cloud().await?, &row).await?;
                    }
                }
                "firewall" if !needed => {
                    self.cloud().await?.delete_firewall(&shared.firewall, installation).await?;
                }
                "ssh_key" if !needed => {
                    self.cloud().await?.delete_ssh_key(&shared.ssh_key, installation).await?;
                }
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
            match state {
                OperationState::Failed | OperationState::Cancelled => {
                    let store = &self.context.store;
                    let path = self.params.path.clone();
                    let environment = store.environment(path).await?;
                    if environment.is_some_and(|found| found.vm == Some(self.params.vm)) {
                        store.set_environment_vm(self.params.environment, None).await?;
                    }
                    store.set_vm_state(self.params.vm, VmState::Deleted).await?;
                    Ok(None)
                }
                _ => Ok(outputs.get("record").cloned()),
            }
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let (path, shared) = (&self.params.path, Shared::of(&self.context));
        let left = match step {
            "firewall" => format!("firewall `{}`", shared.firewall),
            "ssh_key" => format!("SSH key `{}`", shared.ssh_key),
            "address" | "own_address" => format!(
                "address `{}`, which is billed until then,",
                Vm::cloud_name(&self.params.vm)
            ),
            _ => {
                format!("server `{}`, which is billed until then,", Vm::cloud_name(&self.params.vm))
            }
        };
        format!(
            "call `destroy` with environment `{path}` to delete {left} at {}",
            self.params.size.provider
        )
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
