//! Actions: begun on a server that no other action holds, and waited for until they end.

use std::time::Duration;

use serde_json::Value;

use super::servers::{number, vm};
use super::{Hetzner, PROVIDER, refusal, wire};
use crate::clouds::{CloudError, CloudVm};
use crate::domain::ids::InstallationId;
use crate::requests::Call;

/// An action that ended badly.
pub(super) struct Failure {
    /// Hetzner's code for the reason.
    pub(super) code: String,
    pub(super) error: CloudError,
}

impl Hetzner {
    /// The server if it is this installation's.
    pub(super) async fn our_server(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<CloudVm, CloudError> {
        let Some(found) = self.server(id).await? else {
            return Err(CloudError::NotFound { provider: PROVIDER, what: format!("server {id}") });
        };
        if found.belongs_to(installation) {
            return Ok(found);
        }
        let what = format!("server `{}`", found.name);
        Err(CloudError::Foreign { provider: PROVIDER, what })
    }

    /// Waits until no action holds the server, for at most `limit`; returns it as it is then.
    /// Whatever begins an action waits so first: one of Hetzner's own may take minutes.
    pub(super) async fn until_free(
        &self,
        id: &str,
        limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        Ok(vm(self.until_free_raw(number("server", id)?, limit).await?))
    }

    /// As [`Self::until_free`], with what only Hetzner knows.
    pub(super) async fn until_free_raw(
        &self,
        id: u64,
        limit: Duration,
    ) -> Result<wire::Server, CloudError> {
        let mut polls = self.pace().polls(limit);
        loop {
            let what = match self.raw_server(id).await {
                Ok(Some(server)) if !server.locked => return Ok(server),
                Ok(Some(server)) => format!("server `{}`", server.name),
                Ok(None) => {
                    let what = format!("server {id}");
                    return Err(CloudError::NotFound { provider: PROVIDER, what });
                }
                Err(error) if !error.retryable() => return Err(error),
                Err(error) => {
                    if !polls.wait().await {
                        return Err(error);
                    }
                    continue;
                }
            };
            if !polls.wait().await {
                return Err(CloudError::Locked { provider: PROVIDER, what });
            }
        }
    }

    /// Begins an action of a server's; `again` says that doing it twice does no harm.
    pub(super) async fn begin(
        &self,
        id: &str,
        action: &str,
        body: Option<Value>,
        again: bool,
        what: &str,
    ) -> Result<wire::Action, CloudError> {
        let mut call = Call::post("servers").at(number("server", id)?).under("actions").at(action);
        if let Some(body) = body {
            call = call.body(body);
        }
        if again {
            call = call.repeatable();
        }
        let answer = self.ask(&call, what).await?;
        Ok(answer.json::<wire::ActionBody>("an action")?.action)
    }

    /// Waits for the end of an action, for at most `limit`.
    pub(super) async fn finish(
        &self,
        action: wire::Action,
        limit: Duration,
    ) -> Result<(), CloudError> {
        self.finish_or(action, limit).await?.map_err(|failure| failure.error)
    }

    /// As [`Self::finish`]; the inner result is the action's own.
    pub(super) async fn finish_or(
        &self,
        action: wire::Action,
        limit: Duration,
    ) -> Result<Result<(), Failure>, CloudError> {
        let mut polls = self.pace().polls(limit);
        let (command, mut now) = (self.api.clean(&action.command), action);
        loop {
            match self.look_at(&now).await {
                Ok(Progress::Done) => return Ok(Ok(())),
                Ok(Progress::Failed(failure)) => return Ok(Err(failure)),
                Ok(Progress::Running(action)) => now = action,
                Err(error) if !error.retryable() => return Err(error),
                Err(error) => {
                    tracing::debug!(code = error.code(), "could not look at an action");
                }
            }
            if !polls.wait().await {
                return Err(late(format!("{command} of action {}", now.id), limit));
            }
        }
    }

    /// The action as it is now if it still runs, none once it is done; an error where it failed.
    pub(super) async fn unfinished(
        &self,
        action: wire::Action,
    ) -> Result<Option<wire::Action>, CloudError> {
        match self.look_at(&action).await? {
            Progress::Done => Ok(None),
            Progress::Running(action) => Ok(Some(action)),
            Progress::Failed(failure) => Err(failure.error),
        }
    }

    async fn look_at(&self, action: &wire::Action) -> Result<Progress, CloudError> {
        if action.status != "running" {
            return Ok(self.progress(action));
        }
        let call = Call::get("actions").at(action.id);
        // Actions of a server that is gone may be gone too.
        match self.ask_maybe(&call, "the action").await? {
            Some(answer) => {
                Ok(self.progress(&answer.json::<wire::ActionBody>("an action")?.action))
            }
            None => Ok(Progress::Done),
        }
    }

    fn progress(&self, action: &wire::Action) -> Progress {
        match action.status.as_str() {
            "success" => Progress::Done,
            "error" => {
                let (code, message) = action
                    .error
                    .as_ref()
                    .map(|fault| (fault.code.clone(), fault.message.clone()))
                    .unwrap_or_default();
                let error = CloudError::ActionFailed {
                    provider: PROVIDER,
                    command: self.api.clean(&action.command),
                    reason: self.api.clean(&message),
                };
                Progress::Failed(Failure { code, error })
            }
            // A word of tomorrow is not an end.
            _ => Progress::Running(wire::Action {
                id: action.id,
                command: action.command.clone(),
                status: "running".to_owned(),
                error: None,
            }),
        }
    }

    /// The newest action of this kind on a server: its id, none where there is none.
    pub(super) async fn newest(
        &self,
        id: &str,
        command: &str,
    ) -> Result<Option<wire::Action>, CloudError> {
        let call = Call::get("servers").at(number("server", id)?).under("actions");
        let call = call.query("sort", "id:desc").query("per_page", 50);
        let Some(answer) = self.ask_maybe(&call, &format!("server {id}")).await? else {
            return Ok(None);
        };
        let all = answer.json::<wire::Actions>("the actions of a server")?.actions;
        Ok(all.into_iter().filter(|one| one.command == command).max_by_key(|one| one.id))
    }
}

impl Failure {
    /// Whether Hetzner had no room for what was asked.
    pub(super) fn is_sold_out(&self) -> bool {
        refusal::means_sold_out(&self.code)
    }
}

/// How far an action is.
enum Progress {
    Done,
    Running(wire::Action),
    Failed(Failure),
}

pub(super) fn late(what: String, limit: Duration) -> CloudError {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    CloudError::Timeout { provider: PROVIDER, what, limit_ms }
}
