//! Servers that VMKit adopted by their id, on both clouds: they are resized, put away, restored and
//! purged like one that it ordered, and what is their owner's at the cloud stays.

use serde_json::{Value, json};
use vmkit::domain::environment::Settings;
use vmkit::domain::operation::OperationState;
use vmkit::operations::destroy::{self, Wanted};
use vmkit::operations::environments::{self, NewEnvironment};
use vmkit::operations::{Ask, adopt_vm, resize_vm};
use vmkit_sandbox::machines::Machine;

use crate::adopt::{furnish, planned};
use crate::jobs::{Job, begun};
use crate::stage::{Stage, staging};

/// A cloud as its owner uses it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Hetzner,
    DigitalOcean,
}

impl At {
    fn name(self) -> &'static str {
        match self {
            Self::Hetzner => "hetzner",
            Self::DigitalOcean => "digitalocean",
        }
    }

    /// The size that the owner chose, a larger one, and the region.
    fn place(self) -> [&'static str; 3] {
        match self {
            Self::Hetzner => ["cpx22", "cpx32", "fsn1"],
            Self::DigitalOcean => ["s-2vcpu-4gb", "s-4vcpu-8gb", "fra1"],
        }
    }

    /// The state of the simulator, by its own word.
    async fn state(self, stage: &Stage) -> Value {
        match self {
            Self::Hetzner => stage.cloud().await,
            Self::DigitalOcean => stage.sandbox.digitalocean().state().await,
        }
    }

    /// Its servers: name, state and size of each, and their marks.
    async fn servers(self, stage: &Stage) -> Vec<[String; 4]> {
        let state = self.state(stage).await;
        let list = if self == Self::Hetzner { "servers" } else { "droplets" };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let read = |one: &Value| match self {
            Self::Hetzner => [
                text(&one["name"]),
                text(&one["status"]),
                text(&one["server_type"]["name"]),
                one["labels"].to_string(),
            ],
            Self::DigitalOcean => [
                text(&one["name"]),
                text(&one["status"]).replace("active", "running"),
                text(&one["size_slug"]),
                one["tags"].to_string(),
            ],
        };
        state[list].as_array().expect("a list").iter().map(read).collect()
    }

    /// How many snapshots, firewalls and keys there are.
    async fn counts(self, stage: &Stage) -> [usize; 3] {
        let state = self.state(stage).await;
        ["snapshots", "firewalls", "ssh_keys"]
            .map(|list| state[list].as_array().map_or(0, Vec::len))
    }

    /// Their owner orders a server by hand; its id.
    async fn order(self, stage: &Stage) -> String {
        let [size, _, region] = self.place();
        match self {
            Self::Hetzner => {
                crate::adopt::their_server(stage).await;
                stage.cloud().await["servers"][0]["id"].to_string()
            }
            Self::DigitalOcean => {
                let setting = |name: &str| {
                    let found = stage.pairs.iter().find(|(known, _)| known == name);
                    found.expect("a setting").1.clone()
                };
                let url = format!("{}/v2/droplets", setting("VMKIT_DIGITALOCEAN_URL"));
                let body = json!({ "name": "theirs", "size": size, "region": region,
                    "image": "debian-13-x64", "tags": ["red"], "ipv6": true });
                let token = setting("VMKIT_DIGITALOCEAN_TOKEN");
                let sent = stage.http.post(url).bearer_auth(token).json(&body).send().await;
                let made: Value = sent.expect("an answer").json().await.expect("JSON");
                let ready = async || {
                    let all = self.servers(stage).await;
                    all.first().is_some_and(|one| one[1] == "running").then_some(())
                };
                stage.until("their droplet runs", ready).await;
                furnish(&stage.sandbox.machines().list().pop().expect("a machine")).await;
                made["droplet"]["id"].to_string()
            }
        }
    }
}

async fn put_away(stage: &Stage, wanted: Wanted) -> Vec<String> {
    let plan = destroy::plan(stage.context(), &staging(), wanted).await.expect("a plan");
    let ask = Ask::by("test");
    let started = destroy::start(stage.context(), &staging(), Some(wanted), plan.id, ask).await;
    let row = stage.end_of(begun(started).expect("started")).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?} {:#?}", stage.steps(row.id).await);
    plan.body.touches
}

/// Where the A record of the environment's name leads.
fn record(stage: &Stage) -> String {
    let state = stage.sandbox.cloudflare().state();
    let records = state["zones"][0]["records"].as_array().expect("a list");
    let a = records.iter().find(|one| one["type"] == "A").expect("a record");
    a["content"].as_str().expect("an address").to_owned()
}

fn machine(stage: &Stage) -> Machine {
    stage.sandbox.machines().list().pop().expect("a machine")
}

async fn lives(at: At) {
    let mut stage = Stage::without_address().await;
    stage.drive();
    Job::Setup.done(&stage).await;
    stage.merge_pulls().await;
    let [size, larger, region] = at.place();
    let settings = Settings {
        provider: Some(at.name().to_owned()),
        size: size.parse().expect("a size"),
        region: region.parse().expect("a region"),
        domain: Some("shop.example.com".parse().expect("a domain")),
        port: 8080,
        health_path: "/up".to_owned(),
        protected: false,
    };
    let new = NewEnvironment { path: staging(), settings, vm: None };
    environments::create(stage.context(), new).await.expect("created");
    let id = at.order(&stage).await;
    let before = at.servers(&stage).await;

    let target = format!("{}:{id}", at.name());
    let plan = planned(&stage, &machine(&stage), &target).await.expect("a plan");
    let told = plan.body.touches.join("\n");
    assert!(told.contains("the cloud's firewalls stay as they are"), "{told}");
    assert!(plan.body.monthly_after.is_some_and(|price| !price.amount.is_zero()));
    assert_eq!(at.servers(&stage).await, before, "a plan changes nothing");
    let started = adopt_vm::start(stage.context(), &staging(), plan.id, Ask::by("test")).await;
    let row = stage.end_of(begun(started).expect("started")).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?} {:#?}", stage.steps(row.id).await);
    let now = at.servers(&stage).await.remove(0);
    assert_eq!((&now[0], &now[2]), (&"theirs".to_owned(), &size.to_owned()), "{now:?}");
    assert!(now[3].contains("red") && now[3].contains("vmkit"), "{now:?}");
    assert_eq!(at.counts(&stage).await, [0; 3], "no firewall and no key of ours");
    Job::Deploy.done(&stage).await;
    assert_eq!(record(&stage), machine(&stage).address().to_string());

    let request = stage.resize_to(larger);
    let plan = resize_vm::plan(stage.context(), &request).await.expect("a plan");
    let told = plan.body.touches.join("\n");
    assert!(told.contains("their own restart policy says so: `their-cache`"), "{told}");
    let started = resize_vm::start(stage.context(), &request, plan.id, Ask::by("test")).await;
    let row = stage.end_of(begun(started).expect("started")).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?} {:#?}", stage.steps(row.id).await);
    let now = at.servers(&stage).await.remove(0);
    assert_eq!((now[1].as_str(), now[2].as_str()), ("running", larger), "{now:?}");

    std::fs::write(machine(&stage).path("/etc/precious"), "theirs").expect("written");
    let (address, host_key) = (machine(&stage).address(), machine(&stage).host_key());
    let told = put_away(&stage, Wanted::Keep).await.join("\n");
    for word in ["its address goes with the server", "it was adopted", "only 22, 80 and 443"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(at.servers(&stage).await, Vec::<[String; 4]>::new());
    assert_eq!(at.counts(&stage).await[0], 1, "the snapshot");
    put_away(&stage, Wanted::Undo).await;
    let back = machine(&stage);
    assert_ne!(back.address(), address, "nobody kept the address");
    assert_eq!(record(&stage), back.address().to_string(), "the record follows");
    assert_eq!(back.host_key(), host_key);
    assert_eq!(std::fs::read_to_string(back.path("/etc/precious")).expect("it"), "theirs");
    let now = at.servers(&stage).await.remove(0);
    assert_eq!((now[1].as_str(), now[2].as_str()), ("running", larger), "{now:?}");
    assert!(back.docker().list().iter().any(|one| one.name.starts_with("shop-staging-web")));

    let id = Job::Destroy.done(&stage).await;
    let result = stage.row(id).await.result;
    assert_eq!(at.servers(&stage).await, Vec::<[String; 4]>::new(), "{result:?}");
    assert_eq!(at.counts(&stage).await, [0; 3], "{result:?}");
    let zones = stage.sandbox.cloudflare().state();
    assert_eq!(zones["zones"][0]["records"], json!([]));
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_adopted_at_hetzner_is_resized_put_away_restored_and_purged() {
    lives(At::Hetzner).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_droplet_is_adopted_by_its_id_resized_put_away_restored_and_purged() {
    lives(At::DigitalOcean).await;
}
