//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;

use cluster::health::{self, Answer};
use runner::Runner;
use tokio::net::TcpListener;

use crate::agent::{Readiness, Status};
use crate::counters::Reader;

/// Answers until the listener fails for good.
pub async fn serve<R: Runner + Send + 'static>(
    listener: TcpListener,
    status: Arc<Status>,
    counters: Reader<R>,
) {
    let counters = Arc::new(counters);
    let answer = move |path: String| {
        let (status, counters) = (Arc::clone(&status), Arc::clone(&counters));
        async move { answer(&path, &status, &counters).await }
    };
    health::serve(listener, answer).await;
}

async fn answer<R: Runner + Send + 'static>(
    path: &str,
    status: &Status,
    counters: &Reader<R>,
) -> Answer {
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
        "/metrics" => {
            counters.refresh(Arc::clone(&status.metrics)).await;
            Answer::metrics(status.metrics.text())
        }
        _ => Answer::not_found("there are /healthz, /readyz and /metrics\n"),
    }
}
