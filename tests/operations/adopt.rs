//! Machines that were there before VMKit: with users, keys, programs that listen and containers of
//! their own, all of which stay; set up over their SSH server by the scripts as they are, in a real
//! shell.

use std::collections::BTreeMap;
use std::path::Path;

use vmkit::domain::environment::{Settings, Vm};
use vmkit::domain::ids::OperationId;
use vmkit::domain::operation::OperationState;
use vmkit::domain::plan::Policy;
use vmkit::operations::adopt_vm::{self, NeedsKey, Planned, Target};
use vmkit::operations::environments::{self, NewEnvironment};
use vmkit::operations::maintain_vm::Action as Maintain;
use vmkit::operations::{Ask, OpError, Started, maintain_vm, plans, resize_vm};
use vmkit::store::PlanRow;
use vmkit_sandbox::machines::{ContainerSpec, Image, Machine, MachineOrder, SshKnobs};

use crate::jobs::{Job, begun};
use crate::stage::{Stage, staging};

/// Who owns the machines.
const OWNER: &str = "deploy";

fn public_key() -> String {
    use ssh_key::{Algorithm, PrivateKey, rand_core::OsRng};
    let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).expect("a key");
    key.public_key().to_openssh().expect("its line")
}

fn append(machine: &Machine, path: &str, line: &str) {
    let path = machine.path(path);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, format!("{text}{line}\n")).expect("written");
}

/// Gives a machine an owner: a user with a key, a database that listens, and a container.
pub(crate) async fn furnish(machine: &Machine) -> u16 {
    append(machine, "/etc/passwd", &format!("{OWNER}:x:1000:1000::/home/{OWNER}:/bin/bash"));
    append(machine, "/etc/group", "deploy:x:1000:");
    append(machine, "/etc/passwd", "ops:x:1001:1001::/srv/ops:/bin/sh");
    // Their last lines have no end, as an editor may leave them.
    for home in ["/root".to_owned(), format!("/home/{OWNER}")] {
        let keys = machine.path(&format!("{home}/.ssh/authorized_keys"));
        std::fs::create_dir_all(keys.parent().expect("a folder")).expect("made");
        std::fs::write(keys, public_key()).expect("written");
    }
    let spec = ContainerSpec {
        name: "their-cache".to_owned(),
        image: Image {
            reference: "redis:7".to_owned(),
            dir: machine.path("/"),
            command: ["/bin/sh", "-c", "exec sleep 1000"].map(str::to_owned).to_vec(),
            env: Vec::new(),
            labels: BTreeMap::new(),
        },
        ..ContainerSpec::default()
    };
    machine.docker().run(spec).await.expect("a container");
    machine.listen("postgres", 0).await.expect("a port")
}

/// Puts VMKit's line where its person was asked to put it.
pub(crate) fn let_in(machine: &Machine, needs: &NeedsKey) {
    assert_eq!(needs.address, machine.address());
    let home =
        if needs.login == "root" { "/root".to_owned() } else { format!("/home/{}", needs.login) };
    let path = format!("{home}/.ssh/authorized_keys");
    let text = std::fs::read_to_string(machine.path(&path)).unwrap_or_default();
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    std::fs::write(machine.path(&path), format!("{text}{gap}{}\n", needs.line)).expect("written");
}

fn fingerprint(machine: &Machine) -> String {
    let key = ssh_key::PublicKey::from_openssh(&machine.host_key()).expect("a key");
    key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
}

/// Plans the adoption of a machine, letting VMKit in where it may not look yet.
pub(crate) async fn planned(
    stage: &Stage,
    machine: &Machine,
    target: &str,
) -> Result<PlanRow, OpError> {
    let target = Target::parse(target)?;
    let known = fingerprint(machine);
    for _ in 0..2 {
        match adopt_vm::plan(stage.context(), &staging(), &target, Some(&known)).await? {
            Planned::Plan(plan) => return Ok(*plan),
            Planned::NeedsKey(needs) => let_in(machine, &needs),
        }
    }
    panic!("VMKit is not let in");
}

/// Starts the adoption of the one server of the simulated cloud.
pub(crate) async fn of_their_server(stage: &Stage) -> Result<OperationId, OpError> {
    let state = stage.cloud().await;
    let id = state["servers"][0]["id"].to_string();
    let machine = stage.sandbox.machines().list().pop().expect("a machine");
    let plan = planned(stage, &machine, &format!("hetzner:{id}")).await?;
    begun(adopt_vm::start(stage.context(), &staging(), plan.id, Ask::by("test")).await)
}

/// A server that its owner ordered by hand.
pub(crate) async fn their_server(stage: &Stage) {
    let order = serde_json::json!({
        "name": "theirs", "server_type": "cpx22", "location": "fsn1", "image": "debian-13",
        "labels": { "team": "red" },
    });
    stage.cloud_post("servers", order).await;
    let ready = || async {
        let state = stage.cloud().await;
        (state["servers"][0]["status"] == "running").then_some(())
    };
    stage.until("their server runs", ready).await;
    furnish(&stage.sandbox.machines().list().pop().expect("a machine")).await;
}

/// A machine in nobody's API, and an environment that is to run on one.
async fn their_machine(stage: &Stage, order: MachineOrder) -> Machine {
    let machine = stage.sandbox.machines().create(order).await.expect("a machine");
    furnish(&machine).await;
    let settings = Settings {
        provider: Some(Vm::OWN_MACHINE.to_owned()),
        size: "own".parse().expect("a size"),
        region: "own".parse().expect("a region"),
        domain: Some("shop.example.com".parse().expect("a domain")),
        port: 8080,
        health_path: "/up".to_owned(),
        protected: false,
    };
    let new = NewEnvironment { path: staging(), settings, vm: None };
    environments::create(stage.context(), new).await.expect("created");
    machine
}

async fn ready(order: MachineOrder) -> (Stage, Machine) {
    let mut stage = Stage::without_address().await;
    stage.drive();
    Job::Setup.done(&stage).await;
    stage.merge_pulls().await;
    let machine = their_machine(&stage, order).await;
    (stage, machine)
}

fn order() -> MachineOrder {
    MachineOrder { name: "box".to_owned(), ..MachineOrder::default() }
}

/// Every file of the machine that is its owner's or its system's.
fn files(machine: &Machine) -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(at).expect("a folder").flatten() {
            let path = entry.path();
            let inside = path.strip_prefix(root).expect("inside").display().to_string();
            let volatile = ["run", "proc", "tmp", "var/log"].contains(&inside.as_str());
            if volatile {
                continue;
            }
            let meta = entry.metadata().expect("it is there");
            if meta.is_dir() {
                walk(root, &path, found);
            } else {
                let text = std::fs::read(&path).unwrap_or_default();
                found.insert(inside, String::from_utf8_lossy(&text).into_owned());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(machine.root(), machine.root(), &mut found);
    // The one line that its owner added by hand.
    for text in found.values_mut() {
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains("vmkit-adopt")).collect();
        *text = kept.join("\n");
    }
    found
}

fn assert_as_before(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    let differ: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
}

async fn run(stage: &Stage, plan: PlanRow) -> OperationId {
    begun(adopt_vm::start(stage.context(), &staging(), plan.id, Ask::by("test")).await)
        .expect("started")
}

fn answers(machine: &Machine, port: u16) -> bool {
    std::net::TcpStream::connect((machine.address(), port)).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_ones_own_is_adopted_deployed_to_and_left_as_it_was() {
    let (stage, machine) = ready(order()).await;
    let port = machine.listen("nginx", 0).await.expect("a port");
    let before = files(&machine);
    let target = Target::parse(&machine.address().to_string()).expect("a target");

    // Until its person lets VMKit in there is nothing but a question.
    let asked = adopt_vm::plan(stage.context(), &staging(), &target, None).await;
    let Ok(Planned::NeedsKey(needs)) = asked else { panic!("{asked:?}") };
    assert_eq!((needs.fingerprint.clone(), needs.expected), (fingerprint(&machine), false));
    assert!(needs.line.starts_with("ssh-ed25519 ") && needs.line.ends_with("vmkit-adopt"));
    let again = adopt_vm::plan(stage.context(), &staging(), &target, None).await;
    let Ok(Planned::NeedsKey(same)) = again else { panic!("{again:?}") };
    assert_eq!(same.line, needs.line, "the line stays good");
    let_in(&machine, &needs);

    // A host key that only the machine itself vouches for: a person has to say that it is right.
    let made = adopt_vm::plan(stage.context(), &staging(), &target, None).await;
    let Ok(Planned::Plan(plan)) = made else { panic!("{made:?}") };
    assert_eq!(plan.policy, Policy::Human);
    let told = plan.body.touches.join("\n");
    for word in [
        &format!("ITS SSH HOST KEY IS {}", fingerprint(&machine)),
        "(postgres)",
        &format!(":{port} (nginx)"),
        "deploy (SHA256:",
        "ops (no key)",
        "their-cache (redis:7, running)",
        "who could lose access: nobody",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_as_before(&before, &files(&machine));
    let ask = Ask::by("test");
    let waits = adopt_vm::start(stage.context(), &staging(), plan.id, ask.clone()).await;
    assert!(matches!(waits, Ok(Started::NeedsApproval(_))), "{waits:?}");
    plans::approve(stage.context(), plan.id, "a person").await.expect("approved");
    let id = run(&stage, *plan).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?} {:#?}", stage.steps(id).await);

    // Everything of theirs is there; VMKit's way in is its own user, and the line is gone.
    assert!(answers(&machine, port));
    assert!(machine.docker().get("their-cache").is_some_and(|one| one.running));
    let now = files(&machine);
    for (path, text) in &before {
        let kept = now.get(path).unwrap_or_else(|| panic!("{path} is gone"));
        let there = |line: &str| kept.lines().any(|now| now.starts_with(line));
        assert!(text.lines().all(there), "{path}: {kept}");
    }
    let root_keys = machine.authorized_keys("root");
    assert!(root_keys.iter().all(|line| !line.contains("vmkit-adopt")), "{root_keys:?}");
    assert_eq!(machine.authorized_keys("vmkit").len(), 1);
    assert!(!machine.is_armed());
    assert_eq!(stage.sql("select target from adoption"), Vec::<String>::new());
    assert_eq!(stage.sql("select host_key from vm_link"), [machine.host_key()]);
    assert!(stage.sql("select known_hosts from vm")[0].ends_with(&machine.host_key()));

    // What nobody can do with it is said.
    let vm = stage.context().store.vms().await.expect("read")[0].vm.id;
    let resize = resize_vm::plan(stage.context(), &stage.resize_to("cpx32")).await;
    assert_eq!(resize.expect_err("no size").code(), "own_machine");
    let reboot = maintain_vm::MaintainRequest { vm, action: Maintain::Reboot };
    let reboot = maintain_vm::plan(stage.context(), &reboot).await;
    assert_eq!(reboot.expect_err("no power").code(), "own_machine");
    let twice = planned(&stage, &machine, &machine.address().to_string()).await;
    assert_eq!(twice.expect_err("ours").code(), "has_vm");

    let deployed = Job::Deploy.done(&stage).await;
    assert_eq!(stage.row(deployed).await.state, OperationState::Succeeded);
    assert!(machine.docker().list().iter().any(|one| one.name.starts_with("shop-staging-web")));
    let destroyed = Job::Destroy.done(&stage).await;
    let result = stage.row(destroyed).await.result.expect("a result");
    assert_eq!(result.get("left"), None, "{result}");
    assert_eq!(stage.sql("select id from vm where state != 'deleted'"), Vec::<String>::new());
    assert!(!machine.docker().list().iter().any(|one| one.name.starts_with("shop-staging")));
    assert!(answers(&machine, port) && machine.is_on().await);
    assert!(machine.docker().get("their-cache").is_some_and(|one| one.running));
    assert_as_before(&before, &files(&machine));
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_key_is_refused_before_anybody_logs_in() {
    let (stage, machine) = ready(order()).await;
    let target = Target::parse(&format!("root@{}", machine.address())).expect("a target");
    // Not the one that the person knows.
    let other = ssh_key::PublicKey::from_openssh(&public_key()).expect("a key");
    let other = other.fingerprint(ssh_key::HashAlg::Sha256).to_string();
    let refused = adopt_vm::plan(stage.context(), &staging(), &target, Some(&other)).await;
    let refused = refused.expect_err("refused");
    assert_eq!(refused.code(), "other_host_key");
    assert!(refused.to_string().contains(&other), "{refused}");
    assert!(refused.to_string().contains(&fingerprint(&machine)), "{refused}");
    let nonsense = adopt_vm::plan(stage.context(), &staging(), &target, Some("SHA256:x")).await;
    assert_eq!(nonsense.expect_err("refused").code(), "bad_fingerprint");
    assert!(machine.ssh_record().iter().all(|visit| visit.logins.is_empty()));

    // Another one by the time that the plan is carried out.
    let plan = planned(&stage, &machine, &target.to_string()).await.expect("a plan");
    assert_eq!(plan.policy, Policy::Plan, "the person knew its host key");
    let changed = SshKnobs { other_host_key: true, ..SshKnobs::default() };
    machine.set_ssh_knobs(changed).await;
    let seen = machine.ssh_record().len();
    let begun = adopt_vm::start(stage.context(), &staging(), plan.id, Ask::by("test")).await;
    assert_eq!(begun.expect_err("refused").code(), "other_host_key");
    assert!(machine.ssh_record()[seen..].iter().all(|visit| visit.logins.is_empty()));
    assert_eq!(stage.sql("select id from vm"), Vec::<String>::new());
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_work_is_told_before_anything_is_done() {
    // Without Docker and with a web server; another installation's; one that keeps us out.
    let (stage, machine) = ready(MachineOrder { bare: true, ..order() }).await;
    machine.listen("apache2", 80).await.expect("port 80 of an address of its own");
    let address = machine.address().to_string();
    let plan = planned(&stage, &machine, &address).await.expect("a plan");
    let told = plan.body.touches.join("\n");
    assert!(told.contains("PORT 80 IS TAKEN by apache2"), "{told}");
    assert!(told.contains("there is no Docker: it is installed"), "{told}");
    let before = files(&machine);
    let id = run(&stage, plan).await;
    assert_eq!(stage.end_of(id).await.state, OperationState::Succeeded);
    assert!(machine.path("/usr/bin/docker").exists());
    let daemon = std::fs::read_to_string(machine.path("/etc/docker/daemon.json")).expect("a file");
    assert!(daemon.contains("live-restore"), "{daemon}");
    assert!(answers(&machine, 80));
    Job::Destroy.done(&stage).await;
    let mut after = files(&machine);
    assert!(after.remove("usr/bin/docker").is_some(), "Docker stays");
    assert_as_before(&before, &after);

    stage.write_sql("update environment set deleted_at = 1");
    let theirs = their_machine(&stage, order()).await;
    append(&theirs, "/etc/vmkit/agent.toml", "vm = \"vm_01jc4k0000000000000000000a\"");
    let address = theirs.address().to_string();
    let refused = planned(&stage, &theirs, &address).await.expect_err("refused");
    assert_eq!(refused.code(), "not_ours");
    std::fs::remove_dir_all(theirs.path("/etc/vmkit")).expect("removed");
    append(&theirs, "/etc/ssh/sshd_effective", "allowusers root deploy");
    let refused = planned(&stage, &theirs, &address).await.expect_err("refused");
    assert_eq!(refused.code(), "unfit_machine");
    assert!(refused.to_string().contains("AllowUsers, and `vmkit`"), "{refused}");
    std::fs::remove_file(theirs.path("/etc/ssh/sshd_effective")).expect("removed");
    // A user with sudo does as well as root.
    let plan = planned(&stage, &theirs, &format!("deploy@{address}")).await.expect("a plan");
    let id = run(&stage, plan).await;
    assert_eq!(stage.end_of(id).await.state, OperationState::Succeeded);
    assert!(theirs.ssh_record().iter().any(|one| {
        one.user.as_deref() == Some("deploy")
            && one.command.as_deref() == Some("sudo -n sh -s set_up")
    }));
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_installation_and_one_that_is_not_there_are_refused() {
    let mut stage = Stage::set_up().await;
    Job::Provision.prepare(&mut stage).await;
    their_server(&stage).await;
    let state = stage.cloud().await;
    let id = state["servers"][0]["id"].to_string();
    let machine = stage.sandbox.machines().list().pop().expect("a machine");
    let missing = planned(&stage, &machine, "hetzner:999").await.expect_err("refused");
    assert_eq!(missing.code(), "no_server");
    let labels =
        serde_json::json!({ "labels": { "vmkit.io/installation": "01jc4k0000000000000000000a" } });
    stage.cloud_put(&format!("servers/{id}"), labels).await;
    let foreign = planned(&stage, &machine, &id).await.expect_err("refused");
    assert_eq!(foreign.code(), "not_ours");
    assert!(machine.ssh_record().is_empty(), "nobody even looked");
    stage.tear_down().await;
}

/// Who adopts is gone in the middle, and does not come back in time: the machine helps itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_nobody_confirms_takes_everything_off_by_itself() {
    for step in ["set_up", "wait_agent"] {
        let (mut stage, machine) = ready(order()).await;
        let plan = planned(&stage, &machine, &machine.address().to_string()).await.expect("a plan");
        let before = files(&machine);
        stage.kill().await;
        let id = run(&stage, plan).await;
        stage.drive();
        stage.until_step(id, step).await;
        stage.kill().await;
        assert!(machine.is_armed(), "armed before anything else");
        machine.fire_undo().await;
        assert_as_before(&before, &files(&machine));
        assert!(!machine.is_armed());
        // And whoever comes back finds that out, and frees the environment.
        stage.drive();
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::Failed, "{row:#?} {:#?}", stage.steps(id).await);
        assert_as_before(&before, &files(&machine));
        assert_eq!(stage.sql("select size from environment where vm is null"), ["own"]);
        // The line is still there: another attempt needs nobody.
        let plan = planned(&stage, &machine, &machine.address().to_string()).await.expect("a plan");
        let id = run(&stage, plan).await;
        assert_eq!(stage.end_of(id).await.state, OperationState::Succeeded);
        stage.tear_down().await;
    }
}

/// What was there and is not any more, whoever's fault that is, is a reason to leave.
#[tokio::test(flavor = "multi_thread")]
async fn crash_a_program_that_ended_meanwhile_undoes_it_and_the_undo_goes_on_after_a_crash() {
    let (mut stage, machine) = ready(order()).await;
    let port = machine.listen("nginx", 0).await.expect("a port");
    let before = files(&machine);
    for undone in ["set_up", "arm", "prepare"] {
        machine.stop_listening("nginx");
        machine.listen("nginx", port).await.expect("again");
        let plan = planned(&stage, &machine, &machine.address().to_string()).await.expect("a plan");
        stage.kill().await;
        let id = run(&stage, plan).await;
        machine.stop_listening("nginx");
        stage.drive();
        stage.until_undoing(id, undone).await;
        stage.kill().await;
        stage.drive();
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::Failed, "{row:#?} {:#?}", stage.steps(id).await);
        let failure = row.failure.expect("a reason");
        assert_eq!(failure.code, "disturbed");
        assert!(failure.message.contains(&format!(":{port}")), "{failure:?}");
        assert_as_before(&before, &files(&machine));
    }
    stage.tear_down().await;
}
