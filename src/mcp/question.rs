//! Asking the person at the client: by a request of ours where the session is old, by an answer
//! that the client completes and sends again where it is new (2026-07-28).

use std::collections::BTreeMap;
use std::time::Duration;

use rmcp::model::{
    ClientCapabilities, ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction,
    ElicitationSchema, InputRequest, InputRequiredResult, RequestStateCodec, SealOptions,
    StringSchema,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::call::Call;
use super::error::ToolError;
use crate::domain::operation::Progress;

/// How long a sealed question may be answered.
const STATE_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How long an old session's person may take, while the call is open.
const ANSWER_WAIT: Duration = Duration::from_secs(4 * 60);
/// How often an open question tells the client that the call lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// The one field of the form.
const FIELD: &str = "confirm";
/// The question's key among the requests of an answer.
const KEY: &str = "approval";

/// What a person is asked before something happens that only they may allow.
#[derive(Debug, Clone)]
pub struct Question {
    /// What the question is about, such as a plan's id: an answer to one is none to another.
    pub about: String,
    /// What the person reads: the plan in a few lines.
    pub message: String,
    /// What they type to say yes, such as `shop/production`.
    pub answer: String,
}

/// How a question ended.
#[derive(Debug)]
pub enum Asked {
    /// The person typed what was wanted.
    Approved,
    /// The person said no, went away, or typed something else.
    Declined,
    /// The answer of the tool is this question; the client sends the call again.
    Pending(InputRequiredResult),
    /// The client cannot ask. That is no consent: the person has to use `vmkit approve`.
    CannotAsk,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    about: String,
}

/// Seals what travels through the client between a question and its answer.
#[derive(Debug, Clone)]
pub(super) struct Seal(RequestStateCodec);

impl Seal {
    /// With a key of this process: no question outlives it.
    pub(super) fn fresh() -> Self {
        let mut key = [0u8; 32];
        rand::Rng::fill(&mut rand::rng(), &mut key);
        Self(RequestStateCodec::new_unchecked(key.to_vec()))
    }
}

impl Call {
    /// Asks the person at the client.
    ///
    /// # Errors
    /// The question cannot be put into words of the protocol, which is a fault of ours.
    pub async fn ask(
        &mut self,
        server: &super::Server,
        question: &Question,
    ) -> Result<Asked, ToolError> {
        let can = self.context.client_capabilities();
        if !can.is_some_and(|can| has_forms(&can)) {
            return Ok(Asked::CannotAsk);
        }
        if self.is_modern() {
            return self.ask_by_answer(&server.seal, question);
        }
        let params = form(question)?;
        let asking = self.context.peer.clone();
        let mut answer =
            Box::pin(asking.create_elicitation_with_timeout(params, Some(ANSWER_WAIT)));
        let waiting =
            Progress { step: 1, steps: 1, message: "waiting for a person to answer".to_owned() };
        loop {
            self.progress(&waiting).await;
            match self.wait_for(&mut answer).await {
                Waited::Answer(Ok(result)) => return Ok(judge(&result, question)),
                Waited::Answer(Err(error)) => {
                    tracing::warn!(%error, "the question about {} was not answered", question.about);
                    return Ok(Asked::CannotAsk);
                }
                Waited::StillOpen => {}
                Waited::Gone => return Ok(Asked::Declined),
            }
        }
    }

    async fn wait_for<T>(&self, answer: &mut (impl Future<Output = T> + Unpin)) -> Waited<T> {
        tokio::select! {
            result = answer => Waited::Answer(result),
            () = tokio::time::sleep(SIGN_OF_LIFE) => Waited::StillOpen,
            () = self.gone() => Waited::Gone,
        }
    }

    fn ask_by_answer(&self, seal: &Seal, question: &Question) -> Result<Asked, ToolError> {
        let bound = self.binding();
        if let (Some(state), Some(responses)) = (&self.state, &self.responses) {
            // What does not open, or is about something else, counts as unanswered: we ask again.
            let sealed = seal.0.open_json_with::<Sealed>(state, &bound);
            let ours = sealed.is_ok_and(|sealed| sealed.about == question.about);
            let response = responses.get(KEY).cloned();
            let result = response.and_then(|r| serde_json::from_value::<ElicitResult>(r).ok());
            if let (true, Some(result)) = (ours, result) {
                return Ok(judge(&result, question));
            }
        }
        let options = SealOptions::new().associated_data(&bound).ttl(STATE_LIFETIME);
        let state = seal
            .0
            .seal_json_with(&Sealed { about: question.about.clone() }, &options)
            .map_err(|error| fault(&error))?;
        let request = InputRequest::Elicitation(ElicitRequest::new(form(question)?));
        let requests = BTreeMap::from([(KEY.to_owned(), request)]);
        Ok(Asked::Pending(InputRequiredResult::new(Some(requests), Some(state))))
    }

    /// Binds a sealed question to who asked what.
    fn binding(&self) -> Vec<u8> {
        let mut digest = Sha256::new();
        for part in [self.opened.caller.name().as_bytes(), self.opened.tool.as_bytes()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(self.opened.digest);
        digest.finalize().to_vec()
    }
}

enum Waited<T> {
    Answer(T),
    StillOpen,
    Gone,
}

fn has_forms(can: &ClientCapabilities) -> bool {
    can.elicitation.as_ref().is_some_and(|how| how.form.is_some() || how.url.is_none())
}

fn form(question: &Question) -> Result<ElicitRequestParams, ToolError> {
    let field = format!("Type {} to approve", question.answer);
    let requested_schema = ElicitationSchema::builder()
        .required_string_property(FIELD, |schema: StringSchema| schema.title(field))
        .build()
        .map_err(|error| fault(&error))?;
    let message = question.message.clone();
    Ok(ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema })
}

fn judge(result: &ElicitResult, question: &Question) -> Asked {
    let typed = result.content.as_ref().and_then(|content| content.get(FIELD)?.as_str());
    let yes = matches!(result.action, ElicitationAction::Accept)
        && typed.is_some_and(|typed| typed.trim() == question.answer);
    if yes { Asked::Approved } else { Asked::Declined }
}

fn fault(error: &impl std::fmt::Display) -> ToolError {
    ToolError::new("question_failed", format!("the question cannot be asked: {error}"))
        .fix("approve the plan with `vmkit approve`")
}
