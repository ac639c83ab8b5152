//! Every fault, before and after the effect, once and always: one server or none, never two, and an
//! error that says which kind it is.

use axum::http::Method;
use futures::{StreamExt, stream};
use serde_json::json;
use vmkit::clouds::Cloud;
use vmkit::domain::ids::{InstallationId, VmId};

use crate::fake::{Fault, Reply, lock};
use crate::fake_hetzner::{server, start};
use crate::hetzner::{cloud, order};

/// More often than any call tries.
const ALWAYS: u32 = 1000;

/// A reply, and the code of the error that it ends in where it stays.
fn faults(success: u16) -> Vec<(Reply, &'static str)> {
    let hetzner = Reply::hetzner;
    vec![
        (hetzner(500, "server_error"), "cloud_fault"),
        (hetzner(502, "bad_gateway"), "cloud_fault"),
        (hetzner(503, "unavailable"), "cloud_fault"),
        (hetzner(504, "timeout"), "cloud_fault"),
        (Reply::Text(502, "<html>Bad gateway</html>"), "cloud_fault"),
        (hetzner(409, "conflict"), "conflict"),
        (hetzner(412, "resource_unavailable"), "sold_out"),
        (hetzner(422, "invalid_input"), "invalid_request"),
        (hetzner(423, "locked"), "locked"),
        (hetzner(423, "protected"), "protected"),
        (hetzner(429, "rate_limit_exceeded"), "rate_limited"),
        (hetzner(403, "resource_limit_exceeded"), "limit_reached"),
        (hetzner(403, "forbidden"), "forbidden"),
        (hetzner(401, "token_readonly"), "forbidden"),
        (hetzner(401, "unauthorized"), "token_refused"),
        (hetzner(418, "a_code_of_tomorrow"), "refused"),
        (Reply::Text(success, "<html>Hello</html>"), "bad_answer"),
        (Reply::Json(success, Vec::new(), json!({ "server": { "id": "x" } })), "bad_answer"),
        (Reply::SlowBody(success), "timeout"),
        (Reply::BrokenBody(success), "connection_lost"),
        (Reply::Silence, "timeout"),
    ]
}

fn cases(success: u16) -> Vec<(Reply, &'static str, bool, u32)> {
    let each = |(reply, code): (Reply, &'static str)| {
        [(false, 1), (false, ALWAYS), (true, 1), (true, ALWAYS)]
            .map(|(after, times)| (reply.clone(), code, after, times))
    };
    faults(success).into_iter().flat_map(each).collect()
}

#[tokio::test]
async fn no_fault_makes_two_servers() {
    let run = |(reply, code, after, times): (Reply, &'static str, bool, u32)| async move {
        let case = format!("{reply:?} after={after} times={times}");
        let (fake, world) = start().await;
        let (cloud, installation) = (cloud(&fake), InstallationId::generate());
        let order = order(installation, VmId::generate());
        fake.fail(Fault { method: Method::POST, path: "/v1/servers", after, reply, times });
        let first = cloud.create_vm(&order).await;
        let there = lock(&world).servers.len();
        match &first {
            Ok(vm) => {
                assert_eq!(there, 1, "{case}");
                assert_eq!(lock(&world).servers[0]["id"].to_string(), vm.provider_id, "{case}");
            }
            Err(error) => {
                assert!(there <= 1, "{case}");
                assert_eq!(error.code(), code, "{case}: {error}");
                // What may have happened and did was found; what is sure was not looked for.
                assert!(there == 0 || !error.may_have_happened(), "{case}: {error}");
            }
        }
        fake.heal();
        let second = cloud.create_vm(&order).await.expect("a server once all is well");
        assert_eq!(lock(&world).servers.len(), 1, "{case}");
        assert_eq!(lock(&world).servers[0]["id"].to_string(), second.provider_id, "{case}");
    };
    stream::iter(cases(201)).for_each_concurrent(16, run).await;
}

#[tokio::test]
async fn no_fault_hides_that_a_server_is_still_there() {
    let run = |(reply, code, after, times): (Reply, &'static str, bool, u32)| async move {
        let case = format!("{reply:?} after={after} times={times}");
        let (fake, world) = start().await;
        let (cloud, installation) = (cloud(&fake), InstallationId::generate());
        let order = order(installation, VmId::generate());
        let made = cloud.create_vm(&order).await.expect("a server");
        fake.fail(Fault { method: Method::DELETE, path: "/v1/servers", after, reply, times });
        match cloud.delete_vm(&made.provider_id, installation).await {
            Ok(()) => assert!(lock(&world).servers.is_empty(), "{case}"),
            Err(error) => {
                let code = if code == "sold_out" { "refused" } else { code };
                assert_eq!(error.code(), code, "{case}: {error}");
            }
        }
        fake.heal();
        cloud.delete_vm(&made.provider_id, installation).await.expect("gone once all is well");
        assert!(lock(&world).servers.is_empty(), "{case}");
    };
    stream::iter(cases(200)).for_each_concurrent(16, run).await;
}

/// The first order is under way when its answer is lost, and lands later.
#[tokio::test]
async fn an_order_that_lands_late_is_adopted() {
    let (fake, world) = start().await;
    let (cloud, installation) = (cloud(&fake), InstallationId::generate());
    let order = order(installation, VmId::generate());
    fake.refuse(Method::POST, "/v1/servers", Reply::hetzner(504, "timeout"), 1);
    let late = async {
        while fake.count(Method::GET, "/v1/servers") < 3 {
            tokio::task::yield_now().await;
        }
        let labels = json!(order.labels);
        lock(&world).servers.push(server(77, &order.name, &labels));
    };
    let (made, ()) = tokio::join!(cloud.create_vm(&order), late);
    assert_eq!(made.expect("the late server").provider_id, "77");
    assert_eq!(fake.count(Method::POST, "/v1/servers"), 1);
}

#[tokio::test]
async fn two_orders_at_once_end_in_one_server() {
    let (fake, world) = start().await;
    let (cloud, installation) = (cloud(&fake), InstallationId::generate());
    let order = order(installation, VmId::generate());
    let all = futures::future::join_all((0..8).map(|_| cloud.create_vm(&order))).await;
    let ids: std::collections::BTreeSet<String> =
        all.into_iter().map(|vm| vm.expect("the server").provider_id).collect();
    assert_eq!((ids.len(), lock(&world).servers.len()), (1, 1));
}

#[tokio::test]
async fn a_deletion_that_fails_later_says_so() {
    let (fake, world) = start().await;
    let (cloud, installation) = (cloud(&fake), InstallationId::generate());
    let order = order(installation, VmId::generate());
    let made = cloud.create_vm(&order).await.expect("a server");
    let action = json!({ "action": { "id": 9, "command": "delete_server", "status": "error",
        "error": { "code": "action_failed", "message": "a disk is stuck" } } });
    fake.refuse(Method::DELETE, "/v1/servers", Reply::Json(200, Vec::new(), action), 1);
    let error = cloud.delete_vm(&made.provider_id, installation).await.expect_err("it failed");
    assert_eq!((error.code(), error.retryable()), ("action_failed", true));
    assert!(error.to_string().contains("a disk is stuck"), "{error}");
    lock(&world).servers[0]["protection"]["delete"] = json!(true);
    let error = cloud.delete_vm(&made.provider_id, installation).await.expect_err("protected");
    assert_eq!(error.code(), "protected");
    lock(&world).servers[0]["protection"]["delete"] = json!(false);
    cloud.delete_vm(&made.provider_id, installation).await.expect("gone");
}
