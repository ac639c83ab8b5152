//! Logs that are not Docker's: the machine's journal (by the real `journalctl`, on a journal of the
//! test's own), the first boot, and the agent itself.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use vmkit::domain::clock::Millis;
use vmkit::fleet::{LogPage, LogQuery, LogStream};
use vmkit_agent_protocol::logs::SystemLog;

use super::rig::{Rig, until};
use super::skips::skip;

const AT_S: i64 = 1_790_000_000;

/// Puts a journal with these entries on the rig's machine, and the `journalctl` that reads it.
fn journal(rig: &Rig, entries: &[Vec<(&str, String)>]) -> Result<(), String> {
    let remote = ["/lib/systemd/systemd-journal-remote", "/usr/lib/systemd/systemd-journal-remote"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .ok_or("systemd-journal-remote is not installed")?;
    let real = ["/usr/bin/journalctl", "/bin/journalctl"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .ok_or("journalctl is not installed")?;
    let mut export = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let time = (AT_S * 1_000_000 + i64::try_from(number).unwrap() * 1_000_000).to_string();
        let boot = "_BOOT_ID=0123456789abcdef0123456789abcdef".to_owned();
        export.extend(
            format!("__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={time}\n{boot}\n").bytes(),
        );
        for (field, value) in entry {
            // The export format's way for what may hold any byte.
            export.extend(format!("{field}\n").bytes());
            export.extend((value.len() as u64).to_le_bytes());
            export.extend(value.bytes());
            export.push(b'\n');
        }
        export.push(b'\n');
    }
    let folder = rig.path("journal");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(rig.path("export"), export).unwrap();
    let made = Command::new(remote)
        .arg("-o")
        .arg(folder.join("test.journal"))
        .arg(rig.path("export"))
        .stdout(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let script = format!("#!/bin/sh\nexec {real} --directory={} \"$@\"\n", folder.display());
    std::fs::create_dir_all(rig.path("usr/bin")).unwrap();
    std::fs::write(rig.path("usr/bin/journalctl"), script).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(rig.path("usr/bin/journalctl"), mode).unwrap();
    Ok(())
}

fn said(
    id: &str,
    name: &str,
    priority: u32,
    text: &str,
    more: &[(&'static str, &str)],
) -> Vec<(&'static str, String)> {
    let mut entry = vec![
        ("MESSAGE", text.to_owned()),
        ("PRIORITY", priority.to_string()),
        ("CONTAINER_ID_FULL", id.to_owned()),
        ("CONTAINER_NAME", name.to_owned()),
        ("SYSLOG_IDENTIFIER", id.to_owned()),
        ("_SYSTEMD_UNIT", "docker.service".to_owned()),
    ];
    entry.extend(more.iter().map(|(field, value)| (*field, (*value).to_owned())));
    entry
}

fn unit(unit: &str, program: &str, text: &str) -> Vec<(&'static str, String)> {
    vec![
        ("MESSAGE", text.to_owned()),
        ("PRIORITY", "6".to_owned()),
        ("_SYSTEMD_UNIT", unit.to_owned()),
        ("SYSLOG_IDENTIFIER", program.to_owned()),
    ]
}

fn texts(page: &LogPage) -> Vec<&str> {
    page.lines.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_are_gone_and_units_are_read_from_the_journal() {
    let rig = Rig::new().await;
    let long = "x".repeat(16_384);
    let stamp = [("SYSLOG_TIMESTAMP", "2026-09-21T14:13:20.000000123Z")];
    let partial = [("CONTAINER_PARTIAL_MESSAGE", "true"), stamp[0]];
    let entries = [
        said("c1", "shop-staging-web-abc", 6, "one", &[]),
        said("c1", "shop-staging-web-abc", 3, "two, an error", &[]),
        said("c2", "shop-staging-web-def_replaced_1f", 6, &long, &partial),
        said("c2", "shop-staging-web-def_replaced_1f", 6, "the end of it", &stamp),
        said("c3", "shop-staging-worker-abc", 6, "of the worker \u{1b}[31mred", &[]),
        said("c4", "other-staging-web-abc", 6, "of another app", &[]),
        unit("docker.service", "dockerd", "starting up"),
        unit("ssh.service", "sshd", "Accepted publickey for kamal\nand a second line"),
        vec![
            ("MESSAGE", "Out of memory: Killed process 7 (node)".to_owned()),
            ("_TRANSPORT", "kernel".to_owned()),
            ("SYSLOG_IDENTIFIER", "kernel".to_owned()),
        ],
    ];
    if let Err(reason) = journal(&rig, &entries) {
        skip("the journal", &reason);
        return;
    }
    let _agent = rig.start_agent();
    rig.linked().await;
    let of = |role: Option<&str>| LogQuery {
        service: "shop-staging".to_owned(),
        role: role.map(str::to_owned),
        limit: 100,
        ..LogQuery::default()
    };
    // There is no Docker on this machine at all.
    let page = rig.fleet.logs(rig.vm, of(None)).await.unwrap();
    assert!(page.live);
    let wanted = ["one", "two, an error", "of the worker \u{1b}[31mred"];
    assert!(wanted.iter().all(|wanted| texts(&page).contains(wanted)), "{:?}", texts(&page));
    let error = page.lines.iter().find(|line| line.text.starts_with("two")).unwrap();
    assert_eq!((error.stream, error.version.as_deref()), (LogStream::Stderr, Some("abc")));
    assert_eq!(error.time, Millis((AT_S + 1) * 1000));
    let split: Vec<_> =
        page.lines.iter().filter(|line| line.version.as_deref() == Some("def")).collect();
    assert_eq!(split.len(), 2);
    assert_eq!((split[0].text.as_str(), split[0].more), (long.as_str(), true));
    assert_eq!((split[1].text.as_str(), split[1].more), ("the end of it", false));
    assert_eq!(page.lines.len(), 5);
    let worker = rig.fleet.logs(rig.vm, of(Some("worker"))).await.unwrap();
    assert_eq!(texts(&worker), ["of the worker \u{1b}[31mred"]);
    let since = LogQuery { since: Some(Millis((AT_S + 4) * 1000)), ..of(None) };
    assert_eq!(
        texts(&rig.fleet.logs(rig.vm, since).await.unwrap()),
        ["of the worker \u{1b}[31mred"]
    );

    let system = async |log: SystemLog| {
        let query = LogQuery { system: Some(log), limit: 100, ..LogQuery::default() };
        rig.fleet.logs(rig.vm, query).await.unwrap()
    };
    // What containers say goes through Docker's unit, and is not Docker's own.
    assert_eq!(texts(&system(SystemLog::Docker).await), ["dockerd: starting up"]);
    let ssh = system(SystemLog::Ssh).await;
    assert_eq!(texts(&ssh), ["sshd: Accepted publickey for kamal", "and a second line"]);
    let kernel = system(SystemLog::Kernel).await;
    assert_eq!(texts(&kernel), ["kernel: Out of memory: Killed process 7 (node)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_boot_and_the_agent_itself_have_logs_too() {
    let rig = Rig::new().await;
    let _agent = rig.start_agent();
    rig.linked().await;
    let system = async |log: SystemLog| {
        let query = LogQuery { system: Some(log), limit: 3, ..LogQuery::default() };
        rig.fleet.logs(rig.vm, query).await.unwrap()
    };
    let page = system(SystemLog::Boot).await;
    assert!(!page.live && page.lines.is_empty(), "a machine without one says so");
    std::fs::create_dir_all(rig.path("var/log")).unwrap();
    let mut text = b"Cloud-init v. 25.1.4\n\xff\xfe binary\n".to_vec();
    text.extend(b"step docker\nok\nlast, without an end");
    std::fs::write(rig.path("var/log/cloud-init-output.log"), text).unwrap();
    let page = system(SystemLog::Boot).await;
    assert_eq!(texts(&page), ["step docker", "ok", "last, without an end"]);
    assert!(page.more && page.live);
    until("the agent's own log tells of the link", async || {
        let page = system(SystemLog::Agent).await;
        page.lines.iter().any(|line| line.text.contains("linked")).then_some(())
    })
    .await;
    // A service's lines are not mixed in, whatever the cache has.
    assert_eq!(system(SystemLog::Kernel).await.lines, []);
}
