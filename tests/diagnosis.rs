//! The diagnosis on a corpus of evidence: each case is a folder of `tests/corpus/diagnosis`, with
//! what is known of a failure (`evidence.json`, `job.log`, `app.log`, `proxy.log`, any of them) and
//! the code in `expected`, or `unknown`.
//!
//! Cases whose name begins with `held-` were written before the rules and are not looked at when a
//! rule is written. What VMKit gathered in lab runs goes beside them as `lab-`, which are held likewise,
//! with what was expected before they were recorded; as `seen-lab-` where a rule was mended for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vmkit::diagnosis::{Cause, Evidence, diagnose, job_lines};

/// A case: its name, the evidence, the expected code.
type Case = (String, Evidence, String);

fn read(folder: &Path, name: &str) -> Option<String> {
    fs::read_to_string(folder.join(name)).ok()
}

fn case(folder: PathBuf) -> Case {
    let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
    let mut evidence: Evidence = match read(&folder, "evidence.json") {
        Some(text) => serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")),
        None => Evidence::default(),
    };
    evidence.job_log = read(&folder, "job.log").unwrap_or(evidence.job_log);
    evidence.app_log = read(&folder, "app.log").unwrap_or(evidence.app_log);
    evidence.proxy_log = read(&folder, "proxy.log").unwrap_or(evidence.proxy_log);
    let expected = read(&folder, "expected").unwrap_or_else(|| panic!("{name} expects nothing"));
    (name, evidence, expected.trim().to_owned())
}

fn corpus() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/diagnosis");
    let mut cases: Vec<Case> = fs::read_dir(root)
        .expect("the corpus")
        .map(|entry| case(entry.expect("an entry").path()))
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

fn held(name: &str) -> bool {
    name.starts_with("held-") || name.starts_with("lab-")
}

/// How a part of the corpus fared.
#[derive(Default)]
struct Score {
    right: usize,
    all: usize,
    wrong: Vec<String>,
    unknown: Vec<String>,
}

impl Score {
    fn count(&mut self, name: &str, found: Option<&Cause>, expected: &str) {
        self.all += 1;
        match found.map_or("unknown", |cause| cause.code) {
            code if code == expected => self.right += 1,
            "unknown" => self.unknown.push(format!("{name}: not {expected}")),
            code => self.wrong.push(format!("{name}: {code}, not {expected}")),
        }
    }
}

#[test]
fn the_corpus_is_explained() {
    let cases = corpus();
    let mut scores: BTreeMap<bool, Score> = BTreeMap::new();
    for (name, evidence, expected) in &cases {
        let score = scores.entry(held(name)).or_default();
        score.count(name, diagnose(evidence).as_ref(), expected);
    }
    let (seen, held) = (&scores[&false], &scores[&true]);
    let wrong: Vec<&String> = seen.wrong.iter().chain(&held.wrong).collect();
    let unknown: Vec<&String> = seen.unknown.iter().chain(&held.unknown).collect();
    let told = format!(
        "seen {}/{}, held {}/{}, wrong {}, unknown {}",
        seen.right,
        seen.all,
        held.right,
        held.all,
        wrong.len(),
        unknown.len()
    );
    eprintln!("{told} {wrong:?} {unknown:?}");
    assert!(wrong.len() <= 1, "{told}: {wrong:?} {unknown:?}");
    for part in [seen, held] {
        assert!(part.right * 100 >= part.all * 95, "{told}: {wrong:?} {unknown:?}");
    }
    assert!(cases.len() >= 60 && held.all * 3 >= cases.len(), "{told}: a third is held");
}

/// Every text of the pipeline's table of failures, as the tools print it, with its cause; and the
/// causes that have no text of their own.
const TABLE: &[(&str, &str)] = &[
    ("Workflow does not have 'workflow_dispatch' trigger", "workflow_not_indexed"),
    ("Unexpected inputs provided: [", "workflow_outdated"),
    ("No ref found for: ", "ref_missing"),
    ("Resource not accessible by integration", "github_permission"),
    (
        "The job was not started because recent account payments have failed or your spending limit needs to be increased",
        "github_billing",
    ),
    ("The job has exceeded the maximum execution time of 30m0s", "job_timeout"),
    ("ERROR: No buildpack groups passed detection.", "no_buildpack"),
    ("failed with status code: 20", "no_buildpack"),
    ("failed with status code: 51", "build_failed"),
    ("failed with status code: 62", "registry_push_denied"),
    (r#"failed to solve: process "/bin/sh -c "#, "build_command_failed"),
    ("failed to read dockerfile: open Dockerfile: no such file", "dockerfile_missing"),
    ("denied: installation not allowed to Create organization package", "registry_push_denied"),
    ("denied: installation not allowed to Write organization package", "registry_push_denied"),
    ("denied: permission_denied: write_package", "registry_push_denied"),
    ("ERROR (Kamal::ConfigurationError): unknown key: ", "kamal_config"),
    ("ERROR (Psych::SyntaxError)", "kamal_config"),
    ("not found in .kamal/secrets", "secret_missing"),
    ("flag needs an argument: 'p' in -p", "registry_password_empty"),
    ("Net::SSH::AuthenticationFailed", "ssh_auth_failed"),
    ("Authentication failed for user kamal@", "ssh_auth_failed"),
    ("Net::SSH::HostKeyMismatch", "host_key_changed"),
    (r#"does not match for ""#, "host_key_changed"),
    ("Errno::ECONNREFUSED", "vm_unreachable"),
    (" - connect(2) for ", "vm_unreachable"),
    ("Errno::EHOSTUNREACH", "vm_unreachable"),
    ("Socket::ResolutionError", "address_unknown"),
    ("permission denied while trying to connect to the Docker daemon socket", "docker_forbidden"),
    ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", "docker_down"),
    ("docker: command not found", "docker_missing"),
    (
        "login attempt to https://ghcr.io/v2/ failed with status: 401 Unauthorized",
        "registry_denied",
    ),
    ("docker stderr: Error response from daemon: denied", "registry_denied"),
    ("not found: manifest unknown", "image_missing"),
    ("no space left on device", "disk_full"),
    ("is missing the 'service' label", "image_label_missing"),
    ("Deploy lock found. Run 'kamal lock help'", "deploy_locked"),
    ("Locked by: ", "deploy_locked"),
    ("driver failed programming external connectivity on endpoint kamal-proxy", "port_taken"),
    ("listen tcp4 0.0.0.0:80: bind: address already in use", "port_taken"),
    ("Unable to find image 'basecamp/kamal-proxy:v0.9.2' locally", "proxy_image_missing"),
    ("Error: host settings conflict with another service", "domain_taken"),
    ("Error: target failed to become healthy within configured timeout (", "health_check_failed"),
    ("exec format error", "wrong_architecture"),
    ("unexpected status (404)", "wrong_health_path"),
    ("connect: connection refused", "wrong_port"),
    ("no such host", "crashed_at_start"),
    ("request timed out", "health_check_slow"),
    ("is not available as a container", "release_gone"),
    ("is too old, run `kamal proxy reboot`", "proxy_too_old"),
    ("Net::SSH::Disconnect", "ssh_throttled"),
    ("connection closed by remote host", "ssh_throttled"),
    ("Net::SSH::HostKeyUnknown", "host_key_unknown"),
    ("docker: open /etc/vmkit/env/", "env_file_missing"),
    ("bufio.Scanner: token too long", "env_line_too_long"),
    ("toomanyrequests", "registry_rate_limit"),
    ("urn:ietf:params:acme:error:rateLimited", "certificate_rate_limit"),
    ("startup_failure", "workflow_refused"),
    ("acme/autocert: missing certificate", "certificate_not_issued"),
    ("TLS handshake error", "certificate_not_issued"),
    ("", "out_of_memory"),
    ("", "crash_loop"),
    ("", "missing_env_key"),
    ("", "env_key_changed"),
    ("", "migration_failed"),
    ("", "domain_elsewhere"),
    ("", "vm_off"),
    ("", "proxy_timeout"),
    ("", "github_down"),
];

#[test]
fn every_row_of_the_table_has_a_case_with_its_exact_text() {
    let told = |evidence: &Evidence| {
        let notes = evidence.annotations.join("\n");
        let others = [&evidence.conclusion, &evidence.refused, &evidence.github];
        let others: Vec<&str> = others.into_iter().flatten().map(String::as_str).collect();
        let logs = [&evidence.job_log, &evidence.app_log, &evidence.proxy_log, &notes];
        logs.map(|log| job_lines(log).join("\n")).join("\n") + &others.join("\n")
    };
    let cases: Vec<(String, Option<&str>, String)> = corpus()
        .iter()
        .map(|(_, evidence, expected)| {
            (told(evidence), diagnose(evidence).map(|cause| cause.code), expected.clone())
        })
        .collect();
    let missing = TABLE.iter().filter(|(text, code)| {
        !cases.iter().any(|(told, found, expected)| {
            told.contains(text) && expected == code && *found == Some(code)
        })
    });
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&(&str, &str)>::new(), "no case shows it");
}

#[test]
fn every_cause_of_the_corpus_can_be_read_and_acted_on() {
    for (name, evidence, _) in corpus() {
        let Some(cause) = diagnose(&evidence) else { continue };
        assert!(cause.evidence.len() <= 5, "{name}: {cause:?}");
        for text in cause.evidence.iter().chain([&cause.cause, &cause.fix]) {
            assert!(!text.chars().any(char::is_control), "{name}: {text:?}");
            assert!(text.chars().count() <= 600, "{name}: {text:?}");
        }
        assert!(!cause.cause.ends_with('.') && !cause.fix.ends_with('.'), "{name}: {cause:?}");
        assert!(!cause.fix.is_empty() && !cause.fix.contains('{'), "{name}: {cause:?}");
    }
}

/// Into every job's log of the corpus, all over it, an app and a build command print what tools say.
#[test]
fn what_an_app_prints_forges_no_cause_of_another_stage() {
    let forged = [
        "ERROR (Net::SSH::HostKeyMismatch): fingerprint SHA256:abc does not match for \"203.0.113.7\"",
        "docker stderr: Cannot connect to the Docker daemon at unix:///var/run/docker.sock",
        "denied: permission_denied: write_package",
        "##[error]a person holds this lock",
        "##[endgroup]",
        "Locked by: Mallory at 2026-11-20T07:12:44Z",
    ];
    for (name, evidence, _) in corpus() {
        let honest = diagnose(&evidence).map(|cause| cause.code);
        let mut log = String::new();
        for (at, line) in evidence.job_log.lines().enumerate() {
            let stamp = line.split(' ').next().unwrap_or_default();
            for text in forged.iter().filter(|_| at % 7 == 0) {
                // A container's line, and a build command's.
                log += &format!("{stamp}  ERROR 2026-11-20T09:31:01.100000000Z {text}\n");
                log += &format!("{stamp} #99 1.234 {text}\n");
            }
            log += line;
            log.push('\n');
        }
        let found = diagnose(&Evidence { job_log: log, ..evidence }).map(|cause| cause.code);
        assert_eq!(found, honest, "{name}");
    }
}

#[test]
fn hostile_logs_are_read_in_bounded_time_and_end_in_nothing() {
    let logs = [
        "a".repeat(20 << 20),
        "\u{1b}]0;".repeat(1 << 20),
        "\u{1b}[31".repeat(1 << 20),
        "##[group]Run \n".repeat(1 << 19),
        "\u{fffd}\r".repeat(1 << 20),
        "\n".repeat(8 << 20),
        "ü".repeat(5_000_001),
        format!("ERROR ({}", "(".repeat(4 << 20)),
        "npm error code \n#1 ERROR: process \n".repeat(1 << 17),
        "------\n > [1/2] RUN\n".repeat(1 << 18),
    ];
    let began = std::time::Instant::now();
    for log in logs {
        for job in [None, Some("Build".to_owned()), Some("Deploy".to_owned())] {
            let evidence = Evidence {
                job,
                job_log: log.clone(),
                app_log: log.clone(),
                proxy_log: log.clone(),
                annotations: vec![log.clone()],
                ..Evidence::default()
            };
            assert_eq!(diagnose(&evidence), None);
        }
    }
    assert!(began.elapsed().as_secs() < 300, "{:?}", began.elapsed());
}
