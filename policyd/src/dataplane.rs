//! The kernel's side: what it holds is changed to what the plan says, by the programs iptables and
//! ipset.
//!
//! One after the other: sets grow, rules change (at once for each family), sets shrink. So nobody
//! loses what he is allowed before and after. The two sets of addresses whose rules are in place
//! come last and go first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ruleset::ipset;
use runner::Runner;

use crate::iptables::{Family, SET_PREFIX, Settings, bound_set, members, programmed_set, set};
use crate::plan::{Changes, Endpoint, Plan, SetChange, SetKey};

mod error;
mod programs;
mod table;

pub use error::Error;
pub use programs::Programs;
use table::Tables;

/// The rules and sets of this node.
#[derive(Debug)]
pub struct Dataplane<R> {
    programs: Programs<R>,
    settings: Settings,
    tables: Vec<Tables>,
    /// Sets that the kernel has.
    sets: BTreeSet<String>,
    /// Of those, the ones that no rule of ours looks into any more.
    unused: BTreeSet<String>,
    /// Members of the sets that come last and go first.
    ready: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// How often the kernel is asked to let go of a set that was just in use: it frees rules later.
const DESTROY_ATTEMPTS: u32 = 10;

impl<R: Runner> Dataplane<R> {
    /// The dataplane of a node with these families. [`Self::adopt`] must be called before anything
    /// else.
    pub fn new(programs: Programs<R>, families: &[Family], settings: Settings) -> Self {
        let tables = families.iter().map(|family| Tables::new(*family)).collect();
        Self {
            programs,
            settings,
            tables,
            sets: BTreeSet::new(),
            unused: BTreeSet::new(),
            ready: BTreeMap::new(),
        }
    }

    /// Reads what the kernel holds of ours, whoever put it there, and makes it what the plan says.
    ///
    /// # Errors
    /// [`Error`] when a program fails; what was changed by then stays, and never opens anything.
    pub fn adopt(&mut self, plan: &Plan) -> Result<(), Error> {
        let mut growing = ipset::Changes::default();
        let mut shrinking = ipset::Changes::default();
        let mut saved = ipset::Saved::read(&self.programs.saved_sets()?, SET_PREFIX);
        self.remove_misfits(plan, &mut saved)?;
        self.sets = saved.iter().map(|set| set.name.clone()).collect();
        self.unused.clone_from(&self.sets);
        self.ready.clear();
        for tables in &mut self.tables {
            let family = tables.family();
            for (key, members) in &plan.sets {
                let Some(set) = set(family, key) else { continue };
                self.unused.remove(&set.name);
                let held = saved.iter().find(|it| it.name == set.name);
                let held = held.map(|it| it.members.clone()).unwrap_or_default();
                growing.create(&set);
                self.sets.insert(set.name.clone());
                let wanted: BTreeMap<_, _> = members
                    .iter()
                    .flat_map(|it| crate::iptables::members(family, it))
                    .map(|it| (it.to_string(), it))
                    .collect();
                let missing = wanted.iter().filter(|(text, _)| !held.contains(*text));
                missing.for_each(|(_, member)| growing.add(&set.name, member));
                let stale = held.iter().filter(|text| !wanted.contains_key(*text));
                stale.for_each(|text| shrinking.delete(&set.name, text));
            }
            for set in [programmed_set(family), bound_set(family)] {
                self.unused.remove(&set.name);
                let held = saved.iter().find(|it| it.name == set.name);
                let held = held.into_iter().flat_map(|it| &it.members);
                let held = held.filter_map(|member| member.parse().ok()).collect();
                growing.create(&set);
                self.sets.insert(set.name.clone());
                self.ready.insert(set.name, held);
            }
            tables.read(&mut self.programs, &self.settings)?;
        }
        self.sort_ready(&plan.endpoints, &mut growing, &mut shrinking);
        self.programs.restore_sets(&growing)?;
        for tables in &mut self.tables {
            tables.adopt(&mut self.programs, plan, &self.settings)?;
        }
        self.programs.restore_sets(&shrinking)?;
        self.destroy_unused()
    }

    /// Makes the changes. `endpoints` are all there are after them.
    ///
    /// # Errors
    /// [`Error`] when a program fails: then [`Self::adopt`] must be next.
    pub fn apply(
        &mut self,
        endpoints: &BTreeMap<String, Endpoint>,
        changes: &Changes,
    ) -> Result<(), Error> {
        let mut growing = ipset::Changes::default();
        let mut shrinking = ipset::Changes::default();
        for index in 0..self.tables.len() {
            let Some(family) = self.tables.get(index).map(Tables::family) else { continue };
            for (key, change) in &changes.sets {
                self.sort(family, key, change, &mut growing, &mut shrinking);
            }
        }
        if !changes.touch_rules() {
            growing.append(shrinking);
            self.programs.restore_sets(&growing)?;
            return self.destroy_unused();
        }
        self.sort_ready(endpoints, &mut growing, &mut shrinking);
        self.programs.restore_sets(&growing)?;
        for tables in &mut self.tables {
            tables.apply(&mut self.programs, endpoints, changes, &self.settings)?;
        }
        self.programs.restore_sets(&shrinking)?;
        self.destroy_unused()
    }

    /// Removes everything of ours from the kernel.
    ///
    /// # Errors
    /// [`Error`] when a program fails.
    pub fn clean_up(&mut self) -> Result<(), Error> {
        for tables in &mut self.tables {
            tables.clean_up(&mut self.programs)?;
        }
        let saved = ipset::Saved::read(&self.programs.saved_sets()?, SET_PREFIX);
        self.unused = saved.into_iter().map(|set| set.name).collect();
        self.sets.clone_from(&self.unused);
        self.destroy_unused()
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

    fn sort(
        &mut self,
        family: Family,
        key: &SetKey,
        change: &SetChange,
        growing: &mut ipset::Changes,
        shrinking: &mut ipset::Changes,
    ) {
        let Some(set) = set(family, key) else { return };
        match change {
            SetChange::Created(created) => {
                if self.unused.remove(&set.name) {
                    // Left over, with whatever it held then.
                    growing.flush(&set.name);
                }
                growing.create(&set);
                self.sets.insert(set.name.clone());
                for member in created.iter().flat_map(|it| members(family, it)) {
                    growing.add(&set.name, &member);
                }
            }
            SetChange::Members(changes) => {
                for (member, came) in changes {
                    for member in members(family, member) {
                        if *came {
                            growing.add(&set.name, &member);
                        } else {
                            shrinking.delete(&set.name, &member.to_string());
                        }
                    }
                }
            }
            SetChange::Removed => _ = self.unused.insert(set.name),
        }
    }

    /// Of the sets that come last and go first: which endpoints have all their rules, and which
    /// have an interface.
    fn sort_ready(
        &mut self,
        endpoints: &BTreeMap<String, Endpoint>,
        growing: &mut ipset::Changes,
        shrinking: &mut ipset::Changes,
    ) {
        for tables in &self.tables {
            let family = tables.family();
            let addresses = |only_bound: bool| -> BTreeSet<IpAddr> {
                let endpoints =
                    endpoints.values().filter(|it| !only_bound || it.interface.is_some());
                let addresses = endpoints.flat_map(|it| &it.addresses);
                addresses.filter(|address| family.has(address)).copied().collect()
            };
            for (set, wanted) in
                [(programmed_set(family), addresses(false)), (bound_set(family), addresses(true))]
            {
                let held = self.ready.entry(set.name.clone()).or_default();
                for gone in held.difference(&wanted) {
                    growing.delete(&set.name, &gone.to_string());
                }
                for come in wanted.difference(held) {
                    shrinking.add(&set.name, &ipset::Member::Address(*come));
                }
                *held = wanted;
            }
        }
    }

    fn destroy_unused(&mut self) -> Result<(), Error> {
        for attempt in 1..=DESTROY_ATTEMPTS {
            if self.unused.is_empty() {
                return Ok(());
            }
            let mut changes = ipset::Changes::default();
            self.unused.iter().for_each(|set| changes.destroy(set));
            match self.programs.restore_sets(&changes) {
                Ok(()) => {
                    self.sets.retain(|set| !self.unused.contains(set));
                    self.unused.clear();
                }
                // They stay for the next time: an unused set does no harm.
                Err(Error::Refused { .. }) if attempt == DESTROY_ATTEMPTS => return Ok(()),
                Err(Error::Refused { .. }) => {
                    std::thread::sleep(std::time::Duration::from_millis(5 << attempt.min(5)));
                    let saved = ipset::Saved::read(&self.programs.saved_sets()?, SET_PREFIX);
                    let held: BTreeSet<_> = saved.into_iter().map(|set| set.name).collect();
                    self.unused.retain(|set| held.contains(set));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
