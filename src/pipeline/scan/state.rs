//! What the app keeps on its own disk, and services that other files name.

use serde_json::Value;

use super::Evidence;

/// What tells that the database is chosen by a variable, so that a file is only the default.
const BY_VARIABLE: &[&str] = &["DATABASE_URL", "dj_database_url", "DB_ENGINE"];

/// Looks at Prisma's schema, settings of frameworks, Compose files and the tree.
pub(super) fn look(evidence: &mut Evidence<'_>) {
    prisma(evidence);
    sqlite(evidence);
    uploads(evidence);
    // What nothing else is known of may be what it is developed with.
    if evidence.scan.services.is_empty() && evidence.scan.stack == "Dockerfile" {
        compose(evidence);
    }
    let ends = [".sqlite3", ".sqlite", ".db"];
    if let Some(file) = ends.iter().find_map(|end| evidence.ending(end))
        && !super::files::is_aside(file)
    {
        evidence.keeps_on_disk("a committed database file", file);
    }
    if evidence.scan.build.is_some() && !evidence.scan.state_on_disk.is_empty() {
        let text = format!(
            "the app keeps data on its own disk ({}), and every deploy starts with an empty one",
            evidence.scan.state_on_disk.join(", ")
        );
        let fix = "give it a volume with `configure_app`, move it to a database or to object storage, or say with `configure_app` that it is `ephemeral`";
        evidence.block("state_on_disk", text, fix, None);
    }
}

fn prisma(evidence: &mut Evidence<'_>) {
    const FILE: &str = "prisma/schema.prisma";
    let Some(text) = evidence.text(FILE) else { return };
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if text.contains("provider=\"postgresql\"") {
        evidence.service("postgres", FILE);
    } else if text.contains("provider=\"mysql\"") {
        evidence.service("mysql", FILE);
    } else if text.contains("provider=\"mongodb\"") {
        evidence.service("mongodb", FILE);
    } else if text.contains("provider=\"sqlite\"") {
        evidence.keeps_on_disk("SQLite", FILE);
    }
    if evidence.has_folder("prisma/migrations") {
        evidence.migrates("npx prisma migrate deploy", FILE);
    }
}

fn sqlite(evidence: &mut Evidence<'_>) {
    const SIGNS: &[&str] = &[
        "django.db.backends.sqlite3",
        "sqlite:///",
        "import sqlite3",
        "node:sqlite",
        "sqlite3.connect(",
    ];
    let Some(file) = evidence.code_with(SIGNS) else { return };
    let chosen = evidence
        .code
        .get(file)
        .is_some_and(|text| BY_VARIABLE.iter().any(|word| text.contains(word)));
    let server =
        ["postgres", "mysql"].iter().any(|s| evidence.scan.services.iter().any(|k| k == s));
    if chosen && server {
        let text =
            "without its variable the database is a SQLite file, which the next deploy loses";
        evidence.note("sqlite_fallback", text, "set DATABASE_URL before the first deploy", file);
    } else {
        evidence.keeps_on_disk("SQLite", file);
    }
}

/// Files that users send, kept in a folder.
fn uploads(evidence: &mut Evidence<'_>) {
    const SIGNS: &[&str] = &[
        "MEDIA_ROOT =",
        "UPLOAD_FOLDER",
        "multer({ dest",
        "multer.diskStorage",
        "active_storage.service = :local",
    ];
    const AWAY: &[&str] =
        &["storages.backends", "S3Boto", "multerS3", "multer-s3", "memoryStorage"];
    if let Some(file) = evidence.code_with(SIGNS)
        && evidence.code_with(AWAY).is_none()
    {
        evidence.keeps_on_disk("uploads", file);
    }
}

/// Images in Compose files say what the app is developed with.
fn compose(evidence: &mut Evidence<'_>) {
    const KNOWN: &[(&str, &str)] = &[
        ("postgres", "postgres"),
        ("redis", "redis"),
        ("valkey", "redis"),
        ("mysql", "mysql"),
        ("mariadb", "mysql"),
        ("mongo", "mongodb"),
        ("meilisearch", "meilisearch"),
        ("qdrant", "qdrant"),
    ];
    for file in ["docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml"] {
        let Some(text) = evidence.text(file) else { continue };
        let Ok(compose) = serde_saphyr::from_str::<Value>(text) else { continue };
        let images: Vec<String> = compose["services"]
            .as_object()
            .into_iter()
            .flat_map(|services| services.values())
            .filter_map(|service| service["image"].as_str())
            .map(|image| {
                let name = image.rsplit('/').next().unwrap_or(image);
                name.split([':', '@']).next().unwrap_or(name).to_owned()
            })
            .collect();
        for (image, service) in KNOWN {
            if images.iter().any(|found| found == image) {
                evidence.service(service, file);
            }
        }
    }
}
