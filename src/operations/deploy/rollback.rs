//! Which release a rollback goes to, and whether its image is still there.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{ReleaseEnv, Resolved};
use crate::accounts::REGISTRY;
use crate::domain::clock::Millis;
use crate::domain::deploy::{Deploy, DeployAction};
use crate::domain::environment::Environment;
use crate::domain::ids::DeployId;
use crate::domain::names::CommitSha;
use crate::github::Images;
use crate::operations::{Context, OpError};
use crate::pipeline::Names;
use crate::store::AppRow;

/// For so long after a rollback the next one has to say where to, in milliseconds.
const FRESH_MS: i64 = 60 * 60 * 1000;
/// A rollback is urgent: for so long it waits for the registry, and then goes on without its word.
const REGISTRY_WAIT: Duration = Duration::from_secs(10);
/// How many other versions are looked for where the wanted one is gone.
const OTHERS_MAX: usize = 8;

/// The release to go back to: the named one, or the newest that is not what is live.
pub(super) async fn release(
    context: &Context,
    row: &AppRow,
    environment: &Environment,
    to: Option<DeployId>,
    env: ReleaseEnv,
) -> Result<Resolved, OpError> {
    let path = environment.path.to_string();
    let releases = context.store.releases(environment.id, 50).await?;
    let live = releases.first().ok_or_else(|| OpError::NoRelease { environment: path.clone() })?;
    let target = match to {
        Some(id) => releases.iter().find(|deploy| deploy.id == id).ok_or_else(|| {
            OpError::UnknownRelease { release: id.to_string(), environment: path.clone() }
        })?,
        // Twice the same words an hour apart would go back two releases, or forth again.
        None if live.rollback_of.is_some() && is_fresh(live, context.clock.now()) => {
            let at = live.created_at.rfc3339();
            return Err(OpError::RolledBackAlready { environment: path, at });
        }
        None => releases
            .iter()
            .find(|past| past.commit != live.commit || past.env_revision != live.env_revision)
            .ok_or(OpError::NothingToRollBack { environment: path })?,
    };
    let looked = look(context, row, environment, target, &releases);
    let unseen = match tokio::time::timeout(REGISTRY_WAIT, looked).await {
        Ok(looked) => looked?,
        Err(_) => Some(format!("the registry did not answer in {} s", REGISTRY_WAIT.as_secs())),
    };
    Ok(Resolved {
        action: DeployAction::Redeploy,
        commit: target.commit.clone(),
        subject: target.subject.clone(),
        env_revision: match env {
            ReleaseEnv::AsOfThen => target.env_revision,
            ReleaseEnv::Newest => environment.env_revision,
        },
        rollback_of: Some(target.id),
        from: None,
        committed_at: None,
        unseen,
    })
}

/// Whether a deploy is so young that a rollback without a target may be a repeat of it.
fn is_fresh(deploy: &Deploy, now: Millis) -> bool {
    now.since_ms(deploy.created_at) < FRESH_MS
}

/// Refuses a release whose image the registry says to be gone; says why where it cannot be known.
///
/// What the VM has of it does not help: Kamal removes its copy and pulls the image anew.
async fn look(
    context: &Context,
    row: &AppRow,
    environment: &Environment,
    target: &Deploy,
    releases: &[Deploy],
) -> Result<Option<String>, OpError> {
    let image = Names::of(&row.app).image(&environment.path.name);
    let Some(registry) = context.accounts.url(REGISTRY) else {
        return Ok(Some("it is not known where the registry of this GitHub is".to_owned()));
    };
    let github = context.accounts.github().await?;
    let images = match github.images(&registry, &row.app.repo, &image).await {
        Ok(images) => images,
        Err(error) => return Ok(Some(error.to_string())),
    };
    match images.has(target.commit.as_str()).await {
        Ok(true) => return Ok(None),
        Ok(false) => {}
        Err(error) => return Ok(Some(error.to_string())),
    }
    let (path, commit) = (&environment.path, &target.commit);
    let anew = format!("call `deploy` with environment `{path}` and ref `{commit}`");
    let fix = match others(&images, target, releases).await.as_slice() {
        [] => format!("build it anew: {anew}"),
        there => format!(
            "call `rollback` with `to` one of the releases that still have theirs ({}), or build \
             this one anew: {anew}",
            there.join(", ")
        ),
    };
    Err(OpError::ImageGone { release: target.id, image: format!("{image}:{commit}"), fix })
}

/// The newest release of each other version whose image is there, but for what is live.
async fn others(images: &Images, target: &Deploy, releases: &[Deploy]) -> Vec<String> {
    let live = releases.first().map(|live| &live.commit);
    let mut seen: BTreeSet<&CommitSha> = [&target.commit].into_iter().chain(live).collect();
    let others = releases.iter().filter(|past| seen.insert(&past.commit)).take(OTHERS_MAX);
    let mut there = Vec::new();
    for past in others.collect::<Vec<_>>() {
        if images.has(past.commit.as_str()).await.unwrap_or(false) {
            there.push(format!("{} ({})", past.id, past.commit.short()));
        }
    }
    there
}
