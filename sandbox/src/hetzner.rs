//! The simulated Hetzner Cloud API, under `/v1` and bare. Its servers are sandbox VMs.

mod actions;
mod answers;
mod catalogue;
mod create;
mod errors;
mod firewalls;
mod guard;
mod images;
mod input;
mod keys;
mod knobs;
mod listing;
mod primary_ips;
mod project;
mod selector;
mod server_actions;
mod servers;
mod zones;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::Json;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use futures::future::BoxFuture;
use serde_json::{Value, json};

pub(crate) use knobs::turned;
pub use knobs::{Knobs, Offer};

use crate::machines::Machines;
use errors::{ApiError, Code};
use project::{Project, Status};

/// One simulated Hetzner project. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Hetzner(Arc<Inner>);

struct Inner {
    token: String,
    machines: Machines,
    knobs: Mutex<Knobs>,
    project: Mutex<Project>,
    limit: Mutex<guard::Limit>,
    zones: Mutex<zones::Zones>,
}

impl Hetzner {
    /// An empty project that `token` opens; its servers are VMs of `machines`.
    pub fn new(token: &str, machines: Machines) -> Self {
        Self(Arc::new(Inner {
            token: token.to_owned(),
            machines,
            knobs: Mutex::new(Knobs::default()),
            project: Mutex::new(Project::new()),
            limit: Mutex::new(guard::Limit::full()),
            zones: Mutex::default(),
        }))
    }

    /// The API, under `/v1` and bare.
    pub fn router(&self) -> Router {
        let api = routes();
        Router::new()
            .nest("/v1", api.clone())
            .merge(api)
            .fallback(async || ApiError::new(Code::NotFound, "the route was not found"))
            .method_not_allowed_fallback(async || {
                ApiError::new(Code::MethodNotAllowed, "the request method is not allowed")
            })
            .layer(from_fn_with_state(self.clone(), guard::pass))
            .with_state(self.clone())
    }

    /// `GET|POST /_sandbox/knobs`: what this project is made to do; a POST changes only what it
    /// names.
    pub fn knobs_router(&self) -> Router {
        Router::new()
            .route("/_sandbox/knobs", get(knobs::show).post(knobs::turn))
            .with_state(self.clone())
    }

    /// What the project is made to do.
    pub fn knobs(&self) -> Knobs {
        crate::lock(&self.0.knobs).clone()
    }

    /// Makes the project do something else.
    pub fn set_knobs(&self, knobs: Knobs) {
        self.0.machines.let_agents_start(knobs.agents_start);
        *crate::lock(&self.0.knobs) = knobs;
    }

    /// All resources as JSON: `servers`, `ssh_keys`, `firewalls`, `primary_ips`, `snapshots` and `actions` as
    /// the API shows them, and `machines`.
    pub fn state(&self) -> BoxFuture<'static, Value> {
        let this = self.clone();
        Box::pin(async move {
            let mut machines = Vec::new();
            for machine in this.0.machines.list() {
                machines.push(machine_json(&machine).await);
            }
            let mut state = this.project().json(&this.knobs());
            state["machines"] = machines.into();
            state["zones"] = this.zones_json();
            state
        })
    }

    fn project(&self) -> MutexGuard<'_, Project> {
        crate::lock(&self.0.project)
    }

    /// Does `work` after the usual wait, then ends the action with what came of it and unlocks its
    /// server. Called with the action already begun.
    fn later(
        &self,
        action: u64,
        server: Option<u64>,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let this = self.clone();
        tokio::spawn(async move {
            let knobs = this.knobs();
            tokio::time::sleep(Duration::from_millis(knobs.action_ms)).await;
            let command = this.project().action_command(action);
            let result = match knobs.failing_actions.get(&command) {
                Some(code) => {
                    this.undo_status(server).await;
                    Err((code.clone(), format!("{command} failed")))
                }
                None => work.await.map_err(|text| ("server_error".to_owned(), text)),
            };
            this.project().end_action(action, server, result);
        });
    }

    /// After an action that failed, a server is what its machine is; an image of it that was being
    /// made goes.
    async fn undo_status(&self, server: Option<u64>) {
        let address = {
            let mut project = self.project();
            project
                .images
                .retain(|_, image| image.snapshot.as_ref().is_none_or(|one| one.disk.is_some()));
            server.and_then(|server| project.servers.get(&server)).map(|server| server.address)
        };
        if let (Some(server), Some(Ok(machine))) = (server, address.map(|at| self.machine(at))) {
            let status = if machine.is_on().await { Status::Running } else { Status::Off };
            self.project().set_status(server, status);
        }
    }

    fn machine(&self, address: IpAddr) -> Result<crate::machines::Machine, String> {
        self.0.machines.by_address(address).ok_or_else(|| "the server has no machine".to_owned())
    }
}

pub(crate) async fn machine_json(machine: &crate::machines::Machine) -> Value {
    let containers: Vec<Value> = machine
        .docker()
        .list()
        .into_iter()
        .map(|info| {
            json!({
                "id": info.id, "name": info.name, "image": info.image, "labels": info.labels,
                "running": info.running, "exit_code": info.exit_code, "port": info.port,
                "pid": info.pid, "restarts": info.restarts,
            })
        })
        .collect();
    json!({
        "address": machine.address(), "root": machine.root(), "on": machine.is_on().await,
        "proxy_port": machine.proxy().port(), "routes": machine.proxy().routes(),
        "containers": containers, "console": machine.console(),
    })
}

fn routes() -> Router<Hetzner> {
    Router::new()
        .route("/servers", get(servers::list).post(create::create))
        .route("/servers/{id}", get(servers::show).put(servers::update).delete(servers::delete))
        .route("/servers/{id}/actions", get(actions::list_of_server))
        .route(
            "/servers/{id}/actions/{action}",
            get(actions::show_of_server).post(server_actions::act),
        )
        .route("/actions", get(actions::list))
        .route("/actions/{id}", get(actions::show))
        .route("/server_types", get(catalogue::server_types))
        .route("/server_types/{id}", get(catalogue::server_type))
        .route("/locations", get(catalogue::locations))
        .route("/locations/{id}", get(catalogue::location))
        .route("/images", get(images::list))
        .route("/images/{id}", get(images::show).put(images::update).delete(images::delete))
        .route("/images/{id}/actions/{action}", post(images::act))
        .route("/pricing", get(catalogue::pricing))
        .route("/ssh_keys", get(keys::list).post(keys::create))
        .route("/ssh_keys/{id}", get(keys::show).put(keys::update).delete(keys::delete))
        .route("/firewalls", get(firewalls::list).post(firewalls::create))
        .route(
            "/firewalls/{id}",
            get(firewalls::show).put(firewalls::update).delete(firewalls::delete),
        )
        .route("/firewalls/{id}/actions/{action}", post(firewalls::act))
        .route("/primary_ips", get(primary_ips::list).post(primary_ips::create))
        .route(
            "/primary_ips/{id}",
            get(primary_ips::show).put(primary_ips::update).delete(primary_ips::delete),
        )
        .route("/primary_ips/{id}/actions/{action}", post(primary_ips::act))
        .route("/volumes", get(async |query: listing::Query| query.page("volumes", Vec::new())))
        .merge(zones::routes())
        .route("/datacenters", get(gone))
        .route("/datacenters/{id}", get(gone))
}

async fn gone() -> ApiError {
    let details = json!({"announcement": "https://docs.hetzner.cloud/changelog"});
    ApiError::new(Code::DeprecatedApiEndpoint, "this endpoint was removed").with_details(details)
}

type Answer = Result<(http::StatusCode, Json<Value>), ApiError>;

fn ok(body: Value) -> Answer {
    Ok((http::StatusCode::OK, Json(body)))
}

fn created(body: Value) -> Answer {
    Ok((http::StatusCode::CREATED, Json(body)))
}
