//! By nf_tables, in a table of our own: maps lead from a port to its container in one step, however many are
//! published.
//!
//! Attachments with the same conditions and the same bit of the mark share a [`Class`]: a chain and its maps. Elements
//! carry in their comments whose they are.

pub(super) mod class;
mod contents;
mod elements;
mod index;

use std::collections::BTreeSet;

use cni::Attachment;
use ipnetwork::IpNetwork;
use netlink::nftables::{Change, Client};
use ruleset::nft::{Encoded, Set};

use super::conf::Conf;
use super::mapping::{Dead, Held, Key, Mapping};
use super::owner::Siblings;
use crate::error::Error;
use crate::nf_tables::attempt;
use crate::owner::{Owner, Stale};
use class::{Class, TABLE};
pub(super) use contents::Contents;
use contents::Recount;
use elements::Part;

/// What an attachment has.
#[derive(Debug)]
pub(super) struct Wanted {
    class: Class,
    owner: Owner,
    /// By the sets and maps that they are in.
    elements: Vec<(Set, Vec<Encoded>)>,
}

impl Wanted {
    /// For the container's addresses; without the ports that other attachments of the container have published: of two
    /// elements there can be one.
    pub(super) fn new(
        conf: &Conf,
        owner: Owner,
        addresses: &[Option<IpNetwork>; 2],
        of_siblings: &[Held],
    ) -> Self {
        let class = Class::of(conf);
        let taken: BTreeSet<(bool, Key)> =
            of_siblings.iter().map(|it| (it.to.is_ipv4(), it.key)).collect();
        let of_address = |address: &IpNetwork| {
            let is_ipv4 = address.is_ipv4();
            let is_taken = |key: &Key| taken.contains(&(is_ipv4, *key));
            elements::of(conf, &class, &owner, *address, is_taken)
        };
        let elements = addresses.iter().flatten().flat_map(of_address).collect();
        Self { class, owner, elements }
    }

    /// What its class must have.
    fn parts(&self) -> BTreeSet<Part> {
        let named = self.elements.iter().filter_map(|(set, _)| Part::named(&set.name));
        Part::ALL.into_iter().chain(named.map(|(part, _)| part)).collect()
    }
}

/// Gives an attachment its elements, in place of any that it has and of those of the `dead`, in a table that was
/// `read` before: all of it, if there are any of those. What nobody has any elements of goes with them.
pub(super) fn set_up(
    client: &mut Client,
    read: Contents,
    wanted: &Wanted,
    dead: &Dead,
) -> Result<(), Error> {
    let mut read = Some(read);
    let Wanted { class, owner, elements, .. } = wanted;
    let is_gone = |is_ipv4: bool, comment: Option<&str>| {
        owner.has(comment) || dead.has_elements(is_ipv4, comment)
    };
    attempt(|| {
        let contents = match read.take() {
            Some(read) => read,
            None => Contents::all(client)?.with_rules(client)?,
        };
        let gone = contents.elements_of(is_gone);
        let recount = contents.recount(&gone, elements);
        let held = contents.parts(class);
        let parts = &held | &wanted.parts();
        let is_made =
            contents.has_index && parts == held && class.is_whole(&parts, &contents.rules);
        let made = class.made(&parts);
        let holds = |set: &Set| contents.holds(set);
        let mut emptied = contents.emptied(is_gone);
        emptied.retain(|(it, _)| it.suffix != class.suffix);
        let guard = class::guard();
        let mut changes = if is_made { Vec::new() } else { made.changes(&contents.rules, holds) };
        if is_made && !emptied.is_empty() {
            changes.extend(class::guarding(&contents.rules, &guard));
        }
        changes.extend(gone.iter().map(|(set, it)| Change::DeleteElements(&set.name, it)));
        let chains: Vec<_> = emptied.iter().map(|(class, _)| class.own_chain()).collect();
        for ((class, names), chain) in emptied.iter().zip(&chains) {
            changes.extend(class.removed(chain, names, &contents.rules));
        }
        changes.extend(elements.iter().map(|(set, it)| Change::Elements(&set.name, it)));
        changes.extend(recount.changes());
        client.change(TABLE, &changes)
    })
}

/// Whether an attachment has its elements and no others, and packets get to them.
pub(super) fn check(
    client: &mut Client,
    wanted: &Wanted,
    mappings: &[Mapping],
) -> Result<(), Error> {
    let Wanted { class, owner, elements } = wanted;
    let contents = Contents::of_attachment(client, owner, class, mappings)?.with_rules(client)?;
    let all = |elements: &[(Set, Vec<Encoded>)]| -> BTreeSet<(String, Encoded)> {
        let of_set = |(set, elements): &(Set, Vec<Encoded>)| {
            elements.iter().map(|it| now(set, class, it)).collect::<Vec<_>>()
        };
        elements.iter().flat_map(of_set).collect()
    };
    let held = contents.elements_of(|_, comment| owner.has(comment));
    let (held, shall) = (all(&held), all(elements));
    if held != shall {
        let (has, shall) = (held.len(), shall.len());
        return Err(Error::Changed(format!(
            "the attachment has other elements in table {TABLE} than ADD made ({has}, not {shall})"
        )));
    }
    if !class.is_whole(&contents.parts(class), &contents.rules) {
        return Err(Error::Changed(format!("the rules of table {TABLE} are others than ADD made")));
    }
    Ok(())
}

/// An element with the name of its set, as ADD makes it now.
fn now(set: &Set, class: &Class, element: &Encoded) -> (String, Encoded) {
    let converted = Part::named(&set.name).and_then(|(part, _)| {
        let (part, element) = elements::converted(part, set, element)?;
        let set = part.set(&class.suffix);
        let encoded = set.encode(&element).pop()?;
        Some((set.name, encoded))
    });
    converted.unwrap_or_else(|| (set.name.clone(), element.clone()))
}

/// What other attachments of an attachment's container have published.
pub(super) fn of_siblings(
    client: &mut Client,
    owner: &Owner,
    siblings: &Siblings<'_>,
) -> Result<Vec<Held>, Error> {
    let mut held = Contents::all(client)?.held_of(|_, comment| !owner.has(comment));
    held.retain(|it| siblings.hold(it));
    Ok(held)
}

/// Removes all elements of an attachment.
pub(super) fn remove_own(client: &mut Client, owner: &Owner) -> Result<(), Error> {
    remove(client, Contents::all, |_, comment| owner.has(comment)).map(drop)
}

/// Removes the elements of the `dead`.
pub(super) fn remove_dead(client: &mut Client, dead: &Dead) -> Result<(), Error> {
    remove(client, Contents::all, |is_ipv4, comment| dead.has_elements(is_ipv4, comment)).map(drop)
}

/// Removes an attachment's elements: what is known to be all of them by the mappings, else whatever it has. Tells what
/// was published.
pub(super) fn tear_down(
    client: &mut Client,
    owner: &Owner,
    conf: &Conf,
) -> Result<Vec<Held>, Error> {
    let class = Class::of(conf);
    let look = |client: &mut Client| {
        // Another class goes with its last attachment, which nobody counts.
        if class.is_usual() {
            Contents::of_attachment(client, owner, &class, &conf.mappings)
        } else {
            Contents::all(client)
        }
    };
    remove(client, look, |_, comment| owner.has(comment))
}

/// Removes the elements of the attachments to `network` that are not among `valid`. Tells what was published.
pub(super) fn collect_garbage(
    client: &mut Client,
    network: &str,
    valid: &[Attachment],
) -> Result<Vec<Held>, Error> {
    let stale = Stale::new(network, valid);
    remove(client, Contents::all, |_, comment| stale.has(comment))
}

/// Removes what `is_gone`, by its family (IPv4 or not) and its comment, from the table as it is found when one has a `look`.
fn remove(
    client: &mut Client,
    look: impl Fn(&mut Client) -> Result<Contents, netlink::Error>,
    is_gone: impl Fn(bool, Option<&str>) -> bool,
) -> Result<Vec<Held>, Error> {
    let mut removed = Vec::new();
    attempt(|| {
        let mut contents = look(client)?;
        removed = contents.held_of(&is_gone);
        let gone = contents.elements_of(&is_gone);
        if gone.is_empty() {
            return Ok(());
        }
        let emptied = contents.emptied(&is_gone);
        if !emptied.is_empty() {
            contents = contents.with_rules(client)?;
        }
        let recount = contents.has_index.then(|| contents.recount(&gone, &[]));
        let guard = class::guard();
        let mut changes: Vec<Change<'_>> =
            gone.iter().map(|(set, it)| Change::DeleteElements(&set.name, it)).collect();
        if !emptied.is_empty() {
            changes.extend(class::guarding(&contents.rules, &guard));
        }
        let chains: Vec<_> = emptied.iter().map(|(class, _)| class.own_chain()).collect();
        for ((class, names), chain) in emptied.iter().zip(&chains) {
            changes.extend(class.removed(chain, names, &contents.rules));
        }
        changes.extend(recount.iter().flat_map(Recount::changes));
        client.change(TABLE, &changes)
    })?;
    Ok(removed)
}
