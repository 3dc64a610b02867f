//! Address ranges and sets of them: pure, no I/O.
//!
//! A *range* is a piece of one subnet; a *range set* is a pool made of several ranges of one
//! family, and gives one address per attachment. The rules are those of the reference's host-local.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Why a range or a set of ranges cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RangeProblem {
    /// Fewer than two host bits.
    #[error("Network {0} too small to allocate from (at most /30, or /126 for IPv6)")]
    TooSmall(IpNetwork),
    /// The subnet is written with an address other than the network's own.
    #[error(
        "Network has host bits set. For a subnet mask of length {prefix} the network address is {network}"
    )]
    HostBits {
        /// Prefix length.
        prefix: u8,
        /// What should have been written.
        network: IpAddr,
    },
    /// The first address is outside of the subnet, or after the last.
    #[error("RangeStart {address} not in network {subnet}{}", after(.last))]
    StartOutside {
        /// The first address.
        address: IpAddr,
        /// The subnet.
        subnet: IpNetwork,
        /// The last address, when the first is after it.
        last: Option<IpAddr>,
    },
    /// The last address is outside of the subnet, or before the first.
    #[error("RangeEnd {address} not in network {subnet}{}", before(.first))]
    EndOutside {
        /// The last address.
        address: IpAddr,
        /// The subnet.
        subnet: IpNetwork,
        /// The first address, when the last is before it.
        first: Option<IpAddr>,
    },
    /// A set without ranges.
    #[error("empty range set")]
    Empty,
    /// IPv4 and IPv6 in one set.
    #[error("mixed address families (give each family a range set of its own)")]
    MixedFamilies,
    /// Two ranges of a set share addresses.
    #[error("subnets {0} and {1} overlap")]
    Overlap(String, String),
}

fn after(last: &Option<IpAddr>) -> String {
    last.map_or_else(String::new, |last| format!(" (it is after the range's last address {last})"))
}

fn before(first: &Option<IpAddr>) -> String {
    first.map_or_else(String::new, |first| {
        format!(" (it is before the range's first address {first})")
    })
}

/// An address as a number; IPv4 and IPv6 share the number space, so keep the family beside it.
#[must_use]
pub(crate) fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of `number`, of the family that `ipv4` tells.
#[must_use]
pub(crate) fn to_address(number: u128, ipv4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if ipv4 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

/// A piece of a subnet, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressRange {
    subnet: IpNetwork,
    first: IpAddr,
    last: IpAddr,
    gateway: IpAddr,
}

impl AddressRange {
    /// The range `first..=last` of `subnet`.
    ///
    /// Defaults: `first` and `gateway` are the network's address + 1; `last` is the address before
    /// the broadcast address (IPv4) or the subnet's last (IPv6).
    ///
    /// # Errors
    /// [`RangeProblem`], in the order in which the reference finds them.
    pub(crate) fn new(
        subnet: IpNetwork,
        first: Option<IpAddr>,
        last: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, RangeProblem> {
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > bits - 2 {
            return Err(RangeProblem::TooSmall(subnet));
        }
        let network = subnet.network();
        if subnet.ip() != network {
            return Err(RangeProblem::HostBits { prefix: subnet.prefix(), network });
        }
        let second = to_address(to_number(network).saturating_add(1), subnet.is_ipv4());
        if let Some(address) = first {
            let too_late = last.filter(|last| same_family(*last, address) && address > *last);
            if !subnet.contains(address) || too_late.is_some() {
                return Err(RangeProblem::StartOutside { address, subnet, last: too_late });
            }
        }
        let first = first.unwrap_or(second);
        if let Some(address) = last
            && (!subnet.contains(address) || address < first)
        {
            let first = Some(first).filter(|_| subnet.contains(address));
            return Err(RangeProblem::EndOutside { address, subnet, first });
        }
        let last = last.unwrap_or_else(|| default_last(subnet));
        if first > last {
            // Only the broadcast address as the first one gets here. The reference would hand out
            // addresses beyond the subnet.
            return Err(RangeProblem::StartOutside { address: first, subnet, last: Some(last) });
        }
        Ok(Self { subnet, first, last, gateway: gateway.unwrap_or(second) })
    }

    /// The subnet.
    #[must_use]
    pub(crate) const fn subnet(&self) -> IpNetwork {
        self.subnet
    }

    /// The first address.
    #[must_use]
    pub(crate) const fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub(crate) const fn last(&self) -> IpAddr {
        self.last
    }

    /// The gateway, which may lie outside of the range and of the subnet.
    #[must_use]
    pub(crate) const fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Whether `address` is one of the range's.
    #[must_use]
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        same_family(self.first, address) && self.first <= address && address <= self.last
    }

    /// Whether the two ranges share an address.
    #[must_use]
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        same_family(self.first, other.first) && self.first <= other.last && other.first <= self.last
    }
}

fn same_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

fn default_last(subnet: IpNetwork) -> IpAddr {
    match subnet {
        IpNetwork::V4(subnet) => {
            Ipv4Addr::from_bits(subnet.broadcast().to_bits().saturating_sub(1)).into()
        }
        IpNetwork::V6(subnet) => subnet.broadcast().into(),
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

/// A pool: ranges of one family that share no address; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<AddressRange>);

impl RangeSet {
    /// The set of `ranges`, in the order in which they are handed out.
    ///
    /// # Errors
    /// [`RangeProblem::Empty`], [`RangeProblem::MixedFamilies`] or [`RangeProblem::Overlap`].
    pub(crate) fn new(ranges: Vec<AddressRange>) -> Result<Self, RangeProblem> {
        let Some(head) = ranges.first() else { return Err(RangeProblem::Empty) };
        if !ranges.iter().all(|range| same_family(range.first, head.first)) {
            return Err(RangeProblem::MixedFamilies);
        }
        for (index, one) in ranges.iter().enumerate() {
            if let Some(other) = ranges.iter().skip(index + 1).find(|other| one.overlaps(other)) {
                return Err(RangeProblem::Overlap(one.to_string(), other.to_string()));
            }
        }
        Ok(Self(ranges))
    }

    /// The ranges.
    #[must_use]
    pub(crate) fn ranges(&self) -> &[AddressRange] {
        &self.0
    }

    /// Whether the set is of IPv4 addresses.
    #[must_use]
    pub(crate) fn is_ipv4(&self) -> bool {
        self.0.first().is_some_and(|range| range.first.is_ipv4())
    }

    /// The range that `address` is in.
    #[must_use]
    pub(crate) fn range_for(&self, address: IpAddr) -> Option<&AddressRange> {
        self.0.iter().find(|range| range.contains(address))
    }

    /// Whether the two sets share an address.
    #[must_use]
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|one| other.0.iter().any(|two| one.overlaps(two)))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "range_tests.rs"]
mod tests;
