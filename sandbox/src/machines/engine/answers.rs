//! The Engine API's JSON about a machine and its containers.

use axum::extract::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::clock::{self, rfc3339_nanos};
use crate::machines::docker::{Container, Docker};

/// What Debian 13's own `docker.io` speaks. Newer clients are refused, as it refuses them.
pub(super) const API_VERSION: &str = "1.45";
pub(super) const MIN_API_VERSION: &str = "1.24";
const ENGINE_VERSION: &str = "26.1.5+dfsg1";
/// What Docker writes for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) fn version() -> Value {
    json!({
        "Platform": {"Name": ""}, "Version": ENGINE_VERSION, "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION, "Os": "linux", "Arch": arch(), "Components": [],
        "KernelVersion": kernel(), "GitCommit": "sandbox", "GoVersion": "go1.24.4",
        "BuildTime": "2025-05-01T00:00:00.000000000+00:00",
    })
}

pub(super) fn info(docker: &Docker) -> Value {
    let all = docker.all();
    let running = all.iter().filter(|container| container.state().running).count();
    json!({
        "ID": "sandbox", "Containers": all.len(), "ContainersRunning": running,
        "ContainersPaused": 0, "ContainersStopped": all.len() - running, "Images": 0,
        "Driver": "overlay2", "LoggingDriver": "journald", "CgroupDriver": "systemd",
        "CgroupVersion": "2", "OperatingSystem": "Debian GNU/Linux 13 (trixie)",
        "OSType": "linux", "Architecture": std::env::consts::ARCH, "KernelVersion": kernel(),
        "ServerVersion": ENGINE_VERSION, "LiveRestoreEnabled": true, "NCPU": 2,
        "MemTotal": 4_294_967_296_i64, "DockerRootDir": "/var/lib/docker",
        "SystemTime": rfc3339_nanos(clock::now()), "Name": "sandbox", "Warnings": [],
    })
}

/// The state's word.
pub(super) fn state(container: &Container) -> &'static str {
    let state = container.state();
    match (state.running, state.exit_code, container.spec.restart && !state.stop_asked) {
        (true, ..) => "running",
        (false, None, _) => "created",
        (false, Some(_), true) => "restarting",
        (false, Some(_), false) => "exited",
    }
}

pub(super) fn summary(docker: &Docker, container: &Container) -> Value {
    let word = state(container);
    let info = container.info();
    let seconds = clock::now().as_second() - info.started_at.as_second();
    let code = info.exit_code.unwrap_or(0);
    let status = match word {
        "running" => format!("Up {seconds} seconds"),
        "created" => "Created".to_owned(),
        "restarting" => format!("Restarting ({code}) 1 second ago"),
        _ => format!("Exited ({code}) 1 second ago"),
    };
    let ip = docker.address().to_string();
    let ports: Vec<Value> = info
        .published
        .iter()
        .filter(|_| info.running)
        .map(|(inside, outside)| {
            json!({"IP": ip, "PrivatePort": inside, "PublicPort": outside, "Type": "tcp"})
        })
        .collect();
    json!({
        "Id": info.id, "Names": [format!("/{}", info.name)], "Image": info.image,
        "ImageID": image_id(&info.image), "Command": command(container).join(" "),
        "Created": container.created.as_second(), "Ports": ports, "Labels": info.labels,
        "State": word, "Status": status, "HostConfig": {"NetworkMode": "kamal"},
        "NetworkSettings": {"Networks": {}}, "Mounts": [],
    })
}

pub(super) fn inspect(docker: &Docker, container: &Container) -> Value {
    let word = state(container);
    let info = container.info();
    let command = command(container);
    let env: Vec<String> = container
        .spec
        .image
        .env
        .iter()
        .chain(&container.spec.env)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let started = if word == "created" { NEVER.to_owned() } else { rfc3339_nanos(info.started_at) };
    let restart = if container.spec.restart { "unless-stopped" } else { "no" };
    let mounts: Vec<Value> = container
        .spec
        .mounts
        .iter()
        .map(|mount| {
            json!({
                "Type": "volume", "Name": mount.name, "Destination": mount.at, "Driver": "local",
                "Source": docker.volume(&mount.name), "Mode": "z", "RW": true, "Propagation": "",
            })
        })
        .collect();
    let mut ports = Map::new();
    for (inside, outside) in info.published.iter().filter(|_| info.running) {
        let binding = json!([{
            "HostIp": docker.address().to_string(), "HostPort": outside.to_string(),
        }]);
        ports.insert(format!("{inside}/tcp"), binding);
    }
    let mut inspected = json!({
        "Id": info.id, "Created": rfc3339_nanos(container.created), "Name": format!("/{}", info.name),
        "Path": command.first(), "Args": command.get(1..).unwrap_or_default(),
        "State": {
            "Status": word, "Running": info.running, "Paused": false,
            "Restarting": word == "restarting", "OOMKilled": false, "Dead": false,
            "Pid": info.pid.unwrap_or(0), "ExitCode": info.exit_code.unwrap_or(0), "Error": "",
            "StartedAt": started,
            "FinishedAt": info.finished_at.map_or_else(|| NEVER.to_owned(), rfc3339_nanos),
        },
        "Image": image_id(&info.image), "RestartCount": info.restarts, "Driver": "overlay2",
        "Platform": "linux", "Mounts": mounts,
        "HostConfig": {
            "RestartPolicy": {"Name": restart, "MaximumRetryCount": 0},
            "LogConfig": {"Type": "journald", "Config": {}}, "NetworkMode": "kamal",
        },
        "Config": {
            "Hostname": &info.id[..12], "Image": info.image, "Labels": info.labels, "Env": env,
            "Cmd": command, "Tty": false,
        },
        "NetworkSettings": {"Ports": ports, "Networks": {}},
    });
    if container.spec.health {
        let answers = info.running && docker.answers(info.port);
        let status = if answers { "healthy" } else { "starting" };
        inspected["State"]["Health"] = json!({"Status": status, "FailingStreak": 0, "Log": []});
    }
    inspected
}

/// A named volume.
pub(super) fn volume(docker: &Docker, name: &str) -> Response {
    let folder = docker.volume(name);
    if name.contains(['/', '.']) || !folder.is_dir() {
        return super::problem(StatusCode::NOT_FOUND, &format!("get {name}: no such volume"));
    }
    let facts = json!({
        "Name": name, "Driver": "local", "Mountpoint": folder, "Scope": "local", "Labels": {},
        "Options": {},
    });
    Json(facts).into_response()
}

/// One reading of what a container uses, from its first process.
pub(super) fn stats(container: &Container) -> Value {
    let info = container.info();
    let read = |file: &str| {
        let pid = info.pid?;
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
    };
    let field = |text: Option<String>, at: usize| -> u64 {
        let text = text.unwrap_or_default();
        // The second field of `stat` is a name in brackets, which may hold spaces.
        let rest = text.rsplit_once(')').map_or(text.as_str(), |(_, rest)| rest);
        rest.split_whitespace().nth(at).and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let (user, system) = (field(read("stat"), 11), field(read("stat"), 12));
    let pages = field(read("statm"), 1);
    // Clock ticks are hundredths of a second on every Linux that we know; pages are 4 KiB.
    let nanos = (user + system) * 10_000_000;
    json!({
        "id": info.id, "name": format!("/{}", info.name), "read": rfc3339_nanos(clock::now()),
        "preread": NEVER, "pids_stats": {"current": u64::from(info.running)},
        "cpu_stats": {
            "cpu_usage": {"total_usage": nanos, "usage_in_usermode": user * 10_000_000,
                "usage_in_kernelmode": system * 10_000_000},
            "online_cpus": 2, "throttling_data": {},
        },
        "precpu_stats": {"cpu_usage": {"total_usage": 0}, "throttling_data": {}},
        "memory_stats": {"usage": pages * 4096, "limit": 4_294_967_296_u64, "stats": {}},
        "networks": {}, "blkio_stats": {}, "storage_stats": {}, "num_procs": 0,
    })
}

fn command(container: &Container) -> Vec<String> {
    container.spec.command.clone().unwrap_or_else(|| container.spec.image.command.clone())
}

fn image_id(reference: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(reference)))
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
