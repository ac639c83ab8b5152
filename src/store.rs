//! The state file: the only SQL. One writer, several readers, none of them on an async thread.
//!
//! Several processes may have one file open at once: WAL lets readers go on while one writes, and
//! a writer waits up to [`BUSY_TIMEOUT_MS`] for another. No SQLite type leaves this module.

mod account;
mod adoption;
mod app;
mod audit;
mod deploy;
mod domain;
mod env_var;
mod environment;
mod installation;
mod journal;
mod key;
mod operation;
mod plan;
mod price_list;
mod retirement;
mod service;
mod vm;
mod vm_link;
mod webhook;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior};

pub use account::StoredAccount;
pub use adoption::Adoption;
pub use app::{AppRow, Changes, Written};
pub use audit::AuditEntry;
pub use domain::{Claim, DnsRecordRow};
pub use env_var::{EnvChange, EnvRow};
pub use environment::DeployKey;
pub use installation::{Installation, Mode};
pub use journal::Lease;
pub use key::{KeyRow, Role};
pub use operation::{
    Failure, Lock, LockMode, NewOperation, OperationRow, Queued, StepRow, StepState,
};
pub use plan::PlanRow;
pub use vm::{Enrolment, VmRow};
pub use vm_link::VmLink;
pub use webhook::Delivery;

/// How long a statement waits for another process's write, in milliseconds.
pub const BUSY_TIMEOUT_MS: u64 = 10_000;

/// How often the switch to WAL is tried again where another process does the same.
const WAL_TRIES: u32 = 50;

/// Every migration in order; a file's `user_version` is how many of them it has had.
const MIGRATIONS: [&str; 10] = [
    include_str!("store/migrations/0001_initial.sql"),
    include_str!("store/migrations/0002_environment_provider.sql"),
    include_str!("store/migrations/0003_price_list.sql"),
    include_str!("store/migrations/0004_domains.sql"),
    include_str!("store/migrations/0005_vm_link.sql"),
    include_str!("store/migrations/0006_retirement.sql"),
    include_str!("store/migrations/0007_run_settings.sql"),
    include_str!("store/migrations/0008_adoption.sql"),
    include_str!("store/migrations/0009_webhook.sql"),
    include_str!("store/migrations/0010_service.sql"),
];

/// Why the state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process held the file for too long.
    #[error("the state file {path} is locked by another process; end that process or try again")]
    Locked {
        /// The file.
        path: String,
    },
    /// The file or its folder cannot be written.
    #[error("the state file {path} is read-only; make it and its folder writable for this user")]
    ReadOnly {
        /// The file.
        path: String,
    },
    /// A newer VMKit wrote the file.
    #[error(
        "the state file {path} has schema {found} and this VMKit knows {known}; use the newer VMKit that wrote it"
    )]
    Newer {
        /// The file.
        path: String,
        /// The schema of the file.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// What is there is not a database of ours, or a broken one.
    #[error("the state file {path} is damaged or not a VMKit database; restore a backup of it")]
    Corrupt {
        /// The file.
        path: String,
    },
    /// The disk is full.
    #[error("the disk that holds the state file {path} is full; free some space")]
    Full {
        /// The file.
        path: String,
    },
    /// The file cannot be opened.
    #[error("the state file {path} cannot be opened; check that its folder exists and is yours")]
    CannotOpen {
        /// The file.
        path: String,
    },
    /// Somebody else holds the lease by now.
    #[error("operation {operation} is driven by another process now")]
    LostLease {
        /// The operation.
        operation: String,
    },
    /// What is stored cannot be understood.
    #[error("the stored {what} cannot be understood: {detail}")]
    Unreadable {
        /// The kind of row.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A fault of ours: a statement that SQLite refused.
    #[error("the state file {path} refused a statement")]
    Internal {
        /// The file.
        path: String,
        /// What SQLite said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "store_locked",
            Self::ReadOnly { .. } => "store_read_only",
            Self::Newer { .. } => "store_newer",
            Self::Corrupt { .. } => "store_corrupt",
            Self::Full { .. } => "store_full",
            Self::CannotOpen { .. } => "store_cannot_open",
            Self::LostLease { .. } => "lease_lost",
            Self::Unreadable { .. } => "store_unreadable",
            Self::Internal { .. } => "store_internal",
        }
    }

    /// Whether the same call may go through later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Locked { .. } | Self::Full { .. } => true,
            Self::ReadOnly { .. }
            | Self::Newer { .. }
            | Self::Corrupt { .. }
            | Self::CannotOpen { .. }
            | Self::LostLease { .. }
            | Self::Unreadable { .. }
            | Self::Internal { .. } => false,
        }
    }
}

/// What a closure on a connection may end with.
#[derive(Debug)]
enum Fault {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

type Outcome<T> = Result<T, Fault>;

/// The state file. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// Readers that are not in use. One more is opened when it is empty; at most as many exist as
    /// calls run at once.
    readers: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the file, makes it where it does not exist, and brings its schema up to date.
    ///
    /// # Errors
    /// Every [`StoreError`] that a file can cause: locked, read-only, newer, damaged, full.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_path_buf();
        let opened = tokio::task::spawn_blocking(move || {
            let writer = open_writer(&path).map_err(|fault| explain(&path, fault))?;
            Ok(Self {
                shared: Arc::new(Shared {
                    path,
                    writer: Mutex::new(writer),
                    readers: Mutex::new(Vec::new()),
                }),
            })
        });
        opened.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Runs `work` in one write transaction, off the async threads.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        let ran = tokio::task::spawn_blocking(move || {
            let mut writer = shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let run = || -> Outcome<T> {
                let transaction =
                    writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            };
            run().map_err(|fault| explain(&shared.path, fault))
        });
        ran.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Runs `work` on a reader, off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        let ran = tokio::task::spawn_blocking(move || {
            let idle = shared.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let run = || -> Outcome<T> {
                let reader = match idle {
                    Some(reader) => reader,
                    None => open_reader(&shared.path)?,
                };
                let value = work(&reader);
                shared.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
                value
            };
            run().map_err(|fault| explain(&shared.path, fault))
        });
        ran.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

fn open_writer(path: &Path) -> Outcome<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    to_wal(&connection)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Switches the file to WAL, which a new file is not in yet. SQLite refuses that at once while
/// another process does the same, whatever the time-out says; so it is tried again behind a lock
/// that does wait.
fn to_wal(connection: &Connection) -> Outcome<()> {
    for _ in 0..WAL_TRIES {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                connection.execute_batch("begin immediate; rollback")?;
            }
            switched => return Ok(switched?),
        }
    }
    Ok(connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?)
}

fn open_reader(path: &Path) -> Outcome<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    Ok(connection)
}

/// Applies what the file has not had yet, all in one transaction: two processes that start at once
/// do not both apply it.
fn migrate(connection: &mut Connection, path: &Path) -> Outcome<()> {
    let known = MIGRATIONS.len() as i64;
    let version =
        |c: &Connection| c.query_row("pragma user_version", [], |row| row.get::<_, i64>(0));
    if version(connection)? == known {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found > known || found < 0 {
        let path = path.display().to_string();
        return Err(Fault::Store(StoreError::Newer { path, found, known }));
    }
    for migration in MIGRATIONS.iter().skip(found as usize) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

/// What SQLite's words mean to the person who owns the file.
fn explain(path: &Path, fault: Fault) -> StoreError {
    let error = match fault {
        Fault::Store(error) => return error,
        Fault::Sqlite(error) => error,
    };
    let path = path.display().to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::ReadOnly { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt { path },
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::CannotOpen) => StoreError::CannotOpen { path },
        _ => StoreError::Internal { path, source: Box::new(error) },
    }
}

/// A text column parsed into `T`.
fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: &'static str) -> Outcome<T>
where
    T::Err: std::fmt::Display,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error: T::Err| unreadable(column, error))
}

/// A text column that may be null, parsed into `T`.
fn parsed_or_null<T: std::str::FromStr>(row: &Row<'_>, column: &'static str) -> Outcome<Option<T>>
where
    T::Err: std::fmt::Display,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error: T::Err| unreadable(column, error))).transpose()
}

/// A text column that holds a word of a closed set, or JSON.
fn word<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &'static str) -> Outcome<T> {
    let text: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(text))
        .map_err(|error| unreadable(column, error))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &'static str) -> Outcome<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| unreadable(column, error))
}

fn json_or_null<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: &'static str,
) -> Outcome<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text).map_err(|error| unreadable(column, error)))
        .transpose()
}

fn unreadable(what: &'static str, detail: impl std::fmt::Display) -> Fault {
    Fault::Store(StoreError::Unreadable { what, detail: detail.to_string() })
}

/// All rows of a prepared statement through `read`.
fn collect<T>(
    mut rows: rusqlite::Rows<'_>,
    read: impl Fn(&Row<'_>) -> Outcome<T>,
) -> Outcome<Vec<T>> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The first row of a prepared statement through `read`, if there is one.
fn first<T>(
    mut rows: rusqlite::Rows<'_>,
    read: impl Fn(&Row<'_>) -> Outcome<T>,
) -> Outcome<Option<T>> {
    rows.next()?.map(read).transpose()
}

#[cfg(test)]
mod tests;
