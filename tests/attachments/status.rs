//! STATUS, which takes the node out of service when it fails.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::agent::Manner;
use crate::site::{Site, ptp};

fn sign_of_life(site: &Site) -> PathBuf {
    site.node.run_dir().join("podwire/policyd.alive")
}

/// policyd was last seen so long ago.
fn seen(site: &Site, ago: Duration) {
    let path = sign_of_life(site);
    attachment::show_alive(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

#[test]
fn a_node_that_policyd_never_ran_on_serves_nothing() {
    let site = Site::without_gate(ptp());
    let text = site.status().expect_error(50).msg;
    assert!(text.contains("no gate"), "{text}");
    // Not even while it starts: it has no gate yet.
    std::fs::create_dir_all(sign_of_life(&site).parent().unwrap()).unwrap();
    seen(&site, Duration::ZERO);
    site.status().expect_error(50);
    let _agent = site.agent(Manner::Works);
    assert!(site.status().succeeded());
}

#[test]
fn the_gate_bridges_an_update_but_not_for_ever() {
    let site = Site::new(ptp());
    seen(&site, Duration::from_secs(110));
    assert!(site.status().succeeded());
    seen(&site, Duration::from_secs(121));
    let text = site.status().expect_error(50).msg;
    assert!(text.contains("last seen 121 s ago"), "{text}");
    let site = site.with(&json!({"agentDownTimeout": 300}));
    assert!(site.status().succeeded());
    seen(&site, Duration::from_secs(301));
    site.status().expect_error(50);
    // One who answers is there.
    let agent = site.agent(Manner::Works);
    assert!(site.status().succeeded());
    drop(agent);
    site.status().expect_error(50);
    // A policyd that is slow is one that was seen.
    seen(&site, Duration::ZERO);
    let site = site.with(&json!({"timeout": 300}));
    for manner in [Manner::Hangs, Manner::Fails] {
        let _agent = site.agent(manner);
        assert!(site.status().succeeded());
    }
    // Rules that somebody flushed are no gate.
    if lab::by_nftables() {
        site.node.sh("nft flush table inet podwire; nft delete table inet podwire");
    } else {
        site.node.sh("iptables -t mangle -F; ip6tables -t mangle -F; ipset flush");
        site.node.sh("iptables -t mangle -X; ip6tables -t mangle -X");
    }
    site.status().expect_error(50);
}

#[test]
fn a_wrong_configuration_is_told() {
    let site = Site::new(ptp()).with(&json!({"onAgentDown": "open"}));
    site.status().expect_error(7);
}
