//! Pushing the image to ghcr.io.

use super::rule::By::Tool;
use super::rule::Mends::{Person, Vmkit};
use super::rule::Row;

pub(super) const ROWS: &[Row] = &[
    (
        "registry_push_denied",
        Tool,
        r"denied: (installation not allowed to (?:Create|Write) organization package|permission_denied: (?:write_package|The token provided does not match expected scopes|The requested installation does not exist)|denied)|unexpected status from (?:POST|PUT|HEAD) request to https://ghcr\.io/\S+: (403 Forbidden)",
        "ghcr.io refused the image: $1$2",
        "let the repo write packages (organisation settings, or Manage Actions access on the package's page)",
        Person,
        "table",
    ),
    (
        "registry_down",
        Tool,
        r"(?:ghcr\.io|pkg-containers\.githubusercontent\.com).*((?:500 Internal Server Error|502 Bad Gateway|503 Service Unavailable|504 Gateway Time-?out|i/o timeout|TLS handshake timeout|connection reset by peer|connect: connection refused|context deadline exceeded))",
        "ghcr.io did not take or give the image: $1",
        "call `deploy` with environment `{environment}` again in some minutes; githubstatus.com tells of disturbances",
        Vmkit,
        "tool",
    ),
];
