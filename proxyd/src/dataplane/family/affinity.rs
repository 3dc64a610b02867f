//! Clients that were sent to endpoints which are no more: they are forgotten, so that their next connections go elsewhere.
//!
//! The rules see to it that nobody is led to what is no endpoint of the pool: who comes to one is forgotten, and has to ask once
//! more ([`Rules::remembering`](crate::nftables::Rules::remembering)). What is done here spares clients that, as far as it can be done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netlink::nftables::{Change, Client, Lasting, Listing};
use nix::errno::Errno;
use ruleset::nft::{Encoded, Set, Table, Value};

use crate::dataplane::Error;
use crate::dataplane::transaction::Written;
use crate::nftables::{AFFINITY, Numbers, untagged};

/// What the kernel's map has: a client's pool, and the endpoint that it was sent to.
pub(super) type Entry = (u32, SocketAddr);

/// So many entries are looked at before an endpoint goes: those that are found go with it, and it waits some milliseconds
/// for that.
const MOST_LOOKED_AT_FIRST: usize = 8192;
/// So many are forgotten in one transaction: nobody else changes rules meanwhile.
const MOST_AT_ONCE: usize = 2048;
/// So many are kept in mind: when more are found, these are forgotten first.
const MOST_FOUND: usize = 1 << 16;
/// So long the map is listed before somebody else may have a turn.
const TURN: Duration = Duration::from_millis(10);
/// Until the map is listed again: what was on its way has arrived, and what was about to end has ended or was renewed.
const PAUSE: Duration = Duration::from_secs(1);
/// So many lists in a row have to show nothing that is to be forgotten. One may miss some: see [`Listing`].
const WHOLE_LISTS: u32 = 2;
/// So many lists are read at most: what is left then its clients have forgotten, or it ends by itself.
const MOST_LISTS: u32 = 20;
/// An entry that ends by itself before it is deleted would have the kernel refuse the transaction. With so much left it does not;
/// with less it is left alone: it ends, or a later list shows it renewed.
const MARGIN: Duration = Duration::from_secs(2);
/// Where entries do not last so long, half of their time has to do, but so much at least.
const LEAST_MARGIN: Duration = Duration::from_millis(500);

/// The map of a family's clients, as far as it is known.
#[derive(Debug)]
pub(super) struct Affinity {
    table: Table<'static>,
    set: Option<Set>,
    /// The endpoints that clients may be remembered with.
    endpoints: HashSet<Entry>,
    /// Whether the numbers of all pools that the map has something of are known not to be free.
    knows_numbers: bool,
    search: Option<Search>,
}

/// A search for entries that are to be forgotten.
#[derive(Debug)]
struct Search {
    /// The list that is being read.
    listing: Option<Listing>,
    /// Whether it has shown nothing to be forgotten so far.
    is_clean: bool,
    /// So many before it have shown nothing.
    clean: u32,
    /// So many have been read.
    lists: u32,
    /// The keys of what was found, each with the time before which it can be deleted; `None`: any time.
    found: BTreeMap<Vec<u8>, Option<Instant>>,
    /// The next list begins then.
    next: Instant,
}

impl Affinity {
    pub(super) fn new(table: Table<'static>, sets: &[Set]) -> Self {
        let set = sets.iter().find(|it| it.name == AFFINITY).cloned();
        let endpoints = HashSet::new();
        Self { table, set, endpoints, knows_numbers: false, search: None }
    }

    /// The map was just made: there is nothing in it.
    pub(super) const fn is_new(&mut self) {
        self.knows_numbers = true;
    }

    /// A service's clients may be remembered with these endpoints from now on, and no more with those.
    pub(super) fn change(&mut self, before: &BTreeSet<Entry>, now: &BTreeSet<Entry>) {
        before.difference(now).for_each(|it| _ = self.endpoints.remove(it));
        self.endpoints.extend(now);
    }

    /// What can be deleted of these, by the numbers of their pools, as far as a short look tells.
    pub(super) fn look(&self, gone: &BTreeSet<Entry>) -> Result<HashMap<u32, Vec<Encoded>>, Error> {
        let mut found: HashMap<u32, Vec<Encoded>> = HashMap::new();
        let Some(set) = self.set.as_ref().filter(|_| !gone.is_empty()) else { return Ok(found) };
        let Some(mut listing) = Listing::begin(self.table, AFFINITY)? else { return Ok(found) };
        let (mut seen, mut looked_at) = (HashSet::new(), 0);
        while looked_at < MOST_LOOKED_AT_FIRST
            && let Some(piece) = listing.next_piece()?
        {
            looked_at += piece.len();
            for lasting in piece {
                let entry = entry(set, &lasting.element).filter(|it| gone.contains(it));
                let Some((pool, _)) = entry.filter(|_| may_go(last_moment(&lasting))) else {
                    continue;
                };
                if seen.insert(lasting.element.key.clone()) {
                    found.entry(pool).or_default().push(lasting.element);
                }
            }
        }
        Ok(found)
    }

    /// Makes sure that no number is free of which the map has something.
    pub(super) fn know_numbers(&mut self, numbers: &mut Numbers) -> Result<(), Error> {
        if self.knows_numbers {
            return Ok(());
        }
        if let Some(set) = &self.set
            && let Some(mut listing) = Listing::begin(self.table, AFFINITY)?
        {
            while let Some(piece) = listing.next_piece()? {
                let entries = piece.iter().filter_map(|it| entry(set, &it.element));
                entries.for_each(|(pool, _)| numbers.found(pool));
            }
        }
        self.knows_numbers = true;
        Ok(())
    }

    /// What is to be forgotten is looked for from now on, by [`Self::go_on`].
    pub(super) fn search(&mut self) {
        match &mut self.search {
            // The list that is being read is of no use as a proof.
            Some(search) => {
                (search.is_clean, search.clean, search.lists) = (false, 0, 0);
                search.next = Instant::now();
            }
            None => {
                self.search = Some(Search {
                    listing: None,
                    is_clean: true,
                    clean: 0,
                    lists: 0,
                    found: BTreeMap::new(),
                    next: Instant::now(),
                });
            }
        }
    }

    /// When [`Self::go_on`] is to be called; `None`: there is nothing to be forgotten, nor a pool of which the map has
    /// something though it went.
    pub(super) fn next(&self) -> Option<Instant> {
        self.search.as_ref().map(|it| it.next)
    }

    /// Lists for a while, or forgets some of what was found.
    pub(super) fn go_on(
        &mut self,
        client: &mut Client,
        numbers: &mut Numbers,
    ) -> Result<Written, Error> {
        let Some(search) = &mut self.search else { return Ok(Written::default()) };
        if search.listing.is_none() && !search.found.is_empty() {
            return search.forget(client, self.table);
        }
        let listing = match search.listing.take() {
            Some(listing) => Some(listing),
            None => Listing::begin(self.table, AFFINITY)?,
        };
        let (Some(set), Some(mut listing)) = (&self.set, listing) else {
            self.search = None;
            return Ok(Written::default());
        };
        let begun = Instant::now();
        while let Some(piece) = listing.next_piece()? {
            for lasting in piece {
                let Some(entry) = entry(set, &lasting.element) else { continue };
                if !self.endpoints.contains(&entry) {
                    numbers.found(entry.0);
                    search.take(lasting);
                }
            }
            if search.found.len() >= MOST_FOUND {
                search.is_clean = true;
                search.lists += 1;
                return Ok(Written::default());
            }
            if begun.elapsed() >= TURN {
                search.listing = Some(listing);
                return Ok(Written::default());
            }
        }
        self.knows_numbers = true;
        if search.has_ended() {
            self.search = None;
        }
        Ok(Written::default())
    }
}

impl Search {
    /// This is to be forgotten.
    fn take(&mut self, lasting: Lasting) {
        (self.is_clean, self.clean) = (false, 0);
        let last_moment = last_moment(&lasting);
        if may_go(last_moment) {
            self.found.insert(lasting.element.key, last_moment);
        }
    }

    /// A list was read to its end; whether there is no need of another one.
    fn has_ended(&mut self) -> bool {
        self.lists += 1;
        self.clean += u32::from(self.is_clean);
        self.is_clean = true;
        if self.found.is_empty() {
            self.next = Instant::now() + PAUSE;
        }
        self.clean >= WHOLE_LISTS || self.lists >= MOST_LISTS
    }

    /// Has the kernel forget some of what was found.
    fn forget(&mut self, client: &mut Client, table: Table<'_>) -> Result<Written, Error> {
        let mut elements = Vec::new();
        while elements.len() < MOST_AT_ONCE
            && let Some((key, last_moment)) = self.found.pop_first()
        {
            if may_go(last_moment) {
                elements.push(Encoded { key, ..Encoded::default() });
            }
        }
        if elements.is_empty() {
            return Ok(Written::default());
        }
        match client.change(table, &[Change::DeleteElements(AFFINITY, &elements)]) {
            // One of these clients came meanwhile, and was forgotten by the rules. Where that happens clients come often: the
            // others will, too.
            Err(error) if error.errno() == Some(Errno::ENOENT) => {
                self.found.clear();
                self.next = Instant::now() + PAUSE;
                Ok(Written::default())
            }
            done => {
                done?;
                Ok(Written { transactions: 1, added: 0, deleted: elements.len() })
            }
        }
    }
}

/// Before this time it is sure to be there when it is deleted; `None`: at any time.
fn last_moment(lasting: &Lasting) -> Option<Instant> {
    let margin = lasting.timeout.map_or(MARGIN, |it| (it / 2).clamp(LEAST_MARGIN, MARGIN));
    // One that has ended by the clock of this machine may not go.
    lasting.until.map(|it| it.checked_sub(margin).unwrap_or(it))
}

fn may_go(last_moment: Option<Instant>) -> bool {
    last_moment.is_none_or(|it| Instant::now() < it)
}

/// The pool, and where a client of it was sent.
fn entry(set: &Set, element: &Encoded) -> Option<Entry> {
    let element = set.decode_single(element)?;
    match (element.key.as_slice(), element.data.as_slice()) {
        ([_, Value::Priority(pool)], [Value::Address(address), Value::Ports(port)]) => {
            Some((untagged(*pool)?, SocketAddr::new(*address, port.first)))
        }
        _ => None,
    }
}
