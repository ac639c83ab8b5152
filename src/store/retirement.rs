//! Destroys that can be undone, from before anything is kept until after it is gone.

use rusqlite::{Row, params};

use super::{Outcome, Store, StoreError, collect, first, parsed, parsed_or_null, word};
use crate::domain::clock::Millis;
use crate::domain::ids::{EnvironmentId, OperationId};
use crate::domain::money::{Currency, Money};
use crate::domain::retirement::{Retirement, RetirementState};

fn read_retirement(row: &Row<'_>) -> Outcome<Retirement> {
    let amount = parsed_or_null(row, "monthly_amount")?;
    let monthly = match amount {
        Some(amount) => Some(Money::new(amount, word::<Currency>(row, "monthly_currency")?)),
        None => None,
    };
    Ok(Retirement {
        id: parsed(row, "id")?,
        environment: parsed(row, "environment")?,
        vm: parsed_or_null(row, "vm")?,
        keeping: word(row, "keeping")?,
        state: word(row, "state")?,
        snapshot_name: row.get("snapshot_name")?,
        snapshot: row.get("snapshot")?,
        size_gb: row.get::<_, Option<i64>>("size_gb")?.and_then(|gb| u64::try_from(gb).ok()),
        monthly,
        began_at: Millis(row.get("began_at")?),
        expires_at: row.get::<_, Option<i64>>("expires_at")?.map(Millis),
    })
}

impl Store {
    /// Writes a retirement before anything of it is made; the same id again changes nothing.
    pub async fn insert_retirement(&self, retirement: Retirement) -> Result<(), StoreError> {
        self.write(move |tx| {
            let r = &retirement;
            tx.execute(
                "insert into retirement (id, environment, vm, keeping, state, snapshot_name, snapshot,
                     size_gb, monthly_amount, monthly_currency, began_at, expires_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) on conflict do nothing",
                params![
                    r.id.to_string(),
                    r.environment.to_string(),
                    r.vm.map(|vm| vm.to_string()),
                    r.keeping.as_str(),
                    r.state.as_str(),
                    r.snapshot_name,
                    r.snapshot,
                    r.size_gb.and_then(|gb| i64::try_from(gb).ok()),
                    r.monthly.map(|money| money.amount.to_string()),
                    r.monthly.map(|money| money.currency.to_string()),
                    r.began_at.0,
                    r.expires_at.map(|at| at.0)
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// A retirement by its id.
    pub async fn retirement(&self, id: OperationId) -> Result<Option<Retirement>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached("select * from retirement where id = ?1")?;
            first(select.query([id.to_string()])?, read_retirement)
        })
        .await
    }

    /// The retirement of an environment that is neither undone nor over, if there is one.
    pub async fn retirement_of(
        &self,
        environment: EnvironmentId,
    ) -> Result<Option<Retirement>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select * from retirement where environment = ?1 and state in ('making', 'kept')
                 order by id desc",
            )?;
            first(select.query([environment.to_string()])?, read_retirement)
        })
        .await
    }

    /// Every retirement, the oldest first.
    pub async fn retirements(&self) -> Result<Vec<Retirement>, StoreError> {
        self.read(|db| {
            let mut select = db.prepare_cached("select * from retirement order by id")?;
            collect(select.query([])?, read_retirement)
        })
        .await
    }

    /// Notes the snapshot that the cloud made; none once it is deleted.
    pub async fn set_retirement_snapshot(
        &self,
        id: OperationId,
        snapshot: Option<String>,
        size_gb: Option<u64>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update retirement set snapshot = ?2, size_gb = ?3 where id = ?1",
                params![id.to_string(), snapshot, size_gb.and_then(|gb| i64::try_from(gb).ok())],
            )?;
            Ok(())
        })
        .await
    }

    /// Moves a retirement along. What is gone for good stays so.
    pub async fn set_retirement_state(
        &self,
        id: OperationId,
        state: RetirementState,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update retirement set state = ?2 where id = ?1 and state != 'purged'",
                params![id.to_string(), state.as_str()],
            )?;
            Ok(())
        })
        .await
    }
}
