//! Watches of a server that answers by a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::client::Body;
use prost::Message;
use prost::bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, from_value, json};

use super::{Change, Events, Watch};
use crate::{Error, Metadata, Part};

/// What is read of a namespace.
#[derive(Clone, PartialEq, Message, Deserialize)]
struct NamespacePart {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
}

impl Part for NamespacePart {
    type Whole = Namespace;

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }
}

impl From<NamespacePart> for Namespace {
    fn from(part: NamespacePart) -> Self {
        let metadata: ObjectMeta = part.metadata.unwrap_or_default().into();
        Self { metadata, ..Self::default() }
    }
}

/// An answer.
#[derive(Clone)]
enum Answer {
    /// The events of a watch, which then ends.
    Events(Vec<(&'static str, Value)>),
    /// JSON of a status code: pages, and refusals, which may be protobuf as well.
    Other(u16, Value),
}

/// What the server answers, request by request, and what it was asked.
#[derive(Clone)]
struct Server {
    speaks_protobuf: bool,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Servers with these answers: one that speaks protobuf, and one that does not.
fn servers(answers: impl IntoIterator<Item = Answer>) -> [Server; 2] {
    let answers: VecDeque<Answer> = answers.into_iter().collect();
    [true, false].map(|speaks_protobuf| Server {
        speaks_protobuf,
        answers: Arc::new(Mutex::new(answers.clone())),
        asked: Arc::default(),
    })
}

impl Server {
    /// A watch of its namespaces, of which the names are kept.
    fn watch(&self) -> Watch<NamespacePart, String> {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let query =
                request.uri().query().unwrap_or_default().replace("&timeoutSeconds=290", "");
            let query = query.replace("&allowWatchBookmarks=true", "");
            server.asked.lock().unwrap().push(query.trim_start_matches('&').to_owned());
            let answer = server.answers.lock().unwrap().pop_front();
            let answer = answer.expect("the script has no more answers");
            let accepted = request.headers().get(ACCEPT).map(|it| it.to_str().unwrap().to_owned());
            // Pages are asked for in JSON.
            let takes = accepted.is_some_and(|it| it.contains("protobuf"));
            let response = answer.encoded(server.speaks_protobuf && takes);
            async move { Ok::<_, http::Error>(response) }
        });
        let client = Client::new(service, "default");
        Watch::new(client, |part: NamespacePart| part.metadata.unwrap().name.unwrap())
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

impl Answer {
    fn encoded(self, as_protobuf: bool) -> Response<Body> {
        let (code, body) = match self {
            Self::Events(events) if as_protobuf => {
                (200, events.into_iter().flat_map(|(kind, it)| frame(kind, it)).collect())
            }
            Self::Events(events) => {
                let line = |(kind, object)| json!({"type": kind, "object": object}).to_string();
                (
                    200,
                    events.into_iter().map(line).map(|line| line + "\n").collect::<String>().into(),
                )
            }
            Self::Other(code, status) if as_protobuf => (code, enveloped(&proto_status(&status))),
            Self::Other(code, object) => (code, object.to_string().into_bytes()),
        };
        let kind = if as_protobuf {
            "application/vnd.kubernetes.protobuf;stream=watch"
        } else {
            "application/json"
        };
        let response = Response::builder().status(code).header(CONTENT_TYPE, kind);
        response.body(Body::from(body)).unwrap()
    }
}

/// A field of a message, as bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = Vec::new();
    prost::encoding::encode_varint(bytes.len() as u64, &mut length);
    [&[number << 3 | 2], &length[..], bytes].concat()
}

fn enveloped(object: &[u8]) -> Vec<u8> {
    [b"k8s\0", &field(1, b"")[..], &field(2, object)[..], &field(3, b"")[..]].concat()
}

fn proto_status(status: &Value) -> Vec<u8> {
    let mut code = vec![6 << 3];
    prost::encoding::encode_varint(status["code"].as_u64().unwrap(), &mut code);
    [field(3, status["message"].as_str().unwrap().as_bytes()), code].concat()
}

/// In protobuf this is no UTF-8.
const POISON: &str = "poison";

fn replaced(bytes: Vec<u8>, text: &str, by: &[u8]) -> Vec<u8> {
    match bytes.windows(text.len()).position(|it| it == text.as_bytes()) {
        Some(at) => [&bytes[..at], by, &bytes[at + text.len()..]].concat(),
        None => bytes,
    }
}

/// An event in protobuf.
fn frame(kind: &str, object: Value) -> Vec<u8> {
    let object = match kind {
        "ERROR" => proto_status(&object),
        // What is no object is no protobuf either.
        _ => from_value::<NamespacePart>(object)
            .map_or_else(|_| field(1, b"\xff"), |part| part.encode_to_vec()),
    };
    // Nobody checks the texts of annotations.
    let object = replaced(object, POISON, &[0xff; POISON.len()]);
    let object = field(2, &field(1, &enveloped(&object)));
    let event = [field(1, kind.as_bytes()), object].concat();
    let length = u32::try_from(event.len()).unwrap();
    [&length.to_be_bytes(), &event[..]].concat()
}

/// A watch that ends after these events.
fn events(events: &[(&'static str, Value)]) -> Answer {
    Answer::Events(events.to_vec())
}

fn bookmark(version: u32, ends_list: bool) -> (&'static str, Value) {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
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

fn refusal(code: u16, message: &str) -> Answer {
    Answer::Other(code, status(code, message))
}

fn page(names: &[&str], version: u32, next: &str) -> Answer {
    let items: Vec<_> = names.iter().map(|name| object(name, 1)).collect();
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    let list = json!({
        "apiVersion": "v1", "kind": "NamespaceList", "metadata": metadata, "items": items,
    });
    Answer::Other(200, list)
}

/// A list of `a` and `b` at version 5.
fn list() -> Answer {
    events(&[("ADDED", object("a", 3)), ("ADDED", object("b", 4)), bookmark(5, true)])
}

async fn change(watch: &mut Watch<NamespacePart, String>) -> Change<String> {
    match watch.next().await.unwrap() {
        Change::Listed(mut names) => {
            names.sort();
            Change::Listed(names)
        }
        change => change,
    }
}

async fn error(watch: &mut Watch<NamespacePart, String>) -> String {
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
    for server in servers([events(&[
        ("ADDED", object("a", 3)),
        ("ADDED", object("b", 4)),
        bookmark(5, true),
        ("MODIFIED", object("a", 6)),
        ("DELETED", object("b", 7)),
    ])]) {
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
}

/// The events of an answer that comes in pieces of so many bytes.
async fn in_pieces(bytes: &[u8], size: usize, kind: &str) -> Vec<String> {
    let pieces: Vec<_> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
    let kind = kind.to_owned();
    let service = tower::service_fn(move |_: Request<Body>| {
        let pieces = pieces.clone().into_iter().map(|it| Ok::<_, std::io::Error>(Frame::data(it)));
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let answer = Response::builder().header(CONTENT_TYPE, &kind).body(body);
        async move { answer }
    });
    let answer = Client::new(service, "default").send(Request::new(Body::empty())).await.unwrap();
    let mut events = Events::of(answer).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = events.next::<NamespacePart>().await {
        told.push(event.map_or_else(|error| error.to_string(), |event| format!("{event:?}")));
    }
    told
}

#[tokio::test]
async fn events_are_whole_however_they_come() {
    let list = [("ADDED", object("a", 1)), ("DELETED", object("b", 2)), bookmark(3, true)];
    for as_protobuf in [true, false] {
        let answer = events(&list).encoded(as_protobuf);
        let kind = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let whole = in_pieces(&bytes, bytes.len(), &kind).await;
        assert_eq!(whole.len(), 3);
        for size in 1..bytes.len() {
            assert_eq!(in_pieces(&bytes, size, &kind).await, whole);
        }
        // One that is cut off is the end.
        assert_eq!(in_pieces(&bytes[..bytes.len() - 1], 7, &kind).await, whole[..2]);
    }
}

#[tokio::test]
async fn an_event_without_an_end_is_refused() {
    let kind = "application/vnd.kubernetes.protobuf;stream=watch";
    let answer = Body::from([&[0xff; 8][..], &[0; 8]].concat());
    let answer = Response::builder().header(CONTENT_TYPE, kind).body(answer).unwrap();
    let mut events = Events::of(answer).await.unwrap();
    let event = events.next::<NamespacePart>().await.unwrap();
    assert!(event.unwrap_err().to_string().contains("4294967295 bytes"));
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_a_list_is_streamed_is_in_the_list() {
    for server in servers([events(&[
        ("ADDED", object("a", 1)),
        ("ADDED", object("b", 2)),
        ("DELETED", object("a", 3)),
        ("MODIFIED", object("b", 4)),
        bookmark(4, false),
        ("ADDED", object("c", 5)),
        bookmark(5, true),
    ])]) {
        assert_eq!(change(&mut server.watch()).await, listed(&["b", "c"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_where_it_ended() {
    for server in servers([
        list(),
        events(&[("ADDED", object("c", 6)), bookmark(8, false)]),
        events(&[("DELETED", object("c", 9))]),
    ]) {
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
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_there_is_a_whole_list() {
    let gone = status(410, "too old resource version: 5 (9)");
    let again = [("ADDED", object("b", 9)), bookmark(10, true)];
    for failure in [refusal(410, "gone"), events(&[("ERROR", gone)])] {
        for server in servers([list(), failure, events(&again)]) {
            let mut watch = server.watch();
            assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
            assert!(matches!(watch.next().await, Err(Error::EndsAtOnce { .. })));
            assert_eq!(change(&mut watch).await, listed(&["b"]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_is_a_gap() {
    let bad = ("ADDED", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": 5}));
    for server in servers([list(), events(&[bad]), events(&[bookmark(10, true)])]) {
        let mut watch = server.watch();
        assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
        assert!(matches!(watch.next().await, Err(Error::EndsAtOnce { .. })));
        let text = error(&mut watch).await;
        assert!(text.starts_with("watching namespaces: an object cannot be read: "), "{text}");
        assert!(text.ends_with(" (is the API server newer than this program knows?)"), "{text}");
        assert_eq!(change(&mut watch).await, listed(&[]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_no_utf_8_is_read_in_json() {
    let mut poisoned = object("b", 4);
    poisoned["metadata"]["annotations"] = json!({"a": POISON});
    let poisoned_list = events(&[("ADDED", poisoned.clone()), bookmark(5, true)]);
    // As it is listed, and as it comes later.
    let [server, _] = servers([poisoned_list.clone(), poisoned_list]);
    let mut watch = server.watch();
    assert!(error(&mut watch).await.contains("UTF-8"));
    assert_eq!(change(&mut watch).await, listed(&["b"]));
    let list = [("ADDED", object("a", 3)), ("ADDED", poisoned.clone()), bookmark(5, true)];
    let [server, _] = servers([
        events(&[("ADDED", object("a", 3)), bookmark(4, true), ("ADDED", poisoned)]),
        events(&list),
    ]);
    let mut watch = server.watch();
    assert_eq!(change(&mut watch).await, listed(&["a"]));
    assert!(error(&mut watch).await.contains("UTF-8"));
    assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_code_has_that_of_http() {
    for server in servers([Answer::Other(503, status(0, "busy")), list()]) {
        let mut watch = server.watch();
        assert!(error(&mut watch).await.contains("is the API server overloaded"));
        assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
    }
}

#[tokio::test(start_paused = true)]
async fn gaps_one_after_the_other_are_closed_more_and_more_slowly() {
    let [server, _] = servers([list(), refusal(410, "gone")].into_iter().cycle().take(20));
    let mut watch = server.watch();
    let started = tokio::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
        assert!(matches!(watch.next().await, Err(Error::EndsAtOnce { .. })));
    }
    assert!(started.elapsed().as_secs() > 60, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_stream_is_asked_for_pages() {
    let old_etcd = status(500, "the required storage feature RequestWatchProgress is disabled");
    for answer in [events(&[("ERROR", old_etcd)]), refusal(422, "sendInitialEvents: Forbidden")] {
        for server in servers([
            answer,
            page(&["a", "b"], 7, "more"),
            page(&["c"], 7, ""),
            events(&[("DELETED", object("a", 8))]),
        ]) {
            let mut watch = server.watch().fields("x=y");
            assert_eq!(change(&mut watch).await, listed(&["a", "b", "c"]));
            assert_eq!(change(&mut watch).await, removed("a"));
            let asked = server.asked();
            assert!(asked[1].contains("limit=500") && asked[1].contains("fieldSelector=x%3Dy"));
            assert!(asked[2].contains("continue=more"), "{}", asked[2]);
            assert!(asked[3].contains("resourceVersion=7"), "{}", asked[3]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_half_way_is_not_told() {
    let half = events(&[("ADDED", object("a", 1))]);
    for server in servers([
        half,
        refusal(422, "no streams"),
        page(&["a"], 7, "more"),
        refusal(410, "the continue parameter is too old"),
        list(),
    ]) {
        let mut watch = server.watch();
        assert!(error(&mut watch).await.starts_with("listing namespaces: "));
        assert!(error(&mut watch).await.starts_with("listing namespaces: the continue parameter"));
        assert_eq!(change(&mut watch).await, listed(&["a", "b"]));
    }
}

#[tokio::test(start_paused = true)]
async fn errors_name_what_was_tried_and_the_likely_cause() {
    let forbidden = r#"namespaces is forbidden: User "x" cannot watch resource "namespaces" in API group "" at the cluster scope"#;
    for server in servers([
        refusal(403, forbidden),
        refusal(401, "Unauthorized"),
        refusal(503, ""),
        page(&[], 0, ""),
    ]) {
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
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_more_and_more_slowly() {
    let [server, _] = servers(vec![refusal(503, "starting"); 12]);
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
    let mut watch = Watch::new(Client::new(service, "default"), |_: NamespacePart| ());
    assert_eq!(
        watch.next().await.unwrap_err().to_string(),
        "listing namespaces: no answer for 60 s (is the API server overloaded, or the network between broken?)"
    );
}
