//! The state file through its public calls, on real files, with several openers at once.

mod compat;

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::domain::clock::Millis;
use crate::domain::ids::{InstallationId, OperationId, VmId};
use crate::domain::operation::OperationState;

const NOW: Millis = Millis(1_800_000_000_000);

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vmkit.db");
    Place { _folder: folder, path }
}

async fn open(place: &Place) -> Store {
    Store::open(&place.path).await.expect("a store")
}

fn fresh() -> Installation {
    Installation {
        id: InstallationId::generate(),
        mode: Mode::Local,
        url: None,
        key_fingerprint: "f".to_owned(),
    }
}

fn operation(locks: &[(&str, LockMode)]) -> NewOperation {
    NewOperation {
        id: OperationId::generate(),
        kind: "test",
        version: 1,
        params: json!({}),
        environment: None,
        vm: None,
        locks: locks
            .iter()
            .map(|(resource, mode)| Lock { resource: (*resource).to_owned(), mode: *mode })
            .collect(),
        steps: 2,
        caller: "local".to_owned(),
        reason: None,
        idempotency: None,
        plan: None,
        deploy: None,
        created_at: NOW,
    }
}

async fn code_of(path: &std::path::Path) -> &'static str {
    match Store::open(path).await {
        Ok(_) => "opened",
        Err(error) => error.code(),
    }
}

#[tokio::test]
async fn openers_of_one_file_agree_whose_it_is() {
    let place = place();
    let (one, two) = tokio::join!(open(&place), open(&place));
    let (a, b) = tokio::join!(one.installation(fresh(), NOW), two.installation(fresh(), NOW));
    assert_eq!(a.expect("one").id, b.expect("two").id);
}

/// Two that switched a new file to WAL at the same moment: one was told at once that it is locked.
#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_file_at_once() {
    for _ in 0..20 {
        let place = place();
        let all = futures::future::join_all((0..8).map(|_| Store::open(&place.path))).await;
        let codes: Vec<&str> =
            all.iter().filter_map(|one| one.as_ref().err()).map(StoreError::code).collect();
        assert_eq!(codes, [""; 0]);
    }
}

#[tokio::test]
async fn a_file_of_a_newer_vmkit_is_refused_by_name() {
    let place = place();
    drop(open(&place).await);
    let raw = Connection::open(&place.path).expect("raw");
    raw.pragma_update(None, "user_version", 99).expect("a version");
    drop(raw);
    let refused = Store::open(&place.path).await.expect_err("a newer schema");
    assert_eq!(refused.code(), "store_newer");
    let known = MIGRATIONS.len();
    let says = refused.to_string();
    assert!(says.contains(&format!("has schema 99 and this VMKit knows {known}")), "{says}");
}

#[tokio::test]
async fn a_file_that_is_no_database_and_a_folder_that_is_absent_are_told_apart() {
    let place = place();
    std::fs::write(&place.path, vec![b'x'; 8192]).expect("a file");
    assert_eq!(code_of(&place.path).await, "store_corrupt");
    assert_eq!(code_of(&place.path.join("deeper/vmkit.db")).await, "store_cannot_open");
}

#[tokio::test]
async fn a_database_that_another_process_holds_says_so() {
    let place = place();
    let store = open(&place).await;
    let raw = Connection::open(&place.path).expect("raw");
    raw.execute_batch("begin immediate").expect("a lock");
    // A writer waits for the time-out; this one has none.
    store
        .shared
        .writer
        .lock()
        .expect("the writer")
        .busy_timeout(std::time::Duration::ZERO)
        .expect("a time-out");
    let refused = store.installation(fresh(), NOW).await.expect_err("a lock");
    assert_eq!((refused.code(), refused.retryable()), ("store_locked", true));
    raw.execute_batch("rollback").expect("the lock's end");
    store.installation(fresh(), NOW).await.expect("the file is free again");
}

#[tokio::test]
async fn a_read_only_database_says_so() {
    let place = place();
    let store = open(&place).await;
    store
        .shared
        .writer
        .lock()
        .expect("the writer")
        .pragma_update(None, "query_only", true)
        .expect("a pragma");
    let refused = store.installation(fresh(), NOW).await.expect_err("read-only");
    assert_eq!(refused.code(), "store_read_only");
}

#[tokio::test]
async fn exclusive_locks_shut_out_everybody_and_shared_ones_only_the_exclusive() {
    use LockMode::{Exclusive, Shared};
    let place = place();
    let store = open(&place).await;
    let first = operation(&[("env:a", Exclusive), ("vm:1", Shared)]);
    let id = first.id;
    assert_eq!(store.queue_operation(first).await.expect("queued"), Queued::New);
    let second = operation(&[("env:b", Exclusive), ("vm:1", Shared)]);
    assert_eq!(store.queue_operation(second).await.expect("queued"), Queued::New);
    let same_environment = operation(&[("env:a", Exclusive)]);
    assert_eq!(store.queue_operation(same_environment).await.expect("told"), Queued::Busy(id));
    let whole_vm = operation(&[("vm:1", Exclusive)]);
    assert_eq!(store.queue_operation(whole_vm).await.expect("told"), Queued::Busy(id));
}

#[tokio::test]
async fn an_idempotency_key_repeats_its_operation_and_refuses_other_arguments() {
    let place = place();
    let store = open(&place).await;
    let keyed = |hash: &str| {
        let mut new = operation(&[]);
        new.idempotency = Some(("deploy".to_owned(), "k".to_owned(), hash.to_owned()));
        new
    };
    let first = keyed("a");
    let id = first.id;
    assert_eq!(store.queue_operation(first).await.expect("queued"), Queued::New);
    assert_eq!(store.queue_operation(keyed("a")).await.expect("told"), Queued::Repeated(id));
    assert_eq!(store.queue_operation(keyed("b")).await.expect("told"), Queued::KeyReused);
    let mut next_day = keyed("b");
    next_day.created_at = NOW.plus_ms(25 * 60 * 60 * 1000);
    assert_eq!(store.queue_operation(next_day).await.expect("queued"), Queued::New);
}

#[tokio::test]
async fn a_driver_that_lost_its_lease_cannot_write() {
    let place = place();
    let store = open(&place).await;
    let new = operation(&[]);
    let id = new.id;
    store.queue_operation(new).await.expect("queued");
    let take = |holder: &str, sole, now| store.take_lease(id, holder.to_owned(), sole, now, 1_000);
    let slept = take("slept", false, NOW).await.expect("asked").expect("a lease");
    assert!(take("early", false, NOW).await.expect("asked").is_none(), "the lease still runs");
    let later = NOW.plus_ms(2_000);
    let woke = take("woke", false, later).await.expect("asked").expect("a lease that ran out");
    assert!(woke.epoch > slept.epoch);
    let start = |lease: &Lease| store.start_step(lease.clone(), 0, "one", String::new(), later);
    assert_eq!(start(&slept).await.map_err(|e| e.code()), Err("lease_lost"));
    start(&woke).await.expect("the holder writes");
    let state = OperationState::Failed;
    store
        .end_operation(woke.clone(), state, None, None, String::new(), later)
        .await
        .expect("the end");
    assert_eq!(start(&woke).await.map_err(|e| e.code()), Err("lease_lost"), "an ended operation");
}

#[tokio::test]
async fn an_agent_enrols_once_with_one_key_and_may_repeat_a_lost_answer() {
    let place = place();
    let store = open(&place).await;
    let id = VmId::generate();
    store.insert_vm(vm(id)).await.expect("a row");
    let (token, key, other) = ([1; 32], [2; 32], [3; 32]);
    let until = NOW.plus_ms(60_000);
    store.set_enrolment(id, token, until).await.expect("a token");
    let enrol = |token, key, now| store.enrol(id, token, key, now);
    assert_eq!(enrol([9; 32], key, NOW).await.expect("told"), Enrolment::WrongToken);
    assert_eq!(enrol(token, key, until.plus_ms(1)).await.expect("told"), Enrolment::Expired);
    assert_eq!(enrol(token, key, NOW).await.expect("told"), Enrolment::Accepted);
    assert_eq!(enrol(token, key, NOW).await.expect("told"), Enrolment::Accepted, "a lost answer");
    assert_eq!(enrol(token, other, NOW).await.expect("told"), Enrolment::Used, "a stolen token");
    assert_eq!(store.agent_key(id).await.expect("read"), Some(key));
    store.set_vm_state(id, crate::domain::environment::VmState::Deleted).await.expect("gone");
    assert_eq!(store.agent_key(id).await.expect("read"), None);
}

fn vm(id: VmId) -> VmRow {
    use crate::domain::environment::{Vm, VmState};
    use crate::domain::money::{Currency, Money};
    VmRow {
        vm: Vm {
            id,
            provider: "hetzner".to_owned(),
            provider_id: None,
            size: "cpx22".parse().expect("a size"),
            region: "fsn1".parse().expect("a region"),
            arch: crate::domain::size::Arch::Amd64,
            address: None,
            address_id: None,
            ipv6: None,
            known_hosts: None,
            state: VmState::Ordered,
            created_at: NOW,
        },
        monthly: Money::zero(Currency::Eur),
    }
}
