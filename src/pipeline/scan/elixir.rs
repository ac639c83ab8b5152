//! Elixir apps. No builder here builds them, so they come with a Dockerfile.

use std::sync::LazyLock;

use regex::Regex;

use super::Evidence;
use super::ecosystem::{self, Ecosystem, Means, Package};

const FILE: &str = "mix.exs";
const NAME: &str = "Elixir";

pub(super) const ECOSYSTEM: Ecosystem = Ecosystem {
    manifest: |evidence| evidence.has(FILE).then(|| FILE.to_owned()),
    is_main: |_| true,
    facts,
    build: |evidence, file| evidence.no_builder(NAME, file),
};

const KNOWN: &[(&str, Means)] = &[
    ("phoenix", Means::Web("Phoenix")),
    ("bandit", Means::Web("Bandit")),
    ("plug_cowboy", Means::Web("Plug")),
    ("nostrum", Means::Work("Nostrum")),
    ("postgrex", Means::Service("postgres")),
    ("myxql", Means::Service("mysql")),
    ("redix", Means::Service("redis")),
    ("mongodb_driver", Means::Service("mongodb")),
    ("amqp", Means::Service("rabbitmq")),
    ("ecto_sqlite3", Means::Disk("SQLite")),
    ("phoenix_live_view", Means::Streams),
    ("bumblebee", Means::Infers),
];

static DEPENDENCY: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{:(\w+),([^}]*)\}").expect("a fixed pattern"));
static VERSION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"\belixir:\s*"([^"]+)""#).expect("a fixed pattern"));

fn facts(evidence: &mut Evidence<'_>, file: &str) {
    evidence.is(NAME, file);
    let text = evidence.code.get(FILE).cloned().unwrap_or_default();
    let packages: Vec<Package> = DEPENDENCY
        .captures_iter(&text)
        .filter(|hit| !hit[2].contains("only:"))
        .map(|hit| Package::new(&hit[1], FILE))
        .collect();
    ecosystem::take(evidence, NAME, &packages, KNOWN);
    evidence.manager("mix", file);
    if !evidence.has("mix.lock") {
        let text = "there is no mix.lock, so two builds of one commit may differ";
        evidence.note("no_lock_file", text, "commit it", file);
    }
    if let Some(hit) = VERSION.captures(&text) {
        evidence.version(&hit[1], file);
    }
    if evidence.has("rel/overlays/bin/migrate") {
        evidence.migrates("bin/migrate", "rel/overlays/bin/migrate");
    } else if evidence.has_folder("priv/repo/migrations") {
        let text = "there are migrations, and a release has no mix to run them";
        evidence.unrun_migrations(text, "priv/repo/migrations");
    }
}
