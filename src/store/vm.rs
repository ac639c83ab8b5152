//! VMs, from before they are ordered until after they are gone.

use rusqlite::{Connection, Row, params};

use super::{Outcome, Store, StoreError, collect, first, parsed, parsed_or_null, word};
use crate::domain::clock::Millis;
use crate::domain::environment::{Vm, VmState};
use crate::domain::ids::VmId;
use crate::domain::money::{Currency, Money};
use crate::domain::names::SizeName;
use crate::domain::size::Arch;

/// A VM with what it costs.
#[derive(Debug, Clone)]
pub struct VmRow {
    /// The VM.
    pub vm: Vm,
    /// What it cost per month when it was ordered, or got its size.
    pub monthly: Money,
}

/// How an agent's enrolment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    /// The key is the VM's from now on (or was already).
    Accepted,
    /// There is no such VM, or its token is another one.
    WrongToken,
    /// The token's hour is over.
    Expired,
    /// The token was used for another key.
    Used,
}

const COLUMNS: &str = "select id, provider, provider_id, size, region, arch, address, address_id, ipv6,
    known_hosts, coalesce(rest, state) as state, monthly_amount, monthly_currency, created_at from vm";

fn read_vm(row: &Row<'_>) -> Outcome<VmRow> {
    let currency: Currency = word(row, "monthly_currency")?;
    Ok(VmRow {
        vm: Vm {
            id: parsed(row, "id")?,
            provider: row.get("provider")?,
            provider_id: row.get("provider_id")?,
            size: parsed(row, "size")?,
            region: parsed(row, "region")?,
            arch: word::<Arch>(row, "arch")?,
            address: parsed_or_null(row, "address")?,
            address_id: row.get("address_id")?,
            ipv6: parsed_or_null(row, "ipv6")?,
            known_hosts: row.get("known_hosts")?,
            state: word(row, "state")?,
            created_at: Millis(row.get("created_at")?),
        },
        monthly: Money::new(parsed(row, "monthly_amount")?, currency),
    })
}

impl Store {
    /// Writes the row of a VM before it is ordered; the same id again changes nothing.
    pub async fn insert_vm(&self, row: VmRow) -> Result<(), StoreError> {
        self.write(move |tx| {
            let vm = &row.vm;
            tx.execute(
                "insert into vm (id, provider, provider_id, size, region, arch, address, known_hosts,
                     state, monthly_amount, monthly_currency, created_at, address_id, ipv6)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) on conflict do nothing",
                params![
                    vm.id.to_string(),
                    vm.provider,
                    vm.provider_id,
                    vm.size.as_str(),
                    vm.region.as_str(),
                    vm.arch.as_str(),
                    vm.address.map(|address| address.to_string()),
                    vm.known_hosts,
                    vm.state.as_str(),
                    row.monthly.amount.to_string(),
                    row.monthly.currency.to_string(),
                    vm.created_at.0,
                    vm.address_id,
                    vm.ipv6.map(|address| address.to_string())
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// A VM by its id.
    pub async fn vm(&self, id: VmId) -> Result<Option<VmRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(&format!("{COLUMNS} where id = ?1"))?;
            first(select.query([id.to_string()])?, read_vm)
        })
        .await
    }

    /// Every VM that is not gone, oldest first.
    pub async fn vms(&self) -> Result<Vec<VmRow>, StoreError> {
        self.read(|db| {
            let mut select =
                db.prepare_cached(&format!("{COLUMNS} where state != 'deleted' order by id"))?;
            collect(select.query([])?, read_vm)
        })
        .await
    }

    /// Notes what the cloud answered to the order.
    pub async fn set_vm_server(
        &self,
        id: VmId,
        provider_id: String,
        address: Option<std::net::IpAddr>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update vm set provider_id = ?2, address = coalesce(?3, address) where id = ?1",
                params![id.to_string(), provider_id, address.map(|a| a.to_string())],
            )?;
            Ok(())
        })
        .await
    }

    /// Notes the VM's address of its own; none once it is gone.
    pub async fn set_vm_address_id(
        &self,
        id: VmId,
        address_id: Option<String>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update vm set address_id = ?2 where id = ?1",
                params![id.to_string(), address_id],
            )?;
            Ok(())
        })
        .await
    }

    /// Notes the VM's IPv6 address.
    pub async fn set_vm_ipv6(
        &self,
        id: VmId,
        address: Option<std::net::Ipv6Addr>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update vm set ipv6 = ?2 where id = ?1",
                params![id.to_string(), address.map(|address| address.to_string())],
            )?;
            Ok(())
        })
        .await
    }

    /// Notes the host key that the agent reported.
    pub async fn set_vm_known_hosts(&self, id: VmId, line: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update vm set known_hosts = ?2 where id = ?1",
                params![id.to_string(), line],
            )?;
            Ok(())
        })
        .await
    }

    /// Notes what the server is by now, and what it costs.
    pub async fn set_vm_size(
        &self,
        id: VmId,
        size: SizeName,
        monthly: Money,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update vm set size = ?2, monthly_amount = ?3, monthly_currency = ?4 where id = ?1",
                params![
                    id.to_string(),
                    size.as_str(),
                    monthly.amount.to_string(),
                    monthly.currency.to_string()
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Moves a VM along its life. What is gone stays gone, and its agent's key goes with it.
    pub async fn set_vm_state(&self, id: VmId, state: VmState) -> Result<(), StoreError> {
        self.write(move |tx| {
            let (state_column, rest) = match state {
                VmState::Parked | VmState::Kept => ("ready", Some(state.as_str())),
                VmState::Ordered | VmState::Ready | VmState::Deleting | VmState::Deleted => {
                    (state.as_str(), None)
                }
            };
            tx.execute(
                "update vm set state = ?2, rest = ?3 where id = ?1 and state != 'deleted'",
                params![id.to_string(), state_column, rest],
            )?;
            if state == VmState::Deleted {
                tx.execute(
                    "update vm set agent_public_key = null, enrolment_hash = null where id = ?1",
                    [id.to_string()],
                )?;
                super::vm_link::remove(tx, id)?;
            }
            Ok(())
        })
        .await
    }

    /// Sets the hash of the token with which the VM's agent may enrol once, and until when. A VM
    /// whose agent has enrolled keeps its key.
    pub async fn set_enrolment(
        &self,
        id: VmId,
        token_hash: [u8; 32],
        expires_at: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update vm set enrolment_hash = ?2, enrolment_expires_at = ?3
                 where id = ?1 and agent_public_key is null",
                params![id.to_string(), token_hash.as_slice(), expires_at.0],
            )?;
            Ok(())
        })
        .await
    }

    /// Exchanges a token for a key. The same token and key again is accepted, since the answer to
    /// the first may have been lost. While an operation is under way on the VM's environment the token
    /// is not over: a laptop that was closed for longer than it lasts finds a VM that still waits.
    pub async fn enrol(
        &self,
        id: VmId,
        token_hash: [u8; 32],
        public_key: [u8; 32],
        now: Millis,
    ) -> Result<Enrolment, StoreError> {
        self.write(move |tx| {
            let id = id.to_string();
            let mut select = tx.prepare(
                "select enrolment_hash, enrolment_expires_at, agent_public_key from vm
                 where id = ?1 and state in ('ordered', 'ready')",
            )?;
            type Columns = (Option<Vec<u8>>, Option<i64>, Option<Vec<u8>>);
            let found = first(select.query([&id])?, |row| {
                Ok::<Columns, _>((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            let Some((Some(hash), expires_at, key)) = found else {
                return Ok(Enrolment::WrongToken);
            };
            if hash != token_hash {
                return Ok(Enrolment::WrongToken);
            }
            match key {
                Some(key) if key == public_key => Ok(Enrolment::Accepted),
                Some(_) => Ok(Enrolment::Used),
                None if expires_at.is_none_or(|at| at < now.0) && !is_awaited(tx, &id)? => {
                    Ok(Enrolment::Expired)
                }
                None => {
                    tx.execute(
                        "update vm set agent_public_key = ?2 where id = ?1",
                        params![id, public_key.as_slice()],
                    )?;
                    Ok(Enrolment::Accepted)
                }
            }
        })
        .await
    }

    /// The key of a VM's agent, once it has enrolled.
    pub async fn agent_key(&self, id: VmId) -> Result<Option<[u8; 32]>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select agent_public_key from vm where id = ?1 and state != 'deleted'",
            )?;
            let key =
                first(
                    select.query([id.to_string()])?,
                    |row| Ok(row.get::<_, Option<Vec<u8>>>(0)?),
                )?;
            Ok(key.flatten().and_then(|key| key.try_into().ok()))
        })
        .await
    }
}

/// Whether an operation that has not ended works on the environment of a VM.
fn is_awaited(db: &Connection, vm: &str) -> Outcome<bool> {
    let mut select = db.prepare_cached(
        "select 1 from operation join environment on environment.id = operation.environment
         where environment.vm = ?1 and operation.ended_at is null",
    )?;
    Ok(select.exists([vm])?)
}
