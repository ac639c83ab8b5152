//! One call of a tool: who calls, whether they went away, and how they hear of progress.

use std::time::Duration;

use futures::future::{Either, select};
use rmcp::RoleServer;
use rmcp::handler::server::common::FromContextPart;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{InputResponses, ProgressNotificationParam, ProgressToken, ProtocolVersion};
use rmcp::service::RequestContext;
use tokio_util::sync::CancellationToken;

use super::Server;
use crate::access::Caller;
use crate::domain::operation::Progress;

/// What [`Server`] finds out about a call before the tool runs, handed on through rmcp's extensions.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) caller: Caller,
    pub(super) tool: std::borrow::Cow<'static, str>,
    /// A digest of the arguments, which sealed questions are bound to.
    pub(super) digest: [u8; 32],
    /// Cancelled when this process is to end.
    pub(super) closing: CancellationToken,
}

/// One call, for the tools that need to know more than their arguments.
pub struct Call {
    pub(super) context: RequestContext<RoleServer>,
    pub(super) opened: Opened,
    pub(super) responses: Option<InputResponses>,
    pub(super) state: Option<String>,
    last_progress: f64,
}

impl FromContextPart<ToolCallContext<'_, Server>> for Call {
    fn from_context_part(
        context: &mut ToolCallContext<'_, Server>,
    ) -> Result<Self, rmcp::ErrorData> {
        let opened = context.request_context.extensions.get::<Opened>().cloned();
        let opened = opened.ok_or_else(|| {
            rmcp::ErrorData::internal_error("the call was not opened by the server", None)
        })?;
        Ok(Self {
            context: context.request_context.clone(),
            opened,
            responses: context.input_responses.take(),
            state: context.request_state.take(),
            last_progress: 0.0,
        })
    }
}

impl Call {
    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.opened.caller
    }

    /// Whether the client speaks 2026-07-28 or later in this request.
    pub(super) fn is_modern(&self) -> bool {
        self.context
            .protocol_version()
            .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
    }

    /// Tells the client how far the work is, where it asked to be told. Numbers only ever rise,
    /// as the protocol wants, even where a step says several things.
    pub async fn progress(&mut self, progress: &Progress) {
        let Some(token) = self.token() else { return };
        let step = f64::from(progress.step.saturating_sub(1));
        let value = if step > self.last_progress {
            step
        } else {
            self.last_progress + (step + 1.0 - self.last_progress).max(0.0) / 16.0 + 1e-6
        };
        self.last_progress = value;
        let text = super::outside::line(&progress.message, 200);
        let notice = ProgressNotificationParam::new(token, value)
            .with_total(f64::from(progress.steps))
            .with_message(text);
        if let Err(error) = self.context.peer.notify_progress(notice).await {
            tracing::debug!(%error, "the client does not hear progress any more");
        }
    }

    fn token(&self) -> Option<ProgressToken> {
        self.context.meta.get_progress_token()
    }

    /// Waits for `work`, but not longer than `at_most`, and not once the client has gone away or
    /// this process is to end. Nothing where it was not finished: the work itself goes on elsewhere.
    pub async fn wait<T>(
        &mut self,
        at_most: Duration,
        work: impl Future<Output = T> + Send,
    ) -> Option<T> {
        let gone = self.gone();
        let given_up = Box::pin(async move {
            tokio::select! {
                () = gone => {}
                () = tokio::time::sleep(at_most) => {}
            }
        });
        match select(Box::pin(work), given_up).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }

    /// Resolves when nobody waits for the answer any more.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let (cancelled, closing) = (self.context.ct.clone(), self.opened.closing.clone());
        async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = closing.cancelled() => {}
            }
        }
    }
}
