//! How much there is of what, so that nobody has to read all to learn that there is no more: two maps that change in
//! the same transaction as what they count.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use netlink::nftables::Client;
use ruleset::iptables::PortRange;
use ruleset::nft::{Element, Encoded, Key as SetKey, Set, Value};

use super::class::TABLE;
use super::elements::{self, Part};
use crate::portmap::mapping::{Key, Protocol};

/// The number of an attachment's elements. It is looked up by the two hashes with which their comments begin: together
/// they are as long as an address of IPv6.
const ATTACHMENTS: &str = "attachments";
/// How often a port is published of one of the host's addresses alone: asked for by who wants it of all of them.
const BOUND: &str = "bound";
/// What the maps are called.
pub(super) const NAMES: [&str; 2] = [ATTACHMENTS, BOUND];
/// How many hexadecimal digits a hash has.
const HASH_LENGTH: usize = 16;

/// The maps.
pub(super) fn sets() -> [Set; 2] {
    let count = [SetKey::Port];
    [
        Set::new(ATTACHMENTS, [SetKey::Ipv6]).to_values(count),
        Set::new(BOUND, [SetKey::Protocol, SetKey::Port]).to_values(count),
    ]
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// An attachment's elements.
    Attachment(Ipv6Addr),
    /// Those of a port that are for one of the host's addresses.
    Bound(Protocol, u16),
}

impl Entry {
    /// That of the attachment whose elements have this comment; `None` when it is nobody's.
    pub(super) fn of_comment(comment: &str) -> Option<Self> {
        let (network, rest) = comment.split_once('-')?;
        let attachment = rest.get(..HASH_LENGTH).filter(|_| network.len() == HASH_LENGTH)?;
        let half = |digits: &str| u64::from_str_radix(digits, 16).ok().map(u128::from);
        Some(Self::Attachment(Ipv6Addr::from(half(network)? << 64 | half(attachment)?)))
    }

    /// That of a port.
    pub(super) const fn of_port(key: &Key) -> Self {
        Self::Bound(key.protocol, key.port)
    }

    /// As what an element of a set counts.
    fn of_element(set: &Set, element: &Encoded) -> impl Iterator<Item = Self> {
        let attachment = element.comment.as_deref().and_then(Self::of_comment);
        let published = Part::named(&set.name).and_then(|it| elements::read(it.0, set, element));
        let bound = published.filter(|(key, _)| key.address.is_some());
        attachment.into_iter().chain(bound.map(|(key, _)| Self::of_port(&key)))
    }

    fn encoded(self, count: u16) -> Option<(Set, Encoded)> {
        let [attachments, bound] = sets();
        let (set, key) = match self {
            Self::Attachment(hashes) => (attachments, vec![Value::Address(hashes.into())]),
            Self::Bound(protocol, port) => {
                (bound, vec![Value::Protocol(protocol.number()), number(port)])
            }
        };
        let element = Element::new(key).leading_to_values([number(count)]);
        set.encode(&element).pop().map(|element| (set, element))
    }
}

fn number(number: u16) -> Value {
    Value::Ports(PortRange { first: number, last: number })
}

/// Counts: of all, or what was looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index(BTreeMap<Entry, u16>);

impl Index {
    /// What the kernel holds of a count, which is asked for once.
    pub(super) fn look_up(
        &mut self,
        client: &mut Client,
        entry: Entry,
    ) -> Result<u16, netlink::Error> {
        if let Some(count) = self.0.get(&entry) {
            return Ok(*count);
        }
        let mut count = 0;
        if let Some((set, element)) = entry.encoded(count) {
            let found = client.element(TABLE, &set.name, &element)?;
            count = found.and_then(|it| read(&set, it)).unwrap_or_default();
        }
        self.0.insert(entry, count);
        Ok(count)
    }

    /// A set has these elements too. A host has not as many addresses, nor an attachment as many elements, as
    /// would be too many to count.
    pub(super) fn add<'a>(&mut self, set: &Set, elements: impl IntoIterator<Item = &'a Encoded>) {
        for entry in elements.into_iter().flat_map(|it| Entry::of_element(set, it)) {
            let count = self.0.entry(entry).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// A set has these elements no more.
    pub(super) fn remove<'a>(
        &mut self,
        set: &Set,
        elements: impl IntoIterator<Item = &'a Encoded>,
    ) {
        for entry in elements.into_iter().flat_map(|it| Entry::of_element(set, it)) {
            let count = self.0.entry(entry).or_default();
            *count = count.saturating_sub(1);
        }
    }

    /// The maps' elements by these counts, without those that are the same by others.
    pub(super) fn elements_beside(&self, others: &Self) -> BTreeMap<String, Vec<Encoded>> {
        let mut elements: BTreeMap<String, Vec<Encoded>> = BTreeMap::new();
        let differing = self.0.iter().filter(|(entry, count)| others.0.get(entry) != Some(count));
        let counted = differing.filter(|(_, count)| **count > 0);
        for (set, element) in counted.filter_map(|(entry, count)| entry.encoded(*count)) {
            elements.entry(set.name).or_default().push(element);
        }
        elements
    }
}

/// The count that an element leads to.
fn read(set: &Set, element: Encoded) -> Option<u16> {
    let element = set.decode(&[element].into()).pop_first()?;
    match element.data.first()? {
        Value::Ports(ports) => Some(ports.first),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::Owner;

    fn element(part: Part, key: &str, comment: &str) -> (Set, Encoded) {
        let set = part.set("");
        let values: Vec<Value> = key
            .split(' ')
            .map(|word| match (word.parse(), word.parse()) {
                (Ok(address), _) => Value::Address(address),
                (_, Ok(port)) => number(port),
                _ => Value::Protocol(6),
            })
            .collect();
        let to = [Value::Address([10, 1, 0, 2].into()), number(80)];
        let element = Element::new(values).leading_to_values(to).commented(comment);
        let encoded = set.encode(&element).pop().unwrap();
        (set, encoded)
    }

    #[test]
    fn whose_an_element_is_is_looked_up_by_what_its_comment_begins_with() {
        let comment = Owner::new("n1", "cid1", "eth0").comment;
        let hashes = "43d9:1f84:5105:8a70:0b65:a318:f52e:521b".parse().unwrap();
        assert_eq!(Entry::of_comment(&comment), Some(Entry::Attachment(hashes)));
        for strange in ["", "a comment", "43d91f8451058a70-0b65", "-43d91f8451058a70", "ä-ä"] {
            assert_eq!(Entry::of_comment(strange), None, "{strange}");
        }
    }

    #[test]
    fn what_comes_and_goes_is_counted() {
        let comment = Owner::new("n1", "cid1", "eth0").comment;
        let owner = Entry::of_comment(&comment).unwrap();
        let (part, bound) = (Part::Addresses { is_ipv4: true }, Entry::Bound(Protocol::Tcp, 8080));
        let (set, one) = element(part, "192.0.2.1 tcp 8080", &comment);
        let (_, two) = element(part, "192.0.2.2 tcp 8080", "somebody's");
        let mut index = Index::default();
        index.add(&set, &[one.clone(), two]);
        let ports = Part::Ports { is_ipv4: true };
        let (set_of_ports, of_all) = element(ports, "tcp 8081", &comment);
        index.add(&set_of_ports, &[of_all]);
        assert_eq!(index, Index([(owner, 2), (bound, 2)].into()));
        let before = index.clone();
        index.remove(&set, &[one]);
        assert_eq!(index, Index([(owner, 1), (bound, 1)].into()));
        let names = |it: BTreeMap<String, Vec<Encoded>>| it.into_keys().collect::<Vec<_>>();
        assert_eq!(names(index.elements_beside(&before)), [ATTACHMENTS, BOUND]);
        assert_eq!(names(index.elements_beside(&index)), [""; 0]);
        // What there is nothing of has no element.
        let none = Index([(owner, 0), (bound, 1)].into());
        assert_eq!(names(none.elements_beside(&before)), [BOUND]);
    }

    #[test]
    fn a_count_is_read_as_it_is_written() {
        for count in [1, 300, u16::MAX] {
            let (set, element) = Entry::Bound(Protocol::Udp, 53).encoded(count).unwrap();
            assert_eq!(read(&set, element), Some(count));
        }
    }
}
