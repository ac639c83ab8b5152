//! `/tags`, and what is tagged.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::errors::ApiError;
use super::input::{Input, reference};
use super::listing::Query;
use super::project::Project;
use super::{Answer, DigitalOcean, NO_CONTENT, Nothing, answers, created, ok};

const BYTES_MAX: usize = 255;

/// Letters, digits, colons, dashes and underscores.
pub(super) fn check(name: &str) -> Result<(), ApiError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_:".contains(c);
    if name.is_empty() || name.len() > BYTES_MAX || !name.chars().all(fine) {
        return Err(ApiError::refused("Tag name is invalid"));
    }
    Ok(())
}

pub(super) async fn list(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let project = cloud.project();
    query.page("tags", project.tags.iter().map(|name| answers::tag(&project, name)).collect())
}

/// One that exists is answered like a new one.
pub(super) async fn create(State(cloud): State<DigitalOcean>, input: Input) -> Answer {
    let name = input.required_text("name")?;
    check(name)?;
    let mut project = cloud.project();
    project.tags.insert(name.to_owned());
    created(json!({"tag": answers::tag(&project, name)}))
}

pub(super) async fn show(State(cloud): State<DigitalOcean>, Path(name): Path<String>) -> Answer {
    let project = cloud.project();
    let name = project.tags.get(&name).ok_or_else(ApiError::not_found)?;
    ok(json!({"tag": answers::tag(&project, name)}))
}

/// What was tagged stays, without the tag.
pub(super) async fn delete(State(cloud): State<DigitalOcean>, Path(name): Path<String>) -> Nothing {
    let mut project = cloud.project();
    if !project.tags.remove(&name) {
        return Err(ApiError::not_found());
    }
    let Project { droplets, firewalls, snapshots, .. } = &mut *project;
    let droplets = droplets.values_mut().map(|one| &mut one.tags);
    let firewalls = firewalls.values_mut().map(|one| &mut one.tags);
    let snapshots = snapshots.values_mut().map(|one| &mut one.tags);
    for tags in droplets.chain(firewalls).chain(snapshots) {
        tags.remove(&name);
    }
    NO_CONTENT
}

pub(super) async fn assign(
    State(cloud): State<DigitalOcean>,
    Path(name): Path<String>,
    input: Input,
) -> Nothing {
    each(&cloud, &name, &input, |tags| tags.insert(name.clone()))
}

pub(super) async fn unassign(
    State(cloud): State<DigitalOcean>,
    Path(name): Path<String>,
    input: Input,
) -> Nothing {
    each(&cloud, &name, &input, |tags| tags.remove(&name))
}

fn each(
    cloud: &DigitalOcean,
    name: &str,
    input: &Input,
    change: impl Fn(&mut BTreeSet<String>) -> bool,
) -> Nothing {
    let mut project = cloud.project();
    if !project.tags.contains(name) {
        return Err(ApiError::not_found());
    }
    let resources = input.list("resources")?;
    let named = |resource: &serde_json::Value| {
        let id: u64 = reference(&resource["resource_id"])?.parse().ok()?;
        Some((resource["resource_type"].as_str()?.to_owned(), id))
    };
    let named: Option<Vec<(String, u64)>> = resources.iter().map(named).collect();
    let named = named.ok_or_else(|| ApiError::refused("resources are not valid"))?;
    if !named.iter().all(|(kind, id)| tags_of(&mut project, kind, *id).is_some()) {
        return Err(ApiError::not_found());
    }
    for (kind, id) in named {
        tags_of(&mut project, &kind, id).map(&change);
    }
    NO_CONTENT
}

fn tags_of<'a>(project: &'a mut Project, kind: &str, id: u64) -> Option<&'a mut BTreeSet<String>> {
    match kind {
        "droplet" => project.droplets.get_mut(&id).map(|one| &mut one.tags),
        "image" => project.snapshots.get_mut(&id).map(|one| &mut one.tags),
        _ => None,
    }
}
