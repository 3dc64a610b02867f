//! By the programs iptables and ipset.
//!
//! One after the other: sets grow, rules change (at once for each family), sets shrink. So nobody
//! loses what he is allowed before and after. The two sets of addresses whose rules are in place
//! come last and go first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use ruleset::ipset;
use runner::Runner;

use super::written::Written;
use super::{Counts, Difference, Endpoints, Error, Glance, Owners, Programs, Ran};
use crate::iptables::{Family, SET_PREFIX, Settings, hooks, is_in_use, is_of_plan, members, set};
use crate::plan::{Changes, SetChange, SetKey};

mod adoption;
mod members;
mod old_tables;
mod ready;
mod table;

use old_tables::Entries;
use table::Tables;

/// The rules and sets of this node.
#[derive(Debug)]
pub(super) struct Iptables<R> {
    programs: Programs<R>,
    settings: Settings,
    tables: Vec<Tables>,
    written: Written,
    /// The families that endpoints have addresses of. Of others there are no rules that look into
    /// sets of the plan, and so none of those sets: beyond 256, the kernel waits for all processors
    /// at every 64th that it makes (`ip_set_create`).
    in_use: BTreeSet<Family>,
    /// How many entries those tables have whose changes nobody tells.
    entries: Entries,
    /// The kernel's sets as [`Self::read`] found them, and when.
    held: Option<(Instant, Vec<ipset::Saved>)>,
    /// Sets that the kernel has, with the number of their members.
    sets: BTreeMap<String, usize>,
    /// Of those, the ones that no rule of ours looks into any more.
    unused: BTreeSet<String>,
    /// Others that go later, as rules of somebody else look into them or the kernel is slow to let go of them:
    /// since when.
    refused: BTreeMap<String, Instant>,
    /// Members of the sets that come last and go first.
    ready: BTreeMap<String, BTreeSet<IpAddr>>,
    owners: Owners,
}

/// How often the kernel is asked to let go of a set that was just in use: it frees rules later.
const DESTROY_ATTEMPTS: u32 = 10;
/// For so long it is not asked again.
const REFUSAL_LASTS: Duration = Duration::from_mins(1);

impl<R: Runner + Send> Iptables<R> {
    pub(super) fn new(programs: Programs<R>, families: &[Family], settings: Settings) -> Self {
        let tables = families.iter().map(|family| Tables::new(*family)).collect();
        Self {
            programs,
            settings,
            tables,
            written: Written::default(),
            in_use: BTreeSet::new(),
            entries: Entries::new(),
            held: None,
            sets: BTreeMap::new(),
            unused: BTreeSet::new(),
            refused: BTreeMap::new(),
            ready: BTreeMap::new(),
            owners: Owners::default(),
        }
    }

    /// Whether the changes need sets that [`Self::adopt`] has not made, as no endpoint had an
    /// address of their family: then it must be next, and not [`Self::apply`].
    pub(super) fn needs_adoption(&self, changes: &Changes) -> bool {
        let families = self.tables.iter().map(Tables::family);
        let mut others = families.filter(|family| !self.in_use.contains(family));
        others.any(|family| is_in_use(family, changes.endpoints.values().flatten()))
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// [`Error`] when a program fails: then [`Self::adopt`] must be next.
    pub(super) fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        if self.change_members(changes)? {
            return Ok(());
        }
        let mut growing = ipset::Changes::default();
        let mut shrinking = ipset::Changes::default();
        for family in self.in_use.clone() {
            for (key, change) in &changes.sets {
                self.sort(family, key, change, &mut growing, &mut shrinking);
            }
        }
        if !changes.touch_rules() {
            growing.append(shrinking);
            self.programs.restore_sets(&growing)?;
            return self.destroy_unused();
        }
        self.written.change(changes);
        self.leave_families();
        let coming = self.sort_ready(&mut growing, &mut shrinking, [true; 2]);
        self.programs.restore_sets(&growing)?;
        for tables in &mut self.tables {
            tables.apply(&mut self.programs, &self.written, changes, &self.settings)?;
        }
        self.entries = old_tables::entries()?;
        self.owners.end_left_over(&coming, &self.written.endpoints, &self.settings)?;
        self.programs.restore_sets(&shrinking)?;
        self.owners.note(&self.written.endpoints, &self.settings);
        self.destroy_unused()
    }

    /// Has the rules gate these ranges; [`Self::adopt`] must be next.
    pub(super) fn set_gated(&mut self, gated: Vec<IpNetwork>) {
        self.settings.gated = gated;
    }

    /// The programs that ran since this was last asked.
    pub(super) fn take_ran(&mut self) -> Ran {
        self.programs.take_ran()
    }

    pub(super) const fn owners(&self) -> &Owners {
        &self.owners
    }

    pub(super) const fn endpoints(&self) -> &Endpoints {
        &self.written.endpoints
    }

    pub(super) fn take_cut(&mut self) -> usize {
        self.owners.take_cut()
    }

    pub(super) fn table_names(&self) -> Vec<&'static str> {
        hooks(&self.settings).into_iter().map(|hook| hook.table).collect()
    }

    /// Where the kernel is otherwise than it was left. Of sets only the numbers of members are
    /// compared.
    ///
    /// # Errors
    /// [`Error`] when a program fails.
    pub(super) fn differences(&mut self) -> Result<Vec<Difference>, Error> {
        let mut differences = Vec::new();
        for tables in &self.tables {
            differences.extend(tables.differences(&mut self.programs, &self.settings)?);
        }
        differences.extend(self.set_differences()?);
        self.entries = old_tables::entries()?;
        Ok(differences)
    }

    /// What can be seen of differences without running a program: of sets all that [`Self::differences`] sees; of
    /// tables, whether somebody changed those that the kernel tells no changes of.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be asked.
    pub(super) fn glance(&mut self) -> Result<Glance, Error> {
        let entries = old_tables::entries()?;
        let is_suspect = entries != self.entries;
        self.entries = entries;
        Ok(Glance { differences: self.set_differences()?, is_suspect })
    }

    fn set_differences(&self) -> Result<Vec<Difference>, Error> {
        let mut client = netlink::ipset::Client::open()?;
        let listed = client.as_mut().map(|it| it.sets()).transpose()?.unwrap_or_default();
        let ours = listed.into_iter().filter(|set| set.name.starts_with(SET_PREFIX));
        let listed: BTreeMap<_, _> = ours
            .map(|set| (set.name, usize::try_from(set.elements).unwrap_or(usize::MAX)))
            .collect();
        let names: BTreeSet<_> = self.sets.keys().chain(listed.keys()).collect();
        let changed = names.into_iter().filter(|name| self.sets.get(*name) != listed.get(*name));
        Ok(changed.cloned().map(Difference::Set).collect())
    }

    /// What the kernel has of ours, in numbers.
    pub(super) fn counts(&self) -> Counts {
        let tables = self.tables.iter().map(Tables::counts);
        let (chains, rules) = tables.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        Counts { chains, rules, sets: self.sets.len(), members: self.sets.values().sum() }
    }

    /// Removes everything of ours from the kernel, whatever becomes of the rest.
    ///
    /// # Errors
    /// The first [`Error`]; others are logged.
    pub(super) fn clean_up(&mut self) -> Result<(), Error> {
        let Self { tables, programs, .. } = self;
        let mut errors: Vec<_> = tables.iter_mut().flat_map(|it| it.clean_up(programs)).collect();
        errors.extend(self.clean_up_sets().err());
        let mut errors = errors.into_iter();
        let Some(first) = errors.next() else { return Ok(()) };
        // Of a node without the programs the first tells it all.
        for error in errors.filter(|it| !matches!(it, Error::Run(runner::Error::NotFound(_)))) {
            tracing::error!("{}", crate::chain(&error));
        }
        Err(first)
    }

    fn clean_up_sets(&mut self) -> Result<(), Error> {
        let printed = match self.programs.saved_sets() {
            // A kernel without ipset has no sets to be listed.
            Err(Error::Refused { .. }) if !super::kind::has_sets()? => Default::default(),
            printed => printed?,
        };
        let saved = ipset::Saved::read(&printed, SET_PREFIX);
        self.unused = saved.into_iter().map(|set| set.name).collect();
        self.sets.clear();
        self.destroy_unused()?;
        if self.refused.is_empty() {
            return Ok(());
        }
        Err(Error::SetsInUse { sets: self.refused.keys().cloned().collect::<Vec<_>>().join(", ") })
    }

    /// Sees to families that no endpoint has an address of any more.
    fn leave_families(&mut self) {
        let endpoints = &self.written.endpoints;
        let is_left = |family: &Family| !is_in_use(*family, endpoints.values());
        for family in self.in_use.extract_if(.., is_left) {
            let sets = self.sets.keys().filter(|name| is_of_plan(family, name));
            self.unused.extend(sets.cloned());
        }
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
                if self.unused.remove(&set.name) || self.refused.remove(&set.name).is_some() {
                    // Left over, with whatever it held then.
                    growing.flush(&set.name);
                }
                let members: BTreeSet<_> =
                    created.iter().flat_map(|it| members(family, it)).collect();
                growing.create(&set, members.len());
                members.iter().for_each(|member| growing.add(&set.name, member));
                self.sets.insert(set.name, members.len());
            }
            SetChange::Members(changes) => {
                for (member, came) in changes {
                    for member in members(family, member) {
                        let count = self.sets.entry(set.name.clone()).or_default();
                        if *came {
                            *count += 1;
                            growing.add(&set.name, &member);
                        } else {
                            *count = count.saturating_sub(1);
                            shrinking.delete(&set.name, &member.to_string());
                        }
                    }
                }
            }
            SetChange::Removed => _ = self.unused.insert(set.name),
        }
    }

    fn destroy_unused(&mut self) -> Result<(), Error> {
        let is_over = |_: &String, since: &mut Instant| since.elapsed() > REFUSAL_LASTS;
        self.unused.extend(self.refused.extract_if(.., is_over).map(|(set, _)| set));
        for attempt in 1..=DESTROY_ATTEMPTS {
            if self.unused.is_empty() {
                return Ok(());
            }
            let mut changes = ipset::Changes::default();
            self.unused.iter().for_each(|set| changes.destroy(set));
            match self.programs.restore_sets(&changes) {
                Ok(()) => {
                    self.sets.retain(|set, _| !self.unused.contains(set));
                    self.unused.clear();
                }
                Err(Error::Refused { .. }) if attempt == DESTROY_ATTEMPTS => {
                    return self.destroy_each_unused();
                }
                Err(Error::Refused { .. }) => {
                    thread::sleep(Duration::from_millis(5 << attempt.min(5)));
                    let saved = ipset::Saved::read(&self.programs.saved_sets()?, SET_PREFIX);
                    let held: BTreeSet<_> = saved.into_iter().map(|set| set.name).collect();
                    self.unused.retain(|set| held.contains(set));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One that others look into must not keep the rest.
    fn destroy_each_unused(&mut self) -> Result<(), Error> {
        for set in self.unused.clone() {
            let mut changes = ipset::Changes::default();
            changes.destroy(&set);
            match self.programs.restore_sets(&changes) {
                Ok(()) => {
                    self.sets.remove(&set);
                    self.unused.remove(&set);
                }
                // To try each time would hold up every change; and an unused set does no harm.
                Err(Error::Refused { .. }) => {
                    tracing::warn!(
                        "set {set} shall go and stays: do rules of others look into it?"
                    );
                    self.unused.remove(&set);
                    self.refused.insert(set, Instant::now());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
