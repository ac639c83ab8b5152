//! Programs of .NET.

use super::ecosystem::{self, Ecosystem, Means, Package};
use super::xml::{self, Element};
use super::{Build, Evidence, Language, files, go};

const NAME: &str = ".NET";

pub(super) const ECOSYSTEM: Ecosystem =
    Ecosystem { manifest: |evidence| project_file(evidence), is_main: |_| true, facts, build };

/// In lower case.
const KNOWN: &[(&str, Means)] = &[
    ("npgsql", Means::Service("postgres")),
    ("npgsql.entityframeworkcore.postgresql", Means::Service("postgres")),
    ("stackexchange.redis", Means::Service("redis")),
    ("microsoft.extensions.caching.stackexchangeredis", Means::Service("redis")),
    ("mysqlconnector", Means::Service("mysql")),
    ("pomelo.entityframeworkcore.mysql", Means::Service("mysql")),
    ("mongodb.driver", Means::Service("mongodb")),
    ("meilisearch", Means::Service("meilisearch")),
    ("qdrant.client", Means::Service("qdrant")),
    ("rabbitmq.client", Means::Service("rabbitmq")),
    ("confluent.kafka", Means::Service("kafka")),
    ("microsoft.entityframeworkcore.sqlite", Means::Disk("SQLite")),
    ("microsoft.data.sqlite", Means::Disk("SQLite")),
    ("litedb", Means::Disk("LiteDB")),
    ("microsoft.ml.onnxruntime", Means::Infers),
];

fn facts(evidence: &mut Evidence<'_>, file: &str) {
    evidence.is(NAME, file);
    let elements = xml::elements(evidence.text(file).unwrap_or_default());
    let packages: Vec<Package> = elements
        .iter()
        .filter(|element| element.path.ends_with("/PackageReference"))
        .filter_map(|element| element.attribute("Include"))
        .map(|name| Package::new(name.to_ascii_lowercase(), file))
        .collect();
    ecosystem::take(evidence, NAME, &packages, KNOWN);
    match sdk(&elements) {
        Some("Microsoft.NET.Sdk.Web") => {
            evidence.framework(NAME, "ASP.NET Core", file);
            evidence.framework.get_or_insert("ASP.NET Core");
        }
        Some("Microsoft.NET.Sdk.Worker") => {
            evidence.framework(NAME, "worker", file);
            evidence.works.get_or_insert_with(|| file.to_owned());
        }
        _ => {}
    }
    if let Some(file) = evidence.code_with(&["AddSignalR", "text/event-stream"]) {
        evidence.streams("SignalR or the code's own streams", file);
    }
    let lock = evidence.ending("packages.lock.json");
    evidence.manager("nuget", lock.unwrap_or(file));
    if lock.is_none() {
        let text = "there is no packages.lock.json, so two builds of one commit may differ";
        let fix = "set RestorePackagesWithLockFile and commit it";
        evidence.note("no_lock_file", text, fix, file);
    }
    let target = elements.iter().find(|element| {
        element.path.ends_with("/TargetFramework") || element.path.ends_with("/TargetFrameworks")
    });
    if let Some(target) = target {
        evidence.version(target.text.split(';').next().unwrap_or_default(), file);
    }
    let folder = file.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let migrations = format!("{folder}Migrations");
    let own = evidence.code_with(&["Database.Migrate"]).is_some();
    if evidence.has_folder(&migrations) && !own {
        let text =
            "there are migrations of Entity Framework, and the image has no tool to run them";
        evidence.unrun_migrations(text, &migrations);
    }
}

fn build(evidence: &mut Evidence<'_>, file: &str) {
    let elements = xml::elements(evidence.text(file).unwrap_or_default());
    let output = elements.iter().find(|element| element.path.ends_with("/OutputType"));
    let runs = matches!(sdk(&elements), Some("Microsoft.NET.Sdk.Web" | "Microsoft.NET.Sdk.Worker"))
        || output.is_some_and(|output| output.text.eq_ignore_ascii_case("exe"));
    if !runs {
        let text = format!("`{file}` is a library, and nothing says what to start");
        let fix = "name the folder of the program as `root`, or add a Dockerfile";
        evidence.block("no_start_command", text, fix, file);
        return;
    }
    evidence.builds_with(Build::Buildpacks { language: Language::DotNet });
    if let Some((folder, _)) = file.rsplit_once('/')
        && !go::project(evidence, "BP_DOTNET_PROJECT_PATH")
    {
        let setting = "BP_DOTNET_PROJECT_PATH".to_owned();
        evidence.scan.build_settings.insert(setting, format!("./{folder}"));
    }
}

fn sdk(elements: &[Element]) -> Option<&str> {
    elements.iter().find(|element| element.path == "Project")?.attribute("Sdk")
}

/// The project that serves, else the first one that is no test.
fn project_file(evidence: &Evidence<'_>) -> Option<String> {
    let mut projects: Vec<&str> = evidence
        .paths
        .iter()
        .copied()
        .filter(|path| path.ends_with(".csproj") || path.ends_with(".fsproj"))
        .filter(|path| !files::is_aside(path) && !path.contains("Test"))
        .filter(|path| path.matches('/').count() <= 2)
        .collect();
    let serves =
        |path: &str| evidence.text(path).is_some_and(|text| text.contains("Microsoft.NET.Sdk.W"));
    projects.sort_by_key(|path| (!serves(path), path.matches('/').count()));
    projects.first().map(|path| (*path).to_owned())
}
