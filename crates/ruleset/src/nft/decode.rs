//! Elements as they are read, from the bytes that the kernel has them in.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};

use super::set::{Element, Encoded, Key, Set, Value};
use crate::iptables::PortRange;
use crate::networks::around;

impl Set {
    /// The elements of a set like this: those of which [`Self::encode`] makes these. What no such set can have
    /// is left out.
    #[must_use]
    pub fn decode(&self, held: &BTreeSet<Encoded>) -> BTreeSet<Element> {
        let ends = held.iter().filter(|it| it.is_end).map(|it| it.key.as_slice());
        let ends: BTreeSet<&[u8]> = ends.collect();
        let is_range = self.is_interval && self.key.len() == 1;
        let elements = held.iter().filter(|it| !it.is_end);
        let last = |it: &Encoded| match &it.last {
            None if is_range => last_before_end(&it.key, &ends),
            last => last.clone().unwrap_or_else(|| it.key.clone()),
        };
        elements.filter_map(|it| self.element(it, &last(it))).collect()
    }

    /// An element of a set like this, which has no intervals of one key.
    #[must_use]
    pub fn decode_single(&self, held: &Encoded) -> Option<Element> {
        self.element(held, held.last.as_ref().unwrap_or(&held.key))
    }

    fn element(&self, held: &Encoded, last: &[u8]) -> Option<Element> {
        let data = held.data.as_deref().unwrap_or_default();
        Some(Element {
            key: values(&self.key, &held.key, last)?,
            verdict: held.verdict.clone(),
            data: values(&self.data, data, data)?,
            comment: held.comment.clone(),
        })
    }
}

/// What bytes are that hold these parts, from the first to the last.
fn values(keys: &[Key], mut first: &[u8], mut last: &[u8]) -> Option<Vec<Value>> {
    let is_single = keys.len() == 1;
    let part = |bytes: &mut &[u8], size: usize| {
        let room = if is_single { size } else { size.next_multiple_of(4) };
        let (part, rest) = bytes.split_at_checked(room)?;
        *bytes = rest;
        part.get(..size).map(<[u8]>::to_vec)
    };
    let values = keys.iter().map(|key| {
        let (from, to) = (part(&mut first, key.size())?, part(&mut last, key.size())?);
        value(*key, &from, &to)
    });
    let values = values.collect::<Option<Vec<_>>>()?;
    (first.is_empty() && last.is_empty()).then_some(values)
}

/// The last of the interval that begins here. Nothing ends that of the highest values.
fn last_before_end(first: &[u8], ends: &BTreeSet<&[u8]>) -> Vec<u8> {
    match ends.range::<[u8], _>((Excluded(first), Unbounded)).next() {
        Some(end) => previous(end),
        None => vec![u8::MAX; first.len()],
    }
}

/// The number before this one, which is not 0, of as many bytes.
fn previous(number: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_vec();
    for byte in bytes.iter_mut().rev() {
        let was_zero = *byte == 0;
        *byte = byte.wrapping_sub(1);
        if !was_zero {
            break;
        }
    }
    bytes
}

fn value(key: Key, first: &[u8], last: &[u8]) -> Option<Value> {
    Some(match key {
        Key::Ipv4 => {
            let address = |it: &[u8]| <[u8; 4]>::try_from(it).ok().map(IpAddr::from);
            addresses(address(first)?, address(last)?)
        }
        Key::Ipv6 => {
            let address = |it: &[u8]| <[u8; 16]>::try_from(it).ok().map(IpAddr::from);
            addresses(address(first)?, address(last)?)
        }
        Key::Protocol => Value::Protocol(*first.first()?),
        Key::Port => {
            let port = |it: &[u8]| <[u8; 2]>::try_from(it).ok().map(u16::from_be_bytes);
            Value::Ports(PortRange { first: port(first)?, last: port(last)? })
        }
        Key::Priority => Value::Priority(u32::from_ne_bytes(first.try_into().ok()?)),
        Key::Number => Value::Number(u32::from_ne_bytes(first.try_into().ok()?)),
        Key::Interface => {
            let name = first.split(|it| *it == 0).next().unwrap_or_default();
            Value::Interface(String::from_utf8_lossy(name).into_owned())
        }
    })
}

/// What nft shows as a network is one here.
fn addresses(first: IpAddr, last: IpAddr) -> Value {
    let bits = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        _ => 0,
    };
    let network = u8::try_from(bits).ok().and_then(|it| around(first, it));
    match network.filter(|it| it.network() == first && it.broadcast() == last) {
        Some(_) if first == last => Value::Address(first),
        Some(network) => Value::Network(network),
        None => Value::Addresses(first, last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::Verdict;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn shown(set: &Set, elements: &[Element]) -> Vec<String> {
        let encoded = elements.iter().flat_map(|it| set.encode(it)).collect();
        set.decode(&encoded).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_was_encoded_is_read_again() {
        let set = Set::new("s", [Key::Interface, Key::Ipv6, Key::Protocol, Key::Port]);
        let port = Value::Ports(PortRange { first: 258, last: 258 });
        let key = [
            Value::Interface("veth0".to_owned()),
            Value::Address(address("fd00::1")),
            Value::Protocol(17),
            port,
        ];
        assert_eq!(shown(&set, &[Element::new(key)]), ["\"veth0\" . fd00::1 . udp . 258"]);
        let map = Set::new("m", [Key::Ipv4]).to_verdicts();
        let element = Element::new([Value::Address(address("10.0.0.1"))]);
        let element = element.leading_to(Verdict::Goto("x".to_owned()));
        assert_eq!(shown(&map, &[element]), ["10.0.0.1 : goto x"]);
        let map = Set::new("m", [Key::Port]).to_values([Key::Ipv6, Key::Port]);
        let port = || Value::Ports(PortRange { first: 258, last: 258 });
        let element = Element::new([port()]).commented("why");
        let element = element.leading_to_values([Value::Address(address("fd00::1")), port()]);
        assert_eq!(shown(&map, &[element]), ["258 comment \"why\" : fd00::1 . 258"]);
    }

    #[test]
    fn intervals_are_read_as_nft_shows_them() {
        let set = Set::new("s", [Key::Ipv4]).of_intervals();
        let range = |first, last| Element::new([Value::Addresses(address(first), address(last))]);
        let ranges = [
            range("10.0.0.0", "10.0.1.255"),
            range("10.0.2.0", "10.0.2.0"),
            range("10.0.3.255", "10.0.4.1"),
            range("255.255.255.0", "255.255.255.255"),
        ];
        let mut texts = shown(&set, &ranges);
        texts.sort();
        assert_eq!(texts, ["10.0.0.0/23", "10.0.2.0", "10.0.3.255-10.0.4.1", "255.255.255.0/24"]);
        assert_eq!(shown(&set, &[range("0.0.0.0", "255.255.255.255")]), ["0.0.0.0/0"]);
        let ports = Set::new("p", [Key::Port]).of_intervals();
        let port = |first, last| Element::new([Value::Ports(PortRange { first, last })]);
        assert_eq!(shown(&ports, &[port(80, 80), port(256, 65535)]), ["80", "256-65535"]);
        let both = Set::new("b", [Key::Ipv4, Key::Port]).of_intervals();
        let key = [
            Value::Network("10.0.0.0/24".parse().unwrap()),
            Value::Ports(PortRange { first: 80, last: 81 }),
        ];
        assert_eq!(shown(&both, &[Element::new(key)]), ["10.0.0.0/24 . 80-81"]);
    }

    #[test]
    fn what_no_such_set_can_have_is_left_out() {
        let set = Set::new("s", [Key::Ipv4]);
        let of = |key: &[u8]| Encoded { key: key.to_owned(), ..Encoded::default() };
        let held = [of(&[10, 0, 0]), of(&[10, 0, 0, 1]), of(&[10, 0, 0, 1, 2])].into();
        assert_eq!(set.decode(&held), [Element::new([Value::Address(address("10.0.0.1"))])].into());
    }
}
