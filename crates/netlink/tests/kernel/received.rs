//! Chains of single interfaces, and rules that are found again.

use netlink::nftables::{Change, Client};
use ruleset::nft::{
    Base, Chain, Family, Hook, Kind, Match, Policy, Rule, Statement, Table, Verdict,
};

use crate::space::{names, nf_tables, nft};

const TABLE: Table<'static> = Table { family: Family::Netdev, name: "mine" };

fn base(interface: &str, priority: i32) -> Base<'_> {
    let (hook, policy) = (Hook::Ingress(interface), Policy::Accept);
    Base { kind: Kind::Filter, hook, priority, policy }
}

#[test]
fn chains_are_told_by_the_interface_that_they_are_called_for() {
    let mut client = nf_tables();
    assert!(client.receiving(TABLE, "lo").unwrap().is_empty());
    nft("
table netdev mine {
           chain one { type filter hook ingress device lo priority -7; policy drop; }
           chain two { type filter hook ingress device lo priority 7; }
           chain out { type filter hook egress device lo priority 7; }
           chain nobody { }
         }
         table netdev other {
           chain three { type filter hook ingress device lo priority 0; }
         }");
    assert_eq!(client.receiving(TABLE, "lo").unwrap(), names(&["one", "two"]));
    assert!(client.receiving(TABLE, "gone").unwrap().is_empty());
    let one = client.chain(TABLE, "one").unwrap().unwrap();
    // Whatever its policy, and the interface.
    assert!(one.is_called_at(&base("other", -7)) && !one.is_called_at(&base("lo", 7)));
    assert!(one.is_at(Hook::Ingress("lo")) && !one.is_at(Hook::Egress("lo")));
    let nobody = client.chain(TABLE, "nobody").unwrap().unwrap();
    assert!(!nobody.is_called_at(&base("lo", 0)) && !nobody.is_at(Hook::Ingress("lo")));
    assert_eq!(client.chain(TABLE, "gone").unwrap(), None);
    client.remove(TABLE).unwrap();
    assert_eq!(client.chain(TABLE, "one").unwrap(), None);
}

#[test]
fn a_rule_is_found_by_all_that_it_asks_and_does() {
    let mut client: Client = nf_tables();
    let rule = |link, to| {
        let forward = Statement::Forward { link: to, name: "lo".to_owned() };
        Rule::new([Match::InLink { link, name: "lo".to_owned() }], forward)
    };
    let chain = Chain { name: "one", base: Some(base("lo", 0)), comment: None };
    let held = rule(1, 1).commented("whose");
    let changes = [Change::Table(None), Change::Chain(&chain), Change::Rule("one", &held)];
    client.change(TABLE, &changes).unwrap();
    let mut has = |chain, rule: &Rule| client.has_rule(TABLE, chain, rule).unwrap();
    assert!(has("one", &held) && has("one", &rule(1, 1)));
    assert!(!has("one", &rule(2, 1)) && !has("one", &rule(1, 2)) && !has("two", &held));
    let (asks, does) = (held.matches.clone(), held.statement.clone());
    assert!(!has("one", &Rule::new([], does)) && !has("one", &Rule::new(asks, Verdict::Drop)));
}
