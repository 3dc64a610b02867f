use super::*;
use crate::testing::call;
use cni::Command;
use cni::decode::Problem;
use serde_json::{Value, json};

fn conf(value: Value) -> Result<Conf, String> {
    let call = call(Command::Add, value, "c", "eth0");
    Conf::of(&call).map_err(|error| cni::ErrorObject::from(error).msg)
}

fn sets(value: Value) -> Vec<String> {
    conf(value).unwrap().sets.iter().map(ToString::to_string).collect()
}

#[test]
fn sets_are_ordered_runtime_single_ranges() {
    let ordered = sets(json!({
        "RuntimeConfig": {"ipRanges": [[{"subnet": "10.1.0.0/24"}], [{"SUBNET": "fd01::/64"}]]},
        "ipam": {
            "subnet": "10.2.0.0/24", "rangeStart": "10.2.0.10", "rangeEnd": "", "gateway": "10.2.0.254",
            "ranges": [[{"subnet": "10.3.0.0/24"}, {"subnet": "10.4.0.0/24", "rangeEnd": "10.4.0.9"}]],
        },
    }));
    assert_eq!(
        ordered,
        [
            "10.1.0.1-10.1.0.254",
            "fd01::1-fd01::ffff:ffff:ffff:ffff",
            "10.2.0.10-10.2.0.254",
            "10.3.0.1-10.3.0.254,10.4.0.1-10.4.0.9",
        ]
    );
}

#[test]
fn problems_have_the_references_words_and_a_path() {
    for (ipam, text) in [
        (json!({}), "ipam.ranges: no IP ranges specified"),
        (json!({"ranges": [[]]}), "ipam.ranges[0]: invalid range set 0: empty range set"),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/31"}]]}),
            "ipam.ranges[0][0].subnet: invalid range set 0: Network 10.1.0.0/31 too small to allocate from (at most /30, or /126 for IPv6)",
        ),
        (
            json!({"subnet": "10.9.0.0/24", "ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.1/24"}]]}),
            "ipam.ranges[0][1].subnet: invalid range set 1: Network has host bits set. For a subnet mask of length 24 the network address is 10.2.0.0",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}),
            "ipam.rangeStart: invalid range set 0: RangeStart 10.2.0.1 not in network 10.1.0.0/24",
        ),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]}),
            "ipam.ranges[0]: invalid range set 0: mixed address families (give each family a range set of its own)",
        ),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/16"}]]}),
            "ipam.ranges[0]: invalid range set 0: subnets 10.1.0.1-10.1.0.254 and 10.1.0.1-10.1.255.254 overlap",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.1.0.0/16"}]]}),
            "ipam.ranges[0]: range set 0 overlaps with 1",
        ),
        (
            json!({"ranges": [[{}]]}),
            "ipam.ranges[0][0].subnet: invalid range set 0: subnet is missing",
        ),
        (json!({"subnet": "10.1.0.0"}), "ipam.subnet: \"10.1.0.0\" is not in CIDR notation"),
        (
            json!({"ranges": [[{"subnet": "fd00::/64", "gateway": "10.1.0.1"}]]}),
            "ipam.ranges[0][0].gateway: 10.1.0.1 is of another family than fd00::/64",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "exclude": ["10.1.0.0/24"]}),
            "ipam.subnet: range set 10.1.0.1-10.1.0.254 has no address to lease: all are gateway or in ipam.exclude",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "exclude": ["10.1.0"]}),
            "ipam.exclude[0]: \"10.1.0\" is neither an IP address nor in CIDR notation",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "routes": [{"gw": "10.1.0.1"}]}),
            "ipam.routes[0].dst: missing",
        ),
    ] {
        let wanted = format!("invalid network configuration: {text}");
        assert_eq!(conf(json!({"ipam": ipam})).unwrap_err(), wanted);
    }
    assert_eq!(
        conf(json!({})).unwrap_err(),
        "invalid network configuration: ipam: IPAM config missing 'ipam' key"
    );
    let wrong_type = conf(json!({"ipam": {"subnet": "10.1.0.0/24", "dataDir": 7}})).unwrap_err();
    assert!(
        wrong_type.ends_with("ipam.dataDir: expected a string, found a number"),
        "{wrong_type}"
    );
}

#[test]
fn old_versions_know_one_address_per_family() {
    let two = |version: &str| json!({"cniVersion": version, "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}});
    assert_eq!(
        conf(two("0.2.0")).unwrap_err(),
        "invalid network configuration: ipam.ranges[1]: CNI version 0.2.0 does not support more than 1 address per family"
    );
    assert_eq!(sets(two("0.3.0")).len(), 2);
}

#[test]
fn requests_are_taken_from_args_then_runtime() {
    let mut value = json!({
        "args": {"cni": {"ips": ["10.1.0.3"]}},
        "runtimeConfig": {"ips": ["10.1.0.4/24", "10.1.0.3"]},
        "ipam": {"subnet": "10.1.0.0/24"},
    });
    let requested: Vec<String> =
        conf(value.clone()).unwrap().requested.iter().map(ToString::to_string).collect();
    assert_eq!(requested, ["10.1.0.3", "10.1.0.4"]);
    value["args"]["cni"]["ips"] = json!(["x"]);
    assert_eq!(
        conf(value).unwrap_err(),
        "invalid network configuration: args.cni.ips[0]: cannot understand ip: \"x\" is not an IP address"
    );
}

#[test]
fn validate_tells_all_problems_and_unknown_keys() {
    let value = json!({
        "name": "n",
        "ipam": {
            "type": "host-local", "gateway": "10.1.0.1", "typo": 1, "exclude": ["?"],
            "ranges": [[{"subnet": "10.1.0.0/31"}, {"subnet": "10.1.0.0/33", "mask": 1}], [{"subnet": "10.2.0.0/24"}]],
        },
    });
    let problems = Problems::default();
    super::super::validate(&Fields::root(value.as_object().unwrap(), &problems));
    let paths: Vec<String> =
        problems.into_vec().into_iter().map(|Problem { path, .. }| path).collect();
    assert_eq!(
        paths,
        [
            "ipam.gateway",
            "ipam.ranges[0][0].subnet",
            "ipam.ranges[0][1].subnet",
            "ipam.ranges[0][1].mask",
            "ipam.exclude[0]",
            "ipam.typo",
        ]
    );
}
