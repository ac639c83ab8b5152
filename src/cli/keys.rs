//! `vmkit keys`: who may call a gateway.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::{CliError, Start};
use crate::access::{KeyOrder, KeyRow, Role, make_key};
use crate::domain::clock::Millis;
use crate::domain::ids::KeyId;
use crate::domain::names::EnvironmentPath;
use crate::installation::Part;
use crate::operations::OpError;

/// Make, list and revoke the API keys of a gateway.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key; it is shown once.
    Create(Create),
    /// List the keys, without their secrets.
    List,
    /// End a key at once.
    Revoke {
        /// Its id, such as key_01jc...; `vmkit keys list` shows them.
        id: String,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// What you call it, such as `claude on my laptop`.
    #[arg(long, default_value = "key")]
    name: String,
    /// What it may do; each role holds the ones before it.
    #[arg(long, value_enum, default_value = "deploy")]
    role: RoleName,
    /// An environment that it is for, such as shop/staging; may be given several times. All otherwise.
    #[arg(long = "environment", value_name = "APP/ENV")]
    environments: Vec<EnvironmentPath>,
    /// After how many days it ends by itself; never otherwise.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    expires: Option<u16>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Look, and change nothing.
    Read,
    /// Deploy, roll back and set env values too.
    Deploy,
    /// Make and destroy VMs and spend money too.
    Admin,
}

impl Keys {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        let store = start.open(Part::Gateway).await?.store;
        let now = start.clock.now();
        match self.what {
            What::Create(create) => {
                let (key, text) = make_key(create.order(now), now);
                let places = places(&key);
                let told = format!("{} has the role {}, {places}", key.id, key.role.as_str());
                store.insert_key(key).await.map_err(OpError::from)?;
                super::say(&told);
                super::say("clients send it as `Authorization: Bearer KEY`; it is shown only now:");
                super::print(crate::access::reveal_once(&text))?;
            }
            What::List => {
                let keys = store.keys().await.map_err(OpError::from)?;
                if keys.is_empty() {
                    super::say("there is no key yet; make one with `vmkit keys create`");
                }
                for line in table(&keys, now) {
                    super::print(&line)?;
                }
            }
            What::Revoke { id } => {
                let id: KeyId = id.parse().map_err(|error: crate::domain::ids::BadId| {
                    CliError::new("bad_id", error.to_string()).fix("run `vmkit keys list`").usage()
                })?;
                if !store.revoke_key(id, now).await.map_err(OpError::from)? {
                    let message = format!("there is no key {id} that is not revoked");
                    return Err(CliError::new("unknown_key", message).fix("run `vmkit keys list`"));
                }
                super::say(&format!("{id} is revoked"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn places(key: &KeyRow) -> String {
    let places: Vec<String> = key.environments.iter().map(ToString::to_string).collect();
    if places.is_empty() { "everywhere".to_owned() } else { places.join(",") }
}

/// A head and a line for each key, in columns; nothing where there are none.
fn table(keys: &[KeyRow], now: Millis) -> Vec<String> {
    let row = |key: &KeyRow| {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(at), _) => format!("revoked {}", at.rfc3339()),
            (None, Some(at)) if at <= now => format!("expired {}", at.rfc3339()),
            (None, Some(at)) => format!("until {}", at.rfc3339()),
            (None, None) => "valid".to_owned(),
        };
        let used = key.last_used_at.map_or("never".to_owned(), Millis::rfc3339);
        let role = key.role.as_str().to_owned();
        [key.id.to_string(), role, places(key), state, used, key.name.clone()]
    };
    if keys.is_empty() {
        return Vec::new();
    }
    let head = ["ID", "ROLE", "ENVIRONMENTS", "STATE", "LAST USED", "NAME"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(keys.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3, 4].map(|column| width(column).unwrap_or(0));
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        cells.collect::<String>() + &row[5]
    };
    rows.iter().map(line).collect()
}

impl Create {
    fn order(self, now: Millis) -> KeyOrder {
        const DAY_MS: i64 = 86_400_000;
        KeyOrder {
            name: self.name,
            role: match self.role {
                RoleName::Read => Role::Read,
                RoleName::Deploy => Role::Deploy,
                RoleName::Admin => Role::Admin,
            },
            environments: self.environments,
            expires_at: self.expires.map(|days| now.plus_ms(i64::from(days) * DAY_MS)),
        }
    }
}
