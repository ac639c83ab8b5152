//! A repo's webhook of ours: made once, known by its address, deleted.

use serde_json::json;

use super::error::GitHubError;
use super::{GitHub, in_repo, wire};
use crate::domain::names::RepoName;
use crate::domain::secret::Secret;
use crate::requests::Call;

impl GitHub {
    /// Makes the repo's webhook at `url`, or brings the one that is there in order.
    pub async fn ensure_hook(
        &self,
        repo: &RepoName,
        url: &str,
        events: &[&str],
        secret: &Secret,
    ) -> Result<(), GitHubError> {
        let what = format!("the webhooks of `{repo}`");
        let config = json!({
            "url": url, "content_type": "json", "insecure_ssl": "0", "secret": secret.expose()
        });
        for _ in 0..2 {
            let Some(found) = self.hook_at(repo, url).await? else {
                let make = in_repo(Call::post(""), repo, "hooks").body(json!({
                    "name": "web", "active": true, "events": events, "config": config
                }));
                match self.ask(&make, &what).await {
                    Ok(_) => return Ok(()),
                    // It may be there now: look again.
                    Err(GitHubError::Invalid { .. }) => continue,
                    Err(error) if error.may_have_happened() => continue,
                    Err(error) => return Err(error),
                }
            };
            if !found.active
                || events.iter().any(|wanted| !found.events.iter().any(|e| e == wanted))
            {
                let change = in_repo(Call::patch(""), repo, "hooks").at(found.id);
                let body = json!({ "active": true, "events": events, "config": config });
                self.ask(&change.body(body), &what).await?;
            }
            return Ok(());
        }
        Err(GitHubError::Conflict { what })
    }

    /// Deletes the repo's webhook at `url`; absent is fine.
    pub async fn drop_hook(&self, repo: &RepoName, url: &str) -> Result<(), GitHubError> {
        let what = format!("the webhooks of `{repo}`");
        let found = match self.hook_at(repo, url).await {
            Err(GitHubError::NotFound { .. }) => None,
            found => found?,
        };
        if let Some(found) = found {
            self.ask_maybe(&in_repo(Call::delete(""), repo, "hooks").at(found.id), &what).await?;
        }
        Ok(())
    }

    async fn hook_at(&self, repo: &RepoName, url: &str) -> Result<Option<wire::Hook>, GitHubError> {
        // GitHub allows twenty of them.
        let call = in_repo(Call::get(""), repo, "hooks").query("per_page", 100);
        let what = format!("the webhooks of `{repo}`");
        let all: Vec<wire::Hook> = self.ask(&call, &what).await?.json("the webhooks")?;
        Ok(all.into_iter().find(|hook| hook.config.url.as_deref() == Some(url)))
    }
}
