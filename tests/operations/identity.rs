//! `vmkit rotate-identity`: the key by which agents know an installation, changed from the command
//! line while a worker holds the links.

use vmkit::domain::operation::OperationState;
use vmkit::operations::Ask;
use vmkit::operations::maintain_vm::{Action, start};

use crate::jobs::{Job, begun};
use crate::stage::Stage;

impl Stage {
    /// The keys that the state file has, and those that the VM's agent has pinned.
    fn identities(&self) -> (usize, Vec<String>) {
        let kept = self.sql("select id from secret where purpose = 'gateway_identity'").len();
        let file = self.machine().path("/etc/vmkit/agent.toml");
        let text = std::fs::read_to_string(file).expect("its configuration");
        let table: toml::Table = text.parse().expect("TOML");
        let pin = |name: &str| table.get(name).map(|key| key.as_str().expect("text").to_owned());
        (kept, [pin("gateway_key"), pin("next_gateway_key")].into_iter().flatten().collect())
    }
}

async fn changes(mut stage: Stage) {
    Job::Setup.done(&stage).await;
    stage.merge_pulls().await;
    stage.create_environment().await;
    Job::Provision.done(&stage).await;
    let (_, first) = stage.identities();
    let said = stage.vmkit(&["rotate-identity"]).await;
    let (kept, second) = stage.identities();
    assert_eq!((kept, second.len()), (1, 1));
    assert_eq!(said.trim(), second[0]);
    assert_ne!(first, second);

    // A VM that is off is waited for: both keys are good until it has come back.
    let server = stage.sql("select provider_id from vm").remove(0);
    stage.power_off(&server).await;
    let said = stage.vmkit(&["rotate-identity", "--wait", "1"]).await;
    assert_eq!(said, "", "it is not over");
    assert_eq!(stage.identities(), (2, second.clone()));
    stage.kill().await;
    stage.machine().power_on().await.expect("on");
    stage.drive();
    let said = stage.vmkit(&["rotate-identity"]).await;
    let (kept, third) = stage.identities();
    assert_eq!((kept, third.len()), (1, 1));
    assert_eq!(said.trim(), third[0]);
    assert_ne!(second, third);

    // What is signed and made from now on is by the new one.
    let program = format!(
        "#!/bin/sh\n[ \"$1\" = self-test ] && echo 'vmkit-agent is well: new' && exit 0\n\
         exec '{}' agent \"$@\"\n",
        env!("CARGO_BIN_EXE_vmkit")
    );
    for arch in ["amd64", "arm64"] {
        std::fs::write(stage.agent_file(arch), &program).expect("written");
    }
    let request = stage.maintain(Action::UpgradeAgent);
    let id = begun(start(stage.context(), &request, None, Ask::by("test")).await).expect("begun");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    let said = stage.sql("select tool || ' ' || outcome from audit where tool like 'rotate%'");
    let each = ["rotate-identity BEGUN", "rotate-identity DONE"];
    assert_eq!(said, [each, each].concat());
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_agents_that_dial_in_none_is_lost() {
    let mut stage = Stage::set_up().await;
    stage.drive();
    changes(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_agents_that_are_reached_over_ssh_none_is_lost() {
    let mut stage = Stage::without_address().await;
    stage.drive();
    changes(stage).await;
}
