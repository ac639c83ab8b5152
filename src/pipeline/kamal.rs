//! One complete Kamal file per environment.
//!
//! There are no Kamal destinations: with them two environments on one VM would share accessories
//! and locks. The address is literal, because Kamal does not check host keys by name.

use std::fmt::Write;
use std::net::IpAddr;

use super::accessories;
use super::roles::{Role, Start, WEB};
use super::scan::Flag;
use super::{
    EnvironmentSetup, KAMAL_VERSION, Setup, env_file, has_accessories, traefik, traefik_in_front,
    volume,
};
use crate::domain::run_settings::ProxyKind;

/// How long a new version may take to become healthy, in seconds; longer where a model is loaded.
const START_S: u32 = 60;
const START_WITH_MODEL_S: u32 = 300;
/// How long the proxy waits for an answer that is known to take its time, in seconds.
const SLOW_ANSWER_S: u32 = 300;

/// The file, for an environment whose VM has `address`.
pub(super) fn content(setup: &Setup, environment: &EnvironmentSetup, address: IpAddr) -> String {
    let path = &environment.path;
    let names = setup.names();
    let (file, image) = (names.config(&path.name), names.image(&path.name));
    let image = image.strip_prefix("ghcr.io/").unwrap_or(&image);
    let service = path.service();
    let (app, name, port, arch) =
        (&path.app, &path.name, environment.port, environment.arch.as_str());
    let owner = setup.repo.owner();
    let roles = setup.roles(environment);
    let primary = match roles.first() {
        Some(first) if first.name != WEB => format!("primary_role: {}\n", key(&first.name)),
        _ => String::new(),
    };
    let serves = setup.serves(environment);
    let roles = roles_text(environment, &roles, serves, address);
    let proxy = if serves { proxy(setup, environment) } else { String::new() };
    let volumes = volumes(environment);
    let timeouts = timeouts(setup, environment);
    let accessories = beside(setup, environment, address);
    // The folder that Kamal looks into by itself is the first app's.
    let hooks = match &setup.named {
        Some(_) => format!("hooks_path: {}\n", names.hooks()),
        None => String::new(),
    };
    format!(
        r#"# Written by VMKit for {path}. It is yours, and works without VMKit:
#   kamal deploy -c {file} --skip-push --version=COMMIT
# The app's env values are not here: they lie on the VM, in the file that `env-file` names.
service: "{service}"
image: "{image}"
servers:
{roles}{primary}{proxy}registry:
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
{volumes}ssh:
  user: kamal
  config: [.kamal/ssh_config] # an unknown or changed host key is refused before anything is sent
logging:
  driver: journald # the lines stay when the container is gone
  options:
    tag: "{service}"
{accessories}{timeouts}{hooks}retain_containers: 5
minimum_version: "{KAMAL_VERSION}"
x-vmkit:
  app: "{app}"
  environment: "{name}"
"#
    )
}

fn proxy(setup: &Setup, environment: &EnvironmentSetup) -> String {
    let mut text = "proxy:\n".to_owned();
    let traefik = environment.run.proxy == ProxyKind::Traefik;
    let ssl = environment.tls && !traefik;
    if let Some(domain) = &environment.domain {
        match &environment.also {
            Some(also) => push(&mut text, format_args!("  hosts: [\"{domain}\", \"{also}\"]")),
            None => push(&mut text, format_args!("  host: \"{domain}\"")),
        }
        match traefik {
            true => push(&mut text, format_args!("  ssl: false # Traefik has the certificate")),
            false => push(&mut text, format_args!("  ssl: {ssl}")),
        }
    } else {
        push(&mut text, format_args!("  ssl: false # no domain yet: plain HTTP"));
    }
    if traefik {
        push(&mut text, format_args!("  forward_headers: true"));
    }
    push(&mut text, format_args!("  app_port: {}", environment.port));
    let slow = setup.answers_slowly().then_some(SLOW_ANSWER_S);
    if let Some(seconds) = environment.run.response_timeout_s.or(slow) {
        push(&mut text, format_args!("  response_timeout: {seconds}"));
    }
    if !setup.holds_answers_back(environment) {
        push(&mut text, format_args!("  buffering:"));
        push(&mut text, format_args!("    responses: false # answers come piece by piece"));
    }
    push(&mut text, format_args!("  healthcheck:"));
    push(&mut text, format_args!("    path: \"{}\"", environment.health_path));
    push(&mut text, format_args!("    interval: 1"));
    push(&mut text, format_args!("    timeout: 5"));
    if traefik {
        text += traefik::PROXY_RUN;
    }
    text
}

fn roles_text(
    environment: &EnvironmentSetup,
    roles: &[Role],
    serves: bool,
    address: IpAddr,
) -> String {
    let env_file = env_file(&environment.path);
    let mut text = String::new();
    for (index, role) in roles.iter().enumerate() {
        push(&mut text, format_args!("  {}:", key(&role.name)));
        push(&mut text, format_args!("    hosts: [\"{address}\"]"));
        if index == 0 && !serves {
            // Kamal puts its proxy before the primary role unless it is told not to.
            push(&mut text, format_args!("    proxy: false"));
        }
        if let Start::Command(command) | Start::Launched(command) = &role.start {
            push(&mut text, format_args!("    cmd: \"{command}\""));
        }
        push(&mut text, format_args!("    options:"));
        push(&mut text, format_args!("      env-file: {env_file}"));
        match &role.start {
            Start::ProcessType(name) => {
                push(&mut text, format_args!("      entrypoint: \"{name}\""));
            }
            Start::Launched(_) => push(&mut text, format_args!("      entrypoint: launcher")),
            Start::Image | Start::Command(_) => {}
        }
        if let Some(memory) = role.memory_mb {
            push(&mut text, format_args!("      memory: {memory}m"));
        }
        if role.name == WEB && environment.run.proxy == ProxyKind::Traefik {
            text += &traefik::labels(environment);
        }
    }
    text
}

/// A name as YAML takes it for a text: Ruby's YAML still reads `on` and its like as truth values.
fn key(name: &str) -> String {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if WORDS.contains(&name) { format!("\"{name}\"") } else { name.to_owned() }
}

fn volumes(environment: &EnvironmentSetup) -> String {
    let mut text = String::new();
    for (index, (name, place)) in environment.run.volumes.iter().enumerate() {
        if index == 0 {
            push(&mut text, format_args!("volumes:"));
        }
        let volume = volume(&environment.path, name);
        push(&mut text, format_args!("  - \"{volume}:{place}\""));
    }
    text
}

fn timeouts(setup: &Setup, environment: &EnvironmentSetup) -> String {
    let run = &environment.run;
    let start = if setup.flags.contains(&Flag::Inference) { START_WITH_MODEL_S } else { START_S };
    let mut text = String::new();
    push(&mut text, format_args!("deploy_timeout: {}", run.start_timeout_s.unwrap_or(start)));
    if let Some(seconds) = run.drain_timeout_s {
        push(&mut text, format_args!("drain_timeout: {seconds}"));
    }
    text
}

/// What runs beside the app, each an entry of its own.
fn beside(setup: &Setup, environment: &EnvironmentSetup, address: IpAddr) -> String {
    if !has_accessories(setup, environment) {
        return String::new();
    }
    let mut text = "accessories:\n".to_owned();
    if traefik_in_front(setup, environment) {
        text += &traefik::accessory(address);
    }
    text + &accessories::content(environment, address)
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes every write");
}
