//! What can be ordered, with live prices.

use crate::accounts::{Accounts, CLOUDS};
use crate::clouds::Cloud;
use crate::domain::names::RegionName;
use crate::domain::size::{Arch, Size};
use crate::operations::OpError;

/// What somebody needs.
#[derive(Debug, Clone, Default)]
pub struct Need {
    /// In one region only.
    pub region: Option<RegionName>,
    /// Of one architecture only.
    pub arch: Option<Arch>,
    /// At least so much memory, in MiB.
    pub min_memory_mib: Option<u64>,
    /// Those that cannot be ordered now as well.
    pub sold_out_too: bool,
}

/// The sizes that fit, the cheapest first.
///
/// # Errors
/// No token for the cloud, or the cloud does not answer.
pub async fn sizes(accounts: &Accounts, need: &Need) -> Result<Vec<Size>, OpError> {
    let mut sizes = accounts.cloud(CLOUDS[0]).await?.sizes().await?;
    sizes.retain(|size| {
        (need.sold_out_too || size.available)
            && need.region.as_ref().is_none_or(|region| size.region == *region)
            && need.arch.is_none_or(|arch| size.arch == arch)
            && need.min_memory_mib.is_none_or(|least| size.memory_mib >= least)
    });
    let key = |size: &Size| (size.monthly.amount, size.name.to_string(), size.region.to_string());
    sizes.sort_by_key(key);
    Ok(sizes)
}

/// What a size suits (the sizing advice of the founding text).
pub fn suits(size: &Size) -> &'static str {
    match size.memory_mib / 1024 {
        0..=4 => "small APIs and personal projects",
        5..=8 => "production with moderate traffic or sidecars",
        9..=16 => "ML inference and several apps",
        _ => "memory-heavy work and local LLMs",
    }
}
