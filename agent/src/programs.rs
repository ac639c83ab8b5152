//! The programs of the machine that the agent runs: a closed list. They are looked up under the
//! host's root alone, take argument arrays that no shell sees, and one that is absent is said to be.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::host::Host;

/// What is kept of a program's output, in bytes.
const OUTPUT_BYTES: u64 = 256 * 1024;
/// Where programs are, the first that is there.
const FOLDERS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// A program of the closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Checks the SSH server's configuration.
    Sshd,
    /// Tries a login.
    Ssh,
    /// Tells systemd.
    Systemctl,
    /// Runs the agent's own `care` outside its unit's walls, or later.
    SystemdRun,
    /// Checks rules of the firewall.
    Nft,
    /// Sets kernel parameters.
    Sysctl,
    /// Shows apt's configuration.
    AptConfig,
    /// Checks the Docker engine's configuration.
    Dockerd,
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sshd => "sshd",
            Self::Ssh => "ssh",
            Self::Systemctl => "systemctl",
            Self::SystemdRun => "systemd-run",
            Self::Nft => "nft",
            Self::Sysctl => "sysctl",
            Self::AptConfig => "apt-config",
            Self::Dockerd => "dockerd",
        }
    }

    /// Where it is on this machine; none where it is not, or where a link leads out of the root.
    pub(crate) fn find(self, host: &Host) -> Option<PathBuf> {
        let root = host.root().canonicalize().ok()?;
        FOLDERS.iter().find_map(|folder| {
            let found = host.path(&format!("{folder}/{}", self.name())).canonicalize().ok()?;
            (found.starts_with(&root) && found.is_file()).then_some(found)
        })
    }
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("`{program}` is not on this machine")]
    Absent { program: &'static str },
    #[error("`{program}` cannot be run")]
    Io {
        program: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("`{program}` took longer than {limit_s} s")]
    TimedOut { program: &'static str, limit_s: u64 },
    #[error("`{program}` ended with {code}: {said}")]
    Failed { program: &'static str, code: i32, said: String },
}

/// Runs a program with nothing of this process's environment, and returns what it printed.
pub(crate) async fn run(
    host: &Host,
    program: Program,
    args: &[&str],
    limit: Duration,
) -> Result<String, ProgramError> {
    run_with(host, program, args, "", limit).await
}

/// The same with text on its standard input.
pub(crate) async fn run_with(
    host: &Host,
    program: Program,
    args: &[&str],
    input: &str,
    limit: Duration,
) -> Result<String, ProgramError> {
    let name = program.name();
    let path = program.find(host).ok_or(ProgramError::Absent { program: name })?;
    let failed = |source| ProgramError::Io { program: name, source };
    let mut child = Command::new(path)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .env("SHELL", "/bin/sh")
        .current_dir(host.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let working = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                use tokio::io::AsyncWriteExt;
                // A program that reads nothing closes early, which is its right.
                drop(stdin.write_all(input.as_bytes()).await);
            }
        };
        let ((), said, complained) = tokio::join!(feed, read(stdout), read(stderr));
        Ok::<_, std::io::Error>((child.wait().await?, said?, complained?))
    };
    let ended = tokio::time::timeout(limit, working).await;
    let timed_out = ProgramError::TimedOut { program: name, limit_s: limit.as_secs() };
    let (status, said, complained) = ended.map_err(|_| timed_out)?.map_err(failed)?;
    if status.success() {
        return Ok(said);
    }
    let said = if complained.trim().is_empty() { said } else { complained };
    let said: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = said[said.len().saturating_sub(3)..].join("; ");
    Err(ProgramError::Failed { program: name, code: status.code().unwrap_or(-1), said: last })
}

async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = pipe.take(OUTPUT_BYTES);
        pipe.read_to_end(&mut bytes).await?;
        // What is beyond is read and thrown away, lest the program wait for ever.
        tokio::io::copy(&mut pipe.into_inner(), &mut tokio::io::sink()).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[tokio::test]
    async fn programs_are_looked_for_under_the_root_alone() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        let limit = Duration::from_secs(30);
        let absent = run(&host, Program::Systemctl, &["reboot"], limit).await;
        assert!(matches!(absent, Err(ProgramError::Absent { program: "systemctl" })), "{absent:?}");
        std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        let path = root.path().join("usr/bin/systemctl");
        symlink("/bin/echo", &path).unwrap();
        assert!(Program::Systemctl.find(&host).is_none(), "a link that leads out");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "#!/bin/sh\necho \"$@\"\n[ \"$1\" = ok ]\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let said = run(&host, Program::Systemctl, &["ok", "$(id); `x`"], limit).await.unwrap();
        assert_eq!(said, "ok $(id); `x`\n", "no shell sees it");
        let failed = run(&host, Program::Systemctl, &["not"], limit).await.unwrap_err();
        assert_eq!(failed.to_string(), "`systemctl` ended with 1: not");
    }
}
