//! Title and body of the pull request that brings the files.

use super::{GeneratedFile, Setup};
use crate::pipeline::scan::Build;

/// What a maintainer reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullText {
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
}

/// The text of the pull request that brings `files`.
pub fn pull_text(setup: &Setup, files: &[GeneratedFile]) -> PullText {
    let title = match setup.environments.as_slice() {
        [] => "Deploy with GitHub Actions and Kamal".to_owned(),
        [one] => format!("Deploy {} with GitHub Actions and Kamal", one.path.name),
        many => {
            let names: Vec<&str> = many.iter().map(|e| e.path.name.as_str()).collect();
            format!("Deploy {} with GitHub Actions and Kamal", names.join(", "))
        }
    };
    let built = match &setup.build {
        Build::Buildpacks { language } => {
            format!("from {} by Buildpacks, without a Dockerfile", language.as_str())
        }
        Build::Dockerfile { path } => format!("from `{path}`"),
    };
    let list: String =
        files.iter().map(|file| format!("- `{}`: {}\n", file.path, purpose(&file.path))).collect();
    let body = format!(
        "This adds the way from a commit of `{}` to a VM of yours. Merging it deploys nothing: the \
        workflow runs when it is asked to, by you in the Actions tab or by VMKit for you.\n\n\
        ## What it brings\n\n{list}\n\
        ## How a deploy goes\n\n\
        1. GitHub's runner builds the image {built}, and pushes it to this repo's packages with \
        the run's own token.\n\
        2. [Kamal](https://kamal-deploy.org) starts the new version beside the old one, waits until \
        it is healthy, then switches. A version that does not get healthy is stopped, and the old \
        one goes on serving.\n\n\
        ## What it may do\n\n\
        - It reads the code and writes packages of this repo; it has no other permission.\n\
        - It holds one SSH key per environment, for that environment's VM only. A VM with an \
        unknown or changed host key is refused before anything is sent.\n\
        - The app's env values never pass through GitHub.\n\n\
        ## To try it first\n\n\
        Run the workflow with action `build` from the Actions tab: it builds the image and pushes \
        it, and needs no VM.\n\n\
        All of it is plain YAML that works without VMKit. Edit it as you like: VMKit keeps what \
        you change.\n",
        setup.default_branch
    );
    PullText { title, body }
}

fn purpose(path: &str) -> &'static str {
    if path.starts_with(".github/workflows/") {
        "builds, deploys and unlocks, when asked to"
    } else if path == ".kamal/secrets" {
        "names of secrets, no values"
    } else if path == ".kamal/ssh_config" {
        "refuses VMs with an unknown host key"
    } else if path.starts_with(".kamal/hooks") {
        "runs migrations and gives volumes their owner before a new version starts; executable"
    } else if path.starts_with("config/deploy.") {
        "Kamal's configuration of one environment"
    } else {
        "a few lines on how this repo is deployed"
    }
}
