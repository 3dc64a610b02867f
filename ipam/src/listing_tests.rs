use super::*;
use crate::testing::Lab;
use serde_json::json;

#[test]
fn everything_in_the_directory_is_told() {
    let mut lab = Lab::new(json!({"subnet": "10.1.0.0/28", "exclude": ["10.1.0.14"]}));
    assert!(matches!(show(lab.folder.path(), "n", None), Err(Error::NoNetwork { .. })));
    assert!(matches!(show(lab.folder.path(), "../n", None), Err(Error::NetworkName(_))));
    assert!(networks(lab.folder.path()).unwrap().is_empty());
    lab.add("c1");
    lab.write("10.1.0.9", b"old");
    lab.write("10.1.0.10", b"");
    lab.write("fd00::1", b"x\r\neth0");
    lab.write("README", b"hello");
    lab.write("a\u{7}b", b"");
    lab.write("last_reserved_ip.\u{1b}", b"\x1b[31m");
    fs::create_dir(lab.directory().join("10.1.0.11")).unwrap();
    std::os::unix::fs::symlink("/nowhere", lab.directory().join("10.1.0.13")).unwrap();
    std::os::unix::fs::symlink("10.1.0.12", lab.directory().join("10.1.0.12")).unwrap();
    let listing = show(lab.folder.path(), "n", lab.conf.as_object()).unwrap();
    let leases: Vec<String> =
        listing.leases.iter().map(|lease| lease.address.to_string()).collect();
    assert_eq!(leases, ["10.1.0.2", "10.1.0.9", "fd00::1"]);
    assert_eq!(
        (listing.leases[0].container_id.as_str(), listing.leases[0].ifname.as_deref()),
        ("c1", Some("eth0"))
    );
    assert!(listing.leases[0].since.is_some());
    assert_eq!(listing.leases[1].ifname, None);
    let last = [("0", "10.1.0.2"), ("\\u{1b}", "\\u{1b}[31m")];
    assert_eq!(listing.last_reserved, last.map(|(set, text)| (set.to_owned(), text.to_owned())));
    assert_eq!(listing.corrupt, ["10.1.0.10".parse::<IpAddr>().unwrap()]);
    let mut unreadable: Vec<&str> = listing.unreadable.iter().map(|(name, _)| &**name).collect();
    unreadable.sort_unstable();
    assert_eq!(unreadable, ["10.1.0.11", "10.1.0.12", "10.1.0.13"]);
    let mut foreign = listing.foreign.clone();
    foreign.sort();
    assert_eq!(foreign, ["README", "a\\u{7}b"]);
    assert_eq!(listing.usage, [Usage { set: "10.1.0.1-10.1.0.14".into(), size: 12, leased: 6 }]);
    let text = listing.to_string();
    assert!(text.contains("10.1.0.2\tc1\teth0\t2"), "{text}");
    assert!(text.contains("range set 10.1.0.1-10.1.0.14: 6 of 12 leased, 6 free\n"), "{text}");
    assert!(text.contains("unreadable: 10.1.0.13: it is a link to nothing\n"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{7}']), "{text}");
    let told: Vec<String> =
        networks(lab.folder.path()).unwrap().iter().map(ToString::to_string).collect();
    // Counted by name, unreadable ones included: all of these are taken.
    assert_eq!(told, ["n: 7 leases"]);
    // Looking removed nothing.
    assert!(lab.directory().join("10.1.0.10").exists());
}

#[test]
fn times_are_told_in_utc() {
    assert_eq!(utc(0), "1970-01-01T00:00:00Z");
    assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
    assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
    assert_eq!(utc(1_795_448_697), "2026-11-23T15:44:57Z");
}
