//! The path that is asked until it answers 2xx: one that the code has, else `/`.

use std::sync::LazyLock;

use regex::Regex;

use super::{Evidence, files};

const USUAL: &[&str] = &[
    "/up",
    "/healthz",
    "/health",
    "/healthcheck",
    "/livez",
    "/ping",
    "/_health",
    "/api/health",
    "/api/healthz",
    "/api/healthcheck",
    "/health-check",
    "/status",
];

/// A path that stands alone in quotes, or after a method, perhaps without its first slash.
static QUOTED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"["'`](?:GET )?(/?[a-z_][a-z0-9_/-]{1,40})["'`]"#).expect("a fixed pattern")
});

/// Words before a quoted path without its slash that make it a route.
static ROUTE: LazyLock<Regex> = LazyLock::new(|| {
    let words = r#"(?:\bget|\bpath|\bre_path|Controller|\broute|\bmatch|Get|scope)"#;
    Regex::new(&format!(r#"{words}\s*\(?\s*["'`]([a-z_][a-z0-9_/-]{{1,40}})["'`]"#))
        .expect("a fixed pattern")
});

pub(super) fn look(evidence: &mut Evidence<'_>) {
    let said = evidence.scan.findings.iter().any(|finding| finding.what == "health_path");
    if said || evidence.is_worker_only() || evidence.scan.build.is_none() {
        return;
    }
    let hit = in_code(evidence).or_else(|| in_tree(evidence)).or_else(|| in_readme(evidence));
    if let Some((path, file)) = hit {
        evidence.found("health_path", path.as_str(), &file);
        evidence.scan.health_path = path;
        return;
    }
    let text =
        "no health path was recognised, so `/` is asked, which must answer 2xx without a login";
    let fix = "a path of its own, such as `/up`, is better";
    evidence.note("no_health_path", text, fix, None);
}

/// The most usual path that any file has.
fn in_code(evidence: &Evidence<'_>) -> Option<(String, String)> {
    let mut best: Option<(usize, String, &str)> = None;
    for (file, text) in &evidence.code {
        if files::is_aside(file) {
            continue;
        }
        let quoted = QUOTED.captures_iter(text).map(|hit| hit[1].to_owned());
        let quoted = quoted.filter(|path| path.starts_with('/'));
        let routes = ROUTE.captures_iter(text).map(|hit| format!("/{}", &hit[1]));
        for path in quoted.chain(routes) {
            let plain = path.trim_end_matches('/');
            let Some(rank) = USUAL.iter().position(|usual| *usual == plain) else { continue };
            if best.as_ref().is_none_or(|(known, ..)| rank < *known) {
                best = Some((rank, path, file));
            }
        }
    }
    best.map(|(_, path, file)| (path, file.to_owned()))
}

/// Frameworks whose routes are files.
fn in_tree(evidence: &Evidence<'_>) -> Option<(String, String)> {
    const FOLDERS: &[&str] = &[
        "app/",
        "pages/",
        "src/app/",
        "src/pages/",
        "src/routes/",
        "app/routes/",
        "server/",
        "server/routes/",
    ];
    let ends =
        ["/route.ts", "/route.js", "/+server.ts", "/+server.js", ".get.ts", ".tsx", ".ts", ".js"];
    evidence.paths.iter().find_map(|file| {
        let folder = FOLDERS.iter().rev().find(|folder| file.starts_with(**folder))?;
        let rest = &file[folder.len() - 1..];
        let end = ends.iter().find(|end| rest.ends_with(**end))?;
        let path = rest.strip_suffix(end)?.replace('.', "/");
        let path = path.strip_suffix("/index").unwrap_or(&path).to_owned();
        USUAL.contains(&path.as_str()).then(|| (path, (*file).to_owned()))
    })
}

/// A README says it in words: "`GET /up` answers 200".
fn in_readme(evidence: &Evidence<'_>) -> Option<(String, String)> {
    // Where code was read, it knows better than words.
    if evidence.scan.stack != "Dockerfile" {
        return None;
    }
    let text = evidence.text("README.md")?;
    let named = |path: &&&str| {
        text.match_indices(&format!("GET {path}")).any(|(at, hit)| {
            let next = text[at + hit.len()..].chars().next();
            !next.is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | '-' | '_'))
        })
    };
    let path = USUAL.iter().find(named)?;
    Some(((*path).to_owned(), "README.md".to_owned()))
}
