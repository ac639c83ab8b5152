//! The story: one tool call after another, each claim checked by a second path.

use reqwest::Method;
use serde_json::{Value, json};
use vmkit_sandbox::sample;

use super::Stopped;
use super::eyes::Told;
use super::stage::Stage;
use super::tell::Teller;

const ENVIRONMENT: &str = "shop/staging";
const DOMAIN: &str = "shop.example.com";
const FIRST: &str = "Hello from the first revision";
/// A secret value; the app logs it by accident, as apps do.
const HIDDEN: &str = "only-for-the-app";
const SECOND: &str = "Hello from the second revision";

fn hold(condition: bool, claim: impl FnOnce() -> String) -> Result<(), Stopped> {
    if condition { Ok(()) } else { Err(Stopped::because(claim())) }
}

fn repo() -> String {
    format!("{}/{}", sample::OWNER, sample::NAME)
}

/// Tells the story; with `to_the_end`, everything is destroyed again.
pub(super) async fn tell(
    stage: &mut Stage,
    teller: &mut Teller,
    to_the_end: bool,
) -> Result<(), Stopped> {
    let told = &mut Told::default();
    stage.connect().await?;
    before_the_vm(stage, teller, told).await?;
    first_deploy(stage, teller, told).await?;
    changes(stage, teller, told).await?;
    crash(stage, teller, told).await?;
    if to_the_end {
        the_end(stage, teller, told).await?;
    }
    Ok(())
}

async fn before_the_vm(s: &mut Stage, t: &mut Teller, told: &mut Told) -> Result<(), Stopped> {
    t.step("An account with nothing in it", "get_overview", async {
        s.call("get_overview", json!({})).await?;
        let servers = s.hetzner_list("servers").await?;
        hold(servers.is_empty(), || format!("the cloud lists {} servers", servers.len()))?;
        Ok("no environment, no VM, nothing to pay; the cloud's own list agrees".to_owned())
    })
    .await?;
    t.step("The cheapest size that can be ordered", "list_sizes", async {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let said = s.call("list_sizes", json!({ "arch": arch })).await?;
        let cheapest = said.facts["sizes"][0].clone();
        told.size = cheapest["size"].as_str().unwrap_or_default().to_owned();
        told.region = cheapest["regions"][0].as_str().unwrap_or_default().to_owned();
        hold(!told.size.is_empty(), || format!("no size in: {}", said.text))?;
        Ok(format!(
            "`{}` in `{}` at {}",
            told.size,
            told.region,
            cheapest["monthly"].as_str().unwrap_or_default()
        ))
    })
    .await?;
    t.step("What the repo is", "scan_repo", async {
        let said = s.call("scan_repo", json!({ "repo": repo() })).await?;
        let stack = said.field("stack")?;
        hold(stack.contains("Dockerfile"), || format!("the stack is `{stack}`"))?;
        Ok(format!("{}: {stack}", repo()))
    })
    .await?;
    t.step("The pull request that brings the pipeline", "setup_repo", async {
        let said = s
            .call(
                "setup_repo",
                json!({ "repo": repo(), "environments": ["staging"], "changes": "direct" }),
            )
            .await?;
        hold(said.word() == "NEEDS_MERGE", || said.text.clone())?;
        let pull = s.github(Method::GET, "pulls?state=open", &Value::Null).await?;
        let number = pull[0]["number"].as_u64().unwrap_or_default();
        s.github(Method::PUT, &format!("pulls/{number}/merge"), &json!({})).await?;
        let file = s
            .github(Method::GET, "contents/.github/workflows/vmkit-deploy.yml", &Value::Null)
            .await?;
        hold(file["type"] == "file", || "the workflow is not on the default branch".to_owned())?;
        Ok(format!("#{number} opened by VMKit, merged by the demo as the maintainer"))
    })
    .await?;
    t.step("A name for where the app will run", "create_environment", async {
        let arguments = json!({
            "environment": ENVIRONMENT, "size": told.size, "region": told.region, "domain": DOMAIN
        });
        s.call("create_environment", arguments).await?;
        let servers = s.hetzner_list("servers").await?;
        hold(servers.is_empty(), || "a server was made already".to_owned())?;
        Ok(format!("`{ENVIRONMENT}`, not yet a server"))
    })
    .await
}

async fn first_deploy(s: &mut Stage, t: &mut Teller, told: &mut Told) -> Result<(), Stopped> {
    let mut plan = String::new();
    t.step("The plan for a VM", "provision_vm", async {
        let said = s.call("provision_vm", json!({ "environment": ENVIRONMENT })).await?;
        hold(said.word() == "NOT_EXECUTED", || said.text.clone())?;
        plan = said.field("plan_id")?;
        let servers = s.hetzner_list("servers").await?;
        hold(servers.is_empty(), || "the plan made a server".to_owned())?;
        Ok(format!("{}; nothing was ordered", said.facts["monthly"].as_str().unwrap_or("?")))
    })
    .await?;
    t.step("The VM, with its agent linked", "provision_vm", async {
        let said =
            s.call("provision_vm", json!({ "environment": ENVIRONMENT, "plan_id": plan })).await?;
        hold(said.word() == "DONE", || said.text.clone())?;
        let servers = s.hetzner_list("servers").await?;
        hold(servers.len() == 1, || format!("the cloud lists {} servers", servers.len()))?;
        told.address =
            servers[0]["public_net"]["ipv4"]["ip"].as_str().unwrap_or_default().to_owned();
        let agents = s.machine_processes();
        hold(agents.len() == 1, || format!("{} agent processes run", agents.len()))?;
        Ok(format!("one server at {}, one agent process", told.address))
    })
    .await?;
    t.step("A value for the app", "set_env", async {
        let said = s
            .call("set_env", json!({ "environment": ENVIRONMENT, "set": { "GREETING": FIRST, "SHOP_KEY": HIDDEN } }))
            .await?;
        hold(said.facts["applied"] == false, || said.text.clone())?;
        hold(!said.text.contains(FIRST), || "the answer shows the value".to_owned())?;
        Ok("stored, sealed, and not shown again".to_owned())
    })
    .await?;
    t.step("The first deploy, built and proven", "deploy", async {
        told.first_commit = s.head().await?;
        let said = s.deploy(json!({ "environment": ENVIRONMENT })).await?;
        hold(said.word() == "DONE", || said.text.clone())?;
        told.url = said.facts["result"]["url"].as_str().unwrap_or_default().to_owned();
        hold(told.url.contains(DOMAIN), || format!("the URL is {}", told.url))?;
        s.shows(told, &[FIRST, &told.first_commit]).await?;
        Ok(format!("{} answers with {} and the value", told.url, &told.first_commit[..7]))
    })
    .await?;
    t.step("The app's own output", "get_logs", async {
        let marker = format!("look-for-{}", std::process::id());
        // The sample app logs the path of any request, so this one puts a secret into its log.
        drop(s.witness.visit(&told.url, &told.address, &format!("/{marker}/{HIDDEN}")).await);
        let mut found = String::new();
        let ask = async |grep: &str| {
            s.call("get_logs", json!({ "environment": ENVIRONMENT, "grep": grep })).await
        };
        s.witness
            .until("the line in the log", async || {
                found = ask(&marker).await?.text;
                Ok(found.contains(&marker))
            })
            .await?;
        hold(!found.contains(HIDDEN), || format!("the log shows a secret: {found}"))?;
        let probed = ask(HIDDEN).await?.text;
        hold(!probed.contains(&marker), || format!("a pattern can probe a secret: {probed}"))?;
        Ok("the line of our own request, found by a pattern; the secret in it is hidden".to_owned())
    })
    .await
}

async fn changes(s: &mut Stage, t: &mut Teller, told: &mut Told) -> Result<(), Stopped> {
    t.step("Another value: stored, not applied", "set_env", async {
        let said = s
            .call("set_env", json!({ "environment": ENVIRONMENT, "set": { "GREETING": SECOND } }))
            .await?;
        hold(said.facts["applied"] == false, || said.text.clone())?;
        s.shows(told, &[FIRST]).await?;
        Ok("the old value still serves; the answer names the call that applies it".to_owned())
    })
    .await?;
    t.step("The new value, without a build", "deploy", async {
        let builds = s.builds().await?;
        let said = s.deploy(json!({ "environment": ENVIRONMENT, "ref": "current" })).await?;
        hold(said.word() == "DONE", || said.text.clone())?;
        s.shows(told, &[SECOND, &told.first_commit]).await?;
        hold(s.builds().await? == builds, || "the run built an image".to_owned())?;
        Ok("the same commit shows the new value; no build job ran".to_owned())
    })
    .await?;
    t.step("A broken commit is refused", "deploy", async {
        s.push(&sample::sample_toml("A version that never answers", Some("crash")), "Break it")
            .await?;
        let said = s.try_deploy(json!({ "environment": ENVIRONMENT })).await?;
        hold(said.error.is_some(), || format!("it was deployed: {}", said.text))?;
        s.shows(told, &[SECOND, &told.first_commit]).await?;
        Ok(said.text.lines().next().unwrap_or_default().to_owned())
    })
    .await?;
    t.step("A good commit goes live", "deploy", async {
        s.push(&sample::sample_toml("The second version", None), "Mend it").await?;
        told.second_commit = s.head().await?;
        let said = s.deploy(json!({ "environment": ENVIRONMENT })).await?;
        hold(said.word() == "DONE", || said.text.clone())?;
        s.shows(told, &["The second version", &told.second_commit]).await?;
        Ok(format!("{} serves", &told.second_commit[..7]))
    })
    .await?;
    t.step("Back to the last good release", "rollback", async {
        let said =
            s.finish(s.call("rollback", json!({ "environment": ENVIRONMENT })).await?).await?;
        hold(said.word() == "DONE", || said.text.clone())?;
        s.shows(told, &[SECOND, &told.first_commit]).await?;
        Ok(format!("{} serves again, with its values as of then", &told.first_commit[..7]))
    })
    .await
}

async fn crash(s: &mut Stage, t: &mut Teller, told: &mut Told) -> Result<(), Stopped> {
    t.step("The server is killed in the middle of a deploy", "deploy", async {
        let runs = s.runs().await?.len();
        s.github_fault(&json!({
            "method": "GET", "path_regex": "/actions/runs/[0-9]+$",
            "action": { "kind": "hold_before" }, "times": 1
        }))
        .await?;
        let started = s
            .call("deploy", json!({ "environment": ENVIRONMENT, "ref": "main", "wait_seconds": 0 }))
            .await?;
        let operation = started.field("operation")?;
        s.witness.until("a deploy under way", async || Ok(s.runs().await?.len() > runs)).await?;
        s.witness.until("a held request", async || s.is_held().await).await?;
        let killed = s.kill_server().await?;
        s.github_release().await?;
        s.connect().await?;
        let said = s.finish_operation(&operation).await?;
        hold(said.word() == "DONE" || said.facts["state"] == "succeeded", || said.text.clone())?;
        s.shows(told, &["The second version", &told.second_commit]).await?;
        let now = s.runs().await?.len();
        hold(now == runs + 1, || format!("{} runs instead of one", now - runs))?;
        Ok(format!("{killed} processes killed with SIGKILL; the deploy ended live, in one run"))
    })
    .await
}

async fn the_end(s: &mut Stage, t: &mut Teller, told: &mut Told) -> Result<(), Stopped> {
    let mut plan = String::new();
    t.step("The plan of the end", "destroy", async {
        let said = s.call("destroy", json!({ "environment": ENVIRONMENT, "purge": true })).await?;
        hold(said.word() == "NOT_EXECUTED", || said.text.clone())?;
        plan = said.field("plan_id")?;
        s.shows(told, &[&told.second_commit]).await?;
        Ok("it names what is lost for good, and needs a person".to_owned())
    })
    .await?;
    t.step("Everything is gone, approved by the person", "destroy", async {
        s.person.will_type(ENVIRONMENT);
        let arguments = json!({ "environment": ENVIRONMENT, "purge": true, "plan_id": plan });
        let said = s.finish(s.call("destroy", arguments).await?).await?;
        hold(said.word() == "DONE", || said.text.clone())?;
        hold(s.person.questions() == 1, || "the person was not asked".to_owned())?;
        for list in ["servers", "firewalls", "ssh_keys", "primary_ips"] {
            let left = s.hetzner_list(list).await?;
            hold(left.is_empty(), || format!("the cloud still lists {list}: {left:?}"))?;
        }
        for list in ["secrets", "variables"] {
            let left = s.github(Method::GET, &format!("actions/{list}"), &Value::Null).await?;
            hold(left["total_count"] == 0, || format!("GitHub still lists {list}: {left}"))?;
        }
        let left = s.machine_processes();
        hold(left.is_empty(), || format!("processes of the VM still run: {left:?}"))?;
        Ok("the cloud's and GitHub's own lists are empty; no process of the VM is left".to_owned())
    })
    .await
}
