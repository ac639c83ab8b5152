//! The deploy workflow: templates with `@NAME@` places, filled with checked values only.

use super::scan::{Build, Language};
use super::{EnvironmentSetup, KAMAL_VERSION, Setup, has_accessories};
use crate::domain::size::Arch;

const WORKFLOW: &str = include_str!("templates/workflow.yml");
const PUSH_JOB: &str = include_str!("templates/push_job.yml");
const PUSH_STEP: &str = include_str!("templates/push_step.yml");
const BUILDPACKS: &str = include_str!("templates/build_buildpacks.yml");
const BUILDPACKS_STEP: &str = include_str!("templates/build_buildpacks_step.yml");
const DOCKERFILE: &str = include_str!("templates/build_dockerfile.yml");
const DOCKERFILE_STEP: &str = include_str!("templates/build_dockerfile_step.yml");
const SSH_STEP: &str = include_str!("templates/ssh_step.yml");
const BESIDE_STEP: &str = include_str!("templates/beside_step.yml");

/// The workflow's whole text.
pub(super) fn content(setup: &Setup) -> String {
    let names = setup.names();
    let config = names.config_prefix();
    let all = &setup.environments;
    let ssh: String = all
        .iter()
        .map(|environment| {
            fill(
                SSH_STEP,
                &[
                    ("ENVIRONMENT", environment.path.name.as_str()),
                    ("SECRET", &names.ssh_key_secret(&environment.path)),
                    ("VARIABLE", &names.known_hosts_variable(&environment.path)),
                ],
            )
        })
        .collect();
    let beside: String = all
        .iter()
        .filter(|environment| has_accessories(setup, environment))
        .map(|one| {
            let name = one.path.name.as_str();
            fill(BESIDE_STEP, &[("ENVIRONMENT", name), ("CONFIG", &config)])
        })
        .collect();
    let secrets = names.word().map_or_else(String::new, |app| {
        format!("{}__", app.to_ascii_uppercase().replace('-', "_"))
    });
    fill(
        WORKFLOW,
        &[
            ("PUSH_TRIGGER\n", &push_trigger(setup)),
            ("PUSH_JOB\n", &push_job(setup)),
            ("ENVIRONMENT_INPUT\n", &environment_input(setup)),
            ("PLATFORM", &by_arch(setup, "linux/amd64", "linux/arm64")),
            ("RUNNER", &by_arch(setup, "ubuntu-24.04", "ubuntu-24.04-arm")),
            ("IMAGE", &names.image_prefix()),
            ("TITLE", &names.workflow_title()),
            ("GROUP", &names.group()),
            ("SECRETS", &secrets),
            ("CONFIG", &config),
            ("SERVICE", &service_prefix(setup)),
            ("BRANCH", &setup.default_branch),
            ("KAMAL", KAMAL_VERSION),
            ("BUILD_STEPS\n", &build_steps(setup)),
            ("SSH_STEPS\n", &ssh),
            ("BESIDE_STEPS\n", &beside),
        ],
    )
}

/// The environments to which pushes deploy. One without a VM is none yet.
fn pushed(setup: &Setup) -> impl Iterator<Item = (&EnvironmentSetup, &str)> {
    let with_vm = setup.environments.iter().filter(|environment| environment.address.is_some());
    with_vm.filter_map(|one| Some((one, one.run.push_to_deploy.as_ref()?.as_str())))
}

/// Pushes that cannot change what runs start nothing: others' folders in a monorepo, and the files
/// of ours, which VMKit deploys by itself where it has to.
fn push_trigger(setup: &Setup) -> String {
    let mut branches: Vec<&str> = pushed(setup).map(|(_, branch)| branch).collect();
    branches.sort_unstable();
    branches.dedup();
    if branches.is_empty() {
        return String::new();
    }
    let paths = if setup.root == "." {
        let workflow = setup.names().workflow_path();
        format!(
            "paths-ignore: [\"{workflow}\", \".kamal/**\", \"config/deploy.*.yml\", \"README.md\"]"
        )
    } else {
        match &setup.build {
            Build::Dockerfile { path } if !path.starts_with(&format!("{}/", setup.root)) => {
                format!("paths: [\"{}/**\", \"{path}\"]", setup.root)
            }
            Build::Dockerfile { .. } | Build::Buildpacks { .. } => {
                format!("paths: [\"{}/**\"]", setup.root)
            }
        }
    };
    format!("  push:\n    branches: [\"{}\"]\n    {paths}\n", branches.join("\", \""))
}

/// A job that starts the same workflow by hand, as it were: so a push takes the same way as every
/// other deploy, from the default branch's files and one at a time per environment.
fn push_job(setup: &Setup) -> String {
    let steps: String = pushed(setup)
        .map(|(environment, branch)| {
            fill(
                PUSH_STEP,
                &[
                    ("ENVIRONMENT", environment.path.name.as_str()),
                    ("PUSHED", branch),
                    ("FILE", &setup.names().workflow_file()),
                    ("BRANCH", &setup.default_branch),
                ],
            )
        })
        .collect();
    if steps.is_empty() { steps } else { format!("{PUSH_JOB}{steps}\n") }
}

/// One build step; where the build sees variables, one for each environment, which names its own
/// statically.
fn build_steps(setup: &Setup) -> String {
    let (first, _) = match &setup.build {
        Build::Buildpacks { .. } => (BUILDPACKS, BUILDPACKS_STEP),
        Build::Dockerfile { .. } => (DOCKERFILE, DOCKERFILE_STEP),
    };
    if setup.environments.iter().all(|one| one.run.build_variables.is_empty()) {
        return format!("{first}{}", build_step(setup, None));
    }
    let steps: String = setup.environments.iter().map(|one| build_step(setup, Some(one))).collect();
    format!("{first}{steps}")
}

fn build_step(setup: &Setup, environment: Option<&EnvironmentSetup>) -> String {
    let condition = environment
        .map(|one| format!("        if: inputs.environment == '{}'\n", one.path.name))
        .unwrap_or_default();
    let variables: Vec<(&str, bool, String)> = environment
        .into_iter()
        .flat_map(|one| {
            one.run.build_variables.iter().map(|(key, variable)| {
                let at_github = setup.names().build_variable(&one.path, key);
                (key.as_str(), variable.secret, at_github)
            })
        })
        .collect();
    let mut env: String = variables
        .iter()
        .map(|(key, secret, name)| {
            let store = if *secret { "secrets" } else { "vars" };
            format!("          {key}: ${{{{ {store}.{name} }}}}\n")
        })
        .collect();
    match &setup.build {
        Build::Buildpacks { language } => {
            let settings: String = setup
                .build_settings
                .iter()
                .map(|(name, value)| format!("            --env \"{name}={value}\" \\\n"))
                .collect();
            // A name alone takes the value from the step's environment.
            let names: String =
                variables.iter().map(|(key, ..)| format!("            --env {key} \\\n")).collect();
            if !env.is_empty() {
                env.insert_str(0, "        env:\n");
            }
            fill(
                BUILDPACKS_STEP,
                &[
                    ("IF\n", &condition),
                    ("ENV\n", &env),
                    ("BUILDER", builder(*language)),
                    ("BUILDPACK", buildpack(*language)),
                    ("ROOT", &setup.root),
                    ("BUILD_SETTINGS\n", &settings),
                    ("VARIABLES\n", &names),
                ],
            )
        }
        Build::Dockerfile { path } => {
            let list = |title: &str, wanted: bool, line: fn(&str) -> String| {
                let lines: String = variables
                    .iter()
                    .filter(|(_, secret, _)| *secret == wanted)
                    .map(|(key, ..)| format!("            {}\n", line(key)))
                    .collect();
                if lines.is_empty() { lines } else { format!("          {title}: |\n{lines}") }
            };
            // `ARG NAME` in the Dockerfile for plain ones, a secret mount for the others: an
            // argument stays readable in the image's history.
            let arguments = list("build-args", false, str::to_owned)
                + &list("secret-envs", true, |key| format!("{key}={key}"));
            fill(
                DOCKERFILE_STEP,
                &[
                    ("IF\n", &condition),
                    ("ENV\n", &env),
                    ("CONTEXT", &setup.root),
                    ("FILE", path),
                    ("PLATFORM", &by_arch(setup, "linux/amd64", "linux/arm64")),
                    ("IMAGE", &setup.names().image_prefix()),
                    ("SERVICE", &service_prefix(setup)),
                    ("ARGUMENTS\n", &arguments),
                ],
            )
        }
    }
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| {
        // A name with a line break stands for the whole line.
        match name.strip_suffix('\n') {
            Some(name) => text.replace(&format!("@{name}@\n"), value),
            None => text.replace(&format!("@{name}@"), value),
        }
    })
}

fn service_prefix(setup: &Setup) -> String {
    setup.environments.first().map_or_else(|| "app-".to_owned(), |e| format!("{}-", e.path.app))
}

/// A choice of the environments; plain text while there are none, since GitHub refuses an empty
/// choice.
fn environment_input(setup: &Setup) -> String {
    let names: Vec<&str> = setup.environments.iter().map(|e| e.path.name.as_str()).collect();
    if names.is_empty() {
        return "        type: string\n".to_owned();
    }
    // Quoted: an environment may be called `on` or `null`.
    format!("        type: choice\n        options: [\"{}\"]\n", names.join("\", \""))
}

/// One of two words by the architecture of the chosen environment's VM: the word itself where all
/// are alike, else an expression.
fn by_arch(setup: &Setup, amd64: &str, arm64: &str) -> String {
    let arm: Vec<String> = setup
        .environments
        .iter()
        .filter(|environment| environment.arch == Arch::Arm64)
        .map(|environment| format!("inputs.environment == '{}'", environment.path.name))
        .collect();
    if arm.is_empty() {
        amd64.to_owned()
    } else if arm.len() == setup.environments.len() {
        arm64.to_owned()
    } else {
        format!("${{{{ ({}) && '{arm64}' || '{amd64}' }}}}", arm.join(" || "))
    }
}

/// Exact tags that were seen in public use. Paketo's documents list Python, Ruby and Go for the
/// jammy base builder; it names no arm64 target. The noble builder has Java, Node.js and .NET, and
/// this tag is said to have PHP.
fn builder(language: Language) -> &'static str {
    match language {
        Language::Node | Language::Java | Language::DotNet | Language::Php => {
            "paketobuildpacks/ubuntu-noble-builder:0.0.201"
        }
        Language::Python | Language::Ruby | Language::Go => {
            "paketobuildpacks/builder-jammy-base:0.4.644"
        }
    }
}

fn buildpack(language: Language) -> &'static str {
    match language {
        Language::Node => "paketo-buildpacks/nodejs",
        Language::Python => "paketo-buildpacks/python",
        Language::Ruby => "paketo-buildpacks/ruby",
        Language::Go => "paketo-buildpacks/go",
        Language::Java => "paketo-buildpacks/java",
        Language::Php => "paketo-buildpacks/php",
        Language::DotNet => "paketo-buildpacks/dotnet-core",
    }
}
