use super::*;

fn read(text: &str) -> Result<ReadConfig, Error> {
    let options = Options { ipv6: true, ..Options::default() };
    Config::read(Path::new("/etc/config/ip-masq-agent"), text, &options)
}

fn networks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn what_is_not_said_is_as_ip_masq_agent_has_it() {
    for text in
        ["", "\n", "# nothing\n", "null", "{}", "nonMasqueradeCIDRs:\nresyncInterval: null\n"]
    {
        let read = read(text).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
        assert_eq!(read.config, Config::default_for(&Options::default()), "{text:?}");
        assert!(read.unknown_keys.is_empty(), "{text:?}");
    }
    let config = Config::default_for(&Options::default());
    assert_eq!(config.non_masquerade, networks(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]));
    assert!(!config.masquerade_link_local && !config.masquerade_link_local_ipv6);
    assert_eq!(config.resync_interval, Duration::from_secs(60));
}

#[test]
fn all_reserved_ranges_can_be_spared() {
    let options = Options { spare_reserved_ranges: true, ..Options::default() };
    let config = Config::default_for(&options);
    assert_eq!(config.non_masquerade.len(), 11);
    assert!(config.non_masquerade.contains(&"198.18.0.0/15".parse().unwrap()));
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = "\
nonMasqueradeCIDRs:
  - 10.0.0.0/8
  - fd00::/8
cidrLimit: 2
masqLinkLocal: true
masqLinkLocalIPv6: true
resyncInterval: 1m30s
";
    let json = r#"{"nonMasqueradeCIDRs": ["10.0.0.0/8", "fd00::/8"], "cidrLimit": 2,
        "masqLinkLocal": true, "masqLinkLocalIPv6": true, "resyncInterval": "1m30s"}"#;
    let config = Config {
        non_masquerade: networks(&["10.0.0.0/8", "fd00::/8"]),
        masquerade_link_local: true,
        masquerade_link_local_ipv6: true,
        resync_interval: Duration::from_secs(90),
    };
    for text in [yaml, json] {
        assert_eq!(read(text).unwrap().config, config, "{text}");
    }
}

#[test]
fn an_empty_list_masquerades_everything() {
    assert!(read("nonMasqueradeCIDRs: []").unwrap().config.non_masquerade.is_empty());
}

#[test]
fn unknown_keys_are_told_and_the_rest_holds() {
    let read = read("masqLinkLocal: true\nforceMasqueradeCIDRs: [1.0.0.0/8]\nx: 1\n").unwrap();
    assert!(read.config.masquerade_link_local);
    assert_eq!(read.unknown_keys, ["forceMasqueradeCIDRs", "x"]);
}

#[test]
fn keys_are_taken_in_any_case() {
    assert!(read("MASQLINKLOCAL: true").unwrap().config.masquerade_link_local);
}

#[test]
fn an_error_names_file_field_and_value() {
    for (text, wanted) in [
        ("- 1", "the document: [1] is not an object"),
        ("nonMasqueradeCIDRs: 10.0.0.0/8", r#"nonMasqueradeCIDRs: "10.0.0.0/8" is not a list"#),
        ("nonMasqueradeCIDRs: [10.0.0.0/8, 5]", "nonMasqueradeCIDRs[1]: 5 is not a CIDR"),
        ("nonMasqueradeCIDRs: [10.0.0.0]", r#"nonMasqueradeCIDRs[0]: "10.0.0.0" is not a CIDR"#),
        ("nonMasqueradeCIDRs: [10.1.0.0/8]", "(did you mean 10.0.0.0/8?)"),
        ("nonMasqueradeCIDRs: ['fd00::1/64']", "(did you mean fd00::/64?)"),
        ("cidrLimit: -1", "cidrLimit: -1 is not a number"),
        ("cidrLimit: 2", "nonMasqueradeCIDRs: 3 CIDRs are more than cidrLimit (2)"),
        ("masqLinkLocal: 1", "masqLinkLocal: 1 is not true or false"),
        ("resyncInterval: 60", "resyncInterval: 60 is not a span of time (a text such as 60s)"),
        ("resyncInterval: 0s", r#"resyncInterval: "0s" is no span of time"#),
        ("resyncInterval: soon", r#"resyncInterval: "soon" is no span of time"#),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.starts_with("/etc/config/ip-masq-agent: "), "{error}");
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    let error = read("nonMasqueradeCIDRs: [10.0.0.0/8\n").unwrap_err();
    assert_eq!(error.to_string(), "/etc/config/ip-masq-agent: neither YAML nor JSON");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("line 1 column 21"), "{source}");
}

#[test]
fn blocks_of_ipv6_need_ipv6() {
    let text = "nonMasqueradeCIDRs: ['fd00::/8']";
    let error = Config::read(Path::new("f"), text, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("--enable-ipv6"), "{error}");
}
