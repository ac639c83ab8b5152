//! A sandbox with one cloud, its client with waits of milliseconds, and what differs between clouds.
//!
//! A further cloud is one constructor here (`Stage::NAME`, which fills in its [`Terms`]) and one line
//! `contract!(NAME);` in `main.rs`: every test takes the constructor and makes the stages it needs.
//! The terms name where the cloud's simulator keeps what (`/_sandbox/state`), its knobs
//! (`/_sandbox/knobs`, as JSON) and its words; no test asks which cloud it is on.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmkit::clouds::{
    AnyCloud, Cloud, CloudVm, LABEL_INSTALLATION, Pace, VmOrder, installation_label, vm_labels,
};
use vmkit::domain::clock::Clock;
use vmkit::domain::ids::{InstallationId, VmId};
use vmkit::domain::secret::Secret;
use vmkit_sandbox::faults::{Action, Faults, Rule};
use vmkit_sandbox::{Options, Sandbox};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// One answer's time, for a client that is in a hurry.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(800);

/// How long traces of a lost answer are looked for.
const DOUBT: Duration = Duration::from_millis(600);

/// What differs between clouds.
pub(crate) struct Terms {
    /// As [`AnyCloud::connect`] takes it.
    pub(crate) provider: &'static str,
    /// The sandbox's settings that hold the base URL and the token.
    pub(crate) settings: (&'static str, &'static str),
    /// Where `/_sandbox` is.
    pub(crate) admin: fn(&Sandbox) -> String,
    /// The faults in front of it.
    pub(crate) faults: fn(&Sandbox) -> &Faults,
    /// A size, one of the same architecture with a larger disk, and one of another architecture
    /// where the cloud has such.
    pub(crate) sizes: (&'static str, &'static str, Option<&'static str>),
    /// A region that has them all.
    pub(crate) region: &'static str,
    /// What `/_sandbox/state` calls servers, snapshots and addresses, and the field that holds a
    /// snapshot's name.
    pub(crate) lists: Lists,
    /// Whether an address of its own has a name and can be made before its server.
    pub(crate) named_addresses: bool,
    /// Whether a change of size leaves the server running.
    pub(crate) resize_starts: bool,
    /// The request that orders a server of this name behind VMKit's back: path and body.
    pub(crate) raw_vm: fn(&str) -> (&'static str, Value),
    /// The request that protects a server from deletion, and whether it is on: path and body.
    pub(crate) protect: Option<Protect>,
    /// Knobs: actions take next to no time.
    pub(crate) quick: fn() -> Value,
    /// Knobs: every size of this name is sold out, or nothing is (none).
    pub(crate) sold_out: fn(Option<&str>) -> Value,
    /// Knobs: guests ignore a shutdown.
    pub(crate) deaf: fn(bool) -> Value,
    /// Knobs: every action ends in an error.
    pub(crate) failing: fn(bool) -> Value,
    /// Knobs: how many servers the account may have.
    pub(crate) server_limit: fn(Option<u32>) -> Value,
    /// Knobs: the token may only read.
    pub(crate) read_only: fn(bool) -> Value,
    /// Fields that an answer may lack.
    pub(crate) optional: &'static [&'static str],
}

/// The request that protects the server with an id from deletion, or no more: path and body.
type Protect = fn(&str, bool) -> (String, Value);

/// The names in `/_sandbox/state`.
pub(crate) struct Lists {
    pub(crate) servers: &'static str,
    pub(crate) snapshots: &'static str,
    pub(crate) addresses: &'static str,
    pub(crate) snapshot_name: &'static str,
}

fn hetzner() -> Terms {
    Terms {
        provider: "hetzner",
        settings: ("VMKIT_HETZNER_URL", "VMKIT_HETZNER_TOKEN"),
        admin: Sandbox::hetzner_admin_url,
        faults: Sandbox::hetzner_faults,
        sizes: ("cax11", "cax21", Some("cpx22")),
        region: "fsn1",
        lists: Lists {
            servers: "servers",
            snapshots: "snapshots",
            addresses: "primary_ips",
            snapshot_name: "description",
        },
        named_addresses: true,
        resize_starts: true,
        raw_vm: |name| {
            let body = json!({ "name": name, "server_type": "cax11", "image": "debian-13",
                "location": "fsn1", "labels": { "team": "blue" } });
            ("/servers", body)
        },
        protect: Some(|id, on| {
            let path = format!("/servers/{id}/actions/change_protection");
            (path, json!({ "delete": on, "rebuild": on }))
        }),
        quick: || json!({ "action_ms": 3 }),
        sold_out: |size| match size {
            Some(size) => json!({ "sold_out_at_order": [{ "size": size, "region": null }] }),
            None => json!({ "sold_out_at_order": [] }),
        },
        deaf: |on| json!({ "shutdown_ignored": on }),
        failing: |on| {
            let commands = [
                "create_server",
                "start_server",
                "stop_server",
                "shutdown_server",
                "reset_server",
                "change_server_type",
                "rebuild_server",
                "create_image",
                "delete_server",
            ];
            let all: BTreeMap<&str, &str> =
                commands.into_iter().filter(|_| on).map(|one| (one, "action_failed")).collect();
            json!({ "failing_actions": all })
        },
        server_limit: |limit| json!({ "server_limit": limit }),
        read_only: |on| json!({ "read_only_token": on }),
        optional: &[
            "created",
            "protection",
            "primary_disk_size",
            "locked",
            "public_net",
            "image_size",
            "created_from",
            "deprecation",
            "deprecated",
            "assignee_type",
            "auto_delete",
            "category",
        ],
    }
}

fn digitalocean() -> Terms {
    Terms {
        provider: "digitalocean",
        settings: ("VMKIT_DIGITALOCEAN_URL", "VMKIT_DIGITALOCEAN_TOKEN"),
        admin: Sandbox::digitalocean_admin_url,
        faults: Sandbox::digitalocean_faults,
        sizes: ("s-1vcpu-1gb", "s-2vcpu-4gb", None),
        region: "fra1",
        lists: Lists {
            servers: "droplets",
            snapshots: "snapshots",
            addresses: "reserved_ips",
            snapshot_name: "name",
        },
        named_addresses: false,
        resize_starts: false,
        raw_vm: |name| {
            let body = json!({ "name": name, "size": "s-1vcpu-1gb", "image": "debian-13-x64",
                "region": "fra1", "tags": ["team-blue"] });
            ("/v2/droplets", body)
        },
        protect: None,
        // The suite asks more in a minute than an account may.
        quick: || {
            json!({ "action_ms": 3, "droplet_limit": 1000, "per_minute": 1_000_000,
                "per_hour": 1_000_000 })
        },
        sold_out: |size| match size {
            Some(size) => json!({ "sold_out_at_order": [{ "size": size, "region": null }] }),
            None => json!({ "sold_out_at_order": [] }),
        },
        deaf: |on| json!({ "shutdown_ignored": on }),
        failing: |on| {
            let kinds = [
                "create",
                "power_on",
                "power_off",
                "shutdown",
                "power_cycle",
                "resize",
                "rebuild",
                "rename",
                "snapshot",
            ];
            let all: Vec<&str> = kinds.into_iter().filter(|_| on).collect();
            json!({ "failing_actions": all })
        },
        server_limit: |limit| json!({ "droplet_limit": limit.unwrap_or(1000) }),
        read_only: |on| {
            let resources = ["account", "actions", "droplet", "firewall", "image", "regions"];
            let more = ["reserved_ip", "sizes", "snapshot", "ssh_key", "tag"];
            let all = resources.iter().chain(&more).map(|one| format!("{one}:read"));
            let scopes: Option<Vec<String>> = on.then(|| all.collect());
            json!({ "scopes": scopes })
        },
        optional: &[
            "created_at",
            "locked",
            "networks",
            "region",
            "features",
            "vpc_uuid",
            "size_gigabytes",
            "tags",
            "droplet_limit",
            "email_verified",
            "status_message",
        ],
    }
}

/// A sandbox with one cloud.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) cloud: AnyCloud,
    pub(crate) terms: Terms,
    pub(crate) installation: InstallationId,
    base: String,
    token: String,
    http: reqwest::Client,
}

impl Stage {
    /// Hetzner Cloud.
    pub(crate) async fn hetzner() -> Self {
        Self::set_up(hetzner()).await
    }

    /// DigitalOcean.
    pub(crate) async fn digitalocean() -> Self {
        Self::set_up(digitalocean()).await
    }

    async fn set_up(terms: Terms) -> Self {
        // Another test of this process may have installed it before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let options = Options { exe: env!("CARGO_BIN_EXE_vmkit").into(), ..Options::default() };
        let sandbox = Sandbox::start(options).await.expect("a sandbox");
        let settings = sandbox.settings();
        let setting = |name: &str| {
            let found = settings.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| value.clone()).expect("a setting of the sandbox")
        };
        let (base, token) = (setting(terms.settings.0), setting(terms.settings.1));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let quick = (terms.quick)();
        let cloud = connect(terms.provider, &base, &token, PATIENCE);
        let installation = InstallationId::generate();
        let stage = Self { sandbox, cloud, terms, installation, base, token, http };
        stage.turn(quick).await;
        stage
    }

    /// A client with another token, or with another time for one answer.
    pub(crate) fn client(&self, token: Option<&str>, timeout: Duration) -> AnyCloud {
        connect(self.terms.provider, &self.base, token.unwrap_or(&self.token), timeout)
    }

    pub(crate) fn faults(&self) -> &Faults {
        (self.terms.faults)(&self.sandbox)
    }

    /// Plays `action` on requests of these methods, each as often as said.
    pub(crate) fn fail(&self, methods: &[&str], action: &Action, times: Option<u32>) {
        for method in methods {
            let method = Some((*method).to_owned());
            let rule = Rule { method, path_regex: String::new(), action: action.clone(), times };
            self.faults().add(rule).expect("a rule");
        }
    }

    /// Turns knobs of the simulator.
    pub(crate) async fn turn(&self, knobs: Value) {
        let url = format!("{}/_sandbox/knobs", (self.terms.admin)(&self.sandbox));
        let answer = self.http.post(url).json(&knobs).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{knobs}");
    }

    /// All that the simulator has, past VMKit's client.
    pub(crate) async fn state(&self) -> Value {
        let url = format!("{}/_sandbox/state", (self.terms.admin)(&self.sandbox));
        self.http.get(url).send().await.expect("an answer").json().await.expect("JSON")
    }

    /// A request of the test's own.
    pub(crate) async fn raw(&self, method: &str, path: &str, body: Value) -> Value {
        let method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = request.bearer_auth(&self.token).json(&body);
        let answer = request.send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a body"));
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The names of what is in a list of the state.
    pub(crate) async fn names(&self, list: &str) -> Vec<String> {
        names(&self.state().await, list, self.field(list))
    }

    fn field(&self, list: &str) -> &'static str {
        if list == self.terms.lists.snapshots { self.terms.lists.snapshot_name } else { "name" }
    }

    /// An order of a VM that has no agent.
    pub(crate) fn order(&self, vm: VmId) -> VmOrder {
        self.order_of(vm, self.installation)
    }

    /// As [`Self::order`], of another installation.
    pub(crate) fn order_of(&self, vm: VmId, installation: InstallationId) -> VmOrder {
        VmOrder {
            name: format!("vmkit-{}", vm.bare()),
            size: self.terms.sizes.0.parse().expect("a size"),
            region: self.terms.region.parse().expect("a region"),
            image: String::new(),
            user_data: Secret::new("#cloud-config\nhostname: shop\n"),
            ssh_keys: Vec::new(),
            firewalls: Vec::new(),
            address: None,
            labels: vm_labels(installation, vm, None),
        }
    }

    /// An order with the image that the cloud recommends.
    pub(crate) async fn full_order(&self, vm: VmId) -> VmOrder {
        let sizes = self.cloud.sizes().await.expect("sizes");
        let own = sizes.iter().find(|size| size.name.as_str() == self.terms.sizes.0);
        let image = self.cloud.image(own.expect("the size").arch).await.expect("an image");
        VmOrder { image, ..self.order(vm) }
    }

    /// A VM of ours that runs.
    pub(crate) async fn vm(&self) -> CloudVm {
        let order = self.full_order(VmId::generate()).await;
        let made = self.cloud.create_vm(&order).await.expect("a server");
        self.cloud.wait_running(&made.provider_id, PATIENCE).await.expect("up")
    }

    /// A VM of another installation's that runs.
    pub(crate) async fn foreign_vm(&self) -> CloudVm {
        let vm = VmId::generate();
        let image = self.full_order(vm).await.image;
        let order = VmOrder { image, ..self.order_of(vm, InstallationId::generate()) };
        let made = self.cloud.create_vm(&order).await.expect("a server");
        self.cloud.wait_running(&made.provider_id, PATIENCE).await.expect("up")
    }

    /// Our label.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let labels = installation_label(self.installation);
        assert!(labels.contains_key(LABEL_INSTALLATION));
        labels
    }

    pub(crate) async fn stop(self) {
        self.sandbox.stop().await;
    }
}

fn connect(provider: &str, base: &str, token: &str, timeout: Duration) -> AnyCloud {
    let pace = Pace {
        poll_first: Duration::from_millis(2),
        poll_longest: Duration::from_millis(25),
        retry_first: Duration::from_millis(2),
        retry_longest: Duration::from_millis(20),
        retry_budget: Duration::from_millis(150),
        doubt: DOUBT,
        timeout,
        ..Pace::new(Clock::wall())
    };
    let base = base.parse().expect("a URL");
    AnyCloud::connect(provider, &base, Secret::new(token), pace).expect("a client")
}

/// The names in one list of the simulator's state.
pub(crate) fn names(state: &Value, list: &str, field: &str) -> Vec<String> {
    let all = state[list].as_array().unwrap_or_else(|| panic!("no list `{list}`"));
    all.iter().map(|one| one[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// Asks until the answer is there.
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
