//! What an operation would do, before it does it.

use serde::{Deserialize, Serialize};

use super::money::Money;

/// Who may let a plan run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// A fresh plan is enough.
    Plan,
    /// A person has to approve it.
    Human,
}

/// How long a plan may be used, in milliseconds (DESIGN: 15 minutes).
pub const PLAN_LIFETIME_MS: i64 = 15 * 60 * 1000;

/// What an operation would do, for a person to read and for a driver to check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanBody {
    /// One line: what would happen to what.
    pub summary: String,
    /// The steps in order.
    pub steps: Vec<String>,
    /// What is paid per month now for what the plan touches.
    pub monthly_before: Option<Money>,
    /// What would be paid per month afterwards.
    pub monthly_after: Option<Money>,
    /// How long what serves now would not, in seconds.
    pub downtime_s: u32,
    /// What is lost for good.
    pub lost: Vec<String>,
    /// Apps, domains, volumes and VMs that are touched.
    pub touches: Vec<String>,
    /// What a person types to approve it, where that is needed.
    pub confirm_with: String,
}
