//! Plans: made without changing anything, used once, refused when what they looked at has changed.

use serde_json::Value;

use super::error::plan_expired;
use super::{Context, OpError, digest};
use crate::domain::ids::PlanId;
use crate::domain::plan::{PLAN_LIFETIME_MS, PlanBody, Policy};
pub use crate::store::PlanRow;

/// Writes a plan. `seen` is everything that it looked at and that must still hold when it is used.
pub(super) async fn make(
    context: &Context,
    action: &str,
    arguments: Value,
    seen: &Value,
    body: PlanBody,
    policy: Policy,
) -> Result<PlanRow, OpError> {
    let now = context.clock.now();
    let plan = PlanRow {
        id: PlanId::generate(),
        action: action.to_owned(),
        arguments,
        seen: digest(seen),
        body,
        policy,
        created_at: now,
        expires_at: now.plus_ms(PLAN_LIFETIME_MS),
        approved_at: None,
        used_by: None,
    };
    context.store.insert_plan(plan.clone()).await?;
    Ok(plan)
}

/// The plan of `id`, if it may still be used for `action` with `arguments`. Whether a person has
/// approved it is for the caller to see.
pub(super) async fn usable(
    context: &Context,
    id: PlanId,
    action: &str,
    arguments: &Value,
) -> Result<PlanRow, OpError> {
    let plan = context.store.plan(id).await?;
    let plan = plan.ok_or_else(|| OpError::UnknownPlan { plan: id.to_string() })?;
    if let Some(operation) = plan.used_by {
        return Err(OpError::PlanUsed { plan: id, operation });
    }
    if plan.action != action || plan.arguments != *arguments {
        let made = format!("`{}` with {}", plan.action, plan.arguments);
        return Err(OpError::OtherPlan {
            plan: id,
            made,
            wanted: format!("`{action}` with {arguments}"),
        });
    }
    if plan.expires_at <= context.clock.now() {
        return Err(plan_expired(id, plan.expires_at));
    }
    Ok(plan)
}

/// Fails where what the plan looked at is not what is there now.
pub(super) fn still_holds(plan: &PlanRow, seen: &Value, what: &str) -> Result<(), OpError> {
    if plan.seen == digest(seen) {
        return Ok(());
    }
    Err(OpError::StalePlan { plan: plan.id, what: what.to_owned() })
}

/// Whether the plan waits for a person.
pub(super) fn waits(plan: &PlanRow) -> bool {
    plan.policy == Policy::Human && plan.approved_at.is_none()
}

/// Notes that a person approved a plan. The caller has made sure that it is a person.
///
/// # Errors
/// [`OpError::UnknownPlan`], [`OpError::PlanExpired`] or [`OpError::PlanUsed`].
pub async fn approve(context: &Context, id: PlanId, by: &str) -> Result<PlanRow, OpError> {
    let now = context.clock.now();
    let approved = context.store.approve_plan(id, by.to_owned(), now).await?;
    let plan = context.store.plan(id).await?;
    let plan = plan.ok_or_else(|| OpError::UnknownPlan { plan: id.to_string() })?;
    match plan.used_by {
        _ if approved => Ok(plan),
        Some(operation) => Err(OpError::PlanUsed { plan: id, operation }),
        None => Err(plan_expired(id, plan.expires_at)),
    }
}

/// A plan by its id, to show it to the person who approves it.
pub async fn find(context: &Context, id: PlanId) -> Result<PlanRow, OpError> {
    let plan = context.store.plan(id).await?;
    plan.ok_or_else(|| OpError::UnknownPlan { plan: id.to_string() })
}
