//! Object ids against the real git.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use vmkit_sandbox::github::git::{Commit, FileContent, Files, GitStore, Mode, Person};
use vmkit_sandbox::sample;

fn git(dir: &Path, arguments: &[&str], input: &[u8]) -> Option<String> {
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([
            ("GIT_AUTHOR_NAME", "octo"),
            ("GIT_AUTHOR_EMAIL", "octo@example.com"),
            ("GIT_AUTHOR_DATE", "1760000000 +0000"),
        ])
        .envs([
            ("GIT_COMMITTER_NAME", "octo"),
            ("GIT_COMMITTER_EMAIL", "octo@example.com"),
            ("GIT_COMMITTER_DATE", "1760000000 +0000"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(input).ok()?;
    let output = child.wait_with_output().ok()?;
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn ids_are_those_of_git() {
    let dir = tempfile::tempdir().unwrap();
    if git(dir.path(), &["init", "-q", "."], b"").is_none() {
        eprintln!("SKIPPED: git is not installed, so object ids are not compared with its own");
        return;
    }
    let mut files: Files = sample::files();
    // Names whose order differs between git (directories end in a slash) and a plain sort.
    for path in ["lib/a.txt", "lib.rs", "lib-2/b", "lib0", "deep/er/est/file"] {
        files.insert(path.to_owned(), FileContent::plain(path.as_bytes()));
    }
    files.insert(
        "run.sh".to_owned(),
        FileContent { mode: Mode::Executable, bytes: b"#!/bin/sh\n".as_slice().into() },
    );
    let mut store = GitStore::default();
    for (path, file) in &files {
        let own = store.put_blob(file.bytes.clone());
        let theirs = git(dir.path(), &["hash-object", "-w", "--stdin"], &file.bytes).unwrap();
        assert_eq!(own, theirs, "{path}");
        let info = format!("{},{own},{path}", file.mode.as_str());
        git(dir.path(), &["update-index", "--add", "--cacheinfo", &info], b"").unwrap();
    }
    let tree = store.put_files(&files);
    assert_eq!(tree, git(dir.path(), &["write-tree"], b"").unwrap());
    assert_eq!(store.put_flat(&store.flat(&tree)), tree);

    let person =
        Person { name: "octo".into(), email: "octo@example.com".into(), at_s: 1_760_000_000 };
    let commit = |parents: Vec<String>, message: &str| Commit {
        tree: tree.clone(),
        parents,
        author: person.clone(),
        committer: person.clone(),
        message: message.to_owned(),
    };
    let first = store.put_commit(commit(Vec::new(), "First\n"));
    assert_eq!(first, git(dir.path(), &["commit-tree", &tree], b"First\n").unwrap());
    let second = store.put_commit(commit(vec![first.clone()], "Second\n\nwith a body\n"));
    assert_eq!(
        second,
        git(dir.path(), &["commit-tree", &tree, "-p", &first], b"Second\n\nwith a body\n").unwrap()
    );
    assert!(store.is_ancestor(&first, &second));
    assert!(!store.is_ancestor(&second, &first));
}
