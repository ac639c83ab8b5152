//! `kamal server exec`: a line of shell on the VM, which has `docker run` and `docker image inspect`.

use std::sync::{Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::boot::read_env_file;
use super::{Failure, Kamal, Session};
use crate::machines::{ContainerSpec, Machine, Mount};
use crate::workflow::shell::{Output, Programs, Shell};

/// Options of `docker run` without a value.
const FLAGS: [&str; 2] = ["--rm", "--init"];

impl Session<'_> {
    pub(super) async fn server_exec(&mut self, line: &str) -> Result<(), Failure> {
        let (host, machine) = self.primary().await?;
        self.say(format!("Running '{line}' on {host}..."));
        let vm = OnVm { kamal: self.kamal, host: host.clone(), machine };
        let said = Mutex::new(Output::default());
        let sink = |output: &Output| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.out.push_str(&output.out);
            said.err.push_str(&output.err);
        };
        let code = Shell::default().program(line, &vm, &sink).await;
        let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
        if code != 0 {
            let text = |text: &str| match text.trim() {
                "" => "Nothing written".to_owned(),
                text => text.to_owned(),
            };
            let text = format!(
                "Exception while executing on host {host}: {line} exit status: {code}\n{line} stdout: {}\n{line} stderr: {}",
                text(&said.out),
                text(&said.err)
            );
            return Err(Failure::new("SSHKit::Command::Failed", text));
        }
        self.say(format!("App Host: {host}\n{}\n", said.out.trim()));
        Ok(())
    }
}

/// What a shell on the VM can call.
struct OnVm<'a> {
    kamal: &'a Kamal,
    host: String,
    machine: Machine,
}

impl Programs for OnVm<'_> {
    fn run<'a>(
        &'a self,
        _: &'a mut Shell,
        argv: &'a [String],
        _: &'a str,
    ) -> BoxFuture<'a, Option<Output>> {
        async move {
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["docker", "run", rest @ ..] => Some(self.docker_run(rest).await),
                // No image here says as whom it runs.
                ["docker", "image", "inspect", "--format", "{{.Config.User}}", name] => {
                    Some(match self.kamal.registry.image(name) {
                        Some(_) => Output::ok("\n"),
                        None => Output::fail(1, format!("Error: No such image: {name}\n")),
                    })
                }
                _ => None,
            }
        }
        .boxed()
    }
}

impl OnVm<'_> {
    /// In the foreground: until the container has ended, with its output and exit code.
    async fn docker_run(&self, words: &[&str]) -> Output {
        let spec = match self.spec(words) {
            Ok(spec) => spec,
            Err(text) => return Output::fail(125, text + "\n"),
        };
        let (docker, name) = (self.machine.docker(), spec.name.clone());
        if let Err(text) = docker.run(spec).await {
            return Output::fail(125, format!("docker: {text}\n"));
        }
        let code = docker.wait(&name).await.unwrap_or(137);
        let lines = docker.logs(&name, 1000);
        drop(docker.remove(&name).await);
        let text = lines.iter().filter_map(|line| line.split_once(' '));
        Output {
            code,
            out: text.map(|(_, said)| format!("{said}\n")).collect(),
            err: String::new(),
        }
    }

    fn spec(&self, words: &[&str]) -> Result<ContainerSpec, String> {
        let mut spec = ContainerSpec {
            name: format!("run_{:016x}", rand::random::<u64>()),
            ..ContainerSpec::default()
        };
        let mut entrypoint = Vec::new();
        let mut rest = words.iter().copied();
        let image = loop {
            let word = rest.next().ok_or("\"docker run\" requires at least 1 argument.")?;
            if !word.starts_with('-') {
                break word;
            }
            if FLAGS.contains(&word) {
                continue;
            }
            let value = rest.next().ok_or(format!("flag needs an argument: {word}"))?;
            match word {
                "--name" => spec.name = value.to_owned(),
                "--env" => spec.env.extend(value.split_once('=').map(super::boot::owned)),
                "--env-file" => {
                    let read = read_env_file(&self.machine, &self.host, value);
                    spec.env.extend(read.map_err(|failure| failure.message)?);
                }
                "--volume" => {
                    let (name, at) = value.split_once(':').unwrap_or((value, "/"));
                    spec.mounts.push(Mount { name: name.to_owned(), at: at.to_owned() });
                }
                // The launcher of a Buildpack image runs what it is given.
                "--entrypoint" if value == "launcher" => {}
                "--entrypoint" => entrypoint.push(value.to_owned()),
                "--network" | "--log-driver" | "--log-opt" | "--memory" | "--user" => {}
                _ => return Err(format!("unknown flag: {word} (the sandbox does not play it)")),
            }
        };
        spec.image = self
            .kamal
            .registry
            .image(image)
            .ok_or_else(|| format!("Unable to find image '{image}' locally"))?;
        let command: Vec<String> = entrypoint.into_iter().chain(rest.map(str::to_owned)).collect();
        spec.command = (!command.is_empty()).then_some(command);
        Ok(spec)
    }
}
