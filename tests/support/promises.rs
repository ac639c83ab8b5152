//! The folders of `tests/compat/`: what shipped versions promise, each a number higher than the
//! one before. A file in them never changes: what differs today is a promise of its own.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat")
}

/// Every version of a file with its folder's number, the oldest first.
pub(crate) fn all(file: &str) -> Vec<(u32, String)> {
    let folders = fs::read_dir(root()).into_iter().flatten().filter_map(|entry| {
        let number = entry.ok()?.file_name().to_str()?.parse::<u32>().ok()?;
        let text = fs::read_to_string(root().join(format!("{number:04}")).join(file)).ok()?;
        Some((number, text))
    });
    let mut found: Vec<(u32, String)> = folders.collect();
    found.sort();
    found
}

/// Accepts today's text as a new promise where that is asked for; fails otherwise. To be called
/// where the newest version of the file does not say what holds today.
#[track_caller]
pub(crate) fn promise(file: &str, today: &str, difference: &str, command: &str) {
    let number = all(file).last().map_or(1, |(number, _)| number + 1);
    let folder = root().join(format!("{number:04}"));
    let path = folder.join(file);
    let asked = std::env::vars().any(|(name, _)| name == "VMKIT_ACCEPT");
    assert!(
        asked,
        "no version of tests/compat/*/{file} says what holds today:\n{difference}\n\nTo promise it \
         as tests/compat/{number:04}/{file}, beside the older ones: VMKIT_ACCEPT=1 {command}\n"
    );
    fs::create_dir_all(&folder).expect("the folder");
    assert!(!path.exists(), "{} is never overwritten", path.display());
    fs::write(&path, today).expect("written");
}

/// The lines that only one of two texts has.
pub(crate) fn difference(before: &str, today: &str) -> String {
    let only = |sign: char, one: &str, other: &str| {
        let lines = one.lines().filter(|line| !other.lines().any(|l| l == *line));
        lines.map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only('-', before, today), only('+', today, before)].concat().join("\n")
}
