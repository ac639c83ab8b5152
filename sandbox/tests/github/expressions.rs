//! Expressions, as a table.

use serde_json::json;
use vmkit_sandbox::workflow::expressions::{Scope, Status};

fn scope() -> Scope {
    let mut scope = Scope::default();
    scope.set("inputs", json!({ "action": "deploy", "sha": "", "flag": true, "count": 3 }));
    scope.set(
        "github",
        json!({ "sha": "abc123", "actor": "octo", "event": { "inputs": { "action": "deploy" } } }),
    );
    scope.set("needs", json!({ "build": { "result": "skipped", "outputs": { "tag": "t1" } }, "lint": { "result": "success" } }));
    scope.set("secrets", json!({ "KEY": "s3" }));
    scope
}

#[test]
fn values() {
    let table = [
        ("inputs.sha || github.sha", json!("abc123")),
        ("inputs.action == 'DEPLOY'", json!(true)),
        ("inputs['action'] != 'redeploy'", json!(true)),
        ("inputs.action == 'x' && 'yes' || 'no'", json!("no")),
        ("inputs.flag && 'a' || 'b'", json!("a")),
        ("!inputs.flag", json!(false)),
        ("!!inputs.count", json!(true)),
        ("(1 == 2) || 3", json!(3.0)),
        ("needs.build.result", json!("skipped")),
        ("needs.build.outputs.tag", json!("t1")),
        ("needs.nothing.result", json!(null)),
        ("contains(needs.*.result, 'skipped')", json!(true)),
        ("contains(needs.*.result, 'failure')", json!(false)),
        ("contains('Hello', 'ell')", json!(true)),
        ("startsWith(github.sha, 'ABC')", json!(true)),
        ("endsWith(github.sha, '124')", json!(false)),
        ("format('{0}-{1}{{}}', 'a', 2)", json!("a-2{}")),
        ("join(fromJSON('[1,\"b\"]'), '+')", json!("1+b")),
        ("fromJSON('{\"a\": 1}').a == 1", json!(true)),
        ("'it''s'", json!("it's")),
        ("null == ''", json!(true)),
        ("'1' == 1", json!(true)),
        ("true == 1", json!(true)),
        ("inputs.count >= 3 && inputs.count < 4", json!(true)),
        ("secrets[format('{0}', 'KEY')]", json!("s3")),
        ("github.event.inputs.action", json!("deploy")),
        ("0x10", json!(16.0)),
        ("-1.5 < 0", json!(true)),
    ];
    for (expression, value) in table {
        assert_eq!(scope().evaluate(expression).unwrap(), value, "{expression}");
    }
}

#[test]
fn texts_and_mistakes() {
    let texts = [
        ("a ${{ inputs.action }} b${{ inputs.count }}", "a deploy b3"),
        ("${{ '}}' }}", "}}"),
        ("${{ inputs.sha }}", ""),
        ("${{ inputs.flag }} $HOME ${X}", "true $HOME ${X}"),
    ];
    for (text, wanted) in texts {
        assert_eq!(scope().interpolate(text).unwrap(), wanted);
    }
    for bad in [
        "${{ inputs.action",
        "${{ }}",
        "${{ nothing.x }}",
        "${{ nope(1) }}",
        "${{ 'a }}",
        "${{ a b }}",
        "${{ 1 + 1 }}",
        "${{ contains('a') }}",
    ] {
        assert!(scope().interpolate(bad).is_err(), "{bad}");
    }
}

#[test]
fn conditions() {
    let fine = Status::default();
    let failed = Status { failed: true, ..fine };
    let skipped = Status { skipped: true, ..fine };
    let cancelled = Status { cancelled: true, ..fine };
    let build = "${{ !cancelled() && (needs.build.result == 'success' || (inputs.action != 'redeploy' && needs.build.result == 'skipped')) }}";
    let table = [
        (None, fine, true),
        (None, failed, false),
        (None, skipped, false),
        (Some("inputs.action == 'deploy'"), fine, true),
        (Some("inputs.action == 'deploy'"), failed, false),
        (Some("${{ inputs.action == 'deploy' }}"), fine, true),
        (Some("always()"), cancelled, true),
        (Some("failure()"), fine, false),
        (Some("failure()"), failed, true),
        (Some("cancelled() || failure()"), cancelled, true),
        (Some("(failure() || cancelled()) && inputs.action != 'unlock'"), failed, true),
        (Some(build), skipped, true),
        (Some(build), cancelled, false),
        (Some("success()"), skipped, false),
    ];
    for (condition, status, wanted) in table {
        let scope = Scope { status, ..scope() };
        assert_eq!(scope.condition(condition).unwrap(), wanted, "{condition:?} {status:?}");
    }
}
