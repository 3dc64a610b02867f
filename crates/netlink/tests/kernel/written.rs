//! What we write to nf_tables is what the program nft would write.

use netlink::nftables::{Change, Client};
use std::collections::BTreeSet;

use ruleset::iptables::{Packets, PortRange, Side};
use ruleset::nft::{
    Base, Chain, Element, Family, Field, FrameKind, Hook, Key, Kind, Match, Policy, Rule, Set,
    Statement, Table, Value, Verdict,
};

use nix::errno::Errno;

use crate::space::{move_away, nf_tables, run};

const CHAIN: &str = "checks";

/// The table as nft shows it, and the bytecode of its rules.
fn shown(table: Table<'_>) -> [String; 2] {
    let table = table.to_string();
    let words: Vec<&str> = table.split(' ').collect();
    let list = |options: &[&str]| run("nft", &[options, &["list", "table"], &words].concat(), "");
    // Elements come in whatever order, and nft has some more, which mean nothing, where intervals begin and end. A
    // protocol that is looked up in intervals it turns round, in words of two bytes, of which one byte has none.
    let code = list(&["--stateless", "--debug=netlink"]);
    let means = |line: &&str| !line.starts_with("\telement ") && !line.ends_with(", 2, 1) ]");
    let code = code.lines().filter(means).collect::<Vec<_>>().join("\n");
    let rules = code.split("\n\n").map(with_registers_in_order);
    [list(&["--stateless"]), rules.collect::<Vec<_>>().join("\n\n")]
}

/// A rule's bytecode with its registers numbered as they come: nft leaves some out.
fn with_registers_in_order(rule: &str) -> String {
    let mut seen: Vec<&str> = Vec::new();
    let rule = rule.replace("reg_key ", "reg ").replace("sreg_data ", "reg ");
    let mut pieces = rule.split("reg ");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|it: char| !it.is_ascii_digit()).unwrap_or(piece.len());
        let (number, rest) = piece.split_at(end);
        let place = seen.iter().position(|it| *it == number).unwrap_or(seen.len());
        if place == seen.len() {
            seen.push(number);
        }
        text += &format!("reg {place}{rest}");
    }
    text
}

fn rules(family: Family) -> Vec<Rule> {
    let network = |text: &str| text.parse().unwrap();
    let address = |side, text| Match::Address(side, network(text));
    let elsewhere = |text| Match::NotAddress(Side::Destination, network(text));
    let interface = Match::InInterface("a-name-of-15-by".to_owned());
    let four = vec![
        Rule::new([address(Side::Source, "10.1.0.2"), elsewhere("10.1.0.2/24")], Verdict::Return),
        Rule::new([address(Side::Destination, "224.0.0.0/4")], Verdict::Return),
        Rule::new([elsewhere("10.0.0.0/20")], Verdict::Drop).commented("of 10.0.0.0/20: no"),
        Rule::new([address(Side::Source, "10.0.0.0/8"), interface.clone()], Verdict::Drop),
    ];
    let six = vec![
        Rule::new([address(Side::Source, "fd00::2"), elsewhere("fd00::/64")], Verdict::Return),
        Rule::new([address(Side::Destination, "ff00::/8")], Verdict::Return),
        Rule::new([elsewhere("fd00::/49")], Verdict::Drop),
    ];
    let lead = [Verdict::Jump("other".to_owned()), Verdict::Goto("other".to_owned())];
    let any = lead.map(|verdict| Rule::new([], verdict)).into_iter();
    match family {
        Family::Ip => four.into_iter().chain(any).collect(),
        Family::Ip6 => six.into_iter().chain(any).collect(),
        Family::Inet => [four, six, of_packets()].concat().into_iter().chain(any).collect(),
        Family::Bridge => {
            let source = Match::HardwareSource([2, 0, 0, 0, 0, 1]);
            let rules =
                [Rule::new([source], Verdict::Return), Rule::new([interface], Verdict::Drop)];
            rules.into_iter().chain(any).collect()
        }
        Family::Netdev => {
            let all = ["0.0.0.0/0", "::/0"].map(|it| address(Side::Source, it));
            let all = all.map(|it| Rule::new([it], Verdict::Drop).counted());
            let bytes: [&[u8]; 2] = [&[58], &[58, 0, 5, 2, 0, 0, 1, 0]];
            let bytes = bytes.map(|it| Match::HeaderBytes { place: 40, value: it.to_owned() });
            let local = |it| Rule::new([address(Side::Source, "fe80::/10"), it], Verdict::Return);
            let part = address(Side::Source, "10.0.0.2");
            let part = vec![part, Match::Protocol(1), Match::Fragment];
            let other = address(Side::Source, "fd00::2");
            let other = vec![other, Match::Protocol(58), Match::FragmentHeader];
            let first = vec![Match::FirstByte(135)];
            let lo = || "lo".to_owned();
            let in_first = Match::InLink { link: 1, name: lo() };
            let all = all
                .into_iter()
                .chain(bytes.map(local))
                .chain([part, other, first].map(|it| Rule::new(it, Verdict::Drop)))
                .chain([Rule::new([Match::Arp], Verdict::Return)])
                // The first link of every namespace.
                .chain([Rule::new([in_first], Statement::Forward { link: 1, name: lo() })]);
            [four, six].concat().into_iter().chain(all).chain(any).collect()
        }
    }
}

/// What only a table of packets asks, or does.
fn of_packets() -> Vec<Rule> {
    let set = |it: &str| it.to_owned();
    let source = || Field::Ipv4(Side::Source);
    let ports = |first, last| PortRange { first, last };
    let named = vec![Field::Ipv6(Side::Destination), Field::Protocol, Field::DestinationPort];
    let log = Statement::Log { group: 7, prefix: "a prefix".to_owned() };
    let all = [
        vec![Match::Family { is_ipv4: true }],
        vec![Match::ToBroadcast],
        vec![Match::NotToLocal],
        vec![Match::ToLocal],
        vec![Match::NotInInterface("lo".to_owned())],
        vec![Match::InInterfaces("veth".to_owned())],
        vec![Match::New],
        vec![Match::In(flow(true), set("flows4"))],
        vec![Match::In(flow(false), set("flows6"))],
        vec![Match::ByChance { of_million: 469_292 }],
        vec![Match::In(vec![source()], set("addresses"))],
        vec![Match::NotIn(vec![source()], set("addresses"))],
        vec![Match::In(vec![Field::InInterface, source()], set("sources"))],
        vec![Match::In(vec![Field::OutInterface], set("links"))],
        vec![Match::In(named, set("named"))],
        vec![Match::Protocol(132), Match::In(vec![source()], set("addresses"))],
        vec![Match::DestinationPort(6, ports(80, 80))],
        vec![
            Match::DestinationPort(17, ports(1000, 2000)),
            Match::In(vec![source()], set("networks")),
        ],
        vec![Match::DestinationPort(132, ports(5, 5))],
        vec![Match::DestinationPortIn(6, set("ports"))],
        vec![Match::TcpWithoutSyn],
        vec![Match::SctpWithoutInit],
        vec![Match::HopLimit(255), Match::Icmp6Type(135)],
        vec![Match::Icmp6Type(143)],
        vec![Match::Protocol(58), Match::LongerThan(1280), Match::Connection(Packets::Related)],
        vec![Match::Frame(FrameKind::Broadcast)],
        vec![Match::Frame(FrameKind::Multicast)],
        vec![Match::Connection(Packets::Established)],
        vec![Match::Connection(Packets::Invalid)],
        vec![Match::Protocol(1), Match::Connection(Packets::OfNoAnswer)],
        vec![Match::Mark(0x400)],
        vec![Match::ConnectionMark(0x400)],
    ];
    let mut rules: Vec<_> = all.into_iter().map(|it| Rule::new(it, Verdict::Accept)).collect();
    rules.extend([
        Rule::new([Match::AtMostEachMinute(30)], log),
        Rule::new([], Statement::Map(vec![source()], set("from"))),
        Rule::new([Match::Protocol(6)], Statement::Map(vec![Field::OutInterface], set("groups"))),
        Rule::new([], Statement::SetMark(0x400)),
        Rule::new([], Statement::ClearMark(0x400)),
        Rule::new([Match::ConnectionMark(1)], Verdict::Drop).counted().commented("why"),
    ]);
    rules
}

/// From where to where, and to which port.
fn flow(is_ipv4: bool) -> Vec<Field> {
    let [from, to] = [Side::Source, Side::Destination].map(|it| Field::address(it, is_ipv4));
    vec![from, to, Field::Protocol, Field::DestinationPort]
}

/// The sets and maps that those rules look into, with elements.
fn sets() -> Vec<(Set, Vec<Element>)> {
    let address = |it: &str| Value::Address(it.parse().unwrap());
    let network = |it: &str| Element::new([Value::Network(it.parse().unwrap())]);
    let link = |it: &str| Value::Interface(it.to_owned());
    let ports = |first, last| Value::Ports(PortRange { first, last });
    let goto = || Verdict::Goto("other".to_owned());
    let named = Element::new([address("fd00::1"), Value::Protocol(6), ports(80, 80)]);
    vec![
        (
            Set::new("addresses", [Key::Ipv4]).commented("of pods"),
            vec![Element::new([address("10.0.0.1")]), Element::new([address("10.0.0.2")])],
        ),
        (
            Set::new("sources", [Key::Interface, Key::Ipv4]),
            vec![Element::new([link("a-name-of-15-by"), address("10.0.0.1")])],
        ),
        (Set::new("links", [Key::Interface]), vec![Element::new([link("veth0")])]),
        (Set::new("named", [Key::Ipv6, Key::Protocol, Key::Port]), vec![named]),
        (
            Set::new("networks", [Key::Ipv4]).of_intervals(),
            vec![network("10.0.0.0/15"), network("192.0.2.1/32"), network("224.0.0.0/3")],
        ),
        (
            Set::new("ports", [Key::Port]).of_intervals(),
            vec![Element::new([ports(80, 80)]), Element::new([ports(1000, 2000)])],
        ),
        (
            Set::new("from", [Key::Ipv4]).to_verdicts(),
            vec![
                Element::new([address("10.0.0.1")]).leading_to(Verdict::Accept),
                Element::new([address("10.0.0.2")]).leading_to(goto()),
            ],
        ),
        (
            Set::new("flows4", [Key::Ipv4, Key::Ipv4, Key::Protocol, Key::Port]).of_intervals(),
            ["10.0.0.0/24", "127.0.0.1/32"].map(|from| flow_from(from, "10.0.0.2")).into(),
        ),
        (
            Set::new("flows6", [Key::Ipv6, Key::Ipv6, Key::Protocol, Key::Port]).of_intervals(),
            vec![flow_from("::/0", "fd00::2")],
        ),
        (
            Set::new("to4", [Key::Ipv4, Key::Protocol, Key::Port])
                .to_values([Key::Ipv4, Key::Port])
                .commented("where to"),
            vec![
                Element::new([address("192.0.2.1"), Value::Protocol(6), ports(8080, 8080)])
                    .leading_to_values([address("10.0.0.2"), ports(80, 80)])
                    .commented("whose"),
            ],
        ),
        (
            Set::new("to6", [Key::Protocol, Key::Port]).to_values([Key::Ipv6, Key::Port]),
            vec![
                Element::new([Value::Protocol(17), ports(8080, 8080)])
                    .leading_to_values([address("fd00::2"), ports(80, 80)])
                    .commented("c".repeat(120)),
            ],
        ),
        (
            Set::new("groups", [Key::Interface]).to_verdicts().commented("of ports"),
            vec![Element::new([link("veth0")]).leading_to(Verdict::Drop)],
        ),
    ]
}

/// Who asks for a port, from a network to an address.
fn flow_from(from: &str, to: &str) -> Element {
    let ports = |port| Value::Ports(PortRange { first: port, last: port });
    let (from, to) = (from.parse().unwrap(), Value::Address(to.parse().unwrap()));
    Element::new([Value::Network(from), to, Value::Protocol(6), ports(8080)]).commented("whose")
}

/// What a chain of nat of both families does.
fn redirections() -> Vec<Rule> {
    let local = Field::Ipv4(Side::Destination);
    let redirect = |is_ipv4, fields: &[Field], map: &str| {
        let (fields, map) = (fields.to_vec(), map.to_owned());
        Rule::new([], Statement::Redirect { is_ipv4, fields, map })
    };
    vec![
        redirect(true, &[local, Field::Protocol, Field::DestinationPort], "to4"),
        redirect(false, &[Field::Protocol, Field::DestinationPort], "to6"),
    ]
}

/// What chooses among several.
fn balanced(is_ipv4: bool) -> Vec<Rule> {
    let service = || {
        let to = Field::address(Side::Destination, is_ipv4);
        vec![to, Field::Protocol, Field::DestinationPort]
    };
    let source = || Field::address(Side::Source, is_ipv4);
    let named = |it: &str| it.to_owned();
    let redirect = |fields: Vec<Field>, map: &str| {
        let to = Statement::Redirect { is_ipv4, fields, map: map.to_owned() };
        Rule::new([Match::Protocol(6)], to)
    };
    let remembered = [
        Rule::new([Match::Translated], remember(is_ipv4, 10_800)),
        Rule::new([Match::FromLocal], remember(is_ipv4, 90_061)),
        Rule::new([], forget(is_ipv4)),
    ];
    let rules = [
        Rule::new([], Statement::SetPriority { fields: service(), map: named("pools") }),
        Rule::new([], Statement::Map(vec![Field::Priority], named("chains"))),
        redirect(vec![Field::Priority, Field::Random { below: 3 }], "endpoints"),
        redirect(vec![Field::Priority, Field::SourceHash { is_ipv4, below: 3 }], "endpoints"),
        redirect(vec![source(), Field::Priority], "affinity"),
        Rule::new([], Statement::Reject),
    ];
    // What is longer than half of the registers nft 1.0.6 cannot read, and ends (`netlink_gen_expr`).
    rules.into_iter().chain(remembered.into_iter().filter(|_| is_ipv4)).collect()
}

fn remember(is_ipv4: bool, seconds: u32) -> Statement {
    let [fields, data] = client_and_endpoint(is_ipv4);
    Statement::Remember { fields, data, map: "affinity".to_owned(), seconds }
}

fn forget(is_ipv4: bool) -> Statement {
    let [fields, data] = client_and_endpoint(is_ipv4);
    Statement::Forget { fields, data, map: "affinity".to_owned() }
}

fn client_and_endpoint(is_ipv4: bool) -> [Vec<Field>; 2] {
    let [from, to] = [Side::Source, Side::Destination].map(|it| Field::address(it, is_ipv4));
    [vec![from, Field::Priority], vec![to, Field::DestinationPort]]
}

/// What those look into.
fn balanced_sets(is_ipv4: bool) -> Vec<(Set, Vec<Element>)> {
    let (key, text) = if is_ipv4 { (Key::Ipv4, "10.0.0.1") } else { (Key::Ipv6, "fd00::1") };
    let address = || Value::Address(text.parse().unwrap());
    let port = || Value::Ports(PortRange { first: 80, last: 80 });
    let service = Element::new([address(), Value::Protocol(6), port()]);
    let goto = Verdict::Goto("other".to_owned());
    let slot = |slot| Element::new([Value::Priority(7), Value::Number(slot)]);
    let slot = |it| slot(it).leading_to_values([address(), port()]);
    let chain = Element::new([Value::Priority(0x7000_0003)]).leading_to(goto);
    vec![
        (
            Set::new("pools", [key, Key::Protocol, Key::Port]).to_values([Key::Priority]),
            vec![service.leading_to_values([Value::Priority(7)])],
        ),
        (Set::new("counted", [key, Key::Protocol]).to_values([Key::Priority]).counted(), vec![]),
        (Set::new("chains", [Key::Priority]).to_verdicts(), vec![chain]),
        (
            Set::new("endpoints", [Key::Priority, Key::Number]).to_values([key, Key::Port]),
            vec![slot(0), slot(258)],
        ),
        (
            Set::new("affinity", [key, Key::Priority])
                .to_values([key, Key::Port])
                .of_packets(65_535)
                .commented("who was where"),
            vec![],
        ),
    ]
}

/// By the program, in its own words.
fn by_nft(table: Table<'_>, chains: &[Chain<'_>], sets: &[(Set, Vec<Element>)], rules: &[Rule]) {
    let mut text = format!("table {table} {{ comment \"a table\"\n");
    for chain in chains {
        let base = chain.base.map(|it| it.to_string()).unwrap_or_default();
        let comment = chain.comment.map(|it| format!("comment \"{it}\"\n")).unwrap_or_default();
        text += &format!("chain {} {{ {comment}{base}\n}}\n", chain.name);
    }
    for (set, _) in sets {
        text += &format!("{set}\n");
    }
    text += "}\n";
    for (set, elements) in sets.iter().filter(|(_, it)| !it.is_empty()) {
        let elements: Vec<_> = elements.iter().map(ToString::to_string).collect();
        text += &format!("add element {table} {} {{ {} }}\n", set.name, elements.join(", "));
    }
    for rule in rules {
        text += &format!("add rule {table} {CHAIN} {rule}\n");
    }
    run("nft", &["-f", "-"], &text);
}

/// Has the program make a table anew of what it lists.
fn restore_by_nft(table: Table<'_>) {
    let [listed, _] = shown(table);
    run("nft", &["-f", "-"], &format!("delete table {table}\n{listed}"));
}

#[test]
fn tables_are_what_nft_would_write() {
    move_away();
    let mut client = Client::open().unwrap().expect("the kernel has nf_tables");
    for family in [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge, Family::Netdev] {
        let has_nat = !matches!(family, Family::Bridge | Family::Netdev);
        let kind = if has_nat { Kind::Nat } else { Kind::Filter };
        let (first, last) = match family {
            Family::Netdev => (Hook::Ingress("lo"), Hook::Egress("lo")),
            _ => (Hook::Prerouting, Hook::Postrouting),
        };
        // A chain of nat may not.
        let policy = if has_nat { Policy::Accept } else { Policy::Drop };
        let base = |hook, priority, policy| Some(Base { kind, hook, priority, policy });
        let chains = [
            Chain { name: "other", base: None, comment: None },
            Chain { name: CHAIN, base: None, comment: Some("some checks") },
            Chain { name: "in", base: base(first, -7, policy), comment: None },
            Chain { name: "out", base: base(last, 7, Policy::Accept), comment: Some("last") },
        ];
        let mut rules = rules(family);
        if has_nat {
            let ports = Some(PortRange { first: 1024, last: 2047 });
            let to = Statement::Masquerade { random_fully: true, to_ports: ports };
            rules.push(Rule::new([Match::Protocol(6)], to));
            rules.push(Rule::new([], Statement::MASQUERADE));
            rules.extend(match family {
                Family::Inet => redirections(),
                _ => balanced(family == Family::Ip),
            });
        }
        let table = Table { family, name: "t" };
        let sets = match family {
            Family::Inet => sets(),
            Family::Ip | Family::Ip6 => balanced_sets(family == Family::Ip),
            Family::Bridge | Family::Netdev => Vec::new(),
        };
        by_nft(table, &chains, &sets, &rules);
        let wanted = shown(table);
        run("nft", &["-f", "-"], &format!("delete table {table}\n"));
        let changes = [Change::Table(Some("a table"))].into_iter();
        let changes = changes.chain(chains.iter().map(Change::Chain));
        let changes = changes.chain(sets.iter().map(|it| Change::Set(&it.0)));
        let encoded: Vec<_> = sets
            .iter()
            .map(|(set, elements)| {
                (set, elements.iter().flat_map(|it| set.encode(it)).collect::<Vec<_>>())
            })
            .collect();
        let changes =
            changes.chain(encoded.iter().map(|(set, it)| Change::Elements(&set.name, it)));
        let changes: Vec<_> =
            changes.chain(rules.iter().map(|rule| Change::Rule(CHAIN, rule))).collect();
        client.change(table, &changes).unwrap();
        assert_eq!(shown(table), wanted, "{table}");
        for (set, elements) in &encoded {
            let held = client.elements(table, &set.name).unwrap();
            assert_eq!(
                held.into_iter().collect::<BTreeSet<_>>(),
                elements.iter().cloned().collect(),
                "{set}"
            );
            assert!(client.sets(table).unwrap().iter().any(|it| it.is_like(set)), "{set}");
        }
        // What nft has saved and restored is the same to the kernel.
        restore_by_nft(table);
        let again: Vec<_> = sets.iter().map(|it| Change::Set(&it.0)).collect();
        client.change(table, &again).unwrap();
        assert_eq!(shown(table), wanted, "{table} restored");
        // And its text is nft's: what is listed is what the rules print.
        for rule in &rules {
            assert!(wanted[0].contains(&format!("\t\t{rule}\n")), "{rule}\n{}", wanted[0]);
        }
    }
}

#[test]
fn packets_of_ipv6_are_remembered() {
    move_away();
    let mut client = Client::open().unwrap().expect("the kernel has nf_tables");
    let table = Table { family: Family::Ip6, name: "t" };
    let sets = balanced_sets(false);
    let chain = Chain { name: CHAIN, base: None, comment: None };
    let rule = Rule::new([], remember(false, 3));
    let (affinity, _) = sets.last().unwrap();
    let changes = [
        Change::Table(None),
        Change::Set(affinity),
        Change::Chain(&chain),
        Change::Rule(CHAIN, &rule),
    ];
    client.change(table, &changes).unwrap();
    let [listed, _] = shown(table);
    assert!(listed.contains(&format!("\t\t{rule}\n")), "{rule}\n{listed}");
}

#[test]
fn more_refusals_than_a_socket_holds_tell_the_first() {
    let mut client = nf_tables();
    let table = Table { family: Family::Ip, name: CHAIN };
    let made = [Change::Table(None), Change::Set(&Set::new("all", [Key::Ipv4]))];
    client.change(table, &made).unwrap();
    let names: Vec<_> = (0..20_000).map(|it| format!("chain-{it}")).collect();
    let gone: Vec<_> = names.iter().map(|it| Change::Empty(it)).collect();
    let error = client.change(table, &gone).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOENT));
    assert!(error.to_string().contains("\"chain-0\""), "{error}");
    // What is left of the answers is not taken for that to another question.
    assert_eq!(client.sets(table).unwrap().len(), 1);
    client.remove(table).unwrap();
    assert!(!client.has_table(table).unwrap());
}
