//! Two environments and two apps of one repo on one VM, through a real client: what one has never
//! reaches the other. And an image that is built before any VM is bought.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::rig::{eras, error, text, until};
use crate::story::{Client, Person, Stage, call, data, says};

impl Stage {
    /// A second app in the repo's folder `api`, as its developer adds it.
    pub(crate) async fn add_the_api(&self) {
        let dockerfile =
            "FROM scratch\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD [\"vmkit\", \"sample-app\"]\n";
        let sample = vmkit_sandbox::sample::sample_toml("The api", None);
        for (path, content) in [("api/Dockerfile", dockerfile), ("api/sample.toml", &sample)] {
            let url = format!("/repos/octo/shop/contents/{path}");
            let content = BASE64_STANDARD.encode(content);
            let body = json!({ "message": format!("Add {path}"), "content": content });
            self.developer(reqwest::Method::PUT, &url, Some(body)).await;
        }
    }

    /// The front page under a name, asked of the only machine itself.
    pub(crate) async fn page(&self, host: Option<&str>) -> (u16, String) {
        let url = format!("{}/_sandbox/state", self.sandbox.hetzner_admin_url());
        let state: Value = reqwest::get(url).await.expect("an answer").json().await.expect("JSON");
        let machines = state["machines"].as_array().expect("a list");
        assert_eq!(machines.len(), 1, "one VM carries all");
        let address = machines[0]["address"].as_str().expect("an address");
        let url = format!("http://{address}:{}/", machines[0]["proxy_port"]);
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut ask = http.get(url);
        if let Some(host) = host {
            ask = ask.header("host", host);
        }
        let answer = ask.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    async fn repo(&self) -> Value {
        let everything = self.sandbox.github().everything();
        let repos = everything["repos"].as_array().expect("a list");
        repos.iter().find(|repo| repo["full_name"] == "octo/shop").expect("it").clone()
    }
}

pub(crate) async fn done(client: &Client, tool: &'static str, arguments: Value) -> Value {
    says(&call(client, tool, arguments).await, "DONE").clone()
}

#[tokio::test]
async fn two_environments_and_two_apps_share_one_vm() {
    let stage = Stage::new().await;
    let [_, modern] = eras();
    let session = stage.client(modern, Person::default()).await;
    let client = &session;
    stage.with_an_environment(client).await;

    // The image is built while there is no VM at all.
    let build = json!({"environment": "shop/staging", "build_only": true});
    let built = done(client, "deploy", build).await["result"].clone();
    let image = built["image"].as_str().expect("an image");
    assert!(image.starts_with("ghcr.io/octo/shop/staging:"), "{built}");
    let images = stage.sandbox.github().everything()["images"].clone();
    assert!(images.as_array().is_some_and(|all| all.contains(&image.into())), "{images}");
    let early = call(client, "deploy", json!({"environment": "shop/staging"})).await;
    assert_eq!(error(&early).code, "no_vm");

    stage.provision(client).await;
    let first = done(client, "deploy", json!({"environment": "shop/staging"})).await;
    let id = first["operation"].as_str().expect("an id");
    let seen = call(client, "get_operation", json!({ "operation": id })).await;
    assert!(text(&seen).starts_with(&format!("DONE deploy {id} succeeded")), "{}", text(&seen));

    another_environment(&stage, client).await;
    another_app(&stage, client).await;
    assert!(stage.page(None).await.1.contains("Welcome to the shop"), "the first answers on");
    session.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}

/// A second environment of the same app, with values of the first one's.
async fn another_environment(stage: &Stage, client: &Client) {
    let share = json!({"environment": "shop/preview", "share": "shop/staging"});
    let nameless = call(client, "create_environment", share.clone()).await;
    assert_eq!(error(&nameless).code, "share_needs_domain", "{}", text(&nameless));
    let mut both = share.clone();
    both["size"] = json!("cx23");
    assert_eq!(error(&call(client, "create_environment", both).await).code, "bad_argument");
    let mut named = share;
    named["domain"] = json!("preview.example.com");
    // What the first one may take leaves too little of the VM's 4 GiB, and then enough.
    let limit = async |mib: u32| {
        let web = json!({"web": {"memory_mb": mib}});
        let change = json!({"environment": "shop/staging", "processes": web});
        done(client, "configure_app", change).await;
    };
    limit(3_800).await;
    let mut only = named.clone();
    only["dry_run"] = json!(true);
    let short = call(client, "create_environment", only).await;
    says(&short, "NOT_EXECUTED");
    assert!(text(&short).contains("may take 3800 MiB, and it has 4096"), "{}", text(&short));
    assert!(text(&short).contains("(web of shop/staging 3800; without"), "{}", text(&short));
    limit(512).await;
    let made = call(client, "create_environment", named.clone()).await;
    assert_eq!(says(&made, "DONE")["size"], "cx23", "what the VM has");
    assert!(!text(&made).contains("memory"), "{}", text(&made));
    assert!(text(&made).contains("nothing is ordered; next: `deploy`"), "{}", text(&made));
    done(client, "create_environment", named).await;
    let taken = call(client, "provision_vm", json!({"environment": "shop/preview"})).await;
    assert_eq!(error(&taken).code, "has_vm");

    let set = json!({"environment": "shop/staging", "set": {"GREETING": "from staging", "API_KEY": "a-secret-of-theirs"}});
    done(client, "set_env", set).await;
    let plain =
        json!({"environment": "shop/staging", "class": "plain", "set": {"LOG_LEVEL": "debug"}});
    done(client, "set_env", plain).await;
    let own = json!({"environment": "shop/preview", "set": {"GREETING": "from preview"}, "copy_from": "shop/staging", "copy": ["API_KEY"], "generate": ["SESSION_KEY"]});
    let changed = done(client, "set_env", own.clone()).await;
    assert_eq!(changed["changed"], json!(["SESSION_KEY", "API_KEY", "GREETING"]));
    let again = done(client, "set_env", own).await;
    assert_eq!(again["changed"], json!([]), "a repeat takes no key away: {again}");
    let rest = json!({"environment": "shop/preview", "copy_from": "shop/staging"});
    let rest = done(client, "set_env", rest).await;
    assert_eq!(rest["changed"], json!(["LOG_LEVEL"]), "what was missing alone");
    let none =
        json!({"environment": "shop/preview", "copy_from": "shop/staging", "copy": ["NO_SUCH"]});
    assert!(text(&call(client, "set_env", none).await).contains("`NO_SUCH` is not set"));
    let ask = json!({"environment": "shop/preview", "compare": "shop/staging"});
    let compared = call(client, "list_env", ask).await;
    assert_eq!(
        data(&compared)["differences"],
        json!([
            "GREETING: another value or class than in shop/staging",
            "SESSION_KEY: not in shop/staging"
        ])
    );
    let said = text(&compared);
    assert!(!said.contains("a-secret-of-theirs") && !said.contains("from preview"), "{said}");

    let live = done(client, "deploy", json!({"environment": "shop/preview"})).await;
    assert_eq!(live["result"]["env_keys"].as_array().map(Vec::len), Some(4), "{live}");
    let (status, page) = stage.page(Some("preview.example.com")).await;
    assert!(status == 200 && page.contains("from preview"), "{status} {page}");
    let (status, page) = stage.page(None).await;
    assert!(status == 200 && !page.contains("from preview"), "{status} {page}");
}

/// Another app of the same repo: neither its files nor its keys are the first one's.
async fn another_app(stage: &Stage, client: &Client) {
    stage.add_the_api().await;
    let before = stage.repo().await;
    let setup = json!({"repo": "octo/shop", "app": "api", "root": "api", "changes": "direct"});
    let setup = call(client, "setup_repo", setup).await;
    let result = says(&setup, "NEEDS_MERGE")["result"].clone();
    let files = result["files"].to_string();
    assert!(
        files.contains("vmkit-deploy-api.yml") && !files.contains("vmkit-deploy.yml"),
        "{files}"
    );
    stage.merge(result["pull"].as_u64().expect("a pull")).await;
    let made =
        json!({"environment": "api/staging", "share": "shop/staging", "domain": "api.example.com"});
    done(client, "create_environment", made).await;
    let live = done(client, "deploy", json!({"environment": "api/staging"})).await;
    let image = live["result"]["image"].as_str().expect("an image");
    assert!(image.starts_with("ghcr.io/octo/shop/api/staging:"), "{image}");
    let (status, page) = stage.page(Some("api.example.com")).await;
    assert!(status == 200 && page.contains("The api"), "{status} {page}");
    let (status, page) = stage.page(Some("preview.example.com")).await;
    assert!(status == 200 && page.contains("from preview"), "{status} {page}");

    let after = stage.repo().await;
    let secrets = after["secrets"].to_string();
    for name in ["VMKIT_SSH_KEY_STAGING", "VMKIT_SSH_KEY_PREVIEW", "VMKIT_SSH_KEY_API__STAGING"] {
        assert!(secrets.contains(&format!("\"{name}\"")), "{secrets}");
    }
    let known = |repo: &Value| repo["variables"]["VMKIT_KNOWN_HOSTS_STAGING"].clone();
    assert_eq!(known(&before), known(&after));
    // A deploy of the first one changes nothing of the second's, and the other way round.
    done(client, "deploy", json!({"environment": "shop/staging", "ref": "current"})).await;
    for path in [
        ".github/workflows/vmkit-deploy.yml",
        ".github/workflows/vmkit-deploy-api.yml",
        "config/deploy.staging.yml",
        "config/deploy.api.staging.yml",
    ] {
        let url = format!("/repos/octo/shop/contents/{path}");
        let found = stage.developer(reqwest::Method::GET, &url, None).await;
        assert_eq!(found["path"], *path, "{found}");
    }
    let (status, page) = stage.page(Some("api.example.com")).await;
    assert!(status == 200 && page.contains("The api"), "{status} {page}");
}
