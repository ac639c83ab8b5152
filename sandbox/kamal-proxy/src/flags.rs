//! What `kamal-proxy deploy` is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A service's target and how it is to be served.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Deploy {
    pub(crate) service: String,
    /// Host and port, such as `3f2a9c:8080`.
    pub(crate) target: String,
    /// Lower-case; every host where empty.
    pub(crate) hosts: Vec<String>,
    pub(crate) tls: bool,
    pub(crate) tls_redirect: bool,
    pub(crate) forward_headers: bool,
    pub(crate) buffer_responses: bool,
    pub(crate) health_path: String,
    pub(crate) health_interval: Duration,
    pub(crate) health_timeout: Duration,
    pub(crate) deploy_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) target_timeout: Duration,
}

impl Deploy {
    /// Reads the arguments after `deploy`. What only tunes the real proxy is left unread.
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let mut deploy = Self {
            service: String::new(),
            target: String::new(),
            hosts: Vec::new(),
            tls: false,
            tls_redirect: true,
            forward_headers: false,
            buffer_responses: false,
            health_path: "/up".to_owned(),
            health_interval: Duration::from_secs(1),
            health_timeout: Duration::from_secs(5),
            deploy_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            target_timeout: Duration::from_secs(30),
        };
        for arg in args {
            let Some(flag) = arg.strip_prefix("--") else {
                deploy.service.clone_from(arg);
                continue;
            };
            let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
            let yes = value != "false";
            match name {
                "target" => value.clone_into(&mut deploy.target),
                "host" => deploy.hosts.extend(value.split(',').map(str::to_ascii_lowercase)),
                "tls" => deploy.tls = yes,
                "tls-redirect" => deploy.tls_redirect = yes,
                "forward-headers" => deploy.forward_headers = yes,
                "buffer-responses" => deploy.buffer_responses = yes,
                "health-check-path" => value.clone_into(&mut deploy.health_path),
                "health-check-interval" => deploy.health_interval = duration(value)?,
                "health-check-timeout" => deploy.health_timeout = duration(value)?,
                "deploy-timeout" => deploy.deploy_timeout = duration(value)?,
                "drain-timeout" => deploy.drain_timeout = duration(value)?,
                "target-timeout" => deploy.target_timeout = duration(value)?,
                "buffer-requests"
                | "log-request-header"
                | "log-response-header"
                | "max-request-body"
                | "max-response-body"
                | "buffer-memory" => {}
                // What changes where requests go must not be passed over in silence.
                _ => return Err(format!("the lab's proxy does not play --{name}")),
            }
        }
        if deploy.service.is_empty() || deploy.target.is_empty() {
            return Err("a service and a --target are needed".to_owned());
        }
        if !deploy.target.contains(':') {
            deploy.target.push_str(":80");
        }
        Ok(deploy)
    }
}

/// Go's way to write a duration, as far as Kamal uses it: `30s`, `1m`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("invalid duration {text}"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("invalid duration {text}")),
    }
}
