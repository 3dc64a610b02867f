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

/// Flows that something may have to be done about.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Those with an isolated end, and those that are cut.
    pub(crate) concerned: Vec<Flow>,
    /// Those with an end that has gone; the node's own too.
    pub(crate) left: Vec<Flow>,
}

/// Lists the flows that have an end for which `is_isolated`, or that are cut; and those that have an
/// end for which `is_gone`, and which is not the node's.
///
/// # Errors
/// [`Error`] when the kernel cannot be asked.
pub(crate) fn list(
    bit: u32,
    is_isolated: impl Fn(&IpAddr) -> bool,
    is_gone: impl Fn(&IpAddr) -> bool,
) -> Result<Listed, Error> {
    let own = own_addresses()?;
    let (mut concerned, mut left) = (Vec::new(), Vec::new());
    each(&Family::ALL, |flow| {
        if has_end(flow, |it| is_gone(it) && !own.contains(it)) {
            left.push(*flow);
        } else if is_concerned(flow, bit, &own, &is_isolated) {
            concerned.push(*flow);
        }
    })?;
    Ok(Listed { concerned, left })
}

fn is_concerned(
    flow: &Flow,
    bit: u32,
    own: &HashSet<IpAddr>,
    is_isolated: impl Fn(&IpAddr) -> bool,
) -> bool {
    // What the node itself sends is never denied.
    let is_own = own.contains(&flow.original.source);
    let is_expected = flow.status.0 & EXPECTED != 0;
    flow.mark & bit != 0 || has_end(flow, is_isolated) && !is_own && !is_expected
}

fn each(families: &[Family], mut take: impl FnMut(&Flow)) -> Result<(), Error> {
    let Some(mut client) = Client::open()? else { return Ok(()) };
    for family in families {
        client.flows(&Filter::all(family.is_ipv4()), &mut take)?;
    }
    Ok(())
}

/// Whether one of its ends is.
pub(crate) fn has_end(flow: &Flow, which: impl Fn(&IpAddr) -> bool) -> bool {
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

/// Has the kernel forget flows. Tells how many of them there still were.
///
/// # Errors
/// [`Error`] when the kernel refuses.
pub(crate) fn forget(flows: &[Flow]) -> Result<usize, Error> {
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
    let has_any = |family: &Family| addresses.iter().any(|it| family.has(it));
    let families: Vec<_> = Family::ALL.into_iter().filter(has_any).collect();
    let (own, mut flows) = (own_addresses()?, Vec::new());
    each(&families, |flow| {
        if is_concerned(flow, bit, &own, |end| addresses.contains(end)) {
            flows.push(*flow);
        }
    })?;
    Ok(flows)
}

/// The node's own addresses.
///
/// # Errors
/// [`Error::Socket`].
pub(crate) fn own_addresses() -> Result<HashSet<IpAddr>, Error> {
    let interfaces = getifaddrs().map_err(|errno| Error::Socket {
        what: "list the node's own addresses".to_owned(),
        source: errno.into(),
    })?;
    let addresses = interfaces.filter_map(|interface| interface.address);
    let addresses = addresses.filter_map(|address| {
        let four = address.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
    });
    Ok(addresses.collect())
}
