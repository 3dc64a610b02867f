//! What we write as rules of iptables is what its programs would write, as far as they and the kernel can tell.

use netlink::nftables::{Batch, Change, Client, IptablesRule};
use nix::errno::Errno;
use ruleset::iptables::{Match, Packets, PortRange, Rule, Side, Target};
use ruleset::nft::{Chain, Family, Table};

use crate::space::{nf_tables, run};

/// The programs of a family, and an address, a network that does not end with a byte, and one that does.
struct Programs {
    restore: &'static str,
    save: &'static str,
    family: Family,
    addresses: [&'static str; 3],
    target: &'static str,
}

const PROGRAMS: [Programs; 2] = [
    Programs {
        restore: "iptables-restore",
        save: "iptables-save",
        family: Family::Ip,
        addresses: ["10.1.0.2/32", "10.1.16.0/20", "10.1.2.0/24"],
        target: "10.1.0.2:80",
    },
    Programs {
        restore: "ip6tables-restore",
        save: "ip6tables-save",
        family: Family::Ip6,
        addresses: ["fd00::2/128", "fd00::/61", "fd00::/64"],
        target: "[fd00::2]:80",
    },
];

/// Rules that can be in a chain to which this hook of a table leads.
struct Case {
    table: &'static str,
    hook: &'static str,
    rules: Vec<Rule>,
    /// Whether the programs write them as is done here, or only read them.
    are_written_so: bool,
}

fn comment(text: &str) -> Match {
    Match::Comment(text.to_owned())
}

fn port(protocol: &'static str, first: u16, last: u16) -> Match {
    Match::DestinationPort(protocol, PortRange { first, last })
}

fn ports(ports: &[(u16, u16)]) -> Match {
    let ranges = ports.iter().map(|(first, last)| PortRange { first: *first, last: *last });
    Match::DestinationPorts(ranges.collect())
}

impl Programs {
    fn cases(&self) -> [Case; 4] {
        let [address, part, bytes] = self.addresses.map(|it| it.parse().unwrap());
        let from = |network| Match::Address(Side::Source, network);
        let to = |network| Match::Address(Side::Destination, network);
        let not_to = |network| Match::NotAddress(Side::Destination, network);
        let established = Match::Connection(Packets::Established);
        let (name, longest) = (|| "br0".to_owned(), || "a-name-of-15-by".to_owned());
        let (lead, masquerade) = (
            || Target::Jump("other".to_owned()),
            || Target::Masquerade { random_fully: false, to_ports: None },
        );
        let fifteen: Vec<_> = (1..=15).map(|it| (it, it)).collect();
        let filter = vec![
            Rule::new([from(address)], Target::Accept),
            Rule::new([to(address), established], Target::Accept),
            Rule::new([from(part), not_to(address)], Target::Return),
            Rule::new([comment("plain")], lead()),
            Rule::new([comment(&"c".repeat(255))], lead()),
            Rule::new([Match::InInterface(name()), Match::NotOutInterface(name())], lead()),
            Rule::new([Match::OutInterface(longest()), comment("a b")], Target::Drop),
            Rule::new([Match::Protocol("tcp"), comment("c"), ports(&[(80, 80), (5, 6)])], lead()),
            Rule::new([Match::Protocol("udp"), ports(&fifteen)], lead()),
            Rule::new([port("sctp", 53, 54)], Target::Return),
        ];
        let postrouting = vec![
            Rule::new([not_to(part), comment("n \"1\" id: it's \\")], masquerade()),
            // As newer programs write it, and older ones.
            Rule::new([Match::Mark(0x2000)], masquerade()),
            Rule::new([], Target::SetMark(0x8000_0000)),
        ];
        let output = vec![
            Rule::new([port("sctp", 53, 53)], Target::Translate(self.target.parse().unwrap())),
            Rule::new([Match::LocalAddress(Side::Destination)], lead()),
            Rule::new([Match::LocalAddress(Side::Source)], lead()),
        ];
        let newer = vec![
            Rule::new([from(bytes), port("tcp", 8080, 8080)], Target::Return),
            Rule::new([port("udp", 5, 6)], Target::Accept),
        ];
        [
            Case { table: "filter", hook: "FORWARD", rules: filter, are_written_so: true },
            Case { table: "nat", hook: "POSTROUTING", rules: postrouting, are_written_so: true },
            Case { table: "nat", hook: "OUTPUT", rules: output, are_written_so: true },
            Case { table: "filter", hook: "INPUT", rules: newer, are_written_so: false },
        ]
    }

    fn restore(&self, table: &str, lines: impl Iterator<Item = String>) {
        let lines = lines.collect::<Vec<_>>().join("\n");
        run(self.restore, &["--noflush"], &format!("*{table}\n{lines}\nCOMMIT\n"));
    }

    /// The rules of a chain as the programs tell them, with their counters.
    fn saved(&self, table: &str, chain: &str) -> Vec<String> {
        let text = run(self.save, &["-t", table, "-c"], "");
        let start = format!("[0:0] -A {chain} ");
        text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }
}

#[test]
fn rules_are_those_that_the_programs_would_write() {
    let mut client = nf_tables();
    for programs in &PROGRAMS {
        for case in programs.cases() {
            let Case { table, hook, rules, are_written_so } = case;
            let [theirs, ours] = ["THEIRS", "OURS"].map(|name| format!("{name}-{hook}"));
            let made = ["other", &theirs, &ours].map(|it| format!(":{it} - [0:0]")).into_iter();
            let led_to = [&theirs, &ours].map(|it| format!("-A {hook} -j {it}"));
            let written = rules.iter().map(|rule| format!("-A {theirs} {rule}"));
            programs.restore(table, made.chain(led_to).chain(written));
            let of_kernel = Table { family: programs.family, name: table };
            let encoded = rules.iter().map(|it| {
                IptablesRule::new(programs.family == Family::Ip, it).expect("it is known")
            });
            let encoded: Vec<IptablesRule> = encoded.collect();
            let changes: Vec<_> =
                encoded.iter().map(|it| Change::IptablesRule(&ours, it)).collect();
            client.change(of_kernel, &changes).unwrap();

            // For the programs there is no difference, and the words are theirs.
            let texts: Vec<_> = rules.iter().map(ToString::to_string).collect();
            assert_eq!(programs.saved(table, &ours), texts);
            assert_eq!(programs.saved(table, &theirs), texts);
            // For the kernel there is none either.
            for (rule, text) in encoded.iter().zip(&texts) {
                let mut has = |chain| client.has_iptables_rule(of_kernel, chain, rule).unwrap();
                assert!(has(&ours), "{text}");
                assert_eq!(has(&theirs), are_written_so, "{text}");
            }
            // By the words that made theirs the programs find ours, and delete them.
            for verb in ["-C", "-D"] {
                programs.restore(table, texts.iter().map(|it| format!("{verb} {ours} {it}")));
            }
            assert_eq!(client.rules(of_kernel, &ours).unwrap(), []);
        }
    }
}

#[test]
fn what_is_like_and_what_is_not() {
    let mut client = nf_tables();
    let table = Table { family: Family::Ip, name: "nat" };
    let rule = |text: &str, chain: &str| {
        let rule = Rule::new([comment(text)], Target::Jump(chain.to_owned()));
        IptablesRule::new(true, &rule).unwrap()
    };
    let (one, other) = (rule("one", "B"), rule("other", "B"));
    assert!(!client.has_iptables_rule(table, "A", &one).unwrap());
    run("iptables-restore", &["--noflush"], "*nat\n-N A\n-N B\n-N C\nCOMMIT\n");
    client.change(table, &[Change::IptablesRule("A", &one)]).unwrap();
    for (wanted, is_there) in
        [(&one, true), (&other, false), (&rule("one", "C"), false), (&rule("on", "B"), false)]
    {
        assert_eq!(client.has_iptables_rule(table, "A", wanted).unwrap(), is_there, "{wanted:?}");
    }
    // One that has more, or less.
    let more = [Match::Protocol("tcp"), comment("one")];
    for rule in [
        Rule::new(more, Target::Jump("B".to_owned())),
        Rule::new([], Target::Jump("B".to_owned())),
        Rule::new([comment("one")], Target::Accept),
    ] {
        let rule = IptablesRule::new(true, &rule).unwrap();
        assert!(!client.has_iptables_rule(table, "A", &rule).unwrap(), "{rule:?}");
    }
}

#[test]
fn only_what_is_known_is_written() {
    let jump = || Target::Jump("A".to_owned());
    for (matches, target) in [
        (vec![Match::Words("-m owner --uid-owner 0".to_owned())], jump()),
        (vec![Match::Protocol("dccp")], jump()),
        (vec![Match::InInterface("veth+".to_owned())], jump()),
        (vec![Match::OutInterface("a-name-of-16-byt".to_owned())], jump()),
        (vec![comment(&"c".repeat(256))], jump()),
        (vec![Match::DestinationPorts(vec![PortRange { first: 1, last: 2 }; 8])], jump()),
        (vec![Match::Address(Side::Source, "fd00::2".parse().unwrap())], jump()),
        (vec![], Target::Translate("[fd00::2]:80".parse().unwrap())),
        (vec![], Target::Masquerade { random_fully: true, to_ports: None }),
    ] {
        let rule = Rule::new(matches, target);
        assert_eq!(IptablesRule::new(true, &rule), None, "{rule}");
    }
}

#[test]
fn changes_of_an_older_generation_are_refused() {
    let mut client = nf_tables();
    let table = Table { family: Family::Ip, name: "nat" };
    let generation = client.generation().unwrap().unwrap();
    let made = |client: &mut Client, name: &str| {
        let mut batch = Batch::of_generation(generation);
        batch.push(table, &Change::Table(None));
        batch.push(table, &Change::Chain(&Chain { name, base: None, comment: None }));
        client.commit(&batch, "make a chain").map_err(|error| error.errno())
    };
    assert_eq!(made(&mut client, "A"), Ok(()));
    assert_eq!(made(&mut client, "B"), Err(Some(Errno::ERESTART)));
    assert_eq!(client.chains(table).unwrap(), Some(vec!["A".to_owned()]));
}
