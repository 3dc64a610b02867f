//! By what the node's network is told apart from what others make.

/// The rtnetlink protocol of our routes: `p`, which no program in iproute2's `rt_protos` and none of
/// the known routing daemons and CNI agents has. What has it is ours, and is removed when nobody
/// wants it; what has another is never touched.
pub const PROTOCOL: u8 = b'p';

/// The metric of routes to other nodes' pods. It is our own so that a foreign route to the same range
/// stays a route of its own: with an equal metric the kernel would make both of IPv6 one route with
/// two next hops.
pub const METRIC: u32 = 112;

/// The metric of the route that refuses what nobody has in the node's own ranges: any other route to
/// the range, such as that of a bridge, goes before it.
pub const LAST_METRIC: u32 = u32::MAX;

/// Our chain in table filter. policyd's others are in mangle.
pub const CHAIN: &str = "PODWIRE-ACCEPT";

/// The name of the network: host-local's leases are in a folder of that name.
pub const NETWORK: &str = "podwire";

/// The bridge, where pods are on one: not the names that others' bridges have (cni0, docker0), as
/// those keep their addresses when their owner has gone.
pub const BRIDGE: &str = "podwire0";
