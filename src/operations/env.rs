//! `set_env`: env values by revision. Only our own file changes; a deploy applies them.

use super::environments::environment;
use super::services::{ServiceError, password};
use super::{Context, OpError};
use crate::domain::env_values::{self, EnvClass, EnvWarning};
use crate::domain::environment::Environment;
use crate::domain::ids::EnvironmentId;
use crate::domain::names::{EnvKey, EnvironmentPath};
use crate::domain::secret::Secret;
use crate::domain::service::ServiceKind;
use crate::store::{EnvChange, EnvRow, Store};
use crate::vault::{Purpose, Vault};

/// How often a change is tried again when another one comes in between.
const TRIES: u32 = 5;

/// One change that somebody asks for.
#[derive(Debug, Clone)]
pub struct Change {
    /// The key.
    pub key: EnvKey,
    /// Its new value; none unsets it.
    pub value: Option<Secret>,
    /// Who may read it.
    pub class: EnvClass,
}

/// What a change came to.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The environment with its new revision.
    pub environment: Environment,
    /// Keys whose value is another one now, and those that were unset.
    pub keys: Vec<EnvKey>,
    /// Keys that had that value already.
    pub unchanged: Vec<EnvKey>,
    /// What to know about values that were taken all the same.
    pub warnings: Vec<(EnvKey, EnvWarning)>,
}

/// The row that a sealed env value is bound to.
fn row_id(environment: EnvironmentId, key: &EnvKey, revision: u32) -> String {
    format!("{environment}/{key}/{revision}")
}

/// Opens a value as of its revision.
pub(super) fn open(
    vault: &Vault,
    environment: EnvironmentId,
    row: &EnvRow,
) -> Result<Option<Secret>, OpError> {
    let Some(sealed) = &row.sealed else { return Ok(None) };
    let id = row_id(environment, &row.key, row.revision);
    Ok(Some(vault.unseal(sealed, Purpose::EnvValue, &id)?))
}

/// Opens a plain value to show it; a secret one is never opened for that.
pub fn shown(
    vault: &Vault,
    environment: EnvironmentId,
    row: &EnvRow,
) -> Result<Option<String>, OpError> {
    match row.class {
        EnvClass::Plain => {
            let value = open(vault, environment, row)?;
            Ok(value.map(|value| value.expose().to_owned()))
        }
        EnvClass::Secret => Ok(None),
    }
}

/// Hides the secret values of an environment in text that comes from its app.
pub struct Mask {
    values: Vec<Secret>,
}

impl Mask {
    /// Knows every secret value that the environment ever had, but those too short to be hidden
    /// without ruining the text ([`env_values::MIN_MASKED_CHARS`]).
    pub async fn of(
        store: &Store,
        vault: &Vault,
        environment: EnvironmentId,
    ) -> Result<Self, OpError> {
        let mut values = Vec::new();
        for row in store.secrets_ever(environment).await? {
            if let Some(value) = open(vault, environment, &row)?
                && value.expose().chars().count() >= env_values::MIN_MASKED_CHARS
            {
                values.push(value);
            }
        }
        // A value that contains another one is hidden whole.
        values.sort_by_key(|value| std::cmp::Reverse(value.expose().len()));
        Ok(Self { values })
    }

    /// The text with each secret value replaced by `***`.
    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in &self.values {
            if text.contains(value.expose()) {
                text = text.replace(value.expose(), "***");
            }
        }
        text
    }
}

/// Sets and unsets values: merges, never replaces all.
///
/// # Errors
/// A value that no env file can carry, or nothing to change.
pub async fn set(
    context: &Context,
    path: &EnvironmentPath,
    changes: Vec<Change>,
) -> Result<Changed, OpError> {
    if changes.is_empty() {
        return Err(OpError::Nothing { what: "no key to set or unset was given".into() });
    }
    let mut warnings = Vec::new();
    for change in &changes {
        if let Some(value) = &change.value {
            let parsed = env_values::parse(change.key.as_str(), value.clone(), change.class)?;
            warnings.extend(parsed.warning.map(|warning| (parsed.key, warning)));
        }
    }
    let environment = environment(&context.store, path).await?;
    let services = context.store.services(environment.id).await?;
    for change in &changes {
        let key = change.key.as_str();
        let of = ServiceKind::of_key(key).filter(|of| services.iter().any(|one| one.kind == *of));
        if let Some(kind) = of {
            let (environment, key) = (path.to_string(), key.to_owned());
            return Err(ServiceError::ServiceValue { environment, key, kind }.into());
        }
    }
    Ok(Changed { warnings, ..put(context, path, &changes).await? })
}

/// Sets or unsets the addresses of a service beside the app, which nobody else may.
pub(super) async fn of_service(
    context: &Context,
    path: &EnvironmentPath,
    changes: Vec<Change>,
) -> Result<Changed, OpError> {
    put(context, path, &changes).await
}

/// The values of another environment, as changes for this one: the named keys, or every one that this
/// environment does not have. What belongs to that environment alone stays there: the addresses of
/// the services beside its app.
///
/// # Errors
/// A named key is not set there, or there is nothing to copy.
pub async fn copied(
    context: &Context,
    path: &EnvironmentPath,
    from: &EnvironmentPath,
    keys: &[EnvKey],
) -> Result<Vec<Change>, OpError> {
    let (here, there) =
        (environment(&context.store, path).await?, environment(&context.store, from).await?);
    let source = context.store.env_at(there.id, there.env_revision).await?;
    let own = context.store.env_at(here.id, here.env_revision).await?;
    if let Some(key) = keys.iter().find(|key| !source.iter().any(|row| row.key == **key)) {
        return Err(OpError::Nothing { what: format!("`{key}` is not set in `{from}`") });
    }
    let services = context.store.services(there.id).await?;
    let mut changes = Vec::new();
    for row in source {
        let of = ServiceKind::of_key(row.key.as_str());
        let address = of.is_some_and(|kind| services.iter().any(|one| one.kind == kind));
        let wanted = match keys {
            [] => !address && !own.iter().any(|known| known.key == row.key),
            keys => keys.contains(&row.key),
        };
        if !wanted {
            continue;
        }
        if address {
            let what = format!("`{}` leads to a service beside `{from}`", row.key);
            return Err(OpError::Nothing { what });
        }
        if let Some(value) = open(&context.vault, there.id, &row)? {
            changes.push(Change { key: row.key, value: Some(value), class: row.class });
        }
    }
    if changes.is_empty() {
        let what = format!("`{path}` has every key of `{from}` already; name those to copy over");
        return Err(OpError::Nothing { what });
    }
    Ok(changes)
}

/// Values that nobody has seen: random letters and digits, which stand in a URL and in a shell as
/// they are. A key that is set keeps its value, so that a repeated call takes no key away from data
/// that was sealed with it.
///
/// # Errors
/// The environment does not exist.
pub async fn generated(
    context: &Context,
    path: &EnvironmentPath,
    keys: Vec<EnvKey>,
) -> Result<Vec<Change>, OpError> {
    let here = environment(&context.store, path).await?;
    let own = context.store.env_at(here.id, here.env_revision).await?;
    let mut changes = Vec::new();
    for key in keys {
        changes.push(match own.iter().find(|row| row.key == key) {
            Some(row) => {
                let value = open(&context.vault, here.id, row)?;
                Change { key, value, class: row.class }
            }
            None => Change { key, value: Some(password()), class: EnvClass::Secret },
        });
    }
    Ok(changes)
}

/// How the keys of one environment differ from those of another, by name: added ones are set in
/// `path` alone, removed ones in `other` alone. Values are compared by their marks.
///
/// # Errors
/// One of them does not exist.
pub async fn between(
    store: &Store,
    path: &EnvironmentPath,
    other: &EnvironmentPath,
) -> Result<Vec<(EnvKey, Differs)>, OpError> {
    let (here, there) = (environment(store, path).await?, environment(store, other).await?);
    let before = store.env_at(there.id, there.env_revision).await?;
    let after = store.env_at(here.id, here.env_revision).await?;
    Ok(differences(&before, &after))
}

async fn put(
    context: &Context,
    path: &EnvironmentPath,
    changes: &[Change],
) -> Result<Changed, OpError> {
    for _ in 0..TRIES {
        if let Some(changed) = try_set(context, path, changes).await? {
            return Ok(changed);
        }
    }
    Err(OpError::EnvRace)
}

async fn try_set(
    context: &Context,
    path: &EnvironmentPath,
    changes: &[Change],
) -> Result<Option<Changed>, OpError> {
    let mut environment = environment(&context.store, path).await?;
    let base = environment.env_revision;
    let kept = context.store.env_at(environment.id, base).await?;
    let mut changed = Changed {
        environment: environment.clone(),
        keys: vec![],
        unchanged: vec![],
        warnings: vec![],
    };
    let mut rows = Vec::new();
    for change in changes {
        let mark = change.value.as_ref().map(|value| context.vault.mark(value));
        let before = kept.iter().find(|row| row.key == change.key);
        let same = match before {
            Some(row) => row.mark == mark && row.class == change.class,
            None => mark.is_none(),
        };
        if same {
            changed.unchanged.push(change.key.clone());
            continue;
        }
        let sealed = match &change.value {
            None => None,
            Some(value) => {
                let id = row_id(environment.id, &change.key, base + 1);
                Some(context.vault.seal(value, Purpose::EnvValue, &id)?)
            }
        };
        changed.keys.push(change.key.clone());
        rows.push(EnvChange { key: change.key.clone(), class: change.class, sealed, mark });
    }
    if rows.is_empty() {
        return Ok(Some(changed));
    }
    let now = context.clock.now();
    if !context.store.put_env(environment.id, base, rows, now).await? {
        return Ok(None);
    }
    environment.env_revision = base + 1;
    changed.environment = environment;
    Ok(Some(changed))
}

/// The env file of an environment as of a revision.
pub(super) async fn file(
    context: &Context,
    environment: EnvironmentId,
    revision: u32,
) -> Result<Secret, OpError> {
    let mut values = Vec::new();
    for row in context.store.env_at(environment, revision).await? {
        if let Some(value) = open(&context.vault, environment, &row)? {
            values.push((row.key, value));
        }
    }
    Ok(env_values::render(&values)?)
}

/// How a key differs between two revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differs {
    /// It is set in the later one only.
    Added,
    /// It has another value or class.
    Changed,
    /// It is set in the earlier one only.
    Removed,
}

impl Differs {
    /// `added`, `changed` or `removed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// The keys whose values differ between two revisions of an environment, by name. The same value
/// set twice is no difference.
pub async fn difference(
    store: &Store,
    environment: EnvironmentId,
    from: u32,
    to: u32,
) -> Result<Vec<(EnvKey, Differs)>, OpError> {
    let before = store.env_at(environment, from).await?;
    let after = store.env_at(environment, to).await?;
    Ok(differences(&before, &after))
}

fn differences(before: &[EnvRow], after: &[EnvRow]) -> Vec<(EnvKey, Differs)> {
    let same = |a: &EnvRow, b: &EnvRow| a.mark == b.mark && a.class == b.class;
    let mut keys = Vec::new();
    for new in after {
        match before.iter().find(|old| old.key == new.key) {
            None => keys.push((new.key.clone(), Differs::Added)),
            Some(old) if !same(old, new) => keys.push((new.key.clone(), Differs::Changed)),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|old| !after.iter().any(|new| new.key == old.key));
    keys.extend(gone.map(|old| (old.key.clone(), Differs::Removed)));
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    keys
}
