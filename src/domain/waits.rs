//! Who is told of a long wait: whoever stands around the work that has to wait.
//!
//! A call to a cloud waits where the cloud asks for it, deep below the step of an operation that
//! made the call. The step's driver listens, the call tells, and nobody in between passes anything
//! on. Without a listener, telling does nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

/// From how long on a wait is told.
pub const LONG: Duration = Duration::from_secs(2);

/// Hears what is being waited for, in words; none when the wait is over.
pub type Listener = Arc<dyn Fn(Option<String>) -> BoxFuture<'static, ()> + Send + Sync>;

tokio::task_local! {
    static LISTENER: Listener;
}

/// Runs `work`, whose long waits `listener` hears. Work that it hands to other tasks is not heard.
pub async fn heard_by<F: Future>(listener: Listener, work: F) -> F::Output {
    LISTENER.scope(listener, work).await
}

/// Says that `what` is waited for, for `length`; nothing where that is not long.
pub async fn begin(length: Duration, what: impl FnOnce() -> String) -> bool {
    if length <= LONG {
        return false;
    }
    let Ok(listener) = LISTENER.try_with(Clone::clone) else { return false };
    listener(Some(what())).await;
    true
}

/// Says that a wait that was told is over.
pub async fn end() {
    if let Ok(listener) = LISTENER.try_with(Clone::clone) {
        listener(None).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_long_wait_is_heard_and_a_short_one_is_not() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&heard);
        let listener: Listener = Arc::new(move |what| {
            into.lock().expect("a lock").push(what);
            std::future::ready(()).boxed()
        });
        let work = async {
            assert!(!begin(LONG, || "short".to_owned()).await);
            assert!(begin(LONG * 2, || "long".to_owned()).await);
            end().await;
            7
        };
        assert_eq!(heard_by(listener, work).await, 7);
        assert!(!begin(LONG * 2, || "nobody listens".to_owned()).await);
        assert_eq!(*heard.lock().expect("a lock"), [Some("long".to_owned()), None]);
    }
}
