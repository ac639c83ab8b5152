//! Go programs.

use super::ecosystem::{self, Ecosystem, Means, Package};
use super::{Build, Evidence, Language, files};

const FILE: &str = "go.mod";
const NAME: &str = "Go";

pub(super) const ECOSYSTEM: Ecosystem = Ecosystem {
    manifest: |evidence| evidence.has(FILE).then(|| FILE.to_owned()),
    is_main: |evidence| evidence.has("main.go") || evidence.has_folder("cmd"),
    facts,
    build,
};

/// Without the major version at the end of a path.
const KNOWN: &[(&str, Means)] = &[
    ("github.com/gin-gonic/gin", Means::Web("Gin")),
    ("github.com/labstack/echo", Means::Web("Echo")),
    ("github.com/gofiber/fiber", Means::Web("Fiber")),
    ("github.com/go-chi/chi", Means::Web("chi")),
    ("github.com/gorilla/mux", Means::Web("gorilla/mux")),
    ("github.com/bwmarrin/discordgo", Means::Work("discordgo")),
    ("github.com/hibiken/asynq", Means::Work("asynq")),
    ("github.com/jackc/pgx", Means::Service("postgres")),
    ("github.com/lib/pq", Means::Service("postgres")),
    ("gorm.io/driver/postgres", Means::Service("postgres")),
    ("github.com/go-sql-driver/mysql", Means::Service("mysql")),
    ("gorm.io/driver/mysql", Means::Service("mysql")),
    ("github.com/redis/go-redis", Means::Service("redis")),
    ("github.com/hibiken/asynq", Means::Service("redis")),
    ("go.mongodb.org/mongo-driver", Means::Service("mongodb")),
    ("github.com/meilisearch/meilisearch-go", Means::Service("meilisearch")),
    ("github.com/qdrant/go-client", Means::Service("qdrant")),
    ("github.com/rabbitmq/amqp091-go", Means::Service("rabbitmq")),
    ("github.com/segmentio/kafka-go", Means::Service("kafka")),
    ("github.com/mattn/go-sqlite3", Means::Disk("SQLite")),
    ("modernc.org/sqlite", Means::Disk("SQLite")),
    ("gorm.io/driver/sqlite", Means::Disk("SQLite")),
    ("go.etcd.io/bbolt", Means::Disk("bbolt")),
    ("github.com/dgraph-io/badger", Means::Disk("Badger")),
    ("github.com/gorilla/websocket", Means::Streams),
    ("github.com/coder/websocket", Means::Streams),
    ("nhooyr.io/websocket", Means::Streams),
];

fn facts(evidence: &mut Evidence<'_>, file: &str) {
    evidence.is(NAME, file);
    let text = evidence.text(FILE).unwrap_or_default().to_owned();
    let modules = modules(&text);
    ecosystem::take(evidence, NAME, &modules, KNOWN);
    if let Some(file) = evidence.code_with(&["text/event-stream", "application/x-ndjson"]) {
        evidence.streams("the code's own streams", file);
    }
    evidence.manager("go", file);
    if !evidence.has("go.sum") && !modules.is_empty() {
        let text = "there is no go.sum, without which the modules cannot be checked";
        evidence.note("no_lock_file", text, "commit it", file);
    }
    if let Some(version) = text.lines().find_map(|line| line.trim().strip_prefix("go ")) {
        evidence.version(version, file);
    }
    let migrations = ["migrations", "db/migrations", "internal/migrations", "sql/migrations"];
    if let Some(folder) = migrations.into_iter().find(|folder| evidence.has_folder(folder)) {
        let text = format!(
            "there are migrations in {folder}, and nothing in the image runs them but the app itself"
        );
        evidence.unrun_migrations(text, folder);
    }
}

fn build(evidence: &mut Evidence<'_>, file: &str) {
    evidence.builds_with(Build::Buildpacks { language: Language::Go });
    let at_top = evidence.paths.iter().any(|path| *path == "main.go");
    let mut commands: Vec<&str> = evidence
        .paths
        .iter()
        .filter_map(|path| path.strip_suffix("/main.go"))
        .filter(|folder| folder.starts_with("cmd/") && !files::is_aside(folder))
        .collect();
    if at_top || project(evidence, "BP_GO_TARGETS") {
        return;
    }
    // The server is what is to be `web`; the first target is the image's default process.
    commands.sort_by_key(|folder| {
        let name = folder.rsplit('/').next().unwrap_or(folder);
        !matches!(name, "server" | "web" | "api" | "app" | "http")
    });
    if commands.is_empty() {
        let text = "there is no main.go at the top or in a folder of cmd/, so there is no program to build";
        let fix = "name the folder of its program as `root`, or add a Dockerfile";
        evidence.block("no_start_command", text, fix, file);
        return;
    }
    let targets: Vec<String> =
        commands.iter().take(5).map(|folder| format!("./{folder}")).collect();
    evidence.scan.build_settings.insert("BP_GO_TARGETS".to_owned(), targets.join(":"));
    if commands.len() > 1 && !evidence.has_web() {
        let text = format!(
            "several programs are built, and `{}` is taken as the one that serves",
            commands[0]
        );
        evidence.note(
            "several_programs",
            text,
            "name the others in a Procfile to run them too",
            file,
        );
    }
}

/// Whether the repo says a setting of the build itself.
pub(super) fn project(evidence: &Evidence<'_>, setting: &str) -> bool {
    evidence.text("project.toml").is_some_and(|text| text.contains(setting))
}

/// The modules that it names itself.
fn modules(text: &str) -> Vec<Package> {
    let mut inside = false;
    let mut modules = Vec::new();
    for line in text.lines().map(str::trim) {
        let one = match line {
            "require (" => {
                inside = true;
                continue;
            }
            ")" => {
                inside = false;
                continue;
            }
            _ if inside => line,
            _ => match line.strip_prefix("require ") {
                Some(one) => one,
                None => continue,
            },
        };
        if one.contains("// indirect") || one.starts_with("//") {
            continue;
        }
        let Some(name) = one.split_whitespace().next() else { continue };
        let major = name
            .rsplit_once('/')
            .filter(|(_, last)| last.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok()));
        modules.push(Package::new(major.map_or(name, |(path, _)| path), FILE));
    }
    modules
}
