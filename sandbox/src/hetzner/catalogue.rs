//! What can be ordered: locations, server types, images and their prices (euro, net, without IPv4,
//! as published after 2026-06-15).

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::knobs::Knobs;
use super::listing::Query;
use super::{Answer, Hetzner, ok};

pub(super) struct Location {
    pub(super) id: u64,
    pub(super) name: &'static str,
    city: &'static str,
    country: &'static str,
    zone: &'static str,
    at: (f64, f64),
}

const LOCATIONS: [Location; 6] = [
    place(1, "fsn1", "Falkenstein", "DE", "eu-central", (50.476_12, 12.370_071)),
    place(2, "nbg1", "Nuremberg", "DE", "eu-central", (49.452_102, 11.076_665)),
    place(3, "hel1", "Helsinki", "FI", "eu-central", (60.169_855, 24.938_379)),
    place(4, "ash", "Ashburn, VA", "US", "us-east", (39.045_821, -77.487_073)),
    place(5, "hil", "Hillsboro, OR", "US", "us-west", (45.542_22, -122.951_924)),
    place(6, "sin", "Singapore", "SG", "ap-southeast", (1.283_33, 103.833_33)),
];

const fn place(
    id: u64,
    name: &'static str,
    city: &'static str,
    country: &'static str,
    zone: &'static str,
    at: (f64, f64),
) -> Location {
    Location { id, name, city, country, zone, at }
}

pub(super) struct ServerType {
    pub(super) id: u64,
    pub(super) name: &'static str,
    pub(super) arch: &'static str,
    pub(super) cores: u64,
    pub(super) memory: u64,
    pub(super) disk: u64,
    /// Cents a month.
    price: u64,
    locations: &'static [&'static str],
}

const EU: &[&str] = &["fsn1", "nbg1", "hel1"];
const EU_SIN: &[&str] = &["fsn1", "nbg1", "hel1", "sin"];
const US: &[&str] = &["ash", "hil"];
const ALL: &[&str] = &["fsn1", "nbg1", "hel1", "ash", "hil", "sin"];

/// Name, cores, GB of memory, GB of disk, cents a month.
type Row = (&'static str, u64, u64, u64, u64);

const ARM: [Row; 4] = [
    ("cax11", 2, 4, 40, 599),
    ("cax21", 4, 8, 80, 1049),
    ("cax31", 8, 16, 160, 2099),
    ("cax41", 16, 32, 320, 4099),
];
const COST_OPTIMIZED: [Row; 4] = [
    ("cx23", 2, 4, 40, 549),
    ("cx33", 4, 8, 80, 849),
    ("cx43", 8, 16, 160, 1599),
    ("cx53", 16, 32, 320, 2949),
];
const REGULAR: [Row; 6] = [
    ("cpx12", 1, 2, 40, 1149),
    ("cpx22", 2, 4, 80, 1949),
    ("cpx32", 4, 8, 160, 3549),
    ("cpx42", 8, 16, 320, 6949),
    ("cpx52", 12, 24, 480, 10_049),
    ("cpx62", 16, 32, 640, 12_999),
];
const REGULAR_US: [Row; 5] = [
    ("cpx11", 2, 2, 40, 1749),
    ("cpx21", 3, 4, 80, 3199),
    ("cpx31", 4, 8, 160, 6249),
    ("cpx41", 8, 16, 240, 12_049),
    ("cpx51", 16, 32, 360, 23_799),
];
const DEDICATED: [Row; 6] = [
    ("ccx13", 2, 8, 80, 4299),
    ("ccx23", 4, 16, 160, 8599),
    ("ccx33", 8, 32, 240, 13_849),
    ("ccx43", 16, 64, 360, 27_599),
    ("ccx53", 32, 128, 600, 53_349),
    ("ccx63", 48, 192, 960, 85_349),
];

/// All server types, in a stable order.
pub(super) fn all_types() -> Vec<ServerType> {
    let groups: [(&[Row], &'static str, &'static [&'static str]); 5] = [
        (&ARM, "arm", EU),
        (&COST_OPTIMIZED, "x86", EU),
        (&REGULAR, "x86", EU_SIN),
        (&REGULAR_US, "x86", US),
        (&DEDICATED, "x86", ALL),
    ];
    let rows = groups
        .iter()
        .flat_map(|(rows, arch, locations)| rows.iter().map(move |row| (*row, *arch, *locations)));
    rows.zip(100..)
        .map(|(((name, cores, memory, disk, price), arch, locations), id)| ServerType {
            id,
            name,
            arch,
            cores,
            memory,
            disk,
            price,
            locations,
        })
        .collect()
}

/// A server type by name or id.
pub(super) fn find_type(reference: &str) -> Option<ServerType> {
    all_types().into_iter().find(|t| t.name == reference || t.id.to_string() == reference)
}

/// A location by name or id.
pub(super) fn find_location(reference: &str) -> Option<&'static Location> {
    LOCATIONS.iter().find(|l| l.name == reference || l.id.to_string() == reference)
}

impl Location {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "description": format!("{} DC Park 1", self.city),
            "country": self.country, "city": self.city, "latitude": self.at.0,
            "longitude": self.at.1, "network_zone": self.zone,
        })
    }
}

impl ServerType {
    pub(super) fn is_offered(&self, location: &str) -> bool {
        self.locations.contains(&location)
    }

    /// The first location that has it to order.
    pub(super) fn default_location(&self, knobs: &Knobs) -> Option<&'static Location> {
        let free = self.locations.iter().find(|at| knobs.can_be_ordered(self.name, at));
        free.and_then(|at| find_location(at))
    }

    pub(super) fn json(&self, knobs: &Knobs) -> Value {
        let at = |name: &&&str| find_location(name).map(|location| (location.id, location.name));
        let locations: Vec<Value> = self
            .locations
            .iter()
            .filter_map(|name| at(&name))
            .map(|(id, name)| {
                json!({
                    "id": id, "name": name, "deprecation": null, "recommended": self.price < 4000,
                    "available": knobs.listed(self.name, name),
                })
            })
            .collect();
        let (cpu, category) = match &self.name[..2] {
            "cc" => ("dedicated", "general_purpose"),
            "cp" => ("shared", "regular_purpose"),
            _ => ("shared", "cost_optimized"),
        };
        json!({
            "id": self.id, "name": self.name, "description": self.name.to_uppercase(),
            "cores": self.cores, "memory": self.memory, "disk": self.disk, "deprecated": false,
            "prices": self.prices(), "storage_type": "local", "cpu_type": cpu,
            "category": category, "architecture": self.arch, "deprecation": null,
            "locations": locations,
        })
    }

    fn prices(&self) -> Vec<Value> {
        let price = |location: &&str| {
            json!({
                "location": location, "price_hourly": money(self.price * 100 / 624),
                "price_monthly": money(self.price * 100),
                "included_traffic": 21_990_232_555_520_u64,
                "price_per_tb_traffic": money(10_000),
            })
        };
        self.locations.iter().map(price).collect()
    }
}

/// Ten-thousandths of a euro, net, and the same with 19 % on it.
fn money(net: u64) -> Value {
    let text = |amount: u64| format!("{}.{:04}", amount / 10_000, amount % 10_000);
    json!({"net": text(net), "gross": text(net * 119 / 100)})
}

pub(super) async fn server_types(State(hetzner): State<Hetzner>, query: Query) -> Response {
    let knobs = hetzner.knobs();
    let types = all_types();
    let shown = types.iter().filter(|t| query.one_of("name", t.name));
    query.page("server_types", shown.map(|t| t.json(&knobs)).collect())
}

pub(super) async fn server_type(State(hetzner): State<Hetzner>, Path(id): Path<String>) -> Answer {
    let found = all_types().into_iter().find(|t| t.id.to_string() == id);
    let found = found.ok_or_else(|| ApiError::not_found("server type", &id))?;
    ok(json!({"server_type": found.json(&hetzner.knobs())}))
}

pub(super) async fn locations(query: Query) -> Response {
    let shown = LOCATIONS.iter().filter(|location| query.one_of("name", location.name));
    query.page("locations", shown.map(Location::json).collect())
}

pub(super) async fn location(Path(id): Path<String>) -> Answer {
    let found = LOCATIONS.iter().find(|location| location.id.to_string() == id);
    let found = found.ok_or_else(|| ApiError::not_found("location", &id))?;
    ok(json!({"location": found.json()}))
}

pub(super) async fn pricing() -> Answer {
    let types: Vec<Value> = all_types()
        .iter()
        .map(|t| json!({"id": t.id, "name": t.name, "prices": t.prices()}))
        .collect();
    let ip = |kind: &str, monthly: u64| {
        let price = |location: &Location| {
            json!({
                "location": location.name, "price_hourly": money(monthly / 624),
                "price_monthly": money(monthly),
            })
        };
        json!({"type": kind, "prices": LOCATIONS.iter().map(price).collect::<Vec<_>>()})
    };
    ok(json!({"pricing": {
        "currency": "EUR", "vat_rate": "19.00",
        "primary_ips": [ip("ipv4", 5000), ip("ipv6", 0)], "floating_ips": [],
        "image": {"price_per_gb_month": money(110)}, "volume": {"price_per_gb_month": money(440)},
        "server_backup": {"percentage": "20.00"}, "server_types": types,
        "load_balancer_types": [], "floating_ip": {"price_monthly": money(30_000)},
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_decimal_strings_with_vat() {
        assert_eq!(money(59_900), json!({"net": "5.9900", "gross": "7.1281"}));
        assert_eq!(all_types().len(), 25);
        assert_eq!(find_type("cax11").unwrap().prices().len(), 3);
    }
}
