//! `vmkit setup`: the first steps at a terminal, one thing after the other.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, json};

use super::connect::{Connect, ProviderName};
use super::{CliError, Start, approve, doctor, say};
use crate::operations::Context;
use crate::queries::doctor::connected;

/// The first steps: tokens, your SSH key, a check of them, and the lines for your assistant.
#[derive(Debug, Args)]
pub(crate) struct Setup {}

impl Setup {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(CliError::new("no_terminal", "there is no terminal here to ask you at")
                .fix("pipe each token into `vmkit connect PROVIDER --stdin`, then run `vmkit doctor`")
                .usage());
        }
        let context = start.open_any().await?;
        say(
            "What VMKit needs, one thing after the other. Enter leaves a step out; nothing is bought.",
        );
        clouds(&context, &start).await?;
        step("GitHub, where your code and its builds are");
        offered(&context, &start, ProviderName::Github).await?;
        step("Cloudflare, only if your domains are there");
        offered(&context, &start, ProviderName::Cloudflare).await?;
        step("Your SSH key, which goes to every server");
        say(match start.settings.owner_key {
            Some(_) => "found",
            None => "none was found: make one with `ssh-keygen -t ed25519`",
        });
        step("The check (`vmkit doctor`)");
        let bad = doctor::report(&context, &start).await?;
        step("Your assistant");
        let program = std::env::current_exe()
            .map_err(|error| CliError::io("the path of this program is not known", &error))?;
        let home = start.home_is_chosen.then(|| start.settings.home.path());
        super::print(&client_lines(&program, home))?;
        say(match bad {
            0 => "\nThen ask it: \"Use vmkit to show me what I have.\"",
            _ => "\nWhat is BAD above comes first; run `vmkit setup` again whenever you like.",
        });
        Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn step(title: &str) {
    say(&format!("\n== {title}"));
}

/// One cloud is enough; where there is one, no other is asked for.
async fn clouds(context: &Context, start: &Start) -> Result<(), CliError> {
    step("A cloud, where your servers are");
    let mut connected = false;
    for cloud in [ProviderName::Hetzner, ProviderName::DigitalOcean] {
        connected |= told_if_connected(context, cloud).await?;
    }
    if connected {
        return Ok(());
    }
    loop {
        let answer = approve::ask("Hetzner or DigitalOcean? [h/d] ")?;
        let cloud = match answer.trim().to_ascii_lowercase().as_str() {
            "" => return Ok(()),
            "h" | "hetzner" => ProviderName::Hetzner,
            "d" | "digitalocean" => ProviderName::DigitalOcean,
            _ => continue,
        };
        return connected_by_hand(context, start, cloud).await;
    }
}

async fn offered(context: &Context, start: &Start, provider: ProviderName) -> Result<(), CliError> {
    if told_if_connected(context, provider).await? {
        return Ok(());
    }
    let question = format!("Connect {}? [y/N] ", provider.title());
    if !approve::ask(&question)?.trim().eq_ignore_ascii_case("y") {
        return Ok(());
    }
    connected_by_hand(context, start, provider).await
}

async fn told_if_connected(context: &Context, provider: ProviderName) -> Result<bool, CliError> {
    let token = connected(context, provider.provider().as_str()).await?;
    if let Some(origin) = token {
        say(&format!("{} is connected: token {origin}", provider.title()));
    }
    Ok(token.is_some())
}

/// Asks until a token works, or the person has enough.
async fn connected_by_hand(
    context: &Context,
    start: &Start,
    provider: ProviderName,
) -> Result<(), CliError> {
    let by_hand = Connect::at_terminal(provider);
    while let Err(error) = by_hand.store(context, start).await {
        super::tell(&error);
        if !approve::ask("Try again? [y/N] ")?.trim().eq_ignore_ascii_case("y") {
            break;
        }
    }
    Ok(())
}

/// What the clients want to have, with this very program in it: they are started with a PATH of
/// their own. MCP.md tells which reads what.
fn client_lines(program: &Path, home: Option<&Path>) -> String {
    let mut server = Map::from_iter([
        ("command".to_owned(), json!(program)),
        ("args".to_owned(), json!(["mcp"])),
    ]);
    let mut flag = String::new();
    if let Some(home) = home {
        server.insert("env".to_owned(), json!({ "VMKIT_HOME": home }));
        flag = format!(" -e {}", quoted(&format!("VMKIT_HOME={}", home.display())));
    }
    let config = json!({ "mcpServers": { "vmkit": &server } });
    let config = serde_json::to_string_pretty(&config).unwrap_or_default();
    server.insert("name".to_owned(), json!("vmkit"));
    let code = quoted(&serde_json::Value::Object(server).to_string());
    let program = quoted(&program.display().to_string());
    format!(
        "Claude Code:  claude mcp add vmkit{flag} -- {program} mcp\n\
         VS Code:      code --add-mcp {code}\n\
         Claude Desktop (Settings, Developer, Edit Config) and Cursor (~/.cursor/mcp.json):\n{config}"
    )
}

/// As one word of a shell. A path with a NUL byte, which no shell can say, stays as it is.
fn quoted(text: &str) -> String {
    shlex::try_quote(text).unwrap_or(text.into()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_clients_start_this_program_on_this_state() {
        let lines = client_lines(Path::new("/opt/my tools/vmkit"), Some(Path::new("/srv/it's")));
        let (line, config) = lines.split_once("mcp.json):\n").expect("two parts");
        assert!(
            line.contains(r#"-e "VMKIT_HOME=/srv/it's" -- '/opt/my tools/vmkit' mcp"#),
            "{line}"
        );
        let config: serde_json::Value = serde_json::from_str(config).expect("JSON");
        let server = &config["mcpServers"]["vmkit"];
        assert_eq!(server["command"], "/opt/my tools/vmkit");
        assert_eq!(server["env"]["VMKIT_HOME"], "/srv/it's");
        let plain = client_lines(Path::new("/usr/bin/vmkit"), None);
        assert!(plain.contains("claude mcp add vmkit -- /usr/bin/vmkit mcp\n"), "{plain}");
        assert!(!plain.contains("VMKIT_HOME"), "{plain}");
    }
}
