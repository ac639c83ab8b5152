//! Ruby apps.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::ecosystem::{self, Ecosystem, Means, Package};
use super::{Build, Evidence, Language};

const FILE: &str = "Gemfile";
const NAME: &str = "Ruby";

pub(super) const ECOSYSTEM: Ecosystem = Ecosystem {
    manifest: |evidence| evidence.has(FILE).then(|| FILE.to_owned()),
    // A Gemfile alone may only bring tools, such as those of phone apps.
    is_main: |evidence| evidence.has("config.ru") || !evidence.has("package.json"),
    facts,
    build,
};

const KNOWN: &[(&str, Means)] = &[
    ("rails", Means::Web("Rails")),
    ("hanami", Means::Web("Hanami")),
    ("sinatra", Means::Web("Sinatra")),
    ("roda", Means::Web("Roda")),
    ("grape", Means::Web("Grape")),
    ("jekyll", Means::Web("Jekyll")),
    ("sidekiq", Means::Work("Sidekiq")),
    ("discordrb", Means::Work("discordrb")),
    ("pg", Means::Service("postgres")),
    ("mysql2", Means::Service("mysql")),
    ("trilogy", Means::Service("mysql")),
    ("redis", Means::Service("redis")),
    ("sidekiq", Means::Service("redis")),
    ("resque", Means::Service("redis")),
    ("mongoid", Means::Service("mongodb")),
    ("meilisearch-rails", Means::Service("meilisearch")),
    ("elasticsearch", Means::Service("elasticsearch")),
    ("bunny", Means::Service("rabbitmq")),
    ("sqlite3", Means::Disk("SQLite")),
    ("anycable-rails", Means::Streams),
    ("faye-websocket", Means::Streams),
    ("informers", Means::Infers),
    ("onnxruntime", Means::Infers),
];

/// Gems that a Ruby Buildpack starts by itself.
const SERVERS: &[&str] = &["puma", "unicorn", "thin", "passenger", "rackup", "rails"];

static GEM: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^\s*gem\s*\(?\s*["']([\w.-]+)["']"#).expect("a fixed pattern"));
static RUBY: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"(?m)^\s*ruby\s+["']([^"']+)["']"#).expect("a fixed pattern"));

fn facts(evidence: &mut Evidence<'_>, file: &str) {
    evidence.is(NAME, file);
    let text = evidence.text(FILE).unwrap_or_default().to_owned();
    let gems = gems(&text);
    ecosystem::take(evidence, NAME, &gems, KNOWN);
    if evidence.has("Gemfile.lock") {
        evidence.manager("bundler", "Gemfile.lock");
    } else {
        let text = "there is no Gemfile.lock, so two builds of one commit may differ";
        evidence.note("no_lock_file", text, "commit it", file);
    }
    if let Some(text) = evidence.text(".ruby-version").map(str::to_owned) {
        evidence.version(text.trim().trim_start_matches("ruby-"), ".ruby-version");
    }
    if let Some(hit) = RUBY.captures(&text) {
        evidence.version(&hit[1], file);
    }
    if evidence.framework == Some("Rails") {
        rails(evidence);
    }
}

fn build(evidence: &mut Evidence<'_>, file: &str) {
    if evidence.framework == Some("Jekyll") {
        evidence.static_site(file);
        return;
    }
    evidence.builds_with(Build::Buildpacks { language: Language::Ruby });
    let gems = gems(evidence.text(FILE).unwrap_or_default());
    let serves = gems.iter().any(|gem| SERVERS.contains(&gem.name.as_str()));
    if evidence.scan.processes.is_empty() && !serves {
        let text = "nothing says how the app starts";
        let fix = "add a Procfile with a line such as `web: bundle exec puma -p $PORT`, or the gem `puma` and a config.ru";
        evidence.block("no_start_command", text, fix, file);
    }
}

/// The gems that are there when it runs: those of development and test are not.
fn gems(text: &str) -> Vec<Package> {
    let mut gems = Vec::new();
    let mut depth_of_aside = None;
    let mut depth = 0usize;
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let words = line.trim();
        let aside = words.contains(":development") || words.contains(":test");
        if words.ends_with(" do") {
            depth += 1;
            if aside && depth_of_aside.is_none() {
                depth_of_aside = Some(depth);
            }
        } else if words == "end" {
            if depth_of_aside == Some(depth) {
                depth_of_aside = None;
            }
            depth = depth.saturating_sub(1);
        } else if depth_of_aside.is_none()
            && !aside
            && let Some(hit) = GEM.captures(line)
        {
            gems.push(Package::new(&hit[1], FILE));
        }
    }
    gems
}

/// What Rails needs and keeps.
fn rails(evidence: &mut Evidence<'_>) {
    let credentials = ["config/credentials.yml.enc", "config/credentials/production.yml.enc"];
    let key = if let Some(file) = credentials.into_iter().find(|file| evidence.has(file)) {
        evidence.found("env", "RAILS_MASTER_KEY", file);
        "RAILS_MASTER_KEY"
    } else {
        "SECRET_KEY_BASE"
    };
    let listed =
        evidence.text(".env.example").is_some_and(|text| text.contains("RAILS_MASTER_KEY"));
    if !(key == "SECRET_KEY_BASE" && listed)
        && let Ok(key) = key.parse()
    {
        evidence.scan.env_keys.runtime.push(key);
    }
    if evidence.has_folder("db/migrate") && evidence.scan.migrations.is_none() {
        evidence.migrates("bin/rails db:migrate", "db/migrate");
    }
    not_in_production(evidence);
}

/// The gem for SQLite may be there for development only; config/database.yml knows.
fn not_in_production(evidence: &mut Evidence<'_>) {
    const FILE: &str = "config/database.yml";
    let Some(text) = evidence.text(FILE) else { return };
    let Ok(config) = serde_saphyr::from_str::<Value>(text) else { return };
    let production = &config["production"];
    let adapter = production["adapter"].as_str().or(production["primary"]["adapter"].as_str());
    if adapter.is_some_and(|adapter| !adapter.starts_with("sqlite")) {
        evidence.scan.state_on_disk.retain(|state| state != "SQLite");
        evidence.scan.findings.retain(|f| !(f.what == "state_on_disk" && f.value == "SQLite"));
    }
}
