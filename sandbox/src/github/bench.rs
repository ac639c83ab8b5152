//! Where the lab runs steps: a runner's container per job, with real programs. The actions that a
//! deploy workflow uses are done by hand here; one that is not known fails aloud.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;

use super::GitHub;
use super::runs::{Facts, workspace};
use super::stage::{dockerfile, input, values, words};
use crate::SandboxError;
use crate::lab::Lab;
use crate::lab::runner::{BuildOrder, Runner};
use crate::workflow::interpreter::{StepCall, StepExecutor, StepResult};
use crate::workflow::{Action, EnvList};

/// Actions whose work the runner's image has done already, or that leave nothing a deploy needs.
const SILENT: &[&str] = &[
    "ruby/setup-ruby",
    "docker/setup-buildx-action",
    "actions/cache",
    "actions/upload-artifact",
    "buildpacks/github-actions/setup-pack",
];
const OUTPUT_FILE: &str = "/home/runner/work/_temp/output";
const ENV_FILE: &str = "/home/runner/work/_temp/env";
/// Exit code of a step that cannot be run at all.
const NOT_RUN: i32 = 125;
/// In the place of the program `gh`, which would look for GitHub where the lab has none: it notes what
/// it was asked for, and that is done as the step ends.
const GH: &str = "gh() { [ -n \"$GH_TOKEN\" ] || { echo 'gh: set the GH_TOKEN environment variable' >&2; return 4; }; printf '%s\\n' \"$@\" > /home/runner/work/_temp/gh; }\n";
const GH_FILE: &str = "/home/runner/work/_temp/gh";

/// Runs the steps of one run.
pub(super) struct Bench {
    hub: GitHub,
    lab: Lab,
    facts: Facts,
    runners: Mutex<HashMap<u64, Arc<Runner>>>,
}

impl Bench {
    pub(super) fn new(hub: GitHub, lab: Lab, facts: Facts) -> Self {
        Self { hub, lab, facts, runners: Mutex::default() }
    }

    async fn run(&self, mut call: StepCall) -> StepResult {
        if !self.hub.step_may_run(&call).await {
            return StepResult { exit_code: 130, ..StepResult::default() };
        }
        let runner = match self.runner(call.job).await {
            Ok(runner) => runner,
            Err(error) => return refused(&call, &error),
        };
        for (name, path) in [("GITHUB_OUTPUT", OUTPUT_FILE), ("GITHUB_ENV", ENV_FILE)] {
            if let Err(error) = runner.write(path, "") {
                return refused(&call, &error);
            }
            call.env.insert(name.to_owned(), path.to_owned());
        }
        call.env.insert("GITHUB_STEP_SUMMARY".to_owned(), "/dev/null".to_owned());
        let exit_code = match &call.action {
            Action::Run { script, folder } => {
                let folder = folder.as_deref().unwrap_or_default();
                let asks = script.contains("gh workflow run ");
                let script = if asks { format!("{GH}{script}") } else { script.clone() };
                let code =
                    runner.script(&script, folder, &call.env, &call.lines, &call.cancelled).await;
                if asks && code == 0 { self.gh(&runner, &call) } else { code }
            }
            Action::Uses { action, with } => {
                match self.uses(Arc::clone(&runner), action, with).await {
                    Ok(said) => {
                        (call.lines)(&said);
                        0
                    }
                    Err(why) => {
                        (call.lines)(&why);
                        (call.lines)(&format!("##[error]{action} failed"));
                        1
                    }
                }
            }
        };
        let read = |path| values(&runner.command(&["cat", path]).unwrap_or_default());
        StepResult { exit_code, outputs: read(OUTPUT_FILE), env: read(ENV_FILE) }
    }

    /// Does what a step asked of `gh`.
    fn gh(&self, runner: &Runner, call: &StepCall) -> i32 {
        let asked = runner.command(&["cat", GH_FILE]).unwrap_or_default();
        let words: Vec<&str> = asked.lines().collect();
        let done = super::stage::gh(&self.hub, true, &words);
        done.out.lines().chain(done.err.lines()).for_each(|line| (call.lines)(line));
        done.code
    }

    async fn runner(&self, job: u64) -> Result<Arc<Runner>, SandboxError> {
        if let Some(runner) = crate::lock(&self.runners).get(&job) {
            return Ok(Arc::clone(runner));
        }
        let (lab, folder) = (self.lab.clone(), workspace(&self.facts.name));
        let started = tokio::task::spawn_blocking(move || Runner::start(&lab, &folder)).await;
        let runner = Arc::new(started.unwrap_or(Err(SandboxError::Stopped))?);
        crate::lock(&self.runners).insert(job, Arc::clone(&runner));
        Ok(runner)
    }

    /// What the step printed, or why it failed.
    async fn uses(
        &self,
        runner: Arc<Runner>,
        action: &str,
        with: &EnvList,
    ) -> Result<String, String> {
        let name = action.split('@').next().unwrap_or(action);
        match name {
            "actions/checkout" => {
                let (sha, files) = self.hub.tree(&self.facts, input(with, "ref"))?;
                let path = input(with, "path").to_owned();
                blocking(move || runner.check_out(&path, &files)).await?;
                Ok(format!("HEAD is now at {}", &sha[..7]))
            }
            "docker/login-action" => {
                let [registry, user, password] =
                    ["registry", "username", "password"].map(|key| input(with, key).to_owned());
                let host = registry.clone();
                let done = blocking(move || runner.log_in(&host, &user, &password)).await;
                done.map_err(|error| login_error(&registry, error))
            }
            "docker/build-push-action" => {
                let context = input(with, "context").trim_end_matches('/').to_owned();
                let order = BuildOrder {
                    dockerfile: dockerfile(with)
                        .trim_start_matches(&format!("{context}/"))
                        .to_owned(),
                    context,
                    tags: words(input(with, "tags")),
                    labels: words(input(with, "labels")),
                };
                blocking(move || runner.build_and_push(&order)).await
            }
            _ if SILENT.contains(&name) => Ok(format!("(the lab has nothing to do for {name})")),
            _ => Err(format!("Unable to resolve action `{action}`: the lab does not play it")),
        }
    }
}

/// What `docker login` of a real runner says where the registry refuses, in place of skopeo's words.
fn login_error(registry: &str, error: String) -> String {
    match error.contains("invalid username/password") {
        true => {
            format!("Error response from daemon: Get \"https://{registry}/v2/\": denied: denied")
        }
        false => error,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or(Err(SandboxError::Stopped));
    done.map_err(|error| error.to_string())
}

fn refused(call: &StepCall, error: &SandboxError) -> StepResult {
    (call.lines)(&format!("##[error]the lab has no runner: {error}"));
    StepResult { exit_code: NOT_RUN, ..StepResult::default() }
}

impl StepExecutor for Bench {
    fn execute(&self, call: StepCall) -> BoxFuture<'_, StepResult> {
        Box::pin(self.run(call))
    }

    fn job_ended(&self, job: u64) {
        let runner = crate::lock(&self.runners).remove(&job);
        // Removing a container takes a moment, for which nobody has to wait.
        std::thread::spawn(move || drop(runner));
    }
}
