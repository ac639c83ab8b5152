//! What the agent measures and keeps, through a real link.

use vmkit::domain::clock::{Clock, Millis};
use vmkit::fleet::Limits;
use vmkit_agent::host::Host;
use vmkit_agent::metrics::{DiskUse, MINUTES, Minute, Ring};
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::metrics::MetricsHistory;

use super::docker::engine;
use super::fake_agent::FakeAgent;
use super::rig::{DEADLINE, Rig, until};

const MINUTE_MS: i64 = 60_000;

async fn history(rig: &Rig, hours: i64, points: u32) -> MetricsHistory {
    let since = Clock::wall().now().plus_ms(-hours * 60 * MINUTE_MS);
    rig.fleet.metrics(rig.vm, Some(since), None, points).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_days_of_minutes_outlive_the_agent_and_tell_when_the_disk_is_full() {
    let rig = Rig::new().await;
    let host = Host::new(rig.root.path());
    let last = Clock::wall().now().0 / MINUTE_MS - 5;
    let disk = rustix::fs::statvfs(rig.root.path()).unwrap();
    let free = disk.f_bavail * disk.f_frsize;
    let used_now = (disk.f_blocks - disk.f_bavail) * disk.f_frsize;
    let a_day = free.min(used_now) / 4;
    let mut ring = Ring::open(&host).unwrap();
    for minute in last - MINUTES + 200..=last {
        let used = used_now - (last - minute).unsigned_abs() * a_day / 1440;
        let disks = vec![DiskUse("/".into(), used)];
        let containers = Vec::new();
        ring.write(&Minute {
            minute,
            cpu: 0.25,
            memory_used: 9,
            disks,
            containers,
            ..Minute::default()
        })
        .unwrap();
    }
    let mut agent = rig.start_agent();
    rig.linked().await;
    let seen = history(&rig, 72, 24).await;
    assert_eq!(seen.points.len(), 24);
    assert!(seen.minutes > 2600, "{}", seen.minutes);
    let covered = Millis(seen.covered_from_ms.unwrap());
    assert_eq!(covered.0 / MINUTE_MS, last - MINUTES + 200);
    assert!((seen.cpu_mean - 0.25).abs() < 0.01, "{}", seen.cpu_mean);
    let days = seen.now.disks[0].full_in_days.expect("the disk fills");
    let wanted = free as f64 / a_day as f64;
    assert!((0.8 * wanted..1.2 * wanted).contains(&days), "{days}, not {wanted}");
    assert!(history(&rig, 1, 24).await.minutes <= 60);

    // Killed as by a power cut: the minutes before are there. Ended in peace: this one too.
    agent.kill();
    rig.unlinked().await;
    agent = rig.start_agent();
    rig.linked().await;
    assert!(history(&rig, 72, 24).await.minutes >= seen.minutes);
    let before = Clock::wall().now().0 / MINUTE_MS;
    until("a sample was taken", async || {
        (history(&rig, 72, 24).await.points.last()?.cpu_max > 0.0).then_some(())
    })
    .await;
    agent.ask_to_end();
    assert!(agent.ended().await.success());
    let kept = Ring::open(&host).unwrap().read(Clock::wall().now().0);
    assert!(kept.last().unwrap().minute >= before, "the unfinished minute was put down");
    assert!(kept.last().unwrap().memory_used > 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_told_by_our_clock_where_the_vms_is_wrong() {
    let clock = Clock::hand(Millis(10_000_000_000));
    let rig = Rig::with(clock, Limits::default()).await;
    let mut agent = FakeAgent::attach(&rig);
    agent.hello.time_ms = 9_000_000_000;
    agent.greet().await.unwrap();
    rig.linked().await;
    let since = Some(Millis(9_990_000_000));
    let (seen, ()) = tokio::join!(rig.fleet.metrics(rig.vm, since, None, 3), async {
        let vmkit_agent_protocol::messages::ToAgent::Call { id, call, .. } = agent.asked().await
        else {
            panic!("no call")
        };
        let Call::MetricsHistory(range) = call else { panic!("{call:?}") };
        assert_eq!((range.since_ms, range.points), (Some(8_990_000_000), 3));
        let history =
            MetricsHistory { covered_from_ms: Some(8_990_040_000), ..MetricsHistory::default() };
        let reply = Reply::MetricsHistory(Box::new(history));
        let result = vmkit_agent_protocol::messages::Outcome::Ok { reply };
        let reply = vmkit_agent_protocol::messages::ToGateway::Reply { id, result };
        agent.wire.send(&reply).await.unwrap();
    });
    assert_eq!(seen.unwrap().covered_from_ms, Some(9_990_040_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_containers_are_measured_as_the_engine_measures_them() {
    let Some(engine) = engine("container metrics") else { return };
    let rig = Rig::new().await;
    engine.serve(&rig);
    let _agent = rig.start_agent();
    rig.linked().await;
    let script = "trap 'exit 0' TERM; while :; do n=$((n + 1)); done";
    let busy = engine.run("v1", &["--memory", "48m", "--cpus", "0.5"], script);
    let idle = engine.run("v2", &[], "sleep 1000");
    let dead = engine.run("v0", &["--memory", "8m"], "busybox tail /dev/zero");
    let now = until("the busy one is seen to be busy, and the dead one killed", async || {
        let Ok(Reply::Metrics(now)) = rig.fleet.call(rig.vm, Call::Metrics, DEADLINE).await else {
            panic!("no metrics");
        };
        let one = now.containers.iter().find(|one| one.name == busy)?;
        // The engine hears of the end, and of the kernel's reason for it, one after the other.
        let ended = now
            .containers
            .iter()
            .any(|one| one.name == dead && one.state == "exited" && one.oom_killed);
        (one.cpu > 0.2 && ended).then_some(now)
    })
    .await;
    let named = |name: &str| now.containers.iter().find(|one| one.name == name).unwrap();
    assert!(named(&busy).cpu < 1.0, "{:?}", named(&busy));
    assert_eq!(named(&busy).memory_limit_bytes, Some(48 << 20));
    assert!(named(&idle).cpu < 0.1 && named(&idle).memory_bytes > 0, "{:?}", named(&idle));
    assert!(named(&dead).oom_killed, "{:?}", named(&dead));
    assert_eq!(now.docker_trouble, None);
    let seen = history(&rig, 1, 4).await;
    let lasting = format!("{}.web", engine.service());
    let trend = seen.containers.iter().find(|one| one.name == lasting).unwrap();
    assert!(trend.cpu_max > 0.0 && trend.memory_max_bytes > 0, "{trend:?}");
}
