//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;

use cluster::health::{self, Answer, OneAtATime};
use runner::Runner;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use crate::agent::{Readiness, Status};
use crate::counters::Reader;

/// Answers until the listener fails for good.
pub async fn serve<R: Runner + Send + 'static>(
    listener: TcpListener,
    status: Arc<Status>,
    counters: Reader<R>,
) {
    let (counters, texts) = (Arc::new(counters), OneAtATime::new());
    let answer = move |path: String| {
        let (status, counters) = (Arc::clone(&status), Arc::clone(&counters));
        let texts = texts.clone();
        async move {
            match path.as_str() {
                "/metrics" => texts.answer(text(status, counters)).await,
                path => answer(path, &status),
            }
        }
    };
    health::serve(listener, answer).await;
}

/// The text of metrics.
async fn text<R: Runner + Send + 'static>(status: Arc<Status>, counters: Arc<Reader<R>>) -> Answer {
    counters.refresh(Arc::clone(&status.metrics)).await;
    // Of many pods it is long, and the loop has to go on.
    match spawn_blocking(move || status.metrics.text()).await {
        Ok(text) => Answer::metrics(text),
        // A panic, which is a bug.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn answer(path: &str, status: &Status) -> Answer {
    match path {
        "/healthz" if status.is_alive() => Answer::ok("ok\n"),
        "/healthz" => Answer::unavailable("the loop stands still\n"),
        "/readyz" => match status.readiness() {
            Readiness::Ready => match status.network_problem() {
                None => Answer::ok("ok\n"),
                Some(why) => Answer::unavailable(format!("{why}\n")),
            },
            Readiness::Syncing => Answer::unavailable("not all objects are known yet\n"),
            Readiness::NoGate(why) | Readiness::Failing(why) => {
                Answer::unavailable(format!("{why}\n"))
            }
        },
        _ => Answer::not_found("there are /healthz, /readyz and /metrics\n"),
    }
}
