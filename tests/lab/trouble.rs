//! What can go wrong, provoked with the real tools: the old version serves on, and `diagnose` names
//! the one cause. Each row is one deploy that fails, and what mends it; those of the VM and those of a
//! version have a VM each, since a scenario may take four minutes.

use serde_json::json;

use crate::more;
use crate::record::{record, records};
use crate::repo::Repo;
use crate::rig::{Client, Rig, call, data_of, text};
use crate::steps::{Place, deploys, done, provisioned, set_up};

pub(crate) const REEF: Place = Place { environment: "reef/staging", domain: "reef.example.com" };
/// A program of another architecture that no machine has a handler for: the head of an ELF file for
/// the PDP-10.
const FOREIGN: &[u8] = b"\x7fELF\x01\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x40\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x34\0\0\0\0\0\0\0\0\0\0";

/// A failure on the VM: its name, what breaks the VM, the code, and what mends it.
pub(crate) type Harm = (&'static str, &'static str, &'static str, &'static str);

const ON_THE_VM: &[Harm] = &[
    (
        "key-refused",
        "mv /home/kamal/.ssh/authorized_keys /home/kamal/.ssh/gone",
        "ssh_auth_failed",
        "mv /home/kamal/.ssh/gone /home/kamal/.ssh/authorized_keys",
    ),
    ("docker-forbidden", "gpasswd -d kamal docker", "docker_forbidden", "usermod -aG docker kamal"),
    (
        "lock-of-a-person",
        "cd /home/kamal/.kamal && mkdir lock-reef-staging && printf 'Locked by: Ada at 2026-11-20T09:30:00Z\\nVersion: 1\\nMessage: Hands off' | base64 -w 0 > lock-reef-staging/details && chown -R kamal lock-reef-staging",
        "deploy_locked",
        "rm -r /home/kamal/.kamal/lock-reef-staging",
    ),
    (
        "domain-taken",
        "docker exec kamal-proxy kamal-proxy remove reef-staging-web; docker exec kamal-proxy kamal-proxy deploy other --target=$(docker ps -qf name=reef-staging-web | head -1):8080 --host=reef.example.com",
        "domain_taken",
        "docker exec kamal-proxy kamal-proxy remove other",
    ),
    (
        "port-taken",
        "docker rm -f kamal-proxy; (setsid python3 -m http.server 80 >/dev/null 2>&1 & echo $! > /root/taken)",
        "port_taken",
        "kill $(cat /root/taken); docker rm -f kamal-proxy",
    ),
    (
        "host-key-changed",
        "cd /etc/ssh && mkdir /root/keys && mv ssh_host_* /root/keys/ && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && systemctl restart ssh",
        "host_key_changed",
        "rm /etc/ssh/ssh_host_*; mv /root/keys/* /etc/ssh/ && systemctl restart ssh",
    ),
    (
        "docker-down",
        "systemctl stop docker.socket docker.service",
        "docker_down",
        "systemctl start docker.socket docker.service",
    ),
];

/// What a version does before it listens, and the code.
const IN_THE_APP: &[(&str, &str, &str)] = &[
    ("crash", "echo 'no such table: tides'; exit 3\n", "crashed_at_start"),
    ("other-port", "APP_PORT=9999\n", "wrong_port"),
    ("no-path", "rm -f /app/www/up\n", "wrong_health_path"),
    (
        "missing-value",
        "echo 'Missing required environment variable: TIDE_TABLE'; exit 1\n",
        "missing_env_key",
    ),
    ("memory", "x=$(head -c 90000000 /dev/zero | tr '\\0' x); echo ${#x}\n", "out_of_memory"),
];

/// A scenario on one VM, in which many deploys fail.
pub(crate) struct Trouble<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) repo: &'a Repo<'a>,
    pub(crate) client: &'a Client,
    pub(crate) wrong: Vec<String>,
}

/// A repo, a VM and a first version, with so many seconds for a new one to become healthy.
pub(crate) async fn first_version(
    rig: &Rig,
    repo: &Repo<'_>,
    client: &Client,
    start_timeout_s: u32,
) {
    set_up(client, repo).await;
    provisioned(rig, client, REEF).await;
    let short =
        json!({"start_timeout_s": start_timeout_s, "processes": {"web": {"memory_mb": 32}}});
    done(client, "configure_app", REEF.with(short)).await;
    deploys(rig, repo, client, REEF.only()).await;
    rig.tell("a VM with the first version");
}

impl Trouble<'_> {
    /// A deploy that fails, and what `diagnose` says of it. All rows are tried before the verdict.
    pub(crate) async fn breaks(&mut self, name: &str, code: &str) {
        let answer = call(self.client, "deploy", REEF.only()).await;
        let went = text(&answer).starts_with("DONE ") || data_of(&answer)["state"] == "succeeded";
        let found = call(self.client, "diagnose", REEF.only()).await;
        record(self.rig, self.repo, REEF, name, code).await;
        if went || !text(&found).contains(code) {
            eprintln!("{}", self.repo.newest_logs().await);
            eprintln!("deploy: {}\ndiagnose: {}", text(&answer), text(&found));
            self.wrong.push(format!("{name}: {code}: {}", text(&found)));
        }
        self.rig.tell(&format!("{name}: {code}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_failures_of_a_vm_are_named() {
    let Some(rig) = Rig::new().await else { return };
    let repo = Repo::new(&rig, "reef");
    let client = rig.client(REEF.environment).await;
    first_version(&rig, &repo, &client, 8).await;
    let mut trouble = Trouble { rig: &rig, repo: &repo, client: &client, wrong: vec![] };
    let more = if records() { more::ON_THE_VM } else { &[] };
    for (number, (name, harm, code, mend)) in ON_THE_VM.iter().chain(more).enumerate() {
        // A new commit each time: what is live already would not be deployed again.
        repo.push("text", &format!("try {number}\n")).await;
        rig.on_vm(harm);
        trouble.breaks(name, code).await;
        rig.on_vm(mend);
    }
    repo.push("text", "mended\n").await;
    deploys(&rig, &repo, &client, REEF.only()).await;
    let visitor = rig.visitor(REEF.domain);
    let page = REEF.page(&visitor).await;
    assert!(page.contains("text=mended"), "all of it is mended: {page}");
    rig.tell("all mended, deployed again");

    let dockerfile = repo.read("Dockerfile").await;
    repo.push_bytes("foreign", FOREIGN).await;
    repo.push(
        "Dockerfile",
        "FROM vmkit-lab/busybox\nCOPY foreign /foreign\nRUN chmod +x /foreign\nEXPOSE 8080\nCMD [\"/foreign\"]\n",
    )
    .await;
    trouble.breaks("foreign", "wrong_architecture").await;
    repo.push("Dockerfile", &dockerfile).await;

    // The engine of this VM gets a disk of its own that is nearly full; nothing mends that here.
    repo.push("text", "too much\n").await;
    rig.on_vm(
        "systemctl stop docker.socket docker.service; mount -t tmpfs -o size=48m tmpfs /var/lib/docker
        systemctl start docker.service
        free=$(df --output=avail -k /var/lib/docker | tail -n 1)
        fallocate -l $((free - 512))K /var/lib/docker/full",
    );
    trouble.breaks("disk-full", "disk_full").await;
    let wrong = trouble.wrong;
    assert!(wrong.is_empty(), "not named: {wrong:#?}");
    client.cancel().await.expect("ended");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_failures_of_a_version_are_named() {
    let Some(mut rig) = Rig::new().await else { return };
    // Longer than the worker lives that dies in the end.
    rig.set("VMKIT_STEADY_SECONDS", "12");
    let repo = Repo::new(&rig, "reef");
    let client = rig.client(REEF.environment).await;
    // Time for the crash loop to be seen, and no more.
    first_version(&rig, &repo, &client, 6).await;
    let mut trouble = Trouble { rig: &rig, repo: &repo, client: &client, wrong: vec![] };
    for (name, before, code) in IN_THE_APP {
        repo.push("before.sh", before).await;
        trouble.breaks(name, code).await;
    }
    trouble.more_of_a_version().await;
    let visitor = rig.visitor(REEF.domain);
    let page = REEF.page(&visitor).await;
    assert!(page.contains("text=one"), "the old version serves on: {page}");

    // The release command, in the hook that the real Kamal runs. Its container is gone by then, and
    // the journal has what it said.
    repo.push("before.sh", "").await;
    repo.push("release.sh", "echo 'Migration 0007 failed: no such table: tides' >&2; exit 1\n")
        .await;
    let release = |command: &str| REEF.with(json!({ "release": command }));
    done(&client, "configure_app", release("sh /app/release.sh")).await;
    trouble.breaks("release", "migration_failed").await;
    let found = call(&client, "diagnose", REEF.only()).await;
    assert!(text(&found).contains("no such table: tides"), "{}", text(&found));
    let page = REEF.page(&visitor).await;
    assert!(page.contains("text=one"), "the old version serves on: {page}");
    done(&client, "configure_app", release("none")).await;

    // The workflow's run is green: what the worker does afterwards is for the proof to see.
    repo.push("before.sh", "").await;
    let worker = json!({"processes": {"worker": {"command": "sleep 9"}}});
    done(&client, "configure_app", REEF.with(worker)).await;
    trouble.breaks("worker-dies-after-9s", "crash_loop").await;
    let page = REEF.page(&visitor).await;
    assert!(page.contains("text=one"), "the old version serves again: {page}");
    trouble.more_of_the_present().await;
    let wrong = trouble.wrong;
    assert!(wrong.is_empty(), "not named: {wrong:#?}");
    client.cancel().await.expect("ended");
    rig.stop().await;
}
