//! ADD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni::{AddResult, Call};
use ipnetwork::IpNetwork;
use netlink::{Route, Socket};
use runner::{Lock, OsRunner};

use super::alive::Newcomer;
use super::conf::{self, Conf};
use super::flows::{self, Ended};
use super::iptables::{self, OfSiblings, Programs, Rules, Seen};
use super::mapping::{Dead, Held, Key, Tag};
use super::nftables::{self, Contents, Wanted};
use super::owner::Siblings;
use super::{SIGNS, WHAT, alive, del, identity_of, reference_nftables};
use crate::backend::Backend;
use crate::error::{Error, warn};
use crate::iptables::{FAMILIES, InKernel, NAT, lock};
use crate::kernel_tables::KernelTables;
use crate::nf_tables::missing;
use crate::owner::Owner;
use crate::rollback::Rollback;
use crate::sysctl;

/// Publishes the container's ports; the result is that of the plugins before.
pub(super) fn add(call: &Call) -> Result<AddResult, Error> {
    let conf = Conf::parse(call)?;
    let result = call.conf.prev_result()?.ok_or_else(|| {
        Error::Config("prevResult: missing; portmap must be called as chained plugin".into())
    })?;
    // A version that cannot express the result is an error before it is too late.
    result.to_json(call.conf.version)?;
    let addresses = conf::addresses(&result, &call.ifname);
    if conf.mappings.is_empty() || addresses == [None, None] {
        return Ok(result);
    }
    let mut rollback = Rollback::default();
    let ended = publish(call, &conf, &addresses, &mut rollback)?;
    if let (true, Some(address)) = (conf.snat, addresses.iter().flatten().find(|it| it.is_ipv4())) {
        route_loopback(address.ip())?;
    }
    ended.cut();
    flows::cut_stale(&conf.mappings, &conf::bare(&addresses));
    rollback.commit();
    Ok(result)
}

/// A port that is wanted for one of the container's addresses.
struct Want {
    /// The place of its mapping in the configuration.
    index: usize,
    key: Key,
    to: IpAddr,
}

/// One after the other, so that of two that want one port one is refused. Tells what was taken from others.
fn publish<'a>(
    call: &'a Call,
    conf: &'a Conf,
    addresses: &[Option<IpNetwork>; 2],
    rollback: &mut Rollback<'a>,
) -> Result<Ended, Error> {
    let mut kernel = KernelTables::default();
    let lock = lock::take()?;
    let mut runner = OsRunner;
    let backend = Backend::chosen(conf.backend, &mut kernel, SIGNS);
    let mut publisher =
        Publisher { call, conf, addresses, backend, kernel: &mut kernel, lock: lock.as_ref() };
    let wants = wants(conf, addresses);
    let seen = publisher.seen(&mut runner)?;
    let keys: Vec<(bool, Key)> = wants.iter().map(|it| (it.to.is_ipv4(), it.key)).collect();
    let mut table = Contents::default();
    let mut held: Vec<Held> = seen.iter().flat_map(Seen::held).collect();
    if let Some(client) = publisher.kernel.client()? {
        table = Contents::for_add(client, &Owner::of(call), &keys)?;
        held.extend(table.held());
        for address in addresses.iter().flatten() {
            held.extend(reference_nftables::held(client, address.is_ipv4())?);
        }
    }
    let mut others = publisher.refuse_conflicts(&wants, held)?;
    publisher.look_beyond(&mut runner, &mut others)?;
    rollback.push("remove the published ports", || del::tear_down(call, conf).1);
    let gone = publisher.set_up(&mut runner, seen, table, &others)?;
    others.taken.iter().for_each(|it| warn(it));
    // The flows of a family in which the container has no address any more.
    others.ended.addresses.extend(gone);
    Ok(others.ended)
}

fn wants(conf: &Conf, addresses: &[Option<IpNetwork>; 2]) -> Vec<Want> {
    let mappings = conf.mappings.iter().enumerate();
    let wants = mappings.flat_map(|(index, mapping)| {
        let addresses = addresses.iter().flatten().map(IpNetwork::ip);
        addresses.filter_map(move |to| Some(Want { index, key: mapping.key(to.is_ipv4())?, to }))
    });
    wants.collect()
}

/// Others who hold ports that are wanted.
#[derive(Debug, Default)]
struct Others {
    /// What goes: they are not there any more.
    dead: Dead,
    /// In words, what of that is wanted.
    taken: Vec<String>,
    /// What that was, and what else ends.
    ended: Ended,
    /// What the attachment has itself, of an earlier ADD.
    own: BTreeSet<Tag>,
    /// What other attachments of the container have published, which stays: it leads to the container.
    siblings: Vec<Held>,
}

/// What is held of what is wanted, each with what it is in the way of.
fn in_the_way<'a>(wants: &'a [Want], held: &'a [Held]) -> Vec<(&'a Want, &'a Held)> {
    let of_port = |is_ipv4: bool, key: &Key| (is_ipv4, key.protocol, key.port);
    let mut holders: BTreeMap<_, Vec<&Held>> = BTreeMap::new();
    for held in held {
        holders.entry(of_port(held.to.is_ipv4(), &held.key)).or_default().push(held);
    }
    let found = wants.iter().flat_map(|want| {
        let holders = holders.get(&of_port(want.to.is_ipv4(), &want.key));
        let overlapping = holders.into_iter().flatten().filter(|it| it.key.overlaps(&want.key));
        overlapping.map(move |held| (want, *held))
    });
    found.collect()
}

fn has_elements(tags: &BTreeSet<Tag>) -> bool {
    tags.iter().any(|tag| matches!(tag, Tag::Comment(_)))
}

struct Publisher<'a> {
    call: &'a Call,
    conf: &'a Conf,
    addresses: &'a [Option<IpNetwork>; 2],
    backend: Backend,
    kernel: &'a mut KernelTables,
    lock: Option<&'a Lock>,
}

impl<'a> Publisher<'a> {
    fn siblings(&self) -> Siblings<'a> {
        Siblings::of(self.call, conf::bare(self.addresses))
    }

    /// Who holds ports that are wanted; another container that is alive is an error.
    fn refuse_conflicts(&self, wants: &[Want], mut held: Vec<Held>) -> Result<Others, Error> {
        let (identity, owner) = (identity_of(self.call), Owner::of(self.call));
        let is_own = |tag: &Tag| match tag {
            Tag::Chain(chain) => *chain == identity.chain,
            Tag::Comment(comment) => owner.has(Some(comment)),
            Tag::Id(id) => *id == self.call.container_id,
        };
        let own: Vec<Held> = held.extract_if(.., |held| is_own(&held.tag)).collect();
        let in_the_way = in_the_way(wants, &held);
        let newcomer = Newcomer::new(self.call, self.addresses);
        // Of who is in the way all addresses are asked for: what leads to others than those stays.
        let tags: BTreeSet<&Tag> = in_the_way.iter().map(|it| &it.1.tag).collect();
        let concerned = || held.iter().filter(|it| tags.contains(&it.tag));
        let alive = alive::alive(concerned(), newcomer)?;
        let siblings = self.siblings();
        let mut others = Others::default();
        for (Want { index, key, .. }, held) in in_the_way {
            let Held { to, holder, .. } = held;
            if others.dead.has(held) {
                continue;
            }
            if !alive.has(held) {
                others.taken.push(format!(
                    "host port {key} is taken from {holder}, which is not at {to} any more"
                ));
                others.dead.insert(held);
            } else if siblings.hold(held) {
                others.siblings.push(held.clone());
            } else {
                return Err(Error::Config(format!(
                    "runtimeConfig.portMappings[{index}].hostPort: host port {key} is published for {holder} at {to} already"
                )));
            }
        }
        // What else they had goes, too, where they are not there either.
        for it in concerned().filter(|it| !alive.has(it)) {
            if others.dead.has_of(&it.tag) {
                others.dead.insert(it);
            }
        }
        let taken = held.iter().filter(|it| others.dead.has(it));
        others.ended.extend(taken.map(|it| (it.key, it.to)), &|_| false);
        // What an earlier ADD published and this one does not is published no more.
        let wanted: BTreeSet<(Key, IpAddr)> = wants.iter().map(|it| (it.key, it.to)).collect();
        let unwanted = own.iter().filter(|it| !wanted.contains(&(it.key, it.to)));
        others.ended.extend(unwanted.map(|it| (it.key, it.to)), &|to| siblings.have(to));
        others.own = own.into_iter().map(|it| it.tag).collect();
        Ok(others)
    }

    /// What the dead have in a family in which the container has no address: it goes, too, where they are not there either.
    fn look_beyond(&mut self, runner: &mut OsRunner, others: &mut Others) -> Result<(), Error> {
        let tags: BTreeSet<Tag> = others.dead.holders().map(|(tag, _)| tag.clone()).collect();
        if !tags.iter().any(|it| matches!(it, Tag::Chain(_) | Tag::Id(_))) {
            return Ok(());
        }
        let mut held = Vec::new();
        let mut programs = Programs { runner, lock: self.lock };
        for (family, address) in FAMILIES.into_iter().zip(self.addresses) {
            if address.is_some() {
                continue;
            }
            held.extend(programs.look_at_all(family, self.kernel)?.held());
            if let Some(client) = self.kernel.client()? {
                held.extend(reference_nftables::held(client, family.is_ipv4)?);
            }
        }
        held.retain(|it| tags.contains(&it.tag));
        let alive = alive::alive(held.iter(), Newcomer::new(self.call, self.addresses))?;
        let dead = held.iter().filter(|it| !alive.has(it));
        dead.clone().for_each(|it| others.dead.insert(it));
        others.ended.extend(dead.map(|it| (it.key, it.to)), &|_| false);
        Ok(())
    }

    /// What iptables has of each family in which the container has an address.
    fn seen(&mut self, runner: &mut OsRunner) -> Result<[Seen; 2], Error> {
        let mut programs = Programs { runner, lock: self.lock };
        let identity = identity_of(self.call);
        let ports = self.conf.mappings.iter().map(|it| it.host_port).collect();
        let mut both = [Seen::Free, Seen::Free];
        for ((family, address), seen) in FAMILIES.into_iter().zip(self.addresses).zip(&mut both) {
            if address.is_none() {
                continue;
            }
            *seen = programs.look(family, self.kernel, (self.backend, &identity), &ports)?;
        }
        Ok(both)
    }

    /// Tells where what an earlier ADD made led in a family in which the container has no address any more.
    fn set_up(
        &mut self,
        runner: &mut OsRunner,
        seen: [Seen; 2],
        table: Contents,
        Others { dead, siblings, own, .. }: &Others,
    ) -> Result<BTreeSet<IpAddr>, Error> {
        let gone = match self.backend {
            Backend::Iptables => {
                let gone = self.set_up_by_iptables(runner, seen, dead)?;
                if let Some(client) = self.kernel.client()?.filter(|_| has_elements(own)) {
                    nftables::remove_own(client, &Owner::of(self.call))?;
                }
                gone
            }
            Backend::Nftables => {
                let client = self.kernel.client()?;
                let client = client.ok_or_else(|| missing(&format!("{WHAT} by nftables")))?;
                let wanted = Wanted::new(self.conf, Owner::of(self.call), self.addresses, siblings);
                nftables::set_up(client, table, &wanted, dead)?;
                self.remove_own_chain(runner, own)?
            }
        };
        self.remove_own_of_reference(own)?;
        self.remove_dead(runner, dead)?;
        Ok(gone)
    }

    /// Removes what an earlier ADD by the reference has made by nf_tables. Its rules tell only the container: where those of another
    /// interface are among them, all stay.
    fn remove_own_of_reference(&mut self, own: &BTreeSet<Tag>) -> Result<(), Error> {
        let id = &self.call.container_id;
        let siblings = self.siblings();
        if own.contains(&Tag::Id(id.clone()))
            && let Some(client) = self.kernel.client()?
            && !reference_nftables::lead_to(client, id, |to| siblings.have(to))?
        {
            reference_nftables::tear_down(client, id, None)?;
        }
        Ok(())
    }

    /// Of addresses those of a family in which the container has none.
    fn of_other_families(&self, addresses: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
        let is_own = |is_ipv4| self.addresses.iter().flatten().any(|it| it.is_ipv4() == is_ipv4);
        addresses.into_iter().filter(|it| !is_own(it.is_ipv4())).collect()
    }

    /// Removes what an earlier ADD has made by iptables. Tells the same as [`Self::set_up`].
    fn remove_own_chain(
        &mut self,
        runner: &mut OsRunner,
        own: &BTreeSet<Tag>,
    ) -> Result<BTreeSet<IpAddr>, Error> {
        if !own.iter().any(|tag| matches!(tag, Tag::Chain(_))) {
            return Ok(BTreeSet::new());
        }
        let identity = identity_of(self.call);
        let mut programs = Programs { runner, lock: self.lock };
        let siblings = self.siblings();
        let of_siblings: OfSiblings<'_> = &|to| siblings.have(to);
        let (ended, removed) =
            iptables::tear_down(&mut programs, self.kernel, &identity, of_siblings);
        removed.map(|()| self.of_other_families(ended.all_addresses()))
    }

    /// Tells the same as [`Self::set_up`].
    fn set_up_by_iptables(
        &mut self,
        runner: &mut OsRunner,
        seen: [Seen; 2],
        dead: &Dead,
    ) -> Result<BTreeSet<IpAddr>, Error> {
        let mut gone = BTreeSet::new();
        let mut programs = Programs { runner, lock: self.lock };
        let siblings = self.siblings();
        let of_siblings: OfSiblings<'_> = &|to| siblings.have(to);
        for ((family, address), seen) in FAMILIES.into_iter().zip(self.addresses).zip(seen) {
            let Some(address) = address else {
                // An earlier ADD may have been for addresses of both families. What the kernel refuses here
                // DEL removes by the programs.
                let chain = &identity_of(self.call).chain;
                gone.extend(iptables::remove_by_kernel(self.kernel, family, chain, of_siblings));
                continue;
            };
            let rules = Rules::new(self.conf, identity_of(self.call), *address);
            let is_usual = dead.is_empty() && matches!(seen, Seen::Free);
            let add = |mut it: InKernel<'_>| it.add(&rules.addition());
            if !(is_usual && InKernel::find(self.kernel, family, NAT).is_some_and(add)) {
                programs.set_up(family, self.kernel, seen, &rules, dead, of_siblings)?;
            }
        }
        Ok(gone)
    }

    /// Removes what the dead have elsewhere than where the ports were taken from them.
    fn remove_dead(&mut self, runner: &mut OsRunner, dead: &Dead) -> Result<(), Error> {
        if dead.is_empty() {
            return Ok(());
        }
        for (tag, addresses) in dead.holders() {
            let is_kept: OfSiblings<'_> = &|to| !addresses.contains(&to);
            match (tag, self.kernel.client()?) {
                (Tag::Chain(chain), _) => {
                    let mut programs = Programs { runner: &mut *runner, lock: self.lock };
                    let chains = [(iptables::HOSTPORTS, chain.as_str())];
                    iptables::remove_chains(&mut programs, self.kernel, &chains, is_kept).1?;
                }
                (Tag::Id(id), Some(client)) => {
                    reference_nftables::tear_down(client, id, Some(is_kept))?;
                }
                (Tag::Id(_) | Tag::Comment(_), _) => {}
            }
        }
        self.kernel.client()?.map_or(Ok(()), |client| nftables::remove_dead(client, dead))
    }
}

/// Has the kernel route packets from its loopback's addresses to where the container is. What is behind a gateway, or
/// nowhere here, is not on a link of containers: there the parameter would let in who else is on it.
fn route_loopback(address: IpAddr) -> Result<(), Error> {
    let mut socket = Socket::open()?;
    let route = socket.matching_route(address)?;
    let is_here = |it: &Route| it.gateway.is_none() && it.dst.prefix() > 0;
    let Some(route) = route.filter(is_here) else { return Ok(()) };
    match socket.link_by_index(route.link)? {
        Some(link) => sysctl::ensure(&format!("net/ipv4/conf/{}/route_localnet", link.name), "1"),
        None => Ok(()),
    }
}
