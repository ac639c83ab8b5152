//! Changes of services and the like on their way into a repo, as the app's settings say.

use super::changes::Way;
use super::{Context, OpError, Run, StepEnd, repo};
use crate::store::AppRow;

/// What the change is for, as its commit and its pull request tell it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Why<'a> {
    /// The commit's first words, such as `Redis for shop/staging`.
    pub(super) what: &'a str,
    /// What to do once it is merged, such as `deploy again`.
    pub(super) then: &'a str,
}

/// Writes what is not as it should be.
pub(super) async fn commit(
    context: &Context,
    row: &AppRow,
    run: &Run<'_>,
    why: Why<'_>,
) -> Result<StepEnd, OpError> {
    let github = context.accounts.github().await?;
    let (setup, files) = repo::wanted_files(context, row).await?;
    let way = Way::of(context, &github, row);
    let title = format!("{}: update the config", why.what);
    let committed = way.commit((&setup, &files), &title, run).await?;
    let changed = committed.files.join(", ");
    let body = format!("The deploy config changed: {changed}. Merge it, then {}.", why.then);
    way.end(committed, &title, &body, &format!(", then {}", why.then)).await
}

/// Takes back what waits for a merge.
pub(super) async fn take_back(context: &Context, row: &AppRow) -> Result<(), OpError> {
    let github = context.accounts.github().await?;
    Way::of(context, &github, row).undo().await
}
