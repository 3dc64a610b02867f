//! What happens to one attachment leaves the container's others alone.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

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

/// A `PATH` on which the rules of one family can be made, and those of the other fail.
fn without_ip6tables(site: &Site) -> PathBuf {
    let dir = site.node.home().join("bin");
    fs::create_dir(&dir).unwrap();
    for name in ["iptables-restore", "iptables-save", "ip6tables-save"] {
        symlink(Path::new("/usr/sbin").join(name), dir.join(name)).unwrap();
    }
    symlink("/bin/false", dir.join("ip6tables-restore")).unwrap();
    dir
}

/// In another namespace the link can be made once more, and the ADD gets far.
#[test]
fn a_repeated_add_that_fails_late_keeps_what_the_first_made() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let (first, second) = (site.node.pod("pod1"), site.node.pod("elsewhere"));
        let _ = site.add(&first).ok();
        let before = site.world(&[&first, &second]);
        assert!(before.lines.iter().any(|line| line.contains("file net1/10.1.0.")));
        let others = json!({"runtimeConfig": {"ips": ["10.1.0.77", "fd00:1::77"]}});
        let again = site.call("ADD", &second).container("pod1").conf(&site.conf_with(&others));
        for path in [without_ip6tables(&site), PathBuf::from("/nowhere")] {
            site.run(&again.clone().env("PATH", path)).expect_error(103);
            site.world(&[&first, &second]).must_be(&before, "after a second ADD");
        }
        let _ = site.del(&first).ok();
        assert_eq!(masquerading(&site), "");
    }
}

#[test]
fn a_second_interface_that_fails_late_leaves_the_first_as_it_was() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let _ = site.add(&pod).ok();
        let before = site.world(&[&pod]);
        let add = site.call("ADD", &pod).ifname("eth1").env("PATH", without_ip6tables(&site));
        site.run(&add).expect_error(103);
        site.world(&[&pod]).must_be(&before, "after a failed second ADD");
        let _ = site.run(&site.call("DEL", &pod).ifname("eth1")).ok();
        site.world(&[&pod]).must_be(&before, "after DEL of the second");
        let _ = site.del(&pod).ok();
        assert_eq!(masquerading(&site), "");
    }
}

/// Asked for once more, the attachment stays as it is, link, lease and rules.
#[test]
fn a_repeated_add_changes_nothing() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let _ = site.add(&pod).ok();
        let before = site.world(&[&pod]);
        site.add(&pod).expect_error(101);
        site.world(&[&pod]).must_be(&before, "after a second ADD");
        let args = "IgnoreUnknown=1;IP=10.1.0.77";
        assert!(!site.run(&site.call("ADD", &pod).args(args)).succeeded());
        site.world(&[&pod]).must_be(&before, "after a second ADD for another address");
        let _ = site.del(&pod).ok();
    }
}

#[test]
fn a_main_plugin_is_no_ipam_plugin() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        for name in ["bridge", "ptp", "loopback", "tuning", "sbr", "podwire-policy"] {
            let conf = site.conf_with(&json!({"ipam": {"type": name}}));
            let text = site.run(&site.call("ADD", &pod).conf(&conf)).expect_error(7).msg;
            assert!(text.contains(name) && text.contains("no IPAM plugin"), "{text}");
            assert!(site.run(&site.call("DEL", &pod).conf(&conf)).succeeded());
        }
        site.world(&[&pod]).must_be(&before, "after refused delegation");
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
