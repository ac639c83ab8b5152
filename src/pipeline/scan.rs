//! What an app is, from its file tree and a few named files. Nothing is cloned.
//!
//! Every conclusion says from which file it comes. What stands in the way of a first deploy is a
//! blocking row of the checklist.

mod dockerfile;
mod env_keys;
mod files;
mod node;
mod procfile;
mod python;
mod state;

pub use files::wanted_files;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::names::EnvKey;

/// The port that an app is told to listen on where nothing says otherwise.
const DEFAULT_PORT: u16 = 8080;

/// One file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path from the top of the repo.
    pub path: String,
    /// Its length in bytes, where known.
    pub size: Option<u64>,
}

/// How the image is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Build {
    /// Cloud Native Buildpacks, which need no file of their own.
    Buildpacks {
        /// The language family.
        language: Language,
    },
    /// The repo's own Dockerfile.
    Dockerfile {
        /// Its path from the top of the repo.
        path: String,
    },
}

/// A language that Buildpacks build here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// Node.js.
    Node,
    /// Python.
    Python,
}

impl Language {
    /// The name that people know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "Node.js",
            Self::Python => "Python",
        }
    }

    /// Whether its builder makes arm64 images.
    pub fn builds_arm64(self) -> bool {
        match self {
            Self::Node => true,
            Self::Python => false,
        }
    }
}

/// Something of the app that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `web`, `worker`, ...
    pub name: String,
    /// The line that starts it, as the repo has it.
    pub command: String,
}

/// The names of env variables that the app reads, by when it reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvKeys {
    /// While it runs.
    pub runtime: Vec<EnvKey>,
    /// While its image is built; they end up in what browsers load.
    pub build: Vec<EnvKey>,
}

/// One row of the checklist before a first deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The stable code.
    pub code: String,
    /// Whether a deploy is refused while it is open.
    pub blocking: bool,
    /// What it is and what to do.
    pub text: String,
    /// Where it was seen.
    pub from_file: Option<String>,
}

/// A conclusion and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about: `stack`, `port`, `service`, ...
    pub what: String,
    /// What was concluded.
    pub value: String,
    /// From which file; nothing for a default.
    pub from_file: Option<String>,
}

/// All that a scan found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// In words: `Node.js (Next.js)`, `Dockerfile`, `Ruby`.
    pub stack: String,
    /// How the image is built; nothing where VMKit cannot build it, and then a blocking row says so.
    pub build: Option<Build>,
    /// What runs, as far as the repo says; a missing `web` is the image's own default.
    pub processes: Vec<Process>,
    /// The port that the app listens on.
    pub port: u16,
    /// The path that answers 2xx when the app is ready.
    pub health_path: String,
    /// The env variables that it reads.
    pub env_keys: EnvKeys,
    /// `postgres`, `redis`, ...
    pub services: Vec<String>,
    /// What it keeps on its own disk, which a new container would not have.
    pub state_on_disk: Vec<String>,
    /// `npm`, `pnpm`, `yarn`, `bun`, `pip`, `poetry`, `uv`, `pipenv`.
    pub package_manager: Option<String>,
    /// What is in the way, and what is good to know.
    pub checklist: Vec<Check>,
    /// Every conclusion with its file.
    pub findings: Vec<Finding>,
}

impl Scan {
    /// The rows that stand in the way of a first deploy.
    pub fn blocking(&self) -> impl Iterator<Item = &Check> {
        self.checklist.iter().filter(|check| check.blocking)
    }
}

/// What the parts of the scan look at, and what they have found so far.
struct Evidence<'a> {
    root: &'a str,
    /// Paths below the root.
    paths: BTreeSet<&'a str>,
    /// Texts of the fetched files below the root, by path below it.
    texts: BTreeMap<&'a str, String>,
    scan: Scan,
}

impl Evidence<'_> {
    fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// The path from the top of the repo.
    fn full(&self, path: &str) -> String {
        if self.root == "." { path.to_owned() } else { format!("{}/{path}", self.root) }
    }

    fn found(&mut self, what: &str, value: impl Into<String>, file: &str) {
        let finding = Finding {
            what: what.to_owned(),
            value: value.into(),
            from_file: Some(self.full(file)),
        };
        if !self.scan.findings.contains(&finding) {
            self.scan.findings.push(finding);
        }
    }

    fn check(&mut self, code: &str, blocking: bool, text: impl Into<String>, file: Option<&str>) {
        if self.scan.checklist.iter().any(|check| check.code == code) {
            return;
        }
        self.scan.checklist.push(Check {
            code: code.to_owned(),
            blocking,
            text: text.into(),
            from_file: file.map(|file| self.full(file)),
        });
    }

    fn service(&mut self, name: &str, file: &str) {
        self.found("service", name, file);
        if !self.scan.services.iter().any(|service| service == name) {
            self.scan.services.push(name.to_owned());
        }
    }

    fn keeps_on_disk(&mut self, what: &str, file: &str) {
        self.found("state_on_disk", what, file);
        if !self.scan.state_on_disk.iter().any(|state| state == what) {
            self.scan.state_on_disk.push(what.to_owned());
        }
    }
}

/// Looks at the app in the folder `root` (`.` for the top): `tree` is the repo's whole tree,
/// `files` the content of what [`wanted_files`] asked for, as far as it could be read.
pub fn scan(tree: &[Entry], files: &BTreeMap<String, Vec<u8>>, root: &str) -> Scan {
    let below = |path| files::below(root, path);
    let mut evidence = Evidence {
        root,
        paths: tree.iter().filter_map(|entry| below(&entry.path)).collect(),
        texts: files
            .iter()
            .filter_map(|(path, bytes)| {
                Some((below(path)?, String::from_utf8_lossy(bytes).into_owned()))
            })
            .collect(),
        scan: Scan {
            stack: "unknown".to_owned(),
            build: None,
            processes: Vec::new(),
            port: DEFAULT_PORT,
            health_path: "/".to_owned(),
            env_keys: EnvKeys::default(),
            services: Vec::new(),
            state_on_disk: Vec::new(),
            package_manager: None,
            checklist: Vec::new(),
            findings: Vec::new(),
        },
    };
    procfile::look(&mut evidence);
    stack(&mut evidence);
    env_keys::look(&mut evidence);
    state::look(&mut evidence);
    health(&mut evidence);
    surroundings(&mut evidence);
    evidence.scan.checklist.sort_by_key(|check| !check.blocking);
    evidence.scan
}

/// A Dockerfile is the repo's own word on how it is built; only without one is a language looked for.
fn stack(evidence: &mut Evidence<'_>) {
    if evidence.has("Dockerfile") {
        dockerfile::look(evidence);
        // What it needs and reads is in the language's files all the same.
        node::needs(evidence);
        python::needs(evidence);
    } else if evidence.has("package.json") && !python::comes_first(evidence) {
        node::look(evidence);
    } else if python::is(evidence) {
        python::look(evidence);
    } else {
        unsupported(evidence);
    }
}

fn unsupported(evidence: &mut Evidence<'_>) {
    const OTHERS: &[(&str, &str)] = &[
        ("Gemfile", "Ruby"),
        ("go.mod", "Go"),
        ("Cargo.toml", "Rust"),
        ("pom.xml", "Java (Maven)"),
        ("build.gradle", "Java (Gradle)"),
        ("build.gradle.kts", "Kotlin (Gradle)"),
        ("composer.json", "PHP"),
        ("mix.exs", "Elixir"),
        ("deno.json", "Deno"),
    ];
    if evidence.paths.is_empty() {
        let text = if evidence.root == "." {
            "the repo has no files yet; commit the app first".to_owned()
        } else {
            format!("there is no folder `{}` in the repo; name the app's folder", evidence.root)
        };
        evidence.check("nothing_there", true, text, None);
        return;
    }
    for (file, stack) in OTHERS {
        if evidence.has(file) {
            (*stack).clone_into(&mut evidence.scan.stack);
            evidence.found("stack", *stack, file);
            let text = format!(
                "{stack} is not built by Buildpacks here yet; add a Dockerfile, and it will be deployed from that"
            );
            evidence.check("unsupported_stack", true, text, Some(file));
            return;
        }
    }
    if let Some(project) = evidence.paths.iter().copied().find(|path| path.ends_with(".csproj")) {
        ".NET".clone_into(&mut evidence.scan.stack);
        let text = ".NET is not built by Buildpacks here yet; add a Dockerfile";
        evidence.check("unsupported_stack", true, text, Some(project));
    } else if evidence.has("index.html") {
        "static site".clone_into(&mut evidence.scan.stack);
        let text = "a static site needs no VM: a static host is cheaper; to serve it from a VM all the same, add a Dockerfile with a web server";
        evidence.check("static_site", true, text, Some("index.html"));
    } else {
        let roots = files::app_folders(&evidence.paths);
        let text = if roots.is_empty() {
            "no Dockerfile and no package.json, requirements.txt or pyproject.toml was found; add a Dockerfile".to_owned()
        } else {
            format!("there is no app at the top of the repo; name its folder: {}", roots.join(", "))
        };
        evidence.check("no_app_found", true, text, None);
    }
}

/// The path that is asked until it answers 2xx: one that the code has, else `/`.
fn health(evidence: &mut Evidence<'_>) {
    if evidence.scan.findings.iter().any(|finding| finding.what == "health_path") {
        return;
    }
    const USUAL: &[&str] =
        &["/up", "/healthz", "/health", "/livez", "/ping", "/_health", "/api/health"];
    let quoted = |text: &str, path: &str| {
        ['"', '\'', '`'].iter().any(|q| text.contains(&format!("{q}{path}{q}")))
    };
    // A README says it in words: "`GET /up` answers 200".
    let named = |text: &str, path: &str| {
        text.match_indices(&format!("GET {path}")).any(|(at, hit)| {
            let next = text[at + hit.len()..].chars().next();
            !next.is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | '-' | '_'))
        })
    };
    let code = evidence.texts.iter().filter(|(file, _)| files::is_code(file));
    let hit = code.chain(evidence.texts.get_key_value("README.md")).find_map(|(file, text)| {
        let is_code = files::is_code(file);
        let path = USUAL
            .iter()
            .find(|path| if is_code { quoted(text, path) } else { named(text, path) })?;
        Some(((*path).to_owned(), (*file).to_owned()))
    });
    if let Some((path, file)) = hit {
        evidence.found("health_path", path.as_str(), &file);
        evidence.scan.health_path = path;
    } else if evidence.scan.build.is_some() {
        let text = "no health path was recognised, so `/` is asked, which must answer 2xx without a login; a path of its own, such as `/up`, is better";
        evidence.check("no_health_path", false, text, None);
    }
}

fn surroundings(evidence: &mut Evidence<'_>) {
    if evidence.has("config/deploy.yml") {
        let text = "the repo has a Kamal config of its own, which is left as it is; VMKit's are config/deploy.ENVIRONMENT.yml";
        evidence.check("existing_kamal", false, text, Some("config/deploy.yml"));
    }
    let leaked = [".env", ".env.production", ".env.local"];
    if let Some(file) = leaked.into_iter().find(|file| evidence.has(file)) {
        let text = format!(
            "`{file}` is committed: if it holds secrets, change them and remove it; values belong into set_env"
        );
        evidence.check("committed_env_file", false, text, Some(file));
    }
    if evidence.scan.build.is_some() && !evidence.scan.services.is_empty() {
        let text = format!(
            "it needs {}: set the address of one that runs elsewhere as an env value",
            evidence.scan.services.join(", ")
        );
        evidence.check("services_needed", false, text, None);
    }
}

#[cfg(test)]
mod tests;
