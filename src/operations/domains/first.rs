//! DNS before the first deploy: the records of a name are made where we can, and a name that leads
//! elsewhere is told before anything is built, since no certificate could be had for it.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::point::{self, How, Outcome};
use super::{Asked, addresses, intend, titled};
use crate::dns::resolve::Seen;
use crate::dns::sslip;
use crate::domain::environment::Environment;
use crate::domain::ids::{EnvironmentId, OperationId};
use crate::domain::names::Domain;
use crate::operations::{Context, OpError, Run};
use crate::store::Claim;

/// Makes the records of an environment's name, or finds them made; what was done, a line each.
///
/// They stay whatever becomes of the deploy: they say where the VM is, and `destroy` takes them.
/// `careless` lets a name pass that leads elsewhere, as it does behind somebody's proxy.
///
/// # Errors
/// [`OpError::LeadsElsewhere`] with the records that a person has to make.
pub(in crate::operations) async fn before_deploy(
    context: &Context,
    operation: OperationId,
    environment: &Environment,
    careless: bool,
    run: &Run<'_>,
) -> Result<Value, OpError> {
    let Some(domain) = &environment.settings.domain else { return Ok(Value::Null) };
    let (Some(address), _) = addresses(context, environment).await? else {
        return Ok(Value::Null);
    };
    let asked = Asked::Name(domain.clone());
    let params = intend(context, &environment.path, &asked).await?;
    if params.also != params.before_also {
        let (name, also) = (Some(domain.clone()), params.also.clone());
        let claimed = context.store.set_domains(environment.id, name, also).await?;
        if let Claim::Taken(name, owner) = claimed {
            let (domain, environment) = (name.to_string(), owner.to_string());
            return Err(OpError::DomainTaken { domain, environment });
        }
    }
    let (mut outcomes, mut by_hand): (Vec<Outcome>, Vec<Domain>) = (Vec::new(), Vec::new());
    for (name, to) in params.records() {
        // Where somebody else's record leads elsewhere, ours beside it would split the visitors.
        if to.is_ipv6() && by_hand.contains(name) {
            continue;
        }
        run.say(format!("pointing {name} at {to}")).await?;
        let outcome = point::point_or_tell(context, operation, environment.id, name, to).await?;
        by_hand.extend((outcome.how == How::ByHand).then(|| name.clone()));
        outcomes.push(outcome);
    }
    if by_hand.contains(domain) && !careless {
        // Who cannot be asked now says nothing against it.
        let seen = context.resolver.addresses(domain).await.ok();
        if let Some(elsewhere) = seen.and_then(|seen| elsewhere(&seen, address)) {
            let of_name = |one: &&Outcome| one.how == How::ByHand;
            let records: Vec<String> = outcomes.iter().filter(of_name).map(Outcome::told).collect();
            return Err(OpError::LeadsElsewhere {
                domain: domain.to_string(),
                elsewhere,
                records: records.join("; "),
            });
        }
    }
    Ok(json!(outcomes.iter().map(Outcome::told).collect::<Vec<_>>()))
}

/// Makes the records of an environment's names again, which a destroy took away that goes no further.
/// What only a person can make is left to them.
///
/// # Errors
/// A provider that does not answer now.
pub(in crate::operations) async fn put_back(
    context: &Context,
    operation: OperationId,
    environment: EnvironmentId,
) -> Result<(), OpError> {
    let Some(found) = context.store.environment_by_id(environment).await? else { return Ok(()) };
    if found.settings.domain.is_none() {
        return Ok(());
    }
    let params = intend(context, &found.path, &Asked::Kept).await?;
    let mut by_hand: Vec<Domain> = Vec::new();
    for (name, to) in params.records() {
        if by_hand.contains(name) {
            continue;
        }
        let outcome = point::point_or_tell(context, operation, environment, name, to).await?;
        by_hand.extend((outcome.how == How::ByHand).then(|| name.clone()));
    }
    Ok(())
}

/// Where a name leads in place of `address`; none where it leads there.
fn elsewhere(seen: &Seen, address: IpAddr) -> Option<String> {
    let v4 = seen.a.iter().copied().map(IpAddr::V4);
    let all: Vec<IpAddr> = v4.chain(seen.aaaa.iter().copied().map(IpAddr::V6)).collect();
    match all.as_slice() {
        [] => Some("nowhere".to_owned()),
        all if all.contains(&address) => None,
        all => {
            Some(format!("to {}", all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")))
        }
    }
}

/// Who will make the records of a name, in a sentence for whoever has just chosen it. Changes
/// nothing, and fails at nothing: a provider that does not answer now may answer then.
pub async fn foretold(context: &Context, domain: &Domain) -> String {
    if sslip::is_one(domain) {
        return sslip::CAVEAT.to_owned();
    }
    match point::place(context, domain).await {
        Ok(Ok(place)) if place.zone.active => format!(
            "the first deploy makes the records of {} at {}, in the zone {}",
            domain.shown(),
            titled(&place.dns),
            place.zone.name
        ),
        Ok(Ok(place)) => format!(
            "the zone {} at {} is not active yet: name {} at the domain's registrar",
            place.zone.name,
            titled(&place.dns),
            place.zone.nameservers.join(" and ")
        ),
        Ok(Err(why)) => format!(
            "VMKit cannot make the records of {} ({why}): make them by hand once the VM has its \
             address, which `manage_domain` with action `point` tells",
            domain.shown()
        ),
        Err(error) => {
            format!("who makes the records of {} is not known now: {error}", domain.shown())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_its_vm_or_it_is_told_where() {
        let seen = |addresses: &[&str]| Seen {
            a: addresses.iter().map(|one| one.parse().expect("an address")).collect(),
            ..Seen::default()
        };
        let vm: IpAddr = "203.0.113.7".parse().expect("an address");
        assert_eq!(elsewhere(&seen(&["203.0.113.7"]), vm), None);
        assert_eq!(elsewhere(&seen(&[]), vm).as_deref(), Some("nowhere"));
        assert_eq!(elsewhere(&seen(&["192.0.2.9"]), vm).as_deref(), Some("to 192.0.2.9"));
    }
}
