//! An hour without a gateway, and a clock that jumps: the real agent, by a clock of the test's own.

use vmkit::domain::clock::Clock;
use vmkit_agent::host::Host;
use vmkit_agent::metrics::Ring;
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::metrics::MetricsRange;

use super::rig::{Agent, DEADLINE, Rig, until};
use super::skips::skip;

/// The lines of the agent's log with the times that its own clock gave them, in seconds.
fn told(rig: &Rig) -> Vec<(i64, String)> {
    let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
    let line = |line: &str| {
        let time: jiff::Timestamp = line.split_whitespace().next()?.parse().ok()?;
        Some((time.as_second(), line.to_owned()))
    };
    log.lines().filter_map(line).collect()
}

async fn minutes(rig: &Rig) -> u32 {
    let range = MetricsRange { points: 100, ..MetricsRange::default() };
    until("the history is told", async || {
        match rig.fleet.call(rig.vm, Call::MetricsHistory(range.clone()), DEADLINE).await {
            Ok(Reply::MetricsHistory(history)) => Some(history.minutes),
            _ => None,
        }
    })
    .await
}

/// Its hour takes half a minute of ours; every wait of the agent is in its own time.
#[tokio::test(flavor = "multi_thread")]
async fn heavy_a_gateway_that_is_gone_for_an_hour_costs_little_and_finds_its_history() {
    let rig = Rig::new().await;
    let agent = match Agent::start_at(rig.root.path(), &[("FAKETIME", "+0 x120")]) {
        Ok(agent) => agent,
        Err(reason) => return skip("a gateway that is gone for an hour", &reason),
    };
    rig.linked().await;
    until("it has settled", async || (minutes(&rig).await > 0).then_some(())).await;
    let before_kib = agent.own_kib();
    rig.cable.unplug();
    rig.unlinked().await;
    let went = told(&rig).last().unwrap().0;
    until("an hour has gone by", async || {
        (told(&rig).last().unwrap().0 >= went + 3_600).then_some(())
    })
    .await;
    let there = told(&rig).len();
    let more_kib = agent.own_kib().saturating_sub(before_kib);
    rig.cable.plug();
    rig.linked().await;
    let lines = told(&rig);
    let failed =
        |lines: &[(i64, String)]| lines.iter().filter(|(_, line)| line.contains("no link")).count();
    // At most every 10 s once it has waited for long, and never longer than 20.
    let attempts = failed(&lines[..there]);
    assert!((150..450).contains(&attempts), "{attempts} attempts in an hour");
    let waits = lines.iter().filter_map(|(_, line)| {
        line.split("wait_ms=").nth(1)?.split_whitespace().next()?.parse::<u64>().ok()
    });
    let longest = waits.max().unwrap();
    assert!((15_000..=20_000).contains(&longest), "{longest} ms");
    let late = failed(&lines[there..]);
    assert!(late <= 2, "{late} attempts failed after the gateway was back");
    assert!(more_kib < 4 * 1024, "{more_kib} KiB more after an hour alone");
    let kept = minutes(&rig).await;
    assert!(kept >= 59, "{kept} minutes of that hour are there");
    eprintln!("{attempts} attempts, {more_kib} KiB more, {kept} minutes kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_two_days_ahead_and_back_ends_no_link_and_spoils_no_minute() {
    let rig = Rig::new().await;
    let clock = rig.path("clock");
    let set = |offset: &str| {
        std::fs::write(clock.with_extension("new"), offset).unwrap();
        std::fs::rename(clock.with_extension("new"), &clock).unwrap();
    };
    set("+0");
    let file = clock.display().to_string();
    // As the kernel does it: what is waited for goes by another clock, which never jumps.
    let faketime = [("FAKETIME_TIMESTAMP_FILE", &*file), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let _agent = match Agent::start_at(rig.root.path(), &faketime) {
        Ok(agent) => agent,
        Err(reason) => return skip("a clock that jumps", &reason),
    };
    rig.linked().await;
    let first = rig.fleet.presence(rig.vm).await.unwrap().since;
    let ahead_ms = async || match rig.fleet.call(rig.vm, Call::Metrics, DEADLINE).await {
        Ok(Reply::Metrics(now)) => now.time_ms - Clock::wall().now().0,
        other => panic!("no metrics: {other:?}"),
    };
    const DAYS_MS: i64 = 2 * 24 * 60 * 60 * 1_000;
    for (offset, wanted_ms) in [("+2d", DAYS_MS), ("-2d", -DAYS_MS), ("+0", 0)] {
        set(offset);
        let is = ahead_ms().await;
        assert!((is - wanted_ms).abs() < 60_000, "{offset}: {is} ms ahead");
        assert!(minutes(&rig).await < 5, "no minutes are made up");
        let presence = rig.fleet.presence(rig.vm).await.unwrap();
        assert_eq!((presence.linked, presence.since), (true, first), "{offset}");
    }
    // Another link measures the clock anew, and says that it is wrong.
    for (offset, says) in [("+2d", Some("172800 s ahead")), ("+0", None)] {
        set(offset);
        let before = rig.fleet.presence(rig.vm).await.unwrap().since;
        rig.cable.cut();
        let complaint = until("another link is up", async || {
            let presence = rig.fleet.presence(rig.vm).await.unwrap();
            (presence.linked && presence.since != before).then(|| presence.complaint())
        })
        .await;
        let near = |told: &str| told.contains("the VM's clock is 1727") || told.contains("172800");
        assert_eq!(complaint.as_deref().is_some_and(near), says.is_some(), "{complaint:?}");
    }
    let ring = Ring::open(&Host::new(rig.root.path())).unwrap();
    let now = Clock::wall().now().0;
    let minutes = ring.read(now);
    assert!(minutes.iter().all(|one| one.minute <= now / 60_000), "{minutes:?}");
}
