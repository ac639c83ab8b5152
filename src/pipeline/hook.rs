//! The hook that Kamal runs on the machine that deploys, once the new image is on the VM and before
//! any of its containers starts: volumes get their owner, and migrations run.
//!
//! Both happen in a container of the new image, by `kamal server exec`: `kamal app exec` would hand
//! the command to a Buildpack image's web process as its arguments. What the release command prints
//! goes to the VM's journal and not into the run's log; its container is named as those of a role
//! are, by which its lines are found there when it is gone.

use super::roles::Start;
use super::scan::Build;
use super::{EnvironmentSetup, Setup, env_file, volume};

/// Where it lies in the repo.
pub(super) fn path(setup: &Setup) -> String {
    format!("{}/pre-app-boot", setup.names().hooks())
}

const HEAD: &str = "#!/bin/sh
# Written by VMKit. Kamal runs it where the deploy runs, once the new image is on the VM and before
# any container of it starts. What fails here leaves the running version as it is.
set -eu
";

/// The script, which does nothing for a service that needs nothing.
pub(super) fn content(setup: &Setup) -> String {
    let with_vm = setup.environments.iter().filter(|environment| environment.address.is_some());
    let cases: String = with_vm.filter_map(|one| case(setup, one)).collect();
    if cases.is_empty() {
        return format!("{HEAD}exit 0 # nothing to do before a start\n");
    }
    format!("{HEAD}case \"$KAMAL_SERVICE\" in\n{cases}esac\n")
}

fn case(setup: &Setup, environment: &EnvironmentSetup) -> Option<String> {
    let release = setup.release(environment);
    if release.is_none() && environment.run.volumes.is_empty() {
        return None;
    }
    let (names, name) = (setup.names(), &environment.path.name);
    let (service, config) = (environment.path.service(), names.config(name));
    let image = format!("{}:$KAMAL_VERSION", names.image(name));
    let mut text = format!("  {service})\n    image=\"{image}\"\n");
    for (name, place) in &environment.run.volumes {
        let volume = volume(&environment.path, name);
        // A new volume is root's, and most images run as somebody else.
        text += &format!(
            "    kamal server exec -c {config} --primary \"user=\\$(docker image inspect --format '{{{{.Config.User}}}}' $image); [ -z \\\"\\$user\\\" ] || docker run --rm --network none --user 0 --entrypoint chown --volume {volume}:{place} $image \\\"\\$user\\\" {place}\" ||\n      echo \"the image has no chown: {place} may be root's\"\n"
        );
    }
    if let Some(command) = release {
        let command = match &setup.build {
            Build::Buildpacks { .. } => format!("--entrypoint launcher $image {command}"),
            Build::Dockerfile { .. } => format!("$image {command}"),
        };
        let options = options(setup, environment);
        text += &format!(
            "    kamal server exec -c {config} --primary \"docker run --rm --name {service}-release-$KAMAL_VERSION --network kamal {options} {command} >/dev/null 2>&1\" || {{\n      echo \"the release command failed; what it said is in the VM's journal, tag {service}\" >&2\n      exit 1\n    }}\n"
        );
    }
    text += "    ;;\n";
    Some(text)
}

/// What the app's own containers get, so that the command sees the same.
fn options(setup: &Setup, environment: &EnvironmentSetup) -> String {
    let path = &environment.path;
    let service = path.service();
    let mut options = vec![
        format!("--log-driver journald --log-opt tag={service}"),
        format!("--env PORT={} --env APP_ENV={}", environment.port, path.name),
        format!("--env VMKIT_REPO_SLUG={} --env VMKIT_ENV_SLUG={}", path.app, path.name),
        format!("--env-file {}", env_file(path)),
    ];
    for (name, place) in &environment.run.volumes {
        options.push(format!("--volume {}:{place}", volume(path, name)));
    }
    // The limit of the first role: what starts the app can migrate it.
    let first = setup.roles(environment).into_iter().next();
    if let Some(memory) = first.filter(|role| role.start == Start::Image).and_then(|r| r.memory_mb)
    {
        options.push(format!("--memory {memory}m"));
    }
    options.join(" ")
}
