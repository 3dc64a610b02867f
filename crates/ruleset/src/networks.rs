//! Networks that are not those of single hosts. The named ones are all made when this is compiled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// All groups of IPv4 (RFC 5771).
pub const MULTICAST_V4: IpNetwork =
    IpNetwork::V4(Ipv4Network::new_checked(Ipv4Addr::new(224, 0, 0, 0), 4).expect("a prefix"));
/// All groups of IPv6 (RFC 4291).
pub const MULTICAST_V6: IpNetwork = IpNetwork::V6(
    Ipv6Network::new_checked(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).expect("a prefix"),
);
/// No address yet (RFC 4291).
pub const UNSPECIFIED_V6: IpNetwork =
    IpNetwork::V6(Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 128).expect("a prefix"));
/// Everybody of a link (RFC 919).
pub const BROADCAST: IpNetwork =
    IpNetwork::V4(Ipv4Network::new_checked(Ipv4Addr::BROADCAST, 32).expect("a prefix"));
/// A host's own (RFC 1122).
pub const LOOPBACK_V4: IpNetwork =
    IpNetwork::V4(Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8).expect("a prefix"));
/// What no router forwards (RFC 3927).
pub const LINK_LOCAL_V4: IpNetwork =
    IpNetwork::V4(Ipv4Network::new_checked(Ipv4Addr::new(169, 254, 0, 0), 16).expect("a prefix"));
/// The same of IPv6 (RFC 4291).
pub const LINK_LOCAL_V6: IpNetwork = IpNetwork::V6(
    Ipv6Network::new_checked(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).expect("a prefix"),
);

/// The network of this prefix length that an address is in; `None`: there is no such length.
#[must_use]
pub fn around(address: IpAddr, prefix: u8) -> Option<IpNetwork> {
    let network = IpNetwork::new(address, prefix).ok()?;
    IpNetwork::new(network.network(), prefix).ok()
}
