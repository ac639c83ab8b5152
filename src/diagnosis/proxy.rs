//! kamal-proxy: its start, and the names that it serves.

use super::rule::By::Tool;
use super::rule::Mends::Person;
use super::rule::Row;

pub(super) const ROWS: &[Row] = &[
    (
        "port_taken",
        Tool,
        r"listen tcp\S* \S+:(80|443): bind: address already in use|Bind for \S+:(80|443) failed: port is already allocated",
        "another program on the VM has port $1$2, so the proxy cannot start",
        "stop nginx, apache or Traefik on the VM, then call `deploy` with environment `{environment}`",
        Person,
        "table",
    ),
    (
        "proxy_image_missing",
        Tool,
        r"Unable to find image '(basecamp/kamal-proxy\S+)' locally",
        "the VM could not load the proxy's image $1",
        "check that the VM reaches Docker Hub, then call `deploy` with environment `{environment}`",
        Person,
        "table",
    ),
    (
        "domain_taken",
        Tool,
        r"host settings conflict with another service",
        "another app on the VM has this domain, or both have none",
        "give each app on the VM a domain of its own",
        Person,
        "table",
    ),
    (
        "proxy_too_old",
        Tool,
        r"kamal-proxy version (\S+) is too old",
        "the proxy on the VM ($1) is older than this Kamal needs",
        "run `kamal proxy reboot -c config/deploy.{name}.yml` at a quiet hour",
        Person,
        "table",
    ),
];
