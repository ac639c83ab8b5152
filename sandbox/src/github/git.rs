//! A small git object store: blobs, trees and commits under their true SHA-1 ids, so that ids which
//! the simulator answers are those that `git` itself would compute.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha1::{Digest, Sha1};

/// What a tree entry is, by git's modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `100644`.
    File,
    /// `100755`.
    Executable,
    /// `120000`.
    Symlink,
    /// `040000`.
    Directory,
    /// `160000`.
    Submodule,
}

impl Mode {
    /// The six digits of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Directory => "040000",
            Self::Submodule => "160000",
        }
    }

    /// `blob`, `tree` or `commit`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::File | Self::Executable | Self::Symlink => "blob",
            Self::Directory => "tree",
            Self::Submodule => "commit",
        }
    }

    /// Reads the six digits of the API.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "100644" => Some(Self::File),
            "100755" => Some(Self::Executable),
            "120000" => Some(Self::Symlink),
            "040000" => Some(Self::Directory),
            "160000" => Some(Self::Submodule),
            _ => None,
        }
    }
}

/// An entry of one tree, or of a flattened one (then `path` has slashes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name within its tree, or the path from the root.
    pub path: String,
    /// What it is.
    pub mode: Mode,
    /// The object's id, 40 hexadecimal digits.
    pub sha: String,
}

/// Who wrote a commit, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Full name.
    pub name: String,
    /// Address.
    pub email: String,
    /// Seconds since 1970, UTC.
    pub at_s: i64,
}

impl Person {
    fn line(&self) -> String {
        format!("{} <{}> {} +0000", self.name, self.email, self.at_s)
    }
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Id of its tree.
    pub tree: String,
    /// Ids of its parents.
    pub parents: Vec<String>,
    /// Who wrote it.
    pub author: Person,
    /// Who committed it.
    pub committer: Person,
    /// The message, as given.
    pub message: String,
}

/// The content of a file in a flattened tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// `File`, `Executable` or `Symlink`.
    pub mode: Mode,
    /// The bytes.
    pub bytes: Arc<[u8]>,
}

impl FileContent {
    /// An ordinary file.
    pub fn plain(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { mode: Mode::File, bytes: bytes.into() }
    }
}

/// Files of a commit by path.
pub type Files = BTreeMap<String, FileContent>;

/// The objects of one repo.
#[derive(Debug, Default)]
pub struct GitStore {
    blobs: HashMap<String, Arc<[u8]>>,
    trees: HashMap<String, Vec<Entry>>,
    commits: HashMap<String, Commit>,
}

fn object_id(kind: &str, body: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("{kind} {}\0", body.len()));
    hash.update(body);
    hex::encode(hash.finalize())
}

impl GitStore {
    /// Stores a blob; answers its id.
    pub fn put_blob(&mut self, bytes: impl Into<Arc<[u8]>>) -> String {
        let bytes = bytes.into();
        let sha = object_id("blob", &bytes);
        self.blobs.entry(sha.clone()).or_insert(bytes);
        sha
    }

    /// Stores one tree of direct entries; answers its id. An id that is not hexadecimal is left out.
    pub fn put_tree(&mut self, mut entries: Vec<Entry>) -> String {
        // Git sorts directories as if their names ended in a slash.
        entries.sort_by_key(|entry| {
            let slash = if entry.mode == Mode::Directory { "/" } else { "" };
            format!("{}{slash}", entry.path).into_bytes()
        });
        let mut body = Vec::new();
        for entry in &entries {
            let Ok(id) = hex::decode(&entry.sha) else { continue };
            body.extend(
                format!("{} {}\0", entry.mode.as_str().trim_start_matches('0'), entry.path).bytes(),
            );
            body.extend(id);
        }
        let sha = object_id("tree", &body);
        self.trees.entry(sha.clone()).or_insert(entries);
        sha
    }

    /// Stores a commit; answers its id.
    pub fn put_commit(&mut self, commit: Commit) -> String {
        let mut text = format!("tree {}\n", commit.tree);
        for parent in &commit.parents {
            text.push_str(&format!("parent {parent}\n"));
        }
        text.push_str(&format!("author {}\n", commit.author.line()));
        text.push_str(&format!("committer {}\n\n{}", commit.committer.line(), commit.message));
        let sha = object_id("commit", text.as_bytes());
        self.commits.entry(sha.clone()).or_insert(commit);
        sha
    }

    /// A blob's bytes.
    pub fn blob(&self, sha: &str) -> Option<Arc<[u8]>> {
        self.blobs.get(sha).cloned()
    }

    /// A tree's direct entries.
    pub fn tree(&self, sha: &str) -> Option<&[Entry]> {
        self.trees.get(sha).map(Vec::as_slice)
    }

    /// A commit.
    pub fn commit(&self, sha: &str) -> Option<&Commit> {
        self.commits.get(sha)
    }

    /// The only commit whose id begins with `prefix` (at least 4 digits).
    pub fn commit_by_prefix(&self, prefix: &str) -> Option<String> {
        if prefix.len() < 4 {
            return None;
        }
        let mut found = self.commits.keys().filter(|sha| sha.starts_with(prefix));
        found.next().filter(|_| found.next().is_none()).cloned()
    }

    /// Everything below a tree in git's order, directories before what they hold.
    pub fn walk(&self, tree: &str) -> Vec<Entry> {
        let mut found = Vec::new();
        self.walk_into(tree, "", &mut found);
        found
    }

    fn walk_into(&self, tree: &str, prefix: &str, found: &mut Vec<Entry>) {
        for entry in self.trees.get(tree).into_iter().flatten() {
            let path = format!("{prefix}{}", entry.path);
            found.push(Entry { path: path.clone(), mode: entry.mode, sha: entry.sha.clone() });
            if entry.mode == Mode::Directory {
                self.walk_into(&entry.sha, &format!("{path}/"), found);
            }
        }
    }

    /// The entry at a path below a tree.
    pub fn find(&self, tree: &str, path: &str) -> Option<Entry> {
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        let entry = self.tree(tree)?.iter().find(|entry| entry.path == name)?;
        match (rest, entry.mode) {
            ("", _) => Some(Entry { path: path.to_owned(), ..entry.clone() }),
            (_, Mode::Directory) => {
                self.find(&entry.sha, rest).map(|found| Entry { path: path.to_owned(), ..found })
            }
            _ => None,
        }
    }

    /// The files of a commit, directories and submodules left out.
    pub fn files(&self, commit: &str) -> Option<Files> {
        let tree = &self.commit(commit)?.tree;
        let files = self.walk(tree).into_iter().filter_map(|entry| {
            let bytes = self.blob(&entry.sha)?;
            (entry.mode.kind() == "blob")
                .then_some((entry.path, FileContent { mode: entry.mode, bytes }))
        });
        Some(files.collect())
    }

    /// One file of a commit.
    pub fn file(&self, commit: &str, path: &str) -> Option<Arc<[u8]>> {
        let entry = self.find(&self.commit(commit)?.tree, path)?;
        self.blob(&entry.sha)
    }

    /// Builds the trees for a flat list of entries with paths; answers the root's id.
    pub fn put_flat(&mut self, flat: &BTreeMap<String, (Mode, String)>) -> String {
        let mut direct = Vec::new();
        let mut below: BTreeMap<&str, BTreeMap<String, (Mode, String)>> = BTreeMap::new();
        for (path, value) in flat {
            match path.split_once('/') {
                None => {
                    direct.push(Entry { path: path.clone(), mode: value.0, sha: value.1.clone() })
                }
                Some((folder, rest)) => {
                    below.entry(folder).or_default().insert(rest.to_owned(), value.clone());
                }
            }
        }
        for (folder, inside) in below {
            let sha = self.put_flat(&inside);
            direct.retain(|entry| entry.path != folder);
            direct.push(Entry { path: folder.to_owned(), mode: Mode::Directory, sha });
        }
        self.put_tree(direct)
    }

    /// The leaves below a tree by path.
    pub fn flat(&self, tree: &str) -> BTreeMap<String, (Mode, String)> {
        let leaves = self.walk(tree).into_iter().filter(|entry| entry.mode != Mode::Directory);
        leaves.map(|entry| (entry.path, (entry.mode, entry.sha))).collect()
    }

    /// Stores files; answers the root tree's id.
    pub fn put_files(&mut self, files: &Files) -> String {
        let flat = files.iter().map(|(path, file)| {
            (path.clone(), (file.mode, self.put_blob(Arc::clone(&file.bytes))))
        });
        let flat = flat.collect();
        self.put_flat(&flat)
    }

    /// Whether `ancestor` is `commit` or one of its ancestors.
    pub fn is_ancestor(&self, ancestor: &str, commit: &str) -> bool {
        self.history(commit).iter().any(|sha| sha == ancestor)
    }

    /// A commit and its ancestors, nearest first.
    pub fn history(&self, commit: &str) -> Vec<String> {
        let mut seen = vec![commit.to_owned()];
        let mut next = 0;
        while let Some(sha) = seen.get(next).cloned() {
            for parent in self.commit(&sha).map(|commit| commit.parents.clone()).unwrap_or_default()
            {
                if !seen.contains(&parent) {
                    seen.push(parent);
                }
            }
            next += 1;
        }
        seen
    }
}
