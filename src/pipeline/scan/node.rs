//! Node.js apps.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Build, Evidence, Language, Process};

const FILE: &str = "package.json";

const FRAMEWORKS: &[(&str, &str)] = &[
    ("next", "Next.js"),
    ("nuxt", "Nuxt"),
    ("@remix-run/serve", "Remix"),
    ("@remix-run/node", "Remix"),
    ("@react-router/serve", "React Router"),
    ("@sveltejs/kit", "SvelteKit"),
    ("astro", "Astro"),
    ("@nestjs/core", "NestJS"),
    ("fastify", "Fastify"),
    ("hono", "Hono"),
    ("koa", "Koa"),
    ("express", "Express"),
];

/// Packages that make files for browsers and serve nothing by themselves.
const STATIC: &[&str] =
    &["vite", "react-scripts", "gatsby", "@angular/core", "parcel", "vitepress"];

const SERVICES: &[(&str, &str)] = &[
    ("pg", "postgres"),
    ("postgres", "postgres"),
    ("pg-promise", "postgres"),
    ("@neondatabase/serverless", "postgres"),
    ("redis", "redis"),
    ("ioredis", "redis"),
    ("bull", "redis"),
    ("bullmq", "redis"),
    ("mysql", "mysql"),
    ("mysql2", "mysql"),
    ("mongodb", "mongodb"),
    ("mongoose", "mongodb"),
    ("meilisearch", "meilisearch"),
    ("@qdrant/js-client-rest", "qdrant"),
];

const DISK: &[(&str, &str)] = &[
    ("sqlite3", "SQLite"),
    ("better-sqlite3", "SQLite"),
    ("@libsql/client", "SQLite"),
    ("multer", "uploads"),
    ("formidable", "uploads"),
];

/// Takes a Node.js app as one that Buildpacks build.
pub(super) fn look(evidence: &mut Evidence<'_>) {
    "Node.js".clone_into(&mut evidence.scan.stack);
    evidence.found("stack", "Node.js", FILE);
    let Some(package) = package(evidence) else {
        let text = "package.json is not JSON, so nothing in it could be read; mend it";
        evidence.check("broken_manifest", true, text, Some(FILE));
        return;
    };
    let all = dependencies(&package, &["dependencies", "devDependencies"]);
    let run = dependencies(&package, &["dependencies"]);
    let framework = FRAMEWORKS.iter().find(|(name, _)| run.contains(*name));
    if let Some((_, name)) = framework {
        evidence.scan.stack = format!("Node.js ({name})");
        evidence.found("framework", *name, FILE);
    }
    manager(evidence, &package);
    let start = package["scripts"]["start"].as_str();
    let web = evidence.scan.processes.iter().any(|process| process.name == "web");
    let plain = ["server.js", "app.js", "main.js", "index.js"].iter().any(|f| evidence.has(f));
    if framework.is_none()
        && start.is_none()
        && !web
        && STATIC.iter().any(|name| all.contains(*name))
    {
        let text = "this builds files for browsers and starts no server: a static host is cheaper than a VM; to serve it from a VM all the same, add a Dockerfile or a `start` script";
        evidence.check("static_site", true, text, Some(FILE));
        return;
    }
    evidence.scan.build = Some(Build::Buildpacks { language: Language::Node });
    match start {
        Some(command) if !web => {
            let command = command.to_owned();
            evidence.found("process", "web", FILE);
            evidence.scan.processes.insert(0, Process { name: "web".to_owned(), command });
        }
        None if !web && !plain => {
            let text = "nothing says how the app starts; add a `start` script to package.json, such as `node server.js`";
            evidence.check("no_start_command", true, text, Some(FILE));
        }
        _ => {}
    }
    needs(evidence);
    hard_coded_port(evidence);
}

/// What the dependencies say of services and of state on disk.
pub(super) fn needs(evidence: &mut Evidence<'_>) {
    let Some(package) = package(evidence) else { return };
    let run = dependencies(&package, &["dependencies"]);
    for (name, service) in SERVICES {
        if run.contains(*name) {
            evidence.service(service, FILE);
        }
    }
    for (name, what) in DISK {
        if run.contains(*name) {
            evidence.keeps_on_disk(what, FILE);
        }
    }
}

fn package(evidence: &Evidence<'_>) -> Option<Value> {
    serde_json::from_str(evidence.text(FILE)?.trim_start_matches('\u{feff}')).ok()
}

fn dependencies(package: &Value, groups: &[&str]) -> BTreeSet<String> {
    groups
        .iter()
        .filter_map(|group| package[*group].as_object())
        .flat_map(|group| group.keys().cloned())
        .collect()
}

fn manager(evidence: &mut Evidence<'_>, package: &Value) {
    const LOCKS: &[(&str, &str)] = &[
        ("pnpm-lock.yaml", "pnpm"),
        ("yarn.lock", "yarn"),
        ("bun.lock", "bun"),
        ("bun.lockb", "bun"),
        ("package-lock.json", "npm"),
        ("npm-shrinkwrap.json", "npm"),
    ];
    let locks: Vec<_> = LOCKS.iter().filter(|(file, _)| evidence.has(file)).collect();
    let named = package["packageManager"].as_str().and_then(|text| text.split('@').next());
    // `packageManager` decides where two lock files lie about.
    let chosen = locks
        .iter()
        .find(|(_, manager)| Some(*manager) == named)
        .or_else(|| locks.first())
        .map(|(file, manager)| (*file, *manager));
    if let Some((file, manager)) = chosen {
        evidence.scan.package_manager = Some(manager.to_owned());
        evidence.found("package_manager", manager, file);
        if matches!(manager, "pnpm" | "bun") {
            let text = format!(
                "the Node.js Buildpack knows npm and yarn, not {manager}; add a Dockerfile, or commit a lock file of npm or yarn instead"
            );
            evidence.check("package_manager", true, text, Some(file));
        }
    } else {
        let text = "there is no lock file, so two builds of one commit may differ; commit the one of your package manager";
        evidence.check("no_lock_file", false, text, Some(FILE));
    }
}

/// An app that ignores `PORT` is found by its literal port.
fn hard_coded_port(evidence: &mut Evidence<'_>) {
    let literal = regex::Regex::new(r"\.listen\(\s*(\d{2,5})\b").expect("a fixed pattern");
    let hit = evidence.texts.iter().filter(|(path, _)| super::files::is_code(path)).find_map(
        |(path, text)| {
            if text.contains("env.PORT") || text.contains("env[\"PORT\"]") {
                return None;
            }
            let port: u16 = literal.captures(text)?[1].parse().ok()?;
            Some(((*path).to_owned(), port))
        },
    );
    if let Some((file, port)) = hit {
        evidence.scan.port = port;
        evidence.found("port", port.to_string(), &file);
        let text = format!(
            "the app listens on {port} whatever PORT says; reading process.env.PORT is better"
        );
        evidence.check("hard_coded_port", false, text, Some(&file));
    }
}
