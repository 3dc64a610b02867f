use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value};

fn parse(text: &str) -> Result<Conf, String> {
    parse_with(text, None)
}

fn parse_with(text: &str, mac_arg: Option<&str>) -> Result<Conf, String> {
    let raw: Map<String, Value> = serde_json::from_str(text).unwrap();
    let problems = Problems::default();
    let duplicates = cni::duplicates(text.as_bytes());
    let conf = read(&Fields::root(&raw, &problems), mac_arg, &duplicates);
    problems.into_result().map(|()| conf).map_err(|error| error.to_string())
}

fn mac(text: &str, mac_arg: Option<&str>) -> String {
    let mac = parse_with(text, mac_arg).unwrap().link.mac;
    mac.map(|mac| mac.to_string()).unwrap_or_default()
}

fn sysctl(key: &str, value: &str) -> Sysctl {
    Sysctl { key: key.into(), value: value.into() }
}

#[test]
fn nothing_is_set_without_keys() {
    for text in ["{}", r#"{"mtu":0,"promisc":false,"allmulti":null,"mac":"","dataDir":""}"#] {
        let conf = parse(text).unwrap();
        assert!(conf.link.is_empty() && conf.sysctls.is_empty());
        assert_eq!(conf.data_dir, PathBuf::from("/run/cni/tuning"));
    }
}

#[test]
fn every_key_is_read() {
    let conf = parse(
        r#"{"mac":"02:00:00:00:00:01","promisc":true,"mtu":1400,"allmulti":false,"txQLen":0,
            "dataDir":"/x","sysctl":{"net.core.somaxconn":"500"}}"#,
    )
    .unwrap();
    let link = Settings {
        mac: Some(HardwareAddress([2, 0, 0, 0, 0, 1])),
        promiscuous: Some(true),
        mtu: Some(1400),
        all_multicast: Some(false),
        tx_queue_length: Some(0),
    };
    let sysctls = vec![sysctl("net.core.somaxconn", "500")];
    assert_eq!(conf, Conf { sysctls, link, data_dir: "/x".into() });
}

#[test]
fn arguments_go_before_the_configuration() {
    let text = r#"{"promisc":true,"mtu":1400,"allmulti":true,"txQLen":5,
        "sysctl":{"net.a":"1","net.b":"1"},
        "args":{"cni":{"promisc":false,"mtu":1500,"allmulti":false,"txQLen":6,"ips":["10.0.0.1"],
                       "sysctl":{"net/a":"2"}}}}"#;
    let conf = parse(text).unwrap();
    let link = Settings {
        mtu: Some(1500),
        all_multicast: Some(false),
        tx_queue_length: Some(6),
        ..Settings::default()
    };
    assert_eq!(conf.link, link);
    assert_eq!(conf.sysctls, [sysctl("net.b", "1"), sysctl("net/a", "2")]);
    // The reference plugin dies of this.
    let alone = parse(r#"{"args":{"cni":{"sysctl":{"net.a":"2"}}}}"#).unwrap();
    assert_eq!(alone.sysctls, [sysctl("net.a", "2")]);
}

#[test]
fn what_arguments_go_before_is_known_all_the_same() {
    let text = r#"{"mtu":1400,"promisc":true,"mac":"02:00:00:00:00:01","sysctl":{},"dns":{},
        "args":{"cni":{"mtu":1500,"promisc":true,"mac":"02:00:00:00:00:02","sysctl":{"net.a":"1"}}}}"#;
    let raw: Map<String, Value> = serde_json::from_str(text).unwrap();
    let problems = Problems::default();
    let fields = Fields::root(&raw, &problems);
    let _ = read(&fields, None, &[]);
    fields.finish();
    assert_eq!(problems.into_vec(), []);
}

#[test]
fn the_mac_comes_from_args_then_the_runtime_then_the_environment() {
    let [own, args, runtime] = [1, 2, 3].map(|n| format!(r#""mac":"02:00:00:00:00:0{n}""#));
    let all = format!(r#"{{{own},"args":{{"cni":{{{args}}}}},"runtimeConfig":{{{runtime}}}}}"#);
    let without = |part: &str| all.replace(part, "");
    let arg = Some("02:00:00:00:00:04");
    assert_eq!(mac(&all, arg), "02:00:00:00:00:02");
    assert_eq!(mac(&without(&args), arg), "02:00:00:00:00:03");
    assert_eq!(mac(&without(&args).replace(&runtime, ""), arg), "02:00:00:00:00:04");
    assert_eq!(mac(&format!("{{{own}}}"), None), "02:00:00:00:00:01");
    // An empty argument asks for none.
    assert_eq!(mac(&all.replace(&args, r#""mac":"""#), arg), "");
}

#[test]
fn wrong_values_are_told_with_their_place() {
    for (text, expected) in [
        (r#"{"mtu":-1}"#, "mtu: -1 is not from 0"),
        (r#"{"txQLen":-1}"#, "txQLen: -1 is not from 0"),
        (r#"{"mtu":4294967296}"#, "mtu: 4294967296 is not"),
        (r#"{"args":{"cni":{"mtu":-1}}}"#, "args.cni.mtu: -1"),
        (r#"{"mac":"x"}"#, "mac: \"x\" is no MAC address"),
        (r#"{"runtimeConfig":{"mac":"x"}}"#, "runtimeConfig.mac: \"x\""),
        (r#"{"args":{"cni":{"mac":"x"}}}"#, "args.cni.mac: \"x\""),
        (r#"{"sysctl":{"kernel.x":"1"}}"#, "sysctl.kernel.x: invalid net sysctl key"),
        (r#"{"sysctl":{"net":"1"}}"#, "sysctl.net: invalid net sysctl key"),
        (r#"{"sysctl":{"net.a":1}}"#, "sysctl.net.a: expected a string, found a number"),
        (r#"{"sysctl":{"net.a":"1","net.a":"2"}}"#, "sysctl.net.a: duplicated"),
        (r#"{"SYSCTL":{"net.a":"1","net.a":"2"}}"#, "SYSCTL.net.a: duplicated"),
    ] {
        let told = parse(text).unwrap_err();
        assert!(told.contains(expected), "{text}: {told}");
    }
    let told = parse_with("{}", Some("x")).unwrap_err();
    assert!(told.contains("MAC: \"x\" is no MAC address"), "{told}");
}

#[test]
fn keys_lead_to_files() {
    for (key, path) in [
        ("net.ipv4.conf.IFNAME.arp_filter", "net/ipv4/conf/eth0.1/arp_filter"),
        ("net/ipv4/conf/IFNAME/arp_filter", "net/ipv4/conf/eth0.1/arp_filter"),
        ("..net..core.somaxconn", "net/core/somaxconn"),
        ("net.IFNAME.IFNAME", "net/eth0.1/IFNAME"),
    ] {
        assert_eq!(sysctl(key, "").path("eth0.1"), path);
    }
}

#[test]
fn values_are_compared_as_the_kernel_shows_them() {
    for (value, shown) in [
        ("1", "1"),
        ("1024 65000", "1024\t65000"),
        ("0x10", "16"),
        ("020", "16"),
        ("-01", "-1"),
        ("00", "0"),
        ("cubic", "cubic"),
        ("", "anything"),
    ] {
        assert!(sysctl("net.a", value).is(shown), "{value} {shown}");
    }
    for (value, shown) in [("1", "2"), ("1 2", "1"), ("-1", "1"), ("+1", "2"), ("cubic", "reno")] {
        assert!(!sysctl("net.a", value).is(shown), "{value} {shown}");
    }
}

proptest! {
    #[test]
    fn no_key_leads_out_of_the_network_parameters(key in "[a-zA-Z./]{0,40}", ifname in "[a-z.]{1,15}") {
        prop_assume!(cni::ifname_problem(&ifname).is_none());
        let text = serde_json::json!({"sysctl": {key.as_str(): "1"}}).to_string();
        if let Ok(conf) = parse(&text) {
            let path = conf.sysctls[0].path(&ifname);
            prop_assert!(path.starts_with("net/") && !path.contains("/../") && !path.ends_with("/.."));
        }
    }

    #[test]
    fn numbers_of_any_base_are_the_same(number in any::<u32>()) {
        for value in [format!("{number}"), format!("{number:#x}"), format!("0{number:o}")] {
            prop_assert!(sysctl("net.a", &value).is(&number.to_string()), "{}", value);
        }
    }
}
