//! The server through real clients of both eras, over an in-process pipe, with tools of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams,
    ElicitResult, ElicitationAction, Implementation, ProgressNotificationParam, ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt, NotificationContext, RequestContext, RoleClient,
    RunningService,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::probe::entries;
use super::*;
use crate::operations::testing::context;

/// A progress number and what was said with it.
type Said = (f64, Option<String>);

#[derive(Clone, Default)]
struct Client {
    can_ask: bool,
    types: Option<String>,
    heard: Arc<Mutex<Vec<Said>>>,
}

impl ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        let can = ClientCapabilities::builder();
        let can = if self.can_ask { can.enable_elicitation().build() } else { can.build() };
        ClientConfig::new(can, Implementation::new("test", "1"))
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(match &self.types {
            Some(text) => ElicitResult::new(ElicitationAction::Accept)
                .with_content(json!({ "confirm": text })),
            None => ElicitResult::new(ElicitationAction::Decline),
        })
    }

    async fn on_progress(
        &self,
        said: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.heard.lock().expect("a lock").push((said.progress, said.message));
    }
}

struct Pair {
    client: RunningService<RoleClient, Client>,
    state: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

const ERAS: [bool; 2] = [false, true];

async fn pair(modern: bool, client: Client) -> Pair {
    let (context, folder) = context().await;
    let state = context.store.path().to_owned();
    let server =
        Server::with(Audit::new(context.store.clone(), context.clock.clone()), context, entries());
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (read, write) = tokio::io::split(ours);
    tokio::spawn(serve_stdio(server.clone(), server.closing().clone(), read, write));
    let lifecycle = if modern {
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
    } else {
        ClientLifecycleMode::Initialize
    };
    let client = client.serve_with_lifecycle(theirs, lifecycle).await.expect("a session");
    Pair { client, state, _folder: folder }
}

fn request(arguments: Value) -> CallToolRequestParams {
    let Value::Object(arguments) = arguments else { panic!("an object") };
    CallToolRequestParams::new("deed").with_arguments(arguments)
}

async fn call(pair: &Pair, arguments: Value) -> CallToolResult {
    pair.client.call_tool(request(arguments)).await.expect("an answer")
}

fn text(result: &CallToolResult) -> &str {
    result.content[0].as_text().map(|text| text.text.as_str()).expect("text")
}

#[tokio::test]
async fn a_client_of_either_era_sees_the_tools_and_gets_answers() {
    for modern in ERAS {
        let pair = pair(modern, Client::default()).await;
        let info = pair.client.peer_info().expect("info");
        assert_eq!(info.server_info.as_ref().map(|s| s.name.as_str()), Some("vmkit"));
        assert!(info.instructions.as_ref().is_some_and(|text| text.len() < 2048));
        let listed = pair.client.list_tools(None).await.expect("a list");
        assert_eq!(listed.tools.len(), 1);
        assert_eq!(listed.cache_scope, Some(CacheScope::Private));
        assert_eq!(listed.ttl_ms, Some(LIST_LIFETIME_MS));

        let done = call(&pair, json!({"environment": "a/b"})).await;
        assert_eq!(text(&done), "DONE it is done");
        assert_eq!(
            done.structured_content,
            Some(json!({"status": "DONE", "environment": "a/b", "values": 0}))
        );
    }
}

#[tokio::test]
async fn a_failure_is_a_result_with_its_code_and_without_data() {
    for modern in ERAS {
        let pair = pair(modern, Client::default()).await;
        let failed = call(&pair, json!({"environment": "a/b", "how": "badly"})).await;
        assert_eq!(failed.is_error, Some(true));
        assert_eq!(failed.structured_content, None);
        assert_eq!(
            text(&failed),
            "FAILED sold_out: size `cx22` is sold out in `fsn1`; call `list_sizes`"
        );
        let error = ToolError::of(&failed).expect("an error");
        assert_eq!((error.code.as_ref(), error.retryable), ("sold_out", true));

        let wrong = call(&pair, json!({"enviroment": "a/b"})).await;
        assert_eq!(ToolError::of(&wrong).expect("an error").code, "bad_arguments");
        assert!(text(&wrong).contains("did you mean `environment`?"), "{}", text(&wrong));

        let fault = call(&pair, json!({"environment": "a/b", "how": "panic"})).await;
        assert_eq!(ToolError::of(&fault).expect("an error").code, "internal");
        assert_eq!(text(&call(&pair, json!({"environment": "a/b"})).await), "DONE it is done");
    }
}

#[tokio::test]
async fn an_unknown_tool_is_a_protocol_error_that_names_the_near_one() {
    let pair = pair(true, Client::default()).await;
    let error = pair.client.call_tool(CallToolRequestParams::new("deeed")).await;
    let error = error.expect_err("unknown").to_string();
    assert!(error.contains("there is no tool `deeed`; did you mean `deed`?"), "{error}");
}

#[tokio::test]
async fn a_person_is_asked_in_both_eras_and_a_client_that_cannot_ask_is_no_consent() {
    let ask = json!({"environment": "shop/production", "how": "ask"});
    for modern in ERAS {
        let typed = |text: &str| Client {
            can_ask: true,
            types: Some(text.to_owned()),
            ..Client::default()
        };
        let yes = pair(modern, typed("shop/production")).await;
        assert_eq!(text(&call(&yes, ask.clone()).await), "DONE approved", "modern: {modern}");
        let other = pair(modern, typed("yes")).await;
        assert_eq!(text(&call(&other, ask.clone()).await), "NOT_EXECUTED declined");
        let no = pair(modern, Client { can_ask: true, ..Client::default() }).await;
        assert_eq!(text(&call(&no, ask.clone()).await), "NOT_EXECUTED declined");
        let mute = pair(modern, Client::default()).await;
        assert_eq!(text(&call(&mute, ask.clone()).await), "WAITING run `vmkit approve`");
    }
}

#[tokio::test]
async fn an_answer_to_another_question_is_asked_again() {
    let pair = pair(true, Client { can_ask: true, ..Client::default() }).await;
    let once = |arguments: Value, state: Option<String>| {
        let mut request = request(arguments);
        if let Some(state) = state {
            request.request_state = Some(state);
            let yes = json!({"action": "accept", "content": {"confirm": "a/b"}});
            request.input_responses = Some([("approval".to_owned(), yes)].into());
        }
        pair.client.call_tool_once(request)
    };
    let asked = once(json!({"environment": "a/b", "how": "ask"}), None).await.expect("a question");
    let CallToolResponse::InputRequired(asked) = asked else { panic!("{asked:?}") };
    let state = asked.request_state.expect("a state");

    let forged = format!("{state}x");
    let others = json!({"environment": "a/b", "how": "ask", "reason": "another call"});
    for (arguments, state) in
        [(json!({"environment": "a/b", "how": "ask"}), forged), (others, state.clone())]
    {
        let again = once(arguments, Some(state)).await.expect("an answer");
        assert!(matches!(again, CallToolResponse::InputRequired(_)), "{again:?}");
    }
    let yes = once(json!({"environment": "a/b", "how": "ask"}), Some(state)).await.expect("yes");
    let CallToolResponse::Complete(yes) = yes else { panic!("{yes:?}") };
    assert_eq!(text(&yes), "DONE approved");
}

#[tokio::test]
async fn progress_only_ever_rises_and_comes_before_the_answer() {
    for modern in ERAS {
        let client = Client::default();
        let heard = Arc::clone(&client.heard);
        let pair = pair(modern, client).await;
        let running = call(&pair, json!({"environment": "a/b", "how": "slowly"})).await;
        assert_eq!(text(&running), "RUNNING it goes on");
        let heard = heard.lock().expect("a lock").clone();
        let numbers: Vec<f64> = heard.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), 3, "{heard:?}");
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert_eq!(heard[1].1.as_deref(), Some("still ordering"));
    }
}

#[tokio::test]
async fn who_had_what_done_is_written_down_without_the_secrets() {
    let pair = pair(false, Client::default()).await;
    let values = json!({"TOKEN": "value-for-tests"});
    let asked = json!({"environment": "a/b", "values": values, "reason": "a try"});
    call(&pair, asked).await;
    // By a second path than the store's own.
    let file = rusqlite::Connection::open(&pair.state).expect("the file");
    let row = file.query_row("select caller, outcome, reason, arguments from audit", [], |row| {
        let column = |index| row.get::<_, String>(index);
        Ok([column(0)?, column(1)?, column(2)?, column(3)?])
    });
    let [caller, outcome, reason, written] = row.expect("one row");
    assert_eq!([caller, outcome, reason], ["local", "DONE", "a try"]);
    assert!(written.contains("TOKEN") && !written.contains("value-for-tests"), "{written}");
}

#[tokio::test]
async fn the_end_of_the_stream_ends_the_server_though_a_call_waits() {
    let (context, _folder) = context().await;
    let server =
        Server::with(Audit::new(context.store.clone(), context.clock.clone()), context, entries());
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (read, write) = tokio::io::split(ours);
    let serving = tokio::spawn(serve_stdio(server.clone(), server.closing().clone(), read, write));
    let (answers, mut requests) = tokio::io::split(theirs);
    let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"}
    }});
    let begun = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "deed", "arguments": {"environment": "a/b", "how": "forever"}
    }});
    for message in [begin, begun, call] {
        requests.write_all(format!("{message}\n").as_bytes()).await.expect("written");
    }
    requests.shutdown().await.expect("the stream ends");
    let limit = Duration::from_secs(30);
    let ended = tokio::time::timeout(limit, serving).await.expect("in time");
    ended.expect("no panic").expect("no error");
    let mut lines = BufReader::new(answers).lines();
    let mut said = Vec::new();
    while let Some(line) =
        tokio::time::timeout(limit, lines.next_line()).await.expect("in time").expect("a line")
    {
        said.push(serde_json::from_str::<Value>(&line).expect("JSON only"));
    }
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[1]["result"]["structuredContent"]["status"], "RUNNING", "{said:?}");
}
