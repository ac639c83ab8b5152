//! `get_costs`: what is paid per month, for what, and what could be saved.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Caller;
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, bad_name, line};
use crate::queries::costs::{Asked, Costs, VmCost, WhatIf, costs};
use crate::queries::paas;

/// How many VMs and how many unused things are shown.
const SHOWN: usize = 30;
/// For how many VMs the same slot elsewhere is told.
const COMPARED: usize = 3;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// A size from list_sizes: what it would mean for a VM.
    what_if: Option<String>,
    /// Whose VM is meant by what_if, such as shop/staging.
    environment: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    monthly: Vec<String>,
    vms: Vec<Line>,
    unused: Vec<String>,
    forecast: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what_if: Option<String>,
    elsewhere: Vec<String>,
    notes: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Line {
    vm: String,
    environments: Vec<String>,
    size: String,
    region: String,
    monthly: String,
    power: String,
}

#[tool_router(router = get_costs_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "get_costs",
        title = "Costs",
        description = "What is paid per month now and for what, by environment; the forecast for this month, what nothing uses, and with what_if the price of another size. Compares with PaaS prices.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn get_costs(
        &self,
        Parameters(input): Parameters<Input>,
        call: Call,
    ) -> Result<Answer<Output>, ToolError> {
        let environment = match &input.environment {
            Some(given) => Some(self.environment(given).await?),
            None => None,
        };
        if let Some(path) = environment.as_ref().filter(|path| !call.caller().may_see(path)) {
            let message = format!("this key may not see environment `{path}`");
            return Err(ToolError::new("forbidden", message).fix("name one that it may see"));
        }
        let asked = match input.what_if {
            Some(size) => Some(Asked { size: size.parse().map_err(bad_name)?, environment }),
            None => None,
        };
        let found = costs(self.context(), asked.as_ref()).await?;
        let facts = facts(&found, call.caller());
        Ok(Answer::facts(text(&facts), facts))
    }
}

/// What the caller may see of it: a key that is bound to environments sees their VMs, and no sums.
fn facts(found: &Costs, caller: &Caller) -> Output {
    let whole = !caller.is_restricted();
    let seen: Vec<&VmCost> = found
        .vms
        .iter()
        .filter(|vm| whole || vm.environments.iter().any(|path| caller.may_see(path)))
        .collect();
    let mut notes = Vec::new();
    if seen.len() > SHOWN {
        notes.push(format!("{} more VMs are in the sum and not shown", seen.len() - SHOWN));
    }
    if whole {
        notes.extend(
            found.trouble.iter().map(|trouble| format!("not known: {}", line(trouble, 160))),
        );
        let foreign = found.foreign.iter();
        notes.extend(foreign.map(|told| format!("made by others, in no sum: {told}")));
    }
    let sums = |sums: &[crate::domain::money::Money]| {
        sums.iter().filter(|_| whole).map(ToString::to_string).collect::<Vec<_>>()
    };
    Output {
        monthly: sums(&found.monthly),
        forecast: sums(&found.forecast)
            .into_iter()
            .map(|sum| format!("{sum} for {}", found.month.name))
            .collect(),
        unused: found.unused.iter().filter(|_| whole).take(SHOWN).map(unused).collect(),
        what_if: found.what_if.as_ref().filter(|what| may(what, &seen)).map(told),
        elsewhere: elsewhere(&seen),
        vms: seen.into_iter().take(SHOWN).map(|vm| one(vm, caller)).collect(),
        notes,
    }
}

fn may(what_if: &WhatIf, seen: &[&VmCost]) -> bool {
    seen.iter().any(|vm| vm.row.vm.id == what_if.vm)
}

fn one(vm: &VmCost, caller: &Caller) -> Line {
    let environments = vm
        .environments
        .iter()
        .map(|path| if caller.may_see(path) { path.to_string() } else { "another".to_owned() });
    Line {
        vm: vm.row.vm.id.to_string(),
        environments: environments.collect(),
        size: vm.row.vm.size.to_string(),
        region: vm.row.vm.region.to_string(),
        monthly: vm.row.monthly.to_string(),
        power: vm.power.as_str().to_owned(),
    }
}

fn unused(unused: &crate::queries::costs::Unused) -> String {
    let price = match unused.monthly {
        Some(monthly) => format!("{monthly} a month"),
        None => "its price is not known".to_owned(),
    };
    let counted = if unused.counted { "" } else { ", not in the sum" };
    format!("{}: {price}{counted}", line(&unused.what, 200))
}

fn told(what_if: &WhatIf) -> String {
    let size = &what_if.size;
    let difference = match what_if.difference {
        Some(difference) => format!(" ({})", difference.signed()),
        None => String::new(),
    };
    let mut parts = vec![format!(
        "{} with `{}` in {}: {} a month instead of {}{difference}",
        what_if.vm, size.name, size.region, size.monthly, what_if.before
    )];
    parts.extend(what_if.repricing.map(str::to_owned));
    parts.push(match &what_if.impossible {
        Some(why) => format!("not possible: {why}"),
        None => format!("down for about {} s meanwhile", what_if.downtime_s),
    });
    parts.join("; ")
}

/// The slots of the first VMs on other platforms, with the table's date and what it assumes.
fn elsewhere(seen: &[&VmCost]) -> Vec<String> {
    let Some(table) = paas::table() else { return Vec::new() };
    let mut lines: Vec<String> = Vec::new();
    for vm in seen.iter().filter(|vm| vm.today.is_some()).take(COMPARED) {
        let Some(size) = &vm.today else { continue };
        let slots: Vec<String> = paas::compare(size).iter().map(ToString::to_string).collect();
        let told = format!("a slot like `{}`: {}", size.name, slots.join(", "));
        if !lines.contains(&told) {
            lines.push(told);
        }
    }
    if !lines.is_empty() {
        lines.push(format!(
            "as last looked up {}: {}",
            table.checked,
            table.assumptions.join("; ")
        ));
    }
    lines
}

fn text(facts: &Output) -> String {
    let mut lines = Vec::new();
    lines.push(match facts.monthly.as_slice() {
        [] if facts.vms.is_empty() => "nothing is billed".to_owned(),
        [] => "per month, net:".to_owned(),
        sums => format!("per month now, net: {}", sums.join(" and ")),
    });
    lines.extend(facts.vms.iter().map(|vm| {
        let whose = match vm.environments.as_slice() {
            [] => "no environment".to_owned(),
            [one] => one.clone(),
            several => format!("{} together", several.join(" and ")),
        };
        let power = match vm.power.as_str() {
            "off" => ", off and billed in full",
            "gone" => ", gone at its cloud and not billed",
            "unknown" => ", power not known",
            _ => "",
        };
        format!("{whose}: {}, {} in {} ({}{power})", vm.monthly, vm.size, vm.region, vm.vm)
    }));
    if !facts.unused.is_empty() {
        lines.push(format!("nothing uses: {}", facts.unused.join("; ")));
    }
    if !facts.forecast.is_empty() {
        lines.push(format!(
            "forecast: {} (what is there now, each VM by its share of the month since its order; without traffic, and without what was deleted earlier this month)",
            facts.forecast.join(" and ")
        ));
    }
    lines.extend(facts.what_if.iter().map(|what| format!("what if: {what}")));
    lines.extend(facts.elsewhere.iter().cloned());
    lines.extend(facts.notes.iter().cloned());
    lines.join("\n")
}
