//! Node.js apps.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ecosystem::{self, Ecosystem, Means, Package};
use super::{Build, Evidence, Language};

const FILE: &str = "package.json";
const NAME: &str = "Node.js";

pub(super) const ECOSYSTEM: Ecosystem = Ecosystem {
    manifest: |evidence| evidence.has(FILE).then(|| FILE.to_owned()),
    is_main: |evidence| package(evidence).is_some_and(|p| p["scripts"]["start"].is_string()),
    facts,
    build,
};

const KNOWN: &[(&str, Means)] = &[
    ("next", Means::Web("Next.js")),
    ("nuxt", Means::Web("Nuxt")),
    ("@remix-run/serve", Means::Web("Remix")),
    ("@remix-run/node", Means::Web("Remix")),
    ("@react-router/serve", Means::Web("React Router")),
    ("@react-router/node", Means::Web("React Router")),
    ("@sveltejs/kit", Means::Web("SvelteKit")),
    ("astro", Means::Web("Astro")),
    ("@nestjs/core", Means::Web("NestJS")),
    ("@adonisjs/core", Means::Web("AdonisJS")),
    ("@strapi/strapi", Means::Web("Strapi")),
    ("fastify", Means::Web("Fastify")),
    ("hono", Means::Web("Hono")),
    ("koa", Means::Web("Koa")),
    ("@hapi/hapi", Means::Web("hapi")),
    ("express", Means::Web("Express")),
    ("discord.js", Means::Work("discord.js")),
    ("telegraf", Means::Work("Telegraf")),
    ("grammy", Means::Work("grammY")),
    ("@slack/bolt", Means::Work("Bolt")),
    ("bullmq", Means::Work("BullMQ")),
    ("bull", Means::Work("Bull")),
    ("agenda", Means::Work("Agenda")),
    ("pg", Means::Service("postgres")),
    ("postgres", Means::Service("postgres")),
    ("pg-promise", Means::Service("postgres")),
    ("@neondatabase/serverless", Means::Service("postgres")),
    ("redis", Means::Service("redis")),
    ("ioredis", Means::Service("redis")),
    ("bull", Means::Service("redis")),
    ("bullmq", Means::Service("redis")),
    ("mysql", Means::Service("mysql")),
    ("mysql2", Means::Service("mysql")),
    ("mongodb", Means::Service("mongodb")),
    ("mongoose", Means::Service("mongodb")),
    ("meilisearch", Means::Service("meilisearch")),
    ("@qdrant/js-client-rest", Means::Service("qdrant")),
    ("@elastic/elasticsearch", Means::Service("elasticsearch")),
    ("amqplib", Means::Service("rabbitmq")),
    ("kafkajs", Means::Service("kafka")),
    ("sqlite3", Means::Disk("SQLite")),
    ("better-sqlite3", Means::Disk("SQLite")),
    ("@libsql/client", Means::Disk("SQLite")),
    ("formidable", Means::Disk("uploads")),
    ("lowdb", Means::Disk("JSON files")),
    ("ws", Means::Streams),
    ("socket.io", Means::Streams),
    ("@fastify/websocket", Means::Streams),
    ("@nestjs/websockets", Means::Streams),
    ("graphql-ws", Means::Streams),
    ("ai", Means::Streams),
    ("@huggingface/transformers", Means::Infers),
    ("@xenova/transformers", Means::Infers),
    ("onnxruntime-node", Means::Infers),
    ("node-llama-cpp", Means::Infers),
    ("@tensorflow/tfjs-node", Means::Infers),
];

/// Packages that make files for browsers and serve nothing by themselves.
const STATIC: &[&str] = &[
    "vite",
    "react-scripts",
    "gatsby",
    "@angular/core",
    "parcel",
    "vitepress",
    "@docusaurus/core",
    "@11ty/eleventy",
    "hexo",
];

/// Packages of what does not run on a server.
const ELSEWHERE: &[(&str, &str)] = &[
    ("expo", "an app for phones"),
    ("react-native", "an app for phones"),
    ("electron", "an app for desktops"),
    ("@tauri-apps/api", "an app for desktops"),
];

fn facts(evidence: &mut Evidence<'_>, file: &str) {
    evidence.is(NAME, file);
    let Some(package) = package(evidence) else {
        let text = "package.json is not JSON, so nothing in it could be read";
        evidence.block("broken_manifest", text, "mend it", file);
        return;
    };
    let run = packages(&package, &["dependencies"]);
    ecosystem::take(evidence, NAME, &run, KNOWN);
    multer(evidence, &run);
    for (sign, what) in
        [("text/event-stream", "server-sent events"), ("application/x-ndjson", "NDJSON")]
    {
        if let Some(file) = evidence.code_with(&[sign]) {
            evidence.streams(what, file);
        }
    }
    lock(evidence, &package);
    for version_file in [".nvmrc", ".node-version"] {
        if let Some(text) = evidence.text(version_file).map(str::to_owned) {
            evidence.version(text.trim().trim_start_matches('v'), version_file);
        }
    }
    if let Some(engine) = package["engines"]["node"].as_str() {
        evidence.version(engine, file);
    }
    migrations(evidence, &package);
}

fn build(evidence: &mut Evidence<'_>, file: &str) {
    let Some(package) = package(evidence) else { return };
    let all = packages(&package, &["dependencies", "devDependencies"]);
    let has = |name: &str| all.iter().any(|package| package.name == name);
    let start = package["scripts"]["start"].as_str().map(str::to_owned);
    if let Some((name, what)) = ELSEWHERE.iter().find(|(name, _)| has(name))
        && evidence.framework.is_none()
    {
        let text = format!("this is {what} (`{name}`), which does not run on a server");
        let fix = "name the folder of its server as `root`, if it has one";
        evidence.block("not_a_server", text, fix, file);
        return;
    }
    if let Some(reason) = exports_files(evidence, &all) {
        evidence.static_site(&reason);
        return;
    }
    let web = evidence.has_web();
    let plain = ["server.js", "app.js", "main.js", "index.js"].iter().any(|f| evidence.has(f));
    let bundler = STATIC.iter().any(|name| has(name));
    let only_serves_files = start.as_deref().is_none_or(is_dev_server);
    if evidence.framework.is_none() && !web && bundler && only_serves_files {
        evidence.static_site(file);
        return;
    }
    evidence.builds_with(Build::Buildpacks { language: Language::Node });
    let workers = !evidence.scan.processes.is_empty() && !web;
    match start {
        Some(command) if !web && !workers => evidence.process("web", &command, file),
        None if !web && !workers && !plain => {
            let text = "nothing says how the app starts";
            let fix = "add a `start` script to package.json, such as `node server.js`";
            evidence.block("no_start_command", text, fix, file);
        }
        _ => {}
    }
    unknown_manager(evidence);
    workspace(evidence, &package);
}

fn package(evidence: &Evidence<'_>) -> Option<Value> {
    serde_json::from_str(evidence.text(FILE)?).ok()
}

fn packages(package: &Value, groups: &[&str]) -> Vec<Package> {
    let names: BTreeSet<&str> = groups
        .iter()
        .filter_map(|group| package[*group].as_object())
        .flat_map(|group| group.keys().map(String::as_str))
        .collect();
    names.into_iter().map(|name| Package::new(name, FILE)).collect()
}

fn is_dev_server(start: &str) -> bool {
    const DEV: &[&str] = &[
        "vite",
        "react-scripts start",
        "gatsby develop",
        "gatsby serve",
        "ng serve",
        "parcel",
        "vitepress",
        "docusaurus start",
        "docusaurus serve",
        "eleventy",
        "hexo",
    ];
    DEV.iter().any(|tool| start.contains(tool))
}

/// The file that says that a framework which could serve only writes files here.
fn exports_files(evidence: &Evidence<'_>, all: &[Package]) -> Option<String> {
    let config = |stem: &str| {
        evidence.texts.iter().find(|(path, _)| path.starts_with(stem) && !path.contains('/'))
    };
    match evidence.framework? {
        "Next.js" => {
            let (file, text) = config("next.config.")?;
            let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            let exports = ["output:'export'", "output:\"export\""];
            exports.iter().any(|e| text.contains(e)).then(|| (*file).to_owned())
        }
        "Astro" => {
            let adapter = all.iter().any(|package| package.name == "@astrojs/node");
            let file = config("astro.config.").map_or(FILE, |(file, _)| file);
            (!adapter).then(|| file.to_owned())
        }
        "SvelteKit" => {
            let adapter = all.iter().any(|package| package.name == "@sveltejs/adapter-static");
            adapter.then(|| FILE.to_owned())
        }
        _ => None,
    }
}

/// multer keeps uploads on disk, unless it is told to keep them elsewhere.
fn multer(evidence: &mut Evidence<'_>, run: &[Package]) {
    let has = |name: &str| run.iter().any(|package| package.name == name);
    let elsewhere = has("multer-s3") || evidence.code_with(&["memoryStorage"]).is_some();
    if has("multer") && !elsewhere {
        evidence.keeps_on_disk("uploads", FILE);
    }
}

fn lock(evidence: &mut Evidence<'_>, package: &Value) {
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
    let chosen = locks.iter().find(|(_, manager)| Some(*manager) == named).or(locks.first());
    if let Some((file, manager)) = chosen {
        evidence.manager(manager, file);
    } else if !LOCKS.iter().any(|(file, _)| evidence.outside.contains(file)) {
        let text = "there is no lock file, so two builds of one commit may differ";
        evidence.note("no_lock_file", text, "commit the one of your package manager", FILE);
    }
}

fn unknown_manager(evidence: &mut Evidence<'_>) {
    let Some(manager) = evidence.scan.package_manager.clone() else { return };
    if matches!(manager.as_str(), "pnpm" | "bun") {
        let file =
            ["pnpm-lock.yaml", "bun.lock", "bun.lockb"].into_iter().find(|f| evidence.has(f));
        let text = format!("the Node.js Buildpack knows npm and yarn, not {manager}");
        let fix = "add a Dockerfile, or commit a lock file of npm or yarn instead";
        evidence.block("package_manager", text, fix, file);
    }
}

/// A package of a workspace is built alone, without its neighbours.
fn workspace(evidence: &mut Evidence<'_>, package: &Value) {
    let neighbours = ["dependencies", "devDependencies"]
        .iter()
        .filter_map(|group| package[*group].as_object())
        .flat_map(|group| group.values())
        .filter_map(Value::as_str)
        .any(|version| version.starts_with("workspace:") || version.starts_with("file:.."));
    if neighbours {
        let text = "it depends on packages of its workspace, and Buildpacks see its folder only";
        let fix = "add a Dockerfile at the top of the repo that builds it, and leave out `root`";
        evidence.block("workspace_dependency", text, fix, FILE);
        return;
    }
    let outside = ["package-lock.json", "yarn.lock", "pnpm-lock.yaml"]
        .into_iter()
        .find(|file| evidence.outside.contains(file));
    if outside.is_some() && evidence.scan.package_manager.is_none() {
        let text = "the lock file lies at the top of the repo, and Buildpacks see its folder only";
        let fix = "commit a lock file in the app's folder";
        evidence.note("no_lock_file", text, fix, FILE);
    }
}

/// A script of the repo knows best; else the tool's own line.
fn migrations(evidence: &mut Evidence<'_>, package: &Value) {
    const SCRIPTS: &[&str] = &[
        "migrate:deploy",
        "db:migrate:deploy",
        "migrate:prod",
        "db:migrate",
        "migration:run",
        "migrate",
    ];
    let script = SCRIPTS.iter().find(|name| {
        package["scripts"][**name].as_str().is_some_and(|line| !line.contains("migrate dev"))
    });
    if let Some(script) = script {
        evidence.migrates(&format!("npm run {script}"), FILE);
    }
}
