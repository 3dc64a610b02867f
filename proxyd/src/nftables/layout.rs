//! Which sets, maps and chains a table has.

use ruleset::iptables::Side;
use ruleset::nft::{Base, Chain, Family, Field, Hook, Key, Kind as BaseKind, Policy, Set, Table};

/// The tables' name, of either family.
pub const TABLE: &str = "podwire-proxy";

/// How many clients' choices of endpoints are remembered.
const MOST_REMEMBERED: u32 = 1 << 20;

/// From a place to a [`Kind`](super::Kind): what comes first.
pub(super) const SERVICES: &str = "services";
/// The same for those who are allowed to connect.
pub(super) const ALLOWED: &str = "allowed-services";
/// The same, where it depends on where a client is, for pods and the node itself.
pub(super) const NEAR: &str = "cluster-services";
/// And for others.
pub(super) const FAR: &str = "local-services";
/// From a place to the number of a pool.
pub(super) const POOLS: &str = "pools";
/// The same for the others.
pub(super) const LOCAL_POOLS: &str = "local-pools";
/// From the number of a pool, and a place in it, to an endpoint.
pub(super) const ENDPOINTS: &str = "endpoints";
/// From a [`Kind`](super::Kind) to its chain, for those that the maps lead to.
pub(super) const CHAINS: &str = "chains";
/// The same for [`ALLOWED`]: chains may lead to others, but not in a circle.
pub(super) const ALLOWED_CHAINS: &str = "allowed-chains";
/// And for [`NEAR`] and [`FAR`].
pub(super) const DIVIDED_CHAINS: &str = "divided-chains";
/// From a client's address and the number of a pool to where it was last.
pub(crate) const AFFINITY: &str = "affinity";
/// From the number of a pool that remembers clients to the chain that does it.
pub(super) const STICKY: &str = "sticky";
/// The endpoints of pools that remember clients, by the numbers of these: what leads elsewhere is forgotten.
pub(super) const STICKY_ENDPOINTS: &str = "sticky-endpoints";
/// The cluster's addresses of all services.
pub(super) const CLUSTER_IPS: &str = "cluster-ips";
/// Endpoints of the node, twice: who comes to where it is.
pub(super) const HAIRPIN: &str = "hairpin";

/// The table of a family.
#[must_use]
pub const fn table(is_ipv4: bool) -> Table<'static> {
    Table { family: if is_ipv4 { Family::Ip } else { Family::Ip6 }, name: TABLE }
}

/// All sets and maps of a family's table, empty.
#[must_use]
pub fn sets(is_ipv4: bool) -> Vec<Set> {
    let address = if is_ipv4 { Key::Ipv4 } else { Key::Ipv6 };
    let at = [address, Key::Protocol, Key::Port];
    let place = [address, Key::Port];
    vec![
        Set::new(SERVICES, at).to_values([Key::Priority]),
        Set::new(ALLOWED, at).to_values([Key::Priority]),
        Set::new(NEAR, at).to_values([Key::Priority]),
        Set::new(FAR, at).to_values([Key::Priority]),
        Set::new(POOLS, at).to_values([Key::Priority]).counted(),
        Set::new(LOCAL_POOLS, at).to_values([Key::Priority]).counted(),
        Set::new(ENDPOINTS, [Key::Priority, Key::Number]).to_values(place),
        Set::new(CHAINS, [Key::Priority]).to_verdicts(),
        Set::new(ALLOWED_CHAINS, [Key::Priority]).to_verdicts(),
        Set::new(DIVIDED_CHAINS, [Key::Priority]).to_verdicts(),
        Set::new(AFFINITY, [address, Key::Priority]).to_values(place).of_packets(MOST_REMEMBERED),
        Set::new(STICKY, [Key::Priority]).to_verdicts(),
        Set::new(STICKY_ENDPOINTS, [Key::Priority, address, Key::Port]),
        Set::new(CLUSTER_IPS, [address]),
        Set::new(HAIRPIN, [address, address]),
    ]
}

/// What a packet is for: what places are looked up by.
pub(super) fn destination(is_ipv4: bool) -> Vec<Field> {
    let address = Field::address(Side::Destination, is_ipv4);
    vec![address, Field::Protocol, Field::DestinationPort]
}

/// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC`.
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
/// Right after addresses were changed.
const AFTER_DESTINATION_NAT: i32 = DESTINATION_NAT + 1;
const FILTER: i32 = 0;
/// `NF_IP_PRI_RAW`: before connections are tracked, which has answers to 127.0.0.1 go to where they came from.
const RAW: i32 = -300;

/// The chains that the kernel calls, by their names.
pub(super) const PREROUTING: &str = "prerouting";
pub(super) const OUTPUT: &str = "output";
pub(super) const POSTROUTING: &str = "postrouting";
pub(super) const FORWARD: &str = "forward";
pub(super) const FILTER_OUTPUT: &str = "filter-output";
pub(crate) const GUARD_LOCALHOST: &str = "guard-localhost";
pub(super) const REMEMBER_FORWARDED: &str = "remember-forwarded";
pub(super) const REMEMBER_OWN: &str = "remember-own";

/// The chain of a name, with where the kernel calls it.
#[must_use]
pub fn chain(name: &str) -> Chain<'_> {
    let base = match name {
        PREROUTING => Some((BaseKind::Nat, Hook::Prerouting, DESTINATION_NAT)),
        OUTPUT => Some((BaseKind::Nat, Hook::Output, DESTINATION_NAT)),
        POSTROUTING => Some((BaseKind::Nat, Hook::Postrouting, SOURCE_NAT)),
        FORWARD => Some((BaseKind::Filter, Hook::Forward, FILTER)),
        FILTER_OUTPUT => Some((BaseKind::Filter, Hook::Output, FILTER)),
        GUARD_LOCALHOST => Some((BaseKind::Filter, Hook::Prerouting, RAW)),
        REMEMBER_FORWARDED => Some((BaseKind::Filter, Hook::Prerouting, AFTER_DESTINATION_NAT)),
        REMEMBER_OWN => Some((BaseKind::Filter, Hook::Output, AFTER_DESTINATION_NAT)),
        _ => None,
    };
    let base =
        base.map(|(kind, hook, priority)| Base { kind, hook, priority, policy: Policy::Accept });
    Chain { name, base, comment: None }
}
