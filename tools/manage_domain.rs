//! `manage_domain`: an environment's public name, pointed and checked.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::names::{Domain, EnvironmentPath};
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Word, Work, ask};
use crate::operations::domains::{Asked, Preview, preview, retry_certificate, start, verify};
use crate::operations::{OpError, environments};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    action: Action,
    /// For add: a name such as shop.example.com, or `sslip` for one that spells the VM's address.
    domain: Option<String>,
    dry_run: Option<bool>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Action {
    Add,
    Verify,
    Point,
    RetryCertificate,
}

#[tool_router(router = manage_domain_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "manage_domain",
        title = "Manage a domain",
        description = "add: gives an environment its public name and makes the DNS records, or says which to make by hand. point: makes them anew. verify: asks the name servers what is right and wrong. retry_certificate: asks for TLS once more.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn manage_domain(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let asked = self.asked(&path, input.action, input.domain.as_deref()).await?;
        let dry_run = input.dry_run == Some(true);
        match input.action {
            Action::Verify => return self.verified(&path).await,
            Action::RetryCertificate if dry_run => return self.verified(&path).await,
            Action::RetryCertificate => {
                let url = retry_certificate(self.context(), &path).await?;
                let text = format!("{url} answers with a valid certificate");
                return Ok(Answer::deed(Word::Done, text.clone(), Work::said(text)));
            }
            Action::Add | Action::Point => {}
        }
        if dry_run {
            let Preview { domain, lines } = preview(self.context(), &path, &asked).await?;
            let text = match lines.as_slice() {
                [] => format!("{path} has {domain} already, and nothing would change"),
                lines => lines.join("; "),
            };
            return Ok(Answer::deed(Word::NotExecuted, text.clone(), Work::said(text)));
        }
        let ask = ask(&call, input.reason, input.idempotency_key);
        let operation = start(self.context(), &path, &asked, ask).await?;
        self.follow_by_hand(&mut call, operation, input.wait_seconds).await
    }

    /// The name that the arguments mean.
    async fn asked(
        &self,
        path: &EnvironmentPath,
        action: Action,
        given: Option<&str>,
    ) -> Result<Asked, ToolError> {
        let Some(given) = given else {
            return match action {
                Action::Add => Err(ToolError::new(
                    "bad_arguments",
                    "the field `domain` is missing, which `add` needs (such as shop.example.com)",
                )
                .fix("give a name below a domain of yours, or `sslip`")),
                Action::Verify | Action::Point | Action::RetryCertificate => Ok(Asked::Kept),
            };
        };
        let name = match given.trim().eq_ignore_ascii_case("sslip") {
            true if action == Action::Add => return Ok(Asked::Sslip),
            true => return Ok(Asked::Kept),
            false => {
                Domain::given(given).map_err(|bad| ToolError::new("bad_domain", bad.to_string()))?
            }
        };
        if action == Action::Add {
            return Ok(Asked::Name(name));
        }
        let environment = environments::environment(&self.context().store, path).await?;
        match environment.settings.domain {
            Some(kept) if kept == name => Ok(Asked::Kept),
            Some(kept) => {
                let (domain, has) = (name.to_string(), format!("`{kept}`"));
                Err(OpError::OtherDomain { domain, environment: path.to_string(), has }.into())
            }
            None => Err(OpError::NoDomain { environment: path.to_string() }.into()),
        }
    }

    async fn verified(&self, path: &EnvironmentPath) -> Result<Answer<Work>, ToolError> {
        let verified = verify(self.context(), path).await?;
        let lines: Vec<String> = verified.findings.iter().map(|one| one.line()).collect();
        let verdict = if verified.right() { "leads to" } else { "does NOT lead rightly to" };
        let text = format!(
            "{} {verdict} {} by what the name servers say:\n{}",
            verified.domain.shown(),
            verified.address,
            lines.join("\n")
        );
        let word = if verified.right() { Word::Done } else { Word::Waiting };
        Ok(Answer::deed(word, text.clone(), Work::said(text)))
    }
}
