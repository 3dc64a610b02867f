//! Sets of addresses (ipset): the changes that cannot wait for a program to start, and a look at
//! all sets that does not read their elements (`include/uapi/linux/netfilter/ipset/ip_set.h`).

use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use nix::errno::Errno;

use crate::Error;
use crate::attributes::{find, network_number, text};
use crate::netfilter::Socket;
use crate::netfilter::message::{IPV4, Message};

const SUBSYSTEM: u8 = 6;
const LIST: u8 = 7;
const ADD: u8 = 9;
const DELETE: u8 = 10;
const TEST: u8 = 11;
/// What all kernels since 2.6.39 take for these commands, also those that have version 7.
const PROTOCOL: u8 = 6;
const ATTRIBUTE_PROTOCOL: u16 = 1;
const ATTRIBUTE_SET: u16 = 2;
const ATTRIBUTE_TYPE: u16 = 3;
const ATTRIBUTE_FLAGS: u16 = 6;
const ATTRIBUTE_DATA: u16 = 7;
const DATA_ADDRESS: u16 = 1;
const DATA_PORT: u16 = 4;
const DATA_PROTOCOL: u16 = 7;
const ADDRESS_IPV4: u16 = 1;
const ADDRESS_IPV6: u16 = 2;
const DATA_ELEMENTS: u16 = 24;
const DATA_REFERENCES: u16 = 25;
const LIST_HEADER: u32 = 1 << 2;
const ERROR_PROTOCOL: i32 = 4097;
const ERROR_EXIST: i32 = 4103;
const ERROR_HASH_FULL: i32 = 4352;
const ENOENT: i32 = Errno::ENOENT as i32;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The set is as it should be, perhaps it was so before.
    Done,
    /// There is no such set.
    NoSuchSet,
}

/// An element of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Of a `hash:ip`.
    Address(IpAddr),
    /// Of a `hash:ip,port`.
    AddressPort {
        /// The address.
        address: IpAddr,
        /// The protocol's number, of one that has ports.
        protocol: u8,
        /// The port.
        port: u16,
    },
}

impl From<IpAddr> for Element {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "{address}"),
            Self::AddressPort { address, protocol, port } => {
                write!(formatter, "{address},{protocol}:{port}")
            }
        }
    }
}

/// A set, without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Name.
    pub name: String,
    /// Type, such as `hash:ip`.
    pub kind: String,
    /// How many elements it has; those with a timeout may count a while longer.
    pub elements: u32,
}

/// An ipset socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Client(Socket);

impl Client {
    /// Opens a socket in the calling thread's namespace; `None` when the kernel has no netfilter.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Option<Self>, Error> {
        Ok(Socket::open("an ipset")?.map(Self))
    }

    /// Adds an element to a set; one that is there already is not an error.
    ///
    /// # Errors
    /// [`Error`]: also when the set is full, or has elements of another kind or family.
    pub fn add(&mut self, set: &str, element: impl Into<Element>) -> Result<Outcome, Error> {
        let element = element.into();
        self.change(ADD, set, element, format!("add {element} to ipset {set:?}"))
    }

    /// Deletes an element from a set; one that is not there is not an error.
    ///
    /// # Errors
    /// [`Error`]: also when the set has elements of another kind or family.
    pub fn delete(&mut self, set: &str, element: impl Into<Element>) -> Result<Outcome, Error> {
        let element = element.into();
        self.change(DELETE, set, element, format!("delete {element} from ipset {set:?}"))
    }

    /// Whether a set has an address; `None` when there is no such set.
    ///
    /// # Errors
    /// [`Error`].
    pub fn contains(&mut self, set: &str, address: IpAddr) -> Result<Option<bool>, Error> {
        let what = format!("look for {address} in ipset {set:?}");
        match self.0.change(with_element(TEST, set, address.into()), &what)? {
            0 => Ok(Some(true)),
            ERROR_EXIST => Ok(Some(false)),
            ENOENT => Ok(None),
            code => Err(refusal(what, code)),
        }
    }

    /// Whether there is a set of that name which rules, or other sets, look into.
    ///
    /// # Errors
    /// [`Error`].
    pub fn is_referenced(&mut self, set: &str) -> Result<bool, Error> {
        let message = message(LIST, NLM_F_DUMP)
            .text(ATTRIBUTE_SET, set)
            .network_ordered(ATTRIBUTE_FLAGS, &LIST_HEADER.to_be_bytes());
        let mut references = None;
        let listed = self.0.list(message, &format!("look up ipset {set:?}"), |set| {
            references = find(set, ATTRIBUTE_DATA)
                .and_then(|data| network_number(find(data, DATA_REFERENCES)?));
        });
        match listed {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
            result => result.map(|_| references.is_some_and(|count| count > 0)),
        }
    }

    fn change(
        &mut self,
        command: u8,
        set: &str,
        element: Element,
        what: String,
    ) -> Result<Outcome, Error> {
        match self.0.change(with_element(command, set, element), &what)? {
            0 => Ok(Outcome::Done),
            ENOENT => Ok(Outcome::NoSuchSet),
            code => Err(refusal(what, code)),
        }
    }

    /// All sets of the namespace.
    ///
    /// # Errors
    /// [`Error`].
    pub fn sets(&mut self) -> Result<Vec<Set>, Error> {
        let message =
            message(LIST, NLM_F_DUMP).network_ordered(ATTRIBUTE_FLAGS, &LIST_HEADER.to_be_bytes());
        let mut sets = Vec::new();
        self.0.list(message, "list the ipsets", |set| sets.extend(read(set)))?;
        Ok(sets)
    }
}

fn message(command: u8, flags: u16) -> Message {
    Message::new([SUBSYSTEM, command], flags, IPV4, 0).attribute(ATTRIBUTE_PROTOCOL, &[PROTOCOL])
}

/// Without `NLM_F_EXCL`, which would make it an error that nothing is left to do.
fn with_element(command: u8, set: &str, element: Element) -> Message {
    let (address, port) = match element {
        Element::Address(address) => (address, None),
        Element::AddressPort { address, protocol, port } => (address, Some((protocol, port))),
    };
    message(command, 0).text(ATTRIBUTE_SET, set).nested(ATTRIBUTE_DATA, |data| {
        let data = data.nested(DATA_ADDRESS, |message| match address {
            IpAddr::V4(address) => message.network_ordered(ADDRESS_IPV4, &address.octets()),
            IpAddr::V6(address) => message.network_ordered(ADDRESS_IPV6, &address.octets()),
        });
        match port {
            None => data,
            Some((protocol, port)) => data
                .network_ordered(DATA_PORT, &port.to_be_bytes())
                .attribute(DATA_PROTOCOL, &[protocol]),
        }
    })
}

fn read(set: &[u8]) -> Option<Set> {
    Some(Set {
        name: text(find(set, ATTRIBUTE_SET)?),
        kind: text(find(set, ATTRIBUTE_TYPE)?),
        elements: network_number(find(find(set, ATTRIBUTE_DATA)?, DATA_ELEMENTS)?)?,
    })
}

/// ipset has error numbers of its own, beyond those that have names.
fn refusal(what: String, code: i32) -> Error {
    let errno = Errno::from_raw(code);
    let explanation = match code {
        ERROR_HASH_FULL => "the set is full".into(),
        ERROR_PROTOCOL => "the set has elements of another kind or family".into(),
        _ if errno == Errno::UnknownErrno => format!("error {code} of ipset"),
        _ => String::new(),
    };
    Error::Refused { what, explanation, errno }
}
