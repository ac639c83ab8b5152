//! Logs of a real Docker engine: none lost, none doubled, whatever breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use regex::Regex;
use vmkit::domain::clock::{Clock, Millis};
use vmkit::fleet::{Limits, LogPage, LogQuery, LogStream};
use vmkit_agent_protocol::calls::{Call, Reply};

use super::docker::{Engine, engine};
use super::rig::{DEADLINE, Rig, until};

/// Prints `line 1`, `line 2`, … in bursts, until it is told to stop; goes on counting after a
/// restart.
const COUNTER: &str = r#"
trap 'stop=1' TERM
n=$(cat /count 2>/dev/null || echo 0)
while [ -z "$stop" ]; do
    burst=$((n + 10))
    while [ "$n" -lt "$burst" ]; do n=$((n + 1)); echo "line $n"; done
    echo "$n" >/count
    usleep 30000
done
"#;

fn query(engine: &Engine) -> LogQuery {
    LogQuery { service: engine.service(), limit: 20_000, ..LogQuery::default() }
}

/// How often each number was received.
fn numbers(page: &LogPage) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for line in &page.lines {
        let number = line.text.strip_prefix("line ").and_then(|n| n.parse().ok());
        let number: u64 = number.unwrap_or_else(|| panic!("an odd line: {:?}", line.text));
        *counts.entry(number).or_default() += 1;
    }
    counts
}

/// The set received equals 1..N, and each once.
fn assert_whole(page: &LogPage, last: u64, what: &str) {
    let counts = numbers(page);
    let lost: Vec<u64> = (1..=last).filter(|n| !counts.contains_key(n)).collect();
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    let beyond: Vec<_> = counts.keys().filter(|n| **n > last).collect();
    assert!(
        lost.is_empty() && doubled.is_empty() && beyond.is_empty(),
        "{what}: of {last}, {} are lost {:?}…, {} doubled {:?}…, {} beyond {:?}…",
        lost.len(),
        lost.iter().take(20).collect::<Vec<_>>(),
        doubled.len(),
        doubled.iter().take(20).collect::<Vec<_>>(),
        beyond.len(),
        beyond.iter().take(20).collect::<Vec<_>>()
    );
    assert_eq!(page.dropped, 0, "{what}");
    let order: Vec<_> = page.lines.iter().map(|line| (line.time, line.seq)).collect();
    assert!(order.is_sorted(), "{what}: the lines are out of order");
}

/// The last number that the cache alone has.
async fn cached(rig: &Rig, engine: &Engine) -> u64 {
    let page = rig.fleet.cached_logs(rig.vm, query(engine)).await.unwrap();
    numbers(&page).last_key_value().map_or(0, |(number, _)| *number)
}

async fn grown(rig: &Rig, engine: &Engine, by: u64) {
    let before = cached(rig, engine).await;
    until("more lines are in the cache", async || {
        (cached(rig, engine).await >= before + by).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_or_doubled_over_restarts_of_container_agent_and_link() {
    let Some(engine) = engine("logs over restarts") else { return };
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let rig = Rig::new().await;
    engine.serve(&rig);
    let mut agent = rig.start_agent();
    rig.linked().await;
    let name = engine.run("v1", &[], COUNTER);
    grown(&rig, &engine, 1).await;

    for point in 0..20 {
        grown(&rig, &engine, chance.random_range(1..100)).await;
        match chance.random_range(0..5) {
            0 => drop(engine.docker(&["restart", &name])),
            1 => {
                agent.kill();
                agent = rig.start_agent();
            }
            2 => {
                // One that has only just begun does not listen yet, and ends by the signal itself.
                rig.linked().await;
                agent.ask_to_end();
                assert!(agent.ended().await.success());
                agent = rig.start_agent();
            }
            3 => rig.cable.cut(),
            _ => {
                // Everything at once, and the container starts and stops while nobody follows.
                rig.cable.unplug();
                engine.docker(&["restart", &name]);
                rig.cable.plug();
            }
        }
        eprintln!("kill point {point}: {} lines", cached(&rig, &engine).await);
    }
    engine.docker(&["stop", &name]);
    let truth = engine.docker(&["logs", &name]);
    let last = truth.lines().count() as u64;
    assert_eq!(truth.lines().last(), Some(format!("line {last}").as_str()));
    until("the cache has the last line", async || {
        (cached(&rig, &engine).await >= last).then_some(())
    })
    .await;

    let followed = rig.fleet.cached_logs(rig.vm, query(&engine)).await.unwrap();
    assert_whole(&followed, last, "followed");
    rig.linked().await;
    let read = rig.fleet.logs(rig.vm, query(&engine)).await.unwrap();
    assert!(read.live);
    assert_whole(&read, last, "read and followed");
    agent.kill();
    rig.unlinked().await;
    let cache = rig.fleet.logs(rig.vm, query(&engine)).await.unwrap();
    assert!(!cache.live);
    assert_whole(&cache, last, "from the cache alone");
}

/// Nobody closes anything: what the agent had sent, or held for sending, when the line went dead is
/// read again from Docker once both sides have given the old link up.
#[tokio::test(flavor = "multi_thread")]
async fn docker_lines_on_their_way_when_the_link_goes_dead_are_neither_lost_nor_doubled() {
    let Some(engine) = engine("a link that goes dead") else { return };
    let limits = Limits { silent_after: Duration::from_millis(1_500), ..Limits::default() };
    let rig = Rig::with(Clock::wall(), limits).await;
    engine.serve(&rig);
    let _agent = rig.start_agent();
    rig.linked().await;
    let name = engine.run("v1", &[], COUNTER);
    let printed = || engine.docker(&["logs", &name]).lines().count();
    let cable = &rig.cable;
    let both = || {
        cable.stall();
        cable.deafen();
    };
    let deaths: [(&str, &dyn Fn()); 3] =
        [("both", &both), ("to us", &|| cable.stall()), ("to the agent", &|| cable.deafen())];
    for (way, dies) in deaths {
        grown(&rig, &engine, 50).await;
        let before = rig.fleet.presence(rig.vm).await.unwrap().since;
        let there = printed();
        dies();
        until("the old link is given up, and more is printed", async || {
            let presence = rig.fleet.presence(rig.vm).await.unwrap();
            let over = !presence.linked || presence.since != before;
            (over && printed() > there + 200).then_some(())
        })
        .await;
        cable.flow();
        until("another link is up", async || {
            let presence = rig.fleet.presence(rig.vm).await.unwrap();
            (presence.linked && presence.since != before).then_some(())
        })
        .await;
        grown(&rig, &engine, 50).await;
        eprintln!("dead {way}: {} lines", cached(&rig, &engine).await);
    }
    engine.docker(&["stop", &name]);
    let last = printed() as u64;
    until("the cache has the last line", async || {
        (cached(&rig, &engine).await >= last).then_some(())
    })
    .await;
    let followed = rig.fleet.cached_logs(rig.vm, query(&engine)).await.unwrap();
    assert_whole(&followed, last, "followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_begins_anew_reads_the_past_from_the_vm() {
    let Some(engine) = engine("logs of the past") else { return };
    let name = engine.run("v1", &[], "for n in $(seq 3000); do echo \"line $n\"; done");
    engine.docker(&["wait", &name]);
    let rig = Rig::new().await;
    engine.serve(&rig);
    let _agent = rig.start_agent();
    rig.linked().await;

    let all = rig.fleet.logs(rig.vm, query(&engine)).await.unwrap();
    assert_whole(&all, 3000, "all");
    assert!(!all.more && all.live);
    let line = &all.lines[0];
    assert_eq!((line.container.as_str(), line.role.as_deref()), (name.as_str(), Some("web")));
    assert_eq!(line.version.as_deref(), Some("v1"));

    // The newest ten, and where they begin.
    let ten = LogQuery { limit: 10, ..query(&engine) };
    let page = rig.fleet.logs(rig.vm, ten).await.unwrap();
    assert_eq!(numbers(&page).into_keys().collect::<Vec<_>>(), (2991..=3000).collect::<Vec<_>>());
    assert!(page.more);
    assert_eq!(page.covered_from, Some(page.lines[0].time));

    // A pattern is looked for in all of the past, not in the newest lines.
    let grep = Some(Regex::new("^line 7$").unwrap());
    let page = rig.fleet.logs(rig.vm, LogQuery { grep, limit: 5, ..query(&engine) }).await.unwrap();
    assert_eq!(numbers(&page).into_keys().collect::<Vec<_>>(), [7]);

    // A range: everything from the middle line's millisecond on, and everything before it.
    let middle = all.lines[1500].time;
    let since = LogQuery { since: Some(middle), ..query(&engine) };
    let until = LogQuery { until: Some(middle), ..query(&engine) };
    let since = rig.fleet.logs(rig.vm, since).await.unwrap();
    let until = rig.fleet.logs(rig.vm, until).await.unwrap();
    assert_eq!(since.covered_from, Some(middle));
    assert!(since.lines.iter().all(|line| line.time >= middle));
    assert!(until.lines.iter().all(|line| line.time < middle));
    assert_eq!(since.lines.len() + until.lines.len(), 3000);

    // Other services, and other VMs' logs, are not in it.
    let other = LogQuery { service: "other".to_owned(), ..query(&engine) };
    assert_eq!(rig.fleet.logs(rig.vm, other).await.unwrap().lines, []);
    let future = LogQuery { since: Some(Millis(i64::MAX / 2)), ..query(&engine) };
    assert_eq!(rig.fleet.logs(rig.vm, future).await.unwrap().lines, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_lines_arrive_as_they_were_written() {
    let Some(engine) = engine("odd lines") else { return };
    let script = r#"
        head -c 40000 /dev/zero | busybox tr '\0' x; echo
        echo to stderr >&2
        printf 'a "quoted" \\ back\tslash \001 \377 byte\n'
        echo
        head -c 100000 /dev/zero | busybox tr '\0' y; echo
        printf 'last words'
    "#;
    let rig = Rig::new().await;
    engine.serve(&rig);
    let _agent = rig.start_agent();
    rig.linked().await;
    let name = engine.run("v1", &[], script);
    let tty = engine.run("v2", &["-t"], "echo on a terminal; printf 'no end'");
    engine.docker(&["wait", &name, &tty]);
    // A second run's first line is not glued to the first run's last words.
    engine.docker(&["start", &name]);
    engine.docker(&["wait", &name]);

    let once = |lines: &mut Vec<(LogStream, String)>| {
        let out = |text: &str| (LogStream::Stdout, text.to_owned());
        lines.extend([16_384, 16_384, 7_232].map(|length| out(&"x".repeat(length))));
        lines.push((LogStream::Stderr, "to stderr".to_owned()));
        lines.push(out("a \"quoted\" \\ back\tslash \u{1} \u{fffd} byte"));
        lines.push(out(""));
        lines.extend([16_384; 6].map(|length| out(&"y".repeat(length))));
        lines.push(out(&"y".repeat(1_696)));
        lines.push(out("last words"));
    };
    let mut wanted = Vec::new();
    once(&mut wanted);
    once(&mut wanted);
    wanted.push((LogStream::Stdout, "on a terminal".to_owned()));
    wanted.push((LogStream::Stdout, "no end".to_owned()));
    wanted.sort();
    let texts = |page: LogPage| {
        // Split, and marked where a line goes on.
        let marked = page.lines.iter().filter(|line| line.more).count();
        assert_eq!(marked, page.lines.iter().filter(|line| line.text.len() == 16_384).count());
        let mut lines: Vec<_> =
            page.lines.into_iter().map(|line| (line.stream, line.text)).collect();
        lines.sort();
        lines
    };
    let read = texts(rig.fleet.logs(rig.vm, query(&engine)).await.unwrap());
    assert_eq!(read, wanted, "read");
    let mut followed = Vec::new();
    until("all are followed", async || {
        followed = texts(rig.fleet.cached_logs(rig.vm, query(&engine)).await.unwrap());
        (followed.len() >= wanted.len()).then_some(())
    })
    .await;
    assert_eq!(followed, wanted, "followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_removed_container_stay_in_the_cache() {
    let Some(engine) = engine("removed container") else { return };
    let rig = Rig::new().await;
    engine.serve(&rig);
    let _agent = rig.start_agent();
    rig.linked().await;
    let name = engine.run("v1", &[], "for n in $(seq 500); do echo \"line $n\"; done; sleep 1000");
    until("all are followed", async || (cached(&rig, &engine).await == 500).then_some(())).await;
    engine.docker(&["rm", "-f", &name]);
    let page = rig.fleet.logs(rig.vm, query(&engine)).await.unwrap();
    assert!(page.live);
    assert_whole(&page, 500, "after the container was removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_takes_nothing_costs_the_vm_a_few_buffers() {
    let Some(engine) = engine("slow gateway") else { return };
    let rig = Rig::new().await;
    engine.serve(&rig);
    let agent = rig.start_agent();
    rig.linked().await;
    let before = agent.own_kib();
    rig.cable.stall();
    // 40 MB of log that nobody takes.
    let name =
        engine.run("v1", &[], "yes 0123456789012345678901234567890123456789 | head -n 1000000");
    let (state, mut most) = (["inspect", "-f", "{{.State.Running}}", name.as_str()], before);
    until("all is written", async || {
        most = most.max(agent.own_kib());
        (engine.docker(&state).trim() == "false").then_some(())
    })
    .await;
    let more = most - before;
    assert!(more < 16 * 1024, "the agent takes {more} KiB more than before");
    rig.cable.flow();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_that_docker_rotated_away_is_said() {
    let Some(engine) = engine("rotated logs") else { return };
    let rig = Rig::new().await;
    engine.serve(&rig);
    let _agent = rig.start_agent();
    rig.linked().await;
    let rotated = ["--log-driver", "json-file", "--log-opt", "max-size=10k"];
    let name = engine.run("v1", &rotated, COUNTER);
    grown(&rig, &engine, 10).await;
    rig.cable.unplug();
    rig.unlinked().await;
    let had = cached(&rig, &engine).await;
    until("Docker has thrown away what comes next", async || {
        let kept = engine.docker(&["logs", &name]);
        let first: u64 = kept.lines().next()?.strip_prefix("line ")?.parse().ok()?;
        (first > had + 1).then_some(())
    })
    .await;
    rig.cable.plug();
    rig.linked().await;
    let page = until("the hole is known", async || {
        let page = rig.fleet.cached_logs(rig.vm, query(&engine)).await.unwrap();
        (page.dropped > 0).then_some(page)
    })
    .await;
    let counts = numbers(&page);
    assert!(counts.values().all(|count| *count == 1), "nothing is doubled");
    assert!((1..=had).all(|number| counts.contains_key(&number)), "what was there stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_and_facts_are_what_docker_says() {
    let Some(engine) = engine("containers") else { return };
    let rig = Rig::new().await;
    engine.serve(&rig);
    let _agent = rig.start_agent();
    rig.linked().await;
    let live = engine.run("v2", &[], "sleep 1000");
    let dead = engine.run("v1", &[], "exit 7");
    engine.docker(&["wait", &dead]);
    let Ok(Reply::Containers { containers }) =
        rig.fleet.call(rig.vm, Call::Containers, DEADLINE).await
    else {
        panic!("no containers");
    };
    let named = |name: &str| containers.iter().find(|container| container.name == name).unwrap();
    let (live, dead) = (named(&live), named(&dead));
    assert_eq!((live.state.as_str(), live.exit_code), ("running", None));
    assert_eq!((dead.state.as_str(), dead.exit_code), ("exited", Some(7)));
    assert!(live.started_at_ms.is_some() && !dead.oom_killed && dead.restarts == 0);
    assert_eq!(live.labels.get("service"), Some(&engine.service()));
    assert_eq!(live.image, engine.image());
    let inspected = engine.docker(&["inspect", "-f", "{{.Id}}", &live.name]);
    assert_eq!(live.id, inspected.trim());

    let Ok(Reply::HostFacts(facts)) = rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await
    else {
        panic!("no facts");
    };
    let version = engine.docker(&["version", "-f", "{{.Server.Version}}"]);
    assert_eq!(facts.docker.version.as_deref(), Some(version.trim()));
}

/// Waits until somebody has written what it said before, then goes on at 51.
const LATE_COUNTER: &str = r#"
trap 'exit' TERM
if [ ! -e /ready ]; then : >/ready; while :; do usleep 50000; done; fi
n=$(cat /count 2>/dev/null || echo 50)
while :; do n=$((n + 1)); echo "line $n"; echo "$n" >/count; usleep 30000; done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn docker_logs_of_a_clock_that_is_put_back_are_neither_lost_nor_doubled() {
    let Some(engine) = engine("a clock that is put back") else { return };
    let rig = Rig::new().await;
    engine.serve(&rig);
    let name = engine.run("v1", &["--log-driver", "json-file"], LATE_COUNTER);
    let path = engine.docker(&["inspect", "-f", "{{.LogPath}}", &name]);
    let Ok(mut log) = std::fs::OpenOptions::new().append(true).open(path.trim()) else {
        super::skips::skip("a clock that is put back", "the engine's files are not ours to see");
        return;
    };
    // What Docker would have written an hour ahead of now.
    let now = jiff::Timestamp::from_millisecond(Clock::wall().now().0).unwrap();
    let ahead = now + jiff::SignedDuration::from_hours(1);
    for number in 1..=50 {
        let time = ahead + jiff::SignedDuration::from_millis(number);
        let text = format!("line {number}\n");
        let entry = serde_json::json!({"log": text, "stream": "stdout", "time": time.to_string()});
        std::io::Write::write_all(&mut log, format!("{entry}\n").as_bytes()).unwrap();
    }
    let mut agent = rig.start_agent();
    rig.linked().await;
    let count = async || {
        let page = rig.fleet.cached_logs(rig.vm, query(&engine)).await.unwrap();
        page.lines.len()
    };
    let more = async |lines: usize| {
        let wanted = count().await + lines;
        until("more lines are in the cache", async || (count().await >= wanted).then_some(()))
            .await;
    };
    more(50).await;
    // The clock has been put back by now; what comes is an hour older than what is there.
    engine.docker(&["restart", "-t", "5", &name]);
    more(20).await;
    rig.cable.cut();
    more(20).await;
    agent.kill();
    let _agent = rig.start_agent();
    more(20).await;
    // Everything together, and what comes meanwhile is nobody's to see.
    rig.cable.unplug();
    engine.docker(&["restart", "-t", "5", &name]);
    rig.cable.plug();
    more(20).await;
    engine.docker(&["stop", &name]);
    let truth = engine.docker(&["logs", &name]);
    let last = truth.lines().count() as u64;
    until("the last line is in the cache", async || (count().await as u64 >= last).then_some(()))
        .await;
    let page = rig.fleet.cached_logs(rig.vm, query(&engine)).await.unwrap();
    assert_whole(&page, last, "the cache");
}
