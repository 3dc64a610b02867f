//! What an attachment adds to a table that was not read: by the programs, or by netlink where they would keep it in
//! nf_tables.

use std::collections::BTreeSet;
use std::fmt;

use netlink::nftables::{Batch, Change, Client, HeldChain, IptablesRule};
use nix::errno::Errno;
use ruleset::iptables::{Match, Rule, Target};
use ruleset::nft::{Base, Chain, Hook, Kind, Policy, Table};

use super::{FILTER, Family, NAT};
use crate::kernel_tables::{KernelTables, table};

/// Others may change rules between a look and a write.
const ATTEMPTS: usize = 4;

/// Where the programs have the kernel call the chains that lead to ours (`nft_xt_builtin`, of priorities of
/// `nf_ip_hook_priorities`): one of the name that is called elsewhere, or by nobody, they leave alone.
const CALLED: [(&str, &str, Kind, Hook<'_>, i32); 4] = [
    (FILTER, "FORWARD", Kind::Filter, Hook::Forward, 0),
    (NAT, "PREROUTING", Kind::Nat, Hook::Prerouting, -100),
    (NAT, "OUTPUT", Kind::Nat, Hook::Output, -100),
    (NAT, "POSTROUTING", Kind::Nat, Hook::Postrouting, 100),
];

/// A rule in its chain; in words it is what `iptables-save` prints after `-A `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InChain {
    chain: String,
    rule: Rule,
}

impl InChain {
    /// A rule of a chain.
    pub(crate) fn new(
        chain: impl Into<String>,
        matches: impl Into<Vec<Match>>,
        target: Target,
    ) -> Self {
        Self { chain: chain.into(), rule: Rule::new(matches, target) }
    }

    /// Whether what `iptables-save` printed has it.
    pub(crate) fn is_among(&self, saved: &str) -> bool {
        let line = format!("-A {self}");
        saved.lines().any(|it| it == line)
    }

    /// Whether it leads packets elsewhere.
    pub(crate) const fn is_translation(&self) -> bool {
        matches!(self.rule.target, Target::Translate(_))
    }

    /// Whether it is in this chain.
    pub(crate) fn is_in(&self, chain: &str) -> bool {
        self.chain == chain
    }
}

impl fmt::Display for InChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.chain, self.rule)
    }
}

/// What an attachment adds: all of it, or nothing where a shared rule is missing or a chain that is new is there.
#[derive(Debug)]
pub(crate) struct Addition<'a> {
    /// Rules that all attachments share.
    pub(crate) shared: Vec<&'a InChain>,
    /// The attachment's chain.
    pub(crate) chain: &'a str,
    /// Whether there is nothing yet.
    pub(crate) is_new: bool,
    /// Its rules.
    pub(crate) own: Vec<&'a InChain>,
}

impl Addition<'_> {
    /// The lines by which `iptables-restore` makes it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let shared = self.shared.iter().map(|rule| format!("-C {rule}"));
        let own = self.own.iter().map(|rule| format!("-A {rule}"));
        shared.chain([format!("-N {}", self.chain)]).chain(own).collect()
    }

    /// The chains that must be there for its rules, besides those of the shared ones: these have matches that only the
    /// programs write, who write them to chains that are as theirs are.
    fn others(&self) -> BTreeSet<&str> {
        let chains = self.own.iter().map(|it| it.chain.as_str());
        let is_shared = |chain: &str| self.shared.iter().any(|it| it.is_in(chain));
        chains.filter(|it| *it != self.chain && !is_shared(it)).collect()
    }
}

/// Where the programs have the kernel call a chain of a table; `None` of one to which only rules lead.
fn base(table: &str, chain: &str) -> Option<Base<'static>> {
    let of = CALLED.into_iter().find(|it| (it.0, it.1) == (table, chain));
    of.map(|(_, _, kind, hook, priority)| Base { kind, hook, priority, policy: Policy::Accept })
}

/// A table of iptables that its programs keep in nf_tables, where it can be changed without them.
pub(crate) struct InKernel<'a> {
    client: &'a mut Client,
    table: Table<'a>,
    is_ipv4: bool,
}

impl<'a> InKernel<'a> {
    /// A family's table of this name; `None` where the family's programs keep it elsewhere, do not tell where, or are not
    /// there.
    pub(crate) fn find(
        kernel: &'a mut KernelTables,
        family: Family,
        name: &'a str,
    ) -> Option<Self> {
        let program = family.programs.find()?.canonicalize().ok()?;
        // The programs' own file is `xtables-nft-multi`, or `xtables-legacy-multi`. Any other may decide for either each
        // time that it is called, also for tables of old that are not there yet.
        program.file_name()?.to_string_lossy().contains("nft").then_some(())?;
        let client = kernel.client().ok()??;
        Some(Self { client, table: table(family, name), is_ipv4: family.is_ipv4 })
    }

    /// Whether all of it has been made. If not nothing was, and what is in the way the programs tell.
    pub(crate) fn add(&mut self, addition: &Addition<'_>) -> bool {
        let encode = |it: &&InChain| IptablesRule::new(self.is_ipv4, &it.rule);
        let shared: Option<Vec<_>> = addition.shared.iter().map(encode).collect();
        let own: Option<Vec<_>> = addition.own.iter().map(encode).collect();
        let (Some(shared), Some(own)) = (shared, own) else { return false };
        let chain = Chain { name: addition.chain, base: None, comment: None };
        let mut changes = vec![Change::Chain(&chain)];
        let rules = addition.own.iter().zip(&own);
        changes.extend(rules.map(|(it, rule)| Change::IptablesRule(&it.chain, rule)));
        let mut attempts = (0..ATTEMPTS).map(|_| self.attempt(addition, &shared, &changes));
        let is_overtaken = |error: &netlink::Error| error.errno() == Some(Errno::ERESTART);
        let end = attempts.find(|it| !it.as_ref().is_err_and(is_overtaken));
        matches!(end, Some(Ok(true)))
    }

    /// The chains of the table, and those of these rules that are there, as `iptables-save` would print them.
    pub(super) fn told(&mut self, rules: &[&InChain]) -> Result<String, netlink::Error> {
        let chains = self.client.chains(self.table)?.unwrap_or_default();
        let mut lines: Vec<String> = chains.iter().map(|it| format!(":{it} - [0:0]")).collect();
        for it in rules {
            if let Some(rule) = IptablesRule::new(self.is_ipv4, &it.rule)
                && self.client.has_iptables_rule(self.table, &it.chain, &rule)?
            {
                lines.push(format!("-A {it}"));
            }
        }
        Ok(lines.join("\n"))
    }

    /// Looks, and writes unless something is in the way: what the kernel refuses takes it some 10 ms, as it waits for
    /// RCU then (`__nf_tables_abort`). Nothing that was looked at has changed by then, or it refuses.
    fn attempt(
        &mut self,
        addition: &Addition<'_>,
        shared: &[IptablesRule],
        changes: &[Change<'_>],
    ) -> Result<bool, netlink::Error> {
        let Some(generation) = self.client.generation()? else { return Ok(false) };
        if addition.is_new && self.client.has_chain(self.table, addition.chain)? {
            return Ok(false);
        }
        for (it, rule) in addition.shared.iter().zip(shared) {
            if !self.client.has_iptables_rule(self.table, &it.chain, rule)? {
                return Ok(false);
            }
        }
        for chain in addition.others() {
            let base = base(self.table.name, chain);
            let held = self.client.chain(self.table, chain)?;
            let is_as_made = |it: &HeldChain| base.is_none_or(|base| it.is_called_at(&base));
            if !held.as_ref().is_some_and(is_as_made) {
                return Ok(false);
            }
        }
        let mut batch = Batch::of_generation(generation);
        changes.iter().for_each(|it| batch.push(self.table, it));
        let what = format!("add rules to table {} of iptables", self.table);
        self.client.commit(&batch, &what).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_ask_before_they_add() {
        let jump = |chain: &str, to: &str| InChain::new(chain, [], Target::Jump(to.to_owned()));
        let (shared, own) = (jump("FORWARD", "A"), jump("A", "B"));
        let addition =
            Addition { shared: vec![&shared], chain: "B", is_new: true, own: vec![&own] };
        assert_eq!(addition.lines(), ["-C FORWARD -j A", "-N B", "-A A -j B"]);
        let saved = "*filter\n:A - [0:0]\n-A FORWARD -j A\n-A A -j B2\nCOMMIT\n";
        assert!(shared.is_among(saved) && !own.is_among(saved));
    }
}
