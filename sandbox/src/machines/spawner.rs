//! Starts processes that cannot outlive the sandbox.
//!
//! All are children of one thread that lives as long as the sandbox, since the kernel's signal at a
//! parent's death follows the thread. Each has a process group of its own, known to the warden, so
//! that children of a shell end as well.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Child;
use tokio::sync::oneshot;

use crate::SandboxError;

/// A process to start.
pub(super) struct Start {
    /// Program and arguments.
    pub(super) command: Vec<OsString>,
    pub(super) dir: PathBuf,
    /// The whole environment; nothing is inherited.
    pub(super) env: Vec<(String, String)>,
    /// Where output goes; pipes where none.
    pub(super) output: Option<File>,
    /// Input comes by a pipe; there is none otherwise.
    pub(super) input: bool,
}

#[derive(Clone)]
pub(super) struct Spawner(Arc<Inner>);

struct Inner {
    exe: PathBuf,
    requests: mpsc::Sender<Request>,
    warden: Mutex<Warden>,
}

struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

struct Warden {
    process: std::process::Child,
}

impl Spawner {
    /// Starts the thread and the warden of `dir`.
    pub(super) fn start(exe: &Path, dir: &Path) -> Result<Self, SandboxError> {
        let warden = Command::new(exe)
            .args(["tethered", "--warden"])
            .arg(dir)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| SandboxError::io("start", exe, source))?;
        let (requests, inbox) = mpsc::channel::<Request>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("sandbox-spawner".into())
            .spawn(move || serve(&runtime, &inbox))
            .map_err(|source| SandboxError::io("start a thread for", exe, source))?;
        let warden = Mutex::new(Warden { process: warden });
        Ok(Self(Arc::new(Inner { exe: exe.to_owned(), requests, warden })))
    }

    /// Starts a process.
    pub(super) async fn spawn(&self, start: Start) -> io::Result<Process> {
        let (reply, answer) = oneshot::channel();
        let request = Request { command: self.command(start)?, reply };
        let gone = || io::Error::other("the sandbox is being stopped");
        self.0.requests.send(request).map_err(|_| gone())?;
        let child = answer.await.map_err(|_| gone())??;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended at once"))?;
        self.tell_warden('+', pid);
        Ok(Process { pid, child, spawner: self.clone() })
    }

    fn command(&self, start: Start) -> io::Result<Command> {
        let mut command = Command::new(&self.0.exe);
        command
            .args(["tethered", "--parent", &std::process::id().to_string(), "--"])
            .args(start.command)
            .current_dir(start.dir)
            .env_clear()
            .envs(start.env)
            .stdin(if start.input { Stdio::piped() } else { Stdio::null() })
            .process_group(0);
        match start.output {
            None => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
            Some(file) => command.stdout(file.try_clone()?).stderr(file),
        };
        Ok(command)
    }

    fn tell_warden(&self, sign: char, group: u32) {
        let mut warden = crate::lock(&self.0.warden);
        if let Some(input) = warden.process.stdin.as_mut() {
            // A warden that is gone costs only its own guard; the kernel's signal remains.
            drop(writeln!(input, "{sign}{group}"));
        }
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

/// The thread's life: it ends when the sandbox is dropped, and its children with it.
fn serve(runtime: &tokio::runtime::Handle, inbox: &mpsc::Receiver<Request>) {
    let _guard = runtime.enter();
    while let Ok(request) = inbox.recv() {
        let child = tokio::process::Command::from(request.command).kill_on_drop(true).spawn();
        drop(request.reply.send(child));
    }
}

/// A running process and its group.
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) child: Child,
    spawner: Spawner,
}

impl Process {
    /// Waits for its end, ends what is left of its group, and returns its exit code (128 + signal
    /// where it was killed).
    pub(super) async fn ended(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().await;
        kill_group(self.pid);
        self.spawner.tell_warden('-', self.pid);
        status.map_or(255, |status| {
            status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(255)
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.id().is_some() {
            kill_group(self.pid);
            self.spawner.tell_warden('-', self.pid);
        }
    }
}

/// SIGKILL to a process and all that it started.
pub(super) fn kill_group(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // One that is gone already is what is wanted.
        _ = kill_process_group(pid, Signal::KILL);
    }
}

/// SIGTERM to one process, as Docker does with a container's first.
pub(super) fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        _ = kill_process(pid, Signal::TERM);
    }
}
