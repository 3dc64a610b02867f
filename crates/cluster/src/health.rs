//! Serving `/healthz`, `/readyz`, `/metrics` and their like: who asks gets what the daemon answers.

mod connections;
mod one_at_a_time;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as SystemListener};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::yield_now;
use tokio::time::sleep;

pub use connections::Connections;
pub use one_at_a_time::OneAtATime;

/// As many are connected at once.
const MOST_CONNECTIONS: usize = 32;
/// For so long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often, and how far apart, a place is asked for that another process had.
const LISTEN_ATTEMPTS: u32 = 50;
const LISTEN_PAUSE: Duration = Duration::from_millis(100);

/// Where health checks are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address and port.
    At(SocketAddr),
}

/// Reads where health checks are to be answered: an address and a port, a port of all addresses, or "off".
///
/// # Errors
/// A text that says what is wrong.
pub fn parse_listen(text: &str) -> Result<Listen, String> {
    if text == "off" {
        return Ok(Listen::Off);
    }
    let address = match text.parse::<u16>() {
        Ok(port) => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], port)),
        Err(_) => text.parse().map_err(|error| format!("no address:port, nor a port: {error}"))?,
    };
    Ok(Listen::At(address))
}

/// Where health checks are to be answered; `None`: nowhere.
///
/// # Errors
/// When the kernel refuses; with [`ErrorKind::AddrInUse`] another process is there.
pub async fn listen(at: Listen) -> io::Result<Option<TcpListener>> {
    let Listen::At(address) = at else { return Ok(None) };
    let unheard = |error: io::Error| {
        let text = format!("cannot listen on {address} for health checks: {error} (see --listen)");
        io::Error::new(error.kind(), text)
    };
    bind(address).map(Some).map_err(unheard)
}

/// Listens there. All addresses of IPv6 (`[::]`) are those of both families, or of IPv4 alone where the kernel has no IPv6
/// (`ipv6.disable=1`).
///
/// # Errors
/// When the kernel refuses.
pub fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let has_no_family = |error: &io::Error| error.raw_os_error() == Some(libc::EAFNOSUPPORT);
    let listener = match SystemListener::bind(at) {
        Err(error) if at.ip().is_unspecified() && has_no_family(&error) => {
            SystemListener::bind((Ipv4Addr::UNSPECIFIED, at.port()))
        }
        bound => bound,
    }?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The same once another process has ended: what it had open is closed one after the other.
///
/// # Errors
/// When the kernel refuses, and still after some seconds where another process is there.
pub async fn listen_after_other(at: Listen) -> io::Result<Option<TcpListener>> {
    for _ in 0..LISTEN_ATTEMPTS {
        match listen(at).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => sleep(LISTEN_PAUSE).await,
            bound => return bound,
        }
    }
    listen(at).await
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    code: StatusCode,
    kind: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// All who get the same answer share it.
    text: Bytes,
}

impl Answer {
    /// All is well.
    #[must_use]
    pub fn ok(text: impl Into<String>) -> Self {
        let text = Bytes::from(text.into());
        Self { code: StatusCode::OK, kind: "text/plain", headers: Vec::new(), text }
    }

    /// Something is not.
    #[must_use]
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self { code: StatusCode::SERVICE_UNAVAILABLE, ..Self::ok(text) }
    }

    /// There is nothing of that path.
    #[must_use]
    pub fn not_found(text: impl Into<String>) -> Self {
        Self { code: StatusCode::NOT_FOUND, ..Self::ok(text) }
    }

    /// Metrics, in the text format of OpenMetrics.
    #[must_use]
    pub fn metrics(text: String) -> Self {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Self { kind, ..Self::ok(text) }
    }

    /// A document of JSON, by which also a machine learns whether all is well.
    #[must_use]
    pub fn json(is_well: bool, document: &serde_json::Value) -> Self {
        let text = format!("{document}\n");
        let headers = vec![(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
        let answer = if is_well { Self::ok(text) } else { Self::unavailable(text) };
        Self { kind: "application/json", headers, ..answer }
    }

    /// Its status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code.as_u16()
    }

    /// The same with a number in a header, whose name is in lower case.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, number: usize) -> Self {
        self.headers.push((HeaderName::from_static(name), HeaderValue::from(number)));
        self
    }
}

/// Answers until the listener fails for good. `answer` is given the path that is asked for.
pub async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(String) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    serve_within(&Connections::at_most(MOST_CONNECTIONS), listener, answer).await;
}

/// The same, of as many connections as there may be.
pub async fn serve_within<A, F>(connections: &Connections, listener: TcpListener, answer: A)
where
    A: Fn(String) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many files, perhaps: others need them more.
                tracing::warn!(%error, "cannot answer a health check");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        // Only now: who waits for a client takes nothing from others.
        let place = Arc::new(connections.place().await);
        let (answer, own) = (answer.clone(), Arc::clone(&place));
        let task = tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let (answer, busy) = (answer(request.uri().path().to_owned()), own.busy());
                async move {
                    let answer = answer.await;
                    drop(busy);
                    Ok::<_, Infallible>(response(answer))
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
        });
        place.is_of(task.abort_handle());
        drop(place);
        // Who has asked already is answered before others can push him out.
        yield_now().await;
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.text));
    *response.status_mut() = answer.code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.kind));
    response.headers_mut().extend(answer.headers);
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const ANY: Listen =
        Listen::At(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0));

    #[test]
    fn places_are_an_address_with_a_port_a_port_or_off() {
        assert_eq!(parse_listen("off"), Ok(Listen::Off));
        assert_eq!(parse_listen("9099"), Ok(Listen::At("[::]:9099".parse().unwrap())));
        assert_eq!(parse_listen("127.0.0.1:1"), Ok(Listen::At("127.0.0.1:1".parse().unwrap())));
        assert_eq!(
            parse_listen("localhost:1"),
            Err("no address:port, nor a port: invalid socket address syntax".to_owned())
        );
    }

    #[tokio::test]
    async fn the_daemon_is_given_the_path_and_its_answer_is_sent() {
        let listener = listen(ANY).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, |path| async move {
            match path.as_str() {
                "/metrics" => Answer::metrics("# EOF\n".to_owned()),
                "/readyz" => Answer::unavailable("not yet\n"),
                "/json" => Answer::json(false, &json!({"a": 1})).with_header("x-weight", 7),
                _ => Answer::not_found(format!("there is no {path}\n")),
            }
        }));
        let ask = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request =
                format!("GET {path}?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let metrics = ask("/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
        assert!(
            metrics.contains(
                "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
            ),
            "{metrics}"
        );
        assert!(metrics.ends_with("\r\n\r\n# EOF\n"), "{metrics}");
        let unready = ask("/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503 "), "{unready}");
        assert!(unready.contains("content-type: text/plain\r\n"), "{unready}");
        assert!(unready.ends_with("\r\n\r\nnot yet\n"), "{unready}");
        let json = ask("/json").await;
        assert!(json.starts_with("HTTP/1.1 503 "), "{json}");
        for header in
            ["content-type: application/json", "x-content-type-options: nosniff", "x-weight: 7"]
        {
            assert!(json.contains(&format!("\r\n{header}\r\n")), "{json}");
        }
        assert!(json.ends_with("\r\n\r\n{\"a\":1}\n"), "{json}");
        let other = ask("/other").await;
        assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
        assert!(other.ends_with("there is no /other\n"), "{other}");
    }

    #[tokio::test]
    async fn servers_that_wait_for_clients_leave_room_for_others() {
        let connections = Connections::at_most(1);
        let mut places = Vec::new();
        for _ in 0..3 {
            let listener = listen(ANY).await.unwrap().unwrap();
            places.push(listener.local_addr().unwrap());
            let connections = connections.clone();
            tokio::spawn(async move {
                serve_within(&connections, listener, |_| async { Answer::ok("ok\n") }).await;
            });
        }
        for place in places {
            let mut stream = TcpStream::connect(place).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with("\r\n\r\nok\n"), "{text}");
        }
    }

    async fn connected(to: SocketAddr) -> TcpStream {
        TcpStream::connect(to).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }

    async fn answer_of(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn who_asks_nothing_leaves_room_for_who_does() {
        let listener = listen(ANY).await.unwrap().unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let connections = Connections::at_most(2);
            serve_within(&connections, listener, |_| async { Answer::ok("ok\n") }).await;
        });
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(connected(at).await);
        }
        let mut other = connected(at).await;
        ask(&mut other, "/").await;
        let text = answer_of(&mut other).await;
        assert!(text.ends_with("\r\n\r\nok\n"), "{text}");
        // Those who came first were pushed out; the last one may still ask.
        for mut first in silent.drain(..19) {
            assert_eq!(first.read(&mut [0]).await.unwrap_or_default(), 0);
        }
        ask(&mut silent[0], "/").await;
        assert!(answer_of(&mut silent[0]).await.ends_with("\r\n\r\nok\n"));
    }

    #[tokio::test]
    async fn who_is_being_answered_is_not_pushed_out() {
        let listener = listen(ANY).await.unwrap().unwrap();
        let at = listener.local_addr().unwrap();
        let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            let connections = Connections::at_most(1);
            let answer = move |path: String| {
                let (asked, mut released) = (asked.clone(), released.clone());
                async move {
                    asked.send(path.clone()).unwrap();
                    released.wait_for(|it| *it).await.unwrap();
                    Answer::ok(path)
                }
            };
            serve_within(&connections, listener, answer).await;
        });
        let mut first = connected(at).await;
        ask(&mut first, "/first").await;
        assert_eq!(heard.recv().await.unwrap(), "/first");
        let mut second = connected(at).await;
        ask(&mut second, "/second").await;
        release.send(true).unwrap();
        assert!(answer_of(&mut first).await.ends_with("\r\n\r\n/first"));
        assert!(answer_of(&mut second).await.ends_with("\r\n\r\n/second"));
    }

    #[tokio::test]
    async fn a_place_that_another_has_is_waited_for() {
        assert!(listen(Listen::Off).await.unwrap().is_none());
        let other = listen(ANY).await.unwrap().unwrap();
        let at = Listen::At(other.local_addr().unwrap());
        let error = listen(at).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let address = other.local_addr().unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on {address} for health checks: Address already in use (os error 98) (see --listen)"
            )
        );
        let ends = async {
            sleep(LISTEN_PAUSE / 2).await;
            drop(other);
        };
        let (bound, ()) = tokio::join!(listen_after_other(at), ends);
        assert_eq!(bound.unwrap().unwrap().local_addr().unwrap(), address);
    }
}
