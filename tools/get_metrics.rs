//! `get_metrics`: how a VM does and did, in few points, and whether its size fits.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmkit_agent_protocol::metrics::{ContainerUse, Disk, Point};

use crate::domain::clock::Millis;
use crate::domain::sizing::{Sizing, Verdict};
use crate::mcp::{Answer, Parameters, Server, ToolError, line, when};
use crate::queries::metrics::{VmMetrics, metrics};

const POINTS: u32 = 12;
const DAY_MS: i64 = 86_400_000;
const GB: f64 = 1_073_741_824.0;
/// Containers that are shown: those that take most.
const CONTAINERS: usize = 12;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// Age or time; 24h by default, the VM keeps 48h.
    since: Option<String>,
    until: Option<String>,
    /// 12 by default.
    #[schemars(range(min = 1, max = 120))]
    points: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    vm: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_from: Option<String>,
    now: String,
    summary: String,
    disks: Vec<String>,
    containers: Vec<String>,
    points: Vec<String>,
    notes: Vec<String>,
    sizing: String,
}

#[tool_router(router = get_metrics_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "get_metrics",
        title = "Metrics of a VM",
        description = "How an environment's VM does and did over up to 48 h: CPU, memory, disks with days until full, network, containers; whether its size fits.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn get_metrics(
        &self,
        Parameters(input): Parameters<Input>,
    ) -> Result<Answer<Output>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let context = self.context();
        let now = context.clock.now();
        let since = input.since.map(|text| when("since", &text, now)).transpose()?;
        let until = input.until.map(|text| when("until", &text, now)).transpose()?;
        let since = Some(since.unwrap_or_else(|| now.plus_ms(-DAY_MS)));
        let points = input.points.unwrap_or(POINTS);
        let found = metrics(&context.store, &context.fleet, &path, since, until, points).await?;
        let facts = facts(&found);
        Ok(Answer::facts(text(&facts), facts))
    }
}

fn facts(found: &VmMetrics) -> Output {
    let (history, now) = (&found.history, &found.history.now);
    let used = now.memory_bytes.saturating_sub(now.memory_available_bytes);
    let swap = if now.swap_bytes == 0 {
        "no swap".to_owned()
    } else {
        format!("swap {} of {}", gb(now.swap_used_bytes), gb(now.swap_bytes))
    };
    let stalls = now.pressure.as_ref().map(|pressure| {
        let (cpu, memory) = (percent(pressure.cpu), percent(pressure.memory));
        format!(", stalled for CPU {cpu}, memory {memory}, disk {}", percent(pressure.io))
    });
    Output {
        vm: format!("{} {}", found.vm.vm.id, found.vm.vm.size),
        covered_from: history.covered_from_ms.map(|ms| Millis(ms).rfc3339()),
        now: format!(
            "CPU {} of {} cores, load {:.2} {:.2} {:.2}, memory {} of {}, {swap}{}",
            percent(now.cpu_busy),
            now.cpus,
            now.load[0],
            now.load[1],
            now.load[2],
            gb(used),
            gb(now.memory_bytes),
            stalls.unwrap_or_default()
        ),
        summary: format!(
            "over {} minutes: CPU {} on average, under {} for 95% of them; memory {} at most, swap {} at most",
            history.minutes,
            percent(history.cpu_mean),
            percent(history.cpu_p95),
            gb(history.memory_used_max_bytes),
            gb(history.swap_used_max_bytes)
        ),
        disks: now.disks.iter().map(disk).collect(),
        containers: containers(found),
        points: history.points.iter().map(|point| one(point, now.memory_bytes)).collect(),
        notes: notes(found),
        sizing: sizing(&found.sizing),
    }
}

fn disk(disk: &Disk) -> String {
    let used = disk.bytes.saturating_sub(disk.free_bytes);
    let full = disk.full_in_days.map(|days| format!(", full in {days:.1} days at this pace"));
    let files = disk.inodes.saturating_sub(disk.inodes_free);
    let inodes = if disk.inodes == 0 {
        String::new()
    } else {
        format!(", inodes {}", percent(ratio(files, disk.inodes)))
    };
    format!(
        "{} {} of {} ({}){inodes}{}",
        line(&disk.mount, 60),
        gb(used),
        gb(disk.bytes),
        percent(ratio(used, disk.bytes)),
        full.unwrap_or_default()
    )
}

fn containers(found: &VmMetrics) -> Vec<String> {
    let mut all: Vec<&ContainerUse> = found.history.now.containers.iter().collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.memory_bytes));
    all.into_iter()
        .take(CONTAINERS)
        .map(|one| {
            let limit = one.memory_limit_bytes.map(|limit| format!(" of {}", gb(limit)));
            let health = one.health.as_ref().map(|health| format!(", {health}"));
            format!(
                "{} {}: {:.2} CPU, {}{}, {} restarts{}{}",
                line(&one.name, 80),
                one.state,
                one.cpu,
                gb(one.memory_bytes),
                limit.unwrap_or_default(),
                one.restarts,
                health.unwrap_or_default(),
                if one.oom_killed { ", ended for want of memory" } else { "" }
            )
        })
        .collect()
}

fn one(point: &Point, memory_bytes: u64) -> String {
    format!(
        "{} cpu {} (max {}) load {:.2} mem {} disk {} in {} out {}",
        Millis(point.time_ms).rfc3339(),
        percent(point.cpu),
        percent(point.cpu_max),
        point.load,
        percent(ratio(point.memory_used_bytes, memory_bytes)),
        gb(point.disk_used_bytes),
        rate(point.received_bytes_s),
        rate(point.sent_bytes_s)
    )
}

fn notes(found: &VmMetrics) -> Vec<String> {
    let now = &found.history.now;
    let mut notes = Vec::new();
    notes.extend(
        now.reboot_because
            .as_ref()
            .map(|why| format!("reboot needed: {}; `maintain_vm` does it", line(why, 200))),
    );
    if let Some(kills) = now.oom_kills.filter(|kills| *kills > 0) {
        notes.push(format!("the kernel ended {kills} processes since boot for want of memory"));
    }
    notes.extend(
        now.docker_trouble.as_ref().map(|why| format!("no containers: {}", line(why, 200))),
    );
    if found.history.minutes == 0 {
        notes.push("the agent has no minutes of that time".to_owned());
    }
    notes.push(format!("kernel {}, up {} h", line(&now.kernel, 60), now.uptime_s / 3600));
    notes
}

fn sizing(sizing: &Sizing) -> String {
    let Sizing { memory_gb, disk_gb, .. } = sizing;
    let ask = format!("`list_sizes` with min_memory_gb {memory_gb}, min_disk_gb {disk_gb}");
    match &sizing.verdict {
        Verdict::TooEarly => "too early to judge the size; ask again in an hour".to_owned(),
        Verdict::Fits => format!("the size fits; what it needs: {ask}"),
        Verdict::TooSmall(short) => format!("too small, short of {}: {ask}", short.join(" and ")),
        Verdict::TooLarge => format!("half of it would do: {ask}"),
    }
}

fn text(facts: &Output) -> String {
    let mut lines = vec![format!("{}: {}", facts.vm, facts.now), facts.summary.clone()];
    lines.extend(facts.covered_from.as_ref().map(|from| format!("known from {from} on")));
    lines.push(format!("disks: {}", facts.disks.join("; ")));
    if !facts.containers.is_empty() {
        lines.push(format!("containers: {}", facts.containers.join("; ")));
    }
    lines.extend(facts.points.iter().cloned());
    lines.push(format!("size: {}", facts.sizing));
    lines.extend(facts.notes.iter().cloned());
    lines.join("\n")
}

#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn gb(bytes: u64) -> String {
    let gb = bytes as f64 / GB;
    if gb < 1.0 { format!("{:.0} MB", gb * 1024.0) } else { format!("{gb:.1} GB") }
}

fn rate(bytes_s: u64) -> String {
    match bytes_s {
        0..=1_023 => format!("{bytes_s} B/s"),
        1_024..=1_048_575 => format!("{} KB/s", bytes_s / 1_024),
        _ => format!("{} MB/s", bytes_s / 1_048_576),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is shown in whole percent")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}
