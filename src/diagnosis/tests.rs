//! Every rule on the exact text that was seen, and texts that must not be taken for a cause.

use super::*;

/// The root cause in the log of a failed job alone.
fn explain(job_log: &str) -> Option<Cause> {
    diagnose(&Evidence { job_log: job_log.to_owned(), ..Evidence::default() })
}

/// Code and the text, as the tools print it.
const SEEN: &[(&str, &str)] = &[
    ("no_buildpack", "[detector] ERROR: No buildpack groups passed detection."),
    (
        "dockerfile_missing",
        "ERROR: failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory",
    ),
    (
        "build_command_failed",
        "ERROR: failed to solve: process \"/bin/sh -c npm run build\" did not complete successfully: exit code: 1",
    ),
    ("build_failed", "ERROR: failed to build: executing lifecycle: failed with status code: 51"),
    ("build_failed", "ERROR: failed to build: executing lifecycle: failed with status code: 62"),
    ("registry_push_denied", "denied: installation not allowed to Write organization package"),
    ("registry_push_denied", "denied: installation not allowed to Create organization package"),
    ("registry_push_denied", "denied: permission_denied: write_package"),
    ("kamal_config", "  ERROR (Kamal::ConfigurationError): unknown key: traefik"),
    ("kamal_config", "  ERROR (Psych::SyntaxError): (<unknown>): did not find expected key"),
    (
        "secret_missing",
        "  ERROR (Kamal::ConfigurationError): Secret 'X' not found in .kamal/secrets",
    ),
    ("registry_password_empty", "docker stderr: flag needs an argument: 'p' in -p"),
    (
        "ssh_auth_failed",
        "  ERROR (Net::SSH::AuthenticationFailed): Exception while executing on host 203.0.113.7: Authentication failed for user kamal@203.0.113.7",
    ),
    (
        "host_key_changed",
        "  ERROR (Net::SSH::HostKeyMismatch): Exception while executing on host 203.0.113.7: fingerprint SHA256:abc does not match for \"203.0.113.7\"",
    ),
    (
        "host_key_unknown",
        "  ERROR (Net::SSH::HostKeyUnknown): Exception while executing on host 203.0.113.7: fingerprint SHA256:abc is unknown for \"203.0.113.7\"",
    ),
    (
        "vm_unreachable",
        "  ERROR (Errno::ECONNREFUSED): Exception while executing on host 203.0.113.7: Connection refused - connect(2) for 203.0.113.7:22",
    ),
    (
        "vm_unreachable",
        "  ERROR (Errno::EHOSTUNREACH): Exception while executing on host 203.0.113.7: No route to host",
    ),
    (
        "address_unknown",
        "  ERROR (Socket::ResolutionError): Exception while executing on host vm: getaddrinfo: Name or service not known",
    ),
    (
        "ssh_throttled",
        "  ERROR (Net::SSH::Disconnect): Exception while executing on host 203.0.113.7: connection closed by remote host",
    ),
    (
        "docker_forbidden",
        "docker stderr: permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
    ),
    (
        "docker_down",
        "docker stderr: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
    ),
    ("docker_missing", "bash: line 1: docker: command not found"),
    (
        "registry_denied",
        "docker stderr: login attempt to https://ghcr.io/v2/ failed with status: 401 Unauthorized",
    ),
    (
        "image_missing",
        "docker stderr: Error response from daemon: manifest for ghcr.io/o/s:T not found: manifest unknown",
    ),
    (
        "disk_full",
        "docker stderr: failed to register layer: write /usr/lib/x: no space left on device",
    ),
    ("image_label_missing", "Image ghcr.io/o/s:T is missing the 'service' label"),
    (
        "deploy_locked",
        "  ERROR (Kamal::Cli::LockError): Deploy lock found. Run 'kamal lock help' for more information",
    ),
    (
        "port_taken",
        "docker: Error response from daemon: driver failed programming external connectivity on endpoint kamal-proxy: failed to bind host port: listen tcp4 0.0.0.0:80: bind: address already in use",
    ),
    (
        "proxy_image_missing",
        "docker stderr: Unable to find image 'basecamp/kamal-proxy:v0.9.2' locally",
    ),
    ("domain_taken", "docker stderr: Error: host settings conflict with another service"),
    (
        "health_check_failed",
        "docker stderr: Error: target failed to become healthy within configured timeout (15s)",
    ),
    (
        "wrong_architecture",
        "2026-11-01T09:30:01.123456789Z exec /cnb/process/web: exec format error",
    ),
    (
        "release_gone",
        "The app version 'abc' is not available as a container (use 'kamal app containers' for available versions)",
    ),
    (
        "proxy_too_old",
        "kamal-proxy version v0.8.0 is too old, run `kamal proxy reboot` in order to update to at least v0.9.2",
    ),
    (
        "env_file_missing",
        "docker stderr: docker: open /etc/vmkit/env/shop/staging.env: no such file or directory.",
    ),
    ("env_line_too_long", "docker stderr: docker: bufio.Scanner: token too long"),
    (
        "registry_rate_limit",
        "Error response from daemon: toomanyrequests: You have reached your unauthenticated pull rate limit",
    ),
    ("certificate_rate_limit", "429 urn:ietf:params:acme:error:rateLimited: too many certificates"),
    (
        "process_not_running",
        "  ERROR (Kamal::Cli::Healthcheck::Error): Exception while executing on host 203.0.113.7: container not ready after 60 seconds (restarting)",
    ),
    ("deploy_key_missing", "##[error]the secret VMKIT_SSH_KEY_STAGING is empty"),
    (
        "host_key_missing",
        "::error::the variable VMKIT_KNOWN_HOSTS_STAGING is empty: without the VM's host key nothing is sent to it",
    ),
    (
        "config_not_merged",
        "##[error]config/deploy.staging.yml is not on the default branch: the environment has no VM yet",
    ),
    ("bad_commit_id", "##[error]sha must be a full commit id"),
    ("lock_of_a_person", "##[error]a person holds this lock; ask them"),
    ("ref_missing", "No ref found for: feature/basket"),
    (
        "ssh_throttled",
        "  ERROR (Net::SSH::Disconnect): Exception while executing on host 203.0.113.7: connection closed by remote host",
    ),
    ("workflow_not_indexed", "Workflow does not have 'workflow_dispatch' trigger"),
    ("workflow_outdated", "Unexpected inputs provided: [\"sha\"]"),
    ("github_permission", "Resource not accessible by integration"),
];

/// A job's log as GitHub gives it, with `words` in the middle.
fn job(words: &str) -> String {
    let script = r#"##[group]Run [ -n "$SSH_PRIVATE_KEY" ] || { echo "::error::the secret VMKIT_SSH_KEY_STAGING is empty"; exit 1; }
::error::the variable X is empty
manifest unknown
##[endgroup]
  INFO [1f2e3d4c] Running docker pull ghcr.io/octo/shop/staging:abc on 203.0.113.7"#;
    let all = format!(
        "{script}\n{words}\n##[error]Process completed with exit code 1.\nPost job cleanup."
    );
    all.lines()
        .map(|line| format!("2026-11-01T09:30:00.1234567Z \u{1b}[31m{line}\u{1b}[0m\n"))
        .collect()
}

#[test]
fn every_text_that_was_seen_gives_its_cause() {
    for (code, text) in SEEN {
        for log in [(*text).to_owned(), job(text)] {
            let cause = explain(&log).unwrap_or_else(|| panic!("nothing for {text}"));
            assert_eq!(cause.code, *code, "{text}");
            assert!(text.ends_with(&cause.evidence[0]), "{:?} for {text}", cause.evidence);
            assert!(cause.evidence.len() <= 5);
            assert!(!cause.cause.contains('$') && !cause.cause.ends_with('.'), "{}", cause.cause);
            assert!(!cause.fix.ends_with('.'));
        }
    }
}

/// What Kamal 2.12 itself printed with our generated files, over real SSH.
const REAL: &[(&str, &str)] = &[
    ("host_key_unknown", include_str!("kamal/host_key_unknown.log")),
    ("host_key_changed", include_str!("kamal/host_key_changed.log")),
    ("docker_missing", include_str!("kamal/docker_missing.log")),
    ("deploy_locked", include_str!("kamal/deploy_locked.log")),
    ("health_check_failed", include_str!("kamal/health_check_failed.log")),
];

#[test]
fn what_the_real_kamal_printed_gives_its_cause() {
    for (code, log) in REAL {
        for log in [(*log).to_owned(), job(log)] {
            let cause = explain(&log).unwrap_or_else(|| panic!("nothing for {code}"));
            assert_eq!(cause.code, *code);
            assert!(cause.evidence.iter().any(|line| line.contains("ERROR (")), "{cause:?}");
        }
    }
}

#[test]
fn every_row_says_where_its_text_is_from_and_the_table_is_complete() {
    let seen: std::collections::BTreeSet<&str> = SEEN.iter().map(|(code, _)| *code).collect();
    let rows = TABLES.iter().flat_map(|(_, rows)| rows.iter());
    for (code, .., source) in rows.chain(start::NOTES).chain(app::ROWS).chain(tls::MISSING) {
        assert!(["table", "seen", "tool"].contains(source), "{code}: {source}");
    }
    // What was tried is held to its exact text here; the corpus has the rest.
    for (stage, rows) in TABLES {
        for (code, .., source) in rows {
            assert!(*source == "tool" || seen.contains(code), "{stage:?} {code}");
        }
    }
}

/// What a good or otherwise failed build prints too.
const BUILD_NOISE: &str = "#9 importing cache manifest from ghcr.io/octo/shop/staging:buildcache\n\
    #9 ERROR: ghcr.io/octo/shop/staging:buildcache: not found\n\
    npm error request to the registry failed, reason: getaddrinfo ENOTFOUND registry\n\
    remote: connection closed by remote host";

#[test]
fn what_is_not_known_is_not_guessed() {
    for words in ["", "npm warn deprecated", "Error: something else", "exit status 1", BUILD_NOISE]
    {
        assert_eq!(explain(words), None);
        assert_eq!(explain(&job(words)), None, "{words}");
    }
}

#[test]
fn the_apps_own_words_are_not_taken_for_a_tools() {
    let app = "  ERROR 2026-11-01T09:30:01.123456789Z Error: no space left on device\n\
        2026-11-01T09:30:01.223456789Z Authentication failed for user kamal@db\n\
        2026-11-01T09:30:01.323456789Z getaddrinfo ENOTFOUND db\n\
        docker stderr: Error: target failed to become healthy within configured timeout (60s)";
    // That its database has no address is the app's own matter.
    let cause = explain(&job(app)).expect("a cause");
    assert_eq!(cause.code, "database_unreachable");
    let cause = explain(&job(&app.replace("ENOTFOUND", "x"))).expect("a cause");
    assert_eq!(cause.code, "health_check_failed");
    assert_eq!(explain(&job(&app.replace("target failed", "target x"))), None);
}

#[test]
fn the_deeper_cause_wins_and_names_who() {
    let locked = "Locked by: Ada at 2026-11-01T09:00:00Z\nVersion: abc\nMessage: Automatic deploy lock\n\
        \x20 ERROR (Kamal::Cli::LockError): Deploy lock found. Run 'kamal lock help' for more information";
    let cause = explain(&job(locked)).expect("a cause");
    assert_eq!(cause.cause, "the deploy lock is held by Ada at 2026-11-01T09:00:00Z");
    let both = "2026-11-01T09:30:01.123456789Z exec /app: exec format error\n ERROR null\n\
        docker stderr: Error: target failed to become healthy within configured timeout (15s)";
    assert_eq!(explain(&job(both)).expect("a cause").code, "wrong_architecture");
}

#[test]
fn kamal_proxy_knows_why_a_health_check_failed() {
    let job_log = job(
        "docker stderr: Error: target failed to become healthy within configured timeout (15s)",
    );
    let cases = [
        ("wrong_health_path", "unexpected status (404)"),
        ("wrong_port", "dial tcp 172.18.0.5:8080: connect: connection refused"),
        ("crashed_at_start", "dial tcp: lookup shop-web: no such host"),
        ("health_check_slow", "request timed out"),
    ];
    for (code, error) in cases {
        let line =
            format!("{{\"level\":\"INFO\",\"msg\":\"Healthcheck failed\",\"error\":\"{error}\"}}");
        let proxy_log = format!(
            "{{\"msg\":\"Healthcheck failed\",\"error\":\"request timed out\"}}\n{line}\n{{\"msg\":\"Request\",\"status\":\"no such host\"}}\n"
        );
        let cause =
            diagnose(&Evidence { job_log: job_log.clone(), proxy_log, ..Evidence::default() });
        let cause = cause.expect("a cause");
        assert_eq!(cause.code, code);
        assert_eq!(cause.evidence.first(), Some(&line));
        assert!(cause.evidence.len() <= 5);
    }
}

#[test]
fn annotations_are_evidence_too_and_come_first() {
    let annotations = vec!["The job has exceeded the maximum execution time of 30m0s".to_owned()];
    let cause = diagnose(&Evidence { annotations, ..Evidence::default() });
    assert_eq!(cause.map(|cause| cause.code), Some("job_timeout"));
    let billing = "failure: The job was not started because recent account payments have failed or your spending limit needs to be increased";
    let annotations = vec![billing.to_owned()];
    let noted = Evidence { annotations, ..Evidence::default() };
    assert_eq!(diagnose(&noted).map(|cause| cause.code), Some("github_billing"));
    // A job that printed something was started: a script wrote the note.
    let job_log = job("building");
    assert_eq!(diagnose(&Evidence { job_log, ..noted }), None);
}

#[test]
fn evidence_carries_no_control_sequences_and_no_endless_lines() {
    let log = format!(
        "\u{1b}]0;title\u{7}\u{1b}[1mmanifest unknown\u{1b}[0m\u{0}\u{8}{}",
        "x".repeat(10_000)
    );
    let cause = explain(&log).expect("a cause");
    assert!(cause.evidence[0].starts_with("manifest unknown"), "{:?}", cause.evidence[0]);
    assert_eq!(cause.evidence[0].chars().count(), 300);
}
