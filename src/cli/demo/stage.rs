//! What the story is played on: the sandbox, an installation of its own, a client.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rmcp::model::ProgressNotificationParam;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use vmkit_sandbox::{Options, Sandbox};

use super::Stopped;
use super::client::{Client, Person, Said};
use super::witness::{self, Witness};

/// The sandbox, an installation of VMKit that knows only its addresses, and a client of that.
pub(super) struct Stage {
    pub(super) sandbox: Sandbox,
    pub(super) witness: Witness,
    pub(super) person: Person,
    pub(super) github_token: String,
    pub(super) github_url: String,
    home: TempDir,
    program: PathBuf,
    settings: Vec<(String, String)>,
    tether: CancellationToken,
    progress: Progress,
    client: Option<Client>,
}

/// Where progress notifications of the server go.
pub(super) type Progress = Arc<dyn Fn(&ProgressNotificationParam) + Send + Sync>;

impl Stage {
    /// Starts the sandbox and makes a fresh home; no server yet.
    pub(super) async fn set_up(progress: Progress) -> Result<Self, Stopped> {
        let program = std::env::current_exe().map_err(Stopped::because)?;
        let options = Options { exe: program.clone(), ..Options::default() };
        let sandbox = Sandbox::start(options).await.map_err(Stopped::because)?;
        let home = tempfile::Builder::new().prefix("vmkit-demo-").tempdir();
        let home = home.map_err(Stopped::because)?;
        let tether = CancellationToken::new();
        let socket = home.path().join("tether");
        hold_tether(&socket, tether.clone())?;
        let mut settings: Vec<(String, String)> =
            sandbox.settings().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let setting =
            |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
        let github_url = setting("VMKIT_GITHUB_URL").unwrap_or_default();
        let github_token = setting("VMKIT_GITHUB_TOKEN").unwrap_or_default();
        let listen = format!("127.0.0.1:{}", free_port().await?);
        settings.extend([
            ("VMKIT_HOME".to_owned(), home.path().display().to_string()),
            ("VMKIT_PUBLIC_URL".to_owned(), format!("http://{listen}")),
            ("VMKIT_AGENT_LISTEN".to_owned(), listen),
            ("VMKIT_OWNER_KEY".to_owned(), owner_key()?),
            // Twenty seconds for a real app; the demo's own needs one to show that it stays.
            ("VMKIT_STEADY_SECONDS".to_owned(), "1".to_owned()),
            ("VMKIT_TETHER".to_owned(), socket.display().to_string()),
        ]);
        Ok(Self {
            sandbox,
            witness: Witness::new()?,
            person: Person::default(),
            github_token,
            github_url,
            home,
            program,
            settings,
            tether,
            progress,
            client: None,
        })
    }

    /// The folder of the demo's installation.
    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts `vmkit mcp` as a child and shakes hands with it, as an MCP client does.
    pub(super) async fn connect(&mut self) -> Result<(), Stopped> {
        let mut command = Command::new(&self.program);
        command.arg("mcp").env_clear();
        for name in ["PATH", "HOME", "TMPDIR", "LANG"] {
            if let Some(value) = crate::config::Environment::of_process().path(name) {
                command.env(name, value);
            }
        }
        let log =
            std::fs::File::create(self.home.path().join("mcp.log")).map_err(Stopped::because)?;
        command.envs(self.settings.iter().cloned()).kill_on_drop(true);
        let client =
            Client::start(command, log, self.person.clone(), self.progress.clone()).await?;
        self.client = Some(client);
        Ok(())
    }

    fn client(&self) -> Result<&Client, Stopped> {
        self.client.as_ref().ok_or_else(|| Stopped::because("no server is running"))
    }

    /// Calls a tool that must not fail.
    pub(super) async fn call(&self, tool: &str, arguments: Value) -> Result<Said, Stopped> {
        let said = self.client()?.call(tool, arguments).await?;
        match said.error {
            Some(_) => Err(Stopped::because(format!("{tool}: {}", said.text))),
            None => Ok(said),
        }
    }

    /// Calls a tool that may fail.
    pub(super) async fn try_call(&self, tool: &str, arguments: Value) -> Result<Said, Stopped> {
        self.client()?.call(tool, arguments).await
    }

    /// Kills the server and its worker, as a crash would.
    pub(super) async fn kill_server(&mut self) -> Result<usize, Stopped> {
        let client = self.client.take().ok_or_else(|| Stopped::because("no server is running"))?;
        let mut victims = witness::workers(self.home());
        victims.push(i32::try_from(client.pid).map_err(Stopped::because)?);
        for victim in &victims {
            witness::kill(*victim)?;
        }
        drop(client);
        Ok(victims.len())
    }

    /// The lines that connect an assistant to the demo's installation.
    pub(super) fn how_to_connect(&self) -> String {
        let env: serde_json::Map<String, Value> = self
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        let server = serde_json::json!({
            "mcpServers": { "vmkit-demo": { "command": self.program, "args": ["mcp"], "env": env } }
        });
        let text = serde_json::to_string_pretty(&server).unwrap_or_default();
        format!(
            "\nThe sandbox goes on until you press Ctrl-C. To connect an assistant to it:\n\n{text}\n"
        )
    }

    /// Goes on until somebody ends it.
    pub(super) async fn serve_until_ended(&mut self) -> Result<(), Stopped> {
        tokio::signal::ctrl_c().await.map_err(Stopped::because)
    }

    /// Ends everything and checks that nothing is left.
    pub(super) async fn tear_down(mut self) -> Result<(), Stopped> {
        if let Some(client) = self.client.take() {
            client.close().await?;
        }
        self.tether.cancel();
        let home = self.home.path().to_path_buf();
        self.witness
            .until("the end of the worker", async || Ok(witness::workers(&home).is_empty()))
            .await?;
        self.sandbox.stop().await;
        self.home.close().map_err(Stopped::because)
    }
}

/// Holds the other end of what our children watch: they exit when it closes, so when we are gone.
fn hold_tether(socket: &Path, until: CancellationToken) -> Result<(), Stopped> {
    let listener = UnixListener::bind(socket).map_err(Stopped::because)?;
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            tokio::select! {
                () = until.cancelled() => break,
                accepted = listener.accept() => held.extend(accepted.ok()),
            }
        }
        drop(held);
    });
    Ok(())
}

/// A port that was free a moment ago. The worker needs a fixed one: it listens there again after
/// it was killed.
async fn free_port() -> Result<u16, Stopped> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Stopped::because)?;
    Ok(listener.local_addr().map_err(Stopped::because)?.port())
}

/// A public key for the owner of the demo's VMs; nobody has its private half.
fn owner_key() -> Result<String, Stopped> {
    use ssh_key::{Algorithm, PrivateKey, rand_core::OsRng};
    let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(Stopped::because)?;
    key.public_key().to_openssh().map_err(Stopped::because)
}
