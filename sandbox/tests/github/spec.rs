//! Answers against GitHub's own OpenAPI document, where it is at hand.

use std::path::{Path, PathBuf};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vmkit_sandbox::sample;

use crate::stage::Stage;

fn document() -> Option<Value> {
    let path: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/specs/github.json");
    let text = std::fs::read_to_string(path).ok();
    if text.is_none() {
        eprintln!(
            "SKIPPED: ../shared/specs is not there, so answers are not held against GitHub's own schemas"
        );
    }
    serde_json::from_str(&text?).ok()
}

/// The schema of an operation's answer, as a reference into the document.
fn pointer(document: &Value, template: &str, method: &Method, status: StatusCode) -> String {
    let method = method.as_str().to_lowercase();
    let response = &document["paths"][template][&method]["responses"][status.as_str()];
    let place = response["$ref"].as_str().map_or_else(
        || {
            let path = template.replace('~', "~0").replace('/', "~1");
            let path = path.replace('{', "%7B").replace('}', "%7D");
            format!("/paths/{path}/{method}/responses/{}", status.as_u16())
        },
        |reference| reference.trim_start_matches('#').to_owned(),
    );
    format!("urn:spec#{place}/content/application~1json/schema")
}

struct Checker {
    stage: Stage,
    document: Value,
    registry: jsonschema::Registry<'static>,
    checked: usize,
    wrong: Vec<String>,
}

impl Checker {
    /// Sends a request below octo/shop, checks the status and the body; answers the body.
    async fn check(
        &mut self,
        method: Method,
        template: &str,
        path: &str,
        body: Option<Value>,
        status: u16,
    ) -> Value {
        let got = self.stage.send(method.clone(), path, body).await;
        assert_eq!(got.status.as_u16(), status, "{method} {path}: {}", got.body);
        if status != 204 {
            let schema = json!({ "$ref": pointer(&self.document, template, &method, got.status) });
            let validator = jsonschema::options().with_registry(&self.registry).build(&schema);
            match validator {
                Ok(validator) => {
                    let errors: Vec<String> = validator
                        .iter_errors(&got.body)
                        .map(|error| format!("{} at {}", error, error.instance_path()))
                        .collect();
                    if !errors.is_empty() {
                        self.wrong.push(format!("{method} {path} ({status}): {errors:#?}"));
                    }
                }
                Err(error) => self.wrong.push(format!("{method} {template}: {error}")),
            }
        }
        self.checked += 1;
        got.body
    }
}

#[tokio::test]
async fn answers_fit_the_specification() {
    let Some(document) = document() else { return };
    let registry =
        jsonschema::Registry::new().add("urn:spec", document.clone()).unwrap().prepare().unwrap();
    let stage = Stage::new().await;
    let vm = stage.deployable().await;
    let mut check = Checker { stage, document, registry, checked: 0, wrong: Vec::new() };
    repo(&mut check).await;
    pulls(&mut check).await;
    actions(&mut check).await;
    hooks(&mut check).await;
    vm.machine.docker();
    check.stage.machines.stop().await;
    assert!(check.wrong.is_empty(), "{}", check.wrong.join("\n"));
    assert!(check.checked >= 35, "{}", check.checked);
}

const R: &str = "/repos/{owner}/{repo}";

async fn repo(check: &mut Checker) {
    let get = Method::GET;
    check.check(get.clone(), "/user", "/user", None, 200).await;
    check.check(get.clone(), "/rate_limit", "/rate_limit", None, 200).await;
    check.check(get.clone(), "/user/repos", "/user/repos", None, 200).await;
    check.check(get.clone(), R, "/repos/octo/shop", None, 200).await;
    check.check(get.clone(), R, "/repos/octo/none", None, 404).await;
    check
        .check(get.clone(), &format!("{R}/languages"), "/repos/octo/shop/languages", None, 200)
        .await;
    check
        .check(
            get.clone(),
            &format!("{R}/branches/{{branch}}"),
            "/repos/octo/shop/branches/main",
            None,
            200,
        )
        .await;
    let contents = format!("{R}/contents/{{path}}");
    check.check(get.clone(), &contents, "/repos/octo/shop/contents/README.md", None, 200).await;
    check.check(get.clone(), &contents, "/repos/octo/shop/contents/config", None, 200).await;
    check.check(get.clone(), &contents, "/repos/octo/shop/contents/nothing", None, 404).await;
    let new = json!({ "message": "m", "content": "YQ==", "branch": "main" });
    let file = check
        .check(Method::PUT, &contents, "/repos/octo/shop/contents/new.txt", Some(new.clone()), 201)
        .await;
    check.check(Method::PUT, &contents, "/repos/octo/shop/contents/new.txt", Some(new), 422).await;
    let stale = json!({ "message": "m", "content": "Yg==", "sha": "0123" });
    check
        .check(Method::PUT, &contents, "/repos/octo/shop/contents/new.txt", Some(stale), 409)
        .await;
    let gone = json!({ "message": "m", "sha": file["content"]["sha"] });
    check
        .check(Method::DELETE, &contents, "/repos/octo/shop/contents/new.txt", Some(gone), 200)
        .await;
    let commit = check
        .check(
            get.clone(),
            &format!("{R}/commits/{{ref}}"),
            "/repos/octo/shop/commits/main",
            None,
            200,
        )
        .await;
    check
        .check(
            get.clone(),
            &format!("{R}/commits/{{ref}}"),
            "/repos/octo/shop/commits/nothing",
            None,
            422,
        )
        .await;
    let tree = commit["commit"]["tree"]["sha"].as_str().unwrap().to_owned();
    let shown = check
        .check(
            get.clone(),
            &format!("{R}/git/trees/{{tree_sha}}"),
            &format!("/repos/octo/shop/git/trees/{tree}?recursive=1"),
            None,
            200,
        )
        .await;
    assert!(
        shown["tree"].as_array().unwrap().iter().any(|entry| entry["path"] == ".kamal/secrets")
    );
    check
        .check(
            get.clone(),
            &format!("{R}/git/ref/{{ref}}"),
            "/repos/octo/shop/git/ref/heads/main",
            None,
            200,
        )
        .await;
    check
        .check(
            get,
            &format!("{R}/git/matching-refs/{{ref}}"),
            "/repos/octo/shop/git/matching-refs/heads/m",
            None,
            200,
        )
        .await;
}

async fn pulls(check: &mut Checker) {
    let (get, post) = (Method::GET, Method::POST);
    let main = check.stage.get("/repos/octo/shop/commits/main").await;
    let (head, tree) = (main["sha"].clone(), main["commit"]["tree"]["sha"].clone());
    let blob = check
        .check(
            post.clone(),
            &format!("{R}/git/blobs"),
            "/repos/octo/shop/git/blobs",
            Some(json!({ "content": "aGk=", "encoding": "base64" })),
            201,
        )
        .await;
    check
        .check(
            get.clone(),
            &format!("{R}/git/blobs/{{file_sha}}"),
            &format!("/repos/octo/shop/git/blobs/{}", blob["sha"].as_str().unwrap()),
            None,
            200,
        )
        .await;
    let items = json!([{ "path": "docs/hi.txt", "mode": "100644", "type": "blob", "sha": blob["sha"] }, { "path": "README.md", "mode": "100644", "type": "blob", "sha": null }]);
    let tree = check
        .check(
            post.clone(),
            &format!("{R}/git/trees"),
            "/repos/octo/shop/git/trees",
            Some(json!({ "base_tree": tree, "tree": items })),
            201,
        )
        .await;
    let body = json!({ "message": "Add docs", "tree": tree["sha"], "parents": [head] });
    let commit = check
        .check(
            post.clone(),
            &format!("{R}/git/commits"),
            "/repos/octo/shop/git/commits",
            Some(body),
            201,
        )
        .await;
    let path = format!("/repos/octo/shop/git/commits/{}", commit["sha"].as_str().unwrap());
    check.check(get.clone(), &format!("{R}/git/commits/{{commit_sha}}"), &path, None, 200).await;
    let refs = format!("{R}/git/refs");
    let body = json!({ "ref": "refs/heads/vmkit/setup", "sha": head });
    check.check(post.clone(), &refs, "/repos/octo/shop/git/refs", Some(body.clone()), 201).await;
    check.check(post.clone(), &refs, "/repos/octo/shop/git/refs", Some(body), 422).await;
    let list = format!("{R}/pulls");
    let body = json!({ "title": "Set up", "head": "vmkit/setup", "base": "main", "body": "b" });
    let refused =
        check.check(post.clone(), &list, "/repos/octo/shop/pulls", Some(body.clone()), 422).await;
    assert_eq!(refused["errors"][0]["message"], "No commits between main and vmkit/setup");
    check
        .check(
            Method::PATCH,
            &format!("{refs}/{{ref}}"),
            "/repos/octo/shop/git/refs/heads/vmkit/setup",
            Some(json!({ "sha": commit["sha"] })),
            200,
        )
        .await;
    check.check(post.clone(), &list, "/repos/octo/shop/pulls", Some(body.clone()), 201).await;
    check.check(post, &list, "/repos/octo/shop/pulls", Some(body), 422).await;
    check
        .check(get.clone(), &list, "/repos/octo/shop/pulls?head=octo:vmkit/setup", None, 200)
        .await;
    let one = format!("{R}/pulls/{{pull_number}}");
    check.check(get.clone(), &one, "/repos/octo/shop/pulls/1", None, 200).await;
    check.check(get, &format!("{one}/files"), "/repos/octo/shop/pulls/1/files", None, 200).await;
    check
        .check(
            Method::PUT,
            &format!("{one}/merge"),
            "/repos/octo/shop/pulls/1/merge",
            Some(json!({})),
            200,
        )
        .await;
    check
        .check(
            Method::PUT,
            &format!("{one}/merge"),
            "/repos/octo/shop/pulls/1/merge",
            Some(json!({})),
            405,
        )
        .await;
    check
        .check(
            Method::DELETE,
            &format!("{refs}/{{ref}}"),
            "/repos/octo/shop/git/refs/heads/vmkit/setup",
            None,
            204,
        )
        .await;
    let files = check.stage.get("/repos/octo/shop/git/trees/main?recursive=1").await;
    let paths: Vec<&str> = files["tree"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["path"].as_str())
        .collect();
    assert!(paths.contains(&"docs/hi.txt") && !paths.contains(&"README.md"), "{paths:?}");
}

async fn actions(check: &mut Checker) {
    let get = Method::GET;
    let secrets = format!("{R}/actions/secrets");
    check.check(get.clone(), &secrets, "/repos/octo/shop/actions/secrets", None, 200).await;
    check
        .check(
            get.clone(),
            &format!("{secrets}/public-key"),
            "/repos/octo/shop/actions/secrets/public-key",
            None,
            200,
        )
        .await;
    check
        .check(
            get.clone(),
            &format!("{secrets}/{{secret_name}}"),
            "/repos/octo/shop/actions/secrets/VMKIT_SSH_KEY_STAGING",
            None,
            200,
        )
        .await;
    let variables = format!("{R}/actions/variables");
    check.check(get.clone(), &variables, "/repos/octo/shop/actions/variables", None, 200).await;
    check
        .check(
            Method::POST,
            &variables,
            "/repos/octo/shop/actions/variables",
            Some(json!({ "name": "A", "value": "1" })),
            201,
        )
        .await;
    check
        .check(
            get.clone(),
            &format!("{variables}/{{name}}"),
            "/repos/octo/shop/actions/variables/A",
            None,
            200,
        )
        .await;
    let workflows = format!("{R}/actions/workflows");
    check.check(get.clone(), &workflows, "/repos/octo/shop/actions/workflows", None, 200).await;
    check
        .check(
            get.clone(),
            &format!("{workflows}/{{workflow_id}}"),
            "/repos/octo/shop/actions/workflows/vmkit-deploy.yml",
            None,
            200,
        )
        .await;
    let sha =
        check.stage.put_file("sample.toml", &sample::sample_toml("Broken", Some("crash"))).await;
    let body = json!({ "ref": "main", "inputs": { "environment": "staging", "sha": sha } });
    let path = "/repos/octo/shop/actions/workflows/vmkit-deploy.yml/dispatches";
    let answer = check
        .check(
            Method::POST,
            &format!("{workflows}/{{workflow_id}}/dispatches"),
            path,
            Some(body),
            200,
        )
        .await;
    let run = answer["workflow_run_id"].as_u64().unwrap();
    let (one, jobs) = (
        format!("{R}/actions/runs/{{run_id}}"),
        format!("/repos/octo/shop/actions/runs/{run}/jobs"),
    );
    check
        .check(get.clone(), &one, &format!("/repos/octo/shop/actions/runs/{run}"), None, 200)
        .await;
    check.check(get.clone(), &format!("{one}/jobs"), &jobs, None, 200).await;
    check.stage.ended(run).await;
    check
        .check(get.clone(), &one, &format!("/repos/octo/shop/actions/runs/{run}"), None, 200)
        .await;
    let jobs = check.check(get.clone(), &format!("{one}/jobs"), &jobs, None, 200).await;
    check
        .check(
            get.clone(),
            &format!("{R}/actions/runs"),
            "/repos/octo/shop/actions/runs",
            None,
            200,
        )
        .await;
    check
        .check(
            get.clone(),
            &format!("{workflows}/{{workflow_id}}/runs"),
            "/repos/octo/shop/actions/workflows/vmkit-deploy.yml/runs",
            None,
            200,
        )
        .await;
    let job = jobs["jobs"][1]["id"].as_u64().unwrap();
    check
        .check(
            get.clone(),
            &format!("{R}/actions/jobs/{{job_id}}"),
            &format!("/repos/octo/shop/actions/jobs/{job}"),
            None,
            200,
        )
        .await;
    check
        .check(
            get,
            &format!("{R}/check-runs/{{check_run_id}}/annotations"),
            &format!("/repos/octo/shop/check-runs/{job}/annotations"),
            None,
            200,
        )
        .await;
}

async fn hooks(check: &mut Checker) {
    let (list, one) = (format!("{R}/hooks"), format!("{R}/hooks/{{hook_id}}"));
    let config = json!({ "url": "http://127.0.0.1:1/", "content_type": "json", "secret": "s", "insecure_ssl": "0" });
    let body = json!({ "name": "web", "events": ["push"], "config": config });
    let made =
        check.check(Method::POST, &list, "/repos/octo/shop/hooks", Some(body.clone()), 201).await;
    check.check(Method::POST, &list, "/repos/octo/shop/hooks", Some(body), 422).await;
    check.check(Method::GET, &list, "/repos/octo/shop/hooks", None, 200).await;
    let path = format!("/repos/octo/shop/hooks/{}", made["id"]);
    check.check(Method::GET, &one, &path, None, 200).await;
    check.check(Method::PATCH, &one, &path, Some(json!({ "active": false })), 200).await;
    check.check(Method::DELETE, &one, &path, None, 204).await;
}
