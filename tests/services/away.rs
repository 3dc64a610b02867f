//! The API server is away, slow, or has forgotten.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use lab::cluster::{Cluster, Version};
use lab::{Daemon, Node};
use serde_json::{Value, json};

use crate::client::must_reach;
use crate::daemon::{asked, eventually, service, slice, start, wait_ready};
use crate::objects::HERE;
use crate::site::Site;
use crate::steady::Steady;

/// Longer than the pause between two attempts to reach it.
const ABSENCE: Duration = Duration::from_secs(10);
/// Longer than the longest pause between them.
const BACK: Duration = Duration::from_secs(60);

/// A node with a control plane beside it.
pub(crate) struct Controlled {
    pub(crate) site: Site,
    control: Node,
}

impl Controlled {
    pub(crate) fn new() -> Self {
        let mut site = Site::new(true);
        site.pods(["a", "b", "c"]);
        let control = site.control_plane();
        Self { site, control }
    }

    /// The control plane, with the node, and the service "s" before the pod "a"; where that is.
    pub(crate) fn cluster(&self) -> (Cluster<'_>, SocketAddr) {
        let cluster = Cluster::start(&self.control, Version::New);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": HERE}});
        cluster.apply(&node);
        let addresses = json!([{"type": "InternalIP", "address": self.site.address("node")}]);
        cluster.set_status(&node, &json!({"addresses": addresses}));
        cluster.allow(
            "agent",
            &["list", "watch"],
            &["nodes", "services", "discovery.k8s.io/endpointslices"],
        );
        cluster.apply(&slice(&self.site, &["a"]));
        let created = cluster.apply(&self.service());
        (cluster, SocketAddr::new(address(&created), 80))
    }

    fn service(&self) -> Value {
        let mut object = service(&self.site);
        // At an address that the API server gives.
        object["spec"] = json!({"ports": [{"name": "t", "port": 80}]});
        object
    }

    pub(crate) fn start(&self, cluster: &Cluster<'_>) -> Daemon {
        let kubeconfig = cluster.kubeconfig_at("agent", Site::CONTROL_PLANE);
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        start(&self.site, self.site.node.home(), &[&kubeconfig])
    }
}

fn address(service: &Value) -> std::net::IpAddr {
    service["spec"]["clusterIP"].as_str().expect("it has one").parse().expect("an address")
}

fn leads_to(site: &Site, to: SocketAddr, name: &str) -> bool {
    (0..10).all(|_| must_reach(&site.node, to).0 == name)
}

#[test]
fn what_changed_while_it_was_away_is_so_in_the_end() {
    let controlled = Controlled::new();
    let (mut cluster, to) = controlled.cluster();
    let site = &controlled.site;
    let mut gone = controlled.service();
    gone["metadata"]["name"] = json!("gone");
    let gone_address = address(&cluster.apply(&gone));
    let mut daemon = controlled.start(&cluster);
    wait_ready(site, &mut daemon);
    assert!(leads_to(site, to, "a"));
    let steady = Steady::start(site.pod("c"), to);
    cluster.stop_server();
    sleep(ABSENCE);
    assert!(asked(site, "/healthz").is_some_and(|it| it.starts_with("HTTP/1.1 200 ")));
    // Nobody who watches sees these changes, and nobody can be told of them later.
    cluster.start_hidden_server();
    cluster.apply(&slice(site, &["b"]));
    cluster.delete(&gone);
    cluster.compact();
    cluster.stop_server();
    cluster.start_server();
    // Each watch tries again by itself, and may wait for half a minute after the others.
    daemon.wait_until(BACK, || leads_to(site, to, "b"));
    daemon.wait_until(BACK, || !site.tables().contains(&format!("{gone_address} . ")));
    steady.end();
}

#[test]
fn one_that_starts_while_it_is_away_leaves_services_as_they_are() {
    let controlled = Controlled::new();
    let (mut cluster, to) = controlled.cluster();
    let site = &controlled.site;
    let mut daemon = controlled.start(&cluster);
    wait_ready(site, &mut daemon);
    assert!(leads_to(site, to, "a"));
    daemon.kill();
    cluster.stop_server();
    let before = site.content();
    let steady = Steady::start(site.pod("c"), to);
    let mut daemon = controlled.start(&cluster);
    daemon.wait_until(ABSENCE, || {
        asked(site, "/readyz").is_some_and(|it| it.contains("not all objects are known yet"))
    });
    sleep(Duration::from_secs(2));
    assert!(asked(site, "/livez").is_some_and(|it| it.starts_with("HTTP/1.1 200 ")));
    assert_eq!(site.content(), before);
    cluster.start_server();
    wait_ready(site, &mut daemon);
    assert_eq!(site.content(), before);
    cluster.apply(&slice(site, &["b"]));
    eventually("the other endpoint", || leads_to(site, to, "b"));
    steady.end();
}

#[test]
fn one_that_is_slow_is_waited_for() {
    let controlled = Controlled::new();
    let (cluster, to) = controlled.cluster();
    let site = &controlled.site;
    // It answers no sooner than it is asked for its objects.
    cluster.pause_server();
    let mut daemon = controlled.start(&cluster);
    sleep(Duration::from_secs(3));
    assert!(asked(site, "/livez").is_some_and(|it| it.starts_with("HTTP/1.1 200 ")));
    assert!(asked(site, "/readyz").is_some_and(|it| it.contains("not all objects are known yet")));
    cluster.resume_server();
    wait_ready(site, &mut daemon);
    assert!(leads_to(site, to, "a"));
    let steady = Steady::start(site.pod("c"), to);
    for name in ["b", "a"] {
        cluster.pause_server();
        sleep(Duration::from_secs(3));
        cluster.resume_server();
        cluster.apply(&slice(site, &[name]));
        eventually("the other endpoint", || leads_to(site, to, name));
    }
    steady.end();
}
