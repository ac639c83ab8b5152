//! The list of tools: each is one file beside this one, and one line here.
//!
//! The order is the one in which clients see them. The second word is the weakest role that may
//! call the tool, the third says what it touches, as far as keys are concerned.

mod cancel;
mod configure_app;
mod control_app;
mod create_environment;
mod deploy;
mod destroy;
mod diagnose;
mod get_costs;
mod get_logs;
mod get_metrics;
mod get_operation;
mod get_overview;
mod get_status;
mod list_deploys;
mod list_env;
mod list_sizes;
mod maintain_vm;
mod manage_domain;
mod manage_service;
mod provision_vm;
mod resize_vm;
mod rollback;
mod scan_repo;
mod set_env;
mod setup_repo;

use rmcp::handler::server::router::tool::ToolRouter;

use crate::access::Role::{Admin, Deploy, Read};
use crate::mcp::Touches::{Environment, Installation, Nothing, Operation};
use crate::mcp::{Entry, Server, Touches};

/// Every tool.
pub(crate) fn all() -> Vec<Entry> {
    vec![
        tool(Server::get_overview_router(), Read, Nothing),
        tool(Server::get_status_router(), Read, Environment),
        tool(Server::scan_repo_router(), Read, Installation),
        tool(Server::list_sizes_router(), Read, Nothing),
        tool(Server::get_logs_router(), Read, Environment),
        tool(Server::get_metrics_router(), Read, Environment),
        tool(Server::diagnose_router(), Read, Environment),
        tool(Server::list_deploys_router(), Read, Environment),
        tool(Server::list_env_router(), Read, Environment),
        tool(Server::get_operation_router(), Read, Operation),
        tool(Server::get_costs_router(), Read, Nothing),
        tool(Server::setup_repo_router(), Admin, Installation),
        tool(Server::create_environment_router(), Admin, Environment),
        tool(Server::configure_app_router(), Admin, Environment),
        tool(Server::provision_vm_router(), Admin, Environment),
        tool(Server::deploy_router(), Deploy, Environment),
        tool(Server::rollback_router(), Deploy, Environment),
        Entry { secrets: &["set"], ..tool(Server::set_env_router(), Deploy, Environment) },
        tool(Server::resize_vm_router(), Admin, Environment),
        tool(Server::control_app_router(), Deploy, Environment),
        tool(Server::maintain_vm_router(), Admin, Environment),
        tool(Server::cancel_router(), Deploy, Operation),
        tool(Server::manage_domain_router(), Admin, Environment),
        tool(Server::manage_service_router(), Admin, Environment),
        tool(Server::destroy_router(), Admin, Environment),
    ]
}

fn tool(router: ToolRouter<Server>, needs: crate::access::Role, touches: Touches) -> Entry {
    Entry { router, needs, touches, secrets: &[] }
}
