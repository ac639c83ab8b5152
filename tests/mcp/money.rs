//! Sizes, capacity and costs as a client meets them, on the sandbox: what fits, what is sold out,
//! what is paid; and a second look at the simulator's own list.

use std::path::PathBuf;
use std::process::Stdio;

use rmcp::model::CallToolResult;
use rmcp::service::ClientServiceExt;
use rmcp::transport::TokioChildProcess;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use vmkit_sandbox::{Options, Sandbox};

use crate::rig::{Client, Rig, call, eras, error, text, until};

struct Stage {
    rig: Rig,
    sandbox: Sandbox,
    settings: Vec<(&'static str, String)>,
}

impl Stage {
    async fn new() -> Self {
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_vmkit"));
        let sandbox = Sandbox::start(Options { exe, ..Options::default() }).await;
        let sandbox = sandbox.expect("a sandbox");
        let mut settings = sandbox.settings();
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        settings.push(("VMKIT_AGENT_LISTEN", address.to_string()));
        settings.push(("VMKIT_PUBLIC_URL", format!("http://{address}")));
        let key = ssh_key::PrivateKey::random(
            &mut ssh_key::rand_core::OsRng,
            ssh_key::Algorithm::Ed25519,
        );
        let key = key.expect("a key").public_key().to_openssh().expect("a line");
        settings.push(("VMKIT_OWNER_KEY", key));
        settings.push(("VMKIT_STEADY_SECONDS", "0.2".to_owned()));
        Self { rig: Rig::new(), sandbox, settings }
    }

    async fn client(&self) -> Client {
        let [_, modern] = eras();
        let mut command = self.rig.command(&["mcp"]);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped());
        let child = TokioChildProcess::new(tokio::process::Command::from(command));
        ().serve_with_lifecycle(child.expect("a child"), modern).await.expect("a session")
    }

    fn setting(&self, name: &str) -> &str {
        let found = self.settings.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).expect("a setting")
    }

    /// Turns the simulated project's knobs.
    async fn knobs(&self, change: Value) {
        self.admin("knobs", change).await;
    }

    /// Adds a fault in front of the simulated project.
    async fn fault(&self, rule: Value) {
        self.admin("faults", rule).await;
    }

    async fn admin(&self, what: &str, body: Value) {
        let url = format!("{}/_sandbox/{what}", self.sandbox.hetzner_admin_url());
        let answer = reqwest::Client::new().post(url).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// What the simulated cloud itself says, asked without VMKit.
    async fn cloud(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/{path}", self.setting("VMKIT_HETZNER_URL"));
        let request = reqwest::Client::new().request(method, url);
        let request = request.bearer_auth(self.setting("VMKIT_HETZNER_TOKEN"));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// The app `shop` with its pipeline merged.
    async fn shop(&self, client: &Client) {
        let setup = call(client, "setup_repo", json!({"repo": "octo/shop"})).await;
        let number = data(&setup)["result"]["pull"].as_u64().expect("a pull request");
        let url =
            format!("{}/repos/octo/shop/pulls/{number}/merge", self.setting("VMKIT_GITHUB_URL"));
        let request = reqwest::Client::new().put(url).json(&json!({}));
        let request = request.bearer_auth(self.setting("VMKIT_GITHUB_TOKEN"));
        let merged = request.header("user-agent", "test").send().await.expect("an answer");
        assert_eq!(merged.status(), 200);
    }

    /// An environment with a plan for its VM.
    async fn planned(&self, client: &Client, size: &str) -> String {
        let made = json!({"environment": "shop/staging", "size": size, "region": "fsn1"});
        let made = call(client, "create_environment", made).await;
        assert!(text(&made).starts_with("DONE"), "{}", text(&made));
        let plan = call(client, "provision_vm", json!({"environment": "shop/staging"})).await;
        data(&plan)["plan_id"].as_str().expect("a plan").to_owned()
    }

    async fn end(self, client: Client) {
        client.cancel().await.expect("ended");
        until("the worker ends", || self.rig.workers().is_empty()).await;
        self.sandbox.stop().await;
    }
}

fn data(result: &CallToolResult) -> &Value {
    result.structured_content.as_ref().unwrap_or_else(|| panic!("no data: {result:?}"))
}

fn names(result: &CallToolResult) -> Vec<&str> {
    let sizes = data(result)["sizes"].as_array().expect("sizes");
    sizes.iter().filter_map(|size| size["size"].as_str()).collect()
}

#[tokio::test]
async fn sizes_are_ranked_for_a_need_and_what_nothing_meets_says_what_would() {
    let stage = Stage::new().await;
    stage.knobs(json!({"sold_out": [{"size": "cx33", "region": "fsn1"}, {"size": "cx43"}]})).await;
    let client = stage.client().await;
    let need = json!({"min_memory_gb": 8, "arch": "amd64", "max_monthly": "EUR 50"});
    let fitting = call(&client, "list_sizes", need).await;
    assert_eq!(names(&fitting)[..3], ["cx33", "cx53", "cpx32"]);
    let first = &data(&fitting)["sizes"][0];
    assert_eq!(
        (&first["monthly"], &first["suits"]),
        (&json!("EUR 8.99"), &json!("production with moderate traffic or sidecars"))
    );
    assert_eq!(first["sold_out"], json!(["fsn1"]));
    assert_eq!(first["traffic_gb"], 20_000);
    let said = text(&fitting);
    for word in ["Railway USD 80.00 to 160.00", "Heroku USD 500.00", "sold_out_too", "20 TB"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(said.len() < 5_000, "{} bytes", said.len());
    let all = json!({"min_memory_gb": 16, "max_monthly": "EUR 17", "sold_out_too": true});
    let all = call(&client, "list_sizes", all).await;
    assert_eq!(names(&all), ["cx43"]);
    assert!(text(&all).contains("SOLD OUT in"), "{}", text(&all));
    assert!(text(&all).contains("with a higher price"), "{}", text(&all));

    let none = json!({"region": "ash", "arch": "arm64"});
    let none = call(&client, "list_sizes", none).await;
    assert!(names(&none).is_empty());
    assert!(text(&none).contains("with any region: `cax11`"), "{}", text(&none));
    assert!(text(&none).contains("with the other architecture: `cpx11` in ash"), "{}", text(&none));
    // Growing only the disk is an answer too: the smallest size that does, with a volume.
    let disk = json!({"min_memory_gb": 4, "min_disk_gb": 140, "arch": "amd64", "region": "nbg1"});
    let disk = call(&client, "list_sizes", disk).await;
    for word in ["only the disk: `cx23` in nbg1 with a volume of 100 GB is EUR", "`upgrade_disk`"] {
        assert!(text(&disk).contains(word), "{word}: {}", text(&disk));
    }
    let cases = [
        (json!({"region": "mars"}), "unknown_region", "fsn1"),
        (
            json!({"max_monthly": "10"}),
            "other_currency",
            "hetzner bills in EUR, digitalocean bills in USD",
        ),
        (json!({"max_monthly": "cheap"}), "bad_name", "EUR 20"),
    ];
    for (arguments, code, word) in cases {
        let refused = call(&client, "list_sizes", arguments.clone()).await;
        assert_eq!(error(&refused).code, code, "{arguments}");
        assert!(text(&refused).contains(word), "{arguments}: {}", text(&refused));
    }
    stage.end(client).await;
}

#[tokio::test]
async fn a_price_list_is_kept_and_serves_with_its_age_while_the_cloud_is_away() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let asked = || {
        let all = stage.sandbox.hetzner_faults().requests();
        all.iter().filter(|request| request.path.ends_with("/server_types")).count()
    };
    call(&client, "list_sizes", json!({})).await;
    let first = asked();
    let again = call(&client, "list_sizes", json!({})).await;
    assert_eq!(asked(), first, "a young list is not asked for again");
    assert!(text(&again).contains("hetzner's list is"), "{}", text(&again));

    let file = rusqlite::Connection::open(stage.rig.home().join("vmkit.db")).expect("the file");
    let older = "update price_list set seen_at = seen_at - 3 * 3600 * 1000";
    assert!(file.execute(older, []).expect("older") >= 1);
    let away = json!({"path_regex": "^/v1/", "action": {"kind": "status", "code": 503}});
    stage.fault(away).await;
    let stale = call(&client, "list_sizes", json!({})).await;
    assert!(!names(&stale).is_empty());
    let said = text(&stale);
    assert!(said.contains("hetzner did not answer") && said.contains("3 h old"), "{said}");
    stage.end(client).await;
}

#[tokio::test]
async fn a_size_that_cannot_be_had_is_answered_with_the_nearest_that_can() {
    let stage = Stage::new().await;
    stage.knobs(json!({"sold_out": [{"size": "cx33"}]})).await;
    let client = stage.client().await;
    stage.shop(&client).await;
    let make = async |size: &str, region: &str| {
        let made = json!({"environment": "shop/staging", "size": size, "region": region});
        call(&client, "create_environment", made).await
    };
    let misfit = make("cax11", "ash").await;
    assert_eq!(error(&misfit).code, "unknown_size");
    let told = "size `cax11` is not sold in `ash`: it is in fsn1, hel1, nbg1; in ash the cheapest is `cpx11`";
    assert!(text(&misfit).contains(told), "{}", text(&misfit));
    assert!(text(&misfit).contains("which is amd64 and needs another image"), "{}", text(&misfit));
    let sold_out = make("cx33", "fsn1").await;
    assert_eq!(error(&sold_out).code, "sold_out");
    let nearest = "`cx43` in fsn1 for EUR 16.49 (+EUR 7.50)";
    assert!(text(&sold_out).contains(nearest), "{}", text(&sold_out));
    assert!(!text(&sold_out).contains("cax"), "never another architecture: {}", text(&sold_out));

    // The list says that it can be had, and the order is refused.
    let plan = stage.planned(&client, "cx23").await;
    stage.knobs(json!({"sold_out_at_order": [{"size": "cx23", "region": "fsn1"}]})).await;
    let order = json!({"environment": "shop/staging", "plan_id": plan});
    let refused = call(&client, "provision_vm", order).await;
    let said = text(&refused);
    assert!(said.starts_with("FAILED"), "{said}");
    for word in ["sold_out", "`cx23` in hel1 for EUR 5.99 (+EUR 0.00)", "`cpx22` in fsn1"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let servers = stage.cloud(reqwest::Method::GET, "servers", None).await;
    assert_eq!(servers["servers"], json!([]), "nothing is left");
    stage.end(client).await;
}

#[tokio::test]
async fn costs_are_counted_once_and_a_rate_limit_is_told_while_it_is_waited_for() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let nothing = call(&client, "get_costs", json!({})).await;
    assert!(text(&nothing).starts_with("nothing is billed"), "{}", text(&nothing));
    stage.shop(&client).await;
    let plan = stage.planned(&client, "cx23").await;
    stage
        .fault(json!({
            "method": "POST", "path_regex": "^/v1/servers$", "times": 1,
            "action": {"kind": "status", "code": 429, "headers": {"retry-after": "5"}}
        }))
        .await;
    let order = json!({"environment": "shop/staging", "plan_id": plan, "wait_seconds": 0});
    let running = call(&client, "provision_vm", order).await;
    let operation = data(&running)["operation"].clone();
    let mut heard = String::new();
    let state = loop {
        let ask = json!({"operation": operation, "wait_seconds": 0});
        let now = call(&client, "get_operation", ask).await;
        if text(&now).contains("limits our rate of calls") {
            heard = text(&now).to_owned();
        }
        let state = data(&now)["state"].as_str().unwrap_or_default().to_owned();
        if !["queued", "running"].contains(&state.as_str()) {
            break state;
        }
    };
    assert_eq!(state, "succeeded");
    assert!(
        heard.contains("ordering the server: Hetzner limits our rate of calls; going on in"),
        "{heard}"
    );

    let asked = json!({"what_if": "cx33"});
    let costs = call(&client, "get_costs", asked).await;
    let facts = data(&costs);
    assert_eq!(facts["monthly"], json!(["EUR 5.99"]));
    assert_eq!(facts["vms"][0]["environments"], json!(["shop/staging"]));
    assert_eq!(facts["vms"][0]["power"], "on");
    let what_if = facts["what_if"].as_str().expect("an answer");
    assert!(what_if.contains("EUR 8.99 a month instead of EUR 5.99 (+EUR 3.00)"), "{what_if}");
    let arm = call(&client, "get_costs", json!({"what_if": "cax21"})).await;
    assert!(text(&arm).contains("not possible: it is arm64 and the VM is amd64"), "{}", text(&arm));
    let lost = call(&client, "get_costs", json!({"what_if": "cpx11"})).await;
    assert_eq!(error(&lost).code, "unknown_size");
    assert!(text(&lost).contains("it is in ash, hil"), "{}", text(&lost));

    // By the cloud's own list: the price with the address, and nothing else of ours.
    let types = stage.cloud(reqwest::Method::GET, "server_types?name=cx23", None).await;
    assert_eq!(types["server_types"][0]["prices"][0]["price_monthly"]["net"], "5.4900");
    let server = stage.cloud(reqwest::Method::GET, "servers", None).await;
    let id = server["servers"][0]["id"].as_u64().expect("a server");
    let off = format!("servers/{id}/actions/poweroff");
    stage.cloud(reqwest::Method::POST, &off, Some(json!({}))).await;
    let foreign =
        json!({"name": "theirs", "server_type": "cx23", "image": "debian-13", "location": "nbg1"});
    stage.cloud(reqwest::Method::POST, "servers", Some(foreign)).await;
    let deadline = tokio::time::Instant::now() + crate::rig::DEADLINE;
    let told = loop {
        let costs = call(&client, "get_costs", json!({})).await;
        let said = text(&costs).to_owned();
        if said.contains("off and billed in full") || tokio::time::Instant::now() > deadline {
            break said;
        }
    };
    assert!(told.contains("is off and billed in full: EUR 5.99 a month"), "{told}");
    assert!(told.contains("hetzner: 1 server"), "{told}");
    assert!(told.starts_with("per month now, net: EUR 5.99\n"), "{told}");
    let overview = call(&client, "get_overview", json!({})).await;
    assert_eq!(data(&overview)["monthly"], facts["monthly"], "the same source");
    stage.end(client).await;
}

/// Runs the program and returns all that it said, while the simulator goes on answering.
async fn said(command: std::process::Command, stdin: &str) -> String {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a child");
    let mut pipe = child.stdin.take().expect("stdin");
    pipe.write_all(stdin.as_bytes()).await.expect("written");
    drop(pipe);
    let output = child.wait_with_output().await.expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// `vmkit connect`, with the token on stdin and none in the environment.
async fn connect(stage: &Stage, provider: &str, token: &str) -> String {
    let mut command = stage.rig.command(&["connect", provider, "--stdin"]);
    let urls = stage.settings.iter().filter(|(name, _)| name.ends_with("_URL"));
    command.envs(urls.map(|(name, value)| (name, value)));
    said(command, token).await
}

#[tokio::test]
async fn connecting_tells_access_limits_strangers_and_one_size() {
    let stage = Stage::new().await;
    let token = stage.setting("VMKIT_HETZNER_TOKEN").to_owned();
    let foreign =
        json!({"name": "theirs", "server_type": "cx23", "image": "debian-13", "location": "nbg1"});
    stage.cloud(reqwest::Method::POST, "servers", Some(foreign)).await;
    let good = connect(&stage, "hetzner", &token).await;
    for word in [
        "read and write",
        "bills in EUR",
        "1 server",
        "1 of them is not VMKit's",
        "project of its own",
        "can be ordered at EUR 5.99 a month",
    ] {
        assert!(good.contains(word), "{word}: {good}");
    }
    stage.knobs(json!({"server_limit": 1})).await;
    let full = connect(&stage, "hetzner", &token).await;
    assert!(full.contains("read and write"), "Hetzner tells no limit before an order: {full}");
    let other_cloud = stage.setting("VMKIT_DIGITALOCEAN_TOKEN").to_owned();
    let url = format!("{}/_sandbox/knobs", stage.sandbox.digitalocean_admin_url());
    let kinds = ["account", "actions", "droplet", "firewall", "image", "regions", "reserved_ip"];
    let kinds = kinds.into_iter().chain(["sizes", "snapshot", "ssh_key", "tag"]);
    let reading: Vec<String> = kinds.map(|kind| format!("{kind}:read")).collect();
    for (knobs, words) in [
        (
            json!({"droplet_limit": 10}),
            ["bills in USD", "no server of 10 that the account may have", "USD 4.00 a month"],
        ),
        (json!({"droplet_limit": 0}), ["read and write", "NO ROOM", "raise the limit"]),
        (json!({"scopes": ["account:read"]}), ["forbidden", "`vmkit connect`", "the scope `"]),
        (json!({"droplet_limit": 10, "scopes": reading}), ["READ ONLY", "", ""]),
    ] {
        let turned = reqwest::Client::new().post(&url).json(&knobs).send().await;
        assert!(turned.expect("an answer").status().is_success());
        let told = connect(&stage, "digitalocean", &other_cloud).await;
        assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
    }
    stage.knobs(json!({"read_only_token": true})).await;
    let read_only = connect(&stage, "hetzner", &token).await;
    assert!(read_only.contains("READ ONLY"), "{read_only}");
    let mut doctor = stage.rig.command(&["doctor"]);
    doctor.envs(stage.settings.iter().map(|(name, value)| (name, value)));
    let doctor = said(doctor, "").await;
    assert!(doctor.contains("READ ONLY") && doctor.contains("that may write"), "{doctor}");

    let before = stage.sandbox.hetzner_faults().requests().len();
    let other = connect(&stage, "hetzner", "dop_v1_token-for-tests").await;
    assert!(other.contains("other_providers_token") && other.contains("DigitalOcean"), "{other}");
    assert_eq!(stage.sandbox.hetzner_faults().requests().len(), before, "it was not sent");
    stage.sandbox.stop().await;
}
