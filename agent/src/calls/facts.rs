//! What the VM is.

use std::sync::Arc;

use procfs::Current;
use vmkit_agent_protocol::calls::{DockerFacts, HostFacts};

use crate::agent::Agent;
use crate::docker::Engine;
use crate::host::Host;

/// The VM's architecture in the words of image registries.
pub(crate) fn arch() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

/// Changes with every boot.
pub(crate) fn boot_id(host: &Host) -> String {
    let inside = host.read_line("proc/sys/kernel/random/boot_id");
    if inside.is_empty() {
        procfs::sys::kernel::random::boot_id().unwrap_or_default()
    } else {
        inside
    }
}

pub(crate) async fn facts(agent: &Arc<Agent>) -> HostFacts {
    let docker = docker(agent.engine()).await;
    let host = agent.host().clone();
    let facts = tokio::task::spawn_blocking(move || from_files(&host)).await.unwrap_or_default();
    HostFacts { docker, ..facts }
}

async fn docker(engine: &Engine) -> DockerFacts {
    let version = match engine.get().await {
        Ok(docker) => docker.version().await,
        Err(error) => Err(error),
    };
    match version {
        Ok(version) => DockerFacts {
            version: Some(version.version.unwrap_or_else(|| "unknown".to_owned())),
            absent_because: None,
        },
        Err(error) => DockerFacts { version: None, absent_because: Some(error.to_string()) },
    }
}

fn from_files(host: &Host) -> HostFacts {
    let uname = rustix::system::uname();
    let hostname = match host.read_line("etc/hostname") {
        name if name.is_empty() => uname.nodename().to_string_lossy().into_owned(),
        name => name,
    };
    let (disk_bytes, disk_free_bytes) = disk(host);
    HostFacts {
        hostname,
        os: os(host),
        kernel: uname.release().to_string_lossy().into_owned(),
        arch: arch(),
        docker: DockerFacts::default(),
        ssh_host_keys: ssh_host_keys(host),
        cpus: std::thread::available_parallelism()
            .map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        memory_bytes: procfs::Meminfo::current().map_or(0, |memory| memory.mem_total),
        disk_bytes,
        disk_free_bytes,
        boot_id: boot_id(host),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The root disk's size, and what of it is free for others than root, in bytes.
pub(crate) fn disk(host: &Host) -> (u64, u64) {
    rustix::fs::statvfs(host.root()).map_or((0, 0), |disk| {
        (disk.f_blocks.saturating_mul(disk.f_frsize), disk.f_bavail.saturating_mul(disk.f_frsize))
    })
}

fn os(host: &Host) -> String {
    let release = host.read_line("etc/os-release");
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or_default()
        .trim_matches('"')
        .to_owned()
}

fn ssh_host_keys(host: &Host) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(host.path("etc/ssh")) else {
        return Vec::new();
    };
    let mut keys: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("ssh_host_") && name.ends_with("_key.pub")
        })
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .filter_map(|line| {
            // The comment names the machine's user, and is not part of the key.
            let mut words = line.split_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        })
        .collect();
    keys.sort();
    keys
}
