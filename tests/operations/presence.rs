//! Why an agent is silent, as the tools tell it.

use serde_json::{Value, json};
use vmkit::domain::clock::Clock;

use crate::jobs::Job;
use crate::stage::Stage;

impl Stage {
    /// What a tool answers through the command line, and so through a process of its own.
    async fn told(&self, tool: &str, arguments: Value) -> Value {
        let said = self.vmkit(&["call", tool, &arguments.to_string()]).await;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{tool}: {error}: {said}"))
    }

    async fn status(&self) -> Value {
        self.told("get_status", json!({ "environment": "shop/staging" })).await
    }
}

/// Waits until `get_status` complains of this, and gives it whole.
async fn complains(stage: &Stage, of: &str) -> Value {
    stage
        .until(of, async || {
            let status = stage.status().await;
            status["trouble"].as_str().is_some_and(|told| told.contains(of)).then_some(status)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_server_is_off_or_whose_clock_is_wrong_is_told_from_one_that_is_silent() {
    let mut stage = Stage::set_up().await;
    Job::Reboot.prepare(&mut stage).await;
    stage.drive();
    let well = async || {
        stage
            .until("all is well", async || {
                let status = stage.status().await;
                (status["agent_linked"] == true && status["trouble"].is_null()).then_some(())
            })
            .await;
    };
    well().await;
    let server = stage.sql("select provider_id from vm").remove(0);
    stage.power_off(&server).await;
    let status = complains(&stage, "its server is off at hetzner").await;
    assert_eq!((&status["agent_linked"], &status["health"]), (&json!(false), &json!("vm_off")));
    let told = status["trouble"].as_str().expect("text");
    assert!(told.contains("since 20") && told.contains("`power_on`"), "{told}");
    let overview = stage.told("get_overview", json!({})).await;
    assert_eq!(overview["environments"][0]["health"], "vm_off");
    stage.cloud_post(&format!("servers/{server}/actions/poweron"), json!({})).await;
    well().await;
    stage.kill().await;

    // Another gateway's clock is to the agent as another clock of its own.
    stage.drive_here_with(Clock::hand(Clock::wall().now().plus_ms(600_000)), |_| {}).await;
    let status = complains(&stage, "the VM's clock is ").await;
    let told = status["trouble"].as_str().expect("text");
    assert!(told.contains(" s behind"), "{told}");
    assert_eq!(status["agent_linked"], true);
    stage.power_off(&server).await;
    let told = complains(&stage, "the agent is not linked").await["trouble"].to_string();
    assert!(told.contains("the VM's clock was "), "{told}");
    stage.tear_down().await;
}
