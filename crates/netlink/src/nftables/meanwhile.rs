//! Lists that are made while others change something else.
//!
//! The kernel makes a list piece by piece, and marks it as interrupted where there was a transaction between two of them:
//! any transaction of the namespace (`nl_dump_check_consistent`, of one number for all tables). Where somebody always
//! changes tables of his own, no long list would ever be whole.
//!
//! A transaction has its number from its beginning, and takes away what goes one by one until its end (`nf_tables_commit`). A list
//! that is begun meanwhile is not marked, though the kernel counts its way past what is there. So the generation is asked for, the
//! transaction that may be making it is waited for, and then the list must begin with that generation, whose number its entries carry.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_NETFILTER;
use ruleset::nft::{Family, Table};

use super::changes::{GROUP, ROOM, TABLE, read_id};
use super::message::{DELETE_RULE, NEW_GENERATION, PASSED_BY_CHAINS, number};
use super::rule::may_lead_to_own_chain;
use super::{Batch, Client, Error};
use crate::Event;
use crate::attributes::{find, text};
use crate::datagram::{DUMP_ATTEMPTS, Received};
use crate::netfilter::Listed;
use crate::netfilter::message::{HEADERS, Message};
use crate::socket::wait_readable;
use crate::subscription::Subscription;

/// A list that is interrupted again and again is given up after this time, though not before [`DUMP_ATTEMPTS`].
const LONGEST: Duration = Duration::from_secs(5);
/// The pauses after the second attempt: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// So many transactions of others are waited for ahead of a list.
const MOST_WAITS: usize = 8;
/// A transaction is told of when it is made, which takes long of a large one.
const LONGEST_COMMIT_MS: u16 = 1000;

/// For errors.
const WHAT: &str = "hear of changes in nf_tables while it is listed";

/// What of nf_tables a list is made from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extent<'a> {
    /// A table: its rules, sets or elements, among which the kernel counts how far it has come (`nf_tables_dump_rules`,
    /// `nf_tables_dump_sets`, `nf_tables_dump_set`).
    Table(Table<'a>),
    /// The chains of all tables of a family, which it counts through (`nf_tables_dump_chains`).
    Chains(Family),
    /// What is called at a hook: such a list is marked only where that changed (`nfnl_hook_dump`), also by others than
    /// nf_tables, of which nothing is told.
    Hook,
}

impl Extent<'_> {
    /// Whether the change that is told of may be one of it.
    fn is_changed_by(self, told: &Received<'_>) -> bool {
        /// `nfgenmsg.nfgen_family`.
        const FAMILY: usize = 16;
        let is_of = |family| told.bytes.get(FAMILY) == Some(&number(family));
        match self {
            Self::Table(table) => {
                let name = told.bytes.get(HEADERS..).and_then(|it| find(it, TABLE)).map(text);
                is_of(table.family) && name.is_none_or(|it| it == table.name)
            }
            Self::Chains(family) => {
                let is_passed_by = match told.kind.to_be_bytes() {
                    // A chain that is part of a rule goes with it, and is not told of.
                    DELETE_RULE => {
                        told.bytes.get(HEADERS..).is_some_and(|it| !may_lead_to_own_chain(it))
                    }
                    kind => PASSED_BY_CHAINS.contains(&kind),
                };
                is_of(family) && !is_passed_by
            }
            Self::Hook => true,
        }
    }
}

/// What the kernel tells while a list is made.
struct Meanwhile {
    subscription: Subscription,
    /// The generation before the list.
    generation: Option<u32>,
}

/// One thing that it told.
enum Told {
    /// What the list is made from may have changed.
    Change,
    /// A transaction, of which all has been told, has made this generation.
    Generation(Option<u32>),
}

impl Meanwhile {
    fn begin(client: &mut Client) -> Result<Self, Error> {
        let subscription = Subscription::open(NETLINK_NETFILTER, GROUP, WHAT)?.with_room(ROOM);
        Ok(Self { subscription, generation: client.generation()? })
    }

    /// Whether nothing that the list is made from has changed since. What could not be told counts as a change.
    fn has_spared(&mut self, client: &mut Client, extent: Extent<'_>) -> Result<bool, Error> {
        let (Some(first), Some(last)) = (self.generation, client.generation()?) else {
            return Ok(false);
        };
        // The kernel numbers a generation before it tells of it (`nf_tables_commit`): what is told until then is waited for.
        loop {
            let events = self.subscription.receive(|it| {
                if it.kind == u16::from_be_bytes(NEW_GENERATION) {
                    let id = it.bytes.get(HEADERS..).and_then(read_id);
                    return Some(Told::Generation(id));
                }
                extent.is_changed_by(it).then_some(Told::Change)
            })?;
            let Some(events) = events else {
                if first == last {
                    return Ok(true);
                }
                let failed = |source| Error::Socket { what: WHAT.into(), source };
                if !wait_readable(self.subscription.as_fd(), LONGEST_COMMIT_MS).map_err(failed)? {
                    return Ok(false);
                }
                continue;
            };
            for event in events {
                match event {
                    Event::Missed | Event::Heard(Told::Change | Told::Generation(None)) => {
                        return Ok(false);
                    }
                    // What comes later comes after the list.
                    Event::Heard(Told::Generation(Some(id))) if is_reached(last, id) => {
                        return Ok(true);
                    }
                    Event::Heard(Told::Generation(Some(_))) => {}
                }
            }
        }
    }
}

/// Whether a generation is this one or a later one: they begin anew after 32 bits.
const fn is_reached(generation: u32, by: u32) -> bool {
    by.wrapping_sub(generation).cast_signed() >= 0
}

impl Client {
    /// The generation, which has been made to its end: a transaction of nothing waits for the one that is being made
    /// (`nf_tables_valid_genid`), and changes nothing, not even the generation.
    fn settled(&mut self) -> Result<Option<u32>, Error> {
        let generation = self.generation()?;
        let first = self.socket.next();
        let (bytes, last) = Batch::default().framed(first);
        self.socket.used(last);
        self.socket.send(&bytes, "wait for changes of nf_tables")?;
        Ok(generation)
    }

    /// Whether a list was begun with this generation: by the number that its entries carry (`nft_base_seq`), and where there are none by
    /// there being no other one yet.
    fn is_of(&mut self, generation: Option<u32>, listed: &Listed) -> Result<bool, Error> {
        let Some(resource) = listed.resource else { return Ok(self.generation()? == generation) };
        let low = generation.map(|it| (it & u32::from(u16::MAX)) == u32::from(resource));
        Ok(low.unwrap_or(true))
    }

    /// What follows the headers of each entry of a list goes to `take`, which begins anew with an empty value when a change
    /// of what it is made from interrupts it. It is asked for in the namespace in which the client was opened.
    pub(super) fn list<T: Default>(
        &mut self,
        extent: Extent<'_>,
        message: impl Fn() -> Message,
        what: &str,
        mut take: impl FnMut(&mut T, &[u8]),
    ) -> Result<T, Error> {
        let is_of_hook = matches!(extent, Extent::Hook);
        let (started, mut pause) = (Instant::now(), PAUSES.0);
        let mut was_interrupted = false;
        for attempt in 1.. {
            // Most often the first is not interrupted, and costs little more than itself.
            let meanwhile = if was_interrupted { Some(Meanwhile::begin(self)?) } else { None };
            let mut generation = self.settled()?;
            // Where others change much a list is not begun in vain.
            let waits = if attempt > 1 { MOST_WAITS } else { 0 };
            for _ in 0..waits {
                let before = std::mem::replace(&mut generation, self.settled()?);
                if before == generation {
                    break;
                }
            }
            let mut found = T::default();
            let listed = self.socket.list(message(), what, |entry| take(&mut found, entry))?;
            // Entries of hooks carry no number (`nfnl_hook_dump_one`).
            let was_settled = is_of_hook || self.is_of(generation, &listed)?;
            if was_settled && !listed.is_interrupted {
                return Ok(found);
            }
            let was_told = meanwhile.is_some();
            if let Some(mut meanwhile) = meanwhile
                && was_settled
                && !is_of_hook
                && meanwhile.has_spared(self, extent)?
            {
                return Ok(found);
            }
            if attempt >= DUMP_ATTEMPTS && started.elapsed() > LONGEST {
                break;
            }
            if was_told {
                sleep(pause);
                pause = pause.saturating_mul(2).min(PAUSES.1);
            }
            was_interrupted |= listed.is_interrupted;
        }
        Err(Error::Interrupted { what: what.into() })
    }
}

#[cfg(test)]
mod tests {
    use ruleset::nft::{Match, Rule, Verdict};

    use super::*;
    use crate::datagram::messages;
    use crate::nftables::message::{
        DELETE_CHAIN, DELETE_RULE, DELETE_TABLE, NEW_CHAIN, NEW_RULE, NEW_TABLE,
    };

    const OURS: Table<'_> = Table { family: Family::Inet, name: "ours" };
    const THEIRS: Table<'_> = Table { family: Family::Inet, name: "theirs" };
    const OF_IPV4: Table<'_> = Table { family: Family::Ip, name: "ours" };

    fn is_changed(extent: Extent<'_>, table: Table<'_>, kind: [u8; 2]) -> bool {
        let bytes = Message::of(table, kind, 0).text(TABLE, table.name).into_bytes();
        extent.is_changed_by(&messages(&bytes).next().unwrap().unwrap())
    }

    #[test]
    fn a_table_is_changed_by_what_is_of_its_family_and_name() {
        let of_ours = |table, kind| is_changed(Extent::Table(OURS), table, kind);
        for kind in [NEW_TABLE, DELETE_TABLE, NEW_CHAIN, DELETE_CHAIN, NEW_RULE, DELETE_RULE] {
            assert!(of_ours(OURS, kind));
            assert!(!of_ours(THEIRS, kind) && !of_ours(OF_IPV4, kind));
        }
    }

    #[test]
    fn chains_are_changed_by_tables_and_chains_of_their_family() {
        let of_family = |table, kind| is_changed(Extent::Chains(Family::Inet), table, kind);
        // `NFT_MSG_DESTROYCHAIN`, which old kernels do not have.
        for kind in [NEW_TABLE, DELETE_TABLE, NEW_CHAIN, DELETE_CHAIN, [10, 27]] {
            assert!(of_family(OURS, kind) && of_family(THEIRS, kind));
            assert!(!of_family(OF_IPV4, kind));
        }
        assert!(!of_family(OURS, NEW_RULE) && !of_family(THEIRS, NEW_RULE));
    }

    #[test]
    fn a_rule_that_goes_may_take_a_chain_with_it() {
        let is_changed = |rule: Message| {
            let bytes = rule.into_bytes();
            Extent::Chains(Family::Inet).is_changed_by(&messages(&bytes).next().unwrap().unwrap())
        };
        let gone = |verdict| {
            let rule = Rule::new([Match::Protocol(6)], verdict);
            let message = Message::of(THEIRS, DELETE_RULE, 0).text(TABLE, THEIRS.name);
            message.encoded(&Message::of_rule(Family::Inet, &rule).into_attributes())
        };
        let to = |chain: &str| chain.to_owned();
        for verdict in [Verdict::Accept, Verdict::Jump(to("c")), Verdict::Goto(to("c"))] {
            assert!(!is_changed(gone(verdict)));
        }
        for verdict in [Verdict::Jump(to("__chain12")), Verdict::Goto(to("__chain0"))] {
            assert!(is_changed(gone(verdict)));
        }
        // A kernel that does not tell what was in it.
        assert!(is_changed(Message::of(THEIRS, DELETE_RULE, 0).text(TABLE, THEIRS.name)));
    }

    #[test]
    fn generations_begin_anew() {
        assert!(is_reached(7, 7) && is_reached(7, 8) && !is_reached(7, 6));
        assert!(is_reached(u32::MAX, 1) && !is_reached(1, u32::MAX));
    }
}
