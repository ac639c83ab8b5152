//! A sandbox for a test: its vmkit binary is a script that plays the agent, and images are folders
//! with shell scripts.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmkit_sandbox::machines::{ContainerSpec, Image, Machine, MachineOrder};
use vmkit_sandbox::{Options, Sandbox};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with what plays the vmkit binary: `agent run ... --root ROOT` notes its process id in
/// ROOT/agents and stays; everything else is the sandbox's own.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = env!("CARGO_BIN_EXE_vmkit-sandbox");
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" != agent ]; then exec '{own}' \"$@\"; fi\n\
             for root; do :; done\necho \"$$ $*\" >> \"$root/agents\"\nexec sleep 1000\n"
        );
        let stage = Self { dir };
        stage.write("vmkit", &script, 0o755);
        stage
    }

    pub(crate) fn exe(&self) -> PathBuf {
        self.dir.path().join("vmkit")
    }

    pub(crate) async fn sandbox(&self) -> Sandbox {
        Sandbox::start(Options { exe: self.exe(), ..Options::default() }).await.unwrap()
    }

    /// A container of this name that runs a shell script.
    pub(crate) fn shell(&self, name: &str, script: &str) -> ContainerSpec {
        let image = Image {
            reference: "sandbox/test:1".into(),
            dir: self.dir.path().to_owned(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            ..Image::default()
        };
        let labels = [("service".to_owned(), "shop".to_owned())].into();
        ContainerSpec { name: name.into(), image, labels, ..ContainerSpec::default() }
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// User-data as VMKit writes it, in short.
pub(crate) fn user_data() -> String {
    "#cloud-config\nhostname: shop\nusers:\n  - name: kamal\n    groups: [docker]\n    \
     ssh_authorized_keys: [ssh-ed25519 AAAA deploy]\nwrite_files:\n  - path: /etc/vmkit/agent.toml\n    \
     permissions: '0600'\n    content: |\n      vm = \"vm_test\"\n  - path: \
     /etc/systemd/system/vmkit-agent.service\n    content: |\n      [Service]\n      \
     ExecStart=/usr/local/bin/vmkit-agent run\n      Restart=always\n"
        .to_owned()
}

/// A machine without the detour over the cloud's API.
pub(crate) async fn machine(sandbox: &Sandbox) -> Machine {
    let order =
        MachineOrder { name: "shop".into(), user_data: user_data(), ..MachineOrder::default() };
    sandbox.machines().create(order).await.unwrap()
}

/// Asks until the answer is there.
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The processes of this computer that have anything to do with `dir`: in their command line, their
/// working directory or their environment.
pub(crate) fn processes_of(dir: &Path) -> Vec<String> {
    let text = dir.to_str().unwrap();
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.chars().all(|c| c.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        // A process that has ended and waits to be noticed has neither.
        if command.contains(text) || environment.contains(text) || cwd.starts_with(dir) {
            found.push(format!("{pid} {command}"));
        }
    }
    found
}
