//! Who asked for what, and how it ended.

use rusqlite::params;
use serde_json::Value;

use super::{Store, StoreError};
use crate::domain::clock::Millis;

/// One call of a tool that writes or destroys. The arguments carry no secret.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// When.
    pub at: Millis,
    /// `local`, or a key's id.
    pub caller: String,
    /// The tool.
    pub tool: String,
    /// Its arguments, values of env variables left out.
    pub arguments: Value,
    /// The first word of the answer, or the error's code.
    pub outcome: String,
    /// Why, as the caller said.
    pub reason: Option<String>,
}

impl Store {
    /// Appends to the audit log.
    pub async fn append_audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "insert into audit (at, caller, tool, arguments, outcome, reason)
                 values (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    entry.at.0,
                    entry.caller,
                    entry.tool,
                    entry.arguments.to_string(),
                    entry.outcome,
                    entry.reason
                ],
            )?;
            Ok(())
        })
        .await
    }
}
