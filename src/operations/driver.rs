//! The journal's driver: one way for a fresh start and for a resume.
//!
//! A driver takes the lease of an open operation, runs its steps in order, writes each before and
//! after, and takes back what was done where a step ends badly. A lease that is lost stops it at
//! the next write.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::error::OpError;
use super::{Context, Kind, Operation, Step, StepEnd};
use crate::domain::clock::Millis;
use crate::domain::ids::OperationId;
use crate::domain::operation::OperationState;
use crate::domain::waits;
use crate::store::{Failure, Lease, OperationRow, StepState, Store, StoreError};

/// How long a lease lasts without being renewed, in milliseconds.
const LEASE_MS: i64 = 15_000;
/// How often open operations are looked for without being told, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// The longest wait for a provider that accepts no more calls before a time that it named.
const LIMITED_MAX: Duration = Duration::from_secs(15 * 60);
/// Under this age a resume goes on as if nothing had happened, in milliseconds.
const FRESH_MS: i64 = 10 * 60 * 1000;

/// Drives the operations of one state file.
pub struct Driver {
    context: Arc<Context>,
    holder: String,
    driving: Arc<Mutex<HashSet<OperationId>>>,
    tasks: TaskTracker,
}

impl Driver {
    /// A driver that is the only one of its state file: leases of other holders are dead.
    pub fn new(context: Arc<Context>, holder: String) -> Self {
        Self { context, holder, driving: Arc::default(), tasks: TaskTracker::new() }
    }

    /// How many operations are being driven.
    pub fn busy(&self) -> usize {
        self.driving.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Drives open operations until `stop`; what is under way then is left to the next driver.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.look(&stop).await {
                warn!(code = error.code(), %error, "the journal could not be read");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.context.fleet.nudged() => {}
                () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {}
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn look(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        for row in self.context.store.open_operations().await? {
            let waits = row.state == OperationState::WaitingApproval;
            let ours =
                self.driving.lock().unwrap_or_else(PoisonError::into_inner).contains(&row.id);
            if waits || ours {
                continue;
            }
            let now = self.context.clock.now();
            let store = &self.context.store;
            let Some(lease) =
                store.take_lease(row.id, self.holder.clone(), true, now, LEASE_MS).await?
            else {
                continue;
            };
            self.driving.lock().unwrap_or_else(PoisonError::into_inner).insert(row.id);
            let driving = Arc::clone(&self.driving);
            let drive = Drive::new(Arc::clone(&self.context), lease, stop.clone());
            self.tasks.spawn(async move {
                let id = row.id;
                drive.finish(row).await;
                driving.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            });
        }
        Ok(())
    }
}

/// What a step may use of its run: what earlier steps made, and how to say how far it is.
pub(crate) struct Run<'a> {
    store: &'a Store,
    context: &'a Context,
    lease: &'a Lease,
    position: u32,
    outputs: &'a BTreeMap<String, Value>,
    /// Whether the step may have had its effect before.
    pub(crate) again: bool,
}

impl Run<'_> {
    /// What an earlier step made; null where it made nothing.
    pub(crate) fn output(&self, step: &str) -> &Value {
        self.outputs.get(step).unwrap_or(&Value::Null)
    }

    /// Says what is happening.
    pub(crate) async fn say(&self, message: impl Into<String>) -> Result<(), OpError> {
        let now = self.context.clock.now();
        let step = self.position + 1;
        Ok(self.store.set_progress(self.lease.clone(), step, message.into(), now).await?)
    }

    /// Fails where somebody asked to stop; long waits call it in between.
    pub(crate) async fn stop_if_asked(&self) -> Result<(), OpError> {
        match self.store.operation(self.lease.operation).await? {
            Some(row) if row.cancel_requested && !row.undoing => Err(OpError::Cancelled),
            _ => Ok(()),
        }
    }
}

/// Waits, and looks now and then whether somebody asked to stop.
async fn wait(run: &Run<'_>, pause: Duration) -> Result<(), OpError> {
    let until = tokio::time::Instant::now() + pause;
    loop {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        tokio::time::sleep(left.min(Duration::from_millis(LOOK_MS))).await;
        if tokio::time::Instant::now() >= until {
            return Ok(());
        }
        run.stop_if_asked().await?;
    }
}

/// When an operation last moved or its driver last renewed the lease: a step may take long and say
/// nothing.
fn last_sign_of_life(row: &OperationRow) -> Millis {
    row.lease_expires_at.plus_ms(-LEASE_MS).max(row.updated_at)
}

/// One operation under way.
struct Drive {
    context: Arc<Context>,
    lease: Lease,
    stop: CancellationToken,
}

/// What the journal holds of an operation.
struct Journal {
    states: BTreeMap<u32, StepState>,
    outputs: BTreeMap<String, Value>,
}

impl Drive {
    fn new(context: Arc<Context>, lease: Lease, stop: CancellationToken) -> Self {
        Self { context, lease, stop }
    }

    /// Runs until the operation has ended, the lease is lost, or the process stops.
    async fn finish(self, row: OperationRow) {
        let id = row.id;
        let kind = row.kind.clone();
        info!(operation = %id, kind, "driving {kind} {id}");
        let ended = tokio::select! {
            () = self.stop.cancelled() => return,
            lost = self.keep_lease() => Err(lost),
            ended = self.drive(row) => ended,
        };
        match ended {
            Ok(state) => info!(operation = %id, state = state.as_str(), "{kind} {id} ended"),
            Err(error) => warn!(operation = %id, code = error.code(), %error, "{kind} {id} left"),
        }
    }

    /// Renews the lease until that fails.
    async fn keep_lease(&self) -> OpError {
        let mut beat = tokio::time::interval(Duration::from_millis(LEASE_MS.unsigned_abs() / 3));
        loop {
            beat.tick().await;
            let now = self.now();
            if let Err(error) =
                self.context.store.renew_lease(self.lease.clone(), now, LEASE_MS).await
                && !error.retryable()
            {
                return error.into();
            }
        }
    }

    fn now(&self) -> Millis {
        self.context.clock.now()
    }

    async fn drive(&self, row: OperationRow) -> Result<OperationState, OpError> {
        let operation = match Kind::parse(&row.kind, row.version)
            .and_then(|kind| kind.load(&row, &self.context))
        {
            Ok(operation) => operation,
            Err(detail) => {
                let error = OpError::UnknownSteps { operation: row.id, detail };
                return self.end_stuck(None, error.failure()).await;
            }
        };
        let operation = operation.as_ref();
        let mut journal = match self.journal(operation).await {
            Err(error @ OpError::UnknownSteps { .. }) => {
                return self.end_stuck(Some(operation), error.failure()).await;
            }
            read => read?,
        };
        let still_ms = self.now().since_ms(last_sign_of_life(&row));
        let resumed = !journal.states.is_empty() && !row.undoing;
        if let (true, Err(tool)) = (resumed && still_ms > FRESH_MS, operation.resumes_when_old()) {
            let failure = OpError::Interrupted { tool, minutes: still_ms / 60_000 }.failure();
            // Noted first: who comes after us must not take it for fresh.
            let store = &self.context.store;
            store.start_undo(self.lease.clone(), failure.clone(), self.now()).await?;
            return self.end_stuck(Some(operation), failure).await;
        }
        if row.undoing {
            let failure = row.failure.unwrap_or_else(|| OpError::Cancelled.failure());
            if failure.code == OpError::INTERRUPTED {
                return self.end_stuck(Some(operation), failure).await;
            }
            return self.undo(operation, &mut journal, failure).await;
        }
        for (position, step) in (0_u32..).zip(operation.steps()) {
            if journal.states.get(&position) == Some(&StepState::Done) {
                continue;
            }
            match self.step(operation, position, step, &journal).await {
                Ok(StepEnd::Done(output)) => {
                    journal.states.insert(position, StepState::Done);
                    journal.outputs.insert(step.name.to_owned(), output);
                }
                Ok(StepEnd::NeedsMerge { result, message }) => {
                    operation.ended(OperationState::NeedsMerge, None, &journal.outputs).await?;
                    let state = OperationState::NeedsMerge;
                    return self.end(state, Some(result), None, message).await;
                }
                Err(error) if error.is_lost_lease() => return Err(error),
                Err(error) => {
                    journal.states.insert(position, StepState::Failed);
                    let failure = error.failure();
                    let store = &self.context.store;
                    store.start_undo(self.lease.clone(), failure.clone(), self.now()).await?;
                    return self.undo(operation, &mut journal, failure).await;
                }
            }
        }
        let result = operation.ended(OperationState::Succeeded, None, &journal.outputs).await?;
        self.end(OperationState::Succeeded, result, None, "done".to_owned()).await
    }

    /// Reads the journal; a step that this version does not know is not guessed at.
    async fn journal(&self, operation: &dyn Operation) -> Result<Journal, OpError> {
        let mut journal = Journal { states: BTreeMap::new(), outputs: BTreeMap::new() };
        for row in self.context.store.steps(self.lease.operation).await? {
            let known = operation.steps().get(row.position as usize);
            if known.is_none_or(|step| step.name != row.name) {
                let detail = format!("it has a step `{}` at place {}", row.name, row.position);
                return Err(OpError::UnknownSteps { operation: self.lease.operation, detail });
            }
            if let (StepState::Done, Some(output)) = (row.state, row.output) {
                journal.outputs.insert(row.name, output);
            }
            journal.states.insert(row.position, row.state);
        }
        Ok(journal)
    }

    /// Runs one step, again where its error may pass, with the journal before and after.
    async fn step(
        &self,
        operation: &dyn Operation,
        position: u32,
        step: &'static Step,
        journal: &Journal,
    ) -> Result<StepEnd, OpError> {
        let store = &self.context.store;
        let mut tries = 0;
        let begun = journal.states.contains_key(&position);
        loop {
            let says = step.says.to_owned();
            store.start_step(self.lease.clone(), position, step.name, says, self.now()).await?;
            let run = self.run(position, &journal.outputs, begun || tries > 0);
            let ran = match run.stop_if_asked().await {
                Ok(()) => {
                    let listener = self.listener(position, step.says);
                    waits::heard_by(listener, operation.run(step.name, &run)).await
                }
                Err(stop) => Err(stop),
            };
            let mut error = match ran {
                Ok(end) => {
                    let output = match &end {
                        StepEnd::Done(output) => output.clone(),
                        StepEnd::NeedsMerge { result, .. } => result.clone(),
                    };
                    let (lease, now) = (self.lease.clone(), self.now());
                    store
                        .move_step(lease, position, StepState::Done, Some(output), None, now)
                        .await?;
                    return Ok(end);
                }
                Err(error) => error,
            };
            if error.is_lost_lease() {
                return Err(error);
            }
            tries += 1;
            if let Some(pause) = self.pause(&error, tries) {
                run.say(format!("{error}; trying again in {:.1} s", pause.as_secs_f32())).await?;
                match wait(&run, pause).await {
                    Ok(()) => continue,
                    Err(lost) if lost.is_lost_lease() => return Err(lost),
                    Err(stop) => error = stop,
                }
            }
            let (lease, now, text) = (self.lease.clone(), self.now(), Some(error.to_string()));
            store.move_step(lease, position, StepState::Failed, None, text, now).await?;
            return Err(error);
        }
    }

    /// How long to wait before a step is tried again; none where that has no point. A provider
    /// that named a time is asked at that time, unless it is too far away.
    fn pause(&self, error: &OpError, tries: u32) -> Option<Duration> {
        if !error.retryable() || tries >= self.context.pace.attempts {
            return None;
        }
        let named = error.retry_at().map_or(0, |at| at.since_ms(self.now()));
        let named = Duration::from_millis(u64::try_from(named).unwrap_or(0));
        (named <= LIMITED_MAX).then(|| named.max(self.context.pace.pause(tries)))
    }

    /// Writes the long waits of a step into the operation's progress.
    fn listener(&self, position: u32, says: &'static str) -> waits::Listener {
        let (context, lease) = (Arc::clone(&self.context), self.lease.clone());
        Arc::new(move |what| {
            let (context, lease) = (Arc::clone(&context), lease.clone());
            let message = what.map_or(says.to_owned(), |what| format!("{says}: {what}"));
            async move {
                let now = context.clock.now();
                let said = context.store.set_progress(lease, position + 1, message, now).await;
                if let Err(error) = said {
                    // A lost lease stops the driver at the journal's next write.
                    tracing::debug!(code = error.code(), "a wait could not be told");
                }
            }
            .boxed()
        })
    }

    fn run<'a>(
        &'a self,
        position: u32,
        outputs: &'a BTreeMap<String, Value>,
        again: bool,
    ) -> Run<'a> {
        let context = &*self.context;
        Run { store: &context.store, context, lease: &self.lease, position, outputs, again }
    }

    /// Takes back every step that may have had an effect, the last one first.
    async fn undo(
        &self,
        operation: &dyn Operation,
        journal: &mut Journal,
        failure: Failure,
    ) -> Result<OperationState, OpError> {
        let begun: Vec<u32> = journal.states.keys().rev().copied().collect();
        for position in begun {
            if journal.states.get(&position) == Some(&StepState::Undone) {
                continue;
            }
            let Some(step) = operation.steps().get(position as usize) else { continue };
            if let Err(error) = self.undo_step(operation, position, step, journal).await {
                if error.is_lost_lease() {
                    return Err(error);
                }
                let stuck = Failure {
                    message: format!(
                        "{}; and undoing `{}` failed: {error}",
                        failure.message, step.name
                    ),
                    fix: operation.by_hand(step.name),
                    code: failure.code,
                };
                return self.end_stuck(Some(operation), stuck).await;
            }
        }
        let cancelled = failure.code == OpError::Cancelled.code();
        let state = if cancelled { OperationState::Cancelled } else { OperationState::Failed };
        let result = operation.ended(state, Some(&failure), &journal.outputs).await?;
        let message = failure.message.clone();
        self.end(state, result, Some(failure), message).await
    }

    async fn undo_step(
        &self,
        operation: &dyn Operation,
        position: u32,
        step: &'static Step,
        journal: &Journal,
    ) -> Result<(), OpError> {
        let store = &self.context.store;
        let mark = |state, error| {
            store.move_step(self.lease.clone(), position, state, None, error, self.now())
        };
        mark(StepState::Undoing, None).await?;
        let run = self.run(position, &journal.outputs, true);
        let mut tries = 0;
        loop {
            let listener = self.listener(position, step.says);
            let undone = waits::heard_by(listener, operation.undo(step.name, &run)).await;
            let Err(error) = undone else {
                return Ok(mark(StepState::Undone, None).await?);
            };
            if error.is_lost_lease() {
                return Err(error);
            }
            tries += 1;
            if let Some(pause) = self.pause(&error, tries) {
                if pause > waits::LONG {
                    run.say(format!("{error}; trying again in {:.1} s", pause.as_secs_f32()))
                        .await?;
                }
                tokio::time::sleep(pause).await;
                continue;
            }
            mark(StepState::UndoFailed, Some(error.to_string())).await?;
            return Err(error);
        }
    }

    async fn end_stuck(
        &self,
        operation: Option<&dyn Operation>,
        mut failure: Failure,
    ) -> Result<OperationState, OpError> {
        if let Some(operation) = operation {
            for left in operation.make_safe().await {
                failure.message = format!("{}; {left}", failure.message);
            }
            operation.ended(OperationState::Stuck, Some(&failure), &BTreeMap::new()).await?;
        }
        let message = failure.message.clone();
        self.end(OperationState::Stuck, None, Some(failure), message).await
    }

    async fn end(
        &self,
        state: OperationState,
        result: Option<Value>,
        failure: Option<Failure>,
        message: String,
    ) -> Result<OperationState, OpError> {
        let store = &self.context.store;
        store
            .end_operation(self.lease.clone(), state, result, failure, message, self.now())
            .await?;
        Ok(state)
    }
}
