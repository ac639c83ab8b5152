//! How `kamal-proxy deploy` and its like talk to `kamal-proxy run`: one line of JSON each way.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::flags::Deploy;
use crate::health;
use crate::log;
use crate::routes::Routes;

const SOCKET: &str = "/tmp/kamal-proxy.sock";

#[derive(Serialize, Deserialize)]
struct Ask {
    command: String,
    args: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    said: Option<String>,
    error: Option<String>,
}

/// Sends a command to the proxy that runs in this container.
pub(crate) async fn ask(command: &str, args: Vec<String>) -> Result<String, String> {
    let fail = |error: std::io::Error| format!("dial unix {SOCKET}: {error}");
    let ask = Ask { command: command.to_owned(), args };
    let mut line = serde_json::to_vec(&ask).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let stream = UnixStream::connect(SOCKET).await.map_err(fail)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(&line).await.map_err(fail)?;
    let mut said = String::new();
    stream.read_line(&mut said).await.map_err(fail)?;
    let answer: Answer =
        serde_json::from_str(&said).map_err(|_| "the proxy has ended".to_owned())?;
    match answer.error {
        Some(error) => Err(error),
        None => Ok(answer.said.unwrap_or_default()),
    }
}

/// Answers commands until the process ends.
pub(crate) fn serve(routes: Routes) -> Result<(), String> {
    drop(std::fs::remove_file(Path::new(SOCKET)));
    let listener = UnixListener::bind(SOCKET).map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, routes.clone()));
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, routes: Routes) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await.is_err() {
        return;
    }
    let done = match serde_json::from_str::<Ask>(&line) {
        Ok(ask) => act(&ask, &routes).await,
        Err(error) => Err(error.to_string()),
    };
    let answer = match done {
        Ok(said) => Answer { said: Some(said), error: None },
        Err(error) => Answer { said: None, error: Some(error) },
    };
    if let Ok(mut line) = serde_json::to_vec(&answer) {
        line.push(b'\n');
        drop(stream.write_all(&line).await);
    }
}

async fn act(ask: &Ask, routes: &Routes) -> Result<String, String> {
    match ask.command.as_str() {
        "deploy" => {
            let deploy = Deploy::parse(&ask.args)?;
            let shown = json!({"service": deploy.service, "target": deploy.target});
            log::note("INFO", "Deploying", shown.clone());
            if routes.conflict(&deploy) {
                return Err("host settings conflict with another service".to_owned());
            }
            health::until_healthy(&deploy).await?;
            routes.switch(deploy).await;
            log::note("INFO", "Deployed", shown);
            Ok(String::new())
        }
        "remove" => {
            let service = ask.args.first().map(String::as_str).unwrap_or_default();
            routes.remove(service)?;
            log::note("INFO", "Removed", json!({"service": service}));
            Ok(String::new())
        }
        "list" => {
            let mut text = "Service  Host  Path  Target  State  TLS\n".to_owned();
            for one in routes.list() {
                let host = if one.hosts.is_empty() { "*".to_owned() } else { one.hosts.join(",") };
                let tls = if one.tls { "yes" } else { "no" };
                text.push_str(&format!(
                    "{}  {host}  /  {}  running  {tls}\n",
                    one.service, one.target
                ));
            }
            Ok(text)
        }
        other => Err(format!("unknown command \"{other}\" for \"kamal-proxy\"")),
    }
}
