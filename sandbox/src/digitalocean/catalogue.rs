//! What can be ordered: regions, sizes with their prices in US dollars, distribution images.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::DigitalOcean;
use super::knobs::Knobs;
use super::listing::Query;

pub(super) struct Region {
    pub(super) slug: &'static str,
    name: &'static str,
}

const REGIONS: [Region; 10] = [
    Region { slug: "nyc1", name: "New York 1" },
    Region { slug: "nyc3", name: "New York 3" },
    Region { slug: "ams3", name: "Amsterdam 3" },
    Region { slug: "sfo3", name: "San Francisco 3" },
    Region { slug: "sgp1", name: "Singapore 1" },
    Region { slug: "lon1", name: "London 1" },
    Region { slug: "fra1", name: "Frankfurt 1" },
    Region { slug: "tor1", name: "Toronto 1" },
    Region { slug: "blr1", name: "Bangalore 1" },
    Region { slug: "syd1", name: "Sydney 1" },
];

/// A region that takes no orders any more.
const CLOSED: Region = Region { slug: "nyc2", name: "New York 2" };

pub(super) struct Size {
    pub(super) slug: &'static str,
    pub(super) memory: u64,
    pub(super) vcpus: u64,
    pub(super) disk: u64,
    /// TB.
    transfer: f64,
    /// Dollars.
    monthly: f64,
    description: &'static str,
    regions: &'static [&'static str],
}

const ALL: &[&str] =
    &["ams3", "blr1", "fra1", "lon1", "nyc1", "nyc3", "sfo3", "sgp1", "syd1", "tor1"];
const SOME: &[&str] = &["ams3", "fra1", "nyc1", "nyc3", "sfo3", "sgp1"];

const fn size(
    slug: &'static str,
    (memory, vcpus, disk): (u64, u64, u64),
    (transfer, monthly): (f64, f64),
    description: &'static str,
    regions: &'static [&'static str],
) -> Size {
    Size { slug, memory, vcpus, disk, transfer, monthly, description, regions }
}

const SIZES: [Size; 10] = [
    size("s-1vcpu-512mb-10gb", (512, 1, 10), (0.5, 4.0), "Basic", SOME),
    size("s-1vcpu-1gb", (1024, 1, 25), (1.0, 6.0), "Basic", ALL),
    size("s-1vcpu-2gb", (2048, 1, 50), (2.0, 12.0), "Basic", ALL),
    size("s-2vcpu-2gb", (2048, 2, 60), (3.0, 18.0), "Basic", ALL),
    size("s-2vcpu-4gb", (4096, 2, 80), (4.0, 24.0), "Basic", ALL),
    size("c-2", (4096, 2, 25), (4.0, 42.0), "CPU-Optimized", SOME),
    size("s-4vcpu-8gb", (8192, 4, 160), (5.0, 48.0), "Basic", ALL),
    size("g-2vcpu-8gb", (8192, 2, 25), (4.0, 63.0), "General Purpose", SOME),
    size("m-2vcpu-16gb", (16384, 2, 50), (4.0, 84.0), "Memory-Optimized", SOME),
    size("s-8vcpu-16gb", (16384, 8, 320), (6.0, 96.0), "Basic", ALL),
];

pub(super) fn find_size(slug: &str) -> Option<&'static Size> {
    SIZES.iter().find(|size| size.slug == slug)
}

pub(super) fn find_region(slug: &str) -> Option<&'static Region> {
    REGIONS.iter().find(|region| region.slug == slug)
}

impl Size {
    pub(super) fn is_offered(&self, region: &str) -> bool {
        self.regions.contains(&region)
    }

    pub(super) fn json(&self, knobs: &Knobs) -> Value {
        let regions: Vec<&str> =
            self.regions.iter().copied().filter(|region| knobs.listed(self.slug, region)).collect();
        // Dollars per hour with five decimals, as published.
        let hourly = (self.monthly / 672.0 * 100_000.0).round() / 100_000.0;
        json!({
            "slug": self.slug, "memory": self.memory, "vcpus": self.vcpus, "disk": self.disk,
            "transfer": self.transfer, "price_monthly": self.monthly, "price_hourly": hourly,
            "regions": regions, "available": true, "description": self.description,
            "disk_info": [{"type": "local", "size": {"amount": self.disk, "unit": "gib"}}],
        })
    }
}

impl Region {
    pub(super) fn json(&self, knobs: &Knobs) -> Value {
        let sizes: Vec<&str> = SIZES
            .iter()
            .filter(|size| size.is_offered(self.slug) && knobs.listed(size.slug, self.slug))
            .map(|size| size.slug)
            .collect();
        json!({
            "name": self.name, "slug": self.slug, "available": !sizes.is_empty(), "sizes": sizes,
            "features": ["backups", "ipv6", "metadata", "install_agent", "storage"],
        })
    }
}

/// A distribution image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distribution {
    pub(super) id: u64,
    pub(super) slug: &'static str,
    name: &'static str,
    distribution: &'static str,
}

const fn image(
    id: u64,
    slug: &'static str,
    name: &'static str,
    distribution: &'static str,
) -> Distribution {
    Distribution { id, slug, name, distribution }
}

pub(super) const IMAGES: [Distribution; 4] = [
    image(152_356_000, "debian-12-x64", "12 x64", "Debian"),
    image(195_930_000, "debian-13-x64", "13 x64", "Debian"),
    image(129_211_873, "ubuntu-22-04-x64", "22.04 (LTS) x64", "Ubuntu"),
    image(155_133_621, "ubuntu-24-04-x64", "24.04 (LTS) x64", "Ubuntu"),
];

impl Distribution {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "distribution": self.distribution,
            "slug": self.slug, "public": true, "regions": ALL, "type": "base",
            "created_at": "2025-08-12T12:00:00Z", "min_disk_size": 7, "size_gigabytes": 2.34,
            "description": format!("{} {}", self.distribution, self.name), "tags": [],
            "status": "available",
        })
    }
}

pub(super) async fn list_sizes(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let knobs = cloud.knobs();
    query.page("sizes", SIZES.iter().map(|size| size.json(&knobs)).collect())
}

pub(super) async fn list_regions(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let knobs = cloud.knobs();
    let closed = json!({
        "name": CLOSED.name, "slug": CLOSED.slug, "available": false, "sizes": [], "features": [],
    });
    let regions = REGIONS.iter().map(|region| region.json(&knobs)).chain([closed]);
    query.page("regions", regions.collect())
}
