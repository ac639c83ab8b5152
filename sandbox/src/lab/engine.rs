//! The Docker engine that the lab's containers run in, by its own command line. Everything made here
//! carries the label of the run, and a reaper that holds a pipe of ours removes all of it when the
//! pipe closes.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::SandboxError;

/// What removes all that has the label, once its input has closed. Snapshots and built images last,
/// since containers hold them.
const REAPER: &str = r#"
cat >/dev/null
try() { [ $# -le 3 ] || "$@" >/dev/null 2>&1; }
try docker rm -fv $(docker ps -aq --filter "label=$1")
try docker volume rm -f $(docker volume ls -q --filter "label=$1")
for id in $(docker image ls -q --filter "label=$1" | sort -u); do docker image rm -f "$id" >/dev/null 2>&1; done
docker network rm "$2" >/dev/null 2>&1
exit 0
"#;

/// One engine, and the run that uses it.
pub(super) struct Engine {
    /// As `DOCKER_HOST` names it.
    host: String,
    run: String,
    label: String,
    network: String,
    reaper: Mutex<Option<Child>>,
}

impl Engine {
    /// The engine at `host`, such as `unix:///run/docker.sock`.
    pub(super) fn open(host: &str) -> Result<Self, SandboxError> {
        let run = format!("{:08x}", rand::random::<u32>());
        let (label, network) = (format!("vmkit.lab={run}"), format!("vmkit-lab-{run}"));
        let reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper", &label, &network])
            .env("DOCKER_HOST", host)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| SandboxError::io("start", "sh", source))?;
        let (host, reaper) = (host.to_owned(), Mutex::new(Some(reaper)));
        let engine = Self { host, run, label, network, reaper };
        engine.docker(&["version"])?;
        Ok(engine)
    }

    /// What `DOCKER_HOST` has to be.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// What everything of this run carries.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn network(&self) -> &str {
        &self.network
    }

    /// Runs `docker` with these arguments and returns its output; blocks.
    pub(super) fn docker(&self, args: &[&str]) -> Result<String, SandboxError> {
        self.docker_with(args, None)
    }

    /// Runs `docker` with these arguments and this input; blocks.
    pub(super) fn docker_with(
        &self,
        args: &[&str],
        input: Option<&[u8]>,
    ) -> Result<String, SandboxError> {
        let fail = |source| SandboxError::io("run", "docker", source);
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_BUILDKIT", "0").env("DOCKER_HOST", &self.host);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(fail)?;
        let writer = child
            .stdin
            .take()
            .zip(input.map(<[u8]>::to_vec))
            .map(|(mut pipe, bytes)| std::thread::spawn(move || drop(pipe.write_all(&bytes))));
        let output = child.wait_with_output().map_err(fail)?;
        if let Some(writer) = writer {
            drop(writer.join());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let why = String::from_utf8_lossy(&output.stderr);
        let shown: Vec<&str> = args.iter().copied().take(4).collect();
        let detail = format!("docker {}: {text}{}", shown.join(" "), why.trim());
        Err(SandboxError::Lab { doing: "use Docker", detail })
    }

    /// Lets the reaper do its work, and waits for it.
    pub(super) fn stop(&self) {
        let reaper = crate::lock(&self.reaper).take();
        if let Some(mut reaper) = reaper {
            drop(reaper.stdin.take());
            drop(reaper.wait());
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}
