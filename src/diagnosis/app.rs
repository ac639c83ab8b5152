//! The app's own last words. Only an app is heard here, and only about itself.

use std::sync::LazyLock;

use regex::Regex;

use super::Cause;
use super::rule::By::App;
use super::rule::Mends::Person;
use super::rule::{Row, Rule, Stage};

/// How many of the app's last lines count: what is older may have been mended by itself.
pub(super) const LINES: usize = 60;

const SET: &str =
    "call `set_env` with environment `{environment}` to set it, then `deploy` with ref `current`";

/// The deeper cause first.
pub(super) const ROWS: &[Row] = &[
    (
        "missing_env_key",
        App,
        r#"KeyError: '([A-Z][A-Z0-9_]{2,})'|[Mm]issing (?:required )?(?:env(?:ironment)? ?)(?:variables?|vars?):? *['"`]?([A-Z][A-Z0-9_]{2,})|(?i:env(?:ironment)? ?(?:variable|var)) ['"`]?([A-Z][A-Z0-9_]{2,})['"`]?(?: environment variable)? (?:(?:is|was|has) (?:not (?:been )?(?:set|defined|found|provided)|missing|required|undefined|empty)|not (?:set|found|defined)|must be (?:set|defined|provided)|is missing)|[Ee]nvironment variable not found: ['"`]?([A-Z][A-Z0-9_]{2,})|Set the ([A-Z][A-Z0-9_]{2,}) environment variable|UndefinedValueError: ([A-Z][A-Z0-9_]{2,}) not found"#,
        "the app needs the env key $1$2$3$4$5$6, and it has no value",
        SET,
        Person,
        "tool",
    ),
    (
        "missing_env_key",
        App,
        r#"key not found: "([A-Z][A-Z0-9_]{2,})"|Missing `(secret_key_base)` for|required key ([A-Z][A-Z0-9_]{2,}) missing value|required environment variable "([A-Z][A-Z0-9_]{2,})" is not set|could not fetch environment variable "([A-Z][A-Z0-9_]{2,})" because it is not set|Could not resolve placeholder '([A-Z][A-Z0-9_.]{2,})' in value|The ([A-Z][A-Z0-9_]{2,}) setting must not be empty|(?:^|[\s:>'"`])([A-Z][A-Z0-9]*_[A-Z0-9_]+|PORT|DSN)['"`]? (?:environment variable )?(?:must be set|(?:is|was) (?:not (?:set|defined|configured)|required|missing|undefined)|env(?:ironment)? (?:variable )?(?:is )?(?:required|missing|not set))"#,
        "the app needs the env key $1$2$3$4$5$6$7$8, and it has no value",
        SET,
        Person,
        "tool",
    ),
    (
        "missing_env_key",
        App,
        r"\b([A-Z][A-Z0-9_]{2,}): (?:parameter (?:null or )?not set|unbound variable)",
        "the app needs the env key $1, and it has no value",
        SET,
        Person,
        "tool",
    ),
    (
        "missing_env_key",
        App,
        r"No (application encryption key) has been specified",
        "the app needs the env key APP_KEY, and it has no value",
        SET,
        Person,
        "tool",
    ),
    (
        "missing_env_key",
        App,
        r"Missing encryption key to decrypt file with",
        "the app needs the env key RAILS_MASTER_KEY, and it has no value",
        SET,
        Person,
        "tool",
    ),
    (
        "out_of_memory",
        App,
        r"JavaScript heap out of memory|java\.lang\.OutOfMemoryError|^MemoryError$|fatal error: runtime: out of memory|Allowed memory size of \d+ bytes exhausted",
        "the app used up the memory that it may have",
        "let the app use less memory, or take a bigger size",
        Person,
        "tool",
    ),
    (
        "database_login_refused",
        App,
        r#"password authentication failed for user "?(\w+)|Access denied for user '(\w+)|WRONGPASS|NOAUTH Authentication required|P1000: Authentication failed|database "\w+" does not exist|P1003"#,
        "a database refused the app's login",
        "check the address, the name and the password in the env value with `list_env`, and set it anew with `set_env`",
        Person,
        "tool",
    ),
    (
        "database_unreachable",
        App,
        r#"(?:ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT)\b.*(?::(?:5432|3306|6379|27017|7700|6333)\b|db|postgres|mysql|redis|mongo)|P1001: Can't reach database server|[Cc]onnection to server (?:at|on socket) .* failed|could not connect to server|could not translate host name|ActiveRecord::ConnectionNotEstablished|PG::ConnectionBad|Communications link failure|dial tcp .*:(?:5432|3306|6379|27017): |Redis::CannotConnectError|SQLSTATE\[(?:08006|HY000)\] \[(?:7|2002|2003)\]|Error \d+ connecting to \S+:6379|DBConnection\.ConnectionError\) (?:tcp|ssl) connect|SequelizeConnectionRefusedError|MongoServerSelectionError|Connection refused - connect\(2\) for \S+ port (?:5432|3306|6379|27017)\b"#,
        "the app does not reach its database",
        "check the address in the env value (never localhost: a container of its own is another host) with `list_env`, and set it with `set_env`",
        Person,
        "tool",
    ),
    (
        "migration_failed",
        App,
        r"(Error: P30(?:05|06|09|18).*|P30(?:06|09|18)\b.*|migrate found failed migrations.*|django\.db\.migrations\.exceptions\.\w+.*|ActiveRecord::PendingMigrationError.*|Migrations are pending.*|later migrations canceled.*|alembic\.util\.exc\.CommandError: .*|Can't locate revision identified by .*|FlywayMigrateException.*|FlywayValidateException.*|Migration \S+ failed.*|Validate failed: Migrations have failed validation.*|\*\* \(Ecto\.MigrationError\) .*|Error during migration run.*|[Dd]irty database version \d+.*|migration file .* failed.*|Migrations? failed.*)",
        "a migration of the database failed: $1",
        "mend the migration, and call `deploy`; if it stopped half way, bring the database into order first",
        Person,
        "tool",
    ),
    (
        "module_missing",
        App,
        r"(Error: Cannot find module .*|Error \[ERR_MODULE_NOT_FOUND\].*|ModuleNotFoundError: .*|cannot load such file -- .*|Could not find .* in (?:locally installed gems|any of the sources).*|java\.lang\.ClassNotFoundException.*|no main manifest attribute.*|Class .* not found|error while loading shared libraries: .*|Failed to find attribute '.*' in '.*'\.|can't open file '.*': \[Errno 2\].*)",
        "the image lacks a module or file that the app starts with: $1",
        "add it to the dependencies, or mend the start command or the Dockerfile's COPY",
        Person,
        "tool",
    ),
    (
        "volume_forbidden",
        App,
        r"(?:EACCES|Permission denied|unable to open database file|attempt to write a readonly database|Read-only file system).*|sqlite3\.OperationalError: unable to open database file",
        "the app may not write where it wants to",
        "make the folder in the image and give it to the image's user, so that a new volume is born with that owner",
        Person,
        "table",
    ),
    (
        "port_in_use",
        App,
        r"EADDRINUSE|[Aa]ddress already in use|bind: permission denied|EACCES: permission denied 0\.0\.0\.0:\d+",
        "the app cannot listen on its port: something in its container has it, or it may not",
        "start one server per container, on the port in PORT",
        Person,
        "tool",
    ),
];

static RULES: LazyLock<Vec<Rule>> =
    LazyLock::new(|| ROWS.iter().map(|row| Rule::new(Stage::App, *row)).collect());

/// A tool that migrates speaks.
static MIGRATES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"alembic\.runtime\.migration\] Running|^Running migrations:|^\s+Applying \w+\.\d{4}|==\s+(?:\d{8,} )?\w+: migrating|== Running \d{8,}|Running migrations\.|prisma migrate|Migrating schema|Applying migration|ActiveRecord::Migration").expect("a fixed pattern")
});
/// A database refuses.
static REFUSES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"sqlalchemy\.exc\.\w+|django\.db\.utils\.\w+|psycopg2?\.errors\.\w+|PG::\w+|Mysql2::Error|ActiveRecord::\w+(?:Invalid|Error)|SQLite3::\w+|Postgrex\.Error|QueryException|SQLSTATE\[|ERROR: .*(?:already exists|does not exist)|Database error code: ").expect("a fixed pattern")
});

/// The cause that the app's last lines name, if they name one.
pub(super) fn in_log(lines: &[String]) -> Option<Cause> {
    let first = lines.len().saturating_sub(LINES);
    let heard: Vec<&String> = lines[first..].iter().filter(|line| !harmless(line)).collect();
    let at = |rule: &Rule| {
        let line = heard.iter().rev().find(|line| rule.on_text(line).is_some())?;
        let mut found = Cause::of(rule, line)?;
        found.evidence = vec![(*line).clone()];
        Some(found)
    };
    let (before, after) = RULES.split_at(RULES.iter().position(|r| r.code == "module_missing")?);
    before.iter().find_map(at).or_else(|| migrating(&heard)).or_else(|| after.iter().find_map(at))
}

/// Whether the app met a full disk. Whose it is, the app does not know.
pub(super) fn met_full_disk(lines: &[String]) -> bool {
    let words = ["o space left on device", "ENOSPC", "SQLITE_FULL", "database or disk is full"];
    lines.iter().any(|line| words.iter().any(|word| line.contains(word)))
}

/// A line by which the app says that it goes on all the same.
fn harmless(line: &str) -> bool {
    static CALM: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)\b(?:warn(?:ing)?|info|debug|deprecated|notice)\b[\]:\s]|\b(?:using|falling back to|defaulting to|retrying|will retry|optional|ignored|skipping|recovered)\b").expect("a fixed pattern")
    });
    CALM.is_match(line) && !line.contains("ERROR") && !MIGRATES.is_match(line)
}

/// A migration runs, and a database refuses it.
fn migrating(lines: &[&String]) -> Option<Cause> {
    let began = lines.iter().position(|line| MIGRATES.is_match(line))?;
    let refused = lines[began..].iter().rev().find(|line| REFUSES.is_match(line))?;
    let rule = RULES.iter().find(|rule| rule.code == "migration_failed")?;
    let mut found = Cause::plain(
        rule.code,
        &format!("a migration of the database failed: {}", super::cut(refused)),
        rule.fix,
    );
    found.evidence = vec![(*refused).clone(), lines[began].clone()];
    Some(found)
}
