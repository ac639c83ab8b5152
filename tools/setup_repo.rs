//! `setup_repo`: the pull request that brings the workflow and the Kamal config.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Word, Work, ask, bad_name, line};
use crate::operations::setup_repo::{Changes, SetupRequest, preview, start};
use crate::queries::doctor::Verdict;
use crate::queries::repo_check::check;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The GitHub repo as owner/name.
    repo: String,
    /// A short name for the app; the repo's name otherwise.
    app: Option<String>,
    /// The app's folder in a monorepo.
    root: Option<String>,
    /// Environments for the workflow to know, such as staging.
    environments: Option<Vec<String>>,
    /// How later changes of these files arrive: `pr` (default), `auto_merge`, or `direct` on an unguarded default branch.
    changes: Option<Arrival>,
    /// Only a table of what stands in the way.
    check: Option<bool>,
    /// Only say what the pull request would hold.
    dry_run: Option<bool>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Arrival {
    Pr,
    AutoMerge,
    Direct,
}

#[tool_router(router = setup_repo_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "setup_repo",
        title = "Set up a repo",
        description = "Opens a pull request with the deploy workflow and the Kamal config, plain files that work without VMKit, and notes the app. The user merges it. Needed once per app, before create_environment.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn setup_repo(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let names = input.environments.unwrap_or_default();
        let request = SetupRequest {
            repo: self.repo(&input.repo).await?,
            app: input.app.map(|name| self.app(&name)).transpose()?,
            root: input.root.unwrap_or_else(|| ".".to_owned()),
            environments: names
                .iter()
                .map(|name| name.parse())
                .collect::<Result<_, _>>()
                .map_err(bad_name)?,
            changes: match input.changes {
                Some(Arrival::Direct) => Changes::Direct,
                Some(Arrival::AutoMerge) => Changes::AutoMerge,
                Some(Arrival::Pr) | None => Changes::Pr,
            },
        };
        if input.check == Some(true) {
            return self.checked(&request).await;
        }
        if input.dry_run == Some(true) {
            let preview = preview(self.context(), &request).await?;
            let blocking = match preview.blocking.as_slice() {
                [] => "nothing blocks a first deploy".to_owned(),
                rows => format!("BLOCKING a first deploy: {}", rows.join("; ")),
            };
            let text =
                format!("the pull request would hold {}; {blocking}", preview.files.join(", "));
            return Ok(Answer::deed(Word::NotExecuted, text.clone(), Work::said(text)));
        }
        let ask = ask(&call, input.reason, input.idempotency_key);
        let operation = start(self.context(), request, ask).await?;
        self.follow(&mut call, operation, input.wait_seconds).await
    }
}

impl Server {
    async fn checked(&self, request: &SetupRequest) -> Result<Answer<Work>, ToolError> {
        let rows = check(self.context(), &request.repo, &request.root).await?;
        let bad = rows.iter().filter(|row| row.verdict == Verdict::Bad).count();
        let mut lines = vec![match bad {
            0 => "nothing stands in the way; next: `setup_repo` without `check`".to_owned(),
            bad => format!("{bad} of {} stand in the way", rows.len()),
        }];
        for row in &rows {
            let mark = match row.verdict {
                Verdict::Good => "ok",
                Verdict::Bad => "IN THE WAY",
                Verdict::Note => "note",
            };
            let fix = row.fix.as_ref().map(|fix| format!(" | {}", line(fix, 400)));
            lines.push(format!(
                "{mark} | {} | {}{}",
                row.what,
                line(&row.found, 300),
                fix.unwrap_or_default()
            ));
        }
        let word = if bad == 0 { Word::Done } else { Word::NeedsSetup };
        let text = lines.join("\n");
        Ok(Answer::deed(word, text.clone(), Work::said(text)))
    }
}
