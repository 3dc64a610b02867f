//! The runtime's list comes last, and is kept.

use std::fs;

use lab::has_iptables;
use policyd::node_network::conflist::Main;
use policyd::node_network::{Defect, Members};

use crate::nodes::{Nodes, keeper, member};

#[test]
fn the_list_is_written_once_all_else_is_there_and_policies_are_in_force() {
    let mut nodes = Nodes::new(2);
    let members = nodes.members.clone();
    let host = &mut nodes.all[0];
    // The cluster does not know the node yet, then not its ranges, then not its address.
    let mut partial = Members::new();
    let expect = |report: policyd::node_network::Report, text: &str| {
        let why = report.state().unwrap_err();
        assert!(why.contains(text), "{why}");
    };
    expect(host.reconcile(&partial, true), "there is no node node-1");
    let mut own = member(1);
    let (ranges, addresses) =
        (std::mem::take(&mut own.pod_ranges), std::mem::take(&mut own.addresses));
    partial.insert(own.name.clone(), own.clone());
    expect(host.reconcile(&partial, true), "no spec.podCIDRs");
    own.pod_ranges = ranges;
    partial.insert(own.name.clone(), own.clone());
    expect(host.reconcile(&partial, true), "no InternalIP");
    own.addresses = addresses;
    // All but policies.
    let report = host.reconcile(&members, false);
    assert!(report.awaits_policy && report.problems.is_empty());
    expect(report, "waits for policies");
    assert!(!host.list_file().exists());
    assert!(host.routes(true).contains("10.244.2.0/24 via 192.0.2.2"));
    if has_iptables() {
        assert!(host.node.sh("iptables -S PODWIRE-ACCEPT").contains("10.244.1.0/24"));
    }
    assert_eq!(host.node.sysctl("net/ipv4/ip_forward").unwrap(), "1");
    assert_eq!(host.node.sysctl("net/ipv6/conf/all/forwarding").unwrap(), "1");
    assert_eq!(host.node.sysctl("net/ipv6/conf/eth0/accept_ra").unwrap(), "2");
    let report = host.reconcile(&members, true);
    assert_eq!((report.state(), report.written.is_some()), (Ok(()), true));
    let list = host.list();
    assert_eq!(list["plugins"][0]["mtu"], 1400);
    assert_eq!(list["plugins"][1]["type"], "podwire-policy");
    // Policies that fail later take nothing away.
    assert_eq!(host.reconcile(&members, false).state(), Ok(()));
    assert!(host.list_file().exists());
    nodes.clean_up();
}

#[test]
fn the_list_is_repaired_and_follows_the_link() {
    let mut nodes = Nodes::new(1);
    nodes.settle();
    let members = nodes.members.clone();
    let host = &mut nodes.all[0];
    let good = fs::read_to_string(host.list_file()).unwrap();
    for damage in ["", "{\"name\":\"other\"}", &good[..good.len() / 2]] {
        fs::write(host.list_file(), damage).unwrap();
        let report = host.reconcile(&members, true);
        assert!(report.repairs.file);
        assert_eq!(fs::read_to_string(host.list_file()).unwrap(), good);
    }
    fs::remove_dir_all(host.list_file().parent().unwrap()).unwrap();
    assert!(host.reconcile(&members, true).repairs.file);
    assert!(!host.reconcile(&members, true).repairs.file);
    host.node.sh("ip link set eth0 mtu 1300");
    let report = host.reconcile(&members, true);
    assert!(report.written.is_some() && !report.repairs.file);
    assert_eq!(host.list()["plugins"][0]["mtu"], 1300);
    host.node.sh("ip link set eth0 mtu 1400");
    host.reconcile(&members, true);
    // The next process finds all in place.
    host.keeper = Some(keeper(&host.node, "node-1", Main::Ptp));
    let report = host.reconcile(&members, true);
    assert_eq!((report.changed_routes, report.written.is_some()), ((0, 0), false));
    nodes.clean_up();
}

#[test]
fn a_file_that_the_runtime_takes_before_is_told() {
    let mut nodes = Nodes::new(1);
    nodes.settle();
    let folder = nodes.all[0].list_file().parent().unwrap().to_owned();
    fs::write(folder.join("00-multus.conf"), r#"{"type": "multus-shim"}"#).unwrap();
    nodes.settle();
    fs::write(folder.join("10-flannel.conflist"), "{}").unwrap();
    let report = &nodes.reconcile()[0];
    assert_eq!(report.defects, [Defect::Shadowed { file: "10-flannel.conflist".into() }]);
    assert_eq!((report.state(), report.unreachable_nodes()), (Ok(()), 0));
    nodes.clean_up();
}
