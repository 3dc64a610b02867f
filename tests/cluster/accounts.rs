//! Service accounts with roles of the test's own, and policyd as one of them.

use std::fs;
use std::path::PathBuf;

use lab::cluster::Cluster;
use lab::{Daemon, Node, policyd, program};
use serde_json::{Value, json};

use crate::objects::NODE;

/// A service account of the namespace `default`, which may do nothing yet.
pub(crate) fn add_account(node: &Node, cluster: &Cluster<'_>, name: &str) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    cluster.request("POST", "/api/v1/namespaces/default/serviceaccounts", &account);
    cluster.grant("default", name, &node.home().join(name));
}

/// Has its role be of these rules.
pub(crate) fn allow(cluster: &Cluster<'_>, name: &str, rules: &[Value]) {
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    cluster.apply(&json!({"apiVersion": version, "kind": "ClusterRole",
        "metadata": {"name": name}, "rules": rules}));
    cluster.apply(&json!({"apiVersion": version, "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}]}));
}

/// A kubeconfig file of the account.
pub(crate) fn kubeconfig(node: &Node, cluster: &Cluster<'_>, name: &str) -> PathBuf {
    let token = fs::read_to_string(node.home().join(name).join("token")).unwrap();
    let mut conf: Value =
        serde_json::from_slice(&fs::read(cluster.kubeconfig("agent")).unwrap()).unwrap();
    conf["users"][0]["user"]["token"] = json!(token);
    let file = node.home().join(name).join("kubeconfig");
    fs::write(&file, conf.to_string()).unwrap();
    file
}

/// The port of the health checks of policyd as an account of this number.
pub(crate) fn port(number: usize) -> u16 {
    9100 + u16::try_from(number).unwrap()
}

/// policyd as that account, beside others: each has a port and a folder of its own.
pub(crate) fn start_as(
    node: &Node,
    cluster: &Cluster<'_>,
    number: usize,
    name: &str,
) -> (Daemon, PathBuf) {
    let file = kubeconfig(node, cluster, name);
    let log = node.home().join(format!("{name}.log"));
    let mut command = program(policyd());
    command.arg("--kubeconfig").arg(file).args(["--node-name", NODE, "--gate", "off"]);
    command.arg(format!("--listen=127.0.0.1:{}", port(number)));
    command.arg("--run-dir").arg(node.home().join(name).join("run"));
    (Daemon::start("policyd", command, node, log.clone()), log)
}
