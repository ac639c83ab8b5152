//! The MCP server: what assistants talk to, over stdio and over HTTP, in both eras of the protocol.
//!
//! The tools themselves are in `tools/`, one file each; everything that is the same for all of them
//! is here: who may call, arguments, answers, errors, progress, questions to the person.

mod answer;
mod arguments;
mod broken;
mod call;
mod error;
mod named;
mod outside;
mod question;
mod relay;
mod schema;
mod stdio;
mod work;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, DiscoverResult, Implementation,
    JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::access::{Audit, Caller, Deed, Place, Role};
use crate::domain::ids::OperationId;
use crate::operations::{Context, OpError};

pub use answer::{Answer, Word};
pub use arguments::Parameters;
pub use broken::Broken;
pub use call::Call;
pub use error::{ERROR_META, ToolError};
pub(crate) use named::{bad_name, when};
pub use outside::{clean, fence, line};
pub use question::{Asked, Question};
pub use relay::Gateway;
pub use stdio::serve as serve_stdio;
pub use work::told;
pub(crate) use work::{Work, ask, plan_id, planned, resize_first, result_text, stage};

/// What an assistant is told about all tools together. Clients cut it at 2,048 characters.
const INSTRUCTIONS: &str = include_str!("mcp/instructions.txt");

/// How long a client may keep the list of tools, in milliseconds: it changes with a release only.
const LIST_LIFETIME_MS: u64 = 5 * 60 * 1000;

/// One tool in the list: what it is, and what a key needs for it.
pub(crate) struct Entry {
    /// The tool's own router, with this one tool in it.
    pub(crate) router: ToolRouter<Server>,
    /// The weakest role that may call it.
    pub(crate) needs: Role,
    /// What it touches, as far as keys are concerned.
    pub(crate) touches: Touches,
    /// Arguments whose values are never written down.
    pub(crate) secrets: &'static [&'static str],
}

/// Where a tool's arguments say what it touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touches {
    /// Nothing of the installation's; or the tool leaves out what the key may not see.
    Nothing,
    /// The environment in the argument `environment`.
    Environment,
    /// The environment of the operation in the argument `operation`.
    Operation,
    /// The installation as a whole.
    Installation,
}

/// A tool as it is listed and checked.
struct Listed {
    tool: Tool,
    needs: Role,
    touches: Touches,
    secrets: &'static [&'static str],
}

impl Listed {
    fn changes_things(&self) -> bool {
        self.tool.annotations.as_ref().and_then(|hints| hints.read_only_hint) != Some(true)
    }
}

/// Every tool in its order, as clients see them.
pub fn tools() -> Vec<Tool> {
    let routes = crate::tools::all().into_iter().flat_map(|entry| entry.router);
    let mut tools: Vec<Tool> = routes.map(|route| route.attr).collect();
    tools.iter_mut().for_each(schema::normalise);
    tools
}

/// The MCP server. Cheap to clone: every clone is the same server.
#[derive(Clone)]
pub struct Server {
    listed: Arc<Vec<Listed>>,
    router: Arc<ToolRouter<Self>>,
    audit: Audit,
    context: Arc<Context>,
    seal: question::Seal,
    closing: CancellationToken,
}

impl Server {
    /// The server with every tool.
    pub fn new(audit: Audit, context: Arc<Context>) -> Self {
        Self::with(audit, context, crate::tools::all())
    }

    /// A server with the tools of `entries`, in that order.
    pub(crate) fn with(audit: Audit, context: Arc<Context>, entries: Vec<Entry>) -> Self {
        let mut router = ToolRouter::new();
        let mut listed = Vec::new();
        for Entry { router: own, needs, touches, secrets } in entries {
            for mut route in own {
                schema::normalise(&mut route.attr);
                listed.push(Listed { tool: route.attr.clone(), needs, touches, secrets });
                router.add_route(route);
            }
        }
        Self {
            listed: Arc::new(listed),
            router: Arc::new(router),
            audit,
            context,
            seal: question::Seal::fresh(),
            closing: CancellationToken::new(),
        }
    }

    /// Its tools in their order, as clients see them.
    fn tools(&self) -> impl Iterator<Item = &Tool> {
        self.listed.iter().map(|listed| &listed.tool)
    }

    /// What operations and queries are made of.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Cancelled when no client can send anything any more: waiting calls end at once then.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    fn find(&self, name: &str) -> Result<&Listed, ErrorData> {
        self.listed.iter().find(|listed| listed.tool.name == name).ok_or_else(|| {
            let names: Vec<String> = self.tools().map(|tool| tool.name.to_string()).collect();
            let near = arguments::nearest(name, names.iter());
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let message = format!("there is no tool `{}`{hint}", line(name, 80));
            ErrorData::invalid_params(message, None)
        })
    }

    /// Checks who calls and what they give, then lets the tool run.
    async fn run(
        &self,
        listed: &Listed,
        caller: Caller,
        mut request: CallToolRequestParams,
        mut context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = listed.tool.name.clone();
        let mut given = request.arguments.take().unwrap_or_default();
        arguments::check(&name, &listed.tool.input_schema, &mut given)
            .map_err(ToolError::into_protocol)?;
        let place = self.place(&caller, listed, &given).await?;
        caller
            .may(&name, listed.needs, &place)
            .map_err(|denied| ToolError::new(denied.code(), denied.to_string()).into_protocol())?;
        context.extensions.insert(call::Opened {
            caller,
            tool: name,
            digest: digest(&given),
            closing: self.closing.clone(),
        });
        request.arguments = Some(given);
        let running = self.router.call(ToolCallContext::new(self, request, context));
        // A fault of ours in one tool must not leave its caller without an answer.
        AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(|_| {
            Err(ToolError::new("internal", "the tool stopped because of a fault in VMKit")
                .fix("look at VMKit's log, and report it")
                .into_protocol())
        })
    }

    async fn place(
        &self,
        caller: &Caller,
        listed: &Listed,
        given: &JsonObject,
    ) -> Result<Place, ErrorData> {
        let text = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or_default();
        match listed.touches {
            Touches::Nothing => Ok(Place::Anywhere),
            // A wrong name is told by the tool itself, which knows the right call.
            Touches::Environment => Ok(Place::named(text("environment"))),
            Touches::Operation if caller.is_restricted() => {
                let id = text("operation").parse::<OperationId>().ok();
                self.place_of(id).await.map_err(|error| ToolError::from(error).into_protocol())
            }
            Touches::Operation => Ok(Place::Anywhere),
            Touches::Installation => Ok(Place::Installation),
        }
    }

    async fn place_of(&self, operation: Option<OperationId>) -> Result<Place, OpError> {
        let Some(operation) = operation else { return Ok(Place::Installation) };
        let store = &self.context.store;
        let row = store.operation(operation).await?;
        let Some(environment) = row.and_then(|row| row.environment) else {
            return Ok(Place::Installation);
        };
        let found = store.environment_by_id(environment).await?;
        Ok(found.map_or(Place::Installation, |found| Place::Environment(found.path)))
    }
}

/// What is written down of a call: everything but the values that the tool calls secret.
fn deed_of(listed: &Listed, mut given: JsonObject, outcome: String) -> Deed {
    let reason = given.get("reason").and_then(|text| text.as_str()).map(str::to_owned);
    for field in listed.secrets {
        given.get_mut(*field).into_iter().for_each(redact);
    }
    Deed { tool: listed.tool.name.to_string(), arguments: given.into(), outcome, reason }
}

/// Keeps names and shape, and hides every value.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(redact),
        Value::Array(items) => items.iter_mut().for_each(redact),
        other => *other = Value::from("***"),
    }
}

/// Who calls: the key that the HTTP layer let in, or the person at this machine over stdio.
fn caller_of(context: &RequestContext<RoleServer>) -> Option<Caller> {
    match context.extensions.get::<http::request::Parts>() {
        Some(parts) => parts.extensions.get::<Caller>().cloned(),
        None => Some(Caller::Local),
    }
}

fn digest(given: &JsonObject) -> [u8; 32] {
    // The order of fields is the client's; a retry sends the same bytes.
    Sha256::digest(serde_json::to_vec(given).unwrap_or_default()).into()
}

/// The word or the error's code, for the audit log.
fn outcome_of(answer: &CallToolResponse) -> String {
    let CallToolResponse::Complete(result) = answer else { return "asked".to_owned() };
    let word = result.structured_content.as_ref().and_then(|data| data.get("status"));
    let word = word.and_then(Value::as_str).unwrap_or("answered");
    ToolError::of(result).map_or_else(|| word.to_owned(), |error| error.code.into_owned())
}

/// What both eras are told of us.
fn config() -> ServerConfig {
    let server = Implementation::new("vmkit", env!("CARGO_PKG_VERSION")).with_title("VMKit");
    ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
        .with_server_info(server)
        .with_instructions(INSTRUCTIONS)
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        config()
    }

    async fn discover(
        &self,
        _context: RequestContext<RoleServer>,
    ) -> Result<DiscoverResult, ErrorData> {
        let versions = self.supported_protocol_versions().into_owned();
        Ok(DiscoverResult::from_server_info(versions, self.get_info())
            .with_ttl_ms(LIST_LIFETIME_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let caller = caller_of(&context).ok_or_else(no_caller)?;
        let allowed = self.listed.iter().filter(|listed| caller.has(listed.needs));
        Ok(ListToolsResult::with_all_items(allowed.map(|listed| listed.tool.clone()).collect())
            .with_ttl_ms(LIST_LIFETIME_MS)
            .with_cache_scope(CacheScope::Private))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.listed.iter().find(|listed| listed.tool.name == name).map(|l| l.tool.clone())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let listed = self.find(&request.name)?;
        let caller = caller_of(&context).ok_or_else(no_caller)?;
        let (name, by) = (listed.tool.name.clone(), caller.name());
        let given = request.arguments.clone().unwrap_or_default();
        let first = listed.changes_things().then_some(Word::Failed.as_str());
        let answer = match self.run(listed, caller.clone(), request, context).await {
            Ok(answer) => Ok(with_first_word(answer, first)),
            Err(error) => match ToolError::from_protocol(&error) {
                Some(error) => Ok(error.into_result(first).into()),
                None => Err(error),
            },
        };
        if let Ok(answer) = &answer {
            let outcome = outcome_of(answer);
            if listed.changes_things() {
                tracing::info!(tool = %name, caller = %by, outcome, "{name} for {by}: {outcome}");
                self.audit.write(&caller, deed_of(listed, given, outcome)).await;
            }
        }
        answer
    }
}

/// A failure that a tool returned says FAILED first, where the tool changes things.
fn with_first_word(answer: CallToolResponse, first: Option<&str>) -> CallToolResponse {
    match (answer, first) {
        (CallToolResponse::Complete(result), Some(first)) => match ToolError::of(&result) {
            Some(error) => error.into_result(Some(first)).into(),
            None => result.into(),
        },
        (answer, _) => answer,
    }
}

fn no_caller() -> ErrorData {
    ErrorData::internal_error("the request passed no check of keys", None)
}

#[cfg(test)]
pub(crate) mod probe;
#[cfg(test)]
mod tests;
