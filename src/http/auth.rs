//! The key of every request.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::failure;
use crate::access::{Caller, Keys, Refused};
use crate::domain::clock::Clock;

/// Who is let in.
#[derive(Clone)]
pub enum Door {
    /// Who holds a key.
    Keys(Arc<Keys>, Clock),
    /// Everybody: only on a loopback address.
    Open,
}

/// Finds out who calls, and hands it on; the tools' own check is in [`Caller::may`].
pub(super) async fn let_in(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let caller = match &door {
        Door::Open => Caller::Local,
        Door::Keys(keys, clock) => match keys.authenticate(bearer(&request), clock.now()).await {
            Ok(caller) => caller,
            Err(Refused::Denied(denied)) => return challenge(denied.code(), &denied.to_string()),
            Err(Refused::Store(error)) => {
                tracing::error!(code = error.code(), %error, "a key could not be looked up");
                let message = "keys cannot be checked now; try again";
                return failure(StatusCode::SERVICE_UNAVAILABLE, error.code(), message);
            }
        },
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key)
}

fn challenge(code: &str, message: &str) -> Response {
    let mut response = failure(StatusCode::UNAUTHORIZED, code, message);
    let challenge = HeaderValue::from_static("Bearer realm=\"vmkit\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}
