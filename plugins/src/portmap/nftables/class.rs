//! What attachments share that have the same conditions and the same bit of the mark.

use std::collections::BTreeMap;

use netlink::nftables::{Change, HeldRule};
use ruleset::iptables::Side;
use ruleset::nft::{
    Base, Chain, Family, Field, Hook, Kind, Match, Policy, Rule, Set, Statement, Table, Verdict,
};
use ruleset::short_hash;

use super::elements::Part;
use crate::portmap::conf::{Conditions, Conf, DEFAULT_MARK_BIT};

/// The table of both families.
pub(in crate::portmap) const TABLE: Table<'static> =
    Table { family: Family::Inet, name: "podwire-portmap" };
const TABLE_COMMENT: &str = "ports of the host that lead to containers (podwire)";
/// Behind those who translate the addresses of Services (`dstnat` is -100), whichever came first: the like of
/// CVE-2019-9946.
const BEHIND_SERVICES: i32 = -90;
/// `srcnat`.
const SOURCE_TRANSLATION: i32 = 100;
/// `raw`: before connections are tracked.
const RAW: i32 = -300;

const fn chain(
    name: &'static str,
    kind: Kind,
    hook: Hook<'static>,
    priority: i32,
) -> Chain<'static> {
    let base = Base { kind, hook, priority, policy: Policy::Accept };
    Chain { name, base: Some(base), comment: None }
}

/// What comes in.
pub(in crate::portmap) const PREROUTING: Chain<'static> =
    chain("prerouting", Kind::Nat, Hook::Prerouting, BEHIND_SERVICES);
/// What the host sends itself.
const OUTPUT: Chain<'static> = chain("output", Kind::Nat, Hook::Output, BEHIND_SERVICES);
/// What goes out.
const POSTROUTING: Chain<'static> =
    chain("postrouting", Kind::Nat, Hook::Postrouting, SOURCE_TRANSLATION);
/// Packets to the host's loopback that are not its own: `route_localnet` would have the kernel take them from
/// containers (the like of CVE-2020-8558).
const LOOPBACK: Chain<'static> = chain("loopback", Kind::Filter, Hook::Prerouting, RAW);
const BASES: [Chain<'static>; 4] = [PREROUTING, OUTPUT, POSTROUTING, LOOPBACK];

/// The chain that leads to containers, and what the names of the other classes' begin with.
const HOSTPORTS: &str = "hostports";

/// Attachments with the same conditions and the same bit of the mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    /// What the names of its chain, sets and maps end with: nothing for the usual one.
    pub(super) suffix: String,
    /// Its chain.
    chain: String,
    /// Its rules, each with the chain that it is in.
    rules: Vec<(String, Rule)>,
}

impl Class {
    /// That of a configuration.
    pub(super) fn of(conf: &Conf) -> Self {
        let bit = 1_u32 << conf.mark_bit;
        let none = [Vec::new(), Vec::new()];
        let conditions = match &conf.conditions {
            Conditions::Nftables(conditions) => conditions,
            Conditions::Iptables(_) => &none,
        };
        let is_usual = conf.mark_bit == DEFAULT_MARK_BIT && conditions.iter().all(Vec::is_empty);
        let suffix = if is_usual {
            String::new()
        } else {
            let words = |it: &Vec<Match>| it.iter().map(ToString::to_string).collect::<Vec<_>>();
            let [four, six] = conditions.each_ref().map(words);
            format!("-{}", short_hash(&format!("{bit} {} / {}", four.join(" "), six.join(" "))))
        };
        let chain = format!("{HOSTPORTS}{suffix}");
        let mut it = Self { rules: Vec::new(), chain, suffix };
        it.write(bit, conditions);
        it
    }

    /// The class whose sets have such names, as far as its rules do not matter.
    pub(super) fn named(suffix: &str) -> Self {
        let suffix = suffix.to_owned();
        Self { chain: format!("{HOSTPORTS}{suffix}"), suffix, rules: Vec::new() }
    }

    /// Whether it is the one that stays without attachments.
    pub(super) fn is_usual(&self) -> bool {
        self.suffix.is_empty()
    }

    fn write(&mut self, bit: u32, conditions: &[Vec<Match>; 2]) {
        for hook in [&PREROUTING, &OUTPUT] {
            let jump = || Verdict::Jump(self.chain.clone());
            let rules: Vec<Rule> = if conditions.iter().all(Vec::is_empty) {
                vec![Rule::new([Match::ToLocal], jump())]
            } else {
                let of_family =
                    conditions.iter().zip([true, false]).map(|(conditions, is_ipv4)| {
                        let mut matches = vec![Match::Family { is_ipv4 }];
                        matches.extend(conditions.iter().cloned());
                        matches.push(Match::ToLocal);
                        Rule::new(matches, jump())
                    });
                of_family.collect()
            };
            rules.into_iter().for_each(|rule| self.push(hook.name, rule));
        }
        let chain = self.chain.clone();
        for is_ipv4 in [true, false] {
            let to = Field::address(Side::Destination, is_ipv4);
            let port = [Field::Protocol, Field::DestinationPort];
            let from = [&[Field::address(Side::Source, is_ipv4), to][..], &port].concat();
            let set = Part::Masqueraded { is_ipv4 }.name(&self.suffix);
            self.push(&chain, Rule::new([Match::In(from, set)], Statement::SetMark(bit)));
            let with_address = [&[to][..], &port].concat();
            for (part, fields) in [
                (Part::Addresses { is_ipv4 }, with_address),
                (Part::Ports { is_ipv4 }, port.to_vec()),
            ] {
                let map = part.name(&self.suffix);
                self.push(&chain, Rule::new([], Statement::Redirect { is_ipv4, fields, map }));
            }
        }
        self.push(POSTROUTING.name, Rule::new([Match::Mark(bit)], Statement::MASQUERADE));
        let from_elsewhere = Match::NotInInterface("lo".to_owned());
        let loopback = "127.0.0.0/8".parse().map(|it| Match::Address(Side::Destination, it));
        if let (true, Ok(loopback)) = (self.is_usual(), loopback) {
            self.push(LOOPBACK.name, Rule::new([from_elsewhere, loopback], Verdict::Drop));
        }
    }

    /// Each rule carries a hash of itself, behind the name of the class.
    fn push(&mut self, chain: &str, rule: Rule) {
        let comment = format!("{} {}", self.chain, short_hash(&rule.to_string()));
        self.rules.push((chain.to_owned(), rule.commented(comment)));
    }

    fn has(&self, rule: &HeldRule) -> bool {
        let comment = rule.comment.as_deref().and_then(|it| it.strip_prefix(&self.chain));
        comment.is_some_and(|rest| rest.starts_with(' '))
    }

    /// Whether the kernel holds its rules, and no others of it.
    pub(super) fn is_whole(&self, held: &BTreeMap<String, Vec<HeldRule>>) -> bool {
        let mut chains: Vec<&str> = BASES.iter().map(|it| it.name).collect();
        chains.push(&self.chain);
        chains.iter().all(|chain| {
            let held = held.get(*chain).into_iter().flatten().filter(|rule| self.has(rule));
            let held = held.map(|rule| rule.comment.as_deref());
            let wanted = self.rules.iter().filter(|(name, _)| name == chain);
            held.eq(wanted.map(|(_, rule)| rule.comment.as_deref()))
        })
    }

    /// Its sets and maps.
    pub(super) fn sets(&self) -> Vec<Set> {
        Part::ALL.iter().map(|part| part.set(&self.suffix)).collect()
    }

    /// Makes it, in place of what the kernel holds of it.
    pub(super) fn made<'a>(
        &'a self,
        sets: &'a [Set],
        own: &'a Chain<'a>,
        held: &'a BTreeMap<String, Vec<HeldRule>>,
    ) -> Vec<Change<'a>> {
        let mut changes = vec![Change::Table(Some(TABLE_COMMENT))];
        changes.extend(BASES.iter().map(Change::Chain));
        changes.push(Change::Chain(own));
        changes.extend(sets.iter().map(Change::Set));
        changes.extend(self.without_rules(held));
        changes.extend(self.rules.iter().map(|(chain, rule)| Change::Rule(chain, rule)));
        changes
    }

    /// Its own chain.
    pub(super) fn own_chain(&self) -> Chain<'_> {
        Chain { name: &self.chain, base: None, comment: None }
    }

    fn without_rules<'a>(
        &'a self,
        held: &'a BTreeMap<String, Vec<HeldRule>>,
    ) -> impl Iterator<Item = Change<'a>> {
        held.iter().flat_map(|(chain, rules)| {
            let ours = rules.iter().filter(|rule| self.has(rule));
            ours.map(move |rule| Change::DeleteRule(chain, rule.handle))
        })
    }

    /// Removes it, of which no attachment is left.
    pub(super) fn removed<'a>(
        &'a self,
        names: &'a [String],
        held: &'a BTreeMap<String, Vec<HeldRule>>,
    ) -> Vec<Change<'a>> {
        let mut changes: Vec<_> = self.without_rules(held).collect();
        changes.extend([Change::Empty(&self.chain), Change::DeleteChain(&self.chain)]);
        changes.extend(names.iter().map(|name| Change::DeleteSet(name)));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portmap::conf::read;
    use cni::decode::{Fields, Problems};
    use serde_json::{Value, json};

    fn class(conf: &Value) -> Class {
        let problems = Problems::default();
        Class::of(&read(&Fields::root(conf.as_object().unwrap(), &problems)))
    }

    fn texts(class: &Class) -> Vec<String> {
        let text = |(chain, rule): &(String, Rule)| {
            let rule = rule.to_string();
            format!("{chain}: {}", rule.split(" comment").next().unwrap())
        };
        class.rules.iter().map(text).collect()
    }

    #[test]
    fn a_packet_is_looked_up_whatever_number_of_ports_is_published() {
        let port = "meta l4proto . th dport";
        assert_eq!(
            texts(&class(&json!({}))),
            [
                "prerouting: fib daddr type local jump hostports".to_owned(),
                "output: fib daddr type local jump hostports".to_owned(),
                format!(
                    "hostports: ip saddr . ip daddr . {port} @masqueraded4 meta mark set meta mark | 0x00002000"
                ),
                format!("hostports: dnat ip to ip daddr . {port} map @addresses4"),
                format!("hostports: dnat ip to {port} map @ports4"),
                format!(
                    "hostports: ip6 saddr . ip6 daddr . {port} @masqueraded6 meta mark set meta mark | 0x00002000"
                ),
                format!("hostports: dnat ip6 to ip6 daddr . {port} map @addresses6"),
                format!("hostports: dnat ip6 to {port} map @ports6"),
                "postrouting: meta mark & 0x00002000 == 0x00002000 masquerade".to_owned(),
                "loopback: iifname != \"lo\" ip daddr 127.0.0.0/8 drop".to_owned(),
            ]
        );
    }

    #[test]
    fn conditions_lead_to_maps_of_their_own() {
        let class = class(&json!({"conditionsV4": ["iifname eth0"]}));
        assert_eq!(class.suffix.len(), 13);
        let chain = format!("hostports{}", class.suffix);
        let texts = texts(&class);
        assert_eq!(
            texts[..2],
            [
                format!(
                    "prerouting: meta nfproto ipv4 iifname \"eth0\" fib daddr type local jump {chain}"
                ),
                format!("prerouting: meta nfproto ipv6 fib daddr type local jump {chain}"),
            ]
        );
        assert!(texts.iter().any(|it| it.ends_with(&format!("map @ports4{}", class.suffix))));
        assert!(!texts.iter().any(|it| it.starts_with("loopback")));
        assert_ne!(class.suffix, self::class(&json!({"markMasqBit": 5})).suffix);
    }

    #[test]
    fn what_is_held_is_told_by_hashes() {
        let class = class(&json!({}));
        let mut held: BTreeMap<String, Vec<HeldRule>> = BTreeMap::new();
        for (handle, (chain, rule)) in class.rules.iter().enumerate() {
            let rules = held.entry(chain.clone()).or_default();
            let comment = rule.comment.clone();
            rules.push(HeldRule { handle: handle as u64, comment, packets: None });
        }
        assert!(class.is_whole(&held));
        // Those of other classes do not count.
        let other = HeldRule { handle: 99, comment: Some("hostports-x y".into()), packets: None };
        held.get_mut("output").unwrap().push(other);
        assert!(class.is_whole(&held));
        held.get_mut("hostports").unwrap().swap(1, 2);
        assert!(!class.is_whole(&held));
        assert!(!class.is_whole(&BTreeMap::new()));
    }
}
