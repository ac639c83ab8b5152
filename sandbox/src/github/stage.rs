//! Where the sandbox plays steps: a runner in memory per job, with the programs that a deploy
//! workflow calls.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::GitHub;
use super::git::{FileContent, Files, Mode};
use super::runs::{Facts, workspace};
use crate::build::Recipe;
use crate::kamal::Kamal;
use crate::workflow::interpreter::{StepCall, StepExecutor, StepResult};
use crate::workflow::shell::{Output, Programs, Shell};
use crate::workflow::{Action, EnvList};

/// How long an app may take to answer for the first time; generous, since test machines are slow.
const PATIENCE: Duration = Duration::from_secs(15);
/// Actions that need nothing done here.
const SILENT: &[&str] = &[
    "ruby/setup-ruby",
    "docker/setup-buildx-action",
    "docker/setup-qemu-action",
    "actions/cache",
    "actions/upload-artifact",
    "actions/setup-node",
    "actions/setup-python",
    "docker/metadata-action",
    "buildpacks/github-actions/setup-pack",
];
const OUTPUT_FILE: &str = "/home/runner/work/_temp/output";
const ENV_FILE: &str = "/home/runner/work/_temp/env";

/// Plays the steps of one run.
pub(super) struct Stage {
    hub: GitHub,
    facts: Facts,
    runners: Mutex<HashMap<u64, Runner>>,
}

/// The machine that a job runs on.
#[derive(Default, Clone)]
struct Runner {
    shell: Shell,
    modes: Arc<BTreeMap<String, Mode>>,
}

impl Stage {
    pub(super) fn new(hub: GitHub, facts: Facts) -> Self {
        Self { hub, facts, runners: Mutex::default() }
    }

    async fn play(&self, call: StepCall) -> StepResult {
        if !self.hub.step_may_run(&call).await {
            return StepResult { exit_code: 130, ..StepResult::default() };
        }
        let mut runner = crate::lock(&self.runners).remove(&call.job).unwrap_or_default();
        let root = workspace(&self.facts.name);
        runner.shell.env.clone_from(&call.env);
        runner.shell.env.insert("GITHUB_OUTPUT".to_owned(), OUTPUT_FILE.to_owned());
        runner.shell.env.insert("GITHUB_ENV".to_owned(), ENV_FILE.to_owned());
        runner.shell.env.insert("GITHUB_STEP_SUMMARY".to_owned(), "/dev/null".to_owned());
        runner.shell.cwd.clone_from(&root);
        let exit_code = match &call.action {
            Action::Uses { action, with } => self.uses(&mut runner, action, with, &call),
            Action::Run { script, folder } => {
                if let Some(folder) = folder {
                    runner.shell.cwd = runner.shell.absolute(folder);
                }
                let programs = Tools {
                    hub: &self.hub,
                    modes: Arc::clone(&runner.modes),
                    cancelled: call.cancelled.clone(),
                };
                let lines = Arc::clone(&call.lines);
                let sink = move |output: &Output| {
                    for text in [&output.out, &output.err] {
                        if !text.is_empty() {
                            lines(text);
                        }
                    }
                };
                runner.shell.script(script, &programs, &sink).await
            }
        };
        let mut written = |path: &str| {
            runner
                .shell
                .files
                .remove(path)
                .map(|bytes| values(&String::from_utf8_lossy(&bytes)))
                .unwrap_or_default()
        };
        let (outputs, env) = (written(OUTPUT_FILE), written(ENV_FILE));
        crate::lock(&self.runners).insert(call.job, runner);
        StepResult { exit_code, outputs, env }
    }

    fn uses(&self, runner: &mut Runner, action: &str, with: &EnvList, call: &StepCall) -> i32 {
        let name = action.split('@').next().unwrap_or(action);
        let input = |key: &str| input(with, key);
        let say = |text: &str| (call.lines)(text);
        match name {
            "actions/checkout" => self.check_out(runner, input("ref"), input("path"), call),
            "docker/login-action" => {
                if input("username").is_empty() || input("password").is_empty() {
                    say("##[error]Username and password required");
                    return 1;
                }
                say(&format!("Logging into {}...\nLogin Succeeded!", input("registry")));
                0
            }
            "docker/build-push-action" => {
                let recipe = Recipe {
                    tags: words(input("tags")),
                    context: input("context").to_owned(),
                    dockerfile: Some(dockerfile(with)),
                    labels: words(input("labels"))
                        .iter()
                        .filter_map(|label| label.split_once('='))
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .collect(),
                };
                let output = build(
                    &self.hub,
                    &runner.shell,
                    &runner.modes,
                    &workspace(&self.facts.name),
                    &recipe,
                );
                say(&format!("{}{}", output.out, output.err));
                output.code
            }
            _ if SILENT.contains(&name) => {
                say(&format!("(the sandbox has nothing to do for {name})"));
                0
            }
            _ => {
                say(&format!(
                    "##[error]Unable to resolve action `{action}`: the sandbox does not play it"
                ));
                1
            }
        }
    }

    fn check_out(&self, runner: &mut Runner, reference: &str, path: &str, call: &StepCall) -> i32 {
        let (sha, files) = match self.hub.tree(&self.facts, reference) {
            Ok(found) => found,
            Err(text) => {
                (call.lines)(&format!("##[error]{text}"));
                return 1;
            }
        };
        (call.lines)(&format!("HEAD is now at {}", &sha[..7]));
        let root = runner.shell.absolute(path);
        let below = format!("{root}/");
        runner.shell.files.retain(|name, _| !name.starts_with(&below));
        let modes = files.iter().map(|(path, file)| (format!("{below}{path}"), file.mode));
        runner.modes = Arc::new(modes.collect());
        runner
            .shell
            .files
            .extend(files.into_iter().map(|(path, file)| (format!("{below}{path}"), file.bytes)));
        0
    }
}

impl GitHub {
    /// Waits while a knob holds this step; false where it was cancelled meanwhile.
    pub(super) async fn step_may_run(&self, call: &StepCall) -> bool {
        let text = match &call.action {
            Action::Run { script, .. } => script,
            Action::Uses { action, .. } => action,
        };
        let free = |state: &super::store::State| {
            state.knobs.hold_step.as_ref().is_none_or(|held| !text.contains(held.as_str()))
        };
        tokio::select! {
            _ = self.until(Duration::from_secs(600), free) => true,
            () = call.cancelled.cancelled() => false,
        }
    }

    /// The files of a commit, branch or tag (the run's own commit where empty), with the commit's
    /// id, or what `actions/checkout` says.
    pub(super) fn tree(&self, facts: &Facts, reference: &str) -> Result<(String, Files), String> {
        let wanted = if reference.is_empty() { facts.sha.as_str() } else { reference };
        let mut state = self.state();
        let found = state.repo_by_id(facts.repo).and_then(|repo| {
            let sha = repo.resolve(wanted)?;
            repo.git.files(&sha).map(|files| (sha, files))
        });
        found.ok_or_else(|| {
            if wanted.len() == 40 {
                format!("fatal: remote error: upload-pack: not our ref {wanted}")
            } else {
                format!("A branch or tag with the name '{wanted}' could not be found")
            }
        })
    }
}

impl StepExecutor for Stage {
    fn execute(&self, call: StepCall) -> BoxFuture<'_, StepResult> {
        Box::pin(self.play(call))
    }

    fn job_ended(&self, job: u64) {
        crate::lock(&self.runners).remove(&job);
    }
}

/// An input of an action; empty where it is not given.
pub(super) fn input<'a>(with: &'a EnvList, key: &str) -> &'a str {
    with.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str()).unwrap_or_default()
}

/// The Dockerfile that `docker/build-push-action` takes, relative to the checkout.
pub(super) fn dockerfile(with: &EnvList) -> String {
    let file = match input(with, "file") {
        "" => format!("{}/Dockerfile", input(with, "context").trim_end_matches('/')),
        file => file.to_owned(),
    };
    file.trim_start_matches("./").trim_start_matches('/').to_owned()
}

/// `NAME=value` lines, and `NAME<<END` blocks.
pub(super) fn values(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let block = line.split_once("<<").filter(|(name, _)| !name.contains('='));
        if let Some((name, end)) = block {
            let value: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
            found.insert(name.to_owned(), value.join("\n"));
        } else if let Some((name, value)) = line.split_once('=') {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found
}

/// Words apart by line breaks or commas.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(['\n', ','])
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Builds from the files below a folder of the runner.
fn build(
    hub: &GitHub,
    shell: &Shell,
    modes: &BTreeMap<String, Mode>,
    root: &str,
    recipe: &Recipe,
) -> Output {
    let below = format!("{root}/");
    let files: Files = shell
        .files
        .iter()
        .filter_map(|(path, bytes)| {
            let mode = modes.get(path).copied().unwrap_or(Mode::File);
            Some((
                path.strip_prefix(&below)?.to_owned(),
                FileContent { mode, bytes: Arc::clone(bytes) },
            ))
        })
        .collect();
    match hub.registry().build(&files, recipe) {
        Ok(log) => Output::ok(log),
        Err(log) => Output::fail(1, format!("{log}\n")),
    }
}

/// The programs on a runner.
struct Tools<'a> {
    hub: &'a GitHub,
    modes: Arc<BTreeMap<String, Mode>>,
    cancelled: CancellationToken,
}

impl Programs for Tools<'_> {
    fn run<'a>(
        &'a self,
        shell: &'a mut Shell,
        argv: &'a [String],
        stdin: &'a str,
    ) -> BoxFuture<'a, Option<Output>> {
        Box::pin(async move {
            let arguments = &argv[1..];
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Some(match argv[0].as_str() {
                "kamal" => self.kamal().run(arguments, shell, self, &self.cancelled).await,
                "gem" => Output::ok("(the sandbox has Kamal installed)\n"),
                "git" => git(shell, &words),
                "gh" => {
                    let token = shell.env.get("GH_TOKEN");
                    gh(self.hub, token.is_some_and(|token| !token.is_empty()), &words)
                }
                "pack" => self.pack(shell, &words),
                "docker" => self.docker(shell, &words, stdin),
                _ => return None,
            })
        })
    }
}

/// `gh workflow run FILE`, with the run's own token.
pub(super) fn gh(hub: &GitHub, has_token: bool, words: &[&str]) -> Output {
    if !has_token {
        return Output::fail(
            4,
            "gh: To use GitHub CLI in a GitHub Actions workflow, set the GH_TOKEN environment variable.\n",
        );
    }
    let ["workflow", "run", rest @ ..] = words else {
        return Output::fail(1, "the sandbox plays only `gh workflow run`\n");
    };
    let (names, flags) = flags(rest, &[]);
    let of = |long: &str, short: &str| {
        flags.iter().find(|(flag, _)| *flag == long || *flag == short).map(|(_, value)| *value)
    };
    let inputs: serde_json::Map<String, serde_json::Value> = flags
        .iter()
        .filter(|(flag, _)| ["-f", "--raw-field", "-F", "--field"].contains(flag))
        .filter_map(|(_, pair)| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let (repo, branch) = (of("--repo", "-R").unwrap_or_default(), of("--ref", "-r"));
    let (Some(place), [file]) = (repo.split_once('/'), names.as_slice()) else {
        return Output::fail(1, "could not determine the workflow or the repo\n");
    };
    let branch = branch.unwrap_or("main");
    match hub.dispatch(place, file, branch, &serde_json::Value::Object(inputs)) {
        Ok(_) => Output::ok(format!("Created workflow_dispatch event for {file} at {branch}\n")),
        Err(refusal) => {
            Output::fail(1, format!("could not create workflow dispatch event: {refusal:?}\n"))
        }
    }
}

impl Tools<'_> {
    fn kamal(&self) -> Kamal {
        let executable = self.modes.iter().filter(|(_, mode)| **mode == Mode::Executable);
        Kamal {
            machines: self.hub.0.machines.clone(),
            registry: self.hub.registry().clone(),
            patience: PATIENCE,
            executable: Arc::new(executable.map(|(path, _)| path.clone()).collect()),
        }
    }

    fn pack(&self, shell: &Shell, words: &[&str]) -> Output {
        let ["build", rest @ ..] = words else {
            return Output::fail(1, "ERROR: the sandbox plays only `pack build`\n");
        };
        let (names, flags) =
            flags(rest, &["--publish", "--trust-builder", "--clear-cache", "--quiet", "-q"]);
        let all = |wanted: &[&str]| {
            flags
                .iter()
                .filter(|(flag, _)| wanted.contains(flag))
                .map(|(_, value)| *value)
                .collect::<Vec<_>>()
        };
        let Some(name) = names.first() else {
            return Output::fail(1, "ERROR: accepts 1 arg(s), received 0\n");
        };
        let labels = all(&["--env", "-e"])
            .into_iter()
            .filter_map(|env| env.strip_prefix("BP_IMAGE_LABELS="))
            .flat_map(|labels| labels.split(' '));
        let mut tags = vec![(*name).to_owned()];
        tags.extend(all(&["--tag", "-t"]).into_iter().map(str::to_owned));
        let recipe = Recipe {
            tags,
            context: all(&["--path", "-p"]).first().copied().unwrap_or_default().to_owned(),
            dockerfile: None,
            labels: labels
                .filter_map(|label| label.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        };
        build(self.hub, shell, &self.modes, &shell.cwd, &recipe)
    }

    fn docker(&self, shell: &Shell, words: &[&str], stdin: &str) -> Output {
        let rest = match words {
            ["build", rest @ ..] | ["buildx", "build", rest @ ..] => rest,
            ["push", name] => {
                let known = self.hub.registry().image(name).is_some();
                return if known {
                    Output::ok("")
                } else {
                    Output::fail(
                        1,
                        format!("An image does not exist locally with the tag: {name}\n"),
                    )
                };
            }
            ["login", ..] if words.contains(&"--password-stdin") && stdin.trim().is_empty() => {
                return Output::fail(1, "Error: Password Required\n");
            }
            ["login", ..] => return Output::ok("Login Succeeded\n"),
            _ => {
                return Output::fail(
                    125,
                    format!("docker: the sandbox does not play `docker {}`\n", words.join(" ")),
                );
            }
        };
        let (names, flags) =
            flags(rest, &["--push", "--pull", "--no-cache", "--load", "-q", "--quiet"]);
        let all = |wanted: &[&str]| {
            flags
                .iter()
                .filter(|(flag, _)| wanted.contains(flag))
                .map(|(_, value)| *value)
                .collect::<Vec<_>>()
        };
        if names.first() == Some(&"-") {
            let labels = all(&["--label"]).into_iter().filter_map(|label| label.split_once('='));
            let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let tags: Vec<String> = all(&["-t", "--tag"]).into_iter().map(str::to_owned).collect();
            return self.promote(stdin, &tags, &labels);
        }
        let context = names.first().copied().unwrap_or(".").trim_end_matches('/');
        let default =
            if context == "." { "Dockerfile".to_owned() } else { format!("{context}/Dockerfile") };
        let recipe = Recipe {
            tags: all(&["-t", "--tag"]).into_iter().map(str::to_owned).collect(),
            context: context.to_owned(),
            dockerfile: Some(
                all(&["-f", "--file"]).first().map_or(default, |file| (*file).to_owned()),
            ),
            labels: all(&["--label"])
                .into_iter()
                .filter_map(|label| label.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        };
        build(self.hub, shell, &self.modes, &shell.cwd, &recipe)
    }
}

impl Tools<'_> {
    /// A Dockerfile from stdin, of which only a lone `FROM` line is played.
    fn promote(
        &self,
        dockerfile: &str,
        tags: &[String],
        labels: &BTreeMap<String, String>,
    ) -> Output {
        let Some(from) =
            dockerfile.trim().strip_prefix("FROM ").filter(|rest| !rest.contains('\n'))
        else {
            return Output::fail(
                1,
                "ERROR: of a Dockerfile from stdin the sandbox plays only FROM\n",
            );
        };
        if self.hub.registry().promote(from.trim(), tags, labels) {
            return Output::ok(format!("pushing manifest for {} done\n", tags.join(", ")));
        }
        Output::fail(
            1,
            format!(
                "ERROR: failed to solve: {from}: failed to resolve source metadata for {from}: {from}: not found\n"
            ),
        )
    }
}

/// Arguments without flags, and flags with their values; `alone` are those without one.
fn flags<'a>(words: &[&'a str], alone: &[&str]) -> (Vec<&'a str>, Vec<(&'a str, &'a str)>) {
    let (mut names, mut found) = (Vec::new(), Vec::new());
    let mut rest = words.iter().copied();
    while let Some(word) = rest.next() {
        if !word.starts_with('-') || word == "-" {
            names.push(word);
        } else if let Some((flag, value)) = word.split_once('=') {
            found.push((flag, value));
        } else if !alone.contains(&word) {
            found.push((word, rest.next().unwrap_or_default()));
        }
    }
    (names, found)
}

fn git(shell: &mut Shell, words: &[&str]) -> Output {
    match words {
        ["config", rest @ ..] => {
            let rest: Vec<&&str> = rest.iter().filter(|word| !word.starts_with("--")).collect();
            match rest.as_slice() {
                [key, value] => {
                    shell.git.insert((**key).to_owned(), (**value).to_owned());
                    Output::default()
                }
                [key] => match shell.git.get(**key) {
                    Some(value) => Output::ok(format!("{value}\n")),
                    None => Output::fail(1, ""),
                },
                _ => Output::fail(1, "error: the sandbox plays only `git config KEY [VALUE]`\n"),
            }
        }
        _ => Output::fail(1, format!("git: the sandbox does not play `git {}`\n", words.join(" "))),
    }
}
