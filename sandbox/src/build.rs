//! Images: what `docker build`, `build-push-action` and `pack build` are here. A commit's files are
//! written to a folder, and the command that the image would start is found out. Nothing is run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::github::git::{Files, Mode};
use crate::machines::Image;

mod dockerfile;

/// The registry (`ghcr.io`): images by reference. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Registry {
    dir: PathBuf,
    images: Arc<Mutex<BTreeMap<String, Image>>>,
}

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// All references that the image gets.
    pub tags: Vec<String>,
    /// The folder of the files that is built, empty or `.` for the root.
    pub context: String,
    /// The Dockerfile, seen from the root of the files; none for Buildpacks.
    pub dockerfile: Option<String>,
    /// Labels given to the build.
    pub labels: BTreeMap<String, String>,
}

impl Registry {
    /// An empty registry that keeps its images' files under `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, images: Arc::default() }
    }

    /// The image of a reference, `None` where there is none ("manifest unknown").
    pub fn image(&self, reference: &str) -> Option<Image> {
        crate::lock(&self.images).get(reference).cloned()
    }

    /// All references.
    pub fn references(&self) -> Vec<String> {
        crate::lock(&self.images).keys().cloned().collect()
    }

    /// Removes a reference; false where there was none.
    pub fn remove(&self, reference: &str) -> bool {
        crate::lock(&self.images).remove(reference).is_some()
    }

    /// Gives the image of a reference other tags and more labels, as a build of nothing but its
    /// `FROM` line does; false where there is none.
    pub fn promote(&self, from: &str, tags: &[String], labels: &BTreeMap<String, String>) -> bool {
        let mut images = crate::lock(&self.images);
        let Some(found) = images.get(from).cloned() else { return false };
        for reference in tags {
            let mut image = Image { reference: reference.clone(), ..found.clone() };
            image.labels.extend(labels.clone());
            images.insert(reference.clone(), image);
        }
        true
    }

    /// Builds and pushes; answers the build's log.
    ///
    /// # Errors
    /// The failing build's log, as the real tool would end it.
    pub fn build(&self, files: &Files, recipe: &Recipe) -> Result<String, String> {
        let context = recipe.context.trim_start_matches("./").trim_matches('/');
        let context = if context == "." { "" } else { context };
        let mut plan = match &recipe.dockerfile {
            Some(path) => dockerfile::plan(files, path.trim_start_matches("./"))?,
            None => buildpacks(files, context)?,
        };
        plan.labels.extend(recipe.labels.clone());
        let folder = tempfile::Builder::new().prefix("image-").tempdir_in(&self.dir);
        let folder = folder.map_err(|error| format!("ERROR: {error}"))?.keep();
        export(files, context, &folder)
            .map_err(|error| format!("ERROR: cannot write the image: {error}"))?;
        for reference in &recipe.tags {
            let image = Image {
                reference: reference.clone(),
                dir: folder.clone(),
                command: plan.command.clone(),
                env: plan.env.clone(),
                labels: plan.labels.clone(),
            };
            crate::lock(&self.images).insert(reference.clone(), image);
            plan.log.push_str(&format!("pushing manifest for {reference} done\n"));
        }
        Ok(plan.log)
    }
}

/// What a build found out.
#[derive(Debug, Clone, Default)]
struct Plan {
    command: Vec<String>,
    env: Vec<(String, String)>,
    labels: BTreeMap<String, String>,
    log: String,
}

/// Writes the files below `context` into `folder`.
fn export(files: &Files, context: &str, folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let prefix = if context.is_empty() { String::new() } else { format!("{context}/") };
    for (path, file) in files {
        // Paths come from commits: none may lead out of the folder.
        let Some(path) = path.strip_prefix(&prefix).filter(|path| is_inside(path)) else {
            continue;
        };
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &file.bytes)?;
        if file.mode == Mode::Executable {
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

fn is_inside(path: &str) -> bool {
    !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn buildpacks(files: &Files, context: &str) -> Result<Plan, String> {
    let text = |name: &str| {
        let path = if context.is_empty() { name.to_owned() } else { format!("{context}/{name}") };
        files.get(&path).map(|file| String::from_utf8_lossy(&file.bytes).into_owned())
    };
    let procfile = text("Procfile").and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("web:").map(|line| line.trim().to_owned()))
    });
    let package =
        text("package.json").and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let start = package
        .as_ref()
        .and_then(|package| package["scripts"]["start"].as_str().map(str::to_owned));
    let languages = [
        "package.json",
        "requirements.txt",
        "pyproject.toml",
        "Pipfile",
        "go.mod",
        "Gemfile",
        "pom.xml",
        "composer.json",
    ];
    let detected = languages.iter().any(|name| text(name).is_some()) || procfile.is_some();
    if !detected {
        return Err("===> DETECTING\nERROR: No buildpack groups passed detection.\nERROR: failed to detect: no buildpacks participating\nERROR: failed to build: executing lifecycle: failed with status code: 20".to_owned());
    }
    let Some(line) = procfile.or(start) else {
        return Err("===> BUILDING\nERROR: failed to build: exit status 1\nERROR: failed to build: executing lifecycle: failed with status code: 51".to_owned());
    };
    let log = "===> ANALYZING\n===> DETECTING\n===> RESTORING\n===> BUILDING\n===> EXPORTING\n"
        .to_owned();
    Ok(Plan { command: command_line(&line), log, ..Plan::default() })
}

/// A command line as arguments; one that needs a shell gets it.
pub(crate) fn command_line(line: &str) -> Vec<String> {
    let needs_shell = line.contains(['$', '|', '&', ';', '<', '>', '`', '*', '(']);
    if needs_shell {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()]
    } else {
        split(line)
    }
}

/// Splits at blanks, quotes respected.
pub(crate) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), letter) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (None, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}
