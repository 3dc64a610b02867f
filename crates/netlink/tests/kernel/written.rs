//! What we write to nf_tables is what the program nft would write.

use netlink::nftables::{Change, Client};
use ruleset::iptables::Side;
use ruleset::nft::{Base, Chain, Family, Hook, Kind, Match, Policy, Rule, Table, Verdict};

use crate::space::{move_away, run};

const CHAIN: &str = "checks";

/// The table as nft shows it, and the bytecode of its rules.
fn shown(table: Table<'_>) -> [String; 2] {
    let table = table.to_string();
    let words: Vec<&str> = table.split(' ').collect();
    let list = |options: &[&str]| run("nft", &[options, &["list", "table"], &words].concat(), "");
    [list(&["--stateless"]), list(&["--stateless", "--debug=netlink"])]
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
        Family::Inet => [four, six].concat().into_iter().chain(any).collect(),
        Family::Bridge => {
            let source = Match::HardwareSource([2, 0, 0, 0, 0, 1]);
            let rules =
                [Rule::new([source], Verdict::Return), Rule::new([interface], Verdict::Drop)];
            rules.into_iter().chain(any).collect()
        }
        Family::Netdev => {
            let all = ["0.0.0.0/0", "::/0"].map(|it| address(Side::Source, it));
            let all = all.map(|it| Rule::new([it], Verdict::CountedDrop));
            let bytes: [&[u8]; 2] = [&[58], &[58, 0, 5, 2, 0, 0, 1, 0]];
            let bytes = bytes.map(|it| Match::HeaderBytes { place: 40, value: it.to_owned() });
            let local = |it| Rule::new([address(Side::Source, "fe80::/10"), it], Verdict::Return);
            let part = address(Side::Source, "10.0.0.2");
            let part = vec![part, Match::Protocol(1), Match::Fragment];
            let other = address(Side::Source, "fd00::2");
            let other = vec![other, Match::Protocol(58), Match::FragmentHeader];
            let first = vec![Match::FirstByte(135)];
            let all = all
                .into_iter()
                .chain(bytes.map(local))
                .chain([part, other, first].map(|it| Rule::new(it, Verdict::Drop)))
                .chain([Rule::new([Match::Arp], Verdict::Return)]);
            [four, six].concat().into_iter().chain(all).chain(any).collect()
        }
    }
}

/// By the program, in its own words.
fn by_nft(table: Table<'_>, chains: &[Chain<'_>], rules: &[Rule]) {
    let mut text = format!("table {table} {{ comment \"a table\"\n");
    for chain in chains {
        let base = chain.base.map(|it| it.to_string()).unwrap_or_default();
        let comment = chain.comment.map(|it| format!("comment \"{it}\"\n")).unwrap_or_default();
        text += &format!("chain {} {{ {comment}{base}\n}}\n", chain.name);
    }
    text += "}\n";
    for rule in rules {
        text += &format!("add rule {table} {CHAIN} {rule}\n");
    }
    run("nft", &["-f", "-"], &text);
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
            rules.push(Rule::new([], Verdict::Masquerade));
        }
        let table = Table { family, name: "t" };
        by_nft(table, &chains, &rules);
        let wanted = shown(table);
        run("nft", &["-f", "-"], &format!("delete table {table}\n"));
        let changes = [Change::Table(Some("a table"))].into_iter();
        let changes = changes.chain(chains.iter().map(Change::Chain));
        let changes: Vec<_> =
            changes.chain(rules.iter().map(|rule| Change::Rule(CHAIN, rule))).collect();
        client.change(table, &changes).unwrap();
        assert_eq!(shown(table), wanted, "{table}");
        // And its text is nft's: what is listed is what the rules print.
        for rule in &rules {
            assert!(wanted[0].contains(&format!("\t\t{rule}\n")), "{rule}\n{}", wanted[0]);
        }
    }
}
