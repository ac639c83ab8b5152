//! What the app keeps on its own disk, and services that other files name.

use super::{Evidence, files};

/// Looks at Prisma's schema, Django's settings, Compose files and the tree.
pub(super) fn look(evidence: &mut Evidence<'_>) {
    prisma(evidence);
    compose(evidence);
    let sqlite = evidence
        .texts
        .iter()
        .filter(|(path, _)| files::is_code(path))
        .find(|(_, text)| {
            text.contains("django.db.backends.sqlite3")
                || text.contains("sqlite:///")
                || text.contains("import sqlite3")
                || text.contains("node:sqlite")
        })
        .map(|(path, _)| (*path).to_owned());
    if let Some(file) = sqlite {
        evidence.keeps_on_disk("SQLite", &file);
    }
    let ends = [".sqlite3", ".sqlite", ".db"];
    let file =
        evidence.paths.iter().copied().find(|path| ends.iter().any(|end| path.ends_with(end)));
    if let Some(file) = file {
        evidence.keeps_on_disk("a committed database file", file);
    }
    if evidence.scan.build.is_some() && !evidence.scan.state_on_disk.is_empty() {
        let text = format!(
            "the app keeps data on its own disk ({}), and every deploy starts with an empty one: move it to a database, or confirm that it may be lost",
            evidence.scan.state_on_disk.join(", ")
        );
        evidence.check("state_on_disk", true, text, None);
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
    } else if text.contains("provider=\"sqlite\"") {
        evidence.keeps_on_disk("SQLite", FILE);
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
        let images: Vec<String> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("image:"))
            .map(|image| {
                let image = image.trim().trim_matches(['"', '\'']);
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
