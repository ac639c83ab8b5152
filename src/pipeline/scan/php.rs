//! PHP apps.

use serde_json::Value;

use super::ecosystem::{self, Ecosystem, Means, Package};
use super::{Build, Evidence, Language, go};

const FILE: &str = "composer.json";
const NAME: &str = "PHP";

pub(super) const ECOSYSTEM: Ecosystem = Ecosystem {
    manifest: |evidence| evidence.has(FILE).then(|| FILE.to_owned()),
    is_main: |evidence| {
        let files = ["artisan", "public/index.php", "index.php", "bin/console"];
        files.iter().any(|file| evidence.has(file))
    },
    facts,
    build,
};

const KNOWN: &[(&str, Means)] = &[
    ("laravel/framework", Means::Web("Laravel")),
    ("symfony/framework-bundle", Means::Web("Symfony")),
    ("slim/slim", Means::Web("Slim")),
    ("codeigniter4/framework", Means::Web("CodeIgniter")),
    ("cakephp/cakephp", Means::Web("CakePHP")),
    ("predis/predis", Means::Service("redis")),
    ("ext-redis", Means::Service("redis")),
    ("laravel/horizon", Means::Service("redis")),
    ("ext-pgsql", Means::Service("postgres")),
    ("ext-pdo_pgsql", Means::Service("postgres")),
    ("ext-mysqli", Means::Service("mysql")),
    ("ext-pdo_mysql", Means::Service("mysql")),
    ("mongodb/mongodb", Means::Service("mongodb")),
    ("meilisearch/meilisearch-php", Means::Service("meilisearch")),
    ("php-amqplib/php-amqplib", Means::Service("rabbitmq")),
    ("ext-pdo_sqlite", Means::Disk("SQLite")),
    ("ext-sqlite3", Means::Disk("SQLite")),
    ("laravel/reverb", Means::Streams),
    ("cboden/ratchet", Means::Streams),
];

fn facts(evidence: &mut Evidence<'_>, file: &str) {
    evidence.is(NAME, file);
    let Some(composer) = composer(evidence) else {
        let text = "composer.json is not JSON, so nothing in it could be read";
        evidence.block("broken_manifest", text, "mend it", file);
        return;
    };
    let required = composer["require"].as_object();
    let names = required.into_iter().flat_map(|table| table.keys());
    let packages: Vec<Package> = names.map(|name| Package::new(name.as_str(), FILE)).collect();
    ecosystem::take(evidence, NAME, &packages, KNOWN);
    if evidence.has("composer.lock") {
        evidence.manager("composer", "composer.lock");
    } else {
        let text = "there is no composer.lock, so two builds of one commit may differ";
        evidence.note("no_lock_file", text, "commit it", file);
    }
    if let Some(version) = composer["require"]["php"].as_str() {
        evidence.version(version, file);
    }
    database(evidence);
    if evidence.has("artisan") && evidence.has_folder("database/migrations") {
        evidence.migrates("php artisan migrate --force", "database/migrations");
    } else if packages.iter().any(|p| p.name == "doctrine/doctrine-migrations-bundle") {
        evidence.migrates("php bin/console doctrine:migrations:migrate --no-interaction", file);
    }
}

fn build(evidence: &mut Evidence<'_>, file: &str) {
    if composer(evidence).is_none() {
        return;
    }
    let serves = ["public/index.php", "index.php", "web/index.php"];
    let Some(front) = serves.into_iter().find(|file| evidence.has(file)) else {
        if evidence.scan.processes.is_empty() {
            let text = "there is no index.php at the top or in public/, so nothing serves";
            let fix = "add a Procfile or a Dockerfile that starts the app";
            evidence.block("no_start_command", text, fix, file);
        }
        return;
    };
    evidence.builds_with(Build::Buildpacks { language: Language::Php });
    if !go::project(evidence, "BP_PHP_SERVER") {
        let folder = front.rsplit_once('/').map_or(".", |(folder, _)| folder);
        let settings = &mut evidence.scan.build_settings;
        settings.insert("BP_PHP_SERVER".to_owned(), "nginx".to_owned());
        settings.insert("BP_PHP_WEB_DIR".to_owned(), folder.to_owned());
    }
    let text = "the builder is said to build PHP, but nobody has tried it here";
    let fix = "a test build shows it; a Dockerfile is sure";
    evidence.note("builder_unproven", text, fix, file);
}

fn composer(evidence: &Evidence<'_>) -> Option<Value> {
    serde_json::from_str(evidence.text(FILE)?).ok()
}

/// Which database the example file chooses: no package of Composer's tells.
fn database(evidence: &mut Evidence<'_>) {
    for file in [".env.example", ".env.dist"] {
        let Some(text) = evidence.text(file) else { continue };
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let value = lines.filter_map(|line| line.split_once('=')).find_map(|(key, value)| {
            matches!(key.trim(), "DB_CONNECTION" | "DATABASE_URL").then(|| value.trim().to_owned())
        });
        let value = value.unwrap_or_default();
        let kind = value.trim_matches('"').split(':').next().unwrap_or("");
        match kind {
            "mysql" | "mariadb" => evidence.service("mysql", file),
            "pgsql" | "postgresql" | "postgres" => evidence.service("postgres", file),
            "sqlite" => evidence.keeps_on_disk("SQLite", file),
            _ => continue,
        }
        return;
    }
}
