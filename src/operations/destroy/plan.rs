//! What a destroy or its undo would do, and what stands in its way: told before anything is
//! touched.

use rust_decimal::Decimal;

use super::table::{self, Manner};
use super::{ACTION, Subject, Wanted, look, purge, restorable, restore, retire, seen};
use crate::clouds::{AnyCloud, Cloud, CloudVm};
use crate::domain::environment::{Settings, Vm, VmState};
use crate::domain::money::Money;
use crate::domain::names::EnvironmentPath;
use crate::domain::plan::{PlanBody, Policy};
use crate::domain::retirement::{Keeping, Retirement, UNDO_MS};
use crate::operations::catalogue::{Age, catalogue};
use crate::operations::environments::app;
use crate::operations::provision_vm::address;
use crate::operations::{Context, OpError, plans};
use crate::store::{PlanRow, VmRow};

/// Plans a destroy, or its undo. Changes nothing.
///
/// # Errors
/// The environment does not exist, is destroyed already, or there is nothing to undo; something is
/// protected at its cloud; the undo's size cannot be ordered now.
pub async fn plan(
    context: &Context,
    path: &EnvironmentPath,
    wanted: Wanted,
) -> Result<PlanRow, OpError> {
    let subject = look(context, path).await?;
    check(context, &subject, wanted).await?;
    let (body, policy) = match wanted {
        Wanted::Purge => (for_good(context, &subject).await?, Policy::Human),
        Wanted::Keep | Wanted::Park => {
            kept(context, &subject, subject.keeping(wanted == Wanted::Park)).await?
        }
        Wanted::Undo => undo(context, &subject).await?,
    };
    let seen = seen(context, &subject).await?;
    plans::make(context, ACTION, wanted.arguments(path), &seen, body, policy).await
}

/// What stands in the way of it.
pub(super) async fn check(
    context: &Context,
    subject: &Subject,
    wanted: Wanted,
) -> Result<(), OpError> {
    match wanted {
        Wanted::Purge => {
            guard_server(subject)?;
            guard_kept(context, subject).await
        }
        Wanted::Keep | Wanted::Park => {
            super::super::environments::not_retired(&context.store, &subject.environment).await?;
            if wanted == Wanted::Keep { guard_server(subject) } else { Ok(()) }
        }
        Wanted::Undo => {
            let kept = restorable(context, subject)?;
            orderable(context, subject, &kept).await
        }
    }
}

fn guard_server(subject: &Subject) -> Result<(), OpError> {
    let (Some(server), Some(row)) = (&subject.server, &subject.own) else { return Ok(()) };
    if !server.protected {
        return Ok(());
    }
    let (what, provider) = (format!("server `{}`", server.name), row.vm.provider.clone());
    Err(OpError::Guarded { what, provider })
}

/// The address and the snapshot have flags of their own.
async fn guard_kept(context: &Context, subject: &Subject) -> Result<(), OpError> {
    let Some(row) = subject.own.as_ref().filter(|row| row.vm.state != VmState::Deleted) else {
        return Ok(());
    };
    let cloud = context.accounts.cloud(&row.vm.provider).await?;
    let provider = || row.vm.provider.clone();
    if row.vm.address_id.is_some()
        && let Some(one) = address::find(context, &cloud, row).await?
        && one.protected
    {
        let what = format!("address {}", one.address);
        return Err(OpError::Guarded { what, provider: provider() });
    }
    if let Some(name) = subject.retirement.as_ref().and_then(|kept| kept.snapshot_name.as_ref()) {
        let all = cloud.list_snapshots().await?;
        let installation = context.settings.installation;
        if all.iter().any(|s| s.name == *name && s.belongs_to(installation) && s.protected) {
            let what = format!("snapshot `{name}`");
            return Err(OpError::Guarded { what, provider: provider() });
        }
    }
    Ok(())
}

/// Whether the server could be ordered again now; the reason where not.
async fn reason_not_to_order(context: &Context, row: &VmRow) -> Result<Option<String>, OpError> {
    let settings = Settings {
        size: row.vm.size.clone(),
        region: row.vm.region.clone(),
        domain: None,
        port: 0,
        health_path: String::new(),
        protected: false,
        provider: Some(row.vm.provider.clone()),
    };
    match catalogue(context, Age::Now).await?.pick(&settings) {
        Ok(_) => Ok(None),
        Err(error @ (OpError::SoldOut { .. } | OpError::UnknownSize { .. })) => {
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

async fn orderable(context: &Context, subject: &Subject, kept: &Retirement) -> Result<(), OpError> {
    let (Keeping::Snapshot, Some(row)) = (kept.keeping, &subject.own) else { return Ok(()) };
    match reason_not_to_order(context, row).await? {
        None => Ok(()),
        Some(reason) => Err(OpError::NotRestorable {
            environment: subject.environment.path.to_string(),
            until: kept.until(),
            reason,
        }),
    }
}

/// What the plan touches: the environment, its things by the table, its VM and domain.
async fn touches(
    context: &Context,
    subject: &Subject,
    manner: Manner,
) -> Result<Vec<String>, OpError> {
    let environment = &subject.environment;
    let row = app(&context.store, &environment.path.app).await?;
    let mut touches = vec![environment.path.to_string()];
    touches.extend(subject.own.as_ref().map(|own| format!("VM {}", own.vm.id)));
    touches.push(format!("secrets and variables in {}", row.app.repo));
    touches.extend(environment.settings.domain.as_ref().map(|domain| format!("domain {domain}")));
    touches.extend(table::lines(manner));
    Ok(touches)
}

async fn for_good(context: &Context, subject: &Subject) -> Result<PlanBody, OpError> {
    let path = &subject.environment.path;
    let row = app(&context.store, &path.app).await?;
    let manner = if subject.own.is_some() { Manner::Purge } else { Manner::PurgeShared };
    let mut lost = vec![format!("the env values of `{path}`, at every revision")];
    match (&subject.own, subject.environment.vm) {
        (Some(own), _) => {
            let id = own.vm.id;
            lost.push(format!("VM {id} with its disk: containers, volumes, logs, env files"));
            if let Some(address) = own.vm.address.filter(|_| own.vm.address_id.is_some()) {
                lost.push(format!("the address {address}"));
            }
        }
        (None, Some(vm)) if subject.left.is_some() => {
            lost.push(format!(
                "its containers and their volumes on VM {vm}; that machine stays yours, and \
                 VMKit's users, keys and agent are taken off it"
            ));
        }
        (None, Some(vm)) => {
            lost.push(format!("its containers and their volumes on VM {vm}, which others use"));
        }
        (None, None) => {}
    }
    for service in context.store.services(subject.environment.id).await? {
        let (title, volume) = (service.kind.title(), service.kind.host(path));
        lost.push(format!("all data of {title}: volume `{volume}`"));
    }
    if subject.retirement.is_some() {
        lost.push("what an earlier destroy kept of it".to_owned());
    }
    let monthly = match (&subject.retirement, &subject.own) {
        (Some(Retirement { keeping: Keeping::Snapshot, monthly: Some(monthly), .. }), _) => {
            Some(*monthly)
        }
        (_, own) => own.as_ref().map(|own| own.monthly),
    };
    Ok(PlanBody {
        summary: format!(
            "destroy `{path}` for good{}; the files in {} and its images stay",
            if subject.own.is_some() { " with its VM" } else { "" },
            row.app.repo
        ),
        steps: purge::says(manner),
        monthly_before: monthly,
        monthly_after: monthly.map(|money| Money::zero(money.currency)),
        downtime_s: 0,
        lost,
        touches: touches(context, subject, manner).await?,
        confirm_with: path.to_string(),
    })
}

async fn kept(
    context: &Context,
    subject: &Subject,
    keeping: Keeping,
) -> Result<(PlanBody, Policy), OpError> {
    let path = &subject.environment.path;
    let until = context.clock.now().plus_ms(UNDO_MS).rfc3339();
    let mut touches = touches(context, subject, Manner::Keep(keeping)).await?;
    let mut sure = true;
    let (mut before, mut after) = (None, None);
    let how = match (keeping, &subject.own) {
        (Keeping::Snapshot, Some(row)) => {
            let cloud = context.accounts.cloud(&row.vm.provider).await?;
            before = Some(row.monthly);
            after = cost_meanwhile(&cloud, disk(subject), row).await?;
            if row.vm.address_id.is_none() {
                touches.push("its address goes with the server: an undo gets another".to_owned());
            }
            if let Some(reason) = reason_not_to_order(context, row).await? {
                sure = false;
                touches.push(format!(
                    "WHETHER IT CAN BE UNDONE IS NOT SURE: {reason}; mode `park` is sure, and \
                     billed in full"
                ));
            } else {
                touches.push(format!("`{}` can be ordered again now", row.vm.size));
            }
            let of_another = |server: &CloudVm| server.name != Vm::cloud_name(&row.vm.id);
            if subject.server.as_ref().is_some_and(of_another) {
                touches.push(
                    "it was adopted: an undo brings it back under a name of VMKit's and behind its \
                     firewall, through which only 22, 80 and 443 come in"
                        .to_owned(),
                );
            }
            let address = row.vm.address_id.as_ref().map_or("", |_| " and its address");
            format!("its disk as a snapshot{address}; it can be undone until {until}")
        }
        (Keeping::Park, Some(row)) => {
            (before, after) = (Some(row.monthly), Some(row.monthly));
            "the server, powered off and billed in full; it can be undone until it is purged"
                .to_owned()
        }
        _ => format!("its volumes on the VM, which stays; it can be undone until {until}"),
    };
    let body = PlanBody {
        summary: format!("destroy `{path}` and keep {how}"),
        steps: retire::says(keeping),
        monthly_before: before,
        monthly_after: after,
        downtime_s: 0,
        lost: Vec::new(),
        touches,
        confirm_with: path.to_string(),
    };
    let unprotected = !subject.environment.settings.protected && sure;
    Ok((body, if unprotected { Policy::Plan } else { Policy::Human }))
}

fn disk(subject: &Subject) -> Option<u64> {
    subject.server.as_ref().and_then(|server| server.disk_gb)
}

/// At most what keeping a server's disk and address costs per month, at today's prices.
pub(super) async fn cost_meanwhile(
    cloud: &AnyCloud,
    disk: Option<u64>,
    row: &VmRow,
) -> Result<Option<Money>, OpError> {
    let prices = cloud.extra_prices().await?;
    let zero = Money::zero(row.monthly.currency);
    let snapshot = match (prices.snapshot_gb, disk) {
        (Some(gb), Some(disk)) => Money::new(gb.amount * Decimal::from(disk), gb.currency),
        _ => zero,
    };
    let address = prices.address_unused.filter(|_| row.vm.address_id.is_some()).unwrap_or(zero);
    Ok(snapshot.plus(address))
}

async fn undo(context: &Context, subject: &Subject) -> Result<(PlanBody, Policy), OpError> {
    let path = &subject.environment.path;
    let kept = restorable(context, subject)?;
    let monthly = subject.own.as_ref().map(|row| row.monthly);
    let (how, before) = match (kept.keeping, &subject.own) {
        (Keeping::Snapshot, Some(row)) => (
            format!(
                "order a `{}` in `{}` from the snapshot, with the same address where it was kept",
                row.vm.size, row.vm.region
            ),
            kept.monthly,
        ),
        (Keeping::Park, _) => ("power its server on".to_owned(), monthly),
        _ => (
            "put its keys back; `deploy` with ref `current` then brings the app back".to_owned(),
            None,
        ),
    };
    let body = PlanBody {
        summary: format!("restore `{path}`: {how}"),
        steps: restore::says(kept.keeping),
        monthly_before: before,
        monthly_after: monthly,
        downtime_s: 0,
        lost: Vec::new(),
        touches: vec![path.to_string()],
        confirm_with: path.to_string(),
    };
    let policy = if subject.environment.settings.protected { Policy::Human } else { Policy::Plan };
    Ok((body, policy))
}
