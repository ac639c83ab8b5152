//! Which files a scan reads, and questions about paths.

use super::Entry;

/// The longest file that is read, in bytes.
pub(super) const MAX_BYTES: u64 = 256 * 1024;
/// The most files that are read.
const MAX_FILES: usize = 60;
/// The most bytes that are read of all files together.
const MAX_TOTAL_BYTES: u64 = 2 * 1024 * 1024;
/// A file of unknown length is taken to be so long.
const GUESSED_BYTES: u64 = 16 * 1024;

/// Files that say something, by their path from the app's root, in the order of their worth. A `*`
/// stands for any part of one name.
pub(super) const NAMED: &[&str] = &[
    "Dockerfile",
    "Procfile",
    "package.json",
    "requirements.txt",
    "pyproject.toml",
    "Pipfile",
    "Gemfile",
    "composer.json",
    "go.mod",
    "Cargo.toml",
    "pom.xml",
    "build.gradle",
    "build.gradle.kts",
    "*.csproj",
    "*.fsproj",
    "src/*/*.csproj",
    "*/*.csproj",
    "mix.exs",
    ".env.example",
    ".env.sample",
    ".env.template",
    ".env.dist",
    "env.example",
    "prisma/schema.prisma",
    "pnpm-workspace.yaml",
    "go.work",
    "settings.gradle",
    "settings.gradle.kts",
    "gradle/libs.versions.toml",
    "gradle.properties",
    "project.toml",
    "runtime.txt",
    ".python-version",
    ".nvmrc",
    ".node-version",
    ".ruby-version",
    ".tool-versions",
    "rust-toolchain.toml",
    "rust-toolchain",
    "next.config.*",
    "astro.config.*",
    "svelte.config.*",
    "nuxt.config.*",
    "vite.config.*",
    "config.ru",
    "config/routes.rb",
    "config/database.yml",
    "config/storage.yml",
    "config/cable.yml",
    "config/puma.rb",
    "config/environments/production.rb",
    "config/initializers/sidekiq.rb",
    "bootstrap/app.php",
    "config/filesystems.php",
    "public/index.php",
    "routes/web.php",
    "routes/api.php",
    "src/main/resources/application.properties",
    "src/main/resources/application.yml",
    "src/main/resources/application.yaml",
    "src/main/resources/application.conf",
    "appsettings.json",
    "config/runtime.exs",
    "lib/*/router.ex",
    "lib/*/endpoint.ex",
    "alembic.ini",
    "docker-compose.yml",
    "docker-compose.yaml",
    "compose.yml",
    "compose.yaml",
    "README.md",
];

/// Manifests of what may be apps of a monorepo.
const NESTED: &[&str] = &["*/package.json", "apps/*/package.json", "*/*/package.json"];
/// How many of those are read.
const NESTED_MAX: usize = 16;

/// Where apps usually begin; their folders are `CODE_FOLDERS`.
const CODE_STEMS: &[&str] = &[
    "server",
    "index",
    "app",
    "main",
    "manage",
    "wsgi",
    "asgi",
    "settings",
    "config",
    "worker",
    "database",
    "db",
    "bot",
    "api",
    "program",
    "startup",
    "application",
    "urls",
    "routes",
    "upload",
    "uploads",
];
const CODE_FOLDERS: &[&str] = &["", "src", "app", "server", "lib", "api", "config", "cmd/*", "bin"];
const CODE_ENDS: &[&str] = &[
    ".js", ".mjs", ".cjs", ".ts", ".py", ".tsx", ".jsx", ".rb", ".ru", ".go", ".rs", ".java",
    ".kt", ".php", ".cs", ".ex", ".exs",
];

/// Folders whose apps are not the repo's own.
const ASIDE: &[&str] = &[
    "node_modules",
    "vendor",
    "example",
    "examples",
    "sample",
    "samples",
    "demo",
    "demos",
    "doc",
    "docs",
    "test",
    "tests",
    "e2e",
    "fixtures",
    "template",
    "templates",
    "target",
    "dist",
];

/// The files of the tree that [`super::scan`] wants to read for the app in the folder `root`: at
/// most 60 and 2 MiB, none over 256 KiB.
pub fn wanted_files(tree: &[Entry], root: &str) -> Vec<String> {
    let small = |entry: &&Entry| entry.size.is_none_or(|size| size <= MAX_BYTES);
    let mut wanted: Vec<(usize, &Entry)> = tree
        .iter()
        .filter(small)
        .filter_map(|entry| Some((worth(below(root, &entry.path)?)?, entry)))
        .collect();
    wanted.sort_unstable_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
    let (mut bytes, mut nested) = (0, 0);
    wanted.retain(|(worth, _)| {
        let is_nested = *worth == NAMED.len();
        nested += usize::from(is_nested);
        !is_nested || nested <= NESTED_MAX
    });
    wanted.truncate(MAX_FILES);
    wanted.retain(|(_, entry)| {
        bytes += entry.size.unwrap_or(GUESSED_BYTES);
        bytes <= MAX_TOTAL_BYTES
    });
    wanted.into_iter().map(|(_, entry)| entry.path.clone()).collect()
}

/// Smaller is worth more; nothing for a file that is not read.
fn worth(path: &str) -> Option<usize> {
    if let Some(at) = NAMED.iter().position(|name| fits(name, path)) {
        return Some(at);
    }
    if is_aside(path) {
        return None;
    }
    if NESTED.iter().any(|name| fits(name, path)) {
        return Some(NAMED.len());
    }
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(f, n)| (f, n));
    let known = CODE_FOLDERS.iter().any(|known| fits(known, folder));
    // Django keeps its settings in a folder that is called as the project.
    let django = matches!(name, "settings.py" | "urls.py") && !folder.contains('/');
    let jvm = folder.starts_with("src/main/") && is_code(name) && name.contains("Application");
    let start = known && is_start(name);
    (start || django || jvm).then_some(NAMED.len() + 1 + path.matches('/').count())
}

/// Whether a path is what a pattern with `*` within names means.
fn fits(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) => match pattern.split_once('*') {
                None if pattern == part => {}
                Some((begin, end))
                    if part.len() >= begin.len() + end.len()
                        && part.starts_with(begin)
                        && part.ends_with(end) => {}
                _ => return false,
            },
            _ => return false,
        }
    }
}

fn is_start(name: &str) -> bool {
    is_code(name)
        && name.split_once('.').is_some_and(|(stem, _)| {
            CODE_STEMS.iter().any(|known| stem.eq_ignore_ascii_case(known))
        })
}

/// Whether a path is source code that may be read.
pub(super) fn is_code(path: &str) -> bool {
    CODE_ENDS.iter().any(|end| path.ends_with(end))
}

/// Whether a path lies in a folder of examples, tests or foreign code. Further down, such a name
/// may be a package's: `src/main/java/com/example`.
pub(super) fn is_aside(path: &str) -> bool {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    folder.split('/').take(3).any(|part| ASIDE.contains(&part))
}

/// The path below `root`, if it lies there.
pub(super) fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    if root == "." {
        return Some(path);
    }
    path.strip_prefix(root)?.strip_prefix('/')
}
