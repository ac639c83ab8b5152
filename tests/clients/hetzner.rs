//! Hetzner, when all goes well and when names are taken.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::response::IntoResponse;
use serde_json::json;
use vmkit::clouds::{AnyCloud, Cloud, CloudVmState, VmOrder, vm_labels};
use vmkit::domain::ids::{InstallationId, VmId};
use vmkit::domain::secret::Secret;
use vmkit::domain::size::Arch;

use crate::fake::{Fake, Reply, lock};
use crate::fake_hetzner::{assert_valid, server, start};
use crate::spec::Spec;
use crate::{TOKEN, pace, token};

pub(crate) const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyForTests kamal@shop";

pub(crate) fn cloud(fake: &Fake) -> AnyCloud {
    AnyCloud::connect("hetzner", &fake.url, token(), pace()).expect("a client")
}

pub(crate) fn order(installation: InstallationId, vm: VmId) -> VmOrder {
    VmOrder {
        name: format!("vmkit-{}", vm.bare()),
        size: "cax11".parse().expect("a size"),
        region: "fsn1".parse().expect("a region"),
        image: "debian-13".to_owned(),
        user_data: Secret::new("#cloud-config\n# user-data-for-tests\n"),
        ssh_keys: vec!["7".to_owned()],
        firewalls: vec!["8".to_owned()],
        address: None,
        labels: vm_labels(installation, vm, None),
    }
}

#[tokio::test]
async fn a_vm_is_ordered_runs_and_goes() {
    let (fake, world) = start().await;
    let (cloud, installation) = (cloud(&fake), InstallationId::generate());
    let order = order(installation, VmId::generate());
    let made = cloud.create_vm(&order).await.expect("a server");
    assert!(made.belongs_to(installation));
    let again = cloud.create_vm(&order).await.expect("the same server");
    assert_eq!(made.provider_id, again.provider_id);
    let up = cloud.wait_running(&made.provider_id, Duration::from_secs(30)).await.expect("up");
    assert_eq!(up.state, CloudVmState::Running);
    assert_eq!(up.address.map(|a| a.to_string()).as_deref(), Some("192.0.2.7"));
    assert_eq!(
        (up.arch, up.size.as_str(), up.region.as_str()),
        (Some(Arch::Arm64), "cax11", "fsn1")
    );
    assert_eq!(up.created.map(|at| at.rfc3339()).as_deref(), Some("2026-11-01T09:30:00Z"));
    cloud.delete_vm(&up.provider_id, installation).await.expect("gone");
    cloud.delete_vm(&up.provider_id, installation).await.expect("still gone");
    assert_eq!(cloud.get_vm(&up.provider_id).await.expect("an answer"), None);
    assert!(lock(&world).servers.is_empty());
    assert_valid(&fake);
}

#[tokio::test]
async fn what_is_not_ours_is_shown_and_never_touched() {
    let (fake, world) = start().await;
    let (cloud, installation) = (cloud(&fake), InstallationId::generate());
    let order = order(installation, VmId::generate());
    let other = json!({ "vmkit.io/installation": InstallationId::generate().bare() });
    lock(&world).servers.push(server(5, &order.name, &other));
    lock(&world).firewalls.push(json!({ "id": 6, "name": "vmkit", "labels": {} }));
    lock(&world).ssh_keys.push(json!({ "id": 7, "name": "mine", "public_key": KEY, "labels": {} }));

    let error = cloud.create_vm(&order).await.expect_err("the name is taken");
    assert_eq!(error.code(), "name_taken");
    let error = cloud.delete_vm("5", installation).await.expect_err("not ours");
    assert_eq!(error.code(), "not_ours");
    let error = cloud.ensure_firewall("vmkit", installation).await.expect_err("the name is taken");
    assert_eq!(error.code(), "name_taken");
    cloud.delete_firewall("vmkit", installation).await.expect("nothing of ours");
    // A key of the owner's is used, and stays.
    let id = cloud.ensure_ssh_key("vmkit-key", KEY, installation).await.expect("the key");
    assert_eq!(id, "7");
    cloud.delete_ssh_key("mine", installation).await.expect("nothing of ours");

    let facts = cloud.check(installation).await.expect("the account");
    assert_eq!((facts.servers, facts.foreign_servers, facts.can_write), (1, 1, Some(true)));
    lock(&world).read_only = true;
    assert_eq!(cloud.check(installation).await.expect("the account").can_write, Some(false));
    let world = lock(&world);
    assert_eq!((world.servers.len(), world.firewalls.len(), world.ssh_keys.len()), (1, 1, 1));
    assert!(!fake.seen().iter().any(|seen| seen.method == Method::DELETE));
}

#[tokio::test]
async fn keys_and_firewalls_are_made_once_and_deleted() {
    let (fake, world) = start().await;
    let (cloud, installation) = (cloud(&fake), InstallationId::generate());
    let key = cloud.ensure_ssh_key("vmkit-key", KEY, installation).await.expect("a key");
    let other_comment = KEY.replace("kamal@shop", "elsewhere");
    let same = cloud.ensure_ssh_key("other-name", &other_comment, installation).await;
    assert_eq!(same.expect("the key"), key);
    let wall = cloud.ensure_firewall("vmkit", installation).await.expect("a firewall");
    assert_eq!(cloud.ensure_firewall("vmkit", installation).await.expect("the firewall"), wall);
    fake.refuse(Method::DELETE, "/v1/firewalls", Reply::hetzner(422, "resource_in_use"), 1);
    let error = cloud.delete_firewall("vmkit", installation).await.expect_err("in use");
    assert_eq!((error.code(), error.retryable()), ("in_use", true));
    cloud.delete_firewall("vmkit", installation).await.expect("gone");
    cloud.delete_firewall("vmkit", installation).await.expect("still gone");
    cloud.delete_ssh_key("vmkit-key", installation).await.expect("gone");
    cloud.delete_ssh_key("vmkit-key", installation).await.expect("still gone");
    assert!(lock(&world).ssh_keys.is_empty() && lock(&world).firewalls.is_empty());
    assert_valid(&fake);
}

#[tokio::test]
async fn sizes_have_live_prices_with_the_address_and_say_what_can_be_had() {
    let (fake, _world) = start().await;
    let cloud = cloud(&fake);
    let sizes = cloud.sizes().await.expect("sizes");
    let rows: Vec<String> = sizes
        .iter()
        .filter(|size| size.region.as_str() == "fsn1")
        .map(|s| format!("{} {} {} {}", s.name, s.monthly, s.arch.as_str(), s.available))
        .collect();
    // An architecture of tomorrow is left out; what is phased out cannot be had.
    assert_eq!(
        rows,
        ["cx22 EUR 4.49 amd64 false", "cax11 EUR 6.49 arm64 false", "cpx22 EUR 19.99 amd64 true"]
    );
    assert!(sizes.iter().filter(|s| s.region.as_str() == "ash").all(|s| !s.available));
    assert_eq!(cloud.image(Arch::Arm64).await.expect("an image"), "debian-12");
    assert_eq!(cloud.image(Arch::Amd64).await.expect_err("none").code(), "not_found");
    assert_valid(&fake);
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page() {
    let (fake, world) = start().await;
    let installation = InstallationId::generate();
    lock(&world).page_size = Some(2);
    for id in 1..=5 {
        lock(&world).servers.push(server(id, &format!("s{id}"), &json!({})));
    }
    let names: Vec<String> =
        cloud(&fake).list_vms().await.expect("servers").into_iter().map(|vm| vm.name).collect();
    assert_eq!(names, ["s1", "s2", "s3", "s4", "s5"]);
    assert_eq!(cloud(&fake).check(installation).await.expect("facts").foreign_servers, 5);
}

#[tokio::test]
async fn a_server_that_never_starts_is_not_waited_for_forever() {
    let (fake, world) = start().await;
    let mut stuck = server(3, "stuck", &json!({}));
    stuck["status"] = json!("off");
    lock(&world).servers.push(stuck);
    let limit = Duration::from_millis(30);
    let error = cloud(&fake).wait_running("3", limit).await.expect_err("it is off");
    assert_eq!(error.code(), "timeout");
    assert!(error.to_string().contains("Off"), "{error}");
    let error = cloud(&fake).wait_running("4", limit).await.expect_err("absent");
    assert_eq!(error.code(), "not_found");
}

#[tokio::test]
async fn an_id_never_leaves_its_place_in_the_path() {
    let (fake, _world) = start().await;
    for id in ["", "../ssh_keys/1", "1?x", "one"] {
        let error = cloud(&fake).delete_vm(id, InstallationId::generate()).await;
        assert_eq!(error.expect_err("no id").code(), "invalid_request");
    }
    assert!(fake.seen().is_empty());
}

/// Every read takes what the specification allows, all of it or the least of it.
#[tokio::test]
async fn answers_made_from_the_specification_are_read() {
    let Some(spec) = Spec::load("hetzner") else { return };
    for full in [true, false] {
        let spec = spec.clone();
        let answer = move |request: Request| async move {
            match spec.answer(request.uri().path(), full) {
                Some(mut answer) => {
                    answer["meta"]["pagination"]["next_page"] = json!(null);
                    axum::Json(answer).into_response()
                }
                None => axum::http::StatusCode::NOT_FOUND.into_response(),
            }
        };
        let fake = Fake::start(Router::new().fallback(answer), None).await;
        let (cloud, installation) = (cloud(&fake), InstallationId::generate());
        assert_eq!(cloud.list_vms().await.expect("servers").len(), 1);
        assert!(cloud.get_vm("42").await.expect("a server").is_some());
        assert!(!cloud.sizes().await.expect("sizes").is_empty());
        assert_eq!(cloud.check(installation).await.expect("facts").servers, 1);
        assert_eq!(cloud.image(Arch::Arm64).await.expect_err("none").code(), "not_found");
        assert_eq!(cloud.find_vm("another").await.expect("an answer"), None);
        assert!(
            fake.seen().iter().all(|seen| {
                seen.headers["authorization"] == format!("Bearer {TOKEN}").as_str()
            })
        );
    }
}
