//! The services beside an app, as Kamal's accessories.
//!
//! An accessory is named after the environment's service, so that two environments never share a
//! container or a volume. It publishes no port: only containers of the VM reach it. Its password
//! lies in a file on the VM, which `env-file` names.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use super::{EnvironmentSetup, PipelineError, ServiceSetup, check, service_file};

/// How long a service may take to end, in seconds: a database writes out what it holds.
const STOP_S: u32 = 60;

/// Refuses what no file can say: a kind twice, or a limit that it could not start with.
pub(super) fn check(environment: &EnvironmentSetup) -> Result<(), PipelineError> {
    let mut kinds = BTreeSet::new();
    for service in &environment.services {
        if !kinds.insert(service.kind) {
            let name = service.kind.to_string();
            return Err(PipelineError::Twice { what: "service", name });
        }
        // A volume of the app's would be the service's too.
        let own =
            environment.run.volumes.keys().find(|name| name.as_str() == service.kind.accessory());
        if let Some(name) = own {
            return Err(PipelineError::Twice { what: "volume", name: name.to_string() });
        }
        if let Some(memory) = service.memory_mb.filter(|mb| !(32..=1_048_576).contains(mb)) {
            let wanted = "a memory limit is 32 to 1048576 MiB";
            return Err(check::value("service's memory", &memory.to_string(), wanted));
        }
    }
    Ok(())
}

/// The entries of the section `accessories`; nothing where there is none.
pub(super) fn content(environment: &EnvironmentSetup, address: IpAddr) -> String {
    let mut text = String::new();
    if environment.services.is_empty() {
        return text;
    }
    text.push_str(
        "  # Reached by their containers' names, from this VM alone; their passwords lie on the VM, in\n  \
           # the files that `env-file` names.\n",
    );
    for service in &environment.services {
        one(&mut text, environment, service, address);
    }
    text
}

fn one(text: &mut String, environment: &EnvironmentSetup, service: &ServiceSetup, address: IpAddr) {
    let ServiceSetup { kind, version, memory_mb } = *service;
    let name = kind.host(&environment.path);
    let mut line = |content: std::fmt::Arguments<'_>| {
        writeln!(text, "{content}").expect("a String takes every write");
    };
    line(format_args!("  {}:", kind.accessory()));
    line(format_args!("    image: \"{}\"", version.image(kind)));
    line(format_args!("    host: \"{address}\""));
    if let Some(command) = kind.command() {
        line(format_args!("    cmd: \"{}\"", command.replace('"', "\\\"")));
    }
    line(format_args!("    volumes: [\"{name}:{}\"]", kind.data_folder(version)));
    line(format_args!("    options:"));
    line(format_args!("      env-file: {}", service_file(&environment.path, kind)));
    line(format_args!("      stop-timeout: {STOP_S}"));
    match memory_mb {
        Some(limit) => line(format_args!("      memory: {limit}m")),
        None => line(format_args!("      memory-reservation: {}m", kind.memory_hint_mb())),
    }
    line(format_args!("      health-cmd: \"{}\"", kind.health_command()));
    line(format_args!("      health-interval: 10s"));
    line(format_args!("      health-timeout: 5s"));
    line(format_args!("      health-start-period: 60s"));
}
