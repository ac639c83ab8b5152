//! The plan of an adoption: a look at the machine, which changes nothing on it.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::error::AdoptError;
use super::look::Look;
use super::target::{Place, Target};
use super::{KIND, LOOK_LIMIT, STEPS, command};
use crate::bootstrap::adopt::{LOOK, UNDO_MINUTES};
use crate::clouds::{Cloud, CloudVm, CloudVmState, LABEL_INSTALLATION};
use crate::domain::environment::{Environment, Vm};
use crate::domain::ids::SecretId;
use crate::domain::money::{Currency, Money};
use crate::domain::names::EnvironmentPath;
use crate::domain::plan::{PlanBody, Policy};
use crate::fleet::Dial;
use crate::fleet::shell::{self, ShellError};
use crate::operations::catalogue::{Age, catalogue};
use crate::operations::environments::{environment, not_retired};
use crate::operations::provision_vm::agent_binary;
use crate::operations::{Context, OpError, links, plans};
use crate::store::{Adoption, PlanRow};
use crate::vault::Purpose;

/// What came of planning an adoption.
#[derive(Debug)]
pub enum Planned {
    /// A plan.
    Plan(Box<PlanRow>),
    /// A person has to let VMKit look first.
    NeedsKey(Box<NeedsKey>),
}

/// What a person has to do before VMKit can look at a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedsKey {
    /// The user whose file it is.
    pub login: String,
    /// The machine's address.
    pub address: IpAddr,
    /// The one line for `~/.ssh/authorized_keys`.
    pub line: String,
    /// The fingerprint of the host key that the machine shows.
    pub fingerprint: String,
    /// Whether that is the one that the person gave.
    pub expected: bool,
}

/// A machine that was looked at.
pub(super) struct Found {
    pub(super) environment: Environment,
    pub(super) address: IpAddr,
    pub(super) host_key: String,
    /// Its server, where it is one of a connected cloud.
    pub(super) server: Option<(&'static str, CloudVm)>,
    pub(super) look: Look,
    pub(super) monthly: Option<Money>,
}

impl Found {
    fn seen(&self, target: &Target) -> Value {
        json!({
            "environment": self.environment.id,
            "target": target.to_string(),
            "address": self.address,
            "host_key": self.host_key,
            "server": self.server.as_ref().map(|(cloud, vm)| (*cloud, &vm.provider_id, &vm.size)),
            "kept": self.look.kept(),
            "lines": self.look.lines(),
        })
    }
}

/// Where a machine is, before anybody looked at it.
pub(super) struct Spot {
    pub(super) environment: Environment,
    pub(super) machine: String,
    pub(super) address: IpAddr,
    pub(super) server: Option<(&'static str, CloudVm)>,
}

/// Plans an adoption, as far as the machine lets VMKit look. Changes nothing there.
///
/// # Errors
/// There is no such machine, it is somebody's already, its host key is not the given one, or it
/// does not fit.
pub async fn plan(
    context: &Context,
    path: &EnvironmentPath,
    target: &Target,
    expected: Option<&str>,
) -> Result<Planned, OpError> {
    let expected = expected.map(given_fingerprint).transpose()?;
    let spot = locate(context, path, target).await?;
    let at = SocketAddr::new(spot.address, context.settings.ssh_port);
    let host_key = shell::host_key(at).await.map_err(AdoptError::from)?;
    let fingerprint = shell::fingerprint(&host_key).unwrap_or_default();
    if let Some(wanted) = expected.as_ref().filter(|wanted| **wanted != fingerprint) {
        let (machine, wanted) = (spot.machine, wanted.clone());
        return Err(AdoptError::OtherHostKey { machine, found: fingerprint, wanted }.into());
    }
    let adoption = noted(context, &spot.environment, target).await?;
    let address = spot.address;
    let found = match look(context, spot, target, &host_key).await {
        Err(OpError::Adopt(AdoptError::Ssh(refused))) if refused.is_login_refused() => {
            return Ok(Planned::NeedsKey(Box::new(NeedsKey {
                login: target.login.clone(),
                address,
                line: adoption.public_key,
                fingerprint,
                expected: expected.is_some(),
            })));
        }
        found => found?,
    };
    let given = expected.is_some();
    let body = body(context, &found, target, &fingerprint, given);
    let human = !given || found.environment.settings.protected;
    let policy = if human { Policy::Human } else { Policy::Plan };
    let arguments = arguments(path, target, &host_key);
    let plan = plans::make(context, KIND, arguments, &found.seen(target), body, policy).await?;
    Ok(Planned::Plan(Box::new(plan)))
}

pub(super) fn arguments(path: &EnvironmentPath, target: &Target, host_key: &str) -> Value {
    json!({ "environment": path, "adopt": target.to_string(), "host_key": host_key })
}

/// Looks again, for a plan that is to be carried out.
pub(super) async fn look_again(
    context: &Context,
    path: &EnvironmentPath,
    target: &Target,
    host_key: &str,
    plan: &PlanRow,
) -> Result<Found, OpError> {
    let spot = locate(context, path, target).await?;
    let found = look(context, spot, target, host_key).await?;
    plans::still_holds(
        plan,
        &found.seen(target),
        "the machine: its ports, users, keys or containers",
    )?;
    Ok(found)
}

/// The fingerprint that a person gave, or that of the key that they gave.
fn given_fingerprint(given: &str) -> Result<String, AdoptError> {
    let given = given.trim();
    let is_one = given.strip_prefix("SHA256:").is_some_and(|rest| rest.len() == 43);
    if is_one {
        return Ok(given.to_owned());
    }
    let bad = || AdoptError::BadFingerprint { given: given.chars().take(80).collect() };
    shell::fingerprint(given).ok_or_else(bad)
}

/// Finds the machine and sees that nobody has it; asks only the cloud and our own file.
async fn locate(
    context: &Context,
    path: &EnvironmentPath,
    target: &Target,
) -> Result<Spot, OpError> {
    let environment = environment(&context.store, path).await?;
    not_retired(&context.store, &environment).await?;
    if let Some(vm) = environment.vm {
        return Err(OpError::HasVm { environment: path.to_string(), vm: vm.to_string() });
    }
    let (machine, address, server) = match &target.place {
        Place::Host(address) => (address.to_string(), *address, None),
        Place::Server { cloud, id } => {
            let own = || environment.settings.provider.as_deref();
            let cloud = cloud.or_else(|| {
                let known = crate::clouds::AnyCloud::PROVIDERS.into_iter();
                known.into_iter().find(|one| Some(*one) == own())
            });
            let given = id.clone();
            let cloud = cloud.ok_or(AdoptError::BadTarget { given })?;
            let server = server(context, cloud, id).await?;
            let no_address = || AdoptError::NotUp { cloud: cloud.to_owned(), id: id.clone() };
            let address = server.address.ok_or_else(no_address)?;
            (format!("server {id} at {cloud}"), address, Some((cloud, server)))
        }
    };
    let all = context.store.vms().await?;
    if let Some(own) = all.iter().find(|row| row.vm.address == Some(address)) {
        return Err(AdoptError::Ours { machine, vm: own.vm.id.to_string() }.into());
    }
    Ok(Spot { environment, machine, address, server })
}

/// A server that runs and is nobody's, or ours without being a VM of ours.
async fn server(context: &Context, cloud: &'static str, id: &str) -> Result<CloudVm, OpError> {
    let client = context.accounts.cloud(cloud).await?;
    let gone = || AdoptError::NoServer { cloud: cloud.to_owned(), id: id.to_owned() };
    let server = client.get_vm(id).await?.ok_or_else(gone)?;
    let machine = format!("server {id} at {cloud}");
    let ours = server.belongs_to(context.settings.installation);
    if !ours && server.labels.contains_key(LABEL_INSTALLATION) {
        return Err(AdoptError::Theirs { machine }.into());
    }
    let all = context.store.vms().await?;
    let known = all.iter().find(|row| {
        row.vm.provider == cloud
            && (row.vm.provider_id.as_deref() == Some(id)
                || Vm::cloud_name(&row.vm.id) == server.name)
    });
    if let Some(row) = known {
        return Err(AdoptError::Ours { machine, vm: row.vm.id.to_string() }.into());
    }
    if server.state != CloudVmState::Running {
        return Err(AdoptError::NotUp { cloud: cloud.to_owned(), id: id.to_owned() }.into());
    }
    Ok(server)
}

/// The key with which VMKit looks: made with the first question about this machine, and the same
/// from then on.
async fn noted(
    context: &Context,
    environment: &Environment,
    target: &Target,
) -> Result<Adoption, OpError> {
    let name = target.to_string();
    if let Some(kept) = context.store.adoption(environment.id, name.clone()).await? {
        return Ok(kept);
    }
    let (public_key, private_key) = links::key_pair("vmkit-adopt")?;
    let (secret, purpose) = (SecretId::generate(), Purpose::LinkKey);
    let sealed = context.vault.seal(&private_key, purpose, &secret.to_string())?;
    let adoption = Adoption { environment: environment.id, target: name, public_key, secret };
    let now = context.clock.now();
    Ok(context.store.put_adoption(adoption, purpose.as_str(), sealed, now).await?)
}

/// How VMKit logs in to the machine for the set-up, as long as it may.
pub(super) async fn dial(
    context: &Context,
    adoption: &Adoption,
    login: &str,
    address: IpAddr,
    host_key: &str,
) -> Result<Dial, OpError> {
    let sealed = context.store.secret(adoption.secret).await?.unwrap_or_default();
    let key = context.vault.unseal(&sealed, Purpose::LinkKey, &adoption.secret.to_string())?;
    Ok(Dial {
        address: SocketAddr::new(address, context.settings.ssh_port),
        user: login.to_owned(),
        key,
        host_keys: vec![host_key.to_owned()],
    })
}

/// Looks at a machine, whose host key has to be the one that was seen.
async fn look(
    context: &Context,
    spot: Spot,
    target: &Target,
    host_key: &str,
) -> Result<Found, OpError> {
    let Spot { environment, machine, address, server } = spot;
    let adoption = noted(context, &environment, target).await?;
    let dial = dial(context, &adoption, &target.login, address, host_key).await?;
    let look = looked(&dial, &target.login, &machine).await?;
    if let Some(vm) = look.vm.clone() {
        // Not one that is a VM of ours: its address would have told.
        let own = match vm.parse() {
            Ok(id) => context.store.vm(id).await?,
            Err(_) => None,
        };
        if own.is_none_or(|row| row.vm.state != crate::domain::environment::VmState::Deleted) {
            return Err(AdoptError::Theirs { machine }.into());
        }
    }
    let mut reasons = look.obstacles();
    if !reasons.is_empty() {
        reasons.truncate(6);
        return Err(AdoptError::Unfit { machine, reasons }.into());
    }
    if let Some(arch) = look.arch() {
        agent_binary(context, arch).await?;
    }
    let monthly = match &server {
        Some((cloud, server)) => price(context, cloud, server).await?,
        None => None,
    };
    Ok(Found { environment, address, host_key: host_key.to_owned(), server, look, monthly })
}

/// What the machine says of itself.
pub(super) async fn looked(dial: &Dial, login: &str, machine: &str) -> Result<Look, OpError> {
    let said = shell::run(dial, &command(login, None), LOOK, LOOK_LIMIT).await;
    let said = said.map_err(|error| refused(error, dial, machine))?;
    let look = Look::read(&said.output);
    if look.is_whole() {
        return Ok(look);
    }
    let said = last_line(&said.complaint);
    let (machine, login) = (machine.to_owned(), login.to_owned());
    Err(AdoptError::NoRoot { machine, login, said }.into())
}

/// An answer that never came, in words of an adoption.
pub(super) fn refused(error: ShellError, dial: &Dial, machine: &str) -> AdoptError {
    if !error.is_other_host_key() {
        return AdoptError::Ssh(error);
    }
    // The message of the connection names both.
    let text = error.to_string();
    let mut prints = text.split_whitespace().filter(|word| word.starts_with("SHA256:"));
    let mut next = || {
        let print = prints.next().unwrap_or_default();
        print
            .trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '+' && c != '/')
            .to_owned()
    };
    let found = next();
    let wanted = dial.host_keys.first().and_then(|key| shell::fingerprint(key)).unwrap_or_default();
    AdoptError::OtherHostKey { machine: machine.to_owned(), found, wanted }
}

/// The last thing that was said, cleaned and cut.
pub(super) fn last_line(text: &str) -> String {
    let last =
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
    last.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// What the server costs per month, where the list says.
async fn price(context: &Context, cloud: &str, server: &CloudVm) -> Result<Option<Money>, OpError> {
    let all = catalogue(context, Age::Young).await?;
    let list = all.of(cloud).map(|list| list.sizes.as_slice()).unwrap_or_default();
    let fits = list
        .iter()
        .find(|size| size.name.as_str() == server.size && size.region.as_str() == server.region);
    let currency = list.first().map_or(Currency::Eur, |size| size.monthly.currency);
    Ok(Some(fits.map_or(Money::zero(currency), |size| size.monthly)))
}

fn body(
    context: &Context,
    found: &Found,
    target: &Target,
    fingerprint: &str,
    given: bool,
) -> PlanBody {
    let path = &found.environment.path;
    let (address, told) = (found.address, found.look.told());
    let what = match &found.server {
        Some((cloud, server)) => format!(
            "server `{}` ({}) at {cloud}, {address}; from then on VMKit may power, resize and destroy it",
            server.name, server.size
        ),
        None => format!(
            "the machine {address}; VMKit will have no power over it, and `destroy` only takes its own things off it"
        ),
    };
    let trust = if given {
        format!("its SSH host key is the one that was given, {fingerprint}")
    } else {
        format!(
            "ITS SSH HOST KEY IS {fingerprint}: compare it with what `ssh-keygen -lf \
             /etc/ssh/ssh_host_ed25519_key.pub` prints on the machine itself; approving this plan \
             takes it as the machine's"
        )
    };
    let mut touches = vec![path.to_string(), trust];
    touches.extend(found.look.lines());
    touches.push(format!(
        "who could lose access: nobody; no user, key, port, firewall rule or setting of the SSH \
         server is removed or changed, and until it is confirmed the machine takes all of it off \
         again by itself after {UNDO_MINUTES} minutes"
    ));
    touches.push(format!(
        "who gets access: `kamal` (the deploy key of {path}{}), in the group docker and so as good \
         as root; `vmkit`, for one command; the line in {}'s authorized_keys goes again",
        if context.settings.owner_key.is_some() { " and your own" } else { "" },
        target.login
    ));
    touches.push("journald keeps up to 1 GB and drops no lines (a file of its own)".to_owned());
    if found.server.is_some() {
        touches.push(
            "the cloud's firewalls stay as they are: 22, 80 and 443 have to come in".to_owned(),
        );
    }
    if is_private(found.address) {
        touches
            .push(format!("{address} IS A PRIVATE ADDRESS: GitHub's runners cannot deploy to it"));
    }
    PlanBody {
        summary: format!(
            "adopt {what}, as the VM of {path}: {told}; VMKit will reach its agent over SSH"
        ),
        steps: STEPS.iter().map(|step| step.says.to_owned()).collect(),
        monthly_before: found.monthly,
        monthly_after: found.monthly,
        downtime_s: 0,
        lost: Vec::new(),
        touches,
        confirm_with: path.to_string(),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}
