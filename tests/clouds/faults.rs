//! The fault matrix: every call of the trait under every fault, once and again and again, ends in a
//! clean result or a clear error, and never in two of anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use vmkit::clouds::{AnyCloud, Cloud, CloudError, CloudVm, Rebuild, Resize, VmOrder};
use vmkit::domain::ids::VmId;
use vmkit::domain::size::Arch;
use vmkit_sandbox::faults::Action;

use crate::stage::{PATIENCE, Stage};

/// How many sandboxes work off the cases side by side.
const WORKERS: usize = 16;
/// One answer's time, and what is beyond it.
const ANSWER: Duration = Duration::from_millis(400);
const LATE_MS: u64 = 600;
/// Longer than any call may take under any fault here.
const CASE_MAX: Duration = Duration::from_secs(60);
/// How many of the slowest cases are named, where a client that waits too long shows itself first.
const SLOWEST_SHOWN: usize = 5;
const READS: &[&str] = &["GET"];
const WRITES: &[&str] = &["POST", "PUT", "DELETE", "PATCH"];
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD test";

/// Every call of the trait that talks to the cloud, and whether it changes something.
const CALLS: [(&str, bool); 28] = [
    ("check", false),
    ("sizes", false),
    ("extra_prices", false),
    ("image", false),
    ("find_vm", false),
    ("get_vm", false),
    ("list_vms", false),
    ("wait_running", false),
    ("list_snapshots", false),
    ("list_addresses", false),
    ("ensure_ssh_key", true),
    ("delete_ssh_key", true),
    ("ensure_firewall", true),
    ("delete_firewall", true),
    ("create_vm", true),
    ("start_vm", true),
    ("stop_vm", true),
    ("cycle_vm", true),
    ("rename_vm", true),
    ("adopt_vm", true),
    ("rebuild_vm", true),
    ("resize_vm", true),
    ("delete_vm", true),
    ("snapshot_vm", true),
    ("delete_snapshot", true),
    ("ensure_address", true),
    ("assign_address", true),
    ("release_address", true),
];

/// What goes wrong.
#[derive(Debug, Clone)]
enum Fault {
    /// With the requests.
    Request(&'static str, Action),
    /// With the actions that were accepted.
    Actions,
    /// With the stock.
    SoldOut,
}

impl Fault {
    fn name(&self) -> &'static str {
        match self {
            Self::Request(name, _) => name,
            Self::Actions => "action ends in error",
            Self::SoldOut => "sold out",
        }
    }

    /// Whether each try costs a whole answer's time.
    fn is_slow(&self) -> bool {
        let Self::Request(_, action) = self else { return false };
        matches!(
            action,
            Action::Latency { .. }
                | Action::HoldBefore
                | Action::HoldAfter
                | Action::SlowBody { .. }
        )
    }
}

fn faults() -> Vec<Fault> {
    let status = |code| Action::Status { code, body: None, headers: BTreeMap::new() };
    let requests = [
        ("latency beyond the time-out", Action::Latency { ms: LATE_MS }),
        ("500 before the effect", status(500)),
        ("500 after the effect", Action::StatusAfter { code: 500 }),
        ("503 before the effect", status(503)),
        ("504 after the effect", Action::StatusAfter { code: 504 }),
        ("time-out before the effect", Action::HoldBefore),
        ("time-out after the effect", Action::HoldAfter),
        ("connection lost before the effect", Action::DropBefore),
        ("connection lost after the effect", Action::DropAfter),
        ("409", status(409)),
        ("412", status(412)),
        ("422", status(422)),
        ("423", status(423)),
        ("429", Action::RateLimit { reset_seconds: 1 }),
        ("wrong JSON", Action::Garble),
        ("slow body", Action::SlowBody { ms: LATE_MS }),
    ];
    let requests = requests.into_iter().map(|(name, action)| Fault::Request(name, action));
    requests.chain([Fault::Actions, Fault::SoldOut]).collect()
}

/// One cell of the matrix.
#[derive(Debug, Clone)]
struct Case {
    call: &'static str,
    fault: Fault,
    methods: &'static [&'static str],
    times: Option<u32>,
}

impl Case {
    fn shown(&self) -> String {
        let how_often = if self.times.is_some() { "once" } else { "always" };
        format!("{} under {} ({:?}, {how_often})", self.call, self.fault.name(), self.methods)
    }
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (call, changes) in CALLS {
        for fault in faults() {
            let mut add = |methods, times| {
                all.push(Case { call, fault: fault.clone(), methods, times });
            };
            if !matches!(fault, Fault::Request(..)) {
                if changes {
                    add(WRITES, None);
                }
                continue;
            }
            add(READS, Some(1));
            if !fault.is_slow() && !changes {
                add(READS, None);
            }
            if changes {
                add(WRITES, Some(1));
                if !fault.is_slow() {
                    add(WRITES, None);
                }
            }
        }
    }
    all
}

/// What a call finds when it is made.
struct Scene {
    /// For a server that is not there yet.
    order: VmOrder,
    vm: CloudVm,
    /// Whether the server is this case's alone.
    own_vm: bool,
    /// The size that it does not have.
    other_size: &'static str,
    snapshot: String,
    address: String,
    /// A name that only this case uses.
    name: String,
}

/// What a worker has from case to case: making a server for each would only cost time.
struct Standing {
    /// Has all the time in the world.
    calm: AnyCloud,
    hasty: AnyCloud,
    image: String,
    vm: CloudVm,
}

pub(crate) async fn every_fault_ends_cleanly_or_clearly<F>(set: fn() -> F)
where
    F: Future<Output = Stage> + Send + 'static,
{
    let (begun, cases) = (Instant::now(), Arc::new(cases()));
    let next = Arc::new(AtomicUsize::new(0));
    let workers = (0..WORKERS).map(|_| {
        let (cases, next) = (cases.clone(), next.clone());
        tokio::spawn(async move {
            let stage = set().await;
            let image = stage.full_order(VmId::generate()).await.image;
            let standing = Standing {
                calm: stage.client(None, PATIENCE),
                hasty: stage.client(None, ANSWER),
                image,
                vm: stage.vm().await,
            };
            let mut seen = Vec::new();
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                let begun = Instant::now();
                let outcome = run(&stage, &standing, case).await;
                seen.push((outcome, begun.elapsed(), case.shown()));
            }
            let provider = stage.terms.provider;
            stage.stop().await;
            (provider, seen)
        })
    });
    let mut codes: BTreeMap<&'static str, usize> = BTreeMap::new();
    let (mut cloud, mut clean, mut times) = ("", 0, Vec::new());
    for worker in futures::future::join_all(workers).await {
        let (provider, seen) = worker.expect("no case panics");
        cloud = provider;
        for (outcome, took, shown) in seen {
            match outcome {
                Ok(()) => clean += 1,
                Err(code) => *codes.entry(code).or_default() += 1,
            }
            times.push((took, shown));
        }
    }
    let clear: usize = codes.values().sum();
    eprintln!(
        "{cloud}: {} calls x {} faults (reads and writes, once and always) = {} cases, {clean} \
         clean, {clear} clear errors {codes:?}, never two servers, in {:.1} s",
        CALLS.len(),
        faults().len(),
        cases.len(),
        begun.elapsed().as_secs_f64()
    );
    times.sort_by(|(one, _), (other, _)| other.cmp(one));
    for (took, shown) in times.iter().take(SLOWEST_SHOWN) {
        eprintln!("  {:.1} s: {shown}", took.as_secs_f64());
    }
    assert_eq!(clean + clear, cases.len());
    assert!(clean > cases.len() / 3, "a single fault is mostly got over");
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(CASE_MAX, work).await;
    done.unwrap_or_else(|_| panic!("{what}: no end within {CASE_MAX:?}"))
}

/// Makes a scene, plays the fault, calls, heals, and calls again: that must work, and leave one.
async fn run(stage: &Stage, standing: &Standing, case: &Case) -> Result<(), &'static str> {
    let shown = case.shown();
    let Standing { calm, hasty, .. } = standing;
    let setting = scene(stage, standing, calm, case.call);
    let scene = within(&format!("the scene for {shown}"), setting).await;
    match &case.fault {
        Fault::Request(_, action) => stage.fail(case.methods, action, case.times),
        Fault::Actions => stage.turn((stage.terms.failing)(true)).await,
        Fault::SoldOut => {
            let ordered = case.call == "create_vm";
            let size = if ordered { stage.terms.sizes.0 } else { scene.other_size };
            stage.turn((stage.terms.sold_out)(Some(size))).await;
        }
    }
    let first = within(&shown, call(stage, hasty, case.call, &scene)).await;
    stage.faults().clear();
    match case.fault {
        Fault::Request(..) => {}
        Fault::Actions => stage.turn((stage.terms.failing)(false)).await,
        Fault::SoldOut => stage.turn((stage.terms.sold_out)(None)).await,
    }
    if let Err(error) = &first {
        let text = error.to_string();
        assert!(text.len() > 20 && !text.ends_with('.'), "{shown}: {text}");
    }
    if case.methods == WRITES {
        one_of_each(stage, &scene, &shown).await;
    }
    let healed = format!("{shown}, healed after {first:?}");
    let second = within(&healed, call(stage, calm, case.call, &scene)).await;
    if let Err(error) = second {
        panic!("{shown}: once all is well: {error} ({error:?}); at first: {first:?}");
    }
    let state = one_of_each(stage, &scene, &shown).await;
    within(&format!("the end of {shown}"), clear(stage, calm, &scene, &state, &shown)).await;
    first.map_err(|error| error.code())
}

async fn scene(stage: &Stage, standing: &Standing, cloud: &AnyCloud, name: &str) -> Scene {
    let (ours, labels) = (stage.installation, stage.labels());
    let new = || VmOrder { image: standing.image.clone(), ..stage.order(VmId::generate()) };
    let own_vm = matches!(name, "delete_vm" | "assign_address" | "release_address");
    let id = if own_vm {
        cloud.create_vm(&new()).await.expect("a server").provider_id
    } else {
        standing.vm.provider_id.clone()
    };
    let off = matches!(name, "start_vm" | "resize_vm")
        || stage.terms.named_addresses && name == "assign_address";
    let vm = if off {
        cloud.stop_vm(&id, ours, PATIENCE).await.expect("off").vm
    } else {
        cloud.start_vm(&id, ours, PATIENCE).await.expect("up")
    };
    let (small, large, _) = stage.terms.sizes;
    let mut scene = Scene {
        order: new(),
        own_vm,
        other_size: if vm.size == small { large } else { small },
        vm,
        snapshot: String::new(),
        address: String::new(),
        name: VmId::generate().bare(),
    };
    let region = stage.terms.region.parse().expect("a region");
    match name {
        "delete_snapshot" => {
            let disk = cloud.snapshot_vm(&id, ours, &scene.name, &labels).await.expect("a disk");
            scene.snapshot = disk.provider_id;
        }
        "assign_address" | "release_address" => {
            let named = stage.terms.named_addresses;
            let vm = (!named || name == "release_address").then_some(&*id);
            let own = cloud.ensure_address(&scene.name, &region, vm, &labels).await;
            scene.address = own.expect("an answer").expect("an address").provider_id;
            if named {
                cloud.stop_vm(&id, ours, PATIENCE).await.expect("off");
            } else if name == "assign_address" {
                cloud.release_address(&scene.address, ours).await.expect("released");
            }
        }
        "delete_ssh_key" => {
            cloud.ensure_ssh_key(&scene.name, KEY, ours).await.expect("a key");
        }
        "delete_firewall" => {
            cloud.ensure_firewall(&scene.name, ours).await.expect("a firewall");
        }
        _ => {}
    }
    scene
}

async fn call(
    stage: &Stage,
    cloud: &AnyCloud,
    name: &str,
    scene: &Scene,
) -> Result<(), CloudError> {
    let (ours, labels) = (stage.installation, stage.labels());
    let (id, limit) = (scene.vm.provider_id.as_str(), PATIENCE);
    let region = stage.terms.region.parse().expect("a region");
    match name {
        "check" => cloud.check(ours).await.map(drop),
        "sizes" => cloud.sizes().await.map(drop),
        "extra_prices" => cloud.extra_prices().await.map(drop),
        "image" => cloud.image(Arch::Amd64).await.map(drop),
        "find_vm" => cloud.find_vm(&scene.vm.name).await.map(|vm| assert!(vm.is_some())),
        "get_vm" => cloud.get_vm(id).await.map(|vm| assert!(vm.is_some())),
        "list_vms" => cloud.list_vms().await.map(|all| assert!(!all.is_empty())),
        "wait_running" => cloud.wait_running(id, Duration::from_secs(2)).await.map(drop),
        "list_snapshots" => cloud.list_snapshots().await.map(drop),
        "list_addresses" => cloud.list_addresses().await.map(drop),
        "ensure_ssh_key" => cloud.ensure_ssh_key(&scene.name, KEY, ours).await.map(drop),
        "delete_ssh_key" => cloud.delete_ssh_key(&scene.name, ours).await,
        "ensure_firewall" => cloud.ensure_firewall(&scene.name, ours).await.map(drop),
        "delete_firewall" => cloud.delete_firewall(&scene.name, ours).await,
        "create_vm" => cloud.create_vm(&scene.order).await.map(drop),
        "start_vm" => cloud.start_vm(id, ours, limit).await.map(drop),
        "stop_vm" => cloud.stop_vm(id, ours, limit).await.map(drop),
        "cycle_vm" => cloud.cycle_vm(id, ours, limit).await.map(drop),
        "rename_vm" => cloud.rename_vm(id, ours, &scene.name).await.map(drop),
        "adopt_vm" => {
            let mut labels = scene.order.labels.clone();
            labels.insert("team".to_owned(), scene.name.clone());
            cloud.adopt_vm(id, &labels).await.map(drop)
        }
        "rebuild_vm" => {
            let rebuild = Rebuild { image: scene.order.image.clone(), user_data: None };
            cloud.rebuild_vm(id, ours, &rebuild).await.map(drop)
        }
        "resize_vm" => {
            let size = scene.other_size.parse().expect("a size");
            cloud.resize_vm(id, ours, &Resize { size, grow_disk: false, limit }).await.map(drop)
        }
        "delete_vm" => cloud.delete_vm(id, ours).await,
        "snapshot_vm" => cloud.snapshot_vm(id, ours, &scene.name, &labels).await.map(drop),
        "delete_snapshot" => cloud.delete_snapshot(&scene.snapshot, ours).await,
        "ensure_address" => {
            let vm = (!stage.terms.named_addresses).then_some(id);
            cloud.ensure_address(&scene.name, &region, vm, &labels).await.map(drop)
        }
        "assign_address" => cloud.assign_address(&scene.address, id, ours).await.map(drop),
        "release_address" => cloud.release_address(&scene.address, ours).await,
        other => panic!("no call `{other}`"),
    }
}

/// By the simulator's own word: at most one of each name, and nobody's address.
async fn one_of_each(stage: &Stage, scene: &Scene, shown: &str) -> Value {
    let (state, lists) = (stage.state().await, &stage.terms.lists);
    let count = |list: &str, field: &str, name: &str| {
        let names = crate::stage::names(&state, list, field);
        names.iter().filter(|one| *one == name).count()
    };
    assert!(count(lists.servers, "name", &scene.order.name) <= 1, "{shown}: two servers");
    let servers = state[lists.servers].as_array().map_or(0, Vec::len);
    assert!(servers <= 2, "{shown}: {servers} servers");
    assert!(
        count(lists.snapshots, lists.snapshot_name, &scene.name) <= 1,
        "{shown}: two snapshots"
    );
    for list in [lists.addresses, "ssh_keys", "firewalls"] {
        if list != lists.addresses || stage.terms.named_addresses {
            assert!(count(list, "name", &scene.name) <= 1, "{shown}: two in {list}");
        }
    }
    state
}

/// Leaves the sandbox as it was, through VMKit's own calls.
async fn clear(stage: &Stage, cloud: &AnyCloud, scene: &Scene, state: &Value, shown: &str) {
    let ours = stage.installation;
    let has = |list: &str| state[list].as_array().is_some_and(|all| !all.is_empty());
    if scene.own_vm {
        let gone = cloud.delete_vm(&scene.vm.provider_id, ours).await;
        gone.unwrap_or_else(|error| panic!("{shown}: {error}"));
    }
    let servers = crate::stage::names(state, stage.terms.lists.servers, "name");
    if servers.contains(&scene.order.name)
        && let Some(made) = cloud.find_vm(&scene.order.name).await.expect("an answer")
    {
        cloud.delete_vm(&made.provider_id, ours).await.expect("gone");
    }
    if has(stage.terms.lists.snapshots) {
        for disk in cloud.list_snapshots().await.expect("snapshots") {
            cloud.delete_snapshot(&disk.provider_id, ours).await.expect("gone");
        }
    }
    for own in cloud.list_addresses().await.expect("addresses") {
        if own.labels.is_empty() && stage.terms.named_addresses {
            continue;
        }
        if own.vm.is_some() {
            cloud.release_address(&own.provider_id, ours).await.expect("released");
        }
        let gone = cloud.delete_address(&own.provider_id, ours).await;
        gone.unwrap_or_else(|error| panic!("{shown}: {error}"));
    }
    if has("ssh_keys") {
        cloud.delete_ssh_key(&scene.name, ours).await.expect("gone");
    }
    if has("firewalls") {
        cloud.delete_firewall(&scene.name, ours).await.expect("gone");
    }
}
