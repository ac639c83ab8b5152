//! Operations, their steps and their locks: written down before anything happens, and read.

use rusqlite::{Row, Transaction, params};
use serde_json::Value;

use super::{
    Outcome, Store, StoreError, collect, first, json, json_or_null, parsed, parsed_or_null, word,
};
use crate::domain::clock::Millis;
use crate::domain::deploy::Deploy;
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, VmId};
use crate::domain::operation::{OperationState, Progress};

/// Whether an operation may share what it locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Nobody else.
    Exclusive,
    /// Others that share.
    Shared,
}

/// What an operation holds while it is open: `env:ID`, `vm:ID`, `repo:ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// What is held.
    pub resource: String,
    /// How.
    pub mode: LockMode,
}

/// An operation that is to be written down.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// Its id, made by the caller.
    pub id: OperationId,
    /// Its kind, such as `provision_vm`.
    pub kind: &'static str,
    /// The version of its list of steps.
    pub version: u32,
    /// What it was asked to do, without secrets.
    pub params: Value,
    /// The environment that it is about.
    pub environment: Option<EnvironmentId>,
    /// The VM that it is about.
    pub vm: Option<VmId>,
    /// What it holds while it is open.
    pub locks: Vec<Lock>,
    /// How many steps it has.
    pub steps: u32,
    /// `local`, or a key's id.
    pub caller: String,
    /// Why, as the caller said.
    pub reason: Option<String>,
    /// The tool, the caller's key for it, and a hash of the arguments.
    pub idempotency: Option<(String, String, String)>,
    /// The plan that it carries out, which cannot be used again.
    pub plan: Option<PlanId>,
    /// The deploy that it drives.
    pub deploy: Option<Deploy>,
    /// When it was asked for.
    pub created_at: Millis,
}

/// How writing an operation down ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Queued {
    /// It is new.
    New,
    /// The same key and arguments were used before: this is what came of them.
    Repeated(OperationId),
    /// The key was used before with other arguments.
    KeyReused,
    /// Another operation holds what it needs.
    Busy(OperationId),
    /// The plan was used by another operation.
    PlanUsed(OperationId),
}

/// Why an operation ended badly.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// A stable word.
    pub code: String,
    /// What happened to what.
    pub message: String,
    /// What to do next.
    pub fix: String,
}

/// An operation as it is kept.
#[derive(Debug, Clone)]
pub struct OperationRow {
    /// Its id.
    pub id: OperationId,
    /// Its kind.
    pub kind: String,
    /// The version of its list of steps.
    pub version: u32,
    /// What it was asked to do.
    pub params: Value,
    /// Where it stands.
    pub state: OperationState,
    /// The environment that it is about.
    pub environment: Option<EnvironmentId>,
    /// The VM that it is about.
    pub vm: Option<VmId>,
    /// Whether it is being undone.
    pub undoing: bool,
    /// Whether somebody asked to stop it.
    pub cancel_requested: bool,
    /// How far it is.
    pub progress: Progress,
    /// Why it ended, or is being undone.
    pub failure: Option<Failure>,
    /// What it made.
    pub result: Option<Value>,
    /// Who asked.
    pub caller: String,
    /// When it was asked for.
    pub created_at: Millis,
    /// When it last moved.
    pub updated_at: Millis,
    /// Until when its driver's lease lasts, or lasted; 0 where nobody has driven it.
    pub lease_expires_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It may have had its effect.
    Started,
    /// It had its effect.
    Done,
    /// It ended badly, and may have had its effect.
    Failed,
    /// Its effect is being taken back.
    Undoing,
    /// Its effect is taken back.
    Undone,
    /// Its effect could not be taken back.
    UndoFailed,
}

impl StepState {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }
}

/// A step as it is kept.
#[derive(Debug, Clone)]
pub struct StepRow {
    /// Its place, from 0.
    pub position: u32,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: StepState,
    /// How often it was tried.
    pub attempts: u32,
    /// What it found or made.
    pub output: Option<Value>,
    /// What went wrong last.
    pub error: Option<String>,
    /// When it began.
    pub started_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

fn read_operation(row: &Row<'_>) -> Outcome<OperationRow> {
    let code: Option<String> = row.get("error_code")?;
    let failure = match code {
        None => None,
        Some(code) => Some(Failure {
            code,
            message: row.get::<_, Option<String>>("error_message")?.unwrap_or_default(),
            fix: row.get::<_, Option<String>>("error_fix")?.unwrap_or_default(),
        }),
    };
    Ok(OperationRow {
        id: parsed(row, "id")?,
        kind: row.get("kind")?,
        version: row.get("version")?,
        params: json(row, "params")?,
        state: word(row, "state")?,
        environment: parsed_or_null(row, "environment")?,
        vm: parsed_or_null(row, "vm")?,
        undoing: row.get("undoing")?,
        cancel_requested: row.get("cancel_requested")?,
        progress: Progress {
            step: row.get("step")?,
            steps: row.get("steps")?,
            message: row.get("message")?,
        },
        failure,
        result: json_or_null(row, "result")?,
        caller: row.get("caller")?,
        created_at: Millis(row.get("created_at")?),
        updated_at: Millis(row.get("updated_at")?),
        lease_expires_at: Millis(row.get("lease_expires_at")?),
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(Millis),
    })
}

fn read_step(row: &Row<'_>) -> Outcome<StepRow> {
    Ok(StepRow {
        position: row.get("position")?,
        name: row.get("name")?,
        state: word(row, "state")?,
        attempts: row.get("attempts")?,
        output: json_or_null(row, "output")?,
        error: row.get("error")?,
        started_at: Millis(row.get("started_at")?),
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(Millis),
    })
}

/// Who holds what `locks` need, if anybody does.
fn blocker(tx: &Transaction<'_>, locks: &[Lock]) -> Outcome<Option<OperationId>> {
    for lock in locks {
        let exclusive = lock.mode == LockMode::Exclusive;
        let mut select = tx.prepare(
            "select operation from operation_lock where resource = ?1 and (?2 or mode = 'exclusive') limit 1",
        )?;
        let found = first(select.query(params![lock.resource, exclusive])?, |row| {
            parsed(row, "operation")
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// What an earlier call with the same key came to, if it is under 24 hours old.
fn repeated(tx: &Transaction<'_>, new: &NewOperation) -> Outcome<Option<Queued>> {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let Some((tool, key, hash)) = &new.idempotency else { return Ok(None) };
    tx.execute("delete from idempotency where created_at < ?1", [new.created_at.0 - DAY_MS])?;
    let mut select = tx.prepare(
        "select arguments_hash, operation from idempotency where tool = ?1 and caller = ?2 and key = ?3",
    )?;
    first(select.query(params![tool, new.caller, key])?, |row| {
        let same = row.get::<_, String>("arguments_hash")? == *hash;
        Ok(if same { Queued::Repeated(parsed(row, "operation")?) } else { Queued::KeyReused })
    })
}

fn insert_operation(tx: &Transaction<'_>, new: &NewOperation) -> Outcome<()> {
    tx.execute(
        "insert into operation (id, kind, version, params, state, environment, vm, steps, message,
             caller, reason, created_at, updated_at)
         values (?1, ?2, ?3, ?4, 'queued', ?5, ?6, ?7, 'queued', ?8, ?9, ?10, ?10)",
        params![
            new.id.to_string(),
            new.kind,
            new.version,
            new.params.to_string(),
            new.environment.map(|id| id.to_string()),
            new.vm.map(|id| id.to_string()),
            new.steps,
            new.caller,
            new.reason,
            new.created_at.0
        ],
    )?;
    for lock in &new.locks {
        let mode = match lock.mode {
            LockMode::Exclusive => "exclusive",
            LockMode::Shared => "shared",
        };
        tx.execute(
            "insert into operation_lock (resource, operation, mode) values (?1, ?2, ?3)",
            params![lock.resource, new.id.to_string(), mode],
        )?;
    }
    if let Some((tool, key, hash)) = &new.idempotency {
        tx.execute(
            "insert into idempotency (tool, caller, key, arguments_hash, operation, created_at)
             values (?1, ?2, ?3, ?4, ?5, ?6)",
            params![tool, new.caller, key, hash, new.id.to_string(), new.created_at.0],
        )?;
    }
    Ok(())
}

fn insert_deploy(tx: &Transaction<'_>, deploy: &Deploy) -> Outcome<()> {
    let action = match deploy.action {
        crate::domain::deploy::DeployAction::Deploy => "deploy",
        crate::domain::deploy::DeployAction::Redeploy => "redeploy",
    };
    tx.execute(
        "insert into deploy (id, environment, operation, action, commit_sha, subject, env_revision,
             rollback_of, state, created_at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            deploy.id.to_string(),
            deploy.environment.to_string(),
            deploy.operation.to_string(),
            action,
            deploy.commit.as_str(),
            deploy.subject,
            deploy.env_revision,
            deploy.rollback_of.map(|id| id.to_string()),
            deploy.state.as_str(),
            deploy.created_at.0
        ],
    )?;
    Ok(())
}

impl Store {
    /// Writes an operation down together with its locks, its plan's use and its deploy, or says
    /// why not.
    pub async fn queue_operation(&self, new: NewOperation) -> Result<Queued, StoreError> {
        self.write(move |tx| {
            if let Some(answer) = repeated(tx, &new)? {
                return Ok(answer);
            }
            if let Some(plan) = new.plan {
                let mut select = tx.prepare("select used_by from plan where id = ?1")?;
                let used =
                    first(select.query([plan.to_string()])?, |row| parsed_or_null(row, "used_by"))?;
                if let Some(Some(used)) = used {
                    return Ok(Queued::PlanUsed(used));
                }
            }
            if let Some(holder) = blocker(tx, &new.locks)? {
                return Ok(Queued::Busy(holder));
            }
            insert_operation(tx, &new)?;
            if let Some(deploy) = &new.deploy {
                insert_deploy(tx, deploy)?;
            }
            if let Some(plan) = new.plan {
                tx.execute(
                    "update plan set used_by = ?2 where id = ?1",
                    params![plan.to_string(), new.id.to_string()],
                )?;
            }
            Ok(Queued::New)
        })
        .await
    }

    /// An operation by its id.
    pub async fn operation(&self, id: OperationId) -> Result<Option<OperationRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached("select * from operation where id = ?1")?;
            first(select.query([id.to_string()])?, read_operation)
        })
        .await
    }

    /// Operations that have not ended, oldest first.
    pub async fn open_operations(&self) -> Result<Vec<OperationRow>, StoreError> {
        self.read(|db| {
            let mut select =
                db.prepare_cached("select * from operation where ended_at is null order by id")?;
            collect(select.query([])?, read_operation)
        })
        .await
    }

    /// The newest operations, newest first, of an environment where one is given.
    pub async fn recent_operations(
        &self,
        environment: Option<EnvironmentId>,
        limit: u32,
    ) -> Result<Vec<OperationRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select * from operation where ?1 is null or environment = ?1
                 order by created_at desc, id desc limit ?2",
            )?;
            let environment = environment.map(|id| id.to_string());
            collect(select.query(params![environment, limit])?, read_operation)
        })
        .await
    }

    /// The steps of an operation in order.
    pub async fn steps(&self, operation: OperationId) -> Result<Vec<StepRow>, StoreError> {
        self.read(move |db| {
            let mut select =
                db.prepare_cached("select * from step where operation = ?1 order by position")?;
            collect(select.query([operation.to_string()])?, read_step)
        })
        .await
    }
}
