//! Faults, the record of requests, and what is held.

use serde_json::{Value, json};

use crate::client::Api;
use crate::stage::{Stage, eventually};

fn order() -> Value {
    json!({"name": "a", "server_type": "cax11", "image": "debian-13", "location": "fsn1"})
}

fn rule(action: Value) -> Value {
    json!({"method": "POST", "path_regex": "^/v1/servers$", "action": action, "times": 1})
}

async fn server_count(api: &Api) -> usize {
    api.admin("GET", "state", Value::Null).await["servers"].as_array().unwrap().len()
}

#[tokio::test]
async fn refusals_have_no_effect_and_end_by_themselves() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    for (action, status, code) in [
        (json!({"kind": "status", "code": 500}), 500, "server_error"),
        (json!({"kind": "status", "code": 503, "body": {"error": {"code": "x"}}}), 503, "x"),
        (json!({"kind": "rate_limit", "reset_seconds": 3}), 429, "rate_limit_exceeded"),
    ] {
        api.admin("POST", "faults", rule(action)).await;
        assert_eq!(api.refusal("POST", "/servers", order()).await, (status, code.to_owned()));
        assert_eq!(server_count(&api).await, 0);
    }
    assert_eq!(api.admin("GET", "faults", Value::Null).await, json!([]));
    let problem = api
        .admin("POST", "faults", json!({"path_regex": "(", "action": {"kind": "drop_before"}}))
        .await;
    assert!(problem["message"].as_str().unwrap().contains("regex"));
    let requests = api.admin("GET", "requests", Value::Null).await;
    let first = &requests[0];
    assert_eq!((&first["path"], &first["body"]["name"]), (&json!("/v1/servers"), &json!("a")));
    assert_eq!((&first["fault"], &first["status"]), (&json!("status"), &json!(500)));
    assert_eq!(requests.as_array().unwrap().len(), 3);
    sandbox.stop().await;
}

#[tokio::test]
async fn dropped_answers_keep_or_lose_the_effect() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    api.admin("POST", "faults", rule(json!({"kind": "drop_before"}))).await;
    assert!(api.send("POST", "/servers", Some(order())).await.is_err());
    assert_eq!(server_count(&api).await, 0);
    api.admin("POST", "faults", rule(json!({"kind": "drop_after"}))).await;
    assert!(api.send("POST", "/servers", Some(order())).await.is_err());
    assert_eq!(server_count(&api).await, 1);
    assert_eq!(api.refusal("POST", "/servers", order()).await.1, "uniqueness_error");
    sandbox.stop().await;
}

#[tokio::test]
async fn held_requests_wait_for_their_release() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    for (kind, before_release) in [("hold_before", 0), ("hold_after", 1)] {
        api.admin("POST", "faults", rule(json!({"kind": kind}))).await;
        let mut body = order();
        body["name"] = kind.replace('_', "-").into();
        let asking = api.send("POST", "/servers", Some(body));
        let releasing = async {
            let held = eventually("a held request", || async {
                let held = api.admin("GET", "held", Value::Null).await;
                held[0]["id"].as_u64()
            })
            .await;
            let servers = server_count(&api).await;
            let released = api.admin("POST", "release", json!({"id": held})).await;
            assert_eq!(released, json!({"released": 1}));
            servers
        };
        let before = server_count(&api).await;
        let (answer, servers) = tokio::join!(asking, releasing);
        assert_eq!(answer.unwrap().status(), 201);
        assert_eq!(servers - before, before_release, "{kind}");
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_undo_the_effect() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    api.admin("POST", "faults", rule(json!({"kind": "hold_before"}))).await;
    let asking = api.send("POST", "/servers", Some(order()));
    let held = eventually("a held request", || async {
        api.admin("GET", "held", Value::Null).await[0]["id"].as_u64()
    });
    tokio::select! {
        _ = asking => panic!("it was not held"),
        _ = held => {}
    }
    api.admin("POST", "release", json!({"all": true})).await;
    eventually("the server", || async { (server_count(&api).await == 1).then_some(()) }).await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_stopped_sandbox_lets_nothing_held_take_effect() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let dir = sandbox.machines().dir().to_owned();
    api.admin("POST", "faults", rule(json!({"kind": "hold_before"}))).await;
    let asking = api.send("POST", "/servers", Some(order()));
    let stopping = async {
        eventually("a held request", || async {
            api.admin("GET", "held", Value::Null).await[0]["id"].as_u64()
        })
        .await;
        sandbox.stop().await;
    };
    let (answer, ()) = tokio::join!(asking, stopping);
    assert!(answer.is_err());
    assert!(!dir.exists());
}
