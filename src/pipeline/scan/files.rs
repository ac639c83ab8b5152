//! Which files a scan reads, and questions about paths.

use std::collections::BTreeSet;

use super::Entry;

/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 256 * 1024;
/// The most files that are read.
const MAX_FILES: usize = 40;

/// Files that say something wherever they are found, by their name at the app's root, in the order
/// of their worth.
const NAMED: &[&str] = &[
    "Dockerfile",
    "Procfile",
    "package.json",
    "requirements.txt",
    "pyproject.toml",
    "Pipfile",
    ".env.example",
    ".env.sample",
    ".env.template",
    ".env.dist",
    "env.example",
    "prisma/schema.prisma",
    "docker-compose.yml",
    "docker-compose.yaml",
    "compose.yml",
    "compose.yaml",
    "runtime.txt",
    ".python-version",
    ".nvmrc",
    "README.md",
];

/// Where apps usually begin; their folders are `CODE_FOLDERS`.
const CODE_STEMS: &[&str] = &[
    "server", "index", "app", "main", "manage", "wsgi", "asgi", "settings", "config", "worker",
    "database", "db",
];
const CODE_FOLDERS: &[&str] = &["", "src/", "app/", "server/", "lib/", "api/", "config/"];
const CODE_ENDS: &[&str] = &[".js", ".mjs", ".cjs", ".ts", ".py", ".tsx", ".jsx"];

/// The files of the tree that [`super::scan`] wants to read for the app in the folder `root`: at
/// most 40, none over 256 KiB.
pub fn wanted_files(tree: &[Entry], root: &str) -> Vec<String> {
    let small = |entry: &&Entry| entry.size.is_none_or(|size| size <= MAX_BYTES);
    let mut wanted: Vec<(usize, &str)> = tree
        .iter()
        .filter(small)
        .filter_map(|entry| Some((worth(below(root, &entry.path)?)?, entry.path.as_str())))
        .collect();
    wanted.sort_unstable();
    wanted.truncate(MAX_FILES);
    wanted.into_iter().map(|(_, path)| path.to_owned()).collect()
}

/// Smaller is worth more; nothing for a file that is not read.
fn worth(path: &str) -> Option<usize> {
    if let Some(at) = NAMED.iter().position(|name| *name == path) {
        return Some(at);
    }
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(f, n)| (f, n));
    let known = CODE_FOLDERS.iter().any(|known| known.trim_end_matches('/') == folder);
    // Django keeps its settings in a folder that is called as the project.
    let django = name == "settings.py" && !folder.contains('/');
    ((known && is_start(name)) || django).then_some(NAMED.len() + path.matches('/').count())
}

fn is_start(name: &str) -> bool {
    name.split_once('.').is_some_and(|(stem, _)| CODE_STEMS.contains(&stem)) && is_code(name)
}

/// Whether a path is source code that may be read.
pub(super) fn is_code(path: &str) -> bool {
    CODE_ENDS.iter().any(|end| path.ends_with(end))
}

/// The path below `root`, if it lies there.
pub(super) fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    if root == "." {
        return Some(path);
    }
    path.strip_prefix(root)?.strip_prefix('/')
}

/// Folders that look like apps of a monorepo, at most five.
pub(super) fn app_folders(paths: &BTreeSet<&str>) -> Vec<String> {
    const SIGNS: &[&str] = &["Dockerfile", "package.json", "requirements.txt", "pyproject.toml"];
    let folders: BTreeSet<&str> = paths
        .iter()
        .filter_map(|path| path.rsplit_once('/'))
        .filter(|(folder, name)| SIGNS.contains(name) && !folder.contains("node_modules"))
        .map(|(folder, _)| folder)
        .collect();
    folders.into_iter().take(5).map(|folder| format!("`{folder}`")).collect()
}
