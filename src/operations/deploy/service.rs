//! Before a first deploy: whether the name of its containers is free on the VM. Kamal would stop
//! another app's containers of that name, and call it a success.

use std::time::Duration;

use vmkit_agent_protocol::calls::{Call, Container, Reply};

use crate::domain::environment::Environment;
use crate::domain::ids::VmId;
use crate::operations::agents::linked;
use crate::operations::{Context, OpError};

const AGENT_WAIT: Duration = Duration::from_secs(20);

/// Refuses where somebody else's app has the name, by its image. What this environment has deployed there before
/// is its own.
pub(super) async fn is_free(
    context: &Context,
    environment: &Environment,
    ours: &str,
    vm: VmId,
) -> Result<(), OpError> {
    if !context.store.releases(environment.id, 1).await?.is_empty() {
        return Ok(());
    }
    linked(context, vm).await?;
    let containers = match context.fleet.call(vm, Call::Containers, AGENT_WAIT).await? {
        Reply::Containers { containers } => containers,
        _ => Vec::new(),
    };
    let service = environment.path.service();
    match taken(&containers, &service, ours) {
        Some(image) => Err(OpError::ServiceTaken { service, vm, image }),
        None => Ok(()),
    }
}

/// The image of another app's container under the name.
fn taken(containers: &[Container], service: &str, ours: &str) -> Option<String> {
    let named = |one: &&Container| {
        one.labels.get("service").is_some_and(|name| name == service)
            && one.labels.contains_key("role")
    };
    let name = |image: &str| match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name.to_owned(),
        _ => image.to_owned(),
    };
    containers.iter().filter(named).map(|one| name(&one.image)).find(|image| image != ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_by_another_image_alone() {
        let container = |image: &str, service: &str, role: bool| {
            let mut labels = vec![("service".to_owned(), service.to_owned())];
            labels.extend(role.then(|| ("role".to_owned(), "web".to_owned())));
            let labels = labels.into_iter().collect();
            Container { image: image.to_owned(), labels, ..Container::default() }
        };
        let ours = "ghcr.io/octo/shop/staging";
        let check = |one: Container| taken(&[one], "shop-staging", ours);
        assert_eq!(check(container("ghcr.io/octo/shop/staging:abc", "shop-staging", true)), None);
        assert_eq!(check(container("postgres:17", "shop-staging-db", false)), None);
        assert_eq!(
            check(container("ghcr.io/octo/blog/production:1", "blog-production", true)),
            None
        );
        let other = check(container("localhost:5000/them/shop:abc", "shop-staging", true));
        assert_eq!(other.as_deref(), Some("localhost:5000/them/shop"));
        assert!(check(container("localhost:5000/shop", "shop-staging", true)).is_some());
    }
}
