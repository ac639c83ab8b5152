//! The gate before generation: closed character sets for every value that is not a domain type.

use std::collections::BTreeSet;

use super::accessories;
use super::scan::{Build, Process};
use super::{EnvironmentSetup, PipelineError, Setup, WEB};
use crate::domain::names::CommandLine;
use crate::domain::run_settings::MEMORY_MIN_MB;
use crate::domain::size::Arch;

/// Refuses a setup with a value that could leave its place in a file.
pub(super) fn setup(setup: &Setup) -> Result<(), PipelineError> {
    path("root directory", &setup.root)?;
    branch(&setup.default_branch)?;
    match &setup.build {
        Build::Dockerfile { path: file } => path("Dockerfile's path", file)?,
        Build::Buildpacks { .. } => {}
    }
    for (name, setting) in &setup.build_settings {
        build_setting(name, setting)?;
    }
    let mut names = BTreeSet::new();
    for item in &setup.processes {
        process(item, &setup.build)?;
        if !names.insert(item.name.as_str()) {
            return Err(PipelineError::Twice { what: "process", name: item.name.clone() });
        }
    }
    environments(setup)
}

fn environments(setup: &Setup) -> Result<(), PipelineError> {
    let mut names = BTreeSet::new();
    for environment in &setup.environments {
        let first = &setup.environments[0].path;
        let this = &environment.path;
        if this.app != first.app {
            return Err(PipelineError::TwoApps { one: first.clone(), other: this.clone() });
        }
        if !names.insert(this.name.as_str()) {
            return Err(PipelineError::Twice { what: "environment", name: this.to_string() });
        }
        health_path(&environment.health_path)?;
        if environment.port == 0 {
            return Err(value("port", "0", "a port is 1 to 65535"));
        }
        run(setup, environment)?;
        accessories::check(environment)?;
        if environment.tls && environment.domain.is_none() {
            return Err(PipelineError::TlsWithoutDomain { environment: this.clone() });
        }
        if let Build::Buildpacks { language } = setup.build
            && environment.arch == Arch::Arm64
            && !language.builds_arm64()
        {
            return Err(PipelineError::BuilderArch {
                language: language.as_str(),
                environment: this.clone(),
                arch: environment.arch,
            });
        }
    }
    Ok(())
}

/// The names in it are domain types, which cannot leave their place.
fn run(setup: &Setup, environment: &EnvironmentSetup) -> Result<(), PipelineError> {
    const SECONDS: &str = "1 to 1200 seconds";
    let run = &environment.run;
    let limits = [
        ("response time-out", run.response_timeout_s),
        ("start time-out", run.start_timeout_s),
        ("drain time-out", run.drain_timeout_s),
    ];
    for (what, seconds) in limits {
        if let Some(seconds) = seconds.filter(|seconds| !(1..=1200).contains(seconds)) {
            return Err(value(what, &seconds.to_string(), SECONDS));
        }
    }
    for (name, process) in &run.processes {
        if let Some(memory) = process.memory_mb.filter(|memory| *memory < MEMORY_MIN_MB) {
            return Err(value("memory limit", &memory.to_string(), "at least 16 MiB"));
        }
        let named = setup.processes.iter().any(|known| known.name == name.as_str());
        if !named && !process.off && process.command.is_none() && name.as_str() != WEB {
            let wanted = "a process that the repo's Procfile names, or a `command` with it";
            return Err(value("process", name.as_str(), wanted));
        }
    }
    let places: BTreeSet<&str> = run.volumes.values().map(|place| place.as_str()).collect();
    if places.len() < run.volumes.len() {
        let name = environment.path.to_string();
        return Err(PipelineError::Twice { what: "volume's folder in", name });
    }
    if setup.roles(environment).is_empty() {
        let environment = environment.path.clone();
        return Err(PipelineError::NothingRuns { environment });
    }
    Ok(())
}

pub(super) fn value(what: &'static str, given: &str, wanted: &'static str) -> PipelineError {
    let given = given.chars().filter(|c| !c.is_control()).take(80).collect();
    PipelineError::Value { what, given, wanted }
}

fn path(what: &'static str, text: &str) -> Result<(), PipelineError> {
    let good = text.len() <= 200
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'))
        && text.split('/').all(|part| !part.is_empty() && part != ".." && !part.starts_with('-'));
    if good {
        return Ok(());
    }
    Err(value(what, text, "a relative path of letters, digits, `.`, `_`, `-` and `/`"))
}

fn build_setting(name: &str, setting: &str) -> Result<(), PipelineError> {
    let named = name.starts_with("BP_")
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if !named {
        return Err(value(
            "build setting",
            name,
            "a variable of Buildpacks, such as `BP_GO_TARGETS`",
        ));
    }
    let good = !setting.is_empty()
        && setting.len() <= 500
        && setting.chars().all(|c| c.is_ascii_alphanumeric() || "./_-:,".contains(c));
    if good {
        return Ok(());
    }
    Err(value("build setting", setting, "letters, digits, `.`, `/`, `_`, `-`, `:` and `,`"))
}

fn branch(text: &str) -> Result<(), PipelineError> {
    let good = !text.is_empty()
        && text.len() <= 200
        && !text.starts_with('-')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+' | '#'));
    if good {
        return Ok(());
    }
    Err(value("default branch", text, "letters, digits, `.`, `_`, `-`, `/`, `+` and `#`"))
}

fn health_path(text: &str) -> Result<(), PipelineError> {
    let good = text.starts_with('/')
        && text.len() <= 200
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '?' | '='));
    if good {
        return Ok(());
    }
    Err(value(
        "health path",
        text,
        "a path such as `/up` of letters, digits, `/`, `.`, `_`, `-`, `?` and `=`",
    ))
}

/// A process's command is shell on the VM where the image comes from a Dockerfile, so nothing that
/// begins a second command or an expansion is taken: such a line belongs in a script of the repo.
fn process(process: &Process, build: &Build) -> Result<(), PipelineError> {
    let name = &process.name;
    let good = !name.is_empty()
        && name.len() <= 30
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !good {
        let wanted = "a lower-case letter, then letters, digits or hyphens, such as `worker`";
        return Err(value("process name", name, wanted));
    }
    if matches!(build, Build::Buildpacks { .. }) || name == "web" {
        return Ok(()); // started by its name or by the image's own command: the line is not written
    }
    if fits_a_role(process) {
        return Ok(());
    }
    let wanted = "a plain command without quotes, `$`, pipes or `;`; put the line in a script of the repo and name the script";
    Err(value("process command", &process.command, wanted))
}

/// Whether a process's command may stand in a role of an image that a Dockerfile made.
pub(super) fn fits_a_role(process: &Process) -> bool {
    is_plain_command(&process.command)
}

/// Whether a line of the repo is words and nothing that a shell would take for more.
pub(super) fn is_plain_command(line: &str) -> bool {
    line.trim().parse::<CommandLine>().is_ok()
}
