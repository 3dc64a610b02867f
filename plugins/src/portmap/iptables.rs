//! By iptables, in the reference's layout (`plugins/meta/portmap/portmap_iptables.go`): a chain for each
//! container, and shared ones that lead there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnetwork::IpNetwork;
use ruleset::iptables::{Match, PortRange, Side, Target};
use ruleset::networks;
use runner::{Lock, Runner};

use super::conf::{Conditions, Conf};
use super::identity::{CHAIN_PREFIX, Identity};
use super::mapping::{Held, Holder, Key, Mapping, Protocol, Tag};
use crate::error::Error;
use crate::iptables::{
    Addition, Family, InChain, NAT, Places, Tool, Work, is_declaration, is_missing,
};
use crate::kernel_tables::KernelTables;

/// The chain that leads to those of the containers.
pub(super) const HOSTPORTS: &str = "CNI-HOSTPORT-DNAT";
/// The chain that led to old releases' other chains.
pub(super) const OLD_HOSTPORTS: &str = "CNI-HOSTPORT-SNAT";
/// The chain that marks what is to be masqueraded.
const SET_MARK: &str = "CNI-HOSTPORT-SETMARK";
/// The chain that masquerades what has the mark.
const MASQUERADE: &str = "CNI-HOSTPORT-MASQ";
/// multiport takes no more ports.
const PORTS_OF_A_RULE: usize = 15;
/// Others may make the shared chains, or remove rules, between a look and a write.
const ATTEMPTS: usize = 4;
/// What the programs are for.
const WORK: Work = Work { purpose: "publishing ports", table: NAT };

/// What an attachment has in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    identity: Identity,
    /// Chains that all attachments share.
    chains: Vec<&'static str>,
    /// Their rules, and how one that is missing is added.
    shared: Vec<(&'static str, InChain)>,
    /// Those that lead to the attachment's chain.
    entries: Vec<InChain>,
    /// Whether there are conditions in those, whose words iptables may change.
    is_conditional: bool,
    /// Those of the attachment's chain.
    own: Vec<InChain>,
}

impl Rules {
    /// For one of the container's addresses, and thus its family.
    pub(super) fn new(conf: &Conf, identity: Identity, address: IpNetwork) -> Self {
        let is_ipv4 = address.is_ipv4();
        let mut chains = Vec::new();
        let mut shared = Vec::new();
        if conf.snat && conf.set_mark_chain.is_none() {
            let bit = 1_u32 << conf.mark_bit;
            let about = |text: &str| Match::Comment(format!("CNI portfwd {text}"));
            let masquerade = Target::Masquerade { random_fully: false, to_ports: None };
            chains.extend([SET_MARK, MASQUERADE]);
            shared.extend([
                ("-A", InChain::new(SET_MARK, [about("masquerade mark")], Target::SetMark(bit))),
                ("-A", InChain::new(MASQUERADE, [Match::Mark(bit)], masquerade)),
                // Before what ptp and bridge masquerade or accept.
                (
                    "-I",
                    InChain::new("POSTROUTING", [about("requiring masquerade")], jump(MASQUERADE)),
                ),
            ]);
        }
        chains.push(HOSTPORTS);
        // Behind what is there: Services come first (CVE-2019-9946).
        let to_host = || [Match::LocalAddress(Side::Destination)];
        shared.extend(
            ["PREROUTING", "OUTPUT"]
                .map(|hook| ("-A", InChain::new(hook, to_host(), jump(HOSTPORTS)))),
        );
        let conditions = match &conf.conditions {
            Conditions::Iptables([four, six]) => if is_ipv4 { four } else { six }.as_slice(),
            Conditions::Nftables(_) => &[],
        };
        let own =
            conf.mappings.iter().flat_map(|mapping| own_rules(conf, &identity, address, mapping));
        Self {
            chains,
            shared,
            entries: entries(conf, &identity, conditions),
            is_conditional: !conditions.is_empty(),
            own: own.collect(),
            identity,
        }
    }

    /// The lines that make of what is there what shall be. What the chain held before goes: an earlier ADD may have
    /// been for another address.
    fn lines(&self, saved: &str) -> Vec<String> {
        let is_there = |chain: &str| saved.lines().any(|line| is_declaration(line, chain));
        let chain = &self.identity.chain;
        let missing = self.chains.iter().filter(|chain| !is_there(chain));
        let mut lines: Vec<String> = missing.map(|chain| format!("-N {chain}")).collect();
        let missing = self.shared.iter().filter(|(_, rule)| !rule.is_among(saved));
        lines.extend(missing.map(|(verb, rule)| format!("{verb} {rule}")));
        lines.extend(leading_to(saved, chain).map(|rule| format!("-D {rule}")));
        lines.push(format!("{} {chain}", if is_there(chain) { "-F" } else { "-N" }));
        lines.extend(self.own.iter().chain(&self.entries).map(|rule| format!("-A {rule}")));
        lines
    }

    /// What an attachment adds that has nothing yet, where the shared chains are as they should be.
    pub(super) fn addition(&self) -> Addition<'_> {
        Addition {
            shared: self.shared.iter().map(|(_, rule)| rule).collect(),
            chain: &self.identity.chain,
            own: self.own.iter().chain(&self.entries).collect(),
        }
    }

    /// What is not as it should be, in words; and the rules that only iptables can compare.
    fn problem(&self, saved: &str) -> Result<&[InChain], String> {
        let chain = &self.identity.chain;
        if !saved.lines().any(|line| is_declaration(line, chain)) {
            return Err(format!("chain {chain} is missing in table nat"));
        }
        let is_missing = |rule: &InChain| {
            let rule = rule.to_string();
            format!("rule {rule:?} is missing in table nat")
        };
        if let Some((_, rule)) = self.shared.iter().find(|(_, rule)| !rule.is_among(saved)) {
            return Err(is_missing(rule));
        }
        let rules = saved.lines().filter_map(|line| line.strip_prefix("-A "));
        let own = rules.filter(|rule| rule.split(' ').next() == Some(chain));
        if !own.eq(self.own.iter().map(ToString::to_string)) {
            return Err(format!("chain {chain} of table nat has other rules"));
        }
        let entries: Vec<&str> = leading_to(saved, chain).collect();
        if entries.len() != self.entries.len() {
            return Err(format!(
                "{} rules of table nat lead to chain {chain}, not {}",
                entries.len(),
                self.entries.len()
            ));
        }
        if self.is_conditional {
            return Ok(&self.entries);
        }
        match self.entries.iter().find(|rule| !rule.is_among(saved)) {
            Some(rule) => Err(is_missing(rule)),
            None => Ok(&[]),
        }
    }
}

/// The rules that lead to the attachment's chain: of each protocol as many as its ports need. Ports that are published
/// of an address of the other family are among them, as in the reference; the chain has nothing for them.
fn entries(conf: &Conf, identity: &Identity, conditions: &[String]) -> Vec<InChain> {
    let mut ports: BTreeMap<Protocol, Vec<PortRange>> = BTreeMap::new();
    for mapping in &conf.mappings {
        ports.entry(mapping.protocol).or_default().push(alone(mapping.host_port));
    }
    let words: Vec<String> = conditions.iter().map(|token| quoted(token)).collect();
    let conditions = (!words.is_empty()).then(|| Match::Words(words.join(" ")));
    let rule = |protocol: Protocol, ports: &[PortRange]| {
        let mut matches = vec![
            Match::Protocol(protocol.word()),
            Match::Comment(identity.comment.clone()),
            Match::DestinationPorts(ports.to_vec()),
        ];
        matches.extend(conditions.clone());
        InChain::new(HOSTPORTS, matches, jump(&identity.chain))
    };
    let chunks = ports.iter().flat_map(|(protocol, ports)| {
        ports.chunks(PORTS_OF_A_RULE).map(|chunk| rule(*protocol, chunk))
    });
    chunks.collect()
}

const fn alone(port: u16) -> PortRange {
    PortRange { first: port, last: port }
}

fn jump(chain: &str) -> Target {
    Target::Jump(chain.to_owned())
}

/// A word of a rule as `iptables-restore` reads it.
fn quoted(token: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "!-_./:,=".contains(it);
    if token.chars().all(is_plain) {
        return token.to_owned();
    }
    format!("\"{}\"", token.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The rules of the attachment's chain for a mapping. Those that mark come first: the last one ends the way.
fn own_rules(
    conf: &Conf,
    identity: &Identity,
    address: IpNetwork,
    mapping: &Mapping,
) -> Vec<InChain> {
    let Some(key) = mapping.key(address.is_ipv4()) else { return Vec::new() };
    let chain = &*identity.chain;
    let rule = |from: Option<IpNetwork>, target: Target| {
        let to = key.address.map(|it| Match::Address(Side::Destination, it.into()));
        let port = Match::DestinationPort(key.protocol.word(), alone(key.port));
        let from = from.map(|it| Match::Address(Side::Source, it));
        InChain::new(
            chain,
            [from, to, Some(port)].into_iter().flatten().collect::<Vec<_>>(),
            target,
        )
    };
    let mut rules = Vec::new();
    if conf.snat {
        let mark = || jump(conf.set_mark_chain.as_deref().unwrap_or(SET_MARK));
        let is_of_all = conf.masq_all || address.prefix() == 0;
        rules.push(rule(
            networks::around(address.ip(), address.prefix()).filter(|_| !is_of_all),
            mark(),
        ));
        if address.is_ipv4() && !conf.masq_all {
            rules.push(rule(Some(IpAddr::from(Ipv4Addr::LOCALHOST).into()), mark()));
        }
    }
    let target = SocketAddr::new(address.ip(), mapping.container_port);
    rules.push(rule(None, Target::Translate(target)));
    rules
}

/// The rules that jump or go to a chain.
fn leading_to<'a>(saved: &'a str, chain: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let targets = [format!(" -j {chain}"), format!(" -g {chain}")];
    let rules = saved.lines().filter_map(|line| line.strip_prefix("-A "));
    rules.filter(move |rule| targets.iter().any(|target| rule.ends_with(target)))
}

/// The lines that remove a chain and what leads there.
pub(super) fn removal_lines(saved: &str, chain: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        leading_to(saved, chain).map(|rule| format!("-D {rule}")).collect();
    if saved.lines().any(|line| is_declaration(line, chain)) {
        lines.extend([format!("-F {chain}"), format!("-X {chain}")]);
    }
    lines
}

/// What containers have published. Whose a chain is, the comments of the rules that lead there tell.
fn held(saved: &str) -> Vec<Held> {
    let rules = || saved.lines().filter_map(|line| line.strip_prefix("-A ")?.split_once(' '));
    let mut holders: BTreeMap<&str, Holder> = BTreeMap::new();
    for (_, rule) in rules().filter(|(chain, _)| *chain == HOSTPORTS) {
        let target = rule.rsplit_once(" -j ").map(|(_, target)| target);
        if let Some(target) = target.filter(|name| name.starts_with(CHAIN_PREFIX)) {
            holders.entry(target).or_insert_with(|| holder(rule));
        }
    }
    let held = rules().filter_map(|(chain, rule)| {
        let holder = holders.get(chain)?.clone();
        let (key, to) = translation(rule)?;
        Some(Held { key, to, holder, tag: Tag::Chain(chain.to_owned()) })
    });
    held.collect()
}

/// Network and container of a rule's comment.
fn holder(rule: &str) -> Holder {
    let comment = rule.split_once("dnat name: \\\"").map_or("", |(_, rest)| rest);
    let (network, rest) = comment.split_once("\\\" id: \\\"").unwrap_or((comment, ""));
    let is_of_id = |it: char| it.is_ascii_alphanumeric() || "_.-".contains(it);
    let end = rest.find(|it: char| !is_of_id(it)).unwrap_or(rest.len());
    let container_id = rest.get(..end).unwrap_or_default();
    // Two dots where it was cut.
    let whole = container_id.trim_end_matches("..");
    Holder {
        network: network.to_owned(),
        container_id: whole.to_owned(),
        is_cut: whole.len() < container_id.len() || whole.is_empty(),
        ifname: None,
    }
}

/// What a rule translates, and where to.
fn translation(rule: &str) -> Option<(Key, IpAddr)> {
    let mut words = rule.split(' ');
    let (mut protocol, mut port, mut address, mut to) = (None, None, None, None);
    while let Some(word) = words.next() {
        match word {
            "-p" => protocol = words.next().and_then(Protocol::parse),
            "--dport" => port = words.next().and_then(|it| it.parse().ok()),
            "-d" => address = words.next().and_then(|it| it.split('/').next()?.parse().ok()),
            "--to-destination" => {
                let target: SocketAddr = words.next()?.parse().ok()?;
                to = Some(target.ip());
            }
            _ => {}
        }
    }
    Some((Key { protocol: protocol?, port: port?, address }, to?))
}

/// What is known of a family's table nat before an ADD.
#[derive(Debug)]
pub(super) enum Seen {
    /// What the kernel tells without a program: ports are published, but none that is wanted, and none by the attachment.
    Free,
    /// All of it, as `iptables-save` prints it; nothing where no port is published.
    Text {
        /// As the node's own programs print it, which will change it.
        own: String,
        /// The table of old beside it, where the node's programs are for nf_tables: of before they were exchanged.
        of_old: String,
    },
}

impl Seen {
    /// As the node's own programs print it.
    pub(super) const fn of(own: String) -> Self {
        Self::Text { own, of_old: String::new() }
    }

    /// What containers have published, if it can be in anybody's way.
    pub(super) fn held(&self) -> Vec<Held> {
        match self {
            Self::Free => Vec::new(),
            Self::Text { own, of_old } => [held(own), held(of_old)].concat(),
        }
    }
}

/// Reads and changes table nat, under the lock.
pub(super) struct Programs<'a> {
    /// What runs them.
    pub(super) runner: &'a mut dyn Runner,
    /// The lock, which they keep should we die before them.
    pub(super) lock: Option<&'a Lock>,
}

impl Programs<'_> {
    fn tool(&mut self, family: Family) -> Tool<'_> {
        Tool::new(&mut *self.runner, WORK, family.programs, self.lock)
    }

    /// Table nat of a family, as the node's own programs show it: nothing where the kernel has neither kind of it with
    /// a published port.
    fn saved(&mut self, family: Family, kernel: &mut KernelTables) -> Result<String, Error> {
        let Places { nftables, legacy } = kernel.places(family, NAT, HOSTPORTS);
        if !nftables && !legacy {
            return Ok(String::new());
        }
        self.read(family)
    }

    fn read(&mut self, family: Family) -> Result<String, Error> {
        self.tool(family).save_if_there()
    }

    /// Looks at table nat of a family for an attachment that wants these ports.
    pub(super) fn look(
        &mut self,
        family: Family,
        kernel: &mut KernelTables,
        identity: &Identity,
        ports: &BTreeSet<u16>,
    ) -> Result<Seen, Error> {
        let Places { nftables, legacy } = kernel.places(family, NAT, HOSTPORTS);
        if !nftables && !legacy {
            return Ok(Seen::of(String::new()));
        }
        // What the kernel does not tell, the program may know.
        if kernel.is_free(family, (HOSTPORTS, &identity.chain), ports).unwrap_or(false) {
            return Ok(Seen::Free);
        }
        let own = self.read(family)?;
        // What nf_tables has not, the programs have from the tables of old.
        let is_of_old = !nftables && own.lines().any(|line| is_declaration(line, HOSTPORTS));
        if !legacy || is_of_old {
            return Ok(Seen::of(own));
        }
        match Tool::new(&mut *self.runner, WORK, family.legacy_programs, self.lock).save_if_there()
        {
            // Where there are no two kinds, the node's is for the tables of old.
            Err(error) if is_missing(&error) => Ok(Seen::of(own)),
            saved => Ok(Seen::Text { own, of_old: saved? }),
        }
    }

    /// Gives an attachment its rules in a table that was `seen` before; those of `dead` containers go.
    pub(super) fn set_up(
        &mut self,
        family: Family,
        seen: Seen,
        rules: &Rules,
        dead: &BTreeSet<Tag>,
    ) -> Result<(), Error> {
        let mut lines = match seen {
            Seen::Text { own, .. } => lines_without(&own, rules, dead),
            Seen::Free if dead.is_empty() => rules.addition().lines(),
            Seen::Free => lines_without(&self.read(family)?, rules, dead),
        };
        for _ in 1..ATTEMPTS {
            match self.tool(family).restore(&lines) {
                Err(Error::ProgramFailed { .. }) => {
                    lines = lines_without(&self.read(family)?, rules, dead);
                }
                result => return result,
            }
        }
        self.tool(family).restore(&lines)
    }

    /// Whether an attachment has its rules, and no others.
    pub(super) fn check(
        &mut self,
        family: Family,
        kernel: &mut KernelTables,
        rules: &Rules,
    ) -> Result<(), Error> {
        let saved = self.saved(family, kernel)?;
        let unsure = rules.problem(&saved).map_err(Error::Changed)?;
        if unsure.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = unsure.iter().map(|rule| format!("-C {rule}")).collect();
        match self.tool(family).restore(&lines) {
            Err(Error::ProgramFailed { stderr, .. }) => Err(Error::Changed(format!(
                "a rule that leads to chain {} is missing in table nat: {stderr}",
                rules.identity.chain
            ))),
            result => result,
        }
    }

    /// Removes what `lines_for` gives for a table from where `look_in` says.
    fn remove(
        &mut self,
        look_in: &mut dyn FnMut(Family) -> Places,
        lines_for: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<(), Error> {
        WORK.remove(&mut *self.runner, self.lock, look_in, lines_for)
    }
}

fn lines_without(saved: &str, rules: &Rules, dead: &BTreeSet<Tag>) -> Vec<String> {
    let gone = dead.iter().flat_map(|tag| match tag {
        Tag::Chain(chain) => removal_lines(saved, chain),
        Tag::Comment(_) | Tag::Id(_) => Vec::new(),
    });
    gone.chain(rules.lines(saved)).collect()
}

/// Says of where a chain leads whether that keeps it.
pub(super) type Kept<'a> = &'a dyn Fn(&[IpAddr]) -> bool;

/// Removes an attachment's rules, whichever suite made them, by the names of its chains. Another interface of the
/// container may have made them, as they share the chain: where that is `asked`, it says so.
pub(super) fn tear_down(
    programs: &mut Programs<'_>,
    kernel: &mut KernelTables,
    identity: &Identity,
    asked: Option<Kept<'_>>,
) -> Result<(), Error> {
    let Identity { chain, old_chain, .. } = identity;
    let chains = [(HOSTPORTS, chain.as_str()), (OLD_HOSTPORTS, old_chain.as_str())];
    remove_chains(programs, kernel, &chains, asked)
}

/// Removes chains, and what leads to them from the chains that they are told with; but for those that are kept, where
/// that is `asked`.
pub(super) fn remove_chains(
    programs: &mut Programs<'_>,
    kernel: &mut KernelTables,
    chains: &[(&str, &str)],
    asked: Option<Kept<'_>>,
) -> Result<(), Error> {
    let mut look_in = |family| {
        let mut places = Places { nftables: false, legacy: false };
        for (hook, chain) in chains {
            let is_kept = |it: Kept<'_>| kernel.destinations(family, chain).is_ok_and(|to| it(&to));
            if asked.is_some_and(is_kept) {
                continue;
            }
            let left = kernel.remove(family, hook, chain, |_| true);
            places.nftables |= left.nftables;
            places.legacy |= left.legacy;
        }
        places
    };
    programs.remove(&mut look_in, &|saved| {
        let is_kept = |chain: &str, it: Kept<'_>| it(&destinations(saved, chain));
        let gone = chains.iter().map(|(_, chain)| *chain);
        let gone = gone.filter(|chain| !asked.is_some_and(|it| is_kept(chain, it)));
        gone.flat_map(|chain| removal_lines(saved, chain)).collect()
    })
}

/// Where the rules of a chain lead.
fn destinations(saved: &str, chain: &str) -> Vec<IpAddr> {
    let rules = saved.lines().filter_map(|line| line.strip_prefix("-A ")?.split_once(' '));
    let of_chain = rules.filter(|(name, _)| *name == chain);
    of_chain.filter_map(|(_, rule)| translation(rule)).map(|(_, to)| to).collect()
}

/// Removes the rules of the containers in `network` whose chains are not among `valid`.
pub(super) fn collect_garbage(
    programs: &mut Programs<'_>,
    kernel: &mut KernelTables,
    network: &str,
    valid: &[Identity],
) -> Result<(), Error> {
    let lines_for = |saved: &str| {
        let chains = chains_of(saved, network).into_iter();
        let stale = chains.filter(|chain| !valid.iter().any(|it| it.chain == *chain));
        stale.flat_map(|chain| removal_lines(saved, chain)).collect()
    };
    programs.remove(&mut |family| kernel.places(family, NAT, HOSTPORTS), &lines_for)
}

/// The chains of the containers in `network`, each once. The comment's end does not matter, because iptables
/// cuts it.
fn chains_of<'a>(saved: &'a str, network: &str) -> Vec<&'a str> {
    let marker = Identity::comment_of_network(network);
    let rules = saved.lines().filter(|line| line.starts_with("-A ") && line.contains(&marker));
    let targets = rules.filter_map(|rule| rule.rsplit_once(" -j ").map(|(_, target)| target));
    let mut chains: Vec<&str> = targets.filter(|name| name.starts_with(CHAIN_PREFIX)).collect();
    chains.sort_unstable();
    chains.dedup();
    chains
}

#[cfg(test)]
mod tests;
