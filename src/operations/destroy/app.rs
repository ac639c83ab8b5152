//! Taking one environment off a VM that others use, over the agent; and the environment's DNS.

use std::time::Duration;

use serde_json::{Value, json};
use vmkit_agent_protocol::calls::{Call, Container, RemoveApp, Reply};

use crate::domain::ids::{EnvironmentId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::fleet::FleetError;
use crate::operations::agents::linked;
use crate::operations::deploy::containers;
use crate::operations::{Context, OpError, domains};

/// How long an agent may take: each container has its time to end.
const LIMIT: Duration = Duration::from_secs(240);

/// The services that are this environment's: its own, and those of its accessories, which are
/// named after it. A name that begins another environment's service as well is that one's.
pub(super) fn services_of(
    service: &str,
    others: &[String],
    containers: &[Container],
) -> Vec<String> {
    let belongs = |label: &str, to: &str| {
        label == to || label.strip_prefix(to).is_some_and(|rest| rest.starts_with('-'))
    };
    let mut found = vec![service.to_owned()];
    for label in containers.iter().filter_map(|one| one.labels.get("service")) {
        let longer = |other: &String| other.len() > service.len() && belongs(label, other);
        if belongs(label, service) && !others.iter().any(longer) && !found.contains(label) {
            found.push(label.clone());
        }
    }
    found
}

/// How much of an environment goes from a VM that others use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// The app. The deploy key stays, since a deploy after the undo comes in with it.
    App,
    /// The app and its deploy key; not its volumes.
    AppAndKey,
    /// Its volumes too.
    All,
}

/// Removes the environment's route, containers and env file from a VM that others use, and what
/// else `extent` says.
pub(super) async fn remove(
    context: &Context,
    environment: EnvironmentId,
    path: &EnvironmentPath,
    vm: VmId,
    extent: Extent,
) -> Result<Value, OpError> {
    linked(context, vm).await?;
    let all = context.store.environments().await?;
    let beside = all.iter().filter(|one| one.vm == Some(vm) && one.id != environment);
    let others: Vec<String> = beside.clone().map(|one| one.path.service()).collect();
    let key = context.store.deploy_key(environment, vm).await?.map(|key| key.public_key);
    let mut shared_key = false;
    for other in beside {
        let theirs = context.store.deploy_key(other.id, vm).await?.map(|key| key.public_key);
        shared_key |= theirs.is_some() && theirs == key;
    }
    let running = containers(&context.fleet, vm).await?;
    let wanted = RemoveApp {
        app: path.app.to_string(),
        environment: path.name.to_string(),
        services: services_of(&path.service(), &others, &running),
        deploy_key: key.filter(|_| !shared_key && extent != Extent::App),
        volumes: extent == Extent::All,
        // Their containers may be gone since the app went, and they alone be left.
        volume_names: match extent {
            Extent::All => volumes_of(context, environment, path).await?,
            Extent::App | Extent::AppAndKey => Vec::new(),
        },
    };
    match context.fleet.call(vm, Call::RemoveApp(wanted), LIMIT).await? {
        Reply::AppRemoved(removed) => Ok(json!(removed)),
        _ => Ok(Value::Null),
    }
}

/// The volumes of the services beside an app.
async fn volumes_of(
    context: &Context,
    environment: EnvironmentId,
    path: &EnvironmentPath,
) -> Result<Vec<String>, OpError> {
    let services = context.store.services(environment).await?;
    Ok(services.iter().map(|service| service.kind.host(path)).collect())
}

/// Whether a container of the environment's runs; none where the agent cannot be asked.
pub(super) async fn runs(
    context: &Context,
    path: &EnvironmentPath,
    vm: VmId,
) -> Result<Option<bool>, OpError> {
    let service = path.service();
    let runs =
        |one: &Container| one.state == "running" && one.labels.get("service") == Some(&service);
    match containers(&context.fleet, vm).await {
        Ok(all) => Ok(Some(all.iter().any(runs))),
        Err(FleetError::NotLinked { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes the DNS records that VMKit made for an environment, and names those that a person has to
/// delete by hand. The one place that a destroy for good does it in.
pub(super) async fn remove_records(
    context: &Context,
    environment: EnvironmentId,
) -> Result<Value, OpError> {
    let removed = domains::remove_records(context, environment).await?;
    Ok(json!({ "deleted": removed.deleted, "left": removed.left }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(service: &str) -> Container {
        let labels = [("service".to_owned(), service.to_owned())].into();
        Container { labels, ..Container::default() }
    }

    #[test]
    fn accessories_go_with_their_app_and_never_another_environments() {
        let names =
            ["shop-staging", "shop-staging-db", "shop-staging-2", "shop-staging-2-db", "shop", "x"];
        let all = names.map(container);
        let others = vec!["shop-staging-2".to_owned(), "shop".to_owned()];
        let found = services_of("shop-staging", &others, &all);
        assert_eq!(found, ["shop-staging", "shop-staging-db"]);
    }
}
