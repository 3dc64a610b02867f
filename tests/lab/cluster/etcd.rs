//! etcd: one member, in a temporary directory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use testbed::arguments;

use crate::daemon::Daemon;
use crate::process::program;
use crate::space::Space;
use crate::suite::peer;

/// Where it listens, in the namespace that it was started in.
const ADDRESS: &str = "127.0.0.1:2379";

/// It may take this long to start.
const START: Duration = Duration::from_secs(30);

/// A transaction may have 128 parts, and 1.5 MiB.
const MOST_AT_ONCE: usize = 64;

/// A version of etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.4, with which the API server cannot stream lists.
    Old,
    /// As new as the API server.
    New,
}

/// Starts it, and waits until it is ready.
pub(super) fn start(space: &Space, version: Version, home: &Path) -> Daemon {
    let name = match version {
        Version::Old => "etcd-3.4",
        Version::New => "etcd",
    };
    let mut command = program(peer(name));
    command.args(arguments::etcd(&home.join("etcd")));
    let mut daemon = Daemon::start(name, command, space, home.join("etcd.log"));
    daemon.wait_until(START, || space.enter(|| ask("/v3/maintenance/status", "{}").is_some()));
    daemon
}

/// Makes it forget all revisions before the present one.
pub(super) fn compact() {
    let status = ask("/v3/maintenance/status", "{}").expect("etcd does not answer");
    let revision = &status["header"]["revision"];
    let answer = ask("/v3/kv/compaction", &json!({"revision": revision}).to_string());
    assert!(answer.as_ref().is_some_and(|it| it["header"].is_object()), "compaction: {answer:?}");
}

/// Writes these values at these keys, some at once.
pub(super) fn put(entries: &[(String, Value)]) {
    for entries in entries.chunks(MOST_AT_ONCE) {
        let puts = entries.iter().map(|(key, value)| {
            let [key, value] =
                [key.clone(), value.to_string()].map(|it| BASE64_STANDARD.encode(it));
            json!({"requestPut": {"key": key, "value": value}})
        });
        let transaction = json!({"success": puts.collect::<Vec<_>>()});
        let answer = ask("/v3/kv/txn", &transaction.to_string());
        assert!(answer.as_ref().is_some_and(|it| it["succeeded"] == true), "puts: {answer:?}");
    }
}

/// Asks etcd by its JSON gateway; `None`: it does not answer.
fn ask(path: &str, body: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(ADDRESS).ok()?;
    stream.set_read_timeout(Some(START)).ok()?;
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: etcd\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}
