//! Apps: a repo, a root directory in it, and what a scan found out.

use std::collections::BTreeMap;

use rusqlite::{Row, params};
use serde_json::Value;
use sha2::Digest;

use super::{Outcome, Store, StoreError, collect, first, json, parsed, word};
use crate::domain::clock::Millis;
use crate::domain::environment::App;
use crate::domain::ids::AppId;
use crate::domain::names::AppSlug;

/// How many digests of a file of ours are remembered.
const WRITTEN_MAX: usize = 20;
/// How many contents of a file of ours are kept, to tell a person's edit from ours.
const CONTENTS_MAX: u32 = 5;

/// How later changes of the generated files reach the repo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changes {
    /// By a pull request that a person merges.
    Pr,
    /// By a pull request that we merge at once where the repo's rules allow it.
    AutoMerge,
    /// By a commit on the default branch.
    Direct,
}

impl Changes {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pr => "pr",
            Self::AutoMerge => "auto_merge",
            Self::Direct => "direct",
        }
    }
}

/// An app with what is kept beside it.
#[derive(Debug, Clone)]
pub struct AppRow {
    /// The app.
    pub app: App,
    /// How later changes reach the repo.
    pub changes: Changes,
    /// What the scan found, as the pipeline wrote it.
    pub scan: Value,
    /// The digests of each generated file as it was written, the newest last: an older one may
    /// still be in the repo while a pull request with the newer waits.
    pub written: BTreeMap<String, Vec<String>>,
}

impl AppRow {
    /// Whether a content with this digest was written by us.
    pub fn wrote(&self, path: &str, digest: &str) -> bool {
        self.written.get(path).is_some_and(|known| known.iter().any(|one| one == digest))
    }
}

/// A file as we wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its SHA-256, in hex.
    pub digest: String,
    /// All of it.
    pub content: String,
}

impl Written {
    /// A content as it was written.
    pub fn of(content: &str) -> Self {
        let digest = hex::encode(sha2::Sha256::digest(content.as_bytes()));
        Self { digest, content: content.to_owned() }
    }
}

/// No app is ever deleted, so which one of its repo was the first does not change.
macro_rules! select_app {
    ($rest:literal) => {
        concat!(
            "select app.*, exists (select 1 from app as older where older.repo_id = app.repo_id
                 and (older.created_at, older.id) < (app.created_at, app.id)) as named_files
             from app ",
            $rest
        )
    };
}

fn read_changes(row: &Row<'_>) -> Outcome<Changes> {
    Ok(match row.get("auto_merge")? {
        true => Changes::AutoMerge,
        false => word(row, "changes")?,
    })
}

fn read_app(row: &Row<'_>) -> Outcome<AppRow> {
    Ok(AppRow {
        app: App {
            id: parsed(row, "id")?,
            slug: parsed(row, "slug")?,
            repo_id: row.get("repo_id")?,
            repo: parsed(row, "repo")?,
            default_branch: row.get("default_branch")?,
            root: row.get("root")?,
            named_files: row.get("named_files")?,
            created_at: Millis(row.get("created_at")?),
        },
        changes: read_changes(row)?,
        scan: json(row, "scan")?,
        written: json(row, "written")?,
    })
}

impl Store {
    /// Writes an app; the same repo and root again updates what may change. Returns what is kept.
    pub async fn put_app(&self, row: AppRow) -> Result<AppRow, StoreError> {
        self.write(move |tx| {
            let app = &row.app;
            tx.execute(
                "insert into app (id, slug, repo_id, repo, default_branch, root, changes, scan, created_at,
                     auto_merge)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 on conflict (repo_id, root) do update set repo = excluded.repo,
                     default_branch = excluded.default_branch, changes = excluded.changes, scan = excluded.scan,
                     auto_merge = excluded.auto_merge",
                params![
                    app.id.to_string(),
                    app.slug.as_str(),
                    app.repo_id,
                    app.repo.as_str(),
                    app.default_branch,
                    app.root,
                    // The column is older than `auto_merge`, which has one of its own.
                    if row.changes == Changes::Direct { "direct" } else { "pr" },
                    row.scan.to_string(),
                    app.created_at.0,
                    row.changes == Changes::AutoMerge
                ],
            )?;
            let mut select = tx.prepare(select_app!("where repo_id = ?1 and root = ?2"))?;
            let kept = first(select.query(params![app.repo_id, app.root])?, read_app)?;
            Ok(kept.unwrap_or(row))
        })
        .await
    }

    /// Notes what was written into the repo, by path.
    pub async fn note_written(
        &self,
        app: AppId,
        files: BTreeMap<String, Written>,
        at: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let app = app.to_string();
            let mut select = tx.prepare("select written from app where id = ?1")?;
            let known = first(select.query([&app])?, |row| json(row, "written"))?;
            let mut written: BTreeMap<String, Vec<String>> = known.unwrap_or_default();
            for (path, Written { digest, content }) in files {
                tx.execute(
                    "insert into written_file (app, path, digest, content, written_at)
                     values (?1, ?2, ?3, ?4, ?5)
                     on conflict do update set written_at = excluded.written_at",
                    params![app, path, digest, content, at.0],
                )?;
                tx.execute(
                    "delete from written_file where app = ?1 and path = ?2 and digest not in
                     (select digest from written_file where app = ?1 and path = ?2
                      order by written_at desc, rowid desc limit ?3)",
                    params![app, path, CONTENTS_MAX],
                )?;
                let digests = written.entry(path).or_default();
                digests.retain(|known| *known != digest);
                digests.push(digest);
                let surplus = digests.len().saturating_sub(WRITTEN_MAX);
                digests.drain(..surplus);
            }
            let written =
                serde_json::to_string(&written).map_err(|error| super::unreadable("app", error))?;
            tx.execute("update app set written = ?2 where id = ?1", params![app, written])?;
            Ok(())
        })
        .await
    }

    /// What we wrote into a file of an app's repo, the newest first, as far as it is kept.
    pub async fn written_contents(
        &self,
        app: AppId,
        path: String,
    ) -> Result<Vec<String>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select content from written_file where app = ?1 and path = ?2
                 order by written_at desc, rowid desc",
            )?;
            let rows = select.query(params![app.to_string(), path])?;
            collect(rows, |row| Ok(row.get(0)?))
        })
        .await
    }

    /// Moves an app to another folder of its repo, with what a scan found there. `false` where the
    /// repo has another app there.
    pub async fn move_app(
        &self,
        app: AppId,
        root: String,
        scan: Value,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "update or ignore app set root = ?2, scan = ?3 where id = ?1",
                params![app.to_string(), root, scan.to_string()],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    /// An app by its slug.
    pub async fn app(&self, slug: AppSlug) -> Result<Option<AppRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(select_app!("where slug = ?1"))?;
            first(select.query([slug.as_str()])?, read_app)
        })
        .await
    }

    /// The app of a repo and a root directory.
    pub async fn app_of_repo(
        &self,
        repo_id: u64,
        root: String,
    ) -> Result<Option<AppRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(select_app!("where repo_id = ?1 and root = ?2"))?;
            first(select.query(params![repo_id, root])?, read_app)
        })
        .await
    }

    /// Every app, by slug.
    pub async fn apps(&self) -> Result<Vec<AppRow>, StoreError> {
        self.read(|db| {
            let mut select = db.prepare_cached(select_app!("order by slug"))?;
            collect(select.query([])?, read_app)
        })
        .await
    }
}
