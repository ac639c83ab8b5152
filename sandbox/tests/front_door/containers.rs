//! Containers, and Docker's API on a machine's socket as bollard sees it.

use std::collections::HashMap;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::{
    EventsOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
};
use futures::{Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use vmkit_sandbox::machines::Machine;

use crate::stage::{Stage, eventually, machine, processes_of};

const GRACE: Duration = Duration::from_secs(30);

async fn bollard(machine: &Machine) -> bollard::Docker {
    let socket = machine.root().join("run/docker.sock");
    let docker = bollard::Docker::connect_with_unix(
        &socket.to_string_lossy(),
        30,
        bollard::API_DEFAULT_VERSION,
    )
    .unwrap();
    docker.negotiate_version().await.unwrap()
}

/// bollard leaves the version out of its paths; other clients do not.
async fn raw(machine: &Machine, path: &str) -> String {
    raw_with(machine, "GET", path).await
}

async fn raw_with(machine: &Machine, method: &str, path: &str) -> String {
    let mut socket = UnixStream::connect(machine.root().join("run/docker.sock")).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn all(stream: impl Stream<Item = Result<LogOutput, bollard::errors::Error>>) -> Vec<String> {
    stream.map(|line| line.unwrap().to_string()).collect().await
}

async fn ended(machine: &Machine, name: &str) -> i32 {
    eventually("a container's end", || async {
        let info = machine.docker().get(name).unwrap();
        if info.running { None } else { info.exit_code }
    })
    .await
}

#[tokio::test]
async fn the_engine_answers_bollard_as_debians_docker_does() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let docker = bollard(&machine).await;
    assert_eq!(docker.ping().await.unwrap(), "OK");
    let version = docker.version().await.unwrap();
    assert_eq!(version.api_version.as_deref(), Some("1.45"));
    assert_eq!(docker.info().await.unwrap().containers, Some(0));
    for (version, said) in [("v1.53", "1.53 is too new"), ("v1.12", "too old"), ("v1.45", "Name")] {
        let answer = raw(&machine, &format!("/{version}/info")).await;
        assert!(answer.contains(said), "{version}: {answer}");
    }
    let absent = docker.inspect_container("nobody", None).await.unwrap_err().to_string();
    assert!(absent.contains("No such container: nobody"), "{absent}");
    sandbox.stop().await;
}

#[tokio::test]
async fn containers_are_listed_and_inspected() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let docker = bollard(&machine).await;
    let mut spec = stage.shell("web", "sleep 1000");
    spec.env = vec![("GREETING".into(), "it's $HOME \"x\"".into())];
    let id = machine.docker().run(spec).await.unwrap();
    machine.docker().run(stage.shell("gone", "exit 7")).await.unwrap();
    assert_eq!(ended(&machine, "gone").await, 7);
    let twice = machine.docker().run(stage.shell("web", "true")).await.unwrap_err();
    assert!(twice.contains("already in use by container"), "{twice}");
    let running = docker.list_containers(None).await.unwrap();
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].id.as_deref(), Some(&*id));
    let filters = |label: &str| HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
    for (label, count) in [("service=shop", 2), ("service", 2), ("service=other", 0)] {
        let options =
            ListContainersOptionsBuilder::default().all(true).filters(&filters(label)).build();
        assert_eq!(docker.list_containers(Some(options)).await.unwrap().len(), count, "{label}");
    }
    let gone = docker.inspect_container("gone", None).await.unwrap();
    let state = gone.state.unwrap();
    assert_eq!((state.exit_code, state.running), (Some(7), Some(false)));
    let web = docker.inspect_container(&id[..12], None).await.unwrap();
    assert_eq!(web.name.as_deref(), Some("/web"));
    assert_eq!(web.config.unwrap().env.unwrap(), ["GREETING=it's $HOME \"x\""]);
    sandbox.stop().await;
}

#[tokio::test]
async fn a_container_gets_its_environment_and_a_port_of_its_own() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let mut spec = stage.shell("web", "echo $PORT; echo \"$A-$B\"; command -v vmkit; pwd");
    spec.image.env = vec![("A".into(), "image".into()), ("B".into(), "image".into())];
    spec.env = vec![("PORT".into(), "80".into()), ("B".into(), "own $x".into())];
    machine.docker().run(spec).await.unwrap();
    assert_eq!(ended(&machine, "web").await, 0);
    let info = machine.docker().get("web").unwrap();
    let lines = machine.docker().logs("web", 100);
    let texts: Vec<&str> = lines.iter().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(texts[0], info.port.to_string());
    assert_ne!(texts[0], "80");
    assert_eq!(texts[1], "image-own $x");
    assert!(texts[2].ends_with("/bin/vmkit"), "{}", texts[2]);
    sandbox.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_ends_with_127() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let mut spec = stage.shell("web", "");
    spec.command = Some(vec!["no-such-program".into()]);
    machine.docker().run(spec).await.unwrap();
    assert_eq!(ended(&machine, "web").await, 127);
    let log = machine.docker().logs("web", 10).join("\n");
    assert!(log.contains("exec: \"no-such-program\": executable file not found in $PATH"), "{log}");
    sandbox.stop().await;
}

#[tokio::test]
async fn logs_come_in_frames_from_a_moment_on_and_to_the_end() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let docker = bollard(&machine).await;
    let script = "for i in 1 2 3; do echo out $i; done; echo err >&2; printf 'last words'";
    machine.docker().run(stage.shell("web", script)).await.unwrap();
    ended(&machine, "web").await;
    let both = LogsOptionsBuilder::default().stdout(true).stderr(true);
    let mut lines = all(docker.logs("web", Some(both.clone().build()))).await;
    lines.sort();
    assert_eq!(lines, ["err\n", "last words", "out 1\n", "out 2\n", "out 3\n"]);
    let out = LogsOptionsBuilder::default().stdout(true);
    let tail = out.clone().tail("2").build();
    assert_eq!(all(docker.logs("web", Some(tail))).await, ["out 3\n", "last words"]);
    let stamped = out.clone().timestamps(true).follow(true).build();
    let stamped = all(docker.logs("web", Some(stamped))).await;
    let (time, text) = stamped[0].split_once(' ').unwrap();
    assert_eq!((time.len(), text), (30, "out 1\n"), "{time}");
    let later = out.clone().since(i32::MAX).build();
    assert!(all(docker.logs("web", Some(later))).await.is_empty());
    let none = docker.logs("web", Some(LogsOptionsBuilder::default().build()));
    let refused = none.map(|line| line.unwrap_err().to_string()).collect::<Vec<_>>().await;
    assert!(refused[0].contains("you must choose at least one stream"), "{refused:?}");
    sandbox.stop().await;
}

#[tokio::test]
async fn long_lines_come_in_parts() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let docker = bollard(&machine).await;
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo";
    machine.docker().run(stage.shell("web", script)).await.unwrap();
    ended(&machine, "web").await;
    let options = LogsOptionsBuilder::default().stdout(true).build();
    let parts = all(docker.logs("web", Some(options))).await;
    let lengths: Vec<usize> = parts.iter().map(String::len).collect();
    assert_eq!(lengths, [16_384, 16_384, 40_001 - 2 * 16_384]);
    sandbox.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_by_who_follows_from_the_start() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let docker = bollard(&machine).await;
    let script = "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo $i; done";
    machine.docker().run(stage.shell("web", script)).await.unwrap();
    let options = LogsOptionsBuilder::default().stdout(true).follow(true).build();
    let lines = all(docker.logs("web", Some(options))).await;
    let numbers: Vec<u32> = lines.iter().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=5000).collect::<Vec<u32>>());
    sandbox.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_log_and_tells_its_events() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let docker = bollard(&machine).await;
    let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
    let options = EventsOptionsBuilder::default().since("1").filters(&filters).build();
    let events = docker.events(Some(options)).map(|event| event.unwrap().action.unwrap());
    let id = machine.docker().run(stage.shell("web", "echo hello; exec sleep 1000")).await.unwrap();
    wait_for_lines(&machine, 1).await;
    machine.docker().restart("web", GRACE).await.unwrap();
    wait_for_lines(&machine, 2).await;
    machine.docker().rename("web", "web_old").unwrap();
    assert!(machine.docker().get("web").is_none());
    machine.docker().remove("web_old").await.unwrap();
    let seen: Vec<String> =
        events.take_while(|one| std::future::ready(one != "destroy")).collect().await;
    let expected = ["create", "start", "kill", "die", "stop", "start", "restart", "rename", "die"];
    assert_eq!(seen, expected);
    assert!(docker.inspect_container(&id, None).await.is_err());
    sandbox.stop().await;
}

async fn wait_for_lines(machine: &Machine, count: usize) {
    eventually("log lines", || async {
        (machine.docker().logs("web", 10).len() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_crashing_container_is_started_again_only_where_asked() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let mut spec = stage.shell("loop", "echo again; exit 3");
    spec.restart = true;
    machine.docker().run(spec).await.unwrap();
    eventually("two restarts", || async {
        (machine.docker().get("loop").unwrap().restarts >= 2).then_some(())
    })
    .await;
    machine.docker().stop("loop", GRACE).await.unwrap();
    machine.docker().remove("loop").await.unwrap();
    assert!(machine.docker().list().is_empty());
    sandbox.stop().await;
}

#[tokio::test]
async fn what_a_container_started_ends_with_it() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    machine.docker().run(stage.shell("web", "sleep 1234 & exit 0")).await.unwrap();
    assert_eq!(ended(&machine, "web").await, 0);
    let left = || processes_of(machine.root()).into_iter().any(|one| one.contains("sleep 1234"));
    eventually("the end of the child", || async { (!left()).then_some(()) }).await;
    sandbox.stop().await;
}

#[tokio::test]
async fn one_that_ignores_sigterm_is_killed_after_its_grace() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    machine.docker().run(stage.shell("web", script)).await.unwrap();
    wait_for_lines(&machine, 1).await;
    machine.docker().stop("web", Duration::from_millis(50)).await.unwrap();
    assert_eq!(ended(&machine, "web").await, 137);
    sandbox.stop().await;
}

#[tokio::test]
async fn what_is_so_already_is_not_modified_and_a_stop_by_hand_outlasts_a_boot() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let image = vmkit_sandbox::machines::Image {
        dir: machine.root().to_owned(),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let spec = vmkit_sandbox::machines::ContainerSpec {
        name: "db".to_owned(),
        image,
        restart: true,
        ..Default::default()
    };
    machine.docker().run(spec).await.unwrap();
    let boot = std::fs::read_to_string(machine.path("/proc/sys/kernel/random/boot_id")).unwrap();
    for (action, status) in [("start", "304"), ("stop", "204"), ("stop", "304")] {
        let path = format!("/v1.44/containers/db/{action}");
        let answer = raw_with(&machine, "POST", &path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{action}: {answer}");
    }
    machine.reboot().await.unwrap();
    assert!(!machine.docker().get("db").unwrap().running, "Docker starts nothing that was stopped");
    let now = std::fs::read_to_string(machine.path("/proc/sys/kernel/random/boot_id")).unwrap();
    assert_ne!(boot, now, "every boot has an id of its own");
}
