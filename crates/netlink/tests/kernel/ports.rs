//! What leads ports elsewhere, in the rules of others.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use netlink::nftables::{Change, Client, IptablesRule, Translation};
use netns::Netns;
use ruleset::iptables::{self, PortRange, Side, Target};
use ruleset::nft::{Chain, Element, Family, Field, Match, Rule, Set, Statement, Table, Value};
use ruleset::nft::{Key, Verdict};

use crate::space::{self, nf_tables};

const NAT: Table<'_> = Table { family: Family::Ip, name: "nat" };

#[test]
fn ports_of_iptables_rules_are_read() {
    let mut client = nf_tables();
    assert_eq!(client.ports(NAT, "A").unwrap(), []);
    let fifteen: Vec<u16> = (1..=15).collect();
    let list = fifteen.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let rules = format!(
        "*nat
-N A
-N B
-A A -p tcp -m comment --comment \"dnat name\" -m multiport --dports 8080,8081 -j B
-A A -p udp -m multiport --dports 53 -s 10.1.0.0/16 -j B
-A A -p sctp -m multiport --dports {list} -j B
-A A -p tcp -m multiport --dports 1,5:9 -j B
-A A -p tcp -m multiport --sports 1 -j B
-A A -p tcp -m multiport --ports 1 -j B
-A A -p tcp -m multiport ! --dports 1 -j B
-A A -p tcp --dport 1 -j B
-A B -p tcp -m multiport --dports 7 -j RETURN
COMMIT
"
    );
    space::run("iptables-restore", &["--noflush"], &rules);
    let expected =
        [Some(vec![8080, 8081]), Some(vec![53]), Some(fifteen), None, None, None, None, None];
    assert_eq!(client.ports(NAT, "A").unwrap(), expected);
    assert_eq!(client.ports(NAT, "B").unwrap(), [Some(vec![7])]);
    assert_eq!(client.ports(NAT, "C").unwrap(), []);
    let rules = client.port_rules(NAT, "A").unwrap();
    let told: Vec<_> = rules.iter().map(|it| (it.protocol, it.ports.len())).collect();
    let lists = [(Some(6), 2), (Some(17), 1), (Some(132), 15)];
    let others = [(Some(6), 0), (Some(6), 0), (Some(6), 0), (Some(6), 0), (Some(6), 1)];
    assert_eq!(told, [&lists[..], &others].concat());
    assert!(rules.iter().all(|it| it.chain.as_deref() == Some("B") && it.to.is_none()));
    assert_eq!(rules[0].comment.as_deref(), Some("dnat name"));
    assert_eq!((&rules[1].comment, &rules[1].ports), (&None, &vec![53]));
    assert_eq!(client.port_rules(NAT, "B").unwrap()[0].chain, None);
    assert_eq!(client.port_rules(NAT, "C").unwrap(), []);
}

/// As the programs write it, and as podwire does.
#[test]
fn ports_of_rules_that_translate_are_read() {
    let mut client = nf_tables();
    let rules = ["tcp", "udp", "sctp"].map(|protocol| {
        let port = iptables::Match::DestinationPort(protocol, PortRange { first: 80, last: 80 });
        iptables::Rule::new([port], Target::Translate("10.1.0.2:8080".parse().unwrap()))
    });
    let lines: String = rules.iter().map(|it| format!("-A A {it}\n")).collect();
    space::run("iptables-restore", &["--noflush"], &format!("*nat\n-N A\n{lines}COMMIT\n"));
    for rule in &rules {
        let ours = IptablesRule::new(true, rule).unwrap();
        client.change(NAT, &[Change::IptablesRule("A", &ours)]).unwrap();
    }
    let read = client.port_rules(NAT, "A").unwrap();
    let told: Vec<_> = read.iter().map(|it| (it.protocol, it.to)).collect();
    let expected = [6, 17, 132].map(|it| (Some(it), Some(IpAddr::from([10, 1, 0, 2]))));
    assert_eq!(told, [expected, expected].concat());
    assert!(read.iter().all(|it| it.ports == [80] && it.chain.is_none()), "{read:?}");
}

#[test]
fn destinations_of_iptables_rules_are_read() {
    let mut client = nf_tables();
    let programs = [
        ("iptables-restore", Family::Ip, "10.1.0.2"),
        ("ip6tables-restore", Family::Ip6, "fd00::2"),
    ];
    for (program, family, to) in programs {
        let table = Table { family, name: "nat" };
        assert_eq!(client.destinations(table, "A").unwrap(), []);
        let written = if family == Family::Ip { to.to_owned() } else { format!("[{to}]") };
        let rules = format!(
            "*nat
-N A
-A A -p tcp --dport 80 -j DNAT --to-destination {written}:80
-A A -p tcp --dport 81 -j RETURN
-A A -j DNAT --to-destination {to}
-A A -p udp -j DNAT --to-destination :53
COMMIT
"
        );
        space::run(program, &["--noflush"], &rules);
        let to: Option<IpAddr> = to.parse().ok();
        assert_eq!(client.destinations(table, "A").unwrap(), [to, to, None]);
        let port = iptables::Match::DestinationPort("tcp", PortRange { first: 80, last: 80 });
        let target = Target::Translate(SocketAddr::new(to.unwrap(), 80));
        let wanted = iptables::Rule::new([port], target);
        let ours = IptablesRule::new(family == Family::Ip, &wanted).unwrap();
        client.change(table, &[Change::IptablesRule("A", &ours)]).unwrap();
        assert_eq!(client.destinations(table, "A").unwrap(), [to, to, None, to]);
    }
}

#[test]
fn translations_are_read_as_nft_writes_them() {
    let mut client = nf_tables();
    let table =
        |is_ipv4| Table { family: if is_ipv4 { Family::Ip } else { Family::Ip6 }, name: "t" };
    assert_eq!(client.translations(table(true), "c").unwrap(), []);
    space::run(
        "nft",
        &["-f", "-"],
        "table ip t {
             chain c {
                 tcp dport 8080 dnat to 10.1.0.2:80 comment \"a\"
                 ip daddr 192.0.2.1 udp dport 53 dnat to 10.1.0.3:5353 comment \"b\"
                 sctp dport 1 dnat to 10.1.0.4
                 tcp dport != 2 dnat to 10.1.0.2:80
                 tcp dport 3 accept
                 ip daddr 10.0.0.0/8 tcp dport 4 snat to 10.1.0.2
                 udp dport 5 redirect to :6
             }
             chain d {
                 tcp dport 9 dnat to 10.1.0.9:9
             }
         }
         table ip6 t {
             chain c {
                 ip6 daddr 2001:db8::1 tcp dport 8080 dnat to [fd00::2]:80 comment \"a\"
             }
         }",
    );
    let of = |protocol, port, address: &str, to: &str, comment: &str| Translation {
        protocol,
        port,
        address: address.parse().ok(),
        to: to.parse::<IpAddr>().unwrap(),
        comment: Some(comment.to_owned()).filter(|it| !it.is_empty()),
    };
    assert_eq!(
        client.translations(table(true), "c").unwrap(),
        [
            of(6, 8080, "", "10.1.0.2", "a"),
            of(17, 53, "192.0.2.1", "10.1.0.3", "b"),
            of(132, 1, "", "10.1.0.4", ""),
        ]
    );
    let six = [of(6, 8080, "2001:db8::1", "fd00::2", "a")];
    assert_eq!(client.translations(table(false), "c").unwrap(), six);
}

/// How the program nft shows a rule that looks networks up, and what it finds in the set.
#[test]
fn networks_are_looked_up_by_their_first_address() {
    const INET: Table<'_> = Table { family: Family::Inet, name: "t" };
    let mut client = nf_tables();
    let chain = Chain { name: "c", base: None, comment: None };
    let mut shown = Vec::new();
    for (is_ipv4, prefix, expected) in [
        (true, 24, "ip saddr & 255.255.255.0 . meta l4proto @s24 accept"),
        (true, 0, "ip saddr & 0.0.0.0 . meta l4proto @s0 accept"),
        (false, 49, "ip6 saddr & ffff:ffff:ffff:8000:: . meta l4proto @s49 accept"),
    ] {
        let address = if is_ipv4 { Key::Ipv4 } else { Key::Ipv6 };
        let set = Set::new(format!("s{prefix}"), [address, Key::Protocol]);
        let network = Field::Network { side: Side::Source, is_ipv4, prefix };
        let matches = [Match::In(vec![network, Field::Protocol], set.name.clone())];
        let rule = Rule::new(matches, Statement::from(Verdict::Accept));
        let first: IpAddr = if is_ipv4 { [10, 1, 0, 0].into() } else { "fd00::".parse().unwrap() };
        let elements = set.encode(&Element::new([Value::Address(first), Value::Protocol(6)]));
        let changes = [
            Change::Table(None),
            Change::Chain(&chain),
            Change::Set(&set),
            Change::Elements(&set.name, &elements),
            Change::Rule("c", &rule),
        ];
        client.change(INET, &changes).unwrap();
        assert_eq!(
            client.element(INET, &set.name, &elements[0]).unwrap().as_ref(),
            elements.first()
        );
        assert_eq!(rule.to_string(), expected);
        shown.push(expected);
    }
    let listed = space::run("nft", &["list", "chain", "inet", "t", "c"], "");
    for rule in shown {
        assert!(listed.contains(rule), "{rule:?} in {listed}");
    }
}

/// Whoever leaves a client to the kernel has done what was to be done, and keeps nothing.
#[test]
fn a_client_that_is_left_has_changed_what_it_changed() {
    let mut client = nf_tables();
    let here = Netns::open(Path::new("/proc/thread-self/ns/net")).unwrap();
    let table = Table { family: Family::Inet, name: "t" };
    for _ in 0..20 {
        client.change(table, &[Change::Table(None)]).unwrap();
        client.change(table, &[Change::DeleteTable]).unwrap();
        client.leave();
        client = Client::open().unwrap().expect("the kernel has nf_tables");
        assert!(!client.has_table(table).unwrap());
    }
    // One that has deleted nothing is closed at once.
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    Client::open().unwrap().expect("the kernel has nf_tables").leave();
    assert_eq!(open(), before);
    drop(here);
}
