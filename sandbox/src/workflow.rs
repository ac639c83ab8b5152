//! GitHub Actions workflows: the committed YAML as types. The parts that VMKit's pipeline uses are
//! understood; what GitHub knows and this does not (`matrix`, `container`, ...) is refused by name.

pub mod expressions;
pub mod interpreter;
pub mod shell;

use serde_json::{Map, Value};

/// A workflow file that GitHub (or this interpreter) would not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid workflow file: {reason}")]
pub struct WorkflowError {
    /// What is wrong, and where.
    pub reason: String,
}

fn wrong<T>(reason: impl Into<String>) -> Result<T, WorkflowError> {
    Err(WorkflowError { reason: reason.into() })
}

/// A list of env variables in the file's order, values not yet interpolated.
pub type EnvList = Vec<(String, String)>;

/// One workflow file.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// `name`.
    pub name: Option<String>,
    /// `run-name`, not yet interpolated.
    pub run_name: Option<String>,
    /// The inputs of `workflow_dispatch`; `None` where that trigger is missing.
    pub dispatch: Option<Vec<Input>>,
    /// The `push` trigger.
    pub push: Option<PushTrigger>,
    /// `env`.
    pub env: EnvList,
    /// `concurrency`.
    pub concurrency: Option<Concurrency>,
    /// The jobs in the file's order.
    pub jobs: Vec<Job>,
}

/// Which pushes start a run; an empty list leaves it open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushTrigger {
    /// `branches`, as patterns.
    pub branches: Vec<String>,
    /// `paths`, as patterns.
    pub paths: Vec<String>,
    /// `paths-ignore`, as patterns.
    pub paths_ignore: Vec<String>,
}

/// An input of `workflow_dispatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Whether it must be given when there is no default.
    pub required: bool,
    /// Its value when none is given.
    pub default: Option<String>,
    /// The values that a `choice` allows.
    pub options: Option<Vec<String>>,
    /// Whether it is a `boolean`.
    pub is_boolean: bool,
}

/// `concurrency` of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// The group, not yet interpolated.
    pub group: String,
    /// `cancel-in-progress`, not yet interpolated.
    pub cancel_in_progress: String,
    /// `queue: max`: every waiting run keeps its place.
    pub keeps_all: bool,
}

/// One job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its key.
    pub id: String,
    /// `name`, not yet interpolated.
    pub name: Option<String>,
    /// `runs-on` as labels.
    pub labels: Vec<String>,
    /// The keys of the jobs that must end first.
    pub needs: Vec<String>,
    /// `if`.
    pub condition: Option<String>,
    /// `env`.
    pub env: EnvList,
    /// `outputs`, not yet interpolated.
    pub outputs: EnvList,
    /// `environment`'s name.
    pub environment: Option<String>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// `id`.
    pub id: Option<String>,
    /// `name`, not yet interpolated.
    pub name: Option<String>,
    /// `if`.
    pub condition: Option<String>,
    /// `env`.
    pub env: EnvList,
    /// `continue-on-error`.
    pub continue_on_error: bool,
    /// What it does.
    pub action: Action,
}

/// What a step does; values not yet interpolated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `run`: a script of bash.
    Run {
        /// The script.
        script: String,
        /// `working-directory`, relative to the checkout.
        folder: Option<String>,
    },
    /// `uses`: an action by its reference.
    Uses {
        /// Such as `actions/checkout@v6`.
        action: String,
        /// `with`.
        with: EnvList,
    },
}

impl Workflow {
    /// Reads a workflow file.
    ///
    /// # Errors
    /// On YAML that does not parse, on a key that GitHub does not know, and on one that this
    /// interpreter does not.
    pub fn parse(text: &str) -> Result<Self, WorkflowError> {
        let value: Value = serde_saphyr::from_str(text).map_err(|error| WorkflowError {
            reason: format!("You have an error in your yaml syntax: {error}"),
        })?;
        let Value::Object(mut top) = value else { return wrong("it is not a mapping") };
        // YAML 1.1 reads the key `on` as true.
        if let Some(on) = top.shift_remove("true") {
            top.insert("on".to_owned(), on);
        }
        known(
            &top,
            "the workflow",
            &["name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs"],
            &[],
        )?;
        let Some(Value::Object(jobs)) = top.get("jobs") else {
            return wrong("Required property is missing: jobs");
        };
        let jobs =
            jobs.iter().map(|(id, job)| parse_job(id, job)).collect::<Result<Vec<_>, _>>()?;
        if jobs.is_empty() {
            return wrong("the workflow must contain at least one job");
        }
        for job in &jobs {
            if let Some(need) =
                job.needs.iter().find(|need| !jobs.iter().any(|other| other.id == **need))
            {
                return wrong(format!("Job '{}' depends on unknown job '{need}'.", job.id));
            }
        }
        Ok(Self {
            name: text_of(&top, "name"),
            run_name: text_of(&top, "run-name"),
            dispatch: dispatch(top.get("on"))?,
            push: push(top.get("on"))?,
            env: pairs(top.get("env"), "env")?,
            concurrency: concurrency(top.get("concurrency"))?,
            jobs,
        })
    }
}

fn known(
    map: &Map<String, Value>,
    place: &str,
    keys: &[&str],
    later: &[&str],
) -> Result<(), WorkflowError> {
    for key in map.keys() {
        if later.contains(&key.as_str()) {
            return wrong(format!("the sandbox does not play `{key}` ({place})"));
        }
        if !keys.contains(&key.as_str()) {
            return wrong(format!("Unexpected value '{key}' ({place})"));
        }
    }
    Ok(())
}

/// A scalar as text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(expressions::as_text(value)),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn text_of(map: &Map<String, Value>, key: &str) -> Option<String> {
    map.get(key).filter(|value| !value.is_null()).and_then(scalar)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(scalar).collect(),
        Some(value) if !value.is_null() => scalar(value).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn pairs(value: Option<&Value>, place: &str) -> Result<EnvList, WorkflowError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(fields)) => fields
            .iter()
            .map(|(key, value)| match scalar(value) {
                Some(text) => Ok((key.clone(), text)),
                None => wrong(format!("`{key}` under `{place}` must be a scalar")),
            })
            .collect(),
        Some(_) => wrong(format!("`{place}` must be a mapping")),
    }
}

fn dispatch(on: Option<&Value>) -> Result<Option<Vec<Input>>, WorkflowError> {
    let settings = match on {
        None => return wrong("Required property is missing: on"),
        Some(Value::String(event)) => return Ok((event == "workflow_dispatch").then(Vec::new)),
        Some(Value::Array(events)) => {
            let has = events.iter().any(|event| event == "workflow_dispatch");
            return Ok(has.then(Vec::new));
        }
        Some(Value::Object(events)) => events.get("workflow_dispatch"),
        Some(_) => return wrong("`on` must name events"),
    };
    let Some(settings) = settings else { return Ok(None) };
    let inputs = settings.get("inputs").and_then(Value::as_object);
    let inputs = inputs.into_iter().flatten().map(|(name, input)| Input {
        name: name.clone(),
        required: input.get("required").is_some_and(expressions::truthy),
        default: input.get("default").and_then(scalar),
        options: input.get("options").map(|options| texts(Some(options))),
        is_boolean: input.get("type").is_some_and(|kind| kind == "boolean"),
    });
    Ok(Some(inputs.collect()))
}

fn push(on: Option<&Value>) -> Result<Option<PushTrigger>, WorkflowError> {
    match on {
        Some(Value::String(event)) => Ok((event == "push").then(PushTrigger::default)),
        Some(Value::Array(events)) => {
            Ok(events.iter().any(|event| event == "push").then(PushTrigger::default))
        }
        Some(Value::Object(events)) => match events.get("push") {
            Some(Value::Object(fields)) => {
                let later = ["branches-ignore", "tags", "tags-ignore"];
                known(fields, "push", &["branches", "paths", "paths-ignore"], &later)?;
                Ok(Some(PushTrigger {
                    branches: texts(fields.get("branches")),
                    paths: texts(fields.get("paths")),
                    paths_ignore: texts(fields.get("paths-ignore")),
                }))
            }
            Some(_) => Ok(Some(PushTrigger::default())),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

fn concurrency(value: Option<&Value>) -> Result<Option<Concurrency>, WorkflowError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(fields)) => {
            known(fields, "concurrency", &["group", "cancel-in-progress", "queue"], &[])?;
            let Some(group) = text_of(fields, "group") else {
                return wrong("Required property is missing: group (concurrency)");
            };
            Ok(Some(Concurrency {
                group,
                cancel_in_progress: text_of(fields, "cancel-in-progress")
                    .unwrap_or_else(|| "false".to_owned()),
                keeps_all: text_of(fields, "queue").is_some_and(|queue| queue == "max"),
            }))
        }
        Some(value) => Ok(scalar(value).map(|group| Concurrency {
            group,
            cancel_in_progress: "false".to_owned(),
            keeps_all: false,
        })),
    }
}

fn parse_job(id: &str, value: &Value) -> Result<Job, WorkflowError> {
    let place = format!("job '{id}'");
    let Value::Object(fields) = value else { return wrong(format!("{place} must be a mapping")) };
    const KEYS: &[&str] = &[
        "name",
        "runs-on",
        "needs",
        "if",
        "env",
        "outputs",
        "environment",
        "steps",
        "permissions",
        "timeout-minutes",
        "defaults",
        "continue-on-error",
        "concurrency",
    ];
    known(fields, &place, KEYS, &["strategy", "container", "services", "uses", "with", "secrets"])?;
    let labels = texts(fields.get("runs-on"));
    if labels.is_empty() {
        return wrong(format!("Required property is missing: runs-on ({place})"));
    }
    let Some(Value::Array(steps)) = fields.get("steps") else {
        return wrong(format!("Required property is missing: steps ({place})"));
    };
    let steps = steps.iter().map(|step| parse_step(step, &place));
    let environment = match fields.get("environment") {
        Some(Value::Object(environment)) => text_of(environment, "name"),
        Some(value) if !value.is_null() => scalar(value),
        _ => None,
    };
    Ok(Job {
        id: id.to_owned(),
        name: text_of(fields, "name"),
        labels,
        needs: texts(fields.get("needs")),
        condition: text_of(fields, "if"),
        env: pairs(fields.get("env"), "env")?,
        outputs: pairs(fields.get("outputs"), "outputs")?,
        environment,
        steps: steps.collect::<Result<_, _>>()?,
    })
}

fn parse_step(value: &Value, place: &str) -> Result<Step, WorkflowError> {
    let Value::Object(fields) = value else {
        return wrong(format!("a step of {place} is not a mapping"));
    };
    const KEYS: &[&str] = &[
        "id",
        "name",
        "if",
        "env",
        "run",
        "uses",
        "with",
        "shell",
        "working-directory",
        "continue-on-error",
        "timeout-minutes",
    ];
    known(fields, &format!("a step of {place}"), KEYS, &[])?;
    let action = match (text_of(fields, "run"), text_of(fields, "uses")) {
        (Some(script), None) => {
            if let Some(shell) = text_of(fields, "shell").filter(|shell| !shell.starts_with("bash"))
            {
                return wrong(format!("the sandbox plays only bash, not `{shell}` ({place})"));
            }
            Action::Run { script, folder: text_of(fields, "working-directory") }
        }
        (None, Some(action)) => Action::Uses { action, with: pairs(fields.get("with"), "with")? },
        _ => return wrong(format!("a step of {place} needs either `run` or `uses`")),
    };
    Ok(Step {
        id: text_of(fields, "id"),
        name: text_of(fields, "name"),
        condition: text_of(fields, "if"),
        env: pairs(fields.get("env"), "env")?,
        continue_on_error: fields
            .get("continue-on-error")
            .is_some_and(|value| value == &Value::Bool(true)),
        action,
    })
}
