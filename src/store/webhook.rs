//! Deliveries of webhooks: noted before they are answered, worked off later, known by their id.

use rusqlite::params;

use super::{Store, StoreError, collect};
use crate::domain::clock::Millis;

/// One delivery, as much of it as is worked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// GitHub's id of it; a delivery that is sent again has the same.
    pub id: String,
    /// `workflow_run`, `workflow_job`, `push`.
    pub event: String,
    /// What happened: `requested`, `completed`, ...
    pub action: Option<String>,
    /// The numeric id of the repo.
    pub repo: u64,
    /// The workflow run.
    pub run: Option<u64>,
    /// The run's title, or what was pushed.
    pub title: Option<String>,
    /// The run's page.
    pub url: Option<String>,
    /// When it came.
    pub received_at: Millis,
}

impl Store {
    /// Notes a delivery; false where its id is known.
    pub async fn put_delivery(&self, delivery: Delivery) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let rows = tx.execute(
                "insert into webhook_delivery
                 (id, event, action, repo, run, title, url, received_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) on conflict (id) do nothing",
                params![
                    delivery.id,
                    delivery.event,
                    delivery.action,
                    delivery.repo,
                    delivery.run,
                    delivery.title,
                    delivery.url,
                    delivery.received_at.0
                ],
            )?;
            Ok(rows > 0)
        })
        .await
    }

    /// The oldest deliveries that are not worked off.
    pub async fn open_deliveries(&self, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select id, event, action, repo, run, title, url, received_at from webhook_delivery
                 where worked_at is null order by received_at, rowid limit ?1",
            )?;
            collect(select.query([limit])?, |row| {
                Ok(Delivery {
                    id: row.get("id")?,
                    event: row.get("event")?,
                    action: row.get("action")?,
                    repo: row.get("repo")?,
                    run: row.get("run")?,
                    title: row.get("title")?,
                    url: row.get("url")?,
                    received_at: Millis(row.get("received_at")?),
                })
            })
        })
        .await
    }

    /// Notes that a delivery is worked off.
    pub async fn delivery_worked(&self, id: String, at: Millis) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update webhook_delivery set worked_at = ?2 where id = ?1",
                params![id, at.0],
            )?;
            Ok(())
        })
        .await
    }

    /// Forgets deliveries that were worked off and came before `before`.
    pub async fn forget_deliveries(&self, before: Millis) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "delete from webhook_delivery where worked_at is not null and received_at < ?1",
                [before.0],
            )?;
            Ok(())
        })
        .await
    }
}
