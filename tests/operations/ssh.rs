//! The link over SSH, as a laptop without a public address uses it: real `vmkit worker` processes,
//! and VMs with an SSH server of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vmkit::domain::ids::VmId;
use vmkit::domain::operation::OperationState;
use vmkit::fleet::{LogPage, LogQuery, Presence};
use vmkit::operations::provision_vm;
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_sandbox::machines::{ContainerSpec, Image, Machine, SshKnobs, SshVisit};

use crate::jobs::Job;
use crate::stage::{Stage, staging};

/// A stage with a set-up repo and an environment, and a process that drives.
async fn ready() -> Stage {
    let mut stage = Stage::without_address().await;
    stage.drive();
    Job::Setup.done(&stage).await;
    stage.merge_pulls().await;
    stage.create_environment().await;
    stage
}

fn machine(stage: &Stage) -> Machine {
    stage.sandbox.machines().list().pop().expect("a machine")
}

async fn vm(stage: &Stage) -> VmId {
    stage.context().store.vms().await.expect("read")[0].vm.id
}

/// The worker may be away for a moment; then nothing is known.
async fn presence(stage: &Stage) -> Presence {
    let vm = vm(stage).await;
    stage.context().fleet.presence(vm).await.unwrap_or_default()
}

async fn linked(stage: &Stage) {
    stage.until("the agent is linked", async || presence(stage).await.linked.then_some(())).await;
}

async fn trouble(stage: &Stage, code: &str) -> String {
    stage
        .until(code, async || {
            let trouble = presence(stage).await.trouble?;
            (trouble.code == code).then_some(trouble.message)
        })
        .await
}

fn logins(visits: &[SshVisit]) -> usize {
    visits.iter().map(|visit| visit.logins.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_without_a_public_address_does_the_main_job() {
    let stage = ready().await;
    let plan = provision_vm::plan(stage.context(), &staging()).await.expect("a plan");
    assert!(plan.body.summary.contains("over SSH"), "{}", plan.body.summary);
    let provisioned = Job::Provision.done(&stage).await;
    Job::Provision.check_good_end(&stage, provisioned).await;

    // The host key of the user-data is gone, from the VM and from us.
    let machine = machine(&stage);
    let now = machine.host_key();
    assert_eq!(stage.sql("select host_key from vm_link"), std::slice::from_ref(&now));
    assert_eq!(stage.sql("select id from secret where purpose = 'host_key'"), Vec::<String>::new());
    let announced = "select vm from vm_link where next_host_key is not null";
    assert_eq!(stage.sql(announced), Vec::<String>::new());
    let known = stage.sql("select known_hosts from vm");
    assert_eq!(known, [format!("{} {now}", machine.address())]);
    let config = std::fs::read_to_string(machine.path("/etc/vmkit/agent.toml")).expect("a file");
    assert!(!config.contains("enrolment_token") && !config.contains("gateway ="), "{config}");
    let visits = machine.ssh_record();
    assert!(visits.len() >= 3, "upload, first link, link on the new host key: {visits:#?}");
    for visit in visits.iter().filter(|visit| visit.user.is_some()) {
        assert_eq!(visit.user.as_deref(), Some("vmkit"));
        assert_eq!(visit.command.as_deref(), Some("/usr/local/lib/vmkit/link"));
    }
    assert!(visits.iter().all(|visit| visit.logins.len() <= 1), "one login a connection");

    stage.set_env("GREETING", "hello over ssh").await;
    let deployed = Job::Deploy.done(&stage).await;
    Job::Deploy.check_good_end(&stage, deployed).await;
    let query = LogQuery { service: "shop-staging".to_owned(), limit: 100, ..LogQuery::default() };
    let vm = vm(&stage).await;
    stage
        .until("the app's own lines are read", async || {
            let page = stage.context().fleet.logs(vm, query.clone()).await.ok()?;
            (!page.lines.is_empty()).then_some(())
        })
        .await;

    let destroyed = Job::Destroy.done(&stage).await;
    Job::Destroy.check_good_end(&stage, destroyed).await;
    assert_eq!(stage.sql("select vm from vm_link"), Vec::<String>::new());
    assert_eq!(stage.sql("select id from secret where purpose = 'link_key'"), Vec::<String>::new());
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_changed_host_key_is_refused_before_any_login() {
    let mut stage = ready().await;
    Job::Provision.done(&stage).await;
    let machine = machine(&stage);
    let path = machine.path("/etc/ssh/ssh_host_ed25519_key");
    let right = std::fs::read_to_string(&path).expect("a key");
    let other = SshKnobs { other_host_key: true, ..SshKnobs::default() };
    for changed_on_disk in [false, true] {
        stage.kill().await;
        if changed_on_disk {
            std::fs::write(&path, fresh_key()).expect("written");
        } else {
            machine.set_ssh_knobs(other.clone()).await;
        }
        let before = machine.ssh_record().len();
        stage.drive();
        let message = trouble(&stage, "ssh_host_key").await;
        assert_eq!(message.matches("SHA256:").count(), 2, "{message}");
        let visits = &machine.ssh_record()[before..];
        assert!(!visits.is_empty());
        assert_eq!(logins(visits), 0, "{visits:#?}");
        stage.until_logged("nothing was sent to it").await;
        // Whoever looks at the VM is told.
        stage.kill().await;
        machine.set_ssh_knobs(SshKnobs::default()).await;
        std::fs::write(&path, &right).expect("written");
        stage.drive();
        linked(&stage).await;
    }
    stage.tear_down().await;
}

fn fresh_key() -> String {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&rand::random());
    let key = ssh_key::PrivateKey::from(pair).to_openssh(ssh_key::LineEnding::LF);
    key.expect("a key").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_tried_once_and_said() {
    let mut stage = ready().await;
    Job::Provision.done(&stage).await;
    let machine = machine(&stage);
    stage.kill().await;
    machine.set_ssh_knobs(SshKnobs { refuses_logins: true, ..SshKnobs::default() }).await;
    let before = machine.ssh_record().len();
    stage.drive();
    let message = trouble(&stage, "ssh_login_refused").await;
    assert!(message.contains("authorized_keys"), "{message}");
    assert_eq!(logins(&machine.ssh_record()[before..]), 1, "the next comes half a minute later");
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_told_from_a_missing_network_and_an_open_one_is_found_again() {
    let mut stage = ready().await;
    Job::Provision.done(&stage).await;
    let machine = machine(&stage);
    assert!(stage.vmkit(&["doctor"]).await.contains("over SSH; 127.77."));
    machine.set_ssh_knobs(SshKnobs { closed: true, ..SshKnobs::default() }).await;
    let message = trouble(&stage, "ssh_refused").await;
    assert!(message.contains("`vmkit doctor`"), "{message}");
    let doctor = stage.vmkit(&["doctor"]).await;
    assert!(doctor.contains("refuses connections while HTTPS works"), "{doctor}");
    // A server that is slow to greet is no broken one.
    let slow = SshKnobs { slow: Duration::from_millis(700), ..SshKnobs::default() };
    machine.set_ssh_knobs(slow).await;
    linked(&stage).await;
    // The laptop was closed: its worker is gone, and another one catches up.
    stage.kill().await;
    stage.drive();
    linked(&stage).await;
    let reply = stage.context().fleet.call(vm(&stage).await, Call::HostFacts, PATIENCE).await;
    assert!(matches!(reply, Ok(Reply::HostFacts(_))), "{reply:?}");
    stage.tear_down().await;
}

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_another_checksum_is_not_installed() {
    let stage = ready().await;
    let stored = stage.sql("select size from environment");
    let arch = if stored[0].starts_with("cax") { "arm64" } else { "amd64" };
    let file = stage.agent_file(arch);
    let right = std::fs::read(&file).expect("an agent");
    // The worker knows its digest from the plan on; then somebody changes it.
    let plan = provision_vm::plan(stage.context(), &staging()).await.expect("a plan");
    let ask = vmkit::operations::Ask::by("test");
    stage.fault(
        (crate::stage::At::Cloud, "GET", r"/servers/\d+$"),
        vmkit_sandbox::faults::Action::HoldBefore,
        Some(1),
    );
    let started = provision_vm::start(stage.context(), &staging(), plan.id, ask).await;
    let Ok(vmkit::operations::Started::Operation(id)) = started else { panic!("{started:?}") };
    let held = stage.held(crate::stage::At::Cloud, id).await;
    std::fs::write(&file, vec![b'x'; right.len()]).expect("written");
    if let Some(held) = held {
        stage.release(crate::stage::At::Cloud, held).await;
    }
    let machine = stage.until("a machine", async || stage.sandbox.machines().list().pop()).await;
    // What the VM waits for is not there any more, so nothing is brought to it.
    let told = trouble(&stage, "agent_other").await;
    assert!(told.contains("put that one back"), "{told}");
    assert!(!machine.has_file("/usr/local/bin/vmkit-agent"));
    // The right one is taken as soon as it comes.
    std::fs::write(&file, &right).expect("written");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    linked(&stage).await;
    stage.tear_down().await;
}

/// Prints `line 1`, `line 2`, … in bursts, and its last number into a file.
const COUNTER: &str = "n=0; while [ ! -e stop ]; do burst=$((n + 20)); \
    while [ $n -lt $burst ]; do n=$((n + 1)); echo \"line $n of a container that has a lot to say\"; done; \
    sleep 0.1; done; echo $n > last.new; mv last.new last";

fn numbers(page: &LogPage) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for line in &page.lines {
        let number = line.text.split(' ').nth(1).and_then(|number| number.parse().ok());
        *counts.entry(number.expect("a numbered line")).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_nothing_is_lost_or_doubled_when_the_link_is_cut_in_the_middle_of_a_frame() {
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let stage = ready().await;
    Job::Provision.done(&stage).await;
    let (machine, vm) = (machine(&stage), vm(&stage).await);
    let folder = tempfile::tempdir().expect("a folder");
    let spec = ContainerSpec {
        name: "shop-staging-web-v1".to_owned(),
        image: Image {
            reference: "counter".to_owned(),
            dir: folder.path().to_owned(),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), COUNTER.to_owned()],
            env: Vec::new(),
            labels: BTreeMap::new(),
        },
        labels: [("service", "shop-staging"), ("role", "web")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..ContainerSpec::default()
    };
    machine.docker().run(spec).await.expect("a container");
    let query =
        LogQuery { service: "shop-staging".to_owned(), limit: 100_000, ..LogQuery::default() };
    let fleet = &stage.context().fleet;
    let cached = async || {
        let newest = LogQuery { limit: 1, ..query.clone() };
        let page = fleet.cached_logs(vm, newest).await.ok()?;
        numbers(&page).last_key_value().map(|(last, _)| *last)
    };
    for _ in 0..20 {
        let visits = machine.ssh_record().len();
        // Key exchange and login take some 3,000 bytes: a few cuts fall into those as well.
        let bytes = chance.random_range(2_500..20_000);
        machine
            .set_ssh_knobs(SshKnobs { cut_after_bytes: Some(bytes), ..SshKnobs::default() })
            .await;
        machine.cut_ssh();
        stage
            .until("it is tried again", async || {
                (machine.ssh_record().len() > visits).then_some(())
            })
            .await;
        machine.set_ssh_knobs(SshKnobs::default()).await;
        let before = cached().await.unwrap_or_default();
        stage
            .until("lines arrive again", async || cached().await.filter(|last| *last > before))
            .await;
    }
    std::fs::write(folder.path().join("stop"), "").expect("written");
    let last: u64 = stage
        .until("the container has ended", async || {
            std::fs::read_to_string(folder.path().join("last")).ok()?.trim().parse().ok()
        })
        .await;
    stage.until("all is in the cache", async || (cached().await? == last).then_some(())).await;
    let page = fleet.cached_logs(vm, query.clone()).await.expect("a page");
    let counts = numbers(&page);
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert_eq!(doubled, Vec::<(&u64, &usize)>::new(), "seed {seed}");
    let lost: Vec<u64> = (1..=last).filter(|number| !counts.contains_key(number)).take(5).collect();
    assert_eq!((lost, page.dropped), (Vec::new(), 0), "seed {seed}: of {last}");
    stage.tear_down().await;
}
