//! `provision_vm`: a server for an environment, first as a plan.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Word, Work, ask, plan_id, planned};
use crate::operations::OpError;
use crate::operations::adopt_vm::{self, Planned, Target};
use crate::operations::provision_vm::{plan, start};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// An existing machine to take instead: root@ADDRESS, or hetzner:ID.
    adopt: Option<String>,
    /// With adopt: its SSH host key's fingerprint, if the user gave it.
    host_key: Option<String>,
    /// From an earlier call, once the user has agreed to the plan.
    plan_id: Option<String>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[tool_router(router = provision_vm_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "provision_vm",
        title = "Provision a VM",
        description = "Orders the VM of an environment in the user's own cloud account, or adopts a machine, and links its agent. COSTS MONEY. Without plan_id it changes nothing and returns the plan with its price; with it, the plan is carried out.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn provision_vm(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let context = self.context();
        let Some(given) = input.plan_id else {
            if let Some(machine) = input.adopt {
                let target = Target::parse(&machine).map_err(OpError::from)?;
                let host_key = input.host_key.as_deref();
                return Ok(adoption(adopt_vm::plan(context, &path, &target, host_key).await?));
            }
            return Ok(planned(&plan(context, &path).await?, "provision_vm"));
        };
        let plan = plan_id(&given)?;
        let ask = ask(&call, input.reason, input.idempotency_key);
        if adopt_vm::is_plan_of(context, plan).await? {
            let begin = || adopt_vm::start(context, &path, plan, ask.clone());
            return self.carry_out(&mut call, input.wait_seconds, begin).await;
        }
        self.carry_out(&mut call, input.wait_seconds, || start(context, &path, plan, ask.clone()))
            .await
    }
}

/// A plan, or what a person has to do before VMKit can look.
fn adoption(made: Planned) -> Answer<Work> {
    let needs = match made {
        Planned::Plan(plan) => return planned(&plan, "provision_vm"),
        Planned::NeedsKey(needs) => needs,
    };
    let trust = if needs.expected {
        format!("its SSH host key is the expected one, {}", needs.fingerprint)
    } else {
        format!(
            "the SSH host key that it shows is {}, which the user should compare with `ssh-keygen \
             -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine",
            needs.fingerprint
        )
    };
    let text = format!(
        "VMKit may not look at {address} yet: ask the user to add this one line to {login}'s \
         ~/.ssh/authorized_keys there (it goes again once the machine is adopted), then call \
         `provision_vm` again in the same way:\n{line}\n{trust}. Nothing was changed",
        address = needs.address,
        login = needs.login,
        line = needs.line,
    );
    Answer::deed(Word::NeedsSetup, text.clone(), Work::said(text))
}
