//! The agent's next version: signed, tried, in place once it has linked; and the old one wherever
//! that does not come about. The programs are small scripts around the real one.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use vmkit::fleet::FleetError;
use vmkit_agent_protocol::bytes::Bytes;
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::care::{
    Care, Cared, NewAgent, Piece, UpgradeReport, UpgradeStage, agent_binary_statement,
};
use vmkit_agent_protocol::upkeep::Upkeep;

use crate::rig::{Agent, DEADLINE, Rig, until};

const PROGRAM: &str = "usr/local/bin/vmkit-agent";

/// A program that is the real one, and says of itself what it is.
fn program(name: &str) -> String {
    let real = env!("CARGO_BIN_EXE_vmkit");
    format!(
        "#!/bin/sh\n# {name}\n[ \"$1\" = self-test ] && echo 'vmkit-agent is well: {name}' && exit 0\n\
         exec '{real}' agent \"$@\"\n"
    )
}

/// One that passes its own test and then does `deed` instead of linking.
fn broken(deed: &str) -> String {
    format!(
        "#!/bin/sh\n[ \"$1\" = self-test ] && echo 'vmkit-agent is well: broken' && exit 0\n{deed}\n"
    )
}

fn sum(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

struct Upgrade {
    rig: Rig,
    old: String,
    agent: Agent,
}

impl Upgrade {
    /// A linked agent whose program is `old`.
    async fn new() -> Self {
        let rig = Rig::new().await;
        let old = program("old");
        let path = rig.path(PROGRAM);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &old).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let agent = Self::start(&rig);
        rig.linked().await;
        Self { rig, old, agent }
    }

    fn start(rig: &Rig) -> Agent {
        Agent::start_program(&rig.path(PROGRAM), rig.root.path(), &["--trial-ms", "3000"])
    }

    async fn ask(&self, care: Care) -> Result<UpgradeReport, FleetError> {
        match self.rig.fleet.call(self.rig.vm, Call::Care(care), DEADLINE).await? {
            Reply::Cared(Cared::Upgrade(report)) => Ok(report),
            other => panic!("{other:?}"),
        }
    }

    fn announce(&self, text: &str, key: &SigningKey) -> Care {
        let (sha256, bytes) = (sum(text), text.len() as u64);
        let statement = agent_binary_statement(arch(), bytes, &sha256);
        let signature = Bytes(key.sign(&statement).to_bytes());
        Care::BeginUpgrade(NewAgent { sha256, bytes, arch: arch().to_owned(), signature })
    }

    fn piece(offset: usize, text: &str) -> Care {
        let base64 = BASE64_STANDARD.encode(text);
        Care::UpgradePiece(Piece { offset: offset as u64, base64 })
    }

    /// Sends a program in two pieces and lets it be tried.
    async fn send(&self, text: &str) -> Result<UpgradeReport, FleetError> {
        self.ask(self.announce(text, &self.rig.identity)).await?;
        let half = text.len() / 2;
        self.ask(Self::piece(0, &text[..half])).await?;
        self.ask(Self::piece(half, &text[half..])).await?;
        self.ask(Care::TryUpgrade(Upkeep::default())).await
    }

    /// Waits until an upgrade is over, whoever answers.
    async fn over(&self) -> UpgradeReport {
        until("the upgrade is over", async || {
            let report = self.ask(Care::UpgradeState).await.ok()?;
            matches!(report.stage, UpgradeStage::Done | UpgradeStage::RolledBack).then_some(report)
        })
        .await
    }

    fn in_place(&self) -> String {
        std::fs::read_to_string(self.rig.path(PROGRAM)).unwrap()
    }

    fn is_clean(&self) {
        let names = std::fs::read_dir(self.rig.path("usr/local/bin")).unwrap();
        let names: BTreeSet<String> =
            names.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!names.contains(".vmkit-agent.next"), "{names:?}");
    }
}

fn show(title: &str, report: &UpgradeReport) {
    eprintln!("--- {title}");
    for line in &report.transcript {
        eprintln!("{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_version_takes_over_once_it_has_linked() {
    let upgrade = Upgrade::new().await;
    let pid = upgrade.agent.id();
    let new = program("new");
    let begun = upgrade.send(&new).await.unwrap();
    assert_eq!(begun.stage, UpgradeStage::Trial, "{begun:#?}");
    let report = upgrade.over().await;
    show("an upgrade", &report);
    assert_eq!((report.stage, &report.installed), (UpgradeStage::Done, &sum(&new)));
    assert_eq!(upgrade.in_place(), new);
    let before = std::fs::read_to_string(upgrade.rig.path("usr/local/bin/.vmkit-agent.before"));
    assert_eq!(before.unwrap(), upgrade.old, "the old one is there for a person's hands");
    upgrade.is_clean();
    // The same process goes on as the new program, so that systemd sees no end.
    upgrade.rig.linked().await;
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    let again = upgrade.ask(upgrade.announce(&new, &upgrade.rig.identity)).await.unwrap();
    assert_eq!(again.stage, UpgradeStage::Done, "nothing to do a second time");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_link_leaves_the_old_one() {
    let upgrade = Upgrade::new().await;
    for (deed, why) in
        [("exec sleep 600", "it did not link within 3"), ("exit 3", "it ended before it linked")]
    {
        let bad = broken(deed);
        assert_eq!(upgrade.send(&bad).await.unwrap().stage, UpgradeStage::Trial);
        let report = upgrade.over().await;
        show("a rollback", &report);
        assert_eq!(
            (report.stage, &report.installed),
            (UpgradeStage::RolledBack, &sum(&upgrade.old))
        );
        let last = report.transcript.last().unwrap();
        assert!(last.contains(why) && last.contains("the old program goes on"), "{last}");
        assert_eq!(upgrade.in_place(), upgrade.old);
        upgrade.is_clean();
        upgrade.rig.linked().await;
    }
    // One that fails its own test is not even tried.
    let report = upgrade.send("#!/bin/sh\nexit 7\n").await.unwrap();
    assert_eq!(report.stage, UpgradeStage::RolledBack);
    assert!(report.transcript.last().unwrap().contains("failed with 7"), "{report:#?}");
    let report = upgrade.send("not a program for this machine").await.unwrap();
    assert!(report.transcript.last().unwrap().contains("does not start"), "{report:#?}");
    assert_eq!(upgrade.in_place(), upgrade.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_installation_did_not_sign_is_not_taken() {
    let upgrade = Upgrade::new().await;
    let (new, other) = (program("new"), program("other"));
    let code = |refused: Result<UpgradeReport, FleetError>| match refused {
        Err(FleetError::Fault { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    let stranger = SigningKey::from_bytes(&rand::random());
    assert_eq!(code(upgrade.ask(upgrade.announce(&new, &stranger)).await), "not_signed");
    assert_eq!(code(upgrade.ask(Upgrade::piece(0, &new)).await), "invalid");
    let signed = upgrade.announce(&new, &upgrade.rig.identity);
    // Signed for another length, another architecture, and longer than a VM takes.
    let Care::BeginUpgrade(signed_for) = signed.clone() else { panic!() };
    let longer = NewAgent { bytes: 1 << 40, ..signed_for.clone() };
    assert_eq!(code(upgrade.ask(Care::BeginUpgrade(longer)).await), "not_signed");
    let elsewhere = NewAgent { arch: "riscv".to_owned(), ..signed_for };
    assert_eq!(code(upgrade.ask(Care::BeginUpgrade(elsewhere)).await), "not_signed");
    // The right announcement, and other bytes of the same length.
    upgrade.ask(signed).await.unwrap();
    let forged = other.replace("other", "neo");
    let forged = format!("{forged}{}", "\n".repeat(new.len().saturating_sub(forged.len())));
    upgrade.ask(Upgrade::piece(0, &forged[..new.len()])).await.unwrap();
    assert_eq!(code(upgrade.ask(Upgrade::piece(new.len(), "more")).await), "invalid");
    assert_eq!(code(upgrade.ask(Care::TryUpgrade(Upkeep::default())).await), "not_signed");
    assert_eq!(upgrade.in_place(), upgrade.old);
    upgrade.is_clean();
}

/// The power goes as the transcript reaches each of its lines, and the program that starts then is
/// whole, and links.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_any_point_leaves_one_that_starts() {
    let mut upgrade = Upgrade::new().await;
    let mut outcomes = BTreeSet::new();
    for lines in 1..=5 {
        let new = program(&format!("new after {lines}"));
        let before = upgrade.in_place();
        let record = upgrade.rig.path("var/lib/vmkit/care/upgrade.json");
        let reached = || {
            let text = std::fs::read_to_string(&record).unwrap_or_default();
            let now: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let told = now["transcript"].as_array().map_or(0, Vec::len);
            (now["wanted"] == sum(&new) && told >= lines).then_some(())
        };
        {
            let sending = upgrade.send(&new);
            tokio::pin!(sending);
            let cut = until("the line is written", async || reached());
            tokio::select! {
                () = cut => {}
                sent = &mut sending => {
                    if let Err(error) = sent {
                        // An answer that the cut took away is not missed.
                        eprintln!("while it was sent: {error}");
                    }
                    until("the line is written", async || reached()).await;
                }
            }
        }
        upgrade.agent.kill();
        let there = upgrade.in_place();
        assert!(there == new || there == before, "half a program after {lines} lines");
        outcomes.insert(there == new);
        upgrade.agent = Upgrade::start(&upgrade.rig);
        upgrade.rig.linked().await;
        let report =
            until("the agent answers", async || upgrade.ask(Care::UpgradeState).await.ok()).await;
        show(&format!("the power went after line {lines}"), &report);
        assert_ne!(report.stage, UpgradeStage::Trial, "{report:#?}");
    }
    assert!(outcomes.contains(&false), "it was cut early as well");
}

/// An upgrade that goes on where a lost link ended it, without the pieces that are there.
#[tokio::test(flavor = "multi_thread")]
async fn pieces_that_arrived_are_not_sent_again() {
    let upgrade = Upgrade::new().await;
    let new = program("new");
    upgrade.ask(upgrade.announce(&new, &upgrade.rig.identity)).await.unwrap();
    upgrade.ask(Upgrade::piece(0, &new[..10])).await.unwrap();
    upgrade.rig.cable.cut();
    upgrade.rig.linked().await;
    let report = until("the agent answers", async || {
        upgrade.ask(upgrade.announce(&new, &upgrade.rig.identity)).await.ok()
    })
    .await;
    assert_eq!((report.stage, report.received), (UpgradeStage::Receiving, 10));
    let begun = tokio::time::timeout(Duration::from_secs(60), async {
        upgrade.ask(Upgrade::piece(10, &new[10..])).await.unwrap();
        upgrade.ask(Care::TryUpgrade(Upkeep::default())).await.unwrap()
    });
    assert_eq!(begun.await.unwrap().stage, UpgradeStage::Trial);
    assert_eq!(upgrade.over().await.installed, sum(&new));
}

/// The link ends while the new program tests itself, and the gateway asks for the trial again.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_was_asked_for_is_made_once_whatever_becomes_of_the_link() {
    let upgrade = Upgrade::new().await;
    let go = upgrade.rig.path("go");
    let new = program("slow").replacen(
        "#!/bin/sh\n",
        &format!(
            "#!/bin/sh\nwhile [ \"$1\" = self-test ] && [ ! -e '{}' ]; do sleep 0.02; done\n",
            go.display()
        ),
        1,
    );
    upgrade.ask(upgrade.announce(&new, &upgrade.rig.identity)).await.unwrap();
    upgrade.ask(Upgrade::piece(0, &new)).await.unwrap();
    let said = async |what: &str| {
        until(what, async || {
            let report = upgrade.ask(Care::UpgradeState).await.ok()?;
            report.transcript.iter().any(|line| line.contains(what)).then_some(())
        })
        .await;
    };
    let first = async { upgrade.ask(Care::TryUpgrade(Upkeep::default())).await };
    let cut = async {
        said("its sum is right").await;
        upgrade.rig.cable.cut();
    };
    let (first, ()) = tokio::join!(first, cut);
    assert!(first.is_err(), "{first:?}");
    upgrade.rig.linked().await;
    let again = async {
        until("it is asked again", async || {
            match upgrade.ask(Care::TryUpgrade(Upkeep::default())).await {
                Err(FleetError::Fault { code, .. }) => Some(code),
                Err(_) => None,
                Ok(report) => panic!("tried twice: {report:#?}"),
            }
        })
        .await
    };
    let goes = async {
        // By now the second one waits, or comes too late, which is as good.
        said("its sum is right").await;
        std::fs::write(&go, "").unwrap();
    };
    let (again, ()) = tokio::join!(again, goes);
    assert_eq!(again, "invalid");
    let report = upgrade.over().await;
    show("an upgrade over a lost link", &report);
    assert_eq!((report.stage, &report.installed), (UpgradeStage::Done, &sum(&new)));
    let tests = report.transcript.iter().filter(|line| line.contains("its own test passed"));
    assert_eq!(tests.count(), 1);
}
