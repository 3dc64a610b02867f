//! An API server of a recorded watch: it lists objects and then streams changes of pods, as fast
//! as it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use lab::Node;
use serde_json::{Value, json};

/// Where it listens.
pub(crate) const PORT: u16 = 8080;
/// Longer than any measurement.
const LIFE: Duration = Duration::from_mins(10);

/// What it answers.
#[derive(Debug)]
struct Answers {
    pods: String,
    namespaces: String,
    policies: String,
    nodes: String,
    /// Taken by the first who watches pods.
    changes: Mutex<Option<Receiver<String>>>,
}

/// Serves these objects on the node, and what is sent as changes of pods.
pub(crate) fn serve(node: &Node, objects: &[Value], changes: Receiver<String>) {
    let list = |kind: &str, version: &str| {
        let items: Vec<_> = objects.iter().filter(|it| it["kind"] == kind).collect();
        json!({"kind": format!("{kind}List"), "apiVersion": version,
            "metadata": {"resourceVersion": "1"}, "items": items})
        .to_string()
    };
    let answers = Arc::new(Answers {
        pods: list("Pod", "v1"),
        namespaces: list("Namespace", "v1"),
        policies: list("NetworkPolicy", "networking.k8s.io/v1"),
        nodes: list("Node", "v1"),
        changes: Mutex::new(Some(changes)),
    });
    let listener = node.enter(|| TcpListener::bind(("0.0.0.0", PORT))).expect("a free port");
    spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            // Who goes away in the middle ends his own connection alone.
            spawn(move || _ = answer(stream, &answers));
        }
    });
}

fn answer(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(first) = lines.next() {
        let first = first?;
        // Requests for what changes nothing here have no bodies.
        for line in lines.by_ref() {
            if line?.is_empty() {
                break;
            }
        }
        let target = first.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let list = match path.rsplit('/').next() {
            Some("pods") => &answers.pods,
            Some("namespaces") => &answers.namespaces,
            Some("networkpolicies") => &answers.policies,
            Some("nodes") => &answers.nodes,
            _ => "",
        };
        match () {
            () if list.is_empty() => write_whole(&mut stream, "404 Not Found", &status(404))?,
            // As a server that does not stream lists: then they are asked for in pages.
            () if query.contains("sendInitialEvents=true") => {
                write_whole(&mut stream, "422 Unprocessable Entity", &status(422))?;
            }
            () if query.contains("watch=") => return watch(stream, path, answers),
            () => write_whole(&mut stream, "200 OK", list)?,
        }
    }
    Ok(())
}

fn status(code: u16) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "not here", "reason": "Invalid", "code": code})
    .to_string()
}

fn write_whole(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

fn watch(mut stream: TcpStream, path: &str, answers: &Answers) -> std::io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let is_of_pods = path.ends_with("/pods");
    let take = || answers.changes.lock().expect("nobody panics with it").take();
    match is_of_pods.then(take).flatten() {
        None => sleep(LIFE),
        Some(changes) => {
            for line in changes {
                stream.write_all(format!("{:x}\r\n{line}\n\r\n", line.len() + 1).as_bytes())?;
            }
        }
    }
    Ok(())
}
