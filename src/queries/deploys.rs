//! History: what was deployed, what is live, where one can go back to.

use crate::domain::deploy::Deploy;
use crate::domain::ids::DeployId;
use crate::domain::names::EnvironmentPath;
use crate::operations::env::difference;
use crate::operations::environments::{app, environment};
use crate::operations::{Context, OpError};
use crate::store::Store;

/// How many deploys are shown of an environment.
pub const SHOWN: u32 = 50;

/// The history of an environment.
#[derive(Debug, Clone)]
pub struct History {
    /// The newest deploys, newest first.
    pub deploys: Vec<Deploy>,
    /// How each of them went, in the same order.
    pub courses: Vec<Course>,
    /// The deploy that is live.
    pub live: Option<DeployId>,
    /// Where `rollback` goes without a `to`.
    pub rollback_to: Option<DeployId>,
}

/// How a deploy went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course {
    /// Who asked for it.
    pub by: String,
    /// How long it took: `58 s: dispatch 2, watch 40, prove 16`; steps that took no second are left
    /// out. Without steps where its journal is not kept any more.
    pub took: String,
}

async fn course(store: &Store, deploy: &Deploy) -> Result<Course, OpError> {
    let Some(row) = store.operation(deploy.operation).await? else {
        return Ok(Course::default());
    };
    let mut steps = Vec::new();
    for step in store.steps(deploy.operation).await? {
        let seconds = step.ended_at.map_or(0, |end| end.since_ms(step.started_at) / 1000);
        if seconds > 0 {
            steps.push(format!("{} {seconds}", step.name));
        }
    }
    let total = deploy.ended_at.map(|end| end.since_ms(deploy.created_at) / 1000);
    let took = match (total, steps.is_empty()) {
        (Some(total), true) => format!("{total} s"),
        (Some(total), false) => format!("{total} s: {}", steps.join(", ")),
        (None, _) => String::new(),
    };
    Ok(Course { by: row.caller, took })
}

/// Reads the history of an environment.
///
/// # Errors
/// The environment does not exist.
pub async fn history(
    store: &Store,
    path: &EnvironmentPath,
    limit: u32,
) -> Result<History, OpError> {
    let environment = environment(store, path).await?;
    let deploys = store.deploys(environment.id, limit.clamp(1, SHOWN)).await?;
    let releases = store.releases(environment.id, SHOWN).await?;
    let live = releases.first();
    let differs = |past: &&Deploy| {
        live.is_some_and(|live| {
            past.commit != live.commit || past.env_revision != live.env_revision
        })
    };
    let rollback_to = releases.iter().find(differs).map(|deploy| deploy.id);
    let mut courses = Vec::new();
    for deploy in &deploys {
        courses.push(course(store, deploy).await?);
    }
    Ok(History { live: live.map(|deploy| deploy.id), rollback_to, deploys, courses })
}

/// How many commits and files of a comparison are told.
const TOLD: usize = 20;

/// What lies between two deploys of an environment.
#[derive(Debug, Clone)]
pub struct Changes {
    /// How many commits the later one has that the earlier one has not.
    pub ahead: u64,
    /// How many the earlier one has that the later one has not: more than none where the later
    /// one goes back.
    pub behind: u64,
    /// The newest commits of `ahead`, newest first: `a1b2c3d the subject`.
    pub commits: Vec<String>,
    /// The files that differ, those that decide how the app is built and run first:
    /// `modified Dockerfile`.
    pub files: Vec<String>,
    /// How many files differ in all, as far as GitHub tells (300 at most).
    pub files_in_all: usize,
    /// The env keys whose values differ: `GREETING changed`.
    pub env_keys: Vec<String>,
}

/// Tells what lies between two deploys, from the first to the second.
///
/// # Errors
/// One of them is not a deploy of the environment, or GitHub does not answer.
pub async fn changes(
    context: &Context,
    path: &EnvironmentPath,
    from: DeployId,
    to: DeployId,
) -> Result<Changes, OpError> {
    let environment = environment(&context.store, path).await?;
    let find = async |id: DeployId| {
        let found = context.store.deploy(id).await?;
        found.filter(|deploy| deploy.environment == environment.id).ok_or_else(|| {
            let (release, environment) = (id.to_string(), path.to_string());
            OpError::UnknownRelease { release, environment }
        })
    };
    let (from, to) = (find(from).await?, find(to).await?);
    let app = app(&context.store, &path.app).await?;
    let github = context.accounts.github().await?;
    let found = github.compare(&app.app.repo, &from.commit, &to.commit).await?;
    let mut files = found.files;
    files.sort_by_key(|file| !decides(&file.path));
    let env =
        difference(&context.store, environment.id, from.env_revision, to.env_revision).await?;
    Ok(Changes {
        ahead: found.ahead,
        behind: found.behind,
        commits: found
            .commits
            .iter()
            .rev()
            .take(TOLD)
            .map(|commit| format!("{} {}", commit.sha.short(), commit.subject))
            .collect(),
        files_in_all: files.len(),
        files: files
            .iter()
            .take(TOLD)
            .map(|file| format!("{} {}", file.status, file.path))
            .collect(),
        env_keys: env
            .into_iter()
            .map(|(key, differs)| format!("{key} {}", differs.as_str()))
            .collect(),
    })
}

/// Whether a file decides how the app is built, configured or migrated.
fn decides(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let by_name = ["Dockerfile", "Procfile", "Gemfile", "Pipfile", "package.json", "go.mod"];
    let by_end = [".lock", "-lock.json", "-lock.yaml", "requirements.txt", ".toml", ".sum"];
    let by_part = [".github/workflows/", ".kamal/", "config/deploy", "migrat"];
    by_name.contains(&name)
        || by_end.iter().any(|end| name.ends_with(end))
        || by_part.iter().any(|part| path.contains(part))
}
