//! What goes: an attachment's rules, those of the dead, and garbage.

use std::cell::RefCell;

use super::saved::{Kept, chains_of, leading_to, translations};
use super::{HOSTPORTS, OLD_HOSTPORTS, OfSiblings, Programs};
use crate::error::Error;
use crate::iptables::{NAT, Places, is_declaration};
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
    chains: &[(&str, &str)],
    of_siblings: OfSiblings<'_>,
) -> (Ended, Result<(), Error>) {
    let ended = RefCell::new(Ended::default());
    let mut look_in = |family| {
        let mut places = Places { nftables: false, legacy: false };
        for (hook, chain) in chains {
            let (led_to, left) = kernel.remove_leading(family, hook, chain, of_siblings);
            ended.borrow_mut().addresses.extend(led_to);
            places.nftables |= left.nftables;
            places.legacy |= left.legacy;
        }
        places
    };
    let lines_for = |saved: &str| {
        let of_chain = |(_, chain): &(&str, &str)| {
            ended.borrow_mut().extend(translations(saved, chain), of_siblings);
            removal_lines(saved, chain, of_siblings)
        };
        chains.iter().flat_map(of_chain).collect()
    };
    let removed = programs.remove(&mut look_in, &lines_for);
    (ended.into_inner(), removed)
}

/// Removes the rules of the containers in `network` whose chains are not among `valid`. Tells what they published.
pub(in crate::portmap) fn collect_garbage(
    programs: &mut Programs<'_>,
    kernel: &mut KernelTables,
    network: &str,
    valid: &[Identity],
) -> (Ended, Result<(), Error>) {
    let ended = RefCell::new(Ended::default());
    let lines_for = |saved: &str| {
        let chains = chains_of(saved, network).into_iter();
        let stale = chains.filter(|chain| !valid.iter().any(|it| it.chain == *chain));
        let of_chain = |chain| {
            ended.borrow_mut().extend(translations(saved, chain), &|_| false);
            removal_lines(saved, chain, &|_| false)
        };
        stale.flat_map(of_chain).collect()
    };
    let removed = programs.remove(&mut |family| kernel.places(family, NAT, HOSTPORTS), &lines_for);
    (ended.into_inner(), removed)
}
