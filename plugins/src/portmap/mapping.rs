//! What is published, and when two publications are in each other's way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    /// SCTP. The order is that of the names, as in the reference's rules.
    Sctp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Reads its name, whatever its case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Sctp, Self::Tcp, Self::Udp]
            .into_iter()
            .find(|it| it.word().eq_ignore_ascii_case(text))
    }

    /// The protocol of this number.
    pub(crate) fn numbered(number: u8) -> Option<Self> {
        [Self::Sctp, Self::Tcp, Self::Udp].into_iter().find(|it| it.number() == number)
    }

    /// Its name.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Its number above IP.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Sctp => 132,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Whether the kernel keeps flows of it though nobody answers any more: nothing ends them.
    pub(crate) const fn leaves_flows(self) -> bool {
        matches!(self, Self::Sctp | Self::Udp)
    }
}

/// A port of the host that leads to one of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// The protocol.
    pub(crate) protocol: Protocol,
    /// The host's port.
    pub(crate) host_port: u16,
    /// The container's port.
    pub(crate) container_port: u16,
    /// The host's address, of which alone it is published; one of all zeros means all of its family.
    pub(crate) host_ip: Option<IpAddr>,
}

/// What a packet to the host is known by: of one family, which is not told here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// The protocol.
    pub(crate) protocol: Protocol,
    /// The host's port.
    pub(crate) port: u16,
    /// The host's address; `None` for all.
    pub(crate) address: Option<IpAddr>,
}

impl Mapping {
    /// What it publishes of a family; `None` when its address is of the other one.
    pub(crate) fn key(&self, is_ipv4: bool) -> Option<Key> {
        let address = match self.host_ip {
            Some(address) if address.is_ipv4() != is_ipv4 => return None,
            address => address.filter(|it| !it.is_unspecified()),
        };
        Some(Key { protocol: self.protocol, port: self.host_port, address })
    }
}

impl Key {
    /// Whether a packet could be for both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let meet = match (self.address, other.address) {
            (Some(one), Some(another)) => one == another,
            _ => true,
        };
        self.protocol == other.protocol && self.port == other.port && meet
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.port, self.protocol.word())?;
        self.address.map_or(Ok(()), |address| write!(formatter, " of {address}"))
    }
}

/// Whose something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The network's name; empty where the layout does not tell it.
    pub(crate) network: String,
    /// The container's id.
    pub(crate) container_id: String,
    /// Whether there was no room for more than the id's beginning.
    pub(crate) is_cut: bool,
    /// The container's interface, where the layout tells it.
    pub(crate) ifname: Option<String>,
}

impl Holder {
    /// Somebody, of whom nothing is told.
    pub(crate) fn unknown() -> Self {
        let (network, container_id) = (String::new(), String::new());
        Self { network, container_id, is_cut: true, ifname: None }
    }

    /// Whether it may be the container of this id.
    pub(crate) fn may_be(&self, container_id: &str) -> bool {
        if self.is_cut {
            container_id.starts_with(&self.container_id)
        } else {
            container_id == self.container_id
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "container {:?}", self.container_id)?;
        if self.network.is_empty() {
            return Ok(());
        }
        write!(formatter, " (network {:?}", self.network)?;
        self.ifname.iter().try_for_each(|name| write!(formatter, ", interface {name:?}"))?;
        formatter.write_str(")")
    }
}

/// A publication that the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// What is published.
    pub(crate) key: Key,
    /// Where it leads: an address of the container, and so of which family it is.
    pub(crate) to: IpAddr,
    /// Whose it is.
    pub(crate) holder: Holder,
    /// By what the rest of the holder's is known.
    pub(crate) tag: Tag,
}

/// By what all is known that an attachment has published, or a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tag {
    /// Its chain of iptables.
    Chain(String),
    /// The comment of its elements of nf_tables.
    Comment(String),
    /// The container's id: the comment of the reference's rules of nf_tables.
    Id(String),
}

/// What holders have at addresses that they are not at any more, each by its tag; what one has at others stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dead(BTreeMap<Tag, BTreeSet<IpAddr>>);

impl Dead {
    /// And this.
    pub(crate) fn insert(&mut self, held: &Held) {
        self.0.entry(held.tag.clone()).or_default().insert(held.to);
    }

    /// Whether it is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a holder has something there.
    pub(crate) fn has_of(&self, tag: &Tag) -> bool {
        self.0.contains_key(tag)
    }

    /// Whether this is part of it.
    pub(crate) fn has(&self, held: &Held) -> bool {
        self.0.get(&held.tag).is_some_and(|it| it.contains(&held.to))
    }

    /// The holders, each with the addresses.
    pub(crate) fn holders(&self) -> impl Iterator<Item = (&Tag, &BTreeSet<IpAddr>)> {
        self.0.iter()
    }

    /// Whether elements of a family with this comment are part of it: an attachment has one address of each.
    pub(crate) fn has_elements(&self, is_ipv4: bool, comment: Option<&str>) -> bool {
        let tag = Tag::Comment(comment.unwrap_or_default().to_owned());
        self.0.get(&tag).is_some_and(|it| it.iter().any(|address| address.is_ipv4() == is_ipv4))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_mapping_is_of_the_families_of_its_address() {
        let mapping = |host_ip: Option<&str>| Mapping {
            protocol: Protocol::Tcp,
            host_port: 8080,
            container_port: 80,
            host_ip: host_ip.map(address),
        };
        let addresses = |host_ip| {
            [true, false].map(|is_ipv4| mapping(host_ip).key(is_ipv4).map(|key| key.address))
        };
        assert_eq!(addresses(None), [Some(None), Some(None)]);
        assert_eq!(addresses(Some("0.0.0.0")), [Some(None), None]);
        assert_eq!(addresses(Some("::")), [None, Some(None)]);
        assert_eq!(addresses(Some("10.0.0.1")), [Some(Some(address("10.0.0.1"))), None]);
    }

    fn keys() -> impl Strategy<Value = Key> {
        let protocols = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
        let addresses = prop::option::of((1_u8..4).prop_map(|it| IpAddr::from([10, 0, 0, it])));
        (protocols, 1_u16..4, addresses).prop_map(|(protocol, port, address)| Key {
            protocol,
            port,
            address,
        })
    }

    proptest! {
        /// The oracle: send every packet there is, and see who would take it.
        #[test]
        fn two_overlap_if_some_packet_is_for_both(one in keys(), another in keys()) {
            let takes = |key: &Key, protocol, port, host: u8| {
                (key.protocol, key.port) == (protocol, port)
                    && key.address.is_none_or(|it| it == IpAddr::from([10, 0, 0, host]))
            };
            let mut is_for_both = false;
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                for port in 0..6 {
                    for host in 0..6 {
                        is_for_both |= takes(&one, protocol, port, host)
                            && takes(&another, protocol, port, host);
                    }
                }
            }
            prop_assert_eq!(one.overlaps(&another), is_for_both);
            prop_assert_eq!(another.overlaps(&one), is_for_both);
        }
    }
}
