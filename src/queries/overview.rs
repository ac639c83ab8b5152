//! Everything at a glance.

use super::costs::is_billed;
use crate::domain::clock::Millis;
use crate::domain::deploy::Deploy;
use crate::domain::environment::{Environment, VmState};
use crate::domain::money::Money;
use crate::domain::service::Service;
use crate::fleet::{Fleet, Presence};
use crate::operations::{OpError, silence};
use crate::store::{AppRow, OperationRow, PlanRow, Store, VmRow};

/// One environment in one line.
#[derive(Debug, Clone)]
pub struct EnvironmentLine {
    /// The environment.
    pub environment: Environment,
    /// Its VM.
    pub vm: Option<VmRow>,
    /// Whether its VM's agent is linked.
    pub presence: Option<Presence>,
    /// What is live.
    pub live: Option<Deploy>,
    /// The newest deploy, live or not.
    pub last: Option<Deploy>,
    /// The services beside the app.
    pub services: Vec<Service>,
}

impl EnvironmentLine {
    /// One word for how it is.
    pub fn health(&self) -> &'static str {
        let linked = self.presence.as_ref().is_some_and(|presence| presence.linked);
        let trouble = self.presence.as_ref().and_then(|presence| presence.trouble.as_ref());
        let off = trouble.is_some_and(|trouble| trouble.code == silence::OFF);
        let rests = self.vm.as_ref().map(|row| row.vm.state);
        match (&self.vm, &self.live) {
            _ if rests == Some(VmState::Kept) => "destroyed_restorable",
            _ if rests == Some(VmState::Parked) => "parked",
            (None, _) => "no_vm",
            (Some(_), _) if !linked && off => "vm_off",
            (Some(_), _) if !linked => "agent_silent",
            (Some(_), None) => "nothing_deployed",
            (Some(_), Some(_)) => "live",
        }
    }
}

/// Everything at a glance.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Every environment, by name.
    pub environments: Vec<EnvironmentLine>,
    /// Apps that have no environment yet.
    pub bare_apps: Vec<AppRow>,
    /// VMs that no environment runs on; they are billed all the same.
    pub idle_vms: Vec<VmRow>,
    /// What all VMs cost per month when they were ordered, by currency.
    pub monthly: Vec<Money>,
    /// Operations that are not over.
    pub running: Vec<OperationRow>,
    /// Plans that wait for a person.
    pub approvals: Vec<PlanRow>,
    /// Operations that ended stuck or with a pull request, newest first.
    pub attention: Vec<OperationRow>,
}

/// How an environment is, in one line.
pub(super) async fn line(
    store: &Store,
    fleet: &Fleet,
    environment: Environment,
) -> Result<EnvironmentLine, OpError> {
    let vm = match environment.vm {
        Some(id) => store.vm(id).await?,
        None => None,
    };
    let presence = match &vm {
        // A worker that is away knows of no link: that is not an error of the question.
        Some(row) => fleet.presence(row.vm.id).await.ok(),
        None => None,
    };
    let live = store.releases(environment.id, 1).await?.into_iter().next();
    let last = store.deploys(environment.id, 1).await?.into_iter().next();
    let services = store.services(environment.id).await?;
    Ok(EnvironmentLine { environment, vm, presence, live, last, services })
}

/// Reads the overview; `query` keeps the environments whose name, domain, address or live commit
/// contains it.
pub async fn overview(
    store: &Store,
    fleet: &Fleet,
    query: Option<&str>,
    now: Millis,
) -> Result<Overview, OpError> {
    let mut environments = Vec::new();
    for environment in store.environments().await? {
        environments.push(line(store, fleet, environment).await?);
    }
    let vms = store.vms().await?;
    let used = |row: &VmRow| environments.iter().any(|e| e.environment.vm == Some(row.vm.id));
    let idle_vms = vms.iter().filter(|row| !used(row)).cloned().collect();
    let apps = store.apps().await?;
    let has = |row: &AppRow| environments.iter().any(|e| e.environment.app == row.app.id);
    let bare_apps = apps.into_iter().filter(|row| !has(row)).collect();
    if let Some(query) = query {
        environments.retain(|line| matches(line, &query.to_lowercase()));
    }
    let recent = store.recent_operations(None, 20).await?;
    let attention = attention(&recent).take(5).cloned().collect();
    Ok(Overview {
        environments,
        bare_apps,
        idle_vms,
        monthly: Money::sums(billed(store, &vms).await?),
        running: store.open_operations().await?,
        approvals: store.plans_waiting(now).await?,
        attention,
    })
}

/// Of operations, the newest first: those that a person has to look at. A pull request counts until
/// a later operation of its kind, or a deploy, went well: then it was merged, or is not needed.
fn attention(recent: &[OperationRow]) -> impl Iterator<Item = &OperationRow> {
    use crate::domain::operation::OperationState as State;
    let settled = recent
        .iter()
        .position(|row| {
            row.state == State::Succeeded && matches!(row.kind.as_str(), "deploy" | "setup_repo")
        })
        .unwrap_or(recent.len());
    recent.iter().enumerate().filter_map(move |(place, row)| match row.state {
        State::Stuck => Some(row),
        State::NeedsMerge => (place < settled).then_some(row),
        State::Queued
        | State::Running
        | State::WaitingApproval
        | State::Succeeded
        | State::Failed
        | State::Cancelled => None,
    })
}

fn matches(line: &EnvironmentLine, query: &str) -> bool {
    let address = line.vm.as_ref().and_then(|row| row.vm.address).map(|a| a.to_string());
    let texts = [
        Some(line.environment.path.to_string()),
        line.environment.settings.domain.as_ref().map(|domain| domain.to_string()),
        line.vm.as_ref().map(|row| row.vm.id.to_string()),
        line.live.as_ref().map(|deploy| deploy.commit.to_string()),
        address,
    ];
    texts.into_iter().flatten().any(|text| text.contains(query))
}

/// What each VM costs; one whose server is gone costs what is kept of it.
async fn billed(store: &Store, vms: &[VmRow]) -> Result<Vec<Money>, OpError> {
    let kept = store.retirements().await?;
    let cost = |row: &VmRow| match row.vm.state {
        VmState::Kept => {
            kept.iter().rev().find(|one| one.vm == Some(row.vm.id)).and_then(|one| one.monthly)
        }
        state => is_billed(state).then_some(row.monthly),
    };
    Ok(vms.iter().filter_map(cost).collect())
}
