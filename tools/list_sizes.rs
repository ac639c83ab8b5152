//! `list_sizes`: what can be ordered, with live prices.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::size::Arch;
use crate::mcp::{Answer, Parameters, Server, ToolError, bad_name};
use crate::queries::sizes::{Need, sizes, suits};

/// How many are shown: the cheapest are what most people want.
const SHOWN: usize = 40;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as fsn1.
    region: Option<String>,
    arch: Option<Architecture>,
    /// At least so much memory.
    min_memory_gib: Option<u32>,
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
}

#[derive(Serialize, JsonSchema)]
struct Line {
    size: String,
    region: String,
    monthly: String,
    cores: u32,
    memory_gib: f64,
    disk_gb: u64,
    arch: String,
    available: bool,
    suits: String,
}

#[tool_router(router = list_sizes_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "list_sizes",
        title = "Sizes and prices",
        description = "VM sizes by region with the provider's live price per month (net, IPv4 included), architecture and availability, the cheapest first.",
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
            min_memory_mib: input.min_memory_gib.map(|gib| u64::from(gib) * 1024),
            sold_out_too: input.sold_out_too.unwrap_or(false),
        };
        let found = sizes(&self.context().accounts, &need).await?;
        let left_out = found.len().saturating_sub(SHOWN);
        let lines = found.iter().take(SHOWN).map(|size| Line {
            size: size.name.to_string(),
            region: size.region.to_string(),
            monthly: size.monthly.to_string(),
            cores: size.cores,
            memory_gib: size.memory_mib as f64 / 1024.0,
            disk_gb: size.disk_gb,
            arch: size.arch.as_str().to_owned(),
            available: size.available,
            suits: suits(size).to_owned(),
        });
        let facts = Output { sizes: lines.collect(), left_out };
        Ok(Answer::facts(text(&facts), facts))
    }
}

fn text(facts: &Output) -> String {
    if facts.sizes.is_empty() {
        return "no size fits; ask with fewer conditions, or with sold_out_too".to_owned();
    }
    let mut lines = vec!["per month, net, IPv4 included:".to_owned()];
    lines.extend(facts.sizes.iter().map(|size| {
        let sold_out = if size.available { "" } else { ", SOLD OUT" };
        format!(
            "{} in {}: {}, {} cores, {} GiB, {} GB disk, {}, for {}{sold_out}",
            size.size,
            size.region,
            size.monthly,
            size.cores,
            size.memory_gib,
            size.disk_gb,
            size.arch,
            size.suits
        )
    }));
    if facts.left_out > 0 {
        lines.push(format!("{} dearer ones left out; name a region or an arch", facts.left_out));
    }
    lines.join("\n")
}
