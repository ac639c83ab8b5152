//! Takes a token in: it is tried before it is kept.

use super::{Context, OpError};
use crate::accounts::{CLOUDS, GITHUB};
use crate::clouds::Cloud;
use crate::domain::secret::Secret;

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Hetzner Cloud.
    Hetzner,
    /// GitHub.
    GitHub,
}

impl Provider {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hetzner => CLOUDS[0],
            Self::GitHub => GITHUB,
        }
    }
}

/// Tries a token, keeps it where it works, and says in a line what it opens.
///
/// # Errors
/// The provider refuses the token or does not answer; nothing is kept then.
pub async fn connect(
    context: &Context,
    provider: Provider,
    token: Secret,
) -> Result<String, OpError> {
    let name = provider.as_str();
    let found = match provider {
        Provider::Hetzner => {
            let cloud = context.accounts.cloud_with(name, token.clone())?;
            let facts = cloud.check(context.settings.installation).await?;
            let sizes = cloud.sizes().await?;
            let cheapest =
                sizes.iter().filter(|size| size.available).min_by_key(|s| s.monthly.amount);
            let order = match cheapest {
                Some(size) => format!(
                    "{} in {} can be ordered at {} a month",
                    size.name, size.region, size.monthly
                ),
                None => "nothing can be ordered now".to_owned(),
            };
            let access = match facts.can_write {
                Some(true) => "read and write",
                Some(false) => "READ ONLY: make one with write access before you provision",
                None => "write access shows at the first order",
            };
            format!(
                "the token works ({access}); {} servers are there already; {order}",
                facts.servers
            )
        }
        Provider::GitHub => {
            let user = context.accounts.github_with(token.clone())?.user().await?;
            let scopes =
                user.scopes.map_or("fine-grained".to_owned(), |scopes| format!("scopes {scopes}"));
            format!("the token works; user {}, {scopes}", user.login)
        }
    };
    context.accounts.remember(name, &token, context.clock.now()).await?;
    Ok(found)
}
