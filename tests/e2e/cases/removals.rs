//! podwire comes off its nodes, and on them again. The last test of a cluster: at its end nothing wires
//! pods.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use e2e::{Bed, Pod, await_that, conf, objects, peer};
use runner::{OsRunner, Program, Runner};

use crate::cases::chained;

/// A Helm command may take this long.
const BOUND: Duration = Duration::from_secs(300);

/// Rules of iptables, in the reference plugin's layout, would stay for that.
const PORTMAP: &str =
    r#"{"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}"#;

/// That port of its node leads to a pod.
const HOST_PORT: u16 = 8099;

/// Pods of a DaemonSet may take this long on each node.
const SPREAD: Duration = Duration::from_secs(120);

/// Where a node finds the chart.
const CHART: &str = "/var/lib/testbed/podwire.tgz";

/// What a node has of podwire's, in a form that is empty when it is nothing.
const OURS: &str = "{ iptables-save; ip6tables-save; ipset list -n; nft list ruleset; } 2>/dev/null | grep -i podwire || :
    ip -o link show type ifb
    find /opt/cni/bin /etc/cni/net.d /run/podwire -mindepth 1 2>/dev/null || :
    ip route show proto 112; ip -6 route show proto 112";

pub(crate) fn it_comes_off_the_nodes_and_on_by_helm(bed: &Bed) {
    let pods = wired(bed, "before");
    let port = a_port_is_published(bed);
    // The one command for nodes whose DaemonSet was deleted alone.
    bed.kubectl(&["delete", "daemonset", "-n", "kube-system", "policyd", "--timeout=110s"]);
    let manifest = |name: &str| fs::read_to_string(conf().join("kubernetes").join(name)).unwrap();
    let cleanup = manifest("cleanup.yaml");
    bed.with_manifests(&["apply"], &cleanup);
    let status = ["rollout", "status", "-n", "kube-system", "daemonset/podwire-cleanup"];
    await_that("all nodes are clean", SPREAD, || {
        bed.try_kubectl(&[&status[..], &["--timeout=10s"]].concat())
    });
    nothing_is_ours(bed);
    assert!(!is_answered(bed, &port), "{port} still leads to a pod");
    let delete = ["delete", "--ignore-not-found", "--timeout=110s"];
    bed.with_manifests(&delete, &cleanup);
    // Helm takes over nothing that others made.
    bed.with_manifests(&delete, &manifest("podwire.yaml"));

    bring_chart(bed);
    let helm = |line: &str| {
        let line = format!("helm {line} -n kube-system --timeout {}s", BOUND.as_secs());
        bed.on_within(BOUND + Duration::from_secs(10), 1, &line, &[])
    };
    helm(&format!("install podwire {CHART} --wait"));
    bed.await_policyd();
    // Those that were there all the time are known again.
    policy_holds(bed, "before", &pods);
    let later = wired(bed, "later");
    policy_holds(bed, "later", &later);
    helm(&format!("upgrade podwire {CHART} --wait --set extraArgs={{--deny=reject}}"));
    bed.await_policyd();
    bed.must_not_reach(&later[0], &later[1]);
    let rejects = bed.on(1, "{ iptables-save -t filter | grep -e REJECT || :; nft list table inet podwire | grep -e reject || :; } | wc -l");
    assert!(rejects.trim() != "0", "the upgrade's option is not in force");
    for name in ["before", "kept", "later"] {
        bed.remove_namespace(name);
    }
    helm("uninstall podwire");
    nothing_is_ours(bed);
    await_that("the cluster has nothing of podwire's", SPREAD, || {
        let kinds = "all,clusterroles,clusterrolebindings,configmaps,serviceaccounts";
        let left = bed.kubectl(&["get", kinds, "-A", "-o", "name"]);
        !["podwire", "policyd"].iter().any(|it| left.contains(it))
    });
}

/// A pod that runs on while podwire comes off its node, with a port of the node and limits; where it is reached.
fn a_port_is_published(bed: &Bed) -> SocketAddr {
    chained::chain(bed, [PORTMAP, "bandwidth"]);
    bed.namespace("kept");
    let last = bed.settings().nodes;
    let _ = bed.start(&chained::published_on(last, "kept", HOST_PORT));
    let address = bed.settings().family.ranges()[0].node(last).parse().unwrap();
    let port = SocketAddr::new(address, HOST_PORT);
    await_that(&format!("{port} answers"), SPREAD, || is_answered(bed, &port));
    let kept = bed.on(last, OURS);
    for part in ["podwire-portmap", "podwire-bandwidth", "bwp"] {
        assert!(kept.contains(part), "{part}: {kept}");
    }
    port
}

fn is_answered(bed: &Bed, port: &SocketAddr) -> bool {
    bed.succeeds(0, &format!("curl -sf --max-time 2 http://{port}/hostname"))
}

fn wired(bed: &Bed, namespace: &str) -> [Pod; 2] {
    bed.namespace(namespace);
    let pods = ["client", "server"].map(|name| bed.start(&objects::server(namespace, name)));
    bed.must_reach(&pods[0], &pods[1]);
    pods
}

fn policy_holds(bed: &Bed, namespace: &str, [client, server]: &[Pod; 2]) {
    bed.must_reach(client, server);
    bed.apply(&objects::deny(namespace));
    bed.must_not_reach(client, server);
}

fn nothing_is_ours(bed: &Bed) {
    for number in bed.settings().numbers() {
        let ours = bed.on(number, OURS);
        assert_eq!(ours.trim(), "", "node {number}");
    }
}

/// Packs the chart, and puts it where Helm on the first node finds it.
fn bring_chart(bed: &Bed) {
    let folder = tempfile::tempdir().unwrap();
    let [to, chart] =
        [folder.path(), &conf().join("helm/podwire")].map(|it| it.display().to_string());
    let helm = Program {
        file: peer("helm"),
        args: &["package", "--destination", &to, &chart],
        timeout: Some(BOUND),
        ..Program::default()
    };
    let packed = OsRunner.run(&helm).unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let archive = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    bed.on_within(BOUND, 1, &format!("cat >{CHART}"), &fs::read(archive).unwrap());
}
