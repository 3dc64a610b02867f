use super::*;
use ipnetwork::IpNetwork;
use proptest::prelude::*;

fn dual_stack() -> AddResult {
    AddResult {
        interfaces: vec![Interface {
            name: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: Some(1400),
            sandbox: "/netns".into(),
            ..Interface::default()
        }],
        ips: vec![
            IpConfig {
                interface: Some(0),
                address: "10.1.0.2/24".parse().unwrap(),
                gateway: Some("10.1.0.1".parse().unwrap()),
            },
            IpConfig { interface: Some(0), address: "fd00::2/64".parse().unwrap(), gateway: None },
        ],
        routes: vec![Route {
            mtu: Some(1300),
            table: Some(0),
            ..Route::new("0.0.0.0/0".parse().unwrap(), None)
        }],
        dns: Dns::default(),
    }
}

#[test]
fn the_newest_family_drops_empty_dns() {
    assert_eq!(
        dual_stack().to_json(Version::V1_1_0).unwrap(),
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1400, "sandbox": "/netns"}],
            "ips": [
                {"interface": 0, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
                {"interface": 0, "address": "fd00::2/64"},
            ],
            "routes": [{"dst": "0.0.0.0/0", "mtu": 1300, "table": 0}],
        })
    );
}

#[test]
fn the_middle_family_tells_the_address_version_and_always_dns() {
    let document = dual_stack().to_json(Version::V0_4_0).unwrap();
    assert_eq!(document["ips"][0]["version"], "4");
    assert_eq!(document["ips"][1]["version"], "6");
    assert_eq!(document["dns"], json!({}));
    assert_eq!(document["routes"][0]["mtu"], 1300);
    assert!(document["interfaces"][0].get("mtu").is_none());
}

#[test]
fn the_oldest_family_has_one_address_each() {
    assert_eq!(
        dual_stack().to_json(Version::V0_2_0).unwrap(),
        json!({
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00::2/64"},
            "dns": {},
        })
    );
    let error = AddResult::default().to_json(Version::V0_1_0).unwrap_err();
    assert!(error.to_string().ends_with("no valid IP addresses"), "{error}");
}

#[test]
fn prev_result_must_be_of_the_configurations_family() {
    let document = json!({"cniVersion": "1.0.0", "ips": []});
    let error = AddResult::from_prev_result(&document, Version::V0_4_0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not parse prevResult: result type supports [0.3.0 0.3.1 0.4.0] but unmarshalled CNIVersion is \"1.0.0\""
    );
    assert!(AddResult::from_prev_result(&document, Version::V1_1_0).is_ok());
    assert!(AddResult::from_prev_result(&json!({}), Version::V0_4_0).is_ok());
}

#[test]
fn what_is_no_result_is_told_with_its_place() {
    for (document, expected) in [
        (json!({"ips": [{"address": "10.1.0.2"}]}), "ips[0].address"),
        (json!({"ips": [{}]}), "ips[0].address: missing"),
        (json!({"routes": "x"}), "routes: expected a list"),
        (json!([]), "not an object"),
        (json!({"cniVersion": 1}), "not a string"),
    ] {
        let error = AddResult::from_prev_result(&document, Version::LATEST).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

fn cidr() -> impl Strategy<Value = IpNetwork> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, p)| IpNetwork::new(a.into(), p).unwrap()),
        (any::<[u16; 8]>(), 0u8..=128)
            .prop_filter("not a wrapped IPv4 address", |(a, _)| {
                std::net::Ipv6Addr::from(*a).to_ipv4_mapped().is_none()
            })
            .prop_map(|(a, p)| IpNetwork::new(a.into(), p).unwrap()),
    ]
}

fn route() -> impl Strategy<Value = Route> {
    (cidr(), proptest::option::of(1i64..10_000), proptest::option::of(0i64..300))
        .prop_map(|(dst, mtu, table)| Route { mtu, table, ..Route::new(dst, None) })
}

proptest! {
    #[test]
    fn results_survive_the_newer_families(
        ips in proptest::collection::vec((cidr(), proptest::option::of(0i64..4)), 0..5),
        routes in proptest::collection::vec(route(), 0..4),
        nameservers in proptest::collection::vec("[0-9.]{1,12}", 0..3),
    ) {
        let ips = ips
            .into_iter()
            .map(|(address, interface)| IpConfig { interface, address, gateway: None })
            .collect();
        let dns = Dns { nameservers, ..Dns::default() };
        let result = AddResult { interfaces: Vec::new(), ips, routes, dns };
        for version in &Version::ALL[2..] {
            let document = result.to_json(*version).unwrap();
            prop_assert_eq!(&AddResult::from_prev_result(&document, *version).unwrap(), &result);
        }
    }

    #[test]
    fn the_oldest_family_keeps_the_first_of_each_family(
        ips in proptest::collection::vec(cidr(), 1..5),
    ) {
        let ip = |address| IpConfig { interface: None, address, gateway: None };
        let result =
            AddResult { ips: ips.iter().copied().map(ip).collect(), ..AddResult::default() };
        let document = result.to_json(Version::V0_2_0).unwrap();
        let read = AddResult::from_prev_result(&document, Version::V0_2_0).unwrap();
        for is_v4 in [true, false] {
            let first = |ips: &[IpConfig]| ips.iter().find(|ip| ip.address.is_ipv4() == is_v4).cloned();
            prop_assert_eq!(first(&read.ips), first(&result.ips));
        }
    }
}
