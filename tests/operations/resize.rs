//! Another size for a VM: what is refused before, what it takes, and how everything is afterwards.

use serde_json::json;
use vmkit::domain::plan::Policy;
use vmkit::operations::maintain_vm::{Action, MaintainRequest};
use vmkit::operations::resize_vm::{ResizeRequest, plan, start, want, wanted};
use vmkit::operations::{Ask, OpError};
use vmkit_sandbox::hetzner::{Knobs, Offer};
use vmkit_sandbox::machines::{ContainerSpec, Machine};

use crate::jobs::{Job, begun};
use crate::stage::{At, Stage, staging};

/// A stage with a deployed app, beside which a second app and a database run.
pub(crate) async fn crowded(job: Job) -> Stage {
    let mut stage = Stage::set_up().await;
    job.prepare(&mut stage).await;
    let machine = stage.machine();
    let shop = machine.docker().list().into_iter().find(|one| one.name.starts_with("shop-"));
    let web = shop.expect("the app");
    let command = stage.sleeper();
    for (name, role) in [("blog-production-web-1", Some("web")), ("shop-staging-db", None)] {
        let service = if role.is_some() { "blog-production" } else { name };
        let mut labels = vec![("service".to_owned(), service.to_owned())];
        labels.extend(role.map(|role| ("role".to_owned(), role.to_owned())));
        let mut image = stage.image_of(&machine, &web.name);
        image.command.clone_from(&command);
        let spec = ContainerSpec {
            name: name.to_owned(),
            image,
            labels: labels.into_iter().collect(),
            restart: true,
            ..ContainerSpec::default()
        };
        machine.docker().run(spec).await.expect("it runs");
    }
    stage
}

impl Stage {
    pub(crate) fn machine(&self) -> Machine {
        self.sandbox.machines().list().into_iter().next().expect("a machine")
    }

    fn image_of(&self, machine: &Machine, name: &str) -> vmkit_sandbox::machines::Image {
        let reference = machine.docker().get(name).expect("it").image;
        vmkit_sandbox::machines::Image {
            reference,
            dir: machine.root().to_owned(),
            ..Default::default()
        }
    }

    /// A command that runs until it is told to end.
    fn sleeper(&self) -> Vec<String> {
        ["sleep", "1000"].map(str::to_owned).to_vec()
    }

    fn vm(&self) -> vmkit::domain::ids::VmId {
        self.sql("select id from vm where state = 'ready'").remove(0).parse().expect("an id")
    }

    pub(crate) fn resize_to(&self, size: &str) -> ResizeRequest {
        let size = size.parse().expect("a size");
        ResizeRequest { vm: self.vm(), size, upgrade_disk: false }
    }

    pub(crate) fn maintain(&self, action: Action) -> MaintainRequest {
        MaintainRequest { vm: self.vm(), action }
    }

    /// The only server's state and size, as the cloud lists them.
    pub(crate) async fn server(&self) -> (String, String) {
        self.server_if_any().await.expect("a server")
    }

    pub(crate) async fn server_if_any(&self) -> Option<(String, String)> {
        let state = self.cloud().await;
        let server = state["servers"].as_array().and_then(|all| all.first().cloned())?;
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        Some((text(&server["status"]), text(&server["server_type"]["name"])))
    }

    /// The locks in Kamal's folder on the machine.
    pub(crate) fn kamal_locks(&self) -> Vec<String> {
        let Some(machine) = self.sandbox.machines().list().into_iter().next() else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(machine.path("/home/kamal/.kamal"));
        let names = entries.into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut locks: Vec<String> = names.filter(|name| name.contains("lock")).collect();
        locks.sort();
        locks
    }

    /// The containers of the machine that run.
    pub(crate) fn running(&self) -> Vec<String> {
        let all = self.machine().docker().list().into_iter();
        let mut names: Vec<String> = all.filter(|one| one.running).map(|one| one.name).collect();
        names.sort();
        names
    }

    /// Everything is as it was: the server runs with this size, what ran runs, nobody is locked out.
    pub(crate) async fn is_well(&self, size: &str, running: &[String]) {
        assert_eq!(self.server().await, ("running".to_owned(), size.to_owned()));
        assert_eq!(self.running(), running);
        assert_eq!(self.kamal_locks(), Vec::<String>::new());
        assert_eq!(self.sql("select size from vm"), [size]);
        self.nothing_is_lost().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn up_and_down_again_with_everything_on_it() {
    let mut stage = crowded(Job::Resize).await;
    let running = stage.running();
    assert_eq!(running.len(), 4, "the proxy, two apps, a database: {running:?}");
    let planned = plan(stage.context(), &stage.resize_to("cpx32")).await.expect("a plan");
    assert_eq!(planned.policy, Policy::Plan);
    let body = &planned.body;
    let (before, after) = (body.monthly_before.expect("a price"), body.monthly_after.expect("it"));
    assert!(after.amount > before.amount, "{before} {after}");
    assert!(body.summary.contains("`cpx22` to `cpx32`") && body.summary.contains("80 GB"));
    assert!(body.summary.contains("price"), "the provider's repricing: {}", body.summary);
    assert!(body.downtime_s > 0 && body.lost.is_empty());
    assert!(body.touches.iter().any(|one| one.contains("shop/staging")), "{:?}", body.touches);

    stage.drive_here().await;
    let seen = stage.last_requests();
    let id = Job::Resize.done(&stage).await;
    let made = stage.faults(At::Cloud).requests().into_iter().filter(|one| one.id > seen[0]);
    let (reads, changes): (Vec<_>, Vec<_>) = made.partition(|one| one.method == "GET");
    eprintln!("one resize, its plan included: {} reads, {} changes", reads.len(), changes.len());
    assert_eq!(changes.len(), 2, "shut down and change: {changes:#?}");
    stage.is_well("cpx32", &running).await;
    let result = stage.row(id).await.result.expect("a result");
    assert_eq!((&result["size_before"], &result["size"]), (&json!("cpx22"), &json!("cpx32")));
    assert_eq!(result["answering"], json!(["shop/staging"]));
    assert_eq!(result["power_was_cut"], json!(false));
    assert_eq!(stage.sql("select monthly_amount from vm"), [after.amount.to_string()]);

    let docker = stage.machine().docker().clone();
    let (web, database) = (docker.get("blog-production-web-1"), docker.get("shop-staging-db"));
    let (web, database) = (web.expect("it"), database.expect("it"));
    assert!(web.finished_at <= database.finished_at, "the apps end first");
    assert!(database.started_at <= web.started_at, "the services start first");

    // The disk was not grown, so there is a way back.
    let request = stage.resize_to("cpx22");
    let planned = plan(stage.context(), &request).await.expect("a plan");
    let down = begun(start(stage.context(), &request, planned.id, Ask::by("test")).await);
    stage.end_of(down.expect("started")).await;
    stage.is_well("cpx22", &running).await;
    assert_eq!(stage.sql("select size from environment"), ["cpx22"]);
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_before_anything_happens() {
    let mut stage = Stage::set_up().await;
    Job::Deploy.prepare(&mut stage).await;
    let offer = Offer { size: "cpx42".to_owned(), region: None };
    let sold_out = std::collections::BTreeSet::from([offer]);
    stage.sandbox.hetzner().set_knobs(Knobs { sold_out, ..Knobs::default() });
    for (size, code, says) in [
        ("cpx22", "same_size", "`cpx22` already"),
        ("cax31", "other_arch", "`cax31` is arm64"),
        ("cx23", "smaller_disk", "80 GB"),
        ("cpx99", "unknown_size", "`cpx99`"),
        ("cpx42", "sold_out", "a month"),
    ] {
        let refused = plan(stage.context(), &stage.resize_to(size)).await.expect_err(size);
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.to_string().contains(says), "{refused}");
        assert!(!refused.fix().is_empty());
    }
    let mut request = stage.resize_to("cpx32");
    request.upgrade_disk = true;
    let planned = plan(stage.context(), &request).await.expect("a plan");
    assert!(planned.body.lost[0].contains("160 GB"), "{:?}", planned.body.lost);
    stage.write_sql("update environment set protected = 1");
    let planned = plan(stage.context(), &request).await.expect("a plan");
    assert_eq!(
        (planned.policy, planned.body.confirm_with.as_str()),
        (Policy::Human, "shop/staging")
    );
    request.vm = vmkit::domain::ids::VmId::generate();
    let refused = plan(stage.context(), &request).await.expect_err("no such VM");
    assert!(matches!(&refused, OpError::UnknownVm { known, .. } if known.contains("vm_")));
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_size_in_the_settings_is_planned_by_the_next_deploy() {
    let mut stage = Stage::set_up().await;
    Job::Current.prepare(&mut stage).await;
    let (context, path) = (stage.context(), staging());
    assert!(wanted(context, &path).await.expect("asked").is_none());
    let refused = want(context, &path, &"cax31".parse().expect("a size")).await.expect_err("arm");
    assert_eq!(refused.code(), "other_arch");
    let size = "cpx32".parse().expect("a size");
    assert_eq!(want(context, &path, &size).await.expect("noted").settings.size, size);
    let planned = wanted(context, &path).await.expect("asked").expect("a plan");
    assert!(planned.body.summary.contains("`cpx22` to `cpx32`"), "{}", planned.body.summary);
    let request = stage.resize_to("cpx32");
    let id = begun(start(stage.context(), &request, planned.id, Ask::by("test")).await);
    stage.drive_here().await;
    stage.end_of(id.expect("started")).await;
    assert!(wanted(stage.context(), &path).await.expect("asked").is_none());
    stage.tear_down().await;
}
