//! Container logs: read as ranges, and followed and resumed without loss or doubling.

pub(crate) mod backlog;
pub(crate) mod follow;
mod gone;
mod journal;
mod lines;
mod newest;
pub(crate) mod own;
pub(crate) mod range;
mod reader;
pub(crate) mod system;

use bollard::models::ContainerSummary;
use vmkit_agent_protocol::logs::{Selector, Source};

use crate::calls::containers::name;

/// The proxy's container, which Kamal starts and gives no label `service`.
const PROXY: &str = "kamal-proxy";

/// Whose lines a container's are.
fn source(summary: &ContainerSummary) -> Source {
    let name = name(summary);
    let label = |key: &str| summary.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    let labelled = label("service");
    let role = label("role");
    let version = labelled
        .as_deref()
        .and_then(|service| version(&name, service, role.as_deref().unwrap_or("web")));
    Source {
        container: summary.id.clone().unwrap_or_default(),
        service: labelled.unwrap_or_else(|| name.clone()),
        name,
        role,
        version,
    }
}

/// Kamal names a container `SERVICE-ROLE-VERSION`, and adds `_replaced_…` to one in the way.
fn version(name: &str, service: &str, role: &str) -> Option<String> {
    let rest = name.strip_prefix(service)?.strip_prefix('-')?.strip_prefix(role)?;
    let version = rest.strip_prefix('-')?;
    Some(version.split("_replaced_").next().unwrap_or(version).to_owned())
}

/// True for a container whose lines are wanted.
fn wanted(selector: &Selector, summary: &ContainerSummary, source: &Source) -> bool {
    if let Some(container) = &selector.container {
        return *container == source.name || *container == source.container;
    }
    let ours = summary.labels.as_ref().is_some_and(|labels| labels.contains_key("service"))
        || source.name == PROXY;
    ours && selector.service.as_ref().is_none_or(|service| *service == source.service)
        && selector.role.as_ref().is_none_or(|role| Some(role) == source.role.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kamals_names_tell_the_version() {
        let version = |name| version(name, "shop-staging", "web");
        assert_eq!(version("shop-staging-web-abc").as_deref(), Some("abc"));
        assert_eq!(version("shop-staging-web-abc_replaced_0f1e").as_deref(), Some("abc"));
        assert_eq!(version("shop-staging-worker-abc"), None);
        assert_eq!(version("shop-staging"), None);
    }
}
