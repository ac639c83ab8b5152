//! What the agent and its links cost, and how fast lines come: printed as shares of what they are
//! held to, beside a peer of the same run where there is one. More than three times the limit is a
//! failure; a machine that is busy with other things is not.
//!
//! Build the agent as it is delivered first: `cargo build --profile agent -p vmkit-agent`.
//!
//!   cargo bench --bench agent               all of it, some minutes
//!   cargo bench --bench agent -- --short    as CI runs it, about two minutes

#![expect(clippy::unwrap_used, reason = "what a bench cannot get is its failure")]

#[path = "../../tests/fleet/docker.rs"]
mod docker;
mod engine;
mod many;
mod measure;
#[path = "../../tests/fleet/rig.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod rig;
#[path = "../../tests/support/skips.rs"]
mod skips;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use vmkit::domain::clock::Clock;
use vmkit::domain::ids::VmId;
use vmkit::fleet::{Bounds, Fleet, Limits, LogQuery};

use engine::FakeEngine;
use measure::{Program, Report};
use rig::Rig;

/// How long each thing is measured, and how much of it.
struct Scale {
    idle: Duration,
    streaming: Duration,
    lines: u64,
    stored: u64,
    agents: usize,
}

const FULL: Scale = Scale {
    idle: Duration::from_secs(120),
    streaming: Duration::from_secs(30),
    lines: 1_000_000,
    stored: 1_000_000,
    agents: 10_000,
};

const SHORT: Scale = Scale {
    idle: Duration::from_secs(30),
    streaming: Duration::from_secs(10),
    lines: 300_000,
    stored: 200_000,
    agents: 1_000,
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let [word, rest @ ..] = args.as_slice()
        && word == "--be-agents"
    {
        runtime.block_on(many::be_agents(rest));
        return ExitCode::SUCCESS;
    }
    let scale = if args.iter().any(|arg| arg == "--short") { SHORT } else { FULL };
    let mut report = Report::default();
    runtime.block_on(async {
        size(&mut report);
        // Before the others: what they leave free in this process would be counted as nothing.
        many::held(scale.agents, &mut report).await;
        idle(&scale, &mut report).await;
        streaming(&scale, &mut report).await;
        synthetic(&scale, &mut report).await;
        stored(&scale, &mut report).await;
    });
    report.end()
}

fn size(report: &mut Report) {
    let Some(program) = Program::agent() else { return };
    eprintln!("the agent is {}", program.display());
    let bytes = std::fs::metadata(program).unwrap().len();
    report.at_most("size of vmkit-agent", mb(bytes), 8.0, "MB");
}

/// An agent with a link and an empty machine.
async fn idle(scale: &Scale, report: &mut Report) {
    let rig = Rig::new().await;
    let program = Program::start(rig.root.path());
    rig.linked().await;
    // The first moments are the start's.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (share, resident) = program.watch(scale.idle).await;
    report.at_most("idle agent, resident", mb(resident), 10.0, "MB");
    report.at_most("idle agent, CPU", share * 100.0, 0.2, "% of a core");
}

async fn streaming(scale: &Scale, report: &mut Report) {
    let rig = Rig::with(Clock::wall(), limits(scale.lines)).await;
    let engine = FakeEngine::serve(&rig.path("run/docker.sock"), u64::MAX, Some(1_000));
    let program = Program::start(rig.root.path());
    wait_for(&rig.fleet, rig.vm, 1_000).await;
    let before = engine.sent();
    let begun = Instant::now();
    let (share, resident) = program.watch(scale.streaming).await;
    let rate = (engine.sent() - before) as f64 / begun.elapsed().as_secs_f64();
    report.at_most(
        "1,000 lines/s, agent's CPU",
        share * 100.0 * 1_000.0 / rate,
        3.0,
        "% of a core",
    );
    report.tell("1,000 lines/s, agent's memory", mb(resident), "MB");
}

async fn synthetic(scale: &Scale, report: &mut Report) {
    let bare = engine::bare(scale.lines).await;
    let rig = Rig::with(Clock::wall(), limits(scale.lines)).await;
    let _engine = FakeEngine::serve(&rig.path("run/docker.sock"), scale.lines, None);
    let _program = Program::start(rig.root.path());
    let begun = Instant::now();
    wait_for(&rig.fleet, rig.vm, 1).await;
    let first = begun.elapsed();
    wait_for(&rig.fleet, rig.vm, scale.lines).await;
    let rate = scale.lines as f64 / (begun.elapsed() - first).as_secs_f64();
    report.at_least("synthetic source to cache", rate / 1_000.0, 150.0, "thousand lines/s");
    report.tell("  of a reader that only counts them", rate / bare, "times its speed");
}

/// A link that was away while a container wrote: what it missed is on the VM's disk.
async fn stored(scale: &Scale, report: &mut Report) {
    let Some(engine) = docker::engine("stored lines") else { return };
    let text = "0123456789".repeat(11);
    let script = format!(
        "echo the start; until [ -e /go ]; do sleep 0.1; done; \
         yes '{text}' | head -n {}; echo the end; sleep 1000",
        scale.stored
    );
    let name = engine.run("v1", &["--log-driver", "json-file"], &script);
    let rig = Rig::with(Clock::wall(), limits(scale.stored + 10)).await;
    engine.serve(&rig);
    let query = LogQuery { service: engine.service(), limit: 1, ..LogQuery::default() };
    let cached = async |text: &str| {
        let page = rig.fleet.cached_logs(rig.vm, query.clone()).await.unwrap();
        page.lines.first().is_some_and(|line| line.text == text).then_some(())
    };
    let away = Program::start(rig.root.path());
    rig::until("the first is in the cache", async || cached("the start").await).await;
    drop(away);
    engine.docker(&["exec", &name, "/bin/sh", "-c", ": > /go"]);
    rig::until("they are stored", async || {
        engine.docker(&["logs", "--tail", "1", &name]).starts_with("the end").then_some(())
    })
    .await;
    let peer = docker_logs(&name).min(docker_logs(&name));
    let agent = Program::start(rig.root.path());
    let begun = Instant::now();
    rig::until("all are in the cache", async || cached("the end").await).await;
    let ours = begun.elapsed();
    drop(agent);
    let share = peer.as_secs_f64() / ours.as_secs_f64();
    report.at_least("stored lines to cache, of `docker logs`", share, 0.5, "times its speed");
    report.tell(
        "  `docker logs` alone",
        scale.stored as f64 / 1_000.0 / peer.as_secs_f64(),
        "thousand lines/s",
    );
}

/// How long `docker logs NAME >/dev/null` takes.
fn docker_logs(name: &str) -> Duration {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/docker-engine");
    let socket = Command::new(script).output().unwrap().stdout;
    let socket = format!("unix://{}", String::from_utf8(socket).unwrap().trim());
    let begun = Instant::now();
    let mut command = Command::new("docker");
    let command = command.args(["-H", &socket, "logs", name]);
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    begun.elapsed()
}

fn limits(lines: u64) -> Limits {
    let lines = usize::try_from(lines.min(2_000_000)).unwrap();
    Limits { cache: Bounds { lines, stream_bytes: 1 << 30, bytes: 1 << 30 }, ..Limits::default() }
}

/// Waits until the cache has the line with this number.
async fn wait_for(fleet: &Fleet, vm: VmId, number: u64) {
    let query = LogQuery { service: engine::SERVICE.into(), limit: 1, ..LogQuery::default() };
    rig::until("the line is in the cache", async || {
        let page = fleet.cached_logs(vm, query.clone()).await.unwrap();
        let last: u64 = page.lines.first()?.text.split(' ').next()?.parse().ok()?;
        (last >= number).then_some(())
    })
    .await;
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
