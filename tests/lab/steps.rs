//! What every scenario does: tools that must be done in the end, and the way to a VM with an app.

use std::process::Stdio;

use rmcp::model::CallToolResult;
use serde_json::{Value, json};

use crate::repo::Repo;
use crate::rig::{Client, Rig, call, data, data_of, ended, once, text, until};

/// Where a scenario's app runs, and under which name it answers.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) environment: &'static str,
    pub(crate) domain: &'static str,
}

impl Place {
    /// The arguments of a tool that needs no more.
    pub(crate) fn only(self) -> Value {
        json!({"environment": self.environment})
    }

    /// The same with more of them.
    pub(crate) fn with(self, more: Value) -> Value {
        let Value::Object(mut all) = self.only() else { unreachable!("an object") };
        let Value::Object(more) = more else { panic!("an object") };
        all.extend(more);
        all.into()
    }

    /// What Kamal calls the app there, and its containers begin with.
    pub(crate) fn service(self) -> String {
        self.environment.replace('/', "-")
    }

    /// Asks the database beside the app as the app would, with the address and the password that it
    /// has.
    pub(crate) fn sql(self, rig: &Rig, statement: &str) -> String {
        let service = self.service();
        let web = format!("docker ps -qf label=service={service} -f label=role=web | head -n 1");
        let url = format!("docker exec $({web}) sh -c 'echo $DATABASE_URL'");
        let asked = format!("docker exec {service}-db psql -tA \"$({url})\" -c \"{statement}\"");
        rig.on_vm(&asked).trim().to_owned()
    }

    /// What the app's page says, as a visitor gets it; the error's text where there is none.
    pub(crate) async fn page(self, visitor: &reqwest::Client) -> String {
        self.get(visitor, "/cgi-bin/info").await
    }

    /// What a path of the app answers.
    pub(crate) async fn get(self, visitor: &reqwest::Client, path: &str) -> String {
        let url = format!("https://{}{path}", self.domain);
        let asked = async { visitor.get(url).send().await?.error_for_status()?.text().await };
        asked.await.unwrap_or_else(|error| format!("{error:?}"))
    }
}

/// An answer with its word in text and in data.
#[track_caller]
pub(crate) fn says<'a>(result: &'a CallToolResult, word: &str) -> &'a Value {
    assert!(text(result).starts_with(&format!("{word} ")), "{}", text(result));
    data(result)
}

/// Whether an operation came to its end.
pub(crate) fn is_done(answer: &CallToolResult) -> bool {
    text(answer).starts_with("DONE ") || data_of(answer)["state"] == "succeeded"
}

/// Calls a tool that is done in the end.
pub(crate) async fn done(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let answer = call(client, tool, arguments).await;
    assert!(is_done(&answer), "{tool}: {}", text(&answer));
    answer
}

/// Makes the plan of an action, and lets it run.
pub(crate) async fn planned(
    client: &Client,
    tool: &'static str,
    arguments: Value,
) -> CallToolResult {
    let plan = call(client, tool, arguments.clone()).await;
    let mut order = arguments;
    order["plan_id"] = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    done(client, tool, order).await
}

/// Starts something, and waits for the middle of it; the answer that it runs.
async fn half_way(
    client: &Client,
    tool: &'static str,
    mut arguments: Value,
    middle: impl AsyncFnMut() -> bool,
) -> CallToolResult {
    if ["provision_vm", "resize_vm", "destroy"].contains(&tool) {
        let plan = call(client, tool, arguments.clone()).await;
        arguments["plan_id"] = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    }
    arguments["wait_seconds"] = 0.into();
    let answer = once(client, tool, arguments).await;
    says(&answer, "RUNNING");
    until(&format!("the middle of {tool}"), middle).await;
    answer
}

/// Starts something, ends its driver in the middle of it, and finds it done in the end all the same.
pub(crate) async fn survives(
    rig: &Rig,
    client: &Client,
    tool: &'static str,
    arguments: Value,
    middle: impl AsyncFnMut() -> bool,
) {
    let answer = half_way(client, tool, arguments, middle).await;
    rig.kill_driver().await;
    let answer = ended(client, answer).await;
    assert!(is_done(&answer), "{tool}: {}", text(&answer));
}

/// The same with an hour before somebody drives again; how it ended.
pub(crate) async fn sleeps(
    rig: &Rig,
    client: &Client,
    tool: &'static str,
    arguments: Value,
    middle: impl AsyncFnMut() -> bool,
) -> CallToolResult {
    let answer = half_way(client, tool, arguments, middle).await;
    rig.sleeps_for_an_hour().await;
    ended(client, answer).await
}

/// A deploy that must come off; else all that was seen of it is told.
pub(crate) async fn deploys(rig: &Rig, repo: &Repo<'_>, client: &Client, arguments: Value) {
    let answer = call(client, "deploy", arguments).await;
    if !is_done(&answer) {
        eprintln!("{}", repo.newest_logs().await);
        eprintln!("{}", rig.on_vm("docker ps -a; docker logs kamal-proxy 2>&1 | tail -20"));
        panic!("not deployed: {}", text(&answer));
    }
}

/// A repo with our files, whose changes arrive at once.
pub(crate) async fn set_up(client: &Client, repo: &Repo<'_>) {
    let setup = json!({"repo": repo.full_name(), "changes": "direct"});
    let setup = call(client, "setup_repo", setup).await;
    repo.merge(&says(&setup, "NEEDS_MERGE")["result"]["pull"]).await;
}

/// An environment of an app whose repo is set up, with its name and its VM.
pub(crate) async fn provisioned(rig: &Rig, client: &Client, place: Place) {
    let made = json!({"size": "cx23", "region": "fsn1", "domain": place.domain,
        "health_path": "/up"});
    done(client, "create_environment", place.with(made)).await;
    rig.tell("the repo is set up, the environment made");
    planned(client, "provision_vm", place.only()).await;
    rig.tell("provision_vm: cloud-init has run, the agent is linked over SSH");
    done(client, "manage_domain", place.with(json!({"action": "point"}))).await;
    rig.tell("manage_domain: the name leads to the VM");
}

/// Runs a command on the VM as the owner would, by ssh with their own key and the host keys that a
/// bundle holds; what it printed, and what ssh said.
pub(crate) fn by_owner(rig: &Rig, known_hosts: &str, user: &str, script: &str) -> (String, String) {
    let mut ssh = std::process::Command::new("ssh");
    ssh.arg("-i").arg(rig.folder.path().join("owner"));
    let known = format!("UserKnownHostsFile={known_hosts}");
    ssh.args(["-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", &known]);
    ssh.args([&format!("{user}@{}", rig.address()), script]);
    let seen = ssh.stdin(Stdio::null()).output().expect("ssh runs");
    let [out, error] =
        [seen.stdout, seen.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (out, error)
}
