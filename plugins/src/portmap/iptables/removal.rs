//! What goes: an attachment's rules, those of the dead, and garbage.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink::nftables::Client;

use super::saved::{Kept, chains_of, leading_to, translations};
use super::{HOSTPORTS, OLD_HOSTPORTS, OfSiblings, Programs, told};
use crate::error::Error;
use crate::iptables::{self, FAMILIES, Family, NAT, Places, is_declaration, is_unreadable};
use crate::kernel_tables::KernelTables;
use crate::portmap::flows::Ended;
use crate::portmap::identity::Identity;

/// The lines that remove what a chain has, and what leads there; but for that which is `of_siblings`.
pub(super) fn removal_lines(saved: &str, chain: &str, of_siblings: OfSiblings<'_>) -> Vec<String> {
    let kept = Kept::of(saved, chain, of_siblings);
    let gone = leading_to(saved, chain).filter(|rule| !kept.needs(rule));
    let mut lines: Vec<String> = gone.map(|rule| format!("-D {rule}")).collect();
    if kept.rules.is_empty() {
        if saved.lines().any(|line| is_declaration(line, chain)) {
            lines.extend([format!("-F {chain}"), format!("-X {chain}")]);
        }
    } else if !kept.others.is_empty() {
        lines.push(format!("-F {chain}"));
        lines.extend(kept.rules.iter().map(|rule| format!("-A {rule}")));
    }
    lines
}

/// Removes an attachment's rules, whichever suite made them, by the names of its chains. Tells what they published.
pub(in crate::portmap) fn tear_down(
    programs: &mut Programs<'_>,
    kernel: &mut KernelTables,
    identity: &Identity,
    of_siblings: OfSiblings<'_>,
) -> (Ended, Result<(), Error>) {
    let Identity { chain, old_chain, .. } = identity;
    let chains = [(HOSTPORTS, chain.as_str()), (OLD_HOSTPORTS, old_chain.as_str())];
    remove_chains(programs, kernel, &chains, of_siblings)
}

/// Removes chains, and what leads to them from the chains that they are told with; but for that which is `of_siblings`.
/// Tells what they published.
pub(in crate::portmap) fn remove_chains(
    programs: &mut Programs<'_>,
    kernel: &mut KernelTables,
    chains: &[(&'static str, &str)],
    of_siblings: OfSiblings<'_>,
) -> (Ended, Result<(), Error>) {
    let (ended, is_listed) = (RefCell::new(Ended::default()), Cell::new(true));
    let mut look_in = |family| {
        let mut places = Places { nftables: false, legacy: false };
        for (hook, chain) in chains {
            let (led_to, left) = kernel.remove_leading(family, hook, chain, of_siblings);
            ended.borrow_mut().addresses.extend(led_to);
            places.nftables |= left.nftables;
            places.legacy |= left.legacy;
        }
        by_programs(places, &is_listed)
    };
    let lines_for = |saved: &str| {
        is_listed.update(|it| it && !is_unreadable(saved));
        let of_chain = |(_, chain): &(&'static str, &str)| {
            ended.borrow_mut().extend(translations(saved, chain), of_siblings);
            removal_lines(saved, chain, of_siblings)
        };
        chains.iter().flat_map(of_chain).collect()
    };
    let mut removed = programs.remove(&mut look_in, &lines_for);
    let mut ended = ended.into_inner();
    if !is_listed.get() {
        let chains =
            |_: &mut Client, _| Ok(chains.iter().map(|it| (it.0, it.1.to_owned())).collect());
        let unlisted = remove_unlisted(kernel, &chains, of_siblings, &mut ended);
        removed =
            Error::of_teardown([removed.err(), unlisted.err()].into_iter().flatten().collect());
    }
    (ended, removed)
}

/// Where the programs are to look; without them nobody lists what is in nf_tables.
fn by_programs(places: Places, is_listed: &Cell<bool>) -> Places {
    if !places.nftables || iptables::find().is_some() {
        return places;
    }
    is_listed.set(false);
    Places { nftables: false, ..places }
}

/// Removes by netlink what a chain has in a family and what leads there, but for that which is `of_siblings`. Tells where it led.
/// What the kernel refuses stays, for the programs at DEL.
pub(in crate::portmap) fn remove_by_kernel(
    kernel: &mut KernelTables,
    family: Family,
    chain: &str,
    of_siblings: OfSiblings<'_>,
) -> BTreeSet<IpAddr> {
    let (led_to, left) = kernel.remove_leading(family, HOSTPORTS, chain, of_siblings);
    let mut gone: BTreeSet<IpAddr> = led_to.into_iter().collect();
    if let Ok(Some(client)) = kernel.client()
        && left.nftables
        && let Ok(published) = told::remove(client, family, (HOSTPORTS, chain), of_siblings)
    {
        gone.extend(published.into_iter().map(|(_, to)| to));
    }
    gone
}

/// Chains, each with that which leads to it.
type Chains = Vec<(&'static str, String)>;

/// The same by netlink, of tables that the programs do not list, for those `chains` of a family.
fn remove_unlisted(
    kernel: &mut KernelTables,
    chains: &dyn Fn(&mut Client, Family) -> Result<Chains, netlink::Error>,
    of_siblings: OfSiblings<'_>,
    ended: &mut Ended,
) -> Result<(), Error> {
    let Some(client) = kernel.client()? else { return Ok(()) };
    for family in FAMILIES {
        for (hook, chain) in chains(client, family)? {
            let published = told::remove(client, family, (hook, &chain), of_siblings)?;
            ended.extend(published, &|_| false);
        }
    }
    Ok(())
}

/// Removes the rules of the containers in `network` whose chains are not among `valid`. Tells what they published.
pub(in crate::portmap) fn collect_garbage(
    programs: &mut Programs<'_>,
    kernel: &mut KernelTables,
    network: &str,
    valid: &[Identity],
) -> (Ended, Result<(), Error>) {
    let (ended, is_listed) = (RefCell::new(Ended::default()), Cell::new(true));
    let mut look_in = |family| by_programs(kernel.places(family, NAT, HOSTPORTS), &is_listed);
    let lines_for = |saved: &str| {
        is_listed.update(|it| it && !is_unreadable(saved));
        let chains = chains_of(saved, network).into_iter();
        let stale = chains.filter(|chain| !valid.iter().any(|it| it.chain == *chain));
        let of_chain = |chain| {
            ended.borrow_mut().extend(translations(saved, chain), &|_| false);
            removal_lines(saved, chain, &|_| false)
        };
        stale.flat_map(of_chain).collect()
    };
    let mut removed = programs.remove(&mut look_in, &lines_for);
    let mut ended = ended.into_inner();
    if !is_listed.get() {
        let stale = |client: &mut Client, family| {
            let mut chains = told::chains_of(client, family, network)?;
            chains.retain(|chain| !valid.iter().any(|it| it.chain == *chain));
            Ok(chains.into_iter().map(|chain| (HOSTPORTS, chain)).collect())
        };
        let unlisted = remove_unlisted(kernel, &stale, &|_| false, &mut ended);
        removed =
            Error::of_teardown([removed.err(), unlisted.err()].into_iter().flatten().collect());
    }
    (ended, removed)
}
