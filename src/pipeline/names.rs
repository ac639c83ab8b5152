//! What the things of one app are called in its repo and beside it: files, images, secrets, variables.

use crate::domain::environment::App;
use crate::domain::names::{AppSlug, EnvKey, EnvironmentName, EnvironmentPath, RepoName};

/// The names of one app. The first app of a repo has the plain ones; those of every other carry its
/// slug, lest two apps of a monorepo write over each other's files and take each other's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    repo: RepoName,
    app: Option<AppSlug>,
}

impl Names {
    /// Those of an app.
    pub fn of(app: &App) -> Self {
        Self::new(app.repo.clone(), app.named_files.then(|| app.slug.clone()))
    }

    /// Those of the repo's first app, or of another one.
    pub(super) fn new(repo: RepoName, app: Option<AppSlug>) -> Self {
        Self { repo, app }
    }

    /// The app's own word, where it has one.
    pub(super) fn word(&self) -> Option<&str> {
        self.app.as_ref().map(AppSlug::as_str)
    }

    /// `api` before or after a separator; nothing for the first app.
    fn with(&self, before: &str, after: &str) -> String {
        self.word().map_or_else(String::new, |app| format!("{before}{app}{after}"))
    }

    /// The workflow's file name, as the dispatch call takes it.
    pub fn workflow_file(&self) -> String {
        format!("vmkit-deploy{}.yml", self.with("-", ""))
    }

    /// Where the workflow lies in the repo.
    pub fn workflow_path(&self) -> String {
        format!(".github/workflows/{}", self.workflow_file())
    }

    /// What the Actions tab calls it.
    pub(super) fn workflow_title(&self) -> String {
        format!("VMKit deploy{}", self.with(" ", ""))
    }

    /// What names a concurrency group, before the environment. No name has a dot in it.
    pub(super) fn group(&self) -> String {
        format!("vmkit-deploy-{}", self.with("", "."))
    }

    /// The Kamal file of an environment. No name has a dot in it.
    pub fn config(&self, environment: &EnvironmentName) -> String {
        format!("config/deploy.{}{environment}.yml", self.config_prefix())
    }

    /// What stands in a Kamal file's name before the environment: nothing, or `api.`.
    pub(super) fn config_prefix(&self) -> String {
        self.with("", ".")
    }

    /// The folder of Kamal's hooks.
    pub(super) fn hooks(&self) -> String {
        format!(".kamal/hooks{}", self.with("-", ""))
    }

    /// The image of an environment, without a tag: `ghcr.io/octo/shop/production`. Each environment
    /// has its own, because Kamal wants the image's `service` label to be the environment's, and two
    /// environments may differ in architecture: with one name, the second build of a commit would
    /// take the first one's image away.
    pub fn image(&self, environment: &EnvironmentName) -> String {
        format!("{}{environment}", self.image_prefix())
    }

    pub(super) fn image_prefix(&self) -> String {
        format!("ghcr.io/{}/{}", self.repo.as_str().to_ascii_lowercase(), self.with("", "/"))
    }

    /// The secret of the repo that holds an environment's deploy key.
    pub fn ssh_key_secret(&self, environment: &EnvironmentPath) -> String {
        format!("VMKIT_SSH_KEY_{}", self.suffix(environment))
    }

    /// The variable of the repo that holds the `known_hosts` line of an environment's VM.
    pub fn known_hosts_variable(&self, environment: &EnvironmentPath) -> String {
        format!("VMKIT_KNOWN_HOSTS_{}", self.suffix(environment))
    }

    /// The variable or secret of the repo that holds a variable of an environment's build.
    pub fn build_variable(&self, environment: &EnvironmentPath, key: &EnvKey) -> String {
        format!("VMKIT_BUILD_{}__{}", key.as_str().to_ascii_uppercase(), self.suffix(environment))
    }

    fn suffix(&self, environment: &EnvironmentPath) -> String {
        let app = self.with("", "__").to_ascii_uppercase().replace('-', "_");
        format!("{app}{}", environment.suffix())
    }
}
