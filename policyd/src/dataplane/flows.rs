//! The kernel's flows: listing them, and setting the bit of a mark that says that one is cut.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use netlink::Error;
use netlink::conntrack::{Client, Filter, Flow, Mark, Outcome};
use nix::ifaddrs::getifaddrs;

use crate::iptables::Family;

/// As many flows are marked, and then there is a pause: the kernel's table is locked for each.
const MARKED_AT_ONCE: usize = 500;
const PAUSE: Duration = Duration::from_millis(20);
/// `IPS_EXPECTED`: begun by another flow (FTP's data), and judged with it.
const EXPECTED: u32 = 1;

/// Lists the flows that have an end for which `is_isolated`, or that are cut.
///
/// # Errors
/// [`Error`] when the kernel cannot be asked.
pub(crate) fn list(
    families: &[Family],
    bit: u32,
    is_isolated: impl Fn(&IpAddr) -> bool,
) -> Result<Vec<Flow>, Error> {
    let own = own_addresses();
    select(families, |flow| {
        // What the node itself sends is never denied.
        let is_own = own.contains(&flow.original.source);
        let is_expected = flow.status.0 & EXPECTED != 0;
        let is_concerned = has_end(flow, &is_isolated) && !is_own && !is_expected;
        flow.mark & bit != 0 || is_concerned
    })
}

fn select(families: &[Family], is_wanted: impl Fn(&Flow) -> bool) -> Result<Vec<Flow>, Error> {
    let Some(mut client) = Client::open()? else { return Ok(Vec::new()) };
    let mut flows = Vec::new();
    for family in families {
        client.flows(&Filter::all(family.is_ipv4()), |flow| {
            if is_wanted(flow) {
                flows.push(*flow);
            }
        })?;
    }
    Ok(flows)
}

fn has_end(flow: &Flow, which: impl Fn(&IpAddr) -> bool) -> bool {
    [flow.original.source, flow.reply.source].iter().any(which)
}

/// Cuts each flow that is to be, and lets the others go on. Tells how many were cut, and how many
/// are no longer.
///
/// # Errors
/// [`Error`] when the kernel refuses.
pub(crate) fn mark(changes: &[(Flow, bool)], bit: u32) -> Result<(usize, usize), Error> {
    let Some(mut client) = Client::open()? else { return Ok((0, 0)) };
    let mut counts = (0, 0);
    for (index, chunk) in changes.chunks(MARKED_AT_ONCE).enumerate() {
        if index > 0 {
            std::thread::sleep(PAUSE);
        }
        for (flow, is_denied) in chunk {
            let value = if *is_denied { bit } else { 0 };
            match client.set_mark(flow, Mark { value, mask: bit })? {
                Outcome::Done if *is_denied => counts.0 += 1,
                Outcome::Done => counts.1 += 1,
                Outcome::FlowGone => {}
            }
        }
    }
    Ok(counts)
}

/// Cuts all flows of addresses that the gate is about to let pass: they may have been begun by, or
/// with, whoever had the address before, and would pass as established. Those that policy allows
/// are let go on by the look at all flows that follows each commit.
///
/// # Errors
/// [`Error`] when the kernel cannot be asked, or refuses.
pub(super) fn cut_left_over(addresses: &BTreeSet<IpAddr>, bit: u32) -> Result<usize, Error> {
    let flows = of_addresses(addresses, bit)?.into_iter().filter(|flow| flow.mark & bit == 0);
    let changes: Vec<_> = flows.map(|flow| (flow, true)).collect();
    Ok(if changes.is_empty() { 0 } else { mark(&changes, bit)?.0 })
}

/// Has the kernel forget all flows of addresses that have a new owner: none of them is his, so that
/// what still comes of them begins a flow, and policy is asked. Cutting them would not do: one that
/// the former owner began looks as if the new one had, who may be free to.
///
/// # Errors
/// [`Error`] when the kernel cannot be asked, or refuses.
pub(super) fn forget_left_over(addresses: &BTreeSet<IpAddr>) -> Result<usize, Error> {
    forget(&of_addresses(addresses, 0)?)
}

/// Has the kernel forget all flows of addresses that nobody has any more, those too that the node
/// itself began.
///
/// # Errors
/// [`Error`] when the kernel cannot be asked, or refuses.
pub(super) fn forget_gone(addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
    if addresses.is_empty() {
        return Ok(());
    }
    let is_gone = |flow: &Flow| has_end(flow, |it| addresses.contains(it));
    forget(&select(&families_of(addresses), is_gone)?).map(drop)
}

/// How many of them there still were.
fn forget(flows: &[Flow]) -> Result<usize, Error> {
    if flows.is_empty() {
        return Ok(0);
    }
    let Some(mut client) = Client::open()? else { return Ok(0) };
    let mut count = 0;
    for flow in flows {
        count += usize::from(client.forget(flow)? == Outcome::Done);
    }
    Ok(count)
}

/// The flows that have one of these ends, or are cut by this bit.
fn of_addresses(addresses: &BTreeSet<IpAddr>, bit: u32) -> Result<Vec<Flow>, Error> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    list(&families_of(addresses), bit, |end| addresses.contains(end))
}

fn families_of(addresses: &BTreeSet<IpAddr>) -> Vec<Family> {
    let has_any = |family: &Family| addresses.iter().any(|it| family.has(it));
    Family::ALL.into_iter().filter(has_any).collect()
}

/// The node's own addresses; none where they cannot be read.
pub(crate) fn own_addresses() -> HashSet<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| interface.address);
    addresses
        .filter_map(|address| {
            let four = address.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
        })
        .collect()
}
