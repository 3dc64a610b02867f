use serde_json::{Value, json};

use cni::decode::Problems;

use super::*;

fn parsed(value: &Value) -> (Conf, Vec<String>) {
    let problems = Problems::default();
    let fields = Fields::root(value.as_object().unwrap(), &problems);
    let conf = read(&fields);
    (conf, problems.into_vec().iter().map(ToString::to_string).collect())
}

fn mapped(mappings: &Value) -> (Vec<Mapping>, Vec<String>) {
    let (conf, problems) = parsed(&json!({"runtimeConfig": {"portMappings": mappings}}));
    (conf.mappings, problems)
}

#[test]
fn every_key_has_a_default() {
    let expected = Conf {
        backend: None,
        snat: true,
        masq_all: false,
        mark_bit: 13,
        set_mark_chain: None,
        conditions: Conditions::Iptables([vec![], vec![]]),
        mappings: vec![],
    };
    assert_eq!(parsed(&json!({})), (expected.clone(), vec![]));
    let null = json!({"backend": null, "snat": null, "conditionsV4": null, "runtimeConfig": null});
    assert_eq!(parsed(&null), (expected, vec![]));
}

#[test]
fn every_key_is_read() {
    let (conf, problems) = parsed(&json!({"backend": "iptables", "snat": false, "masqAll": true,
        "markMasqBit": 0, "conditionsV4": ["!", "-s", "10.0.0.0/8"], "conditionsV6": ["-i", "eth0"],
        "runtimeConfig": {"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "::ffff:10.0.0.1"},
            {"hostPort": 65535, "containerPort": 1, "protocol": "sctp", "hostIP": ""}]}}));
    assert_eq!(problems, [""; 0]);
    let words = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let expected = Conf {
        backend: Some(Backend::Iptables),
        snat: false,
        masq_all: true,
        mark_bit: 0,
        set_mark_chain: None,
        conditions: Conditions::Iptables([
            words(&["!", "-s", "10.0.0.0/8"]),
            words(&["-i", "eth0"]),
        ]),
        mappings: vec![
            Mapping {
                protocol: Protocol::Tcp,
                host_port: 8080,
                container_port: 80,
                host_ip: Some([10, 0, 0, 1].into()),
            },
            Mapping {
                protocol: Protocol::Sctp,
                host_port: 65535,
                container_port: 1,
                host_ip: None,
            },
        ],
    };
    assert_eq!(conf, expected);
}

#[test]
fn options_of_one_backend_decide_where_nothing_is_said() {
    let backend = |keys: Value| {
        let (conf, problems) = parsed(&keys);
        assert_eq!(problems, [""; 0]);
        conf.backend
    };
    assert_eq!(backend(json!({"externalSetMarkChain": "KUBE-MARK-MASQ"})), Some(Backend::Iptables));
    assert_eq!(backend(json!({"conditionsV4": ["!", "-d", "10.0.0.1"]})), Some(Backend::Iptables));
    assert_eq!(backend(json!({"conditionsV6": ["ip6", "daddr", "::1"]})), Some(Backend::Nftables));
    assert_eq!(backend(json!({"conditionsV4": []})), None);
}

#[test]
fn options_of_the_other_backend_are_refused() {
    for (keys, text) in [
        (
            json!({"backend": "nftables", "externalSetMarkChain": "X", "conditionsV6": ["-i", "a"]}),
            "backend: nftables is asked for, but the configuration has options of iptables alone: \
             externalSetMarkChain, conditionsV6",
        ),
        (
            json!({"backend": "iptables", "conditionsV4": ["ip daddr 10.0.0.1"]}),
            "backend: iptables is asked for, but the configuration has options of nftables alone: conditionsV4",
        ),
        (
            json!({"externalSetMarkChain": "X", "conditionsV4": ["ip daddr 10.0.0.1"]}),
            "backend: no backend has all of these options: externalSetMarkChain, conditionsV4",
        ),
        (json!({"backend": "pf"}), "backend: unrecognized backend \"pf\""),
    ] {
        assert_eq!(parsed(&keys).1, [text]);
    }
}

#[test]
fn wrong_values_are_told() {
    for (keys, text) in [
        (json!({"markMasqBit": 32}), "markMasqBit: 32 is not"),
        (
            json!({"externalSetMarkChain": "POSTROUTING"}),
            "externalSetMarkChain: \"POSTROUTING\" is built into table nat",
        ),
        (
            json!({"externalSetMarkChain": "CNI-HOSTPORT-DNAT"}),
            "externalSetMarkChain: \"CNI-HOSTPORT-DNAT\" is the plugin's own",
        ),
        (json!({"markMasqBit": -1}), "markMasqBit: -1 is not"),
        (
            json!({"markMasqBit": 1, "externalSetMarkChain": "X"}),
            "markMasqBit: cannot be specified",
        ),
        (json!({"externalSetMarkChain": "a b"}), "externalSetMarkChain: \"a b\" is no name"),
        (json!({"externalSetMarkChain": ""}), "externalSetMarkChain: \"\" is no name"),
        (json!({"conditionsV4": ["-i", "a\nCOMMIT"]}), "conditionsV4: \"a\\nCOMMIT\" is"),
        (json!({"conditionsV6": ["", "x"]}), "conditionsV6: \"\" is empty"),
        (json!({"conditionsV6": ["tcp dport 1"]}), "conditionsV6: cannot read"),
        (json!({"snat": 1}), "snat: expected a boolean"),
    ] {
        let (_, problems) = parsed(&keys);
        assert!(problems[0].starts_with(text), "{problems:?}");
    }
}

#[test]
fn wrong_mappings_are_told_with_their_place() {
    let mapping = |key: &str, value: Value| {
        let mut mapping = json!({"hostPort": 1, "containerPort": 2, "protocol": "udp"});
        mapping[key] = value;
        json!([mapping])
    };
    for (mappings, text) in [
        (mapping("hostPort", json!(0)), "hostPort: 0 is no port (1 to 65535)"),
        (mapping("hostPort", json!(65536)), "hostPort: 65536 is no port (1 to 65535)"),
        (mapping("containerPort", json!(-1)), "containerPort: -1 is no port (1 to 65535)"),
        (mapping("protocol", json!("icmp")), "protocol: \"icmp\" is none of tcp, udp and sctp"),
        (mapping("protocol", json!(null)), "protocol: \"\" is none of tcp, udp and sctp"),
        (mapping("hostIP", json!("1.2.3")), "hostIP: \"1.2.3\" is not an IP address"),
        (mapping("hostIP", json!("fe80::1%eth0")), "hostIP: \"fe80::1%eth0\" is not an IP address"),
    ] {
        let expected = vec![format!("runtimeConfig.portMappings[0].{text}")];
        assert_eq!(mapped(&mappings), (vec![], expected));
    }
}

#[test]
fn a_port_leads_to_one_place() {
    let of = |container_port: u16, host_ip: &str| json!({"hostPort": 80, "containerPort": container_port, "protocol": "tcp", "hostIP": host_ip});
    let (mappings, problems) =
        mapped(&json!([of(1, ""), of(1, ""), of(2, "10.0.0.1"), of(3, "0.0.0.0")]));
    assert_eq!(mappings.len(), 2);
    let text = "runtimeConfig.portMappings[3]: host port 80/tcp leads to container port 1 already";
    assert_eq!(problems, [text]);
    assert_eq!(mapped(&json!([of(1, "0.0.0.0"), of(2, "::")])).1, [""; 0]);
}

#[test]
fn the_containers_addresses_are_its_interfaces_first_ones() {
    let result = |interfaces: Value, ips: Value| {
        let document = json!({"interfaces": interfaces, "ips": ips});
        AddResult::from_prev_result(&document, cni::Version::LATEST).unwrap()
    };
    let interfaces = json!([{"name": "eth0"}, {"name": "eth0", "sandbox": "/n"}, {"name": "net1", "sandbox": "/n"}]);
    let found = |ips: Value| {
        let found = addresses(&result(interfaces.clone(), ips), "eth0");
        found.map(|it| it.map(|it| it.to_string()).unwrap_or_default())
    };
    let ip = |address: &str, interface: i64| json!({"address": address, "interface": interface});
    assert_eq!(
        found(json!([
            ip("10.0.0.1/24", 0),
            ip("10.0.0.2/24", 2),
            ip("10.0.0.3/24", 1),
            ip("10.0.0.4/24", 1),
            ip("fd00::3/64", 1)
        ])),
        ["10.0.0.3/24", "fd00::3/64"]
    );
    assert_eq!(found(json!([{"address": "10.0.0.5/24"}])), ["10.0.0.5/24", ""]);
    assert_eq!(found(json!([ip("fd00::1/64", 9), ip("fd00::2/64", -1)])), ["", "fd00::1/64"]);
}
