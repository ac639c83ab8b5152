//! The steps of `manage_domain`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::check::{Finding, check};
use super::point::{How, Outcome, point, undo};
use super::{Params, STEPS};
use crate::dns::sslip;
use crate::domain::names::Domain;
use crate::domain::operation::OperationState;
use crate::operations::{Context, OpError, Operation, Run, Step, StepEnd, params};
use crate::store::{Claim, Failure, OperationRow};

/// How long a change may take to reach the name servers before we say that it has not.
const LOOK_WAIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(500);

struct ManageDomain {
    params: Params,
    row: OperationRow,
    context: Context,
}

pub(in crate::operations) fn load(
    row: &OperationRow,
    context: &Context,
) -> Result<Box<dyn Operation>, String> {
    let (params, row, context) = (params(row)?, row.clone(), context.clone());
    Ok(Box::new(ManageDomain { params, row, context }))
}

impl ManageDomain {
    async fn claim(&self) -> Result<Value, OpError> {
        let Params { environment, domain, also, before, .. } = &self.params;
        let store = &self.context.store;
        match store.set_domains(*environment, Some(domain.clone()), also.clone()).await? {
            Claim::Done => Ok(json!({ "changed": before.as_ref() != Some(domain) })),
            Claim::Taken(name, owner) => Err(OpError::DomainTaken {
                domain: name.to_string(),
                environment: owner.to_string(),
            }),
        }
    }

    /// Gives the environment its former names back, unless it has got others since.
    async fn unclaim(&self) -> Result<(), OpError> {
        let Params { environment, domain, before, before_also, .. } = &self.params;
        let store = &self.context.store;
        let now = store.environment_by_id(*environment).await?;
        if now.is_some_and(|now| now.settings.domain.as_ref() == Some(domain)) {
            store.set_domains(*environment, before.clone(), before_also.clone()).await?;
        }
        Ok(())
    }

    async fn point(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let (mut outcomes, mut by_hand): (Vec<Outcome>, Vec<Domain>) = (Vec::new(), Vec::new());
        for (name, address) in self.params.records() {
            // Where somebody else's record leads elsewhere, ours beside it would split the visitors.
            if address.is_ipv6() && by_hand.contains(name) {
                continue;
            }
            run.say(format!("pointing {name} at {address}")).await?;
            let (context, id) = (&self.context, self.row.id);
            let outcome = point(context, id, self.params.environment, name, address).await?;
            by_hand.extend((outcome.how == How::ByHand).then(|| name.clone()));
            outcomes.push(outcome);
        }
        Ok(json!(outcomes))
    }

    /// What the name servers say, after a while in which a change may still be on its way.
    async fn look(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let Some(address) = self.params.address else { return Ok(json!([])) };
        let outcomes = outcomes(run.output("point"));
        let fresh = outcomes.iter().any(|one| matches!(one.how, How::Made | How::Changed));
        let deadline = tokio::time::Instant::now() + LOOK_WAIT;
        loop {
            let mut findings = Vec::new();
            for name in self.params.names() {
                findings.extend(check(&self.context, name, address, self.params.ipv6).await?);
            }
            let right = findings.iter().all(|finding| finding.right);
            if right || !fresh || tokio::time::Instant::now() >= deadline {
                let wrong: Vec<String> =
                    findings.iter().filter(|one| !one.right).map(Finding::line).collect();
                return Ok(json!(wrong));
            }
            run.stop_if_asked().await?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn next(&self, by_hand: bool, changed: bool) -> String {
        let path = &self.params.path;
        if self.params.address.is_none() {
            return format!(
                "call `provision_vm` with environment `{path}`, then `manage_domain` with action `point`"
            );
        }
        let deploy = match (self.params.live, changed) {
            (true, true) => format!(
                "call `deploy` with environment `{path}` and ref `current`: it writes the name into \
                 config/deploy.{}.yml (as a pull request, unless the app takes direct commits)",
                path.name
            ),
            (false, _) => format!("call `deploy` with environment `{path}`"),
            (true, false) => String::new(),
        };
        match (by_hand, deploy.is_empty()) {
            (true, true) => {
                "make the records by hand, then call `manage_domain` with action `verify`"
                    .to_owned()
            }
            (true, false) => format!(
                "make the records by hand and check them with action `verify`; then {deploy}"
            ),
            (false, _) => deploy,
        }
    }
}

fn outcomes(output: &Value) -> Vec<Outcome> {
    serde_json::from_value(output.clone()).unwrap_or_default()
}

impl Operation for ManageDomain {
    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let output = match step {
                "claim" => self.claim().await?,
                "point" => self.point(run).await?,
                _ => self.look(run).await?,
            };
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        step: &'static str,
        _run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            match step {
                "claim" => self.unclaim().await,
                // A record that was ours before says now where the app really is, and may stay.
                "point" => undo(&self.context, &self.params, self.row.id).await,
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn ended<'a>(
        &'a self,
        state: OperationState,
        _failure: Option<&'a Failure>,
        outputs: &'a BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>, OpError>> {
        async move {
            if state != OperationState::Succeeded {
                return Ok(None);
            }
            let output = |step: &str| outputs.get(step).cloned().unwrap_or_default();
            let (by_hand, done): (Vec<Outcome>, Vec<Outcome>) =
                outcomes(&output("point")).into_iter().partition(|one| one.how == How::ByHand);
            let lines =
                |all: &[Outcome]| -> Vec<String> { all.iter().map(Outcome::told).collect() };
            let changed = output("claim")["changed"] == true;
            let caveat = sslip::is_one(&self.params.domain).then_some(sslip::CAVEAT);
            Ok(Some(json!({
                "domain": self.params.domain.shown(),
                "also": self.params.also,
                "url": format!("https://{}/", self.params.domain),
                "records": lines(&done),
                "by_hand": lines(&by_hand),
                "wrong": output("look"),
                "caveat": caveat,
                "next": self.next(!by_hand.is_empty(), changed),
            })))
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let Params { path, domain, .. } = &self.params;
        match step {
            "point" => format!(
                "delete the records of `{domain}` that are marked `vmkit.io` at your DNS provider"
            ),
            _ => format!(
                "call `manage_domain` with environment `{path}` and the domain that it is to have"
            ),
        }
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Ok(())
    }
}
