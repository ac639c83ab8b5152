//! `/firewalls`: what is not allowed is denied, in both directions.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::input::Input;
use super::listing::Query;
use super::project::{Firewall, Project};
use super::{Answer, DigitalOcean, NO_CONTENT, Nothing, accepted, answers, ok};
use crate::clock;

const RULES_MAX: usize = 50;
const TAGS_MAX: usize = 5;

pub(super) async fn list(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let project = cloud.project();
    let all = project.firewalls.values();
    query.page("firewalls", all.map(|one| answers::firewall(&project, one)).collect())
}

pub(super) async fn list_of_droplet(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let project = cloud.project();
    let droplet = project.droplet(&id)?;
    let own = project.firewalls.values().filter(|one| answers::applies(one, droplet));
    Ok(query.page("firewalls", own.map(|one| answers::firewall(&project, one)).collect()))
}

pub(super) async fn create(State(cloud): State<DigitalOcean>, input: Input) -> Answer {
    let mut project = cloud.project();
    let id = super::project::uuid();
    let firewall = read(&project, &id, &input)?;
    let shown = answers::firewall(&project, &firewall);
    project.firewalls.insert(id, firewall);
    accepted(json!({"firewall": shown}))
}

pub(super) async fn show(State(cloud): State<DigitalOcean>, Path(id): Path<String>) -> Answer {
    let project = cloud.project();
    let firewall = project.firewalls.get(&id).ok_or_else(ApiError::not_found)?;
    ok(json!({"firewall": answers::firewall(&project, firewall)}))
}

pub(super) async fn replace(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Answer {
    let mut project = cloud.project();
    let created = project.firewalls.get(&id).ok_or_else(ApiError::not_found)?.created;
    let firewall = Firewall { created, ..read(&project, &id, &input)? };
    let shown = answers::firewall(&project, &firewall);
    project.firewalls.insert(id, firewall);
    ok(json!({"firewall": shown}))
}

pub(super) async fn delete(State(cloud): State<DigitalOcean>, Path(id): Path<String>) -> Nothing {
    cloud.project().firewalls.remove(&id).ok_or_else(ApiError::not_found)?;
    NO_CONTENT
}

pub(super) async fn add_droplets(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Nothing {
    let mut project = cloud.project();
    let droplets = droplets(&project, &input)?;
    find(&mut project, &id)?.droplets.extend(droplets);
    NO_CONTENT
}

pub(super) async fn remove_droplets(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Nothing {
    let mut project = cloud.project();
    let droplets = droplets(&project, &input)?;
    find(&mut project, &id)?.droplets.retain(|own| !droplets.contains(own));
    NO_CONTENT
}

pub(super) async fn add_tags(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Nothing {
    let mut project = cloud.project();
    let tags = tags(&project, &input)?;
    find(&mut project, &id)?.tags.extend(tags);
    NO_CONTENT
}

pub(super) async fn remove_tags(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Nothing {
    let mut project = cloud.project();
    let tags = tags(&project, &input)?;
    find(&mut project, &id)?.tags.retain(|own| !tags.contains(own));
    NO_CONTENT
}

pub(super) async fn add_rules(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Nothing {
    let (inbound, outbound) = (rules(&input, "inbound_rules")?, rules(&input, "outbound_rules")?);
    let mut project = cloud.project();
    let firewall = find(&mut project, &id)?;
    firewall.inbound.extend(inbound);
    firewall.outbound.extend(outbound);
    NO_CONTENT
}

pub(super) async fn remove_rules(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Nothing {
    let (inbound, outbound) = (rules(&input, "inbound_rules")?, rules(&input, "outbound_rules")?);
    let mut project = cloud.project();
    let firewall = find(&mut project, &id)?;
    firewall.inbound.retain(|own| !inbound.contains(own));
    firewall.outbound.retain(|own| !outbound.contains(own));
    NO_CONTENT
}

fn find<'a>(project: &'a mut Project, id: &str) -> Result<&'a mut Firewall, ApiError> {
    project.firewalls.get_mut(id).ok_or_else(ApiError::not_found)
}

fn read(project: &Project, id: &str, input: &Input) -> Result<Firewall, ApiError> {
    let name = input.required_text("name")?.to_owned();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.len() < 2 || !first || !name.chars().all(fine) {
        return Err(ApiError::refused("name is invalid"));
    }
    if project.firewalls.values().any(|other| other.name == name && other.id != id) {
        return Err(ApiError::conflict("duplicate name"));
    }
    let inbound = rules(input, "inbound_rules")?;
    let outbound = rules(input, "outbound_rules")?;
    if inbound.is_empty() && outbound.is_empty() {
        return Err(ApiError::refused("inbound_rules or outbound_rules are required"));
    }
    Ok(Firewall {
        id: id.to_owned(),
        name,
        created: clock::now(),
        inbound,
        outbound,
        droplets: droplets(project, input)?,
        tags: tags(project, input)?,
    })
}

/// Rules as they are shown: all ports are `0`.
fn rules(input: &Input, field: &str) -> Result<Vec<Value>, ApiError> {
    let mut rules = input.list(field)?;
    if rules.len() > RULES_MAX {
        return Err(ApiError::refused(format!("{field} has more than {RULES_MAX} rules")));
    }
    let ends = if field == "inbound_rules" { "sources" } else { "destinations" };
    for rule in &mut rules {
        let protocol = rule["protocol"].as_str().unwrap_or_default();
        let ports = rule["ports"].as_str().unwrap_or("0").to_owned();
        let port = |text: &str| text.parse::<u16>().is_ok();
        let range = ports.split_once('-').is_some_and(|(from, to)| port(from) && port(to));
        if !matches!(protocol, "tcp" | "udp" | "icmp") || !rule[ends].is_object() {
            return Err(ApiError::refused(format!("a rule of {field} is invalid")));
        }
        if ports != "all" && !port(&ports) && !range {
            return Err(ApiError::refused(format!("the ports of a rule of {field} are invalid")));
        }
        rule["ports"] = if ports == "all" { "0".into() } else { ports.into() };
    }
    Ok(rules)
}

fn droplets(project: &Project, input: &Input) -> Result<BTreeSet<u64>, ApiError> {
    let ids = input.list("droplet_ids")?;
    let find = |id: &Value| id.as_u64().filter(|id| project.droplets.contains_key(id));
    let found: Option<BTreeSet<u64>> = ids.iter().map(find).collect();
    found.ok_or_else(|| ApiError::refused("one or more droplets not found"))
}

fn tags(project: &Project, input: &Input) -> Result<BTreeSet<String>, ApiError> {
    let tags: BTreeSet<String> = input.texts("tags")?.into_iter().collect();
    if tags.len() > TAGS_MAX || !tags.is_subset(&project.tags) {
        return Err(ApiError::refused("one or more tags do not exist"));
    }
    Ok(tags)
}
