//! What a cloud refuses, and what each refusal is told as.

use std::future::Future;

use vmkit::clouds::{Cloud, CloudVmState, Resize};
use vmkit::domain::ids::VmId;

use crate::stage::{PATIENCE, Stage, TIMEOUT};

fn resize(size: &str, grow_disk: bool) -> Resize {
    Resize { size: size.parse().expect("a size"), grow_disk, limit: PATIENCE }
}

pub(crate) async fn a_size_that_is_sold_out_is_said_and_leaves_the_server_as_it_was<
    F: Future<Output = Stage>,
>(
    set: fn() -> F,
) {
    let stage = set().await;
    let (cloud, ours, sizes) = (&stage.cloud, stage.installation, &stage.terms.sizes);
    let vm = stage.vm().await;
    stage.turn((stage.terms.sold_out)(Some(sizes.0))).await;
    let order = stage.full_order(VmId::generate()).await;
    let error = cloud.create_vm(&order).await.expect_err("sold out");
    assert_eq!((error.code(), error.retryable()), ("sold_out", false));
    let text = error.to_string();
    assert!(text.contains(sizes.0) && text.contains(stage.terms.region), "{text}");
    cloud.stop_vm(&vm.provider_id, ours, PATIENCE).await.expect("off");
    stage.turn((stage.terms.sold_out)(Some(sizes.1))).await;
    let error = cloud.resize_vm(&vm.provider_id, ours, &resize(sizes.1, false)).await;
    assert_eq!(error.expect_err("sold out").code(), "sold_out");
    let now = cloud.get_vm(&vm.provider_id).await.expect("an answer").expect("the server");
    assert_eq!((now.state, now.size.as_str()), (CloudVmState::Off, sizes.0));
    let up = cloud.start_vm(&vm.provider_id, ours, PATIENCE).await.expect("up");
    assert_eq!(up.size, sizes.0);
    stage.turn((stage.terms.sold_out)(None)).await;
    cloud.create_vm(&order).await.expect("a server");
    stage.stop().await;
}

pub(crate) async fn a_change_of_size_has_its_rules<F: Future<Output = Stage>>(set: fn() -> F) {
    let stage = set().await;
    let (cloud, ours, sizes) = (&stage.cloud, stage.installation, &stage.terms.sizes);
    let vm = stage.vm().await;
    let id = vm.provider_id.as_str();
    let error = cloud.resize_vm(id, ours, &resize(sizes.1, false)).await.expect_err("it runs");
    assert_eq!((error.code(), error.retryable()), ("invalid_request", false), "{error}");
    cloud.stop_vm(id, ours, PATIENCE).await.expect("off");
    if let Some(other) = sizes.2 {
        let error = cloud.resize_vm(id, ours, &resize(other, false)).await.expect_err("wrong arch");
        assert_eq!(error.code(), "invalid_request", "{error}");
    }
    let error = cloud.resize_vm(id, ours, &resize("no-such-size", false)).await;
    assert!(!error.expect_err("no such size").retryable());
    // Up and down again, as long as the disk does not grow.
    for size in [sizes.1, sizes.0] {
        let now = cloud.resize_vm(id, ours, &resize(size, false)).await.expect("resized");
        assert_eq!((now.size.as_str(), now.disk_gb), (size, vm.disk_gb));
        cloud.stop_vm(id, ours, PATIENCE).await.expect("off");
    }
    let grown = cloud.resize_vm(id, ours, &resize(sizes.1, true)).await.expect("resized");
    assert!(grown.disk_gb > vm.disk_gb, "{:?}", grown.disk_gb);
    cloud.stop_vm(id, ours, PATIENCE).await.expect("off");
    let error = cloud.resize_vm(id, ours, &resize(sizes.0, false)).await.expect_err("too small");
    assert_eq!(error.code(), "invalid_request", "{error}");
    let up = cloud.start_vm(id, ours, PATIENCE).await.expect("up");
    assert_eq!((up.size.as_str(), up.address), (sizes.1, vm.address));
    stage.stop().await;
}

pub(crate) async fn what_is_protected_is_not_deleted<F: Future<Output = Stage>>(set: fn() -> F) {
    let stage = set().await;
    let Some(protect) = stage.terms.protect else { return };
    let (cloud, ours) = (&stage.cloud, stage.installation);
    let vm = stage.vm().await;
    let (path, body) = protect(&vm.provider_id, true);
    stage.raw("POST", &path, body).await;
    let error = cloud.delete_vm(&vm.provider_id, ours).await.expect_err("protected");
    assert_eq!((error.code(), error.retryable()), ("protected", false));
    let seen = cloud.get_vm(&vm.provider_id).await.expect("an answer").expect("the server");
    assert!(seen.protected);
    let rebuild = vmkit::clouds::Rebuild {
        image: stage.full_order(VmId::generate()).await.image,
        user_data: None,
    };
    let error = cloud.rebuild_vm(&vm.provider_id, ours, &rebuild).await.expect_err("protected");
    assert_eq!(error.code(), "protected");
    let (path, body) = protect(&vm.provider_id, false);
    stage.raw("POST", &path, body).await;
    cloud.delete_vm(&vm.provider_id, ours).await.expect("gone");
    stage.stop().await;
}

pub(crate) async fn limits_and_tokens_are_told_apart<F: Future<Output = Stage>>(set: fn() -> F) {
    let stage = set().await;
    let (cloud, ours) = (&stage.cloud, stage.installation);
    let order = stage.full_order(VmId::generate()).await;
    stage.turn((stage.terms.server_limit)(Some(0))).await;
    let error = cloud.create_vm(&order).await.expect_err("no room");
    assert_eq!((error.code(), error.retryable()), ("limit_reached", false), "{error}");
    stage.turn((stage.terms.server_limit)(None)).await;
    stage.turn((stage.terms.read_only)(true)).await;
    let error = cloud.create_vm(&order).await.expect_err("read only");
    assert_eq!(error.code(), "forbidden", "{error}");
    assert_eq!(cloud.check(ours).await.expect("facts").can_write, Some(false));
    stage.turn((stage.terms.read_only)(false)).await;
    assert_eq!(cloud.check(ours).await.expect("facts").can_write, Some(true));
    let stranger = stage.client(Some("another"), TIMEOUT);
    let error = stranger.list_vms().await.expect_err("a wrong token");
    assert_eq!(error.code(), "token_refused", "{error}");
    assert_eq!(stage.names(stage.terms.lists.servers).await, [""; 0]);
    stage.stop().await;
}

pub(crate) async fn prices_are_live_and_rules_have_their_source<F: Future<Output = Stage>>(
    set: fn() -> F,
) {
    let stage = set().await;
    let sizes = stage.cloud.sizes().await.expect("sizes");
    let own = |name: &str| {
        let here = |size: &&vmkit::domain::size::Size| {
            size.name.as_str() == name && size.region.as_str() == stage.terms.region
        };
        sizes.iter().find(here).expect("the size").clone()
    };
    let (small, large) = (own(stage.terms.sizes.0), own(stage.terms.sizes.1));
    assert!(small.monthly.amount < large.monthly.amount && small.disk_gb < large.disk_gb);
    let extras = stage.cloud.extra_prices().await.expect("prices");
    for price in [extras.address_unused, extras.snapshot_gb, extras.volume_gb].into_iter().flatten()
    {
        assert_eq!(price.currency, small.monthly.currency);
        assert!(price.amount > rust_decimal::Decimal::ZERO);
    }
    assert!(extras.snapshot_gb.is_some() && extras.volume_gb.is_some());
    let rules = stage.cloud.resize_rules();
    assert!((30..=600).contains(&rules.downtime_s));
    assert!(rules.repricing.is_none_or(|text| text.contains("source:")), "{:?}", rules.repricing);
    stage.stop().await;
}
