//! The manifests of `conf/kubernetes` in a real API server, and their containers with exactly what they
//! grant.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lab::cluster::{Cluster, Version};
use lab::probe::{must_not_reach, must_reach};
use lab::{
    Call, Daemon, Node, Pod, Suite, addresses, by_nftables, policy_rules, policyd, program, proxyd,
    workspace,
};
use serde_json::{Value, json};

use crate::objects::{NODE, RANGES, namespace, pod};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What policyd's container sees: a root that cannot be written, and of the node's `/run` the paths
/// of the manifest. The rest of the line is the program to run with its capabilities alone.
const CONTAINER: &str = r#"
home=$1; shift
mount --make-rprivate /
mkdir -p "$home/run/podwire" "$home/etc"
touch "$home/run/xtables.lock"
cp -a /etc/alternatives /etc/protocols "$home/etc"
mount --bind "$home/etc" /etc
if [ -d "$home/cni-bin" ]; then
    mount -t tmpfs tmpfs /opt
    mkdir -p "$CNI_BIN"
    mount --bind "$home/cni-bin" "$CNI_BIN"
fi
mount -t tmpfs tmpfs /run
mkdir -p /run/podwire /run/secrets/kubernetes.io/serviceaccount
touch /run/xtables.lock
mkdir -p "$home/account"
mount --bind "$home/run/podwire" /run/podwire
mount --bind "$home/run/xtables.lock" /run/xtables.lock
mount --bind "$home/account" /run/secrets/kubernetes.io/serviceaccount
if [ -n "$PROC_SYS_NET" ]; then
    mkdir -p "$PROC_SYS_NET"
    mount --bind /proc/sys/net "$PROC_SYS_NET"
fi
if [ -d "$home/net.d" ]; then
    mkdir -p "$CNI_CONF"
    mount --bind "$home/net.d" "$CNI_CONF"
fi
for place in $(cut -d' ' -f5 /proc/self/mountinfo | sort -u); do
    case $place in
    /run/podwire | /run/xtables.lock | "$CNI_CONF" | "$CNI_BIN" | "$PROC_SYS_NET") ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null || : ;;
    esac
done
for place in / /etc /run /tmp /var /proc/sys/net/ipv4/ip_forward; do
    if [ -d $place ] && touch "$place/probe" 2>/dev/null || [ -f $place ] && echo 1 2>/dev/null >$place; then
        echo "$place can be written"; exit 1
    fi
done
exec "$@"
"#;

/// policyd, where the node's network is somebody else's.
pub(crate) const POLICYD: &str = "policyd.yaml";

/// The whole network.
pub(crate) const PODWIRE: &str = "podwire.yaml";

/// What a manifest of `conf/kubernetes` has.
pub(crate) fn documents(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace().join("conf/kubernetes").join(manifest)).unwrap();
    text.split("\n---\n").map(str::to_owned).collect()
}

/// Where the API has objects of the document's kind.
pub(crate) fn collection(document: &str) -> &'static str {
    let kind = document.lines().find_map(|line| line.strip_prefix("kind: ")).expect("a kind");
    match kind {
        "ServiceAccount" => "/api/v1/namespaces/kube-system/serviceaccounts",
        "ConfigMap" => "/api/v1/namespaces/kube-system/configmaps",
        "DaemonSet" => "/apis/apps/v1/namespaces/kube-system/daemonsets",
        "Job" => "/apis/batch/v1/namespaces/kube-system/jobs",
        "Role" => "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles",
        "RoleBinding" => "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings",
        "ClusterRole" => "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "ClusterRoleBinding" => "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        other => panic!("the test does not know where the API has {other}"),
    }
}

pub(crate) fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
}

/// The control plane with the node and what the manifest has, and of that the ConfigMap and the
/// DaemonSet.
pub(crate) fn deployed<'a>(node: &'a Node, manifest: &str) -> (Cluster<'a>, Value, Value) {
    let cluster = Cluster::start(node, Version::Old);
    let documents = documents(manifest);
    for document in &documents {
        let tried = cluster.create_yaml(&format!("{}?dryRun=All", collection(document)), document);
        assert_eq!(tried["metadata"]["name"], "policyd");
    }
    let made: Vec<_> = documents.iter().map(|it| cluster.create_yaml(collection(it), it)).collect();
    let of_kind = |kind: &str| made.iter().find(|it| it["kind"] == kind).unwrap().clone();
    let (config, daemons) = (of_kind("ConfigMap"), of_kind("DaemonSet"));
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
        "spec": {"podCIDRs": RANGES}}));
    cluster.apply(&namespace("shop", &json!({})));
    (cluster, config, daemons)
}

/// A pod that podwire wires, with addresses of these ranges, and of which nobody is told.
pub(crate) fn attach(node: &Node, name: &str, ranges: [&str; 2]) -> (Pod, Vec<IpAddr>) {
    let space = node.pod(name);
    space.sh("ip link set lo up");
    let conf = json!({"cniVersion": "1.0.0", "name": ranges[0].replace('/', "-"), "type": "ptp",
        "ipam": {"type": "host-local", "dataDir": node.data(),
            "ranges": ranges.map(|it| json!([{"subnet": it}])),
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}});
    let call = Call::new("ptp", "ADD").container(name).netns(&space.path()).conf(&conf);
    let result = call.run(node, &Suite::podwire()).ok();
    (space, addresses(&result))
}

/// A pod that podwire wires and the API server knows.
pub(crate) fn wire(node: &Node, cluster: &Cluster<'_>, name: &str) -> (Pod, Vec<IpAddr>) {
    let (space, addresses) = attach(node, name, RANGES);
    let ips: Vec<_> = addresses.iter().map(|it| json!({"ip": it})).collect();
    cluster.apply(&pod(name));
    let status = json!({"phase": "Running", "podIP": addresses[0], "podIPs": ips});
    cluster.set_status(&pod(name), &status);
    (space, addresses)
}

/// The paths of the node that the DaemonSet's container sees.
pub(crate) fn host_paths(daemons: &Value) -> Vec<&str> {
    let volumes = daemons.pointer("/spec/template/spec/volumes").and_then(Value::as_array);
    volumes.unwrap().iter().filter_map(|it| it["hostPath"]["path"].as_str()).collect()
}

/// What the DaemonSet says, run on the node: program, arguments, capabilities and files.
pub(crate) fn container(node: &Node, config: &Value, daemons: &Value) -> Command {
    let spec = &daemons["spec"]["template"]["spec"];
    assert_eq!(spec["hostNetwork"], true);
    fs::create_dir_all(node.home().join("etc/config")).unwrap();
    for (name, text) in config["data"].as_object().unwrap() {
        let file = node.home().join("etc/config").join(name);
        fs::write(file, text.as_str().unwrap()).unwrap();
    }
    confined(node, &spec["containers"][0])
}

/// A container's program on the node, with the capabilities that it is granted and nothing to write but
/// its mounts.
pub(crate) fn confined(node: &Node, container: &Value) -> Command {
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    let added = security["capabilities"]["add"].as_array();
    let added = added.into_iter().flatten().filter_map(Value::as_str);
    let granted: String = added.map(|it| format!(",+{}", it.to_lowercase())).collect();
    let granted = format!("--bounding-set=-all{granted}");
    let mut command = program("unshare");
    command.args(["--mount", "sh", "-euc", CONTAINER, "container"]).arg(node.home());
    command.args(["setpriv", &granted, "--inh-caps=-all", "--no-new-privs"]);
    command.args([
        "sh",
        "-euc",
        r#"grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; exec "$@""#,
        "run",
    ]);
    command.arg(program_of(container)).args(texts(&container["args"]));
    let mounted = |name: &str, usual: &'static str| {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let path = mounts.filter(|it| it["name"] == name).find_map(|it| it["mountPath"].as_str());
        path.unwrap_or(usual).trim_end_matches('/').to_owned()
    };
    command.env("CNI_CONF", mounted("cni-conf", "/etc/cni/net.d"));
    command.env("CNI_BIN", mounted("cni-bin", "/opt/cni/bin"));
    command.env("PROC_SYS_NET", mounted("proc-sys-net", ""));
    command.env_remove("KUBECONFIG").env("NODE_NAME", NODE);
    command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", "6443");
    command
}

/// The program that a container runs, of those that are tested.
pub(crate) fn program_of(container: &Value) -> PathBuf {
    match container["command"].as_array().map(Vec::as_slice) {
        None => policyd(),
        Some([name]) if name == "/usr/bin/podwire" => Suite::podwire().plugin("podwire"),
        Some([name]) if name == "/usr/bin/proxyd" => proxyd(),
        Some(_) => panic!("the image has no such program: {container}"),
    }
}

pub(crate) fn is_ready(node: &Node, port: u16) -> bool {
    node.try_sh(&format!("curl -sf --max-time 2 http://127.0.0.1:{port}/readyz")).status.success()
}

/// What there is of policyd in the kernel.
pub(crate) fn ours(node: &Node) -> String {
    let all = node.sh("iptables-save; ip6tables-save; ipset save; nft list ruleset");
    let lines = all.lines().filter(|it| it.to_lowercase().contains("podwire"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Removes all that policyd with these options made, which must be all that there is of it.
pub(crate) fn clean_up(node: &Node, options: &[&str]) {
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").args(options).arg("cleanup");
    let ended = node.run(command);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ours(node), "");
}

/// What is answered to whoever asks for this page of its health checks.
pub(crate) fn answer(node: &Node, port: u16, page: &str) -> String {
    node.try_sh(&format!("curl -s --max-time 2 http://127.0.0.1:{port}/{page}")).stdout
}

#[test]
pub(crate) fn policyd_enforces_with_what_the_manifest_grants() {
    let node = Node::quick();
    let (cluster, config, daemons) = deployed(&node, POLICYD);
    assert_eq!(host_paths(&daemons), ["/run/xtables.lock", "/run/podwire"]);
    let (client, _) = wire(&node, &cluster, "client");
    let (server, addresses) = wire(&node, &cluster, "server");
    cluster.grant("kube-system", "policyd", &node.home().join("account"));
    let log = node.home().join("policyd.log");
    let command = container(&node, &config, &daemons);
    let mut daemon = Daemon::start("policyd", command, &node, log.clone());
    daemon.wait_until(PATIENCE, || is_ready(&node, 9099));
    let said = fs::read_to_string(&log).unwrap();
    for line in ["CapEff:\t0000000000003000", "CapBnd:\t0000000000003000", "NoNewPrivs:\t1"] {
        assert!(said.contains(line), "{said}");
    }
    must_reach(&client, &server, &addresses[0].to_string());
    let deny = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "deny"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}}});
    cluster.apply(&deny);
    daemon.wait_until(PATIENCE, || policy_rules(&node).contains(":PODWIRE-TO-"));
    for address in &addresses {
        must_not_reach(&client, &server, &address.to_string());
    }
    let selected = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    cluster.patch(&deny, &json!({"spec": {"ingress": [{"from": selected}]}}));
    for address in &addresses {
        must_reach(&client, &server, &address.to_string());
    }
    assert!(node.sh("iptables-save -t nat; nft list tables").to_uppercase().contains("MASQUERADE"));
    assert!(node.home().join("run/podwire/policyd.sock").exists());
    let said = fs::read_to_string(&log).unwrap();
    assert!(!said.contains("forbidden") && !said.contains("not permitted"), "{said}");
    drop(daemon);
    clean_up(&node, &["--masquerade"]);
}

/// Without one of them policyd is not ready, and tells what the kernel refused.
#[test]
fn no_capability_of_the_manifest_is_too_much() {
    let node = Node::quick();
    let (cluster, config, daemons) = deployed(&node, POLICYD);
    cluster.grant("kube-system", "policyd", &node.home().join("account"));
    let add = "/spec/template/spec/containers/0/securityContext/capabilities/add";
    let granted = daemons.pointer(add).and_then(Value::as_array).expect("capabilities").clone();
    assert_eq!(granted.len(), 2);
    for taken in &granted {
        // By nf_tables no program is run that looks up a set.
        let is_enough = by_nftables() && taken == "NET_RAW";
        let mut lacking = daemons.clone();
        let rest: Vec<_> = granted.iter().filter(|it| *it != taken).cloned().collect();
        *lacking.pointer_mut(add).expect("capabilities") = json!(rest);
        let log = node.home().join(format!("without-{}.log", taken.as_str().unwrap()));
        let command = container(&node, &config, &lacking);
        let mut daemon = Daemon::start("policyd", command, &node, log.clone());
        let answer = || node.sh("curl -s --max-time 5 http://127.0.0.1:9099/readyz || true");
        // Of the raw sockets by which `iptables` looks up sets, it says that it cannot open one.
        let words = ["not permitted", "Can't open socket to ipset"];
        if is_enough {
            daemon.wait_until(PATIENCE, || is_ready(&node, 9099));
            continue;
        }
        daemon.wait_until(PATIENCE, || words.iter().any(|it| answer().contains(it)));
        assert!(!is_ready(&node, 9099), "without {taken}: {}", answer());
    }
    clean_up(&node, &["--masquerade"]);
}
