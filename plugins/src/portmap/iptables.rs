//! By iptables, in the reference's layout (`plugins/meta/portmap/portmap_iptables.go`): a chain for each
//! container, and shared ones that lead there.

mod removal;
mod saved;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnetwork::IpNetwork;
use ruleset::iptables::{Match, PortRange, Side, Target};
use ruleset::networks;
use runner::{Lock, Runner};

use super::conf::{Conditions, Conf};
use super::identity::Identity;
use super::mapping::{Dead, Held, Mapping, Protocol, Tag};
use crate::backend::Backend;
use crate::error::Error;
use crate::iptables::{
    Addition, Family, InChain, InKernel, NAT, Places, Saved, Tool, Work, is_declaration,
    is_missing, is_unreadable,
};
use crate::kernel_tables::KernelTables;
use removal::removal_lines;
pub(super) use removal::{collect_garbage, remove_by_kernel, remove_chains, tear_down};
use saved::{Kept, held, leading_to};

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

/// Says of an address whether another interface of the container has it: all of a container's to one network share the
/// chain.
pub(super) type OfSiblings<'a> = &'a dyn Fn(IpAddr) -> bool;

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

    /// The lines that make of what is there what shall be. What the chain held before goes, but for that `of_siblings`:
    /// an earlier ADD may have been for another address.
    fn lines(&self, saved: &str, of_siblings: OfSiblings<'_>) -> Vec<String> {
        let chain = &self.identity.chain;
        let is_there = saved.lines().any(|line| is_declaration(line, chain));
        let mut lines = self.missing_shared(saved);
        let kept = Kept::of(saved, chain, of_siblings);
        let (staying, gone): (Vec<&str>, Vec<&str>) =
            leading_to(saved, chain).partition(|rule| kept.needs(rule));
        lines.extend(gone.iter().map(|rule| format!("-D {rule}")));
        lines.push(format!("{} {chain}", if is_there { "-F" } else { "-N" }));
        lines.extend(kept.rules.iter().map(|rule| format!("-A {rule}")));
        let entries = self.entries.iter().map(ToString::to_string);
        let missing = entries.filter(|rule| !staying.contains(&rule.as_str()));
        let own = self.own.iter().map(ToString::to_string);
        lines.extend(own.chain(missing).map(|rule| format!("-A {rule}")));
        lines
    }

    /// The lines that make what is missing of what all share.
    fn missing_shared(&self, saved: &str) -> Vec<String> {
        let is_there = |chain: &str| saved.lines().any(|line| is_declaration(line, chain));
        let chains = self.chains.iter().filter(|chain| !is_there(chain));
        let rules = self.shared.iter().filter(|(_, rule)| !rule.is_among(saved));
        let chains = chains.map(|chain| format!("-N {chain}"));
        chains.chain(rules.map(|(verb, rule)| format!("{verb} {rule}"))).collect()
    }

    /// What an attachment adds that has nothing yet, where the shared chains are as they should be.
    pub(super) fn addition(&self) -> Addition<'_> {
        Addition {
            shared: self.shared.iter().map(|(_, rule)| rule).collect(),
            chain: &self.identity.chain,
            is_new: true,
            own: self.own.iter().chain(&self.entries).collect(),
        }
    }

    /// What is not as it should be, in words; and the rules that only iptables can compare. What is `of_siblings` in the
    /// chain is left out.
    fn problem(&self, saved: &str, of_siblings: OfSiblings<'_>) -> Result<&[InChain], String> {
        let chain = &self.identity.chain;
        // Of this family it publishes nothing: another interface's ADD and DEL may have taken the empty chain.
        if self.own.is_empty() {
            return Ok(&[]);
        }
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
        let kept = Kept::of(saved, chain, of_siblings);
        if !kept.others.iter().copied().eq(self.own.iter().map(ToString::to_string)) {
            return Err(format!("chain {chain} of table nat has other rules"));
        }
        let leading: BTreeSet<&str> = leading_to(saved, chain).collect();
        let (shared, own): (Vec<&str>, Vec<&str>) =
            leading_to(saved, chain).partition(|rule| kept.needs(rule));
        // More of them do no harm: the chain looks at the port once more. And those that nothing in the chain is for, as their ports
        // are of the other family, another interface's ADD and DEL may have taken.
        let entries = || self.entries.iter().filter(|rule| kept.is_led_to(&rule.to_string()));
        let least = entries().count().saturating_sub(shared.len());
        if own.len() < least {
            return Err(format!(
                "{} rules of table nat lead to chain {chain}, not {least}",
                own.len(),
            ));
        }
        if self.is_conditional {
            return Ok(&self.entries);
        }
        match entries().find(|rule| !leading.contains(rule.to_string().as_str())) {
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
    /// What is published, where the node's own programs do not list the table.
    Told {
        /// As the kernel tells it.
        held: Vec<Held>,
        /// The table of old beside it.
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
            Self::Told { held, of_old } => [held.clone(), saved::held(of_old)].concat(),
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

    fn read(&mut self, family: Family) -> Result<String, Error> {
        self.tool(family).save_if_there()
    }

    /// Looks at table nat of a family for an attachment that wants these ports, by iptables or not.
    pub(super) fn look(
        &mut self,
        family: Family,
        kernel: &mut KernelTables,
        (backend, identity): (Backend, &Identity),
        ports: &BTreeSet<u16>,
    ) -> Result<Seen, Error> {
        let places = kernel.places(family, NAT, HOSTPORTS);
        let is_begun = places.nftables || places.legacy;
        // Where others have the table, the programs may not list it: that matters to who writes by them.
        if !(is_begun || backend == Backend::Iptables && kernel.has_table(family, NAT)?) {
            return Ok(Seen::of(String::new()));
        }
        // What the kernel does not tell, the program may know.
        if is_begun && kernel.is_free(family, (HOSTPORTS, &identity.chain), ports).unwrap_or(false)
        {
            return Ok(Seen::Free);
        }
        self.list(family, kernel, places)
    }

    /// All that is published of a family.
    pub(super) fn look_at_all(
        &mut self,
        family: Family,
        kernel: &mut KernelTables,
    ) -> Result<Seen, Error> {
        match kernel.places(family, NAT, HOSTPORTS) {
            Places { nftables: false, legacy: false } => Ok(Seen::of(String::new())),
            places => self.list(family, kernel, places),
        }
    }

    fn list(
        &mut self,
        family: Family,
        kernel: &mut KernelTables,
        Places { nftables, legacy }: Places,
    ) -> Result<Seen, Error> {
        let own = match self.read(family) {
            // Without the program nobody but the kernel knows.
            Err(error) if is_missing(&error) => {
                let told = kernel.client()?.map(|client| told::held(client, family));
                let held = told.transpose()?.unwrap_or_default();
                return Ok(Seen::Told { held, of_old: String::new() });
            }
            own => own?,
        };
        // What nf_tables has not, the programs have from the tables of old.
        let is_of_old = !nftables && own.lines().any(|line| is_declaration(line, HOSTPORTS));
        let of_old = if !legacy || is_of_old {
            String::new()
        } else {
            let programs = family.legacy_programs;
            match Tool::new(&mut *self.runner, WORK, programs, self.lock).save_if_there() {
                // Where there are no two kinds, the node's is for the tables of old.
                Err(error) if is_missing(&error) => String::new(),
                saved => saved?,
            }
        };
        match kernel.client()? {
            Some(client) if is_unreadable(&own) => {
                Ok(Seen::Told { held: told::held(client, family)?, of_old })
            }
            _ => Ok(Seen::Text { own, of_old }),
        }
    }

    /// Gives an attachment its rules in a table that was `seen` before; those of the `dead` go, and those stay that
    /// are `of_siblings`.
    pub(super) fn set_up(
        &mut self,
        family: Family,
        kernel: &mut KernelTables,
        seen: Seen,
        rules: &Rules,
        dead: &Dead,
        of_siblings: OfSiblings<'_>,
    ) -> Result<(), Error> {
        let lines_for = |saved: &str| {
            let gone = dead.holders().flat_map(|(tag, addresses)| match tag {
                Tag::Chain(chain) => removal_lines(saved, chain, &|to| !addresses.contains(&to)),
                Tag::Comment(_) | Tag::Id(_) => Vec::new(),
            });
            gone.chain(rules.lines(saved, of_siblings)).collect::<Vec<_>>()
        };
        let mut lines = match seen {
            Seen::Told { .. } => return self.complete(family, kernel, rules, of_siblings),
            Seen::Text { own, .. } => lines_for(&own),
            Seen::Free if dead.is_empty() => rules.addition().lines(),
            Seen::Free => lines_for(&self.read(family)?),
        };
        for _ in 1..ATTEMPTS {
            match self.tool(family).restore(&lines) {
                Err(Error::ProgramFailed { .. }) => {
                    lines = match self.saved_for(family, kernel, rules)? {
                        Saved::All(saved) => lines_for(&saved),
                        Saved::Part(_) => return self.complete(family, kernel, rules, of_siblings),
                    };
                }
                result => return result,
            }
        }
        self.tool(family).restore(&lines)
    }

    /// The table, or of one that the programs cannot read what has to do with an attachment.
    fn saved_for(
        &mut self,
        family: Family,
        kernel: &mut KernelTables,
        rules: &Rules,
    ) -> Result<Saved, Error> {
        let shared = rules.shared.iter().map(|(_, rule)| rule);
        let all: Vec<_> = shared.chain(&rules.own).chain(&rules.entries).collect();
        self.tool(family).save_for(kernel, family, &all)
    }

    /// Completes what is in a table that the programs cannot read. What an earlier ADD made goes first, but for what is
    /// `of_siblings`. What the programs write themselves would not be found again, so they write as little as can be.
    fn complete(
        &mut self,
        family: Family,
        kernel: &mut KernelTables,
        rules: &Rules,
        of_siblings: OfSiblings<'_>,
    ) -> Result<(), Error> {
        if let Some(client) = kernel.client()? {
            // What was refused stays, and is completed.
            let _ = told::remove(client, family, (HOSTPORTS, &rules.identity.chain), of_siblings);
        }
        let saved = self.saved_for(family, kernel, rules)?.into_text();
        let shared = rules.missing_shared(&saved);
        if !shared.is_empty() {
            self.tool(family).restore(&shared)?;
        }
        let is_there = saved.lines().any(|line| is_declaration(line, &rules.identity.chain));
        let (mut own, mut group) = (Vec::new(), Vec::new());
        for rule in &rules.own {
            group.push(rule);
            if rule.is_translation() {
                // Another interface's rules that mark may be like these, and go with it.
                let is_among = rule.is_among(&saved);
                own.extend(group.drain(..).filter(|_| !is_among));
            }
        }
        own.extend(rules.entries.iter().filter(|rule| !rule.is_among(&saved)));
        let addition = Addition { is_new: !is_there, own, ..rules.addition() };
        let add = |mut it: InKernel<'_>| it.add(&addition);
        if addition.own.is_empty() || InKernel::find(kernel, family, NAT).is_some_and(add) {
            return Ok(());
        }
        let chain = (!is_there).then(|| format!("-N {}", rules.identity.chain));
        let own = addition.own.iter().map(|rule| format!("-A {rule}"));
        let lines = chain.into_iter().chain(own);
        self.tool(family).restore(&lines.collect::<Vec<_>>())
    }

    /// Whether an attachment has its rules, and no others but those that are `of_siblings`.
    pub(super) fn check(
        &mut self,
        family: Family,
        kernel: &mut KernelTables,
        rules: &Rules,
        of_siblings: OfSiblings<'_>,
    ) -> Result<(), Error> {
        let Places { nftables, legacy } = kernel.places(family, NAT, HOSTPORTS);
        let saved = if nftables || legacy {
            self.saved_for(family, kernel, rules)?.into_text()
        } else {
            String::new()
        };
        let unsure = rules.problem(&saved, of_siblings).map_err(Error::Changed)?;
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

#[cfg(test)]
mod tests;
