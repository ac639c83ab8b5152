//! Python apps.

use std::collections::BTreeSet;

use super::ecosystem::{self, Ecosystem, Means, Package};
use super::{Build, Evidence, Language};

const NAME: &str = "Python";
const MANIFESTS: &[&str] = &["requirements.txt", "pyproject.toml", "Pipfile"];

pub(super) const ECOSYSTEM: Ecosystem = Ecosystem {
    manifest: |evidence| {
        let file = MANIFESTS.iter().find(|file| evidence.has(file))?;
        Some((*file).to_owned())
    },
    // A package.json beside it that starts something is the app.
    is_main: |evidence| {
        let starts = evidence.text("package.json").is_some_and(|text| text.contains("\"start\""));
        evidence.has("manage.py") || !starts
    },
    facts,
    build,
};

const KNOWN: &[(&str, Means)] = &[
    ("django", Means::Web("Django")),
    ("fastapi", Means::Web("FastAPI")),
    ("flask", Means::Web("Flask")),
    ("starlette", Means::Web("Starlette")),
    ("litestar", Means::Web("Litestar")),
    ("sanic", Means::Web("Sanic")),
    ("aiohttp", Means::Web("aiohttp")),
    ("streamlit", Means::Web("Streamlit")),
    ("gradio", Means::Web("Gradio")),
    ("vllm", Means::Web("vLLM")),
    ("celery", Means::Work("Celery")),
    ("rq", Means::Work("RQ")),
    ("dramatiq", Means::Work("Dramatiq")),
    ("arq", Means::Work("arq")),
    ("aiogram", Means::Work("aiogram")),
    ("python-telegram-bot", Means::Work("python-telegram-bot")),
    ("discord-py", Means::Work("discord.py")),
    ("psycopg", Means::Service("postgres")),
    ("psycopg2", Means::Service("postgres")),
    ("psycopg2-binary", Means::Service("postgres")),
    ("asyncpg", Means::Service("postgres")),
    ("redis", Means::Service("redis")),
    ("celery", Means::Service("redis")),
    ("django-redis", Means::Service("redis")),
    ("rq", Means::Service("redis")),
    ("arq", Means::Service("redis")),
    ("mysqlclient", Means::Service("mysql")),
    ("pymysql", Means::Service("mysql")),
    ("pymongo", Means::Service("mongodb")),
    ("motor", Means::Service("mongodb")),
    ("meilisearch", Means::Service("meilisearch")),
    ("qdrant-client", Means::Service("qdrant")),
    ("elasticsearch", Means::Service("elasticsearch")),
    ("pika", Means::Service("rabbitmq")),
    ("aiosqlite", Means::Disk("SQLite")),
    ("chromadb", Means::Disk("Chroma files")),
    ("sse-starlette", Means::Streams),
    ("channels", Means::Streams),
    ("flask-socketio", Means::Streams),
    ("python-socketio", Means::Streams),
    ("websockets", Means::Streams),
    ("torch", Means::Infers),
    ("transformers", Means::Infers),
    ("vllm", Means::Infers),
    ("tensorflow", Means::Infers),
    ("onnxruntime", Means::Infers),
    ("llama-cpp-python", Means::Infers),
    ("sentence-transformers", Means::Infers),
    ("diffusers", Means::Infers),
    ("faster-whisper", Means::Infers),
];

fn facts(evidence: &mut Evidence<'_>, file: &str) {
    evidence.is(NAME, file);
    let packages = packages(evidence);
    ecosystem::take(evidence, NAME, &packages, KNOWN);
    let streams = ["StreamingResponse(", "text/event-stream", "application/x-ndjson", "WebSocket"];
    if let Some(file) = evidence.code_with(&streams) {
        evidence.streams("the code's own streams", file);
    }
    const LOCKS: &[(&str, &str)] = &[
        ("uv.lock", "uv"),
        ("poetry.lock", "poetry"),
        ("pdm.lock", "pdm"),
        ("Pipfile.lock", "pipenv"),
        ("requirements.txt", "pip"),
    ];
    if let Some((lock, manager)) = LOCKS.iter().find(|(file, _)| evidence.has(file)) {
        evidence.manager(manager, lock);
    } else {
        let text =
            "there is no lock file and no requirements.txt, so two builds of one commit may differ";
        evidence.note("no_lock_file", text, "commit the one of your package manager", file);
    }
    versions(evidence);
    migrations(evidence, &packages);
}

fn build(evidence: &mut Evidence<'_>, file: &str) {
    evidence.builds_with(Build::Buildpacks { language: Language::Python });
    if evidence.scan.processes.is_empty() {
        let proposal = match evidence.framework {
            Some("Django") => "web: gunicorn PROJECT.wsgi --bind 0.0.0.0:$PORT",
            Some("FastAPI" | "Starlette") => "web: uvicorn main:app --host 0.0.0.0 --port $PORT",
            Some("Flask") => "web: gunicorn app:app --bind 0.0.0.0:$PORT",
            Some("Streamlit") => "web: streamlit run app.py --server.port $PORT",
            _ => "web: python main.py",
        };
        let text = "nothing says how the app starts";
        let fix = format!("add a Procfile with a line such as `{proposal}`");
        evidence.block("no_start_command", text, fix, file);
    }
    if let Some(manager @ ("uv" | "pdm")) = evidence.scan.package_manager.as_deref() {
        let text = format!("only newer Python Buildpacks are said to know {manager}");
        let fix = "a test build shows it; a requirements.txt or a Dockerfile is sure";
        evidence.note("package_manager_unproven", text, fix, file);
    }
}

fn versions(evidence: &mut Evidence<'_>) {
    for file in [".python-version", "runtime.txt"] {
        if let Some(text) = evidence.text(file).map(str::to_owned) {
            evidence.version(text.trim().trim_start_matches("python-"), file);
        }
    }
    let wanted = table(evidence, "pyproject.toml").and_then(|project| {
        let poetry = || project.get("tool")?.get("poetry")?.get("dependencies")?.get("python");
        let python = project.get("project").and_then(|p| p.get("requires-python")).or_else(poetry);
        Some(python?.as_str()?.to_owned())
    });
    if let Some(wanted) = wanted {
        evidence.version(&wanted, "pyproject.toml");
    }
    let wanted = table(evidence, "Pipfile").and_then(|pipfile| {
        Some(pipfile.get("requires")?.get("python_version")?.as_str()?.to_owned())
    });
    if let Some(wanted) = wanted {
        evidence.version(&wanted, "Pipfile");
    }
}

fn migrations(evidence: &mut Evidence<'_>, packages: &[Package]) {
    let has = |name: &str| packages.iter().any(|package| package.name == name);
    if has("django") && evidence.has("manage.py") {
        evidence.migrates("python manage.py migrate", "manage.py");
    } else if has("flask-migrate") {
        evidence.migrates("flask db upgrade", "migrations");
    } else if evidence.has("alembic.ini") {
        evidence.migrates("alembic upgrade head", "alembic.ini");
    }
}

fn table(evidence: &Evidence<'_>, file: &str) -> Option<toml::Table> {
    evidence.text(file)?.parse().ok()
}

fn packages(evidence: &Evidence<'_>) -> Vec<Package> {
    let mut names: BTreeSet<(String, &'static str)> = BTreeSet::new();
    for line in evidence.text("requirements.txt").unwrap_or_default().lines() {
        names.extend(requirement(line).map(|name| (name, "requirements.txt")));
    }
    if let Some(project) = table(evidence, "pyproject.toml") {
        let listed = project.get("project").and_then(|p| p.get("dependencies")?.as_array());
        let listed = listed.into_iter().flatten().filter_map(|line| requirement(line.as_str()?));
        let poetry =
            project.get("tool").and_then(|t| t.get("poetry")?.get("dependencies")?.as_table());
        let poetry =
            poetry.into_iter().flat_map(|table| table.keys()).filter_map(|k| requirement(k));
        names.extend(listed.chain(poetry).map(|name| (name, "pyproject.toml")));
    }
    if let Some(pipfile) = table(evidence, "Pipfile") {
        let table = pipfile.get("packages").and_then(|packages| packages.as_table());
        let keys = table.into_iter().flat_map(|table| table.keys());
        names.extend(keys.filter_map(|key| requirement(key)).map(|name| (name, "Pipfile")));
    }
    names.into_iter().map(|(name, file)| Package::new(name, file)).collect()
}

/// The package's name of a line such as `Django>=5,<6  # web`.
fn requirement(line: &str) -> Option<String> {
    let line = line.trim();
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .unwrap_or(line.len());
    let name = line[..end].to_ascii_lowercase().replace(['_', '.'], "-");
    (!name.is_empty() && !name.starts_with('-')).then_some(name)
}
