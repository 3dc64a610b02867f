//! By iptables, in the reference's layout (`plugins/meta/firewall/iptables.go`, `ingresspolicy.go`).
//!
//! There a rule does not tell whose it is, and addresses are given to others. So each attachment adds rules of its own,
//! though there may be the same already, and has a chain to which nothing leads, the [record](record) of its addresses.
//! By it DEL knows them without a result, and removes as many rules as were added; and GC knows whose are stale.

use std::net::IpAddr;

use attachment::kernel::RECORD_PREFIX;
use cni::{Attachment, Call};
use netlink::nftables::{Addressed, Change, Client};
use ruleset::iptables::{Match, Packets, Side, Target};
use ruleset::nft::Table;
use runner::{Lock, Runner};

use super::Wanted;
use super::conf::IngressPolicy;
use crate::backend::Backend;
use crate::error::Error;
use crate::iptables::{Addition, FILTER, Family, InChain, Places, Tool, Work, is_declaration};
use crate::kernel_tables::{KernelTables, table};
use crate::names::hex;
use crate::nf_tables::attempt;

/// What the programs are for.
const WORK: Work = Work { purpose: "letting containers' packets pass", table: FILTER };
/// What the kernel asks of what it forwards.
pub(super) const FORWARD: &str = "FORWARD";
/// What lets containers' packets pass.
pub(super) const ACCEPT: &str = "CNI-FORWARD";
/// What comes from a bridge with a policy.
const STAGE_1: &str = "CNI-ISOLATION-STAGE-1";
/// What comes from there and leaves by another one.
const STAGE_2: &str = "CNI-ISOLATION-STAGE-2";
/// Others may make the shared chains, or remove rules, between a look and a write.
const ATTEMPTS: usize = 4;

/// The chain that tells an attachment's addresses: `CNI-FW-`, 8 hexadecimal digits of the SHA-512 of the network, and
/// 12 of interface and container.
pub(super) fn record(network: &str, container_id: &str, ifname: &str) -> String {
    let owner = hex(&format!("{ifname}:{container_id}"), 6);
    format!("{}{owner}", records_of(network))
}

/// What the names of a network's records begin with.
fn records_of(network: &str) -> String {
    format!("{RECORD_PREFIX}{}", hex(network, 4))
}

/// What an attachment has in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// Chains that all attachments share.
    chains: Vec<String>,
    /// Their rules, and how one that is missing is added.
    shared: Vec<(&'static str, InChain)>,
    record: String,
    /// The rules of the record, to which nothing leads, and those that let the addresses' packets pass.
    own: Vec<InChain>,
}

impl Rules {
    /// For the addresses of a family. Bridges are kept apart where `backend` says that iptables does it.
    pub(super) fn new(call: &Call, wanted: &Wanted, backend: Backend, family: Family) -> Self {
        let record = record(&call.conf.name, &call.container_id, &call.ifname);
        Self::of(record, wanted, backend, family)
    }

    fn of(record: String, wanted: &Wanted, backend: Backend, family: Family) -> Self {
        let admin = &wanted.conf.admin_chain;
        let mut chains = vec![ACCEPT.to_owned(), admin.clone()];
        let about = |text: &str| Match::Comment(format!("CNI firewall plugin {text}"));
        let jump = |chain: &str| Target::Jump(chain.to_owned());
        let mut shared = vec![
            ("-I", InChain::new(FORWARD, [about("rules")], jump(ACCEPT))),
            ("-I", InChain::new(ACCEPT, [about("admin overrides")], jump(admin))),
        ];
        if let Some(bridge) = wanted.bridge.as_ref().filter(|_| backend == Backend::Iptables) {
            let policy = wanted.conf.ingress_policy;
            let of = |policy: &str| about(&format!("rules (ingressPolicy: {policy})"));
            let (any, own) = (|| of("same-bridge|isolated"), || of(&policy.to_string()));
            let from = || Match::InInterface(bridge.clone());
            let to = || Match::OutInterface(bridge.clone());
            let elsewhere = [from(), Match::NotOutInterface(bridge.clone()), own()];
            chains.extend([STAGE_1, STAGE_2].map(str::to_owned));
            shared.push(("-I", InChain::new(FORWARD, [any()], jump(STAGE_1))));
            shared.push(("-I", InChain::new(STAGE_1, elsewhere, jump(STAGE_2))));
            if policy == IngressPolicy::Isolated {
                shared.push(("-I", InChain::new(STAGE_1, [from(), to(), own()], Target::Drop)));
            }
            shared.extend([
                ("-A", InChain::new(STAGE_1, [any()], Target::Return)),
                ("-I", InChain::new(STAGE_2, [to(), any()], Target::Drop)),
                ("-A", InChain::new(STAGE_2, [any()], Target::Return)),
            ]);
        }
        let addresses = wanted.addresses.iter().filter(|it| it.is_ipv4() == family.is_ipv4);
        let recorded = addresses.clone().map(|address| {
            let from = Match::Address(Side::Source, (*address).into());
            InChain::new(&*record, [from], Target::Return)
        });
        let own = recorded.chain(addresses.clone().flat_map(|it| accepting(*it))).collect();
        Self { chains, shared, record, own }
    }

    /// What an attachment adds that has nothing yet, on a node that has what is shared.
    pub(super) fn addition(&self) -> Addition<'_> {
        Addition {
            shared: self.shared.iter().map(|(_, rule)| rule).collect(),
            chain: &self.record,
            own: self.own.iter().collect(),
        }
    }

    /// The lines that make of what is there what shall be.
    fn lines(&self, saved: &str) -> Vec<String> {
        let is_there = |chain: &str| saved.lines().any(|line| is_declaration(line, chain));
        let missing = self.chains.iter().filter(|chain| !is_there(chain));
        let mut lines: Vec<String> = missing.map(|chain| format!("-N {chain}")).collect();
        let missing = self.shared.iter().filter(|(_, rule)| !rule.is_among(saved));
        lines.extend(missing.map(|(verb, rule)| format!("{verb} {rule}")));
        // Of an earlier ADD.
        if is_there(&self.record) {
            lines.extend(deletions(saved, &recorded(saved, |chain| chain == self.record)));
            lines.push(format!("-F {}", self.record));
        } else {
            lines.push(format!("-N {}", self.record));
        }
        lines.extend(self.own.iter().map(|rule| format!("-A {rule}")));
        lines
    }

    /// What is not as it should be, in words. The reference makes no records.
    fn problem(&self, saved: &str) -> Option<String> {
        let accepting = self.own.iter().filter(|it| it.is_in(ACCEPT));
        let mut wanted = self.shared.iter().map(|(_, rule)| rule).chain(accepting);
        let missing = wanted.find(|rule| !rule.is_among(saved))?.to_string();
        Some(format!("rule {missing:?} is missing in table {FILTER}"))
    }
}

/// The rules by which an address' packets pass, in the reference's order.
fn accepting(address: IpAddr) -> [InChain; 2] {
    let (to, from) =
        [Side::Destination, Side::Source].map(|side| Match::Address(side, address.into())).into();
    let answers = [to, Match::Connection(Packets::Established)];
    [InChain::new(ACCEPT, answers, Target::Accept), InChain::new(ACCEPT, [from], Target::Accept)]
}

fn rules(saved: &str) -> impl Iterator<Item = &str> {
    saved.lines().filter_map(|line| line.strip_prefix("-A "))
}

/// The addresses in the records of which `is_one` is true, each as often as it is there.
fn recorded(saved: &str, is_one: impl Fn(&str) -> bool) -> Vec<IpAddr> {
    let of_records = rules(saved).filter_map(|rule| {
        let (chain, rest) = rule.split_once(" -s ")?;
        let is_chosen = chain.starts_with(RECORD_PREFIX) && is_one(chain);
        rest.split(['/', ' ']).next().filter(|_| is_chosen)?.parse().ok()
    });
    of_records.collect()
}

/// The lines that remove the rules of each of these addresses once, as far as they are there.
fn deletions(saved: &str, addresses: &[IpAddr]) -> Vec<String> {
    let mut left: Vec<&str> = rules(saved).collect();
    let accepting = addresses.iter().flat_map(|it| accepting(*it)).map(|rule| rule.to_string());
    let gone = accepting.filter(|rule| {
        let place = left.iter().position(|it| it == rule);
        place.map(|place| left.swap_remove(place)).is_some()
    });
    gone.map(|rule| format!("-D {rule}")).collect()
}

/// The lines that remove the records of which `is_gone` is true, and the rules of their addresses; or where there is no
/// such record those of `addresses`.
fn removal_lines(saved: &str, is_gone: impl Fn(&str) -> bool, addresses: &[IpAddr]) -> Vec<String> {
    let chains = saved.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    let is_record = |chain: &&str| chain.starts_with(RECORD_PREFIX) && is_gone(chain);
    let records: Vec<&str> = chains.filter(is_record).collect();
    if records.is_empty() {
        return deletions(saved, addresses);
    }
    let mut lines = deletions(saved, &recorded(saved, &is_gone));
    lines.extend(records.iter().flat_map(|it| [format!("-F {it}"), format!("-X {it}")]));
    lines
}

/// Removes an attachment's rules of a family from nf_tables, without a program, in the way of [`removal_lines`].
fn remove_from_nftables(
    client: &mut Client,
    table: Table<'_>,
    record: &str,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    attempt(|| {
        let is_there = client.has_chain(table, record)?;
        let recorded = if is_there { client.addressed(table, record)? } else { Vec::new() };
        let recorded: Vec<IpAddr> =
            recorded.iter().filter_map(|it| Some(it.source?.ip())).collect();
        let mut held = client.addressed(table, ACCEPT)?;
        let mut changes = Vec::new();
        for address in if is_there { &recorded } else { addresses } {
            for of_kind in [lets_answers_in, lets_out] {
                if let Some(place) = held.iter().position(|rule| of_kind(rule, *address)) {
                    changes.push(Change::DeleteRule(ACCEPT, held.swap_remove(place).handle));
                }
            }
        }
        if is_there {
            changes.extend([Change::Empty(record), Change::DeleteChain(record)]);
        }
        client.change(table, &changes)
    })
}

/// Whether a rule is the first of [`accepting`].
fn lets_answers_in(rule: &Addressed, address: IpAddr) -> bool {
    let is_for = rule.source.is_none() && rule.destination == Some(address.into());
    rule.accepts && is_for && rule.asks == ["conntrack"]
}

/// Whether a rule is the second of [`accepting`].
fn lets_out(rule: &Addressed, address: IpAddr) -> bool {
    let is_for = rule.destination.is_none() && rule.source == Some(address.into());
    rule.accepts && is_for && rule.asks.is_empty()
}

/// Reads and changes table filter, under the lock.
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

    /// Gives an attachment its rules of a family.
    pub(super) fn set_up(&mut self, family: Family, wanted: &Rules) -> Result<(), Error> {
        let mut tool = self.tool(family);
        let mut result = tool.restore(&wanted.addition().lines());
        for _ in 0..ATTEMPTS {
            if !matches!(result, Err(Error::ProgramFailed { .. })) {
                break;
            }
            let saved = tool.save_if_there()?;
            result = tool.restore(&wanted.lines(&saved));
        }
        result
    }

    /// Whether an attachment has its rules.
    pub(super) fn check(&mut self, family: Family, wanted: &Rules) -> Result<(), Error> {
        let saved = self.tool(family).save_if_there()?;
        wanted.problem(&saved).map_or(Ok(()), |problem| Err(Error::Changed(problem)))
    }

    /// Removes an attachment's rules, whichever suite made them. `addresses` are those that its result tells.
    pub(super) fn tear_down(
        &mut self,
        kernel: &mut KernelTables,
        record: &str,
        addresses: &[IpAddr],
    ) -> Result<(), Error> {
        let mut look_in = |family: Family| {
            let mut places = kernel.places(family, FILTER, ACCEPT);
            let of_family = |it: &&IpAddr| it.is_ipv4() == family.is_ipv4;
            let addresses: Vec<IpAddr> = addresses.iter().filter(of_family).copied().collect();
            if places.nftables
                && let Ok(Some(client)) = kernel.client()
            {
                // What is refused here, and why, the programs tell.
                let table = table(family, FILTER);
                places.nftables = remove_from_nftables(client, table, record, &addresses).is_err();
            }
            places
        };
        self.remove(&mut look_in, &|saved| removal_lines(saved, |chain| chain == record, addresses))
    }

    /// Removes the rules of the attachments to `network` that are not among `valid`. Those that the reference made
    /// do not tell their network, and stay.
    pub(super) fn collect_garbage(
        &mut self,
        kernel: &mut KernelTables,
        network: &str,
        valid: &[Attachment],
    ) -> Result<(), Error> {
        let record_of = |it: &Attachment| record(network, &it.container_id, &it.ifname);
        let valid: Vec<String> = valid.iter().map(record_of).collect();
        let of_network = records_of(network);
        let is_stale = |chain: &str| {
            chain.starts_with(&of_network) && !valid.iter().any(|record| record == chain)
        };
        let mut look_in = |family| kernel.places(family, FILTER, ACCEPT);
        self.remove(&mut look_in, &|saved| removal_lines(saved, is_stale, &[]))
    }

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
