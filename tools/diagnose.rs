//! `diagnose`: why the newest deploy failed, or what is wrong now. One cause, and the next call.

use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::deploy::DeployState;
use crate::mcp::{Answer, Parameters, Server, ToolError, fence, line};
use crate::queries::diagnosis::{About, Diagnosis, Verdict, diagnosis};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// A deploy of `list_deploys`; the newest by default.
    deploy: Option<String>,
}

#[tool_router(router = diagnose_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "diagnose",
        title = "Diagnose",
        description = "Why the newest deploy failed or, where none did, what is wrong now: one root cause, its evidence, the next call.",
        annotations(
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn diagnose(
        &self,
        Parameters(input): Parameters<Input>,
    ) -> Result<Answer<()>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let wanted = input.deploy.map(|given| {
            given.parse().map_err(|error| {
                ToolError::new("bad_id", format!("in the field `deploy`: {error}"))
                    .fix("give a deploy id that `list_deploys` names")
            })
        });
        let found = diagnosis(self.context(), &path, wanted.transpose()?).await?;
        Ok(Answer::text(text(&found, &path.to_string())))
    }
}

fn text(found: &Diagnosis, environment: &str) -> String {
    let what = match &found.about {
        About::Deploy(deploy) => {
            let (id, state) = (deploy.id, deploy.state.as_str());
            format!("deploy {id} of {} to {environment} ({state})", deploy.commit.short())
        }
        About::Now => format!("{environment} now"),
    };
    match &found.verdict {
        Verdict::Cause(cause) => {
            let itself = if cause.can_fix_itself { "yes" } else { "no, a person has to" };
            let evidence = match cause.evidence.as_slice() {
                [] => String::new(),
                lines => format!("\n{}", fence("evidence", &lines.join("\n"))),
            };
            format!(
                "{what}: {}: {}\nnext: {}\nVMKit can mend it by that call: {itself}{evidence}",
                cause.code,
                line(&cause.cause, 500),
                line(&cause.fix, 500)
            )
        }
        Verdict::Unknown(Some(failure)) => format!(
            "{what}: {}: {}\nnext: {}",
            line(&failure.code, 60),
            line(&failure.message, 500),
            line(&failure.fix, 300)
        ),
        Verdict::Unknown(None) => format!(
            "{what}: unknown: no rule knows what is wrong\nnext: call `get_status`, then `get_logs`, with environment `{environment}`"
        ),
        Verdict::Well => match &found.about {
            About::Deploy(deploy) if deploy.state == DeployState::Running => {
                format!(
                    "{what}: it has not ended\nnext: call `get_operation` with operation `{}`",
                    deploy.operation
                )
            }
            About::Deploy(_) => format!("{what}: it went well"),
            About::Now => {
                format!("{what}: nothing is wrong: the app answers, and no deploy failed")
            }
        },
    }
}
