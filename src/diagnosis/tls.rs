//! Certificates.

use super::rule::By::Tool;
use super::rule::Mends::Person;
use super::rule::Row;

/// In the job's log and in the proxy's own.
pub(super) const ROWS: &[Row] = &[(
    "certificate_rate_limit",
    Tool,
    r"urn:ietf:params:acme:error:rateLimited(?:.*?(retry after [0-9TZ:. -]+(?:UTC)?))?",
    "Let's Encrypt's limit for this domain is reached: $1",
    "wait until the time that the text names; a subdomain that was not tried has a limit of its own",
    Person,
    "table",
)];

/// In the proxy's own log, where the app does not answer over TLS.
pub(super) const MISSING: &[Row] = &[(
    "certificate_not_issued",
    Tool,
    r"acme/autocert: missing certificate|urn:ietf:params:acme:error:(?:connection|dns|unauthorized|caa)|acme/autocert: unable to satisfy",
    "Let's Encrypt issued no certificate: it did not reach the VM under the domain's name",
    "check that the domain has an A record with the VM's address and no wrong AAAA or CAA record, and that ports 80 and 443 are open; then ask for the page twice, a minute apart",
    Person,
    "table",
)];
