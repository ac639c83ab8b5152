//! What is left when VMKit goes: its state is deleted, and a person with their own key and the bundle
//! goes on by hand, with Kamal alone.

use std::path::Path;

use serde_json::json;

use crate::repo::Repo;
use crate::rig::{Rig, until};
use crate::steps::{Place, by_owner, deploys, done, provisioned, set_up};

const CAPE: Place = Place { environment: "cape/staging", domain: "cape.example.com" };
const IMAGE: &str = "ghcr.io/octo/cape/staging";
const VERSION: &str = "by-hand";

/// A folder of the person's, with the bundle, the key, and a new version of the app.
fn prepared(rig: &Rig) -> std::path::PathBuf {
    let folder = rig.folder.path().join("person");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = rig.folder.path().join("bundle.tar");
    let place = file.display().to_string();
    let done = rig.command(&["eject", CAPE.environment, &place]).output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    tar::Archive::new(std::fs::File::open(&file).expect("a file")).unpack(&folder).expect("a tar");
    std::fs::copy(rig.folder.path().join("owner"), folder.join("owner")).expect("a key");
    let app = folder.join("app");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/app");
    let copied = std::process::Command::new("cp").arg("-a").args([&source, &app]).status();
    assert!(copied.expect("cp runs").success());
    std::fs::write(app.join("text"), "by hand\n").expect("a file");
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_goes_on_without_vmkit() {
    let Some(rig) = Rig::new().await else { return };
    let repo = Repo::new(&rig, "cape");
    let client = rig.client(CAPE.environment).await;
    set_up(&client, &repo).await;
    provisioned(&rig, &client, CAPE).await;
    let set = CAPE.with(json!({"set": {"GREETING": "from VMKit"}}));
    done(&client, "set_env", set).await;
    deploys(&rig, &repo, &client, CAPE.only()).await;
    let visitor = rig.visitor(CAPE.domain);
    let page = CAPE.page(&visitor).await;
    assert!(page.contains("text=one") && page.contains("greeting=from VMKit"), "{page}");
    let folder = prepared(&rig);
    client.cancel().await.expect("ended");
    rig.quiet().await;
    std::fs::remove_dir_all(rig.folder.path().join("state")).expect("VMKit's data goes");
    rig.tell("VMKit is off, its data is gone");

    rig.lab.build(&folder.join("app"), "cape-staging", &folder.join("image.tar")).expect("built");
    let laptop = rig.lab.laptop(&folder).expect("a laptop");
    let by_hand = |script: &str| {
        let script = format!("cd /work && {script}");
        rig.lab
            .exec(&laptop, &["bash", "-eo", "pipefail", "-c", &script])
            .expect("it works by hand")
    };
    by_hand(
        "mkdir -p -m 0700 ~/.ssh && install -m 0600 owner ~/.ssh/id_ed25519 && cat known_hosts >> ~/.ssh/known_hosts",
    );
    let token = rig.lab.token();
    by_hand(&format!(
        "skopeo copy -q --dest-creds octo:{token} docker-archive:image.tar docker://{IMAGE}:{VERSION}"
    ));
    let deploy = format!(
        "export KAMAL_REGISTRY_PASSWORD={token} && git init -q . 2>/dev/null && kamal deploy -c config/deploy.staging.yml --skip-push --version={VERSION}"
    );
    by_hand(&deploy);
    let page = CAPE.page(&visitor).await;
    assert!(page.contains("text=by hand") && page.contains("greeting=from VMKit"), "{page}");
    rig.tell("a new version is deployed by hand, with Kamal");

    let known_hosts = folder.join("known_hosts").display().to_string();
    let admin = |script: &str| by_owner(&rig, &known_hosts, "admin", script);
    admin("sudo sed -i 's/^GREETING=.*/GREETING=from a person/' /etc/vmkit/env/cape/staging.env");
    let (mode, error) = admin("sudo stat -c '%U:%G %a' /etc/vmkit/env/cape/staging.env");
    assert_eq!(mode.trim(), "root:kamal 640", "{error}");
    by_hand(&deploy);
    let page = CAPE.page(&visitor).await;
    assert!(page.contains("greeting=from a person"), "{page}");
    rig.tell("an env value is changed by hand");

    let machine = rig.sandbox.machines().list().first().cloned().expect("a VM");
    machine.power_off().await;
    machine.power_on().await.expect("it starts");
    until("the app answers", async || CAPE.page(&visitor).await.contains("from a person")).await;
    rig.tell("the VM has started again: the app answers");

    until("the owner gets in", async || admin("true && echo in").0.contains("in")).await;
    let (said, error) = admin(
        "sudo systemctl disable --now vmkit-agent.service && sudo rm /usr/local/bin/vmkit-agent /etc/systemd/system/vmkit-agent.service /etc/vmkit/agent.toml && echo removed",
    );
    assert!(said.contains("removed"), "{said}{error}");
    assert!(CAPE.page(&visitor).await.contains("from a person"), "the app answers");
    by_hand(&deploy);
    assert!(CAPE.page(&visitor).await.contains("from a person"), "the app is deployed again");
    rig.tell("without the agent: the app answers, and is deployed again");
    rig.stop().await;
}
