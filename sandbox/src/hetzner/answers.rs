//! Hetzner's JSON for the resources of a project.

use serde_json::{Value, json};

use super::knobs::Knobs;
use super::project::{Action, Firewall, PrimaryIp, Project, Server, SshKey};
use super::selector::Selector;
use crate::clock::rfc3339_offset;

pub(super) fn server(project: &Project, server: &Server, knobs: &Knobs) -> Value {
    let ip = |id: Option<u64>| id.and_then(|id| project.primary_ips.get(&id));
    let firewalls: Vec<Value> = project
        .firewalls
        .values()
        .filter(|firewall| applies(firewall, server))
        .map(|firewall| json!({"id": firewall.id, "status": "applied"}))
        .collect();
    let ipv4 = ip(server.ipv4).map(|ip| {
        let name = format!("static.{}.clients.sandbox.invalid", ip.ip.replace('.', "-"));
        json!({"id": ip.id, "ip": ip.ip, "blocked": false, "dns_ptr": name})
    });
    let ipv6 = ip(server.ipv6)
        .map(|ip| json!({"id": ip.id, "ip": ip.ip, "blocked": false, "dns_ptr": []}));
    // A server whose snapshot is gone has no image any more.
    let gone = server.image.snapshot.is_some() && !project.images.contains_key(&server.image.id);
    let image = if gone { Value::Null } else { server.image.json() };
    json!({
        "id": server.id, "name": server.name, "status": server.status.name(),
        "created": rfc3339_offset(server.created),
        "public_net": {"ipv4": ipv4, "ipv6": ipv6, "floating_ips": [], "firewalls": firewalls},
        "private_net": [], "server_type": server.server_type.json(knobs),
        "location": server.location.json(), "image": image, "iso": null,
        "rescue_enabled": false, "locked": server.locked, "backup_window": null,
        "outgoing_traffic": 0, "ingoing_traffic": 0, "included_traffic": 21_990_232_555_520_u64,
        "protection": {"delete": server.protection.0, "rebuild": server.protection.1},
        "labels": server.labels, "volumes": [], "load_balancers": [],
        "primary_disk_size": server.primary_disk, "placement_group": null,
    })
}

/// Whether a firewall protects a server, by name or by label.
pub(super) fn applies(firewall: &Firewall, server: &Server) -> bool {
    let by_label = |selector: &String| {
        Selector::parse(selector).is_ok_and(|selector| selector.matches(&server.labels))
    };
    server.firewalls.contains(&firewall.id) || firewall.selectors.iter().any(by_label)
}

pub(super) fn firewall(project: &Project, firewall: &Firewall) -> Value {
    let direct = project.servers.values().filter(|server| server.firewalls.contains(&firewall.id));
    let mut applied: Vec<Value> =
        direct.map(|server| json!({"type": "server", "server": {"id": server.id}})).collect();
    for text in &firewall.selectors {
        let Ok(selector) = Selector::parse(text) else { continue };
        let servers = project.servers.values().filter(|server| selector.matches(&server.labels));
        let resources: Vec<Value> =
            servers.map(|server| json!({"type": "server", "server": {"id": server.id}})).collect();
        applied.push(json!({
            "type": "label_selector", "label_selector": {"selector": text},
            "applied_to_resources": resources,
        }));
    }
    json!({
        "id": firewall.id, "name": firewall.name, "labels": firewall.labels,
        "created": rfc3339_offset(firewall.created), "rules": firewall.rules,
        "applied_to": applied,
    })
}

impl Action {
    pub(super) fn status(&self) -> &'static str {
        match (&self.finished, &self.error) {
            (None, _) => "running",
            (Some(_), None) => "success",
            (Some(_), Some(_)) => "error",
        }
    }

    pub(super) fn json(&self) -> Value {
        let error = self.error.as_ref();
        let resources: Vec<Value> =
            self.resources.iter().map(|(id, kind)| json!({"id": id, "type": kind})).collect();
        json!({
            "id": self.id, "command": self.command, "status": self.status(),
            "started": rfc3339_offset(self.started),
            "finished": self.finished.map(rfc3339_offset),
            "progress": if self.finished.is_some() { 100 } else { 0 }, "resources": resources,
            "error": error.map(|(code, message)| json!({"code": code, "message": message})),
        })
    }
}

impl SshKey {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "fingerprint": self.fingerprint,
            "public_key": self.public_key, "labels": self.labels,
            "created": rfc3339_offset(self.created),
        })
    }
}

impl PrimaryIp {
    pub(super) fn json(&self) -> Value {
        let assignee = if self.server.is_some() { "server" } else { "unassigned" };
        json!({
            "id": self.id, "name": self.name, "labels": self.labels,
            "created": rfc3339_offset(self.created), "blocked": false,
            "location": self.location.json(), "ip": self.ip, "dns_ptr": [],
            "protection": {"delete": self.protected},
            "type": if self.v4 { "ipv4" } else { "ipv6" }, "auto_delete": self.auto_delete,
            "assignee_type": assignee, "assignee_id": self.server,
        })
    }
}
