//! Who may do what. Keys are made and checked here, and a tool runs only after [`Caller::may`].

use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use crate::domain::clock::{Clock, Millis};
use crate::domain::ids::KeyId;
use crate::domain::names::EnvironmentPath;
use crate::domain::secret::Secret;
use crate::store::{AuditEntry, Store, StoreError};

pub use crate::store::{KeyRow, Role};

/// Why a caller is not let in, or not let do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no key in the request.
    #[error("this server asks for a key; send the header `Authorization: Bearer vmk_...`")]
    NoKey,
    /// What was sent is not a key of ours, or none that we know.
    #[error("this key is not known here; ask the owner for one (`vmkit keys create`)")]
    UnknownKey,
    /// The key has ended by itself.
    #[error("the key `{name}` expired at {at}; ask the owner for a new one (`vmkit keys create`)")]
    Expired {
        /// The key's name.
        name: String,
        /// When it ended.
        at: String,
    },
    /// Somebody has ended the key.
    #[error("the key `{name}` was revoked; ask the owner for a new one (`vmkit keys create`)")]
    Revoked {
        /// The key's name.
        name: String,
    },
    /// The key's role is too weak.
    #[error(
        "the key `{name}` has the role `{has}`, and the tool `{tool}` needs the role `{needs}`; use a key with that role (`vmkit keys create --role {needs}`)"
    )]
    Role {
        /// The key's name.
        name: String,
        /// The tool that was called.
        tool: String,
        /// The key's role.
        has: &'static str,
        /// The role that would do.
        needs: &'static str,
    },
    /// The key is for other environments.
    #[error("the key `{name}` is not for {what}; it is for: {allowed}")]
    Place {
        /// The key's name.
        name: String,
        /// What was asked for, such as `the environment shop/production`.
        what: String,
        /// The environments that the key is for.
        allowed: String,
    },
}

impl Denied {
    /// A stable name for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "key_missing",
            Self::UnknownKey => "key_unknown",
            Self::Expired { .. } => "key_expired",
            Self::Revoked { .. } => "key_revoked",
            Self::Role { .. } => "role_too_weak",
            Self::Place { .. } => "place_not_allowed",
        }
    }

    /// Whether the caller is known, and only asks for too much.
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::Role { .. } | Self::Place { .. } => true,
            Self::NoKey | Self::UnknownKey | Self::Expired { .. } | Self::Revoked { .. } => false,
        }
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The person at this machine, over stdio or the command line: may do everything.
    Local,
    /// The holder of a key.
    Key(Box<KeyRow>),
}

/// What a tool touches, as far as keys are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nothing of the installation's, such as a price list; or it leaves out what the key may not see.
    Anywhere,
    /// One environment.
    Environment(EnvironmentPath),
    /// The installation itself: a key for some environments only may not.
    Installation,
}

impl Place {
    /// The environment of that name. What is no name is the installation's: to a key for some
    /// environments it says nothing about others.
    pub fn named(given: &str) -> Self {
        given.parse().map_or(Self::Installation, Self::Environment)
    }
}

impl Caller {
    /// The name that goes into the audit log, and that sealed state is bound to.
    pub fn name(&self) -> String {
        match self {
            Self::Local => "local".to_owned(),
            Self::Key(key) => key.id.to_string(),
        }
    }

    /// The one check before a tool runs.
    ///
    /// # Errors
    /// Says what the key has and what would be needed.
    pub fn may(&self, tool: &str, needs: Role, place: &Place) -> Result<(), Denied> {
        let Self::Key(key) = self else { return Ok(()) };
        if key.role < needs {
            return Err(Denied::Role {
                name: key.name.clone(),
                tool: tool.to_owned(),
                has: key.role.as_str(),
                needs: needs.as_str(),
            });
        }
        if self.may_touch(place) {
            return Ok(());
        }
        let what = match place {
            Place::Environment(path) => format!("the environment `{path}`"),
            Place::Anywhere | Place::Installation => {
                "what concerns the whole installation".to_owned()
            }
        };
        let allowed: Vec<String> = key.environments.iter().map(ToString::to_string).collect();
        Err(Denied::Place { name: key.name.clone(), what, allowed: allowed.join(", ") })
    }

    /// Whether the caller's role is at least `needs`.
    pub fn has(&self, needs: Role) -> bool {
        match self {
            Self::Local => true,
            Self::Key(key) => key.role >= needs,
        }
    }

    /// Whether a place is among those that the caller is for.
    pub fn may_touch(&self, place: &Place) -> bool {
        match place {
            Place::Anywhere => true,
            Place::Environment(path) => self.may_see(path),
            Place::Installation => !self.is_restricted(),
        }
    }

    /// Whether an environment is among those that the caller is for.
    pub fn may_see(&self, path: &EnvironmentPath) -> bool {
        match self {
            Self::Local => true,
            Self::Key(key) => key.environments.is_empty() || key.environments.contains(path),
        }
    }

    /// Whether the caller is for some environments only.
    pub fn is_restricted(&self) -> bool {
        matches!(self, Self::Key(key) if !key.environments.is_empty())
    }
}

/// The keys of this installation.
#[derive(Debug, Clone)]
pub struct Keys {
    store: Store,
}

impl Keys {
    /// Those in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Who holds the key that was sent, if it is one of ours and still good.
    ///
    /// # Errors
    /// [`Refused::Denied`] with what is wrong with the key, or the store's trouble.
    pub async fn authenticate(&self, text: Option<&str>, now: Millis) -> Result<Caller, Refused> {
        let presented = Presented::parse(text.ok_or(Denied::NoKey)?)?;
        let row = self.store.key(presented.id).await?;
        let caller = presented.check(row, now)?;
        if matches!(&caller, Caller::Key(key) if key.last_used_at.is_none_or(|at| now.since_ms(at) > 60_000))
        {
            // A use that cannot be noted is no reason to refuse the caller.
            if let Err(error) = self.store.touch_key(presented.id, now).await {
                tracing::warn!(key = %presented.id, %error, "the use of key {} was not noted", presented.id);
            }
        }
        Ok(caller)
    }
}

/// The log of who had what done.
#[derive(Debug, Clone)]
pub struct Audit {
    store: Store,
    clock: Clock,
}

/// One call of a tool that changes things, as it is written down.
#[derive(Debug, Clone)]
pub struct Deed {
    /// The tool.
    pub tool: String,
    /// What it was given, without secrets.
    pub arguments: serde_json::Value,
    /// The first word of the answer, or the error's code.
    pub outcome: String,
    /// Why, as the caller said.
    pub reason: Option<String>,
}

impl Audit {
    /// The log in `store`.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Writes down what was done. What cannot be written is told in the program's log: the deed is
    /// done, and its answer must reach the caller.
    pub async fn write(&self, caller: &Caller, deed: Deed) {
        let Deed { tool, arguments, outcome, reason } = deed;
        let (at, caller) = (self.clock.now(), caller.name());
        let entry = AuditEntry { at, caller, tool, arguments, outcome, reason };
        if let Err(error) = self.store.append_audit(entry).await {
            tracing::error!(code = error.code(), %error, "the audit log could not be written");
        }
    }
}

/// Why [`Keys::authenticate`] let nobody in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The key is missing, unknown, expired or revoked.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The keys could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a person chose for a new key.
#[derive(Debug, Clone)]
pub struct KeyOrder {
    /// What they call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; empty means everywhere.
    pub environments: Vec<EnvironmentPath>,
    /// When it ends by itself.
    pub expires_at: Option<Millis>,
}

/// A new key: its row, and the text that is shown once.
pub fn make_key(order: KeyOrder, now: Millis) -> (KeyRow, Secret) {
    let mut bytes = [0u8; 32];
    #[expect(
        clippy::expect_used,
        reason = "without the system's random numbers no key can be made"
    )]
    OsRng.try_fill_bytes(&mut bytes).expect("the system gives random numbers");
    let secret = hex::encode(bytes);
    let key = KeyRow {
        id: KeyId::generate(),
        name: order.name,
        role: order.role,
        environments: order.environments,
        hash: Sha256::digest(secret.as_bytes()).into(),
        created_at: now,
        expires_at: order.expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    let text = Secret::new(format!("vmk_{}_{secret}", key.id.bare()));
    (key, text)
}

/// The text of a key that was just made, for the one time that it is shown to its maker.
pub fn reveal_once(text: &Secret) -> &str {
    text.expose()
}

/// A key as it was sent: which row to look up, and what to hold against it.
#[derive(Clone)]
pub struct Presented {
    /// The row.
    pub id: KeyId,
    hash: [u8; 32],
}

impl Presented {
    /// Takes apart the text of an `Authorization: Bearer` header.
    ///
    /// # Errors
    /// It has not the form of a key.
    pub fn parse(text: &str) -> Result<Self, Denied> {
        let rest = text.trim().strip_prefix("vmk_").ok_or(Denied::UnknownKey)?;
        let (id, secret) = rest.split_once('_').ok_or(Denied::UnknownKey)?;
        let id = format!("{}_{id}", KeyId::PREFIX).parse().map_err(|_| Denied::UnknownKey)?;
        if secret.len() != 64 {
            return Err(Denied::UnknownKey);
        }
        Ok(Self { id, hash: Sha256::digest(secret.as_bytes()).into() })
    }

    /// Holds it against the row that was found under its id.
    ///
    /// # Errors
    /// No row, another secret, expired, or revoked. A wrong secret is answered like no row, so that
    /// nobody learns which ids there are.
    pub fn check(&self, row: Option<KeyRow>, now: Millis) -> Result<Caller, Denied> {
        let key = row.ok_or(Denied::UnknownKey)?;
        // Both sides are hashes of 256 random bits: how long a comparison takes tells nothing.
        if key.hash != self.hash {
            return Err(Denied::UnknownKey);
        }
        if key.revoked_at.is_some() {
            return Err(Denied::Revoked { name: key.name });
        }
        if let Some(at) = key.expires_at.filter(|at| *at <= now) {
            return Err(Denied::Expired { name: key.name, at: at.rfc3339() });
        }
        Ok(Caller::Key(Box::new(key)))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Keys for the tests of parts that may not know the store.

    use super::*;

    /// Stores a new key and gives its text.
    pub(crate) async fn key(store: &Store, role: Role, environments: &[&str]) -> Secret {
        let environments = environments.iter().map(|path| path.parse().expect("a path")).collect();
        let order = KeyOrder { name: "ci".to_owned(), role, environments, expires_at: None };
        let (row, text) = make_key(order, Millis(0));
        store.insert_key(row).await.expect("stored");
        text
    }

    /// Revokes the key of that text.
    pub(crate) async fn revoke(store: &Store, key: &Secret) {
        let id = Presented::parse(key.expose()).expect("a key").id;
        assert!(store.revoke_key(id, Millis(1)).await.expect("a store"), "revoked now");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(role: Role, environments: &[&str]) -> KeyOrder {
        let environments = environments.iter().map(|path| path.parse().expect("a path")).collect();
        KeyOrder { name: "ci".to_owned(), role, environments, expires_at: None }
    }

    fn place(path: &str) -> Place {
        Place::Environment(path.parse().expect("a path"))
    }

    #[test]
    fn a_key_opens_only_with_its_own_secret_and_in_its_time() {
        let now = Millis(1_000);
        let (mut key, text) = make_key(order(Role::Read, &[]), now);
        let presented = Presented::parse(text.expose()).expect("a key");
        assert_eq!(presented.id, key.id);
        assert!(!text.expose().contains(&hex::encode(key.hash)));
        let code = |answer: Result<Caller, Denied>| answer.map(|c| c.name()).map_err(|e| e.code());
        assert_eq!(code(presented.check(Some(key.clone()), now)), Ok(key.id.to_string()));
        assert_eq!(code(presented.check(None, now)), Err("key_unknown"));

        let (_, other) = make_key(order(Role::Read, &[]), now);
        let stolen_id = format!("vmk_{}_{}", key.id.bare(), &other.expose()[31..]);
        let stolen = Presented::parse(&stolen_id).expect("the form is right");
        assert_eq!(code(stolen.check(Some(key.clone()), now)), Err("key_unknown"));

        key.expires_at = Some(Millis(2_000));
        assert!(presented.check(Some(key.clone()), Millis(1_999)).is_ok());
        assert_eq!(code(presented.check(Some(key.clone()), Millis(2_000))), Err("key_expired"));
        key.revoked_at = Some(Millis(1));
        assert_eq!(code(presented.check(Some(key), now)), Err("key_revoked"));
    }

    #[test]
    fn what_is_not_a_key_is_unknown() {
        for text in ["", "vmk_", "vmk_x_y", "Bearer", "ghp_abc", "vmk_01jc4k"] {
            assert_eq!(Presented::parse(text).map(|_| ()), Err(Denied::UnknownKey), "{text}");
        }
    }

    #[test]
    fn a_role_holds_the_weaker_ones_and_a_list_of_environments_is_a_wall() {
        let caller = |role, environments: &[&str]| {
            Caller::Key(Box::new(make_key(order(role, environments), Millis(0)).0))
        };
        assert!(Caller::Local.may("destroy", Role::Admin, &Place::Installation).is_ok());
        let reader = caller(Role::Read, &[]);
        assert!(reader.may("get_status", Role::Read, &place("shop/staging")).is_ok());
        let denied = reader.may("deploy", Role::Deploy, &place("shop/staging")).expect_err("weak");
        assert_eq!(denied.code(), "role_too_weak");
        assert!(denied.to_string().contains("needs the role `deploy`"), "{denied}");

        let staging = caller(Role::Admin, &["shop/staging"]);
        assert!(staging.may("deploy", Role::Deploy, &place("shop/staging")).is_ok());
        assert!(staging.may("list_sizes", Role::Read, &Place::Anywhere).is_ok());
        for elsewhere in [place("shop/production"), Place::Installation] {
            let denied = staging.may("destroy", Role::Admin, &elsewhere).expect_err("elsewhere");
            assert_eq!(denied.code(), "place_not_allowed");
            assert!(denied.to_string().contains("shop/staging"), "{denied}");
        }
    }
}
