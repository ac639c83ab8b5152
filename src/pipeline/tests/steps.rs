//! The shell of the workflow's steps, run as GitHub runs it, with a stand-in for `kamal`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::*;

/// A home folder with a `kamal` that does as told.
struct Runner {
    folder: tempfile::TempDir,
    steps: Vec<serde_json::Value>,
}

impl Runner {
    fn new(kamal: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut setup = setup(
            dockerfile(),
            vec![
                environment("shop/production", Arch::Amd64, Some("203.0.113.7")),
                environment("shop/staging", Arch::Amd64, Some("203.0.113.8")),
            ],
        );
        let kind = ServiceKind::Postgres;
        let version = kind.default_version();
        setup.environments[1].services = vec![ServiceSetup { kind, version, memory_mb: None }];
        let workflow = files(&setup).expect("made").swap_remove(0).content;
        let workflow: serde_json::Value = serde_saphyr::from_str(&workflow).expect("YAML");
        let steps = workflow["jobs"]["deploy"]["steps"].as_array().expect("steps").clone();
        let script = format!("#!/bin/bash\necho \"$@\" >> \"$HOME/calls\"\n{kamal}\n");
        std::fs::write(folder.path().join("kamal.text"), script).expect("written");
        // By a process of its own: a file that is open for writing in a fork of a neighbouring
        // test cannot be executed.
        let made = Command::new("install")
            .args(["-m", "0755", "kamal.text", "kamal"])
            .current_dir(folder.path())
            .status();
        assert!(made.expect("install can be started").success());
        Self { folder, steps }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, step: &str) -> Command {
        let step = self.steps.iter().find(|s| s["name"] == step).expect("the step");
        let mut command = Command::new("bash");
        command
            .args(["--noprofile", "--norc", "-eo", "pipefail", "-c"])
            .arg(step["run"].as_str().expect("a script"))
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("PATH", format!("{}:/usr/bin:/bin", self.folder.path().display()))
            .env("VMKIT_ENVIRONMENT", "staging")
            .env("VERSION", "a".repeat(40))
            .env("GITHUB_RUN_ID", "77")
            .env("GITHUB_RUN_ATTEMPT", "1");
        command
    }

    fn run(&self, step: &str) -> Output {
        self.command(step).output().expect("bash can be started")
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.path("calls")).unwrap_or_default()
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn the_ssh_step_refuses_empty_values_and_writes_private_files() {
    let step = "SSH access to staging";
    for (key, hosts, says) in [
        ("", "203.0.113.8 ssh-ed25519 AAAA", "the secret VMKIT_SSH_KEY_STAGING is empty"),
        ("key", "", "the variable VMKIT_KNOWN_HOSTS_STAGING is empty"),
        ("key", " \n\t", "the variable VMKIT_KNOWN_HOSTS_STAGING is empty"),
    ] {
        let runner = Runner::new("");
        let mut command = runner.command(step);
        let out = command.env("SSH_PRIVATE_KEY", key).env("SSH_KNOWN_HOSTS", hosts).output();
        let out = out.expect("bash can be started");
        assert!(!out.status.success());
        assert!(text(&out).contains(&format!("::error::{says}")), "{}", text(&out));
        assert!(!runner.path(".ssh").exists());
    }
    let runner = Runner::new("");
    let ssh = runner.path(".ssh");
    std::fs::create_dir(&ssh).expect("made");
    // A runner image may have brought one that everybody can read.
    std::fs::write(ssh.join("known_hosts"), "old").expect("written");
    std::fs::set_permissions(ssh.join("known_hosts"), std::fs::Permissions::from_mode(0o666))
        .expect("set");
    let mut command = runner.command(step);
    command.env("SSH_PRIVATE_KEY", "line 1\nline 2").env("SSH_KNOWN_HOSTS", "203.0.113.8 key");
    let out = command.output().expect("bash can be started");
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!((mode(&ssh), mode(&ssh.join("known_hosts"))), (0o700, 0o600));
    assert_eq!(mode(&ssh.join("id_ed25519")), 0o600);
    let read = |name: &str| std::fs::read_to_string(ssh.join(name)).expect("read");
    assert_eq!(read("known_hosts"), "203.0.113.8 key\n");
    assert_eq!(read("id_ed25519"), "line 1\nline 2\n");
    assert!(runner.run("Remove the SSH key").status.success());
    assert!(!ssh.join("id_ed25519").exists());
}

#[test]
fn the_deploy_step_keeps_kamals_exit_code_and_hides_the_apps_words() {
    let runner = Runner::new(
        r#"echo "  INFO [1f2e3d4c] Running docker pull on 203.0.113.8"
           echo "  ERROR 2026-11-01T09:30:01.123456789Z PASSWORD=hunter2 in a stack trace"
           echo "2026-11-01T09:30:01.223456789Z PASSWORD=hunter2 again" >&2
           echo "2026-11-01T09:30:01.323456789Z exec /cnb/process/web: exec format error"
           echo "  ERROR (SSHKit::Command::Failed): target failed to become healthy"
           exit 7"#,
    );
    let out = runner.run("Deploy with Kamal");
    assert_eq!(out.status.code(), Some(7));
    let shown = text(&out);
    assert!(!shown.contains("hunter2"), "{shown}");
    for kept in ["Running docker pull", "exec format error", "target failed to become healthy"] {
        assert!(shown.contains(kept), "{kept} in {shown}");
    }
    assert_eq!(
        runner.calls(),
        format!("deploy -c config/deploy.staging.yml --skip-push --version={}\n", "a".repeat(40))
    );
    assert_eq!(Runner::new("exit 0").run("Deploy with Kamal").status.code(), Some(0));
}

#[test]
fn what_runs_beside_is_started_and_one_is_made_anew_by_name() {
    let step = "Start what runs beside staging with Kamal";
    let runner = Runner::new("exit 3");
    let started = |service: &str| {
        let out = runner.command(step).env("SERVICE", service).output();
        out.expect("bash can be started").status.code()
    };
    for bad in ["db; id", "$(id)", "-h", "DB", "db\nx", "vmkit-traefik"] {
        assert_eq!((started(bad), runner.calls()), (Some(1), String::new()), "{bad:?}");
    }
    assert_eq!(started(""), Some(3), "Kamal's own exit code");
    assert_eq!(started("db"), Some(3));
    let calls = "accessory boot all -c config/deploy.staging.yml\n\
                 accessory reboot db -c config/deploy.staging.yml\n";
    assert_eq!(runner.calls(), calls);
    let beside = |step: &&serde_json::Value| {
        step["name"].as_str().is_some_and(|name| name.starts_with("Start what runs beside"))
    };
    assert_eq!(runner.steps.iter().filter(beside).count(), 1, "production has nothing beside it");
}

#[test]
fn kamal_takes_the_place_of_the_shell_so_that_a_cancel_reaches_it() {
    let runner = Runner::new("echo pid $$");
    let child = runner.command("Deploy with Kamal").stdout(std::process::Stdio::piped()).spawn();
    let child = child.expect("bash can be started");
    let pid = child.id();
    let out = child.wait_with_output().expect("it ends");
    assert_eq!(text(&out).trim(), format!("pid {pid}"));
}

#[test]
fn a_failed_run_releases_its_own_lock_and_no_other() {
    let step = "Release the lock that this run left";
    for (holder, released) in [
        ("Locked by: vmkit-run-77-1 at 2026-11-01T09:00:00Z", true),
        ("Locked by: vmkit-run-77-2 at 2026-11-01T09:00:00Z", false),
        ("Locked by: vmkit-run-7 at 2026-11-01T09:00:00Z", false),
        ("Locked by: Ada at 2026-11-01T09:00:00Z", false),
        ("Locked by: Ada at x\nMessage: Locked by: vmkit-run-77-1 at x", false),
        ("There is no deploy lock", false),
    ] {
        let runner = Runner::new(&format!("[ \"$2\" != status ] || echo '{holder}'"));
        let out = runner.run(step);
        assert!(out.status.success(), "{holder}: {}", text(&out));
        assert_eq!(
            runner.calls().contains("lock release -c config/deploy.staging.yml"),
            released,
            "{holder}"
        );
    }
    // Kamal that cannot even connect does not hide the first failure.
    assert!(Runner::new("exit 1").run(step).status.success());
}

#[test]
fn unlock_frees_a_dead_runs_lock_and_never_a_persons() {
    let step = "Release the lock of a run that died";
    for (holder, released, good) in [
        ("Locked by: vmkit-run-1234-1 at 2026-11-01T09:00:00Z", true, true),
        ("Locked by: Ada at 2026-11-01T09:00:00Z", false, false),
        ("Locked by: vmkit-run-me at 2026-11-01T09:00:00Z", false, false),
        ("There is no deploy lock", false, true),
    ] {
        let runner = Runner::new(&format!("[ \"$2\" != status ] || echo '{holder}'"));
        let out = runner.run(step);
        assert_eq!(out.status.success(), good, "{holder}: {}", text(&out));
        assert_eq!(runner.calls().contains("lock release"), released, "{holder}");
    }
}

#[test]
fn what_is_not_a_commit_id_or_has_no_config_stops_the_job() {
    let runner = Runner::new("");
    assert!(runner.run("Check the commit id").status.success());
    for bad in ["main", "", "A0", "$(id)", &"a".repeat(41), &format!("{}\nx", "a".repeat(40))] {
        let out = runner.command("Check the commit id").env("VERSION", bad).output();
        assert!(!out.expect("bash can be started").status.success(), "{bad:?}");
    }
    let step = "Check that the environment has a VM";
    assert!(!runner.run(step).status.success());
    std::fs::create_dir(runner.path("config")).expect("made");
    std::fs::write(runner.path("config/deploy.staging.yml"), "").expect("written");
    assert!(runner.run(step).status.success());
}

#[test]
fn only_the_chosen_environments_secret_is_given_to_its_step() {
    let runner = Runner::new("");
    for step in &runner.steps {
        let shown = step.to_string();
        let secrets = shown.matches("secrets.VMKIT_SSH_KEY_").count();
        let guarded = step["if"].as_str().is_some_and(|c| c.starts_with("inputs.environment == '"));
        assert!(secrets == 0 || (secrets == 1 && guarded), "{shown}");
    }
}

/// Runs the hook as Kamal does, where a `docker` on the VM writes down what it is asked for.
fn hooked(setup: &Setup, service: &str, docker: &str) -> (Output, String) {
    let runner = Runner::new(r#"for last; do :; done; exec sh -c "$last""#);
    let script = format!("#!/bin/bash\necho \"docker $*\" >> \"$HOME/asked\"\n{docker}\n");
    std::fs::write(runner.path("docker.text"), script).expect("written");
    let hook = files(setup).expect("made").into_iter().find(|file| file.executable).expect("one");
    std::fs::write(runner.path("hook.text"), hook.content).expect("written");
    for (from, to) in [("docker.text", "docker"), ("hook.text", "hook")] {
        let made = Command::new("install")
            .args(["-m", "0755", from, to])
            .current_dir(runner.folder.path())
            .status();
        assert!(made.expect("install can be started").success());
    }
    let out = Command::new(runner.path("hook"))
        .current_dir(runner.folder.path())
        .env("HOME", runner.folder.path())
        .env("PATH", format!("{}:/usr/bin:/bin", runner.folder.path().display()))
        .env("KAMAL_SERVICE", service)
        .env("KAMAL_VERSION", "abc")
        .output()
        .expect("the hook can be started");
    let asked = std::fs::read_to_string(runner.path("asked")).unwrap_or_default();
    (out, asked)
}

#[test]
fn the_hook_migrates_in_the_new_image_and_keeps_the_apps_words_to_the_vm() {
    let language = Language::Ruby;
    let mut setup = setup(
        Build::Buildpacks { language },
        vec![
            environment("shop/production", Arch::Amd64, Some("203.0.113.7")),
            environment("shop/staging", Arch::Amd64, Some("203.0.113.7")),
        ],
    );
    setup.release = Some("bin/rails db:migrate".to_owned());
    let volume = ("data".parse().expect("a name"), "/data".parse().expect("a folder"));
    setup.environments[0].run.volumes = [volume].into();
    setup.environments[1].run.release = Some(crate::domain::run_settings::Release::Off);
    let well = r#"[ "$1" != image ] || echo 1002:1000"#;
    let (out, asked) = hooked(&setup, "shop-production", well);
    assert!(out.status.success(), "{}", text(&out));
    let image = "ghcr.io/octo/shop/production:abc";
    let lines: Vec<&str> = asked.lines().collect();
    assert_eq!(lines[0], format!("docker image inspect --format {{{{.Config.User}}}} {image}"));
    assert_eq!(
        lines[1],
        format!(
            "docker run --rm --network none --user 0 --entrypoint chown --volume shop-production-data:/data {image} 1002:1000 /data"
        )
    );
    assert!(
        lines[2].ends_with(&format!("--entrypoint launcher {image} bin/rails db:migrate")),
        "{asked}"
    );
    assert!(lines[2].contains("--env-file /etc/vmkit/env/shop/production.env"), "{asked}");
    // An environment that needs nothing, and a service of somebody else's.
    for service in ["shop-staging", "other"] {
        let (out, asked) = hooked(&setup, service, well);
        assert!(out.status.success() && asked.is_empty(), "{asked}");
    }
    // What fails stops the deploy, and says where to read on; what it printed stays on the VM.
    let (out, _) = hooked(
        &setup,
        "shop-production",
        r#"case "$*" in *launcher*) echo PASSWORD=hunter2; exit 3 ;; esac"#,
    );
    assert!(!out.status.success());
    let said = text(&out);
    assert!(said.contains("the release command failed") && !said.contains("hunter2"), "{said}");
}
