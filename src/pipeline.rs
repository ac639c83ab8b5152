//! What VMKit puts into a user's repo: pure functions from facts to files.
//!
//! Every value that reaches a file is checked against a closed set of characters first, because a
//! Kamal file is an ERB template, a workflow is a template of GitHub's, and both hold shell. What
//! does not fit is refused with its name; nothing is escaped and hoped for.

mod accessories;
mod check;
mod hook;
mod kamal;
mod names;
mod pull_request;
mod readme;
mod roles;
pub mod scan;
mod traefik;
mod workflow;

pub use names::Names;
pub use pull_request::{PullText, pull_text};
pub use readme::{readme_section, with_readme_section};
pub use roles::{Role, Start, WEB};
pub use traefik::NAME as TRAEFIK;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::domain::environment::{App, Environment, Vm};
use crate::domain::names::{AppSlug, Domain, EnvironmentPath, RepoName, VolumeName};
use crate::domain::run_settings::{ProxyKind, RunSettings};
use crate::domain::service::{ServiceKind, ServiceVersion};
use crate::domain::size::Arch;
use scan::{Build, Flag, Process, Scan};

/// The version of Kamal that the workflow installs and the configs demand at least.
pub const KAMAL_VERSION: &str = "2.12.0";

/// All that the files of one app are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The repo.
    pub repo: RepoName,
    /// The app's own word in the names of its files; none for the first app of the repo.
    pub named: Option<AppSlug>,
    /// The folder of the app in the repo, `.` for the top.
    pub root: String,
    /// The branch that the workflow runs from and takes the Kamal config from.
    pub default_branch: String,
    /// How the image is built.
    pub build: Build,
    /// What runs of it; a missing `web` is the image's own default process.
    pub processes: Vec<Process>,
    /// Variables that Buildpacks need to find the right thing to build.
    pub build_settings: BTreeMap<String, String>,
    /// What is special about the app.
    pub flags: Vec<Flag>,
    /// The Procfile's `release` command.
    pub release: Option<String>,
    /// The app's environments; none before the first is made.
    pub environments: Vec<EnvironmentSetup>,
}

/// What the files say of one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSetup {
    /// Which one. All of a [`Setup`] belong to one app.
    pub path: EnvironmentPath,
    /// The architecture of its VM.
    pub arch: Arch,
    /// The port that the app listens on.
    pub port: u16,
    /// The path that answers 2xx when the app is ready.
    pub health_path: String,
    /// Its public name.
    pub domain: Option<Domain>,
    /// A second public name, such as `www.example.com` beside `example.com`.
    pub also: Option<Domain>,
    /// Its VM's address; without one it gets no Kamal config yet.
    pub address: Option<IpAddr>,
    /// Whether the proxy gets a certificate for the domain.
    pub tls: bool,
    /// What somebody chose beyond that.
    pub run: RunSettings,
    /// The services beside the app, such as its database.
    pub services: Vec<ServiceSetup>,
}

/// What the files say of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceSetup {
    /// What it is.
    pub kind: ServiceKind,
    /// Its exact version.
    pub version: ServiceVersion,
    /// The most memory that it may have, in MiB.
    pub memory_mb: Option<u32>,
}

impl EnvironmentSetup {
    /// What the files say of `environment`, whose VM is `vm`. A domain gets a certificate.
    pub fn of(environment: &Environment, vm: Option<&Vm>, arch: Arch) -> Self {
        let settings = &environment.settings;
        Self {
            path: environment.path.clone(),
            arch: vm.map_or(arch, |vm| vm.arch),
            port: settings.port,
            health_path: settings.health_path.clone(),
            domain: settings.domain.clone(),
            also: None,
            address: vm.and_then(|vm| vm.address),
            tls: settings.domain.is_some(),
            run: environment.run.clone(),
            services: Vec::new(),
        }
    }
}

impl Setup {
    /// The setup of `app`, built by `build` and run as the scan found, with its environments.
    pub fn of(app: &App, build: Build, scan: &Scan, environments: Vec<EnvironmentSetup>) -> Self {
        Self {
            repo: app.repo.clone(),
            named: app.named_files.then(|| app.slug.clone()),
            root: app.root.clone(),
            default_branch: app.default_branch.clone(),
            build,
            processes: scan.processes.clone(),
            build_settings: scan.build_settings.clone(),
            flags: scan.flags.clone(),
            release: scan.release().map(str::to_owned),
            environments,
        }
    }

    /// What its things are called.
    pub fn names(&self) -> Names {
        Names::new(self.repo.clone(), self.named.clone())
    }
}

/// One file of the repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Its path from the top of the repo.
    pub path: String,
    /// Its whole content.
    pub content: String,
    /// Whether it is committed as executable.
    pub executable: bool,
}

/// Why files cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// A value could leave its place in a file.
    #[error("the {what} `{given}` cannot be written into the files: {wanted}")]
    Value {
        /// Which value.
        what: &'static str,
        /// What was given, cut at 80 characters, without control characters.
        given: String,
        /// What is taken.
        wanted: &'static str,
    },
    /// Environments of two apps in one setup.
    #[error(
        "the environments `{one}` and `{other}` belong to two apps; their files are made one app at a time"
    )]
    TwoApps {
        /// One of them.
        one: EnvironmentPath,
        /// Another.
        other: EnvironmentPath,
    },
    /// One environment twice, or one process twice.
    #[error("the {what} `{name}` is listed twice")]
    Twice {
        /// `environment` or `process`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A certificate without a name for it.
    #[error("`{environment}` asks for TLS but has no domain; set a domain, or turn TLS off")]
    TlsWithoutDomain {
        /// Which environment.
        environment: EnvironmentPath,
    },
    /// Every process is turned off.
    #[error("no process of `{environment}` is left to run; turn one on")]
    NothingRuns {
        /// Which environment.
        environment: EnvironmentPath,
    },
    /// The builder of this language makes no image for the VM's architecture.
    #[error(
        "{language} is built by Buildpacks for amd64 only, and the VM of `{environment}` is {}; choose an amd64 size, or add a Dockerfile",
        arch.as_str()
    )]
    BuilderArch {
        /// The language.
        language: &'static str,
        /// The environment whose VM does not fit.
        environment: EnvironmentPath,
        /// The VM's architecture.
        arch: Arch,
    },
}

impl PipelineError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Value { .. } => "pipeline_value",
            Self::TwoApps { .. } => "pipeline_two_apps",
            Self::Twice { .. } => "pipeline_twice",
            Self::TlsWithoutDomain { .. } => "pipeline_tls_without_domain",
            Self::NothingRuns { .. } => "pipeline_nothing_runs",
            Self::BuilderArch { .. } => "pipeline_builder_arch",
        }
    }

    /// Whether the same call may succeed later without a person's doing: it never does.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Value { .. }
            | Self::TwoApps { .. }
            | Self::Twice { .. }
            | Self::TlsWithoutDomain { .. }
            | Self::NothingRuns { .. }
            | Self::BuilderArch { .. } => false,
        }
    }
}

/// All files of the app, in a stable order: the workflow, `.kamal/secrets`, `.kamal/ssh_config`,
/// the hook and the Kamal file of every environment that has an address. Those that say the same for
/// every app of a repo have one name; the others carry the app's, but for the repo's first app.
///
/// # Errors
/// A value that could leave its place, or facts that do not fit together.
pub fn files(setup: &Setup) -> Result<Vec<GeneratedFile>, PipelineError> {
    check::setup(setup)?;
    let names = setup.names();
    let mut files = vec![
        plain(&names.workflow_path(), workflow::content(setup)),
        plain(".kamal/secrets", include_str!("pipeline/templates/secrets").to_owned()),
        plain(".kamal/ssh_config", include_str!("pipeline/templates/ssh_config").to_owned()),
    ];
    files.push(GeneratedFile {
        executable: true,
        ..plain(&hook::path(setup), hook::content(setup))
    });
    for environment in &setup.environments {
        if let Some(address) = environment.address {
            let content = kamal::content(setup, environment, address);
            files.push(plain(&names.config(&environment.path.name), content));
        }
    }
    Ok(files)
}

/// Whether something is run beside the app on its VM, which Kamal boots apart from it.
pub fn has_accessories(setup: &Setup, environment: &EnvironmentSetup) -> bool {
    traefik_in_front(setup, environment) || !environment.services.is_empty()
}

/// Whether Traefik stands in front of the app.
fn traefik_in_front(setup: &Setup, environment: &EnvironmentSetup) -> bool {
    setup.serves(environment) && environment.run.proxy == ProxyKind::Traefik
}

/// The env file of an environment on its VM.
pub fn env_file(environment: &EnvironmentPath) -> String {
    format!("/etc/vmkit/env/{}/{}.env", environment.app, environment.name)
}

/// A volume of an environment as Docker knows it: `shop-staging-data`.
pub fn volume(environment: &EnvironmentPath, name: &VolumeName) -> String {
    format!("{}-{name}", environment.service())
}

/// The env file of a service beside an environment's app, on its VM. No environment's name has a
/// dot in it.
pub fn service_file(environment: &EnvironmentPath, kind: ServiceKind) -> String {
    format!("/etc/vmkit/env/{}/{}.{}.env", environment.app, environment.name, kind.accessory())
}

fn plain(path: &str, content: String) -> GeneratedFile {
    GeneratedFile { path: path.to_owned(), content, executable: false }
}

#[cfg(test)]
mod tests;
