//! `create_environment`: names an environment of an app; touches nothing outside.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::environment::{Environment, Settings, Vm};
use crate::domain::ids::VmId;
use crate::domain::names::{BadDomain, Domain, EnvironmentPath};
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Word, bad_name};
use crate::operations::domains::foretold;
use crate::operations::environments::{NewEnvironment, check, create, found};
use crate::operations::share::{memory_short, place};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The new name as app/name, such as shop/staging.
    environment: String,
    /// Where size and region leave it open.
    provider: Option<Provider>,
    /// From list_sizes; none with provider ssh.
    size: Option<String>,
    /// From list_sizes.
    region: Option<String>,
    /// Instead: an environment whose VM it shares.
    share: Option<String>,
    /// The app's port; the scan's otherwise.
    #[schemars(range(min = 1, max = 65535))]
    port: Option<u16>,
    /// The path that answers 2xx; the scan's otherwise.
    health_path: Option<String>,
    /// The public host name; a plain HTTP address without.
    domain: Option<String>,
    /// Whether a person has to approve spending and loss; true for production.
    protected: Option<bool>,
    dry_run: Option<bool>,
    #[expect(dead_code, reason = "the same name and settings are the same environment anyway")]
    idempotency_key: Option<String>,
    #[expect(dead_code, reason = "goes to the audit log only")]
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Provider {
    Hetzner,
    DigitalOcean,
    Ssh,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    environment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    size: String,
    region: String,
    port: u16,
    health_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    protected: bool,
}

#[tool_router(router = create_environment_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "create_environment",
        title = "Create an environment",
        description = "Names an environment of an app and chooses its size and region, or whose VM it shares. Orders nothing; provision_vm or deploy comes next.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = false)
    )]
    async fn create_environment(
        &self,
        Parameters(input): Parameters<Input>,
        call: Call,
    ) -> Result<Answer<Output>, ToolError> {
        let dry_run = input.dry_run == Some(true);
        let new = self.new_of(&call, input).await?;
        let next = if new.vm.is_some() { "deploy" } else { "provision_vm" };
        let context = self.context();
        let path = new.path.to_string();
        if let Some(same) = self.same(&new).await? {
            let text = format!("{path} exists already with these settings; next: `{next}`");
            return Ok(Answer::deed(
                Word::Done,
                text,
                facts(&same.path.to_string(), &same.settings),
            ));
        }
        if dry_run {
            check(context, &new).await?;
            let text = format!("{path} could be created: {}", told(&new.settings));
            let text = format!("{text}{}", self.memory(&new.path, new.vm).await?);
            return Ok(Answer::deed(Word::NotExecuted, text, facts(&path, &new.settings)));
        }
        let made = create(context, new).await?;
        let records = match &made.settings.domain {
            Some(domain) => format!(" DNS: {}.", foretold(context, domain).await),
            None => String::new(),
        };
        let ordered = match made.vm {
            Some(vm) => format!("It shares VM {vm}, so nothing is ordered"),
            None => "Nothing is ordered yet".to_owned(),
        };
        let memory = self.memory(&made.path, made.vm).await?;
        let text = format!(
            "{path}: {}.{records} {ordered}; next: `{next}` with environment `{path}`{memory}",
            told(&made.settings)
        );
        Ok(Answer::deed(Word::Done, text, facts(&path, &made.settings)))
    }

    /// `. But memory is short: ...` where a VM is shared that has too little for all.
    async fn memory(&self, path: &EnvironmentPath, vm: Option<VmId>) -> Result<String, ToolError> {
        let Some(vm) = vm else { return Ok(String::new()) };
        let short = memory_short(self.context(), path, vm).await?;
        Ok(short.map_or(String::new(), |said| format!(". But {said}")))
    }

    async fn new_of(&self, call: &Call, input: Input) -> Result<NewEnvironment, ToolError> {
        let path = self.new_environment(&input.environment).await?;
        let (port, health_path) = found(self.context(), &path.app).await?;
        let health_path = input.health_path.unwrap_or(health_path);
        let safe = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
        if !health_path.starts_with('/') || !health_path.chars().all(safe) {
            let message = "the field `health_path` must begin with / and hold only letters, digits and / - _ . ~";
            return Err(ToolError::new("bad_name", message).fix("give a path such as /healthz"));
        }
        let protected = input.protected.unwrap_or_else(|| path.name.as_str() == "production");
        let provider = input.provider.map(|provider| match provider {
            Provider::Hetzner => "hetzner".to_owned(),
            Provider::DigitalOcean => "digitalocean".to_owned(),
            Provider::Ssh => Vm::OWN_MACHINE.to_owned(),
        });
        let shared = match &input.share {
            Some(neighbour) => {
                if provider.is_some() || input.size.is_some() || input.region.is_some() {
                    let message = "`share` takes provider, size and region of the VM that it names";
                    return Err(ToolError::new("bad_argument", message).fix("leave those out"));
                }
                let vm = self.vm(call, Some(neighbour), None).await?;
                Some(place(self.context(), vm).await?.vm)
            }
            None => None,
        };
        let own = provider.as_deref() == Some(Vm::OWN_MACHINE);
        let place = |given: Option<String>, field: &str| {
            match given {
            _ if own => Ok("own".to_owned()),
            Some(given) => Ok(given),
            None => Err(ToolError::new("missing_field", format!("the field `{field}` is missing"))
                .fix(
                    "take one from `list_sizes`, `share` the VM of another environment, or give provider `ssh` for a machine that exists",
                )),
        }
        };
        let (provider, size, region) = match &shared {
            Some(vm) => (Some(vm.provider.clone()), vm.size.clone(), vm.region.clone()),
            None => (
                provider,
                place(input.size, "size")?.parse().map_err(bad_name)?,
                place(input.region, "region")?.parse().map_err(bad_name)?,
            ),
        };
        let settings = Settings {
            size,
            region,
            provider,
            domain: input
                .domain
                .map(|name| Domain::given(&name))
                .transpose()
                .map_err(bad_domain)?,
            port: input.port.unwrap_or(port),
            health_path,
            protected,
        };
        Ok(NewEnvironment { path, settings, vm: shared.map(|vm| vm.id) })
    }

    /// The environment of that name, where it is the same in everything.
    async fn same(&self, new: &NewEnvironment) -> Result<Option<Environment>, ToolError> {
        let store = &self.context().store;
        let known = store.environment(new.path.clone()).await;
        let known = known.map_err(crate::operations::OpError::from)?;
        let same = |known: &Environment| {
            new.settings.are(&known.settings) && new.vm.is_none_or(|vm| known.vm == Some(vm))
        };
        Ok(known.filter(same))
    }
}

fn bad_domain(bad: BadDomain) -> ToolError {
    ToolError::new("bad_domain", bad.to_string())
}

fn facts(environment: &str, settings: &Settings) -> Output {
    Output {
        environment: environment.to_owned(),
        provider: settings.provider.clone(),
        size: settings.size.to_string(),
        region: settings.region.to_string(),
        port: settings.port,
        health_path: settings.health_path.clone(),
        domain: settings.domain.as_ref().map(ToString::to_string),
        protected: settings.protected,
    }
}

fn told(settings: &Settings) -> String {
    let domain = match &settings.domain {
        Some(domain) => format!("domain {domain}"),
        None => "no domain, so plain HTTP by address".to_owned(),
    };
    let protected = if settings.protected { "protected" } else { "not protected" };
    let cloud = settings.provider.as_ref().map(|name| format!(" at {name}"));
    format!(
        "size {} in {}{}, port {}, health path {}, {domain}, {protected}",
        settings.size,
        settings.region,
        cloud.unwrap_or_default(),
        settings.port,
        settings.health_path
    )
}
