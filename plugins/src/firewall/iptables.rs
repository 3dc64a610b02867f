//! By iptables, in the reference's layout (`plugins/meta/firewall/iptables.go`, `ingresspolicy.go`).
//!
//! There a rule does not tell whose it is, and addresses are given to others. So each attachment adds rules of its own,
//! though there may be the same already, and has a chain to which nothing leads, the [record](record) of its addresses.
//! By it DEL knows them without a result, and GC knows whose are stale: [`removal`].

mod removal;

use std::net::IpAddr;

use attachment::kernel::RECORD_PREFIX;
use cni::Call;
use ruleset::iptables::{Match, Packets, Side, Target};
use runner::{Lock, Runner};

use super::Wanted;
use super::conf::IngressPolicy;
use crate::backend::Backend;
use crate::error::Error;
use crate::iptables::{Addition, FILTER, Family, InChain, Saved, Tool, Work, is_declaration};
use crate::kernel_tables::{KernelTables, table};
use crate::names::hex;

pub(super) use removal::Removal;

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
        let recorded = addresses.clone().map(|address| recording(&record, *address));
        let own = recorded.chain(addresses.clone().flat_map(|it| accepting(*it))).collect();
        Self { chains, shared, record, own }
    }

    /// What an attachment adds that has nothing yet, on a node that has what is shared.
    pub(super) fn addition(&self) -> Addition<'_> {
        Addition {
            shared: self.shared.iter().map(|(_, rule)| rule).collect(),
            chain: &self.record,
            is_new: true,
            own: self.own.iter().collect(),
        }
    }

    /// The lines that make of what is there what shall be. `former` is what the attachment has of an earlier ADD.
    fn lines(&self, saved: &str, former: &Removal<'_>) -> Vec<String> {
        let is_there = |chain: &str| saved.lines().any(|line| is_declaration(line, chain));
        let missing = self.chains.iter().filter(|chain| !is_there(chain));
        let mut lines: Vec<String> = missing.map(|chain| format!("-N {chain}")).collect();
        let missing = self.shared.iter().filter(|(_, rule)| !rule.is_among(saved));
        lines.extend(missing.map(|(verb, rule)| format!("{verb} {rule}")));
        if is_there(&self.record) {
            lines.extend(former.deletions(saved));
            lines.push(format!("-F {}", self.record));
        } else {
            lines.push(format!("-N {}", self.record));
        }
        lines.extend(self.own.iter().map(|rule| format!("-A {rule}")));
        lines
    }

    /// Whether podwire has made them: the reference makes no records.
    fn are_ours(&self, saved: &str) -> bool {
        saved.lines().any(|line| is_declaration(line, &self.record))
    }

    /// What is not as it should be, in words.
    fn problem(&self, saved: &str) -> Option<String> {
        let accepting = self.own.iter().filter(|it| it.is_in(ACCEPT));
        let mut wanted = self.shared.iter().map(|(_, rule)| rule).chain(accepting);
        let missing = wanted.find(|rule| !rule.is_among(saved))?.to_string();
        Some(format!("rule {missing:?} is missing in table {FILTER}"))
    }
}

/// The rule of a record that tells an address.
fn recording(record: &str, address: IpAddr) -> InChain {
    InChain::new(record, [Match::Address(Side::Source, address.into())], Target::Return)
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

    /// The table, or of one that the programs cannot read what has to do with an attachment.
    fn saved(
        &mut self,
        kernel: &mut KernelTables,
        family: Family,
        wanted: &Rules,
    ) -> Result<String, Error> {
        let shared: Vec<_> = wanted.shared.iter().map(|(_, rule)| rule).collect();
        match self.tool(family).save_for(kernel, family, &shared)? {
            Saved::All(saved) => Ok(saved),
            Saved::Part(shared) => {
                let client = kernel.client()?;
                let table = table(family, FILTER);
                let of_addresses = client.map(|it| removal::told(it, table)).transpose()?;
                Ok(format!("{shared}\n{}", of_addresses.unwrap_or_default()))
            }
        }
    }

    /// Gives an attachment its rules of a family.
    pub(super) fn set_up(
        &mut self,
        kernel: &mut KernelTables,
        family: Family,
        wanted: &Rules,
        former: &Removal<'_>,
    ) -> Result<(), Error> {
        let mut result = self.tool(family).restore(&wanted.addition().lines());
        for _ in 0..ATTEMPTS {
            if !matches!(result, Err(Error::ProgramFailed { .. })) {
                break;
            }
            let saved = self.saved(kernel, family, wanted)?;
            result = self.tool(family).restore(&wanted.lines(&saved, former));
        }
        result
    }

    /// That an attachment has its rules, and whether they are podwire's.
    pub(super) fn check(
        &mut self,
        kernel: &mut KernelTables,
        family: Family,
        wanted: &Rules,
    ) -> Result<bool, Error> {
        let saved = self.saved(kernel, family, wanted)?;
        match wanted.problem(&saved) {
            Some(problem) => Err(Error::Changed(problem)),
            None => Ok(wanted.are_ours(&saved)),
        }
    }

    /// Removes rules of both families, wherever they are, without a program where nf_tables has them.
    pub(super) fn remove(
        &mut self,
        kernel: &mut KernelTables,
        removal: &Removal<'_>,
    ) -> Result<(), Error> {
        let mut look_in = |family: Family| {
            let mut places = kernel.places(family, FILTER, ACCEPT);
            if places.nftables
                && let Ok(Some(client)) = kernel.client()
            {
                // What is refused here, and why, the programs tell.
                let table = table(family, FILTER);
                places.nftables = removal.remove_from_nftables(client, table).is_err();
            }
            places
        };
        let lines_for = |saved: &str| removal.lines(saved);
        WORK.remove(&mut *self.runner, self.lock, &mut look_in, &lines_for)
    }
}

#[cfg(test)]
mod tests;
