//! Traefik in front of Kamal's proxy, for those who want it: Traefik has ports and certificates, and
//! Kamal's proxy, which publishes nothing then, still switches versions without a gap.
//!
//! One container per VM, named for all its apps; Kamal boots it and finds it there the next time.

use std::net::IpAddr;

use super::EnvironmentSetup;

/// At least 3.6.1: older ones do not speak to Docker 29.
const IMAGE: &str = "traefik:v3.6.1";
/// What the container is called on the VM. Not `traefik`, which `kamal proxy reboot` stops.
pub const NAME: &str = "vmkit-traefik";

/// How Kamal's proxy is run behind it.
pub(super) const PROXY_RUN: &str = "  run:
    publish: false # Traefik has the ports
    options:
      label:
        - traefik.enable=true
        - traefik.http.services.kamal-proxy.loadbalancer.server.port=80
";

/// The labels of the web role: by these Traefik knows which names to send to Kamal's proxy.
pub(super) fn labels(environment: &EnvironmentSetup) -> String {
    let service = environment.path.service();
    let router = |name: &str, key: &str, value: &str| {
        format!("      traefik.http.routers.{name}.{key}: \"{value}\"\n")
    };
    let mut text = "    labels:\n      traefik.enable: \"true\"\n".to_owned();
    let Some(domain) = &environment.domain else {
        text += &router(&service, "rule", "PathPrefix(`/`)");
        text += &router(&service, "priority", "1");
        text += &router(&service, "entrypoints", "web");
        text += &router(&service, "service", "kamal-proxy@docker");
        return text;
    };
    let rule = match &environment.also {
        Some(also) => format!("Host(`{domain}`) || Host(`{also}`)"),
        None => format!("Host(`{domain}`)"),
    };
    text += &router(&service, "rule", &rule);
    if !environment.tls {
        text += &router(&service, "entrypoints", "web");
        text += &router(&service, "service", "kamal-proxy@docker");
        return text;
    }
    let plain = format!("{service}-http");
    text += &router(&service, "entrypoints", "websecure");
    text += &router(&service, "tls.certresolver", "letsencrypt");
    text += &router(&service, "service", "kamal-proxy@docker");
    text += &router(&plain, "rule", &rule);
    text += &router(&plain, "entrypoints", "web");
    text += &router(&plain, "middlewares", &plain);
    text += &router(&plain, "service", "kamal-proxy@docker");
    text += &format!("      traefik.http.middlewares.{plain}.redirectscheme.scheme: \"https\"\n");
    text
}

/// The accessory.
pub(super) fn accessory(address: IpAddr) -> String {
    format!(
        r#"  {NAME}:
    service: {NAME}
    image: {IMAGE}
    host: "{address}"
    cmd: "--providers.docker=true --providers.docker.exposedbydefault=false --providers.docker.network=kamal --entrypoints.web.address=:80 --entrypoints.websecure.address=:443 --certificatesresolvers.letsencrypt.acme.storage=/acme/acme.json --certificatesresolvers.letsencrypt.acme.tlschallenge=true"
    options:
      publish: ["80:80", "443:443"]
    volumes:
      - "/var/run/docker.sock:/var/run/docker.sock:ro"
      - "{NAME}-acme:/acme"
"#
    )
}
