//! How a VM did over a time: asked of its agent, which keeps two days of minutes.

use std::time::Duration;

use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::metrics::{MetricsHistory, MetricsRange};

use super::logs::offset;
use super::{Fleet, FleetError};
use crate::domain::clock::Millis;
use crate::domain::ids::VmId;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Asks for the time from `since` to `until`, drawn into at most `points` points. The times of the
/// answer are by our clock.
pub(super) async fn history(
    fleet: &Fleet,
    vm: VmId,
    since: Option<Millis>,
    until: Option<Millis>,
    points: u32,
) -> Result<MetricsHistory, FleetError> {
    let offset_ms = offset(fleet.presence(vm).await?.clock_offset_ms);
    let theirs = |time: Millis| time.0.saturating_sub(offset_ms);
    let range = MetricsRange { since_ms: since.map(theirs), until_ms: until.map(theirs), points };
    let Reply::MetricsHistory(mut history) =
        fleet.call(vm, Call::MetricsHistory(range), TIMEOUT).await?
    else {
        return Err(FleetError::NotUnderstood { vm });
    };
    let ours = |time_ms: &mut i64| *time_ms = time_ms.saturating_add(offset_ms);
    ours(&mut history.now.time_ms);
    history.covered_from_ms.as_mut().map(ours);
    history.points.iter_mut().for_each(|point| ours(&mut point.time_ms));
    Ok(*history)
}
