//! A plain HTTP client for the tests.

use std::sync::Once;

use serde_json::{Value, json};
use vmkit_sandbox::Sandbox;

use crate::stage::eventually;

/// The simulated Hetzner, as a client with its token sees it.
pub(crate) struct Api {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) admin: String,
    pub(crate) token: String,
}

pub(crate) fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// An ed25519 public key made of one byte, for tests.
pub(crate) fn public_key(byte: u8) -> String {
    use base64::Engine;
    let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
    blob.extend([byte; 32]);
    format!("ssh-ed25519 {} test", base64::engine::general_purpose::STANDARD.encode(blob))
}

impl Api {
    pub(crate) fn of(sandbox: &Sandbox) -> Self {
        let settings = sandbox.settings();
        let setting = |name: &str| {
            settings.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone()).unwrap()
        };
        Self {
            http: http(),
            url: setting("VMKIT_HETZNER_URL"),
            token: setting("VMKIT_HETZNER_TOKEN"),
            admin: sandbox.hetzner_admin_url(),
        }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let url = format!("{}{path}", self.url);
        let request = self.http.request(method.parse().unwrap(), url).bearer_auth(&self.token);
        match body {
            None => request.send().await,
            Some(body) => request.json(&body).send().await,
        }
    }

    /// Status and body (null where empty).
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let response = self.send(method, path, body).await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.call("POST", path, Some(body)).await;
        assert_eq!(status, 201, "{path}: {body}");
        body
    }

    /// The status and the code of a refusal.
    pub(crate) async fn refusal(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let (status, body) = self.call(method, path, Some(body)).await;
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    /// Orders a server; returns its id once its actions have succeeded.
    pub(crate) async fn order(&self, name: &str, more: Value) -> u64 {
        let mut body = json!({"name": name, "server_type": "cax11", "image": "debian-13",
            "location": "fsn1"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.post("/servers", body).await;
        self.finished(&answer["action"]).await;
        for action in answer["next_actions"].as_array().unwrap() {
            self.finished(action).await;
        }
        answer["server"]["id"].as_u64().unwrap()
    }

    /// Waits for an action; it must succeed.
    pub(crate) async fn finished(&self, action: &Value) {
        let ended = self.ended(action).await;
        assert_eq!(ended["status"], "success", "{ended}");
    }

    pub(crate) async fn ended(&self, action: &Value) -> Value {
        let path = format!("/actions/{}", action["id"]);
        eventually("the action's end", || async {
            let action = self.get(&path).await["action"].clone();
            (action["status"] != "running").then_some(action)
        })
        .await
    }

    pub(crate) async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/_sandbox/{path}", self.admin);
        let request = self.http.request(method.parse().unwrap(), url);
        let request = if method == "POST" { request.json(&body) } else { request };
        let text = request.send().await.unwrap().text().await.unwrap();
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }
}
