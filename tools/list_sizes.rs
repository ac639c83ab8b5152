//! `list_sizes`: what can be ordered, with live prices, ranked for a need.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::names::RegionName;
use crate::domain::size::{Arch, Need, suits};
use crate::mcp::{Answer, Parameters, Server, ToolError, bad_name, line};
use crate::queries::paas;
use crate::queries::sizes::{SizeLine, Sizes, sizes};

/// How many are shown: the cheapest are what most people want.
const SHOWN: usize = 12;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as fsn1.
    region: Option<String>,
    arch: Option<Architecture>,
    min_memory_gb: Option<u32>,
    min_disk_gb: Option<u32>,
    /// Such as EUR 20.
    max_monthly: Option<String>,
    /// Also those that cannot be ordered now.
    sold_out_too: Option<bool>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Architecture {
    Amd64,
    Arm64,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    sizes: Vec<Line>,
    left_out: usize,
    notes: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Line {
    size: String,
    cloud: String,
    regions: Vec<String>,
    sold_out: Vec<String>,
    monthly: String,
    cores: u32,
    memory_gb: String,
    disk_gb: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic_gb: Option<u64>,
    arch: String,
    suits: String,
}

#[tool_router(router = list_sizes_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "list_sizes",
        title = "Sizes and prices",
        description = "VM sizes of the connected clouds with live price per month (net, IPv4 included), regions and availability, ranked for a need: the cheapest that fits first. Compares with PaaS prices.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn list_sizes(
        &self,
        Parameters(input): Parameters<Input>,
    ) -> Result<Answer<Output>, ToolError> {
        let need = Need {
            region: input.region.map(|name| name.parse()).transpose().map_err(bad_name)?,
            arch: input.arch.map(|arch| match arch {
                Architecture::Amd64 => Arch::Amd64,
                Architecture::Arm64 => Arch::Arm64,
            }),
            min_memory_mib: input.min_memory_gb.map(|gb| u64::from(gb) * 1024),
            min_disk_gb: input.min_disk_gb.map(u64::from),
            max_monthly: input
                .max_monthly
                .map(|most| most.parse())
                .transpose()
                .map_err(bad_name)?,
        };
        let found = sizes(self.context(), &need).await?;
        let facts = facts(&found, input.sold_out_too == Some(true));
        Ok(Answer::facts(text(&facts), facts))
    }
}

fn facts(found: &Sizes, sold_out_too: bool) -> Output {
    let shown: Vec<&SizeLine> =
        found.lines.iter().filter(|line| sold_out_too || !line.regions.is_empty()).collect();
    let hidden = found.lines.len() - shown.len();
    let mut notes = Vec::new();
    if hidden > 0 {
        notes.push(format!("{hidden} more that fit are sold out; `sold_out_too` shows them"));
    }
    if !found.unmet.is_empty() {
        let nothing = "nothing that can be ordered now meets all of it; what would";
        notes.push(format!("{nothing}: {}", found.unmet.join("; ")));
    }
    if let Some(disk) = &found.disk_only {
        let size = &disk.offer.size;
        notes.push(format!(
            "only the disk: `{}` in {} with a volume of {} GB is {} (attach it in the provider's console); a VM's own disk grows with `upgrade_disk` of a resize, for good",
            size.name, size.region, disk.volume_gb, disk.monthly
        ));
    }
    notes.extend(elsewhere(found));
    for age in &found.ages {
        let cloud = age.cloud;
        notes.push(match &age.away {
            Some(why) => format!(
                "{cloud} did not answer ({}): its list is {} old and may be out of date",
                line(why, 120),
                length(age.age_s)
            ),
            None => format!("{cloud}'s list is {} old", length(age.age_s)),
        });
    }
    Output {
        left_out: shown.len().saturating_sub(SHOWN),
        sizes: shown.into_iter().take(SHOWN).map(one).collect(),
        notes,
    }
}

/// The first size's slot on other platforms.
fn elsewhere(found: &Sizes) -> Option<String> {
    let (first, table) = (found.lines.first()?, paas::table()?);
    if found.paas.is_empty() {
        return None;
    }
    let slots: Vec<String> = found.paas.iter().map(ToString::to_string).collect();
    Some(format!(
        "the slot of `{}` elsewhere, as last looked up {} ({}): {}",
        first.offer.size.name,
        table.checked,
        table.assumptions.join("; "),
        slots.join(", ")
    ))
}

fn length(seconds: i64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

fn one(of: &SizeLine) -> Line {
    let size = &of.offer.size;
    let names = |regions: &[RegionName]| regions.iter().map(ToString::to_string).collect();
    Line {
        size: size.name.to_string(),
        cloud: of.offer.cloud.clone(),
        regions: names(&of.regions),
        sold_out: names(&of.sold_out),
        monthly: size.monthly.to_string(),
        cores: size.cores,
        memory_gb: memory(size.memory_mib),
        disk_gb: size.disk_gb,
        traffic_gb: size.traffic_gb,
        arch: size.arch.as_str().to_owned(),
        suits: suits(size).as_str().to_owned(),
    }
}

/// `4`, `0.5`.
fn memory(mib: u64) -> String {
    let (whole, part) = (mib / 1024, mib % 1024 * 10 / 1024);
    if part == 0 { whole.to_string() } else { format!("{whole}.{part}") }
}

fn text(facts: &Output) -> String {
    let mut lines = vec!["per month, net, IPv4 included:".to_owned()];
    if facts.sizes.is_empty() {
        lines = vec!["no size fits".to_owned()];
    }
    lines.extend(facts.sizes.iter().map(|size| {
        let mut places = size.regions.join(", ");
        if !size.sold_out.is_empty() {
            let comma = if places.is_empty() { "" } else { "; " };
            places = format!("{places}{comma}SOLD OUT in {}", size.sold_out.join(", "));
        }
        let traffic = match size.traffic_gb {
            Some(gb) => format!(", {} TB traffic", gb / 1000),
            None => String::new(),
        };
        format!(
            "{} ({}; {places}): {}, {} cores, {} GB, {} GB disk{traffic}, {}, for {}",
            size.size,
            size.cloud,
            size.monthly,
            size.cores,
            size.memory_gb,
            size.disk_gb,
            size.arch,
            size.suits
        )
    }));
    if facts.left_out > 0 {
        lines.push(format!("{} dearer ones left out; name a region or a need", facts.left_out));
    }
    lines.extend(facts.notes.iter().cloned());
    lines.join("\n")
}
