//! The deploy workflow: templates with `@NAME@` places, filled with checked values only.

use super::scan::{Build, Language};
use super::{KAMAL_VERSION, Setup, image, known_hosts_variable, ssh_key_secret};
use crate::domain::size::Arch;

const WORKFLOW: &str = include_str!("templates/workflow.yml");
const BUILDPACKS: &str = include_str!("templates/build_buildpacks.yml");
const DOCKERFILE: &str = include_str!("templates/build_dockerfile.yml");
const SSH_STEP: &str = include_str!("templates/ssh_step.yml");

/// The workflow's whole text.
pub(super) fn content(setup: &Setup) -> String {
    let image_prefix = image_prefix(setup);
    let settings: String = setup
        .build_settings
        .iter()
        .map(|(name, value)| format!("            --env \"{name}={value}\" \\\n"))
        .collect();
    let build = match &setup.build {
        Build::Buildpacks { language } => fill(
            BUILDPACKS,
            &[
                ("BUILDER", builder(*language)),
                ("BUILDPACK", buildpack(*language)),
                ("ROOT", &setup.root),
                ("BUILD_SETTINGS\n", &settings),
            ],
        ),
        Build::Dockerfile { path } => fill(
            DOCKERFILE,
            &[
                ("CONTEXT", &setup.root),
                ("FILE", path),
                ("PLATFORM", &by_arch(setup, "linux/amd64", "linux/arm64")),
                ("IMAGE", &image_prefix),
                ("SERVICE", &service_prefix(setup)),
            ],
        ),
    };
    let ssh: String = setup
        .environments
        .iter()
        .map(|environment| {
            fill(
                SSH_STEP,
                &[
                    ("ENVIRONMENT", environment.path.name.as_str()),
                    ("SECRET", &ssh_key_secret(&environment.path)),
                    ("VARIABLE", &known_hosts_variable(&environment.path)),
                ],
            )
        })
        .collect();
    fill(
        WORKFLOW,
        &[
            ("ENVIRONMENT_INPUT\n", &environment_input(setup)),
            ("RUNNER", &by_arch(setup, "ubuntu-24.04", "ubuntu-24.04-arm")),
            ("IMAGE", &image_prefix),
            ("SERVICE", &service_prefix(setup)),
            ("BRANCH", &setup.default_branch),
            ("KAMAL", KAMAL_VERSION),
            ("BUILD_STEPS\n", &build),
            ("SSH_STEPS\n", &ssh),
        ],
    )
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

fn image_prefix(setup: &Setup) -> String {
    match setup.environments.first() {
        Some(first) => {
            let image = image(&setup.repo, &first.path);
            image.strip_suffix(first.path.name.as_str()).unwrap_or(&image).to_owned()
        }
        None => format!("ghcr.io/{}/", setup.repo.as_str().to_ascii_lowercase()),
    }
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
