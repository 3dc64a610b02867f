//! Rules of policyd's, taken away by somebody: what they kept out comes in, so it was they.

use lab::by_nftables;

use crate::node::PolicedNode;

/// Those that look at whose address a packet has, where it is routed or bridged.
pub(crate) fn remove_sources(node: &PolicedNode) {
    node.node.sh(if by_nftables() {
        "nft flush chain inet podwire prerouting; nft flush chain bridge podwire-ports prerouting || true"
    } else {
        "iptables -t raw -F PREROUTING; ip6tables -t raw -F PREROUTING"
    });
}

/// Those that look at it where a link hands it over: ahead of what puts fragments together.
pub(crate) fn remove_sources_of_links(node: &PolicedNode) {
    node.node.sh("nft delete table netdev podwire-sources");
    if by_nftables() {
        node.node.sh("nft flush chain bridge podwire-ports prerouting || true");
    }
}

/// Those of frames that iptables would not be shown, or that are of no pod.
pub(crate) fn remove_frames(node: &PolicedNode) {
    node.node.sh("nft delete table bridge podwire");
    if by_nftables() {
        node.node.sh("nft delete table bridge podwire-ports");
    }
}

/// Those of what comes out of the middle of a flow.
pub(crate) fn remove_middle(node: &PolicedNode) {
    node.node.sh(if by_nftables() {
        "nft flush chain inet podwire PODWIRE-MIDDLE"
    } else {
        "iptables -t mangle -F PODWIRE-MIDDLE; ip6tables -t mangle -F PODWIRE-MIDDLE"
    });
}

/// Those of errors about answers that were not given.
pub(crate) fn remove_unanswered(node: &PolicedNode) {
    remove_rules(node, &["SEEN_REPLY"], "seen-reply");
}

/// Those of neighbour discovery that is longer than one piece may be, for what passes through.
pub(crate) fn remove_long_discovery(node: &PolicedNode) {
    remove_rules(node, &["-A PODWIRE-FORWARD-ICMPV6", "--length"], "meta length > 1280 return");
}

/// Those of errors that are longer than one piece may be.
pub(crate) fn remove_long_errors(node: &PolicedNode) {
    let of_errors = "meta length > 1280 ct state related";
    remove_rules(node, &["-A PODWIRE-FORWARD-REST", "--length"], of_errors);
}

/// Rules that have all these words, as iptables writes them, or these, as nft does.
fn remove_rules(node: &PolicedNode, by_iptables: &[&str], by_nft: &str) {
    let removed = if by_nftables() {
        let listed = node.node.sh("nft -a list table inet podwire");
        let mut chain = "";
        let mut lines = Vec::new();
        for line in listed.lines().map(str::trim) {
            if let Some(begun) = line.strip_prefix("chain ") {
                chain = begun.split(' ').next().unwrap();
            } else if line.contains(by_nft) {
                let (_, handle) = line.rsplit_once("# handle ").unwrap();
                lines.push(format!("nft delete rule inet podwire {chain} handle {handle}"));
            }
        }
        lines
    } else {
        let of_family = |program: &str| {
            let saved = node.node.sh(&format!("{program}-save -t mangle"));
            let rules = saved.lines().filter(|line| by_iptables.iter().all(|it| line.contains(it)));
            let removal =
                |rule: &str| format!("{program} -t mangle {}", rule.replacen("-A", "-D", 1));
            rules.map(removal).collect::<Vec<_>>()
        };
        [of_family("iptables"), of_family("ip6tables")].concat()
    };
    assert!(!removed.is_empty(), "there are none");
    node.node.sh(&removed.join("\n"));
}
