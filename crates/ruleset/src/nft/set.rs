//! Sets, and maps that lead to verdicts.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::matches::Protocol;
use super::rule::Verdict;
use crate::iptables::PortRange;

/// A set, or a map, without its elements.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Set {
    /// Its name: at most 255 bytes.
    pub name: String,
    /// What is looked up in it: of several all at once.
    pub key: Vec<Key>,
    /// Whether its elements may be of more than one value: networks, or ports from one to another.
    pub is_interval: bool,
    /// Whether it is a map that leads to verdicts.
    pub is_map: bool,
    /// What it leads to, if it is a map that leads to values.
    pub data: Vec<Key>,
    /// Whether each of its elements counts what it is found for.
    pub is_counted: bool,
    /// If its elements come from packets, how many there may be; they last as long as the rules say.
    pub room_for_packets: Option<u32>,
    /// A word for those who read the table: at most 127 bytes.
    pub comment: Option<String>,
}

/// A part of what is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An address of IPv4.
    Ipv4,
    /// An address of IPv6.
    Ipv6,
    /// The number of a protocol.
    Protocol,
    /// A port.
    Port,
    /// The name of an interface.
    Interface,
    /// A packet's priority.
    Priority,
    /// A number of chance, or of a hash.
    Number,
}

/// A part of an element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Of [`Key::Ipv4`] or [`Key::Ipv6`].
    Address(IpAddr),
    /// All in a network, in a set of intervals.
    Network(IpNetwork),
    /// All from one to another, both included, in a set of intervals.
    Addresses(IpAddr, IpAddr),
    /// Of [`Key::Protocol`].
    Protocol(u8),
    /// Of [`Key::Port`]; of more than one in a set of intervals.
    Ports(PortRange),
    /// Of [`Key::Interface`].
    Interface(String),
    /// Of [`Key::Priority`].
    Priority(u32),
    /// Of [`Key::Number`].
    Number(u32),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// What is looked up.
    pub key: Vec<Value>,
    /// What a map says of it.
    pub verdict: Option<Verdict>,
    /// The values that a map leads to.
    pub data: Vec<Value>,
    /// A word for those who read the set: at most 251 bytes (nft itself writes 127).
    pub comment: Option<String>,
}

/// An element as the kernel has it. Two are the same if their bytes are.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encoded {
    /// What is looked up, or the first of it.
    pub key: Vec<u8>,
    /// The last of it, in a set of intervals with several keys.
    pub last: Option<Vec<u8>>,
    /// Whether it is what follows an interval, in a set of intervals with one key.
    pub is_end: bool,
    /// What a map says of it.
    pub verdict: Option<Verdict>,
    /// The values that a map leads to.
    pub data: Option<Vec<u8>>,
    /// Its comment.
    pub comment: Option<String>,
}

/// The name of a link is shorter (`IFNAMSIZ`).
const NAME_ROOM: usize = 16;

impl Set {
    /// A set of single values.
    pub fn new(name: impl Into<String>, key: impl Into<Vec<Key>>) -> Self {
        let (name, key) = (name.into(), key.into());
        let data = Vec::new();
        let (is_interval, is_map, is_counted) = (false, false, false);
        Self {
            name,
            key,
            is_interval,
            is_map,
            data,
            is_counted,
            room_for_packets: None,
            comment: None,
        }
    }

    /// The same of intervals.
    #[must_use]
    pub const fn of_intervals(mut self) -> Self {
        self.is_interval = true;
        self
    }

    /// A map from the same keys to verdicts.
    #[must_use]
    pub const fn to_verdicts(mut self) -> Self {
        self.is_map = true;
        self
    }

    /// A map from the same keys to values.
    #[must_use]
    pub fn to_values(mut self, data: impl Into<Vec<Key>>) -> Self {
        self.data = data.into();
        self
    }

    /// The same, whose elements count.
    #[must_use]
    pub const fn counted(mut self) -> Self {
        self.is_counted = true;
        self
    }

    /// The same, whose elements come from packets: so many at most.
    #[must_use]
    pub const fn of_packets(mut self, room: u32) -> Self {
        self.room_for_packets = Some(room);
        self
    }

    /// The same with a comment.
    #[must_use]
    pub fn commented(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Whether nft has names of types for all of its parts. Where it has not, it is told of fields that have
    /// such parts (`typeof`).
    #[must_use]
    pub fn has_named_types(&self) -> bool {
        let is_named = |key: &Key| !matches!(key, Key::Priority | Key::Number);
        self.key.iter().chain(&self.data).all(is_named)
    }

    /// An element as a set like this has it: of intervals with one key two, unless nothing follows it.
    /// None for what no packet can have: an interface whose name is too long.
    #[must_use]
    pub fn encode(&self, element: &Element) -> Vec<Encoded> {
        let is_single = self.key.len() == 1;
        let Some((key, last)) = together(&element.key) else { return Vec::new() };
        let data = (!element.data.is_empty()).then(|| together(&element.data));
        let Ok(data) = data.map(|it| it.map(|(data, _)| data).ok_or(())).transpose() else {
            return Vec::new();
        };
        let (verdict, comment) = (element.verdict.clone(), element.comment.clone());
        let plain = Encoded { key, last: None, is_end: false, verdict, data, comment };
        match (self.is_interval, is_single) {
            (false, _) => vec![plain],
            (true, true) => {
                let end = Encoded { is_end: true, ..Encoded::default() };
                let end = next(&last).map(|key| Encoded { key, ..end });
                [Some(plain), end].into_iter().flatten().collect()
            }
            (true, false) => vec![Encoded { last: Some(last), ..plain }],
        }
    }

    /// How many bytes are looked up.
    #[must_use]
    pub fn size(&self) -> usize {
        size(&self.key)
    }

    /// How many bytes of values it leads to.
    #[must_use]
    pub fn data_size(&self) -> usize {
        size(&self.data)
    }
}

fn size(keys: &[Key]) -> usize {
    match keys {
        [only] => only.size(),
        several => several.iter().map(|it| it.size().next_multiple_of(4)).sum(),
    }
}

/// The first and the last of what values are together. Parts begin at words; one alone is as long as it is.
fn together(values: &[Value]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for value in values {
        let (from, to) = bytes(value)?;
        for (all, part) in [(&mut first, from), (&mut last, to)] {
            all.extend(part);
            all.resize(
                if values.len() == 1 { all.len() } else { all.len().next_multiple_of(4) },
                0,
            );
        }
    }
    Some((first, last))
}

impl Encoded {
    /// The interface that it is, if its key is nothing but that.
    #[must_use]
    pub fn interface(&self) -> Option<String> {
        let end = self.key.iter().position(|it| *it == 0).unwrap_or(self.key.len());
        String::from_utf8(self.key.get(..end)?.to_vec()).ok()
    }
}

impl Key {
    /// How many bytes it has.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Interface => NAME_ROOM,
            Self::Priority | Self::Number => 4,
        }
    }
}

impl Element {
    /// An element of a set.
    pub fn new(key: impl Into<Vec<Value>>) -> Self {
        Self { key: key.into(), verdict: None, data: Vec::new(), comment: None }
    }

    /// An element of a map to values.
    #[must_use]
    pub fn leading_to_values(mut self, data: impl Into<Vec<Value>>) -> Self {
        self.data = data.into();
        self
    }

    /// The same with a comment.
    #[must_use]
    pub fn commented(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// An element of a map.
    #[must_use]
    pub fn leading_to(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(verdict);
        self
    }
}

/// The first and the last of what a value is.
fn bytes(value: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
    let single = |it: Vec<u8>| (it.clone(), it);
    Some(match value {
        Value::Address(address) => single(octets(*address)),
        Value::Network(network) => (octets(network.network()), octets(network.broadcast())),
        Value::Addresses(first, last) => (octets(*first), octets(*last)),
        Value::Protocol(number) => single(vec![*number]),
        Value::Ports(PortRange { first, last }) => {
            (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec())
        }
        Value::Interface(name) => {
            if name.is_empty() || name.len() >= NAME_ROOM || name.contains('\0') {
                return None;
            }
            let mut room = name.clone().into_bytes();
            room.resize(NAME_ROOM, 0);
            single(room)
        }
        Value::Priority(number) | Value::Number(number) => single(number.to_ne_bytes().to_vec()),
    })
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

/// The number after this one, of as many bytes; `None` after the last.
fn next(number: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = number.to_vec();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(bytes);
        }
    }
    None
}

/// What stands in the set's braces before its elements, and its name.
impl fmt::Display for Set {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_map || !self.data.is_empty() { "map" } else { "set" };
        let kind = if self.has_named_types() { "type" } else { "typeof" };
        write!(formatter, "{word} {} {{ {kind} ", self.name)?;
        self.parts(formatter, &self.key)?;
        if !self.data.is_empty() {
            formatter.write_str(" : ")?;
            self.parts(formatter, &self.data)?;
        }
        formatter.write_str(if self.is_map { " : verdict; " } else { "; " })?;
        formatter.write_str(if self.is_interval { "flags interval; " } else { "" })?;
        let room = self.room_for_packets.iter();
        room.clone().try_for_each(|it| write!(formatter, "size {it}; flags dynamic,timeout; "))?;
        formatter.write_str(if self.is_counted { "counter; " } else { "" })?;
        self.comment.iter().try_for_each(|it| write!(formatter, "comment \"{it}\"; "))?;
        formatter.write_str("}")
    }
}

impl Set {
    fn parts(&self, formatter: &mut fmt::Formatter<'_>, keys: &[Key]) -> fmt::Result {
        if self.has_named_types() {
            return dotted(formatter, keys);
        }
        dotted(formatter, &keys.iter().map(|it| it.example()).collect::<Vec<_>>())
    }
}

impl Key {
    /// A field that has it.
    const fn example(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip daddr",
            Self::Ipv6 => "ip6 daddr",
            Self::Protocol => "meta l4proto",
            Self::Port => "th dport",
            Self::Interface => "iifname",
            Self::Priority => "meta priority",
            Self::Number => "numgen random mod 1",
        }
    }
}

/// The type's name, where it has one.
impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::Interface => "ifname",
            Self::Priority => "classid",
            Self::Number => "integer",
        })
    }
}

impl fmt::Display for Element {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        dotted(formatter, &self.key)?;
        self.comment.iter().try_for_each(|it| write!(formatter, " comment \"{it}\""))?;
        if !self.data.is_empty() {
            formatter.write_str(" : ")?;
            dotted(formatter, &self.data)?;
        }
        self.verdict.iter().try_for_each(|it| write!(formatter, " : {it}"))
    }
}

/// Parts as they stand together.
fn dotted(formatter: &mut fmt::Formatter<'_>, parts: &[impl fmt::Display]) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        let dot = if index == 0 { "" } else { " . " };
        write!(formatter, "{dot}{part}")?;
    }
    Ok(())
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "{address}"),
            Self::Network(network) if network.prefix() == full(network) => {
                write!(formatter, "{}", network.ip())
            }
            Self::Network(network) => {
                write!(formatter, "{}/{}", network.network(), network.prefix())
            }
            Self::Addresses(first, last) => write!(formatter, "{first}-{last}"),
            Self::Protocol(number) => write!(formatter, "{}", Protocol(*number)),
            Self::Ports(PortRange { first, last }) if first == last => write!(formatter, "{first}"),
            Self::Ports(PortRange { first, last }) => write!(formatter, "{first}-{last}"),
            Self::Interface(name) => write!(formatter, "\"{name}\""),
            // As of traffic control's classes.
            Self::Priority(number) => write!(formatter, "{:x}:{:x}", number >> 16, number & 0xffff),
            Self::Number(number) => write!(formatter, "{number}"),
        }
    }
}

fn full(network: &IpNetwork) -> u8 {
    if network.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Value {
        Value::Network(text.parse().unwrap())
    }

    #[test]
    fn parts_of_a_key_begin_at_words() {
        let set = Set::new("s", [Key::Interface, Key::Ipv4, Key::Protocol, Key::Port]);
        let port = Value::Ports(PortRange { first: 258, last: 258 });
        let address = Value::Address([10, 0, 0, 1].into());
        let name = |it: &str| Value::Interface(it.to_owned());
        let element = Element::new([name("veth0"), address.clone(), Value::Protocol(6), port]);
        let [encoded] = set.encode(&element).try_into().unwrap();
        let bytes = [b"veth0".as_slice(), &[0; 11], &[10, 0, 0, 1], &[6, 0, 0, 0], &[1, 2, 0, 0]];
        assert_eq!(encoded.key, bytes.concat());
        assert_eq!((encoded.last, encoded.is_end), (None, false));
        assert_eq!(set.encode(&Element::new([name("a-name-of-16-byt"), address])), []);
    }

    #[test]
    fn an_interval_ends_before_the_next_value() {
        let set = Set::new("s", [Key::Ipv4]).of_intervals();
        let encoded = set.encode(&Element::new([network("10.0.0.0/15")]));
        let ends: Vec<_> = encoded.iter().map(|it| (it.key.as_slice(), it.is_end)).collect();
        assert_eq!(ends, [([10, 0, 0, 0].as_slice(), false), (&[10, 2, 0, 0], true)]);
        // Nothing follows the last.
        assert_eq!(set.encode(&Element::new([network("255.0.0.0/8")])).len(), 1);
        let ports = Set::new("s", [Key::Port]).of_intervals();
        let range = Value::Ports(PortRange { first: 80, last: 255 });
        let encoded = ports.encode(&Element::new([range]));
        let ends: Vec<_> = encoded.iter().map(|it| (it.key.as_slice(), it.is_end)).collect();
        assert_eq!(ends, [([0, 80].as_slice(), false), (&[1, 0], true)]);
    }

    #[test]
    fn an_interval_of_several_keys_is_one_element() {
        let set = Set::new("s", [Key::Ipv4, Key::Port]).of_intervals();
        let range = Value::Ports(PortRange { first: 80, last: 81 });
        let [encoded] =
            set.encode(&Element::new([network("10.0.0.0/24"), range])).try_into().unwrap();
        assert_eq!(encoded.key, [10, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(encoded.last, Some(vec![10, 0, 0, 255, 0, 81, 0, 0]));
    }

    #[test]
    fn sets_print_as_nft_reads_them() {
        let set = Set::new("from", [Key::Ipv4, Key::Port]).of_intervals().to_verdicts();
        assert_eq!(
            set.commented("a b").to_string(),
            "map from { type ipv4_addr . inet_service : verdict; flags interval; comment \"a b\"; }"
        );
        let element = Element::new([network("10.0.0.1/32"), Value::Protocol(17)]);
        let verdict = Verdict::Goto("x".to_owned());
        assert_eq!(element.leading_to(verdict).to_string(), "10.0.0.1 . udp : goto x");
        let map = Set::new("to", [Key::Protocol, Key::Port]).to_values([Key::Ipv6, Key::Port]);
        assert_eq!(
            map.to_string(),
            "map to { type inet_proto . inet_service : ipv6_addr . inet_service; }"
        );
        let port = |port| Value::Ports(PortRange { first: port, last: port });
        let to = [Value::Address("fd00::1".parse().unwrap()), port(80)];
        let element = Element::new([Value::Protocol(6), port(8080)]).leading_to_values(to);
        let element = element.commented("whose");
        assert_eq!(element.to_string(), "tcp . 8080 comment \"whose\" : fd00::1 . 80");
        let [encoded] = map.encode(&element).try_into().unwrap();
        let bytes = [&[0xfd][..], &[0; 14], &[1, 0, 80, 0, 0]].concat();
        assert_eq!((encoded.data.map(|it| it.len()), map.data_size()), (Some(20), 20));
        assert_eq!(map.encode(&element)[0].data, Some(bytes));
    }
}
