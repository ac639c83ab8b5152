//! What each cloud sold when it was last asked.

use rusqlite::params;
use serde_json::Value;

use super::{Store, StoreError, first, json};
use crate::domain::clock::Millis;

impl Store {
    /// Keeps a cloud's price list, of which the newest counts.
    pub async fn put_price_list(
        &self,
        cloud: String,
        body: Value,
        seen_at: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "insert into price_list (cloud, body, seen_at) values (?1, ?2, ?3)
                 on conflict (cloud) do update set body = excluded.body, seen_at = excluded.seen_at
                 where excluded.seen_at >= price_list.seen_at",
                params![cloud, body.to_string(), seen_at.0],
            )?;
            Ok(())
        })
        .await
    }

    /// A cloud's price list and when it was seen.
    pub async fn price_list(&self, cloud: &str) -> Result<Option<(Value, Millis)>, StoreError> {
        let cloud = cloud.to_owned();
        self.read(move |db| {
            let mut select =
                db.prepare_cached("select body, seen_at from price_list where cloud = ?1")?;
            first(select.query([cloud])?, |row| {
                Ok((json(row, "body")?, Millis(row.get("seen_at")?)))
            })
        })
        .await
    }

    /// Forgets a cloud's price list: another token may be another project's, billed otherwise.
    pub async fn drop_price_list(&self, cloud: &str) -> Result<(), StoreError> {
        let cloud = cloud.to_owned();
        self.write(move |tx| {
            tx.execute("delete from price_list where cloud = ?1", [cloud])?;
            Ok(())
        })
        .await
    }
}
