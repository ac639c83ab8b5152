//! DigitalOcean's refusals: which are only for the moment, and what each means.
//!
//! Its ids are as coarse as the statuses (`unprocessable_entity` is nearly everything), so for the
//! few cases that need to be told apart there is only the message.

use super::PROVIDER;
use super::wire::Fault;
use crate::clouds::{CloudError, FieldFault};
use crate::domain::clock::Millis;
use crate::requests::{Answer, Api, Call, Refusal};

/// Whether DigitalOcean refused for the moment. `Retry-After` comes where the minute's limit was
/// hit; where the hour's was, `RateLimit-Reset` says when its oldest request stops counting.
pub(super) fn for_now(answer: &Answer, now: Millis) -> Option<Refusal> {
    match answer.status.as_u16() {
        429 => {
            let reset =
                || Some(Millis(answer.header_number("ratelimit-reset")?.checked_mul(1000)?));
            Some(Refusal::Limited { until: answer.retry_after(now).or_else(reset) })
        }
        409 if !is_taken(&fault(answer).message) => Some(Refusal::Busy),
        422 if is_pending(&fault(answer).message) => Some(Refusal::Busy),
        _ => None,
    }
}

fn fault(answer: &Answer) -> Fault {
    serde_json::from_slice::<Fault>(&answer.body).unwrap_or_default()
}

fn has(message: &str, words: &[&str]) -> bool {
    let message = message.to_lowercase();
    words.iter().any(|word| message.contains(word))
}

fn is_taken(message: &str) -> bool {
    has(message, &["duplicate", "already in use", "already exists"])
}

fn is_pending(message: &str) -> bool {
    has(message, &["pending event"])
}

/// The error that an answer means; `what` is what the call was about.
pub(super) fn error(api: &Api, call: &Call, answer: &Answer, what: &str) -> CloudError {
    let fault = fault(answer);
    let (provider, what) = (PROVIDER, what.to_owned());
    let status = answer.status.as_u16();
    let reason = api.clean(&fault.message);
    match status {
        401 => CloudError::Auth { provider },
        _ if has(&reason, &["droplet limit", "exceed your", "limit reached"]) => {
            CloudError::Limit { provider, what: reason }
        }
        403 => {
            let reason = format!("it needs the scope `{}`", scope(call));
            CloudError::Forbidden { provider, reason }
        }
        404 => CloudError::NotFound { provider, what },
        409 | 422 if is_taken(&reason) => CloudError::NameTaken { provider, what },
        409 => CloudError::Conflict { provider, what },
        422 if is_pending(&reason) => CloudError::Locked { provider, what },
        400 | 422 => {
            let message = if reason.is_empty() { "no reason given".to_owned() } else { reason };
            let fields = vec![FieldFault { field: what, message }];
            CloudError::Invalid { provider, fields }
        }
        500..=599 => {
            CloudError::Transient { provider, status, correlation: answer.correlation.clone() }
        }
        _ => CloudError::Refused {
            provider,
            status,
            refusal: api.clean(&fault.id),
            reason,
            correlation: answer.correlation.clone(),
        },
    }
}

/// The same, where the reason is that the size cannot be had there now.
pub(super) fn sold_out(error: CloudError, size: &str, region: &str) -> CloudError {
    match &error {
        CloudError::Invalid { fields, .. }
            if fields.iter().any(|field| has(&field.message, &["not available in"])) =>
        {
            CloudError::SoldOut { size: size.to_owned(), region: region.to_owned() }
        }
        _ => error,
    }
}

/// The scope of a token that a call needs, such as `droplet:create`
/// (docs.digitalocean.com/reference/api/scopes).
fn scope(call: &Call) -> String {
    let parts: Vec<&str> = call.path().skip(1).collect();
    let resource = match parts.as_slice() {
        ["account", "keys", ..] => "ssh_key",
        ["account", ..] => "account",
        ["droplets", ..] => "droplet",
        ["firewalls", ..] => "firewall",
        ["images", ..] => "image",
        ["snapshots", ..] => "snapshot",
        ["reserved_ips", ..] => "reserved_ip",
        ["tags", ..] => "tag",
        [other, ..] => other,
        [] => "account",
    };
    let on_a_part = parts.len() > 2 && parts[0] != "account";
    let verb = match call.method().as_str() {
        "GET" => "read",
        "POST" if !on_a_part => "create",
        "DELETE" if !on_a_part => "delete",
        _ => "update",
    };
    format!("{resource}:{verb}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_has_its_scope() {
        for (call, expected) in [
            (Call::post("v2/droplets"), "droplet:create"),
            (Call::post("v2/droplets").at(1).under("actions"), "droplet:update"),
            (Call::get("v2/account/keys"), "ssh_key:read"),
            (Call::delete("v2/account/keys").at(7), "ssh_key:delete"),
            (Call::post("v2/tags/vmkit/resources"), "tag:update"),
            (Call::get("v2/account"), "account:read"),
        ] {
            assert_eq!(scope(&call), expected);
        }
    }
}
