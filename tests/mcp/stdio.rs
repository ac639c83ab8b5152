//! MCP over stdio, as a client starts it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Instant;

use rmcp::model::CallToolRequestParams;
use serde_json::{Value, json};

use crate::rig::{DEADLINE, Rig, call, eras, error, refusal, text};

#[tokio::test]
async fn a_client_of_either_era_finds_the_tools_and_an_empty_account() {
    for era in eras() {
        let rig = Rig::new();
        let client = rig.mcp(era).await;
        let tools = client.list_all_tools().await.expect("tools");
        assert_eq!(tools.first().map(|tool| tool.name.as_ref()), Some("get_overview"));
        let listed: Vec<String> = vmkit::mcp::tools().iter().map(|t| t.name.to_string()).collect();
        let seen: Vec<String> = tools.iter().map(|tool| tool.name.to_string()).collect();
        assert_eq!(seen, listed, "the order is ours");

        let overview = call(&client, "get_overview", json!({})).await;
        assert!(text(&overview).starts_with("no environment yet"), "{}", text(&overview));
        let data = overview.structured_content.expect("data");
        assert_eq!(data["environments"], json!([]));
        client.cancel().await.expect("ended");
    }
}

#[tokio::test]
async fn bad_input_is_told_with_the_next_call() {
    let rig = Rig::new();
    let [_, modern] = eras();
    let client = rig.mcp(modern).await;
    let cases = [
        ("get_status", json!({"environment": "shop"}), "wrong_kind", "`app/environment`"),
        ("get_status", json!({"environment": "Octo/My.Shop"}), "wrong_kind", "scan_repo"),
        ("get_status", json!({"environment": "my shop/x"}), "bad_name", "get_overview"),
        (
            "get_status",
            json!({"environment": "shop/staging"}),
            "unknown_environment",
            "create_environment",
        ),
        ("get_status", json!({"env": "shop/staging"}), "bad_arguments", "`environment` is missing"),
        ("get_logs", json!({"environment": "a/b", "limit": 0}), "bad_arguments", "at least 1"),
        ("get_operation", json!({"operation": "vm_1"}), "bad_id", "`op_`"),
        (
            "create_environment",
            json!({"environment": "shop/staging", "size": "cx22", "region": "fsn1"}),
            "unknown_app",
            "setup_repo",
        ),
        ("scan_repo", json!({"repo": "shop"}), "bad_name", "owner/name"),
        ("scan_repo", json!({"repo": "octo/shop"}), "not_connected", "vmkit connect github"),
        ("list_sizes", json!({}), "not_connected", "vmkit connect hetzner"),
        ("deploy", json!({"environment": "shop/staging"}), "unknown_environment", "get_overview"),
        (
            "set_env",
            json!({"environment": "shop/staging", "set": {"A": 1}}),
            "bad_arguments",
            "`set.A`",
        ),
        (
            "provision_vm",
            json!({"environment": "shop/staging", "plan_id": "x"}),
            "unknown_environment",
            "",
        ),
    ];
    for (tool, arguments, code, hint) in cases {
        let answer = call(&client, tool, arguments.clone()).await;
        let error = error(&answer);
        assert_eq!(error.code, code, "{tool} {arguments}: {error:?}");
        assert!(text(&answer).contains(hint), "{tool} {arguments}: {}", text(&answer));
        assert_eq!(answer.structured_content, None);
        let changes = ["create_environment", "deploy", "set_env", "provision_vm"].contains(&tool);
        assert_eq!(text(&answer).starts_with("FAILED "), changes, "{}", text(&answer));
    }
    let unknown = client.call_tool(CallToolRequestParams::new("get_overveiw")).await;
    let unknown = refusal(unknown.expect_err("there is no such tool"));
    assert!(unknown.message.contains("did you mean `get_overview`?"), "{}", unknown.message);
    client.cancel().await.expect("ended");
}

#[test]
fn stdout_carries_only_mcp_and_the_end_of_stdin_ends_the_process() {
    let rig = Rig::new();
    let mut child = rig
        .command(&["--log", "trace", "mcp"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    let mut stdin = child.stdin.take().expect("stdin");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut send = |message: Value| writeln!(stdin, "{message}").expect("written");
    let mut answer = || -> Value {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"))
    };
    send(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"}
    }}));
    let begun = answer();
    assert_eq!(begun["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(begun["result"]["serverInfo"]["name"], "vmkit");
    let instructions = begun["result"]["instructions"].as_str().expect("instructions");
    assert!(instructions.len() < 2048, "{}", instructions.len());
    send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    send(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}));
    let tools = answer()["result"]["tools"].as_array().map(Vec::len);
    assert_eq!(tools, Some(vmkit::mcp::tools().len()));
    send(json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {
        "name": "list_sizes", "arguments": {}
    }}));
    let failed = answer();
    assert_eq!(failed["result"]["isError"], true);
    assert_eq!(failed["result"]["_meta"]["vmkit/error"]["code"], "not_connected");
    assert!(failed["result"].get("structuredContent").is_none());

    let ended = Instant::now();
    drop(stdin);
    let mut rest = String::new();
    for line in lines {
        rest.push_str(&line.expect("text"));
    }
    assert_eq!(rest, "");
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert!(ended.elapsed() < DEADLINE / 2, "{:?}", ended.elapsed());
}

#[test]
fn stdin_that_is_closed_before_anything_was_said_is_no_fault() {
    let rig = Rig::new();
    let mut child = rig
        .command(&["mcp"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    let mut said = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(said, "");
}

#[test]
fn call_speaks_json_and_exits_by_what_happened() {
    let rig = Rig::new();
    let good = rig.run(&["call", "get_overview"]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let data: Value = serde_json::from_slice(&good.stdout).expect("JSON");
    assert_eq!(data["environments"], json!([]));
    let bad = rig.run(&["call", "list_sizes"]);
    assert_eq!(bad.status.code(), Some(1));
    let data: Value = serde_json::from_slice(&bad.stdout).expect("JSON");
    assert_eq!(data["error"]["code"], "not_connected");
    for usage in [
        &["call", "nope"][..],
        &["call", "get_status", "[1"],
        &["call", "get_status", "{}"],
        &["nope"],
    ] {
        assert_eq!(rig.run(usage).status.code(), Some(2), "{usage:?}");
    }
    let listed = rig.run(&["tools", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(vmkit::mcp::tools().len()));
}

#[test]
fn approving_is_for_people_at_a_terminal() {
    let rig = Rig::new();
    let plan = "plan_01jc4k00000000000000000000";
    let piped = rig.run(&["approve", plan]);
    assert_eq!(piped.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&piped.stderr).contains("no_terminal"), "{piped:?}");
    let agents = rig.command(&["approve", plan]).env("CLAUDECODE", "1").output().expect("runs");
    let said = String::from_utf8_lossy(&agents.stderr).into_owned();
    assert!(said.contains("not_a_person") && said.contains("Claude Code"), "{said}");
}
