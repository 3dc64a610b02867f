//! What the kernel holds.

use std::net::SocketAddr;

use netlink::nftables::Client;
use ruleset::nft::{Element, Rule, Set, Value};

use crate::dataplane::{Error, Found, hash};
use crate::explain::Query;
use crate::nftables::{AFFINITY, Held, Key, Map, sets, table};
use crate::plan::At;

/// The table of a family, as the kernel holds it.
#[derive(Debug)]
pub struct Kernel {
    pub(super) found: Found,
    /// Where who is asked about was led by the pools of the place, as it is remembered.
    pub(super) remembered: Vec<SocketAddr>,
}

impl Kernel {
    /// Reads it, in the namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(query: &Query) -> Result<Self, Error> {
        let mut client = Client::open()?.ok_or(Error::NoNftables)?;
        let is_ipv4 = query.to.address.is_ipv4();
        let sets = sets(is_ipv4);
        let found = Found::read(&mut client, table(is_ipv4), &sets)?;
        let mut kernel = Self { found, remembered: Vec::new() };
        if let Some(set) = sets.iter().find(|it| it.name == AFFINITY) {
            kernel.remembered = kernel.remembered(&mut client, query, set)?;
        }
        Ok(kernel)
    }

    fn remembered(
        &self,
        client: &mut Client,
        query: &Query,
        set: &Set,
    ) -> Result<Vec<SocketAddr>, Error> {
        let Some(address) = query.address() else { return Ok(Vec::new()) };
        let maps = [Map::Pools, Map::LocalPools].into_iter();
        let pools = maps.filter_map(|it| self.number(it, &query.to));
        let mut remembered = Vec::new();
        for pool in pools {
            let key = Element::new([Value::Address(address), Value::Priority(pool)]);
            for encoded in set.encode(&key) {
                let held = client.element(table(address.is_ipv4()), AFFINITY, &encoded)?;
                let decoded = held.and_then(|it| set.decode_single(&it));
                remembered.extend(decoded.and_then(|it| match it.data.as_slice() {
                    [Value::Address(address), Value::Ports(port)] => {
                        Some(SocketAddr::new(*address, port.first))
                    }
                    _ => None,
                }));
            }
        }
        Ok(remembered)
    }

    /// The number that a map has for a place.
    pub(super) fn number(&self, map: Map, at: &At) -> Option<u32> {
        match self.found.entries.get(&Key::Place(map, *at)) {
            Some(Held::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// Whether a chain has these rules and no others.
    pub(super) fn has(&self, chain: &str, rules: &[Rule]) -> bool {
        let held = self.found.chains.get(chain);
        held.is_some_and(|it| rules.iter().map(hash).eq(it.iter().cloned()))
    }
}
