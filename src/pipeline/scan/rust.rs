//! Rust programs. No builder here builds them, so they come with a Dockerfile.

use super::Evidence;
use super::ecosystem::{self, Ecosystem, Means, Package};

const FILE: &str = "Cargo.toml";
const NAME: &str = "Rust";

pub(super) const ECOSYSTEM: Ecosystem = Ecosystem {
    manifest: |evidence| evidence.has(FILE).then(|| FILE.to_owned()),
    is_main: |evidence| evidence.has("src/main.rs") || !evidence.has("package.json"),
    facts,
    build: |evidence, file| evidence.no_builder(NAME, file),
};

const KNOWN: &[(&str, Means)] = &[
    ("axum", Means::Web("axum")),
    ("actix-web", Means::Web("Actix Web")),
    ("rocket", Means::Web("Rocket")),
    ("warp", Means::Web("warp")),
    ("poem", Means::Web("poem")),
    ("leptos", Means::Web("Leptos")),
    ("serenity", Means::Work("serenity")),
    ("teloxide", Means::Work("teloxide")),
    ("tokio-postgres", Means::Service("postgres")),
    ("postgres", Means::Service("postgres")),
    ("redis", Means::Service("redis")),
    ("fred", Means::Service("redis")),
    ("mongodb", Means::Service("mongodb")),
    ("mysql_async", Means::Service("mysql")),
    ("meilisearch-sdk", Means::Service("meilisearch")),
    ("qdrant-client", Means::Service("qdrant")),
    ("lapin", Means::Service("rabbitmq")),
    ("rusqlite", Means::Disk("SQLite")),
    ("redb", Means::Disk("redb")),
    ("sled", Means::Disk("sled")),
    ("tokio-tungstenite", Means::Streams),
    ("actix-ws", Means::Streams),
    ("candle-core", Means::Infers),
    ("ort", Means::Infers),
];

fn facts(evidence: &mut Evidence<'_>, file: &str) {
    evidence.is(NAME, file);
    let Some(manifest) = evidence.text(FILE).and_then(|text| text.parse::<toml::Table>().ok())
    else {
        return;
    };
    let dependencies = manifest.get("dependencies").and_then(|table| table.as_table());
    let names = dependencies.into_iter().flat_map(|table| table.keys());
    let packages: Vec<Package> = names.map(|name| Package::new(name.as_str(), FILE)).collect();
    ecosystem::take(evidence, NAME, &packages, KNOWN);
    let has_feature = |package: &str, feature: &str| {
        let features =
            dependencies.and_then(|table| table.get(package)?.get("features")?.as_array());
        features.into_iter().flatten().any(|one| one.as_str() == Some(feature))
    };
    if has_feature("axum", "ws") {
        evidence.streams("axum's websockets", file);
    }
    for package in ["sqlx", "diesel", "sea-orm"] {
        let kinds =
            [(["postgres", "sqlx-postgres"], "postgres"), (["mysql", "sqlx-mysql"], "mysql")];
        for (features, service) in kinds {
            if features.iter().any(|feature| has_feature(package, feature)) {
                evidence.service(service, file);
            }
        }
        if has_feature(package, "sqlite") || has_feature(package, "sqlx-sqlite") {
            evidence.keeps_on_disk("SQLite", file);
        }
    }
    evidence.manager("cargo", file);
    if !evidence.has("Cargo.lock") && !evidence.outside.contains("Cargo.lock") {
        let text = "there is no Cargo.lock, so two builds of one commit may differ";
        evidence.note("no_lock_file", text, "commit it", file);
    }
    let version = manifest.get("package").and_then(|p| p.get("rust-version")?.as_str());
    if let Some(version) = version {
        evidence.version(version, file);
    }
    let own = evidence.code_with(&["migrate!(", "embed_migrations!", "Migrator::up"]).is_some();
    if evidence.has_folder("migrations") && !own {
        let text = "there are migrations, and nothing in the image runs them but the app itself";
        evidence.unrun_migrations(text, "migrations");
    }
}
