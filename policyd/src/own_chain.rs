//! One chain of ours in a table of iptables that others have too, and the jump that leads there.

use netlink::nftables::Client;
use ruleset::iptables::{Chain, Jump, Rule, RuleHash, Saved, Transaction};
use ruleset::nft::Table;
use runner::{Error as RunError, Runner};

use crate::dataplane::{Error, Programs};
use crate::iptables::Family;

/// Where a chain of ours hangs.
#[derive(Debug, Clone)]
pub(crate) struct OwnChain {
    /// The table.
    pub(crate) table: &'static str,
    /// The chain's name, and what the names of all of ours in that table begin with.
    pub(crate) name: &'static str,
    /// The kernel's chain that leads there.
    pub(crate) from: &'static str,
    /// The jump.
    pub(crate) jump: Rule,
    /// Where the jump is put. Once there it may be moved: others who want to be first, or last, are
    /// not argued with.
    pub(crate) place: Place,
}

/// Where in the kernel's chain a jump is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Ahead of all but rules of ours.
    First,
    /// Behind all.
    Last,
}

impl OwnChain {
    /// Makes the chain and the jump there as they shall be; whether they were not.
    pub(crate) fn install<R: Runner>(
        &self,
        programs: &mut Programs<R>,
        family: Family,
        chain: &Chain,
    ) -> Result<bool, Error> {
        let held = self.read(programs, family)?;
        self.write(programs, family, &self.installation(&held, chain))
    }

    /// Removes chain and jump; whether there was something. Where there is no such table there is nothing; where
    /// there are no programs, a chain that they once made is told.
    pub(crate) fn remove<R: Runner>(
        &self,
        programs: &mut Programs<R>,
        family: Family,
    ) -> Result<bool, Error> {
        match self.read(programs, family) {
            Ok(held) => self.write(programs, family, &removal(&held)),
            Err(Error::Run(RunError::NotFound(_))) if !self.is_in_nf_tables(family)? => Ok(false),
            Err(Error::Refused { complaint, .. }) if is_absence(&complaint) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel has the chain, as the programs make it in nf_tables.
    fn is_in_nf_tables(&self, family: Family) -> Result<bool, Error> {
        let table = Table { family: family.of_nf_tables(), name: self.table };
        let client = Client::open()?;
        Ok(client.map_or(Ok(false), |mut it| it.has_chain(table, self.name))?)
    }

    fn read<R: Runner>(&self, programs: &mut Programs<R>, family: Family) -> Result<Held, Error> {
        let printed = programs.saved_table(family, self.table)?;
        let program = || programs.iptables(family, "save");
        let saved = Saved::read(&printed, self.name);
        let saved = saved.map_err(|source| Error::Table { program: program(), source })?;
        Ok(Held { saved, jumps: Jump::all_to(&printed, self.name) })
    }

    fn write<R: Runner>(
        &self,
        programs: &mut Programs<R>,
        family: Family,
        change: &Transaction,
    ) -> Result<bool, Error> {
        if change.is_empty() {
            return Ok(false);
        }
        programs.restore_tables(family, &change.text(self.table))?;
        Ok(true)
    }

    fn installation(&self, held: &Held, chain: &Chain) -> Transaction {
        let mut change = Transaction::default();
        let known = held.saved.chains.get(&chain.name);
        match known.and_then(|rules| rules.iter().cloned().collect::<Option<Vec<RuleHash>>>()) {
            Some(known) => _ = change.change(&known, chain),
            None => _ = change.create(chain),
        }
        let wanted = Some(RuleHash::of(&self.jump));
        let is_it = |it: &Jump| it.from == self.from && it.hash == wanted;
        if !matches!(held.jumps.as_slice(), [jump] if is_it(jump)) {
            unhook(held, &mut change);
            match self.place {
                Place::First => change.hook_at(self.from, self.first_place(held), &self.jump),
                Place::Last => change.hook_last(self.from, &self.jump),
            }
        }
        change
    }

    /// The place behind the rules of ours that the kernel's chain begins with, once the jumps have
    /// gone from it.
    fn first_place(&self, held: &Held) -> usize {
        let ours = held.saved.hooks.get(self.from).into_iter().flatten();
        let leading = ours.zip(1..).take_while(|((place, _), number)| place == number);
        let is_jump = |place: usize| {
            held.jumps.iter().any(|jump| jump.from == self.from && jump.place == place)
        };
        1 + leading.filter(|((place, _), _)| !is_jump(*place)).count()
    }
}

/// What a table holds of ours.
struct Held {
    saved: Saved,
    /// The jumps to our chain, from chains of others.
    jumps: Vec<Jump>,
}

/// What a legacy program says of a table that the kernel does not have.
fn is_absence(stderr: &str) -> bool {
    stderr.contains("does not exist") || stderr.contains("can't initialize")
}

fn removal(held: &Held) -> Transaction {
    let mut change = Transaction::default();
    unhook(held, &mut change);
    held.saved.chains.keys().for_each(|chain| change.remove(chain));
    change
}

fn unhook(held: &Held, change: &mut Transaction) {
    held.jumps.iter().rev().for_each(|jump| change.unhook(&jump.from, jump.place));
}

#[cfg(test)]
mod tests {
    use ruleset::iptables::Target;

    use super::*;

    const SAVED: &str = "\
*filter
:FORWARD DROP [0:0]
:PW-ACCEPT - [0:0]
-A FORWARD -m comment --comment \"podwire:aaaaaaaaaaaa\" -j REJECT
-A FORWARD -j DOCKER
";

    fn own(place: Place) -> OwnChain {
        let jump = Rule::new([], Target::Jump("PW-ACCEPT".to_owned()));
        OwnChain { table: "filter", name: "PW-ACCEPT", from: "FORWARD", jump, place }
    }

    fn change(place: Place, saved: &str) -> String {
        let held = Held {
            saved: Saved::read(saved, "PW-ACCEPT").unwrap(),
            jumps: Jump::all_to(saved, "PW-ACCEPT"),
        };
        let chain = Chain { name: "PW-ACCEPT".to_owned(), rules: Vec::new() };
        let text = own(place).installation(&held, &chain).text("filter");
        let lines = text.lines().map(|line| line.split(" -m ").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn the_first_jump_is_behind_what_else_is_ours() {
        assert_eq!(change(Place::First, SAVED), "*filter; -I FORWARD 2; COMMIT");
        assert_eq!(change(Place::Last, SAVED), "*filter; -A FORWARD; COMMIT");
        let without = SAVED.replace("podwire:", "other:");
        assert_eq!(change(Place::First, &without), "*filter; -I FORWARD 1; COMMIT");
    }

    #[test]
    fn wrong_jumps_are_replaced_and_one_that_was_moved_stays() {
        let hash = RuleHash::of(&own(Place::First).jump);
        let good = format!("-A FORWARD -m comment --comment \"podwire:{hash}\" -j PW-ACCEPT\n");
        assert_eq!(change(Place::First, &format!("{SAVED}{good}")), "*filter; COMMIT");
        assert_eq!(
            change(Place::First, &format!("{SAVED}{good}-A INPUT -i x -j PW-ACCEPT\n")),
            "*filter; -D INPUT 1; -D FORWARD 3; -I FORWARD 2; COMMIT"
        );
        let first = SAVED.replace("-A FORWARD -m", &format!("{good}{good}-A FORWARD -m"));
        assert_eq!(
            change(Place::First, &first),
            "*filter; -D FORWARD 2; -D FORWARD 1; -I FORWARD 2; COMMIT"
        );
    }
}
