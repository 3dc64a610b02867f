//! What the sets and maps of a family's table hold of a service.

mod numbers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use ruleset::iptables::PortRange;
use ruleset::nft::{Element, Encoded, Set, Value, Verdict};

use super::kind::{Hidden, Kind, Pick};
use super::layout::{
    ALLOWED, ALLOWED_CHAINS, CHAINS, CLUSTER_IPS, DIVIDED_CHAINS, ENDPOINTS, FAR, HAIRPIN,
    LOCAL_POOLS, NEAR, POOLS, SERVICES, STICKY, STICKY_ENDPOINTS,
};
use super::rules::{Local, REMEMBER, Scheduler, Settings};
use crate::model::Protocol;
use crate::plan::{At, Frontend, Masquerade, Plan, PoolId, Scope, Way};
use crate::sorted;

pub use numbers::{Exhausted, Numbers};

/// The number of a pool as the kernel has it: told from other priorities of packets by its high bits, and from
/// [`Kind`]s.
const POOL_TAG: u32 = 0x7200_0000;
const POOL_TAG_BITS: u32 = 0xff00_0000;

/// A map from places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// What comes first, a [`Kind`].
    Services,
    /// What comes next for those who may connect, a [`Kind`].
    Allowed,
    /// What comes next for pods and the node, where it depends on that, a [`Kind`].
    Near,
    /// What comes next for others then, a [`Kind`].
    Far,
    /// The number of a pool.
    Pools,
    /// The number of a pool, for those others.
    LocalPools,
}

/// A map from [`Kind`]s to chains. The chains of one lead to those of the next: in a circle they may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For what comes first.
    First,
    /// For those who may connect.
    Allowed,
    /// Where it depends on where they are.
    Divided,
}

/// What is one of its kind in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Who may connect: the chain of this pool.
    Allow(u32),
    /// A place in a pool.
    Slot(u32, u32),
    /// That a pool remembers clients.
    Sticky(u32),
    /// An endpoint of a pool that remembers clients.
    StickyEndpoint(u32, IpAddr, u16),
    /// An address of a service.
    ClusterIp(IpAddr),
    /// An endpoint of the node.
    Hairpin(IpAddr),
    /// What a map has for a place.
    Place(Map, At),
}

/// What there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nothing more is to be said.
    There,
    /// The number that a map leads to.
    Number(u32),
    /// The endpoint.
    Endpoint(SocketAddr),
    /// How many seconds.
    Seconds(u32),
    /// Those who may.
    Sources(Vec<IpNetwork>),
}

/// All that a table has of a service.
pub type Content = sorted::Map<Key, Held>;

/// What a service's plan is in a table.
#[derive(Debug)]
pub struct Render<'a> {
    /// What it depends on besides.
    pub settings: &'a Settings,
    /// The family.
    pub is_ipv4: bool,
    /// The numbers of the service's pools. What has none is left out.
    pub numbers: &'a sorted::Map<PoolId, u32>,
}

impl Render<'_> {
    /// What is to be there; `slots` are the endpoints of a pool as they are placed by now.
    #[must_use]
    pub fn content(&self, plan: &Plan, slots: impl Fn(u32) -> Vec<SocketAddr>) -> Content {
        let mut content = BTreeMap::new();
        for (id, endpoints) in plan.pools.iter().filter(|(id, _)| id.is_ipv4 == self.is_ipv4) {
            let Some(number) = self.numbers.get(id).copied() else { continue };
            let placed = match self.settings.scheduler {
                Scheduler::Random => arranged(slots(number), endpoints),
                // In the same order on all nodes.
                Scheduler::SourceHash => endpoints.iter().copied().collect(),
            };
            for (slot, endpoint) in (0..).zip(placed) {
                content.insert(Key::Slot(number, slot), Held::Endpoint(endpoint));
            }
            if let Some(seconds) = plan.affinity {
                content.insert(Key::Sticky(number), Held::Seconds(seconds));
                let key = |it: &SocketAddr| Key::StickyEndpoint(number, it.ip(), it.port());
                content.extend(endpoints.iter().map(|it| (key(it), Held::There)));
            }
        }
        let of_family = |it: &&IpAddr| it.is_ipv4() == self.is_ipv4;
        let there = |it: Key| (it, Held::There);
        content
            .extend(plan.cluster_ips.iter().filter(of_family).map(|it| there(Key::ClusterIp(*it))));
        content.extend(
            plan.local_addresses.iter().filter(of_family).map(|it| there(Key::Hairpin(*it))),
        );
        let frontends =
            plan.frontends.iter().filter(|(at, _)| at.address.is_ipv4() == self.is_ipv4);
        for (at, frontend) in frontends {
            self.add(&mut content, plan, at, frontend);
        }
        content.into()
    }

    fn add(&self, content: &mut BTreeMap<Key, Held>, plan: &Plan, at: &At, frontend: &Frontend) {
        let number = |scope| {
            let id = PoolId::of(at, frontend, scope);
            // One that has gone keeps its number until that is in the kernel.
            self.numbers.get(&id).copied().filter(|_| plan.pools.contains_key(&id))
        };
        let pick = |scope, is_local, hidden| {
            let pool = plan.pools.get(&PoolId::of(at, frontend, scope));
            let count = pool.and_then(|it| u32::try_from(it.len()).ok()).unwrap_or_default();
            let is_sticky = plan.affinity.is_some();
            Kind::Pick(Pick { count, is_local, is_sticky, hidden })
        };
        let mut set = |map, number| _ = content.insert(Key::Place(map, *at), Held::Number(number));
        let first = match frontend.way {
            Way::Reject => Kind::Reject,
            Way::Drop => Kind::Drop,
            Way::Pool { scope, masquerade } => {
                let Some(pool) = number(scope) else { return };
                set(Map::Pools, POOL_TAG | pool);
                pick(scope, false, self.hidden(masquerade))
            }
            Way::Divided { has_cluster, has_local } => {
                if let Some(pool) = number(Scope::Cluster).filter(|_| has_cluster) {
                    set(Map::Pools, POOL_TAG | pool);
                    set(Map::Near, pick(Scope::Cluster, false, Hidden::Nobody).number());
                }
                if let Some(pool) = number(Scope::Local).filter(|_| has_local) {
                    set(Map::LocalPools, POOL_TAG | pool);
                    set(Map::Far, pick(Scope::Local, true, Hidden::Nobody).number());
                }
                Kind::Divided
            }
        };
        // Where nobody is, there is nothing to be allowed.
        let pool = number(Scope::Cluster).or_else(|| number(Scope::Local));
        match (&frontend.sources, pool) {
            (Some(sources), Some(pool)) => {
                set(Map::Allowed, first.number());
                set(Map::Services, Kind::Allow(pool).number());
                content.insert(Key::Allow(pool), Held::Sources(sources.clone()));
            }
            _ => set(Map::Services, first.number()),
        }
    }

    fn hidden(&self, masquerade: Masquerade) -> Hidden {
        match masquerade {
            Masquerade::Always => Hidden::Everybody,
            Masquerade::FromOutside if self.settings.masquerades_all => Hidden::Everybody,
            Masquerade::FromOutside if self.settings.local == Local::Unknown => Hidden::Nobody,
            Masquerade::FromOutside => Hidden::Outside,
        }
    }
}

/// These endpoints, with as few in other places than now as can be, and none missing in between.
fn arranged(mut now: Vec<SocketAddr>, wanted: &sorted::Set<SocketAddr>) -> Vec<SocketAddr> {
    let mut place = 0;
    let mut seen = BTreeSet::new();
    while let Some(endpoint) = now.get(place) {
        if wanted.contains(endpoint) && seen.insert(*endpoint) {
            place += 1;
        } else {
            now.swap_remove(place);
        }
    }
    now.extend(wanted.iter().filter(|it| !seen.contains(it)));
    now
}

impl Map {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Services, Self::Allowed, Self::Near, Self::Far, Self::Pools, Self::LocalPools];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => SERVICES,
            Self::Allowed => ALLOWED,
            Self::Near => NEAR,
            Self::Far => FAR,
            Self::Pools => POOLS,
            Self::LocalPools => LOCAL_POOLS,
        }
    }

    /// Where it leads to [`Kind`]s, which map leads on.
    #[must_use]
    pub const fn level(self) -> Option<Level> {
        match self {
            Self::Services => Some(Level::First),
            Self::Allowed => Some(Level::Allowed),
            Self::Near | Self::Far => Some(Level::Divided),
            Self::Pools | Self::LocalPools => None,
        }
    }
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::First, Self::Allowed, Self::Divided];

    /// The map's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => CHAINS,
            Self::Allowed => ALLOWED_CHAINS,
            Self::Divided => DIVIDED_CHAINS,
        }
    }
}

impl Key {
    /// The set or map that it is in; `None`: it is a chain.
    #[must_use]
    pub const fn set(&self) -> Option<&'static str> {
        Some(match self {
            Self::Allow(_) => return None,
            Self::Slot(..) => ENDPOINTS,
            Self::Sticky(_) => STICKY,
            Self::StickyEndpoint(..) => STICKY_ENDPOINTS,
            Self::ClusterIp(_) => CLUSTER_IPS,
            Self::Hairpin(_) => HAIRPIN,
            Self::Place(map, _) => map.name(),
        })
    }
}

/// The element that this is.
#[must_use]
pub fn element(key: &Key, held: &Held) -> Element {
    let element = Element::new(match *key {
        Key::Allow(pool) => vec![Value::Priority(pool)],
        Key::Slot(pool, slot) => vec![Value::Priority(POOL_TAG | pool), Value::Number(slot)],
        Key::Sticky(pool) => vec![Value::Priority(POOL_TAG | pool)],
        Key::StickyEndpoint(pool, address, number) => {
            vec![Value::Priority(POOL_TAG | pool), Value::Address(address), port(number)]
        }
        Key::ClusterIp(address) => vec![Value::Address(address)],
        Key::Hairpin(address) => vec![Value::Address(address), Value::Address(address)],
        Key::Place(_, at) => {
            vec![Value::Address(at.address), Value::Protocol(at.protocol.number()), port(at.port)]
        }
    });
    match held {
        Held::There | Held::Sources(_) => element,
        Held::Number(number) => element.leading_to_values([Value::Priority(*number)]),
        Held::Endpoint(it) => element.leading_to_values([Value::Address(it.ip()), port(it.port())]),
        Held::Seconds(seconds) => element.leading_to(Verdict::Goto(format!("{REMEMBER}{seconds}"))),
    }
}

fn port(port: u16) -> Value {
    Value::Ports(PortRange { first: port, last: port })
}

/// What the elements of a set are; those that are none of ours are left out.
#[must_use]
pub fn read(set: &Set, elements: &BTreeSet<Encoded>) -> HashMap<Key, Held> {
    set.decode(elements).into_iter().filter_map(|it| entry(&set.name, &it)).collect()
}

/// What one element of a set is; `None`: none of ours.
#[must_use]
pub fn read_single(set: &Set, element: &Encoded) -> Option<(Key, Held)> {
    entry(&set.name, &set.decode_single(element)?)
}

fn entry(set: &str, element: &Element) -> Option<(Key, Held)> {
    let there = |key| Some((key, Held::There));
    match (set, element.key.as_slice(), element.data.as_slice(), &element.verdict) {
        (ENDPOINTS, [Value::Priority(pool), Value::Number(slot)], data, None) => {
            let [Value::Address(address), Value::Ports(port)] = data else { return None };
            let endpoint = SocketAddr::new(*address, port.first);
            Some((Key::Slot(untagged(*pool)?, *slot), Held::Endpoint(endpoint)))
        }
        (STICKY, [Value::Priority(pool)], [], Some(Verdict::Goto(chain))) => {
            let seconds = chain.strip_prefix(REMEMBER)?.parse().ok()?;
            Some((Key::Sticky(untagged(*pool)?), Held::Seconds(seconds)))
        }
        (
            STICKY_ENDPOINTS,
            [Value::Priority(pool), Value::Address(address), Value::Ports(port)],
            [],
            None,
        ) => there(Key::StickyEndpoint(untagged(*pool)?, *address, port.first)),
        (CLUSTER_IPS, [Value::Address(address)], [], None) => there(Key::ClusterIp(*address)),
        (HAIRPIN, [Value::Address(address), Value::Address(same)], [], None) if address == same => {
            there(Key::Hairpin(*address))
        }
        (
            _,
            [Value::Address(address), Value::Protocol(protocol), Value::Ports(port)],
            data,
            None,
        ) => {
            let [Value::Priority(number)] = data else { return None };
            let map = Map::ALL.into_iter().find(|it| it.name() == set)?;
            let protocol = Protocol::of_number(*protocol)?;
            let at = At { address: *address, protocol, port: port.first };
            Some((Key::Place(map, at), Held::Number(*number)))
        }
        _ => None,
    }
}

/// The number of a pool, of a packet's priority.
#[must_use]
pub fn untagged(priority: u32) -> Option<u32> {
    (priority & POOL_TAG_BITS == POOL_TAG).then_some(priority & !POOL_TAG_BITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sockets(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|it| SocketAddr::from(([10, 0, 0, 1], *it))).collect()
    }

    proptest! {
        #[test]
        fn endpoints_stay_in_their_places(
            now in prop::collection::vec(0_u16..20, 0..20),
            wanted in prop::collection::btree_set(0_u16..20, 0..20),
        ) {
            let now = sockets(&now);
            let wanted: sorted::Set<_> = sockets(&wanted.into_iter().collect::<Vec<_>>()).into_iter().collect();
            let arranged = arranged(now.clone(), &wanted);
            prop_assert_eq!(arranged.iter().copied().collect::<sorted::Set<_>>(), wanted.clone());
            prop_assert_eq!(arranged.len(), wanted.len());
            // None moves that need not.
            let distinct: BTreeSet<_> = now.iter().collect();
            if distinct.len() == now.len() {
                let moved = arranged.iter().zip(&now).filter(|(a, b)| a != b && wanted.contains(b));
                let gone = now.iter().filter(|it| !wanted.contains(it)).count();
                prop_assert!(moved.count() <= gone);
            }
        }
    }

    #[test]
    fn elements_are_read_as_they_were_written() {
        let at = At { address: "10.96.0.1".parse().unwrap(), protocol: Protocol::Udp, port: 53 };
        let contents = [
            (Key::Slot(7, 258), Held::Endpoint("10.0.0.1:53".parse().unwrap())),
            (Key::Sticky(7), Held::Seconds(10_800)),
            (Key::StickyEndpoint(7, "10.0.0.1".parse().unwrap(), 53), Held::There),
            (Key::ClusterIp(at.address), Held::There),
            (Key::Hairpin("10.0.0.1".parse().unwrap()), Held::There),
        ];
        let numbers = Map::ALL.map(|map| (Key::Place(map, at), Held::Number(0x7000_0001)));
        for (key, held) in contents.into_iter().chain(numbers) {
            let sets = super::super::layout::sets(true);
            let set = sets.iter().find(|it| Some(it.name.as_str()) == key.set()).unwrap();
            let encoded = set.encode(&element(&key, &held)).into_iter().collect();
            assert_eq!(read(set, &encoded), [(key, held)].into());
        }
    }
}
