//! The first HTTPS request: Kamal's proxy asks Let's Encrypt for a certificate when somebody asks for
//! the name, and after a failure not again for a minute.

use std::time::Duration;

use super::verify;
use crate::domain::names::EnvironmentPath;
use crate::operations::deploy::{containers, proxy_ports};
use crate::operations::environments::environment;
use crate::operations::{Context, OpError};
use crate::probe;

/// How long is asked for it in all; a client's call lasts less than a minute.
const WAIT: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_secs(4);
/// How long one request may take: issuing takes some seconds.
const REQUEST: Duration = Duration::from_secs(20);

/// Asks for an environment's name by HTTPS until its certificate is there. Nothing is asked for
/// where DNS does not lead to the VM yet or a CAA record forbids it: each try counts against a limit.
///
/// # Errors
/// [`OpError::NotPointed`] with what is wrong, or [`OpError::NoCertificate`] where it did not come.
pub async fn retry_certificate(
    context: &Context,
    path: &EnvironmentPath,
) -> Result<String, OpError> {
    let environment = environment(&context.store, path).await?;
    let verified = verify(context, path).await?;
    let domain = verified.domain.clone();
    if !verified.right() {
        let wrong: Vec<String> =
            verified.findings.iter().filter(|one| !one.right).map(|one| one.line()).collect();
        let wrong = wrong.join("; ");
        return Err(OpError::NotPointed { domain: domain.to_string(), wrong });
    }
    let none = |reason: String| OpError::NoCertificate { domain: domain.to_string(), reason };
    let no_vm = || OpError::NoVm { environment: path.to_string() };
    let vm = environment.vm.ok_or_else(no_vm)?;
    let ports = proxy_ports(&containers(&context.fleet, vm).await?);
    let url = probe::app_url(verified.address, Some(&domain), ports);
    let Some(url) = url.filter(|url| url.scheme() == "https") else {
        let reason = "the VM's proxy publishes no HTTPS port; deploy first".to_owned();
        return Err(none(reason));
    };
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        let health = &environment.settings.health_path;
        let reason = match probe::status(&url, health, verified.address, REQUEST).await {
            Ok(_) => return Ok(url.to_string()),
            Err(reason) => reason,
        };
        if tokio::time::Instant::now() + PAUSE >= deadline {
            return Err(none(reason));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
