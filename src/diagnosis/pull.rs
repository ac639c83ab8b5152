//! Getting the image onto the VM.

use super::rule::By::Tool;
use super::rule::Mends::{Person, Vmkit};
use super::rule::Row;

pub(super) const ROWS: &[Row] = &[
    (
        "image_missing",
        Tool,
        r"manifest for (\S+) not found|manifest unknown",
        "the image does not exist in the registry: $1",
        "call `deploy` with environment `{environment}` and the commit as `ref`, which builds it; a rollback needs an image that still exists",
        Vmkit,
        "table",
    ),
    (
        "wrong_architecture",
        Tool,
        r"no matching manifest for (\S+) in the manifest list",
        "the image has no build for the VM's architecture, $1",
        "call `setup_repo` again, so that the workflow builds for the VM's architecture",
        Vmkit,
        "tool",
    ),
    (
        "image_label_missing",
        Tool,
        r"Image (\S+) is missing the 'service' label",
        "the image $1 was built for another environment, or without VMKit's workflow",
        "call `deploy` with environment `{environment}` and the commit as `ref`, which builds it",
        Vmkit,
        "table",
    ),
    (
        "registry_rate_limit",
        Tool,
        r"toomanyrequests",
        "Docker Hub's limit for anonymous pulls is reached",
        "wait an hour, or log the VM in to Docker Hub",
        Person,
        "table",
    ),
    (
        "registry_denied",
        Tool,
        r"login attempt to (\S+) failed with status: 401|Error response from daemon: (?:.*: )?(?:denied|unauthorized)",
        "the registry refused the VM's login",
        "call `deploy` with environment `{environment}` once more; if it stays, check that the workflow may read packages",
        Vmkit,
        "table",
    ),
];
