//! The diagnosis on a corpus of evidence: each case is a folder of `tests/corpus/diagnosis`, with
//! what is known of a failure (`evidence.json`, `job.log`, `app.log`, `proxy.log`, any of them) and
//! the code in `expected`, or `unknown`.
//!
//! Cases whose name begins with `held-` were written before the rules and are not looked at when a
//! rule is written. Logs of lab runs go beside them as `lab-`, which are held likewise.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vmkit::diagnosis::{Cause, Evidence, diagnose};

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
