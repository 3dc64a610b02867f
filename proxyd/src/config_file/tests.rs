use super::*;

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// What kubeadm writes into the ConfigMap `kube-proxy` of a cluster with this range of pods: every field that Go has.
const KUBEADM: &str = include_str!("kubeadm.yaml");

fn read(fields: &str) -> Parsed {
    parse(&format!("{HEAD}{fields}")).unwrap_or_else(|error| panic!("{fields}: {error}"))
}

fn wrong(fields: &str) -> String {
    cluster::chain(&parse(&format!("{HEAD}{fields}")).unwrap_err())
}

fn ranges<const COUNT: usize>(texts: [&str; COUNT]) -> Option<Pods> {
    Some(Pods::By(Local::Ranges(texts.map(|it| it.parse().unwrap()).into())))
}

#[test]
fn what_kubeadm_writes_is_read_as_it_is_and_says_what_is_not_the_default() {
    let wanted = ConfigFile {
        kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
        pods: ranges(["10.244.0.0/16"]),
        masquerades_all: Some(false),
        conntrack: Conntrack {
            udp: Some(Duration::ZERO),
            udp_stream: Some(Duration::ZERO),
            tcp_be_liberal: Some(false),
            ..Conntrack::default()
        },
        ..ConfigFile::default()
    };
    let parsed = parse(KUBEADM).unwrap();
    assert_eq!(parsed, Parsed { config: wanted, ..Parsed::default() });
    // In JSON it says the same.
    let document: Value = serde_saphyr::from_str(KUBEADM).unwrap();
    assert_eq!(parse(&document.to_string()).unwrap(), parsed);
}

#[test]
fn every_field_of_use_is_taken() {
    let fields = "\
clientConnection: {kubeconfig: /etc/kubeconfig}
hostnameOverride: ' Node-1 '
bindAddress: 2001:db8::1
healthzBindAddress: '[::]:1'
metricsBindAddress: 192.0.2.1
nodePortAddresses: [primary, 198.51.100.0/24, localhost]
mode: nftables
nftables: {masqueradeBit: 0, masqueradeAll: true}
detectLocalMode: ClusterCIDR
clusterCIDR: 10.1.0.0/16,fd00:1::/64
conntrack:
  maxPerCore: 0
  min: 2147483647
  tcpEstablishedTimeout: 1h0m0s
  tcpCloseWaitTimeout: 0s
  udpTimeout: 30s
  udpStreamTimeout: 3m0s
  tcpBeLiberal: true
";
    let Parsed { config, unused, unknown } = read(fields);
    assert_eq!((unused, unknown), (vec![], vec![]));
    let at = |text: &str| Some(Listen::At(text.parse().unwrap()));
    let wanted = ConfigFile {
        kubeconfig: Some("/etc/kubeconfig".into()),
        node_name: Some("node-1".to_owned()),
        node_address: Some("2001:db8::1".parse().unwrap()),
        healthz: at("[::]:1"),
        metrics: at("192.0.2.1:10249"),
        nodeport_addresses: Some(vec![
            Addresses::Primary,
            Addresses::Range("198.51.100.0/24".parse().unwrap()),
            Addresses::Localhost,
        ]),
        pods: ranges(["10.1.0.0/16", "fd00:1::/64"]),
        masquerade_bit: Some(0),
        masquerades_all: Some(true),
        scheduler: None,
        conntrack: Conntrack {
            max_per_core: Some(0),
            min: Some(2_147_483_647),
            tcp_established: Some(Duration::from_hours(1)),
            tcp_close_wait: Some(Duration::ZERO),
            udp: Some(Duration::from_secs(30)),
            udp_stream: Some(Duration::from_mins(3)),
            tcp_be_liberal: Some(true),
        },
    };
    assert_eq!(config, wanted);
}

#[test]
fn sections_of_other_modes_have_no_effect() {
    let both = "iptables: {masqueradeBit: 1, masqueradeAll: true, localhostNodePorts: true}\n\
                nftables: {masqueradeBit: 2}\nipvs: {scheduler: sh}\n";
    let of = |mode: &str| read(&format!("mode: {mode}\n{both}"));
    let bit = |mode: &str| of(mode).config.masquerade_bit;
    assert_eq!((bit("''"), bit("iptables"), bit("nftables")), (Some(1), Some(1), Some(2)));
    assert_eq!(bit("ipvs"), Some(1));
    let scheduler = |mode: &str| of(mode).config.scheduler;
    assert_eq!((scheduler("ipvs"), scheduler("iptables")), (Some(Scheduler::SourceHash), None));
    let localhost = |mode: &str| of(mode).config.nodeport_addresses;
    assert_eq!(localhost("iptables"), Some(vec![Addresses::Primary, Addresses::Localhost]));
    assert_eq!((localhost("ipvs"), localhost("nftables")), (None, None));
    // Of addresses that are named kube-proxy serves that one where it is among them.
    let localhost = |truth: bool, addresses: &str| {
        let fields = format!(
            "nodePortAddresses: [{addresses}]\niptables: {{localhostNodePorts: {truth}}}\n"
        );
        read(&fields).config.nodeport_addresses.unwrap()
    };
    assert_eq!(localhost(true, "all"), [Addresses::All, Addresses::Localhost]);
    assert_eq!(localhost(true, "0.0.0.0/0").len(), 2);
    for other in ["primary", "192.0.2.0/24", "localhost", "127.0.0.0/8", "'::/0'"] {
        assert_eq!(localhost(true, other).len(), 1, "{other}");
    }
    assert_eq!(localhost(false, "primary, localhost"), [Addresses::Primary]);
    // There is one way here: whoever wants another is told.
    let unused = |mode: &str| of(mode).unused;
    assert_eq!(unused("''"), ["nftables.masqueradeBit", "ipvs.scheduler"]);
    assert_eq!(unused("ipvs"), ["mode", "iptables.localhostNodePorts", "nftables.masqueradeBit"]);
    let iptables = [
        "iptables.masqueradeBit",
        "iptables.masqueradeAll",
        "iptables.localhostNodePorts",
        "ipvs.scheduler",
    ];
    assert_eq!(unused("nftables"), iptables);
    assert_eq!(read("mode: ipvs\nipvs: {scheduler: rr}\n").unused, ["mode", "ipvs.scheduler"]);
}

#[test]
fn pods_are_known_as_the_mode_says() {
    let pods = |fields: &str| read(fields).config.pods;
    let all = "clusterCIDR: 10.1.0.0/16\ndetectLocal: {bridgeInterface: br0, interfaceNamePrefix: cali}\n";
    let by = |mode: &str| pods(&format!("{all}detectLocalMode: {mode}\n"));
    assert_eq!((by("''"), by("ClusterCIDR")), (ranges(["10.1.0.0/16"]), ranges(["10.1.0.0/16"])));
    assert_eq!(by("NodeCIDR"), Some(Pods::OfNode));
    assert_eq!(by("BridgeInterface"), Some(Pods::By(Local::Interface("br0".to_owned()))));
    assert_eq!(by("InterfaceNamePrefix"), Some(Pods::By(Local::Interfaces("cali".to_owned()))));
    assert_eq!(pods("clusterCIDR: ''\n"), None);
    assert_eq!(
        wrong("detectLocalMode: BridgeInterface\n"),
        "detectLocal.bridgeInterface: \"\" is not what detectLocalMode needs"
    );
}

#[test]
fn what_has_no_effect_is_told_by_its_path() {
    let fields = "\
oomScoreAdj: -999
configSyncPeriod: 15m0s
clientConnection: {qps: 5.5, burst: 0, contentType: ''}
iptables: {syncPeriod: 30s, minSyncPeriod: 0s, masqueradBit: 4}
winkernel: {networkName: x, enableDSR: false}
featureGates: {A: true}
udpIdleTimeout: 250ms
ClusterCIDR: 10.0.0.0/8
";
    let parsed = read(fields);
    assert_eq!(
        parsed.unused,
        [
            "oomScoreAdj",
            "configSyncPeriod",
            "clientConnection.qps",
            "iptables.syncPeriod",
            "winkernel",
            "featureGates"
        ]
    );
    assert_eq!(parsed.unknown, ["iptables.masqueradBit", "udpIdleTimeout", "ClusterCIDR"]);
    assert_eq!(parsed.config, ConfigFile::default());
}

#[test]
fn a_field_that_is_wrong_is_told_by_its_path() {
    for (fields, told) in [
        (
            "conntrack: {maxPerCore: many}",
            "conntrack.maxPerCore: \"many\" is not a number (0 to 2147483647)",
        ),
        ("conntrack: {min: -1}", "conntrack.min: \"-1\" is not a number (0 to 2147483647)"),
        ("conntrack: {udpTimeout: 30}", "conntrack.udpTimeout: \"30\" is not a text"),
        (
            "conntrack: {udpTimeout: 1.5s}",
            "conntrack.udpTimeout: \"1.5s\" is not a time of whole seconds, like 1h30m0s",
        ),
        ("conntrack: 5", "conntrack: \"5\" is not an object"),
        ("iptables: {masqueradeBit: 32}", "iptables.masqueradeBit: \"32\" is not a bit (0 to 31)"),
        (
            "iptables: {masqueradeAll: 'yes'}",
            "iptables.masqueradeAll: \"yes\" is not true or false",
        ),
        ("mode: userspace", "mode: \"userspace\" is not iptables, ipvs or nftables"),
        (
            "detectLocalMode: x",
            "detectLocalMode: \"x\" is not ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
        ),
        (
            "clusterCIDR: 10.0.0.1",
            "clusterCIDR: \"10.0.0.1\" is not a range of addresses, or one of each family, like 10.244.0.0/16",
        ),
        (
            "nodePortAddresses: [all, 192.0.2.1]",
            "nodePortAddresses[1]: \"192.0.2.1\" is not primary, localhost, all, or a range of addresses",
        ),
        ("bindAddress: node", "bindAddress: \"node\" is not an address"),
        (
            "healthzBindAddress: ':1'",
            "healthzBindAddress: \":1\" is not an address and a port (1 to 65535), like 0.0.0.0:10256",
        ),
        (
            "healthzBindAddress: 0.0.0.0:0",
            "healthzBindAddress: \"0.0.0.0:0\" is not an address and a port (1 to 65535), like 0.0.0.0:10256",
        ),
        ("hostnameOverride: {a: b}", "hostnameOverride: \"{\\\"a\\\":\\\"b\\\"}\" is not a text"),
    ] {
        assert_eq!(wrong(fields), told);
    }
}

#[test]
fn what_is_something_else_is_refused() {
    let told = |text: &str| cluster::chain(&parse(text).unwrap_err());
    let kind = "not kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration";
    assert_eq!(told("- a\n"), format!("is something else, {kind}"));
    assert_eq!(told("null"), format!("is something else, {kind}"));
    let other = "apiVersion: kubeproxy.config.k8s.io/v1alpha2\nkind: KubeProxyConfiguration\n";
    assert_eq!(
        told(other),
        format!("is kubeproxy.config.k8s.io/v1alpha2 KubeProxyConfiguration, {kind}")
    );
    assert!(told("{").starts_with("is no YAML: "));
    let error = super::read(Path::new("/nowhere/config.conf")).unwrap_err();
    assert!(cluster::chain(&error).starts_with("/nowhere/config.conf: cannot be read: "));
}
