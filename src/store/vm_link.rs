//! The VMs to which VMKit opens the link itself, and the keys that both sides know each other by.

use rusqlite::{Row, Transaction, params};

use super::{Outcome, Store, StoreError, collect, first, parsed, parsed_or_null};
use crate::domain::clock::Millis;
use crate::domain::ids::{SecretId, VmId};

/// How a VM is reached over SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmLink {
    /// The VM.
    pub vm: VmId,
    /// The key with which VMKit logs in, in OpenSSH form.
    pub public_key: String,
    /// Where its private half is sealed.
    pub secret: SecretId,
    /// The host key that the VM has, in OpenSSH form without a comment.
    pub host_key: String,
    /// The one that its agent has announced to put in the place of the first.
    pub next_host_key: Option<String>,
    /// Where the private half of the first boot's host key is sealed, until it is replaced.
    pub host_secret: Option<SecretId>,
}

const COLUMNS: &str =
    "select vm, public_key, secret, host_key, next_host_key, host_secret from vm_link";

fn read_link(row: &Row<'_>) -> Outcome<VmLink> {
    Ok(VmLink {
        vm: parsed(row, "vm")?,
        public_key: row.get("public_key")?,
        secret: parsed(row, "secret")?,
        host_key: row.get("host_key")?,
        next_host_key: row.get("next_host_key")?,
        host_secret: parsed_or_null(row, "host_secret")?,
    })
}

/// Forgets the link of a VM that is no more, with its keys.
pub(super) fn remove(tx: &Transaction<'_>, vm: VmId) -> Outcome<()> {
    let vm = vm.to_string();
    let mut select = tx.prepare(&format!("{COLUMNS} where vm = ?1"))?;
    let Some(link) = first(select.query([&vm])?, read_link)? else { return Ok(()) };
    tx.execute("delete from vm_link where vm = ?1", [&vm])?;
    for secret in [Some(link.secret), link.host_secret].into_iter().flatten() {
        tx.execute("delete from secret where id = ?1", [secret.to_string()])?;
    }
    Ok(())
}

impl Store {
    /// Writes down how a VM will be reached, with the sealed halves of its two keys as (purpose,
    /// sealed); where that stands already, the first stays. Returns what stands.
    pub async fn put_vm_link(
        &self,
        link: VmLink,
        login: (&'static str, Vec<u8>),
        host: (&'static str, Vec<u8>),
        at: Millis,
    ) -> Result<VmLink, StoreError> {
        self.write(move |tx| {
            let vm = link.vm.to_string();
            let select = format!("{COLUMNS} where vm = ?1");
            if let Some(kept) = first(tx.prepare(&select)?.query([&vm])?, read_link)? {
                return Ok(kept);
            }
            let secrets = [(Some(link.secret), login), (link.host_secret, host)];
            for (id, (purpose, sealed)) in secrets {
                let Some(id) = id else { continue };
                tx.execute(
                    "insert into secret (id, purpose, sealed, created_at) values (?1, ?2, ?3, ?4)",
                    params![id.to_string(), purpose, sealed, at.0],
                )?;
            }
            tx.execute(
                "insert into vm_link (vm, public_key, secret, host_key, next_host_key, host_secret,
                     created_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    vm,
                    link.public_key,
                    link.secret.to_string(),
                    link.host_key,
                    link.next_host_key,
                    link.host_secret.map(|id| id.to_string()),
                    at.0
                ],
            )?;
            Ok(link)
        })
        .await
    }

    /// How a VM is reached; none where its agent dials out.
    pub async fn vm_link(&self, vm: VmId) -> Result<Option<VmLink>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(&format!("{COLUMNS} where vm = ?1"))?;
            first(select.query([vm.to_string()])?, read_link)
        })
        .await
    }

    /// The VMs to which a link can be opened now: they have an address, and are not on their way
    /// out.
    pub async fn vms_to_reach(&self) -> Result<Vec<VmId>, StoreError> {
        self.read(|db| {
            let mut select = db.prepare_cached(
                "select vm.id as id from vm join vm_link on vm_link.vm = vm.id
                 where vm.state in ('ordered', 'ready') and vm.address is not null order by vm.id",
            )?;
            collect(select.query([])?, |row| parsed(row, "id"))
        })
        .await
    }

    /// Another key to log in with, whose private half is sealed already.
    pub async fn point_link_key(
        &self,
        vm: VmId,
        public_key: String,
        secret: SecretId,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update vm_link set public_key = ?2, secret = ?3 where vm = ?1",
                params![vm.to_string(), public_key, secret.to_string()],
            )?;
            Ok(())
        })
        .await
    }

    /// Notes the host key that a VM's agent will put in place: from now on either is taken.
    pub async fn announce_host_key(&self, vm: VmId, next: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update vm_link set next_host_key = ?2 where vm = ?1 and host_key != ?2",
                params![vm.to_string(), next],
            )?;
            Ok(())
        })
        .await
    }

    /// The VM has proven that it holds the announced host key: no other is taken any more, and
    /// what we had of the first one goes. Changes nothing where `key` was not announced.
    pub async fn adopt_host_key(&self, vm: VmId, key: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            let id = vm.to_string();
            let mut select =
                tx.prepare(&format!("{COLUMNS} where vm = ?1 and next_host_key = ?2"))?;
            let Some(link) = first(select.query([&id, &key])?, read_link)? else { return Ok(()) };
            tx.execute(
                "update vm_link set host_key = ?2, next_host_key = null, host_secret = null
                 where vm = ?1",
                params![id, key],
            )?;
            if let Some(secret) = link.host_secret {
                tx.execute("delete from secret where id = ?1", [secret.to_string()])?;
            }
            Ok(())
        })
        .await
    }
}
