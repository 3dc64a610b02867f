//! Clients that were sent to endpoints which are no more.

use std::net::SocketAddr;

use netlink::nftables::{Change, Client};
use nix::errno::Errno;
use ruleset::nft::{Encoded, Set, Table, Value};

use crate::dataplane::Error;
use crate::dataplane::transaction::Written;
use crate::nftables::{AFFINITY, untagged};

/// So often, when some of what is to be forgotten is forgotten by itself meanwhile, or a packet was on its way.
const ATTEMPTS: usize = 5;

/// Has the kernel forget the clients of those endpoints, each with the number of its pool, that are `stale`. What remains after
/// some attempts ends by itself.
pub(super) fn forget(
    client: &mut Client,
    table: Table<'_>,
    set: &Set,
    stale: impl Fn(u32, SocketAddr) -> bool,
) -> Result<Written, Error> {
    let mut written = Written::default();
    for _ in 0..ATTEMPTS {
        let elements = client.elements(table, AFFINITY)?;
        let is_stale = |it: &Encoded| remembered(set, it).is_some_and(|(pool, to)| stale(pool, to));
        let elements: Vec<_> = elements.into_iter().filter(is_stale).collect();
        if elements.is_empty() {
            return Ok(written);
        }
        match client.change(table, &[Change::DeleteElements(AFFINITY, &elements)]) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            done => {
                done?;
                written.transactions += 1;
                written.deleted += elements.len();
            }
        }
    }
    Ok(written)
}

/// The pool, and where a client of it was sent.
fn remembered(set: &Set, element: &Encoded) -> Option<(u32, SocketAddr)> {
    let element = set.decode_single(element)?;
    match (element.key.as_slice(), element.data.as_slice()) {
        ([_, Value::Priority(pool)], [Value::Address(address), Value::Ports(port)]) => {
            Some((untagged(*pool)?, SocketAddr::new(*address, port.first)))
        }
        _ => None,
    }
}
