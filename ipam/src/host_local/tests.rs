use super::*;
use crate::testing::{Lab, call};
use cni::{Command, IpConfig};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn text(error: Error) -> String {
    cni::ErrorObject::from(error).msg
}

#[test]
fn files_are_the_references() {
    let mut lab = Lab::new(json!({
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }));
    let result = lab.try_add("c1").unwrap();
    let ip = |address: &str, gateway: &str| IpConfig {
        interface: None,
        address: cni::parse_cidr(address).unwrap(),
        gateway: cni::parse_address(gateway),
    };
    assert_eq!(result.ips, [ip("10.1.0.2/24", "10.1.0.1"), ip("fd00::2/64", "fd00::1")]);
    assert_eq!(result.routes.len(), 1);
    let files = lab.files();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["10.1.0.2", "fd00::2", "last_reserved_ip.0", "last_reserved_ip.1"]);
    assert_eq!(files["10.1.0.2"], "c1\r\neth0");
    assert_eq!(files["last_reserved_ip.1"], "fd00::2");
    let mode =
        |name| fs::metadata(lab.directory().join(name)).unwrap().permissions().mode() & 0o777;
    for (name, wanted) in
        [("", 0o755), ("10.1.0.2", 0o600), ("last_reserved_ip.0", 0o600), ("lock", 0o750)]
    {
        assert_eq!(mode(name), wanted, "{name}");
    }
    lab.check("c1").unwrap();
    lab.del("c1");
    assert!(lab.leases().is_empty());
    assert_eq!(lab.files()["last_reserved_ip.0"], "10.1.0.2");
    lab.del("c1");
}

#[test]
fn addresses_go_round_before_one_is_used_again() {
    let mut lab = Lab::subnet("10.1.0.0/29");
    for wanted in ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2"] {
        assert_eq!(lab.add("c"), [wanted]);
        lab.del("c");
    }
}

#[test]
fn a_second_address_is_refused_unless_it_is_requested() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    lab.add("c");
    let error = lab.try_add("c").unwrap_err();
    assert_eq!(error.code(), 101);
    assert!(text(error).starts_with(
        "failed to allocate for range 0: 10.1.0.2 has been allocated to c, duplicate allocation is not allowed"
    ));
    assert_eq!(lab.leases().len(), 1);
    // Another interface of the container is another attachment.
    let other = call(Command::Add, lab.conf.clone(), "c", "eth1");
    add(&other, &mut lab.notes).unwrap();
    lab.add_with("c", "IP=10.1.0.9").unwrap();
    assert_eq!(lab.leases().len(), 3);
    let again = lab.add_with("c", "IP=10.1.0.9").unwrap_err();
    assert_eq!(again.code(), 101);
    assert!(text(again).contains("10.1.0.9 has been allocated to c"));
    lab.del("c");
    assert_eq!(lab.leases().into_values().collect::<Vec<_>>(), ["c\r\neth1"]);
    // So is a lease in the old format, which tells no interface.
    lab.write("10.1.0.77", b"old");
    assert!(lab.try_add("old").is_err());
}

#[test]
fn requested_addresses_come_from_the_set_they_are_in() {
    let mut lab =
        Lab::new(json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}));
    lab.conf["args"] = json!({"cni": {"ips": ["10.2.0.7/8", "::ffff:10.1.0.7"]}});
    assert_eq!(lab.add("c1"), ["10.1.0.7", "10.2.0.7"]);
    assert_eq!(lab.files()["last_reserved_ip.1"], "10.2.0.7");
    let taken = lab.try_add("c2").unwrap_err();
    // The other's DEL cures it.
    assert_eq!(taken.code(), 11);
    assert_eq!(
        taken.to_string(),
        "failed to allocate for range 0: requested IP address 10.1.0.7 is not available in range set 10.1.0.1-10.1.0.254 (leased to c1 eth0)"
    );
    lab.conf["args"] = json!({"cni": {"ips": ["10.2.0.8"]}});
    lab.conf["runtimeConfig"] = json!({"ips": ["10.1.0.1"]});
    let gateway = text(lab.try_add("c2").unwrap_err());
    assert_eq!(
        gateway,
        "failed to allocate for range 0: requested ip 10.1.0.1 is subnet's gateway"
    );
    lab.conf["runtimeConfig"] = json!({"ips": ["10.9.0.1", "10.2.0.9"]});
    let left = lab.try_add("c2").unwrap_err();
    assert!(
        left.to_string().starts_with("failed to allocate all requested IPs: 10.9.0.1 10.2.0.9"),
        "{left}"
    );
    assert_eq!(lab.leases().len(), 2);
    // CNI_ARGS come first, and a request made twice is one.
    lab.conf["runtimeConfig"] = json!({"ips": ["10.2.0.8"]});
    let result = lab.add_with("c2", "IgnoreUnknown=1;IP=10.1.0.8/24;K8S_POD_NAME=x").unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.1.0.8/24");
    let wrong = lab.add_with("c3", "IP=10.1.0.300").unwrap_err();
    assert_eq!(
        (wrong.code(), text(wrong)),
        (4, "CNI_ARGS: IP=10.1.0.300: not an IP address".into())
    );
}

#[test]
fn excluded_addresses_are_never_leased() {
    let mut lab = Lab::new(json!({
        "subnet": "10.1.0.0/28", "exclude": ["10.1.0.2", "10.1.0.4/30", "10.1.0.8/29", "fd00::/8"],
    }));
    assert_eq!(lab.add("c1"), ["10.1.0.3"]);
    let error = lab.try_add("c2").unwrap_err();
    assert_eq!(error.code(), 11);
    assert!(
        text(error).contains("no IP addresses available in range set: 10.1.0.1-10.1.0.14 (all 1")
    );
    let error = lab.add_with("c2", "IP=10.1.0.6").unwrap_err();
    assert_eq!(error.code(), 7);
    assert!(text(error).ends_with("10.1.0.6 is excluded by 10.1.0.4/30 in ipam.exclude"));
    assert_eq!(lab.leases().len(), 1);
}

#[test]
fn an_exhausted_set_releases_what_the_others_gave() {
    let mut lab = Lab::new(json!({
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/126", "rangeEnd": "fd00::2"}]],
    }));
    lab.write("10.1.0.200", b"earlier\r\neth0");
    assert_eq!(lab.add("c1"), ["10.1.0.2", "fd00::2"]);
    let before = lab.leases();
    let error = lab.try_add("c2").unwrap_err();
    assert_eq!(error.code(), 11);
    assert_eq!(
        error.to_string(),
        "failed to allocate for range 1: no IP addresses available in range set: fd00::1-fd00::2 (all 1 are leased; a DEL or GC frees some)"
    );
    assert_eq!(lab.leases(), before);
    lab.del("c1");
    assert_eq!(lab.add("c2"), ["10.1.0.4", "fd00::2"]);
}

#[test]
fn del_and_gc_work_with_a_configuration_that_became_wrong() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    lab.add("c1");
    lab.add("c2");
    lab.conf["ipam"]["subnet"] = "nonsense".into();
    assert_eq!(lab.try_add("c3").unwrap_err().code(), 7);
    lab.del("c1");
    assert_eq!(lab.leases().len(), 1);
    lab.conf["cni.dev/valid-attachments"] = json!([]);
    gc(&lab.call(Command::Gc, ""), &mut lab.notes).unwrap();
    assert!(lab.leases().is_empty());
    lab.conf.as_object_mut().unwrap().remove("ipam");
    let error = del(&lab.call(Command::Del, "c1"), &mut lab.notes).unwrap_err();
    assert_eq!(error.code(), 7);
    assert!(text(error).contains("ipam: IPAM config missing 'ipam' key"));
}

#[test]
fn del_check_and_status_of_an_unknown_network_create_nothing() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    lab.del("c");
    status(&lab.call(Command::Status, "")).unwrap();
    let error = lab.check("c").unwrap_err();
    assert_eq!(error.code(), cni::code::CHANGED);
    assert!(text(error).starts_with("host-local: Failed to find address added by container c "));
    assert_eq!(fs::read_dir(lab.folder.path()).unwrap().count(), 0);
}

#[test]
fn bare_leases_of_old_plugins_are_understood() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    lab.write("10.1.0.5", b"old");
    lab.write("10.1.0.6", b"old\n");
    lab.write("10.1.0.7", b"older");
    lab.check("old").unwrap();
    lab.add_with("old", "IP=10.1.0.8").unwrap();
    // The exact match goes first, as in the reference; the next DEL takes the bare ones.
    lab.del("old");
    let names = |lab: &Lab| lab.leases().into_keys().collect::<Vec<_>>();
    assert_eq!(names(&lab), ["10.1.0.5", "10.1.0.6", "10.1.0.7"]);
    lab.check("old").unwrap();
    lab.del("old");
    assert_eq!(names(&lab), ["10.1.0.7"]);
    assert!(lab.check("old").is_err());
}

#[test]
fn gc_keeps_what_is_valid_and_touches_only_its_network() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    for id in ["a", "b", "c"] {
        lab.add(id);
    }
    lab.write("10.1.0.50", b"a");
    lab.write("10.1.0.51", b"gone");
    lab.write("10.1.0.52", b"a\r\neth7");
    let mut other = Lab::subnet("10.1.0.0/24");
    other.conf["name"] = "m".into();
    other.conf["ipam"]["dataDir"] = lab.folder.path().to_str().unwrap().into();
    other.add("z");
    // No list is not an empty list.
    let error = gc(&lab.call(Command::Gc, ""), &mut lab.notes).unwrap_err();
    assert_eq!(error.code(), 7);
    assert_eq!(lab.leases().len(), 6);
    lab.conf["cni.dev/valid-attachments"] = json!([
        {"containerID": "a", "ifname": "eth0"}, {"containerID": "c", "ifname": "eth0"},
    ]);
    gc(&lab.call(Command::Gc, ""), &mut lab.notes).unwrap();
    let names: Vec<String> = lab.leases().into_keys().collect();
    assert_eq!(names, ["10.1.0.2", "10.1.0.4", "10.1.0.50"]);
    assert!(lab.folder.path().join("m/10.1.0.2").exists());
    lab.check("c").unwrap();
    assert!(lab.check("b").is_err());
    lab.del("c");
    assert_eq!(lab.leases().len(), 2);
}

#[test]
fn status_tells_what_no_add_can_survive() {
    let mut lab = Lab::subnet("10.1.0.0/30");
    let status = |lab: &Lab| status(&lab.call(Command::Status, ""));
    status(&lab).unwrap();
    lab.add("c");
    // Exhausted: fine, unless it was asked for.
    status(&lab).unwrap();
    lab.conf["ipam"]["statusOnExhaustion"] = true.into();
    let error = status(&lab).unwrap_err();
    assert_eq!(error.code(), 50);
    assert!(
        error.to_string().contains("no IP addresses available in range set: 10.1.0.1-10.1.0.2")
    );
    lab.del("c");
    status(&lab).unwrap();
    let file = lab.folder.path().join("file");
    fs::write(&file, "").unwrap();
    lab.conf["ipam"]["dataDir"] = file.join("below").to_str().unwrap().into();
    let error = status(&lab).unwrap_err();
    assert_eq!(error.code(), 50);
    assert!(error.to_string().contains("a file stands where a directory should be"), "{error}");
    for below in ["/proc", "/proc/no/such", "/sys/no/such", "/sys"] {
        lab.conf["ipam"]["dataDir"] = below.into();
        let error = status(&lab).unwrap_err();
        assert_eq!(error.code(), 50);
        assert!(error.to_string().contains("only the kernel makes files there"), "{error}");
    }
    lab.conf["ipam"]["subnet"] = "10.1.0.0/31".into();
    assert_eq!(status(&lab).unwrap_err().code(), 7);
}

#[test]
fn the_names_of_resolv_conf_are_passed_on() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    let path = lab.folder.path().join("resolv.conf");
    lab.conf["ipam"]["resolvConf"] = path.to_str().unwrap().into();
    let error = lab.try_add("c").unwrap_err();
    assert_eq!(error.code(), 5);
    assert!(lab.leases().is_empty());
    fs::write(&path, "nameserver 10.0.0.10\n").unwrap();
    assert_eq!(lab.try_add("c").unwrap().dns.nameservers, ["10.0.0.10"]);
}

#[test]
fn a_set_of_many_leases_is_walked_without_trying_each() {
    let mut lab = Lab::subnet("10.1.0.0/22");
    for number in 2..1023_u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0a01_0000 + number);
        if number != 700 {
            lab.write(&address.to_string(), b"x\r\neth0");
        }
    }
    assert_eq!(lab.add("c"), ["10.1.2.188"]);
    assert_eq!(lab.try_add("d").unwrap_err().code(), 11);
}
