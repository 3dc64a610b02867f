//! What masquerading does is seen in the metrics.

use crate::node::PolicedNode;

const REJECTED: &str = "policyd_masquerade_config_rejected";
const WRITES: &str = "policyd_masquerade_writes_total";

#[test]
fn a_configuration_that_cannot_be_used_is_shown() {
    // A folder.
    let node = PolicedNode::told(&["a"], &["--masquerade", "--masquerade-config=/proc"]);
    node.wait("the gauge", |it| it.metric(REJECTED) == 1);
    assert_eq!(node.metric(WRITES), 0);
    node.clean_up();
}

#[test]
fn written_rules_are_counted() {
    // There is none: defaults hold.
    let node = PolicedNode::told(&["a"], &["--masquerade", "--masquerade-config=/proc/none"]);
    node.wait("the rules", |it| it.metric(WRITES) == 1);
    assert_eq!(node.metric(REJECTED), 0);
    node.clean_up();
}

/// By nf_tables the kernel tells of changes: nobody waits until it is time to compare, which is a minute later.
#[test]
fn what_others_break_is_repaired_when_they_do() {
    let options = &["--masquerade", "--masquerade-config=/proc/none", "--backend", "nftables"];
    let node = PolicedNode::told(&["a"], options);
    node.wait("the rules", |it| it.metric(WRITES) == 1);
    let table = || node.node.try_sh("nft --stateless list table inet podwire-masquerade").stdout;
    let before = table();
    for damage in [
        "nft delete table inet podwire-masquerade",
        "nft flush chain inet podwire-masquerade postrouting",
        "nft flush ruleset",
    ] {
        node.node.sh(damage);
        node.wait(damage, |_| table() == before);
    }
    assert_eq!(node.metric(WRITES), 4);
    node.clean_up();
}
