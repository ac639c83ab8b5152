//! A GitHub runner of the lab: a container in which scripts are run by real bash, and the builder
//! beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio_util::sync::CancellationToken;

use super::Lab;
use crate::SandboxError;
use crate::github::git::{Files, Mode};
use crate::workflow::interpreter::Lines;

/// GitHub's cancel: SIGINT to bash, then SIGTERM, then the whole tree is killed.
const AFTER_INT: Duration = Duration::from_millis(7_500);
const AFTER_TERM: Duration = Duration::from_millis(2_500);
const TEMP: &str = "/home/runner/work/_temp";
const PID_FILE: &str = "/home/runner/work/_temp/step.pid";
/// Starts a script as GitHub does, and says who it is; `$0` is the script.
const START: &str =
    "echo $$ > /home/runner/work/_temp/step.pid; exec bash --noprofile --norc -eo pipefail \"$0\"";
const KILL_TREE: &str = r#"tree() { for child in $(pgrep -P "$1"); do tree "$child"; done; echo "$1"; }
kill -KILL $(tree "$(cat "$0")")"#;
/// Exit code of a step that cannot be run at all.
const NOT_RUN: i32 = 125;

/// One job's machine. It goes when this is dropped.
pub(crate) struct Runner {
    lab: Lab,
    name: String,
    workspace: String,
}

impl Runner {
    /// Starts a runner whose checkout will be in the folder `workspace`; blocks.
    pub(crate) fn start(lab: &Lab, workspace: &str) -> Result<Self, SandboxError> {
        let name = lab.name("runner");
        let engine = lab.engine();
        engine.docker(&[
            "run",
            "-d",
            "--init",
            "--name",
            &name,
            "--label",
            engine.label(),
            "--network",
            engine.network(),
            "vmkit-lab/runner",
            "sleep",
            "infinity",
        ])?;
        let runner = Self { lab: lab.clone(), name, workspace: workspace.to_owned() };
        runner.root(&["install", "-d", "-o", "runner", "-g", "runner", workspace, TEMP])?;
        runner.root(&["chown", "-R", "runner:runner", "/home/runner/work"])?;
        Ok(runner)
    }

    fn root(&self, command: &[&str]) -> Result<String, SandboxError> {
        self.lab.exec(&self.name, command)
    }

    /// Runs a command as the runner's user and returns what it printed; blocks.
    pub(crate) fn command(&self, command: &[&str]) -> Result<String, SandboxError> {
        let args = ["exec", "-u", "runner", "-e", "HOME=/home/runner", &self.name];
        self.lab.engine().docker(&[&args[..], command].concat())
    }

    /// Replaces the folder `path` of the checkout (all of it where empty) by these files; blocks.
    pub(crate) fn check_out(&self, path: &str, files: &Files) -> Result<(), SandboxError> {
        let folder = format!("{}/{path}", self.workspace);
        let here = tempfile::tempdir_in(self.lab.folder())
            .map_err(|source| SandboxError::io("make a folder in", self.lab.folder(), source))?;
        write_files(here.path(), files)
            .map_err(|source| SandboxError::io("write a checkout to", here.path(), source))?;
        self.root(&["rm", "-rf", &folder])?;
        self.root(&["install", "-d", &folder])?;
        let from = format!("{}/.", here.path().display());
        self.lab.engine().docker(&["cp", &from, &format!("{}:{folder}", self.name)])?;
        self.root(&["chown", "-R", "runner:runner", &folder])?;
        self.command(&["git", "init", "-q", &folder]).map(drop)
    }

    /// Writes a file that the runner's user owns; blocks.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<(), SandboxError> {
        let script = format!("cat > {path}");
        let args = ["exec", "-i", "-u", "runner", &self.name, "sh", "-c", &script];
        self.lab.engine().docker_with(&args, Some(text.as_bytes())).map(drop)
    }

    /// Runs a script by bash, as a step of a workflow; answers its exit code.
    pub(crate) async fn script(
        &self,
        script: &str,
        folder: &str,
        env: &BTreeMap<String, String>,
        lines: &Lines,
        cancelled: &CancellationToken,
    ) -> i32 {
        let file = format!("{TEMP}/script.sh");
        if let Err(error) = self.write(&file, script) {
            lines(&format!("##[error]{error}"));
            return NOT_RUN;
        }
        let folder = format!("{}/{folder}", self.workspace);
        let mut command = tokio::process::Command::new("docker");
        command.env("DOCKER_HOST", self.lab.engine().host());
        command.args(["exec", "-u", "runner", "-w", &folder]);
        for (name, value) in env {
            command.arg("-e").arg(format!("{name}={value}"));
        }
        command.args([self.name.as_str(), "bash", "-c", START, &file]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                lines(&format!("##[error]docker: {error}"));
                return NOT_RUN;
            }
        };
        let told = futures::future::join(
            tell(child.stdout.take(), lines),
            tell(child.stderr.take(), lines),
        );
        let ended = async {
            let (_, status) = futures::future::join(told, child.wait()).await;
            status.ok().and_then(|status| status.code()).unwrap_or(NOT_RUN)
        };
        tokio::pin!(ended);
        tokio::select! {
            code = &mut ended => return code,
            () = cancelled.cancelled() => {}
        }
        for (signal, patience) in [("INT", AFTER_INT), ("TERM", AFTER_TERM)] {
            self.signal(&format!("kill -{signal} \"$(cat \"$0\")\"")).await;
            if let Ok(code) = tokio::time::timeout(patience, &mut ended).await {
                // A cancelled step has not succeeded, whatever it says.
                return if code == 0 { 130 } else { code };
            }
        }
        self.signal(KILL_TREE).await;
        drop(tokio::time::timeout(AFTER_INT, &mut ended).await);
        137
    }

    async fn signal(&self, script: &str) {
        let mut command = tokio::process::Command::new("docker");
        command.env("DOCKER_HOST", self.lab.engine().host());
        command.args(["exec", &self.name, "sh", "-c", script, PID_FILE]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(command.status().await);
    }

    /// Builds an image of a folder of the checkout by the engine, and pushes it with the login of
    /// this runner; blocks.
    pub(crate) fn build_and_push(&self, order: &BuildOrder) -> Result<String, SandboxError> {
        let engine = self.lab.engine();
        let folder = format!("{}/{}", self.workspace, order.context);
        let archive = self.lab.folder().join(format!("{}.context.tar", self.name));
        let inside = format!("{TEMP}/context.tar");
        self.root(&["tar", "--exclude=./.git", "-C", &folder, "-cf", &inside, "."])?;
        let here = archive.display().to_string();
        engine.docker(&["cp", &format!("{}:{inside}", self.name), &here])?;
        let context =
            std::fs::read(&archive).map_err(|source| SandboxError::io("read", &archive, source))?;
        let local = format!("vmkit-lab/built:{}", self.name);
        let mut args = vec!["build", "--force-rm", "-f", &order.dockerfile, "-t", &local];
        let labels: Vec<&str> =
            order.labels.iter().map(String::as_str).chain([engine.label()]).collect();
        for label in labels {
            args.extend(["--label", label]);
        }
        args.push("-");
        let mut log = engine.docker_with(&args, Some(&context))?;
        drop(std::fs::remove_file(&archive));
        let image = self.lab.folder().join(format!("{}.image.tar", self.name));
        let here = image.display().to_string();
        engine.docker(&["save", "-o", &here, &local])?;
        let inside = format!("{TEMP}/image.tar");
        engine.docker(&["cp", &here, &format!("{}:{inside}", self.name)])?;
        self.root(&["chown", "runner", &inside])?;
        drop(std::fs::remove_file(&image));
        for tag in &order.tags {
            let to = format!("docker://{tag}");
            let from = format!("docker-archive:{inside}");
            log.push_str(&self.command(&[
                "skopeo",
                "copy",
                "-q",
                "--authfile",
                AUTH,
                &from,
                &to,
            ])?);
            log.push_str(&format!("pushed {tag}\n"));
        }
        Ok(log)
    }

    /// Logs in to a registry; blocks.
    pub(crate) fn log_in(
        &self,
        registry: &str,
        user: &str,
        password: &str,
    ) -> Result<String, SandboxError> {
        let args = [
            "exec",
            "-i",
            "-u",
            "runner",
            &self.name,
            "skopeo",
            "login",
            "--authfile",
            AUTH,
            "-u",
            user,
            "--password-stdin",
            registry,
        ];
        self.lab.engine().docker_with(&args, Some(password.as_bytes()))
    }
}

const AUTH: &str = "/home/runner/work/_temp/auth.json";

/// What `docker/build-push-action` is asked for.
pub(crate) struct BuildOrder {
    /// Relative to the checkout.
    pub(crate) context: String,
    /// Relative to the context.
    pub(crate) dockerfile: String,
    pub(crate) tags: Vec<String>,
    pub(crate) labels: Vec<String>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.lab.engine().docker(&["rm", "-fv", &self.name]));
        let image = format!("vmkit-lab/built:{}", self.name);
        drop(self.lab.engine().docker(&["image", "rm", "-f", &image]));
    }
}

async fn tell(pipe: Option<impl AsyncRead + Unpin>, lines: &Lines) {
    let Some(pipe) = pipe else { return };
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        lines(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
}

fn write_files(folder: &Path, files: &Files) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for (path, file) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if file.mode == Mode::Symlink {
            let to = String::from_utf8_lossy(&file.bytes).into_owned();
            std::os::unix::fs::symlink(to, &path)?;
            continue;
        }
        std::fs::write(&path, &file.bytes)?;
        let mode = if file.mode == Mode::Executable { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}
