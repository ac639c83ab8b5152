//! A tool for tests only: it does, fails, asks, waits and breaks as told.

use std::collections::BTreeMap;
use std::time::Duration;

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Asked, Call, Entry, Parameters, Question, Server, ToolError, Touches, Word};
use crate::access::Role;
use crate::domain::operation::Progress;

#[derive(Deserialize, JsonSchema)]
struct DeedIn {
    /// The environment, such as shop/staging.
    environment: String,
    /// What to do.
    how: Option<How>,
    /// Values to keep secret.
    #[serde(default)]
    values: BTreeMap<String, String>,
    /// Why.
    #[expect(dead_code, reason = "goes to the audit log only")]
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum How {
    Well,
    Badly,
    Panic,
    Ask,
    Slowly,
    Forever,
    Silent,
}

#[derive(Serialize, JsonSchema)]
struct DeedOut {
    environment: String,
    values: usize,
}

#[tool_router(router = deed_router)]
impl Server {
    #[tool(
        name = "deed",
        title = "A deed",
        description = "Does something",
        output_schema = schema_for_output::<DeedOut>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = true)
    )]
    async fn deed(
        &self,
        Parameters(input): Parameters<DeedIn>,
        mut call: Call,
    ) -> Result<Answer<DeedOut>, ToolError> {
        let out = DeedOut { environment: input.environment.clone(), values: input.values.len() };
        match input.how.unwrap_or(How::Well) {
            How::Well => Ok(Answer::deed(Word::Done, "it is done", out)),
            How::Badly => Err(ToolError::new("sold_out", "size `cx22` is sold out in `fsn1`")
                .retryable(true)
                .fix("call `list_sizes`")),
            How::Panic => panic!("a planted fault"),
            How::Ask => {
                let question = Question {
                    about: "plan_1".to_owned(),
                    message: "Really?".to_owned(),
                    answer: input.environment,
                };
                Ok(match call.ask(self, &question).await? {
                    Asked::Approved => Answer::deed(Word::Done, "approved", out),
                    Asked::Declined => Answer::deed(Word::NotExecuted, "declined", out),
                    Asked::CannotAsk => Answer::deed(Word::Waiting, "run `vmkit approve`", out),
                    Asked::Pending(question) => Answer::question(question),
                })
            }
            How::Forever => {
                let forever = std::future::pending::<()>();
                let ended = call.wait(Duration::from_secs(3600), forever).await;
                assert!(ended.is_none());
                Ok(Answer::deed(Word::Running, "nobody waits", out))
            }
            How::Silent => {
                let forever = std::future::pending::<()>();
                assert!(call.wait(Duration::from_secs(3), forever).await.is_none());
                Ok(Answer::deed(Word::Done, "at last", out))
            }
            How::Slowly => {
                let step = |step, text: &str| Progress { step, steps: 3, message: text.to_owned() };
                call.progress(&step(1, "ordering")).await;
                call.progress(&step(1, "still\nordering")).await;
                call.progress(&step(3, "linking")).await;
                let forever = std::future::pending::<()>();
                let ended = call.wait(Duration::from_millis(20), forever).await;
                assert!(ended.is_none());
                Ok(Answer::deed(Word::Running, "it goes on", out))
            }
        }
    }
}

pub(crate) fn entries() -> Vec<Entry> {
    vec![Entry {
        router: Server::deed_router(),
        needs: Role::Deploy,
        touches: Touches::Environment,
        secrets: &["values"],
    }]
}
