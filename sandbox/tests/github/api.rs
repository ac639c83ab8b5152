//! The API's manners: who is let in, what is refused and how, what a client may rely on.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::stage::{Stage, got};

#[tokio::test]
async fn tokens_permissions_and_limits() {
    let stage = Stage::new().await;
    let url = format!("{}/repos/octo/shop", stage.origin);
    let without = got(stage.client.get(&url)).await;
    assert_eq!(
        (without.status, without.body["message"].as_str()),
        (StatusCode::UNAUTHORIZED, Some("Requires authentication"))
    );
    let wrong = got(stage.client.get(&url).bearer_auth("another")).await;
    assert_eq!(
        (wrong.status, wrong.body["message"].as_str()),
        (StatusCode::UNAUTHORIZED, Some("Bad credentials"))
    );
    assert!(wrong.body["documentation_url"].is_string());
    let old_form =
        got(stage.client.get(&url).header("authorization", format!("token {}", stage.token))).await;
    assert_eq!(old_form.status, StatusCode::OK);
    assert_eq!(old_form.headers["x-ratelimit-limit"], "5000");

    let knobs =
        |knobs| got(stage.client.put(format!("{}/_sandbox/knobs", stage.origin)).json(&knobs));
    knobs(json!({ "missing_permissions": ["contents=write", "secrets=read"] })).await;
    let body = json!({ "message": "m", "content": "" });
    let refused = stage.send(Method::PUT, "/repos/octo/shop/contents/a", Some(body)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.headers["x-accepted-github-permissions"], "contents=write");
    assert_eq!(refused.body["message"], "Resource not accessible by personal access token");
    let refused =
        stage.send(Method::GET, "/repos/octo/shop/actions/secrets/public-key", None).await;
    assert_eq!(refused.headers["x-accepted-github-permissions"], "secrets=read");
    stage.get("/repos/octo/shop/contents/README.md").await;

    knobs(json!({ "missing_permissions": ["workflows=write"] })).await;
    let body = json!({ "tree": [{ "path": ".github/workflows/a.yml", "mode": "100644", "type": "blob", "content": "x" }] });
    let refused = stage.send(Method::POST, "/repos/octo/shop/git/trees", Some(body)).await;
    assert_eq!(refused.headers["x-accepted-github-permissions"], "contents=write,workflows=write");

    knobs(json!({ "requests_left": 0 })).await;
    let limited = stage.send(Method::GET, "/user", None).await;
    assert_eq!(
        (limited.status, &limited.headers["x-ratelimit-remaining"]),
        (StatusCode::FORBIDDEN, &"0".parse().unwrap())
    );
    knobs(json!({})).await;
    assert_eq!(stage.get("/user").await["login"], "octo");
}

#[tokio::test]
async fn etags_save_requests() {
    let stage = Stage::new().await;
    let first = stage.send(Method::GET, "/repos/octo/shop", None).await;
    let tag = first.headers["etag"].clone();
    let url = format!("{}/repos/octo/shop", stage.origin);
    let again =
        got(stage.client.get(&url).bearer_auth(&stage.token).header("if-none-match", &tag)).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    assert_eq!(again.headers["x-ratelimit-remaining"], first.headers["x-ratelimit-remaining"]);
    stage.expect(200, Method::PATCH, "/repos/octo/shop", json!({ "archived": true })).await;
    let changed =
        got(stage.client.get(&url).bearer_auth(&stage.token).header("if-none-match", &tag)).await;
    assert_eq!((changed.status, &changed.body["archived"]), (StatusCode::OK, &json!(true)));
}

#[tokio::test]
async fn refusals_have_their_shapes() {
    let stage = Stage::new().await;
    let head = stage.get("/repos/octo/shop/commits/main").await["sha"].clone();
    let table = [
        (404, Method::GET, "/repos/octo/none", json!({}), "Not Found"),
        (404, Method::GET, "/repos/octo/shop/nothing", json!({}), "Not Found"),
        (
            400,
            Method::POST,
            "/repos/octo/shop/git/blobs",
            json!([1]),
            "Body should be a JSON object",
        ),
        (
            422,
            Method::POST,
            "/repos/octo/shop/git/refs",
            json!({ "ref": "refs/heads/main", "sha": head }),
            "Reference already exists",
        ),
        (
            422,
            Method::POST,
            "/repos/octo/shop/git/refs",
            json!({ "ref": "main", "sha": head }),
            "main is not a valid ref name.",
        ),
        (
            422,
            Method::PATCH,
            "/repos/octo/shop/git/refs/heads/x",
            json!({ "sha": head }),
            "Reference does not exist",
        ),
        (
            422,
            Method::POST,
            "/repos/octo/shop/git/trees",
            json!({ "tree": [{ "path": "../x", "mode": "100644", "content": "" }] }),
            "tree.path contains a malformed path component",
        ),
        (
            422,
            Method::POST,
            "/repos/octo/shop/pulls",
            json!({ "title": "t", "head": "none", "base": "main" }),
            "Validation Failed",
        ),
        (
            404,
            Method::POST,
            "/repos/octo/shop/actions/workflows/none.yml/dispatches",
            json!({ "ref": "main" }),
            "Not Found",
        ),
        (404, Method::DELETE, "/repos/octo/shop/actions/secrets/NONE", json!({}), "Not Found"),
        (
            422,
            Method::PUT,
            "/repos/octo/shop/actions/secrets/A",
            json!({ "encrypted_value": "eA==", "key_id": "1" }),
            "Bad request - key_id is not the repository's current public key",
        ),
    ];
    for (status, method, path, body, message) in table {
        assert_eq!(stage.expect(status, method, path, body).await["message"], message, "{path}");
    }
    let missing =
        stage.expect(422, Method::POST, "/repos/octo/shop/git/refs", json!({ "sha": head })).await;
    assert_eq!(
        missing["errors"],
        json!([{ "resource": "Reference", "field": "ref", "code": "missing_field" }])
    );
}

#[tokio::test]
async fn dispatches_are_checked() {
    let stage = Stage::new().await;
    stage.put_file(".github/workflows/vmkit-deploy.yml", include_str!("vmkit-deploy.yml")).await;
    stage
        .put_file(
            ".github/workflows/push.yml",
            "on: push\njobs:\n  a: {runs-on: x, steps: [{run: 'true'}]}\n",
        )
        .await;
    let path = "/repos/octo/shop/actions/workflows/vmkit-deploy.yml/dispatches";
    let table = [
        (
            path,
            json!({ "ref": "none", "inputs": { "environment": "staging" } }),
            "No ref found for: none",
        ),
        (
            path,
            json!({ "ref": "main", "inputs": { "environment": "staging", "more": "x" } }),
            "Unexpected inputs provided: [\"more\"]",
        ),
        (
            path,
            json!({ "ref": "main", "inputs": { "environment": "moon" } }),
            "Provided value 'moon' for input 'environment' not in the list of allowed values [\"staging\"]",
        ),
        (
            "/repos/octo/shop/actions/workflows/push.yml/dispatches",
            json!({ "ref": "main" }),
            "Workflow does not have 'workflow_dispatch' trigger",
        ),
    ];
    for (path, body, message) in table {
        assert_eq!(stage.expect(422, Method::POST, path, body).await["message"], message);
    }
    // The older API answers without the run's id.
    let url = format!("{}{path}", stage.origin);
    let body = json!({ "ref": "main", "inputs": { "environment": "staging", "action": "unlock" } });
    let old = got(stage.client.post(url).bearer_auth(&stage.token).json(&body)).await;
    assert_eq!(old.status, StatusCode::NO_CONTENT);
    let runs = stage.get("/repos/octo/shop/actions/runs").await;
    let run = runs["workflow_runs"][0]["id"].as_u64().unwrap();
    // Without its key the job fails before anything is sent, and says so in an annotation.
    assert_eq!(stage.ended(run).await["conclusion"], "failure");
    let jobs = stage.jobs(run).await;
    assert_eq!(jobs[0]["conclusion"], "skipped");
    let notes =
        stage.get(&format!("/repos/octo/shop/check-runs/{}/annotations", jobs[1]["id"])).await;
    let messages: Vec<&str> =
        notes.as_array().unwrap().iter().filter_map(|note| note["message"].as_str()).collect();
    assert!(
        messages
            .iter()
            .any(|message| message
                .contains("config/deploy.staging.yml is not on the default branch")),
        "{messages:?}"
    );
}

#[tokio::test]
async fn job_logs_lie_elsewhere_and_refuse_the_token() {
    let stage = Stage::new().await;
    stage.put_file(".github/workflows/a.yml", "on: workflow_dispatch\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo hello ${{ secrets.GITHUB_TOKEN }}\n").await;
    let answer = stage
        .expect(
            200,
            Method::POST,
            "/repos/octo/shop/actions/workflows/a.yml/dispatches",
            json!({ "ref": "main" }),
        )
        .await;
    let run = answer["workflow_run_id"].as_u64().unwrap();
    assert_eq!(stage.ended(run).await["conclusion"], "success");
    let job = stage.jobs(run).await[0].clone();
    let shown = job["steps"][0]["name"].as_str().unwrap();
    assert_eq!(shown, "Run echo hello ${{ secrets.GITHUB_TOKEN }}", "a name shows no secret");
    let job = job["id"].clone();
    let redirect =
        stage.send(Method::GET, &format!("/repos/octo/shop/actions/jobs/{job}/logs"), None).await;
    assert_eq!(redirect.status, StatusCode::FOUND);
    let location = redirect.headers["location"].to_str().unwrap();
    assert!(!location.starts_with(&stage.origin));
    let signed = got(stage.client.get(location).bearer_auth(&stage.token)).await;
    assert_eq!(signed.status, StatusCode::FORBIDDEN);
    let log = stage.client.get(location).send().await.unwrap().text().await.unwrap();
    assert!(log.contains("hello ***"), "{log}");
    assert!(stage.faults.requests().iter().any(|exchange| exchange.path.ends_with("/logs")));
}

#[tokio::test]
async fn repos_come_from_folders() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("ada/engine");
    for path in ["src/main.py", ".git/HEAD", "node_modules/x/y.js", "target/z"] {
        let path = repo.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "text").unwrap();
    }
    let stage = Stage::with_repos(Some(dir.path().to_owned())).await;
    let tree = stage.get("/repos/ada/engine/git/trees/main?recursive=1").await;
    let paths: Vec<&str> = tree["tree"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["path"].as_str())
        .collect();
    assert_eq!(paths, ["src", "src/main.py"]);
    let state = stage
        .client
        .get(format!("{}/_sandbox/state", stage.origin))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(state.contains("ada/engine") && state.contains("octo/shop"), "{state}");
}
