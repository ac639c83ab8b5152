//! Plans and their approvals.

use rusqlite::{Row, params};
use serde_json::Value;

use super::{Outcome, Store, StoreError, collect, first, json, parsed, parsed_or_null, word};
use crate::domain::clock::Millis;
use crate::domain::ids::{OperationId, PlanId};
use crate::domain::plan::{PlanBody, Policy};

/// A plan as it is kept.
#[derive(Debug, Clone)]
pub struct PlanRow {
    /// Its id.
    pub id: PlanId,
    /// The tool that made it.
    pub action: String,
    /// What the tool was called with, parsed.
    pub arguments: Value,
    /// A digest of what the plan looked at.
    pub seen: String,
    /// What it says.
    pub body: PlanBody,
    /// Who may let it run.
    pub policy: Policy,
    /// When it was made.
    pub created_at: Millis,
    /// Until when it may be used.
    pub expires_at: Millis,
    /// When a person approved it.
    pub approved_at: Option<Millis>,
    /// The operation that it became.
    pub used_by: Option<OperationId>,
}

fn read_plan(row: &Row<'_>) -> Outcome<PlanRow> {
    Ok(PlanRow {
        id: parsed(row, "id")?,
        action: row.get("action")?,
        arguments: json(row, "arguments")?,
        seen: row.get("seen")?,
        body: json(row, "body")?,
        policy: word(row, "policy")?,
        created_at: Millis(row.get("created_at")?),
        expires_at: Millis(row.get("expires_at")?),
        approved_at: row.get::<_, Option<i64>>("approved_at")?.map(Millis),
        used_by: parsed_or_null(row, "used_by")?,
    })
}

impl Store {
    /// Writes a plan.
    pub async fn insert_plan(&self, plan: PlanRow) -> Result<(), StoreError> {
        self.write(move |tx| {
            let body = serde_json::to_string(&plan.body).map_err(|e| super::unreadable("plan", e))?;
            let policy = match plan.policy {
                Policy::Plan => "plan",
                Policy::Human => "human",
            };
            tx.execute(
                "insert into plan (id, action, arguments, seen, body, policy, created_at, expires_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    plan.id.to_string(),
                    plan.action,
                    plan.arguments.to_string(),
                    plan.seen,
                    body,
                    policy,
                    plan.created_at.0,
                    plan.expires_at.0
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// A plan by its id.
    pub async fn plan(&self, id: PlanId) -> Result<Option<PlanRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached("select * from plan where id = ?1")?;
            first(select.query([id.to_string()])?, read_plan)
        })
        .await
    }

    /// Plans that a person could still approve, newest first.
    pub async fn plans_waiting(&self, now: Millis) -> Result<Vec<PlanRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select * from plan where policy = 'human' and approved_at is null and used_by is null
                 and expires_at > ?1 order by created_at desc limit 20",
            )?;
            collect(select.query([now.0])?, read_plan)
        })
        .await
    }

    /// Notes that a person approved a plan. `false` where it is unknown, expired or used.
    pub async fn approve_plan(
        &self,
        id: PlanId,
        by: String,
        now: Millis,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "update plan set approved_at = coalesce(approved_at, ?3), approved_by = coalesce(approved_by, ?2)
                 where id = ?1 and used_by is null and expires_at > ?3",
                params![id.to_string(), by, now.0],
            )?;
            Ok(changed == 1)
        })
        .await
    }
}
