//! Actions secrets and variables of a repo.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_box::PublicKey;
use crypto_box::aead::OsRng;
use serde_json::json;

use super::error::GitHubError;
use super::{GitHub, in_repo, wire};
use crate::domain::names::RepoName;
use crate::domain::secret::Secret;
use crate::requests::Call;

/// GitHub's limit for a secret.
const SECRET_MAX: usize = 48 * 1024;

impl GitHub {
    /// Stores a secret, sealed for the repo's key so that only GitHub can open it.
    pub async fn put_secret(
        &self,
        repo: &RepoName,
        name: &str,
        secret: &Secret,
    ) -> Result<(), GitHubError> {
        let bad = |why| GitHubError::BadSecret { name: name.to_owned(), why };
        named(name)?;
        if secret.expose().len() > SECRET_MAX {
            return Err(bad("it is larger than 48 KiB"));
        }
        let call = in_repo(Call::get(""), repo, "actions/secrets/public-key");
        let what = format!("the secrets of `{repo}`");
        let key: wire::PublicKey = self.ask(&call, &what).await?.json("the repo's public key")?;
        let sealed = seal(&key.key, secret).ok_or_else(|| bad("GitHub sent no usable key"))?;
        let call = in_repo(Call::put(""), repo, "actions/secrets")
            .at(name)
            .body(json!({ "encrypted_value": sealed, "key_id": key.key_id }));
        self.ask(&call, &what).await?;
        Ok(())
    }

    /// Deletes a secret; absent is fine.
    pub async fn delete_secret(&self, repo: &RepoName, name: &str) -> Result<(), GitHubError> {
        named(name)?;
        let call = in_repo(Call::delete(""), repo, "actions/secrets").at(name);
        self.ask_maybe(&call, &format!("the secrets of `{repo}`")).await?;
        Ok(())
    }

    /// Sets a variable, which everybody who may read the repo's settings can read.
    pub async fn put_variable(
        &self,
        repo: &RepoName,
        name: &str,
        value: &str,
    ) -> Result<(), GitHubError> {
        named(name)?;
        let body = json!({ "name": name, "value": value });
        let what = format!("the variables of `{repo}`");
        let change =
            in_repo(Call::patch(""), repo, "actions/variables").at(name).body(body.clone());
        if self.ask_maybe(&change, &what).await?.is_some() {
            return Ok(());
        }
        let make = in_repo(Call::post(""), repo, "actions/variables").body(body);
        match self.ask(&make, &what).await {
            Ok(_) => Ok(()),
            // It appeared meanwhile, or nobody knows: setting it settles it.
            Err(error)
                if matches!(error, GitHubError::Conflict { .. }) || error.may_have_happened() =>
            {
                self.ask_maybe(&change, &what).await?.map(drop).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a variable; absent is fine.
    pub async fn delete_variable(&self, repo: &RepoName, name: &str) -> Result<(), GitHubError> {
        named(name)?;
        let call = in_repo(Call::delete(""), repo, "actions/variables").at(name);
        self.ask_maybe(&call, &format!("the variables of `{repo}`")).await?;
        Ok(())
    }
}

/// A secret as libsodium's sealed box for a key in base64, in base64.
fn seal(key: &str, secret: &Secret) -> Option<String> {
    let key: [u8; 32] = STANDARD.decode(key.trim()).ok()?.try_into().ok()?;
    let sealed = PublicKey::from(key).seal(&mut OsRng, secret.expose().as_bytes()).ok()?;
    Some(STANDARD.encode(sealed))
}

/// GitHub's rule for the names of secrets and variables, in the capitals that it stores.
fn named(name: &str) -> Result<(), GitHubError> {
    let fine = !name.is_empty()
        && !name.starts_with("GITHUB_")
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let given = || crate::requests::clean(name);
    fine.then_some(()).ok_or_else(|| GitHubError::BadName {
        kind: "name of a secret or variable",
        given: given(),
    })
}
