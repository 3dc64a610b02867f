//! Which addresses of the node have node ports.

use crate::by_both;
use crate::client::{Outcome, connect, must_reach};
use crate::daemon::{Folder, eventually, wait_ready};
use crate::site::Site;

by_both! {
    node_ports_are_at_all_addresses_as_they_come_and_go
    node_ports_are_at_addresses_of_a_range
}

fn served(is_ipv4: bool) -> (Site, Folder) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let folder = Folder::with(&site, &["a"]);
    (site, folder)
}

/// Adds or deletes an address that the world finds by its route to the node.
fn change(site: &Site, verb: &str, address: &str) {
    let address = site.address(address);
    let (length, option) =
        if site.is_ipv4 { (32, "") } else { (128, if verb == "add" { "nodad" } else { "" }) };
    site.node.sh(&format!("ip addr {verb} {address}/{length} dev v0 {option}"));
}

fn node_ports_are_at_all_addresses_as_they_come_and_go(is_ipv4: bool) {
    let (site, folder) = served(is_ipv4);
    let mut daemon = folder.start_with(&site, &["--nodeport-addresses", "all"]);
    wait_ready(&site, &mut daemon);
    assert_eq!(must_reach(site.world(), site.at("node", 30080)).0, "a");
    let named = site.at("named", 30080);
    assert_eq!(connect(site.world(), named), Outcome::Silence);
    change(&site, "add", "named");
    assert_eq!(must_reach(site.world(), named).0, "a");
    change(&site, "del", "named");
    let entry = |site: &Site| site.tables().contains(&format!("{} . tcp . 30080", named.ip()));
    eventually("no node port", || !entry(&site));
    // Those that only neighbours on the link know are none of them.
    let link_local = if is_ipv4 { "169.254.1.1 . tcp . 30080" } else { "fe80::" };
    assert!(!site.tables().contains(link_local), "{}", site.tables());
}

fn node_ports_are_at_addresses_of_a_range(is_ipv4: bool) {
    let (site, folder) = served(is_ipv4);
    change(&site, "add", "named");
    let ranges =
        if is_ipv4 { "198.51.100.0/24,203.0.113.0/24" } else { "2001:db8:1::/64,fd00:77::/64" };
    let mut daemon = folder.start_with(&site, &["--nodeport-addresses", ranges]);
    wait_ready(&site, &mut daemon);
    assert_eq!(must_reach(site.world(), site.at("named", 30080)).0, "a");
    assert_eq!(connect(site.world(), site.at("node", 30080)), Outcome::Refused);
    change(&site, "add", "balancer");
    assert_eq!(must_reach(site.world(), site.at("balancer", 30080)).0, "a");
}
