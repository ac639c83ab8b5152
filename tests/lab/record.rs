//! Failures of the lab as cases of the diagnosis' corpus: the evidence that VMKit itself gathers, of
//! real Kamal, Docker and app on a real VM. Only where `VMKIT_LAB_RECORD` names a folder.

use std::path::PathBuf;

use serde_json::{Value, json};
use vmkit::config::{Environment, Flags, Settings};
use vmkit::diagnosis::Evidence;
use vmkit::domain::clock::Clock;
use vmkit::domain::names::EnvironmentPath;
use vmkit::installation::{Part, open};
use vmkit::operations::deploy::evidence::{self, Subject};
use vmkit::operations::{Context, environments};
use vmkit::queries::diagnosis::{evidence_at_present, evidence_of_newest};

use crate::repo::Repo;
use crate::rig::Rig;
use crate::steps::Place;

/// How many of an app's and of the proxy's last lines a case holds.
const LINES: usize = 60;

#[expect(clippy::disallowed_methods, reason = "the one place of the lab that reads this variable")]
fn folder() -> Option<PathBuf> {
    std::env::var_os("VMKIT_LAB_RECORD").map(PathBuf::from)
}

/// Whether cases are recorded: then more failures are provoked than fit in four minutes.
pub(crate) fn records() -> bool {
    folder().is_some()
}

/// Whether a case is not there yet: a recording that was broken off goes on where it was.
pub(crate) fn is_new(name: &str) -> bool {
    folder().is_some_and(|folder| !folder.join(format!("lab-{name}")).exists())
}

/// Writes the newest run's failure down as `lab-NAME`, whose cause is `code`.
pub(crate) async fn record(rig: &Rig, repo: &Repo<'_>, place: Place, name: &str, code: &str) {
    if !records() {
        return;
    }
    let context = rig.context().await;
    let path: EnvironmentPath = place.environment.parse().expect("a path");
    let ours = evidence_of_newest(&context, &path).await.expect("evidence");
    // A run past VMKit is none of its deploys.
    let runs = repo.newest_title().await.contains("hand-");
    let seen = match ours.filter(|_| !runs) {
        Some(seen) => seen,
        None => of_a_strange_run(&context, repo, &path).await,
    };
    write(name, code, seen);
}

/// Writes what is wrong with the environment just now down as `lab-NAME-now`.
pub(crate) async fn record_now(rig: &Rig, place: Place, name: &str, code: &str) {
    if !records() {
        return;
    }
    let path: EnvironmentPath = place.environment.parse().expect("a path");
    let seen = evidence_at_present(&rig.context().await, &path).await.expect("evidence");
    write(&format!("{name}-now"), code, seen);
}

/// The evidence of the newest run, which VMKit did not start.
async fn of_a_strange_run(context: &Context, repo: &Repo<'_>, path: &EnvironmentPath) -> Evidence {
    let github = context.accounts.github().await.expect("GitHub");
    let name = repo.full_name().parse().expect("a repo");
    let run = github.run(&name, repo.newest_id().await).await.expect("a run");
    let mut seen = Evidence::default();
    evidence::of_run(&github, &name, &run, &mut seen).await.expect("its jobs");
    let environment = environments::environment(&context.store, path).await.expect("it is there");
    let commit = run.title.rsplit('-').next().and_then(|sha| sha.parse().ok());
    let subject = Subject {
        environment: &environment,
        commit: commit.as_ref(),
        env_revision: environment.env_revision,
        good: None,
        since: None,
        until: None,
    };
    evidence::of_environment(context, subject, &mut seen).await.expect("what the VM says");
    seen
}

fn write(name: &str, code: &str, mut seen: Evidence) {
    let folder = folder().expect("a folder").join(format!("lab-{name}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).expect("a file");
    write("expected", &format!("{code}\n"));
    for (file, text) in [
        ("job.log", std::mem::take(&mut seen.job_log)),
        ("app.log", last_lines(&std::mem::take(&mut seen.app_log))),
        ("proxy.log", last_lines(&std::mem::take(&mut seen.proxy_log))),
    ] {
        if !text.is_empty() {
            write(file, &text);
        }
    }
    write("evidence.json", &format!("{:#}\n", shown(json!(seen))));
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LINES);
    lines[first..].iter().map(|line| format!("{line}\n")).collect()
}

/// Without what nobody knows.
fn shown(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, shown(value)));
            let nothing = |value: &Value| {
                matches!(value, Value::Null) || *value == json!([]) || *value == json!("")
            };
            fields.filter(|(_, value)| !nothing(value)).collect()
        }
        Value::Array(values) => values.into_iter().map(shown).collect(),
        other => other,
    }
}

impl Rig {
    /// What a second process on the same state sees: it asks, and drives nothing.
    async fn context(&self) -> Context {
        let pairs = self.pairs();
        let environment: Environment = pairs.into_iter().collect();
        let settings = Settings::resolve(&Flags::default(), &environment).expect("settings");
        open(&settings, Part::Face, Clock::wall()).await.expect("open")
    }
}
