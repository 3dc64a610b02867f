//! Which of the rules of nf_tables apply to the traffic between two addresses, and where they lead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use ruleset::nft::{Element, Field, Match, Rule, Statement, Value};

use super::super::walk::{Step, Way};
use crate::nftables::label_of;
use crate::plan::HostInterface;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Those of these rules that packets may meet that go this way; `maps` are all that rules look into.
pub(super) fn steps(
    way: &Way<'_>,
    rules: &[Rule],
    maps: &BTreeMap<&str, BTreeSet<Element>>,
) -> Vec<Step> {
    let rules = rules.iter().filter(|rule| rule.matches.iter().all(|it| can_be(way, it)));
    rules.map(|it| step(way, it, maps)).collect()
}

fn step(way: &Way<'_>, rule: &Rule, maps: &BTreeMap<&str, BTreeSet<Element>>) -> Step {
    let label = rule.comment.as_deref().and_then(label_of).map(str::to_owned);
    let mut step = Step { label, ..Step::default() };
    step.sets.extend(rule.matches.iter().filter_map(|it| match it {
        Match::In(_, set) | Match::NotIn(_, set) | Match::DestinationPortIn(_, set) => {
            Some(set.clone())
        }
        _ => None,
    }));
    match &rule.statement {
        Statement::Verdict(verdict) => step.chains.extend(verdict.chain().map(str::to_owned)),
        Statement::Map(fields, map) if can_have(way, fields) => {
            step.sets.push(map.clone());
            let elements = maps.get(map.as_str()).into_iter().flatten();
            let found = elements.filter(|it| has(way, fields, &it.key));
            let verdicts = found.filter_map(|it| it.verdict.as_ref()?.chain());
            step.chains.extend(verdicts.map(str::to_owned));
        }
        _ => {}
    }
    step
}

/// Whether this can be true of a packet that goes this way.
fn can_be(way: &Way<'_>, it: &Match) -> bool {
    let is_ipv4 = way.source.is_ipv4();
    match it {
        Match::Family { is_ipv4: wanted } => *wanted == is_ipv4,
        Match::Address(side, network) => network.contains(way.address(*side)),
        Match::NotAddress(side, network) => {
            network.is_ipv4() == is_ipv4 && !network.contains(way.address(*side))
        }
        Match::Protocol(ICMP) | Match::Fragment => is_ipv4,
        Match::Protocol(ICMPV6)
        | Match::Icmp6Type(_)
        | Match::HopLimit(_)
        | Match::FragmentHeader => !is_ipv4,
        Match::In(fields, _) | Match::NotIn(fields, _) => can_have(way, fields),
        Match::InInterface(name) => way.interface.is_some_and(|it| is_of(it, name)),
        _ => true,
    }
}

/// Whether a packet that goes this way has them: of addresses, those of its family.
fn can_have(way: &Way<'_>, fields: &[Field]) -> bool {
    fields.iter().all(|it| match it {
        Field::Ipv4(_) | Field::Network { is_ipv4: true, .. } => way.source.is_ipv4(),
        Field::Ipv6(_) | Field::Network { is_ipv4: false, .. } => way.source.is_ipv6(),
        _ => true,
    })
}

/// Whether these fields of it have these values.
fn has(way: &Way<'_>, fields: &[Field], values: &[Value]) -> bool {
    let is_address = |address: IpAddr, value: &Value| *value == Value::Address(address);
    let is_interface = |interface: Option<&HostInterface>, value: &Value| match value {
        Value::Interface(name) => interface.is_some_and(|it| is_of(it, name)),
        _ => false,
    };
    fields.iter().zip(values).all(|(field, value)| match field {
        Field::Ipv4(side) | Field::Ipv6(side) => is_address(way.address(*side), value),
        Field::Network { side, prefix, .. } => IpNetwork::new(way.address(*side), *prefix)
            .is_ok_and(|it| is_address(it.network(), value)),
        Field::InInterface => is_interface(way.interface, value),
        Field::OutInterface => is_interface(way.to, value),
        Field::Protocol | Field::DestinationPort => true,
        // policyd's rules look up none of these.
        Field::Priority | Field::Random { .. } | Field::SourceHash { .. } => true,
    })
}

/// A frame comes by the port of the bridge, and what is in it by the bridge.
fn is_of(interface: &HostInterface, name: &str) -> bool {
    interface.name == name || interface.routed_by() == name
}

#[cfg(test)]
mod tests {
    use ruleset::iptables::Side;
    use ruleset::nft::Verdict;

    use super::*;

    const SOURCE: Field = Field::Ipv4(Side::Source);

    fn rules() -> Vec<Rule> {
        let from = |network: &str| Match::Address(Side::Source, network.parse().unwrap());
        let jump =
            |matches: Vec<Match>, chain: &str| Rule::new(matches, Verdict::Jump(chain.to_owned()));
        vec![
            jump(vec![from("10.0.0.0/8")], "own"),
            jump(vec![from("10.2.0.0/16")], "others"),
            jump(vec![Match::Protocol(58)], "discovery"),
            jump(vec![Match::InInterface("veth1".to_owned())], "interface"),
            jump(vec![Match::InInterface("lo".to_owned())], "loopback"),
            Rule::new([Match::In(vec![SOURCE], "peers".to_owned())], Verdict::Accept)
                .commented("podwire:abc d/p ingress 0"),
            Rule::new(
                [Match::In(vec![Field::Ipv6(Side::Source)], "six".to_owned())],
                Verdict::Drop,
            ),
            Rule::new([], Statement::Map(vec![SOURCE], "from".to_owned())),
            Rule::new([], Statement::Map(vec![Field::OutInterface], "groups".to_owned())),
        ]
    }

    fn leading(key: Value, chain: &str) -> Element {
        Element::new([key]).leading_to(Verdict::Goto(chain.to_owned()))
    }

    #[test]
    fn rules_lead_on_what_they_may_apply_to() {
        let address = |it: &str| it.parse().unwrap();
        let veth = HostInterface { name: "veth1".to_owned(), bridge: None };
        let port = HostInterface { name: "veth2".to_owned(), bridge: Some("br0".to_owned()) };
        let way = Way {
            source: address("10.1.0.2"),
            destination: address("10.1.0.3"),
            interface: Some(&veth),
            to: Some(&port),
        };
        let of_address = |it: &str, chain: &str| leading(Value::Address(address(it)), chain);
        let of_port = |it: &str, chain: &str| leading(Value::Interface(it.to_owned()), chain);
        let maps = BTreeMap::from([
            ("from", [of_address("10.1.0.2", "of-a"), of_address("10.1.0.9", "of-c")].into()),
            ("groups", [of_port("veth2", "to-b"), of_port("veth9", "to-c")].into()),
        ]);
        let steps = steps(&way, &rules(), &maps);
        let chains: Vec<_> = steps.iter().flat_map(|it| &it.chains).collect();
        assert_eq!(chains, ["own", "interface", "of-a", "to-b"]);
        let sets: Vec<_> = steps.iter().flat_map(|it| &it.sets).collect();
        assert_eq!(sets, ["peers", "from", "groups"]);
        let labels: Vec<_> = steps.iter().filter_map(|it| it.label.as_deref()).collect();
        assert_eq!(labels, ["d/p ingress 0"]);
    }
}
