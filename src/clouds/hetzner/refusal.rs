//! Hetzner's refusals: which are only for the moment, and what each means.

use super::PROVIDER;
use super::wire::{ErrorBody, Fault};
use crate::clouds::{CloudError, FieldFault};
use crate::domain::clock::Millis;
use crate::requests::{Answer, Api, Refusal};

/// Whether Hetzner refused for the moment. `RateLimit-Reset` is when the whole hour's budget is
/// back, while one call is refilled each second, so only `Retry-After` is taken for a time.
pub(super) fn for_now(answer: &Answer, now: Millis) -> Option<Refusal> {
    match answer.status.as_u16() {
        429 => Some(Refusal::Limited { until: answer.retry_after(now) }),
        409 if fault(answer).code == "conflict" => Some(Refusal::Busy),
        423 if fault(answer).code == "locked" => Some(Refusal::Busy),
        _ => None,
    }
}

/// Whether the answer to an order says that the size cannot be had there now.
pub(super) fn is_sold_out(answer: &Answer) -> bool {
    means_sold_out(&fault(answer).code)
}

/// Whether a code, of an answer or of an action that failed, says so.
pub(super) fn means_sold_out(code: &str) -> bool {
    matches!(code, "resource_unavailable" | "placement_error")
}

fn fault(answer: &Answer) -> Fault {
    serde_json::from_slice::<ErrorBody>(&answer.body).unwrap_or_default().error
}

/// The error that an answer means; `what` is what the call was about.
pub(super) fn error(api: &Api, answer: &Answer, what: &str) -> CloudError {
    let fault = fault(answer);
    let (provider, what) = (PROVIDER, what.to_owned());
    let status = answer.status.as_u16();
    let reason = api.clean(&fault.message);
    match (fault.code.as_str(), status) {
        ("token_readonly", _) => {
            CloudError::Forbidden { provider, reason: "it is read-only".to_owned() }
        }
        ("unauthorized", _) => CloudError::Auth { provider },
        ("resource_limit_exceeded", _) => {
            let limits: Vec<String> = fault.limits().map(|name| api.clean(name)).collect();
            let what = if limits.is_empty() { reason } else { limits.join(", ") };
            CloudError::Limit { provider, what }
        }
        ("forbidden", _) => CloudError::Forbidden { provider, reason },
        ("not_found", _) => CloudError::NotFound { provider, what },
        ("uniqueness_error", _) => CloudError::NameTaken { provider, what },
        ("conflict", _) => CloudError::Conflict { provider, what },
        ("locked", _) => CloudError::Locked { provider, what },
        ("protected", _) => CloudError::Protected { provider, what },
        (
            "resource_in_use"
            | "must_be_unassigned"
            | "primary_ip_assigned"
            | "primary_ip_already_assigned"
            | "server_has_ipv4",
            _,
        ) => CloudError::InUse { provider, what },
        (
            "invalid_input"
            | "json_error"
            | "invalid_server_type"
            | "unsupported_error"
            | "server_not_stopped"
            | "primary_ip_version_mismatch",
            _,
        ) => {
            let mut fields: Vec<FieldFault> = fault
                .fields()
                .map(|(field, message)| FieldFault {
                    field: api.clean(field),
                    message: api.clean(&message),
                })
                .collect();
            if fields.is_empty() {
                fields.push(FieldFault { field: fault.code.clone(), message: reason });
            }
            CloudError::Invalid { provider, fields }
        }
        ("maintenance", _) | (_, 500..=599) => {
            CloudError::Transient { provider, status, correlation: answer.correlation.clone() }
        }
        (_, 401) => CloudError::Auth { provider },
        (_, 404) => CloudError::NotFound { provider, what },
        _ => CloudError::Refused {
            provider,
            status,
            refusal: api.clean(&fault.code),
            reason,
            correlation: answer.correlation.clone(),
        },
    }
}
