//! What is known of a failed deploy of the lab, as a case of the diagnosis' corpus: the real logs of
//! Kamal, of the app and of the proxy. Only where `VMKIT_LAB_RECORD` names a folder.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::repo::Repo;
use crate::rig::Rig;

/// How many lines of a log a case holds.
const LINES: usize = 60;

#[expect(clippy::disallowed_methods, reason = "the one place of the lab that reads this variable")]
fn folder() -> Option<PathBuf> {
    std::env::var_os("VMKIT_LAB_RECORD").map(PathBuf::from)
}

/// Writes the newest run's failure down as `lab-NAME`, whose cause is `code`.
pub(crate) async fn record(rig: &Rig, repo: &Repo<'_>, service: &str, name: &str, code: &str) {
    let Some(folder) = folder() else { return };
    let folder = folder.join(format!("lab-{name}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).expect("a file");
    write("expected", &format!("{code}\n"));
    let jobs = repo.newest_jobs().await;
    let failed = jobs.iter().find(|job| job["conclusion"] == "failure");
    let step = failed.and_then(|job| {
        let steps = job["steps"].as_array()?;
        steps.iter().find(|step| step["conclusion"] == "failure")
    });
    if let Some(job) = failed {
        write("job.log", &repo.job_log(job).await);
    }
    let newest = format!("docker ps -aqf label=service={service} -f label=role=web | head -n 1");
    write("app.log", &rig.on_vm(&format!("docker logs $({newest}) 2>&1 | tail -n {LINES}")));
    write(
        "proxy.log",
        &rig.on_vm(&format!("docker logs --since 45s kamal-proxy 2>&1 | tail -n {LINES}")),
    );
    let seen = rig.on_vm(&format!("docker inspect $({newest})"));
    let seen: Value = serde_json::from_str(&seen).unwrap_or_default();
    let container = json!({
        "name": seen[0]["Name"].as_str().unwrap_or_default().trim_start_matches('/'),
        "role": "web",
        "state": seen[0]["State"]["Status"],
        "exit_code": seen[0]["State"]["ExitCode"],
        "oom_killed": seen[0]["State"]["OOMKilled"],
        "restarts": seen[0]["RestartCount"],
    });
    let containers = if seen[0].is_object() { json!([container]) } else { json!([]) };
    let evidence = json!({
        "conclusion": "failure",
        "job": failed.map(|job| job["name"].clone()),
        "step": step.map(|step| step["name"].clone()),
        "containers": containers,
        "vm": {"agent_linked": true, "arch": "amd64"},
        "port": 8080,
        "health_path": "/up",
    });
    write("evidence.json", &format!("{evidence:#}\n"));
}
