//! `deploy`: builds a version and proves that it is live, or deploys what is live with new env values.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Work, ask, resize_first};
use crate::operations::deploy::{DeployRequest, Version, start};
use crate::operations::resize_vm::wanted;
use crate::operations::test_build;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// Branch, tag or commit to build (the default branch otherwise); `current` takes the live version without a build and applies env changes.
    #[serde(rename = "ref")]
    git_ref: Option<String>,
    /// Another environment of the app: its live image, without a build. Not with ref.
    from: Option<String>,
    /// The commit that ref must be at, against an unpushed one.
    expect_sha: Option<String>,
    /// Codes of blocking rows of scan_repo that the user accepts, such as state_on_disk.
    ignore_checks: Option<Vec<String>>,
    /// Only build the image; needs no VM.
    build_only: Option<bool>,
    /// Only say what would be deployed.
    dry_run: Option<bool>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[tool_router(router = deploy_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "deploy",
        title = "Deploy",
        description = "Builds a version with GitHub Actions, deploys it with Kamal without downtime, and proves that it is live. If it fails, the version before keeps serving. A repeat while it runs joins it.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn deploy(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let version = match (input.git_ref, input.from) {
            (Some(_), Some(_)) => {
                let message = "`ref` and `from` were both given, and each names another version";
                return Err(ToolError::new("bad_argument", message).fix("give one of them"));
            }
            (None, Some(from)) => Version::From(self.other_environment(&call, &from).await?),
            (Some(name), None) if name == "current" => Version::Current,
            (other, None) => Version::Ref(other),
        };
        let environment = self.environment(&input.environment).await?;
        let only = input.build_only == Some(true);
        if !only && let Some(plan) = wanted(self.context(), &environment).await? {
            return Ok(resize_first(&environment, &plan));
        }
        let ignore_checks = input.ignore_checks.unwrap_or_default();
        let expect_sha = input.expect_sha;
        let request = DeployRequest { environment, version, expect_sha, ignore_checks };
        if input.dry_run == Some(true) {
            return self.preview(&request).await;
        }
        let ask = ask(&call, input.reason, input.idempotency_key);
        let operation = match only {
            true => test_build::start(self.context(), request, ask).await?,
            false => start(self.context(), request, ask).await?,
        };
        self.follow(&mut call, operation, input.wait_seconds).await
    }
}
