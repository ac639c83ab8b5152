//! `vmkit eject`: what a person needs to go on without VMKit, as files. Everything runs on as it
//! is; this only takes along what otherwise stands in our state file alone.

use super::environments::{app, environment};
use super::{Context, OpError, env, repo};
use crate::domain::env_values;
use crate::domain::environment::Vm;
use crate::domain::names::EnvironmentPath;
use crate::pipeline::Names;

/// The mode of a file that everybody may read.
const PLAIN: u32 = 0o644;

/// One file of the bundle.
#[derive(Clone)]
pub struct BundleFile {
    /// Its path in the bundle.
    pub path: String,
    /// Its content.
    pub content: Vec<u8>,
    /// Who may do what with it, as a file's mode says it: 0600 where nobody but the owner may read it.
    pub mode: u32,
}

/// Gathers the bundle of an environment: the generated files of its repo, the VM's host key, a
/// README with the commands, and with `secrets` the env values in clear.
///
/// # Errors
/// An unknown environment, one without a VM, or a secret that does not open.
pub async fn bundle(
    context: &Context,
    path: &EnvironmentPath,
    secrets: bool,
) -> Result<Vec<BundleFile>, OpError> {
    let environment = environment(&context.store, path).await?;
    let row = app(&context.store, &path.app).await?;
    let no_vm = || OpError::NoVm { environment: path.to_string() };
    let vm = context.store.vm(environment.vm.ok_or_else(no_vm)?).await?.ok_or_else(no_vm)?.vm;
    let (_, generated) = repo::wanted_files(context, &row).await?;
    let config = Names::of(&row.app).config(&path.name);
    let mut files: Vec<BundleFile> = generated
        .into_iter()
        .filter(|file| !file.path.starts_with("config/") || file.path == config)
        .map(|file| {
            // Kamal runs a hook as a program.
            let mode = if file.executable { 0o755 } else { PLAIN };
            BundleFile { mode, ..plain(file.path, file.content) }
        })
        .collect();
    let known_hosts = vm.known_hosts.clone().unwrap_or_default();
    files.push(plain("known_hosts".to_owned(), format!("{known_hosts}\n")));
    let rows = context.store.env_at(environment.id, environment.env_revision).await?;
    let keys: Vec<String> = rows.iter().map(|row| row.key.to_string()).collect();
    if secrets {
        let mut values = Vec::new();
        for row in &rows {
            if let Some(value) = env::open(&context.vault, environment.id, row)? {
                values.push((row.key.clone(), value));
            }
        }
        let text = env_values::render(&values)?;
        files.push(BundleFile {
            path: format!("env/{}.env", path.name),
            content: text.expose().as_bytes().to_vec(),
            mode: 0o600,
        });
    }
    let readme = readme(path, &vm, (row.app.repo.as_str(), &config), &keys, secrets);
    files.insert(0, plain("README.md".to_owned(), readme));
    Ok(files)
}

fn plain(path: String, content: String) -> BundleFile {
    BundleFile { path, content: content.into_bytes(), mode: PLAIN }
}

fn readme(
    path: &EnvironmentPath,
    vm: &Vm,
    (repo, config): (&str, &str),
    keys: &[String],
    secrets: bool,
) -> String {
    let address = vm.address.map(|address| address.to_string()).unwrap_or_default();
    let (env, service) = (&path.name, path.service());
    let file = format!("/etc/vmkit/env/{}/{env}.env", path.app);
    let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
    let values = if secrets {
        format!("Their values stand in `env/{env}.env` here; keep it to yourself.")
    } else {
        "Their values stand on the VM alone (`vmkit eject --with-secrets` adds them here)."
            .to_owned()
    };
    format!(
        "# {path} without VMKit

The VM at {address} and the repo {repo} are yours, and go on as they are. These files are all that
VMKit knew beside them. Every command below needs your own SSH key, the one that you gave VMKit.

## Log in

    cat known_hosts >> ~/.ssh/known_hosts
    ssh admin@{address}            # sudo without a password
    ssh kamal@{address} docker ps

## Deploy a version

In a checkout of {repo} that holds the files of this bundle, with Kamal 2.12 or newer, and an image
`COMMIT` in the registry (the workflow's build job makes it on a push by hand, or
`docker build --label service={service}` and `docker push`):

    export KAMAL_REGISTRY_PASSWORD=... # a GitHub token that may read packages
    kamal deploy -c {config} --skip-push --version=COMMIT

The Actions workflow in the repo goes on working too: run it by hand from the Actions tab.

## Change an env value

Keys: {keys}. {values}
The app reads {file} when a container starts:

    ssh admin@{address} sudo editor {file}
    kamal deploy -c {config} --skip-push --version=THE_LIVE_COMMIT

Keep the file root:kamal 0640.

## Roll back, look, restart

    kamal rollback -c {config} COMMIT
    ssh admin@{address} sudo journalctl -t {service} -f
    ssh admin@{address} sudo reboot    # everything comes back by itself

## Remove the agent

The env files below /etc/vmkit/env stay: the app reads them.

    ssh admin@{address} sudo systemctl disable --now vmkit-agent.service
    ssh admin@{address} sudo rm /usr/local/bin/vmkit-agent /etc/systemd/system/vmkit-agent.service /etc/vmkit/agent.toml
"
    )
}
