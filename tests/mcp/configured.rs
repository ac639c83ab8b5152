//! What `configure_app` is told, and what a deploy makes of it: Traefik in front, another folder.

use serde_json::json;

use crate::releases::deploy;
use crate::rig::{eras, error, text, until};
use crate::sharing::done;
use crate::story::{Client, Person, Stage, call};

impl Stage {
    /// The containers of the only machine that have ports outside.
    fn publishing(&self) -> Vec<String> {
        let machines = self.sandbox.machines().list();
        assert_eq!(machines.len(), 1);
        let all = machines[0].docker().list();
        all.into_iter().filter(|one| !one.published.is_empty()).map(|one| one.name).collect()
    }
}

async fn configure(client: &Client, change: serde_json::Value) {
    let mut arguments = json!({"environment": "shop/staging"});
    arguments.as_object_mut().expect("an object").extend(change.as_object().expect("one").clone());
    done(client, "configure_app", arguments).await;
}

#[tokio::test]
async fn an_app_behind_traefik_goes_live_and_follows_its_folder() {
    let stage = Stage::new().await;
    let [_, modern] = eras();
    let session = stage.client(modern, Person::default()).await;
    let client = &session;
    stage.with_an_environment(client).await;
    configure(client, json!({"proxy": "traefik"})).await;
    stage.provision(client).await;
    deploy(client).await;
    let (status, page) = stage.page(None).await;
    assert!(status == 200 && page.contains("Welcome to the shop"), "{status} {page}");
    assert_eq!(stage.publishing(), ["vmkit-traefik"], "Traefik alone has ports");

    // What has the ports of a VM stays while versions run there.
    let back = json!({"environment": "shop/staging", "proxy": "kamal"});
    let refused = call(client, "configure_app", back).await;
    assert_eq!(error(&refused).code, "proxy_in_use", "{}", text(&refused));
    assert!(text(&refused).contains("`shop/staging` on the same VM is served through traefik"));

    // The app moves to another folder of its repo.
    stage.add_the_api().await;
    let nowhere = json!({"environment": "shop/staging", "root": "../api"});
    assert!(!error(&call(client, "configure_app", nowhere).await).code.is_empty());
    configure(client, json!({"root": "api"})).await;
    deploy(client).await;
    let (status, page) = stage.page(None).await;
    assert!(status == 200 && page.contains("The api"), "{status} {page}");
    session.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}
