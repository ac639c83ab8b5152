//! What the trait promises when all goes well.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use vmkit::clouds::{
    Cloud, CloudError, CloudVm, CloudVmState, LABEL_INSTALLATION, Rebuild, Resize, VmOrder,
};
use vmkit::domain::ids::{InstallationId, VmId};
use vmkit::domain::secret::Secret;
use vmkit_sandbox::faults::Action;

use crate::stage::{PATIENCE, Stage, TIMEOUT, eventually, names};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB test";

pub(crate) async fn a_vm_lives_its_whole_life<F: Future<Output = Stage>>(set: fn() -> F) {
    let stage = set().await;
    let (cloud, ours) = (&stage.cloud, stage.installation);
    let key = cloud.ensure_ssh_key("vmkit-key", KEY, ours).await.expect("a key");
    let wall = cloud.ensure_firewall("vmkit", ours).await.expect("a firewall");
    assert_eq!(
        open_doors(&stage).await,
        ["22", "443", "80", "icmp"],
        "and all of them over IPv6 too"
    );
    let vm = VmId::generate();
    let order =
        VmOrder { ssh_keys: vec![key], firewalls: vec![wall], ..stage.full_order(vm).await };
    let made = cloud.create_vm(&order).await.expect("a server");
    let id = made.provider_id.as_str();
    let up = cloud.wait_running(id, PATIENCE).await.expect("up");
    assert_eq!((up.state.clone(), up.name.as_str()), (CloudVmState::Running, &*order.name));
    let address = up.address.expect("an address");
    assert!(up.belongs_to(ours) && up.disk_gb.is_some() && up.created.is_some(), "{up:?}");
    assert!(up.ipv6.is_none_or(|host| host.segments()[7] != 0), "{:?}", up.ipv6);
    assert_eq!(cloud.find_vm(&order.name).await.expect("an answer"), Some(up.clone()));
    assert_eq!(cloud.list_vms().await.expect("servers"), std::slice::from_ref(&up));
    write_file(&stage, address, "srv/kept", "kept");

    let stopped = cloud.stop_vm(id, ours, PATIENCE).await.expect("off");
    assert_eq!((stopped.vm.state, stopped.forced), (CloudVmState::Off, false));
    let machine = stage.sandbox.machines().by_address(address).expect("a machine");
    assert!(!machine.is_on().await, "the machine runs on");
    let larger: vmkit::domain::names::SizeName = stage.terms.sizes.1.parse().expect("a size");
    let resize = Resize { size: larger.clone(), grow_disk: false, limit: PATIENCE };
    let resized = cloud.resize_vm(id, ours, &resize).await.expect("resized");
    assert_eq!((resized.size.as_str(), resized.disk_gb), (larger.as_str(), up.disk_gb));
    let runs = resized.state == CloudVmState::Running;
    assert_eq!(runs, stage.terms.resize_starts, "{:?}", resized.state);
    let again = cloud.start_vm(id, ours, PATIENCE).await.expect("up again");
    assert_eq!((again.address, again.state), (Some(address), CloudVmState::Running));
    let cycled = cloud.cycle_vm(id, ours, PATIENCE).await.expect("cycled");
    assert_eq!(cycled.address, Some(address));
    let renamed = cloud.rename_vm(id, ours, "shop-web").await.expect("renamed");
    assert_eq!((renamed.name.as_str(), &renamed.labels), ("shop-web", &up.labels));
    assert_eq!(file(&stage, address, "srv/kept").as_deref(), Some("kept"));

    let rebuild = Rebuild {
        image: order.image.clone(),
        user_data: Some(Secret::new("#cloud-config\nhostname: other\n")),
    };
    let rebuilt = cloud.rebuild_vm(id, ours, &rebuild).await.expect("rebuilt");
    assert_eq!((rebuilt.provider_id.as_str(), rebuilt.address), (id, Some(address)));
    assert_eq!(file(&stage, address, "srv/kept"), None);

    cloud.delete_vm(id, ours).await.expect("gone");
    assert_eq!(cloud.get_vm(id).await.expect("an answer"), None);
    eventually("the firewall goes", || async { cloud.delete_firewall("vmkit", ours).await.ok() })
        .await;
    cloud.delete_ssh_key("vmkit-key", ours).await.expect("gone");
    let state = stage.state().await;
    for list in [stage.terms.lists.servers, stage.terms.lists.addresses, "ssh_keys", "machines"] {
        assert_eq!(state[list], json!([]), "{list}");
    }
    stage.stop().await;
}

/// Where a file of the VM at an address is on this machine.
fn path(stage: &Stage, address: std::net::IpAddr, file: &str) -> PathBuf {
    stage.sandbox.machines().by_address(address).expect("a machine").root().join(file)
}

fn write_file(stage: &Stage, address: std::net::IpAddr, file: &str, text: &str) {
    let path = path(stage, address, file);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, text).expect("written");
}

fn file(stage: &Stage, address: std::net::IpAddr, file: &str) -> Option<String> {
    std::fs::read_to_string(path(stage, address, file)).ok()
}

/// What the cloud itself lists as let in from everywhere, by both families; where a cloud lets nothing
/// out by itself, everything goes out in the same way.
async fn open_doors(stage: &Stage) -> Vec<String> {
    let state = stage.state().await;
    let wall = &state["firewalls"][0];
    let everywhere = |list: &Value| {
        let has = |one: &str| list.as_array().is_some_and(|all| all.contains(&json!(one)));
        has("0.0.0.0/0") && has("::/0")
    };
    let door = |rule: &Value| {
        let port = rule["port"].as_str().or(rule["ports"].as_str());
        let protocol = rule["protocol"].as_str().expect("a protocol");
        if protocol == "icmp" { "icmp".to_owned() } else { port.expect("a port").to_owned() }
    };
    let empty = Vec::new();
    let list = |name: &str| wall[name].as_array().unwrap_or(&empty);
    if !list("outbound_rules").is_empty() {
        let out = list("outbound_rules");
        assert!(out.iter().all(|rule| everywhere(&rule["destinations"]["addresses"])), "{out:#?}");
        assert_eq!(out.len(), 3, "tcp, udp, icmp: {out:#?}");
    }
    let inward = |rule: &&Value| rule["direction"].as_str().is_none_or(|way| way == "in");
    let rules = list("rules").iter().chain(list("inbound_rules")).filter(inward);
    let open = rules.filter(|rule| {
        everywhere(&rule["source_ips"]) || everywhere(&rule["sources"]["addresses"])
    });
    let mut doors: Vec<String> = open.map(door).collect();
    doors.sort();
    doors
}

pub(crate) async fn a_guest_that_ignores_a_shutdown_is_cut_off<F: Future<Output = Stage>>(
    set: fn() -> F,
) {
    let stage = set().await;
    let vm = stage.vm().await;
    stage.turn((stage.terms.deaf)(true)).await;
    let stopped = stage.cloud.stop_vm(&vm.provider_id, stage.installation, TIMEOUT / 8).await;
    let stopped = stopped.expect("off");
    assert_eq!((stopped.vm.state, stopped.forced), (CloudVmState::Off, true));
    let again = stage.cloud.stop_vm(&vm.provider_id, stage.installation, PATIENCE).await;
    assert!(!again.expect("off already").forced);
    stage.stop().await;
}

pub(crate) async fn a_server_is_adopted_with_the_labels_that_it_has<F: Future<Output = Stage>>(
    set: fn() -> F,
) {
    let stage = set().await;
    let cloud = &stage.cloud;
    let (path, body) = (stage.terms.raw_vm)("theirs");
    stage.raw("POST", path, body).await;
    let found = cloud.find_vm("theirs").await.expect("an answer").expect("the server");
    let up = cloud.wait_running(&found.provider_id, PATIENCE).await.expect("up");
    assert!(!up.belongs_to(stage.installation));
    let error = cloud.stop_vm(&up.provider_id, stage.installation, PATIENCE).await;
    assert_eq!(error.expect_err("not ours yet").code(), "not_ours");
    let order = stage.order(VmId::generate());
    let ours = cloud.adopt_vm(&up.provider_id, &order.labels).await.expect("adopted");
    assert!(ours.belongs_to(stage.installation));
    for (name, value) in up.labels.iter().chain(&order.labels) {
        assert_eq!(ours.labels.get(name), Some(value), "{name}");
    }
    let again = cloud.adopt_vm(&up.provider_id, &order.labels).await.expect("still ours");
    assert_eq!(again.labels, ours.labels);
    let stopped = cloud.stop_vm(&up.provider_id, stage.installation, PATIENCE).await;
    assert_eq!(stopped.expect("off").vm.state, CloudVmState::Off);
    let other = stage.order_of(VmId::generate(), InstallationId::generate());
    let error = cloud.adopt_vm(&up.provider_id, &other.labels).await.expect_err("it is ours");
    assert_eq!(error.code(), "not_ours");
    cloud.disown_vm(&up.provider_id, stage.installation).await.expect("given back");
    cloud.disown_vm(&up.provider_id, stage.installation).await.expect("nothing of ours is fine");
    let free = cloud.get_vm(&up.provider_id).await.expect("an answer").expect("the server");
    assert_eq!(free.labels, up.labels, "theirs are as they were");
    let again = cloud.adopt_vm(&up.provider_id, &other.labels).await.expect("free for anybody");
    let not_ours = cloud.disown_vm(&up.provider_id, stage.installation).await;
    not_ours.expect("somebody else's stays");
    let same = cloud.get_vm(&up.provider_id).await.expect("an answer").expect("the server");
    assert_eq!(same.labels, again.labels);
    let nobody = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
    let error = cloud.adopt_vm(&up.provider_id, &nobody).await.expect_err("no owner");
    assert_eq!(error.code(), "invalid_request");
    stage.stop().await;
}

pub(crate) async fn what_is_foreign_is_refused_and_stays_as_it_is<F: Future<Output = Stage>>(
    set: fn() -> F,
) {
    let stage = set().await;
    let (cloud, ours) = (&stage.cloud, stage.installation);
    let theirs = stage.foreign_vm().await;
    let own = stage.vm().await;
    let id = theirs.provider_id.as_str();
    let owner = theirs.labels[LABEL_INSTALLATION].clone();
    let owner: InstallationId = format!("{}_{owner}", InstallationId::PREFIX).parse().expect("id");
    let labels = vmkit::clouds::installation_label(owner);
    let disk = cloud.snapshot_vm(id, owner, "their-disk", &labels).await.expect("a snapshot");
    let region = stage.terms.region.parse().expect("a region");
    let address = cloud.ensure_address("theirs", &region, Some(id), &labels).await;
    let address = address.expect("an answer").expect("an address");
    let before = stage.state().await;
    let resize = Resize {
        size: stage.terms.sizes.1.parse().expect("a size"),
        grow_disk: false,
        limit: PATIENCE,
    };
    let rebuild = Rebuild { image: disk.provider_id.clone(), user_data: None };
    let refused: Vec<(&str, Result<(), CloudError>)> = vec![
        ("start", cloud.start_vm(id, ours, PATIENCE).await.map(drop)),
        ("stop", cloud.stop_vm(id, ours, PATIENCE).await.map(drop)),
        ("cycle", cloud.cycle_vm(id, ours, PATIENCE).await.map(drop)),
        ("rename", cloud.rename_vm(id, ours, "mine").await.map(drop)),
        ("rebuild", cloud.rebuild_vm(id, ours, &rebuild).await.map(drop)),
        ("resize", cloud.resize_vm(id, ours, &resize).await.map(drop)),
        ("delete", cloud.delete_vm(id, ours).await),
        ("snapshot", cloud.snapshot_vm(id, ours, "mine", &stage.labels()).await.map(drop)),
        ("delete snapshot", cloud.delete_snapshot(&disk.provider_id, ours).await),
        (
            "assign",
            cloud.assign_address(&address.provider_id, &own.provider_id, ours).await.map(drop),
        ),
        ("release", cloud.release_address(&address.provider_id, ours).await),
        ("delete address", cloud.delete_address(&address.provider_id, ours).await),
    ];
    for (call, result) in refused {
        let error = result.expect_err(call);
        assert_eq!((error.code(), error.retryable()), ("not_ours", false), "{call}: {error}");
    }
    let after = stage.state().await;
    for list in
        [stage.terms.lists.servers, stage.terms.lists.snapshots, stage.terms.lists.addresses]
    {
        assert_eq!(before[list], after[list], "{list}");
    }
    if stage.terms.named_addresses {
        let taken = cloud.ensure_address("theirs", &region, None, &stage.labels()).await;
        assert_eq!(taken.expect_err("the name is taken").code(), "name_taken");
    }
    // A snapshot of theirs with the name of ours is not ours.
    let mine = cloud.snapshot_vm(&own.provider_id, ours, "their-disk", &stage.labels()).await;
    assert_ne!(mine.expect("our own").provider_id, disk.provider_id);
    stage.stop().await;
}

pub(crate) async fn repeats_change_nothing<F: Future<Output = Stage>>(set: fn() -> F) {
    let stage = set().await;
    let (cloud, ours, labels) = (&stage.cloud, stage.installation, stage.labels());
    let order = stage.full_order(VmId::generate()).await;
    let region = stage.terms.region.parse().expect("a region");
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let vm = cloud.create_vm(&order).await.expect("the server");
        let up = cloud.wait_running(&vm.provider_id, PATIENCE).await.expect("up");
        cloud.start_vm(&up.provider_id, ours, PATIENCE).await.expect("up");
        let disk = cloud.snapshot_vm(&up.provider_id, ours, "disk", &labels).await.expect("a disk");
        let address = cloud.ensure_address("own", &region, Some(&up.provider_id), &labels).await;
        let address = address.expect("an answer").expect("an address").provider_id;
        let key = cloud.ensure_ssh_key("key", KEY, ours).await.expect("a key");
        let wall = cloud.ensure_firewall("wall", ours).await.expect("a firewall");
        ids.insert((up.provider_id, disk.provider_id, address, key, wall));
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    let (vm, disk, address, ..) = ids.into_iter().next().expect("one");
    assert_eq!(cloud.list_snapshots().await.expect("snapshots").len(), 1);
    let resize = Resize {
        size: stage.terms.sizes.1.parse().expect("a size"),
        grow_disk: false,
        limit: PATIENCE,
    };
    for _ in 0..2 {
        cloud.stop_vm(&vm, ours, PATIENCE).await.expect("off");
        cloud.rename_vm(&vm, ours, "another").await.expect("renamed");
        cloud.resize_vm(&vm, ours, &resize).await.expect("resized");
    }
    cloud.stop_vm(&vm, ours, PATIENCE).await.expect("off");
    for _ in 0..2 {
        cloud.release_address(&address, ours).await.expect("released");
    }
    for _ in 0..2 {
        cloud.delete_vm(&vm, ours).await.expect("gone");
        cloud.delete_snapshot(&disk, ours).await.expect("gone");
        cloud.delete_address(&address, ours).await.expect("gone");
    }
    let state = stage.state().await;
    let lists = &stage.terms.lists;
    for list in [lists.servers, lists.snapshots, lists.addresses] {
        assert_eq!(state[list], json!([]), "{list}");
    }
    stage.stop().await;
}

pub(crate) async fn a_snapshot_is_the_disk_and_a_new_instance<F: Future<Output = Stage>>(
    set: fn() -> F,
) {
    let stage = set().await;
    let (cloud, ours) = (&stage.cloud, stage.installation);
    let vm = stage.vm().await;
    let address = vm.address.expect("an address");
    write_file(&stage, address, "srv/data", "precious");
    let machine = stage.sandbox.machines().by_address(address).expect("a machine");
    let (old_key, private) =
        (machine.host_key(), file(&stage, address, "etc/ssh/ssh_host_ed25519_key").expect("a key"));
    cloud.stop_vm(&vm.provider_id, ours, PATIENCE).await.expect("off");
    let disk = cloud.snapshot_vm(&vm.provider_id, ours, "disk", &stage.labels()).await;
    let disk = disk.expect("a snapshot");
    assert!(disk.belongs_to(ours) && disk.size_gb.is_some_and(|gb| gb > 0), "{disk:?}");
    assert_eq!(Some(disk.min_disk_gb), vm.disk_gb);
    cloud.delete_vm(&vm.provider_id, ours).await.expect("gone");

    let back = restored(&stage, &disk.provider_id, "#cloud-config\n{}\n").await;
    let there = back.address.expect("an address");
    assert_eq!(file(&stage, there, "srv/data").as_deref(), Some("precious"));
    let machine = stage.sandbox.machines().by_address(there).expect("a machine");
    assert_ne!(machine.host_key(), old_key, "a new instance makes new host keys");
    let indented: String = private.lines().map(|line| format!("    {line}\n")).collect();
    let keys = format!(
        "#cloud-config\nssh_keys:\n  ed25519_private: |\n{indented}  ed25519_public: {old_key}\n"
    );
    let same = restored(&stage, &disk.provider_id, &keys).await;
    let there = same.address.expect("an address");
    let machine = stage.sandbox.machines().by_address(there).expect("a machine");
    assert_eq!(machine.host_key(), old_key, "given host keys are taken");
    let names = stage.names(stage.terms.lists.snapshots).await;
    assert_eq!(names, ["disk"]);
    cloud.delete_snapshot(&disk.provider_id, ours).await.expect("gone");
    assert!(cloud.list_snapshots().await.expect("snapshots").is_empty());
    stage.stop().await;
}

async fn restored(stage: &Stage, image: &str, user_data: &str) -> CloudVm {
    let user_data = Secret::new(user_data);
    let order = VmOrder { image: image.to_owned(), user_data, ..stage.order(VmId::generate()) };
    let made = stage.cloud.create_vm(&order).await.expect("a server");
    stage.cloud.wait_running(&made.provider_id, PATIENCE).await.expect("up")
}

pub(crate) async fn an_address_survives_its_server<F: Future<Output = Stage>>(set: fn() -> F) {
    let stage = set().await;
    let (cloud, ours, labels) = (&stage.cloud, stage.installation, stage.labels());
    let region = stage.terms.region.parse().expect("a region");
    // The address that a server came with becomes one of its own, or it gets such a one.
    let vm = stage.vm().await;
    let own = cloud.ensure_address("kept", &region, Some(&vm.provider_id), &labels).await;
    let own = own.expect("an answer").expect("an address");
    let seen = cloud.get_vm(&vm.provider_id).await.expect("an answer").expect("the server");
    assert_eq!((seen.address, own.vm.as_deref()), (Some(own.address), Some(&*vm.provider_id)));
    if stage.terms.named_addresses {
        assert_eq!(vm.address, Some(own.address), "the server's own address is kept");
    }
    let error = cloud.delete_address(&own.provider_id, ours).await.expect_err("in use");
    assert_eq!(error.code(), "in_use");
    cloud.delete_vm(&vm.provider_id, ours).await.expect("gone");
    let all = cloud.list_addresses().await.expect("addresses");
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].address, all[0].vm.as_deref()), (own.address, None));

    // A new server is made at it, or gets it.
    let second = if stage.terms.named_addresses {
        let address = Some(own.provider_id.clone());
        let order = VmOrder { address, ..stage.full_order(VmId::generate()).await };
        let made = cloud.create_vm(&order).await.expect("a server");
        cloud.wait_running(&made.provider_id, PATIENCE).await.expect("up")
    } else {
        let vm = stage.vm().await;
        cloud.assign_address(&own.provider_id, &vm.provider_id, ours).await.expect("assigned");
        cloud.get_vm(&vm.provider_id).await.expect("an answer").expect("the server")
    };
    assert_eq!(second.address, Some(own.address));
    // A third one, which has another, takes it over.
    let third = stage.vm().await;
    let error = cloud.assign_address(&own.provider_id, &third.provider_id, ours).await;
    assert_eq!(error.expect_err("the second has it").code(), "in_use");
    for vm in [&second, &third] {
        cloud.stop_vm(&vm.provider_id, ours, PATIENCE).await.expect("off");
    }
    cloud.release_address(&own.provider_id, ours).await.expect("released");
    let given = cloud.assign_address(&own.provider_id, &third.provider_id, ours).await;
    assert_eq!(given.expect("assigned").vm.as_deref(), Some(&*third.provider_id));
    let up = cloud.start_vm(&third.provider_id, ours, PATIENCE).await.expect("up");
    assert_eq!(up.address, Some(own.address));
    let left = cloud.list_addresses().await.expect("addresses");
    assert!(left.iter().all(|one| one.vm.is_some()), "billed for nobody: {left:?}");
    stage.stop().await;
}

pub(crate) async fn lists_are_read_to_their_last_page<F: Future<Output = Stage>>(set: fn() -> F) {
    const MANY: usize = 120;
    let stage = set().await;
    let image = stage.full_order(VmId::generate()).await.image;
    let maker = stage.client(None, PATIENCE);
    let make = |_| async {
        let order = VmOrder { image: image.clone(), ..stage.order(VmId::generate()) };
        let made = maker.create_vm(&order).await.expect("a server");
        (made.provider_id, order.name)
    };
    let made: BTreeMap<String, String> =
        stream::iter(0..MANY).map(make).buffer_unordered(8).collect().await;
    let cloud = stage.client(None, PATIENCE);
    let seen = cloud.list_vms().await.expect("servers");
    let seen: BTreeMap<String, String> =
        seen.into_iter().map(|vm| (vm.provider_id, vm.name)).collect();
    assert_eq!((made.len(), &seen), (MANY, &made));
    assert_eq!(names(&stage.state().await, stage.terms.lists.servers, "name").len(), MANY);
    let facts = cloud.check(stage.installation).await.expect("facts");
    assert_eq!((facts.servers as usize, facts.foreign_servers), (MANY, 0));
    let last = made.values().next_back().expect("one");
    assert!(cloud.find_vm(last).await.expect("an answer").is_some());
    stage.stop().await;
}

/// Replaces what may grow by words that nobody knows yet, adds fields, and takes out what may lack.
fn tomorrow(value: &mut Value, optional: &[&str]) {
    const GROWS: [&str; 8] = [
        "status",
        "type",
        "architecture",
        "cpu_type",
        "category",
        "storage_type",
        "os_flavor",
        "assignee_type",
    ];
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| tomorrow(one, optional)),
        Value::Object(map) => {
            map.retain(|name, _| !optional.contains(&name.as_str()));
            for (name, value) in map.iter_mut() {
                // Labels are the owner's, and strings.
                if name == "labels" {
                    continue;
                }
                if GROWS.contains(&name.as_str()) && value.is_string() {
                    *value = json!("a_word_of_tomorrow");
                } else {
                    tomorrow(value, optional);
                }
            }
            map.insert("field_of_tomorrow".to_owned(), json!({ "a": [1] }));
        }
        _ => {}
    }
}

pub(crate) async fn words_of_tomorrow_break_no_read<F: Future<Output = Stage>>(set: fn() -> F) {
    let stage = set().await;
    let (cloud, ours) = (&stage.cloud, stage.installation);
    let vm = stage.vm().await;
    cloud.snapshot_vm(&vm.provider_id, ours, "disk", &stage.labels()).await.expect("a snapshot");
    let mut tried = 0;
    for optional in [&[][..], stage.terms.optional] {
        for read in 0..6 {
            let ask = || async {
                match read {
                    0 => cloud.list_vms().await.map(|all| all.len()),
                    1 => cloud.get_vm(&vm.provider_id).await.map(|one| usize::from(one.is_some())),
                    2 => cloud.list_snapshots().await.map(|all| all.len()),
                    3 => cloud.list_addresses().await.map(|all| all.len() + 1),
                    4 => cloud.sizes().await.map(|all| all.len() + 1),
                    _ => cloud.check(ours).await.map(|facts| facts.servers as usize),
                }
            };
            let before = stage.faults().requests().len();
            ask().await.expect("an answer");
            let asked = stage.faults().requests().split_off(before);
            let first = asked.iter().find(|one| one.method == "GET").expect("a read");
            for exchange in asked.iter().filter(|one| one.status == Some(200)) {
                let mut body = exchange.answer.clone();
                tomorrow(&mut body, optional);
                let path_regex = format!("^{}$", exchange.path);
                let action =
                    Action::Status { code: 200, body: Some(body), headers: BTreeMap::new() };
                let method = Some(exchange.method.clone());
                let rule =
                    vmkit_sandbox::faults::Rule { method, path_regex, action, times: Some(1) };
                stage.faults().add(rule).expect("a rule");
            }
            let path = &first.path;
            let found = ask().await.unwrap_or_else(|error| panic!("{path}: {error} {error:?}"));
            assert!(found > 0, "{path}: nothing was read");
            stage.faults().clear();
            tried += 1;
        }
    }
    assert_eq!(tried, 12);
    stage.stop().await;
}
