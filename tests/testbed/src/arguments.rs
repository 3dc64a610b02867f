//! The control plane's arguments, as far as all tests that start one have them in common: pure.

use std::path::Path;

/// Where etcd listens, in the namespace that it was started in.
pub const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";

/// etcd, to store below `folder`.
#[must_use]
pub fn etcd(folder: &Path) -> Vec<String> {
    let text = |it: &str| it.to_owned();
    vec![
        format!("--data-dir={}", folder.display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEERS}"),
        format!("--initial-advertise-peer-urls={ETCD_PEERS}"),
        format!("--initial-cluster=default={ETCD_PEERS}"),
        // What a test stores need not survive the machine.
        text("--unsafe-no-fsync"),
    ]
}

/// kube-apiserver over that etcd. In `folder` is the file `tokens`, and the server makes itself a
/// certificate in `certs`.
#[must_use]
pub fn api_server(folder: &Path, port: u16) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--etcd-servers={ETCD}"),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", file("certs")),
        format!("--token-auth-file={}", file("tokens")),
        // Made by the server itself, before it reads it.
        format!("--service-account-key-file={}", file("certs/apiserver.key")),
        format!("--service-account-signing-key-file={}", file("certs/apiserver.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
    ]
}
