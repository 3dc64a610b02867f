//! Messages to nf_tables (`include/uapi/linux/netfilter/nf_tables.h`).

use std::collections::BTreeSet;
use std::fmt;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_NONREC};
use ruleset::nft::{Base, Chain, Family, Hook, Kind, Policy, Rule, Table};

use super::HeldChain;
use super::expression::{IptablesRule, expressions};
use super::set::{DELETE_ELEMENTS, DELETE_SET, NEW_ELEMENTS, NEW_SET};
use crate::attributes::{attributes, find, network_number, text};
use crate::netfilter::message::{BRIDGE, HEADERS, INET, IPV4, IPV6, Message, NETDEV};

/// `NFNL_SUBSYS_NFTABLES`, which is also the resource that a batch is for.
pub(super) const SUBSYSTEM: u8 = 10;
pub(super) const NEW_TABLE: [u8; 2] = [SUBSYSTEM, 0];
const GET_TABLE: [u8; 2] = [SUBSYSTEM, 1];
pub(super) const DELETE_TABLE: [u8; 2] = [SUBSYSTEM, 2];
pub(super) const NEW_CHAIN: [u8; 2] = [SUBSYSTEM, 3];
const GET_CHAIN: [u8; 2] = [SUBSYSTEM, 4];
pub(super) const DELETE_CHAIN: [u8; 2] = [SUBSYSTEM, 5];
pub(super) const NEW_RULE: [u8; 2] = [SUBSYSTEM, 6];
const GET_RULE: [u8; 2] = [SUBSYSTEM, 7];
pub(super) const DELETE_RULE: [u8; 2] = [SUBSYSTEM, 8];
/// What is told of rules that come, sets and elements: no chain comes or goes by that.
pub(super) const PASSED_BY_CHAINS: [[u8; 2]; 5] =
    [NEW_RULE, NEW_SET, DELETE_SET, NEW_ELEMENTS, DELETE_ELEMENTS];
pub(super) const NEW_GENERATION: [u8; 2] = [SUBSYSTEM, 15];
const GET_GENERATION: [u8; 2] = [SUBSYSTEM, 16];
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_REMARK: u16 = 6;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_KIND: u16 = 7;
const CHAIN_FLAGS: u16 = 10;
const CHAIN_REMARK: u16 = 12;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_INTERFACE: u16 = 3;
/// By their numbers, but for the family netdev (`nf_inet_hooks`, `nf_bridge_hooks`).
const HOOKS: [&str; 6] = ["prerouting", "input", "forward", "output", "postrouting", "ingress"];
/// `NFT_CHAIN_BINDING`: what a rule has in braces behind `jump` or `goto` (since Linux 5.9). It comes and goes with that
/// rule, and the kernel lets nobody change it by itself.
const OF_A_RULE: u32 = 4;
/// `NF_DROP`.
const DROP: u32 = 0;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_POSITION: u16 = 6;
const RULE_REMARK: u16 = 7;

/// A family, as the kernel numbers it.
pub(super) const fn number(family: Family) -> u8 {
    match family {
        Family::Ip => IPV4,
        Family::Ip6 => IPV6,
        Family::Inet => INET,
        Family::Bridge => BRIDGE,
        Family::Netdev => NETDEV,
    }
}

impl Message {
    /// A message about something of a table's family.
    pub(super) fn of(table: Table<'_>, kind: [u8; 2], flags: u16) -> Self {
        Self::new(kind, flags, number(table.family), 0)
    }

    /// Makes a table, unless it is there.
    pub(super) fn new_table(table: Table<'_>, comment: Option<&str>) -> Self {
        let message = Self::of(table, NEW_TABLE, NLM_F_CREATE).text(TABLE_NAME, table.name);
        message.remark(TABLE_REMARK, comment)
    }

    /// Has the rules of a table in force.
    pub(super) fn wake_table(table: Table<'_>) -> Self {
        Self::new_table(table, None).attribute(TABLE_FLAGS, &0_u32.to_be_bytes())
    }

    /// Asks for a table.
    pub(super) fn get_table(table: Table<'_>) -> Self {
        Self::of(table, GET_TABLE, 0).text(TABLE_NAME, table.name)
    }

    /// Deletes a table with all that is in it.
    pub(super) fn delete_table(table: Table<'_>) -> Self {
        Self::of(table, DELETE_TABLE, 0).text(TABLE_NAME, table.name)
    }

    /// Deletes a table, which must be empty.
    pub(super) fn delete_empty_table(table: Table<'_>) -> Self {
        Self::of(table, DELETE_TABLE, NLM_F_NONREC).text(TABLE_NAME, table.name)
    }

    /// Makes a chain, unless it is there. One that is there must be called where this one is.
    pub(super) fn new_chain(table: Table<'_>, chain: &Chain<'_>) -> Self {
        let message = Self::of(table, NEW_CHAIN, NLM_F_CREATE);
        let message = message.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, chain.name);
        let message = chain.base.iter().fold(message, |message, base| {
            let message = message.nested(CHAIN_HOOK, |hook| {
                let hook = hook
                    .attribute(HOOK_NUMBER, &base.hook.number().to_be_bytes())
                    .attribute(HOOK_PRIORITY, &base.priority.to_be_bytes());
                let interface = base.hook.interface().into_iter();
                interface.fold(hook, |hook, name| hook.text(HOOK_INTERFACE, name))
            });
            let message = match base.policy {
                Policy::Accept => message,
                Policy::Drop => message.attribute(CHAIN_POLICY, &DROP.to_be_bytes()),
            };
            message.text(CHAIN_KIND, base.kind.word())
        });
        message.remark(CHAIN_REMARK, chain.comment)
    }

    /// Puts a rule at the end of a chain.
    pub(super) fn add_rule(table: Table<'_>, chain: &str, rule: &Rule) -> Self {
        let message = Self::of(table, NEW_RULE, NLM_F_CREATE | NLM_F_APPEND);
        message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain).rule(table.family, rule)
    }

    /// Puts a rule at the beginning of a chain.
    pub(super) fn add_first_rule(table: Table<'_>, chain: &str, rule: &Rule) -> Self {
        let message = Self::of(table, NEW_RULE, NLM_F_CREATE);
        message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain).rule(table.family, rule)
    }

    /// Puts a rule before the one of its chain that has this handle.
    pub(super) fn insert_rule(table: Table<'_>, chain: &str, handle: u64, rule: &Rule) -> Self {
        let message = Self::of(table, NEW_RULE, NLM_F_CREATE);
        let message = message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain);
        message.attribute(RULE_POSITION, &handle.to_be_bytes()).rule(table.family, rule)
    }

    /// Puts a rule of iptables at the end of a chain.
    pub(super) fn add_iptables_rule(table: Table<'_>, chain: &str, rule: &IptablesRule) -> Self {
        let message = Self::of(table, NEW_RULE, NLM_F_CREATE | NLM_F_APPEND);
        let message = message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain);
        message.encoded(rule.attributes())
    }

    /// The attributes of a rule, but for its place.
    pub(super) fn of_rule(family: Family, rule: &Rule) -> Self {
        Self::default().rule(family, rule)
    }

    fn rule(self, family: Family, rule: &Rule) -> Self {
        self.nested(RULE_EXPRESSIONS, |list| expressions(list, family, rule))
            .remark(RULE_REMARK, rule.comment.as_deref())
    }

    /// A comment as the program nft writes it: the first kind of user data of tables, chains and rules
    /// (`NFTNL_UDATA_RULE_COMMENT` and its like).
    fn remark(self, kind: u16, comment: Option<&str>) -> Self {
        comment.into_iter().fold(self, |message, comment| message.attribute(kind, &remark(comment)))
    }

    /// Asks for the generation.
    pub(super) fn get_generation() -> Self {
        Self::new(GET_GENERATION, 0, 0, 0)
    }

    /// Asks for one chain.
    pub(super) fn get_chain(table: Table<'_>, chain: &str) -> Self {
        let message = Self::of(table, GET_CHAIN, 0);
        message.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, chain)
    }

    /// Asks for the chains of a table's family.
    pub(super) fn list_chains(table: Table<'_>) -> Self {
        Self::of(table, GET_CHAIN, NLM_F_DUMP)
    }

    /// Asks for a chain's rules.
    pub(super) fn list_rules(table: Table<'_>, chain: &str) -> Self {
        let message = Self::of(table, GET_RULE, NLM_F_DUMP);
        message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain)
    }

    /// Asks for all rules of a table.
    pub(super) fn list_all_rules(table: Table<'_>) -> Self {
        Self::of(table, GET_RULE, NLM_F_DUMP).text(RULE_TABLE, table.name)
    }

    /// Deletes one rule.
    pub(super) fn delete_rule(table: Table<'_>, chain: &str, handle: u64) -> Self {
        Self::empty_chain(table, chain).attribute(RULE_HANDLE, &handle.to_be_bytes())
    }

    /// Deletes all rules of a chain.
    pub(super) fn empty_chain(table: Table<'_>, chain: &str) -> Self {
        let message = Self::of(table, DELETE_RULE, 0);
        message.text(RULE_TABLE, table.name).text(RULE_CHAIN, chain)
    }

    /// Deletes a chain, which must be empty.
    pub(super) fn delete_chain(table: Table<'_>, chain: &str) -> Self {
        let message = Self::of(table, DELETE_CHAIN, 0);
        message.text(CHAIN_TABLE, table.name).text(CHAIN_NAME, chain)
    }
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeldBase {
    kind: String,
    hook: u32,
    priority: i32,
    policy: u32,
    /// Of the family netdev.
    interface: Option<String>,
}

/// The chain with these attributes, if it is one of the table, and not part of a rule.
pub(super) fn read_chain(chain: &[u8], table: Table<'_>) -> Option<HeldChain> {
    find(chain, CHAIN_TABLE).map(text).filter(|it| it == table.name)?;
    read_any_chain(chain).map(|(_, chain)| chain)
}

/// The table of the chain with these attributes, and the chain; `None` of one that is part of a rule.
pub(super) fn read_any_chain(chain: &[u8]) -> Option<(String, HeldChain)> {
    let flags = find(chain, CHAIN_FLAGS).and_then(network_number).unwrap_or_default();
    if flags & OF_A_RULE != 0 {
        return None;
    }
    let table = find(chain, CHAIN_TABLE).map(text)?;
    let name = find(chain, CHAIN_NAME).map(text)?;
    let base = find(chain, CHAIN_HOOK).map(|hook| {
        let number = |bytes, kind| find(bytes, kind).and_then(network_number).unwrap_or_default();
        HeldBase {
            kind: find(chain, CHAIN_KIND).map(text).unwrap_or_default(),
            hook: number(hook, HOOK_NUMBER),
            priority: number(hook, HOOK_PRIORITY).cast_signed(),
            policy: number(chain, CHAIN_POLICY),
            interface: find(hook, HOOK_INTERFACE).map(text),
        }
    });
    Some((table, HeldChain { name, base }))
}

impl HeldChain {
    /// Whether the kernel calls it at this hook, to let packets pass or not.
    pub(super) fn filters_at(&self, hook: Hook<'_>) -> bool {
        let is_one = |it: &HeldBase| it.hook == hook.number() && it.kind == Kind::Filter.word();
        self.base.as_ref().is_some_and(is_one)
    }

    /// Whether the kernel calls it.
    #[must_use]
    pub const fn is_called(&self) -> bool {
        self.base.is_some()
    }

    /// Whether it drops what no rule of it decides on.
    #[must_use]
    pub fn drops_rest(&self) -> bool {
        self.base.as_ref().is_some_and(|it| it.policy == DROP)
    }

    /// Where the kernel calls it, as the program nft writes that; empty where only rules lead to it.
    #[must_use]
    pub fn place(&self) -> String {
        self.base.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// Whether it is this one, called where that shall be.
    #[must_use]
    pub fn is_like(&self, chain: &Chain<'_>) -> bool {
        self.name == chain.name
            && chain.base.map_or(self.base.is_none(), |base| {
                self.is_called_at(&base) && self.drops_rest() == (base.policy == Policy::Drop)
            })
    }

    /// Whether the kernel calls it there, to do that; whatever its policy, and for whichever interface.
    #[must_use]
    pub fn is_called_at(&self, base: &Base<'_>) -> bool {
        self.base.as_ref().is_some_and(|it| {
            it.kind == base.kind.word()
                && it.hook == base.hook.number()
                && it.priority == base.priority
        })
    }

    /// Whether the kernel calls it at this hook; at one of an interface, for that, or for what has its name next.
    #[must_use]
    pub fn is_at(&self, hook: Hook<'_>) -> bool {
        self.base.as_ref().is_some_and(|it| {
            it.hook == hook.number() && it.interface.as_deref() == hook.interface()
        })
    }
}

impl fmt::Display for HeldBase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, hook, priority, policy, .. } = self;
        let hook = usize::try_from(*hook).ok().and_then(|it| HOOKS.get(it));
        let hook = hook.unwrap_or(&"of another kind");
        write!(formatter, "type {kind} hook {hook} priority {priority};")?;
        formatter.write_str(if *policy == DROP { " policy drop;" } else { "" })
    }
}

/// `NFT_TABLE_F_DORMANT`: its rules are not in force.
pub(super) const DORMANT: u32 = 1;
/// `NFT_TABLE_F_OWNER`: only the socket that made it may change it.
pub(super) const OWNED: u32 = 2;

/// The flags of a table.
pub(super) fn flags(found: &[u8]) -> u32 {
    find(found, TABLE_FLAGS).and_then(network_number).unwrap_or_default()
}

/// What a table, chain or rule with this comment carries. What has no room is cut off.
pub(super) fn remark(comment: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let mut end = comment.len().min(usize::from(u8::MAX) - 1);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let text = comment.get(..end).unwrap_or_default().as_bytes();
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[COMMENT, length], text, &[0]].concat()
}

/// The comment of what carries this.
pub(super) fn comment(remark: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    let mut rest = remark;
    while let [kind, length, tail @ ..] = rest {
        let (value, tail) = tail.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        rest = tail;
    }
    None
}

/// How long the message is that begins at `place`.
pub(super) fn size_at(bytes: &[u8], place: usize) -> Option<usize> {
    let size = bytes.get(place..place + 4)?.try_into().ok().map(u32::from_ne_bytes)?;
    usize::try_from(size).ok().filter(|it| *it >= HEADERS)
}

/// Gives the message that begins at `place` this number.
pub(super) fn number_at(bytes: &mut [u8], place: usize, sequence: u32) {
    if let Some(room) = bytes.get_mut(place + 8..place + 12) {
        room.copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// Has the message that begins at `place` acknowledged.
pub(super) fn acknowledge_at(bytes: &mut [u8], place: usize) {
    if let Some([low, high]) = bytes.get_mut(place + 6..place + 8) {
        let flags = u16::from_ne_bytes([*low, *high]) | NLM_F_ACK;
        [*low, *high] = flags.to_ne_bytes();
    }
}

/// In words, what a message wants.
pub(super) fn describe(message: &[u8]) -> Option<String> {
    const FLAGS: std::ops::Range<usize> = 4..6;
    let kind = message.get(FLAGS)?.try_into().ok().map(u16::from_ne_bytes)?.to_be_bytes();
    let attributes = message.get(HEADERS..)?;
    let name = |kind| find(attributes, kind).map(text).unwrap_or_default();
    let table = name(TABLE_NAME);
    let of_table = format!("of table {table:?}");
    Some(match kind {
        NEW_TABLE => format!("make table {table:?}"),
        DELETE_TABLE => format!("delete table {table:?}"),
        NEW_CHAIN => format!("make chain {:?} {of_table}", name(CHAIN_NAME)),
        DELETE_CHAIN => format!("delete chain {:?} {of_table}", name(CHAIN_NAME)),
        NEW_RULE => {
            let comment = find(attributes, RULE_REMARK).and_then(comment).unwrap_or_default();
            format!("add a rule to chain {:?} {of_table} ({comment})", name(RULE_CHAIN))
        }
        DELETE_RULE => format!("delete rules of chain {:?} {of_table}", name(RULE_CHAIN)),
        _ => return super::set::describe(kind, &name(2), &of_table),
    })
}

/// The kernel modules, beside nf_tables itself, that what a message makes is in: a chain's kind, the expressions
/// of a rule.
pub(super) fn modules(message: &[u8]) -> BTreeSet<&'static str> {
    const NAME: u16 = 1;
    const KIND: std::ops::Range<usize> = 4..6;
    let kind = message.get(KIND).and_then(|it| it.try_into().ok()).map(u16::from_ne_bytes);
    if kind.map(u16::to_be_bytes) == Some(NEW_CHAIN) {
        let kind = message.get(HEADERS..).and_then(|it| find(it, CHAIN_KIND)).map(text);
        return kind.filter(|it| it == "nat").map(|_| "nft_chain_nat").into_iter().collect();
    }
    let expressions = message.get(HEADERS..).and_then(|it| find(it, RULE_EXPRESSIONS));
    let names = attributes(expressions.unwrap_or_default())
        .filter_map(|(_, expression)| find(expression, NAME));
    let module = |name: &[u8]| match &*text(name) {
        "ct" => Some("nft_ct"),
        "fib" => Some("nft_fib_inet"),
        "hash" => Some("nft_hash"),
        "limit" => Some("nft_limit"),
        "log" => Some("nft_log with nfnetlink_log"),
        "masq" => Some("nft_masq"),
        "nat" => Some("nft_nat"),
        "numgen" => Some("nft_numgen"),
        "reject" => Some("nft_reject_inet"),
        _ => None,
    };
    names.filter_map(module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NF_ACCEPT`.
    const ACCEPT: u32 = 1;

    #[test]
    fn where_a_chain_is_called_is_written_as_nft_writes_it() {
        let kind = || "filter".to_owned();
        let base = |hook, policy| {
            let interface = None;
            HeldBase { kind: kind(), hook, priority: -150, policy, interface }
        };
        let written = |base: HeldBase| HeldChain { name: "c".to_owned(), base: Some(base) }.place();
        assert_eq!(written(base(2, ACCEPT)), "type filter hook forward priority -150;");
        assert_eq!(written(base(1, DROP)), "type filter hook input priority -150; policy drop;");
        assert_eq!(HeldChain { name: "c".to_owned(), base: None }.place(), "");
    }

    #[test]
    fn comments_are_read_as_they_were_written_and_cut_where_there_is_no_room() {
        for text in ["", "a b", &"ä".repeat(127)] {
            assert_eq!(comment(&remark(text)).as_deref(), Some(text));
        }
        assert_eq!(comment(&remark(&"ä".repeat(128))), Some("ä".repeat(127)));
        // Something else before it, and what is cut off.
        assert_eq!(comment(&[&[7, 2, 1, 1][..], &remark("a")].concat()).as_deref(), Some("a"));
        assert_eq!(comment(&[0, 9, b'a']), None);
        assert_eq!(comment(&[]), None);
    }
}
