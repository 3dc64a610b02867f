//! What happens to one attachment leaves the container's others alone.

use serde_json::json;

use crate::common::{Site, bridge_with_all, ptp_with_all};

fn masquerading(site: &Site) -> String {
    site.node
        .sh("iptables-save -t nat; ip6tables-save -t nat")
        .lines()
        .filter(|l| l.contains("CNI-"))
        .collect()
}

#[test]
fn a_failed_second_interface_does_not_take_the_firsts_masquerading() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let _ = site.add(&pod).ok();
        let before = masquerading(&site);
        assert!(before.contains("MASQUERADE"));
        let ipam = json!({"type": "host-local", "dataDir": site.node.data(), "ranges": [[{"subnet": "10.1.0.5/16"}]]});
        let broken = site.conf_with(&json!({"ipam": ipam}));
        site.run(&site.call("ADD", &pod).ifname("eth1").conf(&broken)).expect_error(7);
        assert!(site.run(&site.call("DEL", &pod).ifname("eth1")).succeeded());
        assert_eq!(masquerading(&site), before);
        let _ = site.del(&pod).ok();
        assert_eq!(masquerading(&site), "");
    }
}

#[test]
fn a_repeated_add_that_fails_late_keeps_the_firsts_lease() {
    let site = Site::new(bridge_with_all());
    let (first, second) = (site.node.pod("pod1"), site.node.pod("elsewhere"));
    let _ = site.add(&first).ok();
    let leases = |site: &Site| {
        site.node.sh(&format!("cd {} && grep -lr pod1 net1 | sort", site.node.data().display()))
    };
    let before = leases(&site);
    assert!(!before.is_empty());
    let again = site
        .call("ADD", &second)
        .container("pod1")
        .args("IgnoreUnknown=1;IP=10.1.0.77")
        .env("PATH", "/nowhere");
    assert!(!site.run(&again).succeeded());
    assert_eq!(leases(&site), before);
    let _ = site.del(&first).ok();
}

#[test]
fn a_main_plugin_is_no_ipam_plugin() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let conf = site.conf_with(&json!({"ipam": {"type": "bridge"}}));
        let text = site.run(&site.call("ADD", &pod).conf(&conf)).expect_error(7).msg;
        assert!(text.contains("no IPAM plugin"), "{text}");
        assert!(site.run(&site.call("DEL", &pod).conf(&conf)).succeeded());
    }
}

#[test]
fn a_name_that_the_kernel_would_change_is_refused() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let before = site.world(&[&pod]);
    site.run(&site.call("ADD", &pod).ifname("eth%d")).expect_error(4);
    site.run(&site.call("ADD", &pod).conf(&site.conf_with(&json!({"bridge": "br%d"}))))
        .expect_error(7);
    site.world(&[&pod]).must_be(&before, "after refused names");
}
