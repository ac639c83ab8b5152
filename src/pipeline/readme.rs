//! The section of the repo's README that says what VMKit put there and how to go on without it.

use super::{Names, Setup};

/// The lines around the section; every app of a repo has a section of its own.
fn marks(names: &Names) -> (String, String) {
    let app = names.word().map_or_else(String::new, |app| format!(":{app}"));
    (format!("<!-- vmkit{app}:begin -->"), format!("<!-- vmkit{app}:end -->"))
}

/// The section of an app that a README has.
pub fn readme_section<'a>(readme: &'a str, names: &Names) -> Option<&'a str> {
    let (first, last) = marks(names);
    let begin = readme.find(&first)?;
    let end = readme[begin..].find(&last)? + begin + last.len();
    readme.get(begin..end)
}

/// `readme` with the section at its end, or in the place of the section that it has already. The
/// rest is not touched; the same setup gives the same text.
pub fn with_readme_section(readme: &str, setup: &Setup) -> String {
    let section = section(setup);
    match readme_section(readme, &setup.names()) {
        Some(there) => readme.replacen(there, &section, 1),
        None if readme.trim().is_empty() => {
            format!("# {}\n\n{section}\n", setup.repo.name())
        }
        None => format!("{}\n\n{section}\n", readme.trim_end()),
    }
}

fn section(setup: &Setup) -> String {
    let names = setup.names();
    let (begin, end) = marks(&names);
    let (workflow, title) = (names.workflow_path(), names.workflow_title());
    let prefix = names.config_prefix();
    let what = match names.word() {
        Some(app) => format!("`{app}` of this repo"),
        None => "This repo".to_owned(),
    };
    let heading = match names.word() {
        Some(app) => format!("Deployment of {app}"),
        None => "Deployment".to_owned(),
    };
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
            names.ssh_key_secret(path)
        );
    }
    if environments.is_empty() {
        environments.push_str("- none yet\n");
    }
    format!(
        "{begin}\n## {heading}\n\n\
        {what} deploys to a VM of its owner: GitHub Actions builds the image and pushes it to \
        ghcr.io, and [Kamal](https://kamal-deploy.org) starts it over SSH without downtime.\n\n\
        {environments}\n\
        To deploy, run *{title}* from the Actions tab (`{workflow}`), or ask your \
        assistant. By hand, with an own SSH key on the VM and a GitHub token that may read packages:\n\n\
        ```sh\n\
        export KAMAL_REGISTRY_PASSWORD=...\n\
        kamal deploy -c config/deploy.{prefix}ENVIRONMENT.yml --skip-push --version=COMMIT\n\
        ```\n\n\
        All of it is plain Kamal and GitHub Actions and works without VMKit. The app's env values \
        are on the VM, in `/etc/vmkit/env/`, and neither in this repo nor at GitHub.\n{end}"
    )
}
