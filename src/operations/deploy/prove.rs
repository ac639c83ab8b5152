//! The proof that a version is live: every role runs it, steadily, and its public name answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use vmkit_agent_protocol::calls::{Call, Container, Reply, RetireRoles};

use super::Params;
use crate::domain::clock::Millis;
use crate::domain::environment::Environment;
use crate::domain::ids::VmId;
use crate::domain::names::CommitSha;
use crate::fleet::{Fleet, FleetError};
use crate::operations::agents::linked;
use crate::operations::environments::{app, environment};
use crate::operations::{Context, OpError, Run, repo};
use crate::pipeline::{TRAEFIK, WEB};
use crate::probe::{self, ProxyPorts};

const AGENT_WAIT: Duration = Duration::from_secs(20);
/// How long the public name may take to answer: a certificate may have to be issued first.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// How long a role is watched at most that was started again before the first look at it.
const RESTARTED_MAX: Duration = Duration::from_secs(90);
/// How long the containers of former roles may take to end: the agent gives each 30 s.
const RETIRE_WAIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(200);

/// The containers of a VM.
pub async fn containers(fleet: &Fleet, vm: VmId) -> Result<Vec<Container>, FleetError> {
    match fleet.call(vm, Call::Containers, AGENT_WAIT).await? {
        Reply::Containers { containers } => Ok(containers),
        _ => Ok(Vec::new()),
    }
}

/// A service's containers that run, by role.
fn running<'a>(containers: &'a [Container], service: &str) -> BTreeMap<String, Vec<&'a Container>> {
    let mut roles: BTreeMap<String, Vec<&Container>> = BTreeMap::new();
    for container in containers {
        let label = |name: &str| container.labels.get(name).map(String::as_str);
        if label("service") == Some(service) && container.state == "running" {
            let role = label("role").unwrap_or("web").to_owned();
            roles.entry(role).or_default().push(container);
        }
    }
    roles
}

/// The version in a container's name, `SERVICE-ROLE-VERSION`.
fn version(container: &Container, service: &str, role: &str) -> Option<CommitSha> {
    container.name.strip_prefix(&format!("{service}-{role}-"))?.parse().ok()
}

/// The version that the web role runs now, or the first role of an app that serves nothing, as far
/// as the agent can tell.
pub(super) async fn serving(context: &Context, params: &Params) -> Option<CommitSha> {
    let containers = containers(&context.fleet, params.vm).await.ok()?;
    let service = params.path.service();
    let roles = running(&containers, &service);
    let (role, members) = roles.get_key_value(WEB).or_else(|| roles.first_key_value())?;
    members.iter().find_map(|container| version(container, &service, role))
}

/// How the proxy is reached from outside.
pub fn proxy_ports(containers: &[Container]) -> ProxyPorts {
    // Traefik has the ports where it stands in front.
    let runs = |name: &str| containers.iter().find(|c| c.name == name && c.state == "running");
    let proxy = runs(TRAEFIK).or_else(|| runs("kamal-proxy"));
    let port = |inside: u16| {
        let ports = &proxy?.ports;
        ports.iter().find(|port| port.container_port == inside).map(|port| port.host_port)
    };
    ProxyPorts { http: port(80), https: port(443) }
}

pub(super) async fn prove(
    context: &Context,
    params: &Params,
    run: &Run<'_>,
) -> Result<Value, OpError> {
    let environment = environment(&context.store, &params.path).await?;
    linked(context, params.vm).await?;
    let begun = context.store.deploy(params.deploy).await?.map(|deploy| deploy.created_at);
    let wanted = wanted_roles(context, &environment).await?;
    let all = containers(&context.fleet, params.vm).await?;
    let former = former_roles(params, &all, &wanted.names, begun);
    let first = without(all, params, &former);
    let before = check_roles(params, &first)?;
    let url = match before.contains_key(WEB) || wanted.serves {
        true => answer(context, params, &environment, &first).await?,
        // A worker has no address; that it runs steadily is all there is to prove.
        false => None,
    };
    let service = params.path.service();
    let steady = watched(&first, &service, context.settings.steady, begun);
    run.say(format!("watching every role for {} s", steady.as_secs())).await?;
    let until = tokio::time::Instant::now() + steady;
    loop {
        let all = containers(&context.fleet, params.vm).await?;
        let now = check_roles(params, &without(all, params, &former))?;
        if let Some(role) = before.iter().find(|(role, restarts)| now.get(*role) != Some(restarts))
        {
            return Err(dies(params, format!("role `{}` was restarted", role.0)));
        }
        run.stop_if_asked().await?;
        if tokio::time::Instant::now() >= until {
            break;
        }
        tokio::time::sleep(PAUSE.min(steady)).await;
    }
    let roles: Vec<&String> = before.keys().collect();
    let mut proof: Vec<String> = before
        .iter()
        .map(|(role, restarts)| {
            let version = params.commit.short();
            format!("{role} runs {version}, restarts {restarts}, steady for {} s", steady.as_secs())
        })
        .collect();
    proof.extend(url.as_ref().map(|url| format!("{url} answers")));
    proof.extend(retire(context, params, former).await);
    Ok(json!({ "url": url, "roles": roles, "proof": proof }))
}

/// How long the roles have to run: longer than usual where one was started again already. Its
/// earlier runs lie between the deploy's beginning and that of its present one, which is to outlast
/// them.
fn watched(
    containers: &[Container],
    service: &str,
    steady: Duration,
    begun: Option<Millis>,
) -> Duration {
    let ours = |one: &&Container| one.labels.get("service").is_some_and(|of| of == service);
    let again = containers.iter().filter(ours).filter(|one| one.restarts > 0);
    let earlier = again.filter_map(|one| Some(Millis(one.started_at_ms?).since_ms(begun?))).max();
    let earlier = u64::try_from(earlier.unwrap_or(0)).unwrap_or(0);
    Duration::from_millis(earlier).min(RESTARTED_MAX).max(steady)
}

/// What is to run of an environment.
struct WantedRoles {
    /// Whether anything of it answers requests.
    serves: bool,
    /// None where that is not known.
    names: Option<BTreeSet<String>>,
}

async fn wanted_roles(
    context: &Context,
    environment: &Environment,
) -> Result<WantedRoles, OpError> {
    let row = app(&context.store, &environment.path.app).await?;
    let (setup, _) = repo::wanted_files(context, &row).await?;
    let this = setup.environments.iter().find(|one| one.path == environment.path);
    Ok(WantedRoles {
        serves: this.is_none_or(|this| setup.serves(this)),
        names: this.map(|this| setup.roles(this).into_iter().map(|role| role.name).collect()),
    })
}

/// The roles that run and that the app has no more. Kamal, which knows the present ones alone,
/// leaves their containers as they are; what it has just started is not among them.
fn former_roles(
    params: &Params,
    containers: &[Container],
    wanted: &Option<BTreeSet<String>>,
    begun: Option<Millis>,
) -> Vec<String> {
    let Some(wanted) = wanted else { return Vec::new() };
    let service = params.path.service();
    let older = |one: &Container| match (one.started_at_ms, begun) {
        (Some(started), Some(begun)) => started < begun.0,
        _ => false,
    };
    let former = |role: &str, one: &Container| {
        version(one, &service, role).as_ref() != Some(&params.commit) || older(one)
    };
    running(containers, &service)
        .into_iter()
        .filter(|(role, all)| !wanted.contains(role) && all.iter().all(|one| former(role, one)))
        .map(|(role, _)| role)
        .collect()
}

fn without(containers: Vec<Container>, params: &Params, roles: &[String]) -> Vec<Container> {
    let service = params.path.service();
    let of = |one: &Container, label: &str| one.labels.get(label).cloned().unwrap_or_default();
    let former =
        |one: &Container| of(one, "service") == service && roles.contains(&of(one, "role"));
    containers.into_iter().filter(|one| !former(one)).collect()
}

/// Ends what runs in roles that the app has no more, once the version is proven: a worker of old
/// code would go on with its jobs. Where it cannot be done, that is told, and the next deploy does it.
async fn retire(context: &Context, params: &Params, roles: Vec<String>) -> Option<String> {
    if roles.is_empty() {
        return None;
    }
    let named = roles.join(", ");
    let call = Call::RetireRoles(RetireRoles {
        app: params.path.app.to_string(),
        environment: params.path.name.to_string(),
        roles,
    });
    Some(match context.fleet.call(params.vm, call, RETIRE_WAIT).await {
        Ok(_) => format!("{named}: not configured any more, ended"),
        Err(error) => format!("{named}: not configured any more, but still runs ({error})"),
    })
}

fn not_live(params: &Params, reason: String) -> OpError {
    OpError::NotLive { commit: params.commit.short().to_owned(), reason, dies: false }
}

fn dies(params: &Params, reason: String) -> OpError {
    OpError::NotLive { commit: params.commit.short().to_owned(), reason, dies: true }
}

/// Fails unless every role runs the wanted version and nothing else. Returns restarts by role.
fn check_roles(
    params: &Params,
    containers: &[Container],
) -> Result<BTreeMap<String, u32>, OpError> {
    let service = params.path.service();
    let roles = running(containers, &service);
    if roles.is_empty() {
        return Err(not_live(params, format!("no container of `{service}` runs")));
    }
    // A role whose container has ended or is being restarted is not among those that run.
    for container in containers {
        let label = |name: &str| container.labels.get(name).map(String::as_str);
        let Some(role) = label("role").filter(|_| label("service") == Some(&service)) else {
            continue;
        };
        let this = version(container, &service, role).as_ref() == Some(&params.commit);
        if this && !roles.contains_key(role) {
            return Err(match container.oom_killed {
                true => not_live(params, format!("role `{role}` ran out of memory")),
                false => {
                    let state = &container.state;
                    dies(params, format!("role `{role}` does not stay up ({state})"))
                }
            });
        }
    }
    let mut restarts = BTreeMap::new();
    for (role, members) in &roles {
        for container in members {
            let found = version(container, &service, role);
            if found.as_ref() != Some(&params.commit) {
                let found = found.map_or_else(|| container.name.clone(), |v| v.short().to_owned());
                return Err(not_live(params, format!("role `{role}` runs {found}")));
            }
            if container.oom_killed {
                return Err(not_live(params, format!("role `{role}` ran out of memory")));
            }
        }
        restarts.insert(role.clone(), members.iter().map(|c| c.restarts).sum());
    }
    Ok(restarts)
}

/// The public address, once the app answers there.
async fn answer(
    context: &Context,
    params: &Params,
    environment: &Environment,
    containers: &[Container],
) -> Result<Option<String>, OpError> {
    let vm = context.store.vm(params.vm).await?;
    let Some(address) = vm.and_then(|row| row.vm.address) else {
        return Err(not_live(params, "the VM has no address".to_owned()));
    };
    let settings = &environment.settings;
    let ports = proxy_ports(containers);
    let Some(url) = probe::app_url(address, settings.domain.as_ref(), ports) else {
        return Err(not_live(params, "the proxy publishes no port".to_owned()));
    };
    let deadline = tokio::time::Instant::now() + ANSWER_WAIT;
    loop {
        let limit = Duration::from_secs(10);
        let said = match probe::status(&url, &settings.health_path, address, limit).await {
            Ok(status) if (200..400).contains(&status) => return Ok(Some(url.to_string())),
            Ok(status) => format!("{url} answers {status} at `{}`", settings.health_path),
            Err(reason) => format!("{url}: {reason}"),
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(not_live(params, said));
        }
        tokio::time::sleep(PAUSE * 5).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_was_started_again_has_to_outlast_its_earlier_runs() {
        let steady = Duration::from_secs(20);
        let begun = Some(Millis(1_000_000));
        let container = |service: &str, restarts: u32, after_s: i64| Container {
            labels: [("service".to_owned(), service.to_owned())].into(),
            restarts,
            started_at_ms: Some(1_000_000 + after_s * 1000),
            ..Container::default()
        };
        let of = |restarts, after_s| {
            let all = [container("shop-staging", restarts, after_s), container("other", 9, 80)];
            watched(&all, "shop-staging", steady, begun).as_secs()
        };
        assert_eq!(of(0, 75), 20, "the first run: there is nothing to compare it with");
        assert_eq!(of(1, 65), 65, "what died in the first minute may do so in the next");
        assert_eq!(of(3, 12), 20);
        assert_eq!(of(1, 4_000), 90, "nobody waits for ever");
        assert_eq!(of(1, -30), 20, "the VM's clock is behind ours");
        let all = [container("shop-staging", 1, 65)];
        assert_eq!(watched(&all, "shop-staging", steady, None), steady);
    }
}
