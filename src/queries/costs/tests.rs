//! Sums and waste from made-up clouds: nothing twice, nothing in two currencies, nothing of others.

use super::*;
use crate::clouds::ExtraPrices;
use crate::domain::ids::{InstallationId, VmId};
use crate::domain::money::Currency;
use crate::domain::size::testing::offers;
use crate::operations::catalogue::PriceList;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn money(text: &str, currency: Currency) -> Money {
    Money::new(text.parse().expect("a number"), currency)
}

fn now() -> Millis {
    Month::of(Millis(1_794_900_000_000)).start.plus_ms(15 * DAY_MS)
}

fn vm(provider: &str, price: &str, currency: Currency, power: Power, on_it: &[&str]) -> VmCost {
    let id = VmId::generate();
    let vm = Vm {
        id,
        provider: provider.to_owned(),
        provider_id: Some(id.bare()),
        size: "cx23".parse().expect("a size"),
        region: "fsn1".parse().expect("a region"),
        arch: crate::domain::size::Arch::Amd64,
        address: None,
        address_id: None,
        ipv6: None,
        known_hosts: None,
        state: VmState::Ready,
        created_at: now(),
    };
    VmCost {
        row: VmRow { vm, monthly: money(price, currency) },
        environments: on_it.iter().map(|path| path.parse().expect("a path")).collect(),
        power,
        today: None,
    }
}

fn catalogue() -> Catalogue {
    let sizes = offers().into_iter().filter(|o| o.cloud == "hetzner").map(|o| o.size).collect();
    let extras = ExtraPrices {
        address_unused: Some(money("0.50", Currency::Eur)),
        snapshot_gb: Some(money("0.0110", Currency::Eur)),
        volume_gb: None,
    };
    let list = PriceList { cloud: "hetzner", sizes, extras, seen_at: now(), stale: false };
    Catalogue { lists: vec![list], away: Vec::new(), absent: Vec::new() }
}

fn labels(pairs: &[(&str, String)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn snapshot(name: &str, labels: Labels) -> CloudSnapshot {
    CloudSnapshot {
        provider_id: name.to_owned(),
        name: name.to_owned(),
        size_gb: Some(100),
        min_disk_gb: 40,
        regions: None,
        labels,
        protected: false,
        created: None,
    }
}

fn address(labels: Labels, vm: Option<&str>) -> CloudAddress {
    CloudAddress {
        provider_id: "1".to_owned(),
        name: None,
        address: "192.0.2.7".parse().expect("an address"),
        vm: vm.map(str::to_owned),
        region: "fsn1".to_owned(),
        labels,
        protected: false,
    }
}

#[test]
fn everything_ours_is_counted_once_and_nothing_of_others() {
    let installation = InstallationId::generate();
    let ours = |labels: &Labels| labels.get(LABEL_INSTALLATION) == Some(&installation.bare());
    let own = || labels(&[(LABEL_INSTALLATION, installation.bare())]);
    let until = |at: Millis| {
        labels(&[
            (LABEL_INSTALLATION, installation.bare()),
            (LABEL_EXPIRES, (at.0 / 1000).to_string()),
        ])
    };
    let vms = [
        vm("hetzner", "6.00", Currency::Eur, Power::On, &["shop/a", "shop/b"]),
        vm("hetzner", "10.00", Currency::Eur, Power::Off, &["shop/c"]),
        vm("hetzner", "99.00", Currency::Eur, Power::Gone, &["shop/d"]),
        vm("digitalocean", "24.00", Currency::Usd, Power::Unknown, &[]),
    ];
    let found = [Found {
        cloud: "hetzner",
        vms: Some(Vec::new()),
        addresses: Some(vec![
            address(own(), None),
            address(own(), Some("7")),
            address(Labels::new(), None),
        ]),
        snapshots: Some(vec![
            snapshot("overdue", until(now().plus_ms(-1000))),
            snapshot("kept", until(now().plus_ms(DAY_MS))),
            snapshot("theirs", labels(&[(LABEL_EXPIRES, "1".to_owned())])),
        ]),
        trouble: Vec::new(),
    }];
    let month = Month::of(now());
    let (monthly, forecast) = sums(&vms, &found, &catalogue(), &ours, &month);
    // 6 + 10 for VMs, 0.50 for the address, twice 1.10 for snapshots.
    assert_eq!(monthly, [money("18.70", Currency::Eur), money("24.00", Currency::Usd)]);
    // Half the month is over when the VMs come; what has no date counts whole.
    let told: Vec<String> = forecast.iter().map(ToString::to_string).collect();
    assert_eq!(told[1], "USD 12.00");
    let wasted = unused(&vms, &found, &catalogue(), &ours, now());
    let lines: Vec<String> = wasted.iter().map(|unused| unused.what.clone()).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].contains("off and billed in full"), "{lines:?}");
    assert!(lines[1].contains("has no environment"), "{lines:?}");
    assert!(lines[2].contains("192.0.2.7"), "{lines:?}");
    assert!(lines[3].contains("`overdue`"), "{lines:?}");
    assert_eq!(wasted[3].monthly, Some(money("1.1000", Currency::Eur)));
    let foreign = found[0].foreign(&ours).expect("others' things");
    assert_eq!(foreign, "hetzner: 1 address (1 unattached), 1 snapshot");
}

/// A cloud without labels for addresses: that the address of a destroyed server is ours, and paid for,
/// only our own note says.
#[test]
fn an_address_that_only_our_note_names_is_ours() {
    let installation = InstallationId::generate();
    let mut kept = vm("hetzner", "6.00", Currency::Eur, Power::Gone, &[]).row;
    kept.vm.address_id = Some("1".to_owned());
    kept.vm.state = VmState::Kept;
    let all = |provider_id: &str| CloudAddress {
        provider_id: provider_id.to_owned(),
        ..address(Labels::new(), None)
    };
    let mut found =
        [Found { cloud: "hetzner", addresses: Some(vec![all("1"), all("2")]), ..Found::default() }];
    mark_noted(&mut found, &[kept], installation);
    let ours = |labels: &Labels| labels.get(LABEL_INSTALLATION) == Some(&installation.bare());
    let (monthly, _) = sums(&[], &found, &catalogue(), &ours, &Month::of(now()));
    assert_eq!(monthly, [money("0.50", Currency::Eur)]);
    assert_eq!(found[0].foreign(&ours).expect("one"), "hetzner: 1 address (1 unattached)");
}

#[test]
fn a_server_of_ours_that_no_record_names_is_told() {
    let installation = InstallationId::generate();
    let ours = |labels: &Labels| labels.get(LABEL_INSTALLATION) == Some(&installation.bare());
    let server = CloudVm {
        provider_id: "7".to_owned(),
        name: "vmkit-lost".to_owned(),
        state: CloudVmState::Running,
        address: None,
        ipv6: None,
        size: "cx23".to_owned(),
        region: "fsn1".to_owned(),
        arch: None,
        disk_gb: None,
        labels: labels(&[(LABEL_INSTALLATION, installation.bare())]),
        protected: false,
        created: None,
    };
    let found = [Found { cloud: "hetzner", vms: Some(vec![server]), ..Found::default() }];
    let lost = unused(&[], &found, &catalogue(), &ours, now());
    assert_eq!(lost.len(), 1);
    assert!(lost[0].what.contains("in no record"), "{}", lost[0].what);
    assert_eq!(lost[0].monthly, Some(money("5.99", Currency::Eur)));
}

/// A float in the path of an amount would show here: the sources of it, and the JSON that leaves.
#[test]
fn no_amount_goes_through_a_float() {
    let sources = [
        include_str!("../../domain/money.rs"),
        include_str!("../../domain/size/need.rs"),
        include_str!("../../domain/size/nearest.rs"),
        include_str!("../costs.rs"),
        include_str!("../paas.rs"),
        include_str!("month.rs"),
        include_str!("what_if.rs"),
        include_str!("../../../tools/get_costs.rs"),
        include_str!("../../store/price_list.rs"),
    ];
    for source in sources {
        for word in ["f32", "f64", "to_f", "from_f"] {
            assert!(
                !source.contains(word),
                "`{word}` in {}",
                source.lines().next().expect("a line")
            );
        }
    }
    let list = serde_json::to_value(catalogue().lists[0].extras).expect("JSON");
    assert_eq!(list["snapshot_gb"]["amount"], "0.0110");
    let size = serde_json::to_value(&offers()[0].size).expect("JSON");
    assert_eq!(size["monthly"]["amount"], "5.99");
}
