//! A real Docker engine, and containers from an image that holds nothing but a static busybox.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::rig::Rig;
use super::skips::skip;

/// One test's containers and its image, removed with the value.
pub(crate) struct Engine {
    socket: PathBuf,
    run: String,
}

/// Gives an engine, or says aloud why `test` is skipped.
pub(crate) fn engine(test: &str) -> Option<Engine> {
    match start() {
        Ok(engine) => Some(engine),
        Err(reason) => {
            skip(test, &reason);
            None
        }
    }
}

fn start() -> Result<Engine, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/docker-engine");
    let said = Command::new(script).output().map_err(|error| error.to_string())?;
    if !said.status.success() {
        return Err(String::from_utf8_lossy(&said.stderr).trim().to_owned());
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
        .ok_or("a static busybox is not installed (`apt-get install busybox-static`)")?;
    let socket = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    let run = format!("vmkit-test-{:08x}", rand::random::<u32>());
    let engine = Engine { socket, run };
    engine.make_image(busybox)?;
    Ok(engine)
}

impl Engine {
    fn make_image(&self, busybox: &Path) -> Result<(), String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).map_err(|error| error.to_string())?;
        std::fs::copy(busybox, bin.join("busybox")).map_err(|error| error.to_string())?;
        for name in ["sh", "cat", "usleep", "sleep", "head", "yes", "seq", "printf"] {
            std::os::unix::fs::symlink("busybox", bin.join(name))
                .map_err(|error| error.to_string())?;
        }
        let archive = dir.path().join("image.tar");
        let packed = Command::new("tar")
            .args(["-c", "-f"])
            .arg(&archive)
            .args(["-C"])
            .arg(dir.path())
            .arg("bin")
            .output()
            .map_err(|error| error.to_string())?;
        assert!(packed.status.success(), "{packed:?}");
        let label = format!("LABEL vmkit.test={}", self.run);
        self.docker(&["import", "--change", &label, &archive.to_string_lossy(), &self.image()]);
        Ok(())
    }

    pub(crate) fn image(&self) -> String {
        format!("{}:1", self.run)
    }

    /// Gives the rig's VM this engine.
    pub(crate) fn serve(&self, rig: &Rig) {
        std::fs::create_dir_all(rig.path("run")).unwrap();
        std::os::unix::fs::symlink(self.socket(), rig.path("run/docker.sock")).unwrap();
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// A service name of this test's own: the engine is shared.
    pub(crate) fn service(&self) -> String {
        format!("{}-staging", self.run)
    }

    pub(crate) fn container(&self, version: &str) -> String {
        format!("{}-web-{version}", self.service())
    }

    /// Starts a container of the service that runs `script`.
    pub(crate) fn run(&self, version: &str, more: &[&str], script: &str) -> String {
        let (name, service) = (self.container(version), self.service());
        let (service, test) = (format!("service={service}"), format!("vmkit.test={}", self.run));
        let image = self.image();
        let mut args = vec!["run", "-d", "--network", "none", "--name", &name];
        args.extend(["--label", &service, "--label", "role=web", "--label", &test]);
        args.extend(more);
        args.extend([image.as_str(), "/bin/sh", "-c", script]);
        self.docker(&args);
        name
    }

    /// The official client, as the second opinion.
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        let output = self.try_docker(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn try_docker(&self, args: &[&str]) -> Output {
        Command::new("docker")
            .arg("-H")
            .arg(format!("unix://{}", self.socket.display()))
            .args(args)
            .output()
            .unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let filter = format!("label=vmkit.test={}", self.run);
        let ids = self.try_docker(&["ps", "-aq", "--filter", &filter]);
        let ids = String::from_utf8_lossy(&ids.stdout).into_owned();
        for id in ids.split_whitespace() {
            drop(self.try_docker(&["rm", "-f", "-v", id]));
        }
        drop(self.try_docker(&["rmi", "-f", &self.image()]));
    }
}
