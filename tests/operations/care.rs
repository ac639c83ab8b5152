//! Care of a VM that leaves its apps running.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use vmkit::domain::ids::OperationId;
use vmkit::domain::operation::OperationState;
use vmkit::operations::Ask;
use vmkit::operations::maintain_vm::{Action, needs_plan, plan, start};
use vmkit::store::OperationRow;
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::care::{Care, Cared, Harden, KeyUser, Prune, ReplaceKey};
use vmkit_agent_protocol::upkeep::{KamalLocks, Upkeep};
use vmkit_sandbox::machines::{ContainerSpec, Image};

use crate::jobs::{Job, begun};
use crate::stage::{PATIENCE, Stage};

pub(crate) async fn begin(stage: &Stage, action: Action) -> OperationId {
    let request = stage.maintain(action);
    let context = stage.context();
    let plan = match needs_plan(context, &request).await.expect("known") {
        true => Some(plan(context, &request).await.expect("planned").id),
        false => None,
    };
    begun(start(context, &request, plan, Ask::by("test")).await).expect("started")
}

async fn done(stage: &Stage, action: Action) -> Value {
    let id = begin(stage, action).await;
    let row: OperationRow = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    row.result.expect("a result")
}

/// One stage for what does not get in each other's way: set up, provisioned, deployed.
async fn deployed() -> Stage {
    let mut stage = Stage::set_up().await;
    Job::Reboot.prepare(&mut stage).await;
    stage.drive_here().await;
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn hardening_is_reported_and_a_plan_lists_what_pruning_would_free() {
    let stage = deployed().await;
    let report = done(&stage, Action::Harden).await;
    let told = report.to_string();
    assert_eq!(report["armed"], false, "the user-data has done what there is: {report:#}");
    for here in ["journal: ", "docker: ", "sshd: there is no SSH server", "bans: no fail2ban"] {
        assert!(told.contains(here), "{report:#}");
    }

    let machine = stage.machine();
    let run = async |name: String, labels: Vec<(&str, &str)>| {
        let labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let image = Image {
            reference: format!("ghcr.io/octo/{name}"),
            dir: machine.root().to_owned(),
            command: vec!["true".to_owned()],
            ..Image::default()
        };
        let spec = ContainerSpec { name: name.clone(), image, labels, ..ContainerSpec::default() };
        machine.docker().run(spec).await.expect("it ran");
        stage
            .until("it has ended", async || {
                machine.docker().get(&name).filter(|one| !one.running).map(drop)
            })
            .await;
    };
    for version in 1..=5 {
        let labels = vec![("service", "blog-production"), ("role", "web")];
        run(format!("blog-production-web-{version}"), labels).await;
    }
    run("somebodys".to_owned(), vec![]).await;
    let context = stage.context();
    let request = stage.maintain(Action::Prune);
    let listed = plan(context, &request).await.expect("planned");
    let gone = ["blog-production-web-1", "blog-production-web-2"];
    assert_eq!(listed.body.lost.len(), 4, "two containers, two images: {:#?}", listed.body.lost);
    for name in gone {
        assert!(listed.body.lost.contains(&format!("stopped container {name}")));
        assert!(machine.docker().get(name).is_some(), "a plan frees nothing");
    }
    let pruned = done(&stage, Action::Prune).await;
    assert_eq!(pruned["containers"], json!(["blog-production-web-2", "blog-production-web-1"]));
    assert_eq!(pruned["bytes"], 400_000_000);
    let left: Vec<String> = machine.docker().list().into_iter().map(|one| one.name).collect();
    assert!(
        left.contains(&"somebodys".to_owned())
            && gone.iter().all(|one| !left.iter().any(|l| l == one))
    );
    assert_eq!(stage.serving().await.len(), 1, "what ran runs");
    assert_eq!(stage.kamal_locks(), Vec::<String>::new());
    let empty = plan(context, &request).await.expect("planned");
    assert_eq!(empty.body.lost, Vec::<String>::new());
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_tried_and_a_bad_one_leaves_the_agent_that_was_there() {
    let mut stage = Stage::set_up().await;
    let program = |name: &str| {
        let real = env!("CARGO_BIN_EXE_vmkit");
        format!(
            "#!/bin/sh\n# {name}\n[ \"$1\" = self-test ] && echo 'vmkit-agent is well: {name}' && exit 0\n\
             exec '{real}' agent \"$@\"\n"
        )
    };
    Job::Deploy.prepare(&mut stage).await;
    let hand_out = |text: &str| {
        for arch in ["amd64", "arm64"] {
            std::fs::write(stage.agent_file(arch), text).expect("written");
        }
    };
    hand_out("no program at all");
    stage.drive_here().await;
    let id = begin(&stage, Action::UpgradeAgent).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    let failure = row.failure.expect("a failure");
    assert_eq!(failure.code, "upgrade_rolled_back");
    assert!(failure.message.contains("the old program goes on"), "{failure:?}");
    // What is in the folder now is another file by its time and length, and is read anew.
    let new = program("new");
    for arch in ["amd64", "arm64"] {
        std::fs::write(stage.agent_file(arch), &new).expect("written");
    }
    let result = done(&stage, Action::UpgradeAgent).await;
    assert_eq!(result["before"], "", "the sandbox's VMs have their first agent elsewhere");
    let there = stage.machine().path("/usr/local/bin/vmkit-agent");
    assert_eq!(std::fs::read_to_string(&there).expect("a program"), new);
    assert_eq!(std::fs::metadata(&there).expect("it").permissions().mode() & 0o777, 0o755);
    assert!(result["transcript"].to_string().contains("it linked"), "{result:#}");
    let again = done(&stage, Action::UpgradeAgent).await;
    assert_eq!(again["sha256"], result["sha256"]);
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_let_in_and_old_keys_do_not() {
    let mut stage = Stage::without_address().await;
    stage.drive();
    Job::Setup.done(&stage).await;
    stage.merge_pulls().await;
    stage.create_environment().await;
    Job::Provision.done(&stage).await;
    stage.set_env("GREETING", "before the change").await;
    Job::Deploy.done(&stage).await;
    let keys = || {
        let machine = stage.machine();
        let body =
            |line: String| line.split_whitespace().rev().nth(1).map(str::to_owned).expect("a key");
        let of = |user| machine.authorized_keys(user).into_iter().map(body).collect::<Vec<_>>();
        (of("kamal"), of("vmkit"), machine.authorized_keys("admin"))
    };
    let (kamal, vmkit, admin) = keys();
    let secrets =
        "select purpose from secret where purpose in ('deploy_key', 'link_key') order by 1";
    let result = done(&stage, Action::RotateKeys).await;
    assert_eq!(result["keys"], 2);
    let (new_kamal, new_vmkit, same_admin) = keys();
    assert_eq!((new_kamal.len(), new_vmkit.len()), (kamal.len(), 1), "one for one");
    assert_eq!(admin, same_admin);
    assert!(new_kamal.iter().filter(|key| kamal.contains(key)).count() == 1, "the owner's stays");
    assert_ne!(new_vmkit, vmkit);
    let restricted = stage.machine().authorized_keys("vmkit").remove(0);
    assert!(restricted.starts_with("restrict,command=\"/usr/local/lib/vmkit/link\" "));
    assert_eq!(stage.sql(secrets), ["deploy_key", "link_key"], "the old ones are forgotten");
    assert_eq!(stage.kamal_locks(), Vec::<String>::new());
    // GitHub's copy is the new one: a deploy gets in with it.
    stage.set_env("GREETING", "after the change").await;
    Job::Current.done(&stage).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_github_refuses_changes_no_key() {
    let stage = deployed().await;
    let before =
        (stage.machine().authorized_keys("kamal"), stage.sql("select public_key from deploy_key"));
    let refuse = vmkit_sandbox::faults::Action::Status {
        code: 403,
        body: None,
        headers: std::collections::BTreeMap::new(),
    };
    stage.fault((crate::stage::At::GitHub, "PUT", "/actions/secrets/"), refuse, Some(1));
    let id = begin(&stage, Action::RotateKeys).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    let after =
        (stage.machine().authorized_keys("kamal"), stage.sql("select public_key from deploy_key"));
    assert_eq!(after, before);
    assert_eq!(
        stage.sql("select purpose from secret where purpose = 'deploy_key'"),
        ["deploy_key"]
    );
    assert_eq!(stage.kamal_locks(), Vec::<String>::new());
    stage.tear_down().await;
}

/// The driver dies with each step begun and done; another goes on to the same good end.
#[tokio::test(flavor = "multi_thread")]
async fn crash_in_a_rotation_loses_no_key() {
    let mut stage = deployed().await;
    for step in ["make_keys", "add_keys", "switch_keys", "drop_keys"] {
        let id = begin(&stage, Action::RotateKeys).await;
        stage
            .until(step, async || {
                let steps = stage.steps(id).await;
                let reached = steps.iter().any(|row| row.name == step);
                (reached || stage.row(id).await.state.is_ended()).then_some(())
            })
            .await;
        stage.kill().await;
        stage.drive_here().await;
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
        let ours = stage.sql("select public_key from deploy_key").remove(0);
        let there = stage.machine().authorized_keys("kamal");
        assert_eq!(there.iter().filter(|line| line.contains("vmkit-shop-staging")).count(), 1);
        assert!(there.contains(&ours), "{there:#?}");
        assert_eq!(stage.sql("select purpose from secret where purpose = 'deploy_key'").len(), 1);
    }
    stage.tear_down().await;
}

/// What the machine around a sandbox VM looks like, where an agent that broke out would leave a
/// mark: the content of what hardening writes, the names beside it, kernel parameters.
fn outside() -> Vec<String> {
    let mut seen = Vec::new();
    for folder in [
        "/etc/ssh",
        "/etc/ssh/sshd_config.d",
        "/etc/sysctl.d",
        "/etc/apt/apt.conf.d",
        "/etc/docker",
        "/etc/systemd/system",
        "/etc/systemd/journald.conf.d",
        "/etc/vmkit",
        "/usr/local/bin",
        "/var/lib/vmkit",
        "/run/vmkit",
        "/home",
    ] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            let facts = entry.metadata().map(|facts| (facts.len(), facts.modified().ok()));
            seen.push(format!("{} {facts:?}", entry.path().display()));
        }
    }
    for parameter in ["kernel/dmesg_restrict", "kernel/kptr_restrict", "net/ipv4/tcp_syncookies"] {
        let value = std::fs::read_to_string(format!("/proc/sys/{parameter}")).unwrap_or_default();
        seen.push(format!("{parameter} {value}"));
    }
    seen.sort();
    seen
}

/// Everything that an agent can be asked, on a VM in a private folder, as whoever runs the tests
/// (root, in CI).
#[tokio::test(flavor = "multi_thread")]
async fn no_call_of_the_agent_leaves_its_own_machine() {
    let stage = deployed().await;
    let before = outside();
    let vm = stage.maintain(Action::Harden).vm;
    let operation = "op_01jc4k00000000000000000000".to_owned();
    let upkeep = Upkeep { operation: operation.clone() };
    let key = stage.sql("select public_key from deploy_key").remove(0);
    stage.context().fleet.wait_linked(vm, PATIENCE).await.expect("linked");
    let care = |care| Call::Care(care);
    let calls = vec![
        Call::HostFacts,
        Call::Containers,
        Call::Metrics,
        Call::TakeKamalLocks(KamalLocks { operation: operation.clone(), ..KamalLocks::default() }),
        Call::Quiesce(upkeep.clone()),
        Call::Resume(upkeep.clone()),
        Call::ReleaseKamalLocks(upkeep.clone()),
        Call::PrepareHostKey,
        care(Care::Harden(Harden { operation, undo_after_s: 60 })),
        care(Care::UndoHarden(upkeep.clone())),
        care(Care::Harden(Harden::default())),
        care(Care::KeepHardened(upkeep.clone())),
        care(Care::Prune(Prune { dry_run: false, keep: 0 })),
        care(Care::UpgradeState),
        care(Care::TryUpgrade(upkeep.clone())),
        care(Care::ReplaceKey(ReplaceKey { user: KeyUser::Kamal, old: None, new: Some(key) })),
        care(Care::Unknown),
        Call::Unknown,
    ];
    for call in calls {
        let told = format!("{call:?}");
        let fleet = &stage.context().fleet;
        match fleet.call(vm, call, PATIENCE).await {
            Ok(Reply::Cared(Cared::Hardened(report))) => {
                assert!(report.measures.iter().any(|one| one.says.contains("no SSH server")));
            }
            Ok(_) => {}
            Err(vmkit::fleet::FleetError::Fault { code, .. }) => {
                let known = ["unsupported", "invalid", "not_signed"];
                assert!(known.contains(&code.as_str()), "{told}: {code}");
            }
            Err(error) => panic!("{told}: {error}"),
        }
    }
    let after = outside();
    let new: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert_eq!(new, Vec::<&String>::new());
    assert_eq!(after.len(), before.len());
    stage.tear_down().await;
}
