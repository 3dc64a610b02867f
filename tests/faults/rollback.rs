//! An ADD that fails, at each of its steps, leaves the world as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use lab::{Call, Pod, Suite};
use serde_json::json;

use crate::common::{Site, bridge_with_all, ptp_with_all};

/// Runs an ADD that must fail with this code and leave no trace; so must the DEL after it.
fn must_roll_back(site: &Site, pod: &Pod, add: &Call, code: u64) -> String {
    let before = site.world(&[pod]);
    let error = site.run(add).expect_error(code);
    site.world(&[pod]).must_be(&before, &format!("after a failed ADD ({})", error.msg));
    let del = site.del(pod);
    assert!(del.succeeded(), "DEL after a failed ADD: {del}");
    error.msg
}

/// The sites for both plugins.
fn sites() -> [Site; 2] {
    [Site::new(bridge_with_all()), Site::new(ptp_with_all())]
}

#[test]
fn the_interface_exists() {
    for site in sites() {
        let pod = site.node.pod("pod1");
        pod.sh("ip link add eth0 type bridge");
        let before = site.world(&[&pod]);
        let text = site.add(&pod).expect_error(101).msg;
        assert!(text.contains("eth0"), "{text}");
        site.world(&[&pod]).must_be(&before, "after a failed ADD");
    }
}

#[test]
fn the_pool_is_exhausted() {
    for site in sites() {
        let pod = site.node.pod("pod1");
        // The second set fails after the first has given an address.
        let mut ipam = site.conf["ipam"].clone();
        ipam["ranges"] = json!([[{"subnet": "10.1.0.0/16"}],
            [{"subnet": "10.9.0.0/30", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.2"}]]);
        fs::write(site.node.data().join("net1/10.9.0.2"), "other\r\neth0").unwrap();
        let add = site.call("ADD", &pod).conf(&site.conf_with(&json!({"ipam": ipam})));
        let text = must_roll_back(&site, &pod, &add, 11);
        assert!(text.contains("10.9.0.2"), "the text names the range: {text}");
    }
}

#[test]
fn the_bridge_has_another_address() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    site.node.sh("ip addr flush dev br0 scope global; ip addr add 10.77.0.1/24 dev br0");
    let text = must_roll_back(&site, &pod, &site.call("ADD", &pod), 101);
    assert!(text.contains("br0") && text.contains("address"), "{text}");
}

#[test]
fn the_bridge_is_none() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    site.node.sh("ip link del br0; ip link add br0 type veth peer name br1");
    let text = must_roll_back(&site, &pod, &site.call("ADD", &pod), 101);
    assert!(text.contains("not a bridge"), "{text}");
}

/// A bridge that the failed ADD made itself may be in use by another ADD by now, so it stays; but it
/// has got no address, and the next ADD works.
#[test]
fn the_bridge_was_made_by_the_failed_add() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    site.node.sh("ip link del br0");
    let before = site.world(&[&pod]);
    let mut ipam = site.conf["ipam"].clone();
    ipam["routes"] = json!([{"dst": "10.99.0.0/16", "gw": "172.30.0.1"}]);
    let add = site.call("ADD", &pod).conf(&site.conf_with(&json!({"ipam": ipam})));
    let failed = site.run(&add).expect_error(100);
    let after = site.world(&[&pod]).without_bridge("br0");
    after.must_be(&before, &format!("after a failed ADD ({})", failed.msg));
    let addresses = site.node.sh("ip -o addr show dev br0 scope global");
    assert!(addresses.is_empty(), "a failed ADD left addresses: {addresses}");
    let _ = site.add(&pod).ok();
    let _ = site.del(&pod).ok();
}

/// The kernel takes IPv6 away from links that cannot carry its smallest packets.
#[test]
fn the_mtu_is_too_small_for_ipv6() {
    for site in sites() {
        let pod = site.node.pod("pod1");
        let conf = site.conf_with(&json!({"mtu": 1279, "ipMasq": false}));
        let text = must_roll_back(&site, &pod, &site.call("ADD", &pod).conf(&conf), 7);
        assert!(text.contains("mtu: 1279") && text.contains("1280"), "{text}");
        // IPv4 alone has room, and so has the smallest that IPv6 needs.
        for (mtu, ranges) in [
            (600, json!([[{"subnet": "10.1.0.0/16"}]])),
            (1280, site.conf["ipam"]["ranges"].clone()),
        ] {
            let mut ipam = site.conf["ipam"].clone();
            (ipam["ranges"], ipam["routes"]) = (ranges, json!([]));
            let conf = site.conf_with(&json!({"mtu": mtu, "ipam": ipam}));
            let _ = site.run(&site.call("ADD", &pod).conf(&conf)).ok();
            let _ = site.run(&site.call("DEL", &pod).conf(&conf)).ok();
        }
    }
}

/// The bridge may be small although the configuration says nothing of it.
#[test]
fn the_bridge_is_too_small_for_ipv6() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    site.node.sh("ip link del br0; ip link add br0 type bridge; ip link set br0 mtu 1000 up");
    let before = site.world(&[&pod]).without_bridge("br0");
    let text = site.add(&pod).expect_error(101).msg;
    assert!(text.contains("br0") && text.contains("1280"), "{text}");
    site.world(&[&pod]).without_bridge("br0").must_be(&before, "after a failed ADD");
}

#[test]
fn the_gateway_of_a_route_cannot_be_reached() {
    for site in sites() {
        let pod = site.node.pod("pod1");
        let mut ipam = site.conf["ipam"].clone();
        ipam["routes"] = json!([{"dst": "10.99.0.0/16", "gw": "172.30.0.1"}]);
        let add = site.call("ADD", &pod).conf(&site.conf_with(&json!({"ipam": ipam})));
        let text = must_roll_back(&site, &pod, &add, 100);
        assert!(text.contains("172.30.0.1"), "the text names the gateway: {text}");
    }
}

#[test]
fn iptables_is_not_installed() {
    for site in sites() {
        let pod = site.node.pod("pod1");
        let add = site.call("ADD", &pod).env("PATH", "/nonexistent");
        let text = must_roll_back(&site, &pod, &add, 103);
        assert!(text.contains("iptables"), "{text}");
    }
}

/// A directory with the programs of iptables, of which one fails after it did its work (`late`) or
/// instead of it. They are not known to keep their tables in nf_tables, so that each is started.
fn broken_iptables(site: &Site, program: &str, late: bool) -> String {
    let dir = site.node.home().join("bin");
    fs::create_dir_all(&dir).unwrap();
    for name in [
        "iptables",
        "iptables-restore",
        "iptables-save",
        "ip6tables",
        "ip6tables-restore",
        "ip6tables-save",
    ] {
        let work = if name == program && !late { ":" } else { "/usr/sbin/$(basename $0) \"$@\"" };
        let end = if name == program { "\necho 'broken on purpose' >&2; exit 7" } else { "" };
        let file = dir.join(format!("legacy-{name}"));
        fs::write(&file, format!("#!/bin/sh\n{work}{end}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let link = dir.join(name);
        if !link.exists() {
            symlink(&file, link).unwrap();
        }
    }
    format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display())
}

#[test]
fn iptables_fails_for_one_family() {
    for program in ["iptables-restore", "ip6tables-restore"] {
        for site in sites() {
            let pod = site.node.pod("pod1");
            let path = broken_iptables(&site, program, false);
            let text = must_roll_back(&site, &pod, &site.call("ADD", &pod).env("PATH", &path), 103);
            assert!(text.contains("broken on purpose"), "{program}: {text}");
        }
    }
}

/// A restore that reports a failure after it did its work: whether ADD looks and finds the rules, or
/// takes them back, they and all else are gone after DEL.
#[test]
fn iptables_fails_after_its_work() {
    for program in ["iptables-restore", "ip6tables-restore"] {
        for site in sites() {
            let pod = site.node.pod("pod1");
            let path = broken_iptables(&site, program, true);
            let before = site.world(&[&pod]);
            let added = site.run(&site.call("ADD", &pod).env("PATH", &path));
            if !added.succeeded() {
                added.expect_error(103);
                site.world(&[&pod]).must_be(&before, &format!("after a failed ADD: {added}"));
            }
            let _ = site.del(&pod).ok();
            site.world(&[&pod]).must_be(&before, &format!("{program}: after DEL"));
        }
    }
}

#[test]
fn the_data_directory_cannot_be_written() {
    for site in sites() {
        let pod = site.node.pod("pod1");
        // Read-only is no obstacle for root, so a file stands where the directory should be.
        let wrong = site.node.home().join("file");
        fs::write(&wrong, "").unwrap();
        let mut ipam = site.conf["ipam"].clone();
        ipam["dataDir"] = json!(wrong);
        let conf = site.conf_with(&json!({"ipam": ipam}));
        let before = site.world(&[&pod]);
        let text = site.run(&site.call("ADD", &pod).conf(&conf)).expect_error(5).msg;
        assert!(text.contains(wrong.to_str().unwrap()), "the text names the path: {text}");
        site.world(&[&pod]).must_be(&before, "after a failed ADD");
    }
}

/// A data directory on a file system of its own, read-only or full.
fn mounted(site: &Site, pod: &Pod, options: &str, fill: bool) -> Call {
    let disk = site.node.home().join("disk");
    fs::create_dir_all(&disk).unwrap();
    let full = if fill { "dd if=/dev/zero of=$D/filler bs=4k 2>/dev/null || :;" } else { "" };
    let script = format!(
        "D={disk}; mount -t tmpfs -o size=64k none $D; mkdir $D/net1; touch $D/net1/lock; {full} \
         mount -o remount,{options} $D; exec {plugin}",
        disk = disk.display(),
        plugin = site.podwire.plugin(site.plugin()).display()
    );
    let mut ipam = site.conf["ipam"].clone();
    ipam["dataDir"] = json!(disk);
    let conf = site.conf_with(&json!({"ipam": ipam}));
    // The plugin runs in a mount namespace of its own, in which the disk is mounted.
    site.call("ADD", pod).conf(&conf).env("SCRIPT", &script)
}

/// A suite whose plugins run what `SCRIPT` says in a mount namespace of their own.
fn scripted(site: &Site) -> Suite {
    let dir = site.node.home().join("scripted");
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(site.plugin());
    fs::write(&file, "#!/bin/sh\nexec unshare -m --propagation private /bin/sh -ec \"$SCRIPT\"\n")
        .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    Suite::at("scripted", &dir)
}

fn disk_must_fail(options: &str, fill: bool, hint: &str) {
    for site in sites() {
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        let call =
            mounted(&site, &pod, options, fill).env("CNI_PATH", path_text(site.podwire.dir()));
        let error = call.run(&site.node, &scripted(&site)).expect_error(5);
        assert!(error.msg.contains(hint), "the text says why: {}", error.msg);
        site.world(&[&pod]).must_be(&before, "after a failed ADD");
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

#[test]
fn the_disk_is_read_only() {
    disk_must_fail("ro", false, "read-only");
}

#[test]
fn the_disk_is_full() {
    disk_must_fail("rw", true, "full");
}
