//! What the table holds, as far as it has to be known.

use std::collections::{BTreeMap, BTreeSet};

use netlink::nftables::{Change, Client, HeldRule};
use ruleset::nft::{Element, Encoded, Set};

use super::class::{Class, TABLE};
use super::elements::{self, Part};
use super::index::{self, Entry, Index};
use crate::owner::Owner;
use crate::portmap::mapping::{Held, Holder, Key, Mapping, Tag};
use crate::portmap::owner::holder;

/// What the table holds; sets in it that are not ours are left out.
#[derive(Debug, Default)]
pub(in crate::portmap) struct Contents {
    /// Its rules by their chains, if they were read.
    pub(super) rules: BTreeMap<String, Vec<HeldRule>>,
    /// Its sets, each with those of its elements that were read, in the order of their keys.
    sets: Vec<(Part, Set, BTreeSet<Encoded>)>,
    /// Whether it has the maps that count. A table of the layout before has not.
    pub(super) has_index: bool,
    /// The counts that were looked up; `None` when all elements were read, which can be counted.
    looked_up: Option<Index>,
}

impl Contents {
    /// Reads the table for an attachment that wants ports, of which each key is for IPv4 or not: without any element, if
    /// none of those is published and the attachment has nothing yet.
    pub(in crate::portmap) fn for_add(
        client: &mut Client,
        owner: &Owner,
        keys: &[(bool, Key)],
    ) -> Result<Self, netlink::Error> {
        let it = Self::without_elements(client)?;
        let counts = it.counts_if_free(client, owner, keys)?;
        let it = match counts {
            Some(_) => Self { looked_up: counts, ..it },
            None => it.with_elements(client)?,
        };
        it.with_rules(client)
    }

    /// Reads of the table, without its rules, what an attachment has, if all of it is for these mappings and in this
    /// class; else all.
    pub(super) fn of_attachment(
        client: &mut Client,
        owner: &Owner,
        class: &Class,
        mappings: &[Mapping],
    ) -> Result<Self, netlink::Error> {
        let mut it = Self::without_elements(client)?;
        match it.take_own(client, owner, class, mappings)? {
            Some(counts) => Ok(Self { looked_up: Some(counts), ..it }),
            None => it.with_elements(client),
        }
    }

    /// Reads the table without its rules.
    pub(super) fn all(client: &mut Client) -> Result<Self, netlink::Error> {
        Self::without_elements(client)?.with_elements(client)
    }

    /// Reads the rules too.
    pub(super) fn with_rules(self, client: &mut Client) -> Result<Self, netlink::Error> {
        Ok(Self { rules: client.all_rules(TABLE)?, ..self })
    }

    fn without_elements(client: &mut Client) -> Result<Self, netlink::Error> {
        let held = client.sets(TABLE)?;
        let is_held = |set: &Set| held.iter().any(|it| it.name == set.name && it.is_like(set));
        let sets = held.iter().filter_map(|it| {
            let (part, suffix) = Part::named(&it.name)?;
            Some((part, part.set(suffix), BTreeSet::new()))
        });
        Ok(Self {
            rules: BTreeMap::new(),
            sets: sets.filter(|(_, set, _)| is_held(set)).collect(),
            has_index: index::sets().iter().all(is_held),
            looked_up: None,
        })
    }

    fn with_elements(mut self, client: &mut Client) -> Result<Self, netlink::Error> {
        for (_, set, elements) in &mut self.sets {
            *elements = client.elements(TABLE, &set.name)?.into_iter().collect();
        }
        Ok(self)
    }

    /// The counts that will change, if the ports are free and the attachment has nothing.
    fn counts_if_free(
        &self,
        client: &mut Client,
        owner: &Owner,
        keys: &[(bool, Key)],
    ) -> Result<Option<Index>, netlink::Error> {
        let mut counts = Index::default();
        let Some(own) = Entry::of_comment(&owner.comment).filter(|_| self.has_index) else {
            return Ok(None);
        };
        if counts.look_up(client, own)? > 0 {
            return Ok(None);
        }
        for (is_ipv4, key) in keys {
            let bound = counts.look_up(client, Entry::of_port(key))?;
            if key.address.is_none() && bound > 0 {
                return Ok(None);
            }
            for key in BTreeSet::from([*key, Key { address: None, ..*key }]) {
                let (part, element) = elements::place(&key, *is_ipv4);
                for (_, set, _) in self.sets.iter().filter(|it| it.0 == part) {
                    if find(client, set, &element)?.is_some() {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(counts))
    }

    /// Looks for the attachment's elements by its mappings. The counts that change with them, if those are all it has.
    fn take_own(
        &mut self,
        client: &mut Client,
        owner: &Owner,
        class: &Class,
        mappings: &[Mapping],
    ) -> Result<Option<Index>, netlink::Error> {
        let mut counts = Index::default();
        let Some(own) = Entry::of_comment(&owner.comment).filter(|_| self.has_index) else {
            return Ok(None);
        };
        let count = counts.look_up(client, own)?;
        let keys = [true, false].into_iter().flat_map(|is_ipv4| {
            mappings.iter().filter_map(move |it| Some((is_ipv4, it.key(is_ipv4)?)))
        });
        for (is_ipv4, key) in keys {
            let (part, element) = elements::place(&key, is_ipv4);
            let Some(found) = self.take(client, owner, class, part, &element)? else { continue };
            if key.address.is_some() {
                counts.look_up(client, Entry::of_port(&key))?;
            }
            let Some((_, to)) = elements::read(part, &part.set(&class.suffix), &found) else {
                continue;
            };
            for part in self.parts(class) {
                for element in elements::masqueraded_in(part, &key, to) {
                    self.take(client, owner, class, part, &element)?;
                }
            }
        }
        let taken: usize = self.sets.iter().map(|(.., elements)| elements.len()).sum();
        Ok((taken == usize::from(count)).then_some(counts))
    }

    /// Looks up an element of a class, and takes it in if it is the attachment's.
    fn take(
        &mut self,
        client: &mut Client,
        owner: &Owner,
        class: &Class,
        part: Part,
        element: &Element,
    ) -> Result<Option<Encoded>, netlink::Error> {
        let name = part.name(&class.suffix);
        let Some((_, set, taken)) = self.sets.iter_mut().find(|it| it.1.name == name) else {
            return Ok(None);
        };
        let found = find(client, set, element)?;
        let own = found.filter(|it| owner.has(it.comment.as_deref()));
        taken.extend(own.clone());
        Ok(own)
    }

    /// Whether it has this set, as it should be.
    pub(super) fn holds(&self, set: &Set) -> bool {
        self.sets.iter().any(|it| it.1.name == set.name)
            || self.has_index && index::NAMES.contains(&set.name.as_str())
    }

    /// The parts that it has of a class.
    pub(super) fn parts(&self, class: &Class) -> BTreeSet<Part> {
        let of_class =
            self.sets.iter().filter(|(part, set, _)| set.name == part.name(&class.suffix));
        of_class.map(|it| it.0).collect()
    }

    /// What is published, of what was read.
    pub(in crate::portmap) fn held(&self) -> Vec<Held> {
        self.held_of(|_, _| true)
    }

    /// What is published by those of whom `is_one` is true, by their family (IPv4 or not) and their comment.
    pub(super) fn held_of(&self, is_one: impl Fn(bool, Option<&str>) -> bool) -> Vec<Held> {
        let maps = self.sets.iter().filter(|(part, ..)| part.leads());
        let held = maps.flat_map(|(part, set, elements)| {
            let is_one = |it: &&Encoded| is_one(part.is_ipv4(), it.comment.as_deref());
            let chosen = elements.iter().filter(is_one);
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
    pub(super) fn elements_of(
        &self,
        is_one: impl Fn(bool, Option<&str>) -> bool,
    ) -> Vec<(Set, Vec<Encoded>)> {
        let chosen = self.sets.iter().map(|(part, set, elements)| {
            let is_one = |it: &&Encoded| is_one(part.is_ipv4(), it.comment.as_deref());
            let chosen = elements.iter().filter(is_one);
            (set.clone(), chosen.cloned().collect::<Vec<_>>())
        });
        chosen.filter(|(_, elements)| !elements.is_empty()).collect()
    }

    /// The classes but the usual one that have nothing left without what `is_gone`, with the names of their sets. Where not
    /// all elements were read, nobody knows of any.
    pub(super) fn emptied(
        &self,
        is_gone: impl Fn(bool, Option<&str>) -> bool,
    ) -> Vec<(Class, Vec<String>)> {
        if self.looked_up.is_some() {
            return Vec::new();
        }
        let mut classes: BTreeMap<&str, (bool, Vec<String>)> = BTreeMap::new();
        for (part, set, elements) in &self.sets {
            let Some((_, suffix)) = Part::named(&set.name) else { continue };
            let (is_used, names) = classes.entry(suffix).or_default();
            *is_used |= elements.iter().any(|it| !is_gone(part.is_ipv4(), it.comment.as_deref()));
            names.push(set.name.clone());
        }
        let unused = classes.into_iter().filter(|(_, (is_used, _))| !is_used);
        let classes = unused.map(|(suffix, (_, names))| (Class::named(suffix), names));
        classes.filter(|(class, _)| !class.is_usual()).collect()
    }

    /// How the counts change when some elements go and others come.
    pub(super) fn recount(
        &self,
        gone: &[(Set, Vec<Encoded>)],
        added: &[(Set, Vec<Encoded>)],
    ) -> Recount {
        let before = self.looked_up.clone().unwrap_or_else(|| {
            let mut all = Index::default();
            self.sets.iter().for_each(|(_, set, elements)| all.add(set, elements));
            all
        });
        let mut after = before.clone();
        gone.iter().for_each(|(set, elements)| after.remove(set, elements));
        added.iter().for_each(|(set, elements)| after.add(set, elements));
        if self.looked_up.is_some() {
            let (outdated, fresh) =
                (before.elements_beside(&after), after.elements_beside(&before));
            return Recount { is_anew: false, outdated, fresh };
        }
        let fresh = after.elements_beside(&Index::default());
        Recount { is_anew: self.has_index, outdated: BTreeMap::new(), fresh }
    }
}

/// What becomes of the maps that count.
#[derive(Debug)]
pub(super) struct Recount {
    /// Whether all that they have goes: whoever has read all puts right what may be wrong.
    is_anew: bool,
    outdated: BTreeMap<String, Vec<Encoded>>,
    fresh: BTreeMap<String, Vec<Encoded>>,
}

impl Recount {
    /// The changes of the maps.
    pub(super) fn changes(&self) -> Vec<Change<'_>> {
        let emptied = index::NAMES.iter().filter(|_| self.is_anew);
        let mut changes: Vec<Change<'_>> = emptied.map(|name| Change::EmptySet(name)).collect();
        changes.extend(self.outdated.iter().map(|(set, it)| Change::DeleteElements(set, it)));
        changes.extend(self.fresh.iter().map(|(set, it)| Change::Elements(set, it)));
        changes
    }
}

/// What a set has for an element's key.
fn find(
    client: &mut Client,
    set: &Set,
    element: &Element,
) -> Result<Option<Encoded>, netlink::Error> {
    let Some(key) = set.encode(element).pop() else { return Ok(None) };
    client.element(TABLE, &set.name, &key)
}
