//! `vmkit env`: a secret that no assistant sees.

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Map, json};

use super::{CliError, Start, call};
use crate::access::Audit;
use crate::domain::names::{EnvKey, EnvironmentPath};
use crate::domain::secret::Secret;
use crate::mcp::{Server, ToolError};

/// Set an env value that no assistant gets to see.
#[derive(Debug, Args)]
pub(crate) struct Env {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Set one value, asked for at a hidden prompt; `set_env` of an assistant does the same.
    Set(Set),
}

#[derive(Debug, Args)]
struct Set {
    /// The environment, such as shop/staging.
    #[arg(value_name = "APP/ENV")]
    environment: EnvironmentPath,
    /// The variable, such as STRIPE_KEY.
    key: EnvKey,
    /// Take the value from stdin instead: all of it, but for a line break at its end.
    #[arg(long)]
    stdin: bool,
    /// A value that may be read again, such as a log level.
    #[arg(long)]
    plain: bool,
    /// For the build of the image, kept at GitHub, instead of the running app.
    #[arg(long)]
    build: bool,
}

impl Env {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        let What::Set(set) = self.what;
        let value = set.value()?;
        let arguments = set.arguments(&value);
        let context = start.open_any().await?;
        let audit = Audit::new(context.store.clone(), context.clock.clone());
        let server = Server::new(audit, Arc::new(context));
        let result = call::through_a_client(server, "set_env".to_owned(), arguments).await?;
        if let Some(error) = ToolError::of(&result) {
            return Err(error.into());
        }
        super::print(&call::texts(&result))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Set {
    fn value(&self) -> Result<Secret, CliError> {
        if self.stdin {
            let text = super::piped()?;
            return Ok(Secret::new(text.strip_suffix('\n').unwrap_or(&text)));
        }
        if !std::io::stdin().is_terminal() {
            return Err(CliError::new("no_terminal", "there is no terminal to type a value into")
                .fix("pipe it in with --stdin")
                .usage());
        }
        let typed = match rpassword::prompt_password(format!("{} (not shown): ", self.key)) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(CliError::new("no_value", "no value was given; nothing was changed"));
            }
            typed => typed.map_err(|error| CliError::io("the terminal cannot be read", &error))?,
        };
        Ok(Secret::new(typed))
    }

    fn arguments(&self, value: &Secret) -> Map<String, serde_json::Value> {
        let class = if self.plain { "plain" } else { "secret" };
        let scope = if self.build { "build" } else { "runtime" };
        Map::from_iter([
            ("environment".to_owned(), json!(self.environment.to_string())),
            ("set".to_owned(), json!({ self.key.to_string(): value.expose() })),
            ("class".to_owned(), json!(class)),
            ("scope".to_owned(), json!(scope)),
        ])
    }
}
