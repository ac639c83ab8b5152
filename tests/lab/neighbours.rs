//! Who lives beside whom on one VM: two environments of one app, a database each, and a second app.
//! One goes for good; what the others have, answers.

use serde_json::json;

use crate::repo::Repo;
use crate::rig::{Client, Rig, call, text};
use crate::steps::{Place, deploys, done, planned, provisioned, set_up};

const GULL: Place = Place { environment: "gull/staging", domain: "gull.example.com" };
const NEXT: Place = Place { environment: "gull/preview", domain: "preview.example.com" };
const TERN: Place = Place { environment: "tern/staging", domain: "tern.example.com" };

/// A database beside the app, the app, and its service's name in a table.
async fn with_data(rig: &Rig, repo: &Repo<'_>, client: &Client, place: Place) {
    done(client, "configure_app", place.with(json!({"start_timeout_s": 20}))).await;
    let add = json!({"action": "add", "service": "postgres", "version": "17.6"});
    done(client, "manage_service", place.with(add)).await;
    deploys(rig, repo, client, place.only()).await;
    let service = place.service();
    let fill = format!("CREATE TABLE mine (whose text); INSERT INTO mine VALUES ('{service}')");
    place.sql(rig, &fill);
    has_its_own(rig, place).await;
    rig.tell(&format!("{} is live, with data of its own", place.environment));
}

/// The app answers, reaches its database, and finds there what it put there.
async fn has_its_own(rig: &Rig, place: Place) {
    let service = place.service();
    let visitor = rig.visitor(place.domain);
    assert!(place.page(&visitor).await.contains("text="), "{} answers", place.environment);
    let reached = place.get(&visitor, "/cgi-bin/db").await;
    assert_eq!(reached.trim(), format!("reached {service}-db"));
    assert_eq!(place.sql(rig, "SELECT whose FROM mine"), service);
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_neighbours_keep_their_data() {
    let Some(rig) = Rig::new().await else { return };
    rig.lab.offer("vmkit-lab/postgres", "library/postgres:17.6").expect("an image");
    let gull = Repo::new(&rig, "gull");
    // Its person types this: the environment that is destroyed in the end.
    let client = rig.client(NEXT.environment).await;
    set_up(&client, &gull).await;
    provisioned(&rig, &client, GULL).await;
    with_data(&rig, &gull, &client, GULL).await;

    let share = json!({"share": GULL.environment, "domain": NEXT.domain, "health_path": "/up"});
    done(&client, "create_environment", NEXT.with(share)).await;
    done(&client, "manage_domain", NEXT.with(json!({"action": "point"}))).await;
    with_data(&rig, &gull, &client, NEXT).await;

    let tern = Repo::new(&rig, "tern");
    let name_taken = json!({"repo": tern.full_name(), "app": "gull", "changes": "direct"});
    let refused = call(&client, "setup_repo", name_taken).await;
    assert!(text(&refused).contains("slug_taken: "), "{}", text(&refused));
    set_up(&client, &tern).await;
    let share = json!({"share": GULL.environment, "domain": TERN.domain, "health_path": "/up"});
    done(&client, "create_environment", TERN.with(share)).await;
    done(&client, "manage_domain", TERN.with(json!({"action": "point"}))).await;
    deploys(&rig, &tern, &client, TERN.only()).await;
    for place in [GULL, NEXT] {
        has_its_own(&rig, place).await;
    }
    let visitor = rig.visitor(TERN.domain);
    assert!(TERN.page(&visitor).await.contains("text=one"), "the second app answers");
    assert_eq!(TERN.get(&visitor, "/cgi-bin/db").await.trim(), "", "it has no database to reach");
    rig.tell("two environments and a second app on one VM: each reaches its own database alone");

    planned(&client, "destroy", NEXT.with(json!({"purge": true}))).await;
    let left = rig.on_vm(
        "docker ps -a --format '{{.Names}}'; docker volume ls -q; ls /etc/vmkit/env/gull; docker exec kamal-proxy kamal-proxy list",
    );
    assert!(!left.contains("preview"), "nothing of it is left: {left}");
    assert!(TERN.page(&visitor).await.contains("text=one"), "the second app answers");
    has_its_own(&rig, GULL).await;
    gull.push("text", "two\n").await;
    deploys(&rig, &gull, &client, GULL.only()).await;
    assert!(GULL.page(&rig.visitor(GULL.domain)).await.contains("text=two"));
    has_its_own(&rig, GULL).await;
    rig.tell("one environment is destroyed for good: the others answer, with their data");
    client.cancel().await.expect("ended");
    rig.stop().await;
}
