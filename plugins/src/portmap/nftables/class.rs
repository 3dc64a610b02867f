//! What attachments share that have the same conditions and the same bit of the mark.

use std::collections::{BTreeMap, BTreeSet};

use attachment::kernel::PORTMAP_TABLE;
use netlink::nftables::{Change, HeldRule};
use ruleset::iptables::Side;
use ruleset::nft::{
    Base, Chain, Family, Field, Hook, Kind, Match, Policy, Rule, Set, Statement, Table, Verdict,
};
use ruleset::{networks, short_hash};

use super::elements::Part;
use super::index;
use crate::portmap::conf::{Conditions, Conf, DEFAULT_MARK_BIT};

/// The table of both families.
pub(in crate::portmap) const TABLE: Table<'static> =
    Table { family: Family::Inet, name: PORTMAP_TABLE };
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

/// A rule with a comment: whose it is, by the name of a class' chain, and a hash of itself.
fn with_comment(chain: &str, rule: Rule) -> Rule {
    let comment = format!("{chain} {}", short_hash(&rule.to_string()));
    rule.commented(comment)
}

/// What drops packets to the host's loopback. It is of the class that stays, for whichever was first: `route_localnet`
/// stays on the links of containers, too, when the last of them has gone.
pub(super) fn guard() -> Rule {
    let from_elsewhere = Match::NotInInterface("lo".to_owned());
    let to_loopback = Match::Address(Side::Destination, networks::LOOPBACK_V4);
    with_comment(HOSTPORTS, Rule::new([from_elsewhere, to_loopback], Verdict::Drop))
}

/// The rules that are the guard, whichever class they are of: each had its own before.
fn guards<'a>(
    held: &'a BTreeMap<String, Vec<HeldRule>>,
    guard: &Rule,
) -> impl Iterator<Item = &'a HeldRule> {
    let hash = |comment: Option<&str>| Some(comment?.rsplit_once(' ')?.1.to_owned());
    let wanted = hash(guard.comment.as_deref());
    let rules = held.get(LOOPBACK.name).into_iter().flatten();
    rules.filter(move |it| hash(it.comment.as_deref()) == wanted)
}

/// Has one guard, in place of those of classes, which would go with them.
pub(super) fn guarding<'a>(
    held: &'a BTreeMap<String, Vec<HeldRule>>,
    guard: &'a Rule,
) -> Vec<Change<'a>> {
    if guards(held, guard).map(|it| &it.comment).eq([&guard.comment]) {
        return Vec::new();
    }
    let gone = guards(held, guard).map(|it| Change::DeleteRule(LOOPBACK.name, it.handle));
    gone.chain([Change::Chain(&LOOPBACK), Change::Rule(LOOPBACK.name, guard)]).collect()
}

/// Attachments with the same conditions and the same bit of the mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    /// What the names of its chain, sets and maps end with: nothing for the usual one.
    pub(super) suffix: String,
    /// Its chain.
    chain: String,
    /// The bit of the mark.
    bit: u32,
    /// What packets must be like, for IPv4 and for IPv6.
    conditions: [Vec<Match>; 2],
}

impl Class {
    /// That of a configuration.
    pub(super) fn of(conf: &Conf) -> Self {
        let bit = 1_u32 << conf.mark_bit;
        let conditions = match &conf.conditions {
            Conditions::Nftables(conditions) => conditions.clone(),
            Conditions::Iptables(_) => [Vec::new(), Vec::new()],
        };
        let is_usual = conf.mark_bit == DEFAULT_MARK_BIT && conditions.iter().all(Vec::is_empty);
        let suffix = if is_usual {
            String::new()
        } else {
            let words = |it: &Vec<Match>| it.iter().map(ToString::to_string).collect::<Vec<_>>();
            let [four, six] = conditions.each_ref().map(words);
            format!("-{}", short_hash(&format!("{bit} {} / {}", four.join(" "), six.join(" "))))
        };
        Self { bit, conditions, ..Self::named(&suffix) }
    }

    /// The class whose sets have such names, as far as its rules do not matter.
    pub(super) fn named(suffix: &str) -> Self {
        let suffix = suffix.to_owned();
        let conditions = [Vec::new(), Vec::new()];
        Self { chain: format!("{HOSTPORTS}{suffix}"), suffix, bit: 0, conditions }
    }

    /// Whether it is the one that stays without attachments.
    pub(super) fn is_usual(&self) -> bool {
        self.suffix.is_empty()
    }

    /// Its rules, each with the chain that it is in, when it has these parts.
    fn rules(&self, parts: &BTreeSet<Part>) -> Vec<(String, Rule)> {
        let mut rules = Vec::new();
        for hook in [&PREROUTING, &OUTPUT] {
            rules.extend(self.jumps().into_iter().map(|rule| (hook.name.to_owned(), rule)));
        }
        for is_ipv4 in [true, false] {
            let of_family = parts.iter().filter(|it| it.is_ipv4() == is_ipv4);
            let (leading, masqueraded): (Vec<&Part>, Vec<&Part>) =
                of_family.partition(|it| it.leads());
            // Who leads to a container ends the way.
            let in_order = masqueraded.into_iter().chain(leading);
            rules.extend(in_order.map(|part| (self.chain.clone(), self.look_up(*part))));
        }
        let masquerade = Rule::new([Match::Mark(self.bit)], Statement::MASQUERADE);
        rules.push((POSTROUTING.name.to_owned(), masquerade));
        let commented =
            rules.into_iter().map(|(chain, rule)| (chain, with_comment(&self.chain, rule)));
        commented.collect()
    }

    /// From a hook to its chain.
    fn jumps(&self) -> Vec<Rule> {
        let jump = || Verdict::Jump(self.chain.clone());
        if self.conditions.iter().all(Vec::is_empty) {
            return vec![Rule::new([Match::ToLocal], jump())];
        }
        let of_family = self.conditions.iter().zip([true, false]).map(|(conditions, is_ipv4)| {
            let mut matches = vec![Match::Family { is_ipv4 }];
            matches.extend(conditions.iter().cloned());
            matches.push(Match::ToLocal);
            Rule::new(matches, jump())
        });
        of_family.collect()
    }

    /// What is done by a part.
    fn look_up(&self, part: Part) -> Rule {
        let (is_ipv4, name) = (part.is_ipv4(), part.name(&self.suffix));
        let to = Field::address(Side::Destination, is_ipv4);
        let port = [Field::Protocol, Field::DestinationPort];
        let side = Side::Source;
        let fields = match part {
            Part::Ports { .. } => port.to_vec(),
            Part::Addresses { .. } => [&[to][..], &port].concat(),
            Part::Masqueraded { prefix, is_bound, .. } => {
                let is_one = prefix == if is_ipv4 { 32 } else { 128 };
                let network = Field::Network { side, is_ipv4, prefix };
                let from = if is_one { Field::address(side, is_ipv4) } else { network };
                let to = is_bound.then_some(to);
                [from].into_iter().chain(to).chain(port).collect()
            }
            Part::Former { .. } => [&[Field::address(side, is_ipv4), to][..], &port].concat(),
        };
        if part.leads() {
            return Rule::new([], Statement::Redirect { is_ipv4, fields, map: name });
        }
        Rule::new([Match::In(fields, name)], Statement::SetMark(self.bit))
    }

    fn has(&self, rule: &HeldRule) -> bool {
        let comment = rule.comment.as_deref().and_then(|it| it.strip_prefix(&self.chain));
        comment.is_some_and(|rest| rest.starts_with(' '))
    }

    /// Whether the kernel holds its rules for these parts, and no others of it; and guards the loopback.
    pub(super) fn is_whole(
        &self,
        parts: &BTreeSet<Part>,
        held: &BTreeMap<String, Vec<HeldRule>>,
    ) -> bool {
        let rules = self.rules(parts);
        let hooks = BASES.iter().map(|it| it.name).filter(|it| *it != LOOPBACK.name);
        let is_guarded = guards(held, &guard()).next().is_some();
        is_guarded
            && hooks.chain([&*self.chain]).all(|chain| {
                let held = held.get(chain).into_iter().flatten().filter(|rule| self.has(rule));
                let held = held.map(|rule| rule.comment.as_deref());
                let wanted = rules.iter().filter(|(name, _)| name == chain);
                held.eq(wanted.map(|(_, rule)| rule.comment.as_deref()))
            })
    }

    /// What it has in the kernel when it has these parts.
    pub(super) fn made(&self, parts: &BTreeSet<Part>) -> Made<'_> {
        let sets = parts.iter().map(|it| it.set(&self.suffix)).chain(index::sets());
        Made {
            class: self,
            chain: self.own_chain(),
            sets: sets.collect(),
            rules: self.rules(parts),
            guard: guard(),
        }
    }

    /// Its own chain.
    pub(super) fn own_chain(&self) -> Chain<'_> {
        Chain { name: &self.chain, base: None, comment: None }
    }

    fn without_rules<'a>(
        &'a self,
        held: &'a BTreeMap<String, Vec<HeldRule>>,
    ) -> impl Iterator<Item = Change<'a>> {
        let of_classes = held.iter().filter(|(chain, _)| *chain != LOOPBACK.name);
        of_classes.flat_map(|(chain, rules)| {
            let ours = rules.iter().filter(|rule| self.has(rule));
            ours.map(move |rule| Change::DeleteRule(chain, rule.handle))
        })
    }

    /// Removes it, of which no attachment is left, with its own chain and sets of these names; [`guarding`] keeps the guard.
    pub(super) fn removed<'a>(
        &'a self,
        chain: &'a Chain<'a>,
        names: &'a [String],
        held: &'a BTreeMap<String, Vec<HeldRule>>,
    ) -> Vec<Change<'a>> {
        let mut changes: Vec<_> = self.without_rules(held).collect();
        // Somebody may have taken the chain, and what is not there cannot be deleted.
        changes.push(Change::Chain(chain));
        changes.extend([Change::Empty(&self.chain), Change::DeleteChain(&self.chain)]);
        changes.extend(names.iter().map(|name| Change::DeleteSet(name)));
        changes
    }
}

/// A class in the kernel.
#[derive(Debug)]
pub(super) struct Made<'a> {
    class: &'a Class,
    chain: Chain<'a>,
    sets: Vec<Set>,
    rules: Vec<(String, Rule)>,
    guard: Rule,
}

impl Made<'_> {
    /// Makes it, in place of what the kernel holds of it: of its rules these, and some sets that are alike, about which
    /// nothing is said again.
    pub(super) fn changes<'a>(
        &'a self,
        held: &'a BTreeMap<String, Vec<HeldRule>>,
        holds: impl Fn(&Set) -> bool,
    ) -> Vec<Change<'a>> {
        let mut changes = vec![Change::Table(Some(TABLE_COMMENT))];
        changes.extend(BASES.iter().map(Change::Chain));
        changes.push(Change::Chain(&self.chain));
        changes.extend(self.sets.iter().filter(|set| !holds(set)).map(Change::Set));
        changes.extend(guarding(held, &self.guard));
        changes.extend(self.class.without_rules(held));
        changes.extend(self.rules.iter().map(|(chain, rule)| Change::Rule(chain, rule)));
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

    /// With networks of 24 and of 64 bits.
    fn parts() -> BTreeSet<Part> {
        let of = |is_ipv4, prefix, is_bound| Part::Masqueraded { is_ipv4, prefix, is_bound };
        Part::ALL.into_iter().chain([of(true, 24, false), of(false, 64, true)]).collect()
    }

    fn texts(class: &Class) -> Vec<String> {
        let text = |(chain, rule): &(String, Rule)| {
            let rule = rule.to_string();
            format!("{chain}: {}", rule.split(" comment").next().unwrap())
        };
        class.rules(&parts()).iter().map(text).collect()
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
                    "hostports: ip saddr & 255.255.255.0 . {port} @masqueraded4/24 meta mark set meta mark | 0x00002000"
                ),
                format!("hostports: dnat ip to ip daddr . {port} map @addresses4"),
                format!("hostports: dnat ip to {port} map @ports4"),
                format!(
                    "hostports: ip6 saddr & ffff:ffff:ffff:ffff:: . ip6 daddr . {port} @masqueraded6/64/bound meta mark set meta mark | 0x00002000"
                ),
                format!("hostports: dnat ip6 to ip6 daddr . {port} map @addresses6"),
                format!("hostports: dnat ip6 to {port} map @ports6"),
                "postrouting: meta mark & 0x00002000 == 0x00002000 masquerade".to_owned(),
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
        assert_ne!(class.suffix, self::class(&json!({"markMasqBit": 5})).suffix);
    }

    fn of(handle: usize, rule: &Rule) -> HeldRule {
        HeldRule { handle: handle as u64, comment: rule.comment.clone(), packets: None }
    }

    #[test]
    fn one_guard_comes_in_place_of_those_of_classes() {
        let guard = guard();
        assert_eq!(
            guard.to_string().split(" comment").next(),
            Some("iifname != \"lo\" ip daddr 127.0.0.0/8 drop")
        );
        let bare = Rule { comment: None, ..guard.clone() };
        let of_class = with_comment("hostports-x", bare);
        let changes = |rules: &[&Rule]| {
            let rules = rules.iter().enumerate().map(|(handle, it)| of(handle, it)).collect();
            let held = BTreeMap::from([(LOOPBACK.name.to_owned(), rules)]);
            guarding(&held, &guard).len()
        };
        assert_eq!(changes(&[&guard]), 0);
        assert_eq!([changes(&[]), changes(&[&of_class]), changes(&[&guard, &of_class])], [2, 3, 4]);
    }

    #[test]
    fn what_is_held_is_told_by_hashes() {
        let class = class(&json!({}));
        let mut held: BTreeMap<String, Vec<HeldRule>> = BTreeMap::new();
        for (handle, (chain, rule)) in class.rules(&parts()).iter().enumerate() {
            held.entry(chain.clone()).or_default().push(of(handle, rule));
        }
        assert!(!class.is_whole(&parts(), &held), "nothing guards the loopback");
        held.insert(LOOPBACK.name.to_owned(), vec![of(77, &guard())]);
        assert!(class.is_whole(&parts(), &held));
        // Those of other classes do not count.
        let other = HeldRule { handle: 99, comment: Some("hostports-x y".into()), packets: None };
        held.get_mut("output").unwrap().push(other);
        assert!(class.is_whole(&parts(), &held));
        assert!(!class.is_whole(&Part::ALL.into(), &held));
        held.get_mut("hostports").unwrap().swap(1, 2);
        assert!(!class.is_whole(&parts(), &held));
        assert!(!class.is_whole(&parts(), &BTreeMap::new()));
    }
}
