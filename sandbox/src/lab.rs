//! The lab: the same simulated APIs, but a server is a Debian container that real cloud-init boots,
//! with its own Docker engine, and a workflow's steps are run by real bash, Kamal and ssh against a
//! real registry. Needs a Docker engine, the right to reach its networks, and the images that
//! `scripts/lab-images` makes.

mod engine;
pub(crate) mod runner;
mod services;
pub(crate) mod snapshot;
pub(crate) mod vm;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::SandboxError;
use engine::Engine;

/// How many networks are tried; another lab may take the same subnet at the same time.
const NETWORK_TRIES: u32 = 5;
/// What the registry and every runner take for the token of a run.
const TOKEN_LENGTH: usize = 40;

/// A network of its own with the services in it. Cheap to clone; all of it ends with the last clone,
/// or with the process, `kill -9` included.
#[derive(Clone)]
pub struct Lab(Arc<Inner>);

struct Inner {
    engine: Engine,
    subnet: [u8; 3],
    gateway: IpAddr,
    next: AtomicU32,
    names: AtomicU32,
    token: String,
    folder: tempfile::TempDir,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lab").field(&self.0.engine.run()).finish()
    }
}

impl Lab {
    /// Makes a network and starts the registries and the certificate authority in it. `proxy` is the
    /// program that stands for kamal-proxy; `host` the engine, such as `unix:///run/docker.sock`.
    /// Blocks for some seconds.
    ///
    /// # Errors
    /// Where there is no engine, an image is missing, or a service does not come up.
    pub fn start(host: &str, proxy: &Path) -> Result<Self, SandboxError> {
        let folder = tempfile::Builder::new()
            .prefix("vmkit-lab-")
            .tempdir()
            .map_err(|source| SandboxError::io("make a folder in", "/tmp", source))?;
        let engine = Engine::open(host)?;
        let (subnet, gateway) = network(&engine)?;
        let lab = Self(Arc::new(Inner {
            engine,
            subnet,
            gateway,
            next: AtomicU32::new(0),
            names: AtomicU32::new(0),
            token: crate::token().chars().take(TOKEN_LENGTH).collect(),
            folder,
        }));
        services::start(&lab, proxy)?;
        Ok(lab)
    }

    /// This machine's address in the lab's network: where VMs and services reach what listens here.
    pub fn gateway(&self) -> IpAddr {
        self.0.gateway
    }

    /// The `GITHUB_TOKEN` of every run, which the registry takes.
    pub fn token(&self) -> &str {
        &self.0.token
    }

    /// Makes the registry take another token than the runs have, or theirs again.
    ///
    /// # Errors
    /// When the registry is not there.
    pub fn let_registry_refuse(&self, refuse: bool) -> Result<(), SandboxError> {
        services::set_password(self, if refuse { "another" } else { self.token() })
    }

    /// Makes the certificate authority refuse every order since a limit is reached, or issue again;
    /// blocks.
    ///
    /// # Errors
    /// When the authority is not there, or its stand-in does not come up.
    pub fn limit_certificates(&self, limit: bool) -> Result<(), SandboxError> {
        services::limit_certificates(self, limit)
    }

    /// The authorities that a client of apps in the lab trusts, as PEM.
    ///
    /// # Errors
    /// When the certificate authority does not answer.
    pub fn authorities(&self) -> Result<String, SandboxError> {
        services::authorities(self)
    }

    /// Tells the certificate authority which name server to ask. It is started by this.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_authority(&self, names: std::net::SocketAddr) -> Result<(), SandboxError> {
        services::start_authority(self, names)
    }

    /// Runs a command in a container of the lab, such as a VM by its name, and returns
    /// what it printed.
    ///
    /// # Errors
    /// When it ends with another code than 0; the text holds its output.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<String, SandboxError> {
        self.0.engine.docker(&[&["exec", container], command].concat())
    }

    /// Offers one of the lab's images as Docker Hub's, such as `vmkit-lab/postgres` under
    /// `library/postgres:17.6`; blocks.
    ///
    /// # Errors
    /// When there is no such image, or the registry does not take it.
    pub fn offer(&self, image: &str, name: &str) -> Result<(), SandboxError> {
        services::publish(self, image, name)
    }

    /// The laptop of a person who works without VMKit: a container with Kamal, git, ssh and skopeo,
    /// and this folder as its own `/work`. Its name, for [`Lab::exec`]; blocks.
    ///
    /// # Errors
    /// When it does not start.
    pub fn laptop(&self, folder: &Path) -> Result<String, SandboxError> {
        let (name, engine) = (self.name("laptop"), self.engine());
        let mount = format!("{}:/work", folder.display());
        let run = ["run", "-d", "--init", "--name", &name, "--label", engine.label()];
        let place = ["--network", engine.network(), "-v", &mount, "-w", "/work"];
        let what = ["vmkit-lab/runner", "sleep", "infinity"];
        engine.docker(&[&run[..], &place[..], &what[..]].concat())?;
        Ok(name)
    }

    /// Builds the Dockerfile of a folder as the image of a Kamal service, and writes it to a file
    /// that skopeo reads as `docker-archive`; blocks.
    ///
    /// # Errors
    /// When it cannot be built or written.
    pub fn build(&self, folder: &Path, service: &str, to: &Path) -> Result<(), SandboxError> {
        let (tag, engine) = (format!("vmkit-lab/built:{}", self.0.engine.run()), self.engine());
        let (label, folder) = (format!("service={service}"), folder.display().to_string());
        let labels = ["--label", engine.label(), "--label", &label];
        engine.docker(&[&["build", "-q"], &labels[..], &["-t", &tag, &folder]].concat())?;
        engine.docker(&["save", "-o", &to.display().to_string(), &tag]).map(drop)
    }

    /// Removes everything: containers, volumes, images made here, the network.
    pub fn stop(&self) {
        self.0.engine.stop();
    }

    fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn folder(&self) -> &Path {
        self.0.folder.path()
    }

    /// A name that no other container or volume has.
    fn name(&self, kind: &str) -> String {
        let number = self.0.names.fetch_add(1, Ordering::SeqCst) + 1;
        format!("vmkit-lab-{}-{kind}{number}", self.0.engine.run())
    }

    /// A folder of its own on this machine.
    fn own_folder(&self, name: &str) -> Result<PathBuf, SandboxError> {
        let path = self.folder().join(name);
        std::fs::create_dir_all(&path)
            .map_err(|source| SandboxError::io("make the folder", &path, source))?;
        Ok(path)
    }

    /// The next free address for a VM: the upper half of the subnet, Docker's own choice is below.
    pub(crate) fn address(&self) -> IpAddr {
        let number = self.0.next.fetch_add(1, Ordering::SeqCst);
        let [a, b, c] = self.0.subnet;
        let last = 128 + u8::try_from(number % 120).unwrap_or(0);
        IpAddr::V4(Ipv4Addr::new(a, b, c, last))
    }
}

/// Makes the network: Docker chooses the subnet, and it is made again with that subnet by name,
/// without which no container may ask for an address.
fn network(engine: &Engine) -> Result<([u8; 3], IpAddr), SandboxError> {
    let name = engine.network();
    let mut last = SandboxError::Lab { doing: "make a network", detail: String::new() };
    for _ in 0..NETWORK_TRIES {
        engine.docker(&["network", "create", "--label", engine.label(), name])?;
        let format = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
        let subnet = engine.docker(&["network", "inspect", "-f", format, name])?;
        engine.docker(&["network", "rm", name])?;
        let Some([a, b, c]) = first_three(subnet.trim()) else {
            return Err(SandboxError::Lab { doing: "make a network", detail: subnet });
        };
        let own = format!("{a}.{b}.{c}.0/24");
        let low = format!("{a}.{b}.{c}.0/25");
        let gateway = Ipv4Addr::new(a, b, c, 1);
        let address = gateway.to_string();
        let made = engine.docker(&[
            "network",
            "create",
            "--label",
            engine.label(),
            "--subnet",
            &own,
            "--ip-range",
            &low,
            "--gateway",
            &address,
            name,
        ]);
        match made {
            Ok(_) => return Ok(([a, b, c], gateway.into())),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn first_three(subnet: &str) -> Option<[u8; 3]> {
    let mut parts = subnet.split(['.', '/']).map(str::parse::<u8>);
    match (parts.next()?, parts.next()?, parts.next()?) {
        (Ok(a), Ok(b), Ok(c)) => Some([a, b, c]),
        _ => None,
    }
}
