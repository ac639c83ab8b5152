//! `config/deploy.ENV.yml`, checked as Kamal checks it: a key that it does not know is an error.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Failure;
use crate::workflow::shell::Shell;

const TOP: &[&str] = &[
    "service",
    "image",
    "labels",
    "servers",
    "proxy",
    "registry",
    "builder",
    "env",
    "ssh",
    "sshkit",
    "volumes",
    "asset_path",
    "logging",
    "boot",
    "deploy_timeout",
    "drain_timeout",
    "readiness_delay",
    "retain_containers",
    "minimum_version",
    "accessories",
    "aliases",
    "hooks_path",
    "secrets_path",
    "error_pages_path",
    "primary_role",
    "allow_empty_roles",
    "require_destination",
    "run_directory",
    "output",
    "stop_timeout",
];
const ROLE: &[&str] =
    &["hosts", "cmd", "options", "labels", "logging", "proxy", "env", "asset_path", "stop_timeout"];
const PROXY: &[&str] = &[
    "host",
    "hosts",
    "app_port",
    "ssl",
    "ssl_redirect",
    "forward_headers",
    "response_timeout",
    "path_prefix",
    "path_prefixes",
    "strip_path_prefix",
    "healthcheck",
    "buffering",
    "logging",
    "run",
    "error_pages",
];
const REGISTRY: &[&str] = &["server", "username", "password"];
const BUILDER: &[&str] = &[
    "arch",
    "remote",
    "local",
    "driver",
    "context",
    "dockerfile",
    "target",
    "args",
    "secrets",
    "ssh",
    "provenance",
    "sbom",
    "cache",
    "pack",
];
const SSH: &[&str] = &[
    "user",
    "port",
    "proxy",
    "proxy_command",
    "log_level",
    "keys_only",
    "keys",
    "key_data",
    "config",
    "forward_agent",
];
const ACCESSORY: &[&str] = &[
    "service",
    "image",
    "registry",
    "host",
    "hosts",
    "role",
    "roles",
    "tag",
    "tags",
    "cmd",
    "port",
    "labels",
    "options",
    "env",
    "files",
    "directories",
    "volumes",
    "network",
    "proxy",
];
const HEALTHCHECK: &[&str] = &["interval", "path", "timeout"];

/// A role and what its containers are started with.
#[derive(Debug, Clone, Default)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) hosts: Vec<String>,
    /// Arguments behind the image.
    pub(super) cmd: Option<String>,
    /// Instead of the image's entry point.
    pub(super) entrypoint: Option<String>,
    /// `options: {env-file: ...}`: paths on the VM.
    pub(super) env_files: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) proxied: bool,
}

/// A service beside the app.
#[derive(Debug, Clone, Default)]
pub(super) struct Accessory {
    pub(super) name: String,
    /// Instead of the app's service and the name.
    pub(super) service: Option<String>,
    pub(super) image: String,
    /// `options: {env-file: ...}`: paths on the VM.
    pub(super) env_files: Vec<String>,
    /// Named volumes, and where they are mounted.
    pub(super) volumes: Vec<(String, String)>,
    /// Whether Docker is told how to see that it is well.
    pub(super) health: bool,
}

/// The parts of the config that the player uses.
#[derive(Debug, Clone, Default)]
pub(super) struct Config {
    pub(super) service: String,
    /// With the registry's server in front.
    pub(super) image: String,
    pub(super) password: Option<String>,
    pub(super) username: String,
    pub(super) server: String,
    pub(super) roles: Vec<Role>,
    pub(super) accessories: Vec<Accessory>,
    pub(super) secret_names: Vec<String>,
    pub(super) host: Option<String>,
    pub(super) health_path: String,
    pub(super) ssh_user: String,
    pub(super) ssh_configs: Vec<String>,
    pub(super) ssh_keys: Vec<String>,
    pub(super) key_data: Vec<String>,
    pub(super) deploy_timeout_s: u64,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub(super) fn read(shell: &Shell, path: &str) -> Result<Self, Failure> {
        let Some(text) = shell.read(path) else {
            return Err(Failure::new(
                "RuntimeError",
                format!("Configuration file not found in {path}"),
            ));
        };
        if text.contains("<%") {
            return Err(Failure::config(
                "the file holds `<%`, which real Kamal would run as Ruby; the sandbox refuses it",
            ));
        }
        let value: Value = serde_saphyr::from_str(&text)
            .map_err(|error| Failure::new("Psych::SyntaxError", format!("({path}): {error}")))?;
        let Value::Object(top) = value else {
            return Err(Failure::config("should be a hash"));
        };
        known(&top, TOP, "")?;
        let mut config = Self {
            deploy_timeout_s: number(&top, "deploy_timeout").unwrap_or(30),
            ..Self::default()
        };
        config.service =
            text_of(&top, "service").ok_or_else(|| Failure::config("service: is required"))?;
        let fits = config
            .service
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
        if !fits || config.service.is_empty() {
            return Err(Failure::config(
                "Service name can only include alphanumeric characters, hyphens, and underscores",
            ));
        }
        config.read_registry(&top)?;
        config.read_builder(&top)?;
        config.read_ssh(&top)?;
        let (env, names) = env(top.get("env"), "env")?;
        config.secret_names = names;
        let has_proxy = config.read_proxy(top.get("proxy"))?;
        config.read_roles(&top, &env, has_proxy)?;
        let accessories = top.get("accessories").and_then(Value::as_object);
        for (name, value) in accessories.into_iter().flatten() {
            config.accessories.push(read_accessory(name, value)?);
        }
        Ok(config)
    }

    /// All hosts, the primary role's first.
    pub(super) fn hosts(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for host in self.roles.iter().flat_map(|role| &role.hosts) {
            if !found.contains(host) {
                found.push(host.clone());
            }
        }
        found
    }

    fn read_registry(&mut self, top: &Map<String, Value>) -> Result<(), Failure> {
        let image = text_of(top, "image").ok_or_else(|| Failure::config("image: is required"))?;
        let registry = section(top, "registry", REGISTRY)?;
        self.server = registry
            .and_then(|registry| text_of(registry, "server"))
            .unwrap_or_else(|| "docker.io".to_owned());
        self.username =
            registry.and_then(|registry| text_of(registry, "username")).unwrap_or_default();
        self.password =
            registry.and_then(|registry| texts(registry.get("password")).first().cloned());
        self.image = format!("{}/{image}", self.server);
        Ok(())
    }

    fn read_builder(&mut self, top: &Map<String, Value>) -> Result<(), Failure> {
        let arch = section(top, "builder", BUILDER)?
            .is_some_and(|builder| !texts(builder.get("arch")).is_empty());
        if arch { Ok(()) } else { Err(Failure::config("builder: Builder arch not set")) }
    }

    fn read_ssh(&mut self, top: &Map<String, Value>) -> Result<(), Failure> {
        let ssh = section(top, "ssh", SSH)?;
        self.ssh_user =
            ssh.and_then(|ssh| text_of(ssh, "user")).unwrap_or_else(|| "root".to_owned());
        let list = |key: &str| ssh.map(|ssh| texts(ssh.get(key))).unwrap_or_default();
        self.ssh_configs = list("config");
        self.ssh_keys = list("keys");
        self.key_data = list("key_data");
        Ok(())
    }

    fn read_proxy(&mut self, value: Option<&Value>) -> Result<bool, Failure> {
        self.health_path = "/up".to_owned();
        let proxy = match value {
            None | Some(Value::Null) => return Ok(true),
            Some(Value::Bool(on)) if *on => return Ok(true),
            Some(Value::Object(proxy)) => proxy,
            Some(_) => return Err(Failure::config("proxy: should be a hash")),
        };
        known(proxy, PROXY, "proxy")?;
        if proxy.get("app_port").is_some_and(|port| !port.is_number()) {
            return Err(Failure::config("proxy/app_port: should be an integer"));
        }
        if let Some(Value::Object(check)) = proxy.get("healthcheck") {
            known(check, HEALTHCHECK, "proxy/healthcheck")?;
            self.health_path = text_of(check, "path").unwrap_or_else(|| self.health_path.clone());
        }
        self.host = text_of(proxy, "host").or_else(|| texts(proxy.get("hosts")).first().cloned());
        if proxy.get("ssl") == Some(&Value::Bool(true)) && self.host.is_none() {
            return Err(Failure::config("proxy: Must set a host to enable automatic SSL"));
        }
        Ok(true)
    }

    fn read_roles(
        &mut self,
        top: &Map<String, Value>,
        env: &BTreeMap<String, String>,
        has_proxy: bool,
    ) -> Result<(), Failure> {
        let labels = string_map(top.get("labels"));
        let primary = text_of(top, "primary_role").unwrap_or_else(|| "web".to_owned());
        match top.get("servers") {
            Some(Value::Object(servers)) => {
                for (name, value) in servers {
                    let mut role = read_role(name, value)?;
                    role.proxied = *name == primary && has_proxy && !role_refuses_proxy(value)
                        || value
                            .get("proxy")
                            .is_some_and(|proxy| proxy == true || proxy.is_object());
                    role.env = env
                        .iter()
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .chain(role.env)
                        .collect();
                    role.labels = labels.clone().into_iter().chain(role.labels).collect();
                    self.roles.push(role);
                }
            }
            Some(list @ Value::Array(_)) => {
                let hosts = texts(Some(list));
                self.roles.push(Role {
                    name: primary.clone(),
                    hosts,
                    env: env.clone(),
                    labels,
                    proxied: has_proxy,
                    ..Role::default()
                });
            }
            _ => return Err(Failure::config("servers: is required")),
        }
        self.roles.sort_by_key(|role| role.name != primary);
        if self.roles.first().is_none_or(|role| role.name != primary) {
            return Err(Failure::config(format!("The primary_role {primary} isn't defined")));
        }
        match self.roles.iter().find(|role| role.hosts.is_empty()) {
            Some(role) => Err(Failure::config(format!(
                "No servers specified for the {} role. You can ignore this with allow_empty_roles: true",
                role.name
            ))),
            None => Ok(()),
        }
    }
}

fn role_refuses_proxy(value: &Value) -> bool {
    value.get("proxy") == Some(&Value::Bool(false))
}

fn read_role(name: &str, value: &Value) -> Result<Role, Failure> {
    let mut role = Role { name: name.to_owned(), ..Role::default() };
    let fields = match value {
        Value::Object(fields) => fields,
        other => {
            role.hosts = texts(Some(other));
            return Ok(role);
        }
    };
    let place = format!("servers/{name}");
    known(fields, ROLE, &place)?;
    role.hosts = texts(fields.get("hosts"));
    role.cmd = text_of(fields, "cmd");
    role.env = env(fields.get("env"), &format!("{place}/env"))?.0;
    role.labels = string_map(fields.get("labels"));
    if let Some(Value::Object(options)) = fields.get("options") {
        role.entrypoint = text_of(options, "entrypoint");
        role.env_files = texts(options.get("env-file"));
    }
    Ok(role)
}

fn read_accessory(name: &str, value: &Value) -> Result<Accessory, Failure> {
    let place = format!("accessories/{name}");
    let Value::Object(fields) = value else {
        return Err(Failure::config(format!("{place}: should be a hash")));
    };
    known(fields, ACCESSORY, &place)?;
    let image = text_of(fields, "image");
    let hosts = ["host", "hosts", "role", "roles", "tag", "tags"];
    if !hosts.iter().any(|key| fields.contains_key(*key)) {
        let text = "specify one of `host`, `hosts`, `role`, `roles`, `tag` or `tags`";
        return Err(Failure::config(format!("{place}: {text}")));
    }
    let options = fields.get("options").and_then(Value::as_object);
    let option = |key: &str| options.and_then(|options| options.get(key));
    let volumes = texts(fields.get("volumes"));
    Ok(Accessory {
        name: name.to_owned(),
        service: text_of(fields, "service"),
        image: image.ok_or_else(|| Failure::config(format!("{place}: image is required")))?,
        env_files: texts(option("env-file")),
        // A folder of the VM is no volume.
        volumes: volumes
            .iter()
            .filter(|one| !one.starts_with('/'))
            .filter_map(|one| one.split_once(':'))
            .map(text_pair)
            .collect(),
        health: option("health-cmd").is_some(),
    })
}

fn text_pair((name, at): (&str, &str)) -> (String, String) {
    (name.to_owned(), at.to_owned())
}

/// `env`: clear values, and the names of secret ones.
fn env(
    value: Option<&Value>,
    place: &str,
) -> Result<(BTreeMap<String, String>, Vec<String>), Failure> {
    let Some(Value::Object(fields)) = value else { return Ok(Default::default()) };
    let is_split = fields.contains_key("clear")
        || fields.contains_key("secret")
        || fields.contains_key("tags");
    if is_split {
        known(fields, &["clear", "secret", "tags"], place)?;
    }
    let clear =
        if is_split { fields.get("clear").and_then(Value::as_object) } else { Some(fields) };
    let mut values = BTreeMap::new();
    for (key, value) in clear.into_iter().flatten() {
        let text = scalar(value)
            .ok_or_else(|| Failure::config(format!("{place}/clear/{key}: should be a string")))?;
        values.insert(key.clone(), text);
    }
    Ok((values, texts(fields.get("secret"))))
}

fn section<'a>(
    top: &'a Map<String, Value>,
    key: &str,
    keys: &[&str],
) -> Result<Option<&'a Map<String, Value>>, Failure> {
    match top.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(fields)) => known(fields, keys, key).map(|()| Some(fields)),
        Some(_) => Err(Failure::config(format!("{key}: should be a hash"))),
    }
}

fn known(fields: &Map<String, Value>, keys: &[&str], place: &str) -> Result<(), Failure> {
    let unknown = fields.keys().find(|key| !keys.contains(&key.as_str()) && !key.starts_with("x-"));
    let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
    match unknown {
        Some(key) => Err(Failure::config(format!("{place}unknown key: {key}"))),
        None => Ok(()),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn text_of(fields: &Map<String, Value>, key: &str) -> Option<String> {
    fields.get(key).and_then(scalar)
}

fn number(fields: &Map<String, Value>, key: &str) -> Option<u64> {
    fields.get(key)?.as_u64()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(scalar).collect(),
        Some(value) => scalar(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let fields = value.and_then(Value::as_object).into_iter().flatten();
    fields.filter_map(|(key, value)| Some((key.clone(), scalar(value)?))).collect()
}
