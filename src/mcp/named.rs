//! `app`, `environment` and `repo` are three things: a value of the wrong kind is answered with the
//! right call.

use super::error::ToolError;
use super::{Call, Server, line};
use crate::access::Place;
use crate::domain::clock::Millis;
use crate::domain::ids::VmId;
use crate::domain::names::{AppSlug, BadName, EnvironmentPath, RepoName};
use crate::operations::{OpError, environments, inhabited};

impl Server {
    /// An environment that exists.
    pub(crate) async fn environment(&self, given: &str) -> Result<EnvironmentPath, ToolError> {
        let store = &self.context().store;
        if let Ok(path) = given.parse::<EnvironmentPath>() {
            if let Some(found) = store.environment(path.clone()).await.map_err(OpError::from)? {
                return Ok(found.path);
            }
            if self.app_of(given).await?.is_none() {
                // Between the two looks it may have been made: then it is good.
                return Ok(environments::environment(store, &path).await?.path);
            }
        }
        Err(self.not_an_environment(given).await?)
    }

    /// An environment beside the one that the call is about: a key for some environments has to be for
    /// this one too.
    pub(crate) async fn other_environment(
        &self,
        call: &Call,
        given: &str,
    ) -> Result<EnvironmentPath, ToolError> {
        // Before anything is looked up: whether it exists is the other's secret, too.
        if call.caller().may_touch(&Place::named(given)) {
            return self.environment(given).await;
        }
        let message = format!("this key is not for the environment `{}`", line(given, 80));
        let fix = "ask the owner for a key for both of them (`vmkit keys create`)";
        Err(ToolError::new("place_not_allowed", message).fix(fix))
    }

    /// A VM, by its own id or by an environment on it. Whoever lives on it is touched too, so a key
    /// for some environments has to be for all of them.
    pub(crate) async fn vm(
        &self,
        call: &Call,
        environment: Option<&str>,
        vm: Option<&str>,
    ) -> Result<VmId, ToolError> {
        let id = match (environment, vm) {
            (Some(given), None) => {
                let path = self.other_environment(call, given).await?;
                let found = environments::environment(&self.context().store, &path).await?;
                found.vm.ok_or(OpError::NoVm { environment: path.to_string() })?
            }
            (None, Some(given)) => given.parse().map_err(|error| {
                ToolError::new("bad_id", format!("in the field `vm`: {error}"))
                    .fix("`get_overview` lists the VMs; or name an environment on it")
            })?,
            (None, None) | (Some(_), Some(_)) => {
                let message = "one of the fields `environment` and `vm` says which VM";
                return Err(ToolError::new("bad_argument", message).fix("give just one of them"));
            }
        };
        let here = inhabited(self.context(), id).await?;
        if here.environments.iter().any(|one| !call.caller().may_see(&one.path)) {
            let message = format!("VM {id} carries environments that this key is not for");
            let fix = "ask the owner for a key for all of them (`vmkit keys create`)";
            return Err(ToolError::new("place_not_allowed", message).fix(fix));
        }
        Ok(id)
    }

    /// The name of an environment that is to be made.
    pub(crate) async fn new_environment(&self, given: &str) -> Result<EnvironmentPath, ToolError> {
        let path = match given.parse::<EnvironmentPath>() {
            Ok(path) => path,
            Err(_) => return Err(self.not_an_environment(given).await?),
        };
        let known = self.context().store.app(path.app.clone()).await.map_err(OpError::from)?;
        match (known, self.app_of(given).await?) {
            (None, Some(app)) => Err(repo_for_environment(given, &app)),
            _ => Ok(path),
        }
    }

    /// A repo, also as the address that a browser shows.
    pub(crate) async fn repo(&self, given: &str) -> Result<RepoName, ToolError> {
        let short = given.trim().trim_end_matches('/');
        let short = short.strip_prefix("https://github.com/").unwrap_or(short);
        let short = short.strip_prefix("git@github.com:").unwrap_or(short);
        let short = short.strip_suffix(".git").unwrap_or(short);
        let store = &self.context().store;
        if let Ok(slug) = short.parse::<AppSlug>()
            && let Some(row) = store.app(slug).await.map_err(OpError::from)?
        {
            let fix = format!("pass repo `{}`", row.app.repo);
            return Err(other_kind("repo", given, "the name of an app").fix(fix));
        }
        if let Ok(path) = short.parse::<EnvironmentPath>()
            && let Some(found) = store.environment(path).await.map_err(OpError::from)?
            && let Some(row) = store.app(found.path.app).await.map_err(OpError::from)?
        {
            let fix = format!("pass repo `{}`", row.app.repo);
            return Err(other_kind("repo", given, "an environment").fix(fix));
        }
        short.parse().map_err(bad_name)
    }

    /// The name of an app.
    pub(crate) fn app(&self, given: &str) -> Result<AppSlug, ToolError> {
        if given.contains('/') {
            let kind = "an environment or a repo";
            let fix = "pass the short name alone, such as `shop`";
            return Err(other_kind("app", given, kind).fix(fix));
        }
        given.parse().map_err(bad_name)
    }

    async fn not_an_environment(&self, given: &str) -> Result<ToolError, ToolError> {
        if let Some(app) = self.app_of(given).await? {
            return Ok(repo_for_environment(given, &app));
        }
        if given.parse::<AppSlug>().is_ok() {
            let fix = format!(
                "pass `app/environment`, such as `{given}/production`; `get_overview` lists them"
            );
            return Ok(other_kind("environment", given, "an app's name alone").fix(fix));
        }
        if given.parse::<RepoName>().is_ok() {
            let fix = format!(
                "pass `app/environment` (`get_overview` lists them), or call `scan_repo` with repo `{given}`"
            );
            return Ok(other_kind("environment", given, "the name of a repo").fix(fix));
        }
        let wanted = given.parse::<EnvironmentPath>().map_or_else(bad_name, |_| {
            ToolError::new("bad_name", format!("`{}` cannot be used", line(given, 80)))
        });
        Ok(wanted.fix("`get_overview` lists the environments"))
    }

    /// The app whose repo has this name.
    async fn app_of(&self, repo: &str) -> Result<Option<String>, ToolError> {
        let apps = self.context().store.apps().await.map_err(OpError::from)?;
        let same = |name: &RepoName| name.as_str().eq_ignore_ascii_case(repo);
        Ok(apps.into_iter().find(|row| same(&row.app.repo)).map(|row| row.app.slug.to_string()))
    }
}

fn repo_for_environment(given: &str, app: &str) -> ToolError {
    let kind = format!("the repo of the app `{app}`");
    let fix = format!("pass `{app}/ENVIRONMENT`; `get_overview` lists them");
    other_kind("environment", given, &kind).fix(fix)
}

fn other_kind(field: &str, given: &str, kind: &str) -> ToolError {
    let given = line(given, 80);
    ToolError::new("wrong_kind", format!("`{given}` in the field `{field}` is {kind}"))
}

/// A name of the wrong form.
pub(crate) fn bad_name(error: BadName) -> ToolError {
    ToolError::new("bad_name", error.to_string())
}

/// A time: RFC 3339, or so long ago (`15m`, `2h`, `3d`, `90s`).
pub(crate) fn when(field: &str, given: &str, now: Millis) -> Result<Millis, ToolError> {
    let text = given.trim();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Millis(time.as_millisecond()));
    }
    let unit_ms = match text.chars().last() {
        Some('s') => 1_000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        _ => 0,
    };
    let amount = text.get(..text.len().saturating_sub(1)).and_then(|n| n.parse::<i64>().ok());
    match amount.filter(|amount| *amount >= 0 && unit_ms > 0) {
        Some(amount) => Ok(now.plus_ms(-amount.saturating_mul(unit_ms))),
        None => Err(ToolError::new(
            "bad_time",
            format!("the field `{field}` is `{}`, which is no time", line(given, 40)),
        )
        .fix("give an age such as `15m`, `2h` or `3d`, or a time such as `2026-11-01T09:30:00Z`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_age_or_a_timestamp() {
        let now = Millis(10_000_000);
        assert_eq!(when("since", "90s", now).ok(), Some(Millis(9_910_000)));
        assert_eq!(when("since", "1970-01-01T00:00:01Z", now).ok(), Some(Millis(1_000)));
        for wrong in ["yesterday", "", "-5m", "5", "m", "é"] {
            let error = when("since", wrong, now).expect_err(wrong);
            assert!(error.text().contains("`since`") && error.text().contains("`15m`"), "{error}");
        }
    }
}
