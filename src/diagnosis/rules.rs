//! What each cause prints, in the order in which they are asked: the deeper cause first.

use std::sync::LazyLock;

use regex::Regex;

use super::lines::Line;

/// One cause and the text that only it prints.
pub(super) struct Rule {
    pub(super) code: &'static str,
    pub(super) fix: &'static str,
    cause: &'static str,
    pattern: Regex,
    in_app: bool,
}

impl Rule {
    /// The cause as a sentence, if the line gives it away.
    pub(super) fn on(&self, line: &Line) -> Option<String> {
        if line.of_the_app && !self.in_app { None } else { self.expanded(&line.text) }
    }

    /// Whether the pattern is in the text.
    pub(super) fn fits(&self, text: &str) -> bool {
        self.pattern.is_match(text)
    }

    /// The sentence with the pattern's groups in it, each cut at 200 characters.
    pub(super) fn expanded(&self, text: &str) -> Option<String> {
        let groups = self.pattern.captures(text)?;
        let mut cause = self.cause.to_owned();
        for (at, group) in groups.iter().enumerate().skip(1) {
            let group: String = group.map_or("", |m| m.as_str()).chars().take(200).collect();
            cause = cause.replace(&format!("${at}"), group.trim());
        }
        Some(cause.trim_end_matches([' ', ':']).to_owned())
    }
}

/// Causes in a job's log or annotations.
pub(super) static ALL: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    [GITHUB, OURS, BUILD, KAMAL, VM, BOOT].concat().into_iter().map(rule).collect()
});

/// What kamal-proxy says of a target that does not get healthy.
pub(super) static PROXY: LazyLock<Vec<Rule>> =
    LazyLock::new(|| PROXY_TABLE.iter().copied().map(rule).collect());

/// Code, pattern, cause, fix.
type Row = (&'static str, &'static str, &'static str, &'static str);

fn rule((code, pattern, cause, fix): Row) -> Rule {
    let pattern = Regex::new(pattern).expect("the patterns are fixed, and a test compiles them");
    Rule { code, fix, cause, pattern, in_app: code == "wrong_architecture" }
}

const GITHUB: &[Row] = &[
    (
        "github_billing",
        r"recent account payments have failed or your spending limit needs to be increased",
        "GitHub did not start the job: the account's payment failed, or its spending limit is reached",
        "open Billing in the GitHub account's settings, then deploy again",
    ),
    (
        "job_timeout",
        r"The job has exceeded the maximum execution time of (\S+)",
        "the job ran longer than its limit of $1 and was stopped",
        "see which step took the time; raise timeout-minutes in the workflow if the build needs it",
    ),
    (
        "workflow_not_indexed",
        r"Workflow does not have 'workflow_dispatch' trigger",
        "GitHub does not know the workflow's inputs yet, or its YAML does not parse",
        "wait a minute and deploy again; then check that the workflow on the default branch is valid",
    ),
    (
        "workflow_outdated",
        r"Unexpected inputs provided: (.*)",
        "the workflow on the default branch is older than this VMKit and does not take $1",
        "merge the open pull request of VMKit, or call setup_repo again",
    ),
    (
        "github_permission",
        r"Resource not accessible by (?:integration|personal access token)",
        "the GitHub token lacks a permission for this repo",
        "grant it Actions, Contents, Pull requests, Secrets and Variables (write) on the repo",
    ),
];

/// What our own workflow says.
const OURS: &[Row] = &[
    (
        "deploy_key_missing",
        r"^(?:##\[error\]|::error::)the secret (\w+) is empty",
        "the repo has no secret $1, so nothing can log in to the VM",
        "run provision_vm or deploy through VMKit once more: it writes the secret",
    ),
    (
        "host_key_missing",
        r"^(?:##\[error\]|::error::)the variable (\w+) is empty",
        "the repo has no variable $1 with the VM's host key, so nothing was sent to the VM",
        "run deploy through VMKit once more: it writes the variable",
    ),
    (
        "config_not_merged",
        r"^(?:##\[error\]|::error::)(\S+) is not on the default branch",
        "$1 is not on the default branch",
        "merge the open pull request of VMKit; if there is none, call provision_vm for the environment first",
    ),
    (
        "bad_commit_id",
        r"^(?:##\[error\]|::error::)sha must be a full commit id",
        "the workflow was given something else than a full commit id",
        "give all 40 digits, or leave the field empty",
    ),
    (
        "lock_of_a_person",
        r"^(?:##\[error\]|::error::)a person holds this lock",
        "a person holds the deploy lock",
        "ask them; or release it by hand with `kamal lock release -c config/deploy.ENVIRONMENT.yml`",
    ),
];

const BUILD: &[Row] = &[
    (
        "no_buildpack",
        r"No buildpack groups passed detection",
        "Buildpacks recognised no language in the app's folder",
        "check the root directory, or add a Dockerfile",
    ),
    (
        "dockerfile_missing",
        r"failed to read dockerfile: open (\S+?): no such file",
        "the commit has no $1",
        "add it, or scan the repo again so that the build follows what is there",
    ),
    (
        "build_command_failed",
        r#"failed to solve: process "(?:/bin/(?:ba)?sh -\w+ )?(.*)" did not complete successfully: exit code: (\d+)"#,
        "the build command `$1` ended with exit code $2",
        "read the lines above it in the build log, and mend the code or the Dockerfile",
    ),
    (
        "registry_push_denied",
        r"denied: (installation not allowed to (?:Create|Write) organization package|permission_denied: write_package)",
        "ghcr.io refused the image: $1",
        "let the repo write packages (organisation settings, or Manage Actions access on the package's page)",
    ),
    (
        "build_failed",
        r"ERROR: failed to (?:solve|build): (.*)",
        "the image was not built: $1",
        "read the lines above it in the build log, and mend the code or the build",
    ),
];

const KAMAL: &[Row] = &[
    (
        "deploy_locked",
        r"Locked by: (.+? at \S+)",
        "the deploy lock is held by $1",
        "if that deploy is alive, wait for it; if it died, deploy with the action unlock and try again",
    ),
    (
        "deploy_locked",
        r"Kamal::Cli::LockError|Deploy lock found",
        "another deploy, alive or dead, holds the deploy lock",
        "if that deploy is alive, wait for it; if it died, deploy with the action unlock and try again",
    ),
    (
        "secret_missing",
        r"Secret '(\w+)' not found in \.kamal/secrets",
        "`.kamal/secrets` has no line for $1",
        "add the line to .kamal/secrets and the value to the workflow, or remove the name from the config",
    ),
    (
        "kamal_config",
        r"ERROR \((?:Kamal::ConfigurationError|Psych::SyntaxError)\): (.*)",
        "Kamal refuses the config file: $1",
        "mend config/deploy.ENVIRONMENT.yml on the default branch; `kamal config -c FILE` checks it",
    ),
    (
        "registry_password_empty",
        r"flag needs an argument: 'p' in -p",
        "the registry's password was empty",
        "check that the workflow passes KAMAL_REGISTRY_PASSWORD to the deploy step",
    ),
    (
        "host_key_changed",
        r"fingerprint (SHA256:\S+) does not match for|Net::SSH::HostKeyMismatch",
        "the VM showed another host key than the one that is known: it was rebuilt, or something stands in between",
        "if the VM was rebuilt, deploy through VMKit, which knows its new key; if not, do not go on before you know why",
    ),
    (
        "host_key_unknown",
        r"Net::SSH::HostKeyUnknown",
        "the VM's host key is not among the known ones, so nothing was sent",
        "run deploy through VMKit once more: it writes the variable with the VM's host key",
    ),
    (
        "ssh_auth_failed",
        r"Authentication failed for user (\S+)",
        "the VM refused the deploy key of $1",
        "check that the key is in ~kamal/.ssh/authorized_keys on the VM; VMKit writes the repo's secret anew on the next deploy",
    ),
    (
        "ssh_throttled",
        r"Net::SSH::Disconnect|ERROR \(.*connection closed by remote host",
        "the VM's SSH server closed the connection: too many failed logins, or too many at once",
        "wait ten minutes, then deploy once more",
    ),
    (
        "vm_unreachable",
        r"(?:Errno::EHOSTUNREACH|Errno::ETIMEDOUT|Net::SSH::ConnectionTimeout)|Errno::ECONNREFUSED.*connect\(2\) for \S+:22|connect\(2\) for \S+:22.*Errno::ECONNREFUSED",
        "the VM does not answer on its SSH port",
        "check that the VM is on and that its firewall lets port 22 in",
    ),
    (
        "address_unknown",
        r"ERROR \((?:Socket::ResolutionError|SocketError)\)",
        "the address in the config file is a name that does not resolve",
        "put the VM's IP address into `servers` of config/deploy.ENVIRONMENT.yml",
    ),
];

const VM: &[Row] = &[
    (
        "docker_forbidden",
        r"permission denied while trying to connect to the Docker daemon socket",
        "the user kamal may not use Docker on the VM",
        "add kamal to the group docker on the VM",
    ),
    (
        "docker_down",
        r"Cannot connect to the Docker daemon at",
        "Docker does not run on the VM",
        "start it: `systemctl start docker`; `journalctl -u docker` says why it stopped",
    ),
    (
        "docker_missing",
        r"docker: (?:command )?not found",
        "Docker is not installed on the VM",
        "wait until the VM's first boot has ended; if it has, install docker.io",
    ),
    (
        "disk_full",
        r"no space left on device",
        "a disk is full",
        "free space with `docker system prune` on the VM, or take a bigger size",
    ),
    (
        "image_missing",
        r"manifest for (\S+) not found|manifest unknown",
        "the image does not exist in the registry: $1",
        "deploy the commit with a build; a rollback needs an image that still exists",
    ),
    (
        "image_label_missing",
        r"Image (\S+) is missing the 'service' label",
        "the image $1 was built for another environment, or without VMKit's workflow",
        "deploy the commit with a build for this environment",
    ),
    (
        "registry_rate_limit",
        r"toomanyrequests",
        "Docker Hub's limit for anonymous pulls is reached",
        "wait an hour, or log the VM in to Docker Hub",
    ),
    (
        "registry_denied",
        r"login attempt to (\S+) failed with status: 401|Error response from daemon: (?:.*: )?denied",
        "the registry refused the VM's login",
        "deploy once more; if it stays, check that the workflow may read packages",
    ),
    (
        "port_taken",
        r"listen tcp\S* \S+:(80|443): bind: address already in use",
        "another program on the VM has port $1, so the proxy cannot start",
        "stop nginx, apache or Traefik on the VM, then deploy again",
    ),
    (
        "proxy_image_missing",
        r"Unable to find image '(basecamp/kamal-proxy\S+)' locally",
        "the VM could not load the proxy's image $1",
        "check that the VM reaches Docker Hub, then deploy again",
    ),
    (
        "domain_taken",
        r"host settings conflict with another service",
        "another app on the VM has this domain, or both have none",
        "give each app on the VM a domain of its own",
    ),
    (
        "proxy_too_old",
        r"kamal-proxy version (\S+) is too old",
        "the proxy on the VM ($1) is older than this Kamal needs",
        "run `kamal proxy reboot -c config/deploy.ENVIRONMENT.yml` at a quiet hour",
    ),
    (
        "env_file_missing",
        r"docker: open (/etc/vmkit/env/\S+?): no such file or directory",
        "the app's env file $1 is not on the VM",
        "deploy through VMKit: it has the agent write the file first",
    ),
    (
        "env_line_too_long",
        r"bufio\.Scanner: token too long",
        "a line of the app's env file is longer than Docker reads",
        "shorten the value below 60 KiB, or put it into a file",
    ),
    (
        "release_gone",
        r"The app version '(\S+)' is not available as a container",
        "the container of version $1 is no longer on the VM, so Kamal rolled nothing back",
        "use rollback of VMKit, which deploys the version's image",
    ),
    (
        "certificate_rate_limit",
        r"urn:ietf:params:acme:error:rateLimited",
        "Let's Encrypt's limit for this domain is reached",
        "wait until the time that the text names; the app answers without a certificate until then",
    ),
];

const BOOT: &[Row] = &[
    (
        "wrong_architecture",
        r"exec format error",
        "the image is built for another architecture than the VM's",
        "let VMKit write the workflow anew, so that it builds for the VM's architecture",
    ),
    (
        "process_not_running",
        r"container not ready after \d+ seconds \((\w+)\)",
        "a process of the app did not stay up (it is $1)",
        "read its last lines with get_logs; the old version goes on serving",
    ),
    (
        "health_check_failed",
        r"target failed to become healthy within configured timeout",
        "the new version did not answer its health path in time",
        "read its last lines with get_logs; check the port, the health path and the env values",
    ),
];

const PROXY_TABLE: &[Row] = &[
    (
        "wrong_health_path",
        r"unexpected status \((\d+)\)",
        "the app answered its health path with $1 instead of 2xx",
        "set the health path to one that answers 200 without a login, or mend the app",
    ),
    (
        "wrong_port",
        r"connect: connection refused",
        "nothing answered on the app's port: it listens on another one, on 127.0.0.1 only, or starts too slowly",
        "let the app listen on 0.0.0.0 and on the port in PORT",
    ),
    (
        "crashed_at_start",
        r"no such host",
        "the app ended right after its start",
        "read its last lines with get_logs; a missing env value is the usual reason",
    ),
    (
        "health_check_slow",
        r"request timed out|context deadline exceeded",
        "the app took too long to answer its health path",
        "let the health path do less, or give it more time",
    ),
];
