//! Neighbours, and what bridges have learned of where they are.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::answer::Answer;
use crate::attributes::{find, number};
use crate::{Error, HardwareAddress, Request, Socket};

/// `ndmsg`.
const HEADER: usize = 12;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_BRIDGE: u8 = 7;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_EXT_LEARNED: u8 = 0x10;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;

/// An address that is, or was, on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address; `None` while it is asked for, and when nobody answered.
    pub mac: Option<HardwareAddress>,
    /// Whether nobody is asked where it is: somebody has said it (`NUD_PERMANENT`, `NTF_EXT_LEARNED`), or nobody on the
    /// link answers such questions (`NUD_NOARP`).
    pub is_static: bool,
}

/// An entry of a forwarding database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbEntry {
    /// Index of the bridge; `None` in a link's own list of what it receives.
    pub bridge: Option<u32>,
    /// Index of the link behind which the hardware address is.
    pub link: u32,
    /// The hardware address.
    pub mac: HardwareAddress,
    /// Whether it is the link's own.
    pub is_own: bool,
}

/// Either, because the kernel tells of both by the same message.
#[derive(Debug)]
pub(crate) enum Entry {
    Neighbour(Neighbour),
    Fdb(FdbEntry),
}

impl Request {
    /// Has the kernel forget a neighbour, and with it the packets that wait until it is known where he
    /// is (`neigh_invalidate`). Success when there is no such neighbour.
    #[must_use]
    pub fn forget_neighbour(link: u32, address: IpAddr) -> Self {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address.is_ipv4());
        message.header.ifindex = link;
        message.attributes.push(NeighbourAttribute::Destination(address.into()));
        let what = format!("forget neighbour {address} of link {link}");
        let mut request = Self::new(what, RouteNetlinkMessage::DelNeighbour(message), 0);
        request.tolerated = &[Errno::ENOENT, Errno::ENODEV];
        request
    }

    /// Has the kernel ask on a link where an address is, as if it had something to send there (`NTF_USE`). Who has it
    /// becomes a neighbour with a hardware address.
    #[must_use]
    pub fn ask_for_neighbour(link: u32, address: IpAddr) -> Self {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address.is_ipv4());
        message.header.ifindex = link;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(address.into()));
        let what = format!("ask on link {link} where {address} is");
        Self::new(what, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }
}

impl Socket {
    /// The neighbours of all links, of one family.
    ///
    /// # Errors
    /// [`Error`].
    pub fn neighbours(&mut self, is_ipv4: bool) -> Result<Vec<Neighbour>, Error> {
        let entries = self.neighbour_entries(family(is_ipv4), "list neighbours")?;
        let neighbours = entries.filter_map(|entry| match entry {
            Entry::Neighbour(neighbour) => Some(neighbour),
            Entry::Fdb(_) => None,
        });
        Ok(neighbours.collect())
    }

    /// The forwarding databases of all bridges and other links.
    ///
    /// # Errors
    /// [`Error`].
    pub fn fdb(&mut self) -> Result<Vec<FdbEntry>, Error> {
        let entries = self.neighbour_entries(AddressFamily::Bridge, "list forwarding databases")?;
        let entries = entries.filter_map(|entry| match entry {
            Entry::Fdb(entry) => Some(entry),
            Entry::Neighbour(_) => None,
        });
        Ok(entries.collect())
    }

    fn neighbour_entries(
        &mut self,
        family: AddressFamily,
        what: &str,
    ) -> Result<impl Iterator<Item = Entry> + use<>, Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        let request = Request::dump(what.into(), RouteNetlinkMessage::GetNeighbour(message));
        let answers = self.dump(&request)?;
        Ok(answers.into_iter().filter_map(|answer| match answer {
            Answer::Neighbour(entry) => Some(entry),
            _ => None,
        }))
    }
}

const fn family(is_ipv4: bool) -> AddressFamily {
    if is_ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Reads `ndmsg` and the attributes after it; `None` when it is cut off.
pub(crate) fn read(message: &[u8]) -> Option<Entry> {
    let header = message.get(..HEADER)?;
    let attributes = message.get(HEADER..)?;
    let link = number(header.get(4..8)?)?;
    let state = u16::from_ne_bytes(header.get(8..10)?.try_into().ok()?);
    let flags = *header.get(10)?;
    let mac = find(attributes, NDA_LLADDR).and_then(|mac| mac.try_into().ok()).map(HardwareAddress);
    let address = |attributes| find(attributes, NDA_DST);
    let address: IpAddr = match *header.first()? {
        AF_BRIDGE => {
            let bridge = find(attributes, NDA_MASTER).and_then(number);
            let is_own = state & NUD_PERMANENT != 0;
            return Some(Entry::Fdb(FdbEntry { bridge, link, mac: mac?, is_own }));
        }
        AF_INET => <[u8; 4]>::try_from(address(attributes)?).ok()?.into(),
        AF_INET6 => <[u8; 16]>::try_from(address(attributes)?).ok()?.into(),
        _ => return None,
    };
    let is_static = state & (NUD_NOARP | NUD_PERMANENT) != 0 || flags & NTF_EXT_LEARNED != 0;
    Some(Entry::Neighbour(Neighbour { link, address, mac, is_static }))
}
