//! Watches of a server that answers by a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::{Change, Watch};
use crate::Error;

/// What the server answers, request by request, and what it was asked.
#[derive(Clone)]
struct Server {
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(answers: impl IntoIterator<Item = (u16, String)>) -> Self {
        let answers = answers.into_iter().collect();
        Self { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }
    }

    /// A watch of its namespaces, of which the names are kept.
    fn watch(&self) -> Watch<Namespace, String> {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let query =
                request.uri().query().unwrap_or_default().replace("&timeoutSeconds=290", "");
            let query = query.replace("&allowWatchBookmarks=true", "");
            server.asked.lock().unwrap().push(query.trim_start_matches('&').to_owned());
            let answer = server.answers.lock().unwrap().pop_front();
            let (status, text) = answer.expect("the script has no more answers");
            let body = Body::from(text.into_bytes());
            async move { Response::builder().status(status).body(body) }
        });
        let client = Client::new(service, "default");
        Watch::new(client, |namespace: &Namespace| {
            namespace.metadata.name.clone().unwrap_or_default()
        })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().drain(..).collect()
    }
}

fn object(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "uid": format!("uid-of-{name}"), "resourceVersion": version.to_string()},
    })
}

/// A watch that ends after these events.
fn events(events: &[(&str, Value)]) -> (u16, String) {
    let line = |(kind, object): &(&str, Value)| json!({"type": kind, "object": object}).to_string();
    (200, events.iter().map(line).map(|line| line + "\n").collect())
}

fn bookmark(version: u32, ends_list: bool) -> (&'static str, Value) {
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if ends_list {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    ("BOOKMARK", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
}

fn status(code: u16, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "message": message, "reason": "",
    })
}

fn refusal(code: u16, message: &str) -> (u16, String) {
    (code, status(code, message).to_string())
}

fn page(names: &[&str], version: u32, next: &str) -> (u16, String) {
    let items: Vec<_> = names.iter().map(|name| object(name, 1)).collect();
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    let list = json!({
        "apiVersion": "v1", "kind": "NamespaceList", "metadata": metadata, "items": items,
    });
    (200, list.to_string())
}

/// A list of `a` and `b` at version 5.
fn list() -> (u16, String) {
    events(&[("ADDED", object("a", 3)), ("ADDED", object("b", 4)), bookmark(5, true)])
}

async fn change(watch: &mut Watch<Namespace, String>) -> Change<String> {
    match watch.next().await.unwrap() {
        Change::Listed(mut names) => {
            names.sort();
            Change::Listed(names)
        }
        change => change,
    }
}

async fn error(watch: &mut Watch<Namespace, String>) -> String {
    watch.next().await.unwrap_err().to_string()
}

fn listed(names: &[&str]) -> Change<String> {
    Change::Listed(names.iter().map(|&name| name.to_owned()).collect())
}

fn applied(name: &str) -> Change<String> {
    Change::Applied(name.to_owned())
}

fn removed(name: &str) -> Change<String> {
    Change::Removed(name.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_list_is_streamed_and_its_watch_goes_on() {
    let (_, begin) = list();
    let (_, rest) = events(&[("MODIFIED", object("a", 6)), ("DELETED", object("b", 7))]);
    let server = Server::new([(200, begin + &rest)]);
    let mut watch = server.watch().fields("metadata.name=a");
    assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
    assert_eq!(change(&mut watch).await, applied("a"));
    assert_eq!(change(&mut watch).await, removed("b"));
    assert_eq!(
        server.asked(),
        [
            "watch=true&fieldSelector=metadata.name%3Da&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion="
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_a_list_is_streamed_is_in_the_list() {
    let server = Server::new([events(&[
        ("ADDED", object("a", 1)),
        ("ADDED", object("b", 2)),
        ("DELETED", object("a", 3)),
        ("MODIFIED", object("b", 4)),
        bookmark(4, false),
        ("ADDED", object("c", 5)),
        bookmark(5, true),
    ])]);
    assert_eq!(change(&mut server.watch()).await, listed(&["b", "c"]));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_where_it_ended() {
    let server = Server::new([
        list(),
        events(&[("ADDED", object("c", 6)), bookmark(8, false)]),
        events(&[("DELETED", object("c", 9))]),
    ]);
    let mut watch = server.watch();
    assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
    let ends =
        "watching namespaces: the watch ends at once (is a proxy in front of the API server?)";
    assert_eq!(error(&mut watch).await, ends);
    assert_eq!(change(&mut watch).await, applied("c"));
    assert_eq!(error(&mut watch).await, ends);
    assert_eq!(change(&mut watch).await, removed("c"));
    assert_eq!(
        server.asked()[1..],
        ["watch=true&resourceVersion=5", "watch=true&resourceVersion=8"]
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_there_is_a_whole_list() {
    let gone = status(410, "too old resource version: 5 (9)");
    let again = [("ADDED", object("b", 9)), bookmark(10, true)];
    for failure in [refusal(410, "gone"), events(&[("ERROR", gone)])] {
        let server = Server::new([list(), failure, events(&again)]);
        let mut watch = server.watch();
        assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
        assert!(matches!(watch.next().await, Err(Error::EndsAtOnce { .. })));
        assert_eq!(change(&mut watch).await, listed(&["b"]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_is_a_gap() {
    let bad = ("ADDED", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": 5}));
    let server = Server::new([list(), events(&[bad]), events(&[bookmark(10, true)])]);
    let mut watch = server.watch();
    assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
    assert!(matches!(watch.next().await, Err(Error::EndsAtOnce { .. })));
    let text = error(&mut watch).await;
    assert_eq!(
        text,
        "watching namespaces: an object that cannot be read (is the API server newer than this program knows?)"
    );
    assert_eq!(change(&mut watch).await, listed(&[]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_stream_is_asked_for_pages() {
    let old_etcd = status(500, "the required storage feature RequestWatchProgress is disabled");
    for answer in [events(&[("ERROR", old_etcd)]), refusal(422, "sendInitialEvents: Forbidden")] {
        let server = Server::new([
            answer,
            page(&["a", "b"], 7, "more"),
            page(&["c"], 7, ""),
            events(&[("DELETED", object("a", 8))]),
        ]);
        let mut watch = server.watch().fields("x=y");
        assert_eq!(change(&mut watch).await, listed(&["a", "b", "c"]));
        assert_eq!(change(&mut watch).await, removed("a"));
        let asked = server.asked();
        assert!(asked[1].contains("limit=500") && asked[1].contains("fieldSelector=x%3Dy"));
        assert!(asked[2].contains("continue=more"), "{}", asked[2]);
        assert!(asked[3].contains("resourceVersion=7"), "{}", asked[3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_half_way_is_not_told() {
    let half = events(&[("ADDED", object("a", 1))]);
    let server = Server::new([
        half,
        refusal(422, "no streams"),
        page(&["a"], 7, "more"),
        refusal(410, "the continue parameter is too old"),
        list(),
    ]);
    let mut watch = server.watch();
    assert!(error(&mut watch).await.starts_with("listing namespaces: "));
    assert!(error(&mut watch).await.starts_with("listing namespaces: the continue parameter"));
    assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
}

#[tokio::test(start_paused = true)]
async fn errors_name_what_was_tried_and_the_likely_cause() {
    let forbidden = r#"namespaces is forbidden: User "x" cannot watch resource "namespaces" in API group "" at the cluster scope"#;
    let server = Server::new([
        refusal(403, forbidden),
        refusal(401, "Unauthorized"),
        refusal(503, ""),
        page(&[], 0, ""),
    ]);
    let mut watch = server.watch();
    assert_eq!(
        error(&mut watch).await,
        format!(
            "listing namespaces: {forbidden} (does the ClusterRole of this account allow that verb for that resource?)"
        )
    );
    assert_eq!(
        error(&mut watch).await,
        "listing namespaces: Unauthorized (has the token expired, or is it another cluster's?)"
    );
    assert_eq!(
        error(&mut watch).await,
        "listing namespaces: status 503 (is the API server overloaded, or just starting?)"
    );
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_more_and_more_slowly() {
    let server = Server::new(vec![refusal(503, "starting"); 12]);
    let mut watch = server.watch();
    let started = tokio::time::Instant::now();
    for _ in 0..12 {
        error(&mut watch).await;
    }
    // Eleven pauses make 141 s, each of which is shortened by half at most.
    let elapsed = started.elapsed().as_secs();
    assert!((70..=141).contains(&elapsed), "12 failures in {elapsed} s");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_not_waited_for_forever() {
    let service = tower::service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, std::io::Error>>()
    });
    let mut watch = Watch::new(Client::new(service, "default"), |_: &Namespace| ());
    assert_eq!(
        watch.next().await.unwrap_err().to_string(),
        "listing namespaces: no answer for 60 s (is the API server overloaded, or the network between broken?)"
    );
}
