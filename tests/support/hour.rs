//! An hour that passes while nothing of VMKit runs: a laptop that was closed.

use std::path::Path;
use std::time::Duration;

const HOUR_MS: i64 = 3_600_000;

/// Moves every time that the state file holds an hour into the past.
///
/// Nothing of VMKit's may drive meanwhile. To the process that goes on this is an hour on its clock:
/// what it knows of the time before it is in the file, and it looks at the clock only to compare it with
/// that (leases, plans, enrolments, when somebody was last alive). What others stamp is not moved: to
/// them and to the process alike, what happened at their side happened just now.
pub(crate) fn an_hour_passes(database: &Path) {
    let db = rusqlite::Connection::open(database).expect("the file");
    db.busy_timeout(Duration::from_secs(10)).expect("set");
    let times = "select 'update \"' || m.name || '\" set \"' || c.name || '\" = \"' || c.name
             || '\" - ?1 where \"' || c.name || '\" >= ?1'
         from sqlite_master m join pragma_table_info(m.name) c
         where m.type = 'table' and c.type = 'INTEGER' collate nocase
             and (c.name = 'at' or c.name like '%\\_at' escape '\\')";
    let mut select = db.prepare(times).expect("a query");
    let rows = select.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    let moves: Vec<String> = rows.map(|row| row.expect("a row")).collect();
    let moved: usize = moves.iter().map(|one| db.execute(one, [HOUR_MS]).expect("moved")).sum();
    assert!(moved > 3, "an operation's own times at least: {moves:?}");
}
