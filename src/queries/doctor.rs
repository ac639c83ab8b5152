//! Is everything there that the main job needs? One row per thing, with what to do.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::accounts::{Accounts, CLOUDS, GITHUB, TokenSource};
use crate::clouds::{Cloud, CloudError};
use crate::operations::agents::{self, own_arch};
use crate::operations::catalogue::orderable;
use crate::operations::connect::account;
use crate::operations::{Context, OpError};

/// How long an open port may take to answer.
const PORT_WAIT: Duration = Duration::from_secs(5);

/// How a row of the doctor's list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Good,
    /// The main job would stop there.
    Bad,
    /// Worth knowing.
    Note,
}

/// One row.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was looked at.
    pub what: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do where it is bad.
    pub fix: Option<String>,
}

fn good(what: &str, found: String) -> Row {
    Row { what: what.to_owned(), verdict: Verdict::Good, found, fix: None }
}

fn bad(what: &str, error: &OpError) -> Row {
    let fix = Some(error.fix());
    Row { what: what.to_owned(), verdict: Verdict::Bad, found: error.to_string(), fix }
}

/// Looks at tokens, reachability, permissions, and what a new VM would need of us.
pub async fn doctor(context: &Context) -> Vec<Row> {
    let mut rows = vec![good("state file", context.store.path().display().to_string())];
    rows.extend(clouds(context).await);
    rows.push(github(&context.accounts).await);
    rows.push(way_to_agents(context).await);
    rows.push(match &context.settings.owner_key {
        Some(key) => {
            good("your SSH key", key.split_whitespace().next().unwrap_or("set").to_owned())
        }
        None => bad("your SSH key", &OpError::NoOwnerKey),
    });
    rows.push(agent_binary(context).await);
    rows
}

/// Where the token of the provider of this name is from, in words; nothing where there is none.
pub async fn connected(context: &Context, name: &str) -> Result<Option<&'static str>, OpError> {
    let source = context.accounts.source(name).await?;
    Ok(source.is_some().then(|| origin(source)))
}

/// One cloud is enough: where there is one, another that is not connected is only worth knowing.
async fn clouds(context: &Context) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut connected = false;
    for name in CLOUDS {
        connected |= context.accounts.source(name).await.ok().flatten().is_some();
    }
    for (place, name) in CLOUDS.into_iter().enumerate() {
        let absent = matches!(context.accounts.source(name).await, Ok(None));
        rows.push(match absent && (connected || place > 0) {
            true => Row {
                what: name.to_owned(),
                verdict: Verdict::Note,
                found: "not connected".to_owned(),
                fix: None,
            },
            false => cloud(context, name).await,
        });
    }
    rows
}

async fn cloud(context: &Context, name: &'static str) -> Row {
    let asked = async {
        let cloud = context.accounts.cloud(name).await?;
        let facts = cloud.check(context.settings.installation).await?;
        let sizes = cloud.sizes().await?;
        Ok::<_, OpError>((facts, sizes, context.accounts.source(name).await?))
    };
    match asked.await {
        Err(error) => token_row(&context.accounts, name, &error).await,
        Ok((facts, sizes, source)) => {
            let parts = account(name, &facts, &sizes).join(", ");
            let found = format!("token {}, {parts}", origin(source));
            let trouble = orderable(name, &facts).err();
            let none = !sizes.iter().any(|size| size.available);
            let verdict = match &trouble {
                Some(_) => Verdict::Bad,
                None if none || facts.foreign_servers > 0 => Verdict::Note,
                None => Verdict::Good,
            };
            let fix = trouble.map(|error| match error {
                OpError::Cloud(CloudError::Forbidden { .. }) => {
                    format!("run `vmkit connect {name}` with a token that may write")
                }
                other => other.fix(),
            });
            Row { what: name.to_owned(), verdict, found, fix }
        }
    }
}

/// A token that is absent or refused, with what to do about just that.
async fn token_row(accounts: &Accounts, name: &'static str, error: &OpError) -> Row {
    let source = accounts.source(name).await.ok().flatten();
    match token_trouble(name, error.code(), source) {
        Some((found, fix)) => {
            Row { what: name.to_owned(), verdict: Verdict::Bad, found, fix: Some(fix) }
        }
        None => bad(name, error),
    }
}

fn token_trouble(name: &str, code: &str, source: Option<TokenSource>) -> Option<(String, String)> {
    let variable = format!("VMKIT_{}_TOKEN", name.to_ascii_uppercase());
    let found = match code {
        "not_connected" => "no token".to_owned(),
        "token_refused" => format!("token {}, and it is not accepted", origin(source)),
        "other_providers_token" => {
            format!("token {}, and it is another provider's", origin(source))
        }
        _ => return None,
    };
    let fix = match source {
        Some(TokenSource::Environment) => {
            format!("set {variable} to a valid token, or unset it and run `vmkit connect {name}`")
        }
        Some(TokenSource::Stored) => format!("run `vmkit connect {name}` with a new token"),
        None => format!("run `vmkit connect {name}`, or set {variable}"),
    };
    Some((found, fix))
}

fn origin(source: Option<TokenSource>) -> &'static str {
    match source {
        Some(TokenSource::Environment) => "from the environment (it beats a stored one)",
        Some(TokenSource::Stored) => "stored",
        None => "absent",
    }
}

async fn github(accounts: &Accounts) -> Row {
    let asked = async {
        let sign_in = accounts.github().await?.sign_in().await?;
        Ok::<_, OpError>((sign_in, accounts.source(GITHUB).await?))
    };
    match asked.await {
        Err(error) => token_row(accounts, GITHUB, &error).await,
        Ok((sign_in, source)) => {
            let found = format!("sign-in {}, {}", origin(source), sign_in.told());
            match sign_in.missing() {
                None => good(GITHUB, found),
                Some(missing) => Row {
                    what: GITHUB.to_owned(),
                    verdict: Verdict::Bad,
                    found: format!("{found}; missing: {}", missing.names.join(", ")),
                    fix: Some(format!("grant at {}", missing.grant)),
                },
            }
        }
    }
}

/// Agents dial to an address, or VMKit comes to them over SSH, for which the way out must be open.
async fn way_to_agents(context: &Context) -> Row {
    const WHAT: &str = "way to agents";
    if let Some(gateway) = &context.settings.gateway {
        return good(WHAT, format!("they dial out to {}", gateway.url));
    }
    let Some((name, port)) = somebody_with_ssh(context).await else {
        let found = "over SSH; whether port 22 is open shows with the first VM".to_owned();
        return Row { what: WHAT.to_owned(), verdict: Verdict::Note, found, fix: None };
    };
    let target = format!("{name}:{port}");
    let closed = match tokio::time::timeout(PORT_WAIT, TcpStream::connect(&target)).await {
        Ok(Ok(_)) => return good(WHAT, format!("over SSH; {target} answers")),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "refuses connections"
        }
        Ok(Err(_)) => "cannot be reached",
        Err(_) => "does not answer",
    };
    blocked(&target, closed, https_works(context).await)
}

/// What a closed port means depends on whether anything else gets out.
fn blocked(target: &str, closed: &str, https_works: bool) -> Row {
    let (found, fix) = if https_works {
        (
            format!(
                "over SSH, but {target} {closed} while HTTPS works: outgoing connections to port 22 seem to be blocked here"
            ),
            "use another network, or a gateway that agents dial out to (`vmkit serve`); if this is only one VM, look at `get_status` of it",
        )
    } else {
        (
            format!("over SSH, but {target} {closed}, and HTTPS does not work either"),
            "check your connection to the internet",
        )
    };
    let fix = Some(fix.to_owned());
    Row { what: "way to agents".to_owned(), verdict: Verdict::Bad, found, fix }
}

/// A VM of ours, or else GitHub, whose SSH door is open to all. No stranger is asked where the
/// settings point at something else than the real GitHub.
async fn somebody_with_ssh(context: &Context) -> Option<(String, u16)> {
    let port = context.settings.ssh_port;
    for vm in context.store.vms_to_reach().await.unwrap_or_default() {
        if let Ok(Some(row)) = context.store.vm(vm).await
            && let Some(address) = row.vm.address
        {
            let name = match address {
                std::net::IpAddr::V4(address) => address.to_string(),
                std::net::IpAddr::V6(address) => format!("[{address}]"),
            };
            return Some((name, port));
        }
    }
    let real = context.accounts.url(GITHUB)?.host_str() == Some("api.github.com");
    real.then(|| ("github.com".to_owned(), 22))
}

async fn https_works(context: &Context) -> bool {
    let url = CLOUDS.iter().chain([&GITHUB]).find_map(|name| context.accounts.url(name));
    let Some(url) = url else { return false };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return false;
    };
    let connecting = tokio::time::timeout(PORT_WAIT, TcpStream::connect((host, port)));
    matches!(connecting.await, Ok(Ok(_)))
}

async fn agent_binary(context: &Context) -> Row {
    let what = "agent for VMs";
    let mut found = Vec::new();
    for arch in [crate::domain::size::Arch::Amd64, crate::domain::size::Arch::Arm64] {
        match agents::fit(context, arch).await {
            Ok(_) => found.push(arch.as_str()),
            Err(OpError::NoAgentBinary { .. }) => {}
            Err(error) => return bad(what, &error),
        }
    }
    if found.is_empty() {
        let arch = own_arch().map_or("amd64", |arch| arch.as_str()).to_owned();
        return bad(what, &OpError::NoAgentBinary { arch, folder: context.agent_binaries.place() });
    }
    let place = context.agent_binaries.place();
    good(what, format!("{} ({place}, or a release that is set)", found.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_token_is_mended_where_it_came_from() {
        let fix = |code, source| token_trouble("hetzner", code, source).map(|(_, fix)| fix);
        let environment = Some(TokenSource::Environment);
        let told = fix("token_refused", environment).expect("a fix");
        assert!(told.starts_with("set VMKIT_HETZNER_TOKEN to a valid token"), "{told}");
        let told = fix("token_refused", Some(TokenSource::Stored)).expect("a fix");
        assert_eq!(told, "run `vmkit connect hetzner` with a new token");
        let told = fix("not_connected", None).expect("a fix");
        assert_eq!(told, "run `vmkit connect hetzner`, or set VMKIT_HETZNER_TOKEN");
        assert_eq!(fix("unreachable", environment), None);
    }

    #[test]
    fn a_blocked_port_is_told_from_no_network_at_all() {
        let row = blocked("203.0.113.7:22", "does not answer", true);
        assert!(row.found.contains("203.0.113.7:22 does not answer while HTTPS works"));
        assert!(row.fix.expect("a fix").contains("another network"));
        let row = blocked("203.0.113.7:22", "does not answer", false);
        assert!(row.fix.expect("a fix").contains("connection to the internet"));
        assert_eq!(row.verdict, Verdict::Bad);
    }
}
