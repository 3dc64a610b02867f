//! ADD's work on the store: an address of every range set, or none.

use std::net::IpAddr;

use cni::IpConfig;
use ipnetwork::IpNetwork;

use super::Conf;
use crate::Error;
use crate::allocator::Pool;
use crate::lease::Owner;
use crate::range::{AddressRange, RangeSet, to_number};
use crate::store::{LastReserved, Store};

/// So many taken addresses are met one by one before all of them are listed: a list costs as much
/// as some hundred attempts.
const ATTEMPTS: usize = 16;

/// Which requested address each range set gives; pure.
///
/// # Errors
/// A requested address that no set can give.
pub(super) fn plan(conf: &Conf) -> Result<Vec<Option<IpAddr>>, Error> {
    let mut left = conf.requested.clone();
    let mut requests = Vec::with_capacity(conf.sets.len());
    for (index, set) in conf.sets.iter().enumerate() {
        let position = left.iter().position(|address| set.range_for(*address).is_some());
        let request = position.map(|position| left.remove(position));
        if let Some(address) = request {
            refuse_reserved(conf, index, set, address)?;
        }
        requests.push(request);
    }
    if left.is_empty() { Ok(requests) } else { Err(Error::RequestedLeftOver(left)) }
}

fn refuse_reserved(
    conf: &Conf,
    index: usize,
    set: &RangeSet,
    address: IpAddr,
) -> Result<(), Error> {
    if set.range_for(address).is_some_and(|range| range.gateway() == address) {
        return Err(Error::RequestedGateway { index, address });
    }
    match conf.exclude.iter().find(|network| network.contains(address)) {
        Some(exclusion) => {
            Err(Error::RequestedExcluded { index, address, exclusion: exclusion.to_string() })
        }
        None => Ok(()),
    }
}

/// Leases an address of every set.
///
/// # Errors
/// The first set's that has none; the others' leases are released.
pub(super) fn all(
    store: &mut Store,
    conf: &Conf,
    requests: &[Option<IpAddr>],
    owner: &Owner,
    notes: &mut Vec<String>,
) -> Result<Vec<IpConfig>, Error> {
    let mut made = Vec::new();
    let outcome = try_all(store, conf, requests, owner, &mut made, notes);
    if outcome.is_err() {
        for address in made {
            if let Err(error) = store.release(address, owner.key()) {
                notes.push(format!("the lease of a failed ADD stays: {error}"));
            }
        }
    }
    outcome
}

fn try_all(
    store: &mut Store,
    conf: &Conf,
    requests: &[Option<IpAddr>],
    owner: &Owner,
    made: &mut Vec<IpAddr>,
    notes: &mut Vec<String>,
) -> Result<Vec<IpConfig>, Error> {
    // Requested addresses may be a second one of the same set, as in the reference.
    let mut owned = Vec::new();
    if requests.contains(&None) {
        owned = store.owned(owner, notes)?;
        owned.append(&mut store.owned_bare(owner, notes)?);
        // In the order of the file names, so that of several the message names the reference's.
        owned.sort_by_cached_key(IpAddr::to_string);
    }
    let mut ips = Vec::new();
    for (index, (set, request)) in conf.sets.iter().zip(requests).enumerate() {
        let last = LastReserved::read(store.directory(), index)?;
        let address =
            match request {
                Some(address) => take_requested(store, (index, set), *address, owner, notes)?,
                None => {
                    refuse_second(index, set, &owned, owner)?;
                    let pool = Pool::new(set, &conf.exclude);
                    take_next(store, &pool, last.address(), owner)?.ok_or_else(|| {
                        Error::Exhausted { index, set: set.to_string(), size: pool.size() }
                    })?
                }
            };
        made.push(address);
        last.write(store.directory(), address)?;
        ips.extend(set.range_for(address).map(|range| ip_config(range, address)));
    }
    Ok(ips)
}

fn ip_config(range: &AddressRange, address: IpAddr) -> IpConfig {
    let network = IpNetwork::new(address, range.subnet().prefix());
    IpConfig {
        interface: None,
        // The prefix is of a subnet of the same family, so there is always a network.
        address: network.unwrap_or_else(|_| address.into()),
        gateway: Some(range.gateway()),
    }
}

fn refuse_second(
    index: usize,
    set: &RangeSet,
    owned: &[IpAddr],
    owner: &Owner,
) -> Result<(), Error> {
    match owned.iter().find(|address| set.range_for(**address).is_some()) {
        None => Ok(()),
        Some(address) => Err(duplicate(index, *address, owner)),
    }
}

fn duplicate(index: usize, address: IpAddr, owner: &Owner) -> Error {
    let container_id = String::from_utf8_lossy(owner.bare_key()).into_owned();
    Error::Duplicate { index, address, container_id }
}

fn take_requested(
    store: &mut Store,
    (index, set): (usize, &RangeSet),
    address: IpAddr,
    owner: &Owner,
    notes: &mut Vec<String>,
) -> Result<IpAddr, Error> {
    let draft = store.draft(owner)?;
    if store.take(&draft, address, owner)? {
        return Ok(address);
    }
    if store.is_held_by(address, owner) {
        return Err(duplicate(index, address, owner));
    }
    let taken = |holder| Error::RequestedTaken { index, address, set: set.to_string(), holder };
    match store.holder(address, notes) {
        Some(holder) => Err(taken(holder)),
        // It was a corrupt lease, and is no more.
        None if store.take(&draft, address, owner)? => Ok(address),
        None => Err(taken("leased a moment ago".to_owned())),
    }
}

/// Leases the next free address; `None` when there is none.
fn take_next(
    store: &mut Store,
    pool: &Pool<'_>,
    last_reserved: Option<IpAddr>,
    owner: &Owner,
) -> Result<Option<IpAddr>, Error> {
    let draft = store.draft(owner)?;
    let mut taken: Option<Vec<u128>> = None;
    for (tried, address) in pool.walk(last_reserved).enumerate() {
        if tried >= ATTEMPTS {
            let taken = match &mut taken {
                Some(taken) => taken,
                none => none.insert(store.taken_numbers(address.is_ipv4())?),
            };
            if taken.binary_search(&to_number(address)).is_ok() {
                continue;
            }
        }
        if store.take(&draft, address, owner)? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}
