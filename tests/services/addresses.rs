//! All addresses of a service, from wherever they may be reached.

use std::collections::BTreeSet;

use serde_json::json;

use crate::by_both;
use crate::client::{Outcome, ask, connect, must_ask, must_reach, udp};
use crate::objects::{THERE, ready};
use crate::server::{PORT, Server};
use crate::site::Site;

by_both! {
    a_services_address_leads_to_its_endpoints
    a_pod_reaches_itself_by_its_service
    a_node_port_leads_there_from_everywhere
    external_addresses_lead_there
    where_nobody_is_the_client_is_told
    a_port_or_address_that_no_service_has_is_not_served
    what_others_translate_of_services_addresses_gets_there
    what_nobody_has_is_dropped_and_what_the_node_has_is_not
    a_service_that_goes_leads_nowhere
    of_two_ports_with_the_same_number_each_has_its_protocol
}

fn a_services_address_leads_to_its_endpoints(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    site.serve(&json!({}), &site.ready(["a", "b"]));
    let to = site.at("service", 80);
    // A pod is seen as itself.
    let seen: BTreeSet<_> = (0..60).map(|_| must_reach(site.pod("c"), to)).collect();
    let own = site.address("c");
    assert_eq!(seen, [("a".to_owned(), own), ("b".to_owned(), own)].into());
    // The node, too, and whoever comes by it from outside is hidden: the answers must come back by it.
    let names: BTreeSet<_> = (0..60).map(|_| must_reach(&site.node, to).0).collect();
    assert_eq!(names, ["a", "b"].map(str::to_owned).into());
    let (_, seen) = must_reach(site.world(), to);
    assert_eq!(seen, site.address("gateway"));
}

fn a_pod_reaches_itself_by_its_service(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a"]);
    site.serve(&json!({}), &site.ready(["a"]));
    let (name, seen) = must_reach(site.pod("a"), site.at("service", 80));
    assert_eq!((name.as_str(), seen), ("a", site.address("gateway")));
}

fn a_node_port_leads_there_from_everywhere(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    site.serve(&json!({"type": "NodePort"}), &site.ready(["a"]));
    let to = site.at("node", 30080);
    let gateway = site.address("gateway");
    for from in [site.world(), &site.node, site.pod("b")] {
        assert_eq!(must_reach(from, to), ("a".to_owned(), gateway));
    }
}

fn external_addresses_lead_there(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let keys = json!({
        "type": "LoadBalancer", "externalIPs": [site.address("named")],
        "ingress": [{"ip": site.address("balancer")}],
    });
    site.serve(&keys, &site.ready(["a"]));
    for address in ["named", "balancer"] {
        for from in [site.world(), &site.node, site.pod("b")] {
            let (name, seen) = must_reach(from, site.at(address, 80));
            assert_eq!((name.as_str(), seen), ("a", site.address("gateway")), "{address}");
        }
    }
}

fn where_nobody_is_the_client_is_told(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a"]);
    let keys = json!({"type": "NodePort", "externalIPs": [site.address("named")]});
    site.serve(&keys, &[]);
    for (address, port) in [("service", 80), ("node", 30080), ("named", 80)] {
        for from in [site.world(), &site.node, site.pod("a")] {
            assert_eq!(connect(from, site.at(address, port)), Outcome::Refused, "{address}");
        }
    }
    site.serve(&keys, &site.ready(["a"]));
    must_reach(site.world(), site.at("node", 30080));
    site.serve(&keys, &[]);
    assert_eq!(connect(site.pod("a"), site.at("service", 80)), Outcome::Refused);
}

fn a_port_or_address_that_no_service_has_is_not_served(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a"]);
    site.serve(&json!({}), &site.ready(["a"]));
    assert_eq!(connect(site.pod("a"), site.at("service", 81)), Outcome::Refused);
    assert_eq!(connect(site.pod("a"), site.at("nobody", 80)), Outcome::Silence);
    // The node's own ports are none of ours.
    let (name, _) = must_reach(&site.node, site.at("a", 8080));
    assert_eq!(name, "a");
    assert_eq!(connect(site.world(), site.at("node", 30081)), Outcome::Refused);
}

/// Another proxy's Services (`service.kubernetes.io/service-proxy-name`) have addresses of the same range.
fn what_others_translate_of_services_addresses_gets_there(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    site.serve(&json!({}), &site.ready(["a"]));
    let v = if is_ipv4 { "ip" } else { "ip6" };
    let (address, to) = (site.address("nobody"), site.at("b", PORT));
    // Its chains come after ours, as they were made later.
    site.node.sh(&format!(
        "nft -f - <<'END'
table {v} theirs {{
    chain prerouting {{ type nat hook prerouting priority -100; {v} daddr {address} meta l4proto {{ tcp, udp }} dnat to {to}; }}
    chain output {{ type nat hook output priority -100; {v} daddr {address} meta l4proto {{ tcp, udp }} dnat to {to}; }}
}}
END"
    ));
    let to = site.at("nobody", 80);
    for from in [site.world(), &site.node, site.pod("a")] {
        assert_eq!(must_reach(from, to).0, "b");
        assert_eq!(must_ask(&udp(from, to)), "b");
        assert_eq!(must_reach(from, site.at("service", 80)).0, "a");
    }
    site.node.sh(&format!("nft delete table {v} theirs"));
    for from in [site.world(), &site.node, site.pod("a")] {
        assert_eq!(connect(from, to), Outcome::Silence);
    }
}

fn what_nobody_has_is_dropped_and_what_the_node_has_is_not(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a"]);
    // Packets to it would come to somebody.
    let address = site.address("nobody");
    let length = if is_ipv4 { 32 } else { 128 };
    site.node.sh(&format!("ip route add {address} dev v1"));
    site.pod("a").sh(&format!("ip addr add {address}/{length} dev lo"));
    let to = site.at("nobody", PORT);
    for from in [site.world(), &site.node] {
        assert_eq!(connect(from, to), Outcome::Silence);
        assert_eq!(ask(&udp(from, to)), Outcome::Silence);
    }
    // As proxies have it that take packets to addresses of their own.
    site.node.sh(&format!("ip route del {address} dev v1; ip addr add {address}/{length} dev lo"));
    site.pod("a").sh(&format!("ip addr del {address}/{length} dev lo"));
    let _server = Server::start(&site.node, "node", is_ipv4);
    for from in [site.world(), &site.node, site.pod("a")] {
        assert_eq!(must_reach(from, to).0, "node");
    }
}

fn a_service_that_goes_leads_nowhere(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a"]);
    site.serve(&json!({"type": "NodePort"}), &site.ready(["a"]));
    must_reach(site.world(), site.at("node", 30080));
    site.remove("s");
    assert_eq!(connect(site.pod("a"), site.at("service", 80)), Outcome::Silence);
    assert_eq!(connect(site.world(), site.at("node", 30080)), Outcome::Refused);
    assert!(!site.tables().contains("10.96.0.1 ") && !site.tables().contains("fd00:96::1 "));
}

fn of_two_ports_with_the_same_number_each_has_its_protocol(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let far = ready(&site.address("far").to_string(), THERE);
    let spec =
        json!({"clusterIP": site.address("other"), "ports": [{"port": 80, "protocol": "UDP"}]});
    site.serve_as("other", &spec, &[far]);
    // The other service has the same number by another protocol alone.
    assert_eq!(connect(site.pod("a"), site.at("other", 80)), Outcome::Refused);
    let spec = json!({"clusterIP": site.address("other"), "ports": [
        {"name": "u", "port": 80, "protocol": "UDP"}, {"name": "t", "port": 80},
    ]});
    site.serve_as("other", &spec, &site.ready(["b"]));
    assert_eq!(must_reach(site.pod("a"), site.at("other", 80)).0, "b");
}
