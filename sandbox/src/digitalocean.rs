//! The simulated DigitalOcean API under `/v2`. Its droplets are sandbox VMs.

mod account;
mod actions;
mod answers;
mod catalogue;
mod create;
mod domains;
mod droplet_actions;
mod droplets;
mod errors;
mod firewalls;
mod guard;
mod input;
mod knobs;
mod listing;
mod project;
mod reserved_ips;
mod snapshots;
mod tags;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::Json;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use futures::future::BoxFuture;
use serde_json::Value;

pub use knobs::Knobs;

use crate::machines::{Machine, Machines};
use errors::ApiError;
use project::Project;

/// One simulated DigitalOcean account. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct DigitalOcean(Arc<Inner>);

struct Inner {
    token: String,
    machines: Machines,
    knobs: Mutex<Knobs>,
    project: Mutex<Project>,
    limit: Mutex<guard::Limit>,
}

impl DigitalOcean {
    /// An empty account that `token` opens; its droplets are VMs of `machines`.
    pub fn new(token: &str, machines: Machines) -> Self {
        Self(Arc::new(Inner {
            token: token.to_owned(),
            machines,
            knobs: Mutex::new(Knobs::default()),
            project: Mutex::new(Project::new()),
            limit: Mutex::default(),
        }))
    }

    /// The API.
    pub fn router(&self) -> Router {
        Router::new()
            .nest("/v2", routes().merge(resources()))
            .fallback(async || ApiError::not_found())
            .method_not_allowed_fallback(async || ApiError::not_found())
            .layer(from_fn_with_state(self.clone(), guard::pass))
            .with_state(self.clone())
    }

    /// `GET|POST /_sandbox/knobs`: what this account is made to do; a POST changes only what it
    /// names.
    pub fn knobs_router(&self) -> Router {
        Router::new()
            .route("/_sandbox/knobs", get(knobs::show).post(knobs::turn))
            .with_state(self.clone())
    }

    /// What the account is made to do.
    pub fn knobs(&self) -> Knobs {
        crate::lock(&self.0.knobs).clone()
    }

    /// Makes the account do something else.
    pub fn set_knobs(&self, knobs: Knobs) {
        self.0.machines.let_agents_start(knobs.agents_start);
        *crate::lock(&self.0.knobs) = knobs;
    }

    /// All resources as JSON: `droplets`, `ssh_keys`, `firewalls`, `tags`, `snapshots`,
    /// `reserved_ips`, `domains` (with their records) and `actions` as the API shows them, and
    /// `machines`: those of the whole sandbox.
    pub fn state(&self) -> BoxFuture<'static, Value> {
        let this = self.clone();
        Box::pin(async move {
            let mut machines = Vec::new();
            for machine in this.0.machines.list() {
                machines.push(crate::hetzner::machine_json(&machine).await);
            }
            let mut state = this.project().json(&this.knobs());
            state["machines"] = machines.into();
            state
        })
    }

    fn project(&self) -> MutexGuard<'_, Project> {
        crate::lock(&self.0.project)
    }

    /// Does `work` after the usual wait, then ends the action with what came of it and unlocks its
    /// droplet. Called with the action already begun.
    fn later(
        &self,
        action: u64,
        droplet: Option<u64>,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let this = self.clone();
        tokio::spawn(async move {
            let knobs = this.knobs();
            tokio::time::sleep(Duration::from_millis(knobs.action_ms)).await;
            let kind = this.project().action_kind(action);
            let fails = knobs.failing_actions.contains(&kind);
            let done = if fails { Err(format!("{kind} failed")) } else { work.await };
            if let Err(error) = &done {
                tracing::debug!(%error, "an action of the simulated DigitalOcean ended in an error");
            }
            this.project().end_action(action, droplet, done.is_ok());
        });
    }

    fn machine(&self, address: IpAddr) -> Result<Machine, String> {
        self.0.machines.by_address(address).ok_or_else(|| "the droplet has no machine".to_owned())
    }
}

fn routes() -> Router<DigitalOcean> {
    Router::new()
        .route("/account", get(account::show))
        .route("/customers/my/balance", get(account::balance))
        .route("/account/keys", get(account::list_keys).post(account::create_key))
        .route(
            "/account/keys/{id}",
            get(account::show_key).put(account::update_key).delete(account::delete_key),
        )
        .route("/sizes", get(catalogue::list_sizes))
        .route("/regions", get(catalogue::list_regions))
        .route("/images", get(snapshots::list_images))
        .route(
            "/images/{id}",
            get(snapshots::show_image).put(snapshots::rename).delete(snapshots::delete),
        )
        .route("/snapshots", get(snapshots::list))
        .route("/snapshots/{id}", get(snapshots::show).delete(snapshots::delete))
        .route(
            "/droplets",
            get(droplets::list).post(create::create).delete(droplets::delete_tagged),
        )
        .route("/droplets/{id}", get(droplets::show).delete(droplets::delete))
        .route("/droplets/{id}/actions", get(actions::list_of_droplet).post(droplet_actions::act))
        .route("/droplets/{id}/actions/{action}", get(actions::show_of_droplet))
        .route("/droplets/{id}/snapshots", get(snapshots::list_of_droplet))
        .route("/droplets/{id}/firewalls", get(firewalls::list_of_droplet))
        .route("/actions", get(actions::list))
        .route("/actions/{id}", get(actions::show))
}

fn resources() -> Router<DigitalOcean> {
    Router::new()
        .route("/firewalls", get(firewalls::list).post(firewalls::create))
        .route(
            "/firewalls/{id}",
            get(firewalls::show).put(firewalls::replace).delete(firewalls::delete),
        )
        .route(
            "/firewalls/{id}/droplets",
            post(firewalls::add_droplets).delete(firewalls::remove_droplets),
        )
        .route("/firewalls/{id}/tags", post(firewalls::add_tags).delete(firewalls::remove_tags))
        .route("/firewalls/{id}/rules", post(firewalls::add_rules).delete(firewalls::remove_rules))
        .route("/tags", get(tags::list).post(tags::create))
        .route("/tags/{name}", get(tags::show).delete(tags::delete))
        .route("/tags/{name}/resources", post(tags::assign).delete(tags::unassign))
        .route("/reserved_ips", get(reserved_ips::list).post(reserved_ips::create))
        .route("/reserved_ips/{ip}", get(reserved_ips::show).delete(reserved_ips::delete))
        .route("/reserved_ips/{ip}/actions", post(reserved_ips::act))
        .route("/reserved_ips/{ip}/actions/{action}", get(reserved_ips::show_action))
        .route("/domains", get(domains::list).post(domains::create))
        .route("/domains/{domain}", get(domains::show).delete(domains::delete))
        .route("/domains/{domain}/records", get(domains::records).post(domains::add))
        .route(
            "/domains/{domain}/records/{id}",
            get(domains::record)
                .put(domains::change)
                .patch(domains::change)
                .delete(domains::remove),
        )
        .route("/volumes", get(async |query: listing::Query| query.page("volumes", Vec::new())))
}

type Answer = Result<(http::StatusCode, Json<Value>), ApiError>;
type Nothing = Result<http::StatusCode, ApiError>;

fn ok(body: Value) -> Answer {
    Ok((http::StatusCode::OK, Json(body)))
}

fn created(body: Value) -> Answer {
    Ok((http::StatusCode::CREATED, Json(body)))
}

fn accepted(body: Value) -> Answer {
    Ok((http::StatusCode::ACCEPTED, Json(body)))
}

const NO_CONTENT: Nothing = Ok(http::StatusCode::NO_CONTENT);
