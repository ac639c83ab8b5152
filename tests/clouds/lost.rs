//! Lost answers, before and after the effect: one thing in the end, never two.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use vmkit::clouds::{Cloud, CloudError};
use vmkit::domain::ids::VmId;
use vmkit_sandbox::faults::Action;

use crate::stage::{PATIENCE, Stage};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC test";

pub(crate) async fn a_lost_answer_never_makes_two<F: Future<Output = Stage>>(set: fn() -> F) {
    let status = |code| Action::Status { code, body: None, headers: Default::default() };
    let faults = [
        Action::DropAfter,
        Action::DropBefore,
        status(500),
        status(503),
        status(504),
        Action::StatusAfter { code: 500 },
        Action::StatusAfter { code: 503 },
        Action::StatusAfter { code: 504 },
        Action::Garble,
    ];
    let stage = set().await;
    // Long enough that only the fault is one, on a busy machine too.
    let cloud = stage.client(None, Duration::from_secs(20));
    let (ours, labels) = (stage.installation, stage.labels());
    let vm = stage.vm().await;
    let region = stage.terms.region.parse().expect("a region");
    let image = stage.full_order(VmId::generate()).await.image;
    let lists = &stage.terms.lists;
    for (number, fault) in faults.iter().enumerate() {
        let order =
            vmkit::clouds::VmOrder { image: image.clone(), ..stage.order(VmId::generate()) };
        let (disk, own) = (format!("disk-{number}"), format!("own-{number}"));
        let (key, wall) = (format!("key-{number}"), format!("wall-{number}"));
        for call in 0..5 {
            let ask = || async {
                let id = match call {
                    0 => cloud.create_vm(&order).await?.provider_id,
                    1 => {
                        cloud.snapshot_vm(&vm.provider_id, ours, &disk, &labels).await?.provider_id
                    }
                    2 => match cloud.ensure_address(&own, &region, None, &labels).await? {
                        Some(address) => address.provider_id,
                        None => "none yet".to_owned(),
                    },
                    3 => cloud.ensure_ssh_key(&key, KEY, ours).await?,
                    _ => cloud.ensure_firewall(&wall, ours).await?,
                };
                Ok::<String, CloudError>(id)
            };
            let case = format!("{fault:?}, call {call}");
            // The client looks for an answer that it lost for as long as a call may take; here what
            // is looked for is there at once, or never.
            stage.fail(&["POST"], fault, Some(1));
            let quick = tokio::time::timeout(PATIENCE, ask()).await.expect("an end");
            stage.faults().clear();
            let again = ask().await.unwrap_or_else(|error| panic!("{case}: {error}"));
            if let Ok(first) = quick {
                assert_eq!(first, again, "{case}");
            }
            if call == 3 {
                cloud.delete_ssh_key(&key, ours).await.expect("gone");
            }
        }
        let count = |names: &[String], name: &str| names.iter().filter(|one| *one == name).count();
        let servers = stage.names(lists.servers).await;
        assert_eq!(count(&servers, &order.name), 1, "{fault:?}: {servers:?}");
        let snapshots = stage.names(lists.snapshots).await;
        assert_eq!(count(&snapshots, &disk), 1, "{fault:?}: {snapshots:?}");
        if stage.terms.named_addresses {
            let addresses = stage.names(lists.addresses).await;
            assert_eq!(count(&addresses, &own), 1, "{fault:?}: {addresses:?}");
        }
        let walls = stage.names("firewalls").await;
        assert_eq!(count(&walls, &wall), 1, "{fault:?}: {walls:?}");
    }
    stage.stop().await;
}

pub(crate) async fn orders_at_once_end_in_one<F: Future<Output = Stage>>(set: fn() -> F) {
    let stage = set().await;
    let order = stage.full_order(VmId::generate()).await;
    let cloud = stage.client(None, PATIENCE);
    let all = futures::future::join_all((0..6).map(|_| cloud.create_vm(&order))).await;
    let ids: BTreeSet<String> =
        all.into_iter().map(|vm| vm.expect("the server").provider_id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(stage.names(stage.terms.lists.servers).await, [order.name]);
    stage.stop().await;
}
