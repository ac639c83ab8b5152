//! Generated files: what must never get into a file.

mod injection;
mod steps;

use super::scan::{Build, Language, Process};
use super::*;

fn environment(path: &str, arch: Arch, address: Option<&str>) -> EnvironmentSetup {
    EnvironmentSetup {
        path: path.parse().expect("a path"),
        arch,
        port: 8080,
        health_path: "/up".to_owned(),
        domain: None,
        address: address.map(|text| text.parse().expect("an address")),
        also: None,
        tls: false,
        run: RunSettings::default(),
        services: Vec::new(),
    }
}

fn setup(build: Build, environments: Vec<EnvironmentSetup>) -> Setup {
    Setup {
        repo: "Octo/Shop".parse().expect("a repo"),
        named: None,
        root: ".".to_owned(),
        default_branch: "main".to_owned(),
        build,
        processes: Vec::new(),
        build_settings: std::collections::BTreeMap::new(),
        flags: Vec::new(),
        release: None,
        environments,
    }
}

fn dockerfile() -> Build {
    Build::Dockerfile { path: "Dockerfile".to_owned() }
}

fn process(name: &str, command: &str) -> Process {
    Process { name: name.to_owned(), command: command.to_owned() }
}
