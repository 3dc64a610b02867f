//! What the programs show.

use std::collections::BTreeMap;

use ruleset::ipset;
use ruleset::iptables::{RuleHash, Saved};
use runner::Runner;

use crate::dataplane::{Error, Programs};
use crate::iptables::{CHAIN_PREFIX, Family, Hook, SET_PREFIX};
use crate::node_network;

/// The rules and sets of ours, as they were printed.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Printed {
    tables: BTreeMap<Family, Tables>,
    sets: BTreeMap<String, ipset::Saved>,
}

/// The tables of one family.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    /// The program that printed them.
    pub(super) program: String,
    by_name: BTreeMap<&'static str, Table>,
}

#[derive(Debug, Clone, Default)]
struct Table {
    saved: Saved,
    /// Of each chain its first rule, as printed.
    first: BTreeMap<String, String>,
}

impl Printed {
    /// Has the programs print what the kernel holds. Nothing is changed and no lock is taken; tables without a hook
    /// of ours are not asked for.
    pub(in super::super) fn read<R: Runner>(
        programs: &mut Programs<R>,
        families: &[Family],
        hooks: &[Hook],
    ) -> Result<Self, Error> {
        let mut printed = Self::default();
        for family in families {
            let program = programs.iptables(*family, "save");
            let mut tables = Tables { program: program.clone(), by_name: BTreeMap::new() };
            for hook in hooks {
                if tables.by_name.contains_key(hook.table) {
                    continue;
                }
                let text = programs.saved_table(*family, hook.table)?;
                let failed = |source| Error::Table { program: program.clone(), source };
                tables.by_name.insert(hook.table, Table::read(&text).map_err(failed)?);
            }
            printed.tables.insert(*family, tables);
        }
        let sets = ipset::Saved::read(&programs.saved_sets()?, SET_PREFIX);
        printed.sets = sets.into_iter().map(|set| (set.name.clone(), set)).collect();
        Ok(printed)
    }

    pub(super) fn tables(&self, family: Family) -> Option<&Tables> {
        self.tables.get(&family)
    }

    pub(super) fn set(&self, name: &str) -> Option<&ipset::Saved> {
        self.sets.get(name)
    }
}

impl Tables {
    /// Whether nothing of ours is in them.
    pub(super) fn are_without_ours(&self) -> bool {
        self.by_name.values().all(|it| it.saved.chains.is_empty() && it.saved.hooks.is_empty())
    }

    /// The hashes of the rules of a chain of ours; a rule that is not ours has none.
    pub(super) fn chain(&self, table: &str, name: &str) -> Option<&[Option<RuleHash>]> {
        self.by_name.get(table)?.saved.chains.get(name).map(Vec::as_slice)
    }

    /// Our rules in a chain of the kernel's: of each its place, counted from 1.
    pub(super) fn hooks(&self, table: &str, chain: &str) -> &[(usize, RuleHash)] {
        let held = self.by_name.get(table).and_then(|it| it.saved.hooks.get(chain));
        held.map(Vec::as_slice).unwrap_or_default()
    }

    /// The chains of the kernel's, and of others, with rules of ours.
    pub(super) fn hooked(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let tables = self.by_name.iter();
        tables.flat_map(|(table, it)| it.saved.hooks.keys().map(|chain| (*table, chain.as_str())))
    }

    /// The first rule of a chain, as the program prints it.
    pub(super) fn first_rule(&self, table: &str, chain: &str) -> Option<&str> {
        self.by_name.get(table)?.first.get(chain).map(String::as_str)
    }
}

impl Table {
    fn read(text: &str) -> Result<Self, ruleset::iptables::Error> {
        let mut first = BTreeMap::new();
        for line in text.lines() {
            let chain = line.strip_prefix("-A ").and_then(|it| it.split(' ').next());
            if let Some(chain) = chain {
                first.entry(chain.to_owned()).or_insert_with(|| line.to_owned());
            }
        }
        let mut saved = Saved::read(text, CHAIN_PREFIX)?;
        node_network::forget_jump(&mut saved);
        Ok(Self { saved, first })
    }
}
