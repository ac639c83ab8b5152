//! Traces of the machine that a text was written on: they mean nothing to anybody else.

/// Home folders that may be named: of the users that a VM of ours has, of GitHub's runner, and of
/// people made up for tests.
const HOMES: &[&str] = &["kamal", "vmkit", "admin", "runner", "anna", "x"];

/// Hosts of package registries; ordinary clients know them, and mirrors have other names. Written
/// in pieces, so that this file holds none.
fn hosts() -> Vec<String> {
    [["crates", "io"], ["pypi", "org"], ["npmjs", "org"], ["npmjs", "com"], ["deb.debian", "org"]]
        .iter()
        .map(|pieces| pieces.join("."))
        .collect()
}

/// Every such trace in a file, one line each. `root` is where this checkout lies.
pub(crate) fn faults(path: &str, text: &str, root: &str) -> Vec<String> {
    let hosts = hosts();
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", number + 1);
        if names_checkout(line, root) || names_home(line) || names_work(line) {
            faults.push(format!("{place}: names a path of a developer's machine"));
        }
        if hosts.iter().any(|host| line.contains(host.as_str())) {
            faults.push(format!("{place}: names the host of a package registry"));
        }
    }
    faults
}

/// The folder of this checkout, unless it is so short that others would have it too.
fn names_checkout(line: &str, root: &str) -> bool {
    root.matches('/').count() >= 2 && line.contains(root)
}

fn names_home(line: &str) -> bool {
    let users = [["/home", "/"].concat(), ["/Users", "/"].concat()];
    let somebodys = users.iter().any(|prefix| {
        starts(line, prefix).any(|rest| {
            let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            !name.is_empty() && !HOMES.contains(&name.as_str())
        })
    });
    somebodys
        || [".cargo", ".rustup", ".pyenv"]
            .iter()
            .any(|folder| line.contains(&["/root/", folder].concat()))
}

fn names_work(line: &str) -> bool {
    starts(line, &["/work", "/"].concat()).next().is_some()
}

/// What follows each absolute path in a line that begins with `prefix`.
fn starts<'a>(line: &'a str, prefix: &str) -> impl Iterator<Item = &'a str> {
    let inside = |c: char| c.is_ascii_alphanumeric() || "_./$}~".contains(c);
    line.match_indices(prefix)
        .filter(move |(at, _)| !line[..*at].ends_with(inside))
        .map(|(at, found)| &line[at + found.len()..])
        .collect::<Vec<_>>()
        .into_iter()
}
