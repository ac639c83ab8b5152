//! The operations as the tests use them: what has to be there before, how each starts, and what
//! the simulators must list once it has ended well.

use serde_json::{Value, json};
use vmkit::domain::env_values::EnvClass;
use vmkit::domain::environment::Settings;
use vmkit::domain::ids::OperationId;
use vmkit::domain::operation::OperationState;
use vmkit::domain::secret::Secret;
use vmkit::domain::service::ServiceKind;
use vmkit::operations::deploy::{DeployRequest, ReleaseEnv, Version};
use vmkit::operations::destroy::Wanted;
use vmkit::operations::domains::Asked;
use vmkit::operations::environments::NewEnvironment;
use vmkit::operations::maintain_vm::Action;
use vmkit::operations::services::ServiceRequest;
use vmkit::operations::setup_repo::SetupRequest;
use vmkit::operations::{
    Ask, OpError, Started, configure_app, control_app, deploy, destroy, domains, env, environments,
    maintain_vm, plans, provision_vm, resize_vm, services, setup_repo, test_build,
};
use vmkit::store::Changes;

use crate::adopt;
use crate::stage::{Stage, staging};

/// An operation of the main job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// The pull request.
    Setup,
    /// The VM.
    Provision,
    /// A server that was there before.
    Adopt,
    /// The first deploy: with the config's commit and a build.
    Deploy,
    /// What is live, with newer env values.
    Current,
    /// The version before.
    Rollback,
    /// A larger VM.
    Resize,
    /// The VM down and up again.
    Reboot,
    /// All of it, for good.
    Destroy,
    /// Away so that it can be undone: the disk as a snapshot.
    Retire,
    /// The undo of that.
    Restore,
    /// Another name, in a zone that VMKit can edit.
    Domain,
    /// Other limits and time-outs.
    Configure,
    /// A database beside the app.
    AddService,
    /// Another version of it.
    UpgradeService,
    /// Its end, with its data.
    RemoveService,
    /// The app stops.
    Stop,
    /// Only the image, without a VM.
    TestBuild,
}

impl Job {
    /// Brings a fresh stage to where this operation can start. Nobody drives afterwards.
    pub(crate) async fn prepare(self, stage: &mut Stage) {
        let before: &[Self] = match self {
            Self::Setup => return,
            Self::Provision | Self::Adopt | Self::TestBuild => &[Self::Setup],
            Self::Deploy => &[Self::Setup, Self::Provision],
            Self::Current
            | Self::Resize
            | Self::Reboot
            | Self::Destroy
            | Self::Retire
            | Self::Domain
            | Self::Configure
            | Self::AddService
            | Self::Stop => &[Self::Setup, Self::Provision, Self::Deploy],
            Self::UpgradeService | Self::RemoveService => {
                &[Self::Setup, Self::Provision, Self::Deploy, Self::AddService]
            }
            Self::Restore => &[Self::Setup, Self::Provision, Self::Deploy, Self::Retire],
            Self::Rollback => &[Self::Setup, Self::Provision, Self::Deploy, Self::Deploy],
        };
        stage.drive_here().await;
        for (at, job) in before.iter().enumerate() {
            if at == 3 && *job == Self::Deploy {
                stage.push("Second version", None).await;
            }
            job.done(stage).await;
            match job {
                Self::Setup => {
                    stage.merge_pulls().await;
                    stage.create_environment().await;
                }
                Self::Provision => stage.set_env("GREETING", "first").await,
                _ => {}
            }
        }
        if self == Self::Adopt {
            adopt::their_server(stage).await;
        }
        if self == Self::Current {
            stage.set_env("GREETING", "second").await;
        }
        stage.kill().await;
    }

    /// Starts it and waits for its good end.
    pub(crate) async fn done(self, stage: &Stage) -> OperationId {
        let id = self.start(stage).await;
        let row = stage.end_of(id).await;
        assert_eq!(row.state, self.good_end(), "{row:#?}");
        id
    }

    /// How it ends where nothing goes wrong.
    pub(crate) fn good_end(self) -> OperationState {
        match self {
            Self::Setup => OperationState::NeedsMerge,
            _ => OperationState::Succeeded,
        }
    }

    pub(crate) async fn start(self, stage: &Stage) -> OperationId {
        self.try_start(stage).await.expect("started")
    }

    pub(crate) async fn try_start(self, stage: &Stage) -> Result<OperationId, OpError> {
        let (context, ask, path) = (stage.context(), Ask::by("test"), staging());
        match self {
            Self::Setup => setup_repo::start(context, setup_request(), ask).await,
            Self::Provision => {
                let plan = provision_vm::plan(context, &path).await?;
                begun(provision_vm::start(context, &path, plan.id, ask).await)
            }
            Self::Adopt => adopt::of_their_server(stage).await,
            Self::Deploy => deploy_of(stage, Version::Ref(None)).await,
            Self::Current => deploy_of(stage, Version::Current).await,
            Self::Rollback => {
                deploy_of(stage, Version::Release { to: None, env: ReleaseEnv::AsOfThen }).await
            }
            Self::Resize => {
                let request = stage.resize_to("cpx32");
                let plan = resize_vm::plan(context, &request).await?;
                begun(resize_vm::start(context, &request, plan.id, ask).await)
            }
            Self::Reboot => {
                let request = stage.maintain(Action::Reboot);
                begun(maintain_vm::start(context, &request, None, ask).await)
            }
            Self::Destroy => {
                let plan = destroy::plan(context, &path, Wanted::Purge).await?;
                plans::approve(context, plan.id, "a person").await?;
                begun(destroy::start(context, &path, None, plan.id, ask).await)
            }
            Self::Retire => kept_or_undone(stage, Wanted::Keep).await,
            Self::Restore => kept_or_undone(stage, Wanted::Undo).await,
            Self::Domain => domains::start(context, &path, &app_name(), ask).await,
            Self::Configure => configure_app::start(context, &path, &limits(), ask).await,
            Self::AddService => {
                services::start(context, &database(services::Action::Add, None), ask).await
            }
            Self::UpgradeService => {
                let request = database(services::Action::Upgrade, Some("17.7"));
                services::start(context, &request, ask).await
            }
            Self::RemoveService => {
                let kind = ServiceKind::Postgres;
                let plan = services::remove::plan(context, &path, kind).await?;
                plans::approve(context, plan.id, "a person").await?;
                begun(services::remove::start(context, &path, kind, plan.id, ask).await)
            }
            Self::TestBuild => test_build::start(context, of(Version::Ref(None)), ask).await,
            Self::Stop => {
                let action = control_app::Action::Stop;
                begun(control_app::start(context, &path, action, None, ask).await)
            }
        }
    }

    /// Looks at the simulators' own lists after a good end.
    pub(crate) async fn check_good_end(self, stage: &Stage, id: OperationId) {
        stage.nothing_is_lost().await;
        let repo = stage.repo().await;
        match self {
            Self::Setup => {
                assert_eq!(pulls(&repo, "open"), 1, "{repo:#}");
                assert_eq!(stage.commits("vmkit/setup").await.len(), 2, "one commit on the first");
            }
            Self::Provision => {
                assert_eq!(stage.counts().await, [1, 1, 1]);
                assert_eq!(stage.kept().await, [0, 1]);
            }
            Self::Adopt => {
                assert_eq!(stage.counts().await, [1, 0, 0], "no firewall and no key of ours");
                let server = stage.cloud().await["servers"][0].clone();
                assert_eq!(
                    (&server["name"], &server["labels"]["team"]),
                    (&json!("theirs"), &json!("red"))
                );
                let labelled = server["labels"].as_object().map_or(0, serde_json::Map::len);
                assert_eq!(
                    labelled, 4,
                    "theirs, the installation, the VM, the operation: {server:#}"
                );
                assert_eq!(stage.sql("select state from vm where state != 'deleted'"), ["ready"]);
                let machine = stage.machine();
                assert!(!machine.is_armed() && machine.has_file("/etc/vmkit/adopted"));
                let keys = machine.authorized_keys("root");
                assert!(keys.iter().all(|key| !key.contains("vmkit-adopt")), "{keys:?}");
                assert!(machine.docker().get("their-cache").is_some_and(|one| one.running));
            }
            Self::Deploy | Self::Current | Self::Rollback => {
                let result = stage.row(id).await.result.expect("a result");
                assert_eq!(runs_of(&repo, &result), 1, "{repo:#}");
                let config = stage.commits("main").await.len();
                let pushed = usize::from(self == Self::Rollback);
                assert_eq!(config, 4 + pushed, "the first, the set-up, its merge, the config");
                let server = stage.cloud().await["servers"][0]["public_net"]["ipv4"]["ip"].clone();
                let zones = stage.sandbox.cloudflare().state();
                let record = zones["zones"][0]["records"][0].clone();
                assert_eq!(
                    (&record["name"], &record["content"]),
                    (&json!("shop.example.com"), &server),
                    "DNS first: {zones:#}"
                );
                assert_eq!(stage.serving().await, vec![result["commit"].clone()]);
            }
            Self::Resize | Self::Reboot => {
                let size = if self == Self::Resize { "cpx32" } else { "cpx22" };
                assert_eq!(stage.server().await, ("running".to_owned(), size.to_owned()));
                assert_eq!(stage.kamal_locks(), Vec::<String>::new());
                assert_eq!(stage.sql("select size from vm"), [size]);
                assert_eq!(stage.sql("select size from environment"), [size]);
                assert_eq!(stage.serving().await.len(), 1, "what ran runs");
                assert!(!stage.machine().has_file("/var/lib/vmkit/quiesced.json"));
            }
            Self::Destroy => {
                let zones = stage.sandbox.cloudflare().state();
                assert_eq!(zones["zones"][0]["records"], json!([]));
                assert_eq!(stage.counts().await, [0, 0, 0]);
                assert_eq!(stage.kept().await, [0, 0]);
                assert_eq!(repo["secrets"], json!([]));
                assert_eq!(repo["variables"], json!({}));
                assert_eq!(
                    stage.sql("select id from environment where deleted_at is null"),
                    Vec::<String>::new()
                );
            }
            Self::Retire => {
                assert_eq!(stage.counts().await, [0, 1, 1], "an undo needs the other two");
                assert_eq!(stage.kept().await, [1, 1]);
                let state = stage.cloud().await;
                let address = &state["primary_ips"][0];
                assert!(address["assignee_id"].is_null(), "{address:#}");
                assert_eq!(repo["secrets"], json!([]));
                assert_eq!(repo["variables"], json!({}));
                assert_eq!(stage.sql("select coalesce(rest, state) from vm"), ["kept"]);
                assert_eq!(stage.retirements(), ["kept"]);
            }
            Self::Restore => {
                assert_eq!(stage.counts().await, [1, 1, 1]);
                assert_eq!(stage.kept().await, [0, 1]);
                assert_eq!(stage.server().await.0, "running");
                assert_eq!(repo["secrets"].as_array().map_or(0, Vec::len), 1, "{repo:#}");
                assert_eq!(stage.sql("select coalesce(rest, state) from vm"), ["ready"]);
                assert_eq!(stage.retirements(), ["restored"]);
                assert_eq!(stage.serving().await.len(), 1, "what ran runs");
            }
            Self::Configure => {
                let config = stage.file("config/deploy.staging.yml", "main").await;
                for line in ["      memory: 256m\n", "  response_timeout: 90\n"] {
                    assert!(config.contains(line), "{line} in {config}");
                }
                assert_eq!(
                    stage.sql(
                        "select cast(run ->> '$.response_timeout_s' as text) from environment"
                    ),
                    ["90"]
                );
                assert_eq!(stage.commits("main").await.len(), 5, "one more than the deploy's");
            }
            Self::Domain => {
                let state = stage.sandbox.cloudflare().state();
                let records = state["zones"][0]["records"].as_array().expect("a list").clone();
                let of_name = |name: &str| {
                    let own = |one: &&Value| one["name"] == name;
                    records.iter().filter(own).cloned().collect::<Vec<Value>>()
                };
                assert_eq!(of_name("shop.example.com").len(), 2, "the name before stays");
                let records = of_name("app.example.com");
                assert_eq!(records.len(), 2, "A and AAAA: {records:#?}");
                let server = stage.cloud().await["servers"][0]["public_net"]["ipv4"]["ip"].clone();
                assert_eq!(records[0]["content"], server);
                let ipv6 = stage.sql("select ipv6 from vm").remove(0);
                assert_eq!(records[1]["content"], ipv6);
                assert_eq!(records[0]["proxied"], false);
                assert_eq!(stage.sql("select domain from environment"), ["app.example.com"]);
                let result = stage.row(id).await.result.expect("a result");
                assert_eq!(result["wrong"], json!([]), "the name servers say it");
            }
            Self::AddService | Self::UpgradeService => {
                let version = if self == Self::AddService { "17.6" } else { "17.7" };
                let row = format!("postgres {version} ready");
                assert_eq!(stage.services(), [row]);
                let container = stage.machine().docker().get(DATABASE).expect("a container");
                assert!(container.running);
                assert_eq!(container.image, format!("postgres:{version}"));
                assert_eq!(stage.volumes(), [DATABASE]);
                assert!(stage.config().await.contains(&format!("postgres:{version}")));
                assert_eq!(stage.address_keys(), ["DATABASE_URL set"]);
                assert_eq!(stage.serving().await.len(), 1, "the app runs on");
            }
            Self::RemoveService => {
                assert_eq!(stage.services(), Vec::<String>::new());
                assert!(stage.machine().docker().get(DATABASE).is_none());
                assert_eq!(stage.volumes(), Vec::<String>::new());
                assert!(!stage.machine().has_file("/etc/vmkit/env/shop/staging.db.env"));
                assert!(!stage.config().await.contains("accessories"));
                assert_eq!(stage.address_keys(), ["DATABASE_URL unset"]);
                let left = stage.sql("select id from secret where purpose = 'service_password'");
                assert_eq!(left, Vec::<String>::new());
            }
            Self::TestBuild => {
                let result = stage.row(id).await.result.expect("a result");
                assert_eq!(runs_of(&repo, &json!({ "deploy": id })), 1, "{repo:#}");
                let images = stage.sandbox.github().everything()["images"].clone();
                assert!(images.as_array().is_some_and(|all| all.contains(&result["image"])));
                assert_eq!(stage.counts().await, [0, 0, 0], "nothing was bought");
                assert_eq!(stage.sql("select id from deploy"), Vec::<String>::new());
            }
            Self::Stop => {
                assert_eq!(stage.serving().await, Vec::<Value>::new());
                let result = stage.row(id).await.result.expect("a result");
                assert_eq!(result["runs_now"], "nothing");
            }
        }
    }
}

/// What the environment's app is limited to.
pub(crate) fn limits() -> configure_app::Wanted {
    let web = configure_app::web().expect("a name");
    configure_app::Wanted {
        memory_mb: [(web, 256)].into(),
        response_timeout_s: Some(90),
        ..configure_app::Wanted::default()
    }
}

/// The container of the database, and its volume.
pub(crate) const DATABASE: &str = "shop-staging-db";

/// A request about the database beside the app.
pub(crate) fn database(action: services::Action, version: Option<&str>) -> ServiceRequest {
    ServiceRequest {
        environment: staging(),
        kind: ServiceKind::Postgres,
        action,
        version: version.map(str::to_owned),
        memory_mb: None,
    }
}

/// The name that the environment gets.
pub(crate) fn app_name() -> Asked {
    Asked::Name("app.example.com".parse().expect("a domain"))
}

pub(crate) fn begun(started: Result<Started, OpError>) -> Result<OperationId, OpError> {
    match started? {
        Started::Operation(id) => Ok(id),
        Started::NeedsApproval(plan) => panic!("{plan:?} waits for a person"),
    }
}

fn setup_request() -> SetupRequest {
    SetupRequest {
        repo: "octo/shop".parse().expect("a repo"),
        app: None,
        root: ".".to_owned(),
        environments: vec!["staging".parse().expect("a name")],
        changes: Changes::Direct,
    }
}

async fn kept_or_undone(stage: &Stage, wanted: Wanted) -> Result<OperationId, OpError> {
    let plan = destroy::plan(stage.context(), &staging(), wanted).await?;
    let ask = Ask::by("test");
    begun(destroy::start(stage.context(), &staging(), Some(wanted), plan.id, ask).await)
}

async fn deploy_of(stage: &Stage, version: Version) -> Result<OperationId, OpError> {
    deploy::start(stage.context(), of(version), Ask::by("test")).await
}

fn of(version: Version) -> DeployRequest {
    let ignore_checks = Vec::new();
    DeployRequest { environment: staging(), version, expect_sha: None, ignore_checks }
}

/// How many pull requests are in a state.
pub(crate) fn pulls(repo: &Value, state: &str) -> usize {
    let pulls = repo["pulls"].as_array().expect("a list");
    pulls.iter().filter(|pull| pull["state"] == state).count()
}

/// How many workflow runs there are of the deploy that `result` names.
pub(crate) fn runs_of(repo: &Value, result: &Value) -> usize {
    let runs = repo["runs"].as_array().expect("a list");
    runs.iter().filter(|run| run["inputs"]["deploy_id"] == result["deploy"]).count()
}

impl Stage {
    /// The services that the state file has.
    pub(crate) fn services(&self) -> Vec<String> {
        self.sql("select kind || ' ' || version || ' ' || state from service order by id")
    }

    /// The volumes on the VM.
    pub(crate) fn volumes(&self) -> Vec<String> {
        let machines = self.sandbox.machines().list();
        let folder = machines.first().map(|one| one.path("/var/lib/docker/volumes"));
        let entries = folder.into_iter().filter_map(|one| std::fs::read_dir(one).ok()).flatten();
        let mut names: Vec<String> =
            entries.flatten().map(|one| one.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The containers beside the apps, and the env files of services.
    pub(crate) fn accessories(&self) -> Vec<String> {
        let Some(machine) = self.sandbox.machines().list().into_iter().next() else {
            return Vec::new();
        };
        let all = machine.docker().list().into_iter();
        let beside = all
            .filter(|one| one.labels.contains_key("service") && !one.labels.contains_key("role"));
        let mut names: Vec<String> =
            beside.map(|one| format!("{} {} {}", one.name, one.image, one.running)).collect();
        let entries = std::fs::read_dir(machine.path("/etc/vmkit/env/shop"));
        let files = entries.into_iter().flatten().flatten();
        let files = files.map(|one| one.file_name().to_string_lossy().into_owned());
        names.extend(files.filter(|name| name.matches('.').count() == 2));
        names.sort();
        names
    }

    /// Whether the app's newest env values have the database's address.
    pub(crate) fn address_keys(&self) -> Vec<String> {
        self.sql(
            "select key || case when sealed is null then ' unset' else ' set' end from env_var
             where key like '%_URL' and revision = (select max(revision) from env_var newer
                 where newer.key = env_var.key and newer.environment = env_var.environment)",
        )
    }

    /// The Kamal config in the repo's default branch.
    pub(crate) async fn config(&self) -> String {
        use base64::Engine;
        use base64::prelude::BASE64_STANDARD;
        let path = "/repos/octo/shop/contents/config/deploy.staging.yml";
        let file = self.github("GET", path, None).await;
        let content = file["content"].as_str().expect("content").replace('\n', "");
        let content = BASE64_STANDARD.decode(content).expect("base64");
        String::from_utf8(content).expect("UTF-8")
    }

    pub(crate) async fn create_environment(&self) {
        let settings = Settings {
            provider: None,
            size: "cpx22".parse().expect("a size"),
            region: "fsn1".parse().expect("a region"),
            domain: Some("shop.example.com".parse().expect("a domain")),
            port: 8080,
            health_path: "/up".to_owned(),
            protected: false,
        };
        let new = NewEnvironment { path: staging(), settings, vm: None };
        environments::create(self.context(), new).await.expect("created");
    }

    pub(crate) async fn set_env(&self, key: &str, value: &str) {
        let change = env::Change {
            key: key.parse().expect("a key"),
            value: Some(Secret::new(value)),
            class: EnvClass::Secret,
        };
        env::set(self.context(), &staging(), vec![change]).await.expect("set");
    }

    /// Pushes a version of the sample app to the default branch, as its developer.
    pub(crate) async fn push(&self, text: &str, fault: Option<&str>) {
        use base64::Engine;
        use base64::prelude::BASE64_STANDARD;
        let path = "/repos/octo/shop/contents/sample.toml";
        let there = self.github("GET", path, None).await;
        let content = BASE64_STANDARD.encode(vmkit_sandbox::sample::sample_toml(text, fault));
        let body = json!({ "message": text, "content": content, "sha": there["sha"] });
        self.github("PUT", path, Some(body)).await;
    }

    /// Visits the app's front page, at the VM's address.
    pub(crate) async fn visit(&self) {
        let state = self.cloud().await;
        let machine = &state["machines"][0];
        let address = machine["address"].as_str().expect("an address");
        let url = format!("http://{address}:{}/", machine["proxy_port"]);
        let page = self.http.get(url).header("host", "shop.example.com");
        page.send().await.expect("an answer");
    }

    /// The versions of the app's containers that run, as the machine itself lists them.
    pub(crate) async fn serving(&self) -> Vec<Value> {
        let state = self.cloud().await;
        let machines = state["machines"].as_array().expect("a list");
        let all = machines.iter().flat_map(|one| one["containers"].as_array().expect("a list"));
        let running = all.filter(|one| one["running"] == true && one["labels"]["role"] == "web");
        let version = |one: &Value| {
            let name = one["name"].as_str().expect("a name");
            name.rsplit('-').next().expect("a version").into()
        };
        running.map(version).collect()
    }
}
