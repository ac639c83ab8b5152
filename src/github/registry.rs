//! The registry of images, ghcr.io: whether it still has one.
//!
//! It is asked as `docker pull` asks: for a token to pull with, with our own token as the password,
//! then for the manifest. GitHub's API of packages would want the same permission for less: of
//! tokens, only classic ones with `read:packages` may use it.

use http::StatusCode;
use serde::Deserialize;
use url::Url;

use super::error::GitHubError;
use super::{GitHub, in_repo, refusal};
use crate::domain::names::RepoName;
use crate::domain::secret::Secret;
use crate::requests::{Answer, Api, Call, Dialect, Pace};

/// Of the forms of a manifest the registry answers with one that is asked for, and with "not found"
/// where it has another.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// A manifest is a few KiB.
const MANIFEST_MAX: usize = 4 << 20;
/// As whom a token of an App signs in; for others the name does not matter.
const USER: &str = "x-access-token";

static DIALECT: Dialect = Dialect {
    name: "the registry",
    headers: &[("accept", MANIFESTS)],
    correlation: "x-github-request-id",
    refusal: refusal::for_now,
};

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// One image's versions in the registry.
pub struct Images {
    api: Api,
    /// Such as `octo/shop/staging`.
    name: String,
}

impl GitHub {
    /// Asks the registry at `base` for leave to read an image of the repo's, such as
    /// `ghcr.io/octo/shop/staging`: with our token, and then as anybody, since images may be public.
    ///
    /// # Errors
    /// [`GitHubError::Forbidden`] where neither may; then nobody can tell what is there.
    pub async fn images(
        &self,
        base: &Url,
        repo: &RepoName,
        image: &str,
    ) -> Result<Images, GitHubError> {
        let name = image.split_once('/').map_or(image, |(_, name)| name).to_owned();
        let pace = self.api.pace().clone();
        let call = Call::get("token")
            .query("service", "ghcr.io")
            .query("scope", format!("repository:{name}:pull"));
        let ours = self.api.token(&in_repo(Call::get(""), repo, "")).await?;
        let mut answer = None;
        if let Some(token) = ours {
            let api = Api::with_password(&DIALECT, base, USER, token, pace.clone())?;
            answer = Some(granted(&api, &call, image).await);
        }
        let granted = match answer {
            Some(Ok(token)) => token,
            Some(Err(error)) if !matches!(error, GitHubError::Forbidden { .. }) => {
                return Err(error);
            }
            _ => granted(&Api::open(&DIALECT, base, pace.clone())?, &call, image).await?,
        };
        Images::new(base, granted, name, pace)
    }
}

async fn granted(api: &Api, call: &Call, image: &str) -> Result<Secret, GitHubError> {
    let answer = api.send(call).await?;
    match answer.is_success() {
        true => Ok(Secret::new(answer.json::<Token>("a token for pulling")?.token)),
        false => Err(refused(api, &answer, image)),
    }
}

/// Both kinds of "no" mean that the token may not read packages.
fn refused(api: &Api, answer: &Answer, image: &str) -> GitHubError {
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => GitHubError::Forbidden {
            what: format!("image `{image}`"),
            reason: refusal::reason(api, answer),
            needs: "packages=read (of classic tokens, the scope read:packages)".to_owned(),
        },
        _ => refusal::error(api, answer, &format!("image `{image}`")),
    }
}

impl Images {
    fn new(base: &Url, token: Secret, name: String, pace: Pace) -> Result<Self, GitHubError> {
        Ok(Self { api: Api::new(&DIALECT, base, token, pace)?, name })
    }

    /// Whether there is an image of this tag; false only where the registry says so itself.
    ///
    /// # Errors
    /// What keeps us from knowing. "No such image at all" is among it: registries say that of what
    /// one may not see, too.
    pub async fn has(&self, tag: &str) -> Result<bool, GitHubError> {
        let call =
            Call::get("v2").under(&self.name).under("manifests").at(tag).at_most(MANIFEST_MAX);
        let answer = self.api.send(&call).await?;
        if answer.is_success() {
            return Ok(true);
        }
        let gone = answer.value()["errors"][0]["code"] == "MANIFEST_UNKNOWN";
        if answer.status == StatusCode::NOT_FOUND && gone {
            return Ok(false);
        }
        Err(refused(&self.api, &answer, &self.name))
    }
}
