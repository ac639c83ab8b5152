//! The section of the repo's README that says what VMKit put there and how to go on without it.

use super::{Setup, WORKFLOW_PATH, ssh_key_secret};

const BEGIN: &str = "<!-- vmkit:begin -->";
const END: &str = "<!-- vmkit:end -->";

/// The section that a README has.
pub fn readme_section(readme: &str) -> Option<&str> {
    let begin = readme.find(BEGIN)?;
    let end = readme[begin..].find(END)? + begin + END.len();
    readme.get(begin..end)
}

/// `readme` with the section at its end, or in the place of the section that it has already. The
/// rest is not touched; the same setup gives the same text.
pub fn with_readme_section(readme: &str, setup: &Setup) -> String {
    let section = section(setup);
    match readme_section(readme) {
        Some(there) => readme.replacen(there, &section, 1),
        None if readme.trim().is_empty() => {
            format!("# {}\n\n{section}\n", setup.repo.name())
        }
        None => format!("{}\n\n{section}\n", readme.trim_end()),
    }
}

fn section(setup: &Setup) -> String {
    let mut environments = String::new();
    for environment in &setup.environments {
        let path = &environment.path;
        let place = match (&environment.domain, environment.address) {
            (Some(domain), _) => format!("`{domain}`"),
            (None, Some(address)) => format!("`{address}`"),
            (None, None) => "no VM yet".to_owned(),
        };
        environments += &format!(
            "- **{}**: {place}; the deploy key is the repo's secret `{}`\n",
            path.name,
            ssh_key_secret(path)
        );
    }
    if environments.is_empty() {
        environments.push_str("- none yet\n");
    }
    format!(
        "{BEGIN}\n## Deployment\n\n\
        This repo deploys to a VM of its owner: GitHub Actions builds the image and pushes it to \
        ghcr.io, and [Kamal](https://kamal-deploy.org) starts it over SSH without downtime.\n\n\
        {environments}\n\
        To deploy, run *VMKit deploy* from the Actions tab (`{WORKFLOW_PATH}`), or ask your \
        assistant. By hand, with an own SSH key on the VM and a GitHub token that may read packages:\n\n\
        ```sh\n\
        export KAMAL_REGISTRY_PASSWORD=...\n\
        kamal deploy -c config/deploy.ENVIRONMENT.yml --skip-push --version=COMMIT\n\
        ```\n\n\
        All of it is plain Kamal and GitHub Actions and works without VMKit. The app's env values \
        are on the VM, in `/etc/vmkit/env/`, and neither in this repo nor at GitHub.\n{END}"
    )
}
