//! A Docker engine that is another one after a while: older, newer, or forbidden. It only says what
//! it is, and has no containers.

use std::path::PathBuf;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use vmkit_agent_protocol::calls::{Call, Reply};

use super::rig::{DEADLINE, Rig, until};

/// What an engine says of itself: its version, and the oldest and the newest API that it speaks,
/// as 1.X. A request that names none is answered by the newest.
#[derive(Clone, Copy)]
enum Kind {
    Engine(&'static str, u32, u32),
    /// Something that lets nobody through, such as a proxy before the socket.
    Forbidden,
}

/// As Docker has them: 20.10 and 24 are gone from under many a VM, and 29 refuses what is older than
/// 1.44 (https://docs.docker.com/reference/api/engine/#api-version-matrix).
const OLD: Kind = Kind::Engine("20.10.24", 12, 41);
const NEW: Kind = Kind::Engine("29.1.2", 44, 52);

struct Socket {
    path: PathBuf,
    serving: Option<JoinHandle<()>>,
}

impl Socket {
    fn of(rig: &Rig) -> Self {
        std::fs::create_dir_all(rig.path("run")).unwrap();
        Self { path: rig.path("run/docker.sock"), serving: None }
    }

    /// The engine ends, with every connection to it, and this one is there.
    async fn becomes(&mut self, kind: Kind) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            drop(serving.await);
            std::fs::remove_file(&self.path).unwrap();
        }
        let listener = UnixListener::bind(&self.path).unwrap();
        let router = Router::new().fallback(async move |uri: Uri| answer(kind, uri.path()));
        self.serving = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
    }
}

fn answer(kind: Kind, path: &str) -> Response {
    let refuse = |status: StatusCode, message: String| {
        (status, axum::Json(json!({ "message": message }))).into_response()
    };
    let Kind::Engine(version, oldest, newest) = kind else {
        return refuse(StatusCode::FORBIDDEN, "authorization denied by plugin".to_owned());
    };
    let named = path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/'));
    let (asked, rest) = match named {
        Some((asked, rest)) => (asked.parse().unwrap(), rest),
        None => (newest, path.trim_start_matches('/')),
    };
    if asked < oldest || asked > newest {
        let side = if asked < oldest { "old. Minimum" } else { "new. Maximum" };
        let limit = if asked < oldest { oldest } else { newest };
        let text = format!(
            "client version 1.{asked} is too {side} supported API version is 1.{limit}, please \
             upgrade your client to a newer version"
        );
        return refuse(StatusCode::BAD_REQUEST, text);
    }
    match rest {
        "version" => {
            let api = format!("1.{newest}");
            axum::Json(json!({ "Version": version, "ApiVersion": api })).into_response()
        }
        "containers/json" => axum::Json(json!([])).into_response(),
        "events" => {
            let silent = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
            axum::body::Body::from_stream(silent).into_response()
        }
        other => refuse(StatusCode::NOT_FOUND, format!("no {other} here")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_upgraded_or_forbidden_under_the_agent_is_found_again() {
    let rig = Rig::new().await;
    let mut socket = Socket::of(&rig);
    socket.becomes(OLD).await;
    let _agent = rig.start_agent();
    rig.linked().await;
    let since = rig.fleet.presence(rig.vm).await.unwrap().since;
    let ask = async |call: Call| rig.fleet.call(rig.vm, call, DEADLINE).await;
    let facts = async || match ask(Call::HostFacts).await {
        Ok(Reply::HostFacts(facts)) => facts.docker,
        other => panic!("no facts: {other:?}"),
    };
    let trouble = async || match ask(Call::Metrics).await {
        Ok(Reply::Metrics(now)) => now.docker_trouble,
        other => panic!("no metrics: {other:?}"),
    };
    for kind in [OLD, NEW, Kind::Forbidden, NEW, Kind::Forbidden, OLD] {
        socket.becomes(kind).await;
        match kind {
            Kind::Engine(version, ..) => {
                until("the engine's version is known, and it is asked", async || {
                    let known = facts().await.version.as_deref() == Some(version);
                    let listed = ask(Call::Containers).await.is_ok();
                    (known && listed && trouble().await.is_none()).then_some(())
                })
                .await;
            }
            Kind::Forbidden => {
                until("what it says is told", async || {
                    let told = trouble().await?;
                    told.contains("authorization denied by plugin").then_some(())
                })
                .await;
                let refused = ask(Call::Containers).await.unwrap_err().to_string();
                assert!(refused.contains("docker_unavailable"), "{refused}");
                assert!(facts().await.absent_because.is_some());
            }
        }
    }
    let presence = rig.fleet.presence(rig.vm).await.unwrap();
    assert_eq!(presence.since, since, "none of it is a reason to let the link go");
}
