//! Clients that were sent to an endpoint which goes: they are forgotten with it, so that their next connections go elsewhere.
//!
//! Of many only some, so that what changes waits for nothing. The others the rules forget, each when it comes back, at the price of
//! one packet ([`Rules::remembering`](crate::nftables::Rules::remembering)).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netlink::nftables::{Lasting, Listing};
use ruleset::nft::{Encoded, Set, Table, Value};

use crate::dataplane::Error;
use crate::nftables::{AFFINITY, untagged};

/// What the kernel's map has: a client's pool, and the endpoint that it was sent to.
pub(super) type Entry = (u32, SocketAddr);

/// So many entries of the map are looked at, which takes some milliseconds.
const MOST_LOOKED_AT: usize = 8192;
/// An entry that ends by itself before it is deleted has the kernel refuse the transaction. With so much left it hardly does; with
/// less it is left alone.
const MARGIN: Duration = Duration::from_secs(1);

/// What can be deleted of these, by the numbers of their pools, as far as a short look tells.
pub(super) fn look(
    table: Table<'_>,
    sets: &[Set],
    gone: &BTreeSet<Entry>,
) -> Result<HashMap<u32, Vec<Encoded>>, Error> {
    let mut found: HashMap<u32, Vec<Encoded>> = HashMap::new();
    let set = sets.iter().find(|it| it.name == AFFINITY).filter(|_| !gone.is_empty());
    let Some(set) = set else { return Ok(found) };
    let Some(mut listing) = Listing::begin(table, AFFINITY)? else { return Ok(found) };
    // A list may tell the same twice.
    let (mut seen, mut looked_at) = (HashSet::new(), 0);
    while looked_at < MOST_LOOKED_AT
        && let Some(piece) = listing.next_piece()?
    {
        looked_at += piece.len();
        for lasting in piece.into_iter().filter(may_go) {
            let entry = entry(set, &lasting.element).filter(|it| gone.contains(it));
            if let Some((pool, _)) = entry
                && seen.insert(lasting.element.key.clone())
            {
                found.entry(pool).or_default().push(lasting.element);
            }
        }
    }
    Ok(found)
}

fn may_go(lasting: &Lasting) -> bool {
    lasting.until.is_none_or(|it| it.saturating_duration_since(Instant::now()) > MARGIN)
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
