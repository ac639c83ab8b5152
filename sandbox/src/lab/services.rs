//! What the VMs and runners reach in the lab: a registry that answers as ghcr.io, one that answers
//! as Docker Hub, and Pebble as Let's Encrypt.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Lab;
use crate::SandboxError;
use crate::github::LOGIN;

/// How long a service may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const IMAGE: &str = "vmkit-lab/services";
/// Let's Encrypt's name.
const AUTHORITY: &str = "acme-v02.api.letsencrypt.org";
/// An authority that refuses every order.
const RATE_LIMIT: &str = include_str!("rate-limit.rb");
/// What Kamal 2.12 boots as its proxy.
const PROXY_IMAGE: &str = "basecamp/kamal-proxy:v0.9.2";
/// The stand-in needs a C library and the authorities; both are the VM image's.
const PROXY_RECIPE: &str = "FROM vmkit-lab/vm AS debian
FROM vmkit-lab/busybox
COPY --from=debian /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/libm.so.6 /usr/lib/x86_64-linux-gnu/libgcc_s.so.1 /lib/x86_64-linux-gnu/
COPY --from=debian /usr/lib64/ld-linux-x86-64.so.2 /lib64/
COPY --from=debian /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY kamal-proxy /bin/kamal-proxy
LABEL org.opencontainers.image.title=kamal-proxy
EXPOSE 80 443
ENTRYPOINT []
CMD [\"kamal-proxy\", \"run\"]
";

/// Starts both registries, and fills Docker Hub's.
pub(super) fn start(lab: &Lab, proxy: &Path) -> Result<(), SandboxError> {
    let (ghcr, hub) = (ghcr(lab), hub(lab));
    let entry = htpasswd(lab, lab.token())?;
    run(lab, &ghcr, &["ghcr.io"], &["sleep", "infinity"])?;
    write(lab, &ghcr, "/lab/htpasswd", entry.as_bytes())?;
    detached(lab, &ghcr, "exec docker-registry serve /lab/registry.yml")?;
    let aliases = ["registry-1.docker.io", "auth.docker.io"];
    run(lab, &hub, &aliases, &["docker-registry", "serve", "/lab/hub.yml"])?;
    for service in [&ghcr, &hub] {
        until_answers(lab, service, "https://localhost/v2/")?;
    }
    let context = lab.own_folder("proxy")?;
    std::fs::copy(proxy, context.join("kamal-proxy"))
        .and_then(|_| std::fs::write(context.join("Dockerfile"), PROXY_RECIPE))
        .map_err(|source| SandboxError::io("fill the folder", &context, source))?;
    let tag = format!("vmkit-lab/proxy:{}", lab.engine().run());
    let folder = context.display().to_string();
    lab.engine().docker(&["build", "-q", "--label", lab.engine().label(), "-t", &tag, &folder])?;
    publish(lab, &tag, PROXY_IMAGE)
}

/// Puts an image of the engine into the registry that answers as Docker Hub.
pub(super) fn publish(lab: &Lab, image: &str, name: &str) -> Result<(), SandboxError> {
    let archive = lab.folder().join(format!("{}.tar", name.replace(['/', ':'], "-")));
    let path = archive.display().to_string();
    lab.engine().docker(&["save", "-o", &path, image])?;
    let mount = format!("{path}:/image.tar:ro");
    let network = lab.engine().network();
    let pushed = lab.engine().docker(&[
        "run",
        "--rm",
        "--label",
        lab.engine().label(),
        "--network",
        network,
        "-v",
        &mount,
        "vmkit-lab/runner",
        "skopeo",
        "copy",
        "-q",
        "docker-archive:/image.tar",
        &format!("docker://registry-1.docker.io/{name}"),
    ]);
    drop(std::fs::remove_file(&archive));
    pushed.map(drop)
}

/// Starts Pebble, which asks `names` where a name leads.
pub(super) fn start_authority(lab: &Lab, names: SocketAddr) -> Result<(), SandboxError> {
    let pebble = pebble(lab);
    let command = format!(
        "PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 exec pebble -config /lab/pebble.json -dnsserver {names}"
    );
    run(lab, &pebble, &[AUTHORITY], &["sh", "-c", &command])?;
    until_answers(lab, &pebble, "https://localhost:15000/roots/0")
}

/// Puts an authority whose limit is reached in Pebble's place, or Pebble back.
pub(super) fn limit_certificates(lab: &Lab, limit: bool) -> Result<(), SandboxError> {
    let (engine, pebble) = (lab.engine(), pebble(lab));
    let (network, limiter) = (engine.network(), format!("{pebble}-limit"));
    if !limit {
        engine.docker(&["rm", "-fv", &limiter])?;
        let back = ["network", "connect", "--alias", AUTHORITY, network, &pebble];
        return engine.docker(&back).map(drop);
    }
    engine.docker(&["network", "disconnect", network, &pebble])?;
    let run = ["run", "-d", "--init", "--name", &limiter, "--label", engine.label()];
    let place = ["--network", network, "--network-alias", AUTHORITY];
    // The runner's image has Ruby.
    let what = ["vmkit-lab/runner", "sleep", "infinity"];
    engine.docker(&[&run[..], &place[..], &what[..]].concat())?;
    lab.exec(&limiter, &["mkdir", "-p", "/lab"])?;
    for file in ["/lab/hosts.crt", "/lab/hosts.key"] {
        let text = lab.exec(&pebble, &["cat", file])?;
        write(lab, &limiter, file, text.as_bytes())?;
    }
    write(lab, &limiter, "/lab/limit.rb", RATE_LIMIT.as_bytes())?;
    detached(lab, &limiter, "exec ruby /lab/limit.rb")?;
    until_answers(lab, &limiter, "https://localhost/dir")
}

/// The lab's own authority, and the one that Pebble issues from.
pub(super) fn authorities(lab: &Lab) -> Result<String, SandboxError> {
    let own = lab.exec(&ghcr(lab), &["cat", "/lab/ca.crt"])?;
    let issued = lab.exec(&pebble(lab), &["curl", "-ksf", "https://localhost:15000/roots/0"])?;
    Ok(format!("{own}\n{issued}\n"))
}

/// The registry reads its users again when the file changes.
pub(super) fn set_password(lab: &Lab, password: &str) -> Result<(), SandboxError> {
    let entry = htpasswd(lab, password)?;
    write(lab, &ghcr(lab), "/lab/htpasswd", entry.as_bytes())
}

fn htpasswd(lab: &Lab, password: &str) -> Result<String, SandboxError> {
    lab.engine().docker(&["run", "--rm", IMAGE, "htpasswd", "-Bbn", LOGIN, password])
}

fn run(lab: &Lab, name: &str, aliases: &[&str], command: &[&str]) -> Result<(), SandboxError> {
    let engine = lab.engine();
    let mut args = vec!["run", "-d", "--init", "--name", name, "--label", engine.label()];
    args.extend(["--network", engine.network()]);
    for alias in aliases {
        args.extend(["--network-alias", alias]);
    }
    args.push(IMAGE);
    args.extend(command);
    engine.docker(&args).map(drop)
}

fn detached(lab: &Lab, name: &str, script: &str) -> Result<(), SandboxError> {
    lab.engine().docker(&["exec", "-d", name, "sh", "-c", script]).map(drop)
}

fn write(lab: &Lab, name: &str, path: &str, bytes: &[u8]) -> Result<(), SandboxError> {
    let script = format!("cat > {path}");
    lab.engine().docker_with(&["exec", "-i", name, "sh", "-c", &script], Some(bytes)).map(drop)
}

/// Any answer will do, a refusal too.
fn until_answers(lab: &Lab, name: &str, url: &str) -> Result<(), SandboxError> {
    let began = Instant::now();
    loop {
        match lab.exec(name, &["curl", "-ks", "-o", "/dev/null", url]) {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            // It blocks on the engine anyhow; a service needs a moment to open its port.
            Err(_) => std::thread::park_timeout(Duration::from_millis(100)),
        }
    }
}

fn ghcr(lab: &Lab) -> String {
    format!("vmkit-lab-{}-ghcr", lab.engine().run())
}

fn hub(lab: &Lab) -> String {
    format!("vmkit-lab-{}-hub", lab.engine().run())
}

fn pebble(lab: &Lab) -> String {
    format!("vmkit-lab-{}-pebble", lab.engine().run())
}
