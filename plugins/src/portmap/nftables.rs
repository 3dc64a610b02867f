//! By nf_tables, in a table of our own: maps lead from a port to its container in one step, however many are
//! published.
//!
//! Attachments with the same conditions and the same bit of the mark share a [`Class`]: a chain and its maps. Elements
//! carry in their comments whose they are.

pub(super) mod class;
mod elements;

use std::collections::{BTreeMap, BTreeSet};

use cni::Attachment;
use ipnetwork::IpNetwork;
use netlink::nftables::{Change, Client, HeldRule};
use ruleset::nft::{Encoded, Set};

use super::conf::Conf;
use super::mapping::{Held, Holder, Tag};
use super::owner::holder;
use crate::error::Error;
use crate::nf_tables::attempt;
use crate::owner::{Owner, Stale};
use class::{Class, TABLE};
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
    /// For the container's addresses.
    pub(super) fn new(conf: &Conf, owner: Owner, addresses: &[Option<IpNetwork>; 2]) -> Self {
        let class = Class::of(conf);
        let addresses = addresses.iter().flatten();
        let elements = addresses.flat_map(|it| elements::of(conf, &class, &owner, *it)).collect();
        Self { class, owner, elements }
    }
}

/// What the table holds; sets in it that are not ours are left out.
#[derive(Debug, Default)]
pub(super) struct Contents {
    rules: BTreeMap<String, Vec<HeldRule>>,
    sets: Vec<(Part, Set, Vec<Encoded>)>,
}

impl Contents {
    /// Reads the table.
    pub(super) fn read(client: &mut Client) -> Result<Self, netlink::Error> {
        if !client.has_table(TABLE)? {
            return Ok(Self::default());
        }
        let rules = client.all_rules(TABLE)?;
        let mut sets = Vec::new();
        for held in client.sets(TABLE)? {
            let Some((part, suffix)) = Part::named(&held.name) else { continue };
            let set = part.set(suffix);
            if held.is_like(&set) {
                let elements = client.elements(TABLE, &set.name)?;
                sets.push((part, set, elements));
            }
        }
        Ok(Self { rules, sets })
    }

    /// What is published.
    pub(super) fn held(&self) -> Vec<Held> {
        self.held_of(|_| true)
    }

    /// What is published by those of whom `is_one` is true, by their comment.
    fn held_of(&self, is_one: impl Fn(Option<&str>) -> bool) -> Vec<Held> {
        let maps = self.sets.iter().filter(|(part, ..)| part.leads());
        let held = maps.flat_map(|(part, set, elements)| {
            let chosen = elements.iter().filter(|it| is_one(it.comment.as_deref()));
            chosen.filter_map(|element| {
                let (key, to) = elements::read(*part, set, element)?;
                let comment = element.comment.clone().unwrap_or_default();
                let holder = holder(&comment).unwrap_or_else(Holder::unknown);
                Some(Held { key, to, holder, tag: Tag::Comment(comment) })
            })
        });
        held.collect()
    }

    /// The elements of those of whom `is_one` is true, by the sets that they are in.
    fn elements_of(&self, is_one: impl Fn(Option<&str>) -> bool) -> Vec<(&str, Vec<Encoded>)> {
        let chosen = self.sets.iter().map(|(_, set, elements)| {
            let chosen = elements.iter().filter(|it| is_one(it.comment.as_deref()));
            (set.name.as_str(), chosen.cloned().collect::<Vec<_>>())
        });
        chosen.filter(|(_, elements)| !elements.is_empty()).collect()
    }

    /// The classes but the usual one that have nothing left without what `is_gone`, with the names of their sets.
    fn emptied(&self, is_gone: impl Fn(Option<&str>) -> bool) -> Vec<(Class, Vec<String>)> {
        let mut classes: BTreeMap<&str, (bool, Vec<String>)> = BTreeMap::new();
        for (_, set, elements) in &self.sets {
            let Some((_, suffix)) = Part::named(&set.name) else { continue };
            let (is_used, names) = classes.entry(suffix).or_default();
            *is_used |= elements.iter().any(|it| !is_gone(it.comment.as_deref()));
            names.push(set.name.clone());
        }
        let unused = classes.into_iter().filter(|(_, (is_used, _))| !is_used);
        let classes = unused.map(|(suffix, (_, names))| (Class::named(suffix), names));
        classes.filter(|(class, _)| !class.is_usual()).collect()
    }
}

/// Gives an attachment its elements, in place of any that it has and of those of `dead` containers, in a table that was
/// `read` before.
pub(super) fn set_up(
    client: &mut Client,
    read: Contents,
    wanted: &Wanted,
    dead: &[Tag],
) -> Result<(), Error> {
    let mut read = Some(read);
    let Wanted { class, owner, elements } = wanted;
    let (sets, chain) = (class.sets(), class.own_chain());
    let is_gone = |comment: Option<&str>| owner.has(comment) || is_among(dead, comment);
    attempt(|| {
        let contents = read.take().map_or_else(|| Contents::read(client), Ok)?;
        let gone = contents.elements_of(is_gone);
        let mut changes = Vec::new();
        let has_sets = sets.iter().all(|set| contents.sets.iter().any(|it| it.1.name == set.name));
        if !has_sets || !class.is_whole(&contents.rules) {
            changes.extend(class.made(&sets, &chain, &contents.rules));
        }
        changes.extend(gone.iter().map(|(set, it)| Change::DeleteElements(set, it)));
        changes.extend(elements.iter().map(|(set, it)| Change::Elements(&set.name, it)));
        client.change(TABLE, &changes)
    })
}

/// Whether an attachment has its elements and no others, and packets get to them.
pub(super) fn check(client: &mut Client, wanted: &Wanted) -> Result<(), Error> {
    let contents = Contents::read(client)?;
    let held = contents.elements_of(|comment| wanted.owner.has(comment));
    let all = |elements: &[(&str, Vec<Encoded>)]| -> BTreeSet<(String, Encoded)> {
        let of_set = |(set, elements): &(&str, Vec<Encoded>)| {
            let set = (*set).to_owned();
            elements.iter().map(move |it| (set.clone(), it.clone())).collect::<Vec<_>>()
        };
        elements.iter().flat_map(of_set).collect()
    };
    let of_wanted: Vec<(&str, Vec<Encoded>)> =
        wanted.elements.iter().map(|(set, it)| (set.name.as_str(), it.clone())).collect();
    if all(&held) != all(&of_wanted) {
        let (has, shall) = (all(&held).len(), all(&of_wanted).len());
        return Err(Error::Changed(format!(
            "the attachment has other elements in table {TABLE} than ADD made ({has}, not {shall})"
        )));
    }
    if !wanted.class.is_whole(&contents.rules) {
        return Err(Error::Changed(format!("the rules of table {TABLE} are others than ADD made")));
    }
    Ok(())
}

fn is_among(tags: &[Tag], comment: Option<&str>) -> bool {
    let comment = comment.unwrap_or_default();
    tags.iter().any(|tag| matches!(tag, Tag::Comment(text) if text == comment))
}

/// Removes the elements of containers that are dead.
pub(super) fn remove_dead(client: &mut Client, dead: &[Tag]) -> Result<(), Error> {
    remove(client, |comment| is_among(dead, comment)).map(drop)
}

/// Removes an attachment's elements. Tells what was published.
pub(super) fn tear_down(client: &mut Client, owner: &Owner) -> Result<Vec<Held>, Error> {
    remove(client, |comment| owner.has(comment))
}

/// Removes the elements of the attachments to `network` that are not among `valid`.
pub(super) fn collect_garbage(
    client: &mut Client,
    network: &str,
    valid: &[Attachment],
) -> Result<(), Error> {
    let stale = Stale::new(network, valid);
    remove(client, |comment| stale.has(comment)).map(drop)
}

fn remove(client: &mut Client, is_gone: impl Fn(Option<&str>) -> bool) -> Result<Vec<Held>, Error> {
    let mut removed = Vec::new();
    attempt(|| {
        let contents = Contents::read(client)?;
        removed = contents.held_of(&is_gone);
        let gone = contents.elements_of(&is_gone);
        if gone.is_empty() {
            return Ok(());
        }
        let emptied = contents.emptied(&is_gone);
        let mut changes: Vec<Change<'_>> =
            gone.iter().map(|(set, it)| Change::DeleteElements(set, it)).collect();
        for (class, names) in &emptied {
            changes.extend(class.removed(names, &contents.rules));
        }
        client.change(TABLE, &changes)
    })?;
    Ok(removed)
}
