//! One complete Kamal file per environment.
//!
//! There are no Kamal destinations: with them two environments on one VM would share accessories
//! and locks. The address is literal, because Kamal does not check host keys by name.

use std::fmt::Write;
use std::net::IpAddr;

use super::scan::Build;
use super::{EnvironmentSetup, KAMAL_VERSION, Setup, env_file, image};

/// Where the file lies in the repo.
pub(super) fn path(environment: &EnvironmentSetup) -> String {
    format!("config/deploy.{}.yml", environment.path.name)
}

/// The file, for an environment whose VM has `address`.
pub(super) fn content(setup: &Setup, environment: &EnvironmentSetup, address: IpAddr) -> String {
    let path = &environment.path;
    let image = image(&setup.repo, path);
    let image = image.strip_prefix("ghcr.io/").unwrap_or(&image);
    let service = path.service();
    let (app, name, port, arch) =
        (&path.app, &path.name, environment.port, environment.arch.as_str());
    let owner = setup.repo.owner();
    let proxy = proxy(environment);
    let roles = roles(setup, environment, address);
    format!(
        r#"# Written by VMKit for {path}. It is yours, and works without VMKit:
#   kamal deploy -c config/deploy.{name}.yml --skip-push --version=COMMIT
# The app's env values are not here: they lie on the VM, in the file that `env-file` names.
service: "{service}"
image: "{image}"
servers:
{roles}proxy:
{proxy}registry:
  server: ghcr.io
  username: "{owner}"
  password: [KAMAL_REGISTRY_PASSWORD]
builder:
  arch: {arch}
env:
  clear:
    PORT: {port}
    APP_ENV: "{name}"
    VMKIT_REPO_SLUG: "{app}"
    VMKIT_ENV_SLUG: "{name}"
ssh:
  user: kamal
  config: [.kamal/ssh_config] # an unknown or changed host key is refused before anything is sent
logging:
  driver: journald # the lines stay when the container is gone
  options:
    tag: "{service}"
deploy_timeout: 60
retain_containers: 5
minimum_version: "{KAMAL_VERSION}"
x-vmkit:
  app: "{app}"
  environment: "{name}"
"#
    )
}

fn proxy(environment: &EnvironmentSetup) -> String {
    let mut text = String::new();
    if let Some(domain) = &environment.domain {
        match &environment.also {
            Some(also) => push(&mut text, format_args!("  hosts: [\"{domain}\", \"{also}\"]")),
            None => push(&mut text, format_args!("  host: \"{domain}\"")),
        }
        push(&mut text, format_args!("  ssl: {}", environment.tls));
    } else {
        push(&mut text, format_args!("  ssl: false # no domain yet: plain HTTP"));
    }
    push(&mut text, format_args!("  app_port: {}", environment.port));
    push(&mut text, format_args!("  healthcheck:"));
    push(&mut text, format_args!("    path: \"{}\"", environment.health_path));
    push(&mut text, format_args!("    interval: 1"));
    push(&mut text, format_args!("    timeout: 5"));
    text
}

/// `web` first, then the other processes in their order.
fn roles(setup: &Setup, environment: &EnvironmentSetup, address: IpAddr) -> String {
    let env_file = env_file(&environment.path);
    let mut text = String::new();
    let others = setup.processes.iter().filter(|process| process.name != "web");
    for (name, process) in std::iter::once(("web", None))
        .chain(others.map(|process| (process.name.as_str(), Some(process))))
    {
        push(&mut text, format_args!("  {name}:"));
        push(&mut text, format_args!("    hosts: [\"{address}\"]"));
        match (&setup.build, process) {
            // A pack image knows its processes by name; `cmd` would be an argument to `web`.
            (Build::Buildpacks { .. }, _) | (Build::Dockerfile { .. }, None) => {}
            (Build::Dockerfile { .. }, Some(process)) => {
                push(&mut text, format_args!("    cmd: \"{}\"", process.command.trim()));
            }
        }
        push(&mut text, format_args!("    options:"));
        push(&mut text, format_args!("      env-file: {env_file}"));
        if let (Build::Buildpacks { .. }, Some(process)) = (&setup.build, process) {
            push(&mut text, format_args!("      entrypoint: \"{}\"", process.name));
        }
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes every write");
}
