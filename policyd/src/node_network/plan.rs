//! Which routes there shall be, and by which link the node is reached. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink::{Address, Hop, KeptRoute, Link, Route};

use super::constants::{LAST_METRIC, METRIC};
use super::{Defect, Error, Member, Members};

/// The smallest packets of IPv6 (RFC 8200).
const IPV6_LEAST_MTU: u32 = 1280;

/// What the kernel tells.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Links.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<Address>,
    /// Unicast routes of both families.
    pub routes: Vec<Route>,
    /// Those of them, and others, that are ours.
    pub kept: Vec<KeptRoute>,
}

impl Seen {
    /// The links that a default route leaves by, of those that `which` says it of.
    pub(super) fn default_links(
        &self,
        which: impl Fn(&Route) -> bool,
    ) -> impl Iterator<Item = &Link> {
        let is_default = move |it: &Route| it.dst.prefix() == 0 && which(it);
        let has_one = move |link: &&Link| {
            self.routes.iter().any(|it| it.link == link.index && is_default(it))
        };
        self.links.iter().filter(has_one)
    }
}

/// The routes that there shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The routes.
    pub routes: BTreeSet<KeptRoute>,
    /// Where there is none, and why.
    pub defects: Vec<Defect>,
}

/// What to do to have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// These first, so that there is no gap.
    pub add: Vec<KeptRoute>,
    /// Then these.
    pub delete: Vec<KeptRoute>,
}

/// The routes of `own`: to the pods of all others by their InternalIPs, and one that refuses what
/// no pod has in its own ranges.
///
/// Without the last, packets to a pod that has gone would leave by the default route, and come back
/// from a router that knows the range, until they are worn out; so the sender is told at once. Where
/// flannel or kube-router have their bridge, it tells the same after it has asked for the neighbour.
#[must_use]
pub fn plan(own: &Member, members: &Members, seen: &Seen) -> Plan {
    let mut plan = Plan::default();
    let mut claims = Claims::new(own, members, seen);
    let on_links = OnLinks::new(seen);
    for range in &own.pod_ranges {
        claims.ranges.insert(range.network(), (*range, own.name.clone()));
        let is_one = range.prefix() == if range.is_ipv4() { 32 } else { 128 };
        plan.routes.extend((!is_one).then(|| refusal(*range)));
    }
    for (member, range) in by_age(own, members) {
        match claims.take(member, range).and_then(|()| on_links.route(member, range)) {
            Ok(route) => {
                plan.defects.extend(overruled(member, &route, seen));
                plan.routes.insert(route);
            }
            Err(defect) => plan.defects.push(defect),
        }
    }
    plan
}

/// All ranges of others, those of the oldest first: who comes later takes none away.
fn by_age<'a>(own: &Member, members: &'a Members) -> Vec<(&'a Member, IpNetwork)> {
    let is_own = |it: &Member| {
        it.name == own.name || it.addresses.iter().any(|address| own.addresses.contains(address))
    };
    let mut others: Vec<&Member> = members.values().filter(|it| !is_own(it)).collect();
    others.sort_by_key(|it| (it.created, &it.name));
    let ranges = |it: &'a Member| it.pod_ranges.iter().map(move |range| (it, *range));
    others.into_iter().flat_map(ranges).collect()
}

fn refusal(dst: IpNetwork) -> KeptRoute {
    KeptRoute { dst, table: Route::MAIN_TABLE, priority: LAST_METRIC, to: Hop::Unreachable }
}

/// A foreign route that the kernel takes in the place of ours, and that leads elsewhere.
fn overruled(member: &Member, ours: &KeptRoute, seen: &Seen) -> Option<Defect> {
    let Hop::Gateway { gateway, link } = ours.to else { return None };
    let foreign = seen.routes.iter().find(|it| {
        it.table == Route::MAIN_TABLE
            && it.destination() == (ours.dst.ip(), ours.dst.prefix())
            && it.priority < METRIC
            && (it.gateway, it.link) != (Some(gateway), link)
    })?;
    let (node, metric) = (member.name.clone(), foreign.priority);
    Some(Defect::Overruled { node, range: ours.dst, metric })
}

/// Which addresses are whose. A range that holds others' is refused: it would lead their packets
/// away, and a node can say what it likes of itself.
struct Claims {
    /// By their first addresses; none shares any with another.
    ranges: BTreeMap<IpAddr, (IpNetwork, String)>,
    /// Those of nodes, and the routers that this one needs.
    addresses: BTreeMap<IpAddr, String>,
}

impl Claims {
    fn new(own: &Member, members: &Members, seen: &Seen) -> Self {
        let is_of_pods = |it: &IpAddr| own.pod_ranges.iter().any(|range| range.contains(*it));
        let local = seen.addresses.iter().map(|it| it.cidr.ip()).filter(|it| !is_of_pods(it));
        let local = local.map(|it| (it, "an address of this node".to_owned()));
        let routers = seen.routes.iter().filter(|it| it.dst.prefix() == 0);
        let routers = routers.filter_map(|it| Some((it.gateway?, "this node's router".to_owned())));
        let nodes = members.values().flat_map(|it| {
            let whose = format!("an address of node {}", it.name);
            it.addresses.iter().map(move |address| (*address, whose.clone()))
        });
        Self { ranges: BTreeMap::new(), addresses: local.chain(routers).chain(nodes).collect() }
    }

    fn take(&mut self, member: &Member, range: IpNetwork) -> Result<(), Defect> {
        let overlap =
            |with, whose| Err(Defect::Overlap { node: member.name.clone(), range, with, whose });
        if range.prefix() == 0 {
            return overlap(range, "everything".to_owned());
        }
        let (first, last) = (range.network(), range.broadcast());
        if let Some((address, whose)) = self.addresses.range(first..=last).next() {
            return overlap(IpNetwork::from(*address), whose.clone());
        }
        // None shares addresses with another, so that only these two can with a new one.
        let before = self.ranges.range(..=first).next_back();
        let after = self.ranges.range(first..=last).next();
        let found = before.into_iter().chain(after).find(|(_, it)| overlaps(it.0, range));
        if let Some((_, (with, name))) = found {
            return overlap(*with, format!("of the pods of node {name}"));
        }
        self.ranges.insert(first, (range, member.name.clone()));
        Ok(())
    }
}

fn overlaps(one: IpNetwork, other: IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

/// Which addresses are on a link, by the routes of the main table: the longest prefix decides, then
/// the metric.
struct OnLinks {
    /// By family and prefix, longest last; and by network.
    routes: BTreeMap<(bool, u8), HashMap<IpAddr, Route>>,
}

impl OnLinks {
    fn new(seen: &Seen) -> Self {
        let ours: BTreeSet<_> = seen.kept.iter().map(|it| (it.dst, it.priority)).collect();
        let mut routes = BTreeMap::<_, HashMap<_, Route>>::new();
        for route in seen.routes.iter().filter(|it| it.table == Route::MAIN_TABLE) {
            let (network, prefix) = route.destination();
            let is_ours = IpNetwork::new(network, prefix)
                .is_ok_and(|dst| ours.contains(&(dst, route.priority)));
            if is_ours {
                continue;
            }
            let of_prefix = routes.entry((network.is_ipv4(), prefix)).or_default();
            let held = of_prefix.entry(network).or_insert_with(|| route.clone());
            if route.priority < held.priority {
                *held = route.clone();
            }
        }
        Self { routes }
    }

    /// The link that an address is on.
    fn of(&self, address: IpAddr) -> Option<u32> {
        let is_ipv4 = address.is_ipv4();
        let candidates = self.routes.range((is_ipv4, 0)..=(is_ipv4, u8::MAX)).rev();
        let route = candidates.filter_map(|((_, prefix), of_prefix)| {
            of_prefix.get(&IpNetwork::new(address, *prefix).ok()?.network())
        });
        route.take(1).find(|route| route.gateway.is_none()).map(|route| route.link)
    }

    fn route(&self, member: &Member, range: IpNetwork) -> Result<KeptRoute, Defect> {
        let node = || member.name.clone();
        let Some(gateway) = member.address(range.is_ipv4()) else {
            return Err(Defect::NoAddress { node: node(), range });
        };
        let Some(link) = self.of(gateway) else {
            return Err(Defect::NotOnLink { node: node(), range, address: gateway });
        };
        let to = Hop::Gateway { gateway, link };
        Ok(KeptRoute { dst: range, table: Route::MAIN_TABLE, priority: METRIC, to })
    }
}

/// What to do to have the wanted ones of the routes that are ours.
#[must_use]
pub fn changes(wanted: &BTreeSet<KeptRoute>, held: &[KeptRoute]) -> Changes {
    let there: BTreeSet<_> = held.iter().collect();
    let missing = wanted.iter().filter(|it| !there.contains(it));
    let stale = held.iter().filter(|it| !wanted.contains(it));
    Changes { add: missing.cloned().collect(), delete: stale.cloned().collect() }
}

/// The links that the node's own addresses are on; where one is on a loopback, as with nodes that
/// announce it by a routing protocol, those that its family's default routes leave by.
///
/// # Errors
/// The node has none, or one of them is on none.
pub fn uplinks<'a>(own: &Member, seen: &'a Seen) -> Result<Vec<&'a Link>, Error> {
    let mut uplinks = Vec::new();
    for address in [true, false].into_iter().filter_map(|is_ipv4| own.address(is_ipv4)) {
        let held = seen.addresses.iter().find(|it| it.cidr.ip() == address);
        let link = held.and_then(|it| seen.links.iter().find(|link| link.index == it.link));
        let before = uplinks.len();
        match link {
            Some(link) if link.is_loopback => {
                let is_of_family = |it: &Route| it.dst.is_ipv4() == address.is_ipv4();
                uplinks.extend(seen.default_links(is_of_family));
            }
            link => uplinks.extend(link),
        }
        if uplinks.len() == before {
            return Err(Error::NoUplink(address));
        }
    }
    if uplinks.is_empty() { Err(Error::NoAddress(own.name.clone())) } else { Ok(uplinks) }
}

/// The MTU of pods: the smallest of the node's uplinks.
///
/// # Errors
/// It is too small for a range of IPv6.
pub fn mtu(own: &Member, uplinks: &[&Link]) -> Result<Option<u32>, Error> {
    let Some(smallest) = uplinks.iter().min_by_key(|link| link.mtu) else { return Ok(None) };
    let (mtu, link) = (smallest.mtu, smallest.name.clone());
    match own.pod_ranges.iter().find(|range| range.is_ipv6()) {
        Some(range) if mtu < IPV6_LEAST_MTU => Err(Error::SmallMtu { link, mtu, range: *range }),
        _ => Ok(Some(mtu)),
    }
}

#[cfg(test)]
mod tests;
