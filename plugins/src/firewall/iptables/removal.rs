//! What goes of the rules that let addresses' packets pass.
//!
//! They do not tell whose they are, and a record alone may mislead: the reference's DEL takes the rules and leaves the
//! record, and the address is another's by then. So of an address' rules those of others stay, who are known by their
//! records, and by host-local's lease.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::{Attachment, Call};
use netlink::nftables::{Addressed, Change, Client};
use ruleset::nft::Table;

use super::{ACCEPT, RECORD_PREFIX, accepting, record, recording, records_of, rules};
use crate::error::Error;
use crate::lease::Lease;
use crate::nf_tables::attempt;
use crate::veth;

/// Whose rules go.
#[derive(Debug)]
enum Gone {
    /// Of the attachment with this record.
    One(String),
    /// Of all of the network but of those with these records.
    AllBut(BTreeSet<String>),
}

/// A removal of rules that are of a network's attachments.
pub(in crate::firewall) struct Removal<'a> {
    gone: Gone,
    /// What the names of the network's records begin with.
    of_network: String,
    /// What the result tells of the attachment, whether or not its record does.
    addresses: &'a [IpAddr],
    /// The record of who has an address of the network by its lease, if there is one.
    leased_to: Box<dyn Fn(IpAddr) -> Option<String> + 'a>,
}

/// What goes of the rules of an address, of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    /// So many at most.
    goes: usize,
    /// So many are others'.
    stays: usize,
}

impl<'a> Removal<'a> {
    /// Of what an attachment has: the rules of its record, and of `addresses`, which its result tells.
    pub(in crate::firewall) fn of_attachment(
        network: &'a str,
        (container_id, ifname): (&str, &str),
        addresses: &'a [IpAddr],
    ) -> Self {
        Self::new(network, Gone::One(record(network, container_id, ifname)), addresses)
    }

    /// Believes no lease that gives another an address which the call's container still has: its folder may be one of
    /// before, with the leases of then.
    pub(in crate::firewall) fn of_container(self, call: &'a Call) -> Self {
        let Self { leased_to, .. } = self;
        let own = record(&call.conf.name, &call.container_id, &call.ifname);
        let is_believed = move |address: IpAddr, holder: &String| {
            *holder == own || !veth::has_address(call, address)
        };
        let leased_to =
            move |address| leased_to(address).filter(|holder| is_believed(address, holder));
        Self { leased_to: Box::new(leased_to), ..self }
    }

    /// Of what the attachments to a network have that are not among `valid`. What the reference made does not tell its
    /// network, and stays.
    pub(in crate::firewall) fn of_garbage(network: &'a str, valid: &[Attachment]) -> Self {
        let record_of = |it: &Attachment| record(network, &it.container_id, &it.ifname);
        Self::new(network, Gone::AllBut(valid.iter().map(record_of).collect()), &[])
    }

    fn new(network: &'a str, gone: Gone, addresses: &'a [IpAddr]) -> Self {
        let leased_to = move |address| {
            let lease = Lease::read(ipam::listing::default_data_dir(), network, address)?;
            Some(record(network, &lease.container_id, &lease.ifname?))
        };
        let of_network = records_of(network);
        Self { gone, of_network, addresses, leased_to: Box::new(leased_to) }
    }

    fn is_gone(&self, chain: &str) -> bool {
        match &self.gone {
            Gone::One(record) => chain == record,
            Gone::AllBut(valid) => chain.starts_with(&self.of_network) && !valid.contains(chain),
        }
    }

    /// The addresses of which rules may go, by what all records say.
    fn addresses(&self, records: &[(&str, IpAddr)]) -> BTreeSet<IpAddr> {
        let gone = records.iter().filter(|(chain, _)| self.is_gone(chain)).map(|(_, it)| it);
        gone.chain(self.addresses).copied().collect()
    }

    fn share(&self, address: IpAddr, records: &[(&str, IpAddr)]) -> Share {
        let of_address = records.iter().filter(|(_, it)| *it == address).map(|(chain, _)| *chain);
        let (gone, mut others): (Vec<&str>, Vec<&str>) =
            of_address.partition(|chain| self.is_gone(chain));
        let is_of_network = |chain: &&str| chain.starts_with(&self.of_network);
        let leased_to = (self.leased_to)(address).filter(|it| match &self.gone {
            Gone::One(_) => true,
            // A file that names who is not valid may be of before: it takes nothing from who is.
            Gone::AllBut(valid) => valid.contains(it) || !others.iter().any(is_of_network),
        });
        let mut goes = gone.len().max(1);
        if let Some(holder) = &leased_to {
            // Then those without a record are its own as well: the reference may have added it before.
            if self.is_gone(holder) {
                goes = usize::MAX;
            }
            // Nobody else of the network has it, whatever was recorded.
            others.retain(|chain| chain == holder || !chain.starts_with(&self.of_network));
            if !self.is_gone(holder) && !others.iter().any(|chain| chain == holder) {
                others.push(holder);
            }
        }
        Share { goes, stays: others.len() }
    }

    /// The lines that remove the rules from a table of which this was saved.
    pub(super) fn deletions(&self, saved: &str) -> Vec<String> {
        let records: Vec<(&str, IpAddr)> = rules(saved).filter_map(recorded).collect();
        let mut lines = Vec::new();
        for address in self.addresses(&records) {
            let of_kinds = accepting(address).map(|rule| {
                let rule = rule.to_string();
                rules(saved).filter(|it| *it == rule).map(|it| format!("-D {it}")).collect()
            });
            lines.extend(self.gone_of(of_kinds, address, &records));
        }
        lines
    }

    /// Those that go of an address' rules of either kind.
    fn gone_of<T>(
        &self,
        of_kinds: [Vec<T>; 2],
        address: IpAddr,
        records: &[(&str, IpAddr)],
    ) -> Vec<T> {
        if of_kinds.iter().all(Vec::is_empty) {
            return Vec::new();
        }
        let share = self.share(address, records);
        let gone = of_kinds.into_iter().flat_map(|rules| {
            let count = share.of(rules.len());
            rules.into_iter().take(count)
        });
        gone.collect()
    }

    /// The same, and the records.
    pub(super) fn lines(&self, saved: &str) -> Vec<String> {
        let chains = saved.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let records = chains.filter(|it| it.starts_with(RECORD_PREFIX) && self.is_gone(it));
        let of_record = |it: &str| [format!("-F {it}"), format!("-X {it}")];
        self.deletions(saved).into_iter().chain(records.flat_map(of_record)).collect()
    }

    /// Removes both from a table that nf_tables has, without a program.
    pub(super) fn remove_from_nftables(
        &self,
        client: &mut Client,
        table: Table<'_>,
    ) -> Result<(), Error> {
        attempt(|| {
            let chains = self.gone_chains(client, table)?;
            let is_one = |chain: &str| chain == ACCEPT || chain.starts_with(RECORD_PREFIX);
            let (held, records): (Vec<Addressed>, Vec<Addressed>) =
                client.addressed(table, is_one)?.into_iter().partition(|it| it.chain == ACCEPT);
            let recorded = |it: &'_ Addressed| it.source.map(|source| source.ip());
            let records: Vec<(&str, IpAddr)> =
                records.iter().filter_map(|it| Some((it.chain.as_str(), recorded(it)?))).collect();
            let mut changes = Vec::new();
            for address in self.addresses(&records) {
                let of_kinds = [lets_answers_in, lets_out].map(|is_of_kind| {
                    let of_kind = held.iter().filter(|rule| is_of_kind(rule, address));
                    of_kind.map(|rule| Change::DeleteRule(ACCEPT, rule.handle)).collect()
                });
                changes.extend(self.gone_of(of_kinds, address, &records));
            }
            changes
                .extend(chains.iter().flat_map(|it| [Change::Empty(it), Change::DeleteChain(it)]));
            client.change(table, &changes)
        })
    }

    /// The records that go.
    fn gone_chains(
        &self,
        client: &mut Client,
        table: Table<'_>,
    ) -> Result<Vec<String>, netlink::Error> {
        let chains = match &self.gone {
            Gone::One(record) if client.has_chain(table, record)? => vec![record.clone()],
            Gone::One(_) => Vec::new(),
            Gone::AllBut(_) => client.chains(table)?.unwrap_or_default(),
        };
        Ok(chains.into_iter().filter(|it| self.is_gone(it)).collect())
    }
}

impl Share {
    /// How many of so many go.
    fn of(self, count: usize) -> usize {
        self.goes.min(count.saturating_sub(self.stays))
    }
}

/// The rules of records, and those that let addresses' packets pass, of a table that nf_tables has, as `iptables-save` would
/// print them.
pub(super) fn told(client: &mut Client, table: Table<'_>) -> Result<String, netlink::Error> {
    let is_one = |chain: &str| chain == ACCEPT || chain.starts_with(RECORD_PREFIX);
    let lines = client.addressed(table, is_one)?.into_iter().filter_map(|rule| {
        let address = rule.source.or(rule.destination)?.ip();
        if rule.chain != ACCEPT {
            return Some(format!("-A {}", recording(&rule.chain, address)));
        }
        let [answers_in, out] = accepting(address);
        let of_kinds =
            [(lets_answers_in(&rule, address), answers_in), (lets_out(&rule, address), out)];
        of_kinds.into_iter().find_map(|(is_one, it)| is_one.then(|| format!("-A {it}")))
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The record that a rule is of, and the address that it tells.
fn recorded(rule: &str) -> Option<(&str, IpAddr)> {
    let (chain, rest) = rule.split_once(" -s ")?;
    let address = rest.split(['/', ' ']).next().filter(|_| chain.starts_with(RECORD_PREFIX))?;
    Some((chain, address.parse().ok()?))
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

#[cfg(test)]
mod tests;
