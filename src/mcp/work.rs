//! What a tool says of an operation or a plan: one form for all of them.

use std::pin::pin;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::call::Call;
use super::error::ToolError;
use super::question::{Asked, Question};
use super::{Answer, Server, Word, line};
use crate::domain::deploy::DeployAction;
use crate::domain::ids::{OperationId, PlanId};
use crate::domain::names::EnvironmentPath;
use crate::domain::operation::{OperationState, Progress};
use crate::domain::plan::PlanBody;
use crate::operations::deploy::{DeployRequest, Preview, preview};
use crate::operations::repo::GitHub;
use crate::operations::{Ask, OpError, Started, plans};
use crate::queries::operation::{OperationView, operation, wait};

/// How long a tool waits where nobody said, in seconds; clients give up at 60.
pub(crate) const WAIT_SECONDS: u32 = 45;

/// An operation or a plan, as data. Flat: clients hold it against its schema.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Work {
    /// The operation that was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safe_to_close: Option<bool>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    result: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    monthly: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    downtime_s: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    touches: Vec<String>,
}

impl Work {
    /// A sentence, and nothing else.
    pub(crate) fn said(message: String) -> Self {
        Self { message: Some(message), ..Self::default() }
    }
}

/// The id of a plan, as a caller gives it.
pub(crate) fn plan_id(given: &str) -> Result<PlanId, ToolError> {
    given.parse().map_err(|error| {
        ToolError::new("bad_id", format!("in the field `plan_id`: {error}"))
            .fix("call the tool without `plan_id` for a fresh plan")
    })
}

impl From<OpError> for ToolError {
    fn from(error: OpError) -> Self {
        if matches!(error, OpError::Store(_) | OpError::Vault(_)) {
            // What only the owner of the machine can mend is told in full in our own log.
            tracing::error!(code = error.code(), error = %chain(&error), "a call failed");
        }
        Self::new(error.code().to_owned(), error.to_string())
            .fix(error.fix())
            .retryable(error.retryable())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Who asks, for the journal.
pub(crate) fn ask(call: &Call, reason: Option<String>, idempotency_key: Option<String>) -> Ask {
    Ask { caller: call.caller().name(), reason, idempotency_key }
}

/// The answer that is a plan: nothing was done.
pub(crate) fn planned(plan: &plans::PlanRow, tool: &str) -> Answer<Work> {
    let text = format!(
        "this is a plan, nothing was done: {}\nTo carry it out, show it to the user, and once they \
         agree call `{tool}` again with plan_id `{}` (good until {})",
        told(&plan.body),
        plan.id,
        plan.expires_at.rfc3339()
    );
    Answer::deed(Word::NotExecuted, text, plan_facts(plan))
}

/// The answer to a deploy where the environment's settings ask for another size than its VM has.
pub(crate) fn resize_first(path: &EnvironmentPath, plan: &plans::PlanRow) -> Answer<Work> {
    let text = format!(
        "nothing was deployed: the settings of {path} ask for another size than its VM has. This is \
         the plan of the change: {}\nTo carry it out, show it to the user, and once they agree call \
         `resize_vm` with environment `{path}`, that size and plan_id `{}` (good until {}), then \
         deploy again. To deploy without it, call `resize_vm` with the size that the VM has and \
         later: true",
        told(&plan.body),
        plan.id,
        plan.expires_at.rfc3339()
    );
    Answer::deed(Word::NotExecuted, text, plan_facts(plan))
}

fn plan_facts(plan: &plans::PlanRow) -> Work {
    let body = &plan.body;
    Work {
        message: Some(body.summary.clone()),
        plan_id: Some(plan.id.to_string()),
        expires_at: Some(plan.expires_at.rfc3339()),
        steps: body.steps.clone(),
        monthly: monthly(body),
        downtime_s: Some(body.downtime_s),
        lost: body.lost.clone(),
        touches: body.touches.clone(),
        ..Work::default()
    }
}

/// A plan in a few lines, for a person to read.
pub fn told(body: &PlanBody) -> String {
    let mut lines = vec![body.summary.clone()];
    for (number, step) in body.steps.iter().enumerate() {
        lines.push(format!("  {}. {step}", number + 1));
    }
    lines.extend(monthly(body).map(|cost| format!("cost per month, net: {cost}")));
    if body.downtime_s > 0 {
        lines.push(format!("downtime: about {} s", body.downtime_s));
    }
    if !body.lost.is_empty() {
        lines.push(format!("LOST FOR GOOD: {}", body.lost.join("; ")));
    }
    if !body.touches.is_empty() {
        lines.push(format!("touches: {}", body.touches.join("; ")));
    }
    lines.join("\n")
}

fn monthly(body: &PlanBody) -> Option<String> {
    let (before, after) = (body.monthly_before?, body.monthly_after?);
    Some(format!("{before} now, {after} afterwards"))
}

impl Server {
    /// The client of GitHub.
    pub(crate) async fn github(&self) -> Result<GitHub, ToolError> {
        Ok(self.context().accounts.github().await.map_err(OpError::from)?)
    }

    /// What a deploy or a rollback would do.
    pub(crate) async fn preview(&self, request: &DeployRequest) -> Result<Answer<Work>, ToolError> {
        let Preview { commit, subject, action, from, env_revision, env_keys, unseen } =
            preview(self.context(), request).await?;
        let how = match (action, from) {
            (_, Some(from)) => format!("deployed without a build, as the image of `{from}`,"),
            (DeployAction::Deploy, None) => "built and deployed".to_owned(),
            (DeployAction::Redeploy, None) => "deployed without a build".to_owned(),
        };
        let keys = match env_keys.as_slice() {
            [] => String::new(),
            keys => format!("; env keys that differ from what is live: {}", keys.join(", ")),
        };
        let unseen = unseen.map_or(String::new(), |why| {
            format!("; whether its image is still there is not known: {}", line(&why, 200))
        });
        let text = format!(
            "{} `{}` would be {how} to {} with env revision {env_revision}{keys}{unseen}",
            commit.short(),
            line(&subject, 80),
            request.environment
        );
        Ok(Answer::deed(Word::NotExecuted, text.clone(), Work::said(text)))
    }

    /// What came of carrying out a plan: the operation is followed, or the person is asked and the
    /// plan is tried once more.
    pub(crate) async fn carry_out<F>(
        &self,
        call: &mut Call,
        wait_seconds: Option<u32>,
        start: impl Fn() -> F + Send + Sync,
    ) -> Result<Answer<Work>, ToolError>
    where
        F: Future<Output = Result<Started, OpError>> + Send,
    {
        let plan = match start().await? {
            Started::Operation(id) => return self.follow(call, id, wait_seconds).await,
            Started::NeedsApproval(plan) => plan,
        };
        let question = Question {
            about: plan.id.to_string(),
            message: told(&plan.body),
            answer: plan.body.confirm_with.clone(),
        };
        match call.ask(self, &question).await? {
            Asked::Pending(question) => return Ok(Answer::question(question)),
            Asked::CannotAsk => return Ok(waiting(&plan)),
            Asked::Declined => {
                let text = "the person did not approve the plan; nothing was done";
                return Ok(Answer::deed(Word::NotExecuted, text, plan_facts(&plan)));
            }
            Asked::Approved => {}
        }
        let by = format!("{} at the client", call.caller().name());
        plans::approve(self.context(), plan.id, &by).await?;
        match start().await? {
            Started::Operation(id) => self.follow(call, id, wait_seconds).await,
            Started::NeedsApproval(plan) => Ok(waiting(&plan)),
        }
    }

    /// Waits a while for an operation, telling the client how far it is, and says what came of it.
    pub(crate) async fn follow(
        &self,
        call: &mut Call,
        id: OperationId,
        wait_seconds: Option<u32>,
    ) -> Result<Answer<Work>, ToolError> {
        let view = self.watch(call, id, wait_seconds.unwrap_or(WAIT_SECONDS)).await?;
        ended(&view)
    }

    /// Waits for an operation that was asked to stop, and says what came of it: stopped is what was
    /// wanted here.
    pub(crate) async fn follow_cancel(
        &self,
        call: &mut Call,
        id: OperationId,
        wait_seconds: Option<u32>,
    ) -> Result<Answer<Work>, ToolError> {
        let view = self.watch(call, id, wait_seconds.unwrap_or(WAIT_SECONDS)).await?;
        let kind = &view.row.kind;
        match view.row.state {
            OperationState::Cancelled => {
                let facts = facts(&view);
                let text = format!(
                    "{kind} {id} is cancelled, and what it had done is undone{}",
                    result_text(&facts.result)
                );
                Ok(Answer::deed(Word::Done, text, facts))
            }
            OperationState::Succeeded => {
                let message = format!("{kind} {id} ended well before it could be stopped");
                Err(ToolError::new("already_ended", message)
                    .fix(format!("call `get_operation` with operation `{id}` for its result")))
            }
            _ => ended(&view),
        }
    }

    /// As [`Self::follow`]; what ended well and left something for a person to do waits for them.
    pub(crate) async fn follow_by_hand(
        &self,
        call: &mut Call,
        id: OperationId,
        wait_seconds: Option<u32>,
    ) -> Result<Answer<Work>, ToolError> {
        let view = self.watch(call, id, wait_seconds.unwrap_or(WAIT_SECONDS)).await?;
        let answer = ended(&view)?;
        if view.row.state != OperationState::Succeeded {
            return Ok(answer);
        }
        let result = view.row.result.clone().unwrap_or_default();
        let list = |name: &str| -> Vec<String> {
            let items = result[name].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(|item| format!("- {}", line(item, 400))).collect()
        };
        let mut lines = vec![format!("{} {}", view.row.kind, view.row.id)];
        for name in ["domain", "url", "caveat"] {
            lines.extend(result[name].as_str().map(|said| format!("{name}: {}", line(said, 300))));
        }
        lines.extend(list("records"));
        let (by_hand, wrong) = (list("by_hand"), list("wrong"));
        let word = match by_hand.is_empty() && wrong.is_empty() {
            true => Word::Done,
            false => Word::Waiting,
        };
        if !by_hand.is_empty() {
            lines.push("the user has to do this by hand:".to_owned());
            lines.extend(by_hand);
        }
        if !wrong.is_empty() {
            lines.push("what the name servers say now:".to_owned());
            lines.extend(wrong);
        }
        let next = result["next"].as_str().filter(|next| !next.is_empty());
        lines.extend(next.map(|next| format!("next: {next}")));
        Ok(answer.saying(word, lines.join("\n")))
    }

    /// Waits until an operation is over, the time is, or nobody listens any more.
    pub(crate) async fn watch(
        &self,
        call: &mut Call,
        id: OperationId,
        wait_seconds: u32,
    ) -> Result<OperationView, ToolError> {
        let limit = Duration::from_secs(u64::from(wait_seconds));
        let store = &self.context().store;
        let (sender, mut told) = mpsc::unbounded_channel::<Progress>();
        // The receiver lives as long as the waiting does.
        let waiting = wait(store, id, limit, move |progress| drop(sender.send(progress.clone())));
        let (mut waiting, mut gone) = (pin!(waiting), pin!(call.gone()));
        let heard = loop {
            tokio::select! {
                biased;
                Some(progress) = told.recv() => call.progress(&progress).await,
                view = &mut waiting => break Some(view?),
                () = &mut gone => break None,
            }
        };
        match heard {
            Some(view) => Ok(view),
            None => Ok(operation(store, id).await?),
        }
    }
}

fn waiting(plan: &plans::PlanRow) -> Answer<Work> {
    let command = approve_command(plan.id);
    let text = format!(
        "a person has to approve this plan themselves, and this client cannot ask them: {}\nAsk \
         the user to run `{command}` in a terminal of their own; then make this call again",
        told(&plan.body)
    );
    let message = format!("{}: a person has to run `{command}`", plan.body.summary);
    let facts = Work { message: Some(message), ..plan_facts(plan) };
    Answer::deed(Word::Waiting, text, facts)
}

/// What a person runs to approve a plan.
pub(crate) fn approve_command(plan: PlanId) -> String {
    format!("vmkit approve {plan}")
}

fn facts(view: &OperationView) -> Work {
    let row = &view.row;
    Work {
        operation: Some(row.id.to_string()),
        message: Some(line(&row.progress.message, 300)),
        safe_to_close: Some(true),
        result: row.result.as_ref().and_then(Value::as_object).cloned().unwrap_or_default(),
        ..Work::default()
    }
}

/// What came of an operation, so far.
fn ended(view: &OperationView) -> Result<Answer<Work>, ToolError> {
    let (row, facts) = (&view.row, facts(view));
    match row.state {
        OperationState::Succeeded => {
            let text = format!("{} {}{}", row.kind, row.id, result_text(&facts.result));
            Ok(Answer::deed(Word::Done, text, facts))
        }
        OperationState::NeedsMerge => {
            let text = format!(
                "{} ({}): {}; nothing is locked meanwhile",
                row.kind,
                row.id,
                line(&row.progress.message, 300)
            );
            Ok(Answer::deed(Word::NeedsMerge, text, facts))
        }
        OperationState::Queued | OperationState::Running | OperationState::WaitingApproval => {
            let text = format!(
                "{} {}: {}. Safe to close: yes, because VMKit goes on in the background. To see the \
                 end, call `get_operation` with operation `{}` and wait_seconds 45",
                row.kind,
                row.id,
                stage(view),
                row.id
            );
            Ok(Answer::deed(Word::Running, text, facts))
        }
        OperationState::Failed | OperationState::Cancelled | OperationState::Stuck => {
            Err(failure(view))
        }
    }
}

fn failure(view: &OperationView) -> ToolError {
    let row = &view.row;
    let (code, message, fix) = match &row.failure {
        Some(failure) => (failure.code.clone(), failure.message.clone(), failure.fix.clone()),
        None => (row.state.as_str().to_owned(), row.progress.message.clone(), String::new()),
    };
    let outcome = match row.state {
        OperationState::Stuck => "it is STUCK: part of it is neither done nor undone",
        OperationState::Cancelled => "it was cancelled and undone",
        _ => "what it had made is undone",
    };
    // The message may carry lines of a log: cleaned, and on one line.
    let message = format!("{} ({} {}: {outcome})", line(&message, 1200), row.kind, row.id);
    ToolError::new(code, message).fix(fix)
}

/// `step 3 of 7: waiting for the server to start`.
pub(crate) fn stage(view: &OperationView) -> String {
    let progress = &view.row.progress;
    let undoing = if view.row.undoing { "undoing, " } else { "" };
    let message = line(&progress.message, 200);
    format!("{undoing}step {} of {}: {message}", progress.step, progress.steps)
}

/// `; url: http://...; commit: ...`, for results that are flat enough to be read in a line.
pub(crate) fn result_text(result: &Map<String, Value>) -> String {
    let shown = result.iter().filter_map(|(name, value)| match value {
        Value::Null => None,
        Value::String(text) => Some(format!("; {name}: {}", line(text, 200))),
        Value::Array(items) if items.is_empty() => None,
        other => Some(format!("; {name}: {}", line(&other.to_string(), 200))),
    });
    shown.collect()
}
