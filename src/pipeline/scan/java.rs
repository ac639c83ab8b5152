//! Java and Kotlin apps, built by Maven or Gradle.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::ecosystem::{self, Ecosystem, Means, Package};
use super::{Build, Evidence, Language, go, xml};

const MAVEN: &str = "pom.xml";
const CATALOG: &str = "gradle/libs.versions.toml";

pub(super) const ECOSYSTEM: Ecosystem = Ecosystem {
    manifest: |evidence| {
        let files =
            [MAVEN, "build.gradle.kts", "build.gradle", "settings.gradle.kts", "settings.gradle"];
        let file = files.into_iter().find(|file| evidence.has(file))?;
        Some(file.to_owned())
    },
    is_main: |_| true,
    facts,
    build,
};

/// By the artifact's name, without its group.
const KNOWN: &[(&str, Means)] = &[
    ("spring-boot-starter-web", Means::Web("Spring Boot")),
    ("spring-boot-starter-webflux", Means::Web("Spring Boot")),
    ("spring-boot-starter-webmvc", Means::Web("Spring Boot")),
    ("quarkus-rest", Means::Web("Quarkus")),
    ("quarkus-resteasy", Means::Web("Quarkus")),
    ("quarkus-resteasy-reactive", Means::Web("Quarkus")),
    ("micronaut-http-server-netty", Means::Web("Micronaut")),
    ("ktor-server-core", Means::Web("Ktor")),
    ("ktor-server-netty", Means::Web("Ktor")),
    ("javalin", Means::Web("Javalin")),
    ("spring-boot-starter", Means::Work("Spring Boot")),
    ("spring-boot-starter-amqp", Means::Work("Spring Boot")),
    ("JDA", Means::Work("JDA")),
    ("postgresql", Means::Service("postgres")),
    ("r2dbc-postgresql", Means::Service("postgres")),
    ("quarkus-jdbc-postgresql", Means::Service("postgres")),
    ("mysql-connector-j", Means::Service("mysql")),
    ("mariadb-java-client", Means::Service("mysql")),
    ("spring-boot-starter-data-redis", Means::Service("redis")),
    ("jedis", Means::Service("redis")),
    ("lettuce-core", Means::Service("redis")),
    ("spring-boot-starter-data-mongodb", Means::Service("mongodb")),
    ("mongodb-driver-sync", Means::Service("mongodb")),
    ("mongodb-driver-kotlin-coroutine", Means::Service("mongodb")),
    ("spring-boot-starter-data-elasticsearch", Means::Service("elasticsearch")),
    ("spring-boot-starter-amqp", Means::Service("rabbitmq")),
    ("spring-kafka", Means::Service("kafka")),
    ("sqlite-jdbc", Means::Disk("SQLite")),
    ("h2", Means::Disk("H2")),
    ("spring-boot-starter-websocket", Means::Streams),
    ("spring-boot-starter-webflux", Means::Streams),
    ("ktor-server-websockets", Means::Streams),
    ("ktor-server-sse", Means::Streams),
    ("onnxruntime", Means::Infers),
    ("langchain4j-ollama", Means::Infers),
];

/// `implementation("group:artifact:version")` and its like; not those of tests and tools.
static GRADLE: LazyLock<Regex> = LazyLock::new(|| {
    let kinds = "implementation|api|runtimeOnly|compile|compileOnly";
    Regex::new(&format!(r#"(?m)^\s*(?:{kinds})\s*\(?\s*["']([^"':]+):([^"':]+)"#))
        .expect("a fixed pattern")
});
/// `implementation(libs.spring.web)`.
static FROM_CATALOG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)^\s*(?:implementation|api|runtimeOnly)\s*\(?\s*libs\.([\w.]+)")
        .expect("a fixed pattern")
});
static TOOLCHAIN: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?:jvmToolchain\(|JavaLanguageVersion\.of\(|sourceCompatibility\s*=\s*(?:JavaVersion\.VERSION_|['\x22])?)(\d{1,2})";
    Regex::new(pattern).expect("a fixed pattern")
});

/// What the build files say.
#[derive(Default)]
struct Project {
    artifacts: BTreeSet<(String, String)>,
    version: Option<String>,
    modules: Vec<String>,
    makes_program: bool,
}

fn facts(evidence: &mut Evidence<'_>, file: &str) {
    let maven = file == MAVEN;
    let project = project(evidence, file);
    let kotlin = evidence.paths.iter().any(|path| path.contains("src/main/kotlin/"));
    let language = if kotlin { "Kotlin" } else { "Java" };
    evidence.is(language, file);
    let packages: Vec<Package> =
        project.artifacts.iter().map(|(name, file)| Package::new(name.as_str(), file)).collect();
    ecosystem::take(evidence, language, &packages, KNOWN);
    // An in-memory H2 keeps nothing.
    let on_disk = evidence.texts.values().any(|text| text.contains("jdbc:h2:file"));
    if !on_disk {
        evidence.scan.state_on_disk.retain(|state| state != "H2");
        evidence.scan.findings.retain(|finding| finding.value != "H2");
    }
    if let Some(file) =
        evidence.code_with(&["SseEmitter", "TEXT_EVENT_STREAM", "application/x-ndjson"])
    {
        evidence.streams("the code's own streams", file);
    }
    evidence.manager(if maven { "maven" } else { "gradle" }, file);
    if let Some(version) = &project.version {
        evidence.version(version, file);
    }
    let has = |name: &str| packages.iter().any(|package| package.name.starts_with(name));
    if has("spring-boot-starter-actuator") {
        evidence.found("health_path", "/actuator/health", file);
        "/actuator/health".clone_into(&mut evidence.scan.health_path);
    } else if has("quarkus-smallrye-health") {
        evidence.found("health_path", "/q/health", file);
        "/q/health".clone_into(&mut evidence.scan.health_path);
    }
    if has("flyway") || has("liquibase") {
        evidence.found("migrations", "run by the app when it starts", file);
    }
}

fn build(evidence: &mut Evidence<'_>, file: &str) {
    let project = project(evidence, file);
    evidence.builds_with(Build::Buildpacks { language: Language::Java });
    let setting = if file == MAVEN { "BP_MAVEN_BUILT_MODULE" } else { "BP_GRADLE_BUILT_MODULE" };
    let modules = runnable(evidence);
    if !project.modules.is_empty() && !go::project(evidence, setting) {
        match modules.as_slice() {
            [one] => {
                evidence.scan.build_settings.insert(setting.to_owned(), one.clone());
            }
            [] => {}
            several => {
                let names = several.join("`, `");
                let text = format!("several modules have a program: `{names}`");
                let fix =
                    format!("say which in a project.toml that sets {setting}, or add a Dockerfile");
                evidence.block("choose_module", text, fix, file);
            }
        }
        return;
    }
    if !project.makes_program && evidence.framework.is_none() && evidence.scan.processes.is_empty()
    {
        let text = "no plugin makes a program of it, so nothing says how it starts";
        let fix = "add a Procfile, the plugin of its framework, or a Dockerfile";
        evidence.block("no_start_command", text, fix, file);
    }
}

/// The modules with a program, by their source files.
fn runnable(evidence: &Evidence<'_>) -> Vec<String> {
    let modules: BTreeSet<String> = evidence
        .paths
        .iter()
        .filter(|path| path.ends_with("Application.java") || path.ends_with("Application.kt"))
        .filter_map(|path| path.split_once("/src/main/"))
        .map(|(module, _)| module.to_owned())
        .collect();
    modules.into_iter().take(10).collect()
}

fn project(evidence: &Evidence<'_>, file: &str) -> Project {
    if file == MAVEN { maven(evidence) } else { gradle(evidence) }
}

fn maven(evidence: &Evidence<'_>) -> Project {
    let mut project = Project::default();
    let (mut artifact, mut scope) = (String::new(), String::new());
    for element in xml::elements(evidence.text(MAVEN).unwrap_or_default()) {
        match element.path.strip_prefix("project/").unwrap_or("") {
            "dependencies/dependency/artifactId" => artifact = element.text,
            "dependencies/dependency/scope" => scope = element.text,
            "dependencies/dependency" => {
                if !artifact.is_empty() && scope != "test" && scope != "provided" {
                    project.artifacts.insert((plain(&artifact), MAVEN.to_owned()));
                }
                artifact.clear();
                scope.clear();
            }
            "properties/java.version"
            | "properties/maven.compiler.release"
            | "properties/maven.compiler.source" => {
                project.version.get_or_insert(element.text);
            }
            "modules/module" => project.modules.push(element.text),
            "build/plugins/plugin/artifactId" => {
                let makers = [
                    "spring-boot-maven-plugin",
                    "quarkus-maven-plugin",
                    "maven-shade-plugin",
                    "maven-assembly-plugin",
                ];
                project.makes_program |= makers.contains(&element.text.as_str());
            }
            _ => {}
        }
    }
    project
}

fn gradle(evidence: &Evidence<'_>) -> Project {
    let mut project = Project::default();
    let catalog = evidence.text(CATALOG).and_then(|text| text.parse::<toml::Table>().ok());
    for file in ["build.gradle.kts", "build.gradle"] {
        let Some(text) = evidence.text(file) else { continue };
        for hit in GRADLE.captures_iter(text) {
            project.artifacts.insert((plain(&hit[2]), file.to_owned()));
        }
        for hit in FROM_CATALOG.captures_iter(text) {
            let module = catalog.as_ref().and_then(|catalog| library(catalog, &hit[1]));
            if let Some(name) = module {
                project.artifacts.insert((plain(&name), file.to_owned()));
            }
        }
        let makers =
            ["org.springframework.boot", "io.ktor.plugin", "application", "io.quarkus", "shadow"];
        project.makes_program |= makers.iter().any(|maker| text.contains(maker));
        if project.version.is_none() {
            project.version = TOOLCHAIN.captures(text).map(|hit| hit[1].to_owned());
        }
    }
    for file in ["settings.gradle.kts", "settings.gradle"] {
        let text = evidence.text(file).unwrap_or_default();
        let lines = text.lines().filter(|line| line.trim_start().starts_with("include"));
        project.modules.extend(lines.map(str::to_owned));
    }
    project
}

/// The artifact that a version catalog means by `spring.web`.
fn library(catalog: &toml::Table, accessor: &str) -> Option<String> {
    let libraries = catalog.get("libraries")?.as_table()?;
    let (_, library) =
        libraries.iter().find(|(key, _)| key.replace(['-', '_'], ".") == accessor)?;
    let module = library.get("module").or(Some(library))?.as_str();
    let name = module.and_then(|module| module.split(':').nth(1));
    name.or_else(|| library.get("name")?.as_str()).map(str::to_owned)
}

/// The name without what only says for which platform it is.
fn plain(artifact: &str) -> String {
    artifact.strip_suffix("-jvm").unwrap_or(artifact).to_owned()
}
