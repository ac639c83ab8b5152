//! The files that VMKit itself would commit (its golden files), run by the interpreter.

use std::path::{Path, PathBuf};

use regex::Regex;
use reqwest::Method;
use serde_json::json;

use crate::stage::Stage;

/// Small stand-ins for what the golden apps' images would start.
const PROCFILE: &str = "web: vmkit sample-app\nworker: sleep 1000\nclock: sleep 1000\n\
    beat: sleep 1000\n";

fn regex(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

fn goldens() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/pipeline");
    let Ok(entries) = std::fs::read_dir(&dir) else {
        eprintln!(
            "SKIPPED: tests/golden/pipeline is not there, so the generated files are not run"
        );
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("config").is_dir()).collect()
}

#[tokio::test]
async fn generated_files_deploy() {
    for golden in goldens() {
        let stage = Stage::new().await;
        let vm = stage.deployable().await;
        let address = vm.machine.address().to_string();
        let read = |path: &str| std::fs::read_to_string(golden.join(path)).unwrap();
        // A repo's second app has a workflow of its own name.
        let folder = std::fs::read_dir(golden.join(".github/workflows")).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let its_file = names.last().unwrap();
        let workflow_path = format!(".github/workflows/{its_file}");
        for path in [workflow_path.as_str(), ".kamal/secrets", ".kamal/ssh_config"] {
            // The golden apps' default branches have other names.
            let branch = regex("ref: \"[^\"]+\"");
            let text = read(path);
            stage.put_file(path, &branch.replace_all(&text, "ref: \"main\"")).await;
        }
        let dockerfile = regex("file: \"(.+)\"");
        let workflow = read(&workflow_path);
        let dockerfile = dockerfile
            .captures(&workflow)
            .map_or("Dockerfile", |found| found.get(1).unwrap().as_str());
        let folder = regex("--path \"(.+)\"");
        let folder = folder.captures(&workflow).map_or(".", |found| found.get(1).unwrap().as_str());
        stage
            .put_file(dockerfile, "FROM scratch\nCMD [\"vmkit\", \"sample-app\"]\n# golden\n")
            .await;
        for (path, text) in
            [("Procfile", PROCFILE), ("package.json", "{}"), ("requirements.txt", "")]
        {
            let path = format!("{folder}/{path}");
            stage.put_file(path.trim_start_matches("./"), text).await;
        }
        for file in std::fs::read_dir(golden.join("config")).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let text = read(&format!("config/{name}"));
            let environment = regex("APP_ENV: \"(.+)\"").captures(&text).unwrap()[1].to_owned();
            let hosts = regex("hosts: \\[\"[^\"]*\"\\]");
            let text = hosts.replace_all(&text, format!("hosts: [\"{address}\"]")).into_owned();
            let text = regex("cmd: .*").replace_all(&text, "cmd: sleep 1000").into_owned();
            // The launcher of a real pack image runs what follows it.
            let text = text.replace("      entrypoint: launcher\n", "");
            // All environments of a case share the one VM here, and only one may do without a name.
            let named = format!("proxy:\n  host: \"{environment}.example.com\"\n  ssl: false # no");
            let text = text.replace("proxy:\n  ssl: false # no", &named);
            let first = regex("primary_role: (\\S+)");
            let first = first.captures(&text).map_or("web", |found| found.get(1).unwrap().as_str());
            let first = format!("-{first}-");
            let health = regex("path: \"[^\"]*\"");
            let text = health.replace(&text, "path: \"/up\"").into_owned();
            for env_file in regex("env-file: (\\S+)").captures_iter(&text) {
                let env_file = vm.machine.path(&env_file[1]);
                std::fs::create_dir_all(env_file.parent().unwrap()).unwrap();
                std::fs::write(env_file, format!("GREETING={environment}\n")).unwrap();
            }
            let sha = stage.put_file(&format!("config/{name}"), &text).await;
            let upper = environment.to_ascii_uppercase().replace('-', "_");
            let suffix = regex(&format!("secrets\\.VMKIT_SSH_KEY_(\\w*{upper})\\b"));
            let suffix = &suffix.captures(&workflow).unwrap()[1];
            stage.put_secret(&format!("VMKIT_SSH_KEY_{suffix}"), &vm.private).await;
            let known = format!("{address} {}", vm.machine.host_key());
            stage.put_variable(&format!("VMKIT_KNOWN_HOSTS_{suffix}"), &known).await;

            let body = json!({ "ref": "main", "inputs": { "environment": environment, "sha": sha, "deploy_id": "dep_1" } });
            let path = format!("/repos/octo/shop/actions/workflows/{its_file}/dispatches");
            let run = stage.expect(200, Method::POST, &path, body).await["workflow_run_id"]
                .as_u64()
                .unwrap();
            let ended = stage.ended(run).await;
            assert_eq!(
                ended["conclusion"],
                "success",
                "{golden:?} {name}: {}",
                stage.logs(run).await
            );
            let running = vm
                .machine
                .docker()
                .list()
                .into_iter()
                .filter(|one| one.running && one.name.contains(&first));
            assert!(running.count() >= 1, "{golden:?} {name}");
        }
        stage.machines.stop().await;
    }
}
