//! An address goes back to IPAM once nobody can use it any more, and not before.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use lab::{Call, Pod};
use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all, ptp_with_all};

/// A node whose IPAM plugin is another suite's.
struct Foreign {
    site: Site,
    pod: Pod,
    dir: PathBuf,
    ip_masq: bool,
}

impl Foreign {
    /// One for each of our plugins.
    fn both(ip_masq: bool) -> [Self; 2] {
        [bridge_with_all(), ptp_with_all()].map(|conf| {
            let site = Site::new(conf);
            let (pod, dir) = (site.node.pod("pod1"), site.node.home().join("ipam"));
            fs::create_dir_all(&dir).unwrap();
            Self { site, pod, dir, ip_masq }
        })
    }

    /// A call that delegates to a plugin which answers ADD with `result`, and notes for every call
    /// whether the container's link is there.
    fn call(&self, command: &str, result: &Value) -> Call {
        let script = format!(
            "#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
link=gone
! nsenter --net=$CNI_NETNS ip link show $CNI_IFNAME >/dev/null 2>&1 || link=there
echo $CNI_COMMAND $link >> {}
[ $CNI_COMMAND != ADD ] || echo '{result}'
",
            self.dir.join("log").display()
        );
        let file = self.dir.join("foreign");
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let conf =
            json!({"isDefaultGateway": false, "ipMasq": self.ip_masq, "ipam": {"type": "foreign"}});
        let call = self.site.call(command, &self.pod).conf(&self.site.conf_with(&conf));
        call.env("CNI_PATH", self.dir.to_str().unwrap())
    }

    fn was_told(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// An ADD that fails, and gives the address back without its link; the error's text.
    fn must_release(&self, add: &Call, code: u64) -> String {
        let before = self.site.world(&[&self.pod]);
        let error = self.site.run(add).expect_error(code);
        assert_eq!(self.was_told(), "ADD there\nDEL gone\n", "{}", error.msg);
        self.site.world(&[&self.pod]).must_be(&before, "after a failed ADD");
        error.msg
    }
}

fn result(routes: &Value) -> Value {
    result_by("10.5.0.1", routes)
}

fn result_by(gateway: &str, routes: &Value) -> Value {
    let address = json!({"address": "10.5.0.2/24", "gateway": gateway});
    json!({"cniVersion": "1.0.0", "ips": [address], "routes": routes})
}

#[test]
fn del_releases_when_the_link_is_gone() {
    for foreign in Foreign::both(true) {
        for command in ["ADD", "DEL"] {
            let _ = foreign.site.run(&foreign.call(command, &result(&json!([])))).ok();
        }
        assert_eq!(foreign.was_told(), "ADD there\nDEL gone\n");
    }
}

#[test]
fn an_add_that_fails_at_its_routes_releases_when_the_link_is_gone() {
    let unreachable = json!([{"dst": "10.9.0.0/24", "gw": "172.30.0.1"}]);
    for foreign in Foreign::both(false) {
        let text = foreign.must_release(&foreign.call("ADD", &result(&unreachable)), 100);
        assert!(text.contains("172.30.0.1"), "{text}");
    }
}

#[test]
fn an_add_that_fails_at_masquerading_releases_when_the_link_is_gone() {
    for foreign in Foreign::both(true) {
        let add = foreign.call("ADD", &result(&json!([])));
        let text = foreign.must_release(&add.env("PATH", "/nowhere"), 103);
        assert!(text.contains("iptables"), "{text}");
    }
}

#[test]
fn a_gateway_of_the_other_family_is_refused_and_its_address_released() {
    for foreign in Foreign::both(false) {
        let text = foreign.must_release(&foreign.call("ADD", &result_by("fd00::1", &json!([]))), 7);
        assert!(text.contains("gateway fd00::1 of address 10.5.0.2/24"), "{text}");
    }
}

/// What another's IPAM plugin gives is only known when it has.
#[test]
fn an_ipv6_address_for_which_the_mtu_is_too_small_is_released() {
    let [_, ptp] = Foreign::both(false);
    let address = json!({"address": "fd00::2/64", "gateway": "fd00::1"});
    let add = ptp.call("ADD", &json!({"cniVersion": "1.0.0", "ips": [address]}));
    let conf = json!({"mtu": 1279, "ipMasq": false, "ipam": {"type": "foreign"}});
    let text = ptp.must_release(&add.conf(&ptp.site.conf_with(&conf)), 7);
    assert!(text.contains("mtu: 1279"), "{text}");
}

/// A namespace that is there, but cannot be opened by its path at this moment.
#[test]
fn an_address_is_kept_while_its_link_cannot_be_removed() {
    for site in [Site::new(bridge_with_all()), Site::new(ptp_with_all())] {
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        let _ = site.add(&pod).ok();
        let find = format!("grep -lr pod1 {} | sort", site.node.data().display());
        let leases = site.node.sh(&find);
        assert!(!leases.is_empty());
        let circle = site.node.home().join("circle");
        symlink(&circle, &circle).unwrap();
        site.run(&site.call("DEL", &pod).netns(&circle)).expect_error(8);
        assert_eq!(site.node.sh(&find), leases);
        let _ = site.del(&pod).ok();
        site.world(&[&pod]).must_be(&before, "after DEL");
    }
}
