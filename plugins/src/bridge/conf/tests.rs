use cni::decode::Problems;

use super::*;
use serde_json::{Map, Value};

fn parse(text: &str) -> Result<Conf, String> {
    parse_with(text, None)
}

fn parse_with(text: &str, mac_arg: Option<&str>) -> Result<Conf, String> {
    let raw: Map<String, Value> = serde_json::from_str(text).unwrap();
    let problems = Problems::default();
    let conf = read(&Fields::root(&raw, &problems), mac_arg);
    problems.into_result().map(|()| conf).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_the_references() {
    let conf = parse("{}").unwrap();
    assert_eq!(conf.bridge, "cni0");
    assert!(!conf.is_gateway && !conf.ip_masq && !conf.has_ipam);
    assert_eq!((conf.mtu, conf.vlan, conf.trunk, conf.mac), (None, 0, None, None));
    assert_eq!(parse(r#"{"mtu":-1}"#).unwrap().mtu, None);
}

#[test]
fn a_default_gateway_is_a_gateway() {
    assert!(parse(r#"{"isDefaultGateway":true}"#).unwrap().is_gateway);
}

#[test]
fn the_mac_comes_from_the_runtime_then_args_then_environment() {
    let text = r#"{"runtimeConfig":{"mac":"02:00:00:00:00:01"},"args":{"cni":{"mac":"02:00:00:00:00:02"}}}"#;
    let mac = |conf: Conf| conf.mac.unwrap().to_string();
    let third = Some("02:00:00:00:00:03");
    assert_eq!(mac(parse_with(text, third).unwrap()), "02:00:00:00:00:01");
    let text = r#"{"runtimeConfig":{},"args":{"cni":{"mac":"02:00:00:00:00:02"}}}"#;
    assert_eq!(mac(parse_with(text, third).unwrap()), "02:00:00:00:00:02");
    assert_eq!(mac(parse_with("{}", third).unwrap()), "02:00:00:00:00:03");
    assert_eq!(
        parse_with("{}", Some("zz")).unwrap_err(),
        "CNI_ARGS: MAC: address zz: invalid MAC address"
    );
}

#[test]
fn a_trunk_is_the_sorted_union_of_ids_and_ranges() {
    let text =
        r#"{"vlanTrunk":[{"id":200},{"minID":10,"maxID":12,"id":11},{"minID":12,"maxID":13}]}"#;
    assert_eq!(parse(text).unwrap().trunk, Some(vec![10, 11, 12, 13, 200]));
    assert_eq!(parse(r#"{"vlanTrunk":[]}"#).unwrap().trunk, Some(vec![]));
}

#[test]
fn wrong_values_are_told_with_their_place() {
    for (text, expected) in [
        (r#"{"vlan":5000}"#, "vlan: invalid VLAN ID 5000 (must be between 0 and 4094)"),
        (
            r#"{"vlanTrunk":[{"minID":0,"maxID":5}]}"#,
            "vlanTrunk[0]: incorrect trunk minID parameter",
        ),
        (
            r#"{"vlanTrunk":[{"minID":1,"maxID":4095}]}"#,
            "vlanTrunk[0]: incorrect trunk maxID parameter",
        ),
        (r#"{"vlanTrunk":[{"minID":9,"maxID":5}]}"#, "minID is greater than maxID"),
        (r#"{"vlanTrunk":[{"minID":9}]}"#, "maxID is missing"),
        (r#"{"vlanTrunk":[{"maxID":9}]}"#, "minID is missing"),
        (r#"{"vlanTrunk":[{"id":4095}]}"#, "incorrect trunk id parameter"),
        (
            r#"{"bridge":"sixteen-bytes-ab"}"#,
            "bridge: \"sixteen-bytes-ab\": interface name is too long",
        ),
        (r#"{"ipMasqBackend":"foo"}"#, "unknown ipmasq backend \"foo\""),
        (r#"{"hairpinMode":true,"promiscMode":true}"#, "hairpin mode and promiscuous mode"),
        (r#"{"disableContainerInterface":true,"ipam":{"type":"static"}}"#, "cannot use IPAM"),
        (r#"{"mtu":4294967296}"#, "mtu: 4294967296 is larger than any MTU"),
        (r#"{"bridge":""}"#, "bridge: \"\": "),
        (r#"{"isGateway":"yes"}"#, "isGateway: expected a boolean, found a string"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_is_not_supported_yet_is_named() {
    for (text, key) in [(r#"{"vlan":100}"#, "vlan"), (r#"{"vlanTrunk":[]}"#, "vlanTrunk")] {
        let error = parse(text).unwrap().ensure_supported().unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
        assert_eq!(cni::ErrorObject::from(error).code, 2);
    }
    let by_tables = r#"{"ipMasq":true,"ipMasqBackend":"nftables","macspoofchk":true}"#;
    parse(by_tables).unwrap().ensure_supported().unwrap();
}
