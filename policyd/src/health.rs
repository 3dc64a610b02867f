//! `/healthz`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use runner::Runner;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::agent::{Readiness, Status};
use crate::counters::Reader;

const METRICS: &str = "/metrics";
/// As many are answered at once; more wait.
const MOST_CONNECTIONS: usize = 32;
/// For so long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers until the listener fails for good.
pub async fn serve<R: Runner + Send + 'static>(
    listener: TcpListener,
    status: Arc<Status>,
    counters: Reader<R>,
) {
    let counters = Arc::new(counters);
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many files, perhaps: others need them more.
                tracing::warn!(%error, "cannot answer a health check");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (status, counters) = (Arc::clone(&status), Arc::clone(&counters));
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let (status, counters) = (Arc::clone(&status), Arc::clone(&counters));
                async move {
                    if request.uri().path() == METRICS {
                        counters.refresh(Arc::clone(&status.metrics)).await;
                    }
                    Ok::<_, Infallible>(answer(&request, &status))
                }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // A client that goes away in the middle is none of our business.
            let _ = tokio::time::timeout(
                PATIENCE * 6,
                server.serve_connection(TokioIo::new(stream), answer),
            )
            .await;
            drop(permit);
        });
    }
}

/// Where `text` names an address and a port, or a port of all addresses.
///
/// # Errors
/// A text that says what is wrong.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], port))),
        Err(_) => text.parse().map_err(|error| format!("no address:port, nor a port: {error}")),
    }
}

fn answer(request: &Request<Incoming>, status: &Status) -> Response<Full<Bytes>> {
    let (code, kind, text) = match request.uri().path() {
        "/healthz" if status.is_alive() => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/healthz" => {
            let text = "the loop stands still\n".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", text)
        }
        "/readyz" => {
            let (code, text) = match status.readiness() {
                Readiness::Ready => match status.network_problem() {
                    None => (StatusCode::OK, "ok\n".to_owned()),
                    Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                },
                Readiness::Syncing => {
                    let text = "not all objects are known yet\n".to_owned();
                    (StatusCode::SERVICE_UNAVAILABLE, text)
                }
                Readiness::NoGate(why) | Readiness::Failing(why) => {
                    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
                }
            };
            (code, "text/plain", text)
        }
        METRICS => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, kind, status.metrics.text())
        }
        _ => {
            let text = "there are /healthz, /readyz and /metrics\n".to_owned();
            (StatusCode::NOT_FOUND, "text/plain", text)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}
