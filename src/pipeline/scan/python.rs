//! Python apps.

use std::collections::BTreeSet;

use super::{Build, Evidence, Language};

const FRAMEWORKS: &[(&str, &str, &str)] = &[
    ("django", "Django", "web: gunicorn PROJECT.wsgi --bind 0.0.0.0:$PORT"),
    ("fastapi", "FastAPI", "web: uvicorn main:app --host 0.0.0.0 --port $PORT"),
    ("flask", "Flask", "web: gunicorn app:app --bind 0.0.0.0:$PORT"),
    ("starlette", "Starlette", "web: uvicorn main:app --host 0.0.0.0 --port $PORT"),
    ("streamlit", "Streamlit", "web: streamlit run app.py --server.port $PORT"),
];

const SERVICES: &[(&str, &str)] = &[
    ("psycopg", "postgres"),
    ("psycopg2", "postgres"),
    ("psycopg2-binary", "postgres"),
    ("asyncpg", "postgres"),
    ("redis", "redis"),
    ("celery", "redis"),
    ("rq", "redis"),
    ("mysqlclient", "mysql"),
    ("pymysql", "mysql"),
    ("pymongo", "mongodb"),
    ("meilisearch", "meilisearch"),
    ("qdrant-client", "qdrant"),
];

const DISK: &[(&str, &str)] = &[("aiosqlite", "SQLite"), ("chromadb", "Chroma files")];

const MANIFESTS: &[&str] = &["requirements.txt", "pyproject.toml", "Pipfile"];

/// Whether there is a Python app.
pub(super) fn is(evidence: &Evidence<'_>) -> bool {
    MANIFESTS.iter().any(|file| evidence.has(file))
}

/// Whether a package.json beside it is only for assets: Django with a bundler.
pub(super) fn comes_first(evidence: &Evidence<'_>) -> bool {
    let starts = evidence.text("package.json").is_some_and(|text| text.contains("\"start\""));
    is(evidence) && (evidence.has("manage.py") || !starts)
}

/// Takes a Python app as one that Buildpacks build.
pub(super) fn look(evidence: &mut Evidence<'_>) {
    let manifest = MANIFESTS.iter().copied().find(|file| evidence.has(file)).unwrap_or("Pipfile");
    "Python".clone_into(&mut evidence.scan.stack);
    evidence.found("stack", "Python", manifest);
    evidence.scan.build = Some(Build::Buildpacks { language: Language::Python });
    let packages = packages(evidence);
    let framework = FRAMEWORKS
        .iter()
        .find_map(|known| Some((known, packages.iter().find(|p| p.name == known.0)?)));
    let mut proposal = "web: python main.py";
    if let Some(((_, name, line), package)) = framework {
        evidence.scan.stack = format!("Python ({name})");
        evidence.found("framework", *name, package.file);
        proposal = line;
    }
    manager(evidence);
    if !evidence.scan.processes.iter().any(|process| process.name == "web") {
        let text = format!(
            "nothing says how the app starts; add a Procfile with a line such as `{proposal}`"
        );
        evidence.check("no_start_command", true, text, Some(manifest));
    }
    let text = "Buildpacks build Python for amd64 only; choose an amd64 size, or add a Dockerfile";
    evidence.check("amd64_only", false, text, Some(manifest));
    needs(evidence);
}

/// What the dependencies say of services and of state on disk.
pub(super) fn needs(evidence: &mut Evidence<'_>) {
    for package in packages(evidence) {
        if let Some((_, service)) = SERVICES.iter().find(|(name, _)| *name == package.name) {
            evidence.service(service, package.file);
        }
        if let Some((_, what)) = DISK.iter().find(|(name, _)| *name == package.name) {
            evidence.keeps_on_disk(what, package.file);
        }
    }
}

fn manager(evidence: &mut Evidence<'_>) {
    const LOCKS: &[(&str, &str)] = &[
        ("uv.lock", "uv"),
        ("poetry.lock", "poetry"),
        ("Pipfile.lock", "pipenv"),
        ("requirements.txt", "pip"),
    ];
    let found = LOCKS.iter().find(|(file, _)| evidence.has(file));
    if let Some((file, manager)) = found {
        evidence.scan.package_manager = Some((*manager).to_owned());
        evidence.found("package_manager", *manager, file);
    } else {
        let text =
            "there is no lock file and no requirements.txt, so two builds of one commit may differ";
        evidence.check("no_lock_file", false, text, None);
    }
}

struct Package {
    /// In lower case, `_` as `-`.
    name: String,
    file: &'static str,
}

fn packages(evidence: &Evidence<'_>) -> Vec<Package> {
    let mut names: BTreeSet<(String, &'static str)> = BTreeSet::new();
    let text = |file| evidence.text(file).unwrap_or_default();
    for line in text("requirements.txt").lines() {
        names.extend(requirement(line).map(|name| (name, "requirements.txt")));
    }
    if let Ok(project) = text("pyproject.toml").parse::<toml::Table>() {
        let listed = project.get("project").and_then(|p| p.get("dependencies")?.as_array());
        let listed = listed.into_iter().flatten().filter_map(|line| requirement(line.as_str()?));
        let poetry =
            project.get("tool").and_then(|t| t.get("poetry")?.get("dependencies")?.as_table());
        let poetry =
            poetry.into_iter().flat_map(|table| table.keys()).filter_map(|k| requirement(k));
        names.extend(listed.chain(poetry).map(|name| (name, "pyproject.toml")));
    }
    if let Ok(pipfile) = text("Pipfile").parse::<toml::Table>() {
        let table = pipfile.get("packages").and_then(|packages| packages.as_table());
        let keys = table.into_iter().flat_map(|table| table.keys());
        names.extend(keys.filter_map(|key| requirement(key)).map(|name| (name, "Pipfile")));
    }
    names.into_iter().map(|(name, file)| Package { name, file }).collect()
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
