//! The password of a service: made here, sealed, and sent to the VM alone.

use std::time::Duration;

use rand::Rng;
use rand::distr::Alphanumeric;
use vmkit_agent_protocol::beside::ServiceFile;
use vmkit_agent_protocol::bytes::Hidden;
use vmkit_agent_protocol::calls::{Call, Reply};

use crate::domain::env_values::EnvClass;
use crate::domain::ids::{EnvironmentId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::domain::secret::Secret;
use crate::domain::service::{Service, ServiceState};
use crate::operations::env::Change;
use crate::operations::{Context, OpError};
use crate::vault::Purpose;

/// How long an agent may take to write a file.
const AGENT_WAIT: Duration = Duration::from_secs(20);
/// Letters and digits, so that it stands in a URL and in a shell as it is: 190 bits.
const PASSWORD_CHARS: usize = 32;

/// A password that nobody has seen.
pub(in crate::operations) fn password() -> Secret {
    Secret::new(
        rand::rng()
            .sample_iter(Alphanumeric)
            .take(PASSWORD_CHARS)
            .map(char::from)
            .collect::<String>(),
    )
}

/// The password of a service that was made.
async fn password_of(context: &Context, service: &Service) -> Result<Secret, OpError> {
    let sealed = context.store.secret(service.secret).await?.unwrap_or_default();
    let row = service.secret.to_string();
    Ok(context.vault.unseal(&sealed, Purpose::ServicePassword, &row)?)
}

/// The env values of the app that lead to a service.
pub(super) async fn changes(
    context: &Context,
    path: &EnvironmentPath,
    service: &Service,
) -> Result<Vec<Change>, OpError> {
    let values = service.kind.app_values(path, &password_of(context, service).await?);
    let change = |(key, value): (&str, Secret)| {
        key.parse().ok().map(|key| Change { key, value: Some(value), class: EnvClass::Secret })
    };
    Ok(values.into_iter().filter_map(change).collect())
}

/// Puts a service's env file on the VM. Whether it was another one, or none, before, and whether a
/// volume of its name was there.
pub(super) async fn write(
    context: &Context,
    path: &EnvironmentPath,
    vm: VmId,
    service: &Service,
) -> Result<(bool, bool), OpError> {
    let content = service.kind.file(&password_of(context, service).await?);
    let file = ServiceFile {
        app: path.app.to_string(),
        environment: path.name.to_string(),
        beside: service.kind.accessory().to_owned(),
        content: Hidden(content.expose().to_owned()),
    };
    match context.fleet.call(vm, Call::WriteServiceFile(file), AGENT_WAIT).await {
        Ok(Reply::ServiceFileWritten { changed, volume }) => Ok((changed, volume)),
        Ok(_) => Ok((false, false)),
        Err(error) => Err(super::of_agent(context, vm, error).await),
    }
}

/// Puts the env files of all services of an environment on its VM, where they may not be any more.
pub(in crate::operations) async fn write_all(
    context: &Context,
    environment: EnvironmentId,
    path: &EnvironmentPath,
    vm: VmId,
) -> Result<(), OpError> {
    for service in context.store.services(environment).await? {
        if service.state != ServiceState::Removing {
            write(context, path, vm, &service).await?;
        }
    }
    Ok(())
}
