//! `/firewalls`.

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::errors::{ApiError, Code};
use super::input::Input;
use super::listing::Query;
use super::project::{Firewall, Project};
use super::selector::Selector;
use super::{Answer, Hetzner, answers, created, ok};
use crate::clock;

const RULES_MAX: usize = 50;
const FIREWALLS_PER_SERVER_MAX: usize = 5;

pub(super) async fn list(State(hetzner): State<Hetzner>, query: Query) -> Response {
    let project = hetzner.project();
    let shown = project.firewalls.values().filter(|one| query.takes(&one.name, &one.labels));
    let shown = shown.map(|firewall| answers::firewall(&project, firewall)).collect();
    query.page("firewalls", shown)
}

pub(super) async fn create(State(hetzner): State<Hetzner>, input: Input) -> Answer {
    let (actions, mut body) = {
        let mut project = hetzner.project();
        let name = input.required_text("name")?.to_owned();
        let rules = rules(&input)?;
        let labels = input.labels()?.unwrap_or_default();
        let apply_to = input.list("apply_to")?;
        check_resources(&project, &apply_to)?;
        if project.firewalls.values().any(|other| other.name == name) {
            return Err(ApiError::not_unique("firewall", "name"));
        }
        let id = project.next_id();
        let created = clock::now();
        let firewall = Firewall { id, name, labels, created, rules, selectors: Vec::new() };
        project.firewalls.insert(id, firewall);
        let mut actions = vec![project.begin("set_firewall_rules", vec![(id, "firewall")])];
        for resource in &apply_to {
            apply(&mut project, id, resource)?;
            actions.push(project.begin("apply_firewall", vec![(id, "firewall")]));
        }
        let shown = answers::firewall(&project, &project.firewalls[&id]);
        (actions, json!({"firewall": shown}))
    };
    body["actions"] = hetzner.shown(&actions);
    hetzner.finish(actions);
    created(body)
}

pub(super) async fn show(State(hetzner): State<Hetzner>, Path(id): Path<String>) -> Answer {
    let project = hetzner.project();
    ok(json!({"firewall": answers::firewall(&project, find(&project, &id)?)}))
}

pub(super) async fn update(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
    input: Input,
) -> Answer {
    let mut project = hetzner.project();
    let own = find(&project, &id)?.id;
    let (name, labels) = (input.text("name")?, input.labels()?);
    let same = |other: &Firewall| other.id != own && Some(&*other.name) == name;
    if project.firewalls.values().any(same) {
        return Err(ApiError::not_unique("firewall", "name"));
    }
    if let Some(firewall) = project.firewalls.get_mut(&own) {
        firewall.name = name.map_or_else(|| firewall.name.clone(), str::to_owned);
        firewall.labels = labels.unwrap_or_else(|| firewall.labels.clone());
    }
    ok(json!({"firewall": answers::firewall(&project, find(&project, &id)?)}))
}

pub(super) async fn delete(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut project = hetzner.project();
    let firewall = find(&project, &id)?;
    let id = firewall.id;
    let used = project.servers.values().any(|server| server.firewalls.contains(&id));
    if used || !firewall.selectors.is_empty() {
        let message = format!("firewall with ID '{id}' is still in use");
        return Err(ApiError::new(Code::ResourceInUse, message));
    }
    project.firewalls.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn act(
    State(hetzner): State<Hetzner>,
    Path((id, action)): Path<(String, String)>,
    input: Input,
) -> Answer {
    let actions: Vec<u64> = {
        let mut project = hetzner.project();
        let id = find(&project, &id)?.id;
        let commands = match action.as_str() {
            "set_rules" => {
                let rules = rules(&input)?;
                project.firewalls.entry(id).and_modify(|firewall| firewall.rules = rules);
                vec!["set_firewall_rules"]
            }
            "apply_to_resources" => {
                let resources = input.list("apply_to")?;
                check_resources(&project, &resources)?;
                for resource in &resources {
                    apply(&mut project, id, resource)?;
                }
                vec!["apply_firewall"; resources.len()]
            }
            "remove_from_resources" => {
                let resources = input.list("remove_from")?;
                for resource in &resources {
                    remove(&mut project, id, resource)?;
                }
                vec!["remove_firewall"; resources.len()]
            }
            _ => return Err(ApiError::new(Code::NotFound, "the action was not found")),
        };
        let begin = |command: &&str| project.begin(command, vec![(id, "firewall")]);
        commands.iter().map(begin).collect()
    };
    let body = json!({"actions": hetzner.shown(&actions)});
    hetzner.finish(actions);
    created(body)
}

impl Hetzner {
    fn shown(&self, actions: &[u64]) -> Value {
        let project = self.project();
        actions.iter().map(|id| project.action_json(*id)).collect()
    }

    /// Ends a firewall's actions after the usual wait.
    fn finish(&self, actions: Vec<u64>) {
        for action in actions {
            self.later(action, None, std::future::ready(Ok(())));
        }
    }
}

fn find<'a>(project: &'a Project, id: &str) -> Result<&'a Firewall, ApiError> {
    let found = id.parse().ok().and_then(|id: u64| project.firewalls.get(&id));
    found.ok_or_else(|| ApiError::not_found("firewall", id))
}

/// The rules, checked, in the form that is answered.
fn rules(input: &Input) -> Result<Vec<Value>, ApiError> {
    let rules = input.list("rules")?;
    if rules.len() > RULES_MAX {
        return Err(ApiError::field("rules", "at most 50 rules are allowed"));
    }
    rules.iter().map(rule).collect()
}

fn rule(rule: &Value) -> Result<Value, ApiError> {
    let bad = |message: &str| Err(ApiError::field("rules", message));
    let direction = rule["direction"].as_str().unwrap_or_default();
    let protocol = rule["protocol"].as_str().unwrap_or_default();
    let ips = |name: &str| rule[name].as_array().cloned().unwrap_or_default();
    if !["in", "out"].contains(&direction) {
        return bad("direction must be in or out");
    }
    if !["tcp", "udp", "icmp", "esp", "gre"].contains(&protocol) {
        return bad("protocol is not known");
    }
    let has_port = rule["port"].as_str().is_some_and(is_port);
    if ["tcp", "udp"].contains(&protocol) != has_port {
        return bad("port is needed for tcp and udp, and only there");
    }
    if direction == "in" && ips("source_ips").is_empty() {
        return bad("source_ips is needed with direction in");
    }
    if direction == "out" && ips("destination_ips").is_empty() {
        return bad("destination_ips is needed with direction out");
    }
    Ok(json!({
        "direction": direction, "protocol": protocol, "port": rule["port"],
        "source_ips": ips("source_ips"), "destination_ips": ips("destination_ips"),
        "description": rule["description"],
    }))
}

/// `443` or `80-85`.
fn is_port(text: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        Some((from, to)) => matches!((number(from), number(to)), (Some(a), Some(b)) if a <= b),
        None => number(text).is_some(),
    }
}

fn check_resources(project: &Project, resources: &[Value]) -> Result<(), ApiError> {
    for resource in resources {
        match resource["type"].as_str() {
            Some("server") => {
                let id = resource["server"]["id"].as_u64();
                let server = id.and_then(|id| project.servers.get(&id)).ok_or_else(|| {
                    ApiError::new(Code::FirewallResourceNotFound, "the server was not found")
                })?;
                if server.firewalls.len() >= FIREWALLS_PER_SERVER_MAX {
                    return Err(ApiError::field("apply_to", "the server has 5 firewalls"));
                }
            }
            Some("label_selector") => {
                let text = resource["label_selector"]["selector"].as_str();
                Selector::parse(text.unwrap_or_default())?;
            }
            _ => return Err(ApiError::field("apply_to", "type must be server or label_selector")),
        }
    }
    Ok(())
}

fn apply(project: &mut Project, id: u64, resource: &Value) -> Result<(), ApiError> {
    let again = || {
        let message = "the firewall is already applied to this resource";
        ApiError::new(Code::ServerAlreadyAdded, message)
    };
    let server = resource["server"]["id"].as_u64().unwrap_or_default();
    if let Some(server) = project.servers.get_mut(&server) {
        if server.firewalls.contains(&id) {
            return Err(again());
        }
        server.firewalls.push(id);
    }
    if let Some(text) = resource["label_selector"]["selector"].as_str()
        && let Some(firewall) = project.firewalls.get_mut(&id)
    {
        if firewall.selectors.iter().any(|own| own == text) {
            return Err(again());
        }
        firewall.selectors.push(text.to_owned());
    }
    Ok(())
}

fn remove(project: &mut Project, id: u64, resource: &Value) -> Result<(), ApiError> {
    let absent = || ApiError::new(Code::FirewallResourceNotFound, "the firewall is not applied");
    if resource["type"] == "server" {
        let server = resource["server"]["id"].as_u64().unwrap_or_default();
        let server = project.servers.get_mut(&server).ok_or_else(absent)?;
        let before = server.firewalls.len();
        server.firewalls.retain(|own| *own != id);
        return if server.firewalls.len() < before { Ok(()) } else { Err(absent()) };
    }
    let firewall = project.firewalls.get_mut(&id).ok_or_else(absent)?;
    let before = firewall.selectors.len();
    firewall
        .selectors
        .retain(|own| Some(&**own) != resource["label_selector"]["selector"].as_str());
    if firewall.selectors.len() < before { Ok(()) } else { Err(absent()) }
}
