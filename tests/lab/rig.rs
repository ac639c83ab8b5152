//! What a lab scenario stands on: the lab, the simulators, VMKit as a process, a real MCP client.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams,
    ElicitResult, ElicitationAction, Implementation, ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt, RequestContext, RoleClient, RunningService,
};
use rmcp::transport::TokioChildProcess;
use rmcp::{ClientHandler, ErrorData};
use serde_json::{Value, json};
use vmkit_sandbox::lab::Lab;
use vmkit_sandbox::{Options, Sandbox};

use crate::hour::an_hour_passes;
use crate::skips::skip;

/// How long a condition may take; far more than it needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// A person at a client, who types this when asked.
#[derive(Clone)]
pub(crate) struct Person {
    types: &'static str,
}

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let can = ClientCapabilities::builder().enable_elicitation().build();
        ClientConfig::new(can, Implementation::new("lab", "1"))
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let answer = json!({ "confirm": self.types });
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(answer))
    }
}

pub(crate) type Client = RunningService<RoleClient, Person>;

/// The lab and an installation of VMKit that knows only its addresses.
pub(crate) struct Rig {
    pub(crate) lab: Lab,
    pub(crate) sandbox: Sandbox,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) authorities: String,
    settings: Vec<(&'static str, String)>,
    began: Instant,
    told: Arc<Mutex<Duration>>,
}

impl Rig {
    /// None where the lab cannot be; that is said aloud, and a failure where skips are forbidden.
    pub(crate) async fn new() -> Option<Self> {
        let began = Instant::now();
        drop(rustls::crypto::ring::default_provider().install_default());
        let host = match engine() {
            Ok(host) => host,
            Err(why) => {
                skip("the lab", &why);
                return None;
            }
        };
        let folder = tempfile::tempdir().expect("a folder");
        let programs = programs(folder.path());
        let proxy = programs.join("kamal-proxy");
        let lab = tokio::task::spawn_blocking(move || Lab::start(&host, &proxy));
        let lab = lab.await.expect("no panic").expect("a lab");
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_vmkit"));
        let options = Options { exe, lab: Some(lab.clone()), ..Options::default() };
        let sandbox = Sandbox::start(options).await.expect("a sandbox");
        lab.start_authority(sandbox.names().address()).expect("an authority");
        let authorities = lab.authorities().expect("certificates");
        let bundle = folder.path().join("authorities.pem");
        std::fs::write(&bundle, &authorities).expect("a file");
        let mut settings = sandbox.settings();
        settings.push(("VMKIT_OWNER_KEY", owner_key(folder.path())));
        settings.push(("VMKIT_STEADY_SECONDS", "3".to_owned()));
        settings.push(("VMKIT_AGENT_DIR", programs.display().to_string()));
        settings.push(("SSL_CERT_FILE", bundle.display().to_string()));
        let told = Arc::new(Mutex::new(Duration::ZERO));
        let rig = Self { lab, sandbox, folder, authorities, settings, began, told };
        rig.tell("the lab is up");
        Some(rig)
    }

    /// Ends the simulators and removes everything that the lab made.
    pub(crate) async fn stop(self) {
        self.tell("the end");
        self.sandbox.stop().await;
        tokio::task::spawn_blocking(move || self.lab.stop()).await.expect("no panic");
    }

    /// A line of the transcript, with the time since the beginning and since the last line.
    pub(crate) fn tell(&self, what: &str) {
        let now = self.began.elapsed();
        let mut last = self.told.lock().expect("a lock");
        let since = now.saturating_sub(*last);
        *last = now;
        eprintln!("{:6.1} s  (+{:5.1})  {what}", now.as_secs_f64(), since.as_secs_f64());
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        let found = self.settings.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).expect("a setting")
    }

    /// Gives a setting another value, for clients that begin after this.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.to_owned()));
    }

    /// What every process of VMKit finds in its environment here.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let home = self.folder.path().join("state").display().to_string();
        let settings =
            self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let idle = ("VMKIT_WORKER_IDLE_SECONDS".to_owned(), "0.5".to_owned());
        settings.chain([("VMKIT_HOME".to_owned(), home), idle]).collect()
    }

    /// VMKit on this state, with nothing of this process's environment but PATH.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmkit"));
        let path = std::env::vars_os().filter(|(name, _)| name == "PATH");
        command.env_clear().envs(path).envs(self.pairs()).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// A session with `vmkit mcp`; the person at it types this when asked.
    pub(crate) async fn client(&self, types: &'static str) -> Client {
        let mut command = self.command(&["mcp"]);
        command.stdin(Stdio::piped());
        let child = TokioChildProcess::new(tokio::process::Command::from(command));
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        let era = ClientLifecycleMode::Discover { preferred_versions };
        let person = Person { types };
        person.serve_with_lifecycle(child.expect("a child"), era).await.expect("a session")
    }

    /// A request to the simulated GitHub as the repo's developer; `path` begins after the API's URL.
    pub(crate) async fn developer(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Value {
        let url = format!("{}{path}", self.setting("VMKIT_GITHUB_URL"));
        let mut request = reqwest::Client::new().request(method, url);
        request = request.bearer_auth(self.setting("VMKIT_GITHUB_TOKEN"));
        request = request.header("user-agent", "lab");
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// Runs a shell script in the one VM and returns what it printed.
    pub(crate) fn on_vm(&self, script: &str) -> String {
        let machines = self.sandbox.machines().list();
        let name = machines.first().and_then(|machine| machine.container()).expect("a VM");
        self.lab.exec(&name, &["sh", "-c", script]).unwrap_or_else(|error| error.to_string())
    }

    /// The ids of the processes that drive operations on this state.
    fn drivers(&self) -> Vec<u32> {
        let home = self.folder.path().display().to_string();
        let ids = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (line.contains(&home) && line.contains(" worker ")).then_some(id)
        });
        ids.collect()
    }

    /// Ends the process that drives operations, as a laptop does whose lid is closed for good.
    pub(crate) async fn kill_driver(&self) {
        let drivers = self.drivers();
        assert_eq!(drivers.len(), 1, "one process drives");
        let id = drivers[0].to_string();
        let killed = Command::new("kill").args(["-KILL", &id]).status();
        assert!(killed.expect("kill runs").success());
        until("the driver is gone", async || !self.drivers().contains(&drivers[0])).await;
    }

    /// A laptop that is closed for an hour: the client's process stands still, and would start another
    /// driver for the one that is killed; the simulated cloud, GitHub and the VM go on.
    pub(crate) async fn sleeps_for_an_hour(&self) {
        let face = self.face().to_string();
        let signal = |name: &str| {
            let sent = Command::new("kill").args([name, &face]).status();
            assert!(sent.expect("kill runs").success(), "{name}");
        };
        signal("-STOP");
        self.kill_driver().await;
        an_hour_passes(&self.folder.path().join("state/vmkit.db"));
        assert_eq!(self.drivers(), [0_u32; 0], "nobody drove meanwhile");
        signal("-CONT");
    }

    /// The id of the process that talks with the client.
    fn face(&self) -> u32 {
        let here = std::process::id().to_string();
        let ids = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let parent = state.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            (parent == here && line.ends_with(b"\0mcp\0")).then_some(id)
        });
        let ids: Vec<u32> = ids.collect();
        assert_eq!(ids.len(), 1, "one client");
        ids[0]
    }

    /// Cuts the one VM's power at its cloud, as its owner would in the console.
    pub(crate) async fn cut_power(&self) {
        let api = format!("{}/v1/servers", self.sandbox.hetzner_admin_url());
        let token = self.setting("VMKIT_HETZNER_TOKEN");
        let http = reqwest::Client::new();
        let listed = http.get(&api).bearer_auth(token).send().await.expect("an answer");
        let listed: Value = listed.json().await.expect("JSON");
        let url = format!("{api}/{}/actions/poweroff", listed["servers"][0]["id"]);
        let cut = http.post(url).bearer_auth(token).send().await.expect("an answer");
        assert!(cut.status().is_success(), "{cut:?}");
    }

    /// Waits until nothing of VMKit runs any more.
    pub(crate) async fn quiet(&self) {
        until("no driver", async || self.drivers().is_empty()).await;
    }

    /// The address of the one VM.
    pub(crate) fn address(&self) -> std::net::IpAddr {
        self.sandbox.machines().list().first().expect("a VM").address()
    }

    /// A client that finds `name` at the VM and trusts the lab's authorities.
    pub(crate) fn visitor(&self, name: &str) -> reqwest::Client {
        let mut builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60));
        for port in [80, 443] {
            let at = std::net::SocketAddr::new(self.address(), port);
            builder = builder.resolve_to_addrs(name, &[at]);
        }
        let roots = reqwest::Certificate::from_pem_bundle(self.authorities.as_bytes());
        builder = builder.tls_certs_only(roots.expect("certificates"));
        builder.build().expect("a client")
    }
}

/// Calls a tool, and waits for the end of what it started.
pub(crate) async fn call(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    ended(client, once(client, tool, arguments).await).await
}

/// Waits for the end of what an answer says is running.
pub(crate) async fn ended(client: &Client, mut answer: CallToolResult) -> CallToolResult {
    let began = Instant::now();
    let mut operation = Value::Null;
    while text(&answer).starts_with("RUNNING ") || data_of(&answer)["state"] == "running" {
        assert!(began.elapsed() < 3 * DEADLINE, "still running: {}", text(&answer));
        if operation.is_null() {
            operation = data(&answer)["operation"].clone();
        }
        let wait = json!({"operation": operation, "wait_seconds": 50});
        answer = once(client, "get_operation", wait).await;
    }
    answer
}

/// Calls a tool.
pub(crate) async fn once(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let Value::Object(arguments) = arguments else { panic!("an object") };
    let request = CallToolRequestParams::new(tool).with_arguments(arguments);
    client.call_tool(request).await.expect("an answer")
}

pub(crate) fn text(result: &CallToolResult) -> &str {
    result.content[0].as_text().map(|text| text.text.as_str()).expect("text")
}

pub(crate) fn data(result: &CallToolResult) -> &Value {
    result.structured_content.as_ref().unwrap_or_else(|| panic!("no data: {result:?}"))
}

/// The data of an answer; null where it is an error.
pub(crate) fn data_of(result: &CallToolResult) -> Value {
    result.structured_content.clone().unwrap_or_default()
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waited).await.is_ok(), "in vain: {what}");
}

/// The engine's address, with the lab's images in it.
fn engine() -> Result<String, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = |name: &str, host: Option<&str>| {
        let mut command = Command::new(here.join("scripts").join(name));
        command.current_dir(here).stdin(Stdio::null());
        command.envs(host.map(|host| ("DOCKER_HOST", host)));
        let output = command.output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match output.status.success() {
            true => Ok(said),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    };
    let host = format!("unix://{}", script("docker-engine", None)?);
    script("lab-images", Some(&host))?;
    Ok(host)
}

/// A folder with the agent and the proxy's stand-in, without what only a debugger reads.
fn programs(folder: &Path) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_vmkit")).parent().expect("a folder");
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "--locked", "-p", "vmkit-agent", "-p", "vmkit-lab-proxy"]);
    build.env("CARGO_TARGET_DIR", built.parent().expect("a folder"));
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).status();
    assert!(status.expect("cargo runs").success(), "the lab's programs are built");
    let programs = folder.join("programs");
    std::fs::create_dir_all(&programs).expect("a folder");
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let agent = format!("vmkit-agent-{arch}");
    for (from, to) in [("vmkit-agent", agent.as_str()), ("kamal-proxy", "kamal-proxy")] {
        let (from, to) = (built.join(from), programs.join(to));
        let stripped = Command::new("strip").arg("-o").args([&to, &from]).status();
        if !stripped.is_ok_and(|status| status.success()) {
            std::fs::copy(from, to).expect("a copy");
        }
    }
    programs
}

/// The owner's key pair; the private half is `owner` in the folder.
fn owner_key(folder: &Path) -> String {
    let mut random = ssh_key::rand_core::OsRng;
    let key = ssh_key::PrivateKey::random(&mut random, ssh_key::Algorithm::Ed25519);
    let key = key.expect("a key");
    key.write_openssh_file(&folder.join("owner"), ssh_key::LineEnding::LF).expect("a file");
    key.public_key().to_openssh().expect("a line")
}
