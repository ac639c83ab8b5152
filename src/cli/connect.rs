//! `vmkit connect`: takes a token, tries it, and keeps it sealed.

use std::io::{ErrorKind, IsTerminal, Read};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{CliError, Start, approve};
use crate::config::{OfficialToken, github_cli_token, hetzner_cli_token};
use crate::domain::secret::Secret;
use crate::operations::OpError;
use crate::operations::connect::{Provider, connect};

/// What GitHub's tokens begin with.
const GITHUB_PREFIXES: [&str; 6] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];

/// Store a token for a cloud or for GitHub, after it was tried. It is never shown again.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Whose token it is.
    #[arg(value_enum)]
    provider: ProviderName,
    /// Take the token from the first line of stdin.
    #[arg(long, conflicts_with = "official")]
    stdin: bool,
    /// Take the token that the provider's own command line (hcloud, gh) holds.
    #[arg(long)]
    official: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProviderName {
    /// Hetzner Cloud: a token with read and write access to one project.
    Hetzner,
    /// GitHub: a token that may write contents, workflows, actions, secrets, variables and pull requests.
    Github,
}

impl ProviderName {
    fn provider(self) -> Provider {
        match self {
            Self::Hetzner => Provider::Hetzner,
            Self::Github => Provider::GitHub,
        }
    }

    /// As its owner writes it.
    fn title(self) -> &'static str {
        match self {
            Self::Hetzner => "Hetzner",
            Self::Github => "GitHub",
        }
    }

    /// Where a token is made.
    fn page(self) -> &'static str {
        match self {
            Self::Hetzner => {
                "https://console.hetzner.com (project, Security, API tokens: Read & Write)"
            }
            Self::Github => {
                "https://github.com/settings/personal-access-tokens/new (your repo; Actions, \
                 Contents, Pull requests, Secrets, Variables, Workflows: read and write)"
            }
        }
    }
}

impl Connect {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        let context = start.open_any().await?;
        let provider = self.provider.provider();
        let token = self.token(&start)?;
        let found = connect(&context, provider, token).await;
        let found = found.map_err(|error| self.explained(error))?;
        super::say(&format!("{}: {found}", provider.as_str()));
        super::say("the token is stored, sealed with the master key");
        let set = match self.provider {
            ProviderName::Hetzner => start.settings.hetzner_token.is_some(),
            ProviderName::Github => start.settings.github_token.is_some(),
        };
        if set {
            let variable = format!("VMKIT_{}_TOKEN", provider.as_str().to_ascii_uppercase());
            super::say(&format!("note: {variable} is set here, and beats the stored token"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn token(&self, start: &Start) -> Result<Secret, CliError> {
        if self.stdin {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| CliError::io("stdin cannot be read", &error))?;
            return self.checked(text.lines().next().unwrap_or_default());
        }
        let official = match self.provider {
            ProviderName::Hetzner => hetzner_cli_token(&start.environment)?,
            ProviderName::Github => github_cli_token(&start.environment)?,
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
        // It is not to be sent to somebody whom it does not concern.
        let githubs = GITHUB_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
        if githubs && matches!(self.provider, ProviderName::Hetzner) {
            let message = "that is a token of GitHub, and was not sent to Hetzner";
            return Err(CliError::new("other_providers_token", message)
                .fix("run `vmkit connect github` with it")
                .usage());
        }
        Ok(Secret::new(text))
    }

    /// What a refusal means to somebody who has just typed the token.
    fn explained(&self, error: OpError) -> CliError {
        if error.code() != "token_refused" {
            return error.into();
        }
        let (name, page) = (self.provider.title(), self.provider.page());
        CliError::new(
            "token_refused",
            format!("{name} does not accept this token; it was not stored"),
        )
        .fix(format!("copy it again, or make a new one at {page}"))
    }

    fn no_official(&self) -> CliError {
        let (client, hint) = match self.provider {
            ProviderName::Hetzner => {
                ("hcloud", "run `hcloud context create`, or leave --official out")
            }
            ProviderName::Github => (
                "gh",
                "gh may keep it in the keyring: `gh auth token | vmkit connect github --stdin`",
            ),
        };
        CliError::new("no_official_token", format!("{client} holds no token in a file")).fix(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(provider: ProviderName, text: &str) -> String {
        let connect = Connect { provider, stdin: true, official: false };
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
    fn a_token_of_github_is_not_sent_to_hetzner() {
        for prefix in GITHUB_PREFIXES {
            let told = refused(ProviderName::Hetzner, &format!("{prefix}token-for-tests"));
            assert!(told.starts_with("other_providers_token: "), "{told}");
            assert!(told.contains("`vmkit connect github`"), "{told}");
        }
    }

    #[test]
    fn a_refused_token_is_told_as_the_one_just_given() {
        let connect = Connect { provider: ProviderName::Github, stdin: true, official: false };
        let told = connect.explained(crate::github::GitHubError::Auth.into());
        assert_eq!(
            told.to_string(),
            "token_refused: GitHub does not accept this token; it was not stored"
        );
        assert!(told.fix.contains("make a new one at https://github.com/"), "{}", told.fix);
    }
}
