//! What runs of an app in an environment: what the scan found, with what somebody chose over it.

use super::scan::{Build, Flag};
use super::{EnvironmentSetup, Setup, check};
use crate::domain::run_settings::Release;

/// The role that answers requests.
pub const WEB: &str = "web";
/// What an image that serves nothing is started as, where nobody named it.
const WORKER: &str = "worker";

/// A role of the Kamal config: containers of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// `web`, `worker`, ...
    pub name: String,
    /// What its containers start.
    pub start: Start,
    /// The most memory that one may use, in MiB.
    pub memory_mb: Option<u32>,
}

/// What a container starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// What the image starts by itself.
    Image,
    /// The process type of this name in an image that Buildpacks made.
    ProcessType(String),
    /// This line in an image that Buildpacks made, by its launcher, which sets up the language.
    Launched(String),
    /// This line in place of the one that the Dockerfile names.
    Command(String),
}

impl Setup {
    /// The roles of an environment, the primary one first: `web`, unless nothing serves. Never
    /// empty where the files can be made.
    pub fn roles(&self, environment: &EnvironmentSetup) -> Vec<Role> {
        let chosen = &environment.run.processes;
        let found = self.processes.iter().map(|process| process.name.as_str());
        let mut names: Vec<&str> = Vec::new();
        if self.serves(environment) {
            names.push(WEB);
        }
        for name in found.chain(chosen.keys().map(|name| name.as_str())) {
            let off = chosen.iter().any(|(other, one)| other.as_str() == name && one.off);
            if name != WEB && !off && !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() && self.processes.is_empty() && chosen.values().all(|one| !one.off) {
            names.push(WORKER);
        }
        names.into_iter().map(|name| self.role(environment, name)).collect()
    }

    /// Whether anything of the environment answers requests.
    pub fn serves(&self, environment: &EnvironmentSetup) -> bool {
        match environment.run.processes.iter().find(|(name, _)| name.as_str() == WEB) {
            Some((_, web)) => !web.off,
            None => {
                !self.flags.contains(&Flag::WorkerOnly)
                    || self.processes.iter().any(|process| process.name == WEB)
            }
        }
    }

    fn role(&self, environment: &EnvironmentSetup, name: &str) -> Role {
        let chosen = environment.run.processes.iter().find(|(other, _)| other.as_str() == name);
        let chosen = chosen.map(|(_, one)| one);
        let found = self.processes.iter().find(|process| process.name == name);
        let command = chosen.and_then(|one| one.command.as_ref()).map(ToString::to_string);
        let start = match (&self.build, command, found) {
            // A pack image knows its processes by name; `cmd` would be an argument to `web`.
            (Build::Buildpacks { .. }, Some(command), _) => Start::Launched(command),
            (Build::Buildpacks { .. }, None, Some(_)) if name != WEB => {
                Start::ProcessType(name.to_owned())
            }
            (Build::Dockerfile { .. }, Some(command), _) => Start::Command(command),
            (Build::Dockerfile { .. }, None, Some(found)) if name != WEB => {
                Start::Command(found.command.trim().to_owned())
            }
            _ => Start::Image,
        };
        let memory_mb = chosen.and_then(|one| one.memory_mb);
        Role { name: name.to_owned(), start, memory_mb }
    }

    /// What runs in a new image before its containers start, such as migrations: what somebody
    /// chose, else the Procfile's `release`, where it is a plain command.
    pub fn release(&self, environment: &EnvironmentSetup) -> Option<String> {
        match &environment.run.release {
            Some(Release::Off) => None,
            Some(Release::Command(command)) => Some(command.to_string()),
            None => self.release.clone().filter(|command| check::is_plain_command(command)),
        }
    }

    /// Whether answers reach the client piece by piece: chosen, or the scan saw that they come so.
    pub(super) fn holds_answers_back(&self, environment: &EnvironmentSetup) -> bool {
        environment.run.buffering.unwrap_or_else(|| !self.answers_slowly())
    }

    pub(super) fn answers_slowly(&self) -> bool {
        self.flags.iter().any(|flag| matches!(flag, Flag::Streaming | Flag::Inference))
    }
}
