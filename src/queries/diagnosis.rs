//! What is wrong: why the newest deploy failed or, where none did, what troubles the environment
//! now.

use std::net::IpAddr;
use std::time::Duration;

use crate::diagnosis::{Cause, Evidence, NameFacts, Probe, diagnose};
use crate::dns::resolve::ResolveError;
use crate::domain::clock::Millis;
use crate::domain::deploy::{Deploy, DeployState};
use crate::domain::environment::Environment;
use crate::domain::ids::DeployId;
use crate::domain::names::{Domain, EnvironmentPath};
use crate::operations::deploy::evidence::{self, Subject};
use crate::operations::deploy::{containers, proxy_ports};
use crate::operations::environments::{app, environment};
use crate::operations::{Context, OpError, ROLE_DIES};
use crate::probe;
use crate::store::Failure;

/// How long the app may take to answer, and the DNS.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const DNS_WAIT: Duration = Duration::from_secs(5);
/// Log lines from so long before a deploy's end are looked at, and after it, in milliseconds.
const AFTER_MS: i64 = 120_000;
/// How far back lines of an environment without a failed deploy count, in milliseconds.
const RECENT_MS: i64 = 30 * 60 * 1000;

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A deploy that did not go live.
    Deploy(Box<Deploy>),
    /// The environment as it is now.
    Now,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// One root cause.
    Cause(Cause),
    /// No rule knows it; what the deploy itself said, where it said something.
    Unknown(Option<Failure>),
    /// Nothing is wrong.
    Well,
}

/// A diagnosis.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// What was looked at.
    pub about: About,
    /// What was found.
    pub verdict: Verdict,
}

/// Explains a deploy; without one the newest if it failed, else the environment's present state.
///
/// # Errors
/// The environment or the deploy does not exist, or our own file cannot be read.
pub async fn diagnosis(
    context: &Context,
    path: &EnvironmentPath,
    wanted: Option<DeployId>,
) -> Result<Diagnosis, OpError> {
    let environment = environment(&context.store, path).await?;
    let newest = context.store.deploys(environment.id, 1).await?.pop();
    let asked = match wanted {
        Some(id) => {
            let found = context.store.deploy(id).await?;
            let ours = found.filter(|deploy| deploy.environment == environment.id);
            let (release, environment) = (id.to_string(), path.to_string());
            Some(ours.ok_or(OpError::UnknownRelease { release, environment })?)
        }
        None => newest.filter(|newest| newest.state == DeployState::Failed),
    };
    let Some(deploy) = asked else { return now(context, &environment).await };
    let verdict = match deploy.state {
        DeployState::Failed | DeployState::Cancelled => {
            of_deploy(context, &environment, &deploy).await?
        }
        DeployState::Live | DeployState::Running => Verdict::Well,
    };
    Ok(Diagnosis { about: About::Deploy(Box::new(deploy)), verdict })
}

/// What a diagnosis of the newest deploy would rest on, where that deploy has a run that failed.
///
/// # Errors
/// The environment does not exist, or our own file cannot be read.
pub async fn evidence_of_newest(
    context: &Context,
    path: &EnvironmentPath,
) -> Result<Option<Evidence>, OpError> {
    let environment = environment(&context.store, path).await?;
    let newest = context.store.deploys(environment.id, 1).await?.pop();
    let failed = newest.filter(|newest| newest.state == DeployState::Failed);
    let Some((run, deploy)) = failed.and_then(|deploy| Some((deploy.run_id?, deploy))) else {
        return Ok(None);
    };
    let failure = context.store.operation(deploy.operation).await?.and_then(|row| row.failure);
    Ok(Some(of_run(context, &environment, &deploy, run, failure.as_ref()).await?))
}

async fn of_deploy(
    context: &Context,
    environment: &Environment,
    deploy: &Deploy,
) -> Result<Verdict, OpError> {
    let operation = context.store.operation(deploy.operation).await?;
    let failure = operation.and_then(|operation| operation.failure);
    let unknown = || Verdict::Unknown(failure.clone());
    let Some(run) = deploy.run_id else {
        // What ended before a run began says itself why, also where GitHub refused to start one.
        let refused = failure.as_ref().map(|failure| failure.message.clone());
        let environment = Some(environment.path.to_string());
        let found = diagnose(&Evidence { environment, refused, ..Evidence::default() });
        return Ok(found.map_or_else(unknown, Verdict::Cause));
    };
    let evidence = of_run(context, environment, deploy, run, failure.as_ref()).await?;
    let known = |cause: Cause| match &failure {
        // GitHub cannot be asked any more, or has no log left: what was found then holds.
        Some(failure) if evidence.job_log.is_empty() && failure.code != cause.code => unknown(),
        Some(_) | None => Verdict::Cause(cause),
    };
    let run_failed = evidence.conclusion.as_deref() != Some("success");
    Ok(match diagnose(&evidence) {
        Some(cause) if run_failed && evidence.job_log.is_empty() => known(cause),
        Some(cause) => Verdict::Cause(cause),
        None => unknown(),
    })
}

/// What is known of a deploy's run, and of the version that it was to bring.
async fn of_run(
    context: &Context,
    environment: &Environment,
    deploy: &Deploy,
    run: u64,
    failure: Option<&Failure>,
) -> Result<Evidence, OpError> {
    let mut evidence = Evidence::default();
    let app = app(&context.store, &environment.path.app).await?;
    let asked = async {
        let github = context.accounts.github().await?;
        let facts = github.run(&app.app.repo, run).await?;
        evidence::of_run(&github, &app.app.repo, &facts, &mut evidence).await
    };
    if let Err(error) = asked.await {
        evidence = Evidence { github: Some(error.to_string()), ..Evidence::default() };
    }
    let dies = failure.filter(|failure| failure.code == ROLE_DIES);
    evidence.role_dies = dies.map(|failure| failure.message.clone());
    let good = good_before(context, environment, deploy).await?;
    let subject = Subject {
        environment,
        commit: Some(&deploy.commit),
        env_revision: deploy.env_revision,
        good: good.as_ref(),
        since: Some(deploy.created_at),
        until: deploy.ended_at.map(|ended| Millis(ended.0 + AFTER_MS)),
    };
    evidence::of_environment(context, subject, &mut evidence).await?;
    Ok(evidence)
}

/// The release that was live when a deploy began.
async fn good_before(
    context: &Context,
    environment: &Environment,
    deploy: &Deploy,
) -> Result<Option<Deploy>, OpError> {
    let releases = context.store.releases(environment.id, super::deploys::SHOWN).await?;
    Ok(releases.into_iter().find(|release| release.created_at.0 < deploy.created_at.0))
}

async fn now(context: &Context, environment: &Environment) -> Result<Diagnosis, OpError> {
    let evidence = at_present(context, environment).await?;
    let verdict = match diagnose(&evidence) {
        Some(cause) => Verdict::Cause(cause),
        None if matches!(evidence.probe, Some(Probe::Status(200..=399))) => Verdict::Well,
        None => Verdict::Unknown(None),
    };
    Ok(Diagnosis { about: About::Now, verdict })
}

/// What a diagnosis of the environment's present state would rest on.
///
/// # Errors
/// Nothing was ever live there, the environment does not exist, or our own file cannot be read.
pub async fn evidence_at_present(
    context: &Context,
    path: &EnvironmentPath,
) -> Result<Evidence, OpError> {
    at_present(context, &environment(&context.store, path).await?).await
}

async fn at_present(context: &Context, environment: &Environment) -> Result<Evidence, OpError> {
    let releases = context.store.releases(environment.id, super::deploys::SHOWN).await?;
    let none = || OpError::NoRelease { environment: environment.path.to_string() };
    let live = releases.first().ok_or_else(none)?;
    let before = releases.iter().skip(1).find(|before| before.commit != live.commit);
    let subject = Subject {
        environment,
        commit: None,
        env_revision: live.env_revision,
        good: before.or(releases.get(1)),
        since: Some(Millis(context.clock.now().0 - RECENT_MS)),
        until: None,
    };
    let mut evidence = Evidence::default();
    evidence::of_environment(context, subject, &mut evidence).await?;
    evidence.same_commit = good_commit(&subject, live);
    let version = live.commit.as_str();
    evidence.containers.retain(|one| one.version.as_deref() == Some(version));
    from_outside(context, environment, &mut evidence).await;
    Ok(evidence)
}

fn good_commit(subject: &Subject<'_>, live: &Deploy) -> Option<bool> {
    subject.good.map(|good| good.commit == live.commit)
}

/// What a visitor meets: the name's addresses, and the app's answer at the VM.
async fn from_outside(context: &Context, environment: &Environment, evidence: &mut Evidence) {
    let settings = &environment.settings;
    if let Some(domain) = &settings.domain {
        evidence.name = resolved(context, domain).await;
    }
    let (Some(vm), Some(address)) = (environment.vm, evidence.address) else { return };
    // Without the agent's word on the proxy's ports nobody knows where to ask.
    if evidence.vm.agent_linked != Some(true) {
        evidence.probe = Some(Probe::Error("the VM's agent is not linked".to_owned()));
        return;
    }
    let Ok(all) = containers(&context.fleet, vm).await else { return };
    let url = probe::app_url(address, settings.domain.as_ref(), proxy_ports(&all));
    evidence.probe = Some(match url {
        None => Probe::Error("the proxy does not run".to_owned()),
        Some(url) => match probe::status(&url, &settings.health_path, address, ANSWER_WAIT).await {
            Ok(status) => Probe::Status(status),
            Err(why) => Probe::Error(format!("{url}: {why}")),
        },
    });
}

/// The name's addresses, by the servers that are asked for every name: none of them where they say
/// that it has none, nothing at all where they did not answer.
async fn resolved(context: &Context, domain: &Domain) -> Option<NameFacts> {
    let asked = context.resolver.addresses(domain);
    let name = domain.to_string();
    match tokio::time::timeout(DNS_WAIT, asked).await.ok()? {
        Ok(seen) => {
            let (a, aaaa) = (seen.a.into_iter().map(IpAddr::from), seen.aaaa.into_iter());
            Some(NameFacts { name, resolves_to: a.chain(aaaa.map(IpAddr::from)).collect() })
        }
        Err(ResolveError::Undelegated { .. }) => Some(NameFacts { name, resolves_to: vec![] }),
        Err(ResolveError::Silent { .. } | ResolveError::NoResolver) => None,
    }
}
