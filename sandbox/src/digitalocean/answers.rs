//! DigitalOcean's JSON for the resources of an account.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::knobs::Knobs;
use super::project::{Action, Droplet, Firewall, Project, ReservedIp, Snapshot};
use crate::clock::rfc3339_seconds;

/// The id of the one network and project of the account.
const UUID: &str = "760e09ef-dc84-11e8-981e-3cfdfeaae000";

pub(super) fn droplet(project: &Project, droplet: &Droplet, knobs: &Knobs) -> Value {
    let snapshots: Vec<u64> = project
        .snapshots
        .values()
        .filter(|snapshot| snapshot.droplet == droplet.id)
        .map(|snapshot| snapshot.id)
        .collect();
    let mut features = vec!["droplet_agent", "private_networking"];
    if droplet.ipv6 {
        features.push("ipv6");
    }
    json!({
        "id": droplet.id, "name": droplet.name, "memory": droplet.size.memory,
        "vcpus": droplet.size.vcpus, "disk": droplet.disk,
        "disk_info": [{"type": "local", "size": {"amount": droplet.disk, "unit": "gib"}}],
        "locked": droplet.locked, "status": droplet.status.name(), "kernel": null,
        "created_at": rfc3339_seconds(droplet.created), "features": features, "backup_ids": [],
        "next_backup_window": null, "snapshot_ids": snapshots, "image": droplet.image,
        "volume_ids": [], "size": droplet.size.json(knobs), "size_slug": droplet.size.slug,
        "networks": networks(droplet), "region": droplet.region.json(knobs),
        "tags": droplet.tags, "vpc_uuid": UUID,
    })
}

/// Empty until the droplet has started once. A reserved address is not among them.
fn networks(droplet: &Droplet) -> Value {
    if !droplet.started {
        return json!({"v4": [], "v6": []});
    }
    let v4 = json!([
        {"ip_address": "10.114.0.2", "netmask": "255.255.240.0", "gateway": "10.114.0.1",
            "type": "private"},
        {"ip_address": droplet.address, "netmask": "255.255.0.0", "gateway": "127.77.0.1",
            "type": "public"},
    ]);
    let at = format!("2001:db8:{:x}:{:x}", (droplet.id >> 16) & 0xffff, droplet.id & 0xffff);
    let v6 = json!([{"ip_address": format!("{at}::1001"), "netmask": 64,
        "gateway": format!("{at}::1"), "type": "public"}]);
    json!({"v4": v4, "v6": if droplet.ipv6 { v6 } else { json!([]) }})
}

pub(super) fn action(action: &Action, knobs: &Knobs) -> Value {
    let status = match action.ended {
        None => "in-progress",
        Some((_, true)) => "completed",
        Some((_, false)) => "errored",
    };
    json!({
        "id": action.id, "status": status, "type": action.kind,
        "started_at": rfc3339_seconds(action.started),
        "completed_at": action.ended.map(|(at, _)| rfc3339_seconds(at)),
        "resource_id": action.resource, "resource_type": action.resource_type,
        "region": action.region.json(knobs), "region_slug": action.region.slug,
    })
}

/// Whether a firewall protects a droplet, by its id or by a tag.
pub(super) fn applies(firewall: &Firewall, droplet: &Droplet) -> bool {
    firewall.droplets.contains(&droplet.id) || !firewall.tags.is_disjoint(&droplet.tags)
}

pub(super) fn firewall(project: &Project, firewall: &Firewall) -> Value {
    let open = |droplet: &&u64| project.droplets.get(droplet).is_some_and(|one| !one.started);
    let pending: Vec<Value> = firewall
        .droplets
        .iter()
        .filter(open)
        .map(|id| json!({"droplet_id": id, "removing": false, "status": "waiting"}))
        .collect();
    json!({
        "id": firewall.id, "name": firewall.name,
        "status": if pending.is_empty() { "succeeded" } else { "waiting" },
        "created_at": rfc3339_seconds(firewall.created), "pending_changes": pending,
        "inbound_rules": firewall.inbound, "outbound_rules": firewall.outbound,
        "droplet_ids": firewall.droplets, "tags": firewall.tags,
    })
}

pub(super) fn tag(project: &Project, name: &str) -> Value {
    let droplets = project.droplets.values().filter(|droplet| droplet.tags.contains(name)).count();
    let images = project.snapshots.values().filter(|snapshot| snapshot.tags.contains(name)).count();
    let none = json!({"count": 0});
    json!({"name": name, "resources": {
        "count": droplets + images, "droplets": {"count": droplets}, "imgages": {"count": images},
        "volumes": none, "volume_snapshots": none, "databases": none,
    }})
}

/// The billed size is what is used of the disk.
fn size_gigabytes(snapshot: &Snapshot) -> f64 {
    f64::from(u32::try_from(snapshot.min_disk).unwrap_or(u32::MAX)) * 0.1
}

pub(super) fn snapshot(snapshot: &Snapshot) -> Value {
    json!({
        "id": snapshot.id.to_string(), "name": snapshot.name,
        "created_at": rfc3339_seconds(snapshot.created), "regions": snapshot.regions,
        "min_disk_size": snapshot.min_disk, "size_gigabytes": size_gigabytes(snapshot),
        "resource_id": snapshot.droplet.to_string(), "resource_type": "droplet",
        "tags": snapshot.tags,
    })
}

/// A snapshot as the images have it.
pub(super) fn snapshot_image(snapshot: &Snapshot) -> Value {
    json!({
        "id": snapshot.id, "name": snapshot.name, "distribution": "Debian", "slug": null,
        "public": false, "regions": snapshot.regions, "type": "snapshot",
        "created_at": rfc3339_seconds(snapshot.created), "min_disk_size": snapshot.min_disk,
        "size_gigabytes": size_gigabytes(snapshot), "description": "", "tags": snapshot.tags,
        "status": "available",
    })
}

pub(super) fn reserved_ip(project: &Project, ip: &ReservedIp, knobs: &Knobs) -> Value {
    let of = ip.droplet.and_then(|id| project.droplets.get(&id));
    json!({
        "ip": address(ip.ip), "region": ip.region.json(knobs), "locked": ip.locked,
        "droplet": of.map(|of| droplet(project, of, knobs)), "project_id": UUID,
    })
}

fn address(ip: IpAddr) -> String {
    ip.to_string()
}
