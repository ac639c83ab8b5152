//! `vmkit connect`: takes a token, tries it, and keeps it sealed.

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{CliError, Start, approve};
use crate::config::{
    OfficialToken, cloudflare_token, digitalocean_cli_token, github_cli_token, hetzner_cli_token,
};
use crate::domain::secret::Secret;
use crate::operations::catalogue::title;
use crate::operations::connect::{AppKey, Provider, connect};
use crate::operations::{Context, OpError};

/// Store a token for a cloud or for GitHub, after it was tried. It is never shown again.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Whose token it is.
    #[arg(value_enum)]
    provider: ProviderName,
    /// Take the token from the first line of stdin.
    #[arg(long, conflicts_with = "official")]
    stdin: bool,
    /// Take the token that the provider's own command line (hcloud, doctl, gh) holds.
    #[arg(long)]
    official: bool,
    /// GitHub: sign in as the GitHub App with this id (or client id), in place of a token.
    #[arg(long, value_name = "ID", conflicts_with = "official")]
    app: Option<String>,
    /// The App's private key, the .pem file that its settings page makes; or pipe it in with --stdin.
    #[arg(long, value_name = "FILE", requires = "app")]
    key: Option<std::path::PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProviderName {
    /// Hetzner Cloud: a token with read and write access to one project.
    Hetzner,
    /// DigitalOcean: a token with full access, or with the scopes that VMKit needs.
    #[value(name = "digitalocean")]
    DigitalOcean,
    /// GitHub: a token that may write contents, workflows, actions, secrets, variables and pull requests.
    Github,
    /// Cloudflare: a token with Zone:Read and DNS:Edit on the zones of your domains.
    Cloudflare,
}

impl ProviderName {
    pub(super) fn provider(self) -> Provider {
        match self {
            Self::Hetzner => Provider::Hetzner,
            Self::DigitalOcean => Provider::DigitalOcean,
            Self::Github => Provider::GitHub,
            Self::Cloudflare => Provider::Cloudflare,
        }
    }

    /// As its owner writes it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Hetzner => "Hetzner",
            Self::DigitalOcean => "DigitalOcean",
            Self::Github => "GitHub",
            Self::Cloudflare => "Cloudflare",
        }
    }

    /// Where a token is made.
    fn page(self) -> &'static str {
        match self {
            Self::Hetzner => {
                "https://console.hetzner.com (project, Security, API tokens: Read & Write)"
            }
            Self::DigitalOcean => {
                "https://cloud.digitalocean.com/account/api/tokens (Full Access, or Custom Scopes: \
                 all of droplet, firewall, image, reserved_ip, snapshot, ssh_key and tag; read of \
                 account, actions, regions and sizes)"
            }
            Self::Github => {
                "https://github.com/settings/tokens/new?scopes=repo,workflow&description=VMKit \
                 (classic, everything ticked already), or \
                 https://github.com/settings/personal-access-tokens/new (fine-grained: your repo; \
                 Actions, Contents, Pull requests, Secrets, Variables, Workflows: read and write)"
            }
            Self::Cloudflare => {
                "https://dash.cloudflare.com/profile/api-tokens (Create token, Edit zone DNS: your \
                 zones; Zone Read and DNS Edit)"
            }
        }
    }
}

impl Connect {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        let context = start.open_any().await?;
        self.store(&context, &start).await?;
        Ok(ExitCode::SUCCESS)
    }

    /// A token typed by the person at the terminal, or the official client's.
    pub(super) fn at_terminal(provider: ProviderName) -> Self {
        Self { provider, stdin: false, official: false, app: None, key: None }
    }

    /// Takes the token, tries it and stores it; says so.
    pub(super) async fn store(&self, context: &Context, start: &Start) -> Result<(), CliError> {
        let provider = self.provider.provider();
        let token = self.token(start)?;
        let found = connect(context, provider, token.clone()).await;
        let found = found.map_err(|error| self.explained(error, &token))?;
        super::say(&format!("{}: {found}", provider.as_str()));
        let what = if self.app.is_some() { "the App's key" } else { "the token" };
        super::say(&format!("{what} is stored, sealed with the master key"));
        let set = match self.provider {
            ProviderName::Hetzner => start.settings.hetzner_token.is_some(),
            ProviderName::DigitalOcean => start.settings.digitalocean_token.is_some(),
            ProviderName::Github => start.settings.github_token.is_some(),
            ProviderName::Cloudflare => start.settings.cloudflare_token.is_some(),
        };
        if set {
            let variable = format!("VMKIT_{}_TOKEN", provider.as_str().to_ascii_uppercase());
            super::say(&format!("note: {variable} is set here, and beats the stored token"));
        }
        Ok(())
    }

    fn token(&self, start: &Start) -> Result<Secret, CliError> {
        if let Some(id) = &self.app {
            return self.app(id);
        }
        if self.stdin {
            let text = super::piped()?;
            return self.checked(text.lines().next().unwrap_or_default());
        }
        let official = match self.provider {
            ProviderName::Hetzner => hetzner_cli_token(&start.environment)?,
            ProviderName::DigitalOcean => digitalocean_cli_token(&start.environment)?,
            ProviderName::Github => match github_cli_token(&start.environment)? {
                Some(found) => Some(found),
                None => gh_token(),
            },
            ProviderName::Cloudflare => cloudflare_token(&start.environment),
        };
        if self.official {
            return official.map(|found| found.token).ok_or_else(|| self.no_official());
        }
        if !std::io::stdin().is_terminal() {
            return Err(CliError::new("no_terminal", "there is no terminal to type a token into")
                .fix("pipe it in with --stdin, or take the official client's with --official")
                .usage());
        }
        if let Some(OfficialToken { token, found_in }) = official {
            let answer = approve::ask(&format!("Use the token of {found_in}? [y/N] "))?;
            if answer.trim().eq_ignore_ascii_case("y") {
                return Ok(token);
            }
        }
        super::say(&format!("Make a token at {}", self.provider.page()));
        let typed = match rpassword::prompt_password("Token (not shown): ") {
            // Ctrl-D: nothing was typed.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => String::new(),
            typed => typed.map_err(|error| CliError::io("the terminal cannot be read", &error))?,
        };
        self.checked(&typed)
    }

    /// An App's id and key, where a token would be.
    fn app(&self, id: &str) -> Result<Secret, CliError> {
        if self.provider != ProviderName::Github {
            return Err(CliError::new("bad_flag", "--app is for `vmkit connect github`").usage());
        }
        let pem = match &self.key {
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                CliError::io(&format!("{} cannot be read", path.display()), &error)
            })?,
            None if self.stdin => super::piped()?,
            None => {
                return Err(CliError::new("no_app_key", "the App's private key is missing")
                    .fix("name its .pem file with --key FILE, or pipe it in with --stdin")
                    .usage());
            }
        };
        let pem = Secret::new(pem);
        AppKey::new(id, &pem).map_err(|error| {
            CliError::new(error.code(), error.to_string())
                .fix("make a key on the App's settings page, under Private keys")
                .usage()
        })?;
        Ok(AppKey::packed(id, &pem))
    }

    fn checked(&self, text: &str) -> Result<Secret, CliError> {
        let text = text.trim();
        let page = self.provider.page();
        if text.is_empty() {
            return Err(CliError::new("bad_token", "no token was given")
                .fix(format!("make one at {page}"))
                .usage());
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            let message = "that holds blanks or other characters that no token has";
            return Err(CliError::new("bad_token", message)
                .fix(format!("copy it again from {page}"))
                .usage());
        }
        let token = Secret::new(text);
        match token.issuer() {
            Some(issuer) if issuer != self.provider.provider().as_str() => {
                Err(self.of_another(issuer))
            }
            _ => Ok(token),
        }
    }

    /// A token that is not to be sent to somebody whom it does not concern.
    fn of_another(&self, issuer: &str) -> CliError {
        let (owner, here) = (title(issuer), self.provider.title());
        let message = format!("that is a token of {owner}, and was not sent to {here}");
        CliError::new("other_providers_token", message)
            .fix(match issuer {
                "vmkit" => format!("make one at {}", self.provider.page()),
                issuer => format!("run `vmkit connect {issuer}` with it"),
            })
            .usage()
    }

    /// What a refusal means to somebody who has just typed the token.
    fn explained(&self, error: OpError, token: &Secret) -> CliError {
        if error.code() != "token_refused" {
            return error.into();
        }
        let (name, page) = (self.provider.title(), self.provider.page());
        CliError::new(
            "token_refused",
            format!("{name} does not accept this token; it was not stored"),
        )
        .fix(match token.likely_issuer() {
            Some(issuer) if issuer != self.provider.provider().as_str() => format!(
                "it has the form of a token of {}: run `vmkit connect {issuer}` with it, or make one at {page}",
                title(issuer)
            ),
            _ => format!("copy it again, or make a new one at {page}"),
        })
    }

    fn no_official(&self) -> CliError {
        let (client, hint) = match self.provider {
            ProviderName::Hetzner => {
                ("hcloud", "run `hcloud context create`, or leave --official out")
            }
            ProviderName::DigitalOcean => {
                ("doctl", "run `doctl auth init`, or leave --official out")
            }
            ProviderName::Github => ("gh", "run `gh auth login`, or leave --official out"),
            ProviderName::Cloudflare => {
                let client = "the variable CLOUDFLARE_API_TOKEN";
                (client, "its command line's own sign-in may not edit DNS; make a token instead")
            }
        };
        CliError::new("no_official_token", format!("{client} holds no token that can be read"))
            .fix(hint)
    }
}

/// The token that gh keeps in the system's keyring, where only gh itself can read it.
fn gh_token() -> Option<OfficialToken> {
    let asked = std::process::Command::new("gh")
        .args(["auth", "token", "--hostname", "github.com"])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .output();
    let output = asked.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    let found_in = "`gh auth token`".to_owned();
    (!text.is_empty()).then(|| OfficialToken { token: Secret::new(text), found_in })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(provider: ProviderName, text: &str) -> String {
        let connect = Connect { provider, stdin: true, official: false, app: None, key: None };
        let error = connect.checked(text).map(|_| ()).expect_err("refused");
        assert_eq!(error.exit, 2);
        format!("{error}; {}", error.fix)
    }

    #[test]
    fn a_token_that_cannot_be_one_is_not_tried() {
        let empty = refused(ProviderName::Github, " \n");
        assert!(
            empty.starts_with("bad_token: no token was given; make one at https://"),
            "{empty}"
        );
        let blanks = refused(ProviderName::Hetzner, "two words");
        assert!(blanks.starts_with("bad_token: that holds blanks"), "{blanks}");
    }

    #[test]
    fn a_token_of_another_provider_is_not_sent() {
        for prefix in ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"] {
            let told = refused(ProviderName::Hetzner, &format!("{prefix}token-for-tests"));
            assert!(told.starts_with("other_providers_token: "), "{told}");
            assert!(told.contains("`vmkit connect github`"), "{told}");
        }
        for provider in [ProviderName::Hetzner, ProviderName::Github] {
            let told = refused(provider, "dop_v1_token-for-tests");
            assert!(told.contains("a token of DigitalOcean"), "{told}");
            assert!(told.contains("`vmkit connect digitalocean`"), "{told}");
            let told = refused(provider, "vmk_token-for-tests");
            assert!(told.contains("make one at https://"), "{told}");
        }
    }

    #[test]
    fn a_refused_token_is_told_as_the_one_just_given() {
        let provider = ProviderName::Github;
        let connect = Connect { provider, stdin: true, official: false, app: None, key: None };
        let refusal = || crate::github::GitHubError::Auth.into();
        let told = connect.explained(refusal(), &Secret::new("token-for-tests"));
        assert_eq!(
            told.to_string(),
            "token_refused: GitHub does not accept this token; it was not stored"
        );
        assert!(told.fix.contains("make a new one at https://github.com/"), "{}", told.fix);
        let told = connect.explained(refusal(), &Secret::new("t".repeat(64)));
        assert!(told.fix.contains("`vmkit connect hetzner`"), "{}", told.fix);
    }
}
