//! Which fine-grained permission a request needs, as GitHub names it in
//! `X-Accepted-GitHub-Permissions`.

use http::Method;

/// The permission, such as `contents=write`; none for what every token may do.
pub(super) fn needed(method: &Method, path: &str) -> Option<String> {
    let mut parts = path.trim_matches('/').split('/');
    if parts.next() != Some("repos") {
        return None;
    }
    let rest: Vec<&str> = parts.skip(2).collect();
    let reads = method == Method::GET || method == Method::HEAD;
    let name = match rest.as_slice() {
        [] | ["languages", ..] => "metadata",
        ["contents" | "git" | "commits" | "branches" | "compare" | "tarball" | "zipball", ..] => {
            "contents"
        }
        ["pulls", _, "merge"] => "contents",
        ["pulls", ..] => "pull_requests",
        ["actions", "permissions", ..] => "administration",
        ["actions", "secrets", ..] => "secrets",
        ["actions", "variables", ..] => "variables",
        ["actions", ..] => "actions",
        ["check-runs", ..] => "checks",
        ["environments", ..] if reads => "actions",
        ["environments", ..] => "administration",
        ["hooks", ..] => "repository_hooks",
        _ => "metadata",
    };
    Some(format!("{name}={}", if reads || name == "metadata" { "read" } else { "write" }))
}
