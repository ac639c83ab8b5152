//! What a scan concludes of repos in the shape of real ones, in one table, with a line for each.
//!
//! `fixtures/scan_before.toml` was written before the rules for its repos, `fixtures/scan_after.toml`
//! with or after them; the scores of both are printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use vmkit::domain::environment::App;
use vmkit::domain::ids::AppId;
use vmkit::domain::names::{EnvironmentPath, RepoName};
use vmkit::domain::run_settings::{Release, RunSettings};
use vmkit::domain::size::Arch;
use vmkit::pipeline::scan::{Build, Entry, Scan, scan, wanted_files};
use vmkit::pipeline::{EnvironmentSetup, Setup, files};

/// What a scan is to find. What is left out is empty, `.`, 8080 or `/`.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(default)]
    root: Option<String>,
    /// A file, and what in it would lead whoever believes it to another conclusion.
    #[serde(default)]
    misleading: Option<(String, String)>,
    stack: String,
    /// `buildpacks LANGUAGE`, `dockerfile PATH` or `none`.
    build: String,
    #[serde(default)]
    processes: Vec<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    health_path: Option<String>,
    #[serde(default)]
    services: BTreeSet<String>,
    #[serde(default)]
    env: BTreeSet<String>,
    #[serde(default)]
    build_env: BTreeSet<String>,
    #[serde(default)]
    state: BTreeSet<String>,
    #[serde(default)]
    package_manager: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    migrations: String,
    #[serde(default)]
    settings: Vec<String>,
    #[serde(default)]
    flags: BTreeSet<String>,
    #[serde(default)]
    roots: Vec<String>,
    #[serde(default)]
    blocking: BTreeSet<String>,
    #[serde(default)]
    notes: BTreeSet<String>,
}

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn rows(file: &str) -> BTreeMap<String, Row> {
    let text = fs::read_to_string(fixtures().join(file)).expect("the rows");
    toml::from_str(&text).expect("rows in TOML")
}

/// A repo as GitHub would list it: paths and contents.
fn repo(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(top: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(top, &path, files);
            } else {
                let name = path.strip_prefix(top).expect("below the top").to_string_lossy();
                files.insert(name.into_owned(), fs::read(&path).expect("a file"));
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(folder, folder, &mut files);
    files
}

fn scanned(files: &BTreeMap<String, Vec<u8>>, root: &str) -> Scan {
    let tree: Vec<Entry> = files
        .iter()
        .map(|(path, bytes)| Entry { path: path.clone(), size: Some(bytes.len() as u64) })
        .collect();
    // Only what was asked for is given, as from GitHub.
    let wanted = wanted_files(&tree, root);
    let read = wanted.iter().map(|path| (path.clone(), files[path].clone())).collect();
    scan(&tree, &read, root)
}

fn build(scan: &Scan) -> String {
    match &scan.build {
        Some(Build::Buildpacks { language }) => {
            let word = serde_json::to_value(language).expect("a word");
            format!("buildpacks {}", word.as_str().expect("text"))
        }
        Some(Build::Dockerfile { path }) => format!("dockerfile {path}"),
        None => "none".to_owned(),
    }
}

fn row(scan: &Scan) -> Row {
    let codes = |blocking: bool| {
        let rows = scan.checklist.iter().filter(|check| check.blocking == blocking);
        rows.map(|check| check.code.clone()).collect()
    };
    let keys =
        |keys: &[vmkit::domain::names::EnvKey]| keys.iter().map(ToString::to_string).collect();
    Row {
        root: None,
        misleading: None,
        stack: scan.stack.clone(),
        build: build(scan),
        processes: scan.processes.iter().map(|process| process.name.clone()).collect(),
        port: Some(scan.port),
        health_path: Some(scan.health_path.clone()),
        services: scan.services.iter().cloned().collect(),
        env: keys(&scan.env_keys.runtime),
        build_env: keys(&scan.env_keys.build),
        state: scan.state_on_disk.iter().cloned().collect(),
        package_manager: scan.package_manager.clone().unwrap_or_default(),
        version: scan.version.clone().unwrap_or_default(),
        migrations: scan.migrations.clone().unwrap_or_default(),
        settings: scan.build_settings.iter().map(|(k, v)| format!("{k}={v}")).collect(),
        flags: scan.flags.iter().map(|flag| flag.as_str().to_owned()).collect(),
        roots: scan.roots.clone(),
        blocking: codes(true),
        notes: codes(false),
    }
}

/// Where two rows differ, field by field.
fn differences(wanted: &Row, found: &Row) -> Vec<String> {
    let (wanted, found) = (format!("{wanted:#?}"), format!("{found:#?}"));
    // Sets are printed over several lines, so whole texts are compared by field.
    let fields = |text: &str| -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        let mut name = String::new();
        for line in text.lines().skip(1) {
            if line.starts_with("    ") && !line.starts_with("     ") && line.contains(": ") {
                let (key, rest) = line.trim().split_once(": ").expect("a field");
                name = key.to_owned();
                fields.insert(name.clone(), rest.to_owned());
            } else if let Some(value) = fields.get_mut(&name) {
                value.push_str(line.trim());
            }
        }
        fields
    };
    let (wanted, found) = (fields(&wanted), fields(&found));
    wanted
        .iter()
        .filter(|(name, value)| found.get(*name) != Some(value))
        .map(|(name, value)| format!("{name}: wanted {value} found {}", found[name]))
        .collect()
}

/// The repo's line: what was detected, which checks passed.
fn line(name: &str, scan: &Scan) -> String {
    let list = |items: &[String]| if items.is_empty() { "-".into() } else { items.join("+") };
    let blocking: Vec<&str> = scan.blocking().map(|check| check.code.as_str()).collect();
    let notes = scan.checklist.len() - blocking.len();
    let verdict = if blocking.is_empty() {
        format!("ok, {notes} notes")
    } else {
        format!("cannot deploy: {}", blocking.join(", "))
    };
    let processes: Vec<String> = scan.processes.iter().map(|p| p.name.clone()).collect();
    let keys = (scan.env_keys.runtime.len(), scan.env_keys.build.len());
    let flags: Vec<String> = scan.flags.iter().map(|flag| flag.as_str().to_owned()).collect();
    format!(
        "{name:22} {:26} {:22} :{:<5} {:17} {:14} needs {:17} keys {}+{} disk {:14} {:20} {verdict}",
        scan.stack,
        build(scan),
        scan.port,
        scan.health_path,
        list(&processes),
        list(&scan.services),
        keys.0,
        keys.1,
        list(&scan.state_on_disk),
        list(&flags),
    )
}

/// Where every repo's files are written for the judges of `scripts/check-generated`.
fn for_the_judges() -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated")
}

/// Writes the files that would be put into the repo, with two environments: one that says little
/// and one with a domain and, where it can be, the other architecture.
fn generated(name: &str, root: &str, scan: &Scan) -> Result<(), String> {
    let repo: RepoName = format!("octo/{name}").parse().expect("a repo");
    let app = App {
        id: AppId::generate(),
        slug: name.parse().expect("a slug"),
        repo_id: 1,
        repo,
        default_branch: "main".to_owned(),
        root: root.to_owned(),
        named_files: false,
        created_at: vmkit::domain::clock::Millis(0),
    };
    let folder = for_the_judges().join(name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("FOUND"), line(name, scan)).expect("written");
    let build = scan.build.clone().ok_or("no build")?;
    let arm = match &build {
        Build::Dockerfile { .. } => true,
        Build::Buildpacks { language } => language.builds_arm64(),
    };
    let environment = |name: &str| EnvironmentSetup {
        path: EnvironmentPath { app: app.slug.clone(), name: name.parse().expect("a name") },
        arch: Arch::Amd64,
        port: scan.port,
        health_path: scan.health_path.clone(),
        also: None,
        domain: None,
        address: Some("192.0.2.7".parse().expect("an address")),
        tls: false,
        run: RunSettings::default(),
        services: Vec::new(),
    };
    let mut production = environment("production");
    production.arch = if arm { Arch::Arm64 } else { Arch::Amd64 };
    production.domain = Some(format!("{name}.example.com").parse().expect("a domain"));
    production.also = Some(format!("www.{name}.example.com").parse().expect("a domain"));
    production.tls = true;
    if !scan.state_on_disk.is_empty() {
        let volume = ("data".parse().expect("a name"), "/data".parse().expect("a folder"));
        production.run.volumes = [volume].into();
    }
    if let Some(Ok(command)) = scan.migrations.as_ref().map(|line| line.parse()) {
        production.run.release = Some(Release::Command(command));
    }
    let setup = Setup::of(&app, build, scan, vec![environment("staging"), production]);
    let files = files(&setup).map_err(|error| error.to_string())?;
    let served = |one: &EnvironmentSetup| if setup.serves(one) { vec!["web"] } else { vec![] };
    let expected: serde_json::Map<String, serde_json::Value> = setup
        .environments
        .iter()
        .map(|one| {
            let config = format!("config/deploy.{}.yml", one.path.name);
            (config, serde_json::json!({ "service": one.path.service(), "proxied": served(one) }))
        })
        .collect();
    let expected = serde_json::Value::Object(expected).to_string();
    fs::write(folder.join("EXPECT.json"), expected).expect("written");
    for file in files {
        let path = folder.join(&file.path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, file.content).expect("written");
    }
    Ok(())
}

/// Whether a repo has what its package manager writes to pin versions. Maven writes nothing, and pip
/// has what a person pins.
fn is_locked(files: &BTreeMap<String, Vec<u8>>) -> bool {
    const WRITTEN: [(&str, &str); 17] = [
        ("package-lock.json", "\"lockfileVersion\""),
        ("yarn.lock", "yarn lockfile v1"),
        ("yarn.lock", "__metadata:"),
        ("pnpm-lock.yaml", "lockfileVersion:"),
        ("bun.lock", "\"lockfileVersion\""),
        ("poetry.lock", "content-hash"),
        ("uv.lock", "[[package]]"),
        ("Pipfile.lock", "\"_meta\""),
        ("requirements.txt", ""),
        ("Gemfile.lock", "BUNDLED WITH"),
        ("go.sum", " h1:"),
        ("Cargo.lock", "[[package]]"),
        ("composer.lock", "\"content-hash\""),
        ("mix.lock", "{:hex"),
        ("packages.lock.json", "\"contentHash\""),
        ("gradle.lockfile", "This is a Gradle generated file"),
        ("pom.xml", "<project"),
    ];
    files.iter().any(|(path, bytes)| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let text = String::from_utf8_lossy(bytes);
        WRITTEN.iter().any(|(lock, mark)| *lock == name && text.contains(mark))
    })
}

/// What a repo's misleading file changes of the conclusions: nothing, if it misleads nobody.
fn misled(
    mut files: BTreeMap<String, Vec<u8>>,
    root: &str,
    scan: &Scan,
    (path, tempting): (String, String),
) -> Vec<String> {
    let Some(bytes) = files.remove(&path) else {
        return vec![format!("it has no misleading file `{path}`")];
    };
    if !String::from_utf8_lossy(&bytes).contains(&tempting) {
        return vec![format!("`{tempting}` is not in `{path}`")];
    }
    let without = row(&scanned(&files, root));
    let changed = differences(&without, &row(scan));
    changed.into_iter().map(|change| format!("misled by {path}: {change}")).collect()
}

/// Scans every repo of a file of rows; answers the names of those that are not as wanted.
fn score(file: &str, faults: &mut Vec<String>) -> (usize, usize) {
    let (mut right, mut all) = (0, 0);
    for (name, mut wanted) in rows(file) {
        let root = wanted.root.take().unwrap_or_else(|| ".".to_owned());
        let misleading = wanted.misleading.take();
        let misleading = misleading.unwrap_or_else(|| panic!("{name} names no misleading file"));
        wanted.port.get_or_insert(8080);
        wanted.health_path.get_or_insert_with(|| "/".to_owned());
        let files = repo(&fixtures().join("repos").join(&name));
        assert!(files.len() >= 6, "{name} has only {} files", files.len());
        assert!(is_locked(&files), "{name} has no lock file as its tool writes it");
        let scan = scanned(&files, &root);
        eprintln!("{}", line(&name, &scan));
        let mut wrong = differences(&wanted, &row(&scan));
        wrong.extend(misled(files, &root, &scan, misleading));
        let blocked = scan.blocking().next().is_some();
        match generated(&name, &root, &scan) {
            Ok(()) => {}
            Err(_) if blocked => {}
            Err(error) => wrong.push(format!("files: {error}")),
        }
        let unsourced: Vec<&str> = scan
            .findings
            .iter()
            .filter(|f| f.from_file.as_ref().is_none_or(|file| file.is_empty()))
            .map(|f| f.what.as_str())
            .collect();
        if !unsourced.is_empty() {
            wrong.push(format!("conclusions without a file: {unsourced:?}"));
        }
        all += 1;
        right += usize::from(wrong.is_empty());
        faults.extend(wrong.into_iter().map(|wrong| format!("{name}: {wrong}")));
    }
    (right, all)
}

#[test]
fn every_repo_is_what_its_row_says() {
    let mut faults = Vec::new();
    let before = score("scan_before.toml", &mut faults);
    let after = score("scan_after.toml", &mut faults);
    eprintln!("written before the rules: {} of {} right", before.0, before.1);
    eprintln!("written with the rules:   {} of {} right", after.0, after.1);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    let blocked = ["scan_before.toml", "scan_after.toml"]
        .iter()
        .flat_map(|file| rows(file).into_values())
        .filter(|row| !row.blocking.is_empty())
        .count();
    assert!(before.1 + after.1 >= 40 && before.1 >= 14 && blocked >= 8, "{blocked}");
    let folders = fs::read_dir(fixtures().join("repos")).expect("repos").count();
    assert_eq!(folders, before.1 + after.1, "a repo without a row");
}
