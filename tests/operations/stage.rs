//! A sandbox and an installation on it, whose driver can be killed and started again.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vmkit::config::{Environment, Flags, Settings};
use vmkit::domain::clock::Clock;
use vmkit::domain::ids::OperationId;
use vmkit::domain::names::EnvironmentPath;
use vmkit::installation::{Part, open};
use vmkit::operations::Context;
use vmkit::store::{OperationRow, StepRow};
use vmkit_sandbox::faults::{Action, Faults, Rule};
use vmkit_sandbox::{Options, Sandbox};

use crate::driving::{Driving, free_address};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(10);

/// Every door, in the order of [`Stage::last_requests`].
pub(crate) const DOORS: [At; 3] = [At::Cloud, At::GitHub, At::Dns];

/// Whose door a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Cloud,
    GitHub,
    Dns,
}

pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) settings: Settings,
    pub(crate) pairs: Vec<(String, String)>,
    face: Context,
    driving: Option<Driving>,
    pub(crate) http: reqwest::Client,
    home: TempDir,
}

impl Stage {
    /// A sandbox, and an empty installation that nobody drives yet.
    pub(crate) async fn set_up() -> Self {
        let address = free_address();
        Self::with(&[
            ("VMKIT_AGENT_LISTEN", address.to_string()),
            ("VMKIT_PUBLIC_URL", format!("http://{address}")),
        ])
        .await
    }

    /// The same on a laptop: no address where an agent could dial to.
    pub(crate) async fn without_address() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(more: &[(&str, String)]) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let options = Options { exe: env!("CARGO_BIN_EXE_vmkit").into(), ..Options::default() };
        let sandbox = Sandbox::start(options).await.expect("a sandbox");
        let home = tempfile::tempdir().expect("a folder");
        // The sandbox's VMs play the agent themselves; what is hashed for them may be small.
        for arch in ["amd64", "arm64"] {
            let agent = home.path().join(format!("agents/vmkit-agent-{arch}"));
            std::fs::create_dir_all(agent.parent().expect("a folder")).expect("made");
            std::fs::write(agent, "an agent").expect("written");
        }
        let mut pairs: Vec<(String, String)> =
            sandbox.settings().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        pairs.extend([
            ("VMKIT_HOME".to_owned(), home.path().join("state").display().to_string()),
            ("VMKIT_AGENT_DIR".to_owned(), home.path().join("agents").display().to_string()),
            ("VMKIT_OWNER_KEY".to_owned(), owner_key()),
            ("VMKIT_STEADY_SECONDS".to_owned(), "0.3".to_owned()),
        ]);
        pairs.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let environment: Environment = pairs.clone().into_iter().collect();
        let settings = Settings::resolve(&Flags::default(), &environment).expect("settings");
        let face = open(&settings, Part::Face, Clock::wall()).await.expect("open");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { sandbox, settings, pairs, face, driving: None, http, home }
    }

    /// What a second process on the same file sees: it starts operations, and drives none.
    pub(crate) fn context(&self) -> &Context {
        &self.face
    }

    /// Starts a process that drives.
    pub(crate) fn drive(&mut self) {
        assert!(self.driving.is_none(), "somebody drives already");
        let log = std::fs::File::options().create(true).append(true).open(self.log_path());
        self.driving = Some(Driving::process(&self.pairs, log.expect("a log")));
    }

    /// Drives in this process beside one that drives already but stands still: at another address,
    /// to which VMs that are ordered from now on dial. Returns the one that stands still.
    pub(crate) async fn drive_beside(&mut self) -> Driving {
        let still = self.driving.take().expect("somebody drives");
        let mut settings = self.settings.clone();
        let address = free_address();
        settings.agent_listen = Some(address);
        settings.public_url = Some(format!("http://{address}").parse().expect("a URL"));
        self.driving = Some(Driving::here(&settings, Clock::wall(), |_| {}).await);
        still
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("worker.log")
    }

    /// Waits until the log of the driving processes has a word.
    pub(crate) async fn until_logged(&self, word: &str) {
        let has = || std::fs::read_to_string(self.log_path()).is_ok_and(|log| log.contains(word));
        self.until(word, async || has().then_some(())).await;
    }

    /// Drives in this process.
    pub(crate) async fn drive_here(&mut self) {
        self.drive_here_with(Clock::wall(), |_| {}).await;
    }

    /// Drives in this process, on another clock and a changed context.
    pub(crate) async fn drive_here_with(
        &mut self,
        clock: Clock,
        change: impl FnOnce(&mut Context),
    ) {
        assert!(self.driving.is_none(), "somebody drives already");
        self.driving = Some(Driving::here(&self.settings, clock, change).await);
    }

    /// Ends whoever drives, in the middle of whatever it does.
    pub(crate) async fn kill(&mut self) {
        self.driving.take().expect("somebody drives").kill().await;
    }

    /// The process that drives.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        self.driving.as_ref().and_then(Driving::pid).expect("a process drives")
    }

    /// The faults and the record of one simulator.
    pub(crate) fn faults(&self, at: At) -> &Faults {
        match at {
            At::Cloud => self.sandbox.hetzner_faults(),
            At::GitHub => self.sandbox.github_faults(),
            At::Dns => self.sandbox.cloudflare_faults(),
        }
    }

    /// Plays `action` on the next request of this kind; for ever where `times` is none.
    pub(crate) fn fault(
        &self,
        (at, method, path): (At, &str, &str),
        action: Action,
        times: Option<u32>,
    ) {
        let rule =
            Rule { method: Some(method.to_owned()), path_regex: path.to_owned(), action, times };
        self.faults(at).add(rule).expect("a rule");
    }

    /// Waits until a simulator holds a request; its number. Nothing where the operation ends first.
    pub(crate) async fn held(&self, at: At, operation: OperationId) -> Option<u64> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(held) = self.faults(at).held().first() {
                return Some(held.id);
            }
            if self.row(operation).await.state.is_ended() {
                return None;
            }
            assert!(tokio::time::Instant::now() < deadline, "nothing is held");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets what is held take its course, and waits until it has.
    pub(crate) async fn release(&self, at: At, id: u64) {
        self.faults(at).release(id);
        let answered = |id| {
            let requests = self.faults(at).requests();
            requests.iter().any(|one| one.id == id && one.status.is_some())
        };
        self.until("the released request is answered", async || answered(id).then_some(())).await;
    }

    pub(crate) async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) async fn row(&self, id: OperationId) -> OperationRow {
        self.face.store.operation(id).await.expect("read").expect("a row")
    }

    pub(crate) async fn steps(&self, id: OperationId) -> Vec<StepRow> {
        self.face.store.steps(id).await.expect("read")
    }

    /// Waits until an operation is over.
    pub(crate) async fn end_of(&self, id: OperationId) -> OperationRow {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let row = self.row(id).await;
            if row.state.is_ended() {
                return row;
            }
            let steps = self.steps(id).await;
            assert!(tokio::time::Instant::now() < deadline, "{row:#?} does not end: {steps:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The cloud's own lists.
    pub(crate) async fn cloud(&self) -> Value {
        self.sandbox.hetzner().state().await
    }

    /// How many servers, firewalls and keys the cloud lists.
    pub(crate) async fn counts(&self) -> [usize; 3] {
        let state = self.cloud().await;
        let count = |name: &str| state[name].as_array().map_or(0, Vec::len);
        [count("servers"), count("firewalls"), count("ssh_keys")]
    }

    /// How many snapshots and IPv4 addresses of their own the cloud lists.
    pub(crate) async fn kept(&self) -> [usize; 2] {
        let state = self.cloud().await;
        [state["snapshots"].as_array().map_or(0, Vec::len), own_addresses(&state).len()]
    }

    /// The states of the retirements, the oldest first.
    pub(crate) fn retirements(&self) -> Vec<String> {
        self.sql("select state from retirement where state != 'undone' order by id")
    }

    /// What the simulated GitHub has of the sample repo.
    pub(crate) async fn repo(&self) -> Value {
        let url = format!("{}/_sandbox/state", self.sandbox.github_admin_url());
        let state: Value = self.http.get(url).send().await.expect("sent").json().await.expect("it");
        state["repos"][0].clone()
    }

    /// Calls the simulated GitHub as a person would.
    pub(crate) async fn github(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.sandbox.github_admin_url());
        let token = self.pairs.iter().find(|(name, _)| name == "VMKIT_GITHUB_TOKEN");
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, url).header("user-agent", "test");
        request = request.bearer_auth(&token.expect("a token").1);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        answer.json().await.unwrap_or_default()
    }

    /// Makes the simulated GitHub behave otherwise.
    pub(crate) async fn github_knobs(&self, knobs: Value) {
        self.github("PUT", "/_sandbox/knobs", Some(knobs)).await;
    }

    /// Cuts a server's power, as its owner would in the console.
    pub(crate) async fn power_off(&self, server: &str) {
        let token = self.pairs.iter().find(|(name, _)| name == "VMKIT_HETZNER_TOKEN");
        let url =
            format!("{}/v1/servers/{server}/actions/poweroff", self.sandbox.hetzner_admin_url());
        let sent = self.http.post(url).bearer_auth(&token.expect("a token").1).send().await;
        assert!(sent.expect("an answer").status().is_success());
        self.until("the server is off", async || {
            let state = self.cloud().await;
            (state["servers"][0]["status"] == "off").then_some(())
        })
        .await;
    }

    /// Calls the simulated cloud as its owner would.
    pub(crate) async fn cloud_post(&self, path: &str, body: Value) -> Value {
        let token = self.pairs.iter().find(|(name, _)| name == "VMKIT_HETZNER_TOKEN");
        let url = format!("{}/v1/{path}", self.sandbox.hetzner_admin_url());
        let request = self.http.post(url).bearer_auth(&token.expect("a token").1).json(&body);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        answer.json().await.expect("JSON")
    }

    /// Changes a thing of the simulated cloud as its owner would.
    pub(crate) async fn cloud_put(&self, path: &str, body: Value) {
        let token = self.pairs.iter().find(|(name, _)| name == "VMKIT_HETZNER_TOKEN");
        let url = format!("{}/v1/{path}", self.sandbox.hetzner_admin_url());
        let request = self.http.put(url).bearer_auth(&token.expect("a token").1).json(&body);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {answer:?}");
    }

    /// Merges every open pull request of the sample repo, as its maintainer.
    pub(crate) async fn merge_pulls(&self) {
        let pulls = self.github("GET", "/repos/octo/shop/pulls?state=open", None).await;
        for pull in pulls.as_array().expect("a list") {
            let path = format!("/repos/octo/shop/pulls/{}/merge", pull["number"]);
            self.github("PUT", &path, Some(json!({}))).await;
        }
    }

    /// A file of the sample repo, as a branch has it.
    pub(crate) async fn file(&self, path: &str, branch: &str) -> String {
        use base64::Engine;
        let path = format!("/repos/octo/shop/contents/{path}?ref={branch}");
        let found = self.github("GET", &path, None).await;
        let packed: String = found["content"].as_str().expect("text").split_whitespace().collect();
        let bytes = base64::prelude::BASE64_STANDARD.decode(packed).expect("base64");
        String::from_utf8(bytes).expect("text")
    }

    /// Edits a file of the sample repo, as its developer.
    pub(crate) async fn edit(&self, path: &str, branch: &str, from: &str, to: &str) {
        use base64::Engine;
        let old = self.file(path, branch).await;
        assert!(old.contains(from), "{from} in {old}");
        let content = base64::prelude::BASE64_STANDARD.encode(old.replacen(from, to, 1));
        let place = format!("/repos/octo/shop/contents/{path}");
        let there = self.github("GET", &format!("{place}?ref={branch}"), None).await;
        let body = json!({
            "message": "Edit by hand", "content": content, "sha": there["sha"], "branch": branch
        });
        self.github("PUT", &place, Some(body)).await;
    }

    /// The commits of a branch, newest first.
    pub(crate) async fn commits(&self, branch: &str) -> Vec<String> {
        let path = format!("/repos/octo/shop/commits?sha={branch}&per_page=100");
        let commits = self.github("GET", &path, None).await;
        let list = commits.as_array().expect("a list");
        list.iter().map(|commit| commit["sha"].as_str().expect("a sha").to_owned()).collect()
    }

    /// The file that is handed out as the agent of a VM.
    pub(crate) fn agent_file(&self, arch: &str) -> PathBuf {
        self.home.path().join(format!("agents/vmkit-agent-{arch}"))
    }

    /// Runs the command line on this installation.
    pub(crate) async fn vmkit(&self, args: &[&str]) -> String {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_vmkit"));
        command.env_clear().envs(self.pairs.iter().cloned()).args(args);
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = command.output().await.expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Looks into the state file without VMKit's own code.
    pub(crate) fn sql(&self, query: &str) -> Vec<String> {
        let path: PathBuf = self.settings.home.database();
        let db = rusqlite::Connection::open(path).expect("the file");
        db.busy_timeout(Duration::from_secs(10)).expect("set");
        let mut select = db.prepare(query).expect("a query");
        let rows = select.query_map([], |row| row.get::<_, String>(0)).expect("rows");
        rows.map(|row| row.expect("a row")).collect()
    }

    /// Changes the state file without VMKit's own code.
    pub(crate) fn write_sql(&self, statement: &str) {
        let db = rusqlite::Connection::open(self.settings.home.database()).expect("the file");
        db.busy_timeout(Duration::from_secs(10)).expect("set");
        db.execute(statement, []).expect("written");
    }

    /// Nobody holds a lock; every server is named by a VM that an environment has, and every
    /// snapshot and address of ours by a row that a sweep, an undo or a destroy finds it by.
    pub(crate) async fn nothing_is_lost(&self) {
        assert_eq!(self.sql("select resource from operation_lock"), Vec::<String>::new());
        let named = self.sql(
            "select coalesce(vm.provider_id, '') || ' vmkit-' || lower(substr(vm.id, 4)) from vm
             join environment on environment.vm = vm.id where vm.state != 'deleted'",
        );
        let state = self.cloud().await;
        let ours = |one: &&Value| !one["labels"]["vmkit.io/installation"].is_null();
        for server in state["servers"].as_array().expect("a list").iter().filter(ours) {
            let name = server["name"].as_str().expect("a name").to_lowercase();
            let id = server["id"].to_string();
            let known = |row: &String| {
                row.split_once(' ').is_some_and(|(own, by_us)| own == id || by_us == name)
            };
            assert!(named.iter().any(known), "server {name} is named by nobody: {named:?}");
        }
        let named = self.sql(
            "select snapshot_name from retirement where snapshot_name is not null
             and (state = 'kept' or snapshot is not null) and state != 'purged'",
        );
        for snapshot in state["snapshots"].as_array().expect("a list") {
            let name = snapshot["description"].as_str().expect("a name").to_owned();
            assert!(named.contains(&name), "snapshot {name} is named by nobody: {named:?}");
        }
        let named = self.sql(
            "select vm.address_id from vm join environment on environment.vm = vm.id
             where vm.state != 'deleted' and vm.address_id is not null",
        );
        for address in own_addresses(&state) {
            let id = address["id"].to_string();
            assert!(named.contains(&id), "address {address} is named by nobody: {named:?}");
        }
    }

    /// Ends everything.
    pub(crate) async fn tear_down(mut self) {
        if let Some(driving) = self.driving.take() {
            driving.kill().await;
        }
        self.sandbox.stop().await;
    }
}

/// The environment that all tests are about.
pub(crate) fn staging() -> EnvironmentPath {
    "shop/staging".parse().expect("a path")
}

/// The addresses that do not come and go with a server, as IPv6 ones do, and those that nobody
/// asked for.
fn own_addresses(state: &Value) -> Vec<&Value> {
    let all = state["primary_ips"].as_array().expect("a list").iter();
    all.filter(|one| one["type"] == "ipv4" && one["auto_delete"] == false).collect()
}

fn owner_key() -> String {
    use ssh_key::{Algorithm, PrivateKey, rand_core::OsRng};
    let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).expect("a key");
    key.public_key().to_openssh().expect("its line")
}
