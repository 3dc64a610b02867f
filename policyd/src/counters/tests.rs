use super::*;
use crate::model::{NamespacedName, Protocol};
use crate::plan::{AllowRule, PeerMatch, PortMatch};

fn endpoint(label: &str) -> (String, Endpoint) {
    let endpoint = Endpoint {
        label: label.to_owned(),
        addresses: BTreeSet::new(),
        interface: None,
        ingress: Some(BTreeSet::new()),
        egress: None,
    };
    (format!("uid of {label}"), endpoint)
}

fn know(counters: &Counters, labels: &[&str]) -> String {
    let endpoints: Vec<_> = labels.iter().map(|it| endpoint(it)).collect();
    counters.know_endpoints(endpoints.iter().map(|(key, it)| (key, it)));
    endpoint_chain_name(&endpoint("x/a").0, Direction::Ingress)
}

fn shown(counters: &Counters) -> String {
    let mut registry = Registry::default();
    counters.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text.lines().filter(|it| !it.starts_with('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn counters_grow_over_replaced_rules_and_both_families() {
    let counters = Counters::default();
    let chain = know(&counters, &["x/a"]);
    let print = |accepted: u64, denied: u64, gate: u64| {
        format!(
            "[{accepted}:9] -A {chain} -j RETURN\n[{denied}:9] -A {chain} -j DROP\n[{gate}:1] -A PODWIRE-GATE -j DROP\n[7:1] -A PODWIRE-TO-other -j DROP\n"
        )
    };
    counters.add_printed(Family::V4, &print(100, 3, 1));
    counters.add_printed(Family::V4, &print(100, 5, 1));
    counters.add_printed(Family::V6, &print(100, 10, 1));
    // Replaced: it counts from 0.
    counters.add_printed(Family::V4, &print(0, 2, 1));
    // Away, and back.
    counters.add_printed(Family::V4, "");
    counters.add_printed(Family::V4, &print(0, 4, 0));
    assert_eq!(
        shown(&counters),
        "gate_drops_total 2\nforged_sources_total 0\ndenied_packets_total{namespace=\"x\",pod=\"a\",direction=\"ingress\"} 21"
    );
}

#[test]
fn an_isolation_that_comes_back_counts_from_nothing() {
    let counters = Counters::default();
    let chain = know(&counters, &["x/a"]);
    let print = format!("[3:9] -A {chain} -j DROP\n");
    counters.add_printed(Family::V4, &print);
    let (key, isolated) = endpoint("x/a");
    let open = Endpoint { ingress: None, ..isolated };
    counters.know_endpoints(std::iter::once((&key, &open)));
    know(&counters, &["x/a"]);
    counters.add_printed(Family::V4, &print);
    assert!(shown(&counters).ends_with("direction=\"ingress\"} 6"), "{}", shown(&counters));
}

#[test]
fn a_pod_that_has_gone_is_no_longer_shown() {
    let counters = Counters::default();
    let chain = know(&counters, &["x/a", "x/b"]);
    counters.add_printed(Family::V4, &format!("[3:9] -A {chain} -j DROP\n"));
    assert!(shown(&counters).contains("pod=\"a\""));
    know(&counters, &["x/b"]);
    counters.add_printed(Family::V4, &format!("[4:9] -A {chain} -j DROP\n"));
    assert!(!shown(&counters).contains("pod="));
}

fn policy(entries: usize) -> (ChainKey, PolicyChain) {
    let policy = NamespacedName { namespace: "x".to_owned(), name: "p".to_owned() };
    let key = ChainKey { policy, uid: "1".to_owned(), direction: Direction::Ingress };
    let ports = [80, 81].map(|port| PortMatch::Ports(Protocol::Tcp, [(port, port)].into()));
    let rules = (0..entries).flat_map(|entry| {
        ports.clone().map(|port| AllowRule { entry, peer: PeerMatch::Any, port })
    });
    let rules = rules.collect();
    (key, PolicyChain { rules })
}

/// As `iptables-save --counters` prints the chain, of which each rule has counted so much.
fn print(key: &ChainKey, chain: &PolicyChain, packets: &[u64]) -> String {
    let chain = crate::iptables::policy_chain(Family::V4, key, chain);
    let lines = chain.hashes().into_iter().zip(packets).map(|(hash, packets)| {
        format!(
            "[{packets}:9] -A {} -m comment --comment \"podwire:{hash} x/p\" -g PODWIRE-ALLOW\n",
            chain.name
        )
    });
    lines.collect()
}

fn allowed(counters: &Counters) -> Vec<String> {
    let shown = shown(counters);
    let lines = shown.lines().filter_map(|it| it.strip_prefix("allowed_packets_total"));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn what_the_rules_of_a_policy_allow_is_told_entry_by_entry_and_only_grows() {
    let counters = Counters::default();
    let (key, two) = policy(2);
    let (_, one) = policy(1);
    let labels = |rule: usize| {
        format!("{{namespace=\"x\",policy=\"p\",direction=\"ingress\",rule=\"{rule}\"}}")
    };
    counters.know_policies(&[(&key, &two)].into());
    assert_eq!(allowed(&counters), [0, 1].map(|rule| format!("{} 0", labels(rule))));
    counters.add_printed(Family::V4, &print(&key, &two, &[1, 2, 30, 40]));
    counters.add_printed(Family::V4, &print(&key, &two, &[1, 3, 30, 41]));
    // Of IPv6 the rules count by themselves.
    counters.add_printed(Family::V6, &print(&key, &two, &[5, 0, 0, 0]));
    assert_eq!(allowed(&counters), [format!("{} 9", labels(0)), format!("{} 71", labels(1))]);
    // Written again as a whole, nothing is counted twice; an entry that goes takes its counter along.
    counters.know_policies(&[(&key, &two)].into());
    counters.add_printed(Family::V4, &print(&key, &two, &[1, 3, 30, 41]));
    counters.change_policies(&[(key.clone(), Some(one.clone()))].into());
    counters.add_printed(Family::V4, &print(&key, &one, &[2, 3]));
    assert_eq!(allowed(&counters), [format!("{} 10", labels(0))]);
    counters.change_policies(&[(key.clone(), None)].into());
    counters.add_printed(Family::V4, &print(&key, &one, &[3, 3]));
    assert_eq!(allowed(&counters), Vec::<String>::new());
    counters.know_policies(&[(&key, &one)].into());
    counters.know_policies(&BTreeMap::new());
    assert_eq!(allowed(&counters), Vec::<String>::new());
}
