//! The user-data: its shape, its one secret, and what must never get into it.

use std::path::Path;

use super::*;

fn key(seed: u8) -> String {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
    ssh_key::PublicKey::from(pair.public).to_openssh().expect("a key")
}

/// As VMKit makes it for a first boot.
fn host_key() -> (Secret, String) {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&[3; 32]);
    let text = ssh_key::PrivateKey::from(pair).to_openssh(ssh_key::LineEnding::LF).expect("a key");
    (Secret::new(text.as_str()), key(3))
}

/// The user-data for a VM that VMKit comes to, which is to have `agent` for its agent.
fn served(facts: &Facts, agent: &[u8]) -> Result<String, BootstrapError> {
    use sha2::Digest;
    let (host_private_key, host_public_key) = host_key();
    user_data(&Bootstrap {
        link: Link::Served {
            link_public_key: &key(4),
            host_private_key: &host_private_key,
            host_public_key: &host_public_key,
            agent_bytes: agent.len() as u64,
        },
        agent_sha256: &hex::encode(sha2::Sha256::digest(agent)),
        ..of(facts)
    })
}

struct Facts {
    gateway: Url,
    agent: Url,
    token: Secret,
    hostname: String,
    gateway_key: String,
    sha256: String,
    deploy: String,
    owner: String,
    mirror: Option<Url>,
}

fn facts() -> Facts {
    Facts {
        gateway: "https://vmkit.example.com/".parse().expect("a URL"),
        agent: "https://vmkit.example.com/agent/v1/binary/amd64".parse().expect("a URL"),
        token: Secret::new("token-for-tests"),
        hostname: "shop-staging".to_owned(),
        gateway_key: "AAAA".to_owned(),
        sha256: "ab".repeat(32),
        deploy: key(1),
        owner: format!("{} me@home", key(2)),
        mirror: None,
    }
}

fn made(facts: &Facts) -> Result<String, BootstrapError> {
    user_data(&of(facts))
}

fn of(facts: &Facts) -> Bootstrap<'_> {
    Bootstrap {
        vm: "vm_01jc4k0000000000000000000a".parse().expect("an id"),
        hostname: &facts.hostname,
        link: Link::DialOut { gateway_url: &facts.gateway, agent_url: &facts.agent },
        gateway_key_base64: &facts.gateway_key,
        enrolment_token: &facts.token,
        agent_sha256: &facts.sha256,
        registry_mirror: facts.mirror.as_ref(),
        deploy_public_key: &facts.deploy,
        owner_public_key: &facts.owner,
    }
}

#[test]
fn the_user_data_is_small_whole_and_holds_the_agents_config() {
    let facts = facts();
    let text = made(&facts).expect("made");
    assert!(text.starts_with("#cloud-config\n") && text.len() < MAX_BYTES / 2, "{}", text.len());
    assert!(!regex::Regex::new("@[A-Z_0-9]+@").expect("a pattern").is_match(&text));
    let yaml: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let file = |path: &str| {
        let files = yaml["write_files"].as_array().expect("a list");
        files.iter().find(|file| file["path"] == path).expect("the file").clone()
    };
    let config = file("/etc/vmkit/agent.toml");
    assert_eq!(config["permissions"], "0600");
    let config: toml::Table =
        config["content"].as_str().expect("text").parse().expect("the agent's TOML");
    assert_eq!(config["gateway"].as_str(), Some("https://vmkit.example.com"));
    assert_eq!(config["vm"].as_str(), Some("vm_01jc4k0000000000000000000a"));
    assert_eq!(config["enrolment_token"].as_str(), Some("token-for-tests"));
    let daemon = file("/etc/docker/daemon.json");
    let daemon: serde_json::Value =
        serde_json::from_str(daemon["content"].as_str().expect("text")).expect("JSON");
    assert_eq!(daemon["live-restore"], true);
    let unit = file("/etc/systemd/system/vmkit-agent.service");
    let unit = unit["content"].as_str().expect("text").to_owned();
    assert!(unit.contains("\nExecStart=/usr/local/bin/vmkit-agent run\n"));
    assert_eq!(text.matches("token-for-tests").count(), 1);
}

#[test]
fn a_registry_mirror_is_asked_first_and_cannot_leave_its_place() {
    let daemon = |mirror: &str| {
        let facts = Facts { mirror: Some(mirror.parse().expect("a URL")), ..facts() };
        let yaml: serde_json::Value = serde_saphyr::from_str(&made(&facts)?).expect("YAML");
        let files = yaml["write_files"].as_array().expect("a list");
        let file = files.iter().find(|file| file["path"] == "/etc/docker/daemon.json");
        let text = file.and_then(|file| file["content"].as_str()).expect("text");
        Ok::<_, BootstrapError>(serde_json::from_str::<serde_json::Value>(text).expect("JSON"))
    };
    let daemon_json = daemon("https://mirror.example.com:5000").expect("made");
    let wanted = serde_json::json!(["https://mirror.example.com:5000/"]);
    assert_eq!(daemon_json["registry-mirrors"], wanted);
    assert_eq!(daemon_json["live-restore"], true);
    assert!(daemon("https://mirror.example.com/a'b").is_err());
}

#[test]
fn the_owner_can_log_in_as_admin_and_kamal_and_the_deploy_key_only_as_kamal() {
    let facts = facts();
    let yaml: serde_json::Value =
        serde_saphyr::from_str(&made(&facts).expect("made")).expect("YAML");
    let users = yaml["users"].as_array().expect("a list");
    let keys = |name: &str| {
        let user = users.iter().find(|user| user["name"] == name).expect("the user");
        user["ssh_authorized_keys"].to_string()
    };
    let (deploy, owner) = (key(1), key(2));
    assert!(keys("kamal").contains(&deploy) && keys("kamal").contains(&owner));
    assert!(keys("admin").contains(&owner) && !keys("admin").contains(&deploy));
    assert_eq!(keys("vmkit"), "null");
}

#[test]
fn the_bootstrap_script_is_a_shell_script_that_stops_at_the_first_failure() {
    let text = made(&facts()).expect("made");
    let yaml: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let files = yaml["write_files"].as_array().expect("a list");
    let script = files.iter().find(|file| file["path"] == "/var/lib/vmkit/bootstrap.sh");
    let script = script.and_then(|file| file["content"].as_str()).expect("the script");
    assert!(script.lines().any(|line| line == "set -eu"));
    let checked = std::process::Command::new("sh")
        .args(["-n", "-c", script])
        .output()
        .expect("sh can be started");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Where the command `docker` is once the package `docker.io` is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// In that package: Debian 12, Ubuntu 22.04 and 24.04.
    Within,
    /// In a package of its own, `docker-cli`: Debian 13.
    Apart,
    /// There too, and it cannot be had now.
    Away,
}

/// Runs the script in a folder of its own with stand-ins for what it calls; gives back whether it
/// succeeded, what `bootstrap.state` says, and the calls.
fn booted(command: Command, curl: &str) -> (bool, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut facts = facts();
    let sum = std::process::Command::new("sh").args(["-c", "echo agent | sha256sum"]).output();
    let sum = String::from_utf8(sum.expect("sha256sum runs").stdout).expect("text");
    sum[..64].clone_into(&mut facts.sha256);
    let yaml: serde_json::Value =
        serde_saphyr::from_str(&made(&facts).expect("made")).expect("YAML");
    let files = yaml["write_files"].as_array().expect("a list");
    let script = files.iter().find(|file| file["path"] == "/var/lib/vmkit/bootstrap.sh");
    let script = script.and_then(|file| file["content"].as_str()).expect("the script");
    let script = script
        .replace("/var/lib/vmkit", folder.path().to_str().expect("text"))
        .replace("/usr/local/bin/", &format!("{}/", folder.path().display()));
    for (name, body) in [
        ("systemctl", "echo systemctl \"$@\" >> calls"),
        (
            if command == Command::Within { "docker" } else { "docker-cli" },
            "echo docker \"$@\" >> calls",
        ),
        (
            "apt-get",
            if command == Command::Away {
                "exit 100"
            } else {
                "echo apt-get \"$@\" >> calls; mv docker-cli docker"
            },
        ),
        // There is no user `kamal` here to give a folder to.
        ("install", "[ \"$1\" = -d ] && exit 0; exec /usr/bin/install \"$@\""),
        ("curl", curl),
    ] {
        std::fs::write(path("text"), format!("#!/bin/sh\n{body}\n")).expect("written");
        // By a process of its own: a file that is open for writing in a fork of a neighbouring
        // test cannot be executed.
        let made = std::process::Command::new("install")
            .args(["-m", "0755", "text", name])
            .current_dir(folder.path())
            .status();
        assert!(made.expect("install can be started").success());
    }
    // And of this machine only these: it may have a Docker.
    for name in ["cut", "mv", "rm", "sha256sum", "sh", "tee"] {
        let there = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
        let there = there.into_iter().find(|path| path.exists()).expect("a usual command");
        std::os::unix::fs::symlink(there, path(name)).expect("linked");
    }
    let run = std::process::Command::new("/bin/sh")
        .args(["-c", &script])
        .env("PATH", folder.path())
        .current_dir(folder.path())
        .output()
        .expect("sh can be started");
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    assert_eq!(path("vmkit-agent").exists(), run.status.success());
    (run.status.success(), read("bootstrap.state").trim().to_owned(), read("calls"))
}

#[test]
fn the_first_boot_installs_only_the_agent_that_was_named_and_says_where_it_stopped() {
    let to_file = "while [ \"$1\" != -o ]; do shift; done; ";
    let sends = |what: &str| format!("{to_file} echo {what} > \"$2\"");
    for command in [Command::Within, Command::Apart] {
        let (good, state, calls) = booted(command, &sends("agent"));
        assert!(good, "{state}");
        assert_eq!(state, "done");
        assert!(calls.ends_with("systemctl enable --now vmkit-agent.service\n"), "{calls}");
        let fetched = calls.contains("apt-get install -y --no-install-recommends docker-cli");
        assert_eq!(fetched, command == Command::Apart, "{calls}");
        assert!(calls.contains("docker version"), "{calls}");
    }
    let (good, state, calls) = booted(Command::Away, &sends("agent"));
    assert_eq!((good, state.as_str(), calls.as_str()), (false, "failed: docker (100)", ""));
    let (good, state, calls) = booted(Command::Within, &sends("another"));
    assert_eq!((good, state.as_str()), (false, "failed: verify (1)"));
    assert!(!calls.contains("vmkit-agent"), "{calls}");
    let (good, state, _) = booted(Command::Within, "exit 22");
    assert_eq!((good, state.as_str()), (false, "failed: download (22)"));
}

#[test]
fn a_vm_that_is_come_to_knows_its_host_key_and_has_one_command_for_us() {
    let text = served(&facts(), b"an agent").expect("made");
    assert!(text.len() < MAX_BYTES, "{}", text.len());
    assert!(!regex::Regex::new("@[A-Z_0-9]+@|#</?[a-z-]+>").expect("a pattern").is_match(&text));
    let yaml: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let private = yaml["ssh_keys"]["ed25519_private"].as_str().expect("a key");
    let private = ssh_key::PrivateKey::from_openssh(private).expect("the private host key");
    let public = yaml["ssh_keys"]["ed25519_public"].as_str().expect("a key");
    let public = ssh_key::PublicKey::from_openssh(public).expect("the public host key");
    assert_eq!(private.public_key().key_data(), public.key_data());
    let users = yaml["users"].as_array().expect("a list");
    let vmkit = users.iter().find(|user| user["name"] == "vmkit").expect("the user");
    let line = vmkit["ssh_authorized_keys"][0].as_str().expect("a line");
    assert!(
        line.starts_with("restrict,command=\"/usr/local/lib/vmkit/link\" ssh-ed25519 "),
        "{line}"
    );
    assert_eq!(vmkit["groups"], serde_json::Value::Null, "no docker for it");
    let config = script(&text, "/etc/vmkit/agent.toml");
    assert!(!config.contains("gateway =") && config.contains("gateway_key ="), "{config}");
    // The other kind holds none of it.
    let other = made(&facts()).expect("made");
    assert!(!other.contains("ssh_keys") && !other.contains("upload") && !other.contains("#<"));
    let mut facts = facts();
    facts.owner = "no key".to_owned();
    assert!(served(&facts, b"an agent").is_err());
}

/// A file of the user-data.
fn script(text: &str, path: &str) -> String {
    let yaml: serde_json::Value = serde_saphyr::from_str(text).expect("YAML");
    let files = yaml["write_files"].as_array().expect("a list");
    let file = files.iter().find(|file| file["path"] == path).expect("the file");
    file["content"].as_str().expect("text").to_owned()
}

/// Runs the receiver on a root of its own with this input, and then the installer. Gives back what
/// the receiver said, whether the installer was content, and what is installed.
fn uploaded(agent: &[u8], input: &[u8], change: &str) -> (String, bool, Option<Vec<u8>>) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let text = served(&facts(), agent).expect("made");
    for path in ["etc/vmkit", "run", "var/lib/vmkit", "var/lib/vmkit-upload"] {
        std::fs::create_dir_all(root.join(path)).expect("made");
    }
    std::fs::write(root.join("run/vmkit-boot"), "docker \"$(id)\"\n").expect("written");
    let sum = script(&text, "/etc/vmkit/agent.sha256");
    std::fs::write(root.join("etc/vmkit/agent.sha256"), sum).expect("written");
    let run = |path: &str, input: &[u8]| {
        let mut child = Command::new("sh")
            .args(["-c", &script(&text, path), "sh"])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be started");
        // One that has had enough closes its end.
        drop(child.stdin.take().expect("its input").write_all(input));
        child.wait_with_output().expect("it ends")
    };
    let said = run("/usr/local/lib/vmkit/link", input);
    let changed = Command::new("sh").args(["-c", change]).current_dir(root).status();
    assert!(changed.expect("sh can be started").success());
    let installed = run("/usr/local/lib/vmkit/install-agent", b"");
    let left: Vec<_> = std::fs::read_dir(root.join("var/lib/vmkit-upload")).expect("it").collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!root.join("var/lib/vmkit/agent.new").exists());
    let found = std::fs::read(root.join("usr/local/bin/vmkit-agent")).ok();
    (String::from_utf8_lossy(&said.stdout).into_owned(), installed.status.success(), found)
}

#[test]
fn only_the_agent_that_was_named_is_installed_from_an_upload() {
    let agent = b"an agent\nwith \0 bytes".as_slice();
    let upload = |bytes: &[u8]| [format!("upload {}\n", agent.len()).as_bytes(), bytes].concat();
    let (said, good, found) = uploaded(agent, &upload(agent), "true");
    let offer: serde_json::Value = serde_json::from_str(&said).expect("one line of JSON");
    assert_eq!((&offer["type"], &offer["bytes"]), (&"no_agent".into(), &agent.len().into()));
    assert_eq!(offer["step"], "docker (id)", "only harmless characters pass");
    assert!(good);
    assert_eq!(found.as_deref(), Some(agent));
    // What comes after the bytes is not taken.
    let more = upload(&[agent, b"more"].concat());
    assert_eq!(uploaded(agent, &more, "true").2.as_deref(), Some(agent));
    let other = vec![b'x'; agent.len()];
    for (input, change) in [
        (upload(&other), "true"),
        (upload(&agent[1..]), "true"),
        (format!("upload {}0\n", agent.len()).into_bytes(), "true"),
        (b"rm -rf /\n".to_vec(), "true"),
        (Vec::new(), "true"),
        (
            upload(agent),
            "rm var/lib/vmkit-upload/agent; ln -s ../vmkit/x var/lib/vmkit-upload/agent",
        ),
        (upload(agent), "echo more >> etc/vmkit/agent.sha256; echo x > var/lib/vmkit-upload/agent"),
        (upload(agent), "rm var/lib/vmkit-upload/agent; mkfifo var/lib/vmkit-upload/agent"),
    ] {
        let (_, good, found) = uploaded(agent, &input, change);
        assert!(!good && found.is_none(), "{} {change}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn a_restored_machine_keeps_its_host_keys_and_users_and_runs_nothing() {
    let text = restored("vmkit-01jc4k0000000000000000000a").expect("made");
    let yaml: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(yaml["ssh_deletekeys"], false);
    assert_eq!(yaml["users"], serde_json::json!([]));
    for absent in ["runcmd", "write_files", "packages", "groups"] {
        assert!(yaml[absent].is_null(), "{absent}");
    }
    assert!(restored("x\nruncmd: [id]").is_err());
}

#[test]
fn nothing_leaves_its_place() {
    for payload in
        ["x\"", "x'", "x\ny: z", "$(id)", "`id`", "<%", "a b", "\\", "", "@TOKEN@", "{{ v }}"]
    {
        let refused = |change: fn(&mut Facts, &str)| {
            let mut facts = facts();
            change(&mut facts, payload);
            let error = made(&facts).expect_err(payload);
            assert_eq!(error.code(), "bootstrap_value");
            assert!(payload.is_empty() || !error.to_string().contains(payload));
        };
        refused(|facts, text| text.clone_into(&mut facts.hostname));
        refused(|facts, text| text.clone_into(&mut facts.gateway_key));
        refused(|facts, text| text.clone_into(&mut facts.sha256));
        refused(|facts, text| text.clone_into(&mut facts.deploy));
        refused(|facts, text| text.clone_into(&mut facts.owner));
        refused(|facts, text| facts.token = Secret::new(text));
    }
    let mut facts = facts();
    facts.sha256.truncate(63);
    assert!(made(&facts).is_err());
    // A comment of a pasted key does not reach the file; options before it are refused.
    facts = self::facts();
    facts.owner = format!("{} \"; x: $(id)", key(2));
    assert!(!made(&facts).expect("made").contains("$(id)"));
    facts.owner = format!("command=\"id\" {}", key(2));
    assert!(made(&facts).is_err());
    // Quotes and blanks in a URL are written as %XX, which the shell leaves alone in its quotes.
    facts = self::facts();
    facts.agent = "https://example.com/a' b".parse().expect("a URL");
    assert!(made(&facts).is_err());
}
