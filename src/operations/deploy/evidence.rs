//! What can be had for a diagnosis: the run, the VM, the containers, their last words. Whatever
//! cannot be asked is left out; secret values of the environment are hidden.

use std::time::Duration;

use vmkit_agent_protocol::calls::{Call, Container, Reply};

use super::{containers, env_keys};
use crate::clouds::{Cloud, CloudVmState};
use crate::diagnosis::{ContainerFacts, Evidence, Power};
use crate::domain::clock::Millis;
use crate::domain::deploy::Deploy;
use crate::domain::environment::{Environment, Vm};
use crate::domain::names::{CommitSha, RepoName};
use crate::fleet::LogQuery;
use crate::github::{Conclusion, GitHub, JobFacts, RunFacts};
use crate::operations::env::Mask;
use crate::operations::{Context, OpError};

const AGENT_WAIT: Duration = Duration::from_secs(10);
/// How many of the newest lines are asked for, of the app and of the proxy.
const LINES: usize = 300;

/// Which version of which environment is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Where.
    pub environment: &'a Environment,
    /// The version in question; none for whatever runs.
    pub commit: Option<&'a CommitSha>,
    /// The revision of its env values.
    pub env_revision: u32,
    /// The last good deploy before it.
    pub good: Option<&'a Deploy>,
    /// Only log lines from this time on.
    pub since: Option<Millis>,
    /// Only log lines before this time.
    pub until: Option<Millis>,
}

/// The job on which a run failed, or with which it was stopped.
pub fn failed_job(jobs: &[JobFacts]) -> Option<&JobFacts> {
    let ended = |wanted: &[Conclusion]| {
        jobs.iter().find(|job| job.conclusion.as_ref().is_some_and(|c| wanted.contains(c)))
    };
    let bad = [Conclusion::Failure, Conclusion::TimedOut, Conclusion::StartupFailure];
    ended(&bad).or_else(|| ended(&[Conclusion::Cancelled]))
}

/// Adds what GitHub knows of a run that has ended. Returns the failed job.
///
/// # Errors
/// GitHub does not answer.
pub async fn of_run(
    github: &GitHub,
    repo: &RepoName,
    run: &RunFacts,
    evidence: &mut Evidence,
) -> Result<Option<JobFacts>, OpError> {
    evidence.conclusion = run.conclusion.clone().map(String::from);
    let jobs = github.jobs(repo, run.id).await?;
    let Some(job) = failed_job(&jobs) else { return Ok(None) };
    let step = job.steps.iter().find(|step| {
        matches!(
            step.conclusion,
            Some(Conclusion::Failure | Conclusion::TimedOut | Conclusion::Cancelled)
        )
    });
    evidence.job = Some(job.name.clone());
    evidence.step = step.map(|step| step.name.clone());
    evidence.annotations = github.annotations(repo, job.id).await?;
    evidence.job_log = github.job_log(repo, job.id).await?.unwrap_or_default();
    Ok(Some(job.clone()))
}

/// Adds what the VM, its cloud and our own file know, and hides the secret values in all of it.
///
/// # Errors
/// Our own file cannot be read.
pub async fn of_environment(
    context: &Context,
    subject: Subject<'_>,
    evidence: &mut Evidence,
) -> Result<(), OpError> {
    let environment = subject.environment;
    evidence.environment = Some(environment.path.to_string());
    evidence.port = Some(environment.settings.port);
    evidence.health_path = Some(environment.settings.health_path.clone());
    if let Some(good) = subject.good {
        let (from, to) = (good.env_revision, subject.env_revision);
        evidence.env_changed = env_keys(context, environment.id, from, to).await?;
        evidence.same_commit = subject.commit.map(|commit| *commit == good.commit);
    }
    if let Some(id) = environment.vm
        && let Some(row) = context.store.vm(id).await?
    {
        evidence.address = row.vm.address;
        evidence.vm.arch = Some(row.vm.arch.as_str().to_owned());
        of_agent(context, &row.vm, subject, evidence).await;
        if evidence.vm.agent_linked != Some(true) {
            evidence.vm.power = power(context, &row.vm).await;
        }
    }
    let mask = Mask::of(&context.store, &context.vault, environment.id).await?;
    for text in [&mut evidence.job_log, &mut evidence.app_log, &mut evidence.proxy_log] {
        *text = mask.apply(text);
    }
    for note in &mut evidence.annotations {
        *note = mask.apply(note);
    }
    Ok(())
}

async fn of_agent(context: &Context, vm: &Vm, subject: Subject<'_>, evidence: &mut Evidence) {
    let fleet = &context.fleet;
    let presence = fleet.presence(vm.id).await.ok();
    evidence.vm.agent_linked = presence.map(|presence| presence.linked);
    let service = subject.environment.path.service();
    evidence.app_log = log(context, vm, &service, subject).await;
    evidence.proxy_log = log(context, vm, "kamal-proxy", Subject { commit: None, ..subject }).await;
    if evidence.vm.agent_linked != Some(true) {
        return;
    }
    let all = containers(fleet, vm.id).await.unwrap_or_default();
    let ours = all.iter().filter(|one| one.labels.get("service") == Some(&service));
    let of_version = |facts: &ContainerFacts| {
        subject.commit.is_none_or(|commit| facts.version.as_deref() == Some(commit.as_str()))
    };
    evidence.containers = ours.map(|one| facts(one, &service)).filter(of_version).collect();
    if let Ok(Reply::Metrics(metrics)) = fleet.call(vm.id, Call::Metrics, AGENT_WAIT).await {
        let known = |bytes: u64| (metrics.disk_bytes > 0).then_some(bytes);
        evidence.vm.memory_bytes = Some(metrics.memory_bytes);
        evidence.vm.memory_available_bytes = Some(metrics.memory_available_bytes);
        evidence.vm.disk_bytes = known(metrics.disk_bytes);
        evidence.vm.disk_free_bytes = known(metrics.disk_free_bytes);
        evidence.vm.memory_pressure = metrics.pressure.map(|pressure| pressure.memory);
    }
}

/// The newest lines of a service, of the version in question alone where one is.
async fn log(context: &Context, vm: &Vm, service: &str, subject: Subject<'_>) -> String {
    let query = LogQuery {
        service: service.to_owned(),
        system: None,
        role: None,
        since: subject.since,
        until: subject.until,
        grep: None,
        limit: LINES,
    };
    let page = context.fleet.logs(vm.id, query).await;
    let lines = page.map(|page| page.lines).unwrap_or_default();
    let wanted = |version: Option<&str>| {
        subject.commit.is_none_or(|commit| version == Some(commit.as_str()))
    };
    let lines = lines.into_iter().filter(|line| wanted(line.version.as_deref()));
    lines.map(|line| line.text + "\n").collect()
}

fn facts(one: &Container, service: &str) -> ContainerFacts {
    let role = one.labels.get("role").map_or("web", String::as_str);
    let version = one.name.strip_prefix(&format!("{service}-{role}-"));
    ContainerFacts {
        name: one.name.clone(),
        role: role.to_owned(),
        version: version.map(str::to_owned),
        state: one.state.clone(),
        exit_code: one.exit_code,
        oom_killed: one.oom_killed,
        restarts: one.restarts,
        health: one.health.clone(),
        image_arch: None,
    }
}

/// Whether the VM has power, by its cloud's word.
async fn power(context: &Context, vm: &Vm) -> Power {
    let (Some(id), Ok(cloud)) = (&vm.provider_id, context.accounts.cloud(&vm.provider).await)
    else {
        return Power::Unknown;
    };
    match cloud.get_vm(id).await.map(|found| found.map(|found| found.state)) {
        Ok(None) | Ok(Some(CloudVmState::Deleting)) => Power::Gone,
        Ok(Some(CloudVmState::Off | CloudVmState::Stopping)) => Power::Off,
        Ok(Some(CloudVmState::Running | CloudVmState::Starting)) => Power::On,
        Ok(Some(CloudVmState::Other(_))) | Err(_) => Power::Unknown,
    }
}
