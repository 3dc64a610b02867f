//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::answer::Answer;
use crate::{Error, Request, Socket};

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// Address and prefix length.
    pub cidr: IpNetwork,
    /// Duplicate address detection has not ended.
    pub is_tentative: bool,
    /// Duplicate address detection found another owner.
    pub is_duplicate: bool,
}

/// How an address is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressOptions {
    /// IPv6 asks around before it uses the address, which takes a second or two. Without, the
    /// address is usable at once (`IFA_F_NODAD`).
    pub detect_duplicates: bool,
    /// The kernel adds the route to the address's network. Without (`IFA_F_NOPREFIXROUTE`) it
    /// does not, nor adds it again whenever the link goes up.
    pub network_route: bool,
}

pub(crate) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn message(link: u32, cidr: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(cidr.ip());
    message.header.prefix_len = cidr.prefix();
    message.header.index = link;
    message.attributes =
        vec![AddressAttribute::Local(cidr.ip()), AddressAttribute::Address(cidr.ip())];
    message
}

/// The broadcast address, for networks that have one (not /31 and /32: RFC 3021).
fn broadcast(cidr: IpNetwork) -> Option<Ipv4Addr> {
    match cidr {
        IpNetwork::V4(cidr) if cidr.prefix() < 31 => Some(cidr.broadcast()),
        _ => None,
    }
}

impl Request {
    /// Adds an address.
    #[must_use]
    pub fn add_address(link: u32, name: &str, cidr: IpNetwork, options: AddressOptions) -> Self {
        let mut message = message(link, cidr);
        message.attributes.extend(broadcast(cidr).map(AddressAttribute::Broadcast));
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Nodad, cidr.is_ipv6() && !options.detect_duplicates);
        flags.set(AddressFlags::Noprefixroute, !options.network_route);
        if !flags.is_empty() {
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        let what = format!("add address {cidr} to {name:?}");
        let message = RouteNetlinkMessage::NewAddress(message);
        Self::new(what, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes an address.
    #[must_use]
    pub fn delete_address(link: u32, name: &str, cidr: IpNetwork) -> Self {
        let message = RouteNetlinkMessage::DelAddress(message(link, cidr));
        Self::new(format!("delete address {cidr} of {name:?}"), message, 0)
    }
}

impl Socket {
    /// The addresses of all links, of both families.
    ///
    /// # Errors
    /// [`Error`].
    pub fn all_addresses(&mut self) -> Result<Vec<Address>, Error> {
        self.addresses(0, "all links")
    }

    /// The addresses of a link, of both families.
    ///
    /// # Errors
    /// [`Error`].
    pub fn addresses(&mut self, link: u32, name: &str) -> Result<Vec<Address>, Error> {
        let mut message = AddressMessage::default();
        message.header.index = link;
        let what = format!("list the addresses of {name:?}");
        let messages = self.dump(&Request::dump(what, RouteNetlinkMessage::GetAddress(message)))?;
        // Kernels before 4.20 list those of all links; 0 asks for them.
        let is_of_link = |address: &Address| link == 0 || address.link == link;
        Ok(messages.into_iter().filter_map(read).filter(is_of_link).collect())
    }
}

fn read(answer: Answer) -> Option<Address> {
    let Answer::Other(RouteNetlinkMessage::NewAddress(message)) = answer else { return None };
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let mut address = None;
    for attribute in message.attributes {
        match attribute {
            // On point-to-point links the former is ours and the latter the other side's.
            AddressAttribute::Local(local) => address = Some(local),
            AddressAttribute::Address(other) => address = address.or(Some(other)),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    Some(Address {
        link: message.header.index,
        cidr: IpNetwork::new(address?, message.header.prefix_len).ok()?,
        is_tentative: flags.contains(AddressFlags::Tentative),
        is_duplicate: flags.contains(AddressFlags::Dadfailed),
    })
}
