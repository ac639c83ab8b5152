//! What an app needs beside it, by its scan, and has no address of.

use crate::domain::environment::Environment;
use crate::domain::service::ServiceKind;
use crate::operations::{Context, OpError};
use crate::pipeline::scan::Scan;

/// A row for each service that the app needs and whose address it would not be given; rows of the
/// codes in `ignored` are left out. Nothing once a release is live: it was told then.
pub(in crate::operations) async fn missing(
    context: &Context,
    environment: &Environment,
    scan: &Scan,
    ignored: &[String],
) -> Result<Vec<String>, OpError> {
    let needed: Vec<ServiceKind> =
        ServiceKind::ALL.into_iter().filter(|kind| needs(scan, *kind)).collect();
    if needed.is_empty() || !context.store.releases(environment.id, 1).await?.is_empty() {
        return Ok(Vec::new());
    }
    let values = context.store.env_at(environment.id, environment.env_revision).await?;
    let path = &environment.path;
    let rows = needed.into_iter().filter_map(|kind| {
        let (key, code) = (kind.url_key(), format!("service_{kind}"));
        let has = values.iter().any(|row| row.key.as_str() == key) || ignored.contains(&code);
        (!has).then(|| {
            format!(
                "it needs {} and `{path}` has no {key}: call `manage_service` with action `add` and service `{kind}`, or give an address of yours with `set_env` ({code})",
                kind.title()
            )
        })
    });
    Ok(rows.collect())
}

fn needs(scan: &Scan, kind: ServiceKind) -> bool {
    scan.services.iter().any(|name| name == kind.as_str())
}
