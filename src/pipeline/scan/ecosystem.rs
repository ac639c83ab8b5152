//! The languages, one line each, and what the names of packages mean.

use super::{Evidence, dotnet, elixir, go, java, node, php, python, ruby, rust};

/// A language with its tools.
pub(super) struct Ecosystem {
    /// The file by which it is told, if it is there.
    pub(super) manifest: fn(&Evidence<'_>) -> Option<String>,
    /// Whether it is what the repo is about, whatever lies beside it.
    pub(super) is_main: fn(&Evidence<'_>) -> bool,
    /// Takes what its files say of any app, however it is built.
    pub(super) facts: fn(&mut Evidence<'_>, &str),
    /// Takes it as what Buildpacks build, or says why they cannot.
    pub(super) build: fn(&mut Evidence<'_>, &str),
}

/// Assets of most others are made with Node.js, so it comes last.
const ALL: &[Ecosystem] = &[
    python::ECOSYSTEM,
    ruby::ECOSYSTEM,
    php::ECOSYSTEM,
    go::ECOSYSTEM,
    rust::ECOSYSTEM,
    java::ECOSYSTEM,
    dotnet::ECOSYSTEM,
    elixir::ECOSYSTEM,
    node::ECOSYSTEM,
];

/// Those of the repo with their manifests, the one that the repo is about first.
pub(super) fn found(evidence: &Evidence<'_>) -> Vec<(&'static Ecosystem, String)> {
    let mut found: Vec<_> =
        ALL.iter().filter_map(|one| Some((one, (one.manifest)(evidence)?))).collect();
    found.sort_by_key(|(one, _)| !(one.is_main)(evidence));
    found
}

/// A package that the app depends on when it runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    /// Its name, in the form of its ecosystem's table.
    pub(super) name: String,
    /// The manifest that lists it.
    pub(super) file: String,
}

impl Package {
    pub(super) fn new(name: impl Into<String>, file: &str) -> Self {
        Self { name: name.into(), file: file.to_owned() }
    }
}

/// What it means that an app depends on a package.
#[derive(Debug, Clone, Copy)]
pub(super) enum Means {
    /// It serves with this.
    Web(&'static str),
    /// It waits for work with this, which is no web framework.
    Work(&'static str),
    /// It needs this service.
    Service(&'static str),
    /// It keeps this on its own disk.
    Disk(&'static str),
    /// It answers piece by piece.
    Streams,
    /// It runs a model.
    Infers,
}

/// Takes what the packages mean. The first framework of the table is the framework.
pub(super) fn take(
    evidence: &mut Evidence<'_>,
    language: &str,
    packages: &[Package],
    table: &[(&'static str, Means)],
) {
    for (name, means) in table {
        let Some(package) = packages.iter().find(|package| package.name == *name) else {
            continue;
        };
        let file = package.file.as_str();
        match *means {
            Means::Web(framework) => {
                evidence.framework(language, framework, file);
                evidence.framework.get_or_insert(framework);
            }
            Means::Work(with) => {
                evidence.framework(language, with, file);
                evidence.works.get_or_insert_with(|| file.to_owned());
            }
            Means::Service(service) => evidence.service(service, file),
            Means::Disk(what) => evidence.keeps_on_disk(what, file),
            Means::Streams => evidence.streams(name, file),
            Means::Infers => evidence.infers(name, file),
        }
    }
}
