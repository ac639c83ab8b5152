//! Runs a parsed workflow: jobs after what they need, steps in order, conditions, outputs, masks.
//! It does nothing itself: each step goes to the one [`StepExecutor`], and all that happens is told
//! as events.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::expressions::{ExpressionError, Scope, Status};
use super::{Action, EnvList, Job, Step, Workflow};

/// How a job or a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// It did what it should.
    Success,
    /// It did not.
    Failure,
    /// The run was cancelled.
    Cancelled,
    /// Its condition did not hold.
    Skipped,
}

impl Conclusion {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// What happens in a run. `job` counts the workflow's jobs from 0, `step` a job's steps from 0.
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// A job began; `name` is its interpolated name.
    JobStarted { job: usize },
    /// A job ended (or was skipped without a start).
    JobEnded { job: usize, conclusion: Conclusion },
    /// A step began.
    StepStarted { job: usize, step: usize, name: String },
    /// A step ended (or was skipped without a start).
    StepEnded { job: usize, step: usize, name: String, conclusion: Conclusion },
    /// A line of a job's log, secrets masked already.
    Line { job: usize, text: String },
    /// An annotation of a job.
    Annotation { job: usize, message: String },
}

/// Where events go.
pub type Listener = Arc<dyn Fn(RunEvent) + Send + Sync>;

/// Where a step's lines go; they are masked on the way.
pub type Lines = Arc<dyn Fn(&str) + Send + Sync>;

/// One step, ready to be executed: everything interpolated.
pub struct StepCall {
    /// Tells jobs apart; all steps of a job share one runner.
    pub job: u64,
    /// What to do.
    pub action: Action,
    /// The step's whole environment.
    pub env: BTreeMap<String, String>,
    /// The output.
    pub lines: Lines,
    /// The run is being cancelled.
    pub cancelled: CancellationToken,
}

/// What a step left behind.
#[derive(Debug, Clone, Default)]
pub struct StepResult {
    /// 0 is success.
    pub exit_code: i32,
    /// Written to `$GITHUB_OUTPUT`.
    pub outputs: BTreeMap<String, String>,
    /// Written to `$GITHUB_ENV`.
    pub env: BTreeMap<String, String>,
}

/// Does what a step says. The sandbox plays it; a lab runs it for real.
pub trait StepExecutor: Send + Sync {
    /// Executes one step.
    fn execute(&self, call: StepCall) -> BoxFuture<'_, StepResult>;
    /// A job has ended; its runner can go.
    fn job_ended(&self, job: u64);
}

/// A run to be interpreted.
pub struct Run {
    /// The workflow.
    pub workflow: Workflow,
    /// `github`, `inputs`, `secrets` and `vars`.
    pub contexts: Map<String, Value>,
    /// Ids for the jobs, in the workflow's order.
    pub job_ids: Vec<u64>,
    /// Texts that no log shows.
    pub masks: Vec<String>,
    /// What a runner sets for every step (`GITHUB_SHA`, `HOME`, ...).
    pub runner_env: BTreeMap<String, String>,
}

struct Finished {
    conclusion: Conclusion,
    outputs: Map<String, Value>,
}

impl Run {
    /// Runs all jobs; answers how the run ended.
    pub async fn play(
        &self,
        executor: &dyn StepExecutor,
        listener: &Listener,
        cancelled: &CancellationToken,
    ) -> Conclusion {
        let mut finished: BTreeMap<String, Finished> = BTreeMap::new();
        // Bounded: each round ends at least one job, or none is left that could run.
        for _ in 0..self.workflow.jobs.len() {
            let ready = self.workflow.jobs.iter().position(|job| {
                !finished.contains_key(&job.id)
                    && job.needs.iter().all(|need| finished.contains_key(need))
            });
            let Some(at) = ready else { break };
            let done = self.play_job(at, &finished, executor, listener, cancelled).await;
            listener(RunEvent::JobEnded { job: at, conclusion: done.conclusion });
            finished.insert(self.workflow.jobs[at].id.clone(), done);
        }
        let any = |wanted| finished.values().any(|job| job.conclusion == wanted);
        if cancelled.is_cancelled() || any(Conclusion::Cancelled) {
            Conclusion::Cancelled
        } else if any(Conclusion::Failure) || finished.len() < self.workflow.jobs.len() {
            Conclusion::Failure
        } else {
            Conclusion::Success
        }
    }

    async fn play_job(
        &self,
        at: usize,
        finished: &BTreeMap<String, Finished>,
        executor: &dyn StepExecutor,
        listener: &Listener,
        cancelled: &CancellationToken,
    ) -> Finished {
        let job = &self.workflow.jobs[at];
        let scope = self.job_scope(job, finished, cancelled);
        let lines = self.lines(at, listener);
        match scope.condition(job.condition.as_deref()) {
            Ok(true) => {}
            Ok(false) => {
                let conclusion = if cancelled.is_cancelled() {
                    Conclusion::Cancelled
                } else {
                    Conclusion::Skipped
                };
                return Finished { conclusion, outputs: Map::new() };
            }
            Err(error) => return refused(at, &error, &lines, listener),
        }
        listener(RunEvent::JobStarted { job: at });
        lines(&format!("Runner name: 'GitHub Actions {}'", at + 1));
        lines(&format!("Requested labels: {}", job.labels.join(", ")));
        let mut player = Player {
            run: self,
            job,
            at,
            executor,
            listener,
            cancelled,
            lines,
            scope,
            env: BTreeMap::new(),
        };
        let finished = player
            .play()
            .await
            .unwrap_or_else(|error| refused(at, &error, &player.lines, listener));
        executor.job_ended(self.job_ids.get(at).copied().unwrap_or_default());
        finished
    }

    fn job_scope(
        &self,
        job: &Job,
        finished: &BTreeMap<String, Finished>,
        cancelled: &CancellationToken,
    ) -> Scope {
        let needs = job.needs.iter().filter_map(|need| {
            let done = finished.get(need)?;
            let value = json!({ "result": done.conclusion.as_str(), "outputs": done.outputs });
            Some((need.clone(), value))
        });
        let any = |wanted: &[Conclusion]| {
            self.ancestors(job)
                .iter()
                .filter_map(|id| finished.get(*id))
                .any(|done| wanted.contains(&done.conclusion))
        };
        let status = Status {
            failed: any(&[Conclusion::Failure]),
            skipped: job
                .needs
                .iter()
                .filter_map(|id| finished.get(id))
                .any(|done| done.conclusion == Conclusion::Skipped),
            cancelled: cancelled.is_cancelled() || any(&[Conclusion::Cancelled]),
        };
        let mut scope = Scope { contexts: self.contexts.clone(), status };
        scope.set("needs", Value::Object(needs.collect()));
        scope
    }

    /// The jobs that a job needs, and those that they need.
    fn ancestors<'a>(&'a self, job: &'a Job) -> Vec<&'a str> {
        let mut found: Vec<&str> = job.needs.iter().map(String::as_str).collect();
        let mut next = 0;
        while next < found.len() {
            let above = self.workflow.jobs.iter().find(|job| job.id == found[next]);
            for need in above.map(|job| job.needs.as_slice()).unwrap_or_default() {
                if !found.contains(&need.as_str()) {
                    found.push(need);
                }
            }
            next += 1;
        }
        found
    }

    /// What no log shows, the longest first, so that a secret that holds another is covered whole.
    fn masked_words(&self) -> Vec<String> {
        let lines = self.masks.iter().flat_map(|mask| mask.lines()).map(str::trim);
        let mut words: Vec<String> =
            lines.filter(|line| line.len() > 3).map(str::to_owned).collect();
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words
    }

    fn lines(&self, job: usize, listener: &Listener) -> Lines {
        let words = self.masked_words();
        let listener = Arc::clone(listener);
        Arc::new(move |text: &str| {
            for line in masked(&words, text).lines() {
                let mut text = line.to_owned();
                if let Some(message) = command(line, "error") {
                    listener(RunEvent::Annotation { job, message: message.to_owned() });
                    text = format!("##[error]{message}");
                }
                listener(RunEvent::Line { job, text });
            }
        })
    }
}

fn masked(words: &[String], text: &str) -> String {
    words.iter().fold(text.to_owned(), |text, word| text.replace(word.as_str(), "***"))
}

/// The message of a workflow command such as `::error::text` or `::error title=x::text`.
fn command<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.strip_prefix("::")?.strip_prefix(name)?;
    let (settings, message) = rest.split_once("::")?;
    (settings.is_empty() || settings.starts_with(' ')).then_some(message)
}

fn refused(job: usize, error: &ExpressionError, lines: &Lines, listener: &Listener) -> Finished {
    lines(&format!("##[error]{error}"));
    listener(RunEvent::Annotation { job, message: error.to_string() });
    Finished { conclusion: Conclusion::Failure, outputs: Map::new() }
}

/// Plays the steps of one job.
struct Player<'a> {
    run: &'a Run,
    job: &'a Job,
    at: usize,
    executor: &'a dyn StepExecutor,
    listener: &'a Listener,
    cancelled: &'a CancellationToken,
    lines: Lines,
    scope: Scope,
    /// What earlier steps wrote to `$GITHUB_ENV`.
    env: BTreeMap<String, String>,
}

impl Player<'_> {
    async fn play(&mut self) -> Result<Finished, ExpressionError> {
        self.scope.status =
            Status { cancelled: self.cancelled.is_cancelled(), ..Status::default() };
        self.scope.set("steps", Value::Object(Map::new()));
        self.scope.set("runner", json!({ "os": "Linux", "arch": "X64", "temp": "/home/runner/work/_temp", "name": "sandbox" }));
        for (index, step) in self.job.steps.iter().enumerate() {
            self.play_step(index, step).await?;
            self.scope.status.cancelled = self.cancelled.is_cancelled();
        }
        let mut outputs = Map::new();
        for (name, value) in &self.job.outputs {
            outputs.insert(name.clone(), self.scope.interpolate(value)?.into());
        }
        let conclusion = if self.scope.status.cancelled {
            Conclusion::Cancelled
        } else if self.scope.status.failed {
            Conclusion::Failure
        } else {
            Conclusion::Success
        };
        Ok(Finished { conclusion, outputs })
    }

    async fn play_step(&mut self, index: usize, step: &Step) -> Result<(), ExpressionError> {
        self.set_job_env(step)?;
        let name = self.step_name(step)?;
        if !self.scope.condition(step.condition.as_deref())? {
            self.end_step(index, step, name, Conclusion::Skipped, &StepResult::default());
            return Ok(());
        }
        (self.listener)(RunEvent::StepStarted { job: self.at, step: index, name: name.clone() });
        let action = self.interpolated(&step.action)?;
        self.announce(&action);
        let call = StepCall {
            job: self.run.job_ids.get(self.at).copied().unwrap_or_default(),
            action,
            env: self.step_env(step)?,
            lines: Arc::clone(&self.lines),
            // A step that runs although the run was cancelled (`if: always()`) is not cancelled.
            cancelled: if self.cancelled.is_cancelled() {
                CancellationToken::new()
            } else {
                self.cancelled.clone()
            },
        };
        let was_cancelled = self.cancelled.is_cancelled();
        let result = self.executor.execute(call).await;
        let conclusion = match result.exit_code {
            0 => Conclusion::Success,
            _ if self.cancelled.is_cancelled() && !was_cancelled => Conclusion::Cancelled,
            _ => Conclusion::Failure,
        };
        match conclusion {
            Conclusion::Failure => self.tell_failure(result.exit_code),
            Conclusion::Cancelled => (self.lines)("##[error]The operation was canceled."),
            Conclusion::Success | Conclusion::Skipped => {}
        }
        self.env.extend(result.env.clone());
        self.end_step(index, step, name, conclusion, &result);
        Ok(())
    }

    fn tell_failure(&self, exit_code: i32) {
        let message = format!("Process completed with exit code {exit_code}.");
        (self.lines)(&format!("##[error]{message}"));
        (self.listener)(RunEvent::Annotation { job: self.at, message });
    }

    fn end_step(
        &mut self,
        index: usize,
        step: &Step,
        name: String,
        conclusion: Conclusion,
        result: &StepResult,
    ) {
        let counted = if step.continue_on_error && conclusion == Conclusion::Failure {
            Conclusion::Success
        } else {
            conclusion
        };
        self.scope.status.failed |= counted == Conclusion::Failure;
        if let Some(id) = &step.id {
            let value = json!({ "outputs": result.outputs, "outcome": conclusion.as_str(), "conclusion": counted.as_str() });
            if let Some(Value::Object(steps)) = self.scope.contexts.get_mut("steps") {
                steps.insert(id.clone(), value);
            }
        }
        (self.listener)(RunEvent::StepEnded {
            job: self.at,
            step: index,
            name,
            conclusion: counted,
        });
    }

    /// A step's name; a script that stands for one is shown as it is in the file, so that no secret
    /// gets into it.
    fn step_name(&self, step: &Step) -> Result<String, ExpressionError> {
        if let Some(name) = &step.name {
            let name = self.scope.interpolate(name)?;
            return Ok(masked(&self.run.masked_words(), &name));
        }
        Ok(match &step.action {
            Action::Run { script, .. } => {
                format!("Run {}", script.lines().next().unwrap_or_default())
            }
            Action::Uses { action, .. } => format!("Run {action}"),
        })
    }

    /// `env` as a step's expressions see it.
    fn set_job_env(&mut self, step: &Step) -> Result<(), ExpressionError> {
        self.scope.set("env", Value::Object(Map::new()));
        let mut env = BTreeMap::new();
        for list in [&self.run.workflow.env, &self.job.env] {
            self.add_env(list, &mut env)?;
        }
        env.extend(self.env.clone());
        self.set_env(&env);
        self.add_env(&step.env, &mut env)?;
        self.set_env(&env);
        Ok(())
    }

    fn set_env(&mut self, env: &BTreeMap<String, String>) {
        self.scope.set("env", json!(env));
    }

    fn add_env(
        &self,
        list: &EnvList,
        env: &mut BTreeMap<String, String>,
    ) -> Result<(), ExpressionError> {
        for (key, value) in list {
            env.insert(key.clone(), self.scope.interpolate(value)?);
        }
        Ok(())
    }

    fn step_env(&self, step: &Step) -> Result<BTreeMap<String, String>, ExpressionError> {
        let mut env = self.run.runner_env.clone();
        env.insert("GITHUB_JOB".to_owned(), self.job.id.clone());
        for list in [&self.run.workflow.env, &self.job.env] {
            self.add_env(list, &mut env)?;
        }
        env.extend(self.env.clone());
        self.add_env(&step.env, &mut env)?;
        Ok(env)
    }

    fn interpolated(&self, action: &Action) -> Result<Action, ExpressionError> {
        Ok(match action {
            Action::Run { script, folder } => Action::Run {
                script: self.scope.interpolate(script)?,
                folder: folder
                    .as_deref()
                    .map(|folder| self.scope.interpolate(folder))
                    .transpose()?,
            },
            Action::Uses { action, with } => {
                let with = with
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), self.scope.interpolate(value)?)));
                Action::Uses {
                    action: action.clone(),
                    with: with.collect::<Result<_, ExpressionError>>()?,
                }
            }
        })
    }

    fn announce(&self, action: &Action) {
        match action {
            Action::Run { script, .. } => {
                let first = script.lines().next().unwrap_or_default();
                (self.lines)(&format!("##[group]Run {first}"));
                (self.lines)(script);
                (self.lines)("shell: /usr/bin/bash -e {0}");
            }
            Action::Uses { action, with } => {
                (self.lines)(&format!("##[group]Run {action}"));
                for (key, value) in with {
                    (self.lines)(&format!("  {key}: {value}"));
                }
            }
        }
        (self.lines)("##[endgroup]");
    }
}
