//! `manage_domain`: an environment's public name, the records that lead to its VM, and what other
//! machines are told about it.

mod certificate;
mod check;
mod first;
mod point;
mod steps;

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use certificate::retry_certificate;
pub use check::{Finding, Verified, verify};
pub use first::foretold;
pub(super) use first::{before_deploy, put_back};
pub(super) use point::follow;
pub use point::{Removed, remove, remove_records};
pub(super) use steps::load;

use super::environments::environment;
use super::{Ask, Context, OpError, Step, queue};
use crate::dns::{Dns, sslip};
use crate::domain::environment::Environment;
use crate::domain::ids::{EnvironmentId, OperationId};
use crate::domain::names::{Domain, EnvironmentPath};
use crate::store::{Lock, LockMode, NewOperation};

pub(super) const KIND: &str = "manage_domain";
pub(super) const VERSION: u32 = 1;

const STEPS: [Step; 3] = [
    Step { name: "claim", says: "noting the name in the environment's settings" },
    Step { name: "point", says: "pointing the name at the VM" },
    Step { name: "look", says: "asking the authoritative name servers" },
];

/// Which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// This one.
    Name(Domain),
    /// One that spells the VM's address, by sslip.io.
    Sslip,
    /// The one that the environment has.
    Kept,
}

/// What the steps need, as the journal keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    domain: Domain,
    /// `www.example.com` beside `example.com`.
    also: Option<Domain>,
    /// What the environment had before.
    before: Option<Domain>,
    before_also: Option<Domain>,
    /// Its VM's address, once there is one.
    address: Option<IpAddr>,
    /// Its VM's IPv6 address, where it has one.
    #[serde(default)]
    ipv6: Option<Ipv6Addr>,
    /// Whether a release is live, so that a new name needs a deploy.
    live: bool,
}

impl Params {
    fn names(&self) -> impl Iterator<Item = &Domain> {
        std::iter::once(&self.domain).chain(&self.also)
    }

    /// Each name with each address that it has to lead to.
    fn records(&self) -> impl Iterator<Item = (&Domain, IpAddr)> {
        self.names().flat_map(|name| {
            // A name of sslip.io spells the one address.
            let beside = self.ipv6.filter(|_| !sslip::is_one(name)).map(IpAddr::V6);
            self.address.into_iter().chain(beside).map(move |address| (name, address))
        })
    }
}

/// The addresses of an environment's VM: the one that deploys go to, and an IPv6 one beside it.
async fn addresses(
    context: &Context,
    environment: &Environment,
) -> Result<(Option<IpAddr>, Option<Ipv6Addr>), OpError> {
    let Some(vm) = environment.vm else { return Ok((None, None)) };
    let vm = context.store.vm(vm).await?.map(|row| row.vm);
    let address = vm.as_ref().and_then(|vm| vm.address);
    Ok((address, vm.and_then(|vm| vm.ipv6).filter(|_| address.is_some_and(|one| one.is_ipv4()))))
}

async fn intend(
    context: &Context,
    path: &EnvironmentPath,
    asked: &Asked,
) -> Result<Params, OpError> {
    let environment = environment(&context.store, path).await?;
    let (address, ipv6) = addresses(context, &environment).await?;
    let (before, before_also) =
        (environment.settings.domain.clone(), context.store.alias_of(environment.id).await?);
    let (domain, also) = match asked {
        Asked::Name(name) if before.as_ref() == Some(name) && before_also.is_some() => {
            (name.clone(), before_also.clone())
        }
        Asked::Name(name) => (name.clone(), twin(context, name, environment.id).await?),
        Asked::Sslip => {
            let no_vm = || OpError::NoVm { environment: path.to_string() };
            let address = address.ok_or_else(no_vm)?;
            (sslip::name(path, address).ok_or_else(no_vm)?, None)
        }
        Asked::Kept => {
            let none = || OpError::NoDomain { environment: path.to_string() };
            (before.clone().ok_or_else(none)?, before_also.clone())
        }
    };
    if let Some(owner) = context.store.owner_of(domain.clone(), Some(environment.id)).await? {
        let (domain, environment) = (domain.to_string(), owner.to_string());
        return Err(OpError::DomainTaken { domain, environment });
    }
    let live = !context.store.releases(environment.id, 1).await?.is_empty();
    let (environment, path) = (environment.id, environment.path);
    Ok(Params { environment, path, domain, also, before, before_also, address, ipv6, live })
}

/// The other one of `example.com` and `www.example.com`, unless another environment has it.
async fn twin(
    context: &Context,
    name: &Domain,
    environment: EnvironmentId,
) -> Result<Option<Domain>, OpError> {
    let zone = match point::place(context, name).await? {
        Ok(place) => Some(place.zone.name),
        Err(_) if name.as_str().starts_with("www.") => None,
        // Nobody can say now: the name alone is right as well.
        Err(_) => context.resolver.zone(name).await.unwrap_or_default(),
    };
    let Some(twin) = name.twin(zone.as_ref()) else { return Ok(None) };
    let owner = context.store.owner_of(twin.clone(), Some(environment)).await?;
    Ok(owner.is_none().then_some(twin))
}

/// What pointing a name would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The name that would serve.
    pub domain: Domain,
    /// What would be done, one line each.
    pub lines: Vec<String>,
}

/// Finds out what [`start`] would do. Changes nothing.
///
/// # Errors
/// As [`start`].
pub async fn preview(
    context: &Context,
    path: &EnvironmentPath,
    asked: &Asked,
) -> Result<Preview, OpError> {
    let params = intend(context, path, asked).await?;
    let mut lines = Vec::new();
    if params.before.as_ref() != Some(&params.domain) {
        let before = params.before.as_ref().map_or("none".to_owned(), ToString::to_string);
        lines.push(format!("domain of {path}: {} in place of {before}", params.domain.shown()));
    }
    match params.address {
        None => lines.push("no VM yet, so no record".to_owned()),
        Some(_) => {
            let mut by_hand = Vec::new();
            for (name, address) in params.records() {
                if address.is_ipv6() && by_hand.contains(name) {
                    continue;
                }
                let place = point::place(context, name).await?;
                let (line, a_persons) =
                    point::would(context, &params, name, address, place.as_ref()).await?;
                lines.push(line);
                by_hand.extend(a_persons.then(|| name.clone()));
            }
        }
    }
    Ok(Preview { domain: params.domain, lines })
}

/// Gives an environment a name, or points the one that it has.
///
/// # Errors
/// The environment does not exist, has no domain to point, or another one has it.
pub async fn start(
    context: &Context,
    path: &EnvironmentPath,
    asked: &Asked,
    ask: Ask,
) -> Result<OperationId, OpError> {
    let params = intend(context, path, asked).await?;
    let exclusive = |resource| Lock { resource, mode: LockMode::Exclusive };
    let mut locks = vec![exclusive(format!("env:{}", params.environment))];
    locks.extend(params.names().map(|name| exclusive(format!("domain:{name}"))));
    let arguments = json!({ "environment": path, "domain": params.domain });
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: Some(params.environment),
        vm: None,
        params: json!(params),
        locks,
        steps: STEPS.len() as u32,
        idempotency: ask.identity(KIND, &arguments),
        caller: ask.caller,
        reason: ask.reason,
        plan: None,
        deploy: None,
        created_at: context.clock.now(),
    };
    queue(context, new, &format!("environment `{path}`")).await
}

/// What people call the provider of a zone.
fn titled(dns: &impl Dns) -> &'static str {
    dns.title()
}
