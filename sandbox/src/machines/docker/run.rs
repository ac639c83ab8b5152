//! A container's process: started, its output read into the log, its end noted, started again
//! where its restart policy says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::task::JoinHandle;

use super::{Container, Docker, KILL_TIMEOUT};
use crate::clock;
use crate::machines::container::{LogStream, MESSAGE_BYTES_MAX};
use crate::machines::spawner::{Process, Start, kill_group};

/// Docker's first wait before a restart; it doubles up to a minute.
const RESTART_WAIT_MS: u64 = 100;
const RESTART_WAIT_MS_MAX: u64 = 60_000;
/// How long the pipes of an ended process may take to run dry.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

impl Docker {
    /// Starts the container's process and looks after it from then on.
    pub(super) async fn start_process(&self, container: &Arc<Container>) -> Result<(), String> {
        if !container.claim_start() {
            return Ok(());
        }
        container.state().stop_asked = false;
        if container.spec.image.dir.as_os_str().is_empty() {
            self.start_builtin(container);
            return Ok(());
        }
        let process = self.spawn(container).await?;
        let docker = self.clone();
        let container = container.clone();
        tokio::spawn(async move { docker.look_after(container, process).await });
        Ok(())
    }

    fn restarts(&self, container: &Container) -> bool {
        let powered = self.0.powered.load(Ordering::SeqCst);
        let kept = self.find(&container.id).is_ok();
        container.spec.restart && !container.state().stop_asked && powered && kept
    }

    /// Starts the process of a container whose start was claimed.
    async fn spawn(&self, container: &Container) -> Result<Process, String> {
        let process = self.spawn_unnoted(container).await;
        {
            let mut state = container.state();
            state.starting = false;
            if let Ok(process) = &process {
                state.running = true;
                state.pid = Some(process.pid);
                state.started_at = clock::now();
            }
        }
        container.changed();
        if process.is_ok() {
            self.name_containers();
            self.tell(container, "start");
        }
        process
    }

    async fn spawn_unnoted(&self, container: &Container) -> Result<Process, String> {
        let spec = &container.spec;
        let command = spec.command.as_ref().unwrap_or(&spec.image.command);
        if command.is_empty() {
            return Err("Error response from daemon: no command specified".to_owned());
        }
        let start = Start {
            command: command.iter().map(Into::into).collect(),
            dir: self.folder_of(spec)?,
            env: self.environment(container),
            output: None,
            input: false,
        };
        self.0.spawner.spawn(start).await.map_err(|error| {
            format!("Error response from daemon: failed to create task for container: {error}")
        })
    }

    fn environment(&self, container: &Container) -> Vec<(String, String)> {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.0.bin.display());
        let own = ["PATH", "PORT"];
        let mut env = vec![
            ("PATH".to_owned(), path),
            ("HOSTNAME".to_owned(), container.id[..12].to_owned()),
            ("HOME".to_owned(), self.0.home.display().to_string()),
            ("SANDBOX_CONTAINERS".to_owned(), self.names_file().display().to_string()),
        ];
        let given = container.spec.image.env.iter().chain(&container.spec.env);
        env.extend(given.filter(|(key, _)| !own.contains(&key.as_str())).cloned());
        env.push(("PORT".to_owned(), container.state().port.to_string()));
        env
    }

    async fn look_after(&self, container: Arc<Container>, mut process: Process) {
        let mut wait_ms = RESTART_WAIT_MS;
        loop {
            let code = watch_process(&container, &mut process).await;
            self.note_end(&container, code);
            if !self.restarts(&container) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            wait_ms = (wait_ms * 2).min(RESTART_WAIT_MS_MAX);
            // It may have been stopped, started or removed by hand meanwhile.
            if !self.restarts(&container) || !container.claim_start() {
                return;
            }
            let Ok(next) = self.spawn(&container).await else { return };
            container.state().restarts += 1;
            process = next;
        }
    }

    fn note_end(&self, container: &Container, code: i32) {
        {
            let mut state = container.state();
            state.pid = None;
            state.exit_code = Some(code);
            state.finished_at = Some(clock::now());
        }
        // First told, then no longer running: who waits for the end finds the event there.
        self.tell(container, "die");
        container.state().running = false;
        container.changed();
    }

    /// SIGKILL to its process group, and waits for its end.
    pub(super) async fn kill_process(&self, container: &Container) {
        let (running, pid) = {
            let state = container.state();
            (state.running, state.pid)
        };
        match pid {
            _ if !running => {}
            None => self.end_builtin(container),
            Some(pid) => {
                kill_group(pid);
                container.ended(KILL_TIMEOUT).await;
            }
        }
    }

    fn start_builtin(&self, container: &Container) {
        {
            let mut state = container.state();
            state.starting = false;
            state.running = true;
            state.started_at = clock::now();
        }
        container.changed();
        self.tell(container, "start");
    }

    pub(super) fn end_builtin(&self, container: &Container) {
        self.note_end(container, 0);
    }
}

/// Reads the output until the process has ended and its pipes are dry; returns its exit code.
async fn watch_process(container: &Arc<Container>, process: &mut Process) -> i32 {
    let out = process.child.stdout.take().map(|pipe| read(container, LogStream::Stdout, pipe));
    let err = process.child.stderr.take().map(|pipe| read(container, LogStream::Stderr, pipe));
    let code = process.ended().await;
    for reader in [out, err].into_iter().flatten() {
        let abort = reader.abort_handle();
        if tokio::time::timeout(DRAIN_TIMEOUT, reader).await.is_err() {
            abort.abort();
        }
    }
    code
}

fn read(
    container: &Arc<Container>,
    stream: LogStream,
    pipe: impl AsyncRead + Unpin + Send + 'static,
) -> JoinHandle<()> {
    let container = container.clone();
    tokio::spawn(async move {
        let mut reader = BufReader::new(pipe);
        loop {
            let mut message = Vec::new();
            let mut part = (&mut reader).take(MESSAGE_BYTES_MAX as u64);
            match part.read_until(b'\n', &mut message).await {
                Ok(0) | Err(_) => return,
                Ok(_) => container.log(stream, message),
            }
        }
    })
}
