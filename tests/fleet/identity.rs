//! The gateway's own key: two pins while it is changed, and afterwards nobody who has the old one.

use ed25519_dalek::{Signer, SigningKey};
use vmkit_agent_protocol::PROTOCOL;
use vmkit_agent_protocol::bytes::{Bytes, PublicKey};
use vmkit_agent_protocol::calls::Call;
use vmkit_agent_protocol::care::{
    Care, NewAgent, TrustGateway, agent_binary_statement, gateway_keys_statement,
};
use vmkit_agent_protocol::messages::Outcome;

use super::fake_gateway::FakeGateway;
use super::rig::{Rig, until};

fn key() -> SigningKey {
    SigningKey::from_bytes(&rand::random())
}

fn public(key: &SigningKey) -> PublicKey {
    Bytes(key.verifying_key().to_bytes())
}

fn in_the_configuration(rig: &Rig) -> String {
    std::fs::read_to_string(rig.path("etc/vmkit/agent.toml")).unwrap()
}

/// Waits until the agent trusts this key alone, and the gateway knows.
async fn settled(rig: &Rig, key: &SigningKey) {
    let only = [public(key).to_string()];
    until("the agent trusts that key alone", async || {
        let presence = rig.fleet.presence(rig.vm).await.unwrap();
        (presence.linked && presence.trusts == only).then_some(())
    })
    .await;
    let text = in_the_configuration(rig);
    assert!(text.contains(&format!("gateway_key = \"{}\"", only[0])), "{text}");
    assert!(!text.contains("next_gateway_key"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_identity_cuts_nobody_off_and_the_old_one_is_refused_afterwards() {
    let rig = Rig::new().await;
    let mut agent = rig.start_agent();
    settled(&rig, &rig.identity).await;
    let mut old = rig.identity.clone();
    for round in 0..3 {
        let new = key();
        *rig.book.identities.lock().unwrap() = vec![new.clone(), old.clone()];
        // Between any two words, at times, the link ends.
        if round > 0 {
            rig.cable.cut_after(rand::random_range(1..1_500));
        }
        rig.fleet.relink(rig.vm);
        settled(&rig, &new).await;
        *rig.book.identities.lock().unwrap() = vec![new.clone()];
        rig.cable.cut_after(0);
        rig.fleet.relink(rig.vm);
        if round % 2 == 0 {
            agent.kill();
            rig.unlinked().await;
            agent = rig.start_agent();
        }
        settled(&rig, &new).await;
        old = std::mem::replace(&mut *rig.book.identities.lock().unwrap(), vec![old]).remove(0);
        // Somebody has kept the one that was replaced.
        let refusals = || {
            let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
            log.matches("does not hold the key that this VM trusts").count()
        };
        let before = refusals();
        rig.fleet.relink(rig.vm);
        until("the old one is refused", async || (refusals() > before).then_some(())).await;
        assert!(!rig.fleet.presence(rig.vm).await.unwrap().linked);
        *rig.book.identities.lock().unwrap() = vec![old.clone()];
        settled(&rig, &old).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_pinned_on_the_word_of_one_that_is_pinned_and_stays() {
    let rig = Rig::new().await;
    rig.configure_served(super::rig::TOKEN);
    let _agent = rig.start_agent();
    let mut gateway = FakeGateway::link(&rig).await;
    let (ours, next, stranger) = (rig.identity.clone(), key(), key());
    let vm = rig.vm.to_string();
    let wanted = |keys: &[&SigningKey], by: &SigningKey, of: &str| {
        let keys: Vec<PublicKey> = keys.iter().map(|key| public(key)).collect();
        let signature = Bytes(by.sign(&gateway_keys_statement(of, &keys)).to_bytes());
        Call::Care(Care::TrustGateway(TrustGateway { keys, signature }))
    };
    let before = until("the token is forgotten", async || {
        Some(in_the_configuration(&rig)).filter(|text| !text.contains(super::rig::TOKEN))
    })
    .await;
    let refused = [
        // By nobody's key, by one that would not stay, by one that is not pinned, for another VM.
        (wanted(&[&ours, &next], &stranger, &vm), "not_signed"),
        (wanted(&[&next], &ours, &vm), "not_signed"),
        (wanted(&[&ours, &next], &next, &vm), "not_signed"),
        (wanted(&[&ours, &next], &ours, "vm_other"), "not_signed"),
        (wanted(&[], &ours, &vm), "invalid"),
        (wanted(&[&ours, &next, &stranger], &ours, &vm), "invalid"),
        (wanted(&[&ours, &ours], &ours, &vm), "invalid"),
    ];
    for (id, (call, code)) in (10..).zip(refused) {
        gateway.call(id, call).await;
        let Outcome::Fault(fault) = gateway.outcome(id).await else { panic!("{id} was done") };
        assert_eq!(fault.code, code, "{id}");
    }
    assert_eq!(in_the_configuration(&rig), before);
    gateway.call(30, wanted(&[&ours, &next], &ours, &vm)).await;
    assert!(matches!(gateway.outcome(30).await, Outcome::Ok { .. }));
    drop(gateway);
    // Either is the gateway's now, and what the older one said once does not count for long.
    drop(FakeGateway::link_as(&rig, &ours, PROTOCOL).await.unwrap());
    let mut gateway = FakeGateway::link_as(&rig, &next, PROTOCOL).await.unwrap();
    gateway.call(31, wanted(&[&next], &next, &vm)).await;
    assert!(matches!(gateway.outcome(31).await, Outcome::Ok { .. }));
    gateway.call(32, wanted(&[&ours, &next], &ours, &vm)).await;
    let Outcome::Fault(fault) = gateway.outcome(32).await else { panic!("a replay was done") };
    assert_eq!(fault.code, "not_signed");
    assert!(FakeGateway::link_as(&rig, &ours, PROTOCOL).await.is_err());
    // A program that the old one signed is none of ours any more.
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let sha256 = "ab".repeat(32);
    let announced = |by: &SigningKey| {
        let statement = agent_binary_statement(arch, 7, &sha256);
        let signature = Bytes(by.sign(&statement).to_bytes());
        let (arch, sha256) = (arch.to_owned(), sha256.clone());
        Call::Care(Care::BeginUpgrade(NewAgent { sha256, bytes: 7, arch, signature }))
    };
    gateway.call(33, announced(&ours)).await;
    let Outcome::Fault(fault) = gateway.outcome(33).await else { panic!("it was taken") };
    assert_eq!(fault.code, "not_signed");
    gateway.call(34, announced(&next)).await;
    assert!(matches!(gateway.outcome(34).await, Outcome::Ok { .. }));
}
