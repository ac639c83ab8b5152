//! What is wrong with an environment now, where no run tells it: its VM, its containers, its name,
//! its certificate, its answers.

use std::sync::LazyLock;

use super::evidence::{Certificate, Evidence, Power, Probe};
use super::rule::{Rule, Stage};
use super::{Cause, app, boot, cut, lines, tls};

/// A disk with less than this free, in bytes, counts as full.
const DISK_MIN: u64 = 256 << 20;
/// With less than this free, in bytes, an app that says that a disk is full is believed.
pub(super) const DISK_LOW: u64 = 1 << 30;
/// So many restarts are a loop.
const LOOP: u32 = 3;

static TLS: LazyLock<(Vec<Rule>, Vec<Rule>)> = LazyLock::new(|| {
    let rules =
        |rows: &[super::rule::Row]| rows.iter().map(|row| Rule::new(Stage::Tls, *row)).collect();
    (rules(tls::ROWS), rules(tls::MISSING))
});

/// The deeper cause first: what has no power serves nothing.
pub(super) fn at_present(evidence: &Evidence) -> Option<Cause> {
    let answers = matches!(evidence.probe, Some(Probe::Status(200..=399)));
    power(evidence)
        .or_else(|| if answers { None } else { silent(evidence) })
        .or_else(|| disk(evidence, DISK_MIN))
        .or_else(|| containers(evidence, answers))
        .or_else(|| name(evidence))
        .or_else(|| certificate(evidence, answers))
        .or_else(|| if answers { None } else { answer(evidence) })
        .or_else(|| memory(evidence))
}

/// The VM has no power, or is no more.
pub(super) fn power(evidence: &Evidence) -> Option<Cause> {
    match evidence.vm.power {
        Power::Off => Some(Cause::plain(
            "vm_off",
            "the VM is off",
            "start it in the cloud's console; if nobody stopped it, look there for a notice. The app starts with it",
        )),
        Power::Gone => Some(Cause::plain(
            "vm_gone",
            "the cloud does not have the VM any more",
            "call `destroy` with environment `{environment}` to clear what is left of it, then `provision_vm`",
        )),
        Power::On | Power::Unknown => None,
    }
}

fn silent(evidence: &Evidence) -> Option<Cause> {
    let (Some(false), Some(Probe::Error(why))) = (evidence.vm.agent_linked, &evidence.probe) else {
        return None;
    };
    let mut found = Cause::plain(
        "vm_unreachable",
        "neither the VM's agent nor the app answers",
        "look at the VM in the cloud's console: its network, its firewall, its load; restart it if it hangs",
    );
    found.evidence.push(cut(why));
    Some(found)
}

/// The VM has less than `below` bytes free on its disk.
pub(super) fn disk(evidence: &Evidence, below: u64) -> Option<Cause> {
    let free = evidence.vm.disk_free_bytes?;
    if free >= below {
        return None;
    }
    Some(with_disk(
        Cause::plain(
            "disk_full",
            "the VM's disk is full",
            "run `docker system prune -a` on the VM: it removes stopped containers and the images of old versions; look at /var/log and at volumes too, or take a bigger size",
        ),
        evidence,
    ))
}

/// How full the disk is, in the evidence.
pub(super) fn with_disk(mut found: Cause, evidence: &Evidence) -> Cause {
    if let (Some(free), Some(all)) = (evidence.vm.disk_free_bytes, evidence.vm.disk_bytes) {
        found.evidence.push(format!("{} MiB of {} GiB are free", free >> 20, all >> 30));
    }
    found
}

fn containers(evidence: &Evidence, answers: bool) -> Option<Cause> {
    let said = lines::plain(&evidence.app_log, app::LINES);
    let looping =
        |one: &&super::evidence::ContainerFacts| one.state == "restarting" || one.restarts >= LOOP;
    if let Some(one) = evidence.containers.iter().find(looping) {
        let mut found = Cause::plain(
            "crash_loop",
            &format!(
                "role `{}` ends and is started again, {} times so far",
                cut(&one.role),
                one.restarts
            ),
            "read its last lines with `get_logs` and environment `{environment}`; `rollback` brings back the version before",
        );
        found.evidence.push(boot::told(one));
        found.evidence.extend(said.iter().rev().find(|line| !line.trim().is_empty()).cloned());
        let deeper = boot::killed(evidence, &said).or_else(|| app::in_log(&said));
        return Some(match deeper {
            Some(deeper) => found.because(deeper),
            None => found,
        });
    }
    if answers {
        return None;
    }
    if let Some(found) = boot::killed(evidence, &[]) {
        return Some(found);
    }
    if let Some(why) = &evidence.role_dies {
        return Some(role_dies(why));
    }
    let none_runs = !evidence.containers.is_empty()
        && evidence.containers.iter().all(|one| one.state != "running");
    let one = evidence.containers.first().filter(|_| none_runs)?;
    let mut found = Cause::plain(
        "app_stopped",
        "no container of the app runs",
        "call `deploy` with environment `{environment}` and ref `current`, which starts it anew",
    );
    found.can_fix_itself = true;
    found.evidence.push(boot::told(one));
    Some(match app::in_log(&said) {
        Some(deeper) if boot::crashed(one) => found.because(deeper),
        Some(_) | None => found,
    })
}

/// What the proof saw of a version that was put away again: that its containers have ended says
/// nothing, as that was done by hand.
fn role_dies(why: &str) -> Cause {
    let mut found = Cause::plain(
        "crash_loop",
        "a role of the new version ends and is started again, so the version before was brought back",
        "read its last lines with `get_logs` and environment `{environment}`, mend it and deploy again",
    );
    found.evidence.push(cut(why));
    found
}

fn name(evidence: &Evidence) -> Option<Cause> {
    let (name, address) = (evidence.name.as_ref()?, evidence.address?);
    let host = cut(&name.name);
    if name.resolves_to.is_empty() {
        return Some(Cause::plain(
            "domain_missing",
            &format!("{host} has no address in the DNS"),
            &format!("set an A record of {host} to {address}"),
        ));
    }
    // An IPv6 address beside the right one is another question.
    if name.resolves_to.contains(&address) {
        return None;
    }
    let places: Vec<String> = name.resolves_to.iter().take(4).map(ToString::to_string).collect();
    let mut found = Cause::plain(
        "domain_elsewhere",
        &format!("{host} points to {}, and the VM is {address}", places.join(", ")),
        &format!(
            "set the A record of {host} to {address}; if a CDN stands in front on purpose, let it pass the traffic on"
        ),
    );
    found.evidence.push(format!("{host} -> {}", places.join(", ")));
    Some(found)
}

fn certificate(evidence: &Evidence, answers: bool) -> Option<Cause> {
    let shown = evidence.certificate;
    let good = shown == Some(Certificate::Good) || (answers && shown.is_none());
    if good || evidence.name.is_none() {
        return None;
    }
    let said = lines::plain(&evidence.proxy_log, 200);
    let in_log = |rules: &[Rule]| {
        rules.iter().find_map(|rule| {
            let line = said.iter().rev().find(|line| rule.on_text(line).is_some())?;
            let mut found = Cause::of(rule, line)?;
            found.evidence = vec![line.clone()];
            Some(found)
        })
    };
    let broken = matches!(evidence.probe, Some(Probe::Error(_)))
        || matches!(shown, Some(Certificate::Expired | Certificate::Missing));
    if !broken {
        return None;
    }
    in_log(&TLS.0).or_else(|| in_log(&TLS.1)).or_else(|| {
        (shown == Some(Certificate::Expired)).then(|| {
            Cause::plain(
                "certificate_expired",
                "the VM shows a certificate whose time is over",
                "check that port 80 and 443 are open and that the domain points to the VM; the proxy renews it at the next request",
            )
        })
    })
}

fn answer(evidence: &Evidence) -> Option<Cause> {
    let path = cut(evidence.health_path.as_deref().unwrap_or("/"));
    let said = lines::plain(&evidence.app_log, app::LINES);
    match evidence.probe.as_ref()? {
        Probe::Status(504) => Some(Cause::plain(
            "proxy_timeout",
            &format!("the proxy waited for the app's answer at `{path}` and gave up (504)"),
            "let the app answer sooner, or raise response_timeout in config/deploy.{name}.yml",
        )),
        Probe::Status(status @ (500 | 502 | 503)) => {
            let found = Cause::plain(
                "app_error",
                &format!("the app answers {status} at `{path}`"),
                "read its last lines with `get_logs` and environment `{environment}`; `rollback` brings back the version before",
            );
            Some(match app::in_log(&said) {
                Some(deeper) => found.because(deeper),
                None => found,
            })
        }
        Probe::Status(status) => Some(Cause::plain(
            "wrong_health_path",
            &format!("the app answered its health path `{path}` with {status} instead of 2xx"),
            "set the health path to one that answers 200 without a login, or mend the app",
        )),
        Probe::Error(why) => {
            let mut found = Cause::plain(
                "app_not_answering",
                &format!("the app's address does not answer: {}", cut(why)),
                "call `get_status` with environment `{environment}`; check that the firewall lets ports 80 and 443 in",
            );
            let proxy = evidence.containers.iter().filter(|one| one.state == "running").count();
            found.evidence.push(format!("{proxy} containers of the app run"));
            Some(found)
        }
    }
}

fn memory(evidence: &Evidence) -> Option<Cause> {
    let vm = &evidence.vm;
    let (all, free) = (vm.memory_bytes?, vm.memory_available_bytes?);
    let stalls = vm.memory_pressure.unwrap_or(0.0) > 0.3;
    if free.saturating_mul(20) >= all || !stalls {
        return None;
    }
    let mut found = Cause::plain(
        "memory_short",
        "the VM has almost no memory left, and its programs wait for it",
        "let the app use less memory, or take a bigger size",
    );
    found.evidence.push(format!("{} MiB of {} MiB are free", free >> 20, all >> 20));
    Some(found)
}
