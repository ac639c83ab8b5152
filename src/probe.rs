//! Asks an app for its health as a visitor would: at the VM's recorded address, with the app's
//! public name as host. Whether DNS agrees is another question.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use url::Url;

use crate::domain::names::Domain;

/// How a VM's proxy is reached from outside, as its agent reports the published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyPorts {
    /// The port outside of the proxy's port 80.
    pub http: Option<u16>,
    /// The port outside of the proxy's port 443.
    pub https: Option<u16>,
}

/// Where an app answers: by its domain, else by the VM's address.
///
/// None where the proxy publishes no port.
pub fn app_url(address: IpAddr, domain: Option<&Domain>, ports: ProxyPorts) -> Option<Url> {
    let host = domain.map_or_else(|| host_of(address), |domain| domain.to_string());
    let (scheme, port, usual) = match (domain, ports.https, ports.http) {
        (Some(_), Some(port), _) => ("https", port, 443),
        (_, _, Some(port)) => ("http", port, 80),
        _ => return None,
    };
    let port = if port == usual { String::new() } else { format!(":{port}") };
    Url::parse(&format!("{scheme}://{host}{port}/")).ok()
}

fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Asks `url` for `path` at `address` and returns the status, or why there was no answer.
pub async fn status(
    url: &Url,
    path: &str,
    address: IpAddr,
    limit: Duration,
) -> Result<u16, String> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(limit)
        .redirect(reqwest::redirect::Policy::none())
        .resolve(&host, SocketAddr::new(address, port))
        .build()
        .map_err(|error| error.to_string())?;
    let target = url.join(path).map_err(|error| error.to_string())?;
    let answer = client.get(target).send().await.map_err(|error| why(&error, limit))?;
    Ok(answer.status().as_u16())
}

fn why(error: &reqwest::Error, limit: Duration) -> String {
    if error.is_timeout() {
        format!("no answer within {} s", limit.as_secs())
    } else if error.is_connect() && is_refused(error) {
        "the connection was refused".to_owned()
    } else if error.is_connect() && error.url().is_some_and(|url| url.scheme() == "https") {
        "no TLS connection: there is no good certificate for the name yet".to_owned()
    } else {
        "the connection broke".to_owned()
    }
}

/// Whether nobody listens; a handshake that fails is a failure to connect as well.
fn is_refused(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_answers_by_its_name_at_the_ports_that_the_proxy_publishes() {
        let address: IpAddr = "203.0.113.7".parse().expect("an address");
        let domain: Domain = "shop.example.com".parse().expect("a domain");
        let url = |domain: Option<&Domain>, http, https| {
            app_url(address, domain, ProxyPorts { http, https }).map(String::from)
        };
        assert_eq!(
            url(Some(&domain), Some(80), Some(443)).as_deref(),
            Some("https://shop.example.com/")
        );
        assert_eq!(
            url(Some(&domain), Some(8080), None).as_deref(),
            Some("http://shop.example.com:8080/")
        );
        assert_eq!(url(None, Some(80), Some(443)).as_deref(), Some("http://203.0.113.7/"));
        assert_eq!(url(None, None, None), None);
    }
}
