//! The keys of `#cloud-config` that a sandbox VM understands, in all the forms that cloud-init takes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Default)]
pub(super) struct CloudConfig {
    /// The machine's own keys, such as `ed25519_private`.
    pub(super) ssh_keys: BTreeMap<String, String>,
    /// Whether host keys that are there go, which is what cloud-init does if nobody says otherwise.
    pub(super) delete_keys: bool,
    pub(super) hostname: Option<String>,
    pub(super) ssh_authorized_keys: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) users: Vec<User>,
    pub(super) write_files: Vec<File>,
}

#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
    pub(super) shell: Option<String>,
    pub(super) homedir: Option<String>,
    pub(super) system: bool,
    pub(super) ssh_authorized_keys: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct File {
    pub(super) path: String,
    #[serde(default)]
    pub(super) content: String,
    #[serde(default)]
    pub(super) encoding: Option<String>,
    #[serde(default)]
    permissions: Option<Value>,
    #[serde(default)]
    pub(super) append: bool,
    #[serde(default)]
    pub(super) defer: bool,
}

impl File {
    /// The permissions: a string is octal, a number is taken as it is, as cloud-init does.
    pub(super) fn mode(&self) -> Result<u32, String> {
        let mode = match &self.permissions {
            None | Some(Value::Null) => Some(0o644),
            Some(Value::String(text)) => {
                let digits = text.trim_start_matches("0o");
                u32::from_str_radix(digits, 8).ok()
            }
            Some(other) => other.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        mode.map(|mode| mode & 0o7777).ok_or_else(|| "bad permissions".to_owned())
    }
}

impl CloudConfig {
    /// Reads user-data; the error is a line for the console.
    pub(super) fn parse(user_data: &str) -> Result<Self, String> {
        if user_data.trim().is_empty() {
            return Ok(Self { delete_keys: true, ..Self::default() });
        }
        if user_data.starts_with("#!") {
            return Err("the user-data is a script; the sandbox runs none".to_owned());
        }
        if user_data.lines().next().is_none_or(|line| line.trim_end() != "#cloud-config") {
            return Err("Unhandled non-multipart (text/x-not-multipart) userdata".to_owned());
        }
        let failed = |error: String| format!("the user-data cannot be parsed: {error}");
        let raw: Value =
            serde_saphyr::from_str(user_data).map_err(|error| failed(error.to_string()))?;
        let write_files = match &raw["write_files"] {
            Value::Null => Vec::new(),
            files => serde_json::from_value(files.clone())
                .map_err(|error| failed(format!("write_files: {error}")))?,
        };
        Ok(Self {
            ssh_keys: serde_json::from_value(raw["ssh_keys"].clone()).unwrap_or_default(),
            delete_keys: raw["ssh_deletekeys"].as_bool().unwrap_or(true),
            hostname: text(&raw["hostname"]).or_else(|| text(&raw["fqdn"])),
            ssh_authorized_keys: words(&raw["ssh_authorized_keys"]),
            groups: words(&raw["groups"]),
            users: raw["users"].as_array().into_iter().flatten().map(User::read).collect(),
            write_files,
        })
    }
}

impl User {
    fn read(raw: &Value) -> Self {
        if let Some(name) = raw.as_str() {
            return Self { name: name.to_owned(), ..Self::default() };
        }
        Self {
            name: text(&raw["name"]).unwrap_or_default(),
            groups: words(&raw["groups"]),
            shell: text(&raw["shell"]),
            homedir: text(&raw["homedir"]),
            system: raw["system"].as_bool().unwrap_or(false),
            ssh_authorized_keys: match &raw["ssh_authorized_keys"] {
                // One key has spaces in it.
                Value::String(key) => vec![key.clone()],
                keys => words(keys),
            },
        }
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A list of strings, a list of one-key maps (groups), or one string with commas.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split(',').map(|word| word.trim().to_owned()).collect(),
        Value::Array(all) => all
            .iter()
            .filter_map(|one| match one {
                Value::Object(map) => map.keys().next().cloned(),
                other => text(other),
            })
            .collect(),
        _ => Vec::new(),
    }
}
