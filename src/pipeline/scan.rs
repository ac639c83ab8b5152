//! What an app is, from its file tree and a few named files. Nothing is cloned.
//!
//! Every conclusion says from which file it comes. What stands in the way of a first deploy is a
//! blocking row of the checklist.

mod dockerfile;
mod dotnet;
mod ecosystem;
mod elixir;
mod env_keys;
mod evidence;
mod files;
mod go;
mod health;
mod java;
mod monorepo;
mod node;
mod php;
mod port;
mod procfile;
mod python;
mod ruby;
mod rust;
mod state;
mod xml;

pub use files::wanted_files;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::names::EnvKey;
use evidence::Evidence;

/// The port that an app is told to listen on where nothing says otherwise.
const DEFAULT_PORT: u16 = 8080;
/// What the stack is called before anything was found.
const UNKNOWN: &str = "unknown";

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
    /// Ruby.
    Ruby,
    /// Go.
    Go,
    /// Java, Kotlin and others of the JVM.
    Java,
    /// PHP.
    Php,
    /// C# and others of .NET.
    #[serde(rename = "dotnet")]
    DotNet,
}

impl Language {
    /// The name that people know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "Node.js",
            Self::Python => "Python",
            Self::Ruby => "Ruby",
            Self::Go => "Go",
            Self::Java => "Java",
            Self::Php => "PHP",
            Self::DotNet => ".NET",
        }
    }

    /// Whether its builder makes arm64 images.
    pub fn builds_arm64(self) -> bool {
        match self {
            Self::Node | Self::Java | Self::Php | Self::DotNet => true,
            Self::Python | Self::Ruby | Self::Go => false,
        }
    }
}

/// What is special about an app, for the files that are made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// It answers piece by piece: server-sent events, NDJSON, websockets.
    Streaming,
    /// It runs a model, so answers are slow and memory is dear.
    Inference,
    /// Nothing of it listens.
    WorkerOnly,
    /// It makes files for browsers and serves nothing.
    StaticSite,
    /// The repo has a Kamal config of its own.
    ExistingKamal,
    /// Several apps lie in the repo.
    Monorepo,
}

impl Flag {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Inference => "inference",
            Self::WorkerOnly => "worker_only",
            Self::StaticSite => "static_site",
            Self::ExistingKamal => "existing_kamal",
            Self::Monorepo => "monorepo",
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
    /// What it is.
    pub text: String,
    /// What to do; scans of earlier versions say it in the text.
    #[serde(default)]
    pub fix: String,
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
    /// `npm`, `pip`, `bundler`, `maven`, ...
    pub package_manager: Option<String>,
    /// The version of the language that it asks for, as the repo has it: `3.3.5`, `>=20`.
    #[serde(default)]
    pub version: Option<String>,
    /// The command that brings the database up to date, where it can run in the app's image.
    #[serde(default)]
    pub migrations: Option<String>,
    /// Variables that Buildpacks need to find the right thing to build.
    #[serde(default)]
    pub build_settings: BTreeMap<String, String>,
    /// What is special about it.
    #[serde(default)]
    pub flags: Vec<Flag>,
    /// The folders of the apps in a monorepo.
    #[serde(default)]
    pub roots: Vec<String>,
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

    /// The Procfile's `release` command: its author wants it run before each new version.
    pub fn release(&self) -> Option<&str> {
        let procfile = |file: &String| file.rsplit('/').next() == Some(procfile::FILE);
        let finding = self.findings.iter().find(|finding| {
            finding.what == "migrations" && finding.from_file.as_ref().is_some_and(procfile)
        });
        finding.map(|finding| finding.value.as_str())
    }

    /// Says that the tree had more files than were sent.
    pub fn tree_was_cut(&mut self, entries: usize) {
        self.checklist.push(Check {
            code: "tree_truncated".to_owned(),
            blocking: false,
            text: format!("the repo is so large that only {entries} of its files were looked at"),
            fix: "name the app's folder with `root`, and check what was found".to_owned(),
            from_file: None,
        });
    }
}

impl Check {
    /// What it is and what to do, in one line.
    pub fn told(&self) -> String {
        if self.fix.is_empty() { self.text.clone() } else { format!("{}: {}", self.text, self.fix) }
    }
}

/// Looks at the app in the folder `root` (`.` for the top): `tree` is the repo's whole tree,
/// `files` the content of what [`wanted_files`] asked for, as far as it could be read.
pub fn scan(tree: &[Entry], files: &BTreeMap<String, Vec<u8>>, root: &str) -> Scan {
    let mut evidence = Evidence::new(tree, files, root);
    procfile::look(&mut evidence);
    stack(&mut evidence);
    procfile::workers(&mut evidence);
    env_keys::look(&mut evidence);
    state::look(&mut evidence);
    port::look(&mut evidence);
    health::look(&mut evidence);
    procfile::check(&mut evidence);
    surroundings(&mut evidence);
    evidence.end()
}

/// A Dockerfile is the repo's own word on how it is built; only without one is a language looked for.
fn stack(evidence: &mut Evidence<'_>) {
    let found = ecosystem::found(evidence);
    if dockerfile::look(evidence) {
        // What it needs and reads is in the language's files all the same.
        for (ecosystem, manifest) in &found {
            (ecosystem.facts)(evidence, manifest);
        }
        if evidence.scan.stack == UNKNOWN {
            "Dockerfile".clone_into(&mut evidence.scan.stack);
        }
        return;
    }
    if evidence.scan.processes.is_empty() && monorepo::look(evidence) {
        return;
    }
    let Some((ecosystem, manifest)) = found.first() else {
        nothing_found(evidence);
        return;
    };
    (ecosystem.facts)(evidence, manifest);
    (ecosystem.build)(evidence, manifest);
    amd64_only(evidence, manifest);
}

/// The builders of some languages name no arm64 target.
fn amd64_only(evidence: &mut Evidence<'_>, manifest: &str) {
    if let Some(Build::Buildpacks { language }) = evidence.scan.build
        && !language.builds_arm64()
    {
        let text = format!("Buildpacks build {} for amd64 only", language.as_str());
        evidence.note("amd64_only", text, "choose an amd64 size, or add a Dockerfile", manifest);
    }
}

fn nothing_found(evidence: &mut Evidence<'_>) {
    if evidence.paths.is_empty() {
        let (text, fix) = if evidence.root == "." {
            ("the repo has no files yet".to_owned(), "commit the app first")
        } else {
            (format!("there is no folder `{}` in the repo", evidence.root), "name the app's folder")
        };
        evidence.block("nothing_there", text, fix, None);
    } else if let Some(page) = ["index.html", "public/index.html"].iter().find(|f| evidence.has(f))
    {
        evidence.is("static site", page);
        evidence.static_site(page);
    } else if evidence.has("deno.json") || evidence.has("deno.jsonc") {
        evidence.is("Deno", "deno.json");
        evidence.no_builder("Deno", "deno.json");
    } else if !monorepo::choose(evidence) {
        let text = "no Dockerfile and no manifest of a known language was found";
        evidence.block("no_app_found", text, "add a Dockerfile, or name the app's folder", None);
    }
}

fn surroundings(evidence: &mut Evidence<'_>) {
    const KAMAL: &str = "config/deploy.yml";
    if evidence.has(KAMAL) {
        evidence.flag(Flag::ExistingKamal, KAMAL);
        let text = "the repo has a Kamal config of its own, which is left as it is";
        let fix = "VMKit's are config/deploy.ENVIRONMENT.yml; stop deploying with the old one first if both name one VM";
        evidence.note("existing_kamal", text, fix, KAMAL);
    }
    let leaked = [".env", ".env.production", ".env.local"];
    if let Some(file) = leaked.into_iter().find(|file| evidence.has(file)) {
        let text = format!("`{file}` is committed");
        let fix = "if it holds secrets, change them and remove it; values belong into set_env";
        evidence.note("committed_env_file", text, fix, file);
    }
    let scan = &evidence.scan;
    if scan.build.is_some() && !scan.services.is_empty() {
        let text = format!("it needs {}", scan.services.join(", "));
        let fix =
            "run it beside the app, or set the address of one that runs elsewhere as an env value";
        evidence.note("services_needed", text, fix, None);
    }
    if !evidence.scan.build_settings.is_empty() {
        let settings: Vec<String> =
            evidence.scan.build_settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let text = format!("Buildpacks need to be told {}", settings.join(" "));
        let fix = "the workflow says it; nothing to do";
        evidence.note("build_settings", text, fix, None);
    }
}

#[cfg(test)]
mod tests;
