//! Care of the VM as a whole. What has to reach further than the agent's own unit may is done by
//! the same program outside of it, as one of the few jobs of `vmkit-agent care`.

mod firewall;
pub(crate) mod harden;
mod keys;
mod measures;
mod prune;
mod sshd;
mod trust;
mod undo;
pub(crate) mod upgrade;

use std::sync::Arc;

use serde::Serialize;
use vmkit_agent_protocol::care::{Care, Cared, Harden};

use crate::agent::Agent;
use crate::calls::{Fault, blocking};
use crate::host::Host;

/// Does one call.
pub(crate) async fn perform(agent: &Arc<Agent>, care: Care) -> Result<Cared, Fault> {
    let host = agent.host();
    match care {
        Care::Harden(wanted) => {
            let _one = agent.upkeep().lock().await;
            let wanted = text(&wanted)?;
            let said = harden::outside(host, &["care", "harden"], &wanted).await?;
            let report = serde_json::from_str(&said);
            report.map(Cared::Hardened).map_err(|error| Fault::invalid(error.to_string()))
        }
        Care::KeepHardened(_) => {
            let _one = agent.upkeep().lock().await;
            Ok(Cared::Done { changed: harden::keep(host).await? })
        }
        Care::UndoHarden(_) => {
            let _one = agent.upkeep().lock().await;
            let said = harden::outside(host, &["care", "undo"], "").await?;
            Ok(Cared::Done { changed: said.trim() == "true" })
        }
        Care::Prune(wanted) => Ok(Cared::Pruned(prune::prune(host, agent.engine(), wanted).await?)),
        Care::BeginUpgrade(wanted) => Ok(Cared::Upgrade(upgrade::begin(agent, wanted).await?)),
        Care::UpgradePiece(piece) => Ok(Cared::Upgrade(upgrade::piece(agent, piece).await?)),
        Care::TryUpgrade(_) => {
            // Goes on where the link ends meanwhile: once it is written down that a trial begins,
            // one has to.
            let agent = Arc::clone(agent);
            let trying = tokio::spawn(async move { upgrade::attempt(&agent).await });
            Ok(Cared::Upgrade(trying.await.map_err(|_| Fault::crashed())??))
        }
        Care::UpgradeState => Ok(Cared::Upgrade(upgrade::state(agent).await?)),
        Care::ReplaceKey(wanted) => {
            let host = host.clone();
            let changed = blocking(move || keys::replace(&host, &wanted)).await??;
            Ok(Cared::Done { changed })
        }
        Care::TrustGateway(wanted) => {
            Ok(Cared::Done { changed: trust::trust(agent, wanted).await? })
        }
        Care::Unknown => Err(Fault::unsupported()),
    }
}

/// A job of `vmkit-agent care`: JSON in, JSON out.
pub(crate) async fn job(host: &Host, words: &[&str], input: &str) -> Result<String, Fault> {
    match words {
        ["care", "harden"] => {
            let wanted: Harden =
                serde_json::from_str(input).map_err(|error| Fault::invalid(error.to_string()))?;
            text(&harden::harden(host, &wanted).await?)
        }
        ["care", "keep"] => text(&harden::keep(host).await?),
        ["care", "undo"] => text(&harden::undo(host).await?),
        _ => Err(Fault::unsupported()),
    }
}

fn text(value: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::invalid(error.to_string()))
}

#[cfg(test)]
mod tests;
