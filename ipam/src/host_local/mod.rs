//! host-local: leases from ranges of the configuration, kept in files on this machine.
//!
//! Interchangeable, call by call, with the reference plugin of this name on the same directory.

mod conf;
mod lease;
mod resolv_conf;
mod status;

use std::collections::HashSet;
use std::io::Read;
use std::net::IpAddr;

use cni::{AddResult, Call, Dns, decode::Fields};
use nix::fcntl::OFlag;

pub(crate) use conf::{Conf, gateway, routes, store_options};
pub use status::{status, usable};

use crate::Error;
use crate::files::open;
use crate::lease::Owner;
use crate::store::{Store, has_lease};

/// No resolver reads that much; a device could go on for ever.
const RESOLV_CONF_LIMIT: u64 = 1 << 20;

/// ADD: leases one address of every range set, or none at all.
///
/// What a person should know, but no runtime needs, is added to `notes` (also by the other verbs).
///
/// # Errors
/// [`Error`]; nothing of this call stays on disk then.
pub fn add(call: &Call, notes: &mut Vec<String>) -> Result<AddResult, Error> {
    let conf = Conf::of(call)?;
    let options = store_options(call)?;
    let dns = read_dns(&conf)?;
    let requests = lease::plan(&conf)?;
    let mut store = Store::create(&options, notes)?;
    let owner = Owner::new(&call.container_id, &call.ifname);
    let ips = lease::all(&mut store, &conf, &requests, &owner, notes);
    store.seal(notes);
    Ok(AddResult { interfaces: Vec::new(), ips: ips?, routes: conf.routes, dns })
}

/// DEL: releases all addresses of the attachment. None, or no network at all, is fine.
///
/// Only `name` and `ipam.dataDir` are needed: a configuration that became wrong since ADD does not
/// keep the pod from going.
///
/// # Errors
/// [`Error`]; all leases were tried.
pub fn del(call: &Call, notes: &mut Vec<String>) -> Result<(), Error> {
    let Some(mut store) = Store::open(&store_options(call)?, notes)? else { return Ok(()) };
    let owner = Owner::new(&call.container_id, &call.ifname);
    let mut content = owner.key();
    let mut owned = store.owned(&owner, notes)?;
    if owned.is_empty() {
        content = owner.bare_key();
        owned = store.owned_bare(&owner, notes)?;
    }
    let release = |address| store.release(address, content).err();
    let failures: Vec<Error> = owned.into_iter().filter_map(release).collect();
    store.seal(notes);
    result_of(failures)
}

/// Undoes an ADD that gave `addresses`: releases those of them that the attachment has, and no
/// other.
///
/// # Errors
/// [`Error`]; all were tried.
pub fn release(call: &Call, addresses: &[IpAddr], notes: &mut Vec<String>) -> Result<(), Error> {
    let Some(mut store) = Store::open(&store_options(call)?, notes)? else { return Ok(()) };
    let owner = Owner::new(&call.container_id, &call.ifname);
    let mut owned = store.owned(&owner, notes)?;
    owned.retain(|address| addresses.contains(address));
    let failures: Vec<Error> =
        owned.into_iter().filter_map(|address| store.release(address, owner.key()).err()).collect();
    store.seal(notes);
    result_of(failures)
}

fn result_of(mut failures: Vec<Error>) -> Result<(), Error> {
    match failures.pop() {
        None => Ok(()),
        Some(only) if failures.is_empty() => Err(only),
        Some(last) => {
            failures.push(last);
            Err(Error::Several(failures))
        }
    }
}

/// CHECK: the attachment has a lease, whichever address it is of.
///
/// # Errors
/// [`Error::NoLease`] when it has none.
pub fn check(call: &Call) -> Result<(), Error> {
    Conf::of(call)?;
    let options = store_options(call)?;
    if has_lease(&options, &Owner::new(&call.container_id, &call.ifname))? {
        return Ok(());
    }
    Err(Error::NoLease {
        container_id: call.container_id.clone(),
        ifname: call.ifname.clone(),
        directory: options.directory(),
    })
}

/// GC: releases all addresses of this network that belong to no valid attachment. A lease that does
/// not tell its interface (old format) stays while any attachment is of its container.
///
/// # Errors
/// [`cni::Error::NoValidAttachments`] without the list: that never means that nothing is valid.
pub fn gc(call: &Call, notes: &mut Vec<String>) -> Result<(), Error> {
    let valid = call.conf.valid_attachments()?;
    let mut contents: HashSet<Vec<u8>> = HashSet::with_capacity(valid.len() * 2);
    for attachment in &valid {
        let owner = Owner::new(&attachment.container_id, &attachment.ifname);
        contents.insert(owner.bare_key().to_vec());
        contents.insert(owner.key().to_vec());
    }
    Store::sweep(&store_options(call)?, &|content| contents.contains(content), notes)
}

/// Whether ADD will give an IPv6 address.
///
/// # Errors
/// The configuration or `CNI_ARGS` is wrong.
pub fn gives_ipv6(call: &Call) -> Result<bool, Error> {
    Ok(Conf::of(call)?.sets.iter().any(|set| !set.is_ipv4()))
}

/// Tells every problem of the configuration, of which `root` is the outermost object, to its
/// collection; the parser is the one that the verbs use.
pub fn validate(root: &Fields<'_>) {
    Conf::read(root);
}

fn read_dns(conf: &Conf) -> Result<Dns, Error> {
    let Some(path) = &conf.resolv_conf else { return Ok(Dns::default()) };
    let mut text = Vec::new();
    open(path, OFlag::O_RDONLY, 0)
        .and_then(|file| file.take(RESOLV_CONF_LIMIT).read_to_end(&mut text))
        .map_err(Error::io("read ipam.resolvConf", path))?;
    Ok(resolv_conf::parse(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests;
