//! Taking the kernel over as it is: whatever it holds of ours becomes what the plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use std::{panic, thread};

use ruleset::ipset;
use runner::Runner;

use super::table::Tables;
use super::{Error, Iptables, Written, old_tables};
use crate::dataplane::READ_LASTS;
use crate::iptables::{Family, SET_PREFIX, bound_set, is_in_use, programmed_set, set};
use crate::plan::Plan;

/// As many pods as a node may have before the sets of their addresses grow: twice the kubelet's limit.
const ENDPOINTS: usize = 256;

impl<R: Runner + Send> Iptables<R> {
    /// Reads what the kernel holds of ours, whoever put it there: [`Self::adopt`] does so itself, but
    /// when this was just done. Who starts has time for it while he waits for the objects.
    ///
    /// # Errors
    /// [`Error`] when a program fails.
    pub(in crate::dataplane) fn read(&mut self) -> Result<(), Error> {
        self.held = None;
        let sets = ipset::Saved::read(&self.programs.saved_sets()?, SET_PREFIX);
        for tables in &mut self.tables {
            tables.read(&mut self.programs, &self.settings)?;
        }
        self.held = Some((Instant::now(), sets));
        Ok(())
    }

    /// The kernel holds nothing of ours, as in a namespace that was just made: nobody needs to look.
    pub(in crate::dataplane) fn assume_nothing(&mut self) {
        self.held = Some((Instant::now(), Vec::new()));
    }

    /// Makes what the kernel holds what the plan says.
    ///
    /// # Errors
    /// [`Error`] when a program fails; what was changed by then stays, and never opens anything.
    pub(in crate::dataplane) fn adopt(&mut self, plan: &Plan) -> Result<(), Error> {
        if self.held.as_ref().is_none_or(|(read, _)| read.elapsed() > READ_LASTS) {
            self.read()?;
        }
        let mut saved = self.held.take().map(|(_, sets)| sets).unwrap_or_default();
        self.remove_misfits(plan, &mut saved)?;
        let saved: BTreeMap<_, _> = saved.into_iter().map(|set| (set.name, set.members)).collect();
        // Without it what runs on the node was open, and goes on until it was looked at.
        let had_gate = Family::ALL.iter().any(|it| saved.contains_key(&programmed_set(*it).name));
        self.written = Written::new(plan);
        // Whoever changed what is ours may have opened the gate.
        self.owners.lose_track();
        let (mut growing, mut shrinking) = self.adopt_sets(plan, &saved);
        let is_filled = |family: &Family| {
            let held = self.ready.get(&programmed_set(*family).name);
            held.is_some_and(|it: &BTreeSet<_>| !it.is_empty())
        };
        let knows_gate = Family::ALL.iter().any(is_filled);
        let coming = self.sort_ready(&mut growing, &mut shrinking, [had_gate, knows_gate]);
        let Self { programs, settings, tables, written, .. } = self;
        // Of thousands of policies each takes tens of milliseconds.
        let adoptions: Vec<_> = thread::scope(|scope| {
            let restored = scope.spawn(|| programs.restore_sets(&growing));
            let adoptions = tables.iter_mut().map(|it| it.adoption(written, settings)).collect();
            let restored = restored.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
            restored.map(|()| adoptions)
        })?;
        for (tables, adoption) in tables.iter_mut().zip(adoptions) {
            tables.adopt(programs, adoption, settings)?;
        }
        self.entries = old_tables::entries()?;
        if had_gate {
            self.owners.end_left_over(&coming, &self.written.endpoints, &self.settings)?;
        }
        self.programs.restore_sets(&shrinking)?;
        self.owners.note(&self.written.endpoints, &self.settings);
        self.destroy_unused()
    }

    /// What has the sets that were saved become those of the plan: what grows, and what shrinks.
    fn adopt_sets(
        &mut self,
        plan: &Plan,
        saved: &BTreeMap<String, BTreeSet<String>>,
    ) -> (ipset::Changes, ipset::Changes) {
        let (mut growing, mut shrinking) = <(ipset::Changes, ipset::Changes)>::default();
        let families = self.tables.iter().map(Tables::family);
        self.in_use = families.filter(|it| is_in_use(*it, plan.endpoints.values())).collect();
        self.sets = saved.iter().map(|(name, members)| (name.clone(), members.len())).collect();
        self.unused = self.sets.keys().cloned().collect();
        self.refused.clear();
        self.ready.clear();
        let none = BTreeSet::new();
        for family in self.tables.iter().map(Tables::family) {
            let sets = plan.sets.iter().filter(|_| self.in_use.contains(&family));
            for (key, members) in sets {
                let Some(set) = set(family, key) else { continue };
                self.unused.remove(&set.name);
                let held = saved.get(&set.name).unwrap_or(&none);
                let wanted: BTreeMap<_, _> = members
                    .iter()
                    .flat_map(|it| crate::iptables::members(family, it))
                    .map(|it| (it.to_string(), it))
                    .collect();
                growing.create(&set, wanted.len());
                let missing = wanted.iter().filter(|(text, _)| !held.contains(*text));
                missing.for_each(|(_, member)| growing.add(&set.name, member));
                let stale = held.iter().filter(|text| !wanted.contains_key(*text));
                stale.for_each(|text| shrinking.delete(&set.name, text));
                self.sets.insert(set.name, wanted.len());
            }
            for set in [programmed_set(family), bound_set(family)] {
                self.unused.remove(&set.name);
                let held = saved.get(&set.name).into_iter().flatten();
                let held = held.filter_map(|member| member.parse().ok()).collect();
                growing.create(&set, ENDPOINTS);
                self.ready.insert(set.name, held);
            }
        }
        (growing, shrinking)
    }

    /// Removes sets of another kind than those of their names shall have: they cannot be changed
    /// into it.
    fn remove_misfits(&mut self, plan: &Plan, saved: &mut Vec<ipset::Saved>) -> Result<(), Error> {
        let wanted = self.tables.iter().map(Tables::family).flat_map(|family| {
            let sets = plan.sets.keys().filter_map(move |key| set(family, key));
            sets.chain([programmed_set(family), bound_set(family)])
        });
        let wanted: BTreeMap<_, _> = wanted.map(|set| (set.name.clone(), set)).collect();
        let mut changes = ipset::Changes::default();
        saved.retain(|held| {
            let fits = wanted.get(&held.name).is_none_or(|set| held.is_like(set));
            if !fits {
                changes.destroy(&held.name);
            }
            fits
        });
        self.programs.restore_sets(&changes)
    }
}
